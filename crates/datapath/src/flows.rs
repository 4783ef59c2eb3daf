//! Which target keeps which connection.
//!
//! A set-associative table: the flow's hash names a set of [`WAYS`] slots; a flow lives in one of
//! them or nowhere. So a lookup is bounded, a removal leaves no tombstone, and when a set is full
//! the flow that has been silent longest gives way. A flow that lost its entry is distributed anew,
//! which gives the same target while the set of targets is unchanged.
//!
//! ```text
//!   a set, three cache lines    tags, last seen and targets of 8 flows | their keys
//! ```
//!
//! A lookup reads the first line and that one of the others which a tag leads to: two lines,
//! however many flows there are.

use holdfast_packet::{FlowKey, Nanos, ipv4};
use std::mem::{offset_of, size_of};

/// Slots a flow may occupy.
pub const WAYS: usize = 8;
/// Flows one worker remembers: 2^18, about 6 MiB.
pub const FLOWS: usize = 1 << 18;
/// A silent TCP connection is forgotten after this time. RFC 5382 asks translators for two hours
/// and four minutes; so do we.
pub const TCP_IDLE_S: u64 = 7_440;
/// Any other silent flow is forgotten after this time (RFC 4787 recommends five minutes).
pub const OTHER_IDLE_S: u64 = 300;
/// Targets a table tells apart by its own numbers; with one more it forgets everything and begins
/// anew. Ids of targets are not reused, so this is a limit over the worker's life.
pub(crate) const TARGETS_MAX: usize = 1 << 16;

/// Last seen counts in 2^20 ns, about a millisecond, modulo 2^32: fifty-two days. A flow that was
/// silent for just as long may be taken for one just seen, and keeps its target.
const TICK_NS_LOG: u32 = 20;

const fn ticks(now: Nanos) -> u32 {
    (now.0 >> TICK_NS_LOG) as u32
}

/// Ticks of an idle time in seconds.
const fn idle_ticks(idle_s: u64) -> u32 {
    ((idle_s * 1_000_000_000) >> TICK_NS_LOG) as u32
}

/// What a slot's tag is for a hash: its upper bits, never 0, which is a free slot.
#[inline]
const fn tag_of(hash: u64) -> u8 {
    let tag = (hash >> 56) as u8;
    if tag == 0 { 1 } else { tag }
}

/// The first bit of every octet.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The last bit of every octet.
const TOPS: u64 = 0x8080_8080_8080_8080;

/// Slots of a set that may hold a flow, as the top bits of octets. The lowest is right; a higher one
/// may not be (S. Anderson, "Bit twiddling hacks": finding a zero octet), so keys are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ways(u64);

impl Iterator for Ways {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let way = (self.0 != 0).then(|| self.0.trailing_zeros() as usize / 8);
        self.0 &= self.0.wrapping_sub(1);
        way
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Set {
    tags: [u8; WAYS],
    seen: [u32; WAYS],
    /// The table's own numbers of the targets.
    targets: [u16; WAYS],
    /// Keys as [`FlowKey::words`].
    keys: [[u64; 2]; WAYS],
}

const _: () = assert!(size_of::<Set>() == 192);
const _: () = assert!(offset_of!(Set, keys) <= 64);

impl Set {
    const EMPTY: Self =
        Self { tags: [0; WAYS], seen: [0; WAYS], targets: [0; WAYS], keys: [[0; 2]; WAYS] };

    #[inline]
    const fn ways(&self, tag: u8) -> Ways {
        let differing = u64::from_le_bytes(self.tags) ^ (ONES * tag as u64);
        Ways(differing.wrapping_sub(ONES) & !differing & TOPS)
    }

    /// The slot of a flow, forgotten or not.
    #[inline]
    fn find(&self, tag: u8, key: [u64; 2]) -> Option<usize> {
        self.ways(tag)
            .find(|way| self.keys.get(*way) == Some(&key) && self.tags.get(*way) == Some(&tag))
    }

    fn is_expired(&self, way: usize, now: Nanos) -> bool {
        let protocol = self.keys.get(way).map_or(0, |key| FlowKey::from_words(*key).protocol);
        let idle_s = if protocol == ipv4::PROTOCOL_TCP { TCP_IDLE_S } else { OTHER_IDLE_S };
        self.idle(way, now) > idle_ticks(idle_s)
    }

    /// Ticks since a flow was seen.
    #[inline]
    fn idle(&self, way: usize, now: Nanos) -> u32 {
        self.seen.get(way).map_or(0, |seen| ticks(now).wrapping_sub(*seen))
    }

