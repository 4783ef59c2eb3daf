//! Between the operator's messages and the member's types.

use super::store::store_list;
use crate::clock::{self, Calendar};
use crate::config::Config;
use crate::transport::Refusal;
use holdfast_api as api;
use holdfast_api::{Health, RequestKind, ResponseKind, Role};
use holdfast_cluster::{MemberId, MemberRecord, Owner};
use holdfast_crypto::{CryptoError, Level};
use holdfast_datapath::CountersView;
use holdfast_ike::IkeCounters;
use holdfast_ipsec::{DropReason, TrafficSelector};
use holdfast_member::{
    ChildSaReply, ClusterStatusReply, Delivery, FlowReply, IkeSaReply, MemberReply, MemberRole,
    MemberStanding, NoticeState, OperatorReply, OperatorRequest, Problem, RefusedKind,
    RefusedReply, StatusReply, TargetReply,
};
use holdfast_packet::Nanos;
use std::net::Ipv4Addr;

/// Most flows an answer lists: what fits a frame with room to spare.
const FLOWS_MAX: u32 = 20_000;

/// Most records an answer lists; each is two lines at most.
const RECORDS_MAX: u32 = 20_000;

/// What the shell knows and the member does not.
#[derive(Debug)]
pub struct Context<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The moment of the answer.
    pub now: Nanos,
    /// The dates of moments.
    pub calendar: Calendar,
    /// When the daemon started, Unix milliseconds.
    pub started_unix_ms: u64,
    /// Refused connections of members, by reason.
    pub refusals: Vec<(&'static str, u64)>,
    /// Members to whom the connections stand.
    pub connected: Vec<u64>,
    /// The sum of the workers' counters, in the layout of [`CountersView`].
    pub counters: &'a [u64],
    /// What became of IKE messages.
    pub ike: &'a IkeCounters,
}

/// Who answers a request.
#[derive(Debug)]
pub enum Question {
    /// The member.
    Member(OperatorRequest),
    /// The shell itself.
    DropReasons,
}

/// What a request of the operator asks, and whom.
#[must_use]
pub fn question(request: RequestKind) -> Question {
    Question::Member(match request {
        RequestKind::Status(_) => OperatorRequest::Status,
        RequestKind::SaList(_) => OperatorRequest::SaList,
        RequestKind::FlowList(list) => {
            let limit = list.limit.clamp(1, FLOWS_MAX);
            OperatorRequest::FlowList { limit: usize::try_from(limit).unwrap_or(1) }
        }
        RequestKind::TargetList(_) => OperatorRequest::TargetList,
        RequestKind::TargetSet(set) => {
            OperatorRequest::TargetSet { name: set.name, draining: set.draining }
        }
        RequestKind::StoreList(list) => {
            let limit = usize::try_from(list.limit.clamp(1, RECORDS_MAX)).unwrap_or(1);
            match list.address.as_str() {
                "" => OperatorRequest::StoreList { address: None, limit },
                // What is no address at all is no common address of this cluster either.
                text => {
                    let address = text.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
                    OperatorRequest::StoreList { address: Some(address), limit }
                }
            }
        }
        RequestKind::ClusterStatus(_) => OperatorRequest::ClusterStatus,
        RequestKind::Handover(handover) => {
            OperatorRequest::Handover { to: handover.to.map(MemberId) }
        }
        RequestKind::ChangeMembers(change) => OperatorRequest::ChangeMembers {
            add: change.add.map(|add| {
                (MemberId(add.member), MemberRecord { address: add.address, witness: add.witness })
            }),
            remove: change.remove.map(MemberId),
        },
        RequestKind::CancelMemberChange(_) => OperatorRequest::CancelMemberChange,
        RequestKind::DropReasons(_) => return Question::DropReasons,
    })
}

