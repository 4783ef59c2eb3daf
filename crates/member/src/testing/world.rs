//! The event heap, and everything that can happen.

use super::checks::{Checks, Violation, member_mac};
use super::disk::Disk;
use super::host::{Target, TargetAddresses};
use super::lan::{Attachment, Lan};
use super::node::{Life, Node, Wishes};
use super::peer::{Peer, PeerSetup};
use super::random::{Random, Trace};
use super::weather::{Fate, Network, Weather};
use crate::{
    Addresses, Delivery, Input, MemberConfig, MemberError, OperatorReply, OperatorRequest,
    SuccessionPolicy, TargetConfig, TargetEvent,
};
use holdfast_cluster::{Incarnation, MemberId, Mutation, TargetId, set_mutation};
use holdfast_crypto::SecretBytes;
use holdfast_datapath::Prefix;
use holdfast_ike::{Connection, EsnPolicy, Identity, IkeConfig, SyncSupport, TakeoverPolicy};
use holdfast_ipsec::TrafficSelector;
use holdfast_packet::{MacAddr, Nanos, Side, ethernet, frame};
use holdfast_replica::{Lane, Recovered, Timing};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Steps without time passing after which a world counts as spinning.
const STEPS_AT_ONE_MOMENT_MAX: u32 = 100_000;

/// What is dear to check is checked once per so many steps.
const INSPECT_STEPS: u64 = 512;

/// Workers are polled at least this often, for what they do by the clock.
const HOUSEKEEPING_US: u64 = 1_000;

const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

/// Peers of a world: what fits into its outside network beside the common address.
pub const PEERS_MAX: u8 = 80;

const PSK: &[u8] = b"a pre-shared key of the test bed";

/// What a world is a function of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The seed of everything that happens by chance.
    pub seed: u64,
    /// How many members.
    pub members: u64,
    /// How many of them, the last ones, vote and never own.
    pub witnesses: u64,
    /// Workers of each member; a power of two.
    pub workers: u32,
    /// How many peers, at most [`PEERS_MAX`].
    pub peers: u8,
    /// How many targets.
    pub targets: u8,
    /// The clockwork of elections.
    pub timing: Timing,
    /// One way through the management network, at least.
    pub delay_us: u64,
    /// What chance adds to it at most.
    pub jitter_us: u64,
    /// Messages lost of thousand.
    pub loss_per_mille: u64,
    /// Time a disk takes to sync.
    pub sync_us: u64,
    /// One way through the outside and inside networks.
    pub lan_us: u64,
    /// Whether Child SAs have 64-bit sequence numbers.
    pub esn: bool,
    /// What a new owner does about the SAs it took over.
    pub policy: TakeoverPolicy,
    /// Which member should own.
    pub succession: SuccessionPolicy,
    /// How packets are delivered to the targets. Those of a world take clear packets only.
    pub delivery: Delivery,
    /// What peers assert of RFC 6311.
    pub peer_sync: SyncSupport,
    /// Whether few numbers are granted at a time and queues are short, so that their ends are met within
    /// seconds.
    pub small_numbers: bool,
    /// What handing one SA to a worker takes of the controller's time.
    pub load_us: u64,
    /// The law that is broken on purpose.
    pub mutation: Option<Mutation>,
}

impl Default for Setup {
    /// Three members in one rack with good disks.
    fn default() -> Self {
        Self {
            seed: 1,
            members: 3,
            witnesses: 0,
            workers: 1,
            peers: 1,
            targets: 3,
            timing: Timing::DEFAULT,
            delay_us: 100,
            jitter_us: 50,
            loss_per_mille: 0,
            sync_us: 500,
            lan_us: 50,
            esn: true,
            policy: TakeoverPolicy::Renew,
            succession: SuccessionPolicy::default(),
            delivery: Delivery::Clear,
            peer_sync: SyncSupport::NONE,
            small_numbers: false,
            load_us: 0,
            mutation: None,
        }
    }
}

