//! Wall clock instants: the one clock that captures, probes and kills share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch, as capture files record them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub u64);

impl Wall {
    /// The present.
    pub fn now() -> Self {
        Self::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// This instant `milliseconds` later.
    pub fn plus_ms(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds.saturating_mul(1_000_000)))
    }

    /// This instant `milliseconds` earlier.
    pub fn minus_ms(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_sub(milliseconds.saturating_mul(1_000_000)))
    }

    /// Milliseconds from `earlier` to this instant, negative when it is the other way round.
    pub fn ms_since(self, earlier: Self) -> f64 {
        (self.0 as f64 - earlier.0 as f64) / 1e6
    }

    /// Seconds from `earlier` to this instant.
    pub fn s_since(self, earlier: Self) -> f64 {
        self.ms_since(earlier) / 1e3
    }
}

impl From<Duration> for Wall {
    fn from(since_epoch: Duration) -> Self {
        Self(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A figure for people and reports: three decimals are enough for milliseconds.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
