//! How long one turn of the controller took, and how much of that was its own work.
//!
//! A turn that takes as long as a lease loses it. Whoever wonders why sees here whether this thread worked
//! or waited: for its processor, which others had, or for a machine that stood still.

use crate::clock;
use holdfast_packet::Nanos;
use rustix::time::{ClockId, clock_gettime};

/// A turn under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stopwatch {
    begun: Nanos,
    worked: Nanos,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self { begun: clock::now(), worked: processor_time() }
    }

    /// Says so in the log when the turn took longer than `most_ns`.
    pub(super) fn stop(self, most_ns: u64) {
        let took_ns = clock::now().since(self.begun);
        if took_ns > most_ns {
            let worked_us = processor_time().since(self.worked) / 1_000;
            let took_us = took_ns / 1_000;
            tracing::info!(event = "long_turn", took_us, worked_us, "the controller was held up");
        }
    }
}

/// Processor time of this thread.
fn processor_time() -> Nanos {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Nanos(
        seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0)),
    )
}