#[derive(Debug)]
pub(super) enum Event {
    Message {
        from: MemberId,
        to: MemberId,
        lane: Lane,
        bytes: Vec<u8>,
    },
    Synced {
        member: MemberId,
        boots: u64,
        number: u64,
    },
    Frame {
        side: Side,
        to: Attachment,
        bytes: Vec<u8>,
    },
    /// A connection between two members broke.
    Broken {
        from: MemberId,
        to: MemberId,
    },
    Housekeeping,
}

/// A cluster, a peer, targets, and the networks between them.
#[derive(Debug)]
pub struct World {
    pub(super) setup: Setup,
    now: Nanos,
    random: Random,
    queue: BTreeMap<(Nanos, u64), Event>,
    queued: u64,
    config: MemberConfig,
    pub(super) nodes: BTreeMap<MemberId, Node>,
    pub(super) peers: Vec<Peer>,
    targets: Vec<Target>,
    outside: Lan,
    inside: Lan,
    /// Directions of the management network that carry nothing.
    pub(super) cut: BTreeSet<(MemberId, MemberId)>,
    /// Directions of the management network that take longer, and by how much.
    pub(super) slow: BTreeMap<(MemberId, MemberId), u64>,
    pub(super) weather: BTreeMap<Network, Weather>,
    /// Whether an attacker listens on the outside wire, and what it heard.
    pub(super) recording: bool,
    pub(super) recorded: Vec<Vec<u8>>,
    checks: Checks,
    steps: u64,
    steps_at_now: u32,
    trace: Trace,
    questions: u64,
    /// Snapshots that arrived.
    snapshots: u64,
    /// How many entries each member had applied when it was inspected last.
    inspected: BTreeMap<MemberId, u64>,
}

impl World {
    /// A world in which everything has just been switched on.
    ///
    /// # Errors
    /// [`MemberError`] when the setup makes no valid configuration.
    pub fn new(setup: Setup) -> Result<Self, MemberError> {
        Self::storing(setup, &Recovered::default(), 0)
    }

    /// As [`World::new`], but every disk holds the same log already, with so many Child SAs in it.
    ///
    /// # Errors
    /// [`MemberError`] when the setup makes no valid configuration.
    pub fn storing(setup: Setup, stored: &Recovered, children: usize) -> Result<Self, MemberError> {
        break_rules(&setup);
        let config = member_config(&setup);
        let mut world = Self {
            random: Random::new(setup.seed),
            now: Nanos::from_secs(1),
            queue: BTreeMap::new(),
            queued: 0,
            nodes: BTreeMap::new(),
            peers: (0..setup.peers.min(PEERS_MAX))
                .map(|number| Peer::new(&peer_setup(&setup, number)))
                .collect(),
            targets: targets(&setup),
            outside: Lan::default(),
            inside: Lan::default(),
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            weather: BTreeMap::new(),
            recording: false,
            recorded: Vec::new(),
            checks: Checks::new([COMMON, INSIDE]),
            steps: 0,
            steps_at_now: 0,
            trace: Trace::default(),
            inspected: BTreeMap::new(),
            questions: 0,
            snapshots: 0,
            config,
            setup,
        };
        if world.setup.policy == TakeoverPolicy::Sync {
            world.checks.allow_synchronisation();
        }
        (0..world.peers.len()).for_each(|n| world.outside.attach(Attachment::Host(n)));
        (0..world.targets.len()).for_each(|n| world.inside.attach(Attachment::Host(n)));
        for id in world.config.members.clone() {
            if !world.config.witnesses.contains(&id) {
                world.outside.attach(Attachment::Member(id));
                world.inside.attach(Attachment::Member(id));
            }
            let config = world.config_of(id);
            let disk = (Disk::holding(stored.clone()), children);
            let mut node = Node::boot(&config, disk, &mut world.random, world.now)?;
            node.set_load_us(world.setup.load_us);
            world.nodes.insert(id, node);
        }
        world.schedule(HOUSEKEEPING_US, Event::Housekeeping);
        Ok(world)
    }

