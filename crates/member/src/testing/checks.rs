//! The laws, checked after every event.

use super::peer::MARKER;
use holdfast_cluster::MemberId;
use holdfast_ipsec::Spi;
use holdfast_packet::{MacAddr, Nanos, Side, arp, ethernet, ipv4, udp};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;

/// Violations kept: the first ones tell.
const VIOLATIONS_MAX: usize = 16;

/// A law was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Two members hold a lease at the same time.
    TwoLeases {
        /// When.
        at: Nanos,
        /// Who.
        members: Vec<MemberId>,
    },
    /// A member sent from the common or inside address without a lease.
    SpokeWithoutLease {
        /// When.
        at: Nanos,
        /// Who.
        member: MemberId,
    },
    /// A sequence number, and so a nonce, was used twice under one SPI.
    NumberTwice {
        /// When.
        at: Nanos,
        /// Who used it the second time.
        member: MemberId,
        /// The outbound SPI.
        spi: u32,
        /// The IV, which is the number.
        iv: u64,
    },
    /// An IKE message was repeated with other contents: its first form was sent before it was
    /// committed, so a successor did not know it (law 3; RFC 7296 section 2.1).
    RepeatedDifferently {
        /// When.
        at: Nanos,
        /// Who sent the second form.
        member: MemberId,
        /// The Message ID.
        message_id: u32,
    },
    /// One packet of a peer was passed on to the targets twice.
    DeliveredTwice {
        /// When.
        at: Nanos,
        /// Who did it the second time.
        member: MemberId,
        /// The client that called.
        client: Ipv4Addr,
        /// The number of its request.
        request: u64,
    },
    /// Something else than ESP, IKE and ARP of a member, or clear text, on the outside network.
    ClearOutside {
        /// When.
        at: Nanos,
        /// Who sent it.
        member: MemberId,
    },
    /// A packet came out of a tunnel whose selectors do not allow it.
    ForeignPacket {
        /// When.
        at: Nanos,
        /// Who passed it on.
        member: MemberId,
        /// The source it shows.
        source: Ipv4Addr,
    },
    /// The owner does not know a Child SA of which the cluster told the peer that it stands.
    ForgottenSa {
        /// When.
        at: Nanos,
        /// The owner.
        member: MemberId,
        /// The cluster's inbound SPI.
        spi: Spi,
    },
    /// A queue of a member is longer than its bound.
    QueueTooLong {
        /// When.
        at: Nanos,
        /// Whose.
        member: MemberId,
        /// Which one.
        queue: &'static str,
        /// How long it is.
        length: usize,
    },
    /// Members applied the same entries and disagree.
    StatesDiffer {
        /// The index.
        applied: u64,
        /// Two members, with the digests of their states.
        hashes: [(MemberId, u64); 2],
    },
    /// A member cannot go on.
    Halted {
        /// Who.
        member: MemberId,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    addresses: BTreeSet<Ipv4Addr>,
    /// Every (peer, SPI, IV) on the outside network.
    sealed: HashSet<(Ipv4Addr, u32, u64)>,
    /// Every protected IKE message the cluster sent.
    ike: HashMap<IkeKey, Vec<u8>>,
    /// Every request that was passed on to the targets.
    delivered: HashSet<(Ipv4Addr, u64)>,
    /// The digest of the state after each entry, as the first member had it.
    states: HashMap<u64, (MemberId, u64)>,
    /// Child SAs somebody deleted or asked the log to delete.
    removed: HashSet<Spi>,
    /// Who had each address last, by the frames sent from it.
    speaker: Option<MemberId>,
    /// Every change of the speaker.
    speakers: Vec<(Nanos, MemberId)>,
    violations: Vec<Violation>,
    synchronisation: bool,
}

impl Checks {
    /// Checks for a cluster that speaks for `addresses`.
    pub(crate) fn new(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self { addresses: addresses.into_iter().collect(), ..Self::default() }
    }

    /// Requests with Message ID zero may be synchronisations, which are never repeated but made anew
    /// (RFC 6311 section 5.1): leave those out.
    pub(crate) fn allow_synchronisation(&mut self) {
        self.synchronisation = true;
    }

    /// Laws broken so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Who spoke for the addresses, from when on.
    #[must_use]
    pub fn speakers(&self) -> &[(Nanos, MemberId)] {
        &self.speakers
    }

    /// How many ESP packets the cluster sent.
    #[must_use]
    pub fn sealed(&self) -> usize {
        self.sealed.len()
    }

