//! Commit before send: what IKE wants recorded, and what it may send once it is.
//!
//! ```text
//!   Ready{changes, datagrams} --push--> [waiting] --propose--> [proposed] --applied--> [free]
//!                                                                                        |
//!   datagrams leave from the front only, in order  <-------------------------------------'
//! ```
//!
//! A step without changes waits behind the steps before it: a repeated response must not leave
//! before the step that made it is committed.

use crate::limits;
use holdfast_cluster::{Mutation, StateChange, mutated, small};
use holdfast_ike::{Change, Datagram, Ready};
use holdfast_replica::ProposalId;
use std::collections::VecDeque;

#[derive(Debug)]
enum Stage {
    /// To be proposed.
    Waiting(Vec<StateChange>),
    /// In the log, to be applied.
    Proposed(ProposalId),
    /// May leave.
    Free,
}

#[derive(Debug)]
struct Step {
    stage: Stage,
    datagrams: Vec<Datagram>,
}

/// The steps of IKE on their way through the log.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    steps: VecDeque<Step>,
    /// A step was refused: IKE and the records disagree until IKE is loaded anew.
    stale: bool,
}

impl Outbox {
    /// Steps on their way.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// True when no more steps fit, so that IKE must not be given more to do.
    pub(crate) fn is_full(&self) -> bool {
        self.steps.len() >= bound() && !mutated(Mutation::QueueUnbounded)
    }

    /// True when nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// True from a refusal until IKE was loaded anew.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Takes the next step of IKE; it is lost while the outbox is stale.
    pub(crate) fn push(&mut self, mut ready: Ready) {
        if self.stale {
            return;
        }
        if mutated(Mutation::SentBeforeCommit) {
            let datagrams = std::mem::take(&mut ready.datagrams);
            self.steps.push_front(Step { stage: Stage::Free, datagrams });
        }
        let stage = if ready.changes.is_empty() {
            Stage::Free
        } else {
            Stage::Waiting(ready.changes.into_iter().map(to_record).collect())
        };
        self.steps.push_back(Step { stage, datagrams: ready.datagrams });
    }

    /// The changes to propose next.
    pub(crate) fn next_proposal(&mut self) -> Option<Vec<StateChange>> {
        self.steps.iter().find_map(|step| match &step.stage {
            Stage::Waiting(changes) => Some(changes.clone()),
            _ => None,
        })
    }

    /// What [`Self::next_proposal`] gave was proposed as `id`.
    pub(crate) fn proposed(&mut self, id: ProposalId) {
        let next = self.steps.iter_mut().find(|step| matches!(step.stage, Stage::Waiting(_)));
        if let Some(step) = next {
            step.stage = Stage::Proposed(id);
        }
    }

    /// The entry `id` was applied, or refused by every replica.
    pub(crate) fn applied(&mut self, id: ProposalId, refused: bool) {
        let step = self
            .steps
            .iter_mut()
            .find(|step| matches!(step.stage, Stage::Proposed(proposed) if proposed == id));
        let Some(step) = step else { return };
        step.stage = Stage::Free;
        if refused {
            step.datagrams.clear();
            self.spoil();
        }
    }

    /// IKE went on from a step that is not recorded: nothing of what follows may be recorded or
    /// sent.
    pub(crate) fn spoil(&mut self) {
        self.stale = true;
        self.steps.retain(|step| matches!(step.stage, Stage::Proposed(_)));
        self.steps.iter_mut().for_each(|step| step.datagrams.clear());
    }

    /// True when IKE is to be loaded anew now: stale, and nothing of it is in the log any more.
    pub(crate) fn wants_reload(&self) -> bool {
        self.stale && !self.steps.iter().any(|step| matches!(step.stage, Stage::Proposed(_)))
    }

    /// The datagrams that may leave now.
    pub(crate) fn release(&mut self) -> Vec<Datagram> {
        let mut datagrams = Vec::new();
        while self.steps.front().is_some_and(|step| matches!(step.stage, Stage::Free)) {
            datagrams.extend(self.steps.pop_front().map(|step| step.datagrams).unwrap_or_default());
        }
        datagrams
    }

    /// True while something is to be proposed.
    pub(crate) fn has_waiting(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.stage, Stage::Waiting(_)))
    }

    /// Forgets everything: another owner carries on from the records.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Steps the outbox takes.
pub(crate) fn bound() -> usize {
    small(limits::PENDING_READY_MAX, limits::PENDING_READY_SMALL)
}

fn to_record(change: Change) -> StateChange {
    let spi = |spi: holdfast_ike::IkeSpi| holdfast_cluster::IkeSpi(spi.0);
    match change {
        Change::PutIkeSa { spi: ike, connection, state } => {
            StateChange::PutIkeSa { spi: spi(ike), connection, state }
        }
        Change::DeleteIkeSa { spi: ike } => {
            // Which record is meant is known when it is proposed.
            StateChange::DeleteIkeSa { spi: spi(ike), under: None }
        }
        Change::PutChildSa { ike, parameters, replaces } => {
            StateChange::PutChildSa { ike: spi(ike), parameters, replaces }
        }
        Change::DeleteChildSa { inbound_spi } => {
            StateChange::DeleteChildSa { inbound_spi, under: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddrV4};

    fn ready(id: u64, changes: bool) -> Ready {
        let datagram = Datagram {
            local_port: 500,
            remote: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 500),
            payload: vec![u8::try_from(id).unwrap()],
        };
        let change = Change::DeleteIkeSa { spi: holdfast_ike::IkeSpi(id) };
        Ready {
            id,
            changes: changes.then_some(change).into_iter().collect(),
            datagrams: vec![datagram],
        }
    }

    fn id(index: u64) -> ProposalId {
        ProposalId { index, term: 3 }
    }

    fn sent(outbox: &mut Outbox) -> Vec<u8> {
        outbox.release().into_iter().flat_map(|datagram| datagram.payload).collect()
    }

    #[test]
    fn datagrams_leave_in_order_and_only_after_their_commit() {
        let mut outbox = Outbox::default();
        outbox.push(ready(1, true));
        outbox.push(ready(2, false));
        outbox.push(ready(3, true));
        for index in [10, 11] {
            assert!(outbox.next_proposal().is_some());
            outbox.proposed(id(index));
        }
        assert!(outbox.next_proposal().is_none());
        assert_eq!(sent(&mut outbox), []);
        outbox.applied(id(10), false);
        assert_eq!(sent(&mut outbox), [1, 2]);
        outbox.applied(id(11), false);
        assert_eq!(sent(&mut outbox), [3]);
    }

    #[test]
    fn a_step_without_changes_leaves_at_once() {
        let mut outbox = Outbox::default();
        outbox.push(ready(1, false));
        assert_eq!(sent(&mut outbox), [1]);
    }

    #[test]
    fn nothing_leaves_after_a_refusal_until_ike_is_loaded_anew() {
        let mut outbox = Outbox::default();
        for n in 1..=3 {
            outbox.push(ready(n, true));
        }
        outbox.proposed(id(10));
        outbox.proposed(id(11));
        outbox.applied(id(10), true);
        assert!(outbox.is_stale() && !outbox.wants_reload(), "entry 11 is still in the log");
        outbox.push(ready(4, false));
        assert!(outbox.next_proposal().is_none());
        outbox.applied(id(11), false);
        assert!(outbox.wants_reload());
        assert_eq!(sent(&mut outbox), []);
    }
}
