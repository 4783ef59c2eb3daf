//! The laws, checked after every event.

use holdfast_cluster::MemberId;
use holdfast_packet::{MacAddr, Nanos, arp, ethernet, ipv4, udp};
use std::collections::{BTreeMap, BTreeSet};
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
    /// One packet of a peer reached the targets twice.
    DeliveredTwice {
        /// Its payload.
        payload: Vec<u8>,
    },
    /// Members applied the same entries and disagree.
    StatesDiffer {
        /// The index.
        applied: u64,
        /// Digests by member.
        hashes: Vec<(MemberId, u64)>,
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
    /// Every (SPI, IV) on the outside network, with its first sender.
    sealed: BTreeMap<(u32, u64), MemberId>,
    /// Every protected IKE message the cluster sent.
    ike: BTreeMap<IkeKey, Vec<u8>>,
    /// Every payload a target received.
    delivered: BTreeSet<Vec<u8>>,
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

    /// A target received a request: whatever the network repeats, each one reaches one target once.
    pub(crate) fn delivered(&mut self, payload: Vec<u8>) {
        if self.delivered.contains(&payload) {
            self.report(Violation::DeliveredTwice { payload });
        } else {
            self.delivered.insert(payload);
        }
    }

    /// Law 1, first half: at most one lease at any moment.
    pub(crate) fn leases(&mut self, at: Nanos, holders: Vec<MemberId>) {
        if holders.len() > 1 {
            self.report(Violation::TwoLeases { at, members: holders });
        }
    }

    /// Law 1, second half, and law 2: on every frame a member sends.
    pub(crate) fn sent(&mut self, at: Nanos, member: MemberId, has_lease: bool, frame: &[u8]) {
        // A frame passed on to another member is its sender's, not this member's word.
        if passed_on(frame) {
            return;
        }
        let Some(Sent { source, esp, ike }) = Sent::parse(frame) else { return };
        if self.addresses.contains(&source) {
            if !has_lease {
                self.report(Violation::SpokeWithoutLease { at, member });
            }
            if self.speaker != Some(member) {
                self.speaker = Some(member);
                self.speakers.push((at, member));
            }
        }
        if let Some((spi, iv)) = esp
            && self.sealed.insert((spi, iv), member).is_some()
        {
            self.report(Violation::NumberTwice { at, member, spi, iv });
        }
        let judged = ike.filter(|(key, _)| !(self.synchronisation && key.is_informational_zero()));
        if let Some((key, message)) = judged {
            let first = self.ike.entry(key).or_insert_with(|| message.clone());
            if *first != message {
                self.report(Violation::RepeatedDifferently { at, member, message_id: key.id });
            }
        }
    }
}

/// What matters of a frame a member sent.
struct Sent {
    source: Ipv4Addr,
    /// SPI and IV, when it is ESP.
    esp: Option<(u32, u64)>,
    /// The message, when it is protected IKE.
    ike: Option<(IkeKey, Vec<u8>)>,
}

/// What makes two IKE messages repetitions of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
            let source = arp::Repr::parse(view.payload()).ok()?.source;
            return Some(Self { source, esp: None, ike: None });
        }
        let ip = ipv4::View::parse(view.payload()).ok()?;
        let mut sent = Self { source: ip.source(), esp: None, ike: None };
        match ip.protocol() {
            ipv4::PROTOCOL_ESP => sent.esp = spi_and_iv(ip.payload()),
            ipv4::PROTOCOL_UDP => sent.read_udp(ip.payload()),
            _ => {}
        }
        Some(sent)
    }

    fn read_udp(&mut self, datagram: &[u8]) {
        let Ok(datagram) = udp::View::parse(datagram) else { return };
        let message = match datagram.source_port() {
            udp::PORT_IKE => datagram.payload(),
            udp::PORT_NAT_TRAVERSAL => match udp::NatTraversal::parse(datagram.payload()) {
                udp::NatTraversal::Ike(message) => message,
                udp::NatTraversal::Esp(esp) => {
                    self.esp = spi_and_iv(esp);
                    return;
                }
                _ => return,
            },
            _ => return,
        };
        self.ike = IkeKey::parse(message).map(|key| (key, message.to_vec()));
    }
}

/// The explicit IV of RFC 4106 stands behind SPI and sequence number.
fn spi_and_iv(esp: &[u8]) -> Option<(u32, u64)> {
    let spi = u32::from_be_bytes(*esp.first_chunk()?);
    let iv = u64::from_be_bytes(*esp.get(8..)?.first_chunk()?);
    Some((spi, iv))
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
