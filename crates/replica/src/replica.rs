//! One replica: raft-rs driven through asynchronous Ready, the lease beside it, the state behind.

use crate::config::{
    Config, ProposeError, ReplicaError, TransferError, check_members, raft_config,
};
use crate::envelope::{Envelope, MessageError, Note, lane_of};
use crate::lease::{Lease, Promise};
use crate::output::{EntryKind, LogEntry, Output, Recovered, Role};
use crate::ready::Writes;
use crate::store::{LogStore, configuration_to_raft};
use holdfast_cluster::{
    Command, Configuration, Epoch, MemberId, Mutation, Owner, State, level, mutated,
};
use holdfast_packet::Nanos;
use raft::eraftpb::{EntryType, Message, MessageType};
use raft::{CAMPAIGN_TRANSFER, ProgressState, RawNode, SnapshotStatus, StateRole};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Overdue ticks made up for in one call. More would end a leader that was only stalled: it
/// would count itself out before it could hear its followers again.
const OVERDUE_TICKS_MAX: u64 = 2;

/// After this time without news a snapshot on its way, or at a member that is to store it, counts as lost.
const SNAPSHOT_RETRY_MS: u64 = 10_000;

/// Where a proposal will be applied, if it is not lost with its leader: an entry of this index
/// with another term means it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId {
    /// The index of the entry.
    pub index: u64,
    /// The term of the entry.
    pub term: u64,
}

/// How far a member is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberProgress {
    /// The member.
    pub id: MemberId,
    /// The last entry known to be on its disk.
    pub matched: u64,
    /// Whether it answered within the last election timeout.
    pub active: bool,
    /// Whether it votes and never owns.
    pub witness: bool,
    /// Whether its vote counts: a learner's does not yet.
    pub voter: bool,
}

/// A snapshot that a member was sent and has not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentSnapshot {
    /// When it was sent or delivered.
    pub(crate) last_news: Nanos,
    pub(crate) delivered: bool,
}

/// A picture for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The role.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// The leader, where known.
    pub leader: Option<MemberId>,
    /// The highest index known to be committed.
    pub commit: u64,
    /// The last index applied.
    pub applied: u64,
    /// The last index in the log.
    pub last: u64,
    /// The end of the lease, where there is one.
    pub lease_until: Option<Nanos>,
    /// All members, when this one leads; else empty.
    pub members: Vec<MemberProgress>,
}