    fn config_of(&self, id: MemberId) -> MemberConfig {
        let config = &self.config;
        if config.witnesses.contains(&id) {
            let (members, witnesses) = (config.members.clone(), config.witnesses.clone());
            let witness =
                MemberConfig::witness(id, Incarnation(0), members, witnesses, config.timing);
            let member_addresses = config.member_addresses.clone();
            return MemberConfig { member_addresses, ..witness };
        }
        MemberConfig { id, ..config.clone() }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// A node, if there is one of this id.
    #[must_use]
    pub fn node(&self, id: MemberId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (MemberId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// The peers.
    #[must_use]
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peers, to have them do something.
    pub fn peers_mut(&mut self) -> &mut [Peer] {
        &mut self.peers
    }

    /// The targets.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// One target, to switch it off.
    pub fn target_mut(&mut self, number: usize) -> Option<&mut Target> {
        self.targets.get_mut(number)
    }

    /// How many things happened.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A digest of everything that happened, in order: equal setups and verbs give equal ones.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// How many snapshots went from one member to another.
    #[must_use]
    pub fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// What the laws say.
    #[must_use]
    pub fn checks(&self) -> &Checks {
        &self.checks
    }

    /// The member that may speak for the common address now.
    #[must_use]
    pub fn owner(&self) -> Option<MemberId> {
        self.holders().into_iter().next()
    }

    fn holders(&self) -> Vec<MemberId> {
        self.nodes().filter(|(_, node)| node.has_lease(self.now)).map(|(id, _)| id).collect()
    }

    /// Ends the process of a member.
    pub fn kill(&mut self, id: MemberId) {
        self.set_life(id, Life::Dead);
    }

    /// Stops a member, its workers included, or lets it go on.
    pub fn freeze(&mut self, id: MemberId, frozen: bool) {
        self.set_life(id, if frozen { Life::Frozen } else { Life::Running });
    }

    /// Takes the processor from a member's controller but not from its workers, or gives it back.
    pub fn stall_controller(&mut self, id: MemberId, stalled: bool) {
        self.set_life(id, if stalled { Life::ControllerStalled } else { Life::Running });
    }

    fn set_life(&mut self, id: MemberId, life: Life) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.set_life(life);
        }
    }

    /// Boots a member again; with `power_loss` its disk lost what was not synced.
    ///
    /// # Errors
    /// [`MemberError`] when it cannot start with what its disk holds.
    pub fn restart(&mut self, id: MemberId, power_loss: bool) -> Result<(), MemberError> {
        let config = self.config_of(id);
        if let Some(node) = self.nodes.remove(&id) {
            let node = node.reboot(&config, power_loss, &mut self.random, self.now)?;
            self.nodes.insert(id, node);
        }
        Ok(())
    }

    /// Cuts one direction of the management network.
    pub fn cut(&mut self, from: MemberId, to: MemberId) {
        self.cut.insert((from, to));
    }

    /// Cuts a member off from all others on the management network.
    pub fn isolate(&mut self, id: MemberId) {
        for other in self.config.members.clone() {
            self.cut(id, other);
            self.cut(other, id);
        }
    }

    /// Mends the management network.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Pulls the cable of a member's port, or puts it back, and has the member notice.
    pub fn set_port(&mut self, id: MemberId, side: Side, up: bool) {
        let lan = match side {
            Side::Outside => &mut self.outside,
            Side::Inside => &mut self.inside,
        };
        lan.set_plugged(Attachment::Member(id), up);
        self.input(id, Input::PortState { side, up });
    }

    /// Pulls the cable of a peer, or puts it back; nobody notices but by silence.
    pub fn set_peer_plugged(&mut self, number: usize, plugged: bool) {
        self.outside.set_plugged(Attachment::Host(number), plugged);
    }

    /// Has a worker of a member stop polling, which its shell notices in time, or poll again.
    pub fn stall_worker(&mut self, id: MemberId, worker: u32, stalled: bool) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.stall_worker(worker, stalled);
        }
    }

    /// The operator's override: a dead member becomes the whole cluster, and is booted.
    ///
    /// # Errors
    /// [`MemberError`] when its log cannot be read.
    pub fn force_quorum(&mut self, id: MemberId) -> Result<(), MemberError> {
        let config = self.config_of(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.force_quorum(&config)?;
        }
        let acknowledged: Vec<_> = self.peers.iter().flat_map(Peer::acknowledged).collect();
        self.checks.quorum_forced(acknowledged);
        self.restart(id, false)
    }

    /// A member's disk is full or broken from now on.
    pub fn fail_disk(&mut self, id: MemberId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.fail_disk();
        }
        self.run_node(id);
    }

    /// Changes how lossy the management network is.
    pub fn set_loss(&mut self, per_mille: u64) {
        self.setup.loss_per_mille = per_mille;
    }

    /// Lets every ESP packet the peer ever sent arrive once more at whoever has the common address
    /// now, as an attacker would.
    pub fn replay_everything(&mut self) {
        for number in 0..self.peers.len() {
            let Some(peer) = self.peers.get(number) else { continue };
            let Some(station) = peer.common_mac() else { continue };
            let (own, recorded) = (peer.mac(), peer.sent_esp().to_vec());
            for mut bytes in recorded {
                ethernet::set_addresses(&mut bytes, station, own);
                self.forward(Side::Outside, Attachment::Host(number), bytes);
            }
        }
    }

    /// Has a router that is where a peer is send a packet to the common address.
    pub fn router_says(&mut self, number: usize, packet: &[u8]) {
        let Some(peer) = self.peers.get(number) else { return };
        let Some(station) = peer.common_mac() else { return };
        let bytes = frame::ethernet_frame(station, peer.mac(), packet);
        self.forward(Side::Outside, Attachment::Host(number), bytes);
    }

    /// Has all peers believe that the common address is at this member, as a neighbour does that
    /// missed an announcement.
    pub fn mislead_peers(&mut self, id: MemberId) {
        let station = member_mac(id, 0);
        self.peers.iter_mut().for_each(|peer| peer.mislead(station));
    }

    /// Lets a target say something to a member.
    pub fn target_says(&mut self, id: MemberId, target: TargetId, event: TargetEvent) {
        self.input(id, Input::Target { target, event });
    }

    /// Asks a member something; see [`Self::answer`].
    pub fn ask(&mut self, id: MemberId, request: OperatorRequest) -> u64 {
        self.questions = self.questions.saturating_add(1);
        self.input(id, Input::Operator { id: self.questions, request });
        self.questions
    }

    /// The answer a member gave, once it is there.
    pub fn answer(&mut self, id: MemberId, question: u64) -> Option<OperatorReply> {
        self.nodes.get_mut(&id)?.take_reply(question)
    }

    pub(super) fn input(&mut self, id: MemberId, input: Input) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.input(input);
        }
        self.run_node(id);
    }

    /// Lets time pass.
    pub fn run_for_ms(&mut self, ms: u64) {
        self.run_for_us(ms.saturating_mul(1_000));
    }

    /// Lets time pass.
    pub fn run_for_us(&mut self, us: u64) {
        let end = self.now.plus_us(us);
        while self.next_moment() <= end {
            self.step();
        }
        self.now = end;
    }

    /// Lets time pass until `wanted` is true, for `limit_ms` at most; returns the time it took.
    pub fn run_until(
        &mut self,
        limit_ms: u64,
        mut wanted: impl FnMut(&Self) -> bool,
    ) -> Option<u64> {
        let start = self.now;
        let end = start.plus_ms(limit_ms);
        while !wanted(self) {
            if self.next_moment() > end {
                self.now = end;
                return None;
            }
            self.step();
        }
        Some(self.now.since(start))
    }

    fn next_moment(&self) -> Nanos {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let deadlines = self.nodes.values().filter_map(Node::next_deadline);
        let peers = self.peers.iter().filter_map(Peer::next_deadline);
        let next = queued.into_iter().chain(deadlines).chain(peers).min();
        next.unwrap_or(Nanos::MAX).max(self.now)
    }

    /// The next thing that happens.
    pub fn step(&mut self) {
        let at = self.next_moment();
        self.steps = self.steps.saturating_add(1);
        self.trace.number(at.0);
        self.steps_at_now = if at == self.now { self.steps_at_now.saturating_add(1) } else { 0 };
        assert!(self.steps_at_now < STEPS_AT_ONE_MOMENT_MAX, "the world spins at {at:?}");
        self.now = at;
        let due = self.queue.first_key_value().is_some_and(|((when, _), _)| *when <= at);
        if due && let Some((_, event)) = self.queue.pop_first() {
            self.happen(event);
        } else {
            let ids: Vec<MemberId> = self
                .nodes()
                .filter(|(_, node)| node.next_deadline().is_some_and(|due| due <= at))
                .map(|(id, _)| id)
                .collect();
            ids.into_iter().for_each(|id| self.run_node(id));
            (0..self.peers.len()).for_each(|number| self.run_peer(number));
        }
        let holders = self.holders();
        self.checks.leases(self.now, holders);
        if self.steps.is_multiple_of(INSPECT_STEPS) {
            self.inspect();
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message { from, to, lane, bytes } => {
                self.trace.bytes(&bytes);
                let delivered = !self.cut.contains(&(from, to))
                    && self.nodes.get(&to).is_some_and(|node| node.life() != Life::Dead);
                if delivered {
                    self.input(to, Input::PeerMessage { from, bytes });
                }
                if lane == Lane::Snapshot {
                    self.snapshots = self.snapshots.saturating_add(u64::from(delivered));
                    self.input(from, Input::SnapshotDelivered { to, delivered });
                }
            }
            Event::Synced { member, boots, number } => {
                let node = self.nodes.get_mut(&member);
                if let Some(node) = node.filter(|node| node.boots() == boots)
                    && node.synced(number)
                {
                    self.run_node(member);
                }
            }
            Event::Frame { side, to, bytes } => {
                self.trace.bytes(&bytes);
                self.deliver(side, to, &bytes);
            }
            Event::Broken { from, to } => self.break_connection(from, to),
            Event::Housekeeping => {
                self.nodes.values_mut().for_each(Node::tell_traffic);
                self.config.members.clone().into_iter().for_each(|id| self.run_node(id));
                self.schedule(HOUSEKEEPING_US, Event::Housekeeping);
            }
        }
    }

    fn deliver(&mut self, side: Side, to: Attachment, bytes: &[u8]) {
        match (side, to) {
            (_, Attachment::Member(id)) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.deliver(side, bytes);
                }
                self.run_node(id);
            }
            (Side::Outside, Attachment::Host(number)) => {
                if let Some(peer) = self.peers.get_mut(number) {
                    peer.receive(self.now, bytes);
                }
                self.run_peer(number);
            }
            (Side::Inside, Attachment::Host(number)) => {
                let Some(target) = self.targets.get_mut(number) else { return };
                if let Some(answer) = target.receive(bytes) {
                    self.forward(Side::Inside, to, answer);
                }
            }
        }
    }

    fn run_peer(&mut self, number: usize) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(number) else { return };
        for frame in peer.run(now) {
            self.forward(Side::Outside, Attachment::Host(number), frame);
        }
    }

    fn run_node(&mut self, id: MemberId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut wishes = Wishes::default();
        node.run(self.now, &mut wishes);
        let boots = node.boots();
        let sync_us = self.setup.sync_us.saturating_add(node.sync_extra_us());
        for (to, lane, bytes) in wishes.messages {
            self.send(id, to, lane, bytes);
        }
        for number in wishes.writes {
            self.schedule(sync_us, Event::Synced { member: id, boots, number });
        }
        for (side, has_lease, frame) in wishes.frames {
            self.checks.sent(self.now, id, (side, has_lease), &frame);
            self.forward(side, Attachment::Member(id), frame);
        }
        wishes.removed.into_iter().for_each(|spi| self.checks.removed(spi));
        if let Some(reason) = wishes.halted {
            self.checks.report(Violation::Halted { member: id, reason });
        }
    }

    fn send(&mut self, from: MemberId, to: MemberId, lane: Lane, bytes: Vec<u8>) {
        let lost = self.random.chance(self.setup.loss_per_mille);
        if lost || self.cut.contains(&(from, to)) {
            return;
        }
        let weather = self.weather(Network::Management);
        let twice = match weather.fate(&mut self.random) {
            Fate::Lost => return,
            Fate::Corrupt => return self.schedule(self.setup.delay_us, Event::Broken { from, to }),
            Fate::Carried { twice } => twice,
        };
        if twice && lane != Lane::Snapshot {
            let delay_us = self.way_us(from, to, weather);
            self.schedule(delay_us, Event::Message { from, to, lane, bytes: bytes.clone() });
        }
        let delay_us = self.way_us(from, to, weather);
        self.schedule(delay_us, Event::Message { from, to, lane, bytes });
    }

    fn way_us(&mut self, from: MemberId, to: MemberId, weather: Weather) -> u64 {
        let jitter_us = self.random.below(self.setup.jitter_us.saturating_add(1));
        let slow_us = self.slow.get(&(from, to)).copied().unwrap_or(0);
        let delay_us = self.setup.delay_us.saturating_add(jitter_us);
        delay_us.saturating_add(slow_us).saturating_add(weather.delay_us(&mut self.random))
    }

    fn weather(&self, network: Network) -> Weather {
        self.weather.get(&network).copied().unwrap_or_default()
    }

    fn forward(&mut self, side: Side, from: Attachment, bytes: Vec<u8>) {
        self.record(side, &bytes);
        self.transmit(side, from, bytes);
    }

    pub(super) fn transmit(&mut self, side: Side, from: Attachment, mut bytes: Vec<u8>) {
        let (lan, network) = match side {
            Side::Outside => (&mut self.outside, Network::Outside),
            Side::Inside => (&mut self.inside, Network::Inside),
        };
        let receivers = lan.forward(from, &bytes);
        let weather = self.weather(network);
        let twice = match weather.fate(&mut self.random) {
            Fate::Lost => return,
            Fate::Corrupt => {
                flip_a_bit(&mut bytes, self.random.draw());
                false
            }
            Fate::Carried { twice } => twice,
        };
        let copies = if twice { 2 } else { 1 };
        for to in receivers {
            for _ in 0..copies {
                let bytes = bytes.clone();
                let way_us = self.setup.lan_us.saturating_add(weather.delay_us(&mut self.random));
                self.schedule(way_us, Event::Frame { side, to, bytes });
            }
        }
    }

    pub(super) fn schedule(&mut self, in_us: u64, event: Event) {
        self.queued = self.queued.saturating_add(1);
        self.queue.insert((self.now.plus_us(in_us), self.queued), event);
    }

    /// Checks what is too dear to check at every step: members with the same entries applied
    /// agree, also with what others had at the same point; the owner knows every Child SA its peers
    /// were told of; queues keep their bounds.
    pub fn inspect(&mut self) {
        for (id, node) in &self.nodes {
            if node.life() == Life::Dead {
                continue;
            }
            let state = node.member().state();
            if self.inspected.insert(*id, state.applied()) != Some(state.applied()) {
                self.checks.state(*id, state.applied(), state.hash());
            }
            if node.has_lease(self.now) {
                for spi in self.peers.iter().flat_map(Peer::acknowledged) {
                    self.checks.acknowledged(self.now, *id, spi, state.child(spi).is_some());
                }
            }
            for (queue, length, bound) in node.member().queues() {
                self.checks.queue(self.now, *id, (queue, length), bound);
            }
        }
    }

    /// Inspects once more, then returns every violation.
    pub fn verdict(&mut self) -> Vec<Violation> {
        self.inspect();
        self.checks.violations().to_vec()
    }
}

