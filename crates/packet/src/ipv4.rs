//! IPv4 headers (RFC 791).
//!
//! ```text
//!    0               8              16                            31
//!   +-------+-------+---------------+------------------------------+
//!   |  ver  |  ihl  | DSCP     |ECN |         total length         |
//!   +-------+-------+---------------+-----+------------------------+
//!   |         identification        | flg |    fragment offset     |
//!   +---------------+---------------+-----+------------------------+
//!   |      TTL      |   protocol    |        header checksum       |
//!   +---------------+---------------+------------------------------+
//!   |                         source address                       |
//!   +--------------------------------------------------------------+
//!   |                       destination address                    |
//!   +--------------------------------------------------------------+
//!   |                    options (ihl - 5 words)                   |
//!   +--------------------------------------------------------------+
//! ```

use crate::WireError;
use crate::checksum::{self, Sum};
use crate::field::{emit, put, rest, u8_at, u16_at, u32_at};
use std::net::Ipv4Addr;

/// Bytes of a header without options, which is the only kind this crate writes.
pub const HEADER_LEN: usize = 20;
/// The largest total length.
pub const MAX_LEN: usize = 65_535;
/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of IPv4 in IPv4, the next header of ESP tunnel mode.
pub const PROTOCOL_IPV4: u8 = 4;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of ESP (RFC 4303).
pub const PROTOCOL_ESP: u8 = 50;
/// Congestion experienced, as explicit congestion notification (RFC 3168, 5).
pub const ECN_CE: u8 = 3;
/// The TTL of packets this appliance originates.
pub const DEFAULT_TTL: u8 = 64;

pub(crate) const RESERVED_FLAG: u16 = 0x8000;
const DONT_FRAGMENT: u16 = 0x4000;
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const OFFSET_MASK: u16 = 0x1fff;

/// A header and its payload, with every length checked.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Header and payload up to the total length; link padding is cut off.
    bytes: &'a [u8],
    header_len: usize,
}

impl<'a> View<'a> {
    /// Checks version and lengths, not the checksum.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when header or total length exceed `bytes`,
    /// [`WireError::Unsupported`] when the version is not 4, [`WireError::BadLength`] when the
    /// header is shorter than 20 bytes or longer than the packet.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let first = u8_at(bytes, 0);
        if first >> 4 != 4 {
            return Err(WireError::Unsupported);
        }
        let header_len = usize::from(first & 0x0f) * 4;
        let total_len = usize::from(u16_at(bytes, 2));
        if header_len < HEADER_LEN || total_len < header_len {
            return Err(WireError::BadLength);
        }
        let bytes = bytes.get(..total_len).ok_or(WireError::Truncated)?;
        Ok(Self { bytes, header_len })
    }

    /// Bytes of the header with its options.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of header and payload.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// The differentiated services code point (RFC 2474), 6 bits.
    #[inline]
    pub fn dscp(&self) -> u8 {
        u8_at(self.bytes, 1) >> 2
    }

    /// Explicit congestion notification (RFC 3168), 2 bits.
    #[inline]
    pub fn ecn(&self) -> u8 {
        u8_at(self.bytes, 1) & 3
    }

    /// Names the fragments of one datagram.
    pub fn identification(&self) -> u16 {
        u16_at(self.bytes, 4)
    }

    /// The sender forbids fragmentation.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        u16_at(self.bytes, 6) & DONT_FRAGMENT != 0
    }

    /// Another fragment follows this one.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        u16_at(self.bytes, 6) & MORE_FRAGMENTS != 0
    }

    /// Where the payload lies in its datagram, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(u16_at(self.bytes, 6) & OFFSET_MASK) * 8
    }

    /// True for each piece of a fragmented datagram, the first included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments() || self.fragment_offset() != 0
    }

    /// Hops left.
    pub fn ttl(&self) -> u8 {
        u8_at(self.bytes, 8)
    }

    /// What the payload is.
    #[inline]
    pub fn protocol(&self) -> u8 {
        u8_at(self.bytes, 9)
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32_at(self.bytes, 12))
    }

    /// Who is to receive it.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32_at(self.bytes, 16))
    }

    /// True when the header checksum adds up.
    #[inline]
    pub fn checksum_is_valid(&self) -> bool {
        if self.header_len == HEADER_LEN
            && let Some(header) = self.bytes.first_chunk::<HEADER_LEN>()
        {
            return checksum::header_is_valid(header);
        }
        self.bytes.get(..self.header_len).is_some_and(|header| Sum::new().with(header).is_valid())
    }

    /// Everything behind the header, up to the total length.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        rest(self.bytes, self.header_len)
    }

    /// Header and payload without link padding.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Takes one hop off the TTL of the packet in `bytes` and updates the checksum (RFC 1624).