/// One replica of the cluster's state. See the crate's front page for its contract.
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) node: RawNode<LogStore>,
    pub(crate) state: State,
    pub(crate) promise: Promise,
    pub(crate) lease: Lease,
    pub(crate) writes: Writes,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) snapshots_sent: BTreeMap<MemberId, SentSnapshot>,
    /// When the first key was cleared that a file may still hold.
    pub(crate) keys_cleared: Option<Nanos>,
    pub(crate) configuration: Configuration,
    /// What the others told of themselves.
    pub(crate) notes: BTreeMap<MemberId, Note>,
    /// Members or addresses changed since they were last put out.
    pub(crate) peers_due: bool,
    /// Term and index of what this leader proposed last by itself.
    pub(crate) tending: Option<(u64, u64)>,
    /// Whether the snapshot says who the members are.
    pub(crate) snapshot_has_members: bool,
    /// Whether this member could serve at once, by its own account.
    pub(crate) fit: bool,
    /// The highest index that a leader named as committed.
    pub(crate) commit_heard: u64,
    next_tick: Nanos,
    quarantine_until: Nanos,
    leader_heard: Option<(MemberId, Nanos)>,
    announced_role: (Role, u64, Option<MemberId>),
    announced_lease: Option<Nanos>,
    halted: bool,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("id", &self.config.id)
            .field("role", &self.role())
            .field("term", &self.term())
            .field("applied", &self.state.applied())
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Starts a replica at `now` with what it had stored.
    ///
    /// It does not vote, and does not campaign, for one promise interval (boot quarantine): the
    /// process before it may have promised its vote until then.
    ///
    /// # Errors
    /// [`ReplicaError`] when the configuration or the stored log is unusable.
    pub fn new(mut config: Config, recovered: Recovered, now: Nanos) -> Result<Self, ReplicaError> {
        config.timing.check()?;
        config.members.sort_unstable();
        check_members(&config)?;
        let (store, state, configuration) = open_store(&config, &recovered)?;
        let raft_config = raft_config(&config, state.applied());
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft_config, store, &logger)
            .map_err(|error| ReplicaError::Raft(error.to_string()))?;
        let quarantine_ns = config.timing.promise_ns();
        let quarantine_ns = if mutated(Mutation::QuarantineSkipped) { 0 } else { quarantine_ns };
        let quarantine_until = now.plus_ns(quarantine_ns);
        let term = node.raft.term;
        let mut replica = Self {
            lease: Lease::none(),
            peers_due: true,
            tending: None,
            fit: true,
            commit_heard: 0,
            snapshot_has_members: state.membership().configuration().is_some(),
            configuration,
            notes: BTreeMap::new(),
            promise: Promise::at_boot(quarantine_until),
            next_tick: quarantine_until.plus_ns(config.timing.tick_ns()),
            quarantine_until,
            leader_heard: None,
            config,
            node,
            state,
            writes: Writes::default(),
            outputs: VecDeque::new(),
            snapshots_sent: BTreeMap::new(),
            keys_cleared: None,
            announced_role: (Role::Follower, term, None),
            announced_lease: None,
            halted: false,
        };
        replica.stagger();
        replica.drive(now);
        Ok(replica)
    }

    /// Takes a message of another member. `now` is read after the message was received.
    ///
    /// # Errors
    /// [`MessageError`] when the bytes are refused; the replica is unchanged and goes on.
    pub fn handle_message(
        &mut self,
        now: Nanos,
        from: MemberId,
        bytes: Vec<u8>,
    ) -> Result<(), MessageError> {
        if self.halted {
            return Err(MessageError::Halted);
        }
        let envelope = self.check_message(from, Envelope::decode(bytes)?)?;
        if self.must_ignore(now, &envelope.message) {
            return Ok(());
        }
        if let Some(error) = self.lost_log(&envelope.message) {
            self.halt(error);
            return Ok(());
        }
        let leading = is_from_leader(&envelope.message);
        let (sent, term, commit) = (envelope.sent, envelope.term, envelope.message.commit);
        let echo = envelope.echo.map(|echo| (echo, envelope.promise_ns));
        if let Some(note) = envelope.note {
            self.note_of(from, note);
        }
        if envelope.message.get_msg_type() == MessageType::MsgAppendResponse {
            self.acknowledged(from);
        }
        // The errors raft-rs has for a stepped message all mean that it ignored it.
        let _ignored = self.node.step(envelope.message);
        if leading && self.accepted_leader(from, term) {
            self.heard_leader(now, from, term, sent);
            self.commit_heard = self.commit_heard.max(commit);
        }
        if let Some((echo, promise_ns)) = echo
            && self.is_leader()
            && self.term() == term
        {
            let promise_ns = promise_ns.min(self.config.timing.promise_ns());
            self.lease.echoed(term, from, echo, promise_ns);
        }
        self.drive(now);
        Ok(())
    }

    fn check_message(&self, from: MemberId, envelope: Envelope) -> Result<Envelope, MessageError> {
        let message = &envelope.message;
        if from == self.config.id || from.0 == raft::INVALID_ID {
            return Err(MessageError::Stranger(from));
        }
        if self.state.membership().is_retired(from) {
            return Err(MessageError::Retired(from));
        }
        if envelope.from != from
            || message.from != from.0
            || message.to != self.config.id.0
            || message.term != envelope.term
            || message.term == 0
        {
            return Err(MessageError::Misdirected { from: message.from, to: message.to });
        }
        let known =
            |entry: &raft::eraftpb::Entry| entry.get_entry_type() != EntryType::EntryConfChange;
        if lane_of(message.get_msg_type()).is_none() || !message.entries.iter().all(known) {
            return Err(MessageError::Kind);
        }
        Ok(envelope)
    }

    /// The promise and the quarantine, kept before raft-rs sees the message.
    fn must_ignore(&self, now: Nanos, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                let transfer = message.context == CAMPAIGN_TRANSFER;
                // Who joins and knows nothing may have been somebody who promised something.
                if self.is_blank() {
                    return true;
                }
                let bound =
                    if transfer { now < self.quarantine_until } else { self.promise.binds(now) };
                let bound = bound && !mutated(Mutation::PromiseIgnored);
                bound || self.writes.snapshot_pending()
            }
            // raft-rs would campaign from a log whose beginning is not on disk yet, and panic.
            MessageType::MsgTimeoutNow => {
                now < self.quarantine_until || self.writes.snapshot_pending() || self.is_blank()
            }
            // The log from its very beginning, for somebody who must begin with a snapshot.
            MessageType::MsgAppend => self.is_blank() && message.index == 0,
            _ => false,
        }
    }

    fn lost_log(&self, message: &Message) -> Option<ReplicaError> {
        let last = self.node.raft.raft_log.last_index();
        let lost = message.get_msg_type() == MessageType::MsgHeartbeat
            && message.term >= self.term()
            && message.commit > last;
        lost.then_some(ReplicaError::LogLost { commit: message.commit, last })
    }

    fn accepted_leader(&self, from: MemberId, term: u64) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Follower && raft.term == term && raft.leader_id == from.0
    }

    fn heard_leader(&mut self, now: Nanos, leader: MemberId, term: u64, sent: Nanos) {
        let until = now.plus_ns(self.config.timing.promise_ns());
        self.promise.give(leader, term, sent, until);
        self.leader_heard = Some((leader, now));
        // Ticks due before this message must not count against the promise just given.
        if now >= self.quarantine_until && self.next_tick <= now {
            self.next_tick = self.tick_after(now);
        }
    }

    /// The first tick later than `now` on this member's grid of ticks.
    fn tick_after(&self, now: Nanos) -> Nanos {
        let tick_ns = self.config.timing.tick_ns();
        let passed = now.since(self.next_tick) / tick_ns.max(1);
        self.next_tick.plus_ns(passed.saturating_add(1).saturating_mul(tick_ns))
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        (!self.halted).then_some(self.next_tick)
    }

    /// Lets time pass. All messages received before belong into [`Self::handle_message`] first,
    /// or a stalled member campaigns against a leader it could have heard.
    pub fn handle_timeout(&mut self, now: Nanos) {
        if self.halted || now < self.next_tick {
            return;
        }
        let tick_ns = self.config.timing.tick_ns().max(1);
        let overdue = now.since(self.next_tick) / tick_ns + 1;
        self.next_tick = self.tick_after(now);
        // Without its snapshot on disk a follower is not fit to campaign (and raft-rs panics).
        if !self.writes.snapshot_pending() {
            for _ in 0..overdue.min(OVERDUE_TICKS_MAX) {
                self.node.tick();
                self.stagger();
            }
        }
        self.retry_snapshots(now);
        self.drive(now);
    }

    /// A batch is stored, and with it all earlier ones.
    pub fn persisted(&mut self, now: Nanos, number: u64) {
        if self.halted {
            return;
        }
        self.finish_writes(now, number);
        self.drive(now);
    }

    /// Proposes a command. Only the leader can; the answer is an [`Output::Applied`] of the same
    /// index and term, or of the same index and another term when the proposal was lost.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was proposed then.
    pub fn propose(&mut self, now: Nanos, command: &Command) -> Result<ProposalId, ProposeError> {
        if self.halted {
            return Err(ProposeError::Halted);
        }
        if !self.is_leader() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if command.owner().is_some_and(|owner| owner != self.owner_claim()) {
            return Err(ProposeError::OtherOwner);
        }
        let (needed, cluster) = (command.level(), self.state.membership().level());
        if needed > cluster {
            return Err(ProposeError::Level { needed, cluster });
        }
        let data = command.encode()?;
        self.node.propose(Vec::new(), data.to_vec()).map_err(|_| ProposeError::Busy)?;
        let id = ProposalId { index: self.node.raft.raft_log.last_index(), term: self.term() };
        self.drive(now);
        Ok(id)
    }

    /// Hands leadership over. The lease ends before the successor is asked to campaign. If it
    /// does not within an election timeout, this member campaigns itself, in a new term.
    ///
    /// # Errors
    /// [`TransferError`] when there is nothing to hand over or nobody to take it.
    pub fn transfer_to(&mut self, now: Nanos, successor: MemberId) -> Result<(), TransferError> {
        if self.halted || !self.is_leader() {
            return Err(TransferError::NotLeader);
        }
        if successor == self.config.id || !self.configuration.voters.contains(&successor) {
            return Err(TransferError::NoSuchMember(successor));
        }
        if self.is_witness(successor) {
            return Err(TransferError::Witness(successor));
        }
        self.node.transfer_leader(successor.0);
        self.drive(now);
        Ok(())
    }

    /// Gives up the lease of this term for good and campaigns for the next one, with the force of a
    /// transfer: for a leader that cannot go on in its own term. Nothing happens to another.
    pub fn renew_leadership(&mut self, now: Nanos) {
        if self.halted || !self.is_leader() {
            return;
        }
        self.node.raft.abort_leader_transfer();
        // Before anybody can hear that a new term begins.
        self.lease.suspend(self.term());
        self.announce_lease();
        self.drive(now);
    }

    /// The transport lost a member: what was on its way to it is lost.
    pub fn peer_down(&mut self, now: Nanos, member: MemberId) {
        if self.halted {
            return;
        }
        self.node.report_unreachable(member.0);
        if self.snapshots_sent.remove(&member).is_some() {
            self.node.report_snapshot(member.0, SnapshotStatus::Failure);
        }
        self.drive(now);
    }

    /// The transport handed a snapshot over, or failed to.
    ///
    /// One that was handed over is still to be read and stored, and its member answers when it is. Until
    /// then raft-rs sends nothing behind it; told that it arrived, it would try with every heartbeat.
    pub fn snapshot_delivered(&mut self, now: Nanos, member: MemberId, delivered: bool) {
        let Some(sent) = self.snapshots_sent.get_mut(&member).filter(|_| !self.halted) else {
            return;
        };
        if delivered {
            *sent = SentSnapshot { last_news: now, delivered };
            return;
        }
        self.snapshots_sent.remove(&member);
        self.node.report_snapshot(member.0, SnapshotStatus::Failure);
        self.drive(now);
    }

    /// A member acknowledges entries, or a snapshot that it was handed before.
    fn acknowledged(&mut self, member: MemberId) {
        if self.snapshots_sent.get(&member).is_some_and(|sent| sent.delivered) {
            self.snapshots_sent.remove(&member);
            self.node.report_snapshot(member.0, SnapshotStatus::Finish);
        }
    }

    /// raft-rs waits for news of a snapshot for ever.
    fn retry_snapshots(&mut self, now: Nanos) {
        let raft = &self.node.raft;
        let waiting = |id: &MemberId| {
            raft.prs().get(id.0).is_some_and(|progress| progress.state == ProgressState::Snapshot)
        };
        self.snapshots_sent.retain(|id, _| waiting(id));
        let lost: Vec<MemberId> = self
            .snapshots_sent
            .iter()
            .filter(|(_, sent)| now.ms_since(sent.last_news) >= SNAPSHOT_RETRY_MS)
            .map(|(id, _)| *id)
            .collect();
        for member in lost {
            self.snapshots_sent.remove(&member);
            self.node.report_snapshot(member.0, SnapshotStatus::Failure);
        }
    }

    /// The next thing to do. To be called until it has nothing after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Carries on until raft-rs has nothing more to do, then tells what changed.
    fn drive(&mut self, now: Nanos) {
        self.refresh_lease(now);
        loop {
            while !self.halted && self.node.has_ready() {
                self.process_ready(now);
            }
            let again = !self.halted
                && (self.reclaim_leadership() || self.abdicate() || self.tend_members());
            if !again {
                break;
            }
        }
        self.stagger();
        if !self.halted {
            self.refresh_lease(now);
            self.announce_role();
            self.compact_if_due(now);
            self.announce_peers();
        }
    }

    pub(crate) fn refresh_lease(&mut self, now: Nanos) {
        if self.is_leader() && !self.is_witness(self.config.id) {
            let own = (self.config.id, self.config.timing.promise_ns());
            self.lease.renew(self.node.raft.term, now, own, &self.configuration);
        } else {
            self.lease.withdraw();
        }
        self.announce_lease();
    }

    pub(crate) fn announce_lease(&mut self) {
        let until = self.lease.until();
        if until != self.announced_lease {
            self.announced_lease = until;
            self.outputs.push_back(Output::LeaseUntil(until));
        }
    }

    fn announce_role(&mut self) {
        let role = (self.role(), self.term(), self.leader());
        if role != self.announced_role {
            self.announced_role = role;
            let (role, term, leader) = role;
            self.outputs.push_back(Output::RoleChanged { role, term, leader });
        }
    }

    /// Who votes, by what is applied here.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Whether `member` votes and never owns.
    #[must_use]
    pub fn is_witness(&self, member: MemberId) -> bool {
        self.config.witnesses.contains(&member) || self.state.membership().is_witness(member)
    }

    /// What this member tells of itself.
    pub(crate) fn note(&self) -> Note {
        Note {
            release: self.config.release.clone(),
            level: level::LEVEL,
            address: self.config.addresses.get(&self.config.id).cloned().unwrap_or_default(),
        }
    }

    /// The release and the level of a member's program, once it has told them.
    #[must_use]
    pub fn told_by(&self, member: MemberId) -> Option<(&str, u32)> {
        if member == self.config.id {
            return Some((&self.config.release, level::LEVEL));
        }
        self.notes.get(&member).map(|note| (note.release.as_str(), note.level))
    }

    pub(crate) fn halt(&mut self, error: ReplicaError) {
        self.halted = true;
        self.lease.withdraw();
        self.announce_lease();
        self.outputs.push_back(Output::Halted(error));
    }

    /// The state after all applied entries.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The leader of the present term, where known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        Some(self.node.raft.leader_id).filter(|id| *id != raft::INVALID_ID).map(MemberId)
    }

    /// The leader this member followed last in this process, and when it took its last message.
    #[must_use]
    pub fn leader_heard(&self) -> Option<(MemberId, Nanos)> {
        self.leader_heard
    }

    /// Whether this member leads. Not a permission to act: that is the lease.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The role in the present term.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate | StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// The present term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// This member.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.config.id
    }

    /// The end of the lease, if there is one and it has not ended.
    #[must_use]
    pub fn lease_until(&self, now: Nanos) -> Option<Nanos> {
        self.lease.until().filter(|until| now < *until)
    }

    /// The owner this process would be in the present term.
    #[must_use]
    pub fn owner_claim(&self) -> Owner {
        Owner {
            member: self.config.id,
            incarnation: self.config.incarnation,
            epoch: Epoch(self.term()),
        }
    }

    /// A picture for the operator.
    #[must_use]
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        let progress = |id: MemberId| {
            raft.prs().get(id.0).map(|progress| MemberProgress {
                id,
                matched: progress.matched,
                active: progress.recent_active || id == self.config.id,
                witness: self.is_witness(id),
                voter: self.configuration.voters.contains(&id),
            })
        };
        let members = if self.is_leader() { self.configuration.members() } else { BTreeSet::new() };
        Status {
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            commit: raft.raft_log.committed,
            applied: self.state.applied(),
            last: raft.raft_log.last_index(),
            lease_until: self.lease.until(),
            members: members.into_iter().filter_map(progress).collect(),
        }
    }
}

