//! Changing who votes: the leader's part of a change, and what every member does with its entries.
//!
//! ```text
//!   the log says (cluster::Membership)                what the leader does next
//!   ----------------------------------                -------------------------------------
//!   every member has shown a higher level             propose it as the cluster's
//!   nobody recorded the members                       record those of the configuration file
//!   4 joins, is nobody yet                            add 4 as a learner
//!   4 joins, is a learner, has caught up              joint: 4 votes (and 2 leaves), auto-leave
//!   2 leaves                                          joint: 2 leaves, auto-leave
//!   the leader itself leaves                          hand over; the next leader goes on
//!   a learner that no change speaks of                take it out (its change was cancelled)
//! ```
//!
//! One at a time: nothing is proposed while an earlier change is not applied, the configuration is
//! joint, or leadership is being handed over.

use crate::envelope::Note;
use crate::output::Output;
use crate::store::configuration_from_raft;
use crate::{Replica, ReplicaError};
use holdfast_cluster::{Command, Effect, MemberCommand, MemberId, MemberRecord, level};
use protobuf::Message as _;
use raft::ProgressState;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry};
use std::collections::BTreeMap;

/// Entries a learner may lack when it gets its vote: what passes in some milliseconds.
const CAUGHT_UP_ENTRIES: u64 = 64;

enum Step {
    Nothing,
    Propose(Command),
    Configure(ConfChangeV2),
    HandOverTo(MemberId),
}

impl Replica {
    /// Whether this member joins and has not heard from the cluster yet.
    pub(crate) fn is_blank(&self) -> bool {
        self.configuration.is_empty()
    }

    pub(crate) fn note_of(&mut self, from: MemberId, note: Note) {
        let known = self.notes.get(&from).map(|known| known.address.as_str());
        if known != Some(note.address.as_str()) {
            self.peers_due = true;
        }
        self.notes.insert(from, note);
    }

    /// The next step of whatever is to be done about members. Returns whether something was.
    pub(crate) fn tend_members(&mut self) -> bool {
        if !self.may_tend() {
            return false;
        }
        match self.next_step() {
            Step::Nothing => false,
            Step::HandOverTo(successor) => {
                self.node.transfer_leader(successor.0);
                true
            }
            Step::Propose(command) => {
                let Ok(data) = command.encode() else { return false };
                let proposed = self.node.propose(Vec::new(), data.to_vec()).is_ok();
                self.note_tending(proposed)
            }
            Step::Configure(change) => {
                let proposed = self.node.propose_conf_change(Vec::new(), change).is_ok();
                self.note_tending(proposed)
            }
        }
    }

    fn may_tend(&self) -> bool {
        let raft = &self.node.raft;
        let waiting = self
            .tending
            .is_some_and(|(term, index)| term == raft.term && self.state.applied() < index);
        self.is_leader()
            && !self.is_witness(self.config.id)
            && raft.lead_transferee.is_none()
            && !raft.has_pending_conf()
            && !self.configuration.is_joint()
            && !waiting
    }

    fn note_tending(&mut self, proposed: bool) -> bool {
        if proposed {
            let raft = &self.node.raft;
            self.tending = Some((raft.term, raft.raft_log.last_index()));
        }
        proposed
    }

    fn next_step(&self) -> Step {
        let membership = self.state.membership();
        let shown = |id: MemberId| self.told_by(id).map_or(0, |(_, level)| level);
        let lowest = self.configuration.members().into_iter().map(shown).min().unwrap_or(0);
        if lowest.min(level::LEVEL) > membership.level() {
            let level = lowest.min(level::LEVEL);
            return Step::Propose(Command::Members(MemberCommand::RaiseLevel(level)));
        }
        if membership.level() < level::MEMBERSHIP {
            return Step::Nothing;
        }
        if membership.configuration().is_none() {
            return Step::Propose(Command::Members(MemberCommand::Record(self.configured())));
        }
        if let Some(stray) = self.stray_learner() {
            return Step::Configure(change(&[(ConfChangeType::RemoveNode, stray)], true));
        }
        let Some(wanted) = membership.change() else { return Step::Nothing };
        let joins = wanted.add.filter(|id| !self.configuration.voters.contains(id));
        let leaves = wanted.remove.filter(|id| self.configuration.contains(*id));
        if let Some(id) = joins.filter(|id| !self.configuration.learners.contains(id)) {
            return Step::Configure(change(&[(ConfChangeType::AddLearnerNode, id)], false));
        }
        if joins.is_some_and(|id| !self.has_caught_up(id)) || (joins, leaves) == (None, None) {
            return Step::Nothing;
        }
        if leaves == Some(self.config.id) {
            return self.fittest_other().map_or(Step::Nothing, Step::HandOverTo);
        }
        let steps = joins.map(|id| (ConfChangeType::AddNode, id));
        let steps = steps.into_iter().chain(leaves.map(|id| (ConfChangeType::RemoveNode, id)));
        Step::Configure(change(&steps.collect::<Vec<_>>(), true))
    }