/// Switches on what a setup breaks on purpose, for the thread it runs on.
fn break_rules(setup: &Setup) {
    set_mutation(setup.mutation, setup.small_numbers);
    holdfast_datapath::set_mutation(match setup.mutation {
        Some(Mutation::LeaseUnheeded) => Some(holdfast_datapath::Mutation::LeaseUnheeded),
        Some(Mutation::SealSkipped) => Some(holdfast_datapath::Mutation::SealSkipped),
        _ => None,
    });
}

/// Flips one bit behind the Ethernet header of an IPv4 frame; other frames are left alone, for ARP
/// has no checksum of its own and rests on that of Ethernet.
fn flip_a_bit(frame: &mut [u8], chance: u64) {
    let is_ipv4 = ethernet::View::parse(frame).is_ok_and(|v| v.ether_type() == ethernet::TYPE_IPV4);
    let Some(packet) = frame.get_mut(ethernet::HEADER_LEN..).filter(|_| is_ipv4) else { return };
    let bits = (packet.len() as u64).saturating_mul(8).max(1);
    let bit = chance % bits;
    if let Some(octet) = packet.get_mut(usize::try_from(bit / 8).unwrap_or(0)) {
        *octet ^= 1 << (bit % 8);
    }
}

fn target_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 11u8.saturating_add(number))
}

