//! Bursts: short packets of like size are collected and run four at a time, all others at once.

use std::arch::x86_64::*;
use std::mem;

use zeroize::Zeroize;

use super::four::{self, Member, VECTORS_MAX};
use super::vector::{VECTOR, join, load_block, split, store_block};
use super::{Size, dispatch};
use crate::aead::{AeadKey, DATA_LEN_MAX, NONCE_LEN, OpenJob, SealJob, TAG_LEN};

/// How many jobs ahead a key's context is asked for: the time of a few short packets, which is that
/// of a cache miss.
const PREFETCH_JOBS: usize = 4;
/// Longest packets of different keys in lockstep, in vectors: with longer ones four sets of round
/// keys and the packets' own vectors are more than the registers hold.
const MIXED_VECTORS_MAX: usize = 2;
/// Packets of a lockstep.
const LOCKSTEP: usize = 4;
/// Size classes of all lengths of key.
const CLASSES: usize = Size::COUNT * VECTORS_MAX;

/// What is common to sealing and opening.
pub(super) trait Job {
    /// Whether plaintext becomes ciphertext.
    const SEALS: bool;
    /// Key of the SA.
    fn key(&self) -> &AeadKey;
    /// Octets of data.
    fn data_len(&self) -> usize;
    /// Octets of AAD.
    fn aad_len(&self) -> usize;
    /// Key, nonce, AAD and data.
    fn parts(&mut self) -> (&AeadKey, &[u8; NONCE_LEN], &[u8], &mut [u8]);
    /// The tag that came with the packet, when opening.
    fn tag(&self) -> &[u8; TAG_LEN];
    /// The place for the tag, when sealing.
    fn tag_mut(&mut self) -> Option<&mut [u8; TAG_LEN]>;
    /// Says whether the packet's tag is right; if not, its data is wiped.
    fn opened(&mut self, ok: bool);
    /// Does without the vectors.
    fn run_alone(&mut self);
}

/// What the two kinds of job have under the same names.
macro_rules! same_for_both {
    () => {
        fn key(&self) -> &AeadKey {
            self.key
        }

        fn data_len(&self) -> usize {
            self.data.len()
        }

        fn aad_len(&self) -> usize {
            self.aad.len()
        }

        fn parts(&mut self) -> (&AeadKey, &[u8; NONCE_LEN], &[u8], &mut [u8]) {
            (self.key, &self.nonce, self.aad, self.data)
        }

        fn tag(&self) -> &[u8; TAG_LEN] {
            self.tag
        }

        fn run_alone(&mut self) {
            self.run();
        }
    };
}

impl Job for SealJob<'_> {
    const SEALS: bool = true;

    same_for_both!();

    fn tag_mut(&mut self) -> Option<&mut [u8; TAG_LEN]> {
        Some(self.tag)
    }

    fn opened(&mut self, _ok: bool) {}
}

impl Job for OpenJob<'_> {
    const SEALS: bool = false;

    same_for_both!();

    fn tag_mut(&mut self) -> Option<&mut [u8; TAG_LEN]> {
        None
    }

    fn opened(&mut self, ok: bool) {
        self.ok = ok;
        if !ok {
            self.data.zeroize();
        }
    }
}

/// For a processor without the vectors.
pub(super) fn one_by_one<J: Job>(jobs: &mut [J]) {
    jobs.iter_mut().for_each(Job::run_alone);
}

/// Runs every job, in any order.
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
pub(super) fn run<J: Job>(mut jobs: &mut [J]) {
    let mut last = None;
    for job in jobs.iter().take(PREFETCH_JOBS) {
        prefetch(job, &mut last);
    }
    let mut waiting = Waiting::new();
    loop {
        jobs = match (leading(jobs), jobs) {
            // Four of a class that come one behind the other need not be collected.
            (Some(class), [a, b, c, d, rest @ ..]) => {
                for ahead in rest.iter().take(PREFETCH_JOBS) {
                    prefetch(ahead, &mut last);
                }
                together(class, [a, b, c, d]);
                rest
            }
            (_, [job, rest @ ..]) => {
                if let Some(ahead) = rest.get(PREFETCH_JOBS - 1) {
                    prefetch(ahead, &mut last);
                }
                waiting.take(job);
                rest
            }
            (_, []) => break,
        };
    }
    for job in waiting.classes.into_iter().flatten().flatten() {
        alone(job);
    }
}

/// The class of the first four jobs, if they have one in common.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn leading<J: Job>(jobs: &[J]) -> Option<Class> {
    let [a, b, c, d, ..] = jobs else { return None };
    let first = class(a);
    first.filter(|_| class(b) == first && class(c) == first && class(d) == first)
}

/// Asks for a job's key, unless that was done for the job before.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn prefetch<'a, J: Job>(job: &'a J, last: &mut Option<*const AeadKey>) {
    let key = job.key();
    if *last == Some(std::ptr::from_ref(key)) {
        return;
    }
    *last = Some(key);
    if let Some(key) = key.vaes() {
        key.schedule.prefetch(job.data_len().div_ceil(16));
    }
}

/// Packets that can run in lockstep: of one length of key and with as many vectors of data.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Class {
    size: Size,
    /// 1 to [`VECTORS_MAX`].
    vectors: u8,
}

