//! Four packets of like size in lockstep, of one SA or of several.
//!
//! What a packet needs besides its data (the mask of its tag, the AAD, the lengths, the reduction)
//! is done for the four in the places of one vector.

use std::arch::x86_64::*;

use super::counters::last_octets;
use super::lengths;
use super::schedule::Schedule;
use super::vector::{
    Products, VECTOR, broadcast, in_step, inner_rounds, join, keep_part, load, load_block,
    load_blocks, load_nonce, load_part, load_short, reverse, store, store_part, sums,
};

/// Longest packet for lockstep, in vectors: longer ones fill the processor alone.
pub(super) const VECTORS_MAX: usize = 4;

/// One of the four.
pub(super) struct Member<'a> {
    pub(super) key: &'a Schedule,
    pub(super) nonce: &'a [u8; 12],
    /// At most 16 octets.
    pub(super) aad: &'a [u8],
    /// 64·(`N` - 1) + 1 to 64·`N` octets.
    pub(super) data: &'a mut [u8],
}

/// Seals or opens the data in place; gives the tags. `N` is how many vectors each has, and with
/// `SAME` all have the first one's key.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn run<const ROUNDS: usize, const SEALS: bool, const N: usize, const SAME: bool>(
    members: &mut [Member<'_>; 4],
) -> __m512i {
    let (output, masks) = cipher::<ROUNDS, SEALS, N, SAME>(members);
    let mut products = [Products::zero(); 4];
    for ((member, output), products) in members.iter_mut().zip(output).zip(&mut products) {
        *products = write_and_hash::<SEALS, N>(member, output);
    }
    let header = hash_headers::<ROUNDS, SEALS, N, SAME>(members);
    let [a, b, c, d] = products;
    let total = Products {
        low: _mm512_xor_si512(header.low, sums([a.low, b.low, c.low, d.low])),
        middle: _mm512_xor_si512(header.middle, sums([a.middle, b.middle, c.middle, d.middle])),
        high: _mm512_xor_si512(header.high, sums([a.high, b.high, c.high, d.high])),
    };
    _mm512_xor_si512(reverse(total.reduced()), masks)
}

/// Key streams of the four, and the masks of their tags in one vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn cipher<const ROUNDS: usize, const SEALS: bool, const N: usize, const SAME: bool>(
    members: &[Member<'_>; 4],
) -> ([[__m512i; N]; 4], __m512i) {
    let [a, b, c, d] = members;
    let keys = if SAME {
        [a.key.read_anew(); 4]
    } else {
        [a.key.read_anew(), b.key.read_anew(), c.key.read_anew(), d.key.read_anew()]
    };
    let nonces =
        [load_nonce(a.nonce), load_nonce(b.nonce), load_nonce(c.nonce), load_nonce(d.nonce)];
    let white = round_key::<SAME>(keys, 0);
    let mut states = [[_mm512_setzero_si512(); N]; 4];
    for ((state, nonce), white) in states.iter_mut().zip(nonces).zip(white) {
        let first = _mm512_xor_si512(_mm512_broadcast_i32x4(nonce), white);
        for (index, vector) in state.iter_mut().enumerate() {
            // Counter 1 is the tag's.
            *vector = _mm512_xor_si512(first, last_octets(1 + 4 * index));
        }
    }
    let counter = _mm512_broadcast_i32x4(_mm_set_epi32(1_i32.swap_bytes(), 0, 0, 0));
    let mut masks = _mm512_xor_si512(join(nonces), counter);
    masks = _mm512_xor_si512(masks, in_places::<SAME>(keys, white, 0));
    inner_rounds!(ROUNDS, round => {
        let each = round_key::<SAME>(keys, round);
        for (state, round_key) in states.iter_mut().zip(each) {
            for vector in state {
                *vector = _mm512_aesenc_epi128(*vector, round_key);
            }
        }
        masks = _mm512_aesenc_epi128(masks, in_places::<SAME>(keys, each, round));
        if round.is_multiple_of(2) {
            let [a, b, c, d] = &mut states;
            let mut vectors = [a[0], b[0], c[0], d[0], masks];
            in_step(&mut vectors);
            [a[0], b[0], c[0], d[0], masks] = vectors;
        }
    });
    let each = round_key::<SAME>(keys, ROUNDS);
    for (state, round_key) in states.iter_mut().zip(each) {
        for vector in state {
            *vector = _mm512_aesenclast_epi128(*vector, round_key);
        }
    }
    masks = _mm512_aesenclast_epi128(masks, in_places::<SAME>(keys, each, ROUNDS));
    (states, masks)
}

