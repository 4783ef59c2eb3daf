//! Answering IKE_SA_INIT (RFC 7296 sections 1.2 and 2.6). Nothing in it is authenticated, so it costs
//! as little as possible, and no state at all before the peer was seen to receive our answers.

use std::net::SocketAddrV4;

use holdfast_crypto::PrivateKey;
use holdfast_packet::Nanos;
use rand_core::Rng;

use crate::algorithm::{IkeSuite, choose_ike};
use crate::codec::{
    Chain, Contents, HEADER_LEN, Header, KeyExchange, Malformed, Notify, NotifyType, PayloadType,
    Proposal,
};
use crate::half_open::HalfOpen;
use crate::keys::{IkeKeys, Nonces, skeyseed};
use crate::nat::{Nat, nat_hash};
use crate::sa::Path;
use crate::{Datagram, Ike, IkeSpi, Refusal};

/// Octets of our nonces: half of the longest PRF key there is (RFC 7296 section 2.10).
pub(crate) const NONCE_LEN: usize = 32;
/// Entries of the half-open table per half-open IKE SA: answered ones linger to absorb repetitions.
const ANSWERED_FACTOR: usize = 8;
/// IKE SAs one endpoint holds; what the replicated state holds too.
pub(crate) const IKE_SAS_MAX: usize = 65_536;

/// What an IKE_SA_INIT request must bring.
struct InitRequest<'a> {
    contents: Contents<'a>,
    proposals: Vec<Proposal>,
    ke: KeyExchange<'a>,
    nonce: &'a [u8],
}

impl<'a> InitRequest<'a> {
    fn parse(first: PayloadType, message: &'a [u8]) -> Result<Self, Malformed> {
        let contents = Contents::parse(first, message, HEADER_LEN)?;
        if contents.encrypted.is_some() {
            return Err(Malformed::Value);
        }
        let ke = contents.key_exchange()?.ok_or(Malformed::Missing(PayloadType::KE.0))?;
        let (proposals, nonce) = (contents.proposals()?, contents.nonce()?);
        Ok(Self { contents, proposals, ke, nonce })
    }
}

impl Ike {
    pub(crate) fn handle_init(
        &mut self,
        now: Nanos,
        datagram: &Datagram,
        header: &Header,
        first: PayloadType,
    ) {
        if header.response || !header.from_initiator || header.spi_i == 0 {
            return self.counters.count(Refusal::UnexpectedExchange);
        }
        if header.spi_r != 0 || header.message_id != 0 {
            return self.counters.count(Refusal::UnexpectedExchange);
        }
        let known = self.half_open.by_request(datagram.remote, header.spi_i, &datagram.payload);
        if let Some(known) = known {
            // The peer did not get our answer; once IKE_AUTH was answered it did (section 2.1).
            if known.answered.is_none() {
                let response = [known.response.clone()];
                self.counters.repeated_responses += 1;
                self.step.datagrams.extend(Path::of(datagram).carry(&response));
            }
            return;
        }
        let Ok(request) = InitRequest::parse(first, &datagram.payload) else {
            return self.counters.count(Refusal::Malformed);
        };
        if let Some(kind) = request.contents.unknown_critical {
            self.counters.count(Refusal::UnknownCritical);
            let data = [kind.0];
            let notify = Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &data);
            return self.refuse_init(datagram, header, &notify);
        }
        if !self.admits(now, datagram, header, &request) {
            return;
        }
        self.choose(now, datagram, header, &request);
    }

    /// Whether there is room for one more half-open IKE SA; demands a cookie where there is little.
    fn admits(
        &mut self,
        now: Nanos,
        datagram: &Datagram,
        header: &Header,
        request: &InitRequest<'_>,
    ) -> bool {
        let open = self.half_open.open();
        let limit = self.config.half_open_limit;
        if open >= limit || self.half_open.len() >= limit.saturating_mul(ANSWERED_FACTOR) {
            self.counters.count(Refusal::HalfOpenLimit);
            return false;
        }
        if self.sas.len() >= IKE_SAS_MAX {
            self.counters.count(Refusal::SaLimit);
            return false;
        }
        if open < self.config.half_open_cookie_threshold {
            return true;
        }
        self.cookies.refresh(now, &mut self.random);
        let (nonce, from, spi_i) = (request.nonce, datagram.remote, header.spi_i);
        let cookie = request.contents.notify(NotifyType::COOKIE);
        if cookie.is_some_and(|cookie| self.cookies.accepts(cookie.data, nonce, from, spi_i)) {
            return true;
        }
        self.counters.count(Refusal::CookieDemanded);
        let cookie = self.cookies.demand(nonce, from, spi_i);
        self.refuse_init(datagram, header, &Notify::new(NotifyType::COOKIE, &cookie));
        false
    }

    /// Chooses algorithms and goes on, or refuses.
    fn choose(
        &mut self,
        now: Nanos,
        datagram: &Datagram,
        header: &Header,
        request: &InitRequest<'_>,
    ) {
        let allowed: Vec<_> =
            self.config.connections.iter().flat_map(|c| c.ike_proposals.clone()).collect();
        let chosen = choose_ike(&allowed, &request.proposals, request.ke.group);
        let Some((suite, number, _)) = chosen else {
            self.counters.count(Refusal::NoProposal);
            let notify = Notify::new(NotifyType::NO_PROPOSAL_CHOSEN, &[]);
            return self.refuse_init(datagram, header, &notify);
        };
        let group = suite.group.transform_id();
        if group != request.ke.group {
            self.counters.count(Refusal::InvalidKe);
            let wanted = group.to_be_bytes();
            let notify = Notify::new(NotifyType::INVALID_KE_PAYLOAD, &wanted);
            return self.refuse_init(datagram, header, &notify);
        }
        self.agree(now, datagram, header, (request, suite, number));
    }

    /// Completes the key exchange and answers; the IKE SA is half-open then.
    fn agree(
        &mut self,
        now: Nanos,
        datagram: &Datagram,
        header: &Header,
        (request, suite, number): (&InitRequest<'_>, IkeSuite, u8),
    ) {
        let private = PrivateKey::generate(suite.group, &mut self.random);
        let Ok(shared) = private.agree(request.ke.public) else {
            return self.counters.count(Refusal::PublicValue);
        };
        let spi_r = self.draw_ike_spi();
        let nonce_r = self.draw_nonce();
        let nonces = Nonces { i: request.nonce, r: &nonce_r };
        let seed = skeyseed(suite.prf, nonces, &shared);
        let Ok(keys) = IkeKeys::derive(&suite, &seed, nonces, header.spi_i, spi_r.0) else {
            return self.counters.count(Refusal::PublicValue);
        };
        let local = SocketAddrV4::new(self.config.local, datagram.local_port);
        let fragmentation = request.contents.notify(NotifyType::FRAGMENTATION_SUPPORTED).is_some();
        let response = init_response(
            &Header { spi_r: spi_r.0, ..header.reply() },
            &suite.proposal(number, Vec::new()),
            &KeyExchange { group: suite.group.transform_id(), public: &private.public_bytes() },
            &nonce_r,
            &InitExtras { local, remote: datagram.remote, fragmentation },
        );
        self.step.datagrams.extend(Path::of(datagram).carry(std::slice::from_ref(&response)));
        let nat = Nat::detect(&request.contents, header.spi_i, 0, local, datagram.remote);
        self.half_open.insert(
            now,
            HalfOpen {
                spi_i: header.spi_i,
                spi_r,
                remote: datagram.remote,
                request: datagram.payload.clone(),
                response,
                nonce_i: request.nonce.to_vec(),
                nonce_r,
                suite,
                keys,
                nat,
                fragmentation,
                fragments: None,
                sealed: 0,
                answered: None,
            },
        );
    }

    /// Refuses without making state; the responder's SPI stays zero (section 2.6).
    fn refuse_init(&mut self, datagram: &Datagram, header: &Header, notify: &Notify<'_>) {
        let mut chain = Chain::new();
        chain.notify(notify);
        let response = plain_message(&header.reply(), &chain);
        self.step.datagrams.extend(Path::of(datagram).carry(&[response]));
    }

    /// A fresh SPI for an IKE SA: not zero and not in use.
    pub(crate) fn draw_ike_spi(&mut self) -> IkeSpi {
        loop {
            let spi = IkeSpi(self.random.next_u64());
            let taken = self.sas.contains_key(&spi)
                || self.half_open.contains(spi)
                || self.initiations.contains_key(&spi);
            if spi.0 != 0 && !taken && !self.departed.contains_key(&spi) {
                return spi;
            }
        }
    }

    /// A fresh nonce.
    pub(crate) fn draw_nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_LEN];
        self.random.fill_bytes(&mut nonce);
        nonce
    }
}

