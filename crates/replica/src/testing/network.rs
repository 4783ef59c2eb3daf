//! The members, what connects them, and the checks after every step.

use super::connections::{Connection, Connections};
use super::{Conditions, Disk, Prng};
use crate::wal::{FileOp, WalWriter};
use crate::{Lane, MessageError, Output, ProposalId, ProposeError, Replica, ReplicaError, Role};
use holdfast_cluster::{Command, Effect, MemberId};
use holdfast_packet::Nanos;
use std::collections::{BTreeMap, BTreeSet};

/// How long it takes to notice that a connection broke.
const NOTICE_NS: u64 = 50_000_000;

/// What seals the logs of all members.
pub const WAL_KEY: [u8; 32] = [0x5a; 32];

enum Event {
    Deliver { to: MemberId, from: MemberId, lane: Lane, bytes: Vec<u8> },
    SnapshotLost { from: MemberId, to: MemberId },
    Stored { member: MemberId, boot: u64, number: u64, sync: Option<FileOp> },
}

pub(super) struct Node {
    pub(super) running: Option<Running>,
    pub(super) disk: Disk,
    pub(super) boot: u64,
    pub(super) offset_ns: u64,
    /// Local nanoseconds per million true ones.
    pub(super) rate: u64,
    pub(super) stalled_until: u64,
    /// It was added to the running cluster.
    pub(super) joins: bool,
    /// It noticed that it is no member any more.
    pub(super) removed: bool,
}

pub(super) struct Running {
    pub(super) replica: Replica,
    pub(super) writer: WalWriter,
    pub(super) disk_free_at: u64,
    /// Index and term of everything applied in this boot.
    pub(super) applied: Vec<(u64, u64)>,
    pub(super) effects: Vec<Effect>,
    pub(super) replaced: u64,
    pub(super) persist: bool,
}

/// A cluster in virtual time.
pub struct Network {
    seed: u64,
    pub(super) conditions: Conditions,
    pub(super) prng: Prng,
    now_ns: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub(super) nodes: BTreeMap<MemberId, Node>,
    pub(super) founders: Vec<MemberId>,
    cut: BTreeSet<(MemberId, MemberId)>,
    connections: Connections,
    pub(super) hashes: BTreeMap<u64, u64>,
    lease_overlap_forgiven: bool,
    lease_overlaps: u64,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("seed", &self.seed)
            .field("now_ns", &self.now_ns)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// `members` new members, started within some milliseconds, so that their ticks differ.
    #[must_use]
    pub fn new(members: u64, seed: u64, conditions: Conditions) -> Self {
        let mut network = Self {
            seed,
            prng: Prng::new(seed),
            now_ns: 1_000_000_000,
            sequence: 0,
            events: BTreeMap::new(),
            nodes: BTreeMap::new(),
            founders: (1..=members).map(MemberId).collect(),
            cut: BTreeSet::new(),
            connections: Connections::default(),
            hashes: BTreeMap::new(),
            lease_overlap_forgiven: false,
            lease_overlaps: 0,
            conditions,
        };
        for id in 1..=members {
            network.add_machine(MemberId(id), false);
        }
        for id in network.members() {
            network.start(id);
            let until_next_us = network.prng.between(0, 5_000);
            network.run_for_us(until_next_us);
        }
        network
    }

    /// The ids of all members.
    #[must_use]
    pub fn members(&self) -> Vec<MemberId> {
        self.nodes.keys().copied().collect()
    }

    /// True time since the start of the world.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The present moment on a member's clock.
    #[must_use]
    pub fn local_now(&self, id: MemberId) -> Nanos {
        self.local(id, self.now_ns)
    }

    pub(super) fn node(&self, id: MemberId) -> &Node {
        self.nodes.get(&id).expect("a member of this network")
    }

    pub(super) fn node_mut(&mut self, id: MemberId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a member of this network")
    }

    fn local(&self, id: MemberId, true_ns: u64) -> Nanos {
        let node = self.node(id);
        Nanos(node.offset_ns + scale(true_ns, node.rate, 1_000_000))
    }

    fn true_time(&self, id: MemberId, local: Nanos) -> u64 {
        let node = self.node(id);
        let since = local.0.saturating_sub(node.offset_ns);
        // Rounded up: a timer must not fire before its local time has come.
        let mut at = scale(since, 1_000_000, node.rate);
        while self.local(id, at) < local {
            at += 1;
        }
        at
    }

