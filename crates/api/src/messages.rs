//! The messages. Tags are never used again; times are Unix milliseconds, durations name their unit.

use crate::names::{Named, by_name, ike_spi, spi};
use crate::store::{StoreList, StoreListRequest};
use prost::{Enumeration, Message, Oneof};
use serde::Serialize;

/// A question or an order to the member the socket belongs to.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What is asked; `None` when a newer CLI asks something this member does not know.
    #[prost(oneof = "RequestKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 40, 50, 51")]
    pub kind: Option<RequestKind>,
}

/// What can be asked.
#[derive(Clone, PartialEq, Oneof)]
pub enum RequestKind {
    /// Somebody joins the cluster, leaves it, or takes another's place.
    #[prost(message, tag = "50")]
    ChangeMembers(ChangeMembers),
    /// Give the change of the members up.
    #[prost(message, tag = "51")]
    CancelMemberChange(CancelMemberChange),
    /// The state of the member and its cluster at a glance.
    #[prost(message, tag = "1")]
    Status(StatusRequest),
    /// Every security association.
    #[prost(message, tag = "2")]
    SaList(SaListRequest),
    /// Flows and the targets they go to.
    #[prost(message, tag = "3")]
    FlowList(FlowListRequest),
    /// Every target.
    #[prost(message, tag = "4")]
    TargetList(TargetListRequest),
    /// Drain a target or take it back into service.
    #[prost(message, tag = "5")]
    TargetSet(TargetSet),
    /// The cluster as this member sees it.
    #[prost(message, tag = "6")]
    ClusterStatus(ClusterStatusRequest),
    /// Give the common address to another member.
    #[prost(message, tag = "7")]
    Handover(Handover),
    /// Why packets were dropped, and how many.
    #[prost(message, tag = "8")]
    DropReasons(DropReasonsRequest),
    /// The records of the common store.
    #[prost(message, tag = "40")]
    StoreList(StoreListRequest),
}

/// Somebody joins the cluster, leaves it, or both at once: one takes the other's place.
#[derive(Clone, PartialEq, Message)]
pub struct ChangeMembers {
    /// Who joins.
    #[prost(message, optional, tag = "1")]
    pub add: Option<NewMember>,
    /// Who leaves for good.
    #[prost(uint64, optional, tag = "2")]
    pub remove: Option<u64>,
}

/// Who joins.
#[derive(Clone, PartialEq, Message)]
pub struct NewMember {
    /// Its number, never used before in this cluster.
    #[prost(uint64, tag = "1")]
    pub member: u64,
    /// Where it listens for the others.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Whether it votes and never owns.
    #[prost(bool, tag = "3")]
    pub witness: bool,
}

/// Gives the change of the members up.
#[derive(Clone, PartialEq, Message)]
pub struct CancelMemberChange {}

/// Asks for [`Status`].
#[derive(Clone, PartialEq, Message)]
pub struct StatusRequest {}

/// Asks for [`SaList`].
#[derive(Clone, PartialEq, Message)]
pub struct SaListRequest {}

/// Asks for [`FlowList`].
#[derive(Clone, PartialEq, Message)]
pub struct FlowListRequest {
    /// At most this many flows.
    #[prost(uint32, tag = "1")]
    pub limit: u32,
}

/// Asks for [`TargetList`].
#[derive(Clone, PartialEq, Message)]
pub struct TargetListRequest {}

/// Drains a target (it gets no new flows) or takes it back into service.
#[derive(Clone, PartialEq, Message)]
pub struct TargetSet {
    /// The target's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Whether it shall drain.
    #[prost(bool, tag = "2")]
    pub draining: bool,
}

/// Asks for [`ClusterStatus`].
#[derive(Clone, PartialEq, Message)]
pub struct ClusterStatusRequest {}

/// Gives the common address to another member.
#[derive(Clone, PartialEq, Message)]
pub struct Handover {
    /// To this member; without it, to the one that is furthest ahead.
    #[prost(uint64, optional, tag = "1")]
    pub to: Option<u64>,
}

/// Asks for [`DropReasons`].
#[derive(Clone, PartialEq, Message)]
pub struct DropReasonsRequest {}

/// The answer to one [`Request`].
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// What is answered; `None` when a newer member answers something this CLI does not know.
    #[prost(oneof = "ResponseKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 40")]
    pub kind: Option<ResponseKind>,
}

