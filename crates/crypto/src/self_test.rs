//! A check of this machine's arithmetic before it is trusted with packets.
//!
//! AES-GCM is rebuilt here from its parts (AES from the `aes` crate, GHASH from the `ghash` crate
//! with the hash subkey derived by hand) and held against each [`Level`], which pick their
//! instructions at run time. GMAC falls out as the case without data.

use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use crate::block::BlockCipher;
use crate::{AeadAlgorithm, AeadBurst, AeadKey, CryptoError, Engine, Level, OpenJob, SealJob};

const NONCE: [u8; 12] = *b"holdfastTEST";
/// Lengths around the block size, the AAD's and the usual frame's; 0 is GMAC.
const DATA_LENS: &[usize] = &[0, 1, 15, 16, 17, 64, 255, 1420];

/// Checks AES-GCM, its hash subkey and its refusal of forgeries on this machine, at the level that
/// is chosen. Takes well under a millisecond.
///
/// # Errors
/// [`CryptoError::SelfTest`] names the first thing that is wrong; the daemon must not start then.
pub fn self_test() -> Result<(), CryptoError> {
    level_works(Level::chosen())
}

/// The same at any level.
pub(crate) fn level_works(level: Level) -> Result<(), CryptoError> {
    known_hash_subkey()?;
    for &algorithm in AeadAlgorithm::GCM {
        let key: Vec<u8> = (0_u8..).take(algorithm.key_len()).collect();
        let block_cipher = block_cipher(&key)?;
        let aead = AeadKey::with_level(level, algorithm, &key)?;
        for &len in DATA_LENS {
            let plain: Vec<u8> = (0_u8..=u8::MAX).cycle().take(len).collect();
            agrees(&block_cipher, &aead, &plain)?;
            refuses_forgery(&aead, &plain)?;
        }
        burst_agrees(&aead)?;
    }
    Ok(())
}

/// Bursts of every size that packets are run together at, each packet against the same by itself.
fn burst_agrees(aead: &AeadKey) -> Result<(), CryptoError> {
    let plain: Vec<u8> = (0_u8..=u8::MAX).cycle().take(DATA_LENS.len() * 64).collect();
    for len in (0..320).step_by(21) {
        let mut packets: [(Vec<u8>, [u8; 16]); 5] =
            std::array::from_fn(|at| (plain.iter().skip(at).take(len).copied().collect(), [0; 16]));
        let mut jobs: Vec<SealJob<'_>> = packets
            .iter_mut()
            .map(|(data, tag)| SealJob { key: aead, nonce: NONCE, aad: b"aad", data, tag })
            .collect();
        Engine.seal(&mut jobs);
        for (at, (data, tag)) in packets.iter().enumerate() {
            let mut alone: Vec<u8> = plain.iter().skip(at).take(len).copied().collect();
            let tag_alone = aead.seal_one(&NONCE, b"aad", &mut alone)?;
            check(*data == alone && *tag == tag_alone, "a burst gives what single packets give")?;
        }
        let mut jobs: Vec<OpenJob<'_>> = packets
            .iter_mut()
            .map(|(data, tag)| OpenJob {
                key: aead,
                nonce: NONCE,
                aad: b"aad",
                data,
                tag,
                ok: false,
            })
            .collect();
        Engine.open(&mut jobs);
        check(jobs.iter().all(|job| job.ok), "a burst opens what a burst sealed")?;
    }
    Ok(())
}

fn block_cipher(key: &[u8]) -> Result<BlockCipher, CryptoError> {
    BlockCipher::new(key).ok_or(CryptoError::SelfTest("AES takes its key"))
}

/// The hash subkey of the all-zero AES-128 key, which is AES's best known answer.
fn known_hash_subkey() -> Result<(), CryptoError> {
    const H: [u8; 16] = 0x66e9_4bd4_ef8a_2c3b_884c_fa59_ca34_2b2e_u128.to_be_bytes();
    let cipher = block_cipher(&[0; 16])?;
    check(*cipher.hash_subkey() == H, "AES gives the known GHASH subkey")
}

/// Seals once by the parts and once by the whole, and compares every octet.
fn agrees(cipher: &BlockCipher, aead: &AeadKey, plain: &[u8]) -> Result<(), CryptoError> {
    let aad = b"eight by";
    let mut by_parts = plain.to_vec();
    for (counter, block) in (2_u32..).zip(by_parts.chunks_mut(16)) {
        xor(block, &cipher.counter_block(&NONCE, counter));
    }
    let mut ghash = GHash::new((&*cipher.hash_subkey()).into());
    ghash.update_padded(aad);
    ghash.update_padded(&by_parts);
    let lengths = (aad.len() as u128 * 8) << 64 | (plain.len() as u128 * 8);
    ghash.update(&[lengths.to_be_bytes().into()]);
    let mut tag: [u8; 16] = ghash.finalize().into();
    xor(&mut tag, &cipher.counter_block(&NONCE, 1));

    let mut by_whole = plain.to_vec();
    let whole_tag = aead.seal_one(&NONCE, aad, &mut by_whole)?;
    check(by_parts == by_whole, "AES-GCM encrypts as AES in counter mode does")?;
    check(tag == whole_tag, "AES-GCM's tag is GHASH under the derived subkey")?;
    aead.open_one(&NONCE, aad, &mut by_whole, &whole_tag)?;
    check(by_whole == plain, "AES-GCM opens what it sealed")
}

fn refuses_forgery(aead: &AeadKey, plain: &[u8]) -> Result<(), CryptoError> {
    let mut data = plain.to_vec();
    let mut tag = aead.seal_one(&NONCE, b"", &mut data)?;
    xor(&mut tag, &[0x01]);
    let refused = aead.open_one(&NONCE, b"", &mut data, &tag).is_err();
    check(refused, "AES-GCM refuses a forged tag")?;
    check(data.iter().all(|&octet| octet == 0), "refused data is wiped")
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (octet, mask) in into.iter_mut().zip(with) {
        *octet ^= mask;
    }
}

fn check(holds: bool, what: &'static str) -> Result<(), CryptoError> {
    if holds { Ok(()) } else { Err(CryptoError::SelfTest(what)) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_passes() {
        super::self_test().expect("AES-GCM is sound here");
    }
}