    /// Nothing passes between a member and the others, in either direction.
    pub fn isolate(&mut self, id: MemberId) {
        for other in self.members() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// Nothing passes from one member to another; the way back is not touched.
    pub fn cut_one_way(&mut self, from: MemberId, to: MemberId) {
        self.cut.insert((from, to));
    }

    /// Everything passes again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// A member's thread does not run for a while; its messages and timers wait.
    pub fn stall(&mut self, id: MemberId, stall_us: u64) {
        let until = self.now_ns + stall_us * 1_000;
        self.node_mut(id).stalled_until = until;
    }

    /// A member's disk answers no write any more (or again).
    pub fn set_disk_answers(&mut self, id: MemberId, answers: bool) {
        if let Some(running) = &mut self.node_mut(id).running {
            running.persist = answers;
        }
    }

    /// Snapshots sent and not received yet.
    #[must_use]
    pub fn snapshots_on_the_way(&self) -> usize {
        self.events.values().filter(|event| is_snapshot(event)).count()
    }

    /// Drops the snapshots sent and not received yet.
    pub fn lose_snapshots_on_the_way(&mut self) {
        self.events.retain(|_, event| !is_snapshot(event));
    }

    /// A connection from one member to another delivers nothing for a while, and then everything.
    pub fn hold_up(&mut self, from: MemberId, to: MemberId, lane: Lane, held_up_us: u64) {
        self.connections.hold_up((from, to, lane), self.now_ns + held_up_us * 1_000);
    }

    /// Changes the conditions for what comes.
    pub fn conditions_mut(&mut self) -> &mut Conditions {
        &mut self.conditions
    }

    /// Counts overlapping leases instead of panicking, for tests of what would happen without a
    /// safeguard.
    pub fn forgive_lease_overlaps(&mut self) {
        self.lease_overlap_forgiven = true;
    }

    /// Steps after which more than one lease was valid.
    #[must_use]
    pub fn lease_overlaps(&self) -> u64 {
        self.lease_overlaps
    }

    /// A running member's replica.
    #[must_use]
    pub fn replica(&self, id: MemberId) -> Option<&Replica> {
        self.node(id).running.as_ref().map(|running| &running.replica)
    }

    /// A member's disk.
    pub fn disk_mut(&mut self, id: MemberId) -> &mut Disk {
        &mut self.node_mut(id).disk
    }

    /// Index and term of what a running member applied in this boot.
    #[must_use]
    pub fn applied(&self, id: MemberId) -> &[(u64, u64)] {
        self.node(id).running.as_ref().map_or(&[], |running| &running.applied)
    }

    /// The effects a running member saw in this boot.
    #[must_use]
    pub fn effects(&self, id: MemberId) -> &[Effect] {
        self.node(id).running.as_ref().map_or(&[], |running| &running.effects)
    }

    /// How often a running member's state was replaced by a snapshot in this boot.
    #[must_use]
    pub fn replaced(&self, id: MemberId) -> u64 {
        self.node(id).running.as_ref().map_or(0, |running| running.replaced)
    }

    /// Members with a valid lease.
    #[must_use]
    pub fn lease_holders(&self) -> Vec<MemberId> {
        let valid = |id: &MemberId| {
            let now = self.local_now(*id);
            self.replica(*id).is_some_and(|replica| replica.lease_until(now).is_some())
        };
        self.nodes.keys().copied().filter(valid).collect()
    }

    /// The member that owns the common address and holds the lease.
    #[must_use]
    pub fn owner(&self) -> Option<MemberId> {
        self.lease_holders().into_iter().find(|id| {
            self.replica(*id).is_some_and(|replica| {
                replica.is_leader() && replica.state().owner() == Some(replica.owner_claim())
            })
        })
    }

    /// Proposes at a member.
    ///
    /// # Errors
    /// As [`Replica::propose`].
    pub fn propose(&mut self, id: MemberId, command: &Command) -> Result<ProposalId, ProposeError> {
        let result = self.with_replica(id, |replica, now| replica.propose(now, command));
        result.unwrap_or(Err(ProposeError::Halted))
    }

    /// Calls into a running member and carries out what it wants.
    pub fn with_replica<T>(
        &mut self,
        id: MemberId,
        call: impl FnOnce(&mut Replica, Nanos) -> T,
    ) -> Option<T> {
        let now = self.local_now(id);
        let running = self.node_mut(id).running.as_mut()?;
        let result = call(&mut running.replica, now);
        self.drain(id);
        self.check();
        Some(result)
    }

    /// Runs for a while.
    pub fn run_for_ms(&mut self, ms: u64) {
        self.run_for_us(ms * 1_000);
    }

    /// Runs for a while.
    pub fn run_for_us(&mut self, us: u64) {
        let end = self.now_ns + us * 1_000;
        while self.step_until(end) {}
    }

    /// Runs until something holds.
    ///
    /// # Panics
    /// If it does not within `most_ms`.
    pub fn run_until(&mut self, what: &str, most_ms: u64, holds: impl Fn(&Self) -> bool) {
        let end = self.now_ns + most_ms * 1_000_000;
        while !holds(self) {
            let going = self.step_until(end);
            assert!(going, "seed {}: not within {most_ms} ms: {what}", self.seed);
        }
    }

    /// Runs until a member owns the common address.
    pub fn run_until_owned(&mut self) -> MemberId {
        self.run_until("somebody owns the address", 10_000, |network| network.owner().is_some());
        self.owner().expect("just seen")
    }

    /// The next thing that happens, if it does before `end_ns`; else time moves there.
    fn step_until(&mut self, end_ns: u64) -> bool {
        let event = self.events.first_key_value().map(|(key, _)| key.0);
        let timer = self.next_timer();
        // A message due in the same moment comes first: inbox before ticks.
        let message_first = event.is_some_and(|at| timer.is_none_or(|(due, _)| at <= due));
        let at = if message_first { event } else { timer.map(|(due, _)| due) };
        let Some(at) = at.filter(|at| *at <= end_ns) else {
            self.now_ns = end_ns;
            return false;
        };
        self.now_ns = self.now_ns.max(at);
        if message_first {
            if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        } else if let Some((_, id)) = timer {
            self.with_replica(id, Replica::handle_timeout);
        }
        self.check();
        true
    }

    fn next_timer(&self) -> Option<(u64, MemberId)> {
        let timer = |id: MemberId| {
            let due = self.replica(id)?.poll_timeout()?;
            Some((self.true_time(id, due).max(self.node(id).stalled_until), id))
        };
        self.nodes.keys().filter_map(|id| timer(*id)).min()
    }

    fn at(&mut self, when_ns: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((when_ns, self.sequence), event);
    }

    fn happen(&mut self, event: Event) {
        let member = match &event {
            Event::Deliver { to, .. } => *to,
            Event::SnapshotLost { from, .. } => *from,
            Event::Stored { member, .. } => *member,
        };
        let stalled_until = self.node(member).stalled_until;
        if stalled_until > self.now_ns {
            return self.at(stalled_until, event);
        }
        match event {
            Event::Deliver { to, from, lane, bytes } => {
                if self.cut.contains(&(from, to)) {
                    return self.lose(from, to, lane);
                }
                let seed = self.seed;
                let taken =
                    self.with_replica(to, |replica, now| replica.handle_message(now, from, bytes));
                if let Some(Err(error)) = &taken
                    && !matches!(error, MessageError::Retired(_) | MessageError::Halted)
                {
                    panic!("seed {seed}: member {to} refuses a message of {from}: {error}");
                }
                if lane == Lane::Snapshot {
                    let delivered = taken.is_some();
                    self.with_replica(from, |replica, now| {
                        replica.snapshot_delivered(now, to, delivered);
                    });
                }
            }
            Event::SnapshotLost { from, to } => {
                self.with_replica(from, |replica, now| replica.snapshot_delivered(now, to, false));
            }
            Event::Stored { member, boot, number, sync } => {
                let node = self.node_mut(member);
                if node.boot == boot && node.running.is_some() {
                    sync.into_iter().for_each(|op| node.disk.carry_out(op));
                    self.with_replica(member, |replica, now| replica.persisted(now, number));
                }
            }
        }
    }

    pub(super) fn drain(&mut self, id: MemberId) {
        while let Some(output) =
            self.node_mut(id).running.as_mut().and_then(|running| running.replica.poll_output())
        {
            self.carry_out(id, output);
        }
    }

    fn carry_out(&mut self, id: MemberId, output: Output) {
        match output {
            Output::Send { to, lane, bytes } => self.transmit(id, to, lane, bytes.into_vec()),
            Output::Persist(batch) => self.store(id, &batch),
            Output::Applied { index, term, effects, .. } => {
                self.note_hash(id, index);
                if let Some(running) = &mut self.node_mut(id).running {
                    running.applied.push((index, term));
                    running.effects.extend(effects);
                }
            }
            Output::StateReplaced { index } => {
                self.note_hash(id, index);
                if let Some(running) = &mut self.node_mut(id).running {
                    running.replaced += 1;
                }
            }
            Output::RoleChanged { role: Role::Leader, .. }
                if self.conditions.take_ownership
                    && !self.replica(id).is_some_and(|replica| replica.is_witness(id)) =>
            {
                let now = self.local_now(id);
                if let Some(running) = &mut self.node_mut(id).running {
                    let owner = running.replica.owner_claim();
                    let take = Command::TakeOwnership { owner };
                    running.replica.propose(now, &take).expect("a new leader may propose");
                }
            }
            Output::RoleChanged { .. } | Output::LeaseUntil(_) | Output::Peers { .. } => {}
            Output::Discard(_) => {}
            Output::Halted(ReplicaError::Removed(_)) => {
                let node = self.node_mut(id);
                (node.running, node.removed) = (None, true);
            }
            Output::Halted(error) => panic!("seed {}: member {id} halted: {error}", self.seed),
        }
    }

    fn transmit(&mut self, from: MemberId, to: MemberId, lane: Lane, bytes: Vec<u8>) {
        let lost = self.prng.chance(self.conditions.loss_per_mille);
        let nobody = !self.nodes.contains_key(&to);
        if lost || nobody || self.cut.contains(&(from, to)) {
            return self.lose(from, to, lane);
        }
        let twice = self.conditions.connections.is_some_and(|it| it.heartbeats_twice);
        if twice && lane == Lane::Heartbeat {
            self.carry(
                (from, to, Lane::Append),
                Event::Deliver { to, from, lane, bytes: bytes.clone() },
            );
        }
        self.carry((from, to, lane), Event::Deliver { to, from, lane, bytes });
    }

    /// Has a message arrive through a connection.
    fn carry(&mut self, connection: Connection, message: Event) {
        let (low, high) = self.conditions.delay_us;
        let mut at = self.now_ns + self.prng.between(low * 1_000, high * 1_000);
        if let Some(conditions) = self.conditions.connections {
            let lost = self.prng.chance(conditions.held_up_per_mille);
            let held_up_ns = if lost { conditions.held_up_us * 1_000 } else { 0 };
            at = self.connections.arrival(connection, (self.now_ns, at), held_up_ns);
        }
        self.at(at, message);
    }

    fn lose(&mut self, from: MemberId, to: MemberId, lane: Lane) {
        if lane == Lane::Snapshot && self.conditions.reports_lost_snapshots {
            self.at(self.now_ns + NOTICE_NS, Event::SnapshotLost { from, to });
        }
    }

    /// Files change at once, but a crash before the answer may still lose what was not synced:
    /// the sync itself happens at the end of the write.
    fn store(&mut self, id: MemberId, batch: &crate::WriteBatch) {
        let (low, high) = self.conditions.sync_us;
        let took_ns = if batch.must_sync || batch.checkpoint.is_some() {
            self.prng.between(low * 1_000, high * 1_000)
        } else {
            1_000
        };
        let now_ns = self.now_ns;
        let node = self.node_mut(id);
        let boot = node.boot;
        let Some(running) = &mut node.running else { return };
        if !running.persist {
            return;
        }
        let mut ops = running.writer.write(batch).expect("a batch that fits");
        let sync = ops.pop_if(|op| matches!(op, FileOp::Sync { .. }));
        ops.into_iter().for_each(|op| node.disk.carry_out(op));
        let done = running.disk_free_at.max(now_ns) + took_ns;
        running.disk_free_at = done;
        self.at(done, Event::Stored { member: id, boot, number: batch.number, sync });
    }

    fn note_hash(&mut self, id: MemberId, index: u64) {
        let Some(state) = self.replica(id).map(Replica::state) else { return };
        // Several entries may be applied in one call: only the last one shows its own state.
        if state.applied() != index {
            return;
        }
        let hash = state.hash();
        let known = *self.hashes.entry(index).or_insert(hash);
        assert_eq!(known, hash, "seed {}: states differ at index {index} on {id}", self.seed);
    }

    fn check(&mut self) {
        let holders = self.lease_holders();
        if holders.len() > 1 {
            self.lease_overlaps += 1;
            let (seed, now) = (self.seed, self.now_ns);
            assert!(self.lease_overlap_forgiven, "seed {seed}: leases of {holders:?} at {now} ns");
        }
    }
}

fn is_snapshot(event: &Event) -> bool {
    matches!(event, Event::Deliver { lane: Lane::Snapshot, .. })
}

fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
