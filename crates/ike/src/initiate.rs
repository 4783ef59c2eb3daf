//! Beginning an IKE SA: IKE_SA_INIT and IKE_AUTH as initiator with a pre-shared key (RFC 7296 sections
//! 1.2, 2.1, 2.4, 2.6, 2.7, 2.15 and 2.23), in place of one that a predecessor had.
//!
//! ```text
//!   reestablish, begin --> Init --cookie, other group--> Init --response--> Auth --response--> IkeSa
//!                          not replicated                                  committed before    the old one
//!                                                                          its request leaves  is deleted
//! ```
//!
//! The IKE_AUTH request makes the peer establish SAs, so what is needed to understand the answer is
//! committed before it leaves: a successor repeats the identical request and carries on.

use std::net::SocketAddrV4;

use holdfast_crypto::{Group, PrivateKey};
use holdfast_ipsec::{Selectors, Spi, TrafficSelector};
use holdfast_packet::Nanos;

use crate::Refusal;
use crate::algorithm::{IkeSuite, choose_ike};
use crate::auth::{SignedOctets, auth_body};
use crate::codec::{
    Chain, Contents, ExchangeType, Header, KeyExchange, Notify, NotifyType, PayloadType, Proposal,
    emit_selectors,
};
use crate::config::{Connection, Identity};
use crate::fragment::Reassembly;
use crate::init::{IKE_SAS_MAX, InitExtras, plain_message};
use crate::keys::{IkeKeys, Nonces, skeyseed};
use crate::nat::Nat;
use crate::protect::{DirectionKeys, IvSource};
use crate::sa::{Path, Phase};
use crate::{Datagram, Ike, IkeError, IkeSpi, Outcome};

/// IKE SAs being begun at a time; the caller paces far below.
const INITIATIONS_MAX: usize = 1_024;
/// Repetitions of one request before the peer is taken to be out of reach: about half a minute with
/// the default schedule.
pub(crate) const INITIATION_ATTEMPTS: u32 = 5;
/// Times a peer may answer IKE_SA_INIT with a cookie or another group: one each, and once more.
const DETOURS_MAX: u8 = 3;

/// What an IKE SA is begun with, as the records of the old one tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// The connection it is for: keys, proposals, what may be protected.
    pub connection: String,
    /// Our port, 500 or 4500, and where the peer was last.
    pub local_port: u16,
    /// The peer's address and port; behind a NAT what that gave it.
    pub peer: SocketAddrV4,
    /// Who it must prove to be; `None` leaves it to the connection.
    pub identity: Option<Identity>,
    /// What the Child SA is to protect.
    pub selectors: Selectors,
    /// The IKE SA whose place it takes.
    pub replaces: IkeSpi,
}

/// An IKE SA that we have begun and that is not established yet.
#[derive(Debug)]
pub(crate) struct Initiation {
    pub(crate) dial: Dial,
    pub(crate) path: Path,
    pub(crate) stage: Stage,
    pub(crate) attempt: u32,
    pub(crate) at: Nanos,
}

#[derive(Debug)]
pub(crate) enum Stage {
    Init(Box<Init>),
    Auth(Box<Auth>),
}

/// IKE_SA_INIT is under way.
#[derive(Debug)]
pub(crate) struct Init {
    nonce: Vec<u8>,
    private: PrivateKey,
    cookie: Option<Vec<u8>>,
    request: Vec<u8>,
    detours: u8,
}

/// IKE_AUTH is under way.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) spi_r: u64,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    pub(crate) nonce_i: Vec<u8>,
    pub(crate) nonce_r: Vec<u8>,
    /// The IKE_SA_INIT response, which IDr's AUTH covers.
    pub(crate) response: Vec<u8>,
    /// The inbound SPI offered for the Child SA.
    pub(crate) inbound: Spi,
    pub(crate) nat: Nat,
    pub(crate) fragmentation: bool,
    pub(crate) fragments: Option<Reassembly>,
    pub(crate) sealed: u64,
    /// The very octets, for repetition.
    pub(crate) messages: Vec<Vec<u8>>,
}

impl Ike {
    /// Begins a new IKE SA in place of one that was taken over, with what its record tells. When it
    /// stands, the old one is deleted at the peer, with its own keys. [`Outcome::Reestablished`] or
    /// [`Outcome::NotReestablished`] tells how it came out.
    ///
    /// # Errors
    /// [`IkeError::NoIkeSa`], [`IkeError::Busy`] when the old one is being replaced or closed or has
    /// nothing to protect, or as [`begin`](Self::begin).
    pub fn reestablish(&mut self, now: Nanos, old: IkeSpi) -> Result<(), IkeError> {
        let sa = self.sas.get(&old).ok_or(IkeError::NoIkeSa(old))?;
        if sa.phase != Phase::Established {
            return Err(IkeError::Busy);
        }
        let mut selectors = Selectors::default();
        for child in sa.children.values() {
            join(&mut selectors.local, &child.parameters.selectors.local);
            join(&mut selectors.remote, &child.parameters.selectors.remote);
        }
        let dial = Dial {
            connection: sa.authenticated.connection().to_owned(),
            local_port: sa.path.local_port,
            peer: sa.path.remote,
            identity: Some(sa.authenticated.identity().clone()),
            selectors,
            replaces: old,
        };
        self.begin(now, dial)
    }

