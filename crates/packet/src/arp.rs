//! The Address Resolution Protocol for IPv4 over Ethernet (RFC 826; probes and announcements: RFC 5227).
//!
//! ```text
//!   0      2      4     5     6      8             14       18            24      28
//!   +------+------+-----+-----+------+-------------+--------+-------------+--------+
//!   | hw=1 | 0800 |  6  |  4  | oper | sender MAC  | sender | target MAC  | target |
//!   +------+------+-----+-----+------+-------------+--------+-------------+--------+
//! ```

use crate::WireError;
use crate::ethernet::{self, MacAddr};
use crate::field::{array_at, emit, put, u16_at, u32_at};
use std::net::Ipv4Addr;

/// Bytes of an ARP packet for IPv4 over Ethernet.
pub const PACKET_LEN: usize = 28;

/// Hardware type 1, protocol type 0x0800, address lengths 6 and 4.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What an ARP packet asks or tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// The meaning of an ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Question or answer.
    pub operation: Operation,
    /// The sender's station address.
    pub source_mac: MacAddr,
    /// The sender's IPv4 address; unspecified in a probe.
    pub source: Ipv4Addr,
    /// The station addressed; zero in a request.
    pub target_mac: MacAddr,
    /// The IPv4 address asked for or answered to.
    pub target: Ipv4Addr,
}

impl Repr {
    /// Reads the packet behind the Ethernet header; trailing padding is ignored.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 28 bytes, [`WireError::Unsupported`] for anything but
    /// requests and replies for IPv4 over Ethernet.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let packet: &[u8; PACKET_LEN] = bytes.first_chunk().ok_or(WireError::Truncated)?;
        if array_at(packet, 0) != Some(FIXED) {
            return Err(WireError::Unsupported);
        }
        let operation = match u16_at(packet, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(WireError::Unsupported),
        };
        Ok(Self {
            operation,
            source_mac: MacAddr(array_at(packet, 8).unwrap_or_default()),
            source: Ipv4Addr::from_bits(u32_at(packet, 14)),
            target_mac: MacAddr(array_at(packet, 18).unwrap_or_default()),
            target: Ipv4Addr::from_bits(u32_at(packet, 24)),
        })
    }

    /// A question for `target` by the station `source_mac` that has `source`.
    pub const fn request(source_mac: MacAddr, source: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            source_mac,
            source,
            target_mac: MacAddr::ZERO,
            target,
        }
    }

    /// A question that claims no address, so that nobody's cache changes (RFC 5227, 2.1.1).
    pub const fn probe(source_mac: MacAddr, target: Ipv4Addr) -> Self {
        Self::request(source_mac, Ipv4Addr::UNSPECIFIED, target)
    }

    /// A gratuitous request: sender and target address are the same (RFC 5227, 2.3).
    pub const fn announcement(mac: MacAddr, address: Ipv4Addr) -> Self {
        Self::request(mac, address, address)
    }

    /// A gratuitous reply, for the stations that learn from replies only (RFC 5227, 3).
    pub const fn announcement_reply(mac: MacAddr, address: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Reply,
            source_mac: mac,
            source: address,
            target_mac: MacAddr::BROADCAST,
            target: address,
        }
    }

    /// The answer of station `mac` to this request.
    #[must_use]
    pub const fn reply(&self, mac: MacAddr) -> Self {
        Self {
            operation: Operation::Reply,
            source_mac: mac,
            source: self.target,
            target_mac: self.source_mac,
            target: self.source,
        }
    }

    /// True for both gratuitous forms.
    pub fn is_announcement(&self) -> bool {
        self.source == self.target && !self.source.is_unspecified()
    }

    /// Bytes [`Repr::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        PACKET_LEN
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> [u8; PACKET_LEN] {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let mut packet = [0; PACKET_LEN];
        put(&mut packet, 0, &FIXED);
        put(&mut packet, 6, &operation.to_be_bytes());
        put(&mut packet, 8, &self.source_mac.0);
        put(&mut packet, 14, &self.source.octets());
        put(&mut packet, 18, &self.target_mac.0);
        put(&mut packet, 24, &self.target.octets());
        packet
    }

    /// Writes the packet at the front of `into`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when `into` is shorter than [`Repr::buffer_len`].
    pub fn emit(&self, into: &mut [u8]) -> Result<(), WireError> {
        emit(into, &self.bytes())
    }

    /// The whole frame from the sender's station to `destination`, padded to the shortest length.
    pub fn frame(&self, destination: MacAddr) -> [u8; ethernet::MIN_FRAME_LEN] {
        let mut frame = [0; ethernet::MIN_FRAME_LEN];
        let header =
            ethernet::Repr { destination, source: self.source_mac, ether_type: ethernet::TYPE_ARP };
        put(&mut frame, 0, &header.bytes());
        put(&mut frame, ethernet::HEADER_LEN, &self.bytes());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn reply_turns_the_request_round() {
        let asker = Repr::request(MAC, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let owner = MacAddr([2, 0, 0, 0, 0, 7]);
        let reply = asker.reply(owner);
        assert_eq!(reply.operation, Operation::Reply);
        assert_eq!((reply.source_mac, reply.source), (owner, asker.target));
        assert_eq!((reply.target_mac, reply.target), (asker.source_mac, asker.source));
    }

    #[test]
    fn announcements_are_told_from_probes() {
        let address = Ipv4Addr::new(198, 51, 100, 100);
        assert!(Repr::announcement(MAC, address).is_announcement());
        assert!(Repr::announcement_reply(MAC, address).is_announcement());
        assert!(!Repr::probe(MAC, address).is_announcement());
    }

    #[test]
    fn the_frame_is_padded_and_reads_back() {
        let repr = Repr::probe(MAC, Ipv4Addr::new(192, 0, 2, 2));
        let frame = repr.frame(MacAddr::BROADCAST);
        let view = ethernet::View::parse(&frame).unwrap();
        assert_eq!(view.ether_type(), ethernet::TYPE_ARP);
        assert_eq!(Repr::parse(view.payload()), Ok(repr));
    }

    proptest! {
        #[test]
        fn round_trips(is_request: bool, a: [u8; 6], b: [u8; 6], s: u32, t: u32) {
            let repr = Repr {
                operation: if is_request { Operation::Request } else { Operation::Reply },
                source_mac: MacAddr(a), source: Ipv4Addr::from_bits(s),
                target_mac: MacAddr(b), target: Ipv4Addr::from_bits(t),
            };
            prop_assert_eq!(Repr::parse(&repr.bytes()), Ok(repr));
            for len in 0..PACKET_LEN {
                prop_assert_eq!(Repr::parse(&repr.bytes()[..len]), Err(WireError::Truncated));
            }
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = Repr::parse(&bytes);
        }
    }
}
