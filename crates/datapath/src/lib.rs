//! The worker of the datapath: ESP from outside becomes clear packets for the targets, and what
//! the targets answer becomes ESP again.
//!
//! What it is: one struct, [`Worker`], generic over the ports it moves packets between, with one
//! method that matters, [`Worker::poll`]; and the few things it shares with the controller.
//! What it is not: it has no thread, socket or clock, knows no DPDK and no Raft, and negotiates
//! nothing.
//!
//! ```text
//!  controller --WorkerCommand ring--> +--------------------------------------------------+
//!             --TablesPublisher-----> |                     Worker                       |
//!             --LeaseCell-----------> |                                                  |
//!             <--WorkerEvent ring---- |  outside rx -> classify -> lookup -> open        |
//!             <--Counters------------ |      -> accept -> decapsulate -> distribute -> inside tx
//!                                     |  inside rx  -> classify -> policy -> begin seal  |
//!  other workers <--Handoff---------> |      -> seal -> encapsulate ---------> outside tx|
//!                                     +--------------------------------------------------+
//! ```
//!
//! Contract:
//! * without a valid [`LeaseCell`] nothing is answered, opened or sealed; the lease is looked at
//!   once more before a burst leaves, should the thread have been stopped meanwhile;
//! * during a handover frames are passed on to the new owner, or kept for it, as they came; a new owner
//!   serves each SA from the moment it is installed, keeps the frames of those that are not, and asks for
//!   them;
//! * sequence numbers come only from granted ranges, inbound numbers are accepted only up to the
//!   committed horizon; both are enforced by `holdfast-ipsec`, asked for here in time;
//! * a poll takes bounded time: at most one burst per side, one from other workers, and
//!   [`COMMANDS_PER_POLL`] commands;
//! * on the way of a packet nothing is allocated, freed, locked, logged or waited for. What is
//!   allocated outside of it: the copy of a punted frame, at most [`PUNTS_PER_POLL`] per poll, and
//!   the answer to a listing;
//! * every packet that goes no further is counted under exactly one `DropReason`;
//! * outer fragments are put together before they are looked at, within narrow bounds;
//! * fragments inside the tunnel follow the first one of their datagram, which has its ports, to one
//!   target; those that come before it wait a little;
//! * a packet too long for its tunnel or target goes on in fragments if its sender allows that, else
//!   its sender is told;
//! * a target whose [`Way`] is [`Way::Marked`] gets its packets in GUE with a tag under the key of
//!   the epoch ([`Marker`]), never in clear.
#![forbid(unsafe_code)]

mod alone;
mod classify;
mod command;
mod counters;
mod cut;
mod distribute;
mod events;
mod flows;
mod fragments;
mod handoff;
mod handover;
mod hops;
mod inbound;
mod inside;
mod io;
mod kept;
mod lease;
mod local;
mod mark;
mod mutation;
mod outbound;
mod outer;
mod outside;
mod rate;
mod reassembly;
mod ring;
mod sad;
mod spi_table;
mod tables;
mod worker;

pub use alone::Controls;
pub use command::{LIST_LIMIT, Retired, SaInfo, StoppedSa, WorkerCommand, WorkerEvent};
pub use counters::{COUNTERS_LEN, Counters, CountersView, Metric};
pub use events::PUNTS_PER_POLL;
pub use flows::{FLOWS, FlowInfo, OTHER_IDLE_S, TCP_IDLE_S, WAYS};
pub use handoff::{HANDOFF_RING, Handoff};
pub use holdfast_ipsec::DropReason;
pub use kept::HELD_FRAMES_MAX;
pub use lease::{LeaseCell, LeaseState};
pub use mark::{MARK_KEY_LEN, MARK_OVERHEAD, MarkKey, MarkRefusal, Marker, open_mark};
pub use mutation::Mutation;
#[cfg(any(test, feature = "testing"))]
pub use mutation::set_mutation;
pub use ring::{COMMAND_RING, EVENT_RING, RingReceiver, RingSender, ring};
pub use sad::SAS_PER_WORKER;
pub use tables::{
    ConnectionCount, DontFragment, Prefix, SaRef, Stations, Tables, TablesPublisher, TablesReader,
    TargetEntry, TargetTable, TunnelRules, Way,
};
pub use worker::{COMMANDS_PER_POLL, PollResult, Worker, WorkerLimits, WorkerParts};

#[cfg(test)]
mod tests;
