//! Who the members are, as the log tells it: their addresses and roles, the change under way, and
//! who left for good.
//!
//! ```text
//!   BeginMemberChange ----> learner added ----> caught up ----> joint ----> one majority again
//!     (one at a time)       (Raft entry)        (the leader      (Raft       (Raft entry; the
//!                                                waits)           entry)      change is over)
//! ```
//!
//! The leader makes the Raft entries from what is recorded here, so a change goes on under whoever
//! leads next. An id that was removed is never used again: whoever comes with it may have
//! forgotten what it had acknowledged.

mod codec;

use crate::effect::{Effect, Refusal};
use crate::{Configuration, MemberId, State, limits};
use std::collections::{BTreeMap, BTreeSet};

/// How the others reach a member, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Where it listens for the others, `ADDRESS:PORT`; opaque here.
    pub address: String,
    /// Whether it votes and never owns.
    pub witness: bool,
}

/// A change of the members under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// The index of the entry that began it.
    pub begun: u64,
    /// Who joins.
    pub add: Option<MemberId>,
    /// Who leaves.
    pub remove: Option<MemberId>,
}

/// Everything the log says about members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub(crate) level: u32,
    pub(crate) generation: u64,
    /// `None` until the members were recorded: those of the configuration file vote.
    pub(crate) configuration: Option<Configuration>,
    pub(crate) records: BTreeMap<MemberId, MemberRecord>,
    pub(crate) retired: BTreeSet<MemberId>,
    pub(crate) change: Option<MemberChange>,
}

impl Membership {
    /// What every member can read and write: [`crate::level`].
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level.max(crate::level::FIRST)
    }

    /// How often the members were forced to be others than the log had agreed upon.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Who votes, once that is recorded.
    #[must_use]
    pub fn configuration(&self) -> Option<&Configuration> {
        self.configuration.as_ref()
    }

    /// What is recorded of a member.
    #[must_use]
    pub fn record(&self, member: MemberId) -> Option<&MemberRecord> {
        self.records.get(&member)
    }

    /// What is recorded of all members, in the order of their ids.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (MemberId, &MemberRecord)> {
        self.records.iter().map(|(member, record)| (*member, record))
    }

    /// Whether `member` was removed and may not come back.
    #[must_use]
    pub fn is_retired(&self, member: MemberId) -> bool {
        self.retired.contains(&member)
    }

    /// Who was removed, in the order of the ids.
    pub fn retired(&self) -> impl ExactSizeIterator<Item = MemberId> {
        self.retired.iter().copied()
    }

    /// The change under way.
    #[must_use]
    pub fn change(&self) -> Option<MemberChange> {
        self.change
    }

    /// Whether `member` votes and never owns, by what is recorded.
    #[must_use]
    pub fn is_witness(&self, member: MemberId) -> bool {
        self.record(member).is_some_and(|record| record.witness)
    }

    fn full_voters(&self, without: Option<MemberId>) -> usize {
        let voters = self.configuration.iter().flat_map(|configuration| &configuration.voters);
        voters.filter(|id| Some(**id) != without && !self.is_witness(**id)).count()
    }

    fn raise_level(&mut self, level: u32) -> Vec<Effect> {
        self.level = self.level.max(level);
        Vec::new()
    }

    /// The members of the configuration file become those of the log, once.
    fn record_all(&mut self, members: &[(MemberId, MemberRecord)]) -> Vec<Effect> {
        if self.configuration.is_some() {
            return Vec::new();
        }
        self.records = members.iter().cloned().collect();
        self.configuration = Some(Configuration::of_voters(self.records.keys().copied()));
        vec![Effect::MembersChanged]
    }

    fn begin(
        &mut self,
        begun: u64,
        add: Option<&(MemberId, MemberRecord)>,
        remove: Option<MemberId>,
    ) -> Result<Vec<Effect>, Refusal> {
        let Some(configuration) = &self.configuration else {
            return Err(Refusal::MembersNotRecorded);
        };
        if self.change.is_some() || configuration.is_joint() {
            return Err(Refusal::MemberChangeUnderWay);
        }
        if let Some((member, record)) = add {
            if self.retired.contains(member) {
                return Err(Refusal::MemberRetired(*member));
            }
            if configuration.contains(*member) || member.0 == 0 {
                return Err(Refusal::MemberExists(*member));
            }
            if record.address.len() > limits::MEMBER_ADDRESS_BYTES_MAX {
                return Err(Refusal::TooLarge("the address of a member"));
            }
            let leaving = usize::from(remove.is_some());
            if configuration.voters.len().saturating_sub(leaving) >= limits::MEMBERS_MAX {
                return Err(Refusal::TooManyMembers);
            }
        }
        if let Some(member) = remove {
            if !configuration.contains(member) {
                return Err(Refusal::NoSuchMember(member));
            }
            let joins = add.is_some_and(|(_, record)| !record.witness);
            if self.full_voters(Some(member)) == 0 && !joins {
                return Err(Refusal::LastFullMember(member));
            }
            if self.retired.len() >= limits::RETIRED_MEMBERS_MAX {
                return Err(Refusal::TooManyMembers);
            }
        }
        if add.is_none() && remove.is_none() {
            return Err(Refusal::TooLarge("a change of nothing"));
        }
        if let Some((member, record)) = add {
            self.records.insert(*member, record.clone());
        }
        let add = add.map(|(member, _)| *member);
        self.change = Some(MemberChange { begun, add, remove });
        Ok(vec![Effect::MembersChanged])
    }

    /// Whoever was to join leaves again; whoever was to leave stays.
    fn cancel(&mut self) -> Result<Vec<Effect>, Refusal> {
        let (Some(change), Some(configuration)) = (self.change, &self.configuration) else {
            return Err(Refusal::NoMemberChange);
        };
        let joined = change.add.filter(|member| configuration.learners.contains(member));
        let begun = change.add.filter(|member| !configuration.contains(*member));
        match (joined, begun) {
            (Some(member), _) => {
                self.change = Some(MemberChange { add: None, remove: Some(member), ..change });
            }
            // Should it be in the log already that it learns, the leader takes it out again.
            (None, Some(member)) => {
                self.records.remove(&member);
                self.change = None;
            }
            // Nothing to take back before the old and the new majority were asked.
            (None, None) if !configuration.is_joint() && change.add.is_none() => self.change = None,
            (None, None) => return Err(Refusal::TooLateToCancel),
        }
        Ok(vec![Effect::MembersChanged])
    }

    /// Raft's configuration changed.
    fn configure(&mut self, configuration: Configuration) -> Vec<Effect> {
        if let Some(change) = self.change {
            let joined = change.add.is_none_or(|member| configuration.voters.contains(&member));
            let left = change.remove.is_none_or(|member| !configuration.contains(member));
            if joined && left && !configuration.is_joint() {
                self.change = None;
            }
        }
        let before = self.configuration.take().unwrap_or_default().members();
        for member in before.into_iter().filter(|member| !configuration.contains(*member)) {
            self.records.remove(&member);
            self.retired.insert(member);
        }
        self.configuration = Some(configuration);
        vec![Effect::MembersChanged]
    }

    /// One member becomes the whole cluster. `first` are the members it was started with: a log
    /// that is young has no other word of them.
    fn force(&mut self, survivor: MemberId, first: &[MemberId]) {
        let before = self.configuration.take().unwrap_or_default().members();
        let known = self.records.keys().chain(first).copied().chain(before);
        let others = known.filter(|id| *id != survivor);
        self.retired.extend(others.collect::<Vec<_>>());
        self.records.retain(|id, _| *id == survivor);
        self.configuration = Some(Configuration::of_voters([survivor]));
        self.change = None;
        self.generation = self.generation.saturating_add(1);
    }
}