/// What can be answered.
#[derive(Clone, PartialEq, Oneof, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponseKind {
    /// The request was refused or failed.
    #[prost(message, tag = "1")]
    Failure(Failure),
    /// Answers a [`StatusRequest`].
    #[prost(message, tag = "2")]
    Status(Box<Status>),
    /// Answers a [`SaListRequest`].
    #[prost(message, tag = "3")]
    SaList(SaList),
    /// Answers a [`FlowListRequest`].
    #[prost(message, tag = "4")]
    FlowList(FlowList),
    /// Answers a [`TargetListRequest`].
    #[prost(message, tag = "5")]
    TargetList(TargetList),
    /// Answers a [`ClusterStatusRequest`].
    #[prost(message, tag = "6")]
    ClusterStatus(Box<ClusterStatus>),
    /// Answers a [`DropReasonsRequest`].
    #[prost(message, tag = "7")]
    DropReasons(DropReasons),
    /// Answers an order that was carried out.
    #[prost(message, tag = "8")]
    Done(Done),
    /// Answers a [`StoreListRequest`].
    #[prost(message, tag = "40")]
    StoreList(Box<StoreList>),
}

/// An order was carried out.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct Done {
    /// Names the operation in the log.
    #[prost(uint64, tag = "1")]
    pub operation: u64,
    /// What was done, one line.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// Why a request was not carried out.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct Failure {
    /// The kind, from which the exit code follows.
    #[prost(enumeration = "FailureKind", tag = "1")]
    #[serde(serialize_with = "by_name::<FailureKind, _>")]
    pub kind: i32,
    /// What happened, one line.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What to do about it; may be empty.
    #[prost(string, tag = "3")]
    pub next_action: String,
}

/// Kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum FailureKind {
    /// It was tried and did not work.
    Failed = 0,
    /// The request makes no sense here.
    Usage = 1,
    /// The cluster is not in a state to do this.
    Degraded = 2,
    /// Only the owner can do this.
    NotOwner = 3,
}

impl Named for FailureKind {
    fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Degraded => "degraded",
            Self::NotOwner => "not_owner",
        }
    }
}

/// How well the member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Health {
    /// Nothing to do.
    Ok = 0,
    /// It works, but a further failure may not be survived.
    Degraded = 1,
    /// Nobody speaks for the common address.
    Failed = 2,
}

impl Named for Health {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

/// What a member is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum Role {
    /// Takes over when the owner fails.
    Standby = 0,
    /// Speaks for the common address.
    Owner = 1,
    /// Asks for votes, or leads without owning yet.
    Candidate = 2,
    /// Does not answer.
    Unreachable = 3,
    /// Waits out the longest lease after its start, before it votes.
    Quarantined = 4,
    /// Votes and never owns.
    Witness = 50,
}

impl Named for Role {
    fn name(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Owner => "owner",
            Self::Candidate => "candidate",
            Self::Unreachable => "unreachable",
            Self::Quarantined => "quarantined",
            Self::Witness => "witness",
        }
    }
}

/// Something is wrong, and what to do about it.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct Problem {
    /// What is wrong.
    #[prost(string, tag = "1")]
    pub what: String,
    /// The next action.
    #[prost(string, tag = "2")]
    pub next_action: String,
}

/// One ownership of the common address.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct Ownership {
    /// The owner.
    #[prost(uint64, tag = "1")]
    pub member: u64,
    /// Its boot counter.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The Raft term in which it took the address.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// Since when, as this member saw it, Unix milliseconds.
    #[prost(uint64, tag = "4")]
    pub since_unix_ms: u64,
}

/// A member as another one sees it.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct MemberInfo {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub member: u64,
    /// Its address for replication.
    #[prost(string, tag = "2")]
    pub address: String,
    /// What it is.
    #[prost(enumeration = "Role", tag = "3")]
    #[serde(serialize_with = "by_name::<Role, _>")]
    pub role: i32,
    /// Whether this is the member that answers.
    #[prost(bool, tag = "4")]
    pub this: bool,
    /// How far its log is known to agree with the leader's; only the leader knows.
    #[prost(uint64, optional, tag = "5")]
    pub matched_index: Option<u64>,
    /// Whether connections to it stand.
    #[prost(bool, tag = "6")]
    pub connected: bool,
    /// Whether it could serve, by its own account: `fit`, or what is in the way; empty when it has
    /// not been heard lately.
    #[prost(string, tag = "20")]
    pub fitness: String,
    /// Whether it votes and never owns.
    #[prost(bool, tag = "50")]
    pub witness: bool,
    /// The release of its program; empty while this member has not heard it.
    #[prost(string, tag = "51")]
    pub release: String,
    /// What its program can read and write; 0 while this member has not heard it.
    #[prost(uint32, tag = "52")]
    pub level: u32,
    /// "voter", "learner" or "leaving".
    #[prost(string, tag = "53")]
    pub standing: String,
}