    pub(crate) fn report(&mut self, violation: Violation) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }

    /// A Child SA was deleted, or is about to be.
    pub(crate) fn removed(&mut self, spi: Spi) {
        self.removed.insert(spi);
    }

    /// Nothing acknowledged is lost: the owner knows a Child SA its peer was told of.
    pub(crate) fn acknowledged(&mut self, at: Nanos, member: MemberId, spi: Spi, known: bool) {
        if !known && !self.removed.contains(&spi) {
            self.report(Violation::ForgottenSa { at, member, spi });
        }
    }

    /// A forced quorum begins a history of its own: it drops every SA, and what the members left
    /// behind have applied is no measure for it.
    pub(crate) fn quorum_forced(&mut self, acknowledged: impl IntoIterator<Item = Spi>) {
        self.removed.extend(acknowledged);
        self.states.clear();
    }

    /// A member's state after an entry: equal entries make equal states.
    pub(crate) fn state(&mut self, member: MemberId, applied: u64, hash: u64) {
        let (first, expected) = *self.states.entry(applied).or_insert((member, hash));
        if expected != hash {
            let hashes = [(first, expected), (member, hash)];
            self.report(Violation::StatesDiffer { applied, hashes });
        }
    }

    /// A queue of a member has this many things in it and may have `bound`.
    pub(crate) fn queue(
        &mut self,
        at: Nanos,
        member: MemberId,
        queue: (&'static str, usize),
        bound: usize,
    ) {
        let (queue, length) = queue;
        if length > bound {
            self.report(Violation::QueueTooLong { at, member, queue, length });
        }
    }

    /// Law 1, first half: at most one lease at any moment.
    pub(crate) fn leases(&mut self, at: Nanos, holders: Vec<MemberId>) {
        if holders.len() > 1 {
            self.report(Violation::TwoLeases { at, members: holders });
        }
    }

    /// Law 1, second half, law 2, and nothing in clear: on every frame a member sends.
    pub(crate) fn sent(
        &mut self,
        at: Nanos,
        member: MemberId,
        (side, has_lease): (Side, bool),
        frame: &[u8],
    ) {
        // A frame passed on to another member is its sender's, not this member's word.
        if passed_on(frame) {
            return;
        }
        let Some(sent) = Sent::parse(frame) else { return };
        let speaks = self.addresses.contains(&sent.source);
        // What the targets receive shows the peers' addresses; it is no less the owner's to send.
        let owners = speaks || (side == Side::Inside && sent.kind != Kind::Arp);
        if owners && !has_lease {
            self.report(Violation::SpokeWithoutLease { at, member });
        }
        if speaks && self.speaker != Some(member) {
            self.speaker = Some(member);
            self.speakers.push((at, member));
        }
        match side {
            Side::Outside => self.outside(at, member, sent, frame),
            Side::Inside => self.inside(at, member, sent),
        }
    }

    fn outside(&mut self, at: Nanos, member: MemberId, sent: Sent, frame: &[u8]) {
        let clear = frame.windows(MARKER.len()).any(|window| window == MARKER);
        if clear || matches!(sent.kind, Kind::Request { .. } | Kind::Other) {
            self.report(Violation::ClearOutside { at, member });
        }
        match sent.kind {
            Kind::Esp { spi, iv } if !self.sealed.insert((sent.destination, spi, iv)) => {
                self.report(Violation::NumberTwice { at, member, spi, iv });
            }
            Kind::Ike { key, message }
                if !(self.synchronisation && key.is_informational_zero()) =>
            {
                let id = key.id;
                let first = self.ike.entry(key).or_insert_with(|| message.clone());
                if *first != message {
                    self.report(Violation::RepeatedDifferently { at, member, message_id: id });
                }
            }
            _ => {}
        }
    }

    /// Whatever the network repeats, each request leaves for one target once.
    fn inside(&mut self, at: Nanos, member: MemberId, sent: Sent) {
        let Kind::Request { client, request } = sent.kind else { return };
        if sent.source != client {
            self.report(Violation::ForeignPacket { at, member, source: sent.source });
        }
        if !self.delivered.insert((client, request)) {
            self.report(Violation::DeliveredTwice { at, member, client, request });
        }
    }
}

/// What matters of a frame a member sent.
struct Sent {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    kind: Kind,
}

#[derive(PartialEq, Eq)]
enum Kind {
    Arp,
    Esp {
        spi: u32,
        iv: u64,
    },
    /// Protected IKE.
    Ike {
        key: IkeKey,
        message: Vec<u8>,
    },
    /// IKE that is not protected, and keepalives.
    IkeInit,
    /// A client's request, or the answer to one.
    Request {
        client: Ipv4Addr,
        request: u64,
    },
    Other,
}

