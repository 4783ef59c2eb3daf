//! Generic UDP Encapsulation (draft-ietf-intarea-gue, variant 0) with the private data that marks a
//! packet as come out of a tunnel.
//!
//! ```text
//!    0                   1                   2                   3
//!   +---+-+---------+---------------+-------------------------------+
//!   | 0 |C|  Hlen   |  proto/ctype  |             flags             |   C = 0, proto = 4 (IPv4), no flags
//!   +---+-+---------+---------------+-------------------------------+
//!   |                        epoch (64 bits)                        |   private data:
//!   |                         tag (64 bits)                         |   Hlen = 4 words
//!   +---------------------------------------------------------------+
//!   |                        inner IPv4 packet ...
//! ```
//!
//! What the tag covers and proves is the marker's business; here are only bytes.

use crate::WireError;
use crate::field::{array_at, put, rest, u8_at, u16_at};

/// The port GUE is registered for at IANA.
pub const PORT: u16 = 6080;
/// Bytes of this header with its private data.
pub const HEADER_LEN: usize = 20;

/// Words of private data: epoch and tag.
const HLEN: u8 = 4;
/// The inner packet is IPv4: its IP protocol number.
const PROTO_IPV4: u8 = 4;

/// The meaning of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// The ownership in whose name the packet is marked.
    pub epoch: u64,
    /// The proof.
    pub tag: u64,
}

impl Repr {
    /// The header at the front of a UDP payload, and the inner packet behind it.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when it is too short, [`WireError::Unsupported`] for another
    /// variant, a control message, flags, other private data or another inner protocol.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let fixed = bytes.get(..4).ok_or(WireError::Truncated)?;
        if u8_at(fixed, 0) != HLEN || u8_at(fixed, 1) != PROTO_IPV4 || u16_at(fixed, 2) != 0 {
            return Err(WireError::Unsupported);
        }
        let epoch = array_at(bytes, 4).map(u64::from_be_bytes).ok_or(WireError::Truncated)?;
        let tag = array_at(bytes, 12).map(u64::from_be_bytes).ok_or(WireError::Truncated)?;
        Ok((Self { epoch, tag }, rest(bytes, HEADER_LEN)))
    }

    /// Bytes [`Repr::bytes`] has.
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// The header.
    #[must_use]
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        put(&mut header, 0, &[HLEN, PROTO_IPV4]);
        put(&mut header, 4, &self.epoch.to_be_bytes());
        put(&mut header, 12, &self.tag.to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_survives_and_its_inner_packet_lies_behind() {
        let repr = Repr { epoch: 7, tag: 0x0102_0304_0506_0708 };
        let bytes = [repr.bytes().as_slice(), b"inner"].concat();
        assert_eq!(hex::encode(&bytes[..20]), "0404000000000000000000070102030405060708");
        assert_eq!(Repr::parse(&bytes), Ok((repr, b"inner".as_slice())));
    }

    #[test]
    fn other_kinds_of_gue_are_refused() {
        let good = Repr { epoch: 1, tag: 2 }.bytes();
        for (at, value) in [(0, 0x44), (0, 0x24), (0, 0x05), (1, 41), (2, 0x80), (3, 1)] {
            let mut other = good;
            other[at] = value;
            assert_eq!(Repr::parse(&other), Err(WireError::Unsupported), "byte {at} = {value:#x}");
        }
        for length in 0..HEADER_LEN {
            assert_eq!(Repr::parse(&good[..length]), Err(WireError::Truncated));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = Repr::parse(&bytes);
        }
    }
}