/// A command about members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberCommand {
    /// Every member reads and writes this level.
    RaiseLevel(u32),
    /// The members of the configuration file, before any change.
    Record(Vec<(MemberId, MemberRecord)>),
    /// Somebody joins, or leaves, or both at once.
    Begin {
        /// Who joins, under an id never used before.
        add: Option<(MemberId, MemberRecord)>,
        /// Who leaves for good.
        remove: Option<MemberId>,
    },
    /// The change under way is given up.
    Cancel,
}

impl State {
    /// What the log says about members.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    pub(crate) fn change_members(
        &mut self,
        index: u64,
        command: &MemberCommand,
    ) -> Result<Vec<Effect>, Refusal> {
        let membership = &mut self.membership;
        match command {
            MemberCommand::RaiseLevel(level) => Ok(membership.raise_level(*level)),
            MemberCommand::Record(members) => Ok(membership.record_all(members)),
            MemberCommand::Begin { add, remove } => membership.begin(index, add.as_ref(), *remove),
            MemberCommand::Cancel => membership.cancel(),
        }
    }

    /// Applies the entry at `index`, which made Raft's configuration this one.
    pub fn configure(&mut self, index: u64, configuration: Configuration) -> Vec<Effect> {
        if !self.advance_applied(index) {
            return Vec::new();
        }
        self.membership.configure(configuration)
    }

    /// The operator's override after the loss of a quorum: `survivor` alone is the cluster from
    /// the entry at `index` on. The ids of all others are retired, also of those among `first`,
    /// the members it was started with.
    ///
    /// Law 2 holds because every SA is dropped with its keys. The others may have committed
    /// grants, and sent with the numbers, that this log does not hold; so of no SA in it is a
    /// number known that was surely not used. With the keys gone no number of theirs is used
    /// again by this cluster, and what peers negotiate anew has keys of its own.
    pub fn force_quorum(&mut self, index: u64, survivor: MemberId, first: &[MemberId]) {
        if !self.advance_applied(index) {
            return;
        }
        self.drop_all_sas();
        self.membership.force(survivor, first);
    }
}

#[cfg(test)]
mod tests;
