//! Answering IKE_AUTH with a pre-shared key (RFC 7296 sections 1.2 and 2.15).

use holdfast_crypto::{PrfAlgorithm, SecretBytes};
use holdfast_packet::Nanos;
use subtle::ConstantTimeEq;

use crate::codec::{
    Chain, Contents, ExchangeType, Header, Notify, NotifyType, PayloadType, Writer,
};
use crate::config::{Connection, Identity};
use crate::half_open::HalfOpen;
use crate::keys::Nonces;
use crate::protect::{DirectionKeys, IvSource};
use crate::sa::{IkeSa, Path, Seed};
use crate::sync::SyncSupport;
use crate::{Datagram, Ike, IkeSpi, Refusal};

/// Shared Key Message Integrity Code (section 3.8).
pub(crate) const METHOD_SHARED_KEY: u8 = 2;
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// Proof that a peer showed who it is. An established IKE SA cannot be made without one, and there are
/// three ways to get one: [`verify`](Self::verify) an AUTH payload, have it from the IKE SA that is
/// being rekeyed (a clone), or read it from a record that was committed because of one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authenticated {
    identity: Identity,
    connection: String,
}

/// What an AUTH payload covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignedOctets<'a> {
    pub(crate) prf: PrfAlgorithm,
    /// SK_pi or SK_pr of the signer.
    pub(crate) p: &'a SecretBytes,
    /// The signer's IKE_SA_INIT message.
    pub(crate) message: &'a [u8],
    /// The other side's nonce.
    pub(crate) nonce: &'a [u8],
    /// The body of the signer's Identification payload.
    pub(crate) id: &'a [u8],
}

impl SignedOctets<'_> {
    /// `prf(prf(Shared Secret, "Key Pad for IKEv2"), <SignedOctets>)`.
    pub(crate) fn mac(&self, psk: &SecretBytes) -> SecretBytes {
        let key = self.prf.prf(psk.as_bytes(), &[KEY_PAD]);
        let id = self.prf.prf(self.p.as_bytes(), &[self.id]);
        self.prf.prf(key.as_bytes(), &[self.message, self.nonce, id.as_bytes()])
    }
}

impl Authenticated {
    /// Checks an AUTH payload against the key of a connection.
    pub(crate) fn verify(
        connection: &Connection,
        identity: &Identity,
        signed: &SignedOctets<'_>,
        auth: &[u8],
    ) -> Option<Self> {
        let expected = signed.mac(&connection.psk);
        let equal: bool = expected.as_bytes().ct_eq(auth).into();
        equal.then(|| Self { identity: identity.clone(), connection: connection.name.clone() })
    }

    /// Reads back what [`verify`](Self::verify) once proved, from a committed record.
    pub(crate) const fn from_committed_record(identity: Identity, connection: String) -> Self {
        Self { identity, connection }
    }

    /// Who the peer is.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The name of the connection it may use.
    pub(crate) fn connection(&self) -> &str {
        &self.connection
    }
}

/// The body of an AUTH payload.
pub(crate) fn auth_body(mac: &SecretBytes) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(METHOD_SHARED_KEY).bytes(&[0; 3]).bytes(mac.as_bytes());
    writer.into_bytes()
}

/// A refusal of IKE_AUTH and why.
type Refused = (NotifyType, Refusal);
const FAILED: NotifyType = NotifyType::AUTHENTICATION_FAILED;

impl Ike {
    /// Handles a protected message for a half-open IKE SA.
    pub(crate) fn handle_auth(
        &mut self,
        now: Nanos,
        datagram: &Datagram,
        header: &Header,
        outer: &Contents<'_>,
    ) {
        let spi = IkeSpi(header.spi_r);
        let Some(half_open) = self.half_open.get_mut(spi) else { return };
        let expected = header.exchange == ExchangeType::IkeAuth
            && !header.response
            && header.from_initiator
            && header.spi_i == half_open.spi_i;
        if !expected || header.message_id != 1 {
            return self.counters.count(Refusal::UnexpectedExchange);
        }
        let keys = DirectionKeys::new(&half_open.suite, &half_open.keys, true);
        let opened = Self::open_message(
            now,
            &mut self.counters,
            (keys, &mut half_open.fragments, half_open.answered.is_some()),
            (&datagram.payload, header, outer),
        );
        let Some((first, content)) = opened else { return };
        if let Some(answer) = half_open.answered.clone() {
            self.counters.repeated_responses += 1;
            self.step.datagrams.extend(Path::of(datagram).carry(&answer));
            return;
        }
        let inner = Contents::parse(first, &content, 0);
        let outcome = match inner {
            Err(_) => Err((NotifyType::INVALID_SYNTAX, Refusal::InvalidSyntax)),
            Ok(contents) => match contents.unknown_critical {
                Some(kind) => return self.refuse_critical(spi, datagram, header, kind),
                None => self.authenticate(now, spi, datagram, header, &contents),
            },
        };
        if let Err((kind, refusal)) = outcome {
            self.counters.count(refusal);
            self.refuse_auth(spi, datagram, header, &Notify::new(kind, &[]));
        }
    }