/// What makes two IKE messages repetitions of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct IkeKey {
    spi_i: u64,
    spi_r: u64,
    exchange: u8,
    response: bool,
    id: u32,
    fragment: u16,
}

impl IkeKey {
    fn is_informational_zero(self) -> bool {
        const INFORMATIONAL: u8 = 37;
        self.exchange == INFORMATIONAL && self.id == 0 && !self.response
    }

    /// RFC 7296 section 3.1; the fragment number of RFC 7383 section 2.5 stands behind the generic
    /// header of the first payload. IKE_SA_INIT is not protected and may be answered anew.
    fn parse(message: &[u8]) -> Option<Self> {
        const IKE_SA_INIT: u8 = 34;
        const ENCRYPTED_FRAGMENT: u8 = 53;
        let header: &[u8; 28] = message.first_chunk()?;
        let (spis, rest) = header.split_first_chunk::<16>()?;
        let &[next, _, exchange, flags, a, b, c, d, ..] = rest else { return None };
        let (spi_i, spi_r) = spis.split_first_chunk::<8>()?;
        if exchange == IKE_SA_INIT {
            return None;
        }
        let fragment = match next {
            ENCRYPTED_FRAGMENT => u16::from_be_bytes(*message.get(32..)?.first_chunk()?),
            _ => 0,
        };
        Some(Self {
            spi_i: u64::from_be_bytes(*spi_i),
            spi_r: u64::from_be_bytes(*spi_r.first_chunk()?),
            exchange,
            response: flags & 0x20 != 0,
            id: u32::from_be_bytes([a, b, c, d]),
            fragment,
        })
    }
}

impl Sent {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let view = ethernet::View::parse(bytes).ok()?;
        if view.ether_type() == ethernet::TYPE_ARP {
            let packet = arp::Repr::parse(view.payload()).ok()?;
            let (source, destination) = (packet.source, packet.target);
            return Some(Self { source, destination, kind: Kind::Arp });
        }
        let ip = ipv4::View::parse(view.payload()).ok()?;
        let kind = match ip.protocol() {
            ipv4::PROTOCOL_ESP => esp(ip.payload()),
            ipv4::PROTOCOL_UDP => read_udp(ip.payload()),
            _ => None,
        };
        let (source, destination) = (ip.source(), ip.destination());
        Some(Self { source, destination, kind: kind.unwrap_or(Kind::Other) })
    }
}

fn read_udp(datagram: &[u8]) -> Option<Kind> {
    let datagram = udp::View::parse(datagram).ok()?;
    let message = match datagram.source_port() {
        udp::PORT_IKE => datagram.payload(),
        udp::PORT_NAT_TRAVERSAL => match udp::NatTraversal::parse(datagram.payload()) {
            udp::NatTraversal::Ike(message) => message,
            udp::NatTraversal::Esp(packet) => return esp(packet),
            _ => return Some(Kind::IkeInit),
        },
        _ => return request(datagram.payload()),
    };
    Some(
        IkeKey::parse(message)
            .map_or(Kind::IkeInit, |key| Kind::Ike { key, message: message.to_vec() }),
    )
}

/// A peer's client says in its request who it is and which request this is.
fn request(payload: &[u8]) -> Option<Kind> {
    let (request, rest) = payload.split_first_chunk::<8>()?;
    let (client, rest) = rest.split_first_chunk::<4>()?;
    rest.starts_with(MARKER).then(|| Kind::Request {
        client: Ipv4Addr::from_octets(*client),
        request: u64::from_be_bytes(*request),
    })
}

/// The explicit IV of RFC 4106 stands behind SPI and sequence number.
fn esp(packet: &[u8]) -> Option<Kind> {
    let spi = u32::from_be_bytes(*packet.first_chunk()?);
    let iv = u64::from_be_bytes(*packet.get(8..)?.first_chunk()?);
    Some(Kind::Esp { spi, iv })
}

/// Whether a frame goes from a member's port to another member's.
fn passed_on(frame: &[u8]) -> bool {
    let is_members = |mac: MacAddr| matches!(mac.0, [2, 0, 0, _, 0, _]);
    ethernet::View::parse(frame).is_ok_and(|view| is_members(view.destination()))
}

/// The station address of a member's port, which tells members apart in captures.
pub(crate) fn member_mac(member: MemberId, side: u8) -> MacAddr {
    let [.., low] = member.0.to_be_bytes();
    MacAddr([2, 0, 0, side, 0, low])
}
