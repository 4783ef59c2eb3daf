//! The outbound half of the security policy database (RFC 4301 section 4.4.1).
//!
//! A database is published to the workers whole, and the next one differs in a policy or two. So its
//! parts are shared: a copy costs as much as there are shards, and a change copies one of them.

mod hosts;

use std::net::Ipv4Addr;
use std::sync::Arc;

use holdfast_packet::FlowKey;

use crate::selector::PairOfSelectors;
use crate::{Selectors, TrafficSelector};
use hosts::Hosts;

/// Shards of the policies for single hosts. With a hundred thousand of them a shard has a hundred,
/// and copying one takes microseconds.
const SHARDS: usize = 1_024;

/// Ordered outbound policies, each naming what protects its traffic. Among the policies that take a
/// packet the newest wins, so that after a rekey traffic moves to the new SA.
///
/// A policy for single remote hosts is found by address, however many there are; policies for
/// ranges are tried one after the other, newest first. Cloning shares what is equal.
#[derive(Clone, Debug)]
pub struct Spd<T> {
    /// Empty until the first policy for a host, else [`SHARDS`].
    by_host: Vec<Arc<Hosts<T>>>,
    /// Newest first.
    by_range: Arc<Vec<Policy<T>>>,
    len: usize,
    inserted: u64,
}

#[derive(Clone, Debug)]
struct Policy<T> {
    /// Counts insertions: the highest is the newest.
    age: u64,
    /// The selectors, when there is one for each side; else they are looked up behind the pointer.
    pair: Option<PairOfSelectors>,
    selectors: Arc<Selectors>,
    protects: T,
}

impl<T> Policy<T> {
    #[inline]
    fn takes(&self, flow: &FlowKey) -> bool {
        match &self.pair {
            Some(pair) => pair.matches_outbound(flow),
            None => self.selectors.matches_outbound(flow),
        }
    }
}

impl<T> Spd<T> {
    /// A database without policies: everything is dropped.
    #[must_use]
    pub fn new() -> Self {
        Self { by_host: Vec::new(), by_range: Arc::new(Vec::new()), len: 0, inserted: 0 }
    }

    /// What protects a packet from our side; `None` means that no policy lets it out.
    #[must_use]
    pub fn lookup(&self, flow: &FlowKey) -> Option<&T> {
        let shard = self.by_host.get(shard_of(flow.dst));
        let host = shard.and_then(|shard| shard.lookup(flow));
        let range = self.by_range.iter().find(|policy| policy.takes(flow));
        let policy = match (host, range) {
            (Some(host), Some(range)) if host.age < range.age => range,
            (Some(host), _) => host,
            (None, range) => range?,
        };
        Some(&policy.protects)
    }

    /// Reads what [`lookup`](Self::lookup) will for a packet to `host`, so that the misses of many
    /// packets overlap. The result says nothing.
    #[must_use]
    #[inline]
    pub fn touch(&self, host: Ipv4Addr) -> u64 {
        self.by_host.get(shard_of(host)).map_or(0, |shard| shard.touch(host))
    }

    /// How many policies there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no policy.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Clone> Spd<T> {
    /// Adds a policy, newer than all others.
    pub fn insert(&mut self, selectors: impl Into<Arc<Selectors>>, protects: T) {
        let selectors = selectors.into();
        self.inserted = self.inserted.saturating_add(1);
        self.len = self.len.saturating_add(1);
        let pair = PairOfSelectors::of(&selectors);
        let policy = Policy { age: self.inserted, pair, selectors, protects };
        let Some(hosts) = single_hosts(&policy.selectors.remote) else {
            return Arc::make_mut(&mut self.by_range).insert(0, policy);
        };
        for host in hosts {
            self.change(host, |policies| {
                if policies.first().is_none_or(|first| first.age != policy.age) {
                    policies.insert(0, policy.clone());
                }
            });
        }
    }

    /// Removes the policies of these selectors that `unwanted` names; looks at no others.
    pub fn remove(&mut self, selectors: &Selectors, mut unwanted: impl FnMut(&T) -> bool) {
        let mut removed = Vec::new();
        match single_hosts(&selectors.remote) {
            None => drop_policies(Arc::make_mut(&mut self.by_range), &mut unwanted, &mut removed),
            Some(hosts) => {
                for host in hosts {
                    self.change(host, |policies| {
                        drop_policies(policies, &mut unwanted, &mut removed);
                    });
                }
            }
        }
        removed.sort_unstable();
        removed.dedup();
        self.len = self.len.saturating_sub(removed.len());
    }

