//! The struct and its four methods.

use crate::activity::Activity;
use crate::announce::Announcer;
use crate::bulletin::{Fitness, MemberMessage};
use crate::carrying::{Carrying, records_of};
use crate::config::MemberConfig;
use crate::error::MemberError;
use crate::event::MemberEvent;
use crate::fellows::Fellows;
use crate::fitness::Health;
use crate::grants::Grants;
use crate::handover::Handover;
use crate::io::{Input, Output};
use crate::limits;
use crate::loading::Loading;
use crate::membership::StorageFailure;
use crate::neighbours::{Interest, Neighbours};
use crate::notices::{MarkSecret, Notices};
use crate::operations::Operations;
use crate::outbox::Outbox;
use crate::ownership::Ownership;
use crate::paths::Paths;
use crate::renewals::Renewals;
use crate::strays::Strays;
use crate::suspicion::Suspicion;
use crate::tables::TablesKeeper;
use crate::warming::Warming;
use holdfast_cluster::{Command, Direction, GrantItem, Mutation, State, mutated, numbers};
use holdfast_datapath::WorkerCommand;
use holdfast_ike::{Ike, IkeCounters};
use holdfast_ipsec::{SequenceRange, Spi};
use holdfast_packet::{MacAddr, Nanos, Side};
use holdfast_replica::{Config, ProposeError, Recovered, Replica};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;

