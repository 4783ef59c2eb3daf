//! One member of the cluster: everything a controller decides, as one pure struct.
//!
//! What it is: the composition of the replicated log with its lease (`replica`), the records it
//! agrees upon (`cluster`), IKE (`ike`), and what the workers need (`datapath`): commit before
//! send, grants, takeover, announcements, neighbours, targets, the operator's wishes. The daemon and
//! the simulator run this very struct.
//! What it is not: it has no socket, clock, thread, file or randomness of its own: inputs and time
//! go in, outputs come out. It handles no ESP packet; the workers do.
//!
//! ```text
//!   peers, disk ----> Replica ---Applied--> records --+--> workers: SAs, ranges, horizons
//!                        ^    ---Lease----> ownership +--> workers: lease, tables; ARP
//!                        |                            |
//!                 propose|        load on takeover    v
//!   worker: punt --IKE--> Ike ---Ready--> Outbox --datagrams once applied--> worker: transmit
//!                --ARP--> Neighbours ---> targets up and down, next hops
//!   worker: RangeLow, HorizonLow --> Grants --+--propose
//!   worker: Ambiguous -> Renewals -> Ike      |
//!   operator ---> target set, handover -------'
//!   other members <--fitness, offers--> Handover, succession --> worker: stop, pass on, keep
//!   targets: acknowledgements, reports --> Notices --> weights; who owns, to be told again
//! ```
//!
//! # A member's life
//!
//! ```text
//!              elected                 own TakeOwnership applied, lease valid
//!   Standby -----------> Claiming --------------------------------------------> Owning
//!      ^                     |                                                     |
//!      '---------------------+---------------- leads no more ----------------------'
//! ```
//!
//! # Contract
//!
//! * After every call drain [`Member::poll_output`] and carry the outputs out in order; call
//!   [`Member::handle_timeout`] when [`Member::next_deadline`] has come, inputs that arrived before
//!   first.
//! * `now` never goes back and is the clock the workers compare the lease with.
//! * Law 1: a lease is put out only while this member is the owner by the records and holds the
//!   lease of the term it took ownership in; it is taken back in the output that ends it.
//! * Law 2: workers get only ranges and horizons that were applied, each once per ownership. What
//!   an owner that hands over left unused its successor gets: only when all its workers stopped.
//! * Law 3: an IKE datagram is put out only when the step that made it, and all before it, are
//!   applied under the ownership it was made in.
//! * Every queue is bounded: [`limits`].
//! * Deterministic: equal configuration, seed and inputs give equal outputs.
#![forbid(unsafe_code)]

mod activity;
mod announce;
mod apply;
mod bulletin;
mod carrying;
mod config;
mod error;
mod event;
mod fellows;
mod fitness;
mod frames;
mod grants;
mod handover;
mod io;
pub mod limits;
mod loading;
mod member;
mod membership;
mod neighbours;
mod network;
mod notices;
mod operations;
mod operator;
mod outbox;
mod ownership;
mod paths;
mod readiness;
mod renewal;
mod renewals;
mod status;
mod store_list;
mod strays;
mod succession;
mod suspicion;
mod tables;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod warming;
mod watch;

pub use bulletin::Fitness;
pub use config::{Addresses, Delivery, MemberConfig, SuccessionPolicy, Takeback, TargetConfig};
pub use error::MemberError;
pub use event::{FailureCause, HandoverCause, LossCause, MemberEvent};
pub use io::{Input, Output};
pub use member::Member;
pub use notices::{NoticeState, OwnerNotice, TargetEvent, TargetReport};
pub use operator::{
    ChildSaReply, ClusterStatusReply, DoneReply, FlowListReply, FlowReply, IkeSaReply, MemberReply,
    MemberRole, MemberStanding, OperatorReply, OperatorRequest, Problem, RefusedKind, RefusedReply,
    SaListReply, StatusReply, TakeoverReadiness, TargetListReply, TargetReply,
};
pub use renewals::Continuity;
pub use store_list::{RecordReadiness, RecordReply, StoreListReply};
pub use watch::{ThreadSight, WorkerWatch};
