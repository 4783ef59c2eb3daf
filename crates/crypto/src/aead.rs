//! AES-GCM with a 16-octet ICV: one packet at a time, and bursts of packets.
//!
//! The burst interface is the seam between the data plane and an implementation: a job per packet,
//! any mixture of keys, in place. [`Portable`] runs the jobs through the `aes-gcm` crate one after
//! the other and is the oracle for every faster implementation.

use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use zeroize::Zeroize;

use crate::CryptoError;

/// Octets of a GCM nonce: 4 of salt and 8 of IV in ESP (RFC 4106 section 4) and IKE (RFC 5282
/// section 4).
pub const NONCE_LEN: usize = 12;
/// Octets of the ICV, the full-length authentication tag (RFC 4106 section 6).
pub const TAG_LEN: usize = 16;

/// An authenticated cipher, named as its IKEv2 transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AeadAlgorithm {
    /// AES-GCM with a 128-bit key and a 16-octet ICV.
    Aes128Gcm16,
    /// AES-GCM with a 256-bit key and a 16-octet ICV.
    Aes256Gcm16,
}

impl AeadAlgorithm {
    /// Octets of the key, without any salt.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 => 16,
            Self::Aes256Gcm16 => 32,
        }
    }
}

/// An expanded key: AES round keys and GHASH powers, wiped when dropped.
pub struct AeadKey(Cipher);

enum Cipher {
    Aes128(Aes128Gcm),
    Aes256(Aes256Gcm),
}

impl AeadKey {
    /// Expands a key.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] unless `key` has the algorithm's length (the salt is no part of
    /// it).
    pub fn new(algorithm: AeadAlgorithm, key: &[u8]) -> Result<Self, CryptoError> {
        let wrong_length =
            |_| CryptoError::KeyLength { wanted: algorithm.key_len(), got: key.len() };
        Ok(Self(match algorithm {
            AeadAlgorithm::Aes128Gcm16 => {
                Cipher::Aes128(Aes128Gcm::new_from_slice(key).map_err(wrong_length)?)
            }
            AeadAlgorithm::Aes256Gcm16 => {
                Cipher::Aes256(Aes256Gcm::new_from_slice(key).map_err(wrong_length)?)
            }
        }))
    }

    /// Expands a 128-bit key.
    #[must_use]
    pub fn aes_128(key: &[u8; 16]) -> Self {
        Self(Cipher::Aes128(Aes128Gcm::new(key.into())))
    }

    /// Expands a 256-bit key.
    #[must_use]
    pub fn aes_256(key: &[u8; 32]) -> Self {
        Self(Cipher::Aes256(Aes256Gcm::new(key.into())))
    }

    /// The algorithm this key is for.
    #[must_use]
    pub const fn algorithm(&self) -> AeadAlgorithm {
        match self.0 {
            Cipher::Aes128(_) => AeadAlgorithm::Aes128Gcm16,
            Cipher::Aes256(_) => AeadAlgorithm::Aes256Gcm16,
        }
    }

    /// Encrypts `data` in place and returns the tag. The nonce must never repeat under this key.
    ///
    /// # Errors
    /// [`CryptoError::OutputTooLong`] above 2^36 - 32 octets, GCM's limit.
    pub fn seal_one(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CryptoError> {
        let sealed = match &self.0 {
            Cipher::Aes128(cipher) => cipher.encrypt_inout_detached(nonce.into(), aad, data.into()),
            Cipher::Aes256(cipher) => cipher.encrypt_inout_detached(nonce.into(), aad, data.into()),
        };
        sealed.map(Into::into).map_err(|_| CryptoError::OutputTooLong)
    }

    /// Verifies the tag and decrypts `data` in place.
    ///
    /// # Errors
    /// [`CryptoError::NotAuthentic`]; `data` is then all zeroes.
    pub fn open_one(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), CryptoError> {
        let opened = match &self.0 {
            Cipher::Aes128(cipher) => {
                cipher.decrypt_inout_detached(nonce.into(), aad, (&mut *data).into(), tag.into())
            }
            Cipher::Aes256(cipher) => {
                cipher.decrypt_inout_detached(nonce.into(), aad, (&mut *data).into(), tag.into())
            }
        };
        opened.map_err(|_| {
            data.fill(0);
            CryptoError::NotAuthentic
        })
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AeadKey").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

/// One packet to seal in place.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// Key of the SA.
    pub key: &'a AeadKey,
    /// Nonce, never used before under this key.
    pub nonce: [u8; NONCE_LEN],
    /// Octets that are authenticated but not encrypted.
    pub aad: &'a [u8],
    /// Plaintext, becomes ciphertext.
    pub data: &'a mut [u8],
    /// Where the tag goes.
    pub tag: &'a mut [u8; TAG_LEN],
}

/// One packet to open in place.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// Key of the SA.
    pub key: &'a AeadKey,
    /// Nonce the packet was sealed under.
    pub nonce: [u8; NONCE_LEN],
    /// Octets that are authenticated but not encrypted.
    pub aad: &'a [u8],
    /// Ciphertext; becomes plaintext, or zeroes when the packet does not authenticate.
    pub data: &'a mut [u8],
    /// The tag that came with the packet.
    pub tag: &'a [u8; TAG_LEN],
    /// Written by [`AeadBurst::open`]: whether the packet is authentic. Start with `false`.
    pub ok: bool,
}

/// An implementation of AES-GCM over bursts of packets.
///
/// Jobs are independent of each other; an implementation may run them in any order and interleave
/// them. After [`open`](Self::open) each job's `ok` is set and the data of a refused job is zeroed.
pub trait AeadBurst: Send {
    /// Seals every job in place.
    fn seal(&self, jobs: &mut [SealJob<'_>]);
    /// Opens every job in place.
    fn open(&self, jobs: &mut [OpenJob<'_>]);
    /// What to call this implementation in logs and benchmarks.
    fn name(&self) -> &'static str;
}

/// The portable implementation: the `aes-gcm` crate, one packet after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

impl AeadBurst for Portable {
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        for job in jobs {
            match job.key.seal_one(&job.nonce, job.aad, job.data) {
                Ok(tag) => *job.tag = tag,
                // Longer than GCM's 64 GiB: no packet is, but plaintext must not leave whatever
                // happens.
                Err(_) => {
                    job.data.zeroize();
                    job.tag.zeroize();
                }
            }
        }
    }

    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.ok = job.key.open_one(&job.nonce, job.aad, job.data, job.tag).is_ok();
        }
    }

    fn name(&self) -> &'static str {
        "portable"
    }
}
