//! The laws, checked after every event.

use holdfast_cluster::MemberId;
use holdfast_packet::{MacAddr, Nanos, arp, ethernet, ipv4, udp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

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
    /// Who had each address last, by the frames sent from it.
    speaker: Option<MemberId>,
    /// Every change of the speaker.
    speakers: Vec<(Nanos, MemberId)>,
    violations: Vec<Violation>,
}

impl Checks {
    /// Checks for a cluster that speaks for `addresses`.
    pub(crate) fn new(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self { addresses: addresses.into_iter().collect(), ..Self::default() }
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
        self.violations.push(violation);
    }

    /// Law 1, first half: at most one lease at any moment.
    pub(crate) fn leases(&mut self, at: Nanos, holders: Vec<MemberId>) {
        if holders.len() > 1 {
            self.report(Violation::TwoLeases { at, members: holders });
        }
    }

    /// Law 1, second half, and law 2: on every frame a member sends.
    pub(crate) fn sent(&mut self, at: Nanos, member: MemberId, has_lease: bool, frame: &[u8]) {
        let Some(Sent { source, esp }) = Sent::parse(frame) else { return };
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
    }
}

/// What matters of a frame a member sent.
struct Sent {
    source: Ipv4Addr,
    /// SPI and IV, when it is ESP.
    esp: Option<(u32, u64)>,
}

impl Sent {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let view = ethernet::View::parse(bytes).ok()?;
        if view.ether_type() == ethernet::TYPE_ARP {
            let source = arp::Repr::parse(view.payload()).ok()?.source;
            return Some(Self { source, esp: None });
        }
        let ip = ipv4::View::parse(view.payload()).ok()?;
        let esp = match ip.protocol() {
            ipv4::PROTOCOL_ESP => spi_and_iv(ip.payload()),
            ipv4::PROTOCOL_UDP => {
                let datagram = udp::View::parse(ip.payload()).ok()?;
                match udp::NatTraversal::parse(datagram.payload()) {
                    udp::NatTraversal::Esp(esp) if datagram.source_port() == 4500 => {
                        spi_and_iv(esp)
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        Some(Self { source: ip.source(), esp })
    }
}

/// The explicit IV of RFC 4106 stands behind SPI and sequence number.
fn spi_and_iv(esp: &[u8]) -> Option<(u32, u64)> {
    let spi = u32::from_be_bytes(*esp.first_chunk()?);
    let iv = u64::from_be_bytes(*esp.get(8..)?.first_chunk()?);
    Some((spi, iv))
}

/// The station address of a member's port, which tells members apart in captures.
pub(crate) fn member_mac(member: MemberId, side: u8) -> MacAddr {
    let [.., low] = member.0.to_be_bytes();
    MacAddr([2, 0, 0, side, 0, low])
}
