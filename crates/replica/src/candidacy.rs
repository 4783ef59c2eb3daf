//! Who asks for votes, and when: the order in which members stand after a leader fell silent.
//!
//! ```text
//!   silence   6 ticks     7      9      11     13      15
//!   (default) |promises   |full, fit    |full, not     |witnesses
//!             |have ended |A     B      |A     B       |
//! ```
//!
//! Each place is [`Timing::stagger_ticks`](crate::Timing) behind the one before, and taken by the ids
//! of those that are left: the leader that fell silent has none. So the successor does not depend on
//! chance, and two members ask in the same moment only when they disagree about who led; pre-votes
//! and the next, unequal timeouts settle that.
//!
//! A member that is *not fit* (the member above says so: its SAs are not ready, a port is down) or
//! *behind* (its leader named an entry as committed that it has not) stands behind all that may be fit.
//! It waits no longer: if nobody else stands, an unprepared owner is better than none. With `n`
//! full members left it stands `n` places later, 20 ms with the default timing and three members.
//!
//! None of this is a safeguard: whoever stands, [`lease`](crate::lease) holds.

use crate::config::RANK_MAX;
use crate::replica::Replica;
use holdfast_cluster::MemberId;
use raft::eraftpb::{Message, MessageType};

impl Replica {
    /// Tells whether this member could serve at once if it were elected. One that could not lets
    /// others stand first; until told otherwise a member could.
    pub fn set_fit(&mut self, fit: bool) {
        if self.fit != fit {
            self.fit = fit;
            self.stagger();
        }
    }

    /// Replaces the election timeout that raft-rs drew by the one of this member's rank.
    pub(crate) fn stagger(&mut self) {
        let ticks = self.config.timing.election_ticks_of(self.rank());
        let raft = &mut self.node.raft;
        raft.set_randomized_election_timeout(usize::try_from(ticks).unwrap_or(usize::MAX));
    }

    /// The place of this member among those that may stand: fit full members, full members that are
    /// not, witnesses; each by their ids, without the leader this member waits for.
    fn rank(&self) -> u64 {
        // Known to a follower only: who asked in vain forgets it, and counts everybody.
        let silent = MemberId(self.node.raft.leader_id);
        let own = self.config.id;
        let left = || {
            let voters = self.configuration.voters.union(&self.configuration.outgoing);
            voters.copied().filter(|id| *id != silent)
        };
        let witness = self.is_witness(own);
        let full = left().filter(|id| !self.is_witness(*id)).count();
        let before = left().filter(|id| self.is_witness(*id) == witness && *id < own).count();
        let places_ahead = match (witness, self.fit && !self.is_behind()) {
            (false, true) => 0,
            (false, false) => full,
            (true, _) => full.saturating_mul(2),
        };
        (places_ahead.saturating_add(before) as u64).min(RANK_MAX)
    }

    /// Whether this member lacks an entry of which it knows that it is committed.
    fn is_behind(&self) -> bool {
        self.commit_heard > self.node.raft.raft_log.last_index()
    }

    /// After a transfer that came to nothing this leader has no lease in its term any more. It
    /// campaigns for the next one, with the force of a transfer: the only lease the others could
    /// be loyal to was its own. Returns whether it did.
    pub(crate) fn reclaim_leadership(&mut self) -> bool {
        let (term, id) = (self.term(), self.config.id.0);
        let stranded = self.is_leader()
            && !self.is_witness(self.config.id)
            && self.lease.is_suspended(term)
            && self.node.raft.lead_transferee.is_none();
        if stranded {
            self.node.raft.become_follower(term, raft::INVALID_ID);
            let mut campaign = Message::default();
            campaign.set_msg_type(MessageType::MsgTimeoutNow);
            (campaign.from, campaign.to, campaign.term) = (id, id, term);
            let _ignored = self.node.raft.step(campaign);
        }
        stranded
    }

    /// A witness is elected only when its log is longer than that of every full member that
    /// lives: it hands on what they lack, and then the leadership. Returns whether it began to.
    pub(crate) fn abdicate(&mut self) -> bool {
        let raft = &self.node.raft;
        if !self.is_leader() || !self.is_witness(self.config.id) || raft.lead_transferee.is_some() {
            return false;
        }
        let heir =
            self.configuration.voters.iter().filter(|id| !self.is_witness(**id)).filter_map(|id| {
                let progress = raft.prs().get(id.0).filter(|progress| progress.recent_active)?;
                Some((progress.matched, std::cmp::Reverse(*id)))
            });
        let Some((_, std::cmp::Reverse(heir))) = heir.max() else { return false };
        self.node.transfer_leader(heir.0);
        true
    }
}
