//! Answers about the state of things.

use crate::limits;
use crate::member::Member;
use crate::notices::NoticeState;
use crate::operator::{
    ChildSaReply, ClusterStatusReply, IkeSaReply, MemberReply, MemberRole, MemberStanding, Problem,
    SaListReply, StatusReply, TakeoverReadiness, TargetReply,
};
use crate::ownership::Ownership;
use holdfast_cluster::{ChildRecord, IkeSpi, MemberId};
use holdfast_ipsec::Encapsulation;
use holdfast_packet::{Nanos, Side};
use holdfast_replica::Role;
use std::collections::{BTreeMap, BTreeSet};

impl Member {
    pub(crate) fn status(&self, now: Nanos) -> StatusReply {
        let state = self.replica.state();
        let readiness = self.readiness();
        StatusReply {
            member: self.config.id,
            role: self.role(now),
            lease_until: self.replica.lease_until(now).filter(|_| self.is_owner()),
            common: self.config.addresses.common,
            inside: self.config.addresses.inside,
            outside_up: self.health.is_up(Side::Outside),
            inside_up: self.health.is_up(Side::Inside),
            problems: self.problems(now),
            cluster: self.cluster_status(now),
            ike_sas: state.ike_sas().len(),
            child_sas: state
                .children()
                .take(limits::STATUS_CHILDREN_MAX)
                .map(|child| self.child_reply(child, &readiness))
                .collect(),
            child_sas_total: state.children().len(),
            targets: self.target_replies(now),
        }
    }

    fn role(&self, now: Nanos) -> MemberRole {
        match self.ownership {
            Ownership::Owning { .. } => MemberRole::Owner,
            Ownership::Claiming { .. } => MemberRole::Candidate,
            Ownership::Standby if now < self.quarantine_until => MemberRole::Quarantined,
            Ownership::Standby if self.config.is_witness() => MemberRole::Witness,
            Ownership::Standby => match self.replica.role() {
                Role::Candidate | Role::Leader => MemberRole::Candidate,
                Role::Follower => MemberRole::Standby,
            },
        }
    }

    pub(crate) fn cluster_status(&self, now: Nanos) -> ClusterStatusReply {
        let status = self.replica.status();
        let state = self.replica.state();
        let members = self.replica.configuration().members().into_iter().map(|id| {
            let progress = status.members.iter().find(|member| member.id == id);
            let this = id == self.config.id;
            let leads = status.leader == Some(id);
            MemberReply {
                id,
                this,
                leader: leads,
                // A follower hears of nobody but its leader.
                reachable: progress.map_or(this || leads, |member| member.active),
                matched_index: progress.map(|member| member.matched),
                witness: self.replica.is_witness(id),
                standing: self.standing(id),
                address: state.membership().record(id).map(|record| record.address.clone()),
                fitness: if this {
                    (!self.config.is_witness()).then(|| self.own_fitness())
                } else {
                    self.fellows.fitness(now, id)
                },
                told: self.replica.told_by(id).map(|(release, level)| (release.to_owned(), level)),
            }
        });
        ClusterStatusReply {
            succession: self.config.succession.clone(),
            member: self.config.id,
            incarnation: self.config.incarnation,
            term: status.term,
            leader: status.leader,
            commit_index: status.commit,
            applied_index: status.applied,
            owner: state.owner(),
            owner_since: self.owner_since,
            members: members.collect(),
            successors_ready: self.successors(now).map(|successors| successors.ready),
            level: state.membership().level(),
            generation: state.membership().generation(),
            change: self.member_change(),
            retired: state.membership().retired().collect(),
            state_hash: state.hash(),
            refusals: self.refusals.iter().map(|(name, count)| (*name, *count)).collect(),
        }
    }

    fn standing(&self, id: MemberId) -> MemberStanding {
        let configuration = self.replica.configuration();
        if configuration.voters.contains(&id) {
            MemberStanding::Voter
        } else if configuration.learners.contains(&id) {
            MemberStanding::Learner
        } else {
            MemberStanding::Leaving
        }
    }

