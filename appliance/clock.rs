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

/// By how much the wall clock may leave the other one before it counts as set: far more than two
/// readings lie apart, far less than an operator would notice.
const WALL_CLOCK_SET_MS: u64 = 500;

/// Turns moments of [`now`] into Unix milliseconds, the same moment into the same number each time,
/// until somebody sets the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    anchor: Nanos,
    anchor_unix_ms: u64,
}

impl Calendar {
    /// A calendar by which `anchor` is `unix_ms`.
    #[must_use]
    pub const fn new(anchor: Nanos, unix_ms: u64) -> Self {
        Self { anchor, anchor_unix_ms: unix_ms }
    }

    /// Follows the wall clock if it was set since.
    pub const fn follow(&mut self, now: Nanos, unix_ms: u64) {
        if self.unix_ms(now).abs_diff(unix_ms) >= WALL_CLOCK_SET_MS {
            *self = Self::new(now, unix_ms);
        }
    }

    /// `moment` in Unix milliseconds.
    #[must_use]
    pub const fn unix_ms(&self, moment: Nanos) -> u64 {
        let after_ms = moment.ms_since(self.anchor);
        let before_ms = self.anchor.ms_since(moment);
        self.anchor_unix_ms.saturating_add(after_ms).saturating_sub(before_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::{Calendar, Nanos};

    #[test]
    fn a_moment_keeps_its_date_until_the_wall_clock_is_set() {
        let mut calendar = Calendar::new(Nanos::from_ms(1_000), 50_000);
        let moment = Nanos::from_ms(400);
        assert_eq!(calendar.unix_ms(moment), 49_400);
        // Two readings never fall together exactly.
        calendar.follow(Nanos::from_ms(2_000), 51_001);
        assert_eq!(calendar.unix_ms(moment), 49_400);
        assert_eq!(calendar.unix_ms(Nanos::from_ms(2_000)), 51_000);
        calendar.follow(Nanos::from_ms(3_000), 99_000);
        assert_eq!(calendar.unix_ms(moment), 96_400);
    }

    #[test]
    fn the_clock_never_goes_back() {
        let first = super::now();
        assert!(super::now() >= first);
        assert!(first.0 > 0);
    }
}
