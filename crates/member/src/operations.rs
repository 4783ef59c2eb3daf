//! What the operator asked for and has not been answered yet; and handing over.

use crate::event::HandoverCause;
use crate::io::Output;
use crate::limits;
use crate::member::Member;
use crate::operator::{
    DoneReply, FlowListReply, FlowReply, OperatorReply, OperatorRequest, RefusedKind, RefusedReply,
    TargetListReply,
};
use holdfast_cluster::{Command, MemberId};
use holdfast_datapath::{FlowInfo, WorkerCommand};
use holdfast_packet::Nanos;
use holdfast_replica::ProposalId;
use std::collections::BTreeSet;

/// A change waiting for its commit.
#[derive(Debug)]
struct Change {
    operator: u64,
    id: ProposalId,
    text: String,
    until: Nanos,
}

/// A listing the workers are filling.
#[derive(Debug)]
struct FlowList {
    operator: u64,
    limit: usize,
    missing: BTreeSet<u32>,
    reply: FlowListReply,
    until: Nanos,
}

/// Everything under way for the operator.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    changes: Vec<Change>,
    flow_lists: Vec<FlowList>,
}

impl Operations {
    /// When something under way must be given up.
    pub(crate) fn due(&self) -> Option<Nanos> {
        let changes = self.changes.iter().map(|change| change.until);
        changes.chain(self.flow_lists.iter().map(|list| list.until)).min()
    }
}

impl Member {
    pub(crate) fn on_operator(&mut self, now: Nanos, id: u64, request: OperatorRequest) {
        let reply = match request {
            OperatorRequest::Status => OperatorReply::Status(Box::new(self.status(now))),
            OperatorRequest::SaList => OperatorReply::SaList(self.sa_list()),
            OperatorRequest::TargetList => {
                OperatorReply::TargetList(TargetListReply { targets: self.target_replies(now) })
            }
            OperatorRequest::ClusterStatus => {
                OperatorReply::ClusterStatus(Box::new(self.cluster_status(now)))
            }
            OperatorRequest::StoreList { address, limit } => self.store_list(address, limit),
            OperatorRequest::FlowList { limit } => return self.list_flows(now, id, limit),
            OperatorRequest::TargetSet { name, draining } => {
                return self.set_target(now, id, &name, draining);
            }
            OperatorRequest::Handover { to } => return self.operator_handover(now, id, to),
            OperatorRequest::ChangeMembers { add, remove } => {
                return self.change_members(now, id, add, remove);
            }
            OperatorRequest::CancelMemberChange => return self.cancel_member_change(now, id),
        };
        self.reply(id, reply);
    }

    fn reply(&mut self, id: u64, reply: OperatorReply) {
        self.output(Output::Operator { id, reply });
    }

    pub(crate) fn refuse(&mut self, id: u64, kind: RefusedKind, message: &str, next_action: &str) {
        let (message, next_action) = (message.to_owned(), next_action.to_owned());
        self.reply(id, OperatorReply::Refused(RefusedReply { kind, message, next_action }));
    }

    pub(crate) fn refuse_not_owner(&mut self, id: u64) {
        let owner = self.replica.leader();
        let next_action = match owner {
            Some(owner) => format!("ask member {owner}"),
            None => "wait for a leader to be elected, then ask it".to_owned(),
        };
        let kind = RefusedKind::NotOwner { owner };
        self.refuse(id, kind, "only the owner can do this", &next_action);
    }

    /// Answers once the entry of a change is applied.
    pub(crate) fn await_change(&mut self, now: Nanos, operator: u64, id: ProposalId, text: String) {
        let until = now.plus_ms(limits::OPERATOR_PATIENCE_MS);
        self.operations.changes.push(Change { operator, id, text, until });
    }

    fn set_target(&mut self, now: Nanos, operator: u64, name: &str, draining: bool) {
        let Some(target) = self.config.targets.iter().find(|target| target.name == name) else {
            let names: Vec<&str> =
                self.config.targets.iter().map(|target| target.name.as_str()).collect();
            let next_action = format!("use one of: {}", names.join(", "));
            let message = format!("there is no target {name:?}");
            return self.refuse(operator, RefusedKind::Usage, &message, &next_action);
        };
        let command = Command::SetTarget { target: target.id, draining };
        if !self.replica.is_leader() {
            return self.refuse_not_owner(operator);
        }
        let busy = self.operations.changes.len() >= limits::OPERATOR_PENDING_MAX;
        match self.replica.propose(now, &command) {
            Ok(id) if !busy => {
                let verb = if draining { "drains" } else { "takes new connections" };
                self.operations.changes.push(Change {
                    operator,
                    id,
                    text: format!("target {name} {verb}"),
                    until: now.plus_ms(limits::OPERATOR_PATIENCE_MS),
                });
            }
            _ => self.refuse(
                operator,
                RefusedKind::Degraded,
                "the log takes no change now",
                "try again in a moment",
            ),
        }
    }

