//! One appliance: a member, its workers, and what the shell does between them.

use super::checks::member_mac;
use super::clock::Clock;
use super::disk::Disk;
use super::hazards::DiskHealth;
use super::random::Random;
use crate::{
    Input, Member, MemberConfig, MemberError, MemberEvent, OperatorReply, Output, OwnerNotice,
    ThreadSight, WorkerWatch,
};
use holdfast_cluster::{Command, MemberId, StateChange, TargetId};
use holdfast_crypto::Portable;
use holdfast_datapath::{
    COMMAND_RING, Counters, EVENT_RING, Handoff, LeaseCell, Metric, RingReceiver, RingSender,
    TablesPublisher, Worker, WorkerCommand, WorkerEvent, WorkerLimits, WorkerParts, ring,
};
use holdfast_ipsec::Spi;
use holdfast_packet::{MemoryPort, Nanos, Side};
use holdfast_replica::{Config, Lane, Recovered, WriteBatch, force_quorum};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Small tables, so that hundreds of worlds fit into memory.
const LIMITS: WorkerLimits = WorkerLimits { sas: 256, flows: 1 << 10 };

/// The IP packet size of both networks.
const MTU: u16 = 1_500;

/// What runs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Everything.
    Running,
    /// The workers only: the controller gets no processor time.
    ControllerStalled,
    /// Nothing: the process is stopped and may go on later, as after SIGSTOP.
    Frozen,
    /// Nothing: the process is gone.
    Dead,
}

struct WorkerSlot {
    /// It does not poll.
    stalled: bool,
    watch: WorkerWatch,
    /// What the member was told of that.
    told_stuck: bool,
    worker: Worker<MemoryPort>,
    commands: RingSender<WorkerCommand>,
    backlog: VecDeque<WorkerCommand>,
    events: RingReceiver<WorkerEvent>,
}

/// What a node wants of the world.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) messages: Vec<(MemberId, Lane, Vec<u8>)>,
    /// Numbers of batches to be synced.
    pub(crate) writes: Vec<u64>,
    /// With whether there was a lease when they left: it may be withdrawn later at the same moment.
    pub(crate) frames: Vec<(Side, bool, Vec<u8>)>,
    /// Child SAs that were deleted or are about to be.
    pub(crate) removed: Vec<Spi>,
    pub(crate) halted: Option<String>,
}

/// One appliance.
pub struct Node {
    clock: Clock,
    life: Life,
    boots: u64,
    member: Member,
    lease: LeaseCell,
    publisher: TablesPublisher,
    workers: Vec<WorkerSlot>,
    disk: Disk,
    limits: WorkerLimits,
    /// Its disk takes nothing any more.
    disk_failed: bool,
    disk_health: DiskHealth,
    /// The last batch whose sync a stuck disk holds up.
    unsynced: Option<u64>,
    /// What handing one SA to a worker takes of the controller's time, and until when that takes it.
    load_us: u64,
    busy_until: Nanos,
    /// Inputs that arrived while nothing read them.
    inbox: VecDeque<Input>,
    events: Vec<(Nanos, MemberEvent)>,
    notices: Vec<(Nanos, TargetId, OwnerNotice)>,
    replies: BTreeMap<u64, OperatorReply>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("life", &self.life)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Boots a node for the first time, from a disk that holds so many Child SAs.
    pub(crate) fn boot(
        config: &MemberConfig,
        (mut disk, children): (Disk, usize),
        random: &mut Random,
        now: Nanos,
    ) -> Result<Self, MemberError> {
        let clock = Clock::any(random);
        let recovered = disk.crash();
        let limits = WorkerLimits { sas: LIMITS.sas + children, ..LIMITS };
        Self::start(config, (disk, limits), recovered, random, (clock, now), 1)
    }

    /// Boots a node again; with `power_loss` the disk lost what was not synced.
    pub(crate) fn reboot(
        self,
        config: &MemberConfig,
        power_loss: bool,
        random: &mut Random,
        now: Nanos,
    ) -> Result<Self, MemberError> {
        let mut disk = self.disk;
        let recovered = if power_loss { disk.power_loss() } else { disk.crash() };
        let boot = (self.clock, now);
        let disk = (disk, self.limits);
        let mut node = Self::start(config, disk, recovered, random, boot, self.boots + 1)?;
        node.events = self.events;
        node.disk_health = self.disk_health;
        node.load_us = self.load_us;
        Ok(node)
    }

