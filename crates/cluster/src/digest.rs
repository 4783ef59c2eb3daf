//! A digest of the state that is kept up to date with every change.
//!
//! Each record has a digest of its own, and their sum (modulo 2^64) stands for all of them: it does
//! not depend on an order, and a change costs one subtraction and one addition. What never changes
//! in a record, keys above all, goes in through SHA-256 when the record is made, so nothing that is
//! shown leads back to it; numbers, which move with every grant, are mixed in by multiplication.
//!
//! It finds members that differ by mistake. It is no proof against somebody who may choose records.

use sha2::{Digest as _, Sha256};

/// What a record adds to the sum, given its name.
pub(crate) trait Digest<K> {
    /// Depends on the name and everything in the record.
    fn digest(&self, name: K) -> u64;
}

/// Words to one word: each step is a multiplication to 128 bits, folded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixer(u64);

/// Odd, and as many ones as zeros: digits of the golden ratio and of the square root of 2.
const START: u64 = 0x9e37_79b9_7f4a_7c15;
const STEP: u64 = 0x6a09_e667_f3bc_c909;

impl Mixer {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(START).word(seed)
    }

    #[must_use]
    pub(crate) const fn word(self, word: u64) -> Self {
        let product = (self.0 ^ word) as u128 * STEP as u128;
        // The sum keeps a product of zero from forgetting what came before.
        let folded = product as u64 ^ (product >> 64) as u64;
        Self(folded.wrapping_add(self.0.rotate_left(29)).wrapping_add(START))
    }

    /// Bytes with their length.
    #[must_use]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let whole = words.iter().fold(self, |mixer, word| mixer.word(u64::from_le_bytes(*word)));
        let last = rest.iter().fold(0, |word, octet| word << 8 | u64::from(*octet));
        whole.word(last).word(bytes.len() as u64)
    }

    pub(crate) const fn end(self) -> u64 {
        self.word(0).0
    }
}

/// The first eight octets of the SHA-256 of all parts, each with its length in front.
pub(crate) fn sha256_words(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).fold(0, |word, octet| word << 8 | u64::from(*octet))
}
