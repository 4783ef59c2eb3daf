//! What is known about one established IKE SA.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use holdfast_crypto::{Group, PrivateKey};
use holdfast_ipsec::{ChildSaParameters, Encapsulation, Spi};
use holdfast_packet::Nanos;

use crate::algorithm::{ChildSuite, IkeSuite};
use crate::auth::Authenticated;
use crate::codec::{ExchangeType, Header};
use crate::config::{Connection, Identity};
use crate::fragment::Reassembly;
use crate::keys::IkeKeys;
use crate::nat::Nat;
use crate::protect::DirectionKeys;
use crate::sync::{MessageIdSync, SyncSupport};
use crate::{Datagram, IkeSpi};

/// Child SAs one IKE SA may have, replaced ones included: peers use one or two.
pub(crate) const CHILDREN_MAX: usize = 32;

/// How datagrams get to the peer and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Our UDP port.
    pub(crate) local_port: u16,
    /// The peer's address and port as seen from here.
    pub(crate) remote: SocketAddrV4,
}

impl Path {
    /// Where a datagram came from.
    pub(crate) const fn of(datagram: &Datagram) -> Self {
        Self { local_port: datagram.local_port, remote: datagram.remote }
    }

    /// Datagrams that carry `messages` this way.
    pub(crate) fn carry(self, messages: &[Vec<u8>]) -> impl Iterator<Item = Datagram> + '_ {
        messages.iter().map(move |payload| Datagram {
            local_port: self.local_port,
            remote: self.remote,
            payload: payload.clone(),
        })
    }

    /// How ESP travels this way (RFC 7296 section 2.23).
    pub(crate) const fn encapsulation(self, nat: Nat) -> Encapsulation {
        if nat.any() {
            Encapsulation::Udp { local_port: 4500, remote_port: self.remote.port() }
        } else {
            Encapsulation::Esp
        }
    }
}

/// Where an IKE SA is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In use.
    Established,
    /// Rekeyed: the Child SAs belong to another IKE SA, this one waits to be deleted by the side that
    /// rekeyed it.
    Replaced,
    /// We are deleting it.
    Closing,
}

/// Where a Child SA is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildPhase {
    /// In use.
    Installed,
    /// The peer has rekeyed it and will delete it; packets under way still arrive on it.
    Replaced,
    /// Superfluous, and ours to delete.
    Closing,
}

/// One Child SA.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) parameters: ChildSaParameters,
    /// Group of the Diffie-Hellman exchange its keys come from, if it had one of its own.
    pub(crate) group: Option<Group>,
    pub(crate) phase: ChildPhase,
    /// The Child SA in whose place the peer made it, which stays until the peer deletes it. Not part of
    /// the record: see [`Ike::note_replacement`](crate::Ike::note_replacement).
    pub(crate) replaces: Option<Spi>,
    /// When we rekey it.
    pub(crate) rekey_at: Option<Nanos>,
    /// When it must not be used any more.
    pub(crate) expire_at: Option<Nanos>,
}

/// Something to be asked of the peer when the window is free, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    CloseIke,
    /// RFC 6311, with the delta asked for.
    Synchronise(u64),
    CloseChild(Spi),
    RekeyChild(Spi),
    RekeyIke,
    Disown(Stray),
    Liveness,
}

/// An SPI that the peer still sends to and that names nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stray {
    /// A Child SA had it that is gone.
    Deleted(Spi),
    /// Nobody here knows it.
    Unknown(Spi),
}

/// The peer's rekey of the SA that we are rekeying too (RFC 7296 sections 2.8.1 and 2.8.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collision<T> {
    /// The SA the peer's exchange made.
    pub(crate) made: T,
    /// The lower nonce of that exchange.
    pub(crate) lowest: Vec<u8>,
}

/// What the outstanding request asks for, and what is needed to understand the answer.
#[derive(Debug)]
pub(crate) enum Pending {
    Liveness,
    /// Message IDs, and by a delta as it is written the peer's numbers (RFC 6311 section 5.1).
    Synchronise {
        sync: MessageIdSync,
        delta: Option<Vec<u8>>,
    },
    /// The peer's numbers alone.
    CounterSync,
    CloseIke,
    CloseChildren(Vec<Spi>),
    RekeyChild {
        old: Spi,
        inbound: Spi,
        nonce: Vec<u8>,
        suite: ChildSuite,
        private: Option<PrivateKey>,
        collision: Option<Collision<Spi>>,
    },
    RekeyIke {
        spi: IkeSpi,
        nonce: Vec<u8>,
        suite: IkeSuite,
        private: PrivateKey,
        collision: Option<Collision<IkeSpi>>,
    },
}

/// The request we wait to see answered; the window is one.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub(crate) message_id: u32,
    /// The very octets, for repetition.
    pub(crate) messages: Vec<Vec<u8>>,
    /// Transmissions after the first.
    pub(crate) attempt: u32,
    /// When to repeat it or give up.
    pub(crate) deadline: Nanos,
    pub(crate) pending: Pending,
}