/// Connections from or to members that were refused, under a name.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct Refusal {
    /// Why.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// How often since the start.
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// The cluster as one member sees it.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct ClusterStatus {
    /// The member that answers.
    #[prost(uint64, tag = "1")]
    pub member: u64,
    /// Its boot counter.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// The Raft term.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// The leader of that term.
    #[prost(uint64, optional, tag = "4")]
    pub leader: Option<u64>,
    /// Highest committed index known here.
    #[prost(uint64, tag = "5")]
    pub commit_index: u64,
    /// Highest index applied here.
    #[prost(uint64, tag = "6")]
    pub applied_index: u64,
    /// Every member.
    #[prost(message, repeated, tag = "7")]
    pub members: Vec<MemberInfo>,
    /// The owner.
    #[prost(message, optional, tag = "8")]
    pub owner: Option<Ownership>,
    /// Equal on members with equal applied index; shows that they agree.
    #[prost(string, tag = "9")]
    pub state_hash: String,
    /// Refused connections, by reason.
    #[prost(message, repeated, tag = "10")]
    pub refusals: Vec<Refusal>,
    /// What every member can read and write.
    #[prost(uint32, tag = "50")]
    pub level: u32,
    /// How far the change of the members is; empty when none is under way.
    #[prost(string, tag = "51")]
    pub change: String,
    /// Ids that were removed and are not used again.
    #[prost(uint64, repeated, tag = "52")]
    pub retired: Vec<u64>,
    /// How often a survivor was made the whole cluster.
    #[prost(uint64, tag = "53")]
    pub generation: u64,
    /// Whether a preferred member gets the address back: `never`, `idle` or `now`.
    #[prost(string, tag = "20")]
    pub takeback: String,
    /// A member gets it back only after it has been fit for so long.
    #[prost(uint64, tag = "21")]
    pub hold_down_ms: u64,
    /// The members, the one that should own first.
    #[prost(uint64, repeated, tag = "22")]
    pub preference: Vec<u64>,
    /// How many of the others could take the common address over at once; only the leader knows.
    #[prost(uint32, optional, tag = "23")]
    pub successors_ready: Option<u32>,
}

/// One IKE SA.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct IkeSa {
    /// The initiator's SPI.
    #[prost(uint64, tag = "1")]
    #[serde(serialize_with = "ike_spi")]
    pub initiator_spi: u64,
    /// The responder's SPI.
    #[prost(uint64, tag = "2")]
    #[serde(serialize_with = "ike_spi")]
    pub responder_spi: u64,
    /// The connection it belongs to.
    #[prost(string, tag = "3")]
    pub connection: String,
    /// The peer's address and port.
    #[prost(string, tag = "4")]
    pub peer: String,
    /// Who the peer proved to be.
    #[prost(string, tag = "5")]
    pub identity: String,
    /// Its state.
    #[prost(string, tag = "6")]
    pub state: String,
    /// Whether a standby could continue it.
    #[prost(bool, tag = "7")]
    pub takeover_ready: bool,
    /// What a new owner does about it: renew, sync, strict or reestablish.
    #[prost(string, tag = "30")]
    pub policy: String,
}

/// One pair of Child SAs.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct ChildSa {
    /// SPI of what we receive; names the pair.
    #[prost(uint32, tag = "1")]
    #[serde(serialize_with = "spi")]
    pub inbound_spi: u32,
    /// SPI of what we send.
    #[prost(uint32, tag = "2")]
    #[serde(serialize_with = "spi")]
    pub outbound_spi: u32,
    /// Our SPI of the IKE SA it belongs to.
    #[prost(uint64, tag = "3")]
    #[serde(serialize_with = "ike_spi")]
    pub ike_spi: u64,
    /// The connection it belongs to.
    #[prost(string, tag = "4")]
    pub connection: String,
    /// The peer's address.
    #[prost(string, tag = "5")]
    pub peer: String,
    /// Algorithm, encapsulation and sequence numbers, e.g. "aes256gcm16 udp esn".
    #[prost(string, tag = "6")]
    pub suite: String,
    /// Our side's traffic selectors.
    #[prost(string, repeated, tag = "7")]
    pub local_ts: Vec<String>,
    /// The peer's traffic selectors.
    #[prost(string, repeated, tag = "8")]
    pub remote_ts: Vec<String>,
    /// Every outbound number below this one has been granted to somebody.
    #[prost(uint64, tag = "9")]
    pub outbound_granted_end: u64,
    /// Inbound numbers at or below this one were accepted by an earlier owner or are refused.
    #[prost(uint64, tag = "10")]
    pub inbound_floor: u64,
    /// Inbound numbers above this one are refused until it is moved.
    #[prost(uint64, tag = "11")]
    pub inbound_horizon: u64,
    /// Whether a standby could continue it at once.
    #[prost(bool, tag = "12")]
    pub takeover_ready: bool,
    /// Why not; empty when ready.
    #[prost(string, tag = "13")]
    pub takeover_reason: String,
    /// What a new owner does about it: renew, sync, strict or reestablish.
    #[prost(string, tag = "30")]
    pub policy: String,
    /// How far it has come since the last takeover; empty on members that do not own it.
    #[prost(string, tag = "31")]
    pub continuity: String,
}

