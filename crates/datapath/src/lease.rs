//! The lease as the workers see it.

use crossbeam::utils::CachePadded;
use holdfast_packet::Nanos;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The end of this member's lease, shared by the controller (writes) and the workers (read).
///
/// First law: a worker speaks for the common address only before this moment. The controller need
/// not run for a lease to end, so a stalled controller falls silent by itself.
#[derive(Debug, Clone, Default)]
pub struct LeaseCell(Arc<CachePadded<AtomicU64>>);

/// What the lease says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// This member is the owner.
    Valid,
    /// This member was the owner; its lease ran out or was never renewed in time.
    Expired,
    /// This member is not the owner.
    None,
}

impl LeaseCell {
    /// A cell without a lease.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the lease ends at `end`; [`Nanos::ZERO`] for none.
    pub fn set(&self, end: Nanos) {
        // Release: what the controller published before it granted the lease is seen with it.
        self.0.store(end.0, Ordering::Release);
    }

    /// When the lease ends; [`Nanos::ZERO`] for none.
    pub fn end(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Acquire))
    }

    /// True while the lease holds. Its end is exclusive.
    pub fn valid(&self, now: Nanos) -> bool {
        self.state(now) == LeaseState::Valid
    }

    /// The lease at `now`.
    pub fn state(&self, now: Nanos) -> LeaseState {
        match self.end() {
            Nanos::ZERO => LeaseState::None,
            end if now < end => LeaseState::Valid,
            _ => LeaseState::Expired,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_exclusive() {
        let cell = LeaseCell::new();
        assert_eq!(cell.state(Nanos(0)), LeaseState::None);
        cell.set(Nanos(100));
        assert!(cell.valid(Nanos(99)));
        assert_eq!(cell.state(Nanos(100)), LeaseState::Expired);
    }
}
