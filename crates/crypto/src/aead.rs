//! AEADs with a 16-octet ICV: one packet at a time, and bursts of packets.
//!
//! AES-GCM is what bursts are made fast for; ChaCha20-Poly1305 and AES-GMAC have the same shape and
//! run packet by packet. The burst interface is the seam between the data plane and an implementation: a job per packet,
//! any mixture of keys, in place. [`Engine`] runs each job through the [`Level`] that its key was
//! expanded for.

use std::fmt;

use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use chacha20poly1305::ChaCha20Poly1305;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::composed::{ComposedKey, Composition};
use crate::gmac::Gmac;
#[cfg(target_arch = "x86_64")]
use crate::simd;
use crate::{CryptoError, Level};

type Aes192Gcm = AesGcm<aes::Aes192, U12>;

/// Octets of a nonce: 4 of salt and 8 of IV in ESP (RFC 4106 section 4, RFC 7634 section 2, RFC 4543
/// section 3.2) and IKE (RFC 5282 section 4).
pub const NONCE_LEN: usize = 12;
/// Octets of the ICV, the full-length authentication tag (RFC 4106 section 6).
pub const TAG_LEN: usize = 16;

/// An authenticated cipher, named as its IKEv2 transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AeadAlgorithm {
    /// AES-GCM with a 128-bit key and a 16-octet ICV.
    Aes128Gcm16,
    /// AES-GCM with a 192-bit key and a 16-octet ICV.
    Aes192Gcm16,
    /// AES-GCM with a 256-bit key and a 16-octet ICV.
    Aes256Gcm16,
    /// ChaCha20 and Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// Nothing encrypted, AES-GMAC with a 128-bit key over everything (RFC 4543).
    Aes128Gmac,
    /// The same with a 192-bit key.
    Aes192Gmac,
    /// The same with a 256-bit key.
    Aes256Gmac,
    /// A cipher and an integrity algorithm: no single transform. Its packets have a shape of their own,
    /// and go through [`AeadKey::composed`] instead of jobs.
    Composed(Composition),
}

impl AeadAlgorithm {
    /// Every algorithm that is one transform: those with a 16-octet ICV, an IV of eight and a salt.
    pub const ALL: &[Self] = &[
        Self::Aes128Gcm16,
        Self::Aes192Gcm16,
        Self::Aes256Gcm16,
        Self::ChaCha20Poly1305,
        Self::Aes128Gmac,
        Self::Aes192Gmac,
        Self::Aes256Gmac,
    ];
    /// AES-GCM with each length of key: what there is more than one [`Level`] of.
    pub const GCM: &[Self] = &[Self::Aes128Gcm16, Self::Aes192Gcm16, Self::Aes256Gcm16];

    /// Every algorithm, compositions included.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().chain(Composition::all().map(Self::Composed))
    }

    /// Octets of the key, without any salt but AES-CTR's, which is inside.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 | Self::Aes128Gmac => 16,
            Self::Aes192Gcm16 | Self::Aes192Gmac => 24,
            Self::Aes256Gcm16 | Self::Aes256Gmac | Self::ChaCha20Poly1305 => 32,
            Self::Composed(composition) => composition.key_len(),
        }
    }

    /// What to call it in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm16 => "aes-128-gcm",
            Self::Aes192Gcm16 => "aes-192-gcm",
            Self::Aes256Gcm16 => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes128Gmac => "aes-128-gmac",
            Self::Aes192Gmac => "aes-192-gmac",
            Self::Aes256Gmac => "aes-256-gmac",
            Self::Composed(composition) if composition.mode.is_ctr() => "aes-ctr-hmac",
            Self::Composed(_) => "aes-cbc-hmac",
        }
    }

    /// Whether data is encrypted at all, or only authenticated.
    #[must_use]
    pub const fn encrypts(self) -> bool {
        !matches!(self, Self::Aes128Gmac | Self::Aes192Gmac | Self::Aes256Gmac)
    }
}

/// Octets of data that one packet may have: GCM's limit (SP 800-38D, section 5.2.1.1).
pub const DATA_LEN_MAX: u64 = (1 << 36) - 32;

/// An expanded key, of AES-GCM round keys and GHASH powers, wiped when dropped. It is a handle: the
/// keys themselves lie where they were made.
pub struct AeadKey(Cipher);

enum Cipher {
    #[cfg(target_arch = "x86_64")]
    Vaes512(simd::Key),
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<Aes192Gcm>),
    Aes256(Box<Aes256Gcm>),
    ChaCha20(Box<ChaCha20Poly1305>),
    Gmac(Box<Gmac>),
    Composed(Box<ComposedKey>),
    /// No key: authenticates nothing.
    Refusing,
}

