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
    ///
    /// Two words at a time: 2^16 is 1 modulo 2^16 - 1, so the upper word of a pair counts as itself
    /// once the sum is folded.
    #[must_use]
    #[inline]
    pub fn with(self, bytes: &[u8]) -> Self {
        let (quads, rest) = bytes.as_chunks::<4>();
        let words: u64 = quads.iter().map(|quad| u64::from(u32::from_be_bytes(*quad))).sum();
        let last = match *rest {
            [] => 0,
            [a] => u64::from(a) << 8,
            [a, b] => u64::from(u16::from_be_bytes([a, b])),
            [a, b, c, ..] => u64::from(u16::from_be_bytes([a, b])) + (u64::from(c) << 8),
        };
        Self(self.0.wrapping_add(words).wrapping_add(last))
    }

    /// Adds one 16-bit word.
    #[must_use]
    #[inline]
    pub const fn with_word(self, word: u16) -> Self {
        Self(self.0.wrapping_add(word as u64))
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
    #[inline]
    pub fn finish(self) -> u16 {
        !fold(self.0)
    }

    /// True when the sum included a correct stored checksum.
    #[inline]
    pub fn is_valid(self) -> bool {
        fold(self.0) == 0xffff
    }
}

/// True when the checksum in an IPv4 header without options adds up. In whichever order the octets of
/// a word are taken the sum is 0 modulo 2^16 - 1 or it is not (RFC 1071, 2B), and so for the words of
/// a longer word.
#[inline]
pub fn header_is_valid(header: &[u8; 20]) -> bool {
    let [a, b, c, d, e] = {
        let (words, _) = header.as_chunks::<4>();
        let mut sums = [0; 5];
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = u64::from(u32::from_le_bytes(*word));
        }
        sums
    };
    let sum = a + b + c + d + e;
    sum != 0 && sum % 0xffff == 0
}

/// The checksum of `bytes`, whose own checksum field must be zero.
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().with(bytes).finish()
}

/// The checksum after one 16-bit word changed from `old` to `new`: RFC 1624, equation 3.
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// Adds the upper part of the sum to the lower until 16 bits are left. 64 bits become at most 33, 18,
/// 17 and 16 of them, without a branch.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
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
    fn the_largest_sums_fold_to_sixteen_bits() {
        let by_remainder = |sum: u64| if sum == 0 { 0 } else { ((sum - 1) % 0xffff + 1) as u16 };
        for sum in [0, 1, 0xffff, 0x1_0000, 0x1_fffe, 0xffff_ffff, u64::MAX, u64::MAX - 1, 1 << 63]
        {
            assert_eq!(fold(sum), by_remainder(sum), "{sum:#x}");
        }
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn a_header_is_judged_like_any_sum(mut header: [u8; 20], stored: bool) {
            if stored {
                header[10..12].fill(0);
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            prop_assert_eq!(header_is_valid(&header), Sum::new().with(&header).is_valid());
        }

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
