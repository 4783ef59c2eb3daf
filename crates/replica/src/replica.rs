//! One replica: raft-rs driven through asynchronous Ready, the lease beside it, the state behind.

use crate::envelope::{Envelope, MessageError, lane_of};
use crate::lease::{Lease, Promise};
use crate::output::{Output, Recovered, Role};
use crate::ready::Writes;
use crate::store::LogStore;
use crate::{MEMBERS_MAX, Timing, TimingError};
use holdfast_cluster::{CodecError, Command, Epoch, Incarnation, MemberId, Owner, State};
use holdfast_packet::Nanos;
use raft::eraftpb::{ConfState, EntryType, Message, MessageType};
use raft::{CAMPAIGN_TRANSFER, ProgressState, RawNode, SnapshotStatus, StateRole};
use std::collections::{BTreeMap, VecDeque};

/// Overdue ticks made up for in one call. More would end a leader that was only stalled: it
/// would count itself out before it could hear its followers again.
const OVERDUE_TICKS_MAX: u64 = 2;

/// Bytes of entries in one append message; also keeps a message within one transport frame.
const APPEND_BYTES_MAX: u64 = 1024 * 1024;

/// Append messages on their way to one follower: with the size above, what a slow one may cost.
const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// Bytes of entries proposed but not committed; beyond, proposals are refused as busy.
const UNCOMMITTED_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// After this time without news a snapshot on its way counts as lost.
const SNAPSHOT_RETRY_MS: u64 = 10_000;

/// When to cut the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Snapshot after this many entries.
    pub entries: u64,
    /// Snapshot after this many bytes of entries, if that comes first.
    pub bytes: u64,
    /// Entries kept in memory behind the cut, for followers that lag a little.
    pub retained_entries: u64,
}

impl Default for Compaction {
    /// A snapshot every few minutes of a busy cluster; a restart reads at most 8 MiB of log.
    fn default() -> Self {
        Self { entries: 16_384, bytes: 8 * 1024 * 1024, retained_entries: 2_048 }
    }
}

/// What a replica is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// All members, this one included; equal everywhere.
    pub members: Vec<MemberId>,
    /// Equal everywhere.
    pub timing: Timing,
    /// The boot counter of this member.
    pub incarnation: Incarnation,
    /// When to cut the log.
    pub compaction: Compaction,
}

impl Config {
    /// With the usual compaction.
    #[must_use]
    pub fn new(
        id: MemberId,
        members: Vec<MemberId>,
        timing: Timing,
        incarnation: Incarnation,
    ) -> Self {
        Self { id, members, timing, incarnation, compaction: Compaction::default() }
    }
}

