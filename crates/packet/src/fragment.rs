//! Cutting an IPv4 packet into fragments (RFC 791, 3.2), and the header of the whole again.
//!
//! ```text
//!   +--------+--------------------------------------+
//!   | header | payload                              |          too long for the link
//!   +--------+--------------------------------------+
//!      |          |  a multiple of 8   |    the rest
//!      v          v                    v
//!   +--------+-------------+   +---------+----------+
//!   | header | first piece |   | header' | last one |         header': without the options that
//!   +--------+-------------+   +---------+----------+         do not go into every fragment
//! ```

use crate::checksum::Sum;
use crate::field::{put, u16_at};
use crate::{WireError, ipv4};
use std::ops::Range;

/// The longest IPv4 header, bytes.
const HEADER_MAX: usize = 60;
/// What the offset of a fragment counts in, bytes.
const UNIT: usize = 8;
/// The flag in an option's type: it goes into every fragment (RFC 791, 3.1).
const COPIED: u8 = 0x80;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;

/// Makes the header in `header`, that of a first fragment, the one of the whole datagram with
/// `payload_len` bytes: no fragment any more, and with congestion experienced if any piece did
/// (RFC 3168, 5.3). No effect on less than a header.
pub fn make_whole(header: &mut [u8], payload_len: usize, congested: bool) {
    let total = u16::try_from(header.len().saturating_add(payload_len)).unwrap_or(u16::MAX);
    let kept = u16_at(header, 6) & !(ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK);
    put(header, 2, &total.to_be_bytes());
    put(header, 6, &kept.to_be_bytes());
    put(header, 10, &[0, 0]);
    let sum = Sum::new().with(header).finish();
    put(header, 10, &sum.to_be_bytes());
    if congested {
        ipv4::set_ecn(header, ipv4::ECN_CE);
    }
}

/// The header of one sort of fragment: the first one, or the others.
#[derive(Debug, Clone, Copy)]
struct Header {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

/// A packet that is to be cut: an iterator of its fragments, in order.
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    payload: &'a [u8],
    first: Header,
    later: Header,
    mtu: usize,
    /// Where the packet's payload lies in its datagram: it may be a fragment itself.
    base: usize,
    /// Another fragment follows the packet's last one.
    more: bool,
    at: usize,
}

/// One fragment, still in the packet it is cut out of.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    header: Header,
    payload: &'a [u8],
}

impl<'a> Pieces<'a> {
    /// The fragments of `packet`, none longer than `mtu`.
    ///
    /// # Errors
    /// [`WireError::Unsupported`] when the sender forbids fragmentation, [`WireError::BadLength`]
    /// when `mtu` holds no header with 8 bytes of payload, or an option's length is wrong.
    pub fn of(packet: &ipv4::View<'a>, mtu: usize) -> Result<Self, WireError> {
        if packet.dont_fragment() {
            return Err(WireError::Unsupported);
        }
        let header = packet.bytes().get(..packet.header_len()).ok_or(WireError::BadLength)?;
        let first = Header::of(header);
        if mtu < first.len + UNIT {
            return Err(WireError::BadLength);
        }
        Ok(Self {
            payload: packet.payload(),
            first,
            later: Header::of_later(header)?,
            mtu,
            base: packet.fragment_offset(),
            more: packet.more_fragments(),
            at: 0,
        })
    }

    fn range(&self, header_len: usize) -> Range<usize> {
        let room = self.mtu.saturating_sub(header_len);
        if self.payload.len() - self.at <= room {
            self.at..self.payload.len()
        } else {
            self.at..self.at + room / UNIT * UNIT
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.at >= self.payload.len() {
            return None;
        }
        let mut header = if self.at == 0 { self.first } else { self.later };
        let range = self.range(header.len);
        let payload = self.payload.get(range.clone())?;
        let is_last = range.end == self.payload.len();
        header.complete(payload.len(), self.base + range.start, self.more || !is_last);
        self.at = range.end;
        Some(Piece { header, payload })
    }
}

impl Piece<'_> {
    /// Bytes [`Piece::emit`] writes.
    pub fn buffer_len(&self) -> usize {
        self.header.len + self.payload.len()
    }

