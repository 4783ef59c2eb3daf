//! Whether this member can serve, apart from replication.

use crate::event::HandoverCause;
use holdfast_packet::Side;
use std::collections::BTreeSet;

/// What the shell reported of ports and workers.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    up: [bool; 2],
    stalled: BTreeSet<u32>,
    storage_failed: bool,
}

impl Health {
    /// Fit until told otherwise.
    pub(crate) fn new() -> Self {
        Self { up: [true; 2], stalled: BTreeSet::new(), storage_failed: false }
    }

    /// A port lost or regained its link.
    pub(crate) fn set_port(&mut self, side: Side, up: bool) {
        if let Some(state) = self.up.get_mut(side.index()) {
            *state = up;
        }
    }

    /// A worker stopped polling or polls again.
    pub(crate) fn set_worker(&mut self, worker: u32, stalled: bool) {
        if stalled {
            self.stalled.insert(worker);
        } else {
            self.stalled.remove(&worker);
        }
    }

    /// The log cannot be stored any more; this is for good.
    pub(crate) fn set_storage_failed(&mut self) {
        self.storage_failed = true;
    }

    /// Whether a port has a link.
    pub(crate) fn is_up(&self, side: Side) -> bool {
        self.up.get(side.index()).copied().unwrap_or(false)
    }

    /// Why this member should not own the address; `None` when it is fit.
    pub(crate) fn unfit(&self) -> Option<HandoverCause> {
        if self.storage_failed {
            return Some(HandoverCause::StorageFailed);
        }
        let port = Side::ALL.into_iter().find(|side| !self.is_up(*side));
        port.map(HandoverCause::PortDown)
            .or_else(|| self.stalled.first().copied().map(HandoverCause::WorkerStalled))
    }

    /// Whether nothing can be stored any more.
    pub(crate) fn storage_failed(&self) -> bool {
        self.storage_failed
    }

    /// Workers that do not poll.
    pub(crate) fn stalled(&self) -> impl Iterator<Item = u32> {
        self.stalled.iter().copied()
    }
}