/// The member's answer in the operator's words.
#[must_use]
pub fn reply(reply: OperatorReply, context: &Context<'_>) -> ResponseKind {
    match reply {
        OperatorReply::Status(reply) => ResponseKind::Status(Box::new(status(*reply, context))),
        OperatorReply::SaList(list) => ResponseKind::SaList(api::SaList {
            ike_sas: list.ike_sas.into_iter().map(ike_sa).collect(),
            child_sas: list.child_sas.into_iter().map(child_sa).collect(),
            ike_sas_total: list.ike_sas_total as u64,
            child_sas_total: list.child_sas_total as u64,
        }),
        OperatorReply::FlowList(list) => ResponseKind::FlowList(api::FlowList {
            flows: list.flows.into_iter().map(flow).collect(),
            truncated: list.truncated || !list.silent_workers.is_empty(),
        }),
        OperatorReply::TargetList(list) => {
            ResponseKind::TargetList(api::TargetList { targets: targets(list.targets) })
        }
        OperatorReply::ClusterStatus(reply) => {
            ResponseKind::ClusterStatus(Box::new(cluster(*reply, context)))
        }
        OperatorReply::StoreList(list) => {
            ResponseKind::StoreList(Box::new(store_list(*list, context)))
        }
        OperatorReply::Done(done) => {
            ResponseKind::Done(api::Done { operation: done.operation, text: done.text })
        }
        OperatorReply::Refused(refused) => ResponseKind::Failure(failure(refused)),
    }
}

impl Context<'_> {
    /// Every reason with its count: why packets were dropped, then why IKE did not act upon a
    /// message.
    #[must_use]
    pub fn drop_reasons(&self) -> ResponseKind {
        let view = CountersView::new(self.counters);
        let packets = DropReason::ALL.iter().map(|reason| drop_reason(*reason, view));
        let messages = self.ike.refusals().map(|(refusal, count)| api::DropReason {
            name: format!("ike_{}", refusal.name()),
            packets: count,
            description: format!(
                "IKE did not act upon a message: {}.",
                refusal.name().replace('_', " ")
            ),
        });
        ResponseKind::DropReasons(api::DropReasons { reasons: packets.chain(messages).collect() })
    }
}

fn drop_reason(reason: DropReason, view: CountersView<'_>) -> api::DropReason {
    api::DropReason {
        name: reason.name().to_owned(),
        packets: view.dropped(reason),
        description: reason.description().to_owned(),
    }
}

fn status(mut reply: StatusReply, context: &Context<'_>) -> api::Status {
    add_unconnected(&mut reply, context);
    reply.problems.extend(broken_aead(Level::broken(), Level::chosen()));
    let health = match () {
        () if reply.cluster.leader.is_none() || reply.cluster.owner.is_none() => Health::Failed,
        () if !reply.problems.is_empty() => Health::Degraded,
        () => Health::Ok,
    };
    let left = reply.lease_until.map_or(0, |until| until.since(context.now));
    api::Status {
        version: env!("HOLDFAST_VERSION").to_owned(),
        health: health.into(),
        problems: reply.problems.into_iter().map(problem).collect(),
        common_address: reply.common.to_string(),
        inside_address: reply.inside.to_string(),
        role: role(reply.role).into(),
        lease_left_us: left / 1_000,
        cluster: Some(cluster(reply.cluster, context)),
        ike_sas: u32::try_from(reply.ike_sas).unwrap_or(u32::MAX),
        child_sas: reply.child_sas.into_iter().map(child_sa).collect(),
        targets: targets(reply.targets),
        drops: most_frequent_drops(context),
        now_unix_ms: clock::unix_ms(),
        started_unix_ms: context.started_unix_ms,
        outside_up: reply.outside_up,
        inside_up: reply.inside_up,
        aead: Level::chosen().name().to_owned(),
    }
}

/// An implementation of AES-GCM that this processor has the instructions for and computes wrongly:
/// a slower one serves, and something is the matter with the machine.
fn broken_aead(broken: &[(Level, CryptoError)], chosen: Level) -> Option<Problem> {
    let (level, error) = broken.first()?;
    let what = format!("AES-GCM runs at level {chosen}, for {level} gives wrong answers: {error}");
    let next_action = "replace this machine: its processor computes wrongly".to_owned();
    Some(Problem { what, next_action })
}

