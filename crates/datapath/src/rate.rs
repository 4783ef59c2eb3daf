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
    packets: u32,
    rate_pps: u32,
}

impl RateMeter {
    /// Counts `packets` more.
    #[inline]
    pub(crate) fn add(&mut self, packets: u32, now: Nanos) {
        if now.since(self.window_start) >= WINDOW_MS * 1_000_000 {
            self.begin_window(now);
        }
        self.packets = self.packets.saturating_add(packets);
    }

    #[cold]
    fn begin_window(&mut self, now: Nanos) {
        let forget = now.ms_since(self.window_start) >= FORGET_MS;
        let past_pps = if forget { 0 } else { self.rate_pps };
        let current_pps = u32::try_from(self.current_pps(now)).unwrap_or(u32::MAX);
        self.rate_pps = past_pps.midpoint(current_pps);
        self.window_start = now;
        self.packets = 0;
    }

    /// The greater of the estimate and what the running window shows, so that a flow that starts
    /// fast is seen before its first window ends.
    pub(crate) fn pps(&self, now: Nanos) -> u64 {
        u64::from(self.rate_pps).max(self.current_pps(now))
    }

    fn current_pps(&self, now: Nanos) -> u64 {
        let elapsed_ns = now.since(self.window_start).max(SHORTEST_MS * 1_000_000);
        u64::from(self.packets) * 1_000_000_000 / elapsed_ns
    }
}

/// First time to wait for an answer before asking again.
const RESEND_MS: u8 = 2;
/// The longest time between two questions.
const RESEND_LIMIT_MS: u8 = 64;

/// Asks once, and again after 2, 4, 8, ... 64 ms while no answer comes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asking {
    /// When a question is due; the start of time while none went out.
    next: Nanos,
    /// How long the last answer was waited for; 0 while no question went out.
    wait_ms: u8,
}

impl Asking {
    /// True when a question is due now.
    #[inline]
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        now >= self.next
    }

    /// The question went out.
    pub(crate) fn asked(&mut self, now: Nanos) {
        let longer_ms = self.wait_ms.saturating_mul(2).min(RESEND_LIMIT_MS);
        self.wait_ms = longer_ms.max(RESEND_MS);
        self.next = now.plus_ms(u64::from(self.wait_ms));
    }

    /// The answer came; the next question may go out at once.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
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
