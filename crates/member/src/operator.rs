//! The operator's questions and the answers. No key material has a place in any of them.

use crate::bulletin::Fitness;
use crate::config::SuccessionPolicy;
use crate::renewals::Continuity;
use crate::store_list::StoreListReply;
use crate::{Delivery, NoticeState, TargetReport};
use holdfast_cluster::{Epoch, IkeSpi, Incarnation, MemberId, MemberRecord, Owner, TargetId};
use holdfast_datapath::FlowInfo;
use holdfast_ike::TakeoverPolicy;
use holdfast_ipsec::{Spi, TrafficSelector};
use holdfast_packet::{MacAddr, Nanos};
use std::net::{Ipv4Addr, SocketAddrV4};

/// What an operator may ask of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorRequest {
    /// How are things?
    Status,
    /// Which security associations are there?
    SaList,
    /// Which connections go where? Asks the workers.
    FlowList {
        /// The most flows wanted.
        limit: usize,
    },
    /// Which targets are there?
    TargetList,
    /// Give a target no more new connections, or again.
    TargetSet {
        /// Its configured name.
        name: String,
        /// True to drain it.
        draining: bool,
    },
    /// How is the replication?
    ClusterStatus,
    /// Which records does the common store hold, and under whom do they stand?
    StoreList {
        /// The common address that is meant; `None` for the one there is.
        address: Option<Ipv4Addr>,
        /// The most records wanted.
        limit: usize,
    },
    /// Let another member own the common address.
    Handover {
        /// Who; `None` for the one that is up to date.
        to: Option<MemberId>,
    },
    /// Somebody joins the cluster, leaves it, or takes another's place.
    ChangeMembers {
        /// Who joins, under an id never used before.
        add: Option<(MemberId, MemberRecord)>,
        /// Who leaves for good.
        remove: Option<MemberId>,
    },
    /// Give the change of the members up.
    CancelMemberChange,
}

/// The answer to an [`OperatorRequest`].
#[derive(Debug, Clone, PartialEq)]
pub enum OperatorReply {
    /// To [`OperatorRequest::Status`].
    Status(Box<StatusReply>),
    /// To [`OperatorRequest::SaList`].
    SaList(SaListReply),
    /// To [`OperatorRequest::FlowList`].
    FlowList(FlowListReply),
    /// To [`OperatorRequest::TargetList`].
    TargetList(TargetListReply),
    /// To [`OperatorRequest::ClusterStatus`].
    ClusterStatus(Box<ClusterStatusReply>),
    /// To [`OperatorRequest::StoreList`].
    StoreList(Box<StoreListReply>),
    /// A change was made.
    Done(DoneReply),
    /// A change was not made.
    Refused(RefusedReply),
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoneReply {
    /// Names the change: the index of its log entry, or the epoch of the new ownership.
    pub operation: u64,
    /// What was done, for people.
    pub text: String,
}

/// A change that was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedReply {
    /// Which kind of refusal.
    pub kind: RefusedKind,
    /// Why, for people.
    pub message: String,
    /// What to do about it.
    pub next_action: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedKind {
    /// The request names something that does not exist.
    Usage,
    /// Only the owner can do this; ask there.
    NotOwner {
        /// The member to ask, when one is known.
        owner: Option<MemberId>,
    },
    /// The cluster is not in a state to do this now.
    Degraded,
    /// It was tried and did not come to its end.
    Failed,
}

/// What a member is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// Ready to take over.
    Standby,
    /// Campaigning, or elected and not yet the owner.
    Candidate,
    /// Speaks for the common address.
    Owner,
    /// Started so recently that it must not vote yet.
    Quarantined,
    /// Votes and never owns.
    Witness,
}

/// Something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub what: String,
    /// What to do about it.
    pub next_action: String,
}