/// The class of a job, if its data is short enough, its AAD no more than a block, and its key one for
/// these kernels.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn class<J: Job>(job: &J) -> Option<Class> {
    let len = job.data_len();
    let is_short = len.wrapping_sub(1) < VECTORS_MAX * VECTOR && job.aad_len() <= 16;
    let size = job.key().vaes()?.size;
    is_short.then_some(Class { size, vectors: len.div_ceil(VECTOR) as u8 })
}

/// Short packets that wait for others of their class.
struct Waiting<'a, J> {
    classes: [[Option<&'a mut J>; LOCKSTEP]; CLASSES],
    counts: [u8; CLASSES],
}

impl<'a, J: Job> Waiting<'a, J> {
    fn new() -> Self {
        Self { classes: [const { [const { None }; LOCKSTEP] }; CLASSES], counts: [0; CLASSES] }
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
    fn take(&mut self, job: &'a mut J) {
        let Some(class) = class(job) else {
            return alone(job);
        };
        let index = class.size as usize * VECTORS_MAX + usize::from(class.vectors) - 1;
        let (Some(waiting), Some(count)) =
            (self.classes.get_mut(index), self.counts.get_mut(index))
        else {
            return alone(job);
        };
        if let Some(place) = waiting.get_mut(usize::from(*count)) {
            *place = Some(job);
            *count += 1;
        }
        if usize::from(*count) == LOCKSTEP {
            *count = 0;
            if let [Some(a), Some(b), Some(c), Some(d)] = mem::take(waiting) {
                together(class, [a, b, c, d]);
            }
        }
    }
}

/// One packet by itself.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn alone<J: Job>(job: &mut J) {
    if job.data_len() as u64 > DATA_LEN_MAX {
        return job.run_alone();
    }
    let (key, nonce, aad, data) = job.parts();
    let Some(key) = key.vaes() else {
        return job.run_alone();
    };
    let tag = if J::SEALS {
        dispatch::<true>(key, nonce, aad, data)
    } else {
        dispatch::<false>(key, nonce, aad, data)
    };
    if J::SEALS {
        sealed(job, tag);
    } else {
        let differing = _mm_cmpneq_epi64_mask(tag, load_block(job.tag()));
        job.opened(differing == 0);
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn sealed<J: Job>(job: &mut J, tag: __m128i) {
    if let Some(place) = job.tag_mut() {
        store_block(place, tag);
    }
}

/// Four packets in lockstep.
#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn together<J: Job>(class: Class, jobs: [&mut J; LOCKSTEP]) {
    let [a, b, c, d] = jobs;
    let same = [b.key(), c.key(), d.key()].iter().all(|key| std::ptr::eq(*key, a.key()));
    let tags = if same || usize::from(class.vectors) <= MIXED_VECTORS_MAX {
        lockstep(class, same, [&mut *a, &mut *b, &mut *c, &mut *d])
    } else {
        None
    };
    let Some(tags) = tags else {
        return [a, b, c, d].into_iter().for_each(|job| alone(job));
    };
    if J::SEALS {
        let [first, second, third, fourth] = split(tags);
        sealed(a, first);
        sealed(b, second);
        sealed(c, third);
        sealed(d, fourth);
    } else {
        let given = join([
            load_block(a.tag()),
            load_block(b.tag()),
            load_block(c.tag()),
            load_block(d.tag()),
        ]);
        let differing = _mm512_cmpneq_epi64_mask(tags, given);
        a.opened(differing & 0b0000_0011 == 0);
        b.opened(differing & 0b0000_1100 == 0);
        c.opened(differing & 0b0011_0000 == 0);
        d.opened(differing & 0b1100_0000 == 0);
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn member<J: Job>(job: &mut J) -> Option<Member<'_>> {
    let (key, nonce, aad, data) = job.parts();
    let key = key.vaes()?;
    Some(Member { key: &key.schedule, nonce, aad, data })
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn lockstep<J: Job>(class: Class, same: bool, jobs: [&mut J; LOCKSTEP]) -> Option<__m512i> {
    let [a, b, c, d] = jobs;
    let members = &mut [member(a)?, member(b)?, member(c)?, member(d)?];
    let vectors = usize::from(class.vectors);
    match (class.size, J::SEALS) {
        (Size::Aes128, true) => sized::<10, true>(vectors, same, members),
        (Size::Aes128, false) => sized::<10, false>(vectors, same, members),
        (Size::Aes192, true) => sized::<12, true>(vectors, same, members),
        (Size::Aes192, false) => sized::<12, false>(vectors, same, members),
        (Size::Aes256, true) => sized::<14, true>(vectors, same, members),
        (Size::Aes256, false) => sized::<14, false>(vectors, same, members),
    }
}

#[inline]
#[target_feature(enable = "avx512bw,avx512dq,avx512vl,vaes,vpclmulqdq,bmi2")]
fn sized<const ROUNDS: usize, const SEALS: bool>(
    vectors: usize,
    same: bool,
    members: &mut [Member<'_>; LOCKSTEP],
) -> Option<__m512i> {
    Some(match (vectors, same) {
        (1, false) => four::run::<ROUNDS, SEALS, 1, false>(members),
        (1, true) => four::run::<ROUNDS, SEALS, 1, true>(members),
        (2, false) => four::run::<ROUNDS, SEALS, 2, false>(members),
        (2, true) => four::run::<ROUNDS, SEALS, 2, true>(members),
        (3, true) => four::run::<ROUNDS, SEALS, 3, true>(members),
        (4, true) => four::run::<ROUNDS, SEALS, 4, true>(members),
        _ => return None,
    })
}
