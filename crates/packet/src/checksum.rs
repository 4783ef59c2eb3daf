//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::Ipv4Addr;

/// A running one's complement sum over 16-bit words.
///
/// Every part but the last must have an even length, because an odd byte is padded at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// An empty sum.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds `bytes`, the last odd one padded with zero.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (pairs, odd) = bytes.as_chunks::<2>();
        let words: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
        let last = odd.first().map_or(0, |byte| u64::from(*byte) << 8);
        Self(self.0.wrapping_add(words).wrapping_add(last))
    }

    /// Adds the pseudo header of UDP and TCP (RFC 768, RFC 9293 3.1).
    #[must_use]
    pub fn with_pseudo_header(
        self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: u8,
        len: u16,
    ) -> Self {
        self.with(&source.octets())
            .with(&destination.octets())
            .with(&[0, protocol])
            .with(&len.to_be_bytes())
    }

    /// The checksum to store: the complement of the folded sum.
    pub fn finish(self) -> u16 {
        !fold(self.0)
    }

    /// True when the sum included a correct stored checksum.
    pub fn is_valid(self) -> bool {
        fold(self.0) == 0xffff
    }
}

/// The checksum of `bytes`, whose own checksum field must be zero.
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().with(bytes).finish()
}

/// The checksum after one 16-bit word changed from `old` to `new`: RFC 1624, equation 3.
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

fn fold(mut sum: u64) -> u16 {
    while let high @ 1.. = sum >> 16 {
        sum = (sum & 0xffff) + high;
    }
    // The loop has left 16 bits.
    u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_1071_section_3() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn stored_checksum_validates(mut bytes in prop::collection::vec(any::<u8>(), 2..200)) {
            bytes[..2].fill(0);
            let sum = checksum(&bytes);
            bytes[..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(Sum::new().with(&bytes).is_valid());
        }

        #[test]
        fn update_equals_recomputation(mut words in prop::collection::vec(any::<u16>(), 3..20), new: u16) {
            words[0] = 0x4500; // keeps the sum from being all zero, where two representations exist
            let bytes = |words: &[u16]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
            let before = checksum(&bytes(&words));
            let old = std::mem::replace(&mut words[1], new);
            prop_assert_eq!(update(before, old, new), checksum(&bytes(&words)));
        }
    }
}