    pub(crate) fn sa_list(&self) -> SaListReply {
        let state = self.replica.state();
        let readiness = self.readiness();
        let mut running: BTreeMap<IkeSpi, IkeSaReply> = BTreeMap::new();
        for (spi, record) in state.ike_sas().take(limits::SA_LIST_MAX) {
            let reply = IkeSaReply {
                initiator_spi: None,
                responder_spi: None,
                spi,
                connection: record.connection.to_string(),
                peer: None,
                identity: String::new(),
                state: "replicated".to_owned(),
                takeover: readiness.clone(),
                policy: self.policy(&record.connection),
            };
            running.insert(spi, reply);
        }
        self.add_running_ike_sas(&mut running);
        let children = state.children().take(limits::SA_LIST_MAX);
        SaListReply {
            ike_sas_total: state.ike_sas().len().max(running.len()),
            ike_sas: running.into_values().take(limits::SA_LIST_MAX).collect(),
            child_sas: children.map(|child| self.child_reply(child, &readiness)).collect(),
            child_sas_total: state.children().len(),
        }
    }

    /// What only the machine that runs them knows of IKE SAs.
    fn add_running_ike_sas(&self, replies: &mut BTreeMap<IkeSpi, IkeSaReply>) {
        if !self.is_owner() {
            return;
        }
        for sa in self.ike.sas().take(limits::SA_LIST_MAX) {
            let spi = IkeSpi(sa.spi.0);
            let reply = replies.entry(spi).or_insert_with(|| IkeSaReply {
                initiator_spi: None,
                responder_spi: None,
                spi,
                connection: sa.connection.to_string(),
                peer: None,
                identity: String::new(),
                state: String::new(),
                takeover: TakeoverReadiness {
                    ready: false,
                    reason: "not committed yet".to_owned(),
                },
                policy: self.policy(&sa.connection),
            });
            reply.initiator_spi = Some(sa.spi_i);
            reply.responder_spi = Some(sa.spi_r);
            reply.peer = Some(sa.peer);
            reply.identity = sa.identity.to_string();
            reply.state = sa.state.to_string();
        }
    }

    fn child_reply(&self, child: &ChildRecord, readiness: &TakeoverReadiness) -> ChildSaReply {
        let parameters = &child.parameters;
        let esn = if parameters.esn { ", ESN" } else { "" };
        let encapsulation = match parameters.encapsulation {
            Encapsulation::Esp => "",
            Encapsulation::Udp { .. } => ", in UDP",
        };
        ChildSaReply {
            inbound_spi: parameters.inbound_spi,
            outbound_spi: parameters.outbound_spi,
            ike_spi: child.ike,
            connection: parameters.connection.clone(),
            peer: parameters.remote,
            suite: format!("{:?}{esn}{encapsulation}", parameters.inbound_key.algorithm()),
            local: parameters.selectors.local.clone(),
            remote: parameters.selectors.remote.clone(),
            outbound_granted_end: child.outbound_high,
            inbound_floor: child.floor,
            inbound_horizon: child.horizon,
            takeover: readiness.clone(),
            policy: self.policy(&parameters.connection),
            continuity: self.is_owner().then(|| self.renewals.continuity(parameters.inbound_spi)),
        }
    }

    pub(crate) fn target_replies(&self, now: Nanos) -> Vec<TargetReply> {
        let state = self.replica.state();
        let reply = |target: &crate::TargetConfig| {
            let news = self.notices.news(now, target.id);
            TargetReply {
                id: target.id,
                name: target.name.clone(),
                address: target.address,
                weight: target.weight,
                draining: state.is_draining(target.id),
                mac: self.inside.mac(target.address),
                up: self.inside.is_up(target.address),
                delivery: target.delivery,
                member: target.member,
                notice: news.map_or(NoticeState::Absent, |news| news.state),
                overdue: news.is_some_and(|news| news.overdue),
                refused: news.map_or(0, |news| news.refused),
                report: news.and_then(|news| news.report),
                open: self.notices.standing(target.id).open,
                connections: if self.is_owner() { self.tables.connections(target.id) } else { 0 },
            }
        };
        self.config.targets.iter().map(reply).collect()
    }

    /// Whether the committed records could be carried on by a successor now: without this member
    /// the others must still be a majority.
    pub(crate) fn readiness(&self) -> TakeoverReadiness {
        let status = self.replica.status();
        let configuration = self.replica.configuration();
        let all = configuration.members().len();
        if !self.replica.is_leader() {
            let reason = match status.leader {
                Some(leader) => {
                    format!("committed; whether a successor is ready, member {leader} knows")
                }
                None => "committed; nobody leads at the moment".to_owned(),
            };
            return TakeoverReadiness { ready: status.leader.is_some(), reason };
        }
        let others = status.members.iter().filter(|member| member.id != self.config.id);
        let active: BTreeSet<_> =
            others.filter(|member| member.active).map(|member| member.id).collect();
        let connected = active.len();
        let majority = configuration.reached(|id| active.contains(&id).then_some(())).is_some();
        let full = active.iter().any(|id| !self.replica.is_witness(*id));
        let ready = majority && full;
        let reason = if majority && !full {
            "committed, but only witnesses are connected, and they own nothing".to_owned()
        } else if ready {
            format!(
                "committed; {connected} of {} other members are connected",
                all.saturating_sub(1)
            )
        } else {
            let quorum = all / 2 + 1;
            format!(
                "committed, but only {connected} other members are connected and {quorum} must be"
            )
        };
        TakeoverReadiness { ready, reason }
    }

