//! Whether somebody could take the common address over at once: the gauge, and the alarm when nobody
//! could.
//!
//! ```text
//!   bulletins --> fit? --+
//!   log ------> lag? ----+--> gauge: how many of the others could    `holdfast cluster status`
//!   connections ---------+         none --> problem, warning in the log; told again when one can
//! ```
//!
//! Only the leader hears from all, so others know no number. A member that is not ready takes over
//! all the same when no other does (`replica`, who stands when): later, and less well prepared.

use crate::event::MemberEvent;
use crate::member::Member;
use holdfast_packet::Nanos;

/// Which of the others could take over at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Successors {
    /// How many could.
    pub(crate) ready: usize,
    /// Of the rest each with what is in its way.
    pub(crate) missing: Vec<String>,
}

impl Successors {
    /// There are others, and none of them could.
    pub(crate) fn are_missing(&self) -> bool {
        self.ready == 0 && !self.missing.is_empty()
    }
}

impl Member {
    /// Which of the others could take over at once; `None` on who does not lead.
    pub(crate) fn successors(&self, now: Nanos) -> Option<Successors> {
        if !self.replica.is_leader() {
            return None;
        }
        let mut successors = Successors::default();
        for id in self.replica.configuration().members() {
            if id == self.config.id || self.replica.is_witness(id) {
                continue;
            }
            match self.in_the_way_of(now, id) {
                None => successors.ready = successors.ready.saturating_add(1),
                Some(reason) => successors.missing.push(format!("member {id}: {reason}")),
            }
        }
        Some(successors)
    }

    /// Tells when the last successor went missing, and when there is one again.
    pub(crate) fn review_readiness(&mut self, now: Nanos) {
        if !self.is_owner() {
            self.alone = false;
            return;
        }
        let Some(successors) = self.successors(now) else { return };
        if self.alone == successors.are_missing() {
            return;
        }
        self.alone = successors.are_missing();
        let address = self.config.addresses.common;
        self.event(if self.alone {
            MemberEvent::NoSuccessor { address, missing: successors.missing.join("; ") }
        } else {
            MemberEvent::SuccessorReady { address, ready: successors.ready }
        });
    }

    /// The problem for the operator, when nobody could take over.
    pub(crate) fn readiness_problem(&self, now: Nanos) -> Option<String> {
        let successors = self.successors(now).filter(|_| self.is_owner())?;
        let address = self.config.addresses.common;
        successors.are_missing().then(|| {
            format!("nobody could take {address} over at once ({})", successors.missing.join("; "))
        })
    }
}
