//! Who votes. Raft's own words: voters, learners, joint configurations.

use crate::MemberId;
use std::collections::BTreeSet;

/// The members by what they do in Raft, in one place of the log.
///
/// While `outgoing` is not empty the configuration is *joint*: whatever needs a majority needs one
/// of `voters` and one of `outgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Who votes.
    pub voters: BTreeSet<MemberId>,
    /// Who voted before, while the change is under way.
    pub outgoing: BTreeSet<MemberId>,
    /// Who receives the log and does not vote.
    pub learners: BTreeSet<MemberId>,
    /// Who will be a learner once the change is over.
    pub learners_next: BTreeSet<MemberId>,
    /// Whether the leader ends the joint configuration by itself.
    pub auto_leave: bool,
}

impl Configuration {
    /// Nothing but voters.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = MemberId>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// Whether nobody is in it: a member that joins and has not heard from the cluster yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty() && self.learners.is_empty()
    }

    /// Whether a change is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the vote of `member` counts.
    #[must_use]
    pub fn is_voter(&self, member: MemberId) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// Whether `member` has any part in it.
    #[must_use]
    pub fn contains(&self, member: MemberId) -> bool {
        self.is_voter(member)
            || self.learners.contains(&member)
            || self.learners_next.contains(&member)
    }

    /// Everybody in it, in the order of their ids.
    #[must_use]
    pub fn members(&self) -> BTreeSet<MemberId> {
        let lists = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        lists.into_iter().flatten().copied().collect()
    }

    /// The greatest value that a majority has reached, in a joint configuration a majority of
    /// either half; `None` when so many have no value.
    pub fn reached<T: Ord + Copy>(&self, value: impl Fn(MemberId) -> Option<T>) -> Option<T> {
        let half = |members: &BTreeSet<MemberId>| {
            let mut values: Vec<T> = members.iter().filter_map(|member| value(*member)).collect();
            values.sort_unstable_by(|one, other| other.cmp(one));
            values.get(members.len() / 2).copied()
        };
        let incoming = half(&self.voters)?;
        if self.is_joint() {
            half(&self.outgoing).map(|old| old.min(incoming))
        } else {
            Some(incoming)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    #[test]
    fn a_joint_configuration_needs_a_majority_of_either_half() {
        let joint = Configuration {
            voters: ids(&[3, 4, 5]),
            outgoing: ids(&[1, 2, 3]),
            ..Configuration::default()
        };
        let only = |known: &'static [u64]| {
            move |member: MemberId| known.contains(&member.0).then_some(member.0)
        };
        assert_eq!(joint.reached(only(&[3, 4, 5])), None, "one of the old voters is no majority");
        assert_eq!(joint.reached(only(&[1, 2, 3])), None, "one of the new voters is no majority");
        assert_eq!(joint.reached(only(&[1, 3, 5])), Some(1), "the weaker half decides");
        assert_eq!(joint.members(), ids(&[1, 2, 3, 4, 5]));
    }

    #[test]
    fn learners_count_for_nothing() {
        let mut configuration = Configuration::of_voters([1, 2].map(MemberId));
        configuration.learners = ids(&[3]);
        let all = |member: MemberId| Some(member.0);
        assert_eq!(configuration.reached(all), Some(1), "both of two");
        assert!(configuration.contains(MemberId(3)) && !configuration.is_voter(MemberId(3)));
        assert_eq!(Configuration::default().reached(all), None);
    }
}
