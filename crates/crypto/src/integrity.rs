//! Integrity algorithms of what is not protected by an AEAD (RFC 4868).

use hmac::Hmac;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::CryptoError;
use crate::prf::hmac;

/// An integrity algorithm, named as its IKEv2 transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntegrityAlgorithm {
    /// AUTH-HMAC-SHA-256-128.
    HmacSha256_128,
    /// AUTH-HMAC-SHA-384-192.
    HmacSha384_192,
    /// AUTH-HMAC-SHA-512-256.
    HmacSha512_256,
}

impl IntegrityAlgorithm {
    /// Every algorithm.
    pub const ALL: &[Self] = &[Self::HmacSha256_128, Self::HmacSha384_192, Self::HmacSha512_256];

    /// Octets of the key: the hash's output length (RFC 4868 section 2.1.1).
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacSha256_128 => 32,
            Self::HmacSha384_192 => 48,
            Self::HmacSha512_256 => 64,
        }
    }

    /// Octets of the ICV: half of the hash's output (RFC 4868 section 2.3).
    #[must_use]
    pub const fn icv_len(self) -> usize {
        self.key_len() / 2
    }

    /// The ICV over the parts joined.
    #[must_use]
    pub fn sign(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut icv = match self {
            Self::HmacSha256_128 => hmac::<Hmac<Sha256>>(key, parts),
            Self::HmacSha384_192 => hmac::<Hmac<Sha384>>(key, parts),
            Self::HmacSha512_256 => hmac::<Hmac<Sha512>>(key, parts),
        };
        icv.truncate(self.icv_len());
        icv
    }

    /// Checks an ICV in constant time.
    ///
    /// # Errors
    /// [`CryptoError::NotAuthentic`], also for an ICV of the wrong length.
    pub fn verify(self, key: &[u8], parts: &[&[u8]], icv: &[u8]) -> Result<(), CryptoError> {
        let authentic: bool =
            icv.len() == self.icv_len() && self.sign(key, parts).ct_eq(icv).into();
        if authentic { Ok(()) } else { Err(CryptoError::NotAuthentic) }
    }
}
