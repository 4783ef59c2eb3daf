//! What goes into a member and what comes out.

use crate::{MemberEvent, OperatorReply, OperatorRequest, OwnerNotice, TargetEvent};
use holdfast_cluster::{MemberId, TargetId};
use holdfast_datapath::{Tables, WorkerCommand, WorkerEvent};
use holdfast_packet::{Nanos, Side};
use holdfast_replica::{Lane, MessageBytes, Superseded, WriteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Something that happened to a member.
#[derive(Debug)]
pub enum Input {
    /// A message of another member arrived; `bytes` as that member's [`Output::SendPeer`] had them.
    PeerMessage {
        /// Who sent it, as the transport authenticated it.
        from: MemberId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The transport to a member broke.
    PeerDown(MemberId),
    /// A snapshot of [`Lane::Snapshot`] was handed over whole, or was not.
    SnapshotDelivered {
        /// To whom it was sent.
        to: MemberId,
        /// Whether it arrived whole.
        delivered: bool,
    },
    /// The write batch of this number and all before it are on stable storage.
    Persisted(u64),
    /// The disk failed: nothing after the last [`Input::Persisted`] will be stored.
    StorageFailed(String),
    /// A worker has news.
    Worker {
        /// Which one.
        worker: u32,
        /// The news.
        event: WorkerEvent,
    },
    /// A worker stopped polling, or polls again.
    WorkerStalled {
        /// Which one.
        worker: u32,
        /// True when it stopped.
        stalled: bool,
    },
    /// A port lost or regained its link.
    PortState {
        /// Which one.
        side: Side,
        /// Whether it has a link.
        up: bool,
    },
    /// How many packets the workers opened and sealed since their start. Now and then.
    Traffic {
        /// All workers together.
        packets: u64,
    },
    /// A target said something, or came or went.
    Target {
        /// Which one, as the transport authenticated it.
        target: TargetId,
        /// What it said.
        event: TargetEvent,
    },
    /// The operator wants something. Answered by exactly one [`Output::Operator`] of the same id,
    /// perhaps later.
    Operator {
        /// The shell's name for the question.
        id: u64,
        /// The question.
        request: OperatorRequest,
    },
}

/// Something the shell must do. Outputs are in order; those of one kind must stay in order.
#[derive(Debug)]
pub enum Output {
    /// Send to another member; may be lost, must not be changed.
    SendPeer {
        /// To whom.
        to: MemberId,
        /// Which connection to use, so that a snapshot delays no heartbeat.
        lane: Lane,
        /// The message.
        bytes: MessageBytes,
    },
    /// Write and sync, then report [`Input::Persisted`] with the batch's number. A snapshot among it may be
    /// still to be encoded, or read: see [`holdfast_replica::SnapshotData`].
    Persist(WriteBatch),
    /// An order for one worker. When its ring is full the shell keeps it, and those behind it.
    Worker {
        /// Which one; always less than the configured number of workers.
        worker: u32,
        /// The order.
        command: WorkerCommand,
    },
    /// Tell a target who owns the common address, when it is connected. May be lost.
    NotifyTarget {
        /// Which one.
        target: TargetId,
        /// What to tell it; holds a key, for this target alone.
        notice: Box<OwnerNotice>,
    },
    /// Publish to all workers.
    PublishTables(Arc<Tables>),
    /// The lease the workers see ends then; [`Nanos::ZERO`] for none. Carry out at once.
    Lease(Nanos),
    /// The answer to the operator's question `id`.
    Operator {
        /// The shell's name for the question.
        id: u64,
        /// The answer.
        reply: OperatorReply,
    },
    /// Where the others are: connect to these, and to nobody else.
    Peers {
        /// Every other member with its address, as the operator wrote it.
        peers: BTreeMap<MemberId, String>,
        /// Members that were removed: refuse them by name.
        retired: BTreeSet<MemberId>,
    },
    /// Drop it where there is time: wiping a hundred thousand keys takes longer than a tick.
    Discard(Superseded),
    /// A line for the log.
    Event(MemberEvent),
    /// The member cannot go on: end the process, whose standbys carry on.
    Halt {
        /// Why.
        reason: String,
    },
}