    /// What is not as it should be, worst first.
    fn problems(&self, now: Nanos) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |what: String, next_action: &str| {
            problems.push(Problem { what, next_action: next_action.to_owned() });
        };
        if self.is_owner() && !self.speaks(now) {
            add(
                "the owner has no lease and is silent".to_owned(),
                "check the management network: a majority of members must be connected",
            );
        }
        if self.replica.leader().is_none() {
            add("no member leads".to_owned(), "start enough members for a majority");
        }
        for side in Side::ALL.into_iter().filter(|side| !self.health.is_up(*side)) {
            add(
                format!("the {} port has no link", side.name()),
                "check cable, switch port and driver",
            );
        }
        for worker in self.health.stalled() {
            add(
                format!("worker {worker} does not poll"),
                "check its processor; restart this member",
            );
        }
        let own = self.config.id;
        let configuration = self.replica.configuration();
        if configuration.is_empty() {
            add(
                "this member joins and has not heard from the cluster yet".to_owned(),
                "run `holdfast cluster add` (or replace) at the owner, and check the addresses",
            );
        } else if !configuration.voters.contains(&own) && !configuration.learners.contains(&own) {
            add("this member was removed from the cluster".to_owned(), "stop it");
        }
        for member in self.replica.status().members.iter().filter(|member| !member.active) {
            add(
                format!("member {} is not connected", member.id),
                "start it, or check its management address",
            );
        }
        if let Some(what) = self.readiness_problem(now) {
            add(what, "see `holdfast cluster status`: what does each member lack?");
        }
        self.target_problems(now, &mut add);
        if !self.loading.is_done() {
            let left = self.loading.left();
            add(format!("{left} SAs are still being taken over"), "nothing; this ends by itself");
        }
        self.renewal_problems(&mut add);
        problems
    }

    fn renewal_problems(&self, add: &mut impl FnMut(String, &str)) {
        let census = self.renewals.census();
        if census.failed > 0 {
            add(
                format!("{} child SAs could not be renewed after the takeover", census.failed),
                "look at their peers: holdfast sa list",
            );
        }
        if census.ambiguous > 0 {
            add(
                format!("{} child SAs are in the ambiguous zone (strict)", census.ambiguous),
                "nothing; each ends when its peer has counted beyond it",
            );
        }
        let waiting = census.waiting.saturating_add(census.renewing);
        if waiting > 0 {
            add(
                format!("{waiting} child SAs wait to be renewed after the takeover"),
                "nothing; this ends by itself",
            );
        }
    }

    fn target_problems(&self, now: Nanos, add: &mut impl FnMut(String, &str)) {
        if self.config.is_witness() {
            return;
        }
        let targets = self.target_replies(now);
        let serves = |target: &TargetReply| {
            target.up && !target.draining && target.weight > 0 && target.open
        };
        if !targets.iter().any(serves) {
            add(
                "no target takes new connections".to_owned(),
                "start one, or take one back into service",
            );
        }
        for target in targets.iter().filter(|target| !target.up) {
            add(
                format!("target {} ({}) does not answer ARP", target.name, target.address),
                "start it, or check the inside network",
            );
        }
        for target in &targets {
            self.notice_problems(target, add);
        }
    }

    fn notice_problems(&self, target: &TargetReply, add: &mut impl FnMut(String, &str)) {
        let name = &target.name;
        let look_there = "see `holdfast-target status` there";
        if target.overdue {
            let count = target.connections;
            add(
                format!("target {name} ({count} connections) has not acknowledged the owner"),
                look_there,
            );
        }
        if let NoticeState::Refused { known } = target.notice {
            add(
                format!("target {name} follows the owner of epoch {known}"),
                "see `holdfast cluster status` on the other members: who is the owner?",
            );
        }
        if target.report.is_some_and(|report| !report.healthy) {
            add(format!("target {name} says that its services do not answer"), look_there);
        }
    }
}
