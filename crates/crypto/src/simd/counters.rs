//! Counter blocks for AES, four in a vector.

use std::arch::x86_64::*;

use super::schedule::Schedule;
use super::vector::{broadcast, load_blocks, load_nonce};

/// Counters whose last octet alone differs.
const SPAN: usize = 256;

/// Blocks that are zero but for the last octet, which is 1 in the first and counts on, modulo 256;
/// five more than a span, so that four can be read from any of its places.
static LAST_OCTETS: [[u8; 16]; SPAN + 4] = {
    let mut table = [[0; 16]; SPAN + 4];
    let mut index = 0;
    while index < SPAN + 4 {
        table[index][15] = ((index + 1) % SPAN) as u8;
        index += 1;
    }
    table
};

/// Makes the counter blocks of a packet, from 1 on, each already combined with the first round key.
pub(super) struct Counters {
    /// Nonce and first round key, in each place.
    nonce: __m512i,
    /// `nonce` with the upper three octets of the counter.
    span: __m512i,
    /// How many blocks were made, a multiple of 16.
    made: usize,
}

impl Counters {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn new(key: &Schedule, nonce: &[u8; 12]) -> Self {
        let nonce = _mm512_broadcast_i32x4(load_nonce(nonce));
        let nonce = _mm512_xor_si512(nonce, broadcast(key.round_key(0)));
        Self { nonce, span: nonce, made: 0 }
    }

    /// The next vectors. All calls but the last of a packet ask for four.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn next<const VECTORS: usize>(&mut self) -> [__m512i; VECTORS] {
        let at = self.made % SPAN;
        let mut blocks = [self.span; VECTORS];
        for (index, block) in blocks.iter_mut().enumerate() {
            *block = _mm512_xor_si512(self.span, last_octets(at + 4 * index));
        }
        self.made += 16;
        if VECTORS == 4 && at == SPAN - 16 {
            // The sixteenth counter is the first of the next span.
            let upper = (self.made as u32).swap_bytes().cast_signed();
            let next = _mm512_set1_epi32(upper);
            let next = _mm512_mask_xor_epi32(self.nonce, 0x8888, self.nonce, next);
            if let Some(last) = blocks.last_mut() {
                *last = _mm512_xor_si512(*last, _mm512_maskz_xor_epi32(0x8000, self.span, next));
            }
            self.span = next;
        }
        blocks
    }
}

/// Four blocks of the table.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn last_octets(at: usize) -> __m512i {
    let blocks = LAST_OCTETS[at % SPAN..].first_chunk().unwrap_or_else(|| unreachable!());
    load_blocks(blocks)
}
