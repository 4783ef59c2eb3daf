//! What a replica is started with, and the errors it can answer.

use crate::{MEMBERS_MAX, Timing, TimingError};
use holdfast_cluster::{CodecError, Incarnation, MemberId, Mutation, mutated};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of entries in one append message; also keeps a message within one transport frame.
const APPEND_BYTES_MAX: u64 = 1024 * 1024;

/// Append messages on their way to one follower: with the size above, what a slow one may cost.
const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// Bytes of entries proposed but not committed; beyond, proposals are refused as busy.
const UNCOMMITTED_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The rank of whoever comes after all members, old and new ones in the middle of a change: each
/// full member has two places, one for when it is fit and one for when it is not.
pub(crate) const RANK_MAX: u64 = 4 * MEMBERS_MAX as u64;

/// When to cut the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Snapshot after this many entries.
    pub entries: u64,
    /// Snapshot after this many bytes of entries, if that comes first.
    pub bytes: u64,
    /// Entries kept in memory before the cut, for followers that lag a little; at most `bytes`.
    pub retained_entries: u64,
    /// After a key was cleared (an SA deleted, an entry with keys overwritten) it is gone from
    /// every file this long after, or one second per MiB of the last snapshot after if that is
    /// longer: so a large store is not rewritten all the time. Also the shortest time between two
    /// snapshots for this reason.
    pub keys_gone_ms: u64,
}

impl Default for Compaction {
    /// A snapshot every few minutes of a busy cluster; a restart reads at most 8 MiB of log. A key
    /// outlives its SA on disk by ten seconds.
    fn default() -> Self {
        Self {
            entries: 16_384,
            bytes: 8 * 1024 * 1024,
            retained_entries: 2_048,
            keys_gone_ms: 10_000,
        }
    }
}

/// What a replica is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// All members, this one included; equal everywhere.
    pub members: Vec<MemberId>,
    /// Those of them that vote and never own: last to campaign, and when one of them is elected
    /// for its longer log it hands over at once. Equal everywhere.
    pub witnesses: BTreeSet<MemberId>,
    /// Where members listen for each other, as far as the configuration says; opaque here.
    pub addresses: BTreeMap<MemberId, String>,
    /// Whether this member was added to a running cluster: with nothing stored it votes for
    /// nobody and is nobody until the leader's snapshot says who the members are.
    pub join: bool,
    /// The release of the program, as it is told to the others.
    pub release: String,
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
        Self {
            id,
            members,
            witnesses: BTreeSet::new(),
            addresses: BTreeMap::new(),
            join: false,
            release: String::new(),
            timing,
            incarnation,
            compaction: Compaction::default(),
        }
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
    /// This member was taken out of the cluster.
    #[error("member {0} was removed from the cluster; its id is not used again")]
    Removed(MemberId),
    /// The files of the members disagree.
    #[error(
        "the cluster was begun with members {recorded:?}, but this member is configured with \
         {configured:?}; make the list of members equal"
    )]
    OtherMembers {
        /// What the log says.
        recorded: Vec<u64>,
        /// What the file says.
        configured: Vec<u64>,
    },
    /// A member that joins with an empty disk has voted before.
    #[error(
        "member {0} joins with an empty log, but it has voted before and may have forgotten what \
         it acknowledged; add it under an id never used before"
    )]
    VotedBefore(MemberId),
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
    /// Some member runs a release that could not read it.
    #[error(
        "every member must run a release of level {needed} first; the cluster is at level \
         {cluster} (`holdfast cluster status` shows every member's release)"
    )]
    Level {
        /// What the command needs.
        needed: u32,
        /// What all members are known to read.
        cluster: u32,
    },
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
    /// A witness owns nothing.
    #[error("member {0} is a witness")]
    Witness(MemberId),
}

pub(crate) fn check_members(config: &Config) -> Result<(), ReplicaError> {
    let members = &config.members;
    let different = members.windows(2).all(|pair| pair.first() < pair.last());
    let positive = members.first().is_some_and(|first| first.0 != raft::INVALID_ID);
    if members.len() > MEMBERS_MAX || !different || !positive {
        return Err(ReplicaError::Members);
    }
    members.binary_search(&config.id).map(drop).map_err(|_| ReplicaError::Members)
}

pub(crate) fn raft_config(config: &Config, applied: u64) -> raft::Config {
    let ticks = |ticks: u64| usize::try_from(ticks).unwrap_or(usize::MAX);
    let longest = ticks(config.timing.election_ticks_of(RANK_MAX));
    raft::Config {
        id: config.id.0,
        election_tick: ticks(config.timing.election_ticks),
        heartbeat_tick: ticks(config.timing.heartbeat_ticks),
        // The range a member's own timeout comes from; what raft-rs draws from it is replaced by
        // the timeout of the rank, so that no two members campaign in the same tick.
        min_election_tick: ticks(config.timing.election_ticks),
        max_election_tick: longest.saturating_add(1),
        applied,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        check_quorum: !mutated(Mutation::PromiseIgnored),
        pre_vote: true,
        ..raft::Config::default()
    }
}