    /// Writes header and payload at the front of `into`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when `into` is shorter than [`Piece::buffer_len`].
    pub fn emit(&self, into: &mut [u8]) -> Result<(), WireError> {
        let into = into.get_mut(..self.buffer_len()).ok_or(WireError::Truncated)?;
        put(into, 0, self.header.bytes.get(..self.header.len).unwrap_or_default());
        put(into, self.header.len, self.payload);
        Ok(())
    }
}

impl Header {
    fn of(header: &[u8]) -> Self {
        let mut bytes = [0; HEADER_MAX];
        put(&mut bytes, 0, header);
        Self { bytes, len: header.len() }
    }

    /// Without the options that only the first fragment has.
    fn of_later(header: &[u8]) -> Result<Self, WireError> {
        let (fixed, mut options) =
            header.split_at_checked(ipv4::HEADER_LEN).ok_or(WireError::BadLength)?;
        let mut later = Self::of(fixed);
        while let Some(&kind) = options.first() {
            let len = match kind {
                END_OF_OPTIONS => break,
                NO_OPERATION => 1,
                _ => usize::from(*options.get(1).ok_or(WireError::BadLength)?).max(1),
            };
            let (option, rest) = options.split_at_checked(len).ok_or(WireError::BadLength)?;
            if kind & COPIED != 0 {
                put(&mut later.bytes, later.len, option);
                later.len += len;
            }
            options = rest;
        }
        // What is left free ends the options: its type is 0.
        later.len = later.len.next_multiple_of(4);
        Ok(later)
    }