/// The security associations, the first of them when there are very many.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct SaList {
    /// IKE SAs.
    #[prost(message, repeated, tag = "1")]
    pub ike_sas: Vec<IkeSa>,
    /// Child SAs.
    #[prost(message, repeated, tag = "2")]
    pub child_sas: Vec<ChildSa>,
    /// How many IKE SAs there are; 0 from a member of an earlier release, which lists all.
    #[prost(uint64, tag = "3")]
    pub ike_sas_total: u64,
    /// How many Child SAs there are; 0 from a member of an earlier release, which lists all.
    #[prost(uint64, tag = "4")]
    pub child_sas_total: u64,
}

/// One flow and where it goes.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct Flow {
    /// "tcp", "udp", "icmp" or the protocol's number.
    #[prost(string, tag = "1")]
    pub protocol: String,
    /// Source address and port inside the tunnel.
    #[prost(string, tag = "2")]
    pub source: String,
    /// Destination address and port inside the tunnel.
    #[prost(string, tag = "3")]
    pub destination: String,
    /// Name of the target.
    #[prost(string, tag = "4")]
    pub target: String,
    /// Since the last packet, milliseconds.
    #[prost(uint64, tag = "5")]
    pub idle_ms: u64,
    /// The worker that carries it.
    #[prost(uint32, tag = "6")]
    pub worker: u32,
    /// "local" when its target is on the member's own host, so that it never uses the inside
    /// network; else "distributed".
    #[prost(string, tag = "60")]
    pub way: String,
}

/// Flows of this member.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct FlowList {
    /// The flows, at most as many as asked for.
    #[prost(message, repeated, tag = "1")]
    pub flows: Vec<Flow>,
    /// Whether there are more.
    #[prost(bool, tag = "2")]
    pub truncated: bool,
}

/// One target.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct Target {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its address.
    #[prost(string, tag = "2")]
    pub address: String,
    /// Its share of new flows, relative to the others'.
    #[prost(uint32, tag = "3")]
    pub weight: u32,
    /// Whether it gets no new flows.
    #[prost(bool, tag = "4")]
    pub draining: bool,
    /// Its MAC address; empty while it has not answered.
    #[prost(string, tag = "5")]
    pub mac: String,
    /// "clear" or "marked".
    #[prost(string, tag = "60")]
    pub delivery: String,
    /// Whether it knows who owns the common address: "absent" (it runs no holdfast-target),
    /// "standby" (this member has nothing to tell), "pending", "acknowledged" or "refused".
    #[prost(string, tag = "61")]
    pub notice: String,
    /// The epoch it acknowledged, or the later one it knows when it refused.
    #[prost(uint64, optional, tag = "62")]
    pub epoch: Option<u64>,
    /// How long it has not acknowledged, milliseconds.
    #[prost(uint64, optional, tag = "63")]
    pub waiting_ms: Option<u64>,
    /// How often it was told without acknowledging.
    #[prost(uint32, optional, tag = "64")]
    pub attempts: Option<u32>,
    /// Whether its services answer, when it said so lately.
    #[prost(bool, optional, tag = "65")]
    pub healthy: Option<bool>,
    /// How busy it is, when it said so lately.
    #[prost(uint32, optional, tag = "66")]
    pub load_percent: Option<u32>,
    /// TCP sockets it has in use, when it said so lately.
    #[prost(uint64, optional, tag = "67")]
    pub sockets: Option<u64>,
    /// Connections it was given by this owner.
    #[prost(uint64, tag = "68")]
    pub connections: u64,
    /// Marked packets it refused.
    #[prost(uint64, optional, tag = "69")]
    pub marks_refused: Option<u64>,
    /// Packets it dropped because they should have come marked.
    #[prost(uint64, optional, tag = "600")]
    pub clear_dropped: Option<u64>,
    /// Notices it refused as stale, of whomever.
    #[prost(uint64, optional, tag = "601")]
    pub notices_refused: Option<u64>,
    /// Whether it gets new connections, by its own account.
    #[prost(bool, tag = "602")]
    pub open: bool,
    /// The member on whose host it is, if it is one's.
    #[prost(uint64, optional, tag = "603")]
    pub member: Option<u64>,
}