/// One member of the cluster. See the crate's front page for its contract.
pub struct Member {
    pub(crate) config: MemberConfig,
    pub(crate) spi_mask: u32,
    pub(crate) replica: Replica,
    pub(crate) ike: Ike,
    pub(crate) ownership: Ownership,
    /// What the workers were told last.
    pub(crate) lease_published: Nanos,
    pub(crate) outbox: Outbox,
    pub(crate) loading: Loading,
    pub(crate) carrying: Carrying,
    /// While this member is no owner: its SAs made ready.
    pub(crate) warming: Warming,
    pub(crate) grants: Grants,
    pub(crate) renewals: Renewals,
    pub(crate) activity: Activity,
    pub(crate) outside: Neighbours,
    pub(crate) inside: Neighbours,
    pub(crate) announcer: Option<Announcer>,
    /// When another station's claim may be answered again.
    pub(crate) next_defence: Nanos,
    pub(crate) next_hop_review: Nanos,
    pub(crate) tables: TablesKeeper,
    pub(crate) notices: Notices,
    pub(crate) mark_secret: MarkSecret,
    /// SAs the workers forget once tables without them are published.
    pub(crate) removals: BTreeSet<Spi>,
    pub(crate) health: Health,
    /// Its tables were built and its neighbours known, once in this boot. Whether its SAs are ready
    /// is asked anew each time.
    pub(crate) warm: bool,
    /// What the others were told last, and when they are told again.
    pub(crate) fitness_told: Option<Fitness>,
    pub(crate) next_bulletin: Nanos,
    pub(crate) fellows: Fellows,
    pub(crate) handover: Option<Handover>,
    /// Since when the workers pass frames on, if they may still do.
    pub(crate) passing_on: Option<Nanos>,
    /// The workers get their Child SAs, and keep frames of those they have not got yet.
    pub(crate) filling: bool,
    /// When it is next looked whether another member should own.
    pub(crate) next_succession: Nanos,
    pub(crate) traffic_seen: u64,
    pub(crate) last_traffic: Nanos,
    pub(crate) operations: Operations,
    pub(crate) storage_failure: Option<StorageFailure>,
    /// Refused commands by reason.
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    /// When this member learnt who owns.
    pub(crate) owner_since: Option<Nanos>,
    pub(crate) suspicion: Suspicion,
    pub(crate) strays: Strays,
    pub(crate) paths: Paths,
    /// This owner has told that nobody could take over from it.
    pub(crate) alone: bool,
    pub(crate) quarantine_until: Nanos,
    /// Not before this moment is anything proposed again.
    pub(crate) propose_retry: Nanos,
    pub(crate) jitter_seed: u64,
    now: Nanos,
    outputs: VecDeque<Output>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("id", &self.config.id)
            .field("ownership", &self.ownership)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// Starts a member at `now` with what its disk holds. `seed` must be new at every start: keys
    /// come from it.
    ///
    /// # Errors
    /// [`MemberError`] when configuration or disk are unusable.
    pub fn new(
        config: MemberConfig,
        recovered: Recovered,
        seed: [u8; 32],
        now: Nanos,
    ) -> Result<Self, MemberError> {
        check(&config)?;
        let members = config.members.clone();
        let mut replica_config = Config::new(config.id, members, config.timing, config.incarnation);
        replica_config.witnesses.clone_from(&config.witnesses);
        replica_config.release.clone_from(&config.release);
        replica_config.addresses.clone_from(&config.member_addresses);
        replica_config.join = config.join;
        let replica = Replica::new(replica_config, recovered, now)?;
        let [a, b, c, d, e, f, g, h, ..] = seed;
        let mut member = Self {
            spi_mask: config.workers.saturating_sub(1),
            replica,
            ike: Ike::new(config.ike.clone(), seed),
            ownership: Ownership::Standby,
            lease_published: Nanos::ZERO,
            outbox: Outbox::default(),
            loading: Loading::default(),
            carrying: Carrying::default(),
            warming: Warming::default(),
            grants: Grants::default(),
            renewals: Renewals::default(),
            activity: Activity::default(),
            outside: Neighbours::new(),
            inside: Neighbours::new(),
            announcer: None,
            next_defence: Nanos::ZERO,
            next_hop_review: now.plus_ms(limits::NEXT_HOP_REVIEW_MS),
            tables: TablesKeeper::new(config.maglev_seed),
            notices: Notices::new(&config.targets),
            mark_secret: MarkSecret::draw(&seed),
            removals: BTreeSet::new(),
            health: Health::new(),
            warm: false,
            fitness_told: None,
            next_bulletin: now,
            fellows: Fellows::default(),
            handover: None,
            passing_on: None,
            filling: false,
            next_succession: Nanos::ZERO,
            traffic_seen: 0,
            last_traffic: now,
            operations: Operations::default(),
            storage_failure: None,
            refusals: BTreeMap::new(),
            owner_since: None,
            suspicion: Suspicion::default(),
            strays: Strays::default(),
            paths: Paths::default(),
            alone: false,
            quarantine_until: now.plus_ns(config.timing.promise_ns()),
            propose_retry: Nanos::ZERO,
            jitter_seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            now,
            outputs: VecDeque::new(),
            config,
        };
        for target in &member.config.targets {
            member.inside.want(now, target.address, Interest::Target);
        }
        if let Some(gateway) = member.config.addresses.gateway {
            member.outside.want(now, gateway, Interest::NextHop);
        }
        // What the log replays comes first; a snapshot's part of the records has no entries.
        member.drain_replica(now);
        member.outputs.retain(|output| !matches!(output, Output::Event(_)));
        member.reload_records(now);
        member.review_next_hops(now);
        member.tables.reload_rest(member.replica.state(), member.spi_mask);
        // What the log replayed happened some time ago.
        member.activity = Activity::default();
        member.settle(now);
        Ok(member)
    }

