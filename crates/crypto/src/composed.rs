//! A cipher and an integrity algorithm composed as ESP does it: encrypted first, then authenticated
//! (RFC 4303 section 3.3.2.1), and opened the other way round.
//!
//! ```text
//!   before | IV | data | behind       authenticated, the ICV is cut to half of the hash (RFC 4868)
//!               '------'              encrypted: AES-CBC (RFC 3602) or AES-CTR (RFC 3686)
//! ```

use std::fmt;

use aes::cipher::{KeyIvInit, StreamCipher};
use aes::{Aes128, Aes192, Aes256};
use ctr::Ctr32BE;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::block::{BLOCK_LEN, BlockCipher};
use crate::{AeadAlgorithm, CbcKey, CryptoError, IntegrityAlgorithm, SecretBytes};

/// Octets of nonce behind the key of AES-CTR in KEYMAT (RFC 3686 section 5.1).
const CTR_NONCE_LEN: usize = 4;
/// What the key of CBC's IVs is derived for: shorter than anything ESP has authenticated, so that no
/// packet can ask for it.
const IV_KEY_LABEL: &[u8] = b"IVs of AES-CBC";

/// AES in a mode that encrypts and does not authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockMode {
    /// AES-CBC with a 128-bit key.
    Cbc128,
    /// AES-CBC with a 192-bit key.
    Cbc192,
    /// AES-CBC with a 256-bit key.
    Cbc256,
    /// AES-CTR with a 128-bit key.
    Ctr128,
    /// AES-CTR with a 192-bit key.
    Ctr192,
    /// AES-CTR with a 256-bit key.
    Ctr256,
}

impl BlockMode {
    /// Octets of AES's key.
    #[must_use]
    pub const fn aes_key_len(self) -> usize {
        match self {
            Self::Cbc128 | Self::Ctr128 => 16,
            Self::Cbc192 | Self::Ctr192 => 24,
            Self::Cbc256 | Self::Ctr256 => 32,
        }
    }

    /// Whether it is the counter mode.
    #[must_use]
    pub const fn is_ctr(self) -> bool {
        matches!(self, Self::Ctr128 | Self::Ctr192 | Self::Ctr256)
    }

    /// Octets of key, and with AES-CTR the nonce behind it.
    const fn key_len(self) -> usize {
        self.aes_key_len() + if self.is_ctr() { CTR_NONCE_LEN } else { 0 }
    }
}

/// A cipher and what authenticates its ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Composition {
    /// What encrypts.
    pub mode: BlockMode,
    /// What authenticates.
    pub integrity: IntegrityAlgorithm,
}

impl Composition {
    /// Every pair.
    pub fn all() -> impl Iterator<Item = Self> {
        use BlockMode::{Cbc128, Cbc192, Cbc256, Ctr128, Ctr192, Ctr256};
        let modes = [Cbc128, Cbc192, Cbc256, Ctr128, Ctr192, Ctr256];
        modes.into_iter().flat_map(|mode| {
            IntegrityAlgorithm::ALL.iter().map(move |&integrity| Self { mode, integrity })
        })
    }

    /// Octets of key: the cipher's (with AES-CTR its nonce), then the integrity algorithm's (RFC 7296
    /// section 2.17).
    #[must_use]
    pub const fn key_len(self) -> usize {
        self.mode.key_len() + self.integrity.key_len()
    }

    /// Octets of IV in each packet (RFC 3602 section 3, RFC 3686 section 3.1).
    #[must_use]
    pub const fn iv_len(self) -> usize {
        if self.mode.is_ctr() { 8 } else { BLOCK_LEN }
    }

    /// What the length of the data is a multiple of: for AES-CTR, ESP's own boundary (RFC 3686 section
    /// 3.2, RFC 4303 section 2.4).
    #[must_use]
    pub const fn alignment(self) -> usize {
        if self.mode.is_ctr() { 4 } else { BLOCK_LEN }
    }

    /// Octets of ICV.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        self.integrity.icv_len()
    }
}

/// Both expanded keys, wiped when dropped.
pub struct ComposedKey {
    composition: Composition,
    cipher: Cipher,
    mac: Authenticator,
}

enum Cipher {
    /// The data's key, and one that makes IVs.
    Cbc(CbcKey, Box<BlockCipher>),
    Ctr(SecretBytes, [u8; CTR_NONCE_LEN]),
}