    fn configured(&self) -> Vec<(MemberId, MemberRecord)> {
        let record = |id: MemberId| MemberRecord {
            address: self.config.addresses.get(&id).cloned().unwrap_or_default(),
            witness: self.config.witnesses.contains(&id),
        };
        self.configuration.voters.iter().map(|id| (*id, record(*id))).collect()
    }

    fn stray_learner(&self) -> Option<MemberId> {
        let change = self.state.membership().change();
        let wanted = |id: MemberId| {
            change.is_some_and(|change| change.add == Some(id) || change.remove == Some(id))
        };
        self.configuration.learners.iter().copied().find(|id| !wanted(*id))
    }

    fn has_caught_up(&self, id: MemberId) -> bool {
        let last = self.node.raft.raft_log.last_index();
        self.node.raft.prs().get(id.0).is_some_and(|progress| {
            progress.recent_active
                && progress.state == ProgressState::Replicate
                && progress.matched.saturating_add(CAUGHT_UP_ENTRIES) >= last
        })
    }

    /// The full voter that is furthest ahead, but for this one.
    fn fittest_other(&self) -> Option<MemberId> {
        let raft = &self.node.raft;
        let others = self.configuration.voters.iter().copied();
        let fit = others.filter(|id| *id != self.config.id && !self.is_witness(*id));
        let ranked = fit.filter_map(|id| {
            let progress = raft.prs().get(id.0).filter(|progress| progress.recent_active)?;
            Some((progress.matched, std::cmp::Reverse(id)))
        });
        ranked.max().map(|(_, std::cmp::Reverse(id))| id)
    }

    /// Applies an entry of Raft's own.
    ///
    /// One that Raft refuses changes nothing, here and on every member alike: whether it fits
    /// depends on the configuration before it alone.
    pub(crate) fn apply_configuration(&mut self, entry: &Entry) -> Vec<Effect> {
        let applied = ConfChangeV2::parse_from_bytes(&entry.data)
            .ok()
            .and_then(|change| self.node.apply_conf_change(&change).ok());
        let Some(members) = applied else { return self.state.apply(entry.index, &Command::Noop) };
        self.configuration = configuration_from_raft(&members);
        self.node.mut_store().set_members(members);
        self.peers_due = true;
        self.state.configure(entry.index, self.configuration.clone())
    }

    /// What follows from an applied command about members.
    pub(crate) fn members_applied(&mut self) -> Result<(), ()> {
        self.peers_due = true;
        let recorded = self.state.membership().configuration();
        match recorded.filter(|recorded| **recorded != self.configuration) {
            None => Ok(()),
            Some(recorded) => {
                let list = |members: std::collections::BTreeSet<MemberId>| {
                    members.into_iter().map(|id| id.0).collect()
                };
                let error = ReplicaError::OtherMembers {
                    recorded: list(recorded.members()),
                    configured: list(self.configuration.members()),
                };
                self.halt(error);
                Err(())
            }
        }
    }

    /// Ends a member that was taken out of the cluster.
    pub(crate) fn still_a_member(&mut self) -> Result<(), ()> {
        if self.configuration.contains(self.config.id) {
            return Ok(());
        }
        self.halt(ReplicaError::Removed(self.config.id));
        Err(())
    }

    /// Puts out where the others are, when that changed.
    pub(crate) fn announce_peers(&mut self) {
        if !std::mem::take(&mut self.peers_due) {
            return;
        }
        let membership = self.state.membership();
        let mut peers: BTreeMap<MemberId, String> = BTreeMap::new();
        let configured = self.config.addresses.iter().map(|(id, address)| (*id, address));
        let told = self.notes.iter().map(|(id, note)| (*id, &note.address));
        let recorded = membership.records().map(|(id, record)| (id, &record.address));
        for (id, address) in configured.chain(told).chain(recorded) {
            if !address.is_empty() && id != self.config.id && !membership.is_retired(id) {
                peers.insert(id, address.clone());
            }
        }
        let retired = membership.retired().collect();
        self.outputs.push_back(Output::Peers { peers, retired });
    }
}

fn change(steps: &[(ConfChangeType, MemberId)], joint: bool) -> ConfChangeV2 {
    let mut change = ConfChangeV2::default();
    if joint {
        // Also for one voter alone: there is one way for every change, and it is well tested.
        change.set_transition(ConfChangeTransition::Implicit);
    }
    for (kind, id) in steps {
        let mut step = ConfChangeSingle::default();
        step.set_change_type(*kind);
        step.node_id = id.0;
        change.mut_changes().push(step);
    }
    change
}
