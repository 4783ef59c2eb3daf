//! ESP packets that were seen before: which, when, from whom, and whether it was the same frame.
//!
//! Two things look alike on a wire and are worlds apart:
//!
//! * a number or an IV is *used* a second time, for other bytes or by another member: law 2 is
//!   broken. That is a duplicate;
//! * one frame is *seen* a second time, every captured byte the same, from the same sender: one
//!   encryption, seen twice. `AF_PACKET` rings do that: a frame that the link refuses stays in the
//!   ring and is offered again, and a capture at the sender's own end sees each offer, though
//!   nothing left. That is a repeated frame, counted by itself so that nothing is hidden.
//!
//! A repeat also tells which numbers near it were never seen: a frame that was overwritten in the
//! sender's memory before it was read shows as a later number twice and an earlier one never.

use super::Sender;
use crate::frame::Esp;
use crate::time::{Wall, rounded};
use serde::Serialize;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

/// Repeats told in full; all are counted.
const TOLD_MAX: usize = 32;
/// How far from a repeated number the missing ones are looked for: two rings of a port.
const NEAR_NUMBERS: u32 = 1_024;
/// Missing numbers told on either side of a repeat, the nearest.
const MISSING_MAX: usize = 8;

/// One sight of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sighting {
    at: Wall,
    sender: Sender,
    /// Of the captured bytes.
    digest: u64,
}

/// An ESP packet that repeats a number or an IV.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Repeat {
    esp: Esp,
    /// The number was seen before.
    number: bool,
    /// The IV was seen before.
    iv: bool,
    first: Sighting,
    again: Sighting,
}

impl Repeat {
    /// Whether the same sender showed the same bytes twice.
    fn is_same_frame(&self) -> bool {
        self.first.sender == self.again.sender && self.first.digest == self.again.digest
    }
}

/// A repeat for reports.
#[derive(Debug, Clone, Serialize)]
pub struct ToldRepeat {
    /// Security parameters index, hexadecimal.
    pub spi: String,
    /// Sequence number.
    pub sequence: u32,
    /// Explicit IV, hexadecimal.
    pub iv: String,
    /// The number was seen before.
    pub number_repeated: bool,
    /// The IV was seen before.
    pub iv_repeated: bool,
    /// Captured bytes and sender are the same.
    pub same_frame: bool,
    /// First seen, from the beginning of the observation.
    pub first_at_s: f64,
    /// First seen from.
    pub first_from: String,
    /// Seen again so much later.
    pub again_after_ms: f64,
    /// Seen again from.
    pub again_from: String,
    /// Numbers shortly before it that were never seen, the nearest first.
    pub missing_before: Vec<u32>,
    /// Numbers shortly after it that were never seen, the nearest first.
    pub missing_after: Vec<u32>,
}

impl std::fmt::Display for ToldRepeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match (self.number_repeated, self.iv_repeated) {
            (true, true) => "number and IV",
            (true, false) => "number",
            _ => "IV",
        };
        let kind = if self.same_frame { "the same frame" } else { "ANOTHER FRAME" };
        write!(
            f,
            "SPI {} number {}: {what} at {:.6} s from {}, and {:.3} ms later from {}: {kind}; never seen \
             near it: {:?} before, {:?} after",
            self.spi,
            self.sequence,
            self.first_at_s,
            self.first_from,
            self.again_after_ms,
            self.again_from,
            self.missing_before,
            self.missing_after
        )
    }
}

/// Every number and IV seen, and what was seen twice.
#[derive(Debug, Default)]
pub struct Repeats {
    /// The first sight of each number of an SPI.
    numbers: HashMap<(u32, u32), Sighting>,
    /// Under which number each IV of an SPI was seen first.
    ivs: HashMap<(u32, u64), u32>,
    /// The lowest and the highest number of each SPI.
    span: BTreeMap<u32, (u32, u32)>,
    found: Vec<Repeat>,
    /// Numbers used a second time: other bytes, or another sender.
    pub duplicate_numbers: u64,
    /// The same of IVs.
    pub duplicate_ivs: u64,
    /// Frames seen a second time, from the same sender.
    pub repeated_frames: u64,
}

impl Repeats {
    /// Takes an ESP packet and the captured bytes of its frame.
    pub(super) fn take(&mut self, at: Wall, sender: Sender, esp: Esp, frame: &[u8]) {
        let mut hasher = DefaultHasher::new();
        frame.hash(&mut hasher);
        let sight = Sighting { at, sender, digest: hasher.finish() };
        let Esp { spi, sequence, iv } = esp;
        let (low, high) = self.span.entry(spi).or_insert((sequence, sequence));
        (*low, *high) = ((*low).min(sequence), (*high).max(sequence));
        let of_number = match self.numbers.entry((spi, sequence)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(free) => {
                free.insert(sight);
                None
            }
        };
        let of_iv = match self.ivs.entry((spi, iv)) {
            Entry::Occupied(known) => self.numbers.get(&(spi, *known.get())).copied(),
            Entry::Vacant(free) => {
                free.insert(sequence);
                None
            }
        };
        let Some(before) = of_number.or(of_iv) else { return };
        let (first, again) = if before.at <= at { (before, sight) } else { (sight, before) };
        let (number, iv) = (of_number.is_some(), of_iv.is_some());
        self.count(Repeat { esp, number, iv, first, again });
    }