    /// Begins a new IKE SA in place of one whose record cannot be read: see
    /// [`reestablish`](Self::reestablish). The old one cannot be deleted at the peer then; if it was
    /// the only one with it, INITIAL_CONTACT says that it is gone.
    ///
    /// # Errors
    /// [`IkeError::CannotBegin`] says why: nothing to protect, no such connection, too many at a time.
    pub fn begin(&mut self, now: Nanos, dial: Dial) -> Result<(), IkeError> {
        if self.initiations.values().any(|begun| begun.dial.replaces == dial.replaces) {
            return Ok(());
        }
        let connection = self.config.connections.iter().find(|c| c.name == dial.connection);
        let connection =
            connection.ok_or(IkeError::CannotBegin("its connection is not configured"))?;
        if dial.selectors.local.is_empty() || dial.selectors.remote.is_empty() {
            return Err(IkeError::CannotBegin("it has no Child SA"));
        }
        if self.initiations.len() >= INITIATIONS_MAX || self.sas.len() >= IKE_SAS_MAX {
            return Err(IkeError::CannotBegin("too many IKE SAs"));
        }
        let old = self.sas.get(&dial.replaces);
        let first = connection.ike_proposals.first().and_then(|p| p.groups.first()).copied();
        let group = old.map(|sa| sa.suite.group).or(first);
        let group = group.ok_or(IkeError::CannotBegin("its connection has no proposal"))?;
        let spi = self.draw_ike_spi();
        let nonce = self.draw_nonce();
        let private = PrivateKey::generate(group, &mut self.random);
        let path = Path { local_port: dial.local_port, remote: dial.peer };
        let mut init = Init { nonce, private, cookie: None, request: Vec::new(), detours: 0 };
        self.send_init(spi, (&dial, path), &mut init);
        self.counters.begun += 1;
        let at = now.plus_ms(self.config.retransmit.wait_ms(0).unwrap_or_default());
        let stage = Stage::Init(Box::new(init));
        self.put_initiation(spi, Initiation { dial, path, stage, attempt: 0, at });
        self.flush(now);
        Ok(())
    }

    pub(crate) fn put_initiation(&mut self, spi: IkeSpi, initiation: Initiation) {
        self.initiation_timers.insert((initiation.at, spi));
        self.initiations.insert(spi, initiation);
    }

    pub(crate) fn take_initiation(&mut self, spi: IkeSpi) -> Option<Initiation> {
        let initiation = self.initiations.remove(&spi)?;
        self.initiation_timers.remove(&(initiation.at, spi));
        Some(initiation)
    }

    fn send_init(&mut self, spi: IkeSpi, (dial, path): (&Dial, Path), init: &mut Init) {
        let Some(connection) = self.connection(&dial.connection) else { return };
        let header = Header {
            spi_i: spi.0,
            spi_r: 0,
            exchange: ExchangeType::IkeSaInit,
            from_initiator: true,
            response: false,
            message_id: 0,
        };
        let mut chain = Chain::new();
        // First of all payloads (section 2.6).
        if let Some(cookie) = &init.cookie {
            chain.notify(&Notify::new(NotifyType::COOKIE, cookie));
        }
        let offers: Vec<_> = (1..)
            .zip(&connection.ike_proposals)
            .map(|(number, proposal)| proposal.offer(number, Vec::new()))
            .collect();
        chain.push(PayloadType::SA, Proposal::emit_all(&offers));
        let group = init.private.group().transform_id();
        let ke = KeyExchange { group, public: &init.private.public_bytes() };
        chain.push(PayloadType::KE, ke.emit());
        chain.push(PayloadType::NONCE, init.nonce.clone());
        let extras = InitExtras {
            local: SocketAddrV4::new(self.config.local, path.local_port),
            remote: path.remote,
            fragmentation: true,
        };
        extras.append(&header, &mut chain);
        init.request = plain_message(&header, &chain);
        self.step.datagrams.extend(path.carry(std::slice::from_ref(&init.request)));
    }

    fn connection(&self, name: &str) -> Option<Connection> {
        self.config.connections.iter().find(|connection| connection.name == name).cloned()
    }

