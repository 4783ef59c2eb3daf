//! How a member comes to think that the owner has failed, for the log: when it heard it last, and
//! whether its connections ended or it just fell silent.
//!
//! Nothing rests on it: who owns is decided by votes and leases.

use crate::event::{FailureCause, MemberEvent};
use crate::member::Member;
use holdfast_cluster::{MemberId, Owner};
use holdfast_packet::Nanos;
use holdfast_replica::Role;

/// What this member saw of an owner's failure.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Suspicion {
    /// Whose connections ended last, and when.
    lost: Option<(MemberId, Nanos)>,
    /// The owner that was given up, why, and after how long a silence.
    given_up: Option<(Owner, FailureCause, u64)>,
}

impl Suspicion {
    /// The transport lost a member.
    pub(crate) fn connection_lost(&mut self, now: Nanos, member: MemberId) {
        self.lost = Some((member, now));
    }

    /// This member asks for votes because it has not heard `owner` since `heard`.
    fn give_up(&mut self, now: Nanos, owner: Owner, heard: Nanos) {
        let disconnected =
            self.lost.is_some_and(|(member, at)| member == owner.member && at >= heard);
        let cause = if disconnected { FailureCause::Disconnected } else { FailureCause::Silent };
        self.given_up = Some((owner, cause, now.ms_since(heard)));
    }
}

impl Member {
    /// Takes note of what a change of the own role says about the owner, and tells of its failure
    /// once the others agree. A campaign while the owner is heard is a handover.
    pub(crate) fn suspect_owner(&mut self, now: Nanos, role: Role) {
        match role {
            Role::Follower => self.suspicion.given_up = None,
            Role::Candidate => {
                let heard = self.replica.leader_heard();
                let promise_ns = self.config.timing.promise_ns();
                if let (Some(owner), Some((leader, at))) = (self.replica.state().owner(), heard)
                    && owner.member == leader
                    && now.since(at) >= promise_ns
                    && self.suspicion.given_up.is_none()
                {
                    self.suspicion.give_up(now, owner, at);
                }
            }
            Role::Leader => {
                if let Some((owner, cause, detected_in_ms)) = self.suspicion.given_up.take() {
                    self.event(MemberEvent::OwnerFailed { owner, cause, detected_in_ms });
                }
            }
        }
    }
}
