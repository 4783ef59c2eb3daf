//! The part of TCP (RFC 9293) a distributor reads: ports and flags; and the one option it changes.

use crate::field::{put, u8_at, u16_at};
use crate::{WireError, checksum, ipv4};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// The flag that ends one direction.
pub const FLAG_FIN: u8 = 0x01;
/// The flag that opens a connection.
pub const FLAG_SYN: u8 = 0x02;
/// The flag that resets a connection.
pub const FLAG_RST: u8 = 0x04;
/// The flag that makes the acknowledgement field count.
pub const FLAG_ACK: u8 = 0x10;

/// A header with its length checked.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// # Errors
    /// [`WireError::Truncated`] when the header exceeds `bytes`, [`WireError::BadLength`] when the
    /// data offset is below 20 bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let header_len = usize::from(u8_at(bytes, 12) >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(WireError::BadLength);
        }
        if bytes.len() < header_len {
            return Err(WireError::Truncated);
        }
        Ok(Self(bytes))
    }

    /// The sender's port.
    pub fn source_port(&self) -> u16 {
        u16_at(self.0, 0)
    }

    /// The receiver's port.
    pub fn destination_port(&self) -> u16 {
        u16_at(self.0, 2)
    }

    /// The flags [`FLAG_FIN`], [`FLAG_SYN`], ...
    pub fn flags(&self) -> u8 {
        u8_at(self.0, 13)
    }

    /// The options, with their padding.
    pub fn options(&self) -> &'a [u8] {
        let header_len = usize::from(u8_at(self.0, 12) >> 4) * 4;
        self.0.get(HEADER_LEN..header_len).unwrap_or_default()
    }
}

/// Option kinds (RFC 9293, 3.1): the last one, one byte of padding, the maximum segment size.
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// Bytes of the option with the maximum segment size.
const MAXIMUM_SEGMENT_SIZE_LEN: usize = 4;

/// True when the IPv4 packet in `packet`, which carries TCP, may open a connection. Lengths are not
/// checked: [`clamp_segment_size`] does.
#[inline]
pub fn opens(packet: &[u8]) -> bool {
    let header_len = usize::from(u8_at(packet, 0) & 0x0f) * 4;
    u8_at(packet, header_len + 13) & FLAG_SYN != 0
}

/// Lowers the maximum segment size that the SYN in the IPv4 packet `packet` announces, so that full
/// segments make packets of `largest` bytes at most, and updates the checksum (RFC 1624). The size
/// counts neither IP nor TCP options (RFC 9293, 3.7.1). Returns whether there was something to lower;
/// anything but a whole SYN with the option is left alone.
pub fn clamp_segment_size(packet: &mut [u8], largest: usize) -> bool {
    let largest = largest.saturating_sub(ipv4::HEADER_LEN + HEADER_LEN);
    let (Some(at), Ok(largest)) = (segment_size_at(packet), u16::try_from(largest)) else {
        return false;
    };
    let Some((tcp, value)) = packet.split_at_mut_checked(at.tcp).map(|(_, tcp)| (tcp, at.value))
    else {
        return false;
    };
    let old = u16_at(tcp, value);
    if old <= largest {
        return false;
    }
    // One's complement sums do not mind the order of octets as long as it is the same for all
    // (RFC 1071, 2B), so a value that lies across two words counts with its octets swapped.
    let word = |value: u16| if at.value.is_multiple_of(2) { value } else { value.swap_bytes() };
    let sum = checksum::update(u16_at(tcp, 16), word(old), word(largest));
    put(tcp, value, &largest.to_be_bytes());
    put(tcp, 16, &sum.to_be_bytes());
    true
}

/// Where a maximum segment size lies.
struct SegmentSizeAt {
    /// The TCP header in the packet.
    tcp: usize,
    /// The value in the TCP header.
    value: usize,
}