/// Returns the hops left; `None` when none was left or `bytes` is shorter than a header, in which
/// case nothing has changed and the packet must not be forwarded (RFC 1812, 5.3.1).
#[inline]
pub fn decrement_ttl(bytes: &mut [u8]) -> Option<u8> {
    let header: &mut [u8; HEADER_LEN] = bytes.first_chunk_mut()?;
    let ttl = u8_at(header, 8);
    if ttl <= 1 {
        return None;
    }
    // RFC 1624 for the upper octet of one word less by 1: the complement of the sum grows by as much,
    // with the carry brought round.
    let (sum, carry) = u16_at(header, 10).overflowing_add(0x0100);
    let sum = if sum == 0xffff { 0 } else { sum.wrapping_add(u16::from(carry)) };
    put(header, 8, &[ttl.wrapping_sub(1)]);
    put(header, 10, &sum.to_be_bytes());
    Some(ttl.wrapping_sub(1))
}

/// What [`take_hop`] says of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// One hop was taken off.
    Taken,
    /// It is not one without options whose checksum adds up, of a whole packet with hops left;
    /// nothing has changed.
    Other,
}

/// [`View::checksum_is_valid`], not [`View::is_fragment`] and [`decrement_ttl`] in one, for the header
/// that nearly all packets have.
#[inline]
pub fn take_hop(header: &mut [u8; HEADER_LEN]) -> Hop {
    let [first, _, _, _, _, _, flags, offset, ttl, ..] = *header;
    let is_fragment = flags & !(DONT_FRAGMENT >> 8) as u8 != 0 || offset != 0;
    if first != 0x45 || is_fragment || ttl <= 1 || !checksum::header_is_valid(header) {
        return Hop::Other;
    }
    match decrement_ttl(header) {
        Some(_) => Hop::Taken,
        None => Hop::Other,
    }
}

/// Overwrites the explicit congestion notification of the packet in `bytes` with the low 2 bits of
/// `ecn` and updates the checksum; no effect on less than a header.
#[inline]
pub fn set_ecn(bytes: &mut [u8], ecn: u8) {
    if let Some(header) = bytes.first_chunk_mut::<HEADER_LEN>() {
        let old = u16_at(header, 0);
        let new = old & !3 | u16::from(ecn & 3);
        let sum = checksum::update(u16_at(header, 10), old, new);
        put(header, 0, &new.to_be_bytes());
        put(header, 10, &sum.to_be_bytes());
    }
}

/// The meaning of a header without options that is not a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Who sends it.
    pub source: Ipv4Addr,
    /// Who is to receive it.
    pub destination: Ipv4Addr,
    /// What the payload is.
    pub protocol: u8,
    /// Bytes behind the header, at most 65,515; more are written as the largest length.
    pub payload_len: usize,
    /// Hops it may take.
    pub ttl: u8,
    /// Differentiated services code point, 6 bits.
    pub dscp: u8,
    /// Explicit congestion notification, 2 bits.
    pub ecn: u8,
    /// Names the datagram; need not be unique while fragmentation is forbidden (RFC 6864, 4.1).
    pub identification: u16,
    /// Forbids fragmentation.
    pub dont_fragment: bool,
}

impl Repr {
    /// A plain datagram: default TTL, no service class, fragmentation allowed.
    pub const fn new(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        payload_len: usize,
    ) -> Self {
        Self {
            source,
            destination,
            protocol,
            payload_len,
            ttl: DEFAULT_TTL,
            dscp: 0,
            ecn: 0,
            identification: 0,
            dont_fragment: false,
        }
    }