/// Only the leader hears of everybody, but every member sees who does not answer its calls: a
/// standby without its peers could not take over.
fn add_unconnected(reply: &mut StatusReply, context: &Context<'_>) {
    let certificates = [Refusal::ForeignCertificate, Refusal::OurCertificateRefused];
    let foreign = certificates
        .iter()
        .any(|refusal| context.refusals.iter().any(|(name, _)| *name == refusal.name()));
    let next_action = if foreign {
        "start it with a certificate of this cluster's authority"
    } else {
        "start it, or check its management address"
    };
    let others = reply.cluster.members.iter().filter(|member| !member.this);
    let absent: Vec<u64> =
        others.map(|member| member.id.0).filter(|id| !context.connected.contains(id)).collect();
    for id in absent {
        let what = format!("member {id} is not connected");
        if !reply.problems.iter().any(|problem| problem.what == what) {
            reply.problems.push(Problem { what, next_action: next_action.to_owned() });
        }
    }
}

fn most_frequent_drops(context: &Context<'_>) -> Vec<api::DropReason> {
    let view = CountersView::new(context.counters);
    let mut drops: Vec<_> = DropReason::ALL
        .iter()
        .map(|reason| drop_reason(*reason, view))
        .filter(|drop| drop.packets > 0)
        .collect();
    drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
    drops
}

pub(super) fn ownership(
    owner: Owner,
    since: Option<Nanos>,
    context: &Context<'_>,
) -> api::Ownership {
    api::Ownership {
        member: owner.member.0,
        incarnation: owner.incarnation.0,
        epoch: owner.epoch.0,
        since_unix_ms: since.map_or(0, |since| context.calendar.unix_ms(since)),
    }
}

fn cluster(reply: ClusterStatusReply, context: &Context<'_>) -> api::ClusterStatus {
    let owner = reply.owner.map(|owner| ownership(owner, reply.owner_since, context));
    let owner_id = reply.owner.map(|owner| owner.member);
    let refusals = context.refusals.iter().chain(&reply.refusals);
    api::ClusterStatus {
        member: reply.member.0,
        incarnation: reply.incarnation.0,
        term: reply.term,
        leader: reply.leader.map(|leader| leader.0),
        commit_index: reply.commit_index,
        applied_index: reply.applied_index,
        members: reply.members.iter().map(|m| member(m, owner_id, context)).collect(),
        owner,
        level: reply.level,
        generation: reply.generation,
        change: reply.change.unwrap_or_default(),
        retired: reply.retired.iter().map(|id| id.0).collect(),
        state_hash: format!("{:016x}", reply.state_hash),
        refusals: refusals
            .map(|(reason, count)| api::Refusal { reason: (*reason).to_owned(), count: *count })
            .collect(),
        takeback: reply.succession.takeback.name().to_owned(),
        hold_down_ms: reply.succession.hold_down_ms,
        preference: reply.succession.preference.iter().map(|member| member.0).collect(),
        successors_ready: reply.successors_ready.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
    }
}

fn member(reply: &MemberReply, owner: Option<MemberId>, context: &Context<'_>) -> api::MemberInfo {
    let connected = reply.this || context.connected.contains(&reply.id.0);
    let role = match () {
        () if !reply.reachable && !connected => Role::Unreachable,
        () if owner == Some(reply.id) => Role::Owner,
        () if reply.witness => Role::Witness,
        () if reply.leader => Role::Candidate,
        () => Role::Standby,
    };
    let address = context.config.cluster.members.iter().find(|peer| peer.id == reply.id.0);
    api::MemberInfo {
        member: reply.id.0,
        address: reply
            .address
            .clone()
            .or_else(|| address.map(|peer| peer.address.to_string()))
            .unwrap_or_default(),
        standing: match reply.standing {
            MemberStanding::Voter => "voter",
            MemberStanding::Learner => "learner",
            MemberStanding::Leaving => "leaving",
        }
        .to_owned(),
        role: role.into(),
        this: reply.this,
        matched_index: reply.matched_index,
        connected,
        witness: reply.witness,
        fitness: reply.fitness.map(|fitness| fitness.to_string()).unwrap_or_default(),
        release: reply.told.as_ref().map(|(release, _)| release.clone()).unwrap_or_default(),
        level: reply.told.as_ref().map_or(0, |(_, level)| *level),
    }
}