fn is_from_leader(message: &Message) -> bool {
    matches!(
        message.get_msg_type(),
        MessageType::MsgHeartbeat | MessageType::MsgAppend | MessageType::MsgSnapshot
    )
}

pub(crate) fn open_store(
    config: &Config,
    recovered: &Recovered,
) -> Result<(LogStore, State, Configuration), ReplicaError> {
    let (mut state, mut begin) = (State::new(), 0);
    if let Some(image) = &recovered.snapshot {
        let index = image.index;
        state =
            State::restore(&image.data).map_err(|error| ReplicaError::Snapshot { index, error })?;
        if state.applied() != index {
            return Err(ReplicaError::Log("the snapshot is of another entry than it says"));
        }
        begin = index;
    }
    let behind = recovered.entries.iter().filter(|entry| entry.index > begin);
    let entries: Vec<_> = behind.cloned().collect();
    let contiguous = (begin + 1..).zip(&entries).all(|(index, entry)| entry.index == index);
    if !contiguous {
        return Err(ReplicaError::Log("entries are missing"));
    }
    let mut hard_state = recovered.hard_state;
    // Without a term raft-rs panics when it answers a pre-vote.
    hard_state.term = hard_state.term.max(1);
    hard_state.commit = hard_state.commit.max(begin).max(known_committed(&entries));
    if hard_state.commit > begin + entries.len() as u64 {
        return Err(ReplicaError::Log("it ends before the last committed entry"));
    }
    let configuration = match state.membership().configuration() {
        Some(recorded) => recorded.clone(),
        None if config.join && recovered.snapshot.is_none() && entries.is_empty() => {
            Configuration::default()
        }
        None => Configuration::of_voters(config.members.iter().copied()),
    };
    let members = configuration_to_raft(&configuration);
    let store = LogStore::new(members, hard_state, recovered.snapshot.as_ref(), &entries);
    Ok((store, state, configuration))
}

/// What a log says about its own commitment: a leader proposes a change of the voters only after
/// it applied the one before, so all but the last one in a log are committed. The commit index may
/// have been torn off behind the entries it came with, and a member that campaigned by voters of
/// two changes ago could win against a majority of today's.
fn known_committed(entries: &[LogEntry]) -> u64 {
    let changes = entries.iter().rev().filter(|entry| entry.kind == EntryKind::Configuration);
    changes.map(|entry| entry.index).nth(1).unwrap_or(0)
}