    fn start(
        config: &MemberConfig,
        (mut disk, limits): (Disk, WorkerLimits),
        recovered: Recovered,
        random: &mut Random,
        (clock, now): (Clock, Nanos),
        boots: u64,
    ) -> Result<Self, MemberError> {
        let config = MemberConfig {
            incarnation: disk.boot(),
            outside_mac: member_mac(config.id, 0),
            inside_mac: member_mac(config.id, 1),
            ..config.clone()
        };
        let lease = LeaseCell::new();
        let mut publisher = TablesPublisher::new();
        let workers = start_workers(&config, limits, &lease, &mut publisher);
        let member = Member::new(config, recovered, random.seed(), clock.read(now))?;
        Ok(Self {
            clock,
            life: Life::Running,
            boots,
            member,
            lease,
            publisher,
            workers,
            disk,
            limits,
            disk_failed: false,
            disk_health: DiskHealth::Good,
            unsynced: None,
            load_us: 0,
            busy_until: Nanos::ZERO,
            inbox: VecDeque::new(),
            events: Vec::new(),
            notices: Vec::new(),
            replies: BTreeMap::new(),
        })
    }

    /// What runs of it.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    pub(crate) fn set_life(&mut self, life: Life) {
        self.life = life;
        if life == Life::Dead {
            self.inbox.clear();
        }
    }

    /// How often it was booted; outputs of an earlier boot mean nothing to a later one.
    pub(crate) fn boots(&self) -> u64 {
        self.boots
    }

    /// The member inside.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// What it wanted in the log, over all boots.
    #[must_use]
    pub fn events(&self) -> &[(Nanos, MemberEvent)] {
        &self.events
    }

    /// What it wanted told to targets since its last boot.
    #[must_use]
    pub fn notices(&self) -> &[(Nanos, TargetId, OwnerNotice)] {
        &self.notices
    }

    /// The answer to an operator's question.
    pub fn take_reply(&mut self, id: u64) -> Option<OperatorReply> {
        self.replies.remove(&id)
    }

    /// The counters of its workers.
    pub fn counters(&self) -> impl Iterator<Item = &Arc<Counters>> {
        self.workers.iter().map(|slot| slot.worker.counters())
    }

    /// Whether its workers may speak.
    #[must_use]
    pub fn has_lease(&self, now: Nanos) -> bool {
        self.life != Life::Dead && self.lease.valid(self.clock.read(now))
    }

    /// When it wants to run next.
    pub(crate) fn next_deadline(&self) -> Option<Nanos> {
        if self.life != Life::Running {
            return None;
        }
        let due = self.member.next_deadline().map(|local| self.clock.when(local));
        // What arrived while it was busy is looked at as soon as it is not.
        let read = (self.load_us > 0 && !self.inbox.is_empty()).then_some(self.busy_until);
        due.into_iter().chain(read).min().map(|at| at.max(self.busy_until))
    }

    /// From now on each SA that is handed to a worker keeps the controller busy for so long.
    pub(crate) fn set_load_us(&mut self, load_us: u64) {
        self.load_us = load_us;
    }

    /// Whether the controller gets to anything at `now`.
    fn is_free(&self, now: Nanos) -> bool {
        self.life == Life::Running && self.busy_until <= now
    }

    pub(crate) fn input(&mut self, input: Input) {
        if self.life != Life::Dead {
            self.inbox.push_back(input);
        }
    }

    pub(crate) fn stall_worker(&mut self, worker: u32, stalled: bool) {
        if let Some(slot) = self.workers.get_mut(worker as usize) {
            slot.stalled = stalled;
        }
    }

    /// Tells the member how much its workers did, as the shell does now and then.
    pub(crate) fn tell_traffic(&mut self) {
        let done = |counters: &Arc<Counters>| {
            counters.metric(Metric::Opened).wrapping_add(counters.metric(Metric::Sealed))
        };
        let packets = self.counters().map(done).sum();
        self.input(Input::Traffic { packets });
    }

    /// Makes this node, which is dead, the whole cluster.
    pub(crate) fn force_quorum(&mut self, config: &MemberConfig) -> Result<(), MemberError> {
        let members = config.members.clone();
        let replica = Config::new(config.id, members, config.timing, config.incarnation);
        let checkpoint = force_quorum(&replica, &self.disk.crash())?;
        self.disk.write(WriteBatch {
            number: u64::MAX,
            must_sync: true,
            checkpoint: Some(checkpoint),
            entries: Vec::new(),
            hard_state: None,
        });
        self.disk.sync(u64::MAX);
        Ok(())
    }

    /// The disk takes nothing from now on, and the member is told.
    pub(crate) fn fail_disk(&mut self) {
        self.disk_failed = true;
        self.input(Input::StorageFailed("no space left on device".to_owned()));
    }

    /// A sync came to its end, unless the disk is stuck or failed. Returns whether it did.
    pub(crate) fn synced(&mut self, number: u64) -> bool {
        if self.disk_failed {
            return false;
        }
        if self.disk_health == DiskHealth::Stuck {
            self.unsynced = self.unsynced.max(Some(number));
            return false;
        }
        self.disk.sync(number);
        self.input(Input::Persisted(number));
        true
    }

    /// Changes what the disk does; returns the batch that can be synced now.
    pub(crate) fn set_disk_health(&mut self, health: DiskHealth) -> Option<u64> {
        self.disk_health = health;
        if health == DiskHealth::Stuck { None } else { self.unsynced.take() }
    }

    pub(crate) fn sync_extra_us(&self) -> u64 {
        match self.disk_health {
            DiskHealth::Slow(extra_us) => extra_us,
            DiskHealth::Good | DiskHealth::Stuck => 0,
        }
    }

    pub(crate) fn jump_clock(&mut self, ms: u64) {
        self.clock.jump(ms);
    }

    /// A frame arrives at one of its ports.
    pub(crate) fn deliver(&mut self, side: Side, frame: &[u8]) {
        // Without receive-side scaling everything arrives at the first worker.
        if self.life != Life::Dead
            && let Some(slot) = self.workers.first_mut()
        {
            slot.worker.port_mut(side).deliver(frame);
        }
    }

    /// Runs everything that can run at `now` until it is idle.
    pub(crate) fn run(&mut self, now: Nanos, wishes: &mut Wishes) {
        let local = self.clock.read(now);
        if self.life == Life::Running {
            self.watch_workers(local);
        }
        loop {
            let mut idle = true;
            if self.life == Life::Running {
                while self.is_free(now)
                    && let Some(input) = self.inbox.pop_front()
                {
                    self.member.handle(local, input);
                    self.carry_out(now, wishes);
                }
                if self.is_free(now) && self.member.next_deadline().is_some_and(|due| due <= local)
                {
                    self.member.handle_timeout(local);
                }
                self.carry_out(now, wishes);
            }
            if matches!(self.life, Life::Running | Life::ControllerStalled) {
                idle &= !self.poll_workers(now, wishes);
            }
            if idle {
                break;
            }
        }
    }

    fn carry_out(&mut self, now: Nanos, wishes: &mut Wishes) {
        while let Some(output) = self.member.poll_output() {
            match output {
                Output::SendPeer { to, lane, bytes } => {
                    wishes.messages.push((to, lane, bytes.into_vec()));
                }
                Output::Persist(_) if self.disk_failed => {}
                Output::Persist(batch) => {
                    wishes.writes.push(batch.number);
                    self.note_deletions(&batch, wishes);
                    self.disk.write(batch);
                }
                Output::Worker { worker, command } => {
                    if matches!(command, WorkerCommand::InstallOutbound { .. }) {
                        self.busy_until = self.busy_until.max(now).plus_us(self.load_us);
                    }
                    if let Some(slot) = self.workers.get_mut(worker as usize) {
                        slot.backlog.push_back(command);
                    }
                }
                Output::PublishTables(tables) => {
                    // What was ordered before is in the rings before.
                    self.fill_rings();
                    self.publisher.publish(tables);
                }
                Output::Lease(end) => self.lease.set(end),
                Output::NotifyTarget { target, notice } => {
                    self.notices.push((now, target, *notice));
                }
                Output::Operator { id, reply } => drop(self.replies.insert(id, reply)),
                Output::Peers { .. } | Output::Discard(_) => {}
                Output::Event(event) => {
                    if let MemberEvent::SaRemoved { spi } = event {
                        wishes.removed.push(spi);
                    }
                    self.events.push((now, event));
                }
                // A process that ends by itself, as it should.
                Output::Halt { .. } if self.disk_failed => self.set_life(Life::Dead),
                Output::Halt { reason } => wishes.halted = Some(reason),
            }
        }
        self.fill_rings();
    }

    /// What is in the log may be applied by anybody, at a start even without a word.
    fn note_deletions(&self, batch: &WriteBatch, wishes: &mut Wishes) {
        for entry in &batch.entries {
            let Ok(Command::Ike { changes, .. }) = Command::decode(&entry.data) else { continue };
            for change in changes {
                match change {
                    StateChange::DeleteChildSa { inbound_spi, .. } => {
                        wishes.removed.push(inbound_spi)
                    }
                    StateChange::DeleteIkeSa { spi, .. } => {
                        wishes.removed.extend(self.member.state().children_of(spi));
                    }
                    _ => {}
                }
            }
        }
    }

    fn fill_rings(&mut self) {
        for slot in &mut self.workers {
            while slot.commands.room() > 0
                && let Some(command) = slot.backlog.pop_front()
            {
                // There was room, and nobody else pushes.
                let _ = slot.commands.push(command);
            }
        }
    }

    /// Polls each worker once; true when there is more to do.
    fn poll_workers(&mut self, now: Nanos, wishes: &mut Wishes) -> bool {
        let mut busy = false;
        let has_lease = self.has_lease(now);
        let polling = (0..).zip(&mut self.workers).filter(|(_, slot)| !slot.stalled);
        for (number, slot) in polling {
            busy |= slot.worker.poll(self.clock.read(now)).packets > 0;
            for side in Side::ALL {
                let sent = slot.worker.port_mut(side).take_sent();
                wishes.frames.extend(sent.into_iter().map(|frame| (side, has_lease, frame)));
            }
            while let Some(event) = slot.events.pop() {
                busy |= self.life == Life::Running;
                self.inbox.push_back(Input::Worker { worker: number, event });
            }
        }
        self.publisher.reclaim();
        busy
    }

    /// Looks whether each worker has polled since the last look.
    fn watch_workers(&mut self, local: Nanos) {
        for (worker, slot) in (0..).zip(&mut self.workers) {
            let polls = slot.worker.counters().metric(Metric::Polls);
            // Nothing but a stop keeps a worker from polling here.
            let stopped = || Some(ThreadSight { runnable: false, cpu_ns: 0 });
            let stalled = slot.watch.is_stuck(local, polls, stopped);
            if std::mem::replace(&mut slot.told_stuck, stalled) != stalled {
                self.inbox.push_back(Input::WorkerStalled { worker, stalled });
            }
        }
    }
}

fn start_workers(
    config: &MemberConfig,
    limits: WorkerLimits,
    lease: &LeaseCell,
    publisher: &mut TablesPublisher,
) -> Vec<WorkerSlot> {
    let start = |handoff| {
        let (commands, worker_commands) = ring(COMMAND_RING);
        let (worker_events, events) = ring(EVENT_RING);
        let worker = Worker::new(WorkerParts {
            outside: MemoryPort::new(config.outside_mac, MTU),
            inside: MemoryPort::new(config.inside_mac, MTU),
            commands: worker_commands,
            events: worker_events,
            lease: lease.clone(),
            // Nothing stops a node in the middle of a poll.
            clock: || Nanos::ZERO,
            tables: publisher.reader(),
            counters: Arc::new(Counters::new()),
            handoff,
            aead: Box::new(Portable),
            limits,
        });
        WorkerSlot {
            stalled: false,
            watch: WorkerWatch::new(config.timing),
            told_stuck: false,
            worker,
            commands,
            backlog: VecDeque::new(),
            events,
        }
    };
    Handoff::mesh(config.workers).into_iter().map(start).collect()
}