    /// The slot for a flow that has none: a free one, or the one that was silent longest.
    fn room(&self, now: Nanos) -> usize {
        let silence = |way: &usize| match self.tags.get(*way) {
            Some(0) => u64::MAX,
            _ => u64::from(self.idle(*way, now)),
        };
        // Of equals the first: `max_by_key` takes the last.
        (0..WAYS).rev().max_by_key(silence).unwrap_or(0)
    }
}

/// A flow as listed to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowInfo {
    /// The direction from the peer to the service.
    pub key: FlowKey,
    /// The target's id.
    pub target: u64,
    /// Time since its last packet from the peer.
    pub idle_ms: u64,
}

/// What [`FlowTable::insert`] did to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// Nothing: the flow had a slot, or one was free or held a forgotten flow.
    Room,
    /// A living flow was evicted because its set is full.
    Evicted,
}

/// What a flow table calls a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TargetNumber(u16);

impl TargetNumber {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The flows of one worker.
#[derive(Debug)]
pub(crate) struct FlowTable {
    sets: Vec<Set>,
    /// The ids of targets, by the numbers that flows have of them. Room for them is there from the
    /// beginning.
    targets: Vec<u64>,
    /// Counts how often that changed.
    version: u64,
}

impl FlowTable {
    /// A table for `flows`, rounded up to a power of two and at least one set.
    pub(crate) fn new(flows: usize) -> Self {
        let sets = flows.div_ceil(WAYS).next_power_of_two();
        Self { sets: vec![Set::EMPTY; sets], targets: Vec::with_capacity(TARGETS_MAX), version: 0 }
    }

    /// Reads where the lookup of a flow begins, so that the misses of many flows overlap.
    #[inline]
    pub(crate) fn touch_set(&self, hash: u64) -> u64 {
        self.sets.get(self.index(hash)).map_or(0, |set| u64::from(set.tags[0]))
    }

    /// Reads where the lookup of a flow goes on, once the set has been read.
    #[inline]
    pub(crate) fn touch_flow(&self, hash: u64) -> u64 {
        let Some(set) = self.sets.get(self.index(hash)) else { return 0 };
        let way = set.ways(tag_of(hash)).next().unwrap_or(0);
        set.keys.get(way).map_or(0, |[addresses, _]| *addresses)
    }

    /// The number of a known flow's target; the flow counts as seen now.
    #[inline]
    pub(crate) fn lookup(&mut self, hash: u64, key: &FlowKey, now: Nanos) -> Option<TargetNumber> {
        let at = self.index(hash);
        let set = self.sets.get_mut(at)?;
        let way = set.find(tag_of(hash), key.words())?;
        if set.idle(way, now) > idle_ticks(OTHER_IDLE_S) && set.is_expired(way, now) {
            return None;
        }
        *set.seen.get_mut(way)? = ticks(now);
        set.targets.get(way).copied().map(TargetNumber)
    }

    /// The id of a target.
    #[inline]
    pub(crate) fn target(&self, number: TargetNumber) -> Option<u64> {
        self.targets.get(usize::from(number.0)).copied()
    }

    /// Differs whenever a number may mean another target than before.
    #[inline]
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// The ids of all targets that flows have, by their numbers.
    pub(crate) fn targets(&self) -> &[u64] {
        &self.targets
    }

    /// Remembers `target` for a flow, in place of an older answer for the same flow if there is one.
    pub(crate) fn insert(&mut self, hash: u64, key: FlowKey, target: u64, now: Nanos) -> Inserted {
        let number = self.number_of(target);
        let (at, tag) = (self.index(hash), tag_of(hash));
        let Some(set) = self.sets.get_mut(at) else { return Inserted::Evicted };
        let same = set.find(tag, key.words());
        let way = same.unwrap_or_else(|| set.room(now));
        let is_taken = same.is_none() && set.tags.get(way) != Some(&0);
        let evicts = is_taken && !set.is_expired(way, now);
        if let (Some(old_tag), Some(seen), Some(target), Some(old_key)) = (
            set.tags.get_mut(way),
            set.seen.get_mut(way),
            set.targets.get_mut(way),
            set.keys.get_mut(way),
        ) {
            (*old_tag, *seen, *target, *old_key) = (tag, ticks(now), number, key.words());
        }
        if evicts { Inserted::Evicted } else { Inserted::Room }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        if self.targets.is_empty() {
            // No flow was remembered since the last time. A new owner is told to forget before it may
            // serve, and its megabytes, long untouched, can take tens of milliseconds to write.
            return;
        }
        self.sets.fill(Set::EMPTY);
        self.targets.clear();
        self.version = self.version.wrapping_add(1);
    }

