//! One packet after the other, of any length: AES of one group of vectors stitched with GHASH of the
//! group before.
//!
//! The packet is seen as a stream of blocks that begins one block in front of the data:
//!
//! ```text
//!   block    0     1 2 3 ... n        n+1
//!   AES      tag   data (counter 2..)  -       counters are 1 + block
//!   GHASH    AAD   ciphertext         lengths
//!   times    H^n+2 H^n+1 ...    H^2   H^1
//! ```
//!
//! so that the tag's mask and the AAD cost no vector of their own. The last five to eight vectors
//! are multiplied by the power that their place demands, and their sum is reduced once. Vectors
//! before those are added up place by place, in groups of four, weighted by powers of H^4 only, and
//! what they come to, reduced place by place, is added to the next vector: places are not summed up
//! until the end, however long the packet is.

use std::arch::x86_64::*;

use super::counters::Counters;
use super::schedule::Schedule;
use super::vector::{
    Products, VECTOR, broadcast, inner_rounds, keep_behind_block, keep_part, load,
    load_behind_block, load_block, load_blocks, load_part, reverse, reverse_block, store,
    store_behind_block, store_part,
};

/// Vectors of a group: enough that AES's latency is hidden, few enough for the registers.
const GROUP: usize = 4;
/// Octets of data in the stream's first vector.
const HEAD: usize = VECTOR - 16;
/// Vectors whose products are summed up with the powers of their places.
const LAST_VECTORS: usize = 8;

/// What of a packet is not data.
pub(super) struct Header<'a> {
    pub(super) nonce: &'a [u8; 12],
    /// The last block of the AAD, exclusive-ored with GHASH of those before.
    pub(super) aad: __m128i,
    /// Lengths of AAD and data in bits, octets reversed.
    pub(super) lengths: __m128i,
}

/// Seals or opens `data` in place; gives the tag.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn run<const ROUNDS: usize, const SEALS: bool>(
    key: &Schedule,
    header: &Header<'_>,
    data: &mut [u8],
) -> __m128i {
    let mut packet = Packet::<'_, ROUNDS, SEALS> {
        key,
        counters: Counters::new(key, header.nonce),
        sum: Products::zero(),
        aad: header.aad,
        lengths: _mm512_broadcast_i32x4(header.lengths),
        mask: _mm_setzero_si128(),
    };
    packet.stream(data);
    let hash = reverse_block(packet.sum.reduced_sum());
    _mm_xor_si128(hash, packet.mask)
}

/// Counter mode over `$count` vectors, and between its rounds the products of another group. No
/// function: with AES-256 the compiler would call it, and the sums would go through memory.
macro_rules! cipher_and_hash {
    ($packet:ident, $count:ident, $input:ident, $pending:ident, $weights:ident) => {{
        let key = $packet.key.read_anew();
        let mut state = $packet.counters.next::<$count>();
        let [a, b, c, d] = $pending;
        let [weight_a, weight_b, weight_c, weight_d] = $weights;
        inner_rounds!(ROUNDS, round => {
            let round_key = broadcast(key.round_key(round));
            for vector in &mut state {
                *vector = _mm512_aesenc_epi128(*vector, round_key);
            }
            if round == 2 {
                $packet.sum.add_two([a, b], [weight_a, weight_b]);
            }
            if round == ROUNDS / 2 + 1 {
                $packet.sum.add_two([c, d], [weight_c, weight_d]);
            }
        });
        last_round(state, broadcast(key.round_key(ROUNDS)), $input)
    }};
}

struct Packet<'a, const ROUNDS: usize, const SEALS: bool> {
    key: &'a Schedule,
    counters: Counters,
    sum: Products,
    aad: __m128i,
    lengths: __m512i,
    /// What hides the tag.
    mask: __m128i,
}

