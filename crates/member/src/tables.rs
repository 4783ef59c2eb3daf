//! What the workers look up, kept ready to be published.

use crate::config::{Delivery, MemberConfig, TargetConfig};
use crate::fellows::Fellows;
use crate::limits;
use crate::neighbours::Neighbours;
use crate::notices::{Notices, QUARTERS, mark_key};
use crate::paths::Paths;
use holdfast_cluster::{ChildRecord, Owner, State, TargetId};
use holdfast_datapath::{ConnectionCount, Marker, SaRef, Tables, TargetEntry, TargetTable, Way};
use holdfast_ipsec::{Selectors, Spd, Spi};
use holdfast_maglev::Table;
use holdfast_packet::Nanos;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A Child SA that is not sent with yet.
#[derive(Debug, Clone)]
struct HeldBack {
    replaces: Spi,
    sa: SaRef,
    selectors: Selectors,
}

/// The policies and the distribution, updated with every applied entry on every member.
#[derive(Debug)]
pub(crate) struct TablesKeeper {
    policies: Spd<SaRef>,
    /// Child SAs a peer made by a rekey: their traffic stays with the one each replaces until the peer
    /// is known to have them. Few: each ends with the peer's next message.
    held_back: Vec<HeldBack>,
    /// What each SA protects, to find its policies when it is gone.
    selectors: BTreeMap<Spi, Arc<Selectors>>,
    /// SAs whose policies may not be what the records say.
    unreviewed: VecDeque<Spi>,
    review_due: Nanos,
    /// What the Maglev table was built of; building takes milliseconds.
    distributed: Vec<(u64, u32)>,
    maglev: Arc<Table>,
    generation: u64,
    dirty: bool,
    published: Option<Nanos>,
    connections: BTreeMap<TargetId, ConnectionCount>,
    /// Those of the present ownership; deriving a key takes a microsecond.
    markers: BTreeMap<TargetId, Arc<Marker>>,
}

