//! The one clock of the process.

use holdfast_packet::Nanos;
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the boot of the machine, suspended time included.
///
/// `CLOCK_BOOTTIME`, because a lease must not outlive a suspend: a virtual machine that was stopped
/// for a minute has to find its lease expired. Controller and workers compare times of this clock
/// only. It is read without entering the kernel.
#[must_use]
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// The wall clock in Unix milliseconds; for people only, no decision depends on it.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_never_goes_back() {
        let first = super::now();
        assert!(super::now() >= first);
        assert!(first.0 > 0);
    }
}