    /// An entry was applied: perhaps a change somebody waits for.
    pub(crate) fn operations_applied(&mut self, id: ProposalId, refused: bool) {
        let changes = &mut self.operations.changes;
        let Some(at) = changes.iter().position(|change| change.id == id) else { return };
        let change = changes.swap_remove(at);
        if refused {
            let message = format!("not done: {}", change.text);
            self.refuse(change.operator, RefusedKind::Failed, &message, "see the event log");
        } else {
            let done = DoneReply { operation: id.index, text: change.text };
            self.reply(change.operator, OperatorReply::Done(done));
        }
    }

    /// This member leads anew, or no more: what it proposed may be lost.
    pub(crate) fn operations_role_changed(&mut self, leads: bool) {
        if leads {
            return;
        }
        for change in std::mem::take(&mut self.operations.changes) {
            let message = format!("leadership moved before it was committed: {}", change.text);
            self.refuse(
                change.operator,
                RefusedKind::Failed,
                &message,
                "look whether it took effect, else ask the new owner",
            );
        }
    }

    fn list_flows(&mut self, now: Nanos, operator: u64, limit: usize) {
        if !self.is_owner() {
            return self.refuse_not_owner(operator);
        }
        if self.operations.flow_lists.len() >= limits::FLOW_LISTS_MAX {
            return self.refuse(
                operator,
                RefusedKind::Degraded,
                "too many listings under way",
                "try again in a moment",
            );
        }
        self.operations.flow_lists.push(FlowList {
            operator,
            limit,
            missing: (0..self.config.workers).collect(),
            reply: FlowListReply::default(),
            until: now.plus_ms(limits::FLOW_LIST_PATIENCE_MS),
        });
        // One more than wanted from each tells whether there are more.
        let limit = limit.saturating_add(1);
        self.command_all(|| WorkerCommand::ListFlows { limit });
    }

    pub(crate) fn on_flows(&mut self, worker: u32, flows: Vec<FlowInfo>) {
        let own = Some(self.config.id);
        let flows: Vec<FlowReply> = flows
            .into_iter()
            .map(|flow| {
                let target = self.config.targets.iter().find(|target| target.id.0 == flow.target);
                FlowReply {
                    worker,
                    target: target.map(|target| target.name.clone()).unwrap_or_default(),
                    local: target.is_some_and(|target| target.member == own),
                    flow,
                }
            })
            .collect();
        let lists = &mut self.operations.flow_lists;
        // Each worker answers in the order it was asked.
        let Some(at) = lists.iter().position(|list| list.missing.contains(&worker)) else { return };
        let Some(list) = lists.get_mut(at) else { return };
        list.missing.remove(&worker);
        list.reply.flows.extend(flows);
        if list.missing.is_empty() {
            let list = lists.remove(at);
            self.finish_flow_list(list);
        }
    }

    fn finish_flow_list(&mut self, list: FlowList) {
        let mut reply = list.reply;
        reply.truncated = reply.flows.len() > list.limit;
        reply.flows.truncate(list.limit);
        reply.silent_workers = list.missing.into_iter().collect();
        self.reply(list.operator, OperatorReply::FlowList(reply));
    }

    fn operator_handover(&mut self, now: Nanos, operator: u64, to: Option<MemberId>) {
        if !self.is_owner() {
            return self.refuse_not_owner(operator);
        }
        if to == Some(self.config.id) {
            return self.refuse(
                operator,
                RefusedKind::Usage,
                "this member is the owner already",
                "name another member",
            );
        }
        if self.handover.is_some() {
            return self.refuse(
                operator,
                RefusedKind::Degraded,
                "a handover is under way",
                "wait for it",
            );
        }
        match self.successor(now, to) {
            Ok(to) => self.begin_handover(now, to, HandoverCause::Operator, Some(operator)),
            Err(message) => self.refuse(
                operator,
                RefusedKind::Degraded,
                &message,
                "see `holdfast cluster status`; hand over when the member is connected, up to date and fit",
            ),
        }
    }

    pub(crate) fn refuse_failed(&mut self, operator: u64, why: &str) {
        let next_action = "see `holdfast cluster status` for who owns the address now";
        self.refuse(operator, RefusedKind::Failed, why, next_action);
    }

    /// Gives up what took too long.
    pub(crate) fn expire_operations(&mut self, now: Nanos) {
        let lists = std::mem::take(&mut self.operations.flow_lists);
        let (late, going): (Vec<_>, Vec<_>) = lists.into_iter().partition(|list| list.until <= now);
        self.operations.flow_lists = going;
        late.into_iter().for_each(|list| self.finish_flow_list(list));

        let changes = std::mem::take(&mut self.operations.changes);
        let (late, going): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.until <= now);
        self.operations.changes = going;
        for change in late {
            let message = format!("not committed in time, may still be: {}", change.text);
            let next_action = "see `holdfast cluster status`: is a majority connected?";
            self.refuse(change.operator, RefusedKind::Failed, &message, next_action);
        }
    }
}
