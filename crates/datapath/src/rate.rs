//! Packets per second of one SA, and when to ask for more numbers.

use holdfast_packet::Nanos;

/// The time over which packets are counted before the estimate moves.
const WINDOW_MS: u64 = 10;
/// The shortest time a rate is computed over, so that one burst does not look like a flood.
const SHORTEST_MS: u64 = 5;
/// After a silence this long the past says nothing about the future.
const FORGET_MS: u64 = 1_000;

/// A moving estimate: half the last window, half all before.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RateMeter {
    window_start: Nanos,
    packets: u64,
    rate_pps: u64,
}

impl RateMeter {
    /// Counts `packets` more.
    pub(crate) fn add(&mut self, packets: u64, now: Nanos) {
        let elapsed_ms = now.ms_since(self.window_start);
        if elapsed_ms >= WINDOW_MS {
            let past_pps = if elapsed_ms < FORGET_MS { self.rate_pps } else { 0 };
            self.rate_pps = past_pps.midpoint(self.current_pps(now));
            self.window_start = now;
            self.packets = 0;
        }
        self.packets = self.packets.saturating_add(packets);
    }

    /// The greater of the estimate and what the running window shows, so that a flow that starts
    /// fast is seen before its first window ends.
    pub(crate) fn pps(&self, now: Nanos) -> u64 {
        self.rate_pps.max(self.current_pps(now))
    }

    fn current_pps(&self, now: Nanos) -> u64 {
        let elapsed_ns = now.since(self.window_start).max(SHORTEST_MS * 1_000_000);
        self.packets.saturating_mul(1_000_000_000) / elapsed_ns
    }
}

/// First time to wait for an answer before asking again.
const RESEND_MS: u64 = 2;
/// The longest time between two questions.
const RESEND_LIMIT_MS: u64 = 64;

/// Asks once, and again after 2, 4, 8, ... 64 ms while no answer comes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asking {
    next: Option<(Nanos, u64)>,
}

impl Asking {
    /// True when a question is due now.
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        self.next.is_none_or(|(at, _)| now >= at)
    }

    /// The question went out.
    pub(crate) fn asked(&mut self, now: Nanos) {
        let wait_ms =
            self.next.map_or(RESEND_MS, |(_, wait_ms)| (wait_ms * 2).min(RESEND_LIMIT_MS));
        self.next = Some((now.plus_ms(wait_ms), wait_ms));
    }

    /// The answer came; the next question may go out at once.
    pub(crate) fn answered(&mut self) {
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_estimated_closely() {
        let mut meter = RateMeter::default();
        for us in (0..200_000).step_by(100) {
            meter.add(1, Nanos::from_us(us));
        }
        let pps = meter.pps(Nanos::from_us(200_000));
        assert!((9_500..=11_000).contains(&pps), "{pps}");
    }

    #[test]
    fn a_fast_start_is_seen_in_its_first_window() {
        let mut meter = RateMeter::default();
        let start = Nanos::from_secs(5);
        meter.add(64, start);
        assert!(meter.pps(start) >= 64_000 / 5);
    }

    #[test]
    fn a_long_silence_is_forgotten_at_once() {
        let mut meter = RateMeter::default();
        for us in 0..100_000 {
            meter.add(1, Nanos::from_us(us));
        }
        meter.add(1, Nanos::from_secs(5));
        assert!(meter.pps(Nanos::from_secs(5)) < 2_000);
    }

    #[test]
    fn questions_back_off_until_answered() {
        let mut asking = Asking::default();
        let mut asked_at_ms = Vec::new();
        for ms in 0..200 {
            if asking.is_due(Nanos::from_ms(ms)) {
                asking.asked(Nanos::from_ms(ms));
                asked_at_ms.push(ms);
            }
        }
        assert_eq!(asked_at_ms, [0, 2, 6, 14, 30, 62, 126, 190]);
        asking.answered();
        assert!(asking.is_due(Nanos::from_ms(191)));
    }
}