impl<const ROUNDS: usize, const SEALS: bool> Packet<'_, ROUNDS, SEALS> {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn stream(&mut self, data: &mut [u8]) {
        let blocks = data.len().div_ceil(16) + 2;
        let (head, rest) = data.split_at_mut(data.len().min(HEAD));
        // The last vector has 1 to 64 octets, if there is one behind the head.
        let tail_len = rest.len().wrapping_sub(1) % VECTOR + 1;
        let (full, tail) = rest.split_at_mut(rest.len().saturating_sub(tail_len));
        let (full, _) = full.as_chunks_mut::<VECTOR>();
        match (full.len(), tail.is_empty()) {
            (_, true) => self.short::<1>(head, full, tail, blocks),
            (0, _) => self.short::<2>(head, full, tail, blocks),
            (1, _) => self.short::<3>(head, full, tail, blocks),
            (2, _) => self.short::<4>(head, full, tail, blocks),
            _ => self.long(head, full, tail, blocks),
        }
    }

    /// A packet of no more than one group.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn short<const N: usize>(
        &mut self,
        head: &mut [u8],
        full: &mut [[u8; VECTOR]],
        tail: &mut [u8],
        blocks: usize,
    ) {
        let mut input = [_mm512_setzero_si512(); N];
        input[0] = load_behind_block(head);
        for (vector, octets) in input.iter_mut().skip(1).zip(full.iter()) {
            *vector = load(octets);
        }
        if N > 1 {
            input[N - 1] = load_part(tail);
        }
        let output = self.cipher::<N, true>(input);
        self.mask = _mm512_castsi512_si128(output[0]);
        store_behind_block(head, output[0]);
        for (vector, octets) in output.iter().skip(1).zip(full.iter_mut()) {
            store(octets, *vector);
        }
        if N > 1 {
            store_part(tail, output[N - 1]);
        }
        let mut hashed = if SEALS { output } else { input };
        if SEALS && N > 1 {
            hashed[N - 1] = keep_part(tail.len(), hashed[N - 1]);
        }
        hashed[0] = self.with_aad(hashed[0], head.len());
        self.finish(reverse_all(hashed), blocks);
    }

    /// A packet of more than one group.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn long(&mut self, head: &mut [u8], full: &mut [[u8; VECTOR]], tail: &mut [u8], blocks: usize) {
        let Some((first, full)) = full.split_first_chunk_mut() else {
            return;
        };
        let mut pending = self.first(head, first);
        let mut blocks_left = blocks - 4 * GROUP;
        // How many groups are summed up place by place.
        let mut by_place = blocks.div_ceil(4).saturating_sub(LAST_VECTORS).div_ceil(GROUP);
        let (groups, rest) = full.as_chunks_mut();
        for group in groups {
            // All but the last of the groups before this one are among them.
            by_place = by_place.wrapping_sub(1);
            pending = self.next(group, pending, by_place);
            blocks_left = blocks_left.wrapping_sub(4 * GROUP);
        }
        let is_by_place = by_place != 0;
        match rest.len() {
            0 => self.last::<1>(rest, tail, pending, is_by_place, blocks_left),
            1 => self.last::<2>(rest, tail, pending, is_by_place, blocks_left),
            2 => self.last::<3>(rest, tail, pending, is_by_place, blocks_left),
            _ => self.last::<4>(rest, tail, pending, is_by_place, blocks_left),
        }
    }

    /// The first of more than one group; gives what to hash.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn first(&mut self, head: &mut [u8], full: &mut [[u8; VECTOR]; 3]) -> [__m512i; GROUP] {
        let [a, b, c] = full;
        let input = [load_behind_block(head), load(a), load(b), load(c)];
        let output = self.cipher::<GROUP, false>(input);
        self.mask = _mm512_castsi512_si128(output[0]);
        store_behind_block(head, output[0]);
        store(a, output[1]);
        store(b, output[2]);
        store(c, output[3]);
        let mut hashed = if SEALS { output } else { input };
        hashed[0] = self.with_aad(hashed[0], HEAD);
        reverse_all(hashed)
    }

    /// A group between the first and the last, while the one before is added up place by place;
    /// `followed_by` tells how many more of those there are behind that one.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn next(
        &mut self,
        group: &mut [[u8; VECTOR]; GROUP],
        pending: [__m512i; GROUP],
        followed_by: usize,
    ) -> [__m512i; GROUP] {
        let [a, b, c, d] = group;
        let input = [load(a), load(b), load(c), load(d)];
        // H^32, 28, 24, 20 and in the group behind it H^16, 12, 8, 4: then both are reduced.
        let is_reduced = followed_by.is_multiple_of(2);
        let weights = by_place(self.key.powers_from(if is_reduced { 16 } else { 32 }));
        let output = cipher_and_hash!(self, GROUP, input, pending, weights);
        store(a, output[0]);
        store(b, output[1]);
        store(c, output[2]);
        store(d, output[3]);
        let mut hashed = reverse_all(if SEALS { output } else { input });
        if is_reduced {
            hashed[0] = _mm512_xor_si512(hashed[0], self.take_sum());
        }
        hashed
    }

    /// The last of more than one group, with so many blocks to hash.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn last<const N: usize>(
        &mut self,
        full: &mut [[u8; VECTOR]],
        tail: &mut [u8],
        pending: [__m512i; GROUP],
        is_by_place: bool,
        blocks: usize,
    ) {
        let mut input = [_mm512_setzero_si512(); N];
        for (vector, octets) in input.iter_mut().zip(full.iter()) {
            *vector = load(octets);
        }
        input[N - 1] = load_part(tail);
        let weights = if is_by_place {
            by_place(self.key.powers_from(16))
        } else {
            each(self.key.powers_from(blocks + 4 * GROUP))
        };
        let output = cipher_and_hash!(self, N, input, pending, weights);
        let carried = if is_by_place { self.take_sum() } else { _mm512_setzero_si512() };
        for (vector, octets) in output.iter().zip(full.iter_mut()) {
            store(octets, *vector);
        }
        store_part(tail, output[N - 1]);
        let mut hashed = if SEALS { output } else { input };
        if SEALS {
            hashed[N - 1] = keep_part(tail.len(), hashed[N - 1]);
        }
        let mut hashed = reverse_all(hashed);
        hashed[0] = _mm512_xor_si512(hashed[0], carried);
        self.finish(hashed, blocks);
    }

    /// The stream's first vector as it is hashed, octets not yet reversed.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn with_aad(&self, vector: __m512i, head_len: usize) -> __m512i {
        // What was opened has only zeroes there as it is.
        let data = if SEALS { keep_behind_block(head_len, vector) } else { vector };
        _mm512_or_si512(data, _mm512_zextsi128_si512(self.aad))
    }

    /// Adds the lengths behind the last vectors, so many blocks in all, and hashes them.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn finish<const N: usize>(&mut self, mut hashed: [__m512i; N], blocks: usize) {
        let place = (blocks - 1) % 4;
        if place == 0 {
            // The last vector is full: the lengths stand alone.
            let h = _mm512_zextsi128_si512(load_block(self.key.power(1)));
            self.sum.add(self.lengths, h);
        } else {
            let in_place = (0b11_u8) << (2 * place);
            hashed[N - 1] = _mm512_mask_mov_epi64(hashed[N - 1], in_place, self.lengths);
        }
        let weights = each(self.key.powers_from(blocks));
        for (vector, weight) in hashed.into_iter().zip(weights) {
            self.sum.add(vector, weight);
        }
    }

    /// Adds up what is reduced, place by place, and begins anew.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn take_sum(&mut self) -> __m512i {
        let sum = self.sum;
        self.sum = Products::zero();
        sum.reduced()
    }

    /// Counter mode; `ONLY` makes each caller's copy its own, which the compiler then puts in its
    /// place.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn cipher<const N: usize, const ONLY: bool>(&mut self, input: [__m512i; N]) -> [__m512i; N] {
        let key = self.key.read_anew();
        let mut state = self.counters.next::<N>();
        inner_rounds!(ROUNDS, round => {
            let round_key = broadcast(key.round_key(round));
            for vector in &mut state {
                *vector = _mm512_aesenc_epi128(*vector, round_key);
            }
        });
        last_round(state, broadcast(key.round_key(ROUNDS)), input)
    }
}