    /// Keeps only the policies the closure wants. Looks at all of them.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        let mut unwanted = |protects: &T| !wanted(protects);
        let mut removed = Vec::new();
        drop_policies(Arc::make_mut(&mut self.by_range), &mut unwanted, &mut removed);
        for shard in &mut self.by_host {
            let shard = Arc::make_mut(shard);
            for host in shard.addresses() {
                let mut policies = shard.take(host);
                drop_policies(&mut policies, &mut unwanted, &mut removed);
                shard.put(host, policies);
            }
        }
        removed.sort_unstable();
        removed.dedup();
        self.len = self.len.saturating_sub(removed.len());
    }

    /// Changes the policies of a host, newest first, in its shard; in a copy of that, when it is
    /// shared with a database published.
    fn change(&mut self, host: Ipv4Addr, change: impl FnOnce(&mut Vec<Policy<T>>)) {
        if self.by_host.is_empty() {
            let empty = Arc::new(Hosts::new());
            self.by_host = vec![empty; SHARDS];
        }
        if let Some(shard) = self.by_host.get_mut(shard_of(host)) {
            let shard = Arc::make_mut(shard);
            let mut policies = shard.take(host);
            change(&mut policies);
            shard.put(host, policies);
        }
    }
}

/// Neighbouring hosts lie in different shards.
#[inline]
fn shard_of(host: Ipv4Addr) -> usize {
    let mixed = host.to_bits().wrapping_mul(0x9e37_79b9) >> 16;
    usize::try_from(mixed).unwrap_or(0) % SHARDS
}

fn drop_policies<T>(
    policies: &mut Vec<Policy<T>>,
    unwanted: &mut impl FnMut(&T) -> bool,
    removed: &mut Vec<u64>,
) {
    policies.retain(|policy| {
        let drops = unwanted(&policy.protects);
        if drops {
            removed.push(policy.age);
        }
        !drops
    });
}

impl<T> Default for Spd<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The remote addresses, when each selector names a single one.
fn single_hosts(remote: &[TrafficSelector]) -> Option<Vec<Ipv4Addr>> {
    remote.iter().map(|ts| (ts.addresses.0 == ts.addresses.1).then_some(ts.addresses.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

    fn to(remote: TrafficSelector) -> Selectors {
        Selectors { local: vec![TrafficSelector::host(SERVICE)], remote: vec![remote] }
    }

    fn flow(dst: [u8; 4]) -> FlowKey {
        FlowKey { src: SERVICE, dst: dst.into(), protocol: 6, src_port: 80, dst_port: 40_000 }
    }

    #[test]
    fn the_newest_policy_wins_whichever_way_it_is_found() {
        let host = TrafficSelector::host([10, 0, 0, 1].into());
        let range = TrafficSelector::prefix([10, 0, 0, 0].into(), 8);
        for order in [[host, range], [range, host]] {
            let mut spd = Spd::new();
            spd.insert(to(order[0]), "old");
            spd.insert(to(order[1]), "new");
            assert_eq!(spd.lookup(&flow([10, 0, 0, 1])), Some(&"new"));
        }
    }

    #[test]
    fn after_a_removal_the_older_policy_serves_again() {
        let mut spd = Spd::new();
        spd.insert(to(TrafficSelector::host([10, 0, 0, 1].into())), 1);
        spd.insert(to(TrafficSelector::host([10, 0, 0, 1].into())), 2);
        spd.retain(|&id| id != 2);
        assert_eq!(spd.lookup(&flow([10, 0, 0, 1])), Some(&1));
        spd.retain(|_| false);
        assert_eq!(spd.lookup(&flow([10, 0, 0, 1])), None);
        assert!(spd.is_empty());
    }

    #[test]
    fn a_removal_by_its_selectors_hits_no_other_policy() {
        let hosts: Vec<TrafficSelector> =
            (1..=3).map(|n| TrafficSelector::host([10, 0, 0, n].into())).collect();
        let both = Selectors {
            local: vec![TrafficSelector::host(SERVICE)],
            remote: vec![hosts[0], hosts[1], hosts[1]],
        };
        let range = to(TrafficSelector::prefix([10, 0, 0, 0].into(), 8));
        let mut spd = Spd::new();
        spd.insert(range.clone(), 0);
        spd.insert(both.clone(), 1);
        spd.insert(to(hosts[2]), 2);
        let published = spd.clone();
        spd.remove(&both, |&id| id == 1);
        assert_eq!(spd.len(), 2);
        assert_eq!(spd.lookup(&flow([10, 0, 0, 2])), Some(&0), "the range serves again");
        assert_eq!(spd.lookup(&flow([10, 0, 0, 3])), Some(&2));
        assert_eq!(published.lookup(&flow([10, 0, 0, 2])), Some(&1), "a copy keeps what it was");
        spd.remove(&to(hosts[2]), |&id| id == 9);
        spd.remove(&range, |&id| id == 0);
        assert_eq!((spd.len(), spd.lookup(&flow([10, 0, 0, 3]))), (1, Some(&2)));
    }

    #[test]
    fn a_packet_no_policy_takes_stays_inside() {
        let mut spd = Spd::new();
        spd.insert(to(TrafficSelector::prefix([10, 0, 0, 0].into(), 24)), ());
        assert_eq!(spd.lookup(&flow([10, 0, 1, 1])), None);
        let mut foreign_source = flow([10, 0, 0, 1]);
        foreign_source.src = [192, 0, 2, 1].into();
        assert_eq!(spd.lookup(&foreign_source), None);
    }

    #[test]
    fn a_policy_without_remote_selectors_takes_nothing() {
        let mut spd = Spd::new();
        spd.insert(Selectors::default(), ());
        assert_eq!(spd.lookup(&flow([10, 0, 0, 1])), None);
    }
}