impl AeadKey {
    /// Expands a key for the [level](Level::chosen) of this process.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] unless `key` has the algorithm's length (the salt is no part of
    /// it).
    pub fn new(algorithm: AeadAlgorithm, key: &[u8]) -> Result<Self, CryptoError> {
        Self::with_level(Level::chosen(), algorithm, key)
    }

    /// Expands a key for a level of one's own choice, as tests and benches do.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] as above, [`CryptoError::LevelUnavailable`] if this processor
    /// lacks the instructions.
    pub fn with_level(
        level: Level,
        algorithm: AeadAlgorithm,
        key: &[u8],
    ) -> Result<Self, CryptoError> {
        let error = CryptoError::KeyLength { wanted: algorithm.key_len(), got: key.len() };
        if key.len() != algorithm.key_len() {
            return Err(error);
        }
        let cipher = match level {
            // What there is one implementation of has it at every level.
            _ if !AeadAlgorithm::GCM.contains(&algorithm) => {
                return Cipher::portable(algorithm, key).map(Self).ok_or(error);
            }
            #[cfg(target_arch = "x86_64")]
            Level::Vaes512 => simd::Key::new(algorithm, key).map(Cipher::Vaes512),
            #[cfg(not(target_arch = "x86_64"))]
            Level::Vaes512 => None,
            Level::Portable => return Cipher::portable(algorithm, key).map(Self).ok_or(error),
        };
        cipher.map(Self).ok_or(CryptoError::LevelUnavailable(level.name()))
    }

    /// Expands a 128-bit key.
    #[must_use]
    pub fn aes_128(key: &[u8; 16]) -> Self {
        Self::new(AeadAlgorithm::Aes128Gcm16, key)
            .unwrap_or_else(|_| Self(Cipher::Aes128(Box::new(Aes128Gcm::new(key.into())))))
    }

    /// Expands a 256-bit key.
    #[must_use]
    pub fn aes_256(key: &[u8; 32]) -> Self {
        Self::new(AeadAlgorithm::Aes256Gcm16, key)
            .unwrap_or_else(|_| Self(Cipher::Aes256(Box::new(Aes256Gcm::new(key.into())))))
    }

    /// No key at all: refuses to seal, and finds nothing authentic. For callers that cannot fail, in
    /// place of a key of the wrong length.
    #[must_use]
    pub const fn refusing() -> Self {
        Self(Cipher::Refusing)
    }

    /// The algorithm this key is for.
    #[must_use]
    pub const fn algorithm(&self) -> AeadAlgorithm {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Cipher::Vaes512(key) => key.algorithm(),
            Cipher::Aes128(_) => AeadAlgorithm::Aes128Gcm16,
            Cipher::Aes192(_) => AeadAlgorithm::Aes192Gcm16,
            Cipher::Aes256(_) | Cipher::Refusing => AeadAlgorithm::Aes256Gcm16,
            Cipher::ChaCha20(_) => AeadAlgorithm::ChaCha20Poly1305,
            Cipher::Gmac(gmac) => gmac.algorithm(),
            Cipher::Composed(key) => key.algorithm(),
        }
    }

    /// The level this key was expanded for.
    #[must_use]
    pub const fn level(&self) -> Level {
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Cipher::Vaes512(_) => Level::Vaes512,
            _ => Level::Portable,
        }
    }

    /// The keys of a composition, whose packets jobs cannot describe.
    #[must_use]
    pub const fn composed(&self) -> Option<&ComposedKey> {
        match &self.0 {
            Cipher::Composed(key) => Some(key),
            _ => None,
        }
    }

    /// What the vector kernels need, if the key was expanded for them.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn vaes(&self) -> Option<&simd::Key> {
        match &self.0 {
            Cipher::Vaes512(key) => Some(key),
            _ => None,
        }
    }

    /// Encrypts `data` in place and returns the tag. The nonce must never repeat under this key.
    ///
    /// # Errors
    /// [`CryptoError::OutputTooLong`] above [`DATA_LEN_MAX`], [`CryptoError::KeyLength`] without a
    /// key for this: a composition's packets have another shape.
    pub fn seal_one(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CryptoError> {
        if data.len() as u64 > DATA_LEN_MAX {
            return Err(CryptoError::OutputTooLong);
        }
        match &self.0 {
            #[cfg(target_arch = "x86_64")]
            Cipher::Vaes512(key) => Ok(key.seal(nonce, aad, data)),
            Cipher::Aes128(cipher) => seal(&**cipher, nonce, aad, data),
            Cipher::Aes192(cipher) => seal(&**cipher, nonce, aad, data),
            Cipher::Aes256(cipher) => seal(&**cipher, nonce, aad, data),
            Cipher::ChaCha20(cipher) => seal(&**cipher, nonce, aad, data),
            Cipher::Gmac(gmac) => Ok(gmac.tag(nonce, aad, data)),
            Cipher::Composed(_) | Cipher::Refusing => {
                Err(CryptoError::KeyLength { wanted: 32, got: 0 })
            }
        }
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
        let is_authentic = data.len() as u64 <= DATA_LEN_MAX
            && match &self.0 {
                #[cfg(target_arch = "x86_64")]
                Cipher::Vaes512(key) => key.open(nonce, aad, data).ct_eq(tag).into(),
                Cipher::Aes128(cipher) => opens(&**cipher, nonce, aad, data, tag),
                Cipher::Aes192(cipher) => opens(&**cipher, nonce, aad, data, tag),
                Cipher::Aes256(cipher) => opens(&**cipher, nonce, aad, data, tag),
                Cipher::ChaCha20(cipher) => opens(&**cipher, nonce, aad, data, tag),
                Cipher::Gmac(gmac) => gmac.tag(nonce, aad, data).ct_eq(tag).into(),
                Cipher::Composed(_) | Cipher::Refusing => false,
            };
        if is_authentic {
            return Ok(());
        }
        data.zeroize();
        Err(CryptoError::NotAuthentic)
    }
}