    fn complete(&mut self, payload_len: usize, offset: usize, more: bool) {
        let words = self.len / 4;
        let total = u16::try_from(self.len + payload_len).unwrap_or(u16::MAX);
        // An offset in a datagram is below 2^16, so in units of 8 it has 13 bits.
        let place = (offset / UNIT) as u16 & ipv4::OFFSET_MASK;
        let flags = u16_at(&self.bytes, 6) & ipv4::RESERVED_FLAG;
        let flags = flags | if more { ipv4::MORE_FRAGMENTS } else { 0 };
        put(&mut self.bytes, 0, &[0x40 | words as u8]);
        put(&mut self.bytes, 2, &total.to_be_bytes());
        put(&mut self.bytes, 6, &(flags | place).to_be_bytes());
        put(&mut self.bytes, 10, &[0, 0]);
        let sum = Sum::new().with(self.bytes.get(..self.len).unwrap_or_default()).finish();
        put(&mut self.bytes, 10, &sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const FROM: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
    const TO: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);

    fn cut(packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, WireError> {
        let view = ipv4::View::parse(packet).unwrap();
        let emit = |piece: Piece<'_>| {
            let mut bytes = vec![0; piece.buffer_len()];
            piece.emit(&mut bytes).unwrap();
            bytes
        };
        Ok(Pieces::of(&view, mtu)?.map(emit).collect())
    }

    /// What the receiver makes of fragments in order.
    fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let view = ipv4::View::parse(piece).unwrap();
            assert!(view.checksum_is_valid());
            assert_eq!(view.fragment_offset(), payload.len());
            assert_eq!(view.more_fragments(), number + 1 < pieces.len());
            payload.extend_from_slice(view.payload());
        }
        payload
    }

    #[test]
    fn a_packet_that_may_not_be_cut_is_not() {
        let header = ipv4::Repr { dont_fragment: true, ..ipv4::Repr::new(FROM, TO, 17, 0) };
        let packet = frame::ipv4_packet(&header, &[0; 100]);
        assert_eq!(cut(&packet, 60), Err(WireError::Unsupported));
    }

    #[test]
    fn a_link_without_room_for_a_unit_is_refused() {
        let packet = frame::udp_packet(FROM, 1, TO, 2, &[0; 100]);
        assert_eq!(cut(&packet, 27), Err(WireError::BadLength));
        assert_eq!(cut(&packet, 28).unwrap().len(), 14);
    }

    #[test]
    fn the_first_header_becomes_that_of_the_whole_again() {
        let packet = frame::udp_packet(FROM, 1, TO, 2, &[7; 200]);
        let mut first = cut(&packet, 60).unwrap().swap_remove(0);
        first.truncate(ipv4::HEADER_LEN);
        make_whole(&mut first, 208, false);
        assert_eq!(first, packet[..ipv4::HEADER_LEN]);
        make_whole(&mut first, 208, true);
        let whole = [&first, &packet[ipv4::HEADER_LEN..]].concat();
        let view = ipv4::View::parse(&whole).unwrap();
        assert!(view.checksum_is_valid());
        assert_eq!(view.ecn(), ipv4::ECN_CE);
    }

    #[test]
    fn a_fragment_is_cut_again_in_its_place() {
        let packet = frame::udp_packet(FROM, 1, TO, 2, &(0..200).collect::<Vec<u8>>());
        let pieces = cut(&packet, 124).unwrap();
        assert_eq!(pieces.len(), 2);
        let smaller: Vec<Vec<u8>> =
            pieces.iter().flat_map(|piece| cut(piece, 60).unwrap()).collect();
        assert_eq!(smaller.len(), 6);
        assert_eq!(joined(&smaller), ipv4::View::parse(&packet).unwrap().payload());
    }

    #[test]
    fn only_options_marked_so_go_into_every_fragment() {
        // Record route (7, not copied) and router alert (148, copied; RFC 2113).
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0];
        let plain = frame::udp_packet(FROM, 1, TO, 2, &[5; 92]);
        let mut packet = [&plain[..20], options.as_slice(), &plain[20..]].concat();
        packet[0] = 0x48;
        packet[2..4].copy_from_slice(&132u16.to_be_bytes());
        let pieces = cut(&packet, 72).unwrap();
        let lengths: Vec<usize> =
            pieces.iter().map(|piece| ipv4::View::parse(piece).unwrap().header_len()).collect();
        assert_eq!(lengths, [32, 24, 24]);
        assert_eq!(pieces[1][20..24], [148, 4, 0, 0]);
        assert_eq!(joined(&pieces), &packet[32..]);
    }

    #[test]
    fn an_option_beyond_the_header_is_an_error() {
        let plain = frame::udp_packet(FROM, 1, TO, 2, &[5; 96]);
        let mut packet = [&plain[..20], [148, 99, 0, 0].as_slice(), &plain[20..]].concat();
        packet[0] = 0x46;
        packet[2..4].copy_from_slice(&128u16.to_be_bytes());
        assert_eq!(cut(&packet, 64), Err(WireError::BadLength));
    }

    proptest! {
        #[test]
        fn pieces_fit_and_join_again(len in 1usize..4000, mtu in 28usize..1600) {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let packet = frame::udp_packet(FROM, 1, TO, 2, &payload);
            let pieces = cut(&packet, mtu).unwrap();
            prop_assert!(pieces.iter().all(|piece| piece.len() <= mtu));
            prop_assert_eq!(joined(&pieces), ipv4::View::parse(&packet).unwrap().payload());
        }

        #[test]
        fn any_bytes_are_safe(mut bytes: Vec<u8>, mtu in 0usize..200) {
            if let Some(first) = bytes.first_mut() { *first = 0x40 | *first & 0x0f; }
            make_whole(&mut bytes.clone(), mtu, true);
            if let Ok(view) = ipv4::View::parse(&bytes) {
                let _ = Pieces::of(&view, mtu).map(Iterator::count);
            }
        }
    }
}
