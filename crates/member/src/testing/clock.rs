//! A clock of its own for each member: nobody may depend on what another one's shows.

use super::random::Random;
use holdfast_packet::Nanos;

/// The furthest a clock is ahead of the world's: eleven days.
const OFFSET_NS_MAX: u64 = 1_000_000_000_000_000;

/// The fastest and slowest clock run this much apart from the world's, in millionths. Ten times
/// what quartz does; a third of what the lease allows for.
const DRIFT_PPM_MAX: u64 = 1_500;

const MILLION: u128 = 1_000_000;

/// A clock that started at another moment and does not run equally fast.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    offset_ns: u64,
    /// Ticks in a million nanoseconds of the world.
    rate: u128,
}

impl Clock {
    /// Some clock.
    #[must_use]
    pub fn any(random: &mut Random) -> Self {
        let rate = MILLION + u128::from(random.below(2 * DRIFT_PPM_MAX + 1));
        Self { offset_ns: random.below(OFFSET_NS_MAX), rate: rate - u128::from(DRIFT_PPM_MAX) }
    }

    /// Jumps forward.
    pub(crate) fn jump(&mut self, ms: u64) {
        self.offset_ns = Nanos(self.offset_ns).plus_ms(ms).0;
    }

    /// What it shows at a moment of the world.
    #[must_use]
    pub fn read(&self, world: Nanos) -> Nanos {
        let run = u128::from(world.0) * self.rate / MILLION;
        Nanos(u64::try_from(run).unwrap_or(u64::MAX)).plus_ns(self.offset_ns)
    }

    /// The first moment of the world at which it shows `local` or later.
    #[must_use]
    pub fn when(&self, local: Nanos) -> Nanos {
        let run = u128::from(local.0.saturating_sub(self.offset_ns));
        Nanos(u64::try_from((run * MILLION).div_ceil(self.rate)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_come_when_the_world_reaches_it_and_not_before() {
        let mut random = Random::new(5);
        for _ in 0..1_000 {
            let clock = Clock::any(&mut random);
            let local = clock.read(Nanos::from_secs(random.below(1_000))).plus_ns(random.below(99));
            let world = clock.when(local);
            assert!(clock.read(world) >= local);
            assert!(clock.read(Nanos(world.0 - 1)) < local);
        }
    }
}