fn seal<A: AeadInOut<NonceSize = U12, TagSize = U16>>(
    cipher: &A,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    data: &mut [u8],
) -> Result<[u8; TAG_LEN], CryptoError> {
    let tag = cipher.encrypt_inout_detached(nonce.into(), aad, data.into());
    tag.map(Into::into).map_err(|_| CryptoError::OutputTooLong)
}

fn opens<A: AeadInOut<NonceSize = U12, TagSize = U16>>(
    cipher: &A,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    data: &mut [u8],
    tag: &[u8; TAG_LEN],
) -> bool {
    cipher.decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into()).is_ok()
}

impl Cipher {
    /// For the crates that run everywhere; `None` when the key's length is wrong.
    fn portable(algorithm: AeadAlgorithm, key: &[u8]) -> Option<Self> {
        Some(match algorithm {
            AeadAlgorithm::Aes128Gcm16 => {
                Self::Aes128(Box::new(Aes128Gcm::new_from_slice(key).ok()?))
            }
            AeadAlgorithm::Aes192Gcm16 => {
                Self::Aes192(Box::new(Aes192Gcm::new_from_slice(key).ok()?))
            }
            AeadAlgorithm::Aes256Gcm16 => {
                Self::Aes256(Box::new(Aes256Gcm::new_from_slice(key).ok()?))
            }
            AeadAlgorithm::Composed(composition) => {
                Self::Composed(Box::new(ComposedKey::new(composition, key)?))
            }
            AeadAlgorithm::ChaCha20Poly1305 => {
                Self::ChaCha20(Box::new(ChaCha20Poly1305::new_from_slice(key).ok()?))
            }
            AeadAlgorithm::Aes128Gmac | AeadAlgorithm::Aes192Gmac | AeadAlgorithm::Aes256Gmac => {
                Self::Gmac(Box::new(Gmac::new(key)?))
            }
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

impl SealJob<'_> {
    pub(crate) fn run(&mut self) {
        match self.key.seal_one(&self.nonce, self.aad, self.data) {
            Ok(tag) => *self.tag = tag,
            // Longer than GCM's 64 GiB: no packet is, but plaintext must not leave whatever
            // happens.
            Err(_) => {
                self.data.zeroize();
                self.tag.zeroize();
            }
        }
    }
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

impl OpenJob<'_> {
    pub(crate) fn run(&mut self) {
        self.ok = self.key.open_one(&self.nonce, self.aad, self.data, self.tag).is_ok();
    }
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

/// Each job through the level its key was expanded for: those of the vector kernels several at a
/// time, in any order, others one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine;

impl AeadBurst for Engine {
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        #[cfg(target_arch = "x86_64")]
        simd::seal(jobs);
        #[cfg(not(target_arch = "x86_64"))]
        Portable.seal(jobs);
    }

    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        #[cfg(target_arch = "x86_64")]
        simd::open(jobs);
        #[cfg(not(target_arch = "x86_64"))]
        Portable.open(jobs);
    }

    fn name(&self) -> &'static str {
        Level::chosen().name()
    }
}

/// The jobs one after the other, each as [`AeadKey::seal_one`] and [`AeadKey::open_one`] do it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portable;

impl AeadBurst for Portable {
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        jobs.iter_mut().for_each(SealJob::run);
    }

    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        jobs.iter_mut().for_each(OpenJob::run);
    }

    fn name(&self) -> &'static str {
        "one by one"
    }
}