    /// Takes one input. `now` must not go back, and must have been read after the input arrived.
    pub fn handle(&mut self, now: Nanos, input: Input) {
        let now = self.advance_to(now);
        match input {
            Input::PeerMessage { from, bytes } if MemberMessage::recognises(&bytes) => {
                self.on_member_message(now, from, &bytes);
            }
            Input::PeerMessage { from, bytes } => {
                if let Err(error) = self.replica.handle_message(now, from, bytes) {
                    let reason = error.to_string();
                    self.event(MemberEvent::PeerMessageRefused { from, reason });
                }
            }
            Input::PeerDown(member) => {
                self.suspicion.connection_lost(now, member);
                self.replica.peer_down(now, member);
            }
            Input::SnapshotDelivered { to, delivered } => {
                self.replica.snapshot_delivered(now, to, delivered);
            }
            Input::Persisted(number) => self.replica.persisted(now, number),
            Input::StorageFailed(reason) => self.on_storage_failed(now, reason),
            Input::Worker { worker, event } => self.on_worker(now, worker, event),
            Input::WorkerStalled { worker, stalled } => self.health.set_worker(worker, stalled),
            Input::PortState { side, up } => self.health.set_port(side, up),
            Input::Traffic { packets } => self.on_traffic(now, packets),
            Input::Target { target, event } => self.on_target(now, target, event),
            Input::Operator { id, request } => self.on_operator(now, id, request),
        }
        self.settle(now);
    }

    /// Lets time pass. Inputs that arrived before come first.
    pub fn handle_timeout(&mut self, now: Nanos) {
        let now = self.advance_to(now);
        self.replica.handle_timeout(now);
        self.drain_replica(now);
        if self.speaks(now) {
            if self.ike_serves() && self.ike.poll_timeout().is_some_and(|due| due <= now) {
                self.ike.handle_timeout(now);
            }
            if self.announcer.as_mut().is_some_and(|announcer| announcer.fire(now)) {
                self.announce();
            }
        }
        if self.next_hop_review <= now {
            self.review_next_hops(now);
        }
        if self.paths.expire(now) {
            self.tables.touch();
        }
        self.warming.step(now, self.replica.state());
        self.tables.reload_some(now, self.replica.state(), self.spi_mask);
        self.ike.wipe_some(limits::WIPE_IKE_SAS_PER_ROUND);
        self.expire_operations(now);
        self.settle(now);
    }