    fn refuse_critical(
        &mut self,
        spi: IkeSpi,
        datagram: &Datagram,
        header: &Header,
        kind: PayloadType,
    ) {
        self.counters.count(Refusal::UnknownCritical);
        let data = [kind.0];
        let notify = Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &data);
        self.refuse_auth(spi, datagram, header, &notify);
    }

    /// Refuses under protection and forgets the keys; the refusal stays to be repeated.
    fn refuse_auth(
        &mut self,
        spi: IkeSpi,
        datagram: &Datagram,
        header: &Header,
        notify: &Notify<'_>,
    ) {
        let Some(half_open) = self.half_open.get_mut(spi) else { return };
        let mut chain = Chain::new();
        chain.notify(notify);
        let keys = DirectionKeys::new(&half_open.suite, &half_open.keys, false);
        let mut iv = IvSource { counter: &mut half_open.sealed, random: &mut self.random };
        let Ok(answer) = keys.seal(&header.reply(), &chain, None, &mut iv) else { return };
        self.step.datagrams.extend(Path::of(datagram).carry(&answer));
        self.half_open.answer(spi, answer);
    }

    /// Verifies the peer, establishes the IKE SA, and makes its first Child SA if that can be.
    fn authenticate(
        &mut self,
        now: Nanos,
        spi: IkeSpi,
        datagram: &Datagram,
        header: &Header,
        contents: &Contents<'_>,
    ) -> Result<(), Refused> {
        let syntax = (NotifyType::INVALID_SYNTAX, Refusal::InvalidSyntax);
        let Some(half_open) = self.half_open.get_mut(spi) else { return Ok(()) };
        let id_body = contents.id_i().map_err(|_| syntax)?;
        let identity = Identity::parse(id_body).map_err(|_| syntax)?;
        // Without AUTH the peer asks for EAP, which we do not have.
        let (method, auth) =
            contents.auth().map_err(|_| syntax)?.ok_or((FAILED, Refusal::AuthenticationMethod))?;
        if method != METHOD_SHARED_KEY {
            return Err((FAILED, Refusal::AuthenticationMethod));
        }
        let (authenticated, connection) =
            verify(&self.config.connections, half_open, &identity, (id_body, auth))?;
        let connection = connection.clone();
        let seed = Seed {
            local_spi: spi,
            remote_spi: half_open.spi_i,
            original_initiator: false,
            path: Path::of(datagram),
            nat: half_open.nat,
            fragmentation: half_open.fragmentation,
            suite: half_open.suite,
            keys: half_open.keys.clone(),
        };
        let mut chain = proof_of_ours(half_open, &self.config.local_identity, &connection);
        let (nonce_i, nonce_r) = (half_open.nonce_i.clone(), half_open.nonce_r.clone());
        let mut sa = IkeSa::establish(authenticated, seed);
        sa.sealed = half_open.sealed;
        sa.expected_request = 1;
        // A responder asserts nothing its initiator did not (RFC 6311 section 5).
        sa.sync = SyncSupport::asserted(contents).and(connection.sync_support());
        sa.sync.append(&mut chain);
        if contents.notify(NotifyType::INITIAL_CONTACT).is_some() {
            self.close_others(now, &identity, &connection);
        }
        self.counters.established += 1;
        self.schedule(now, &mut sa);
        let nonces = Nonces { i: &nonce_i, r: &nonce_r };
        self.first_child(now, &mut sa, &connection, contents, nonces, &mut chain);
        self.half_open.answer(spi, Vec::new());
        self.respond(&mut sa, datagram, header, &chain);
        self.keep(sa);
        Ok(())
    }

    /// The peer says this IKE SA is its only one: every other one is gone (section 2.4).
    fn close_others(&mut self, now: Nanos, identity: &Identity, connection: &Connection) {
        let others: Vec<_> = self
            .sas
            .iter()
            .filter(|(_, sa)| sa.belongs_to(identity, connection))
            .map(|(spi, _)| *spi)
            .collect();
        for spi in others {
            if let Some(sa) = self.sas.remove(&spi) {
                self.discard(now, sa);
            }
        }
    }
}

/// IDr and AUTH of our answer.
fn proof_of_ours(half_open: &HalfOpen, identity: &Identity, connection: &Connection) -> Chain {
    let id = identity.emit();
    let signed = SignedOctets {
        prf: half_open.suite.prf,
        p: &half_open.keys.pr,
        message: &half_open.response,
        nonce: &half_open.nonce_i,
        id: &id,
    };
    let mut chain = Chain::new();
    chain.push(PayloadType::ID_R, id.clone());
    chain.push(PayloadType::AUTH, auth_body(&signed.mac(&connection.psk)));
    chain
}

/// Finds the connection whose key the peer proved to know.
fn verify<'a>(
    connections: &'a [Connection],
    half_open: &HalfOpen,
    identity: &Identity,
    (id_body, auth): (&[u8], &[u8]),
) -> Result<(Authenticated, &'a Connection), Refused> {
    let signed = SignedOctets {
        prf: half_open.suite.prf,
        p: &half_open.keys.pi,
        message: &half_open.request,
        nonce: &half_open.nonce_r,
        id: id_body,
    };
    let mut refusal = Refusal::UnknownIdentity;
    for connection in connections {
        let meant = connection.remote_identity.as_ref().is_none_or(|wanted| wanted == identity);
        if !meant || !connection.ike_proposals.iter().any(|p| p.allows(&half_open.suite)) {
            continue;
        }
        refusal = Refusal::AuthenticationFailed;
        if let Some(proof) = Authenticated::verify(connection, identity, &signed, auth) {
            return Ok((proof, connection));
        }
    }
    Err((FAILED, refusal))
}
