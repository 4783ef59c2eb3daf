//! The clockwork of elections, and what follows from it for the lease.

/// How fast a cluster notices a dead leader, in ticks. Equal on all members.
///
/// Election timeouts are not random: each member has its own, by its rank among those that are left
/// when the leader is silent (`candidacy` has the order). Random ones are what makes the tail of a
/// failover long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One tick in milliseconds.
    pub tick_ms: u64,
    /// Ticks between two heartbeats of the leader.
    pub heartbeat_ticks: u64,
    /// Ticks for which a follower that heard its leader votes for nobody else. The member of
    /// lowest rank campaigns a tick after them.
    pub election_ticks: u64,
    /// Ticks that each higher rank waits longer.
    pub stagger_ticks: u64,
}

/// Why a timing cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A tick or the heartbeat interval is zero.
    #[error("tick and heartbeat interval must be at least 1")]
    Zero,
    /// The lease could not be renewed before it ends.
    #[error("the election timeout must be at least three heartbeat intervals")]
    ElectionTooShort,
    /// Two ranks would campaign in the same tick.
    #[error("the stagger must be at least 1 tick")]
    NoStagger,
    /// Longer than an hour: surely a wrong unit.
    #[error("the election timeout exceeds {0} ms")]
    TooLong(u64),
}

/// No election timeout is sensibly longer; also keeps the arithmetic far from overflow.
const ELECTION_MS_MAX: u64 = 3_600_000;

impl Timing {
    /// A dead leader is replaced in about 33 ms (38 ms at most); stalls of the leader's
    /// controller up to 25 ms cause no election. For metal and for good virtual machines.
    pub const DEFAULT: Self =
        Self { tick_ms: 5, heartbeat_ticks: 1, election_ticks: 6, stagger_ticks: 2 };

    /// A dead leader is replaced in about 19 ms (21 ms at most); stalls of the leader's controller
    /// beyond 11 ms cost an election. For metal with isolated cores.
    pub const BRISK: Self =
        Self { tick_ms: 2, heartbeat_ticks: 1, election_ticks: 8, stagger_ticks: 2 };

    /// A dead leader is replaced in about a quarter of a second. For clouds and loaded machines.
    pub const RELAXED: Self =
        Self { tick_ms: 20, heartbeat_ticks: 1, election_ticks: 10, stagger_ticks: 2 };

    /// Checks the numbers against each other.
    ///
    /// # Errors
    /// [`TimingError`] names the rule that is broken.
    pub fn check(&self) -> Result<(), TimingError> {
        if self.tick_ms == 0 || self.heartbeat_ticks == 0 {
            return Err(TimingError::Zero);
        }
        if self.election_ticks < self.heartbeat_ticks.saturating_mul(3) {
            return Err(TimingError::ElectionTooShort);
        }
        if self.stagger_ticks == 0 {
            return Err(TimingError::NoStagger);
        }
        let longest = self.election_ticks_of(crate::config::RANK_MAX);
        if longest.saturating_mul(self.tick_ms) > ELECTION_MS_MAX {
            return Err(TimingError::TooLong(ELECTION_MS_MAX));
        }
        Ok(())
    }

    /// One tick.
    #[must_use]
    pub const fn tick_ns(&self) -> u64 {
        self.tick_ms.saturating_mul(1_000_000)
    }

    /// For how long a follower that stepped a message of its leader votes for nobody else.
    ///
    /// One tick less than the election timeout: `n` ticks can pass in little more than `n - 1`
    /// tick intervals, because the first one may be due at once.
    #[must_use]
    pub const fn promise_ns(&self) -> u64 {
        self.election_ticks.saturating_sub(1).saturating_mul(self.tick_ns())
    }

    /// The election timeout of a rank, in ticks.
    ///
    /// One more than the promise lasts: members tick at different moments, so whoever asks at the
    /// end of its own promise asks half of the others before the end of theirs. They would not answer,
    /// and the election would wait for the next rank.
    pub(crate) const fn election_ticks_of(&self, rank: u64) -> u64 {
        let first = self.election_ticks.saturating_add(1);
        first.saturating_add(rank.saturating_mul(self.stagger_ticks))
    }
}

/// What a leader may count on of a promise whose holder's clock may run faster than its own by
/// one per cent: crystal oscillators differ by a hundredth of that.
#[must_use]
pub(crate) const fn lease_ns(promise_ns: u64) -> u64 {
    promise_ns - promise_ns.div_ceil(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_timings_are_sound() {
        assert_eq!(Timing::DEFAULT.check(), Ok(()));
        assert_eq!(Timing::RELAXED.check(), Ok(()));
        assert_eq!(Timing::BRISK.check(), Ok(()));
    }

    #[test]
    fn a_lease_that_cannot_be_renewed_is_refused() {
        let hasty = Timing { election_ticks: 2, ..Timing::DEFAULT };
        assert_eq!(hasty.check(), Err(TimingError::ElectionTooShort));
        assert_eq!(Timing { tick_ms: 0, ..Timing::DEFAULT }.check(), Err(TimingError::Zero));
        assert_eq!(
            Timing { stagger_ticks: 0, ..Timing::DEFAULT }.check(),
            Err(TimingError::NoStagger)
        );
    }

    #[test]
    fn the_default_lease_is_a_tick_and_a_per_cent_shorter_than_the_election_timeout() {
        assert_eq!(Timing::DEFAULT.promise_ns(), 25_000_000);
        assert_eq!(lease_ns(Timing::DEFAULT.promise_ns()), 24_750_000);
    }
}