#[derive(Clone)]
enum Authenticator {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl ComposedKey {
    /// Expands as many octets as [`Composition::key_len`] says; `None` when there are others.
    pub(crate) fn new(composition: Composition, key: &[u8]) -> Option<Self> {
        let Composition { mode, integrity } = composition;
        let (cipher_key, integrity_key) = key.split_at_checked(mode.key_len())?;
        if integrity_key.len() != integrity.key_len() {
            return None;
        }
        let cipher = if mode.is_ctr() {
            let (key, nonce) = cipher_key.split_last_chunk()?;
            Cipher::Ctr(SecretBytes::from(key), *nonce)
        } else {
            let derived = SecretBytes::new(integrity.sign(integrity_key, &[IV_KEY_LABEL]));
            let iv_key = BlockCipher::new(derived.as_bytes().get(..16)?)?;
            Cipher::Cbc(CbcKey::new(cipher_key).ok()?, Box::new(iv_key))
        };
        Some(Self { composition, cipher, mac: Authenticator::new(integrity, integrity_key)? })
    }

    /// What the key is for.
    #[must_use]
    pub const fn composition(&self) -> Composition {
        self.composition
    }

    pub(crate) const fn algorithm(&self) -> AeadAlgorithm {
        AeadAlgorithm::Composed(self.composition)
    }

    /// Writes the IV of packet `number`, encrypts `data` in place and writes the ICV over `before`, IV,
    /// `data` and `behind`. The number must never repeat under this key.
    ///
    /// AES-CTR's IV is the number (RFC 3686 section 3.1: unique). AES-CBC's must be unpredictable (RFC
    /// 3602 section 3): it is the number encrypted, under a key of its own.
    ///
    /// # Errors
    /// [`CryptoError::BlockLength`] when data, IV or ICV have not the composition's lengths.
    pub fn seal(
        &self,
        number: u64,
        before: &[u8],
        iv: &mut [u8],
        data: &mut [u8],
        behind: &[u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        let mut block = [0; BLOCK_LEN];
        if let Some(front) = block.first_chunk_mut() {
            *front = number.to_be_bytes();
        }
        if let Cipher::Cbc(_, iv_key) = &self.cipher {
            block = iv_key.encrypt(block);
        }
        let source = block.get(..iv.len()).ok_or(CryptoError::BlockLength)?;
        iv.copy_from_slice(source);
        if icv.len() != self.composition.icv_len() {
            return Err(CryptoError::BlockLength);
        }
        self.encrypt(iv, data)?;
        self.mac.sign(&[before, iv, data, behind], |whole| {
            for (octet, value) in icv.iter_mut().zip(whole) {
                *octet = *value;
            }
        });
        Ok(())
    }

    /// Verifies the ICV, and only then decrypts `data` in place.
    ///
    /// # Errors
    /// [`CryptoError::NotAuthentic`]; `data` is then all zeroes.
    pub fn open(
        &self,
        before: &[u8],
        iv: &[u8],
        data: &mut [u8],
        behind: &[u8],
        icv: &[u8],
    ) -> Result<(), CryptoError> {
        let mut authentic = false;
        self.mac.sign(&[before, iv, data, behind], |whole| {
            let expected = whole.get(..self.composition.icv_len()).unwrap_or_default();
            authentic = !expected.is_empty() && expected.ct_eq(icv).into();
        });
        if authentic && self.decrypt(iv, data).is_ok() {
            return Ok(());
        }
        data.zeroize();
        Err(CryptoError::NotAuthentic)
    }

    fn encrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
        match &self.cipher {
            Cipher::Cbc(key, _) => {
                key.encrypt(iv.try_into().map_err(|_| CryptoError::BlockLength)?, data)
            }
            Cipher::Ctr(key, nonce) => count(key.as_bytes(), *nonce, iv, data),
        }
    }

    fn decrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), CryptoError> {
        match &self.cipher {
            Cipher::Cbc(key, _) => {
                key.decrypt(iv.try_into().map_err(|_| CryptoError::BlockLength)?, data)
            }
            Cipher::Ctr(key, nonce) => count(key.as_bytes(), *nonce, iv, data),
        }
    }
}

impl fmt::Debug for ComposedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComposedKey")
            .field("composition", &self.composition)
            .finish_non_exhaustive()
    }
}

/// AES-CTR over the data: the counter block is nonce, IV and a counter from 1 (RFC 3686 section 4).
fn count(
    key: &[u8],
    nonce: [u8; CTR_NONCE_LEN],
    iv: &[u8],
    data: &mut [u8],
) -> Result<(), CryptoError> {
    let mut block = [0; BLOCK_LEN];
    for (octet, value) in block.iter_mut().zip(nonce.iter().chain(iv).chain(&[0, 0, 0, 1])) {
        *octet = *value;
    }
    fn run<C: KeyIvInit + StreamCipher>(
        key: &[u8],
        block: &[u8],
        data: &mut [u8],
    ) -> Result<(), CryptoError> {
        let mut stream = C::new_from_slices(key, block).map_err(|_| CryptoError::BlockLength)?;
        stream.try_apply_keystream(data).map_err(|_| CryptoError::OutputTooLong)
    }
    match key.len() {
        16 => run::<Ctr32BE<Aes128>>(key, &block, data),
        24 => run::<Ctr32BE<Aes192>>(key, &block, data),
        _ => run::<Ctr32BE<Aes256>>(key, &block, data),
    }
}

