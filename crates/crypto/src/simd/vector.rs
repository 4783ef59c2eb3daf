//! What the kernels are made of: loads, stores and arithmetic of GHASH on four blocks at a time.
//!
//! GHASH's blocks are held with their octets reversed, and its key carries one factor of x more
//! (H·x), so that a product needs no shift before it is reduced.

use std::arch::x86_64::*;

/// Octets of a vector: four blocks.
pub(super) const VECTOR: usize = 64;

/// The feedback of the reduction modulo x^128 + x^127 + x^126 + x^121 + 1, bits reversed.
const POLYNOMIAL: i64 = 0xC200_0000_0000_0000_u64.cast_signed();
/// Third operand of a ternary operation: all three exclusive-ored.
const XOR3: i32 = 0x96;
/// Shuffle of 32-bit words that swaps the halves of each block.
const SWAP_HALVES: i32 = 0x4E;

/// Repeats a block for the inner rounds of AES, 1 to `$rounds` - 1, written out: as a loop it is not
/// always unrolled, and then what is done in one round only costs a branch in each.
macro_rules! inner_rounds {
    ($rounds:ident, $round:ident => $body:block) => {
        inner_rounds!(@ $round $body 1 2 3 4 5 6 7 8 9);
        if $rounds > 10 {
            inner_rounds!(@ $round $body 10 11);
        }
        if $rounds > 12 {
            inner_rounds!(@ $round $body 12 13);
        }
    };
    (@ $round:ident $body:block $($number:literal)*) => {
        $({
            let $round: usize = $number;
            $body
        })*
    };
}
pub(super) use inner_rounds;

/// Reads a whole vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn load(from: &[u8; VECTOR]) -> __m512i {
    // SAFETY: the reference covers the 64 octets read, and the load takes any alignment.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Writes a whole vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn store(into: &mut [u8; VECTOR], vector: __m512i) {
    // SAFETY: the reference covers the 64 octets written, and the store takes any alignment.
    unsafe { _mm512_storeu_si512(into.as_mut_ptr().cast(), vector) }
}

/// Reads four consecutive blocks of a table.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn load_blocks(from: &[[u8; 16]; 4]) -> __m512i {
    // SAFETY: the reference covers the 64 octets read, and the load takes any alignment.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Reads one block.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn load_block(from: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers the 16 octets read, and the load takes any alignment.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Writes one block.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn store_block(into: &mut [u8; 16], block: __m128i) {
    // SAFETY: the reference covers the 16 octets written, and the store takes any alignment.
    unsafe { _mm_storeu_si128(into.as_mut_ptr().cast(), block) }
}

/// One block in all four places.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn broadcast(from: &[u8; 16]) -> __m512i {
    _mm512_broadcast_i32x4(load_block(from))
}

/// Ones for the first `octets`, at most 64. Of a greater number the last eight bits count, so that
/// there are never more ones than `octets`.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn first(octets: usize) -> __mmask64 {
    _bzhi_u64(u64::MAX, octets as u32)
}

/// Reads up to a vector; the rest is zero.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn load_part(from: &[u8]) -> __m512i {
    let mask = first(from.len());
    // SAFETY: octets that the mask leaves out are not accessed, and it has no more than the slice.
    unsafe { _mm512_maskz_loadu_epi8(mask, from.as_ptr().cast()) }
}

/// Writes the first octets of a vector, as many as fit.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn store_part(into: &mut [u8], vector: __m512i) {
    let mask = first(into.len());
    // SAFETY: octets that the mask leaves out are not accessed, and it has no more than the slice.
    unsafe { _mm512_mask_storeu_epi8(into.as_mut_ptr().cast(), mask, vector) }
}

/// Zeroes all but the first octets of a vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn keep_part(octets: usize, vector: __m512i) -> __m512i {
    _mm512_maskz_mov_epi8(first(octets), vector)
}

/// Reads up to 48 octets into the last three blocks; the rest is zero.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn load_behind_block(from: &[u8]) -> __m512i {
    let mask = first(from.len()) << 16;
    // SAFETY: octets that the mask leaves out are not accessed; the first it has is 16 octets
    // behind the pointer, where the slice begins, and it has no more than the slice.
    unsafe { _mm512_maskz_loadu_epi8(mask, from.as_ptr().wrapping_sub(16).cast()) }
}