/// Each packet's round key in all places of its vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn round_key<const SAME: bool>(keys: [&Schedule; 4], round: usize) -> [__m512i; 4] {
    let [a, b, c, d] = keys;
    let first = broadcast(a.round_key(round));
    if SAME {
        return [first; 4];
    }
    let second = broadcast(b.round_key(round));
    let third = broadcast(c.round_key(round));
    [first, second, third, broadcast(d.round_key(round))]
}

/// Each packet's round key in its place of one vector; `each` is what [`round_key`] gave.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn in_places<const SAME: bool>(keys: [&Schedule; 4], each: [__m512i; 4], round: usize) -> __m512i {
    let [first, ..] = each;
    if SAME {
        return first;
    }
    // Read a second time: from memory it costs no shuffle.
    let [_, b, c, d] = keys.map(Schedule::read_anew);
    let two = _mm512_mask_broadcast_i32x4(first, 0x00F0, load_block(b.round_key(round)));
    let three = _mm512_mask_broadcast_i32x4(two, 0x0F00, load_block(c.round_key(round)));
    _mm512_mask_broadcast_i32x4(three, 0xF000, load_block(d.round_key(round)))
}

/// Combines one packet with its key stream and adds up the products of its ciphertext.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn write_and_hash<const SEALS: bool, const N: usize>(
    member: &mut Member<'_>,
    key_stream: [__m512i; N],
) -> Products {
    // The last block is followed by that of the lengths.
    let weights = member.key.powers_from::<16>(member.data.len().div_ceil(16) + 1);
    let (weights, _) = weights.as_chunks::<4>();
    let (full, tail) = member.data.split_at_mut(member.data.len().min((N - 1) * VECTOR));
    let (full, _) = full.as_chunks_mut::<VECTOR>();
    let mut products = Products::zero();
    for ((octets, key_stream), weight) in full.iter_mut().zip(key_stream).zip(weights) {
        let input = load(octets);
        let output = _mm512_xor_si512(input, key_stream);
        store(octets, output);
        products.add(reverse(if SEALS { output } else { input }), load_blocks(weight));
    }
    let input = load_part(tail);
    let output = _mm512_xor_si512(input, key_stream[N - 1]);
    store_part(tail, output);
    let hashed = if SEALS { keep_part(tail.len(), output) } else { input };
    products.add(reverse(hashed), load_blocks(&weights[N - 1]));
    products
}

/// The products of AADs and lengths, one packet's in each place.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn hash_headers<const ROUNDS: usize, const SEALS: bool, const N: usize, const SAME: bool>(
    members: &[Member<'_>; 4],
) -> Products {
    let [a, b, c, d] = members;
    let aad = [load_short(a.aad), load_short(b.aad), load_short(c.aad), load_short(d.aad)];
    let aad = reverse(join(aad));
    let weight =
        |member: &Member<'_>| load_block(member.key.power(member.data.len().div_ceil(16) + 2));
    let mut products = Products::of(aad, join([weight(a), weight(b), weight(c), weight(d)]));
    let lengths = all_lengths(members);
    let h = if SAME {
        broadcast(a.key.power(1))
    } else {
        let h = |member: &Member<'_>| load_block(member.key.power(1));
        join([h(a), h(b), h(c), h(d)])
    };
    products.add(lengths, h);
    products
}

/// The blocks of the lengths; mostly they are the same four times.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn all_lengths(members: &[Member<'_>; 4]) -> __m512i {
    let [a, rest @ ..] = members;
    let first = lengths(a.aad, a.data);
    let differ =
        |member: &Member<'_>| (member.aad.len() ^ a.aad.len()) | (member.data.len() ^ a.data.len());
    if rest.iter().map(differ).fold(0, |all, one| all | one) == 0 {
        return _mm512_broadcast_i32x4(first);
    }
    let [b, c, d] = rest;
    join([first, lengths(b.aad, b.data), lengths(c.aad, c.data), lengths(d.aad, d.data)])
}
