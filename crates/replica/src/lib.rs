//! One replica of the cluster's state: raft-rs driven through Ready, with a lease and a log.
//!
//! It is **not** a transport, a disk, a clock or a thread: bytes, times and write results come in
//! as arguments, and what to do goes out as [`Output`]. Nor does it know ESP or IKE: what is
//! agreed upon is `cluster`'s. It is the only place that names raft-rs.
//!
//! ```text
//!    peers                         +-----------------------------+           workers
//!   ------- handle_message ------> |  promise    lease           | --LeaseUntil-->
//!   <------ Output::Send --------- |     |         ^             |
//!                                  |     v         | echoes      |         controller
//!    clock  handle_timeout ------> |  raft-rs  (RawNode)         | --Applied, RoleChanged-->
//!   <------ poll_timeout --------- |     |                       | <--- propose, transfer_to
//!                                  |     v  Ready                |
//!    disk   persisted(n) --------> |  store -> cluster::State    |
//!   <------ Output::Persist ------ |                             |
//!     |                            +-----------------------------+
//!     '--- wal::WalWriter: sealed, checksummed bytes; wal::recover: back again, or a refusal
//! ```
//!
//! # Contract
//!
//! * After every call drain [`Replica::poll_output`] and carry the outputs out in order.
//! * `now` never goes back, is read after the input it comes with was received, and belongs to a
//!   clock that goes on while the machine sleeps (`CLOCK_BOOTTIME`).
//! * Hand over all received messages before [`Replica::handle_timeout`].
//! * Store batches in order; report each with [`Replica::persisted`]. A snapshot among them is
//!   encoded by whoever stores it, or read if the leader sent it ([`SnapshotData`]), in a thread of its
//!   own, and there [`Superseded`] is dropped: that takes longer than a lease lasts.
//! * At no instant do two members hold a lease: [`lease`] has the proof.
//! * A follower's acknowledgement leaves only when what it acknowledges is stored: [`ready`].
//! * Only the leader proposes; nothing is forwarded, so nothing is proposed twice.
//! * Members change one at a time, by joint consensus, learner first: `members` has the steps;
//!   [`Output::Peers`] says whom to connect to.
//! * What members tell of themselves and what that allows to be written: `cluster`'s `level`.
//! * Bounded: members, bytes in flight, bytes uncommitted, overdue ticks, length of the log.
//! * raft-rs panics when its invariants break (a disk that lost synced data, a bug). The one case
//!   that can be foreseen ends in [`Output::Halted`]; a panic must end the process.
//! * Keys: batches, entries and snapshots contain them; they are sealed by [`wal`] and redacted in
//!   `Debug`. What was cleared is gone from every file after [`Compaction::keys_gone_ms`]; freed
//!   blocks of the file system are not overwritten, but sealed. In memory raft-rs keeps entries in
//!   plain bytes; they are wiped when compaction drops them, but for copies in messages.
#![forbid(unsafe_code)]

mod candidacy;
mod config;
mod envelope;
mod force;
pub mod lease;
mod members;
mod message_bytes;
mod output;
pub mod ready;
mod replica;
mod snapshot_data;
mod store;
mod superseded;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod timing;
pub mod wal;

pub use config::{Compaction, Config, ProposeError, ReplicaError, TransferError};
pub use envelope::{ENVELOPE_BYTES_MAX, MessageError};
pub use force::force_quorum;
pub use message_bytes::MessageBytes;
pub use output::{
    Checkpoint, EntryKind, HardState, Lane, LogEntry, Output, Recovered, Role, SnapshotImage,
    WriteBatch,
};
pub use replica::{MemberProgress, ProposalId, Replica, Status};
pub use snapshot_data::SnapshotData;
pub use superseded::Superseded;
pub use timing::{Timing, TimingError};

/// Members of one cluster. Raft gains nothing from more, and the stagger of the election
/// timeouts grows with the rank.
pub const MEMBERS_MAX: usize = 7;