    /// # Errors
    /// Those of [`View::parse`], [`WireError::BadChecksum`], and [`WireError::Unsupported`] for
    /// options and fragments.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let view = View::parse(bytes)?;
        if !view.checksum_is_valid() {
            return Err(WireError::BadChecksum);
        }
        if view.header_len() != HEADER_LEN || view.is_fragment() {
            return Err(WireError::Unsupported);
        }
        Ok(Self {
            source: view.source(),
            destination: view.destination(),
            protocol: view.protocol(),
            payload_len: view.payload().len(),
            ttl: view.ttl(),
            dscp: view.dscp(),
            ecn: view.ecn(),
            identification: view.identification(),
            dont_fragment: view.dont_fragment(),
        })
    }

    /// Bytes [`Repr::emit`] writes: the header alone.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// The header's bytes with their checksum.
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let total_len =
            u16::try_from(self.payload_len.saturating_add(HEADER_LEN)).unwrap_or(u16::MAX);
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        let mut header = [0; HEADER_LEN];
        put(&mut header, 0, &[0x45, self.dscp << 2 | self.ecn & 3]);
        put(&mut header, 2, &total_len.to_be_bytes());
        put(&mut header, 4, &self.identification.to_be_bytes());
        put(&mut header, 6, &flags.to_be_bytes());
        put(&mut header, 8, &[self.ttl, self.protocol]);
        put(&mut header, 12, &self.source.octets());
        put(&mut header, 16, &self.destination.octets());
        let sum = checksum::checksum(&header);
        put(&mut header, 10, &sum.to_be_bytes());
        header
    }

    /// Writes the header at the front of `into`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when `into` is shorter than [`Repr::buffer_len`].
    pub fn emit(&self, into: &mut [u8]) -> Result<(), WireError> {
        emit(into, &self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repr() -> Repr {
        Repr::new(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2), PROTOCOL_UDP, 4)
    }

    fn packet() -> Vec<u8> {
        [repr().bytes().as_slice(), b"data"].concat()
    }

    #[test]
    fn view_cuts_link_padding_off() {
        let mut bytes = packet();
        bytes.extend_from_slice(&[0; 22]);
        let view = View::parse(&bytes).unwrap();
        assert_eq!(view.payload(), b"data");
        assert!(view.checksum_is_valid());
    }

    #[test]
    fn each_bad_length_has_its_error() {
        let with = |at: usize, value: u8| {
            let mut bytes = packet();
            bytes[at] = value;
            View::parse(&bytes).map(|_| ()).unwrap_err()
        };
        assert_eq!(with(0, 0x65), WireError::Unsupported);
        assert_eq!(with(0, 0x44), WireError::BadLength);
        assert_eq!(with(3, 19), WireError::BadLength);
        assert_eq!(with(3, 25), WireError::Truncated);
    }

    #[test]
    fn every_checksum_follows_a_hop() {
        for identification in 0..=u16::MAX {
            let mut bytes = Repr { identification, ..repr() }.bytes();
            let old = u16_at(&bytes, 8);
            let expected = checksum::update(u16_at(&bytes, 10), old, old - 0x0100);
            decrement_ttl(&mut bytes).unwrap();
            assert_eq!(u16_at(&bytes, 10), expected);
        }
    }

    #[test]
    fn ttl_is_decremented_and_the_checksum_follows() {
        let mut bytes = packet();
        assert_eq!(decrement_ttl(&mut bytes), Some(63));
        let view = View::parse(&bytes).unwrap();
        assert_eq!(view.ttl(), 63);
        assert!(view.checksum_is_valid());
    }

    #[test]
    fn congestion_is_marked_and_the_checksum_follows() {
        let mut bytes = packet();
        set_ecn(&mut bytes, 3);
        let view = View::parse(&bytes).unwrap();
        assert_eq!((view.ecn(), view.dscp()), (3, 0));
        assert!(view.checksum_is_valid());
    }

    proptest! {
        #[test]
        fn a_hop_is_taken_where_each_check_allows_it(
            tos: u8, flags in prop::sample::select(vec![0, 0x2000, 0x4000, 0x8000, 0x0001, 0x0100]),
            ttl in 0u8..4, first in prop::sample::select(vec![0x45, 0x46, 0x65]), flip: bool,
        ) {
            let mut header = Repr { ttl, ..repr() }.bytes();
            (header[0], header[1]) = (first, tos);
            header[6..8].copy_from_slice(&u16::to_be_bytes(flags));
            header[10..12].fill(0);
            let sum = checksum::checksum(&header) ^ u16::from(flip);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            let packet = [header.as_slice(), &[0; 40]].concat();
            let mut stepwise = packet;
            let reserved_or_fragment = flags & !DONT_FRAGMENT != 0;
            let allowed = first == 0x45
                && !reserved_or_fragment
                && Sum::new().with(&header).is_valid()
                && decrement_ttl(&mut stepwise).is_some();
            let mut at_once = header;
            let taken = take_hop(&mut at_once) == Hop::Taken;
            prop_assert_eq!(taken, allowed);
            let expected = if allowed { &stepwise[..HEADER_LEN] } else { &header[..] };
            prop_assert_eq!(&at_once[..], expected);
        }
    }

    #[test]
    fn the_last_hop_is_not_taken() {
        let mut bytes = [Repr { ttl: 1, ..repr() }.bytes().as_slice(), b"data"].concat();
        let before = bytes.clone();
        assert_eq!(decrement_ttl(&mut bytes), None);
        assert_eq!(bytes, before);
    }

    proptest! {
        #[test]
        fn round_trips(s: u32, d: u32, protocol: u8, len in 0usize..1500, ttl: u8, dscp in 0u8..64, ecn in 0u8..4, identification: u16, dont_fragment: bool) {
            let repr = Repr {
                source: Ipv4Addr::from_bits(s), destination: Ipv4Addr::from_bits(d), protocol,
                payload_len: len, ttl, dscp, ecn, identification, dont_fragment,
            };
            let mut bytes = repr.bytes().to_vec();
            bytes.resize(HEADER_LEN + len, 0xa5);
            prop_assert_eq!(Repr::parse(&bytes), Ok(repr));
            bytes.truncate(bytes.len() - 1);
            prop_assert_eq!(Repr::parse(&bytes), Err(WireError::Truncated));
        }

        #[test]
        fn one_flipped_bit_breaks_the_checksum(bit in 0usize..160) {
            let mut bytes = packet();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Repr::parse(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            if let Ok(view) = View::parse(&bytes) {
                let _ = (view.payload().len(), view.checksum_is_valid(), view.is_fragment());
            }
            let mut bytes = bytes;
            let _ = decrement_ttl(&mut bytes);
        }
    }
}