const fn role(role: MemberRole) -> Role {
    match role {
        MemberRole::Standby => Role::Standby,
        MemberRole::Candidate => Role::Candidate,
        MemberRole::Owner => Role::Owner,
        MemberRole::Quarantined => Role::Quarantined,
        MemberRole::Witness => Role::Witness,
    }
}

fn problem(problem: Problem) -> api::Problem {
    api::Problem { what: problem.what, next_action: problem.next_action }
}

fn ike_sa(sa: IkeSaReply) -> api::IkeSa {
    api::IkeSa {
        initiator_spi: sa.initiator_spi.unwrap_or(0),
        responder_spi: sa.responder_spi.unwrap_or(sa.spi.0),
        connection: sa.connection,
        peer: sa.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        identity: sa.identity,
        state: sa.state,
        takeover_ready: sa.takeover.ready,
        policy: sa.policy.name().to_owned(),
    }
}

fn child_sa(sa: ChildSaReply) -> api::ChildSa {
    api::ChildSa {
        inbound_spi: sa.inbound_spi.get(),
        outbound_spi: sa.outbound_spi.get(),
        ike_spi: sa.ike_spi.0,
        connection: sa.connection,
        peer: sa.peer.to_string(),
        suite: sa.suite,
        local_ts: sa.local.iter().map(selector).collect(),
        remote_ts: sa.remote.iter().map(selector).collect(),
        outbound_granted_end: sa.outbound_granted_end,
        inbound_floor: sa.inbound_floor,
        inbound_horizon: sa.inbound_horizon,
        takeover_ready: sa.takeover.ready,
        takeover_reason: sa.takeover.reason,
        policy: sa.policy.name().to_owned(),
        continuity: sa.continuity.map(|c| c.name().to_owned()).unwrap_or_default(),
    }
}

fn selector(selector: &TrafficSelector) -> String {
    let (first, last) = selector.addresses;
    let addresses = match prefix_length(first, last) {
        Some(32) => first.to_string(),
        Some(length) => format!("{first}/{length}"),
        None => format!("{first}-{last}"),
    };
    let protocol = match selector.protocol {
        0 => String::new(),
        number => format!(" {}", protocol(number)),
    };
    let ports = match selector.ports {
        TrafficSelector::ANY_PORT => String::new(),
        (first, last) if first == last => format!(" port {first}"),
        (first, last) => format!(" ports {first}-{last}"),
    };
    format!("{addresses}{protocol}{ports}")
}

/// The length of the prefix that is exactly this range.
fn prefix_length(first: Ipv4Addr, last: Ipv4Addr) -> Option<u32> {
    let differing = first.to_bits() ^ last.to_bits();
    let length = differing.leading_zeros();
    let host_bits = u32::MAX.checked_shr(length).unwrap_or(0);
    (differing == host_bits && first.to_bits() & host_bits == 0).then_some(length)
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    }
}

fn flow(reply: FlowReply) -> api::Flow {
    let key = reply.flow.key;
    api::Flow {
        protocol: protocol(key.protocol),
        source: format!("{}:{}", key.src, key.src_port),
        destination: format!("{}:{}", key.dst, key.dst_port),
        target: reply.target,
        idle_ms: reply.flow.idle_ms,
        worker: reply.worker,
        way: if reply.local { "local" } else { "distributed" }.to_owned(),
    }
}

