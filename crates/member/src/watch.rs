//! Whether a worker still polls: told from its count of polls, at every tick.
//!
//! A member with a stuck worker serves nobody and must hand over as soon as the others would replace a
//! dead one. A worker that only waits for its CPU must not cost a takeover, and on a crowded machine it
//! may wait long. Both look alike in the count; the thread's state tells them apart:
//!
//! ```text
//!   no poll for one lease,   not runnable: stopped, or asleep in the kernel      stuck
//!                            runnable, and had a lease's worth of CPU meanwhile  stuck in a loop
//!                            runnable, and had little of it                      waits: not stuck
//!   no poll for a second     whatever its thread does                            stuck
//! ```
//!
//! Silence is counted in looks, each for two ticks at most: a controller that was away itself, or a
//! whole machine that was paused, learns nothing about the worker from that.

use holdfast_packet::Nanos;
use holdfast_replica::Timing;

/// A worker that had no CPU for so long is as good as stuck: nothing is served meanwhile, and another
/// member may have a better machine.
const STARVED_MS: u64 = 1_000;

/// What the system says of a worker's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadSight {
    /// It has a CPU or waits for one.
    pub runnable: bool,
    /// CPU time it has had since its start, in nanoseconds.
    pub cpu_ns: u64,
}

/// Watches one worker. Pure: the count, the thread and the time are arguments.
#[derive(Debug, Clone)]
pub struct WorkerWatch {
    patience_ns: u64,
    look_ns_max: u64,
    polls: Option<u64>,
    looked: Nanos,
    silent_ns: u64,
    /// CPU time at the first look without a poll.
    cpu_ns: Option<u64>,
    stuck: bool,
}

impl WorkerWatch {
    /// A worker of a member with this clockwork, looked at every tick. A stuck one is found after as long
    /// as a follower waits for its leader at least, and two ticks more.
    #[must_use]
    pub const fn new(timing: Timing) -> Self {
        Self {
            patience_ns: timing.promise_ns(),
            look_ns_max: timing.tick_ns().saturating_mul(2),
            polls: None,
            looked: Nanos::ZERO,
            silent_ns: 0,
            cpu_ns: None,
            stuck: false,
        }
    }

    /// Whether the worker is stuck, given how often it has polled so far. `thread` is asked only while it
    /// does not poll; without an answer only the second counts.
    pub fn is_stuck(
        &mut self,
        now: Nanos,
        polls: u64,
        thread: impl FnOnce() -> Option<ThreadSight>,
    ) -> bool {
        let since_look = now.since(self.looked).min(self.look_ns_max);
        self.looked = now;
        if self.polls.replace(polls) != Some(polls) {
            (self.silent_ns, self.cpu_ns, self.stuck) = (0, None, false);
            return false;
        }
        self.silent_ns = self.silent_ns.saturating_add(since_look);
        // Once found stuck it is stuck until it polls.
        if !self.stuck {
            self.stuck = self.cannot_poll(thread());
        }
        self.stuck
    }

    fn cannot_poll(&mut self, thread: Option<ThreadSight>) -> bool {
        if self.silent_ns >= STARVED_MS.saturating_mul(1_000_000) {
            return true;
        }
        let Some(ThreadSight { runnable, cpu_ns }) = thread else { return false };
        let had_ns = cpu_ns.saturating_sub(*self.cpu_ns.get_or_insert(cpu_ns));
        self.silent_ns >= self.patience_ns && (!runnable || had_ns >= self.patience_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of silence until a worker is found stuck, looked at every tick; its thread as it is so
    /// many milliseconds after its last poll.
    fn found_after_ms(timing: Timing, thread: impl Fn(u64) -> ThreadSight) -> Option<u64> {
        let mut watch = WorkerWatch::new(timing);
        let start = Nanos::from_secs(5);
        assert!(!watch.is_stuck(start, 7, || panic!("a worker that polls is not looked at")));
        (1..=3_000 / timing.tick_ms)
            .map(|tick| tick * timing.tick_ms)
            .find(|&ms| watch.is_stuck(start.plus_ms(ms), 7, || Some(thread(ms))))
    }

    fn stopped(_: u64) -> ThreadSight {
        ThreadSight { runnable: false, cpu_ns: 3 }
    }

    #[test]
    fn a_stopped_worker_is_found_within_a_lease() {
        assert_eq!(found_after_ms(Timing::DEFAULT, stopped), Some(25));
        assert_eq!(found_after_ms(Timing::BRISK, stopped), Some(14));
        assert_eq!(found_after_ms(Timing::RELAXED, stopped), Some(180));
    }

    #[test]
    fn one_in_an_endless_loop_is_found_once_it_has_had_a_lease_of_cpu() {
        let alone = |ms| ThreadSight { runnable: true, cpu_ns: ms * 1_000_000 };
        assert_eq!(found_after_ms(Timing::DEFAULT, alone), Some(30));
        let half = |ms| ThreadSight { runnable: true, cpu_ns: ms * 500_000 };
        assert_eq!(found_after_ms(Timing::DEFAULT, half), Some(55));
    }

    #[test]
    fn one_that_waits_for_its_cpu_is_not_stuck_for_a_second() {
        let waiting = |_| ThreadSight { runnable: true, cpu_ns: 11 };
        assert_eq!(found_after_ms(Timing::DEFAULT, waiting), Some(1_000));
    }

    #[test]
    fn it_polls_again_and_all_is_forgotten() {
        let mut watch = WorkerWatch::new(Timing::DEFAULT);
        let at = |ms| Nanos::from_secs(5).plus_ms(ms);
        assert!(!watch.is_stuck(at(0), 7, || None));
        assert!((1..=20).any(|tick| watch.is_stuck(at(tick * 5), 7, || Some(stopped(0)))));
        assert!(watch.is_stuck(at(105), 7, || None), "stuck until it polls");
        assert!(!watch.is_stuck(at(110), 8, || Some(stopped(0))));
        assert!(!watch.is_stuck(at(130), 8, || Some(stopped(0))));
        assert!(!watch.is_stuck(at(135), 9, || Some(stopped(0))));
    }

    #[test]
    fn a_controller_that_was_away_learns_nothing_from_it() {
        let mut watch = WorkerWatch::new(Timing::DEFAULT);
        let start = Nanos::from_secs(5);
        assert!(!watch.is_stuck(start, 7, || None));
        for second in 1..=2 {
            let now = start.plus_secs(second);
            assert!(!watch.is_stuck(now, 7, || Some(stopped(0))), "it was away for a second");
        }
    }
}
