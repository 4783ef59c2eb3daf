//! What a key is expanded to: powers of GHASH's subkey and AES round keys, wiped when dropped.

use std::arch::x86_64::*;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::vector::{Products, load_block, prefetch, read_anew, reverse_block, store_block};

/// Powers of H kept. Eight vectors of them: packets up to 512 octets are reduced once, longer ones
/// once every 512 octets, and the table takes eight cache lines.
pub(super) const POWERS: usize = 32;
/// Round keys of AES-256.
const ROUND_KEYS_MAX: usize = 15;
/// Blocks of the table, a whole number of cache lines.
const BLOCKS: usize = POWERS + ROUND_KEYS_MAX + 1;

/// An expanded key: H^32 down to H^1, and behind them the round keys. A short packet needs the last
/// powers and the round keys, which lie side by side.
#[repr(C, align(64))]
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Schedule {
    blocks: [[u8; 16]; BLOCKS],
}

impl Schedule {
    /// Expands a key of 16, 24 or 32 octets; of others, nothing useful comes out.
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn new(key: &[u8]) -> Box<Self> {
        // In its place from the beginning: a move would leave a copy behind.
        let mut schedule = Box::new(Self { blocks: [[0; 16]; BLOCKS] });
        let rounds = key.len() / 4 + 6;
        if let Some(round_keys) = schedule.blocks.get_mut(POWERS..) {
            expand(key, rounds, round_keys);
        }
        let h = schedule.subkey(rounds);
        let mut power = h;
        for block in schedule.blocks.iter_mut().take(POWERS).rev() {
            store_block(block, power);
            let (a, b) = (_mm512_zextsi128_si512(power), _mm512_zextsi128_si512(h));
            power = _mm512_castsi512_si128(Products::of(a, b).reduced());
        }
        schedule
    }

    /// The key of GHASH, the zero block encrypted, times x.
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn subkey(&self, rounds: usize) -> __m128i {
        let mut block = load_block(self.round_key(0));
        for round in 1..rounds {
            block = _mm_aesenc_si128(block, load_block(self.round_key(round)));
        }
        block = reverse_block(_mm_aesenclast_si128(block, load_block(self.round_key(rounds))));
        // Doubled without a branch: the bit that is shifted out of the upper half comes back as the
        // polynomial.
        let carries = _mm_srli_epi64::<63>(block);
        let crossed = _mm_slli_si128::<8>(carries);
        let overflow = _mm_srli_si128::<8>(carries);
        let minus = _mm_sub_epi64(_mm_setzero_si128(), _mm_unpacklo_epi64(overflow, overflow));
        let polynomial = _mm_set_epi64x(0xC200_0000_0000_0000_u64.cast_signed(), 1);
        let doubled = _mm_or_si128(_mm_slli_epi64::<1>(block), crossed);
        _mm_xor_si128(doubled, _mm_and_si128(minus, polynomial))
    }

    /// Round key `round`, 0 to 14.
    #[inline(always)]
    pub(super) fn round_key(&self, round: usize) -> &[u8; 16] {
        &self.blocks[POWERS + round.min(ROUND_KEYS_MAX)]
    }

    /// H^`exponent` and what follows it, falling, in so many blocks: what is behind H^1 is not to be
    /// multiplied with anything but zero.
    #[inline(always)]
    pub(super) fn powers_from<const N: usize>(&self, exponent: usize) -> &[[u8; 16]; N] {
        const { assert!(N <= BLOCKS - POWERS) };
        // In range whatever the exponent is, which the compiler sees.
        let from = POWERS.wrapping_sub(exponent) % POWERS;
        self.blocks[from..].first_chunk().unwrap_or_else(|| unreachable!())
    }

    /// H^`exponent`, 1 to 32.
    #[inline(always)]
    pub(super) fn power(&self, exponent: usize) -> &[u8; 16] {
        let [power] = self.powers_from::<1>(exponent);
        power
    }

    /// The same schedule, to be read from memory again.
    #[inline(always)]
    pub(super) fn read_anew(&self) -> &Self {
        read_anew(self)
    }

    /// Asks for what a packet with so many blocks of data will need.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn prefetch(&self, blocks: usize) {
        // From the power of the first block, two more than there are blocks of data, to the last
        // round key of AES-128; the line behind comes with AES-256 from the neighbour's prefetcher.
        let first = POWERS.saturating_sub(blocks + 2);
        for line in self.blocks[first..].chunks(4) {
            if let Some(block) = line.first() {
                prefetch(block);
            }
        }
    }
}

/// The key schedule of FIPS 197, section 5.2, for keys of 16, 24 and 32 octets.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn expand(key: &[u8], rounds: usize, round_keys: &mut [[u8; 16]]) {
    let mut words = [0_u32; 4 * ROUND_KEYS_MAX];
    let key_words = key.len() / 4;
    for (word, octets) in words.iter_mut().zip(key.as_chunks().0) {
        *word = u32::from_le_bytes(*octets);
    }
    let mut constant = 1_u32;
    for index in key_words..4 * (rounds + 1) {
        let mut word = words[index - 1];
        if index % key_words == 0 {
            word = substituted(word.rotate_right(8)) ^ constant;
            // Doubled in AES's field.
            constant = (constant << 1) ^ if constant & 0x80 == 0 { 0 } else { 0x11B };
        } else if key_words > 6 && index % key_words == 4 {
            word = substituted(word);
        }
        words[index] = words[index - key_words] ^ word;
    }
    for (round_key, words) in round_keys.iter_mut().zip(words.as_chunks::<4>().0) {
        for (octets, word) in round_key.as_chunks_mut().0.iter_mut().zip(words) {
            *octets = word.to_le_bytes();
        }
    }
    words.zeroize();
}

/// AES's substitution of each octet of a word. In a block of four equal columns the rotation of the
/// rows changes nothing, so that a last round under a zero key substitutes only.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn substituted(word: u32) -> u32 {
    let block = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aesenclast_si128(block, _mm_setzero_si128())).cast_unsigned()
}
