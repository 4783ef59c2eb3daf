//! The outbound half of the security policy database (RFC 4301 section 4.4.1).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use holdfast_packet::FlowKey;

use crate::{Selectors, TrafficSelector};

/// Ordered outbound policies, each naming what protects its traffic. Among the policies that take a
/// packet the newest wins, so that after a rekey traffic moves to the new SA.
///
/// A policy for single remote hosts is found by address, however many there are; policies for
/// ranges are tried one after the other, newest first.
#[derive(Clone, Debug)]
pub struct Spd<T> {
    policies: BTreeMap<Age, Policy<T>>,
    by_host: BTreeMap<Ipv4Addr, Vec<Age>>,
    by_range: Vec<Age>,
    inserted: u64,
}

/// Sorts newest first.
type Age = Reverse<u64>;

#[derive(Clone, Debug)]
struct Policy<T> {
    selectors: Selectors,
    protects: T,
}

impl<T> Spd<T> {
    /// A database without policies: everything is dropped.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            policies: BTreeMap::new(),
            by_host: BTreeMap::new(),
            by_range: Vec::new(),
            inserted: 0,
        }
    }

    /// Adds a policy, newer than all others.
    pub fn insert(&mut self, selectors: Selectors, protects: T) {
        self.inserted += 1;
        let age = Reverse(self.inserted);
        match single_hosts(&selectors.remote) {
            Some(hosts) => {
                for host in hosts {
                    let ages = self.by_host.entry(host).or_default();
                    if ages.first() != Some(&age) {
                        ages.insert(0, age);
                    }
                }
            }
            None => self.by_range.insert(0, age),
        }
        self.policies.insert(age, Policy { selectors, protects });
    }

    /// What protects a packet from our side; `None` means that no policy lets it out.
    #[must_use]
    pub fn lookup(&self, flow: &FlowKey) -> Option<&T> {
        let by_host = self.by_host.get(&flow.dst).and_then(|ages| self.newest(ages, flow));
        let by_range = self.newest(&self.by_range, flow);
        let (_, policy) = match (by_host, by_range) {
            (Some(host), Some(range)) => {
                if host.0 < range.0 {
                    host
                } else {
                    range
                }
            }
            (found, None) | (None, found) => found?,
        };
        Some(&policy.protects)
    }

    /// Keeps only the policies the closure wants.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        self.policies.retain(|_, policy| wanted(&policy.protects));
        let policies = &self.policies;
        self.by_range.retain(|age| policies.contains_key(age));
        self.by_host.retain(|_, ages| {
            ages.retain(|age| policies.contains_key(age));
            !ages.is_empty()
        });
    }

    /// Policies and what they protect with, newest first.
    pub fn iter(&self) -> impl Iterator<Item = (&Selectors, &T)> {
        self.policies.values().map(|policy| (&policy.selectors, &policy.protects))
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether there is no policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    fn newest(&self, ages: &[Age], flow: &FlowKey) -> Option<(Age, &Policy<T>)> {
        ages.iter()
            .filter_map(|age| self.policies.get_key_value(age))
            .find(|(_, policy)| policy.selectors.matches_outbound(flow))
            .map(|(&age, policy)| (age, policy))
    }
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
