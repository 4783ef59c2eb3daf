//! Which target keeps which connection.
//!
//! A set-associative table: the flow's hash names a set of [`WAYS`] slots; a flow lives in one of
//! them or nowhere. So a lookup is bounded, a removal leaves no tombstone, and when a set is full
//! the flow that has been silent longest gives way. A flow that lost its entry is distributed anew,
//! which gives the same target while the set of targets is unchanged.

use holdfast_packet::{FlowKey, Nanos, ipv4};

/// Slots a flow may occupy.
pub const WAYS: usize = 8;
/// Flows one worker remembers: 2^18, about 16 MiB.
pub const FLOWS: usize = 1 << 18;
/// A silent TCP connection is forgotten after this time. RFC 5382 asks translators for two hours
/// and four minutes; so do we.
pub const TCP_IDLE_S: u64 = 7_440;
/// Any other silent flow is forgotten after this time (RFC 4787 recommends five minutes).
pub const OTHER_IDLE_S: u64 = 300;

/// One remembered flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    hash: u64,
    key: FlowKey,
    target: u64,
    last_seen: Nanos,
}

impl Flow {
    fn is_expired(&self, now: Nanos) -> bool {
        let idle_s =
            if self.key.protocol == ipv4::PROTOCOL_TCP { TCP_IDLE_S } else { OTHER_IDLE_S };
        self.last_seen.plus_secs(idle_s) < now
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

/// The flows of one worker.
#[derive(Debug)]
pub(crate) struct FlowTable {
    sets: Vec<[Option<Flow>; WAYS]>,
}

impl FlowTable {
    /// A table for `flows`, rounded up to a power of two and at least one set.
    pub(crate) fn new(flows: usize) -> Self {
        let sets = flows.div_ceil(WAYS).next_power_of_two();
        Self { sets: vec![[None; WAYS]; sets] }
    }

    /// The target of a known flow, which counts as seen now.
    pub(crate) fn lookup(&mut self, hash: u64, key: &FlowKey, now: Nanos) -> Option<u64> {
        let flow = self
            .set(hash)?
            .iter_mut()
            .flatten()
            .find(|flow| flow.hash == hash && flow.key == *key && !flow.is_expired(now))?;
        flow.last_seen = now;
        Some(flow.target)
    }

    /// Remembers `target` for a flow, in place of an older answer for the same flow if there is one.
    pub(crate) fn insert(&mut self, hash: u64, key: FlowKey, target: u64, now: Nanos) -> Inserted {
        let Some(set) = self.set(hash) else { return Inserted::Evicted };
        let slot = match set.iter().position(|slot| slot.is_some_and(|flow| flow.key == key)) {
            Some(same) => set.get_mut(same),
            // A free slot comes before any other.
            None => set.iter_mut().min_by_key(|slot| slot.map(|flow| flow.last_seen)),
        };
        let Some(slot) = slot else { return Inserted::Evicted };
        let outcome = match slot {
            Some(old) if old.key != key && !old.is_expired(now) => Inserted::Evicted,
            _ => Inserted::Room,
        };
        *slot = Some(Flow { hash, key, target, last_seen: now });
        outcome
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.sets.fill([None; WAYS]);
    }

    /// Up to `limit` living flows.
    pub(crate) fn list(&self, limit: usize, now: Nanos) -> Vec<FlowInfo> {
        let living = self.sets.iter().flatten().flatten().filter(|flow| !flow.is_expired(now));
        living
            .take(limit)
            .map(|flow| FlowInfo {
                key: flow.key,
                target: flow.target,
                idle_ms: now.ms_since(flow.last_seen),
            })
            .collect()
    }

    fn set(&mut self, hash: u64) -> Option<&mut [Option<Flow>; WAYS]> {
        // The high bits: Maglev takes the remainder, which depends mostly on the low ones.
        let index = (hash >> 32) as usize & (self.sets.len() - 1);
        self.sets.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

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
        assert_eq!(table.lookup(2, &key(1, ipv4::PROTOCOL_UDP), later), None);
        assert_eq!(table.lookup(1, &key(1, ipv4::PROTOCOL_TCP), later), Some(5));
        let much_later = later.plus_secs(TCP_IDLE_S + 1);
        assert_eq!(table.lookup(1, &key(1, ipv4::PROTOCOL_TCP), much_later), None);
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
        assert_eq!(table.lookup(WAYS as u64 - 1, &key(WAYS as u16 - 1, 6), now), None);
        assert_eq!(table.lookup(0, &key(0, 6), now), Some(1));
    }

    #[test]
    fn inserting_a_known_flow_moves_it() {
        let mut table = FlowTable::new(8);
        table.insert(1, key(1, 6), 5, Nanos::ZERO);
        assert_eq!(table.insert(1, key(1, 6), 6, Nanos::ZERO), Inserted::Room);
        assert_eq!(table.lookup(1, &key(1, 6), Nanos::ZERO), Some(6));
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
                let found = table.lookup(key(port, 6).hash(7), &key(port, 6), Nanos::ZERO);
                prop_assert!(found.is_none_or(|target| target == u64::from(port)));
            }
        }
    }
}