/// One IKE SA after authentication.
#[derive(Debug)]
pub(crate) struct IkeSa {
    pub(crate) local_spi: IkeSpi,
    pub(crate) remote_spi: u64,
    /// Whether we began the exchange that made it; the peer did in a first IKE SA.
    pub(crate) original_initiator: bool,
    pub(crate) authenticated: Authenticated,
    pub(crate) path: Path,
    pub(crate) nat: Nat,
    /// Whether both sides can fragment (RFC 7383).
    pub(crate) fragmentation: bool,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
    /// Messages sealed so far.
    pub(crate) sealed: u64,
    /// Message ID of the next request from the peer.
    pub(crate) expected_request: u32,
    /// The answer to the request before it, octet for octet.
    pub(crate) last_response: Vec<Vec<u8>>,
    /// Message ID of our next request.
    pub(crate) next_request: u32,
    pub(crate) outstanding: Option<Outstanding>,
    pub(crate) tasks: BTreeSet<Task>,
    pub(crate) children: BTreeMap<Spi, Child>,
    pub(crate) phase: Phase,
    /// What both ends can synchronise after a failover.
    pub(crate) sync: SyncSupport,
    /// M1 of the last synchronisation the peer asked for.
    pub(crate) sync_seen: Option<u32>,
    /// When we rekey it, or delete it when it is replaced.
    pub(crate) rekey_at: Option<Nanos>,
    /// When it must not be used any more.
    pub(crate) expire_at: Option<Nanos>,
    /// When the peer is asked whether it lives.
    pub(crate) liveness_at: Option<Nanos>,
    pub(crate) request_fragments: Option<Reassembly>,
    pub(crate) response_fragments: Option<Reassembly>,
    /// The moment under which the endpoint's timer index knows this SA.
    pub(crate) indexed: Option<Nanos>,
    /// The peer's address in the index of them.
    pub(crate) placed: Option<Ipv4Addr>,
}

/// What a new IKE SA is made of; the rest starts at zero.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) local_spi: IkeSpi,
    pub(crate) remote_spi: u64,
    pub(crate) original_initiator: bool,
    pub(crate) path: Path,
    pub(crate) nat: Nat,
    pub(crate) fragmentation: bool,
    pub(crate) suite: IkeSuite,
    pub(crate) keys: IkeKeys,
}

impl IkeSa {
    /// Establishes an IKE SA: only what was [`Authenticated`] can be.
    pub(crate) fn establish(authenticated: Authenticated, seed: Seed) -> Self {
        Self {
            local_spi: seed.local_spi,
            remote_spi: seed.remote_spi,
            original_initiator: seed.original_initiator,
            authenticated,
            path: seed.path,
            nat: seed.nat,
            fragmentation: seed.fragmentation,
            suite: seed.suite,
            keys: seed.keys,
            sealed: 0,
            expected_request: 0,
            last_response: Vec::new(),
            next_request: 0,
            outstanding: None,
            tasks: BTreeSet::new(),
            children: BTreeMap::new(),
            phase: Phase::Established,
            sync: SyncSupport::NONE,
            sync_seen: None,
            rekey_at: None,
            expire_at: None,
            liveness_at: None,
            request_fragments: None,
            response_fragments: None,
            indexed: None,
            placed: None,
        }
    }

    /// The SPI of the original initiator.
    pub(crate) const fn spi_i(&self) -> u64 {
        if self.original_initiator { self.local_spi.0 } else { self.remote_spi }
    }

    /// The SPI of the original responder.
    pub(crate) const fn spi_r(&self) -> u64 {
        if self.original_initiator { self.remote_spi } else { self.local_spi.0 }
    }

    /// Whether a header's SPIs and Initiator flag are those of the peer's messages.
    pub(crate) const fn fits(&self, header: &Header) -> bool {
        header.spi_i == self.spi_i()
            && header.spi_r == self.spi_r()
            && header.from_initiator != self.original_initiator
    }

    /// Keys of messages from the peer.
    pub(crate) const fn inbound_keys(&self) -> DirectionKeys<'_> {
        DirectionKeys::new(&self.suite, &self.keys, !self.original_initiator)
    }

    /// Keys of messages to the peer.
    pub(crate) const fn outbound_keys(&self) -> DirectionKeys<'_> {
        DirectionKeys::new(&self.suite, &self.keys, self.original_initiator)
    }

    /// The earliest moment something is to be done.
    pub(crate) fn deadline(&self) -> Option<Nanos> {
        let waiting = self.outstanding.as_ref().map(|outstanding| outstanding.deadline);
        let own = [waiting, self.rekey_at, self.expire_at, self.liveness_at].into_iter();
        let children = self.children.values().flat_map(|child| [child.rekey_at, child.expire_at]);
        own.chain(children).flatten().min()
    }

    /// The Child SA the peer knows under this inbound SPI of its own.
    pub(crate) fn child_by_outbound(&self, spi: u32) -> Option<Spi> {
        let mut children = self.children.values();
        let child = children.find(|child| child.parameters.outbound_spi.get() == spi)?;
        Some(child.parameters.inbound_spi)
    }

    /// Whether the last thing the peer asked for was an SA. It may still wait for the answer, and
    /// repeat the request until it has it.
    pub(crate) fn made_sa_last(&self) -> bool {
        let header = self.last_response.first().and_then(|message| Header::parse(message).ok());
        header.is_some_and(|(header, _)| header.exchange == ExchangeType::CreateChildSa)
    }

    /// Whether a synchronisation of Message IDs waits for its answer.
    pub(crate) fn synchronising(&self) -> bool {
        matches!(&self.outstanding, Some(Outstanding { pending: Pending::Synchronise { .. }, .. }))
    }

    /// Whether an IKE SA of this peer and connection.
    pub(crate) fn belongs_to(&self, identity: &Identity, connection: &Connection) -> bool {
        self.authenticated.identity() == identity
            && self.authenticated.connection() == connection.name
    }

    /// Whether we are rekeying this IKE SA.
    pub(crate) fn rekeying_ike(&self) -> bool {
        matches!(&self.outstanding, Some(Outstanding { pending: Pending::RekeyIke { .. }, .. }))
    }

    /// Whether we are creating, rekeying or closing a Child SA.
    pub(crate) fn changing_children(&self) -> bool {
        matches!(
            &self.outstanding,
            Some(Outstanding {
                pending: Pending::RekeyChild { .. } | Pending::CloseChildren(_),
                ..
            })
        )
    }
}