fn targets(setup: &Setup) -> Vec<Target> {
    let target = |number: u8| {
        let mac = MacAddr([2, 0, 0, 1, 1, number]);
        let own = target_address(number);
        Target::new(mac, TargetAddresses { own, service: COMMON, gateway: INSIDE })
    };
    (0..setup.targets).map(target).collect()
}

fn peer_setup(setup: &Setup, number: u8) -> PeerSetup {
    let host = 10u8.saturating_add(number);
    PeerSetup {
        mac: MacAddr([2, 0, 0, 0, 1, number]),
        address: Ipv4Addr::new(198, 51, 100, host),
        client: Ipv4Addr::new(10, 77, 0, host),
        common: COMMON,
        psk: PSK.to_vec(),
        seed: Random::new(!setup.seed ^ u64::from(number) << 32).seed(),
        esn: setup.esn,
        sync: setup.peer_sync,
    }
}

fn member_config(setup: &Setup) -> MemberConfig {
    let mut connection = Connection::new("peers", SecretBytes::new(PSK.to_vec()));
    connection.local_ts = vec![TrafficSelector::host(COMMON)];
    connection.remote_ts = vec![TrafficSelector::prefix(Ipv4Addr::new(10, 77, 0, 0), 16)];
    connection.esn = if setup.esn { EsnPolicy::Require } else { EsnPolicy::Never };
    connection.policy = setup.policy;
    let mut ike = IkeConfig::new(COMMON, Identity::Ipv4(COMMON));
    ike.connections = vec![connection];
    ike.workers = setup.workers;
    MemberConfig {
        id: MemberId(1),
        incarnation: Incarnation(0),
        members: (1..=setup.members).map(MemberId).collect(),
        witnesses: (setup.members.saturating_sub(setup.witnesses).saturating_add(1)
            ..=setup.members)
            .map(MemberId)
            .collect(),
        member_addresses: (1..=setup.members)
            .map(|id| (MemberId(id), format!("10.99.0.{id}:7000")))
            .collect(),
        join: false,
        release: "test".to_owned(),
        timing: setup.timing,
        addresses: Addresses {
            common: COMMON,
            inside: INSIDE,
            service: COMMON,
            outside_prefix: Prefix { address: COMMON, length: 24 },
            gateway: None,
        },
        outside_mac: MacAddr::ZERO,
        inside_mac: MacAddr::ZERO,
        ike,
        targets: (0..setup.targets)
            .map(|number| TargetConfig {
                id: TargetId(u64::from(number) + 1),
                name: format!("t{}", number + 1),
                address: target_address(number),
                weight: 1,
                delivery: setup.delivery,
                follows_load: false,
                member: None,
            })
            .collect(),
        workers: setup.workers,
        maglev_seed: 7,
        flow_seed: 9,
        tunnel: holdfast_datapath::TunnelRules::default(),
        succession: setup.succession.clone(),
    }
}