/// Writes what [`load_behind_block`] reads.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn store_behind_block(into: &mut [u8], vector: __m512i) {
    let mask = first(into.len()) << 16;
    // SAFETY: octets that the mask leaves out are not accessed; the first it has is 16 octets
    // behind the pointer, where the slice begins, and it has no more than the slice.
    unsafe { _mm512_mask_storeu_epi8(into.as_mut_ptr().wrapping_sub(16).cast(), mask, vector) }
}

/// Zeroes the first block and all octets but so many behind it.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn keep_behind_block(octets: usize, vector: __m512i) -> __m512i {
    _mm512_maskz_mov_epi8(first(octets) << 16, vector)
}

/// A short string of up to 16 octets as a block, zeroes behind it.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn load_short(from: &[u8]) -> __m128i {
    // As with `first`, there are never more ones than octets.
    let mask = _bzhi_u32(u32::MAX, from.len() as u32) as __mmask16;
    // SAFETY: octets that the mask leaves out are not accessed, and it has no more than the slice.
    unsafe { _mm_maskz_loadu_epi8(mask, from.as_ptr().cast()) }
}

/// Reads a nonce; the counter behind it is zero.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn load_nonce(from: &[u8; 12]) -> __m128i {
    // SAFETY: the mask leaves all but the 12 octets of the reference out.
    unsafe { _mm_maskz_loadu_epi32(0b0111, from.as_ptr().cast()) }
}

/// Asks for a cache line.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn prefetch(line: &[u8; 16]) {
    _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
}

/// The same reference, which the compiler no longer knows to be the same: what is read through it
/// it reads here, instead of holding eleven to fifteen round keys in registers it does not have.
#[inline(always)]
pub(super) fn read_anew<T>(reference: &T) -> &T {
    let mut pointer: *const T = reference;
    // SAFETY: the assembly is empty: it leaves the pointer, stack and flags alone, and reads nothing.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, readonly, nostack, preserves_flags));
    }
    // SAFETY: it is still the pointer of the reference, and lives as long.
    unsafe { &*pointer }
}

/// The same vectors, none of which the compiler may go on with before it has come so far with all:
/// left to itself it takes one chain of AES's rounds after the other.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn in_step(vectors: &mut [__m512i; 5]) {
    let [a, b, c, d, e] = vectors;
    // SAFETY: the assembly is empty: it leaves the vectors, memory, stack and flags alone.
    unsafe {
        std::arch::asm!(
            "/* {0} {1} {2} {3} {4} */",
            inout(zmm_reg) * a,
            inout(zmm_reg) * b,
            inout(zmm_reg) * c,
            inout(zmm_reg) * d,
            inout(zmm_reg) * e,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
}

/// The octets of each block in reverse order.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn reverse(vector: __m512i) -> __m512i {
    _mm512_shuffle_epi8(vector, _mm512_broadcast_i32x4(reversal()))
}

