//! Pseudorandom functions and the key expansion built on them (RFC 7296 section 2.13, RFC 4868
//! section 2.4).

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroize;

use crate::{CryptoError, SecretBytes};

/// A pseudorandom function, named as its IKEv2 transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrfAlgorithm {
    /// PRF-HMAC-SHA-256.
    HmacSha256,
    /// PRF-HMAC-SHA-384.
    HmacSha384,
    /// PRF-HMAC-SHA-512.
    HmacSha512,
}

/// prf+ appends a one-octet block counter and is not defined past its end (RFC 7296 section 2.13).
const PRF_PLUS_BLOCKS_MAX: usize = 255;

impl PrfAlgorithm {
    /// Octets of output, which are also the preferred octets of key.
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// `prf(key, parts joined)`. Any key length is legal: these PRFs take keys of variable size
    /// (RFC 4868 section 2.1.2).
    #[must_use]
    pub fn prf(self, key: &[u8], parts: &[&[u8]]) -> SecretBytes {
        SecretBytes::new(match self {
            Self::HmacSha256 => hmac::<Hmac<Sha256>>(key, parts),
            Self::HmacSha384 => hmac::<Hmac<Sha384>>(key, parts),
            Self::HmacSha512 => hmac::<Hmac<Sha512>>(key, parts),
        })
    }

    /// The first `len` octets of `prf+(key, seed parts joined)`: T1 = prf(K, S | 1), Tn = prf(K,
    /// Tn-1 | S | n).
    ///
    /// # Errors
    /// [`CryptoError::OutputTooLong`] past 255 blocks.
    pub fn prf_plus(
        self,
        key: &[u8],
        seed: &[&[u8]],
        len: usize,
    ) -> Result<SecretBytes, CryptoError> {
        let blocks = len.div_ceil(self.output_len());
        if blocks > PRF_PLUS_BLOCKS_MAX {
            return Err(CryptoError::OutputTooLong);
        }
        let mut output = Vec::with_capacity(blocks * self.output_len());
        let mut previous = SecretBytes::default();
        for counter in 1..=u8::try_from(blocks).map_err(|_| CryptoError::OutputTooLong)? {
            let number = [counter];
            let mut parts: Vec<&[u8]> = Vec::with_capacity(seed.len() + 2);
            parts.push(previous.as_bytes());
            parts.extend_from_slice(seed);
            parts.push(&number);
            previous = self.prf(key, &parts);
            output.extend_from_slice(previous.as_bytes());
        }
        // Wiped by hand: truncating only forgets the octets past the end.
        if let Some(surplus) = output.get_mut(len..) {
            surplus.zeroize();
        }
        output.truncate(len);
        Ok(SecretBytes::new(output))
    }
}

/// HMAC over the parts in order; the key is hashed first when longer than a block (RFC 4868 section
/// 2.1.2).
pub(crate) fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of every length, so the error never happens; an empty output would fail every
    // comparison.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}