impl Authenticator {
    fn new(integrity: IntegrityAlgorithm, key: &[u8]) -> Option<Self> {
        Some(match integrity {
            IntegrityAlgorithm::HmacSha256_128 => Self::Sha256(KeyInit::new_from_slice(key).ok()?),
            IntegrityAlgorithm::HmacSha384_192 => Self::Sha384(KeyInit::new_from_slice(key).ok()?),
            IntegrityAlgorithm::HmacSha512_256 => Self::Sha512(KeyInit::new_from_slice(key).ok()?),
        })
    }

    /// Hands the whole MAC over the parts to `use_it`: nothing is allocated.
    fn sign(&self, parts: &[&[u8]], use_it: impl FnOnce(&[u8])) {
        fn run<M: Mac + Clone>(mac: &M, parts: &[&[u8]], use_it: impl FnOnce(&[u8])) {
            let mut mac = mac.clone();
            for part in parts {
                mac.update(part);
            }
            use_it(&mac.finalize().into_bytes());
        }
        match self {
            Self::Sha256(mac) => run(mac, parts, use_it),
            Self::Sha384(mac) => run(mac, parts, use_it),
            Self::Sha512(mac) => run(mac, parts, use_it),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(composition: Composition) -> ComposedKey {
        let octets: Vec<u8> = (0_u8..).take(composition.key_len()).collect();
        ComposedKey::new(composition, &octets).expect("the length is right")
    }

    #[test]
    fn what_was_sealed_opens_and_one_bit_changed_anywhere_does_not() {
        for composition in Composition::all() {
            let key = key(composition);
            let plain: Vec<u8> = (0_u8..48).collect();
            let mut iv = vec![0; composition.iv_len()];
            let (mut data, mut icv) = (plain.clone(), vec![0; composition.icv_len()]);
            key.seal(7, b"SPI.seq.", &mut iv, &mut data, b"high", &mut icv).expect("whole blocks");
            assert_ne!(data, plain);
            let sealed = [&b"SPI.seq."[..], &iv, &data, b"high", &icv].concat();
            let open = |octets: &[u8]| {
                let (before, rest) = octets.split_at(8);
                let (iv, rest) = rest.split_at(composition.iv_len());
                let (data, rest) = rest.split_at(48);
                let (behind, icv) = rest.split_at(4);
                let mut data = data.to_vec();
                key.open(before, iv, &mut data, behind, icv)
                    .map(|()| data.clone())
                    .map_err(|_| data)
            };
            assert_eq!(open(&sealed), Ok(plain));
            for bit in 0..sealed.len() * 8 {
                let mut forged = sealed.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(&forged), Err(vec![0; 48]), "{composition:?}, bit {bit}");
            }
        }
    }

    /// RFC 3686 section 6, test vector 3: 36 octets.
    #[test]
    fn counter_mode_gives_what_rfc_3686_says() {
        let key = hex::decode("7691BE035E5020A8AC6E618529F9A0DC").expect("hex");
        let mut data: Vec<u8> = (0_u8..36).collect();
        let iv = hex::decode("27777F3F4A1786F0").expect("hex");
        count(&key, [0x00, 0xE0, 0x01, 0x7B], &iv, &mut data).expect("short");
        let expected = concat!(
            "C1CF48A89F2FFDD9CF4652E9EFDB72D7",
            "4540A42BDE6D7836D59A5CEAAEF31053",
            "25B2072F"
        );
        assert_eq!(hex::encode_upper(data), expected);
    }

    #[test]
    fn the_ivs_of_cbc_differ_and_follow_no_count() {
        let composition =
            Composition { mode: BlockMode::Cbc256, integrity: IntegrityAlgorithm::HmacSha256_128 };
        let key = key(composition);
        let ivs: std::collections::BTreeSet<Vec<u8>> = (0..1000)
            .map(|number| {
                let (mut iv, mut data, mut icv) = ([0; 16], [0; 16], [0; 16]);
                key.seal(number, b"", &mut iv, &mut data, b"", &mut icv).expect("a block");
                assert_ne!(iv.first_chunk(), Some(&number.to_be_bytes()));
                iv.to_vec()
            })
            .collect();
        assert_eq!(ivs.len(), 1000);
    }
}