/// How things are.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusReply {
    /// The member that answers.
    pub member: MemberId,
    /// What it is.
    pub role: MemberRole,
    /// The end of its lease; `None` without one.
    pub lease_until: Option<Nanos>,
    /// The address peers reach.
    pub common: Ipv4Addr,
    /// The address targets reply to.
    pub inside: Ipv4Addr,
    /// Whether the outside port has a link.
    pub outside_up: bool,
    /// Whether the inside port has a link.
    pub inside_up: bool,
    /// What is not as it should be, worst first; empty when all is well.
    pub problems: Vec<Problem>,
    /// The replication.
    pub cluster: ClusterStatusReply,
    /// How many IKE SAs there are.
    pub ike_sas: usize,
    /// The Child SAs, at most [`crate::limits::STATUS_CHILDREN_MAX`] of them.
    pub child_sas: Vec<ChildSaReply>,
    /// How many Child SAs there are.
    pub child_sas_total: usize,
    /// The targets.
    pub targets: Vec<TargetReply>,
}

/// The replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatusReply {
    /// Which member should own when several could.
    pub succession: SuccessionPolicy,
    /// The member that answers.
    pub member: MemberId,
    /// Its boot counter.
    pub incarnation: Incarnation,
    /// The Raft term it is in.
    pub term: u64,
    /// Who leads in that term, when known.
    pub leader: Option<MemberId>,
    /// The last entry known to be committed.
    pub commit_index: u64,
    /// The last entry applied here.
    pub applied_index: u64,
    /// Who owns the common address by the replicated state.
    pub owner: Option<Owner>,
    /// When this member learnt of that ownership.
    pub owner_since: Option<Nanos>,
    /// All members.
    pub members: Vec<MemberReply>,
    /// How many of the others could take the address over at once; only the leader knows.
    pub successors_ready: Option<usize>,
    /// What every member can read and write.
    pub level: u32,
    /// How often a survivor was made the whole cluster.
    pub generation: u64,
    /// How far the change of the members is, when one is under way.
    pub change: Option<String>,
    /// Who was removed for good.
    pub retired: Vec<MemberId>,
    /// Digest of the replicated state; equal on members with equal applied index.
    pub state_hash: u64,
    /// Refused commands by reason, since the start of this member.
    pub refusals: Vec<(&'static str, u64)>,
}

/// What a member is to Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberStanding {
    /// It votes.
    Voter,
    /// It receives the log and does not vote yet.
    Learner,
    /// It votes for the last time.
    Leaving,
}

/// One member as seen by the one that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReply {
    /// Which one.
    pub id: MemberId,
    /// Whether it is the one that answers.
    pub this: bool,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it was heard of lately.
    pub reachable: bool,
    /// The last entry it is known to have; only the leader knows.
    pub matched_index: Option<u64>,
    /// Whether it votes and never owns.
    pub witness: bool,
    /// Whether it votes, learns or leaves.
    pub standing: MemberStanding,
    /// Where it listens for the others, when the log says so.
    pub address: Option<String>,
    /// Whether it could serve, by its own account; `None` when it has not been heard lately.
    pub fitness: Option<Fitness>,
    /// The release of its program and what it can read and write, once it has told them.
    pub told: Option<(String, u32)>,
}

/// The security associations, the first of them when there are very many.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SaListReply {
    /// The IKE SAs.
    pub ike_sas: Vec<IkeSaReply>,
    /// The Child SAs.
    pub child_sas: Vec<ChildSaReply>,
    /// How many IKE SAs there are.
    pub ike_sas_total: usize,
    /// How many Child SAs there are.
    pub child_sas_total: usize,
}

