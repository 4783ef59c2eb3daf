//! AES-GMAC as ESP uses it: nothing is encrypted, everything is authenticated (RFC 4543).
//!
//! GHASH comes from the `ghash` crate, AES from the `aes` crate; what is here is the order of the
//! parts (RFC 4543 section 3.3): the AAD of AES-GCM, the IV, which is the end of the nonce, and the
//! data, one behind the other without padding between.

use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use crate::AeadAlgorithm;
use crate::aead::{NONCE_LEN, TAG_LEN};
use crate::block::{BLOCK_LEN, BlockCipher};

/// Octets of salt in front of the IV in the nonce (RFC 4543 section 3.2).
const SALT_LEN: usize = 4;

/// An expanded key, wiped when dropped.
pub(crate) struct Gmac {
    cipher: BlockCipher,
    hash: GHash,
}

impl Gmac {
    /// Expands a key of 16, 24 or 32 octets; `None` for any other length.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        let cipher = BlockCipher::new(key)?;
        let hash = GHash::new((&*cipher.hash_subkey()).into());
        Some(Self { cipher, hash })
    }

    /// The algorithm the key is for.
    pub(crate) const fn algorithm(&self) -> AeadAlgorithm {
        match self.cipher {
            BlockCipher::Aes128(_) => AeadAlgorithm::Aes128Gmac,
            BlockCipher::Aes192(_) => AeadAlgorithm::Aes192Gmac,
            BlockCipher::Aes256(_) => AeadAlgorithm::Aes256Gmac,
        }
    }

    /// The tag over AAD, IV and data.
    pub(crate) fn tag(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: &[u8]) -> [u8; TAG_LEN] {
        let mut joined = Joined { hash: self.hash.clone(), block: [0; BLOCK_LEN], filled: 0 };
        let iv = nonce.get(SALT_LEN..).unwrap_or_default();
        let mut len = 0_u64;
        for part in [aad, iv, data] {
            joined.update(part);
            len = len.wrapping_add(part.len() as u64);
        }
        let mut tag = joined.finish(len);
        for (octet, mask) in tag.iter_mut().zip(self.cipher.counter_block(nonce, 1)) {
            *octet ^= mask;
        }
        tag
    }
}

/// GHASH of parts that do not end with blocks.
struct Joined {
    hash: GHash,
    block: [u8; BLOCK_LEN],
    /// Octets of the block that are taken, less than all.
    filled: usize,
}

impl Joined {
    fn update(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            let room = self.block.get_mut(self.filled..).unwrap_or_default();
            let (now, later) = part.split_at(room.len().min(part.len()));
            for (octet, value) in room.iter_mut().zip(now) {
                *octet = *value;
            }
            self.filled += now.len();
            part = later;
            if self.filled == BLOCK_LEN {
                self.hash.update(&[self.block.into()]);
                self.filled = 0;
            }
        }
    }

    /// All of it is AAD to GCM, and there is no ciphertext.
    fn finish(mut self, len: u64) -> [u8; TAG_LEN] {
        if self.filled > 0 {
            if let Some(rest) = self.block.get_mut(self.filled..) {
                rest.fill(0);
            }
            self.hash.update(&[self.block.into()]);
        }
        let lengths = u128::from(len.wrapping_mul(8)) << 64;
        self.hash.update(&[lengths.to_be_bytes().into()]);
        self.hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use crate::{AeadAlgorithm, AeadKey};

    /// RFC 4543 section 3.5: to GCM, all of it is AAD.
    #[test]
    fn the_tag_is_that_of_gcm_without_data() {
        let nonce = *b"saltinitvect";
        let pairs = [
            (AeadAlgorithm::Aes128Gmac, AeadAlgorithm::Aes128Gcm16),
            (AeadAlgorithm::Aes192Gmac, AeadAlgorithm::Aes192Gcm16),
            (AeadAlgorithm::Aes256Gmac, AeadAlgorithm::Aes256Gcm16),
        ];
        for (gmac, gcm) in pairs {
            let octets: Vec<u8> = (0_u8..).take(gmac.key_len()).collect();
            let gmac = AeadKey::new(gmac, &octets).expect("the length is right");
            let gcm = AeadKey::new(gcm, &octets).expect("the length is right");
            for len in 0..200 {
                let plain: Vec<u8> = (0_u8..).take(len).collect();
                for aad in [&b"SPI.seq."[..], b"SPI.extended", b""] {
                    let mut data = plain.clone();
                    let tag = gmac.seal_one(&nonce, aad, &mut data).expect("short");
                    assert_eq!(data, plain, "nothing is encrypted");
                    let joined = [aad, b"initvect", &data].concat();
                    assert_eq!(Ok(tag), gcm.seal_one(&nonce, &joined, &mut []), "{len} octets");
                    assert_eq!(gmac.open_one(&nonce, aad, &mut data, &tag), Ok(()));
                    assert_eq!(data, plain);
                }
            }
        }
    }
}