    /// Up to `limit` living flows.
    pub(crate) fn list(&self, limit: usize, now: Nanos) -> Vec<FlowInfo> {
        let slots = self.sets.iter().flat_map(|set| (0..WAYS).map(move |way| (set, way)));
        slots
            .filter(|(set, way)| set.tags.get(*way) != Some(&0) && !set.is_expired(*way, now))
            .filter_map(|(set, way)| {
                Some(FlowInfo {
                    key: FlowKey::from_words(*set.keys.get(way)?),
                    target: self.target(TargetNumber(*set.targets.get(way)?))?,
                    idle_ms: (u64::from(set.idle(way, now)) << TICK_NS_LOG) / 1_000_000,
                })
            })
            .take(limit)
            .collect()
    }

    /// The number of a target, a new one for a new target.
    fn number_of(&mut self, target: u64) -> u16 {
        if let Some(known) = self.targets.iter().position(|id| *id == target) {
            return u16::try_from(known).unwrap_or(u16::MAX);
        }
        if self.targets.len() == TARGETS_MAX {
            self.clear();
        }
        self.targets.push(target);
        self.version = self.version.wrapping_add(1);
        u16::try_from(self.targets.len() - 1).unwrap_or(u16::MAX)
    }

    #[inline]
    fn index(&self, hash: u64) -> usize {
        // The low bits: the tag has the high ones.
        hash as usize & (self.sets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    /// The id of a known flow's target.
    fn target(table: &mut FlowTable, hash: u64, key: &FlowKey, now: Nanos) -> Option<u64> {
        table.lookup(hash, key, now).and_then(|number| table.target(number))
    }

    fn key(port: u16, protocol: u8) -> FlowKey {
        FlowKey {
            src: Ipv4Addr::new(10, 0, 0, 1),
            dst: Ipv4Addr::new(10, 0, 0, 2),
            protocol,
            src_port: port,
            dst_port: 80,
        }
    }

    #[test]
    fn a_silent_flow_is_forgotten_after_its_protocols_time() {
        let mut table = FlowTable::new(8);
        table.insert(1, key(1, ipv4::PROTOCOL_TCP), 5, Nanos::ZERO);
        table.insert(2, key(1, ipv4::PROTOCOL_UDP), 6, Nanos::ZERO);
        let later = Nanos::from_secs(OTHER_IDLE_S + 1);
        assert_eq!(target(&mut table, 2, &key(1, ipv4::PROTOCOL_UDP), later), None);
        assert_eq!(target(&mut table, 1, &key(1, ipv4::PROTOCOL_TCP), later), Some(5));
        let much_later = later.plus_secs(TCP_IDLE_S + 1);
        assert_eq!(target(&mut table, 1, &key(1, ipv4::PROTOCOL_TCP), much_later), None);
    }

    #[test]
    fn the_longest_silent_flow_of_a_full_set_gives_way() {
        let mut table = FlowTable::new(WAYS);
        for port in 0..WAYS as u16 {
            let seen = Nanos::from_ms(100 - u64::from(port));
            assert_eq!(table.insert(u64::from(port), key(port, 6), 1, seen), Inserted::Room);
        }
        let now = Nanos::from_ms(200);
        assert_eq!(table.insert(99, key(99, 6), 2, now), Inserted::Evicted);
        assert_eq!(target(&mut table, WAYS as u64 - 1, &key(WAYS as u16 - 1, 6), now), None);
        assert_eq!(target(&mut table, 0, &key(0, 6), now), Some(1));
    }

    #[test]
    fn inserting_a_known_flow_moves_it() {
        let mut table = FlowTable::new(8);
        table.insert(1, key(1, 6), 5, Nanos::ZERO);
        assert_eq!(table.insert(1, key(1, 6), 6, Nanos::ZERO), Inserted::Room);
        assert_eq!(target(&mut table, 1, &key(1, 6), Nanos::ZERO), Some(6));
        assert_eq!(table.list(10, Nanos::ZERO).len(), 1);
    }

    proptest! {
        #[test]
        fn never_answers_for_another_flow(ports in prop::collection::vec(0u16..200, 0..200)) {
            let mut table = FlowTable::new(64);
            for port in &ports {
                let hash = key(*port, 6).hash(7);
                table.insert(hash, key(*port, 6), u64::from(*port), Nanos::ZERO);
            }
            for port in 0..200 {
                let found = target(&mut table, key(port, 6).hash(7), &key(port, 6), Nanos::ZERO);
                prop_assert!(found.is_none_or(|target| target == u64::from(port)));
            }
        }
    }
}
