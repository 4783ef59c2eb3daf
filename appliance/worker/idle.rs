//! What a worker does between polls that found nothing.

use holdfast_packet::Nanos;
use std::time::Duration;

/// Empty polls before the first sleep: some ten microseconds, longer than the gaps within a burst
/// of traffic.
const EMPTY_POLLS_BEFORE_SLEEP: u32 = 100;
/// A worker that has had no packet for so long is taken to be out of business, as on a standby.
const OUT_OF_BUSINESS_MS: u64 = 20;
/// How much longer such a worker sleeps. The first packet waits that long, no other.
const OUT_OF_BUSINESS_FACTOR: u32 = 4;

/// The policy between polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Poll on: the lowest latency for the price of a whole CPU.
    BusyPoll,
    /// Sleep when nothing comes, so that several members can share a small machine.
    Adaptive {
        /// How long one sleep lasts, in microseconds.
        sleep_us: u32,
    },
}

impl IdlePolicy {
    /// About a quarter of a CPU when idle, and 50 microseconds more latency at worst.
    pub const SLEEP_US_DEFAULT: u32 = 50;
}

/// What to do before the next poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// Poll at once.
    None,
    /// Poll at once, but let the CPU's other thread have a moment.
    Relax,
    /// Sleep.
    Sleep(Duration),
}

/// Follows how busy a worker is.
#[derive(Debug)]
pub(super) struct Idle {
    policy: IdlePolicy,
    empty_polls: u32,
    last_packet: Nanos,
}

impl Idle {
    pub(super) const fn new(policy: IdlePolicy, now: Nanos) -> Self {
        Self { policy, empty_polls: 0, last_packet: now }
    }

    /// What to do after a poll at `now` that moved `packets`.
    pub(super) fn after_poll(&mut self, now: Nanos, packets: usize) -> Pause {
        if packets > 0 {
            self.empty_polls = 0;
            self.last_packet = now;
            return Pause::None;
        }
        let IdlePolicy::Adaptive { sleep_us } = self.policy else { return Pause::Relax };
        self.empty_polls = self.empty_polls.saturating_add(1);
        if self.empty_polls < EMPTY_POLLS_BEFORE_SLEEP {
            return Pause::Relax;
        }
        let out_of_business = now.ms_since(self.last_packet) >= OUT_OF_BUSINESS_MS;
        let factor = if out_of_business { OUT_OF_BUSINESS_FACTOR } else { 1 };
        Pause::Sleep(Duration::from_micros(u64::from(sleep_us.saturating_mul(factor))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAPTIVE: IdlePolicy = IdlePolicy::Adaptive { sleep_us: 50 };

    fn sleep_us(pause: Pause) -> Option<u128> {
        match pause {
            Pause::Sleep(time) => Some(time.as_micros()),
            Pause::None | Pause::Relax => None,
        }
    }

    #[test]
    fn busy_polling_never_sleeps() {
        let mut idle = Idle::new(IdlePolicy::BusyPoll, Nanos::ZERO);
        for second in 0..1_000 {
            assert_eq!(idle.after_poll(Nanos::from_secs(second), 0), Pause::Relax);
        }
    }

    #[test]
    fn sleep_begins_after_many_empty_polls_and_ends_with_a_packet() {
        let mut idle = Idle::new(ADAPTIVE, Nanos::ZERO);
        let first_sleep = (1..1_000).find(|_| sleep_us(idle.after_poll(Nanos(1), 0)).is_some());
        assert_eq!(first_sleep, Some(EMPTY_POLLS_BEFORE_SLEEP));
        assert_eq!(sleep_us(idle.after_poll(Nanos(2), 0)), Some(50), "and goes on");
        assert_eq!(idle.after_poll(Nanos(3), 1), Pause::None);
        assert_eq!(idle.after_poll(Nanos(4), 0), Pause::Relax);
    }

    #[test]
    fn a_standby_sleeps_longer() {
        let mut idle = Idle::new(ADAPTIVE, Nanos::ZERO);
        for _ in 0..EMPTY_POLLS_BEFORE_SLEEP {
            idle.after_poll(Nanos::ZERO, 0);
        }
        assert_eq!(sleep_us(idle.after_poll(Nanos::from_ms(19), 0)), Some(50));
        assert_eq!(sleep_us(idle.after_poll(Nanos::from_ms(20), 0)), Some(200));
    }
}