    /// A response to IKE_SA_INIT. Nothing in it is authenticated: an error may be forged, so it ends
    /// nothing before the time is over (section 2.21.1).
    pub(crate) fn handle_init_response(
        &mut self,
        now: Nanos,
        datagram: &Datagram,
        (header, outer): (&Header, &Contents<'_>),
    ) {
        let spi = IkeSpi(header.spi_i);
        let expected = header.message_id == 0 && !header.from_initiator;
        let Some(mut begun) = self.take_initiation(spi).filter(|_| expected) else {
            return self.counters.count(Refusal::UnexpectedResponse);
        };
        if let Stage::Init(init) = &mut begun.stage {
            if header.spi_r == 0 {
                self.take_detour(spi, (&begun.dial, begun.path), init, outer);
            } else if let Some(auth) = self.agree_init(&begun, (datagram, header, outer)) {
                begun.path = after_nat_detection(begun.path, auth.nat);
                self.step.datagrams.extend(begun.path.carry(&auth.messages));
                begun.attempt = 0;
                begun.at = now.plus_ms(self.config.retransmit.wait_ms(0).unwrap_or_default());
                begun.stage = Stage::Auth(Box::new(auth));
                self.step.dirty.insert(spi);
            } else {
                self.counters.count(Refusal::BadResponse);
            }
        } else {
            // Our IKE_AUTH request is under way: this is a repetition.
            self.counters.count(Refusal::UnexpectedResponse);
        }
        self.put_initiation(spi, begun);
    }

    /// The peer wants a cookie or another group before it makes state.
    fn take_detour(
        &mut self,
        spi: IkeSpi,
        (dial, path): (&Dial, Path),
        init: &mut Init,
        contents: &Contents<'_>,
    ) {
        if init.detours >= DETOURS_MAX {
            return self.counters.count(Refusal::BadResponse);
        }
        let wanted = contents.notify(NotifyType::INVALID_KE_PAYLOAD);
        let group = wanted
            .and_then(|notify| notify.data.try_into().map(u16::from_be_bytes).ok())
            .and_then(Group::from_transform_id)
            .filter(|group| self.offers_group(&dial.connection, *group));
        if let Some(cookie) = contents.notify(NotifyType::COOKIE) {
            init.cookie = Some(cookie.data.to_vec());
        } else if let Some(group) = group.filter(|group| *group != init.private.group()) {
            init.private = PrivateKey::generate(group, &mut self.random);
        } else {
            return self.counters.count(Refusal::BadResponse);
        }
        init.detours = init.detours.saturating_add(1);
        self.send_init(spi, (dial, path), init);
    }

    fn offers_group(&self, connection: &str, group: Group) -> bool {
        let proposals = self.connection(connection).map(|connection| connection.ike_proposals);
        proposals.is_some_and(|all| all.iter().any(|proposal| proposal.groups.contains(&group)))
    }

    /// The peer chose: derives the keys and prepares IKE_AUTH.
    fn agree_init(
        &mut self,
        begun: &Initiation,
        (datagram, header, contents): (&Datagram, &Header, &Contents<'_>),
    ) -> Option<Auth> {
        let Stage::Init(init) = &begun.stage else { return None };
        let connection = self.connection(&begun.dial.connection)?;
        let ke = contents.key_exchange().ok()??;
        let chosen = contents.proposals().ok()?;
        let (suite, number, _) = choose_ike(&connection.ike_proposals, &chosen, ke.group)?;
        let [chosen] = chosen.as_slice() else { return None };
        let group = init.private.group();
        // One of each and nothing else (section 3.3.6), in the group of the exchange.
        let exact = chosen.has_exactly(&suite.proposal(number, Vec::new()));
        if !exact || suite.group != group || ke.group != group.transform_id() {
            return None;
        }
        let shared = init.private.agree(ke.public).ok()?;
        let nonce_r = contents.nonce().ok()?.to_vec();
        let nonces = Nonces { i: &init.nonce, r: &nonce_r };
        let seed = skeyseed(suite.prf, nonces, &shared);
        let keys = IkeKeys::derive(&suite, &seed, nonces, header.spi_i, header.spi_r).ok()?;
        let local = SocketAddrV4::new(self.config.local, begun.path.local_port);
        let mut auth = Auth {
            spi_r: header.spi_r,
            suite,
            keys,
            nonce_i: init.nonce.clone(),
            nonce_r,
            response: datagram.payload.clone(),
            inbound: self.draw_spi(),
            nat: Nat::detect(contents, header.spi_i, header.spi_r, local, datagram.remote),
            fragmentation: contents.notify(NotifyType::FRAGMENTATION_SUPPORTED).is_some(),
            fragments: None,
            sealed: 0,
            messages: Vec::new(),
        };
        self.child_owners.insert(auth.inbound, IkeSpi(header.spi_i));
        auth.messages = self.auth_request(&begun.dial, &connection, &mut auth, (header, init))?;
        Some(auth)
    }

    fn auth_request(
        &mut self,
        dial: &Dial,
        connection: &Connection,
        auth: &mut Auth,
        (header, init): (&Header, &Init),
    ) -> Option<Vec<Vec<u8>>> {
        let id = self.config.local_identity.emit();
        let signed = SignedOctets {
            prf: auth.suite.prf,
            p: &auth.keys.pi,
            message: &init.request,
            nonce: &auth.nonce_r,
            id: &id,
        };
        let mut chain = Chain::new();
        chain.push(PayloadType::ID_I, id.clone());
        if self.is_first_contact(dial) {
            chain.notify(&Notify::new(NotifyType::INITIAL_CONTACT, &[]));
        }
        if let Some(identity) = &dial.identity {
            chain.push(PayloadType::ID_R, identity.emit());
        }
        chain.push(PayloadType::AUTH, auth_body(&signed.mac(&connection.psk)));
        connection.sync_support().append(&mut chain);
        chain.push(PayloadType::SA, Proposal::emit_all(&connection.esp_offers(auth.inbound)));
        chain.push(PayloadType::TS_I, emit_selectors(&dial.selectors.local));
        chain.push(PayloadType::TS_R, emit_selectors(&dial.selectors.remote));
        let header = Header {
            spi_i: header.spi_i,
            spi_r: header.spi_r,
            exchange: ExchangeType::IkeAuth,
            from_initiator: true,
            response: false,
            message_id: 1,
        };
        let limit = auth.fragmentation.then_some(self.room(4500));
        let mut iv = IvSource { counter: &mut auth.sealed, random: &mut self.random };
        DirectionKeys::new(&auth.suite, &auth.keys, true).seal(&header, &chain, limit, &mut iv).ok()
    }

    /// Whether this is the only IKE SA with the peer, for INITIAL_CONTACT says just that
    /// (section 2.4). While the old one is known it is not: that one is deleted by name.
    fn is_first_contact(&self, dial: &Dial) -> bool {
        let peer = dial.peer.ip();
        let elsewhere = |begun: &Initiation| begun.dial.peer.ip() == peer;
        !self.sas.values().any(|sa| sa.path.remote.ip() == peer)
            && self.initiations.values().filter(|begun| elsewhere(begun)).count() == 0
    }

    /// Does what has become due for the IKE SAs being begun.
    pub(crate) fn initiations_timeout(&mut self, now: Nanos) {
        while let Some((at, spi)) = self.initiation_timers.first().copied()
            && at <= now
        {
            let Some(mut begun) = self.take_initiation(spi) else {
                self.initiation_timers.remove(&(at, spi));
                continue;
            };
            begun.attempt = begun.attempt.saturating_add(1);
            let wait_ms = self.config.retransmit.wait_ms(begun.attempt);
            match wait_ms.filter(|_| begun.attempt <= INITIATION_ATTEMPTS) {
                Some(wait_ms) => {
                    begun.at = now.plus_ms(wait_ms);
                    self.counters.retransmissions += 1;
                    let messages = match &begun.stage {
                        Stage::Init(init) => std::slice::from_ref(&init.request),
                        Stage::Auth(auth) => auth.messages.as_slice(),
                    };
                    self.step.datagrams.extend(begun.path.carry(messages));
                    self.put_initiation(spi, begun);
                }
                None => self.give_up(spi, begun, Refusal::PeerUnresponsive),
            }
            self.flush(now);
        }
    }

    /// Lets an IKE SA that was being begun go, and says why.
    pub(crate) fn give_up(&mut self, spi: IkeSpi, begun: Initiation, reason: Refusal) {
        self.counters.count(reason);
        if let Stage::Auth(auth) = &begun.stage {
            self.child_owners.remove(&auth.inbound);
            self.step.gone.insert(spi);
        }
        self.outcomes.push_back(Outcome::NotReestablished { old: begun.dial.replaces, reason });
    }
}

/// Adds what is not there yet.
fn join(all: &mut Vec<TrafficSelector>, more: &[TrafficSelector]) {
    for selector in more {
        if !all.contains(selector) {
            all.push(*selector);
        }
    }
}

/// With a NAT on the way both sides go on with port 4500 (section 2.23).
fn after_nat_detection(path: Path, nat: Nat) -> Path {
    if nat.any() && path.local_port == 500 {
        Path { local_port: 4500, remote: SocketAddrV4::new(*path.remote.ip(), 4500) }
    } else {
        path
    }
}