/// What an IKE_SA_INIT message says besides the negotiation.
pub(crate) struct InitExtras {
    /// Where it is sent from.
    pub(crate) local: SocketAddrV4,
    /// Where it is sent to.
    pub(crate) remote: SocketAddrV4,
    /// Whether it announces fragmentation.
    pub(crate) fragmentation: bool,
}

fn init_response(
    header: &Header,
    proposal: &Proposal,
    ke: &KeyExchange<'_>,
    nonce: &[u8],
    extras: &InitExtras,
) -> Vec<u8> {
    let mut chain = Chain::new();
    chain.push(PayloadType::SA, Proposal::emit_all(std::slice::from_ref(proposal)));
    chain.push(PayloadType::KE, ke.emit());
    chain.push(PayloadType::NONCE, nonce.to_vec());
    extras.append(header, &mut chain);
    plain_message(header, &chain)
}

impl InitExtras {
    /// Appends NAT detection and what we support (RFC 7296 section 2.23, RFC 7383 section 2.3).
    pub(crate) fn append(&self, header: &Header, chain: &mut Chain) {
        let (spi_i, spi_r) = (header.spi_i, header.spi_r);
        let source = nat_hash(spi_i, spi_r, *self.local.ip(), self.local.port());
        let destination = nat_hash(spi_i, spi_r, *self.remote.ip(), self.remote.port());
        chain.notify(&Notify::new(NotifyType::NAT_DETECTION_SOURCE_IP, &source));
        chain.notify(&Notify::new(NotifyType::NAT_DETECTION_DESTINATION_IP, &destination));
        if self.fragmentation {
            chain.notify(&Notify::new(NotifyType::FRAGMENTATION_SUPPORTED, &[]));
        }
    }
}

/// A message that nothing protects.
pub(crate) fn plain_message(header: &Header, chain: &Chain) -> Vec<u8> {
    let body = chain.emit();
    let mut message = header.emit(chain.first().0, HEADER_LEN + body.len());
    message.extend_from_slice(&body);
    message
}

impl crate::IkeProposal {
    /// Whether this allows a suite that was chosen before the peer's connection was known.
    pub(crate) fn allows(&self, suite: &IkeSuite) -> bool {
        self.encryption.contains(&suite.encryption)
            && self.prf.contains(&suite.prf)
            && self.groups.contains(&suite.group)
            && suite.integrity.is_none_or(|integrity| self.integrity.contains(&integrity))
    }
}
