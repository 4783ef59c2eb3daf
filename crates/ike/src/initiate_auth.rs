//! The answer to our IKE_AUTH: the peer proves who it is, and the IKE SA stands (RFC 7296 section 1.2).

use holdfast_ipsec::{ChildSaParameters, Spi};
use holdfast_packet::Nanos;

use crate::algorithm::{ChildRequest, ChildSuite, choose_child};
use crate::auth::{Authenticated, METHOD_SHARED_KEY, SignedOctets};
use crate::codec::{Contents, ExchangeType, Header, Malformed, NotifyType};
use crate::config::{Connection, Identity};
use crate::initiate::{Auth, Initiation, Stage};
use crate::keys::{ChildKeys, Nonces};
use crate::protect::DirectionKeys;
use crate::rekey_child::accepted_selectors;
use crate::sa::{IkeSa, Path, Phase, Seed, Task};
use crate::sync::SyncSupport;
use crate::{Datagram, Ike, IkeSpi, Outcome, Refusal};

impl Ike {
    /// A protected message for an IKE SA that we have begun.
    pub(crate) fn handle_auth_response(
        &mut self,
        now: Nanos,
        datagram: &Datagram,
        (header, outer): (&Header, &Contents<'_>),
    ) {
        let spi = IkeSpi(header.spi_i);
        let expected =
            header.response && header.exchange == ExchangeType::IkeAuth && header.message_id == 1;
        let Some(mut begun) = self.take_initiation(spi) else { return };
        let mut opened = None;
        if let Stage::Auth(auth) = &mut begun.stage
            && expected
            && auth.spi_r == header.spi_r
        {
            let keys = DirectionKeys::new(&auth.suite, &auth.keys, false);
            let slot = (keys, &mut auth.fragments, false);
            let message = (&*datagram.payload, header, outer);
            opened = Self::open_message(now, &mut self.counters, slot, message);
        } else {
            self.counters.count(Refusal::UnexpectedResponse);
        }
        let Some((first, content)) = opened else { return self.put_initiation(spi, begun) };
        match Contents::parse(first, &content, 0) {
            Ok(contents) => self.conclude(now, spi, begun, (datagram, &contents)),
            Err(_) => self.give_up(spi, begun, Refusal::BadResponse),
        }
    }

    /// Establishes the IKE SA and its Child SA, or says why not.
    fn conclude(
        &mut self,
        now: Nanos,
        spi: IkeSpi,
        begun: Initiation,
        (datagram, contents): (&Datagram, &Contents<'_>),
    ) {
        let connection = self.config.connections.iter().find(|c| c.name == begun.dial.connection);
        let Some(connection) = connection.cloned() else {
            return self.give_up(spi, begun, Refusal::UnknownIdentity);
        };
        let Stage::Auth(auth) = &begun.stage else { return };
        let Some(proof) = verify(auth, &connection, begun.dial.identity.as_ref(), contents) else {
            let refused = contents.notify(NotifyType::AUTHENTICATION_FAILED).is_some();
            let refusal = if refused || contents.error().is_none() {
                Refusal::AuthenticationFailed
            } else {
                refusal_of(contents)
            };
            return self.give_up(spi, begun, refusal);
        };
        let mut sa = IkeSa::establish(
            proof,
            Seed {
                local_spi: spi,
                remote_spi: auth.spi_r,
                original_initiator: true,
                path: Path::of(datagram),
                nat: auth.nat,
                fragmentation: auth.fragmentation,
                suite: auth.suite,
                keys: auth.keys.clone(),
            },
        );
        sa.sealed = auth.sealed;
        sa.next_request = 2;
        sa.sync = SyncSupport::asserted(contents).and(connection.sync_support());
        self.counters.established += 1;
        self.schedule(now, &mut sa);
        let old = begun.dial.replaces;
        match self.begun_child(&sa, auth, &connection, contents) {
            Ok((parameters, suite)) => {
                self.install(now, &mut sa, &connection, (parameters, suite, None));
                self.replace(now, old);
                self.outcomes.push_back(Outcome::Reestablished { old, new: spi });
            }
            Err(_) => {
                // An IKE SA without what it was begun for serves nobody.
                let reason = refusal_of(contents);
                self.counters.count(reason);
                sa.phase = Phase::Closing;
                sa.tasks.insert(Task::CloseIke);
                self.outcomes.push_back(Outcome::NotReestablished { old, reason });
            }
        }
        self.start_next(now, &mut sa);
        self.keep(sa);
    }

    /// The old IKE SA is deleted at the peer with its own keys, or its record when those are not there.
    fn replace(&mut self, now: Nanos, old: IkeSpi) {
        let Some(mut sa) = self.sas.remove(&old) else {
            self.step.gone.insert(old);
            return;
        };
        sa.phase = Phase::Closing;
        sa.tasks.insert(Task::CloseIke);
        self.start_next(now, &mut sa);
        self.keep(sa);
    }

    /// Checks what the peer accepted of the Child SA and derives its keys.
    fn begun_child(
        &self,
        sa: &IkeSa,
        auth: &Auth,
        connection: &Connection,
        contents: &Contents<'_>,
    ) -> Result<(ChildSaParameters, ChildSuite), Malformed> {
        let chosen = contents.proposals()?;
        let request = ChildRequest { esn: connection.esn, ke_group: None };
        let (suite, number, outbound) =
            choose_child(&connection.esp_proposals, &chosen, request).ok_or(Malformed::Value)?;
        let [chosen] = chosen.as_slice() else { return Err(Malformed::Value) };
        if !chosen.has_exactly(&suite.proposal(number, Vec::new())) {
            return Err(Malformed::Value);
        }
        let nonces = Nonces { i: &auth.nonce_i, r: &auth.nonce_r };
        let keys = ChildKeys::derive(auth.suite.prf, &auth.keys.d, suite.cipher, None, nonces)
            .map_err(|_| Malformed::Value)?;
        let parameters = ChildSaParameters {
            inbound_spi: auth.inbound,
            outbound_spi: Spi::new(outbound).map_err(|_| Malformed::Value)?,
            inbound_key: keys.from_responder,
            outbound_key: keys.from_initiator,
            esn: suite.esn,
            window_packets: connection.replay_window,
            local: self.config.local,
            remote: *sa.path.remote.ip(),
            encapsulation: sa.path.encapsulation(sa.nat),
            selectors: accepted_selectors(connection, contents)?,
            connection: connection.name.clone(),
        };
        Ok((parameters, suite))
    }
}

/// The peer's proof: its identity is the one wanted, and it knows the key (section 2.15).
fn verify(
    auth: &Auth,
    connection: &Connection,
    wanted: Option<&Identity>,
    contents: &Contents<'_>,
) -> Option<Authenticated> {
    let id = contents.id_r().ok()?;
    let identity = Identity::parse(id).ok()?;
    let meant = |wanted: &Identity| *wanted == identity;
    if !wanted.is_none_or(meant) || !connection.remote_identity.as_ref().is_none_or(meant) {
        return None;
    }
    let (method, mac) = contents.auth().ok()??;
    let signed = SignedOctets {
        prf: auth.suite.prf,
        p: &auth.keys.pr,
        message: &auth.response,
        nonce: &auth.nonce_i,
        id,
    };
    let proof = Authenticated::verify(connection, &identity, &signed, mac);
    proof.filter(|_| method == METHOD_SHARED_KEY)
}

fn refusal_of(contents: &Contents<'_>) -> Refusal {
    match contents.error().map(|error| error.kind) {
        Some(NotifyType::NO_PROPOSAL_CHOSEN) => Refusal::NoProposal,
        Some(NotifyType::TS_UNACCEPTABLE) => Refusal::SelectorsUnacceptable,
        _ => Refusal::BadResponse,
    }
}