/// AES's last round and counter mode's addition in one: the data goes in with the round key.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn last_round<const N: usize>(
    mut state: [__m512i; N],
    round_key: __m512i,
    input: [__m512i; N],
) -> [__m512i; N] {
    for (vector, data) in state.iter_mut().zip(input) {
        *vector = _mm512_aesenclast_epi128(*vector, _mm512_xor_si512(round_key, data));
    }
    state
}

/// What the vectors of a group are multiplied by among the last: each place has its own power.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn each(powers: &[[u8; 16]; 4 * GROUP]) -> [__m512i; GROUP] {
    let mut weights = [_mm512_setzero_si512(); GROUP];
    for (weight, powers) in weights.iter_mut().zip(powers.as_chunks().0) {
        *weight = load_blocks(powers);
    }
    weights
}

/// What they are multiplied by before: all places by the power of the first.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn by_place(powers: &[[u8; 16]; 4 * GROUP]) -> [__m512i; GROUP] {
    let mut weights = [_mm512_setzero_si512(); GROUP];
    for (weight, [power, ..]) in weights.iter_mut().zip(powers.as_chunks::<4>().0) {
        *weight = broadcast(power);
    }
    weights
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn reverse_all<const N: usize>(mut vectors: [__m512i; N]) -> [__m512i; N] {
    for vector in &mut vectors {
        *vector = reverse(*vector);
    }
    vectors
}
