//! AES in CBC mode (RFC 3602), without padding: IKE pads by itself (RFC 7296 section 3.14).

use std::fmt;

use aes::cipher::{Block, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use zeroize::Zeroizing;

use crate::CryptoError;

/// Octets of an AES block, of the IV, and what the data must be a multiple of.
pub const BLOCK_LEN: usize = 16;

/// An AES key for CBC, wiped when dropped.
#[derive(Clone)]
pub struct CbcKey(Key);

#[derive(Clone)]
enum Key {
    Aes128(Zeroizing<[u8; 16]>),
    Aes192(Zeroizing<[u8; 24]>),
    Aes256(Zeroizing<[u8; 32]>),
}

impl CbcKey {
    /// Takes a key of 16, 24 or 32 octets.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] for any other length.
    pub fn new(key: &[u8]) -> Result<Self, CryptoError> {
        if let Ok(key) = <[u8; 16]>::try_from(key) {
            return Ok(Self(Key::Aes128(Zeroizing::new(key))));
        }
        if let Ok(key) = <[u8; 24]>::try_from(key) {
            return Ok(Self(Key::Aes192(Zeroizing::new(key))));
        }
        match <[u8; 32]>::try_from(key) {
            Ok(key) => Ok(Self(Key::Aes256(Zeroizing::new(key)))),
            Err(_) => Err(CryptoError::KeyLength { wanted: 32, got: key.len() }),
        }
    }

    /// Encrypts `data` in place. The IV must be unpredictable (RFC 3602 section 3).
    ///
    /// # Errors
    /// [`CryptoError::BlockLength`] unless `data` is a whole number of blocks; nothing is changed
    /// then.
    pub fn encrypt(&self, iv: &[u8; BLOCK_LEN], data: &mut [u8]) -> Result<(), CryptoError> {
        match &self.0 {
            Key::Aes128(key) => {
                encrypt(cbc::Encryptor::<Aes128>::new((&**key).into(), iv.into()), data)
            }
            Key::Aes192(key) => {
                encrypt(cbc::Encryptor::<Aes192>::new((&**key).into(), iv.into()), data)
            }
            Key::Aes256(key) => {
                encrypt(cbc::Encryptor::<Aes256>::new((&**key).into(), iv.into()), data)
            }
        }
    }

    /// Decrypts `data` in place. Authenticate the ciphertext first: CBC itself proves nothing.
    ///
    /// # Errors
    /// [`CryptoError::BlockLength`] unless `data` is a whole number of blocks; nothing is changed
    /// then.
    pub fn decrypt(&self, iv: &[u8; BLOCK_LEN], data: &mut [u8]) -> Result<(), CryptoError> {
        match &self.0 {
            Key::Aes128(key) => {
                decrypt(cbc::Decryptor::<Aes128>::new((&**key).into(), iv.into()), data)
            }
            Key::Aes192(key) => {
                decrypt(cbc::Decryptor::<Aes192>::new((&**key).into(), iv.into()), data)
            }
            Key::Aes256(key) => {
                decrypt(cbc::Decryptor::<Aes256>::new((&**key).into(), iv.into()), data)
            }
        }
    }
}

impl fmt::Debug for CbcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = match self.0 {
            Key::Aes128(_) => 128,
            Key::Aes192(_) => 192,
            Key::Aes256(_) => 256,
        };
        write!(f, "CbcKey({bits} bits)")
    }
}

fn encrypt<C: BlockModeEncrypt>(mut mode: C, data: &mut [u8]) -> Result<(), CryptoError> {
    mode.encrypt_blocks(whole_blocks::<C>(data)?);
    Ok(())
}

fn decrypt<C: BlockModeDecrypt>(mut mode: C, data: &mut [u8]) -> Result<(), CryptoError> {
    mode.decrypt_blocks(whole_blocks::<C>(data)?);
    Ok(())
}

fn whole_blocks<C: BlockSizeUser>(data: &mut [u8]) -> Result<&mut [Block<C>], CryptoError> {
    let (blocks, rest) = Block::<C>::slice_as_chunks_mut(data);
    if rest.is_empty() { Ok(blocks) } else { Err(CryptoError::BlockLength) }
}
