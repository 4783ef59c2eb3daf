//! What a replica asks the shell to do, and what the shell stores for it.

use crate::{MessageBytes, ReplicaError, SnapshotData, Superseded};
use bytes::Bytes;
use holdfast_cluster::{Command, Effect, MemberId};
use holdfast_packet::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Something to do, in order.
pub enum Output {
    /// Send bytes to a member. Losing them is allowed; so is overtaking between lanes.
    Send {
        /// The receiver.
        to: MemberId,
        /// The connection to use.
        lane: Lane,
        /// What to hand to its [`crate::Replica::handle_message`].
        bytes: MessageBytes,
    },
    /// Store a batch, in the order of the numbers, and answer with
    /// [`crate::Replica::persisted`] once it is synced (where `must_sync` asks for it). A snapshot that
    /// a leader sent is read first: [`SnapshotData::restore`].
    Persist(WriteBatch),
    /// An entry was committed and applied. Entries come in order and never twice in one process.
    Applied {
        /// Its place in the log.
        index: u64,
        /// The term it was proposed in. With the index it identifies a proposal.
        term: u64,
        /// The command; [`Command::Noop`] for the first entry of a leader.
        command: Command,
        /// What it changed.
        effects: Vec<Effect>,
    },
    /// The state was replaced as a whole by a snapshot of the leader: read everything anew.
    StateReplaced {
        /// The index of the last entry it contains.
        index: u64,
    },
    /// Role, term or known leader changed.
    RoleChanged {
        /// The role now.
        role: Role,
        /// The term now.
        term: u64,
        /// The leader of that term, where known.
        leader: Option<MemberId>,
    },
    /// The lease ends at this moment of this member's clock; `None`: there is no lease.
    ///
    /// To be made known to the workers before any later output is carried out.
    LeaseUntil(Option<Nanos>),
    /// Where the others are now: connect to these, and to nobody else. An address is what the
    /// configuration, the log, or the member itself says.
    Peers {
        /// Every other member with its address.
        peers: BTreeMap<MemberId, String>,
        /// Ids to be refused by name: they were removed.
        retired: BTreeSet<MemberId>,
    },
    /// Drop it where there is time.
    Discard(Superseded),
    /// The replica cannot go on and does nothing any more: end the process.
    Halted(ReplicaError),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { to, lane, bytes } => write!(f, "Send({lane:?} to {to}, {bytes:?})"),
            Self::Persist(batch) => batch.fmt(f),
            Self::Applied { index, term, command, effects } => {
                write!(f, "Applied({term}/{index}, {command:?}, {effects:?})")
            }
            Self::StateReplaced { index } => write!(f, "StateReplaced({index})"),
            Self::RoleChanged { role, term, leader } => {
                write!(f, "RoleChanged({role:?} in {term}, leader {leader:?})")
            }
            Self::LeaseUntil(until) => write!(f, "LeaseUntil({until:?})"),
            Self::Peers { peers, retired } => write!(f, "Peers({peers:?}, without {retired:?})"),
            Self::Discard(superseded) => write!(f, "Discard({superseded:?})"),
            Self::Halted(error) => write!(f, "Halted({error})"),
        }
    }
}

/// The role in the present term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Connections between two members: a long message in one does not delay those in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, votes and their answers: small, and their delay costs the lease.
    Heartbeat,
    /// Log entries and their acknowledgements.
    Append,
    /// Snapshots: rare and large, up to [`crate::ENVELOPE_BYTES_MAX`].
    Snapshot,
}

/// Raft's promise to itself; lost, a member could vote twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The term.
    pub term: u64,
    /// Whom this member voted for in it; 0 for nobody.
    pub vote: u64,
    /// The highest index known to be committed.
    pub commit: u64,
}

/// What an entry is to Raft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryKind {
    /// A command, or nothing.
    #[default]
    Command,
    /// A change of who votes (Raft's `ConfChangeV2`).
    Configuration,
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The term it was proposed in.
    pub term: u64,
    /// Its place.
    pub index: u64,
    /// What it is to Raft.
    pub kind: EntryKind,
    /// An encoded command, or nothing. Contains keys.
    pub data: Bytes,
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogEntry({}/{}, {} bytes)", self.term, self.index, self.data.len())
    }
}

/// The state after an entry.
#[derive(Clone, PartialEq, Eq)]
pub struct SnapshotImage {
    /// The last entry it contains.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// What [`holdfast_cluster::State::snapshot`] made, or is to be made of it, or what a leader sent.
    /// Contains keys.
    pub data: SnapshotData,
}

impl fmt::Debug for SnapshotImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotImage({}/{}, {:?})", self.term, self.index, self.data)
    }
}

/// A new beginning of the stored log: everything stored before it is superseded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The state to begin with.
    pub snapshot: SnapshotImage,
    /// The hard state at that point of the writes.
    pub hard_state: HardState,
    /// The whole log behind the snapshot at that point of the writes.
    pub entries: Vec<LogEntry>,
}

impl Checkpoint {
    /// Takes in what was stored behind it. A checkpoint that is written later than it was made must
    /// hold that, too: it supersedes everything stored before it is written.
    pub fn absorb(&mut self, batch: &WriteBatch) {
        for entry in &batch.entries {
            let behind = entry.index.checked_sub(self.snapshot.index.saturating_add(1));
            // What the snapshot contains is committed and stands.
            let Some(place) = behind else { continue };
            self.entries.truncate(usize::try_from(place).unwrap_or(usize::MAX));
            self.entries.push(entry.clone());
        }
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
    }
}

/// One thing to store. All of it before `persisted(number)`, in the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteBatch {
    /// Counts up from 1 in each process.
    pub number: u64,
    /// Whether a crash after the answer must not lose it. `false`: no need to sync, and nobody
    /// waits for the answer (it may be given all the same).
    pub must_sync: bool,
    /// Start the stored log anew.
    pub checkpoint: Option<Checkpoint>,
    /// Entries. One that exists in another form replaces it and everything behind it.
    pub entries: Vec<LogEntry>,
    /// The hard state after the entries.
    pub hard_state: Option<HardState>,
}

/// What a replica begins with: nothing, or what [`crate::wal::recover`] read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The hard state; all zero for a new member.
    pub hard_state: HardState,
    /// The newest snapshot.
    pub snapshot: Option<SnapshotImage>,
    /// The entries behind it, without gap.
    pub entries: Vec<LogEntry>,
}
