//! AES on single blocks, whatever the length of its key.

use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};

/// Octets of a block.
pub(crate) const BLOCK_LEN: usize = 16;

/// An expanded key, wiped when dropped.
#[derive(Clone)]
pub(crate) enum BlockCipher {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl BlockCipher {
    /// Expands a key of 16, 24 or 32 octets; `None` for any other length.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        Some(match key.len() {
            16 => Self::Aes128(Aes128::new_from_slice(key).ok()?),
            24 => Self::Aes192(Aes192::new_from_slice(key).ok()?),
            32 => Self::Aes256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        })
    }

    /// One block encrypted.
    pub(crate) fn encrypt(&self, block: [u8; BLOCK_LEN]) -> [u8; BLOCK_LEN] {
        let mut block: Block<Aes128> = block.into();
        match self {
            Self::Aes128(cipher) => cipher.encrypt_block(&mut block),
            Self::Aes192(cipher) => cipher.encrypt_block(&mut block),
            Self::Aes256(cipher) => cipher.encrypt_block(&mut block),
        }
        block.into()
    }

    /// GCM's counter block for a 12-octet nonce; 1 masks the tag, 2 and on encrypt.
    pub(crate) fn counter_block(&self, nonce: &[u8; 12], counter: u32) -> [u8; BLOCK_LEN] {
        let mut block = [0; BLOCK_LEN];
        for (octet, value) in block.iter_mut().zip(nonce.iter().chain(&counter.to_be_bytes())) {
            *octet = *value;
        }
        self.encrypt(block)
    }

    /// GCM's hash subkey: the zero block encrypted.
    pub(crate) fn hash_subkey(&self) -> zeroize::Zeroizing<[u8; BLOCK_LEN]> {
        zeroize::Zeroizing::new(self.encrypt([0; BLOCK_LEN]))
    }
}