/// Every target.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct TargetList {
    /// The targets, in the order of the configuration.
    #[prost(message, repeated, tag = "1")]
    pub targets: Vec<Target>,
}

/// One reason packets were dropped for.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct DropReason {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Packets.
    #[prost(uint64, tag = "2")]
    pub packets: u64,
    /// What it means, one sentence.
    #[prost(string, tag = "3")]
    pub description: String,
}

/// Every reason, also those that never happened.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct DropReasons {
    /// The reasons.
    #[prost(message, repeated, tag = "1")]
    pub reasons: Vec<DropReason>,
}

/// The state of a member and its cluster at a glance.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct Status {
    /// Version of the daemon.
    #[prost(string, tag = "1")]
    pub version: String,
    /// How well it is.
    #[prost(enumeration = "Health", tag = "2")]
    #[serde(serialize_with = "by_name::<Health, _>")]
    pub health: i32,
    /// What is wrong, the most urgent first.
    #[prost(message, repeated, tag = "3")]
    pub problems: Vec<Problem>,
    /// The common address.
    #[prost(string, tag = "4")]
    pub common_address: String,
    /// The inside address.
    #[prost(string, tag = "5")]
    pub inside_address: String,
    /// Role of the member that answers.
    #[prost(enumeration = "Role", tag = "6")]
    #[serde(serialize_with = "by_name::<Role, _>")]
    pub role: i32,
    /// What is left of this member's lease in microseconds; 0 without one.
    #[prost(uint64, tag = "7")]
    pub lease_left_us: u64,
    /// The cluster.
    #[prost(message, optional, tag = "8")]
    pub cluster: Option<ClusterStatus>,
    /// Number of IKE SAs.
    #[prost(uint32, tag = "9")]
    pub ike_sas: u32,
    /// Every Child SA.
    #[prost(message, repeated, tag = "10")]
    pub child_sas: Vec<ChildSa>,
    /// Every target.
    #[prost(message, repeated, tag = "11")]
    pub targets: Vec<Target>,
    /// Reasons with packets, the most frequent first.
    #[prost(message, repeated, tag = "12")]
    pub drops: Vec<DropReason>,
    /// The member's clock, Unix milliseconds.
    #[prost(uint64, tag = "13")]
    pub now_unix_ms: u64,
    /// The daemon's start, Unix milliseconds.
    #[prost(uint64, tag = "14")]
    pub started_unix_ms: u64,
    /// Whether the outside port has link.
    #[prost(bool, tag = "15")]
    pub outside_up: bool,
    /// Whether the inside port has link.
    #[prost(bool, tag = "16")]
    pub inside_up: bool,
    /// The implementation of AES-GCM in use, as `[dpdk] aead` names it.
    #[prost(string, tag = "17")]
    pub aead: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_enumerated_values_and_writes_spis_in_hexadecimal() {
        let sa = ChildSa { inbound_spi: 0xc0ff_ee01, ike_spi: 0x1f, ..ChildSa::default() };
        let json = serde_json::to_value(&sa).unwrap();
        assert_eq!(json["inbound_spi"], "c0ffee01");
        assert_eq!(json["ike_spi"], "000000000000001f");

        let member = MemberInfo { role: Role::Owner.into(), ..MemberInfo::default() };
        assert_eq!(serde_json::to_value(&member).unwrap()["role"], "owner");
        let newer = MemberInfo { role: 99, ..MemberInfo::default() };
        assert_eq!(serde_json::to_value(&newer).unwrap()["role"], "unknown");
    }

    #[test]
    fn a_whole_status_survives_the_wire() {
        let status = Status {
            version: "1".into(),
            health: Health::Degraded.into(),
            child_sas: vec![ChildSa { inbound_spi: 256, ..ChildSa::default() }],
            cluster: Some(ClusterStatus { leader: Some(3), ..ClusterStatus::default() }),
            ..Status::default()
        };
        let response = Response { kind: Some(ResponseKind::Status(Box::new(status))) };
        let bytes = response.encode_to_vec();
        assert_eq!(Response::decode(bytes.as_slice()).unwrap(), response);
    }

    #[test]
    fn a_request_of_a_newer_cli_decodes_to_no_kind() {
        // Field 100, an empty message.
        let request = Request::decode([0xa2u8, 0x06, 0x00].as_slice()).unwrap();
        assert_eq!(request.kind, None);
    }
}