/// One IKE SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeSaReply {
    /// The initiator's SPI; known where the IKE SA runs, on the owner.
    pub initiator_spi: Option<u64>,
    /// The responder's SPI; known where the IKE SA runs, on the owner.
    pub responder_spi: Option<u64>,
    /// Our SPI, which names it in the cluster.
    pub spi: IkeSpi,
    /// The configured connection.
    pub connection: String,
    /// Where the peer is; known on the owner.
    pub peer: Option<SocketAddrV4>,
    /// Who the peer is; known on the owner.
    pub identity: String,
    /// What the IKE SA does; known on the owner.
    pub state: String,
    /// Whether a successor could carry on with it.
    pub takeover: TakeoverReadiness,
    /// What a new owner does about it.
    pub policy: TakeoverPolicy,
}

/// One pair of Child SAs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSaReply {
    /// Our SPI, which names the pair.
    pub inbound_spi: Spi,
    /// The peer's SPI.
    pub outbound_spi: Spi,
    /// The IKE SA it belongs to.
    pub ike_spi: IkeSpi,
    /// The configured connection.
    pub connection: String,
    /// The peer's tunnel end.
    pub peer: Ipv4Addr,
    /// Algorithm, extended sequence numbers and encapsulation, for people.
    pub suite: String,
    /// Our side of the traffic.
    pub local: Vec<TrafficSelector>,
    /// The peer's side of the traffic.
    pub remote: Vec<TrafficSelector>,
    /// The end of all outbound numbers granted so far.
    pub outbound_granted_end: u64,
    /// Inbound numbers at or below are refused.
    pub inbound_floor: u64,
    /// The highest inbound number that may be accepted.
    pub inbound_horizon: u64,
    /// Whether a successor could carry on with it.
    pub takeover: TakeoverReadiness,
    /// What a new owner does about it.
    pub policy: TakeoverPolicy,
    /// How certain its inbound numbers are since the last takeover; known on the owner.
    pub continuity: Option<Continuity>,
}

/// Whether a successor could carry on with an SA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeoverReadiness {
    /// Whether it could.
    pub ready: bool,
    /// Why, or why not.
    pub reason: String,
}

/// The targets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetListReply {
    /// In the order of their ids.
    pub targets: Vec<TargetReply>,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetReply {
    /// Which one.
    pub id: TargetId,
    /// Its configured name.
    pub name: String,
    /// Its address on the inside network.
    pub address: Ipv4Addr,
    /// Its configured weight.
    pub weight: u32,
    /// Whether it gets no new connections by the operator's wish.
    pub draining: bool,
    /// Its station address, when ARP has told it.
    pub mac: Option<MacAddr>,
    /// Whether it answers ARP.
    pub up: bool,
    /// How packets are delivered to it.
    pub delivery: Delivery,
    /// The member on whose host it runs, if it is one's.
    pub member: Option<MemberId>,
    /// Whether it knows who owns the common address.
    pub notice: NoticeState,
    /// Whether it should have acknowledged by now.
    pub overdue: bool,
    /// How often it refused what this member told it.
    pub refused: u64,
    /// How it is by its own account, when it said so lately.
    pub report: Option<TargetReport>,
    /// Whether it may get new connections, by its own account and its acknowledgement.
    pub open: bool,
    /// Connections it was given since this member is the owner; 0 on others.
    pub connections: u64,
}

/// Connections and where they go.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FlowListReply {
    /// The connections with the worker each is on.
    pub flows: Vec<FlowReply>,
    /// Whether there are more.
    pub truncated: bool,
    /// Workers that did not answer in time.
    pub silent_workers: Vec<u32>,
}

/// One connection.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowReply {
    /// The worker it is on.
    pub worker: u32,
    /// What the worker knows of it.
    pub flow: FlowInfo,
    /// The name of its target, when it is configured.
    pub target: String,
    /// Whether its target is on this member's own host, so that it never uses the inside network.
    pub local: bool,
}

/// The ownership that a handover led to; its epoch names the operation.
impl From<Owner> for DoneReply {
    fn from(owner: Owner) -> Self {
        let Epoch(epoch) = owner.epoch;
        Self { operation: epoch, text: format!("the common address is owned by {owner}") }
    }
}