fn segment_size_at(packet: &[u8]) -> Option<SegmentSizeAt> {
    let ip = ipv4::View::parse(packet).ok()?;
    if ip.protocol() != ipv4::PROTOCOL_TCP || ip.is_fragment() {
        return None;
    }
    let tcp = View::parse(ip.payload()).ok().filter(|tcp| tcp.flags() & FLAG_SYN != 0)?;
    let options = tcp.options();
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let len = match kind {
            END_OF_OPTIONS => return None,
            NO_OPERATION => 1,
            _ => usize::from(*options.get(at + 1)?),
        };
        if kind == MAXIMUM_SEGMENT_SIZE {
            let whole = len == MAXIMUM_SEGMENT_SIZE_LEN && options.len() >= at + len;
            let found = SegmentSizeAt { tcp: ip.header_len(), value: HEADER_LEN + at + 2 };
            return whole.then_some(found);
        }
        // A length of 0 or 1 would not lead on.
        at += if kind == NO_OPERATION { 1 } else { Some(len).filter(|len| *len >= 2)? };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Sum;
    use crate::frame;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const FROM: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
    const TO: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

    /// A packet with these flags and options, which fill whole words.
    fn segment(flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0x1f, 0x90, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0, flags, 9, 9, 0, 0, 0, 0];
        tcp[12] = ((HEADER_LEN + options.len()) as u8 / 4) << 4;
        tcp.extend_from_slice(options);
        tcp.extend_from_slice(data);
        let sum = sum_of(&tcp).finish();
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        frame::ipv4_packet(&ipv4::Repr::new(FROM, TO, ipv4::PROTOCOL_TCP, 0), &tcp)
    }

    fn sum_of(tcp: &[u8]) -> Sum {
        let len = tcp.len() as u16;
        Sum::new().with_pseudo_header(FROM, TO, ipv4::PROTOCOL_TCP, len).with(tcp)
    }

    #[test]
    fn a_larger_segment_size_is_lowered_wherever_it_lies() {
        let plain = [2, 4, 5, 180, 4, 2, 1, 1];
        let odd = [1, 2, 4, 5, 180, 1, 1, 0];
        for (options, at) in [(plain, 2), (odd, 3)] {
            for flags in [FLAG_SYN, FLAG_SYN | FLAG_ACK] {
                let mut packet = segment(flags, &options, b"fast open");
                assert!(opens(&packet));
                assert!(clamp_segment_size(&mut packet, 1400));
                assert_eq!(packet[40 + at..42 + at], 1360u16.to_be_bytes());
                assert!(sum_of(&packet[20..]).is_valid());
                let before = packet.clone();
                assert!(!clamp_segment_size(&mut packet, 1400));
                assert_eq!(packet, before);
            }
        }
    }

    #[test]
    fn whatever_is_no_whole_syn_with_the_option_is_left_alone() {
        let size = [2, 4, 5, 180];
        let mut fragment = segment(FLAG_SYN, &size, b"");
        fragment[6] = 0x20;
        let mut udp = segment(FLAG_SYN, &size, b"");
        udp[9] = ipv4::PROTOCOL_UDP;
        for mut packet in [
            segment(FLAG_ACK, &size, b""),
            segment(FLAG_SYN, &[], b""),
            segment(FLAG_SYN, &[0, 2, 4, 5], b""),
            segment(FLAG_SYN, &[2, 3, 5, 180], b""),
            segment(FLAG_SYN, &[1, 1, 2, 4], &[255; 8]),
            segment(FLAG_SYN, &[8, 0, 2, 4], b""),
            segment(FLAG_SYN, &[1, 1, 1, 8], b""),
            fragment,
            udp,
        ] {
            let before = packet.clone();
            assert!(!clamp_segment_size(&mut packet, 1000));
            assert_eq!(packet, before);
        }
    }

    #[test]
    fn reads_ports_and_flags() {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&[0x1f, 0x90, 0, 80]);
        bytes[12] = 0x60;
        bytes[13] = FLAG_SYN | FLAG_ACK;
        let view = View::parse(&bytes).unwrap();
        assert_eq!((view.source_port(), view.destination_port()), (8080, 80));
        assert_eq!(view.flags(), FLAG_SYN | FLAG_ACK);
        assert_eq!(View::parse(&bytes[..23]).map(|_| ()), Err(WireError::Truncated));
        bytes[12] = 0x40;
        assert_eq!(View::parse(&bytes).map(|_| ()), Err(WireError::BadLength));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = View::parse(&bytes).map(|view| (view.source_port(), view.flags()));
            let _ = opens(&bytes);
        }

        #[test]
        fn any_options_are_safe(words in 0usize..10, options: [u8; 40], largest in 0usize..70_000) {
            let mut packet = segment(FLAG_SYN, &options[..words * 4], b"data");
            clamp_segment_size(&mut packet, largest);
            prop_assert!(sum_of(&packet[20..]).is_valid());
        }
    }
}
