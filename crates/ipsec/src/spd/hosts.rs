//! One shard of the policies for single hosts.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use holdfast_packet::FlowKey;

use super::Policy;

/// Policies by host. A host's newest policy, which takes nearly every packet, is found at the first
/// place or next to it: open addressing with linear probing, at most half full.
#[derive(Clone, Debug)]
pub(super) struct Hosts<T> {
    /// A power of two of them, or none.
    slots: Vec<Option<Host<T>>>,
    len: usize,
    /// The other policies of a host that has several, newest first.
    older: BTreeMap<Ipv4Addr, Vec<Policy<T>>>,
}

/// In one cache line, when what it protects with is no larger than eight octets.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Host<T> {
    address: Ipv4Addr,
    has_older: bool,
    newest: Policy<T>,
}

const _: () = assert!(size_of::<Option<Host<u64>>>() == 64);

impl<T> Hosts<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), len: 0, older: BTreeMap::new() }
    }

    /// The newest policy for the flow's destination that takes the flow.
    #[inline]
    pub(super) fn lookup(&self, flow: &FlowKey) -> Option<&Policy<T>> {
        let host = self.slots.get(self.find(flow.dst).ok()?)?.as_ref()?;
        if host.newest.takes(flow) {
            return Some(&host.newest);
        }
        if !host.has_older {
            return None;
        }
        self.older.get(&flow.dst)?.iter().find(|policy| policy.takes(flow))
    }

    #[inline]
    pub(super) fn touch(&self, address: Ipv4Addr) -> u64 {
        let slot = self.slots.get(self.home(address));
        slot.and_then(Option::as_ref).map_or(0, |host| host.newest.age)
    }

    pub(super) fn addresses(&self) -> Vec<Ipv4Addr> {
        self.slots.iter().flatten().map(|host| host.address).collect()
    }

    /// Takes all policies of a host out, newest first.
    pub(super) fn take(&mut self, address: Ipv4Addr) -> Vec<Policy<T>> {
        let Some(newest) = self.remove(address) else { return Vec::new() };
        let mut policies = vec![newest];
        policies.extend(self.older.remove(&address).unwrap_or_default());
        policies
    }

    /// Puts the policies of a host, newest first, where there are none of it.
    pub(super) fn put(&mut self, address: Ipv4Addr, policies: Vec<Policy<T>>) {
        let mut policies = policies.into_iter();
        let Some(newest) = policies.next() else { return };
        let older: Vec<Policy<T>> = policies.collect();
        let has_older = !older.is_empty();
        if has_older {
            self.older.insert(address, older);
        }
        if self.len >= self.slots.len() / 2 {
            self.grow();
        }
        self.place(Host { address, has_older, newest });
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(4);
        let old = std::mem::replace(&mut self.slots, (0..size).map(|_| None).collect());
        self.len = 0;
        old.into_iter().flatten().for_each(|host| self.place(host));
    }

    /// There is a free slot, and the host is in none.
    fn place(&mut self, host: Host<T>) {
        if let Err(at) = self.find(host.address)
            && let Some(slot) = self.slots.get_mut(at)
        {
            *slot = Some(host);
            self.len += 1;
        }
    }

    /// Closes the gap, so that there are no tombstones.
    fn remove(&mut self, address: Ipv4Addr) -> Option<Policy<T>> {
        let mut gap = self.find(address).ok()?;
        let removed = self.slots.get_mut(gap)?.take()?;
        self.len -= 1;
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = gap.wrapping_add(1) & mask;
        while let Some(Some(host)) = self.slots.get(at) {
            let home = self.home(host.address);
            // An entry may move back into the gap when its home does not lie behind the gap.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.slots.swap(gap, at);
                gap = at;
            }
            at = at.wrapping_add(1) & mask;
        }
        Some(removed.newest)
    }

    /// The slot of a host, or the free slot where it would go; behind the last when there is none.
    #[inline]
    fn find(&self, address: Ipv4Addr) -> Result<usize, usize> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = self.home(address);
        loop {
            match self.slots.get(at) {
                Some(Some(host)) if host.address == address => return Ok(at),
                Some(Some(_)) => at = at.wrapping_add(1) & mask,
                _ => return Err(at),
            }
        }
    }

    /// Other bits than those that choose the shard (Knuth, volume 3, 6.4).
    #[inline]
    fn home(&self, address: Ipv4Addr) -> usize {
        let spread = u64::from(address.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        spread as usize & self.slots.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Selectors, TrafficSelector};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn policy(address: Ipv4Addr, age: u64) -> Policy<u64> {
        let selectors = Selectors {
            local: vec![TrafficSelector::prefix(Ipv4Addr::UNSPECIFIED, 0)],
            remote: vec![TrafficSelector::host(address)],
        };
        Policy { age, pair: None, selectors: Arc::new(selectors), protects: age }
    }

    fn flow(dst: Ipv4Addr) -> FlowKey {
        FlowKey { src: Ipv4Addr::LOCALHOST, dst, protocol: 17, src_port: 1, dst_port: 2 }
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((0u32..40, 0usize..3), 0..200)) {
            let mut hosts = Hosts::new();
            let mut model: BTreeMap<Ipv4Addr, Vec<u64>> = BTreeMap::new();
            for (age, (n, count)) in (1..).zip(ops) {
                let address = Ipv4Addr::from_bits(0x0a00_0000 | n << 8 | 5);
                let taken: Vec<u64> = hosts.take(address).iter().map(|policy| policy.age).collect();
                prop_assert_eq!(taken, model.remove(&address).unwrap_or_default());
                let ages: Vec<u64> = (0..count as u64).map(|older| age * 10 - older).collect();
                hosts.put(address, ages.iter().map(|age| policy(address, *age)).collect());
                if count > 0 { model.insert(address, ages); }
                prop_assert_eq!(hosts.addresses().len(), model.len());
            }
            for n in 0..40 {
                let address = Ipv4Addr::from_bits(0x0a00_0000 | n << 8 | 5);
                let found = hosts.lookup(&flow(address)).map(|policy| policy.protects);
                prop_assert_eq!(found, model.get(&address).and_then(|ages| ages.first().copied()));
            }
        }
    }
}
