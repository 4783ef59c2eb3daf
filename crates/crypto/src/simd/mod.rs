//! AES-GCM in 512-bit vectors: VAES and VPCLMULQDQ, four blocks an instruction.
//!
//! ```text
//!   burst of jobs ─┬─ short packets of one size class, four at a time ─► four
//!                  └─ all others ─────────────────────────────────────► whole
//! ```
//!
//! The only module of this crate with `unsafe` code. All of it is in `vector` (loads and stores
//! whose extent a slice or an array proves) and here, where code with these instructions is called
//! from code without: [`Key`] cannot be made on a processor that lacks one of them.
//!
//! Constant time: no branch and no address depends on keys or data, only on lengths and on which
//! packets share a key. What was left in registers and on the stack is not wiped.
#![allow(unsafe_code, reason = "vector instructions; each block says why it is sound")]

mod burst;
mod counters;
mod four;
mod schedule;
mod vector;
mod whole;

use std::arch::x86_64::*;

use schedule::Schedule;
use whole::Header;

use crate::aead::{AeadAlgorithm, NONCE_LEN, OpenJob, SealJob, TAG_LEN};

/// Whether this processor has the instructions and the system saves the registers.
pub(crate) fn is_available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("vaes")
        && std::arch::is_x86_feature_detected!("vpclmulqdq")
        && std::arch::is_x86_feature_detected!("bmi2")
}

/// Which AES a key is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Aes128,
    Aes192,
    Aes256,
}

impl Size {
    /// How many there are.
    const COUNT: usize = 3;

    const fn of(algorithm: AeadAlgorithm) -> Option<Self> {
        match algorithm {
            AeadAlgorithm::Aes128Gcm16 => Some(Self::Aes128),
            AeadAlgorithm::Aes192Gcm16 => Some(Self::Aes192),
            AeadAlgorithm::Aes256Gcm16 => Some(Self::Aes256),
            _ => None,
        }
    }
}

/// An expanded key, and the proof that this processor has the instructions.
pub(crate) struct Key {
    size: Size,
    schedule: Box<Schedule>,
}

impl Key {
    /// Expands a key of the algorithm's length; `None` without the instructions, or for what is not
    /// AES-GCM.
    pub(crate) fn new(algorithm: AeadAlgorithm, key: &[u8]) -> Option<Self> {
        if key.len() != algorithm.key_len() || !is_available() {
            return None;
        }
        let size = Size::of(algorithm)?;
        // SAFETY: the instructions were just found to be there.
        let schedule = unsafe { Schedule::new(key) };
        Some(Self { size, schedule })
    }

    /// What it is for.
    pub(crate) const fn algorithm(&self) -> AeadAlgorithm {
        match self.size {
            Size::Aes128 => AeadAlgorithm::Aes128Gcm16,
            Size::Aes192 => AeadAlgorithm::Aes192Gcm16,
            Size::Aes256 => AeadAlgorithm::Aes256Gcm16,
        }
    }

    /// Encrypts in place and returns the tag. The caller keeps to GCM's longest length.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> [u8; TAG_LEN] {
        // SAFETY: this key was made, so the instructions are there.
        unsafe { one::<true>(self, nonce, aad, data) }
    }

    /// Decrypts in place and returns the tag that the packet should have. The plaintext is not to be
    /// used before that is what it has.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> [u8; TAG_LEN] {
        // SAFETY: this key was made, so the instructions are there.
        unsafe { one::<false>(self, nonce, aad, data) }
    }
}

/// Seals every job in place.
pub(crate) fn seal(jobs: &mut [SealJob<'_>]) {
    if is_available() {
        // SAFETY: the instructions were just found to be there.
        unsafe { burst::run(jobs) }
    } else {
        burst::one_by_one(jobs);
    }
}

/// Opens every job in place.
pub(crate) fn open(jobs: &mut [OpenJob<'_>]) {
    if is_available() {
        // SAFETY: the instructions were just found to be there.
        unsafe { burst::run(jobs) }
    } else {
        burst::one_by_one(jobs);
    }
}

#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn one<const SEALS: bool>(
    key: &Key,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    data: &mut [u8],
) -> [u8; TAG_LEN] {
    let mut tag = [0; TAG_LEN];
    vector::store_block(&mut tag, dispatch::<SEALS>(key, nonce, aad, data));
    tag
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn dispatch<const SEALS: bool>(
    key: &Key,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    data: &mut [u8],
) -> __m128i {
    let header =
        Header { nonce, aad: last_aad_block(&key.schedule, aad), lengths: lengths(aad, data) };
    match key.size {
        Size::Aes128 => whole::run::<10, SEALS>(&key.schedule, &header, data),
        Size::Aes192 => whole::run::<12, SEALS>(&key.schedule, &header, data),
        Size::Aes256 => whole::run::<14, SEALS>(&key.schedule, &header, data),
    }
}

/// GHASH's last block, octets reversed.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn lengths(aad: &[u8], data: &[u8]) -> __m128i {
    let bits = |octets: &[u8]| (octets.len() as i64).wrapping_mul(8);
    _mm_set_epi64x(bits(aad), bits(data))
}

/// The last block of the AAD with GHASH of those before it added: of ESP's 8 or 12 octets that is
/// all there is.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn last_aad_block(schedule: &Schedule, aad: &[u8]) -> __m128i {
    if aad.len() <= 16 { vector::load_short(aad) } else { long_aad(schedule, aad) }
}

/// Block by block: only IKE and the log have so much, and they are in no hurry.
#[cold]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn long_aad(schedule: &Schedule, aad: &[u8]) -> __m128i {
    let (before, last) = aad.split_at(aad.len().saturating_sub(1) / 16 * 16);
    let h = _mm512_zextsi128_si512(vector::load_block(schedule.power(1)));
    let mut hash = _mm_setzero_si128();
    for block in before.as_chunks().0 {
        let sum = _mm_xor_si128(hash, vector::reverse_block(vector::load_block(block)));
        hash = vector::Products::of(_mm512_zextsi128_si512(sum), h).reduced_sum();
    }
    _mm_xor_si128(vector::load_short(last), vector::reverse_block(hash))
}