    fn count(&mut self, repeat: Repeat) {
        if repeat.is_same_frame() {
            self.repeated_frames += 1;
        } else {
            self.duplicate_numbers += u64::from(repeat.number);
            self.duplicate_ivs += u64::from(repeat.iv);
        }
        // A flood of repeated frames must not keep the worse ones out.
        let told = |repeats: &[Repeat]| {
            repeats.iter().filter(|other| other.is_same_frame() == repeat.is_same_frame()).count()
        };
        if told(&self.found) < TOLD_MAX {
            self.found.push(repeat);
        }
    }

    /// The first repeats of either kind in full, as an observation that began at `begin` tells them.
    pub fn told(&self, begin: Wall) -> Vec<ToldRepeat> {
        let mut found: Vec<&Repeat> = self.found.iter().collect();
        found.sort_by_key(|repeat| (repeat.is_same_frame(), repeat.first.at));
        found.into_iter().map(|repeat| self.tell(repeat, begin)).collect()
    }

    fn tell(&self, repeat: &Repeat, begin: Wall) -> ToldRepeat {
        let Repeat { esp: Esp { spi, sequence, iv }, first, again, .. } = *repeat;
        let (low, high) = self.span.get(&spi).copied().unwrap_or((sequence, sequence));
        let missing = |near: &mut dyn Iterator<Item = u32>| -> Vec<u32> {
            near.filter(|number| !self.numbers.contains_key(&(spi, *number)))
                .take(MISSING_MAX)
                .collect()
        };
        let lowest = low.max(sequence.saturating_sub(NEAR_NUMBERS));
        let highest = high.min(sequence.saturating_add(NEAR_NUMBERS));
        ToldRepeat {
            spi: format!("{spi:08x}"),
            sequence,
            iv: format!("{iv:016x}"),
            number_repeated: repeat.number,
            iv_repeated: repeat.iv,
            same_frame: repeat.is_same_frame(),
            // Microseconds matter here: a capture's clock has no more.
            first_at_s: (first.at.s_since(begin) * 1e6).round() / 1e6,
            first_from: first.sender.to_string(),
            again_after_ms: rounded(again.at.ms_since(first.at)),
            again_from: again.sender.to_string(),
            missing_before: missing(&mut (lowest..sequence).rev()),
            missing_after: missing(&mut (sequence..=highest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Sender = Sender::Member(1);
    const SECOND: Sender = Sender::Member(2);

    fn esp(sequence: u32, iv: u64) -> Esp {
        Esp { spi: 7, sequence, iv }
    }

    fn at(ms: u64) -> Wall {
        Wall::default().plus_ms(ms)
    }

    fn counts(repeats: &Repeats) -> [u64; 3] {
        [repeats.duplicate_numbers, repeats.duplicate_ivs, repeats.repeated_frames]
    }

    #[test]
    fn the_same_bytes_of_the_same_sender_are_a_frame_seen_twice() {
        let mut repeats = Repeats::default();
        repeats.take(at(1), FIRST, esp(5, 5), b"bytes");
        repeats.take(at(2), FIRST, esp(5, 5), b"bytes");
        assert_eq!(counts(&repeats), [0, 0, 1]);
    }

    #[test]
    fn other_bytes_or_another_sender_are_a_number_used_twice() {
        for (sender, bytes) in [(FIRST, b"other"), (SECOND, b"bytes")] {
            let mut repeats = Repeats::default();
            repeats.take(at(1), FIRST, esp(5, 5), b"bytes");
            repeats.take(at(2), sender, esp(5, 5), bytes);
            assert_eq!(counts(&repeats), [1, 1, 0]);
        }
    }

    #[test]
    fn an_iv_under_another_number_is_a_duplicate_of_its_own() {
        let mut repeats = Repeats::default();
        repeats.take(at(1), FIRST, esp(5, 5), b"bytes");
        repeats.take(at(2), FIRST, esp(6, 5), b"bytes and more");
        assert_eq!(counts(&repeats), [0, 1, 0]);
    }

    #[test]
    fn what_is_missing_nearby_is_told_with_times_and_senders() {
        let mut repeats = Repeats::default();
        for number in (1..=600).filter(|number| ![88, 90, 603].contains(number)) {
            repeats.take(at(number), FIRST, esp(number as u32, number), &number.to_be_bytes());
        }
        repeats.take(at(2_000), SECOND, esp(600, 600), b"other");
        let told = repeats.told(at(0));
        let [repeat] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((repeat.first_at_s, repeat.again_after_ms), (0.6, 1_400.0));
        assert_eq!(
            (repeat.first_from.as_str(), repeat.again_from.as_str()),
            ("member 1", "member 2")
        );
        assert_eq!(
            (repeat.missing_before.as_slice(), repeat.missing_after.len()),
            (&[90, 88][..], 0)
        );
        assert!(repeat.to_string().contains("ANOTHER FRAME"), "{repeat}");
    }

    #[test]
    fn files_read_in_any_order_tell_the_earlier_sight_first() {
        let mut repeats = Repeats::default();
        repeats.take(at(9), SECOND, esp(5, 5), b"bytes");
        repeats.take(at(2), FIRST, esp(5, 5), b"other");
        let told = repeats.told(at(0));
        assert_eq!(told.first().map(|repeat| repeat.first_from.as_str()), Some("member 1"));
    }

    #[test]
    fn many_repeated_frames_hide_no_duplicate() {
        let mut repeats = Repeats::default();
        for _ in 0..1_000 {
            repeats.take(at(1), FIRST, esp(5, 5), b"bytes");
        }
        repeats.take(at(2), SECOND, esp(5, 5), b"bytes");
        assert_eq!(counts(&repeats), [1, 1, 999]);
        let told = repeats.told(at(0));
        assert_eq!(told.len(), TOLD_MAX + 1);
        assert_eq!(told.first().map(|repeat| repeat.same_frame), Some(false));
    }
}