impl TablesKeeper {
    /// Without policies and targets.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            policies: Spd::new(),
            held_back: Vec::new(),
            selectors: BTreeMap::new(),
            unreviewed: VecDeque::new(),
            review_due: Nanos::ZERO,
            distributed: Vec::new(),
            maglev: Arc::new(Table::new(&[], limits::MAGLEV_ROWS, seed)),
            generation: 0,
            dirty: true,
            published: None,
            connections: BTreeMap::new(),
            markers: BTreeMap::new(),
        }
    }

    /// This member is the owner from now on: connections are counted anew.
    pub(crate) fn begin_ownership(&mut self) {
        self.connections.clear();
        self.dirty = true;
    }

    /// Connections given to a target since this member is the owner.
    pub(crate) fn connections(&self, target: TargetId) -> u64 {
        self.connections.get(&target).map_or(0, ConnectionCount::get)
    }

    /// How packets reach a target: on this member's own host without the inside network, else marked
    /// in the name of the present ownership, if it wants that.
    fn way(
        &mut self,
        config: &MemberConfig,
        state: &State,
        target: &TargetConfig,
        owner: Option<Owner>,
    ) -> Way {
        if target.member == Some(config.id) {
            return Way::Local;
        }
        if target.delivery == Delivery::Clear {
            return Way::Clear;
        }
        let (Some(owner), Some(secret)) = (owner, state.mark_secret()) else {
            return Way::Unmarked;
        };
        let kept = self.markers.get(&target.id).filter(|marker| marker.epoch == owner.epoch.0);
        if let Some(marker) = kept {
            return Way::Marked(Arc::clone(marker));
        }
        let Some(key) = mark_key(secret, owner.epoch, target.id) else { return Way::Unmarked };
        let (source, destination) = (config.addresses.inside, target.address);
        let marker = Arc::new(Marker { epoch: owner.epoch.0, key, source, destination });
        self.markers.insert(target.id, Arc::clone(&marker));
        Way::Marked(marker)
    }

    /// Something a worker looks up has changed.
    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }

    /// A Child SA is new. Its traffic goes through it from now on, or, when the peer may not know it
    /// yet, from the moment the one it replaces is gone or it is [confirmed](Self::confirm).
    pub(crate) fn add(&mut self, child: &ChildRecord, state: &State, mask: u32) {
        let spi = child.parameters.inbound_spi;
        let sa = SaRef { worker: spi.worker(mask), spi };
        let selectors = child.parameters.selectors.clone();
        match child.replaces.filter(|_| !state.is_known_to_peer(child)) {
            Some(replaces) => self.held_back.push(HeldBack { replaces, sa, selectors }),
            None => self.use_from_now_on(sa, selectors),
        }
    }

    fn use_from_now_on(&mut self, sa: SaRef, selectors: Selectors) {
        let selectors = Arc::new(selectors);
        self.policies.insert(Arc::clone(&selectors), sa);
        self.selectors.insert(sa.spi, selectors);
        self.dirty = true;
    }

    /// The peer was heard on this Child SA: it has it.
    pub(crate) fn confirm(&mut self, spi: Spi) {
        self.use_held_back(|held| held.sa.spi == spi);
    }

    /// The Child SA `old` cannot be sent with any more: what replaces it must be.
    pub(crate) fn release(&mut self, old: Spi) {
        self.use_held_back(|held| held.replaces == old);
    }

    fn use_held_back(&mut self, which: impl Fn(&HeldBack) -> bool) {
        for held in self.held_back.extract_if(.., |held| which(held)).collect::<Vec<_>>() {
            self.use_from_now_on(held.sa, held.selectors);
        }
    }

    /// Child SAs are gone.
    pub(crate) fn remove(&mut self, gone: &BTreeSet<Spi>) {
        self.held_back.retain(|held| !gone.contains(&held.sa.spi));
        self.use_held_back(|held| gone.contains(&held.replaces));
        for spi in gone {
            if let Some(selectors) = self.selectors.remove(spi) {
                self.policies.remove(&selectors, |sa| sa.spi == *spi);
            }
        }
        self.dirty = true;
    }

    /// The state was replaced as a whole: every SA there was, and every one there is, is to be reviewed.
    /// Which of several SAs for the same traffic is the newest is not recorded; each of them works.
    pub(crate) fn reload(&mut self, state: &State) {
        self.held_back.clear();
        let present = state.children().map(|child| child.parameters.inbound_spi);
        self.unreviewed = self.selectors.keys().copied().chain(present).collect();
    }

    /// Whether the policies are what the records say.
    pub(crate) fn is_whole(&self) -> bool {
        self.unreviewed.is_empty()
    }

    /// When the next slice is to be reviewed.
    pub(crate) fn reload_due(&self) -> Option<Nanos> {
        (!self.is_whole()).then_some(self.review_due)
    }

    /// Reviews the next slice, when it is due. Nobody uses the policies of a standby, so they are published
    /// once, at the end.
    pub(crate) fn reload_some(&mut self, now: Nanos, state: &State, mask: u32) {
        if self.is_whole() || now < self.review_due {
            return;
        }
        self.review_due = now.plus_ms(limits::WARM_PAUSE_MS);
        let dirty = self.dirty;
        self.review(limits::REVIEW_POLICIES_PER_ROUND, state, mask);
        self.dirty = dirty || self.is_whole();
    }

    /// Reviews whatever is left, for whoever is to use the policies now.
    pub(crate) fn reload_rest(&mut self, state: &State, mask: u32) {
        self.review(usize::MAX, state, mask);
    }

    fn review(&mut self, most: usize, state: &State, mask: u32) {
        let count = self.unreviewed.len().min(most);
        for spi in self.unreviewed.drain(..count).collect::<Vec<_>>() {
            let child = state.child(spi);
            let known = self.selectors.get(&spi);
            let stands = child.zip(known);
            let stands = stands.is_some_and(|(child, known)| child.parameters.selectors == **known);
            if stands || self.held_back.iter().any(|held| held.sa.spi == spi) {
                continue;
            }
            if let Some(selectors) = self.selectors.remove(&spi) {
                self.policies.remove(&selectors, |sa| sa.spi == spi);
                self.dirty = true;
            }
            if let Some(child) = child {
                self.add(child, state, mask);
            }
        }
    }

    /// Whether the workers have tables.
    pub(crate) fn is_published(&self) -> bool {
        self.published.is_some()
    }

    /// When [`Self::publish`] has something to publish.
    pub(crate) fn due(&self) -> Option<Nanos> {
        let policies = u64::try_from(self.policies.len()).unwrap_or(u64::MAX);
        let times = 1u64.saturating_add(policies / limits::PUBLISH_POLICIES);
        let pause_ms = limits::PUBLISH_PAUSE_MS.saturating_mul(times);
        let pause = |published: Nanos| published.plus_ms(pause_ms);
        self.dirty.then(|| self.published.map_or(Nanos::ZERO, pause))
    }

    /// The next generation, when it is due. `at_once` ignores the pause between generations.
    pub(crate) fn publish(
        &mut self,
        now: Nanos,
        at_once: bool,
        config: &MemberConfig,
        state: &State,
        (outside, inside, paths): (&Neighbours, &Neighbours, &Paths),
        (members, notices, owner): (&Fellows, &Notices, Option<Owner>),
    ) -> Option<Arc<Tables>> {
        if !self.due().is_some_and(|due| at_once || due <= now) {
            return None;
        }
        self.dirty = false;
        self.published = Some(now);
        self.generation = self.generation.saturating_add(1);
        let addresses = &config.addresses;
        Some(Arc::new(Tables {
            generation: self.generation,
            common: addresses.common,
            inside: addresses.inside,
            service: addresses.service,
            outside_mac: config.outside_mac,
            inside_mac: config.inside_mac,
            outside_prefix: addresses.outside_prefix,
            gateway: addresses.gateway,
            spd: self.policies.clone(),
            targets: self.targets(config, state, inside, (notices, owner)),
            neighbours: outside.known(),
            path_mtus: paths.mtus(),
            flow_seed: config.flow_seed,
            tunnel: config.tunnel,
            members: members.all_stations(),
        }))
    }

    fn targets(
        &mut self,
        config: &MemberConfig,
        state: &State,
        inside: &Neighbours,
        (notices, owner): (&Notices, Option<Owner>),
    ) -> TargetTable {
        let up = config.targets.iter().filter(|target| inside.is_up(target.address));
        let mut by_id = BTreeMap::new();
        let mut distributed = Vec::new();
        for target in up {
            let TargetId(id) = target.id;
            let draining = state.is_draining(target.id);
            let mac = inside.mac(target.address);
            let way = self.way(config, state, target, owner);
            let connections = self.connections.entry(target.id).or_default().clone();
            let entry = TargetEntry { address: target.address, mac, draining, way, connections };
            by_id.insert(id, entry);
            let standing = notices.standing(target.id);
            if !draining && target.weight > 0 && standing.open {
                distributed.push((id, target.weight, standing.quarters));
            }
        }
        let distributed = weights(&distributed);
        if distributed != self.distributed {
            let table = Table::new(&distributed, limits::MAGLEV_ROWS, config.maglev_seed);
            self.maglev = Arc::new(table);
            self.distributed = distributed;
        }
        TargetTable { table: Arc::clone(&self.maglev), by_id }
    }
}

/// The weight of each target, given its configured one and the quarters of it that count. As they
/// are configured while all of them count whole.
fn weights(targets: &[(u64, u32, u32)]) -> Vec<(u64, u32)> {
    let whole = targets.iter().all(|(.., quarters)| *quarters == QUARTERS);
    let weight = |weight: u32, quarters: u32| {
        if whole { weight } else { weight.saturating_mul(quarters) }
    };
    targets.iter().map(|(id, configured, q)| (*id, weight(*configured, *q))).collect()
}