/// Why a replica cannot start, or cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// The operator's list of members is unusable.
    #[error("members must be 1 to {MEMBERS_MAX} different ids of at least 1, this one among them")]
    Members,
    /// The operator's timing is unusable.
    #[error("timing: {0}")]
    Timing(#[from] TimingError),
    /// The stored log does not fit together.
    #[error("stored log: {0}")]
    Log(&'static str),
    /// This member acknowledged more than its log holds: its disk lost synced data or was put
    /// back to an older state. It must not vote under its id again.
    #[error(
        "the leader has {commit} entries that this member acknowledged, but its log ends at \
         {last}: its disk lost data; wipe it and add the member under a new id"
    )]
    LogLost {
        /// What the leader says was acknowledged.
        commit: u64,
        /// What is there.
        last: u64,
    },
    /// A committed entry cannot be read, most likely because a newer release wrote it.
    #[error("entry {index}: {error}")]
    Entry {
        /// Its place in the log.
        index: u64,
        /// What is wrong with it.
        error: CodecError,
    },
    /// A snapshot cannot be read.
    #[error("snapshot at {index}: {error}")]
    Snapshot {
        /// The last entry in it.
        index: u64,
        /// What is wrong with it.
        error: CodecError,
    },
    /// Raft refused its configuration.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a proposal was not taken. None of these leaves a trace in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Only the leader proposes; proposals are never forwarded, so none is ever doubled.
    #[error("not the leader (that is {leader:?})")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<MemberId>,
    },
    /// The command names an owner other than this process in this term.
    #[error("made by another owner")]
    OtherOwner,
    /// A transfer is under way, or too much is waiting for its commit: try again.
    #[error("busy")]
    Busy,
    /// The command does not fit into an entry.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The replica stopped after an error.
    #[error("halted")]
    Halted,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can.
    #[error("not the leader")]
    NotLeader,
    /// Not another configured member.
    #[error("member {0} is not another member")]
    NoSuchMember(MemberId),
}

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
    pub(crate) snapshots_sent: BTreeMap<MemberId, Nanos>,
    next_tick: Nanos,
    quarantine_until: Nanos,
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
        let rank = check_members(&config)?;
        let (store, state) = open_store(&config, &recovered)?;
        let raft_config = raft_config(&config, rank, state.applied());
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&raft_config, store, &logger)
            .map_err(|error| ReplicaError::Raft(error.to_string()))?;
        let quarantine_until = now.plus_ns(config.timing.promise_ns());
        let term = node.raft.term;
        let mut replica = Self {
            lease: Lease::none(config.members.len()),
            promise: Promise::at_boot(quarantine_until),
            next_tick: quarantine_until.plus_ns(config.timing.tick_ns()),
            quarantine_until,
            config,
            node,
            state,
            writes: Writes::default(),
            outputs: VecDeque::new(),
            snapshots_sent: BTreeMap::new(),
            announced_role: (Role::Follower, term, None),
            announced_lease: None,
            halted: false,
        };
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
        bytes: &[u8],
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
        let (sent, term) = (envelope.sent, envelope.term);
        let echo = envelope.echo.map(|echo| (echo, envelope.promise_ns));
        // The errors raft-rs has for a stepped message all mean that it ignored it.
        let _ignored = self.node.step(envelope.message);
        if leading && self.accepted_leader(from, term) {
            self.heard_leader(now, from, term, sent);
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
        if self.config.members.binary_search(&from).is_err() || from == self.config.id {
            return Err(MessageError::Stranger(from));
        }
        if envelope.from != from
            || message.from != from.0
            || message.to != self.config.id.0
            || message.term != envelope.term
            || message.term == 0
        {
            return Err(MessageError::Misdirected { from: message.from, to: message.to });
        }
        let normal =
            |entry: &raft::eraftpb::Entry| entry.get_entry_type() == EntryType::EntryNormal;
        if lane_of(message.get_msg_type()).is_none() || !message.entries.iter().all(normal) {
            return Err(MessageError::Kind);
        }
        Ok(envelope)
    }

    /// The promise and the quarantine, kept before raft-rs sees the message.
    fn must_ignore(&self, now: Nanos, message: &Message) -> bool {
        match message.get_msg_type() {
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
                let transfer = message.context == CAMPAIGN_TRANSFER;
                let bound =
                    if transfer { now < self.quarantine_until } else { self.promise.binds(now) };
                bound || self.writes.snapshot_pending()
            }
            // raft-rs would campaign from a log whose beginning is not on disk yet, and panic.
            MessageType::MsgTimeoutNow => {
                now < self.quarantine_until || self.writes.snapshot_pending()
            }
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
        if successor == self.config.id || self.config.members.binary_search(&successor).is_err() {
            return Err(TransferError::NoSuchMember(successor));
        }
        self.node.transfer_leader(successor.0);
        self.drive(now);
        Ok(())
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
    pub fn snapshot_delivered(&mut self, now: Nanos, member: MemberId, delivered: bool) {
        if self.halted || self.snapshots_sent.remove(&member).is_none() {
            return;
        }
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(member.0, status);
        self.drive(now);
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
            .filter(|(_, sent)| now.ms_since(**sent) >= SNAPSHOT_RETRY_MS)
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
            if self.halted || !self.reclaim_leadership() {
                break;
            }
        }
        if !self.halted {
            self.refresh_lease(now);
            self.announce_role();
            self.compact_if_due();
        }
    }

    pub(crate) fn refresh_lease(&mut self, now: Nanos) {
        if self.is_leader() {
            self.lease.renew(self.node.raft.term, now, self.config.timing.promise_ns());
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

    /// After a transfer that came to nothing this leader has no lease in its term any more. It
    /// campaigns for the next one, with the force of a transfer: the only lease the others could
    /// be loyal to was its own. Returns whether it did.
    fn reclaim_leadership(&mut self) -> bool {
        let (term, id) = (self.term(), self.config.id.0);
        let stranded = self.is_leader()
            && self.lease.is_suspended(term)
            && self.node.raft.lead_transferee.is_none();
        if stranded {
            self.node.raft.become_follower(term, raft::INVALID_ID);
            let mut campaign = Message::default();
            campaign.set_msg_type(MessageType::MsgTimeoutNow);
            (campaign.from, campaign.to, campaign.term) = (id, id, term);
            let _ignored = self.node.raft.step(campaign);
        }
        stranded
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
        let progress = |id: &MemberId| {
            raft.prs().get(id.0).map(|progress| MemberProgress {
                id: *id,
                matched: progress.matched,
                active: progress.recent_active || *id == self.config.id,
            })
        };
        let members = if self.is_leader() { self.config.members.as_slice() } else { &[] };
        Status {
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            commit: raft.raft_log.committed,
            applied: self.state.applied(),
            last: raft.raft_log.last_index(),
            lease_until: self.lease.until(),
            members: members.iter().filter_map(progress).collect(),
        }
    }
}

fn is_from_leader(message: &Message) -> bool {
    matches!(
        message.get_msg_type(),
        MessageType::MsgHeartbeat | MessageType::MsgAppend | MessageType::MsgSnapshot
    )
}

/// Returns the rank of this member, which staggers its election timeout.
fn check_members(config: &Config) -> Result<u64, ReplicaError> {
    let members = &config.members;
    let different = members.windows(2).all(|pair| pair.first() < pair.last());
    let positive = members.first().is_some_and(|first| first.0 != raft::INVALID_ID);
    if members.len() > MEMBERS_MAX || !different || !positive {
        return Err(ReplicaError::Members);
    }
    let rank = members.binary_search(&config.id).map_err(|_| ReplicaError::Members)?;
    Ok(rank as u64)
}

fn open_store(config: &Config, recovered: &Recovered) -> Result<(LogStore, State), ReplicaError> {
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
    hard_state.commit = hard_state.commit.max(begin);
    if hard_state.commit > begin + entries.len() as u64 {
        return Err(ReplicaError::Log("it ends before the last committed entry"));
    }
    let mut members = ConfState::default();
    members.voters = config.members.iter().map(|id| id.0).collect();
    Ok((LogStore::new(members, hard_state, recovered.snapshot.as_ref(), &entries), state))
}

fn raft_config(config: &Config, rank: u64, applied: u64) -> raft::Config {
    let ticks = |ticks: u64| usize::try_from(ticks).unwrap_or(usize::MAX);
    let own_timeout = ticks(config.timing.election_ticks_of(rank));
    raft::Config {
        id: config.id.0,
        election_tick: ticks(config.timing.election_ticks),
        heartbeat_tick: ticks(config.timing.heartbeat_ticks),
        // A range of one: no randomness, and no two members campaign in the same tick.
        min_election_tick: own_timeout,
        max_election_tick: own_timeout.saturating_add(1),
        applied,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        check_quorum: true,
        pre_vote: true,
        ..raft::Config::default()
    }
}