fn targets(replies: Vec<TargetReply>) -> Vec<api::Target> {
    replies.into_iter().map(target).collect()
}

fn target(reply: TargetReply) -> api::Target {
    let (notice, epoch, pending) = match reply.notice {
        NoticeState::Absent => ("absent", None, None),
        NoticeState::Standby => ("standby", None, None),
        NoticeState::Pending { attempts, waiting_ms } => {
            ("pending", None, Some((attempts, waiting_ms)))
        }
        NoticeState::Acknowledged { epoch } => ("acknowledged", Some(epoch.0), None),
        NoticeState::Refused { known } => ("refused", Some(known.0), None),
    };
    let report = reply.report;
    api::Target {
        name: reply.name,
        address: reply.address.to_string(),
        weight: reply.weight,
        draining: reply.draining,
        mac: reply.mac.filter(|_| reply.up).map(|mac| mac.to_string()).unwrap_or_default(),
        delivery: match reply.delivery {
            Delivery::Clear => "clear".to_owned(),
            Delivery::Marked => "marked".to_owned(),
        },
        notice: notice.to_owned(),
        epoch,
        waiting_ms: pending.map(|(_, waiting_ms)| waiting_ms),
        attempts: pending.map(|(attempts, _)| attempts),
        healthy: report.map(|report| report.healthy),
        load_percent: report.map(|report| report.load_percent),
        sockets: report.map(|report| report.connections),
        connections: reply.connections,
        marks_refused: report.map(|report| report.marks_refused),
        clear_dropped: report.map(|report| report.clear_dropped),
        notices_refused: report.map(|report| report.notices_refused),
        open: reply.open,
        member: reply.member.map(|member| member.0),
    }
}

fn failure(refused: RefusedReply) -> api::Failure {
    let kind = match refused.kind {
        RefusedKind::Usage => api::FailureKind::Usage,
        RefusedKind::NotOwner { .. } => api::FailureKind::NotOwner,
        RefusedKind::Degraded => api::FailureKind::Degraded,
        RefusedKind::Failed => api::FailureKind::Failed,
    };
    api::Failure { kind: kind.into(), message: refused.message, next_action: refused.next_action }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_gives_wrong_answers_is_a_problem_with_its_reason() {
        assert_eq!(broken_aead(&[], Level::chosen()), None);
        let wrong = (Level::Vaes512, CryptoError::SelfTest("a tag"));
        let problem = broken_aead(&[wrong], Level::Portable).expect("there is one");
        let what = "AES-GCM runs at level portable, for vaes512 gives wrong answers: self test failed: a tag";
        assert_eq!(problem.what, what);
    }

    #[test]
    fn selectors_read_like_what_was_configured() {
        let any = |first: [u8; 4], last: [u8; 4]| TrafficSelector::range(first.into(), last.into());
        assert_eq!(selector(&any([10, 0, 0, 1], [10, 0, 0, 1])), "10.0.0.1");
        assert_eq!(selector(&any([10, 77, 0, 0], [10, 77, 255, 255])), "10.77.0.0/16");
        assert_eq!(selector(&any([0, 0, 0, 0], [255; 4])), "0.0.0.0/0");
        assert_eq!(selector(&any([10, 0, 0, 1], [10, 0, 0, 2])), "10.0.0.1-10.0.0.2");
        assert_eq!(selector(&any([10, 0, 0, 2], [10, 0, 0, 5])), "10.0.0.2-10.0.0.5");
        let web =
            TrafficSelector { protocol: 6, ports: (80, 80), ..any([10, 0, 0, 1], [10, 0, 0, 1]) };
        assert_eq!(selector(&web), "10.0.0.1 tcp port 80");
    }

    #[test]
    fn an_absurd_limit_is_cut() {
        let asked = RequestKind::FlowList(api::FlowListRequest { limit: u32::MAX });
        assert!(matches!(
            question(asked),
            Question::Member(OperatorRequest::FlowList { limit: 20_000 })
        ));
    }
}