    /// When to call [`Self::handle_timeout`] at the latest; a moment in the past means at once.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        let always = [
            self.replica.poll_timeout(),
            self.outside.next_due(),
            self.inside.next_due(),
            self.tables.due().filter(|_| !self.config.is_witness()),
            self.notices.due(),
            self.operations.due(),
            self.handover.as_ref().map(Handover::due),
            (!self.replica.is_witness(self.config.id)).then_some(self.next_bulletin),
            self.storage_failure_due(),
            Some(self.next_hop_review),
            self.warming.due(),
            self.tables.reload_due(),
            self.paths.due(),
            self.ike.has_unwiped().then_some(Nanos::ZERO),
        ];
        let leading = self.leading_deadline();
        always.into_iter().flatten().chain(leading).min()
    }

    /// The next thing to do. To be called until it has nothing, after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Every queue of this member that has a bound: its name, length and bound.
    #[cfg(any(test, feature = "testing"))]
    pub fn queues(&self) -> [(&'static str, usize, usize); 4] {
        let held = limits::HELD_FRAMES_MAX;
        [
            ("outputs", self.outputs.len(), limits::OUTPUTS_MAX),
            ("outbox", self.outbox.len(), crate::outbox::bound()),
            ("frames held outside", self.outside.held(), held),
            ("frames held inside", self.inside.held(), held),
        ]
    }

    /// The replicated records as applied here.
    #[must_use]
    pub fn state(&self) -> &State {
        self.replica.state()
    }

    /// What IKE refused, by reason. Counted where IKE runs: on the owner.
    #[must_use]
    pub const fn ike_counters(&self) -> &IkeCounters {
        self.ike.counters()
    }

    /// Whether this member speaks for the common address at `now`.
    #[must_use]
    pub fn speaks(&self, now: Nanos) -> bool {
        matches!(self.ownership, Ownership::Owning { .. })
            && self.replica.lease_until(now).is_some()
    }

    /// Carries on until nothing more follows from what happened.
    pub(crate) fn settle(&mut self, now: Nanos) {
        self.load(now);
        for round in 0..limits::SETTLE_ROUNDS_MAX {
            let news = self.drain_replica(now);
            if round > 0 && !news {
                break;
            }
            self.advance_ownership(now);
            self.advance_handover(now);
            self.begin_renewals(now);
            self.run_ike();
            self.conclude_renewals(now);
            self.propose_waiting(now);
            self.release_datagrams(now);
        }
        self.end_without_storage(now);
        self.ask_neighbours(now);
        self.tell_targets(now);
        self.publish(now, false);
        self.send_bulletins(now);
        self.replica.set_fit(self.own_fitness().is_fit());
    }

    pub(crate) fn drain_replica(&mut self, now: Nanos) -> bool {
        let mut news = false;
        while let Some(output) = self.replica.poll_output() {
            news = true;
            self.on_replica(now, output);
        }
        news
    }

    /// Feeds the steps of IKE into the outbox, and loads IKE anew when the two disagree.
    fn run_ike(&mut self) {
        if !matches!(self.ownership, Ownership::Owning { .. }) {
            return;
        }
        if self.outbox.wants_reload() {
            self.outbox.clear();
            self.ike.clear();
            self.loading = Loading::ike_only(self.replica.state());
            self.event(MemberEvent::IkeReloaded);
        }
        while !self.outbox.is_full()
            && let Some(ready) = self.ike.poll_ready()
        {
            self.outbox.push(ready);
        }
    }

    /// Proposes what IKE wants recorded and the grants that are due.
    fn propose_waiting(&mut self, now: Nanos) {
        let Ownership::Owning { owner, .. } = self.ownership else { return };
        if now < self.propose_retry {
            return;
        }
        while let Some(mut changes) = self.outbox.next_proposal() {
            self.carrying.name_meant(&mut changes, owner, self.replica.state());
            let records = records_of(&changes);
            match self.replica.propose(now, &Command::Ike { owner, changes }) {
                Ok(id) => {
                    self.outbox.proposed(id);
                    self.carrying.proposed(id, records);
                }
                // Also what a member could not read yet: the peer asks again.
                Err(ProposeError::Codec(_) | ProposeError::Level { .. }) => self.outbox.spoil(),
                Err(_) => return self.postpone(now),
            }
        }
        if self.handover.as_ref().is_some_and(Handover::is_settling) {
            return;
        }
        self.propose_mark_secret(now, owner);
        let grants = self.grants.batch(now);
        if !grants.is_empty() {
            match self.replica.propose(now, &Command::Grant { owner, grants: grants.clone() }) {
                Ok(_) => {
                    self.grants.proposed(now, &grants);
                    if mutated(Mutation::RangeNotCommitted) {
                        self.use_uncommitted(&grants);
                    }
                }
                Err(_) => return self.postpone(now),
            }
        }
        self.carry_records_on(now, owner);
    }

    /// Breaks law 2 for [`Mutation::RangeNotCommitted`].
    fn use_uncommitted(&mut self, grants: &[GrantItem]) {
        for item in grants.iter().filter(|item| item.direction == Direction::Outbound) {
            let Some(child) = self.replica.state().child(item.spi) else { continue };
            let (start, esn) = (child.outbound_high, child.parameters.esn);
            let end = numbers::extend_outbound(start, u64::from(item.packets), esn);
            let range = SequenceRange::new(start, end);
            let worker = item.spi.worker(self.spi_mask);
            self.command(worker, WorkerCommand::Grant { id: item.spi, range });
        }
    }

    pub(crate) fn postpone(&mut self, now: Nanos) {
        self.propose_retry = now.plus_ms(limits::PROPOSE_RETRY_MS);
        self.grants.postpone(now);
    }

    fn release_datagrams(&mut self, now: Nanos) {
        if self.speaks(now) {
            for datagram in self.outbox.release() {
                self.send_datagram(now, &datagram);
            }
        }
    }

    /// Publishes tables when they are due, then has the workers forget what they no longer name.
    pub(crate) fn publish(&mut self, now: Nanos, at_once: bool) {
        if self.config.is_witness() {
            return;
        }
        let tables = self.tables.publish(
            now,
            at_once,
            &self.config,
            self.replica.state(),
            (&self.outside, &self.inside, &self.paths),
            (&self.fellows, &self.notices, self.ownership.owner()),
        );
        let Some(tables) = tables else { return };
        self.outputs.push_back(Output::PublishTables(tables));
        for spi in std::mem::take(&mut self.removals) {
            self.command(spi.worker(self.spi_mask), WorkerCommand::RemoveOutbound(spi));
            self.command(spi.worker(self.spi_mask), WorkerCommand::RemoveInbound(spi));
        }
    }

    fn leading_deadline(&self) -> Option<Nanos> {
        let retry = |wanted: bool| wanted.then_some(self.propose_retry);
        let settling = self.handover.as_ref().is_some_and(Handover::is_settling);
        match &self.ownership {
            Ownership::Standby => None,
            Ownership::Claiming { proposed, .. } => retry(!proposed),
            Ownership::Owning { .. } if self.replica.lease_until(self.now).is_none() => None,
            Ownership::Owning { .. } => [
                retry(self.outbox.has_waiting() || self.has_unproposed_settlement()),
                self.ike.poll_timeout().filter(|_| self.ike_serves()),
                self.mark_secret_due().filter(|_| !settling),
                self.loading.due(),
                self.announcer.as_ref().map(Announcer::due),
                self.grants.due().filter(|_| !settling),
                self.carrying.due(self.propose_retry).filter(|_| !settling),
                self.renewals.due().filter(|_| self.ike_serves() && !self.outbox.is_full()),
            ]
            .into_iter()
            .flatten()
            .min(),
        }
    }

    /// Whether IKE knows everything the records hold, and nothing they do not.
    pub(crate) fn ike_runs(&self) -> bool {
        self.loading.is_done() && !self.outbox.is_stale()
    }

    /// Time never goes back, whatever the shell says.
    fn advance_to(&mut self, now: Nanos) -> Nanos {
        self.now = self.now.max(now);
        self.now
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn outputs_full(&self) -> bool {
        self.outputs.len() >= limits::OUTPUTS_MAX
    }

    pub(crate) fn event(&mut self, event: MemberEvent) {
        self.output(Output::Event(event));
    }

    pub(crate) fn command(&mut self, worker: u32, command: WorkerCommand) {
        self.output(Output::Worker { worker, command });
    }

    pub(crate) fn command_all(&mut self, mut command: impl FnMut() -> WorkerCommand) {
        for worker in 0..self.config.workers {
            self.command(worker, command());
        }
    }

    /// The station address of this member on one side.
    pub(crate) fn mac(&self, side: Side) -> MacAddr {
        match side {
            Side::Outside => self.config.outside_mac,
            Side::Inside => self.config.inside_mac,
        }
    }

    /// The address the cluster speaks for on one side.
    pub(crate) fn address(&self, side: Side) -> Ipv4Addr {
        match side {
            Side::Outside => self.config.addresses.common,
            Side::Inside => self.config.addresses.inside,
        }
    }
}

fn check(config: &MemberConfig) -> Result<(), MemberError> {
    if !config.is_witness() && !config.workers.is_power_of_two() {
        return Err(MemberError::Workers(config.workers));
    }
    if config.targets.len() > limits::TARGETS_MAX {
        return Err(MemberError::TooManyTargets(config.targets.len()));
    }
    let (mut ids, mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for target in &config.targets {
        let new = ids.insert(target.id)
            && names.insert(target.name.as_str())
            && addresses.insert(target.address);
        if !new {
            return Err(MemberError::DuplicateTarget(target.name.clone()));
        }
    }
    Ok(())
}