/// The octets of a block in reverse order.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn reverse_block(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, reversal())
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn reversal() -> __m128i {
    _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<XOR3>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn xor3_block(a: __m128i, b: __m128i, c: __m128i) -> __m128i {
    _mm_ternarylogic_epi64::<XOR3>(a, b, c)
}

/// Four unreduced products, or sums of such, by 64-bit words: `high`·x^128 + `middle`·x^64 + `low`.
#[derive(Clone, Copy)]
pub(super) struct Products {
    pub(super) low: __m512i,
    pub(super) middle: __m512i,
    pub(super) high: __m512i,
}

impl Products {
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn zero() -> Self {
        let zero = _mm512_setzero_si512();
        Self { low: zero, middle: zero, high: zero }
    }

    /// The products of two vectors, block by block.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn of(a: __m512i, b: __m512i) -> Self {
        Self {
            low: _mm512_clmulepi64_epi128::<0x00>(a, b),
            middle: _mm512_xor_si512(
                _mm512_clmulepi64_epi128::<0x01>(a, b),
                _mm512_clmulepi64_epi128::<0x10>(a, b),
            ),
            high: _mm512_clmulepi64_epi128::<0x11>(a, b),
        }
    }

    /// Adds the products of two vectors, block by block.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn add(&mut self, a: __m512i, b: __m512i) {
        self.low = _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
        self.high = _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
        let cross = _mm512_clmulepi64_epi128::<0x10>(a, b);
        self.middle = xor3(self.middle, _mm512_clmulepi64_epi128::<0x01>(a, b), cross);
    }

    /// Adds two products at once, which takes fewer additions.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn add_two(&mut self, a: [__m512i; 2], b: [__m512i; 2]) {
        let [a0, a1] = a;
        let [b0, b1] = b;
        let second = _mm512_clmulepi64_epi128::<0x00>(a1, b1);
        self.low = xor3(self.low, _mm512_clmulepi64_epi128::<0x00>(a0, b0), second);
        let second = _mm512_clmulepi64_epi128::<0x11>(a1, b1);
        self.high = xor3(self.high, _mm512_clmulepi64_epi128::<0x11>(a0, b0), second);
        let cross = _mm512_clmulepi64_epi128::<0x10>(a0, b0);
        self.middle = xor3(self.middle, _mm512_clmulepi64_epi128::<0x01>(a0, b0), cross);
        let cross = _mm512_clmulepi64_epi128::<0x10>(a1, b1);
        self.middle = xor3(self.middle, _mm512_clmulepi64_epi128::<0x01>(a1, b1), cross);
    }

    /// Each of the four modulo the field's polynomial.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn reduced(self) -> __m512i {
        let polynomial = _mm512_set1_epi64(POLYNOMIAL);
        let folded = _mm512_clmulepi64_epi128::<0x00>(self.low, polynomial);
        let swapped = _mm512_shuffle_epi32::<SWAP_HALVES>(self.low);
        let middle = xor3(self.middle, folded, swapped);
        let folded = _mm512_clmulepi64_epi128::<0x00>(middle, polynomial);
        xor3(self.high, folded, _mm512_shuffle_epi32::<SWAP_HALVES>(middle))
    }

    /// The sum of the four modulo the field's polynomial.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    pub(super) fn reduced_sum(self) -> __m128i {
        let (low, middle, high) = (sum(self.low), sum(self.middle), sum(self.high));
        let polynomial = _mm_set1_epi64x(POLYNOMIAL);
        let folded = _mm_clmulepi64_si128::<0x00>(low, polynomial);
        let middle = xor3_block(middle, folded, _mm_shuffle_epi32::<SWAP_HALVES>(low));
        let folded = _mm_clmulepi64_si128::<0x00>(middle, polynomial);
        xor3_block(high, folded, _mm_shuffle_epi32::<SWAP_HALVES>(middle))
    }
}

/// The sum of a vector's four blocks.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn sum(vector: __m512i) -> __m128i {
    let upper = _mm512_extracti64x4_epi64::<1>(vector);
    let two = _mm256_xor_si256(_mm512_castsi512_si256(vector), upper);
    _mm_xor_si128(_mm256_castsi256_si128(two), _mm256_extracti128_si256::<1>(two))
}

/// The sums of four vectors' blocks, one vector's in each place. Half of the moves are blends, which
/// leave the shuffling unit alone: the products need it.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn sums([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ac = halves(a, c);
    let bd = halves(b, d);
    // [ac0, bd1, ac2, bd3] and [ac1, bd0, ac3, bd2]
    let straight = _mm512_mask_blend_epi64(0b1100_1100, ac, bd);
    let crossing = _mm512_set_epi64(13, 12, 7, 6, 9, 8, 3, 2);
    _mm512_xor_si512(straight, _mm512_permutex2var_epi64(ac, crossing, bd))
}

/// The upper half of each added to the lower: the first one's in places 0 and 1.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn halves(a: __m512i, b: __m512i) -> __m512i {
    let straight = _mm512_mask_blend_epi64(0b1111_0000, a, b);
    _mm512_xor_si512(straight, _mm512_shuffle_i32x4::<0x4E>(a, b))
}

/// Four blocks as one vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn join([a, b, c, d]: [__m128i; 4]) -> __m512i {
    let ab = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let cd = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(ab), cd)
}

/// The four blocks of a vector.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn split(vector: __m512i) -> [__m128i; 4] {
    [
        _mm512_castsi512_si128(vector),
        _mm512_extracti32x4_epi32::<1>(vector),
        _mm512_extracti32x4_epi32::<2>(vector),
        _mm512_extracti32x4_epi32::<3>(vector),
    ]
}
