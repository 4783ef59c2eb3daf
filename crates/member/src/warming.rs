//! SAs made ready on a standby, so that a takeover only has to give them numbers.
//!
//! ```text
//!   standby   record applied --a slice now and then--> [prepared: expanded keys, selectors, window]
//!   takeover                    numbers of the TakeOwnership entry, and off to the worker
//! ```
//!
//! Expanding two keys and allocating for them is a tenth of what it takes to hand an SA to a worker
//! (`perf/README.md`). It needs nothing but the parameters, which never change, so it is done
//! before. The numbers are not: they come out of the entry that makes this member the owner, when the
//! pair is [taken](Warming::take), as if it were made then. So law 2 does not rest on this; a pair that
//! is not prepared, or was prepared from other parameters, is simply made then.

use crate::limits;
use holdfast_cluster::{ChildRecord, State};
use holdfast_ipsec::{ChildSaParameters, InboundSa, OutboundSa, SequenceRange, Spi};
use holdfast_packet::Nanos;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

/// A pair of SAs without numbers.
struct Prepared {
    /// What it was made of.
    parameters: Arc<ChildSaParameters>,
    inbound: Box<InboundSa>,
    outbound: Box<OutboundSa>,
}

/// The pairs that are prepared and those that are to be.
#[derive(Default)]
pub(crate) struct Warming {
    waiting: VecDeque<Spi>,
    /// Prepared, and perhaps no longer in the records.
    doubtful: VecDeque<Spi>,
    prepared: BTreeMap<Spi, Prepared>,
    due: Nanos,
}

impl fmt::Debug for Warming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Warming({} prepared, {} waiting)", self.prepared.len(), self.waiting.len())
    }
}

impl Warming {
    /// Everything in the records is to be prepared; what is prepared already may be used still.
    pub(crate) fn begin(&mut self, state: &State) {
        self.doubtful = self.prepared.keys().copied().collect();
        self.waiting = state.children().map(|child| child.parameters.inbound_spi).collect();
    }

    /// A Child SA is new.
    pub(crate) fn add(&mut self, spi: Spi) {
        self.waiting.push_back(spi);
    }

    /// A Child SA is gone, and its keys with it.
    pub(crate) fn forget(&mut self, spi: Spi) {
        self.prepared.remove(&spi);
    }

    /// Nothing more is prepared; what is may be used still.
    pub(crate) fn end(&mut self) {
        self.waiting.clear();
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.doubtful.is_empty()
    }

    /// Whether every Child SA is prepared, but for those of the last moment.
    pub(crate) fn is_warm(&self) -> bool {
        self.waiting.len() <= limits::WARM_CHILDREN_PER_ROUND
    }

    /// How many pairs are prepared.
    #[cfg(test)]
    pub(crate) fn prepared(&self) -> usize {
        self.prepared.len()
    }

    /// When the next slice is to be prepared.
    pub(crate) fn due(&self) -> Option<Nanos> {
        (!self.is_done()).then_some(self.due)
    }

    /// Prepares the next slice, when it is due, and forgets some of what is no longer in the records.
    pub(crate) fn step(&mut self, now: Nanos, state: &State) {
        if now < self.due || self.is_done() {
            return;
        }
        self.due = now.plus_ms(limits::WARM_PAUSE_MS);
        let count = self.doubtful.len().min(limits::WARM_CHILDREN_PER_ROUND);
        for spi in self.doubtful.drain(..count) {
            if state.child(spi).is_none() {
                self.prepared.remove(&spi);
            }
        }
        let count = self.waiting.len().min(limits::WARM_CHILDREN_PER_ROUND);
        for spi in self.waiting.drain(..count) {
            let Some(child) = state.child(spi) else { continue };
            let kept = self.prepared.get(&spi);
            if !kept.is_some_and(|kept| Arc::ptr_eq(&kept.parameters, &child.parameters)) {
                self.prepared.insert(spi, Prepared::new(&child.parameters));
            }
        }
    }

    /// The pair of SAs of a record with the numbers the record grants.
    pub(crate) fn take(
        &mut self,
        child: &ChildRecord,
        horizon: u64,
    ) -> (Box<InboundSa>, Box<OutboundSa>) {
        let spi = child.parameters.inbound_spi;
        let kept = self.prepared.remove(&spi);
        let kept = kept.filter(|kept| Arc::ptr_eq(&kept.parameters, &child.parameters));
        let mut pair = kept.unwrap_or_else(|| Prepared::new(&child.parameters));
        pair.inbound.restart(child.floor, &child.edge, horizon);
        pair.outbound.restart(child.outbound());
        (pair.inbound, pair.outbound)
    }
}

impl Prepared {
    /// Neither accepts nor sends anything: the horizon is at the floor and the range is empty.
    fn new(parameters: &Arc<ChildSaParameters>) -> Self {
        Self {
            inbound: Box::new(InboundSa::new(parameters, 0, 0)),
            outbound: Box::new(OutboundSa::new(parameters, SequenceRange::new(1, 1))),
            parameters: Arc::clone(parameters),
        }
    }
}
