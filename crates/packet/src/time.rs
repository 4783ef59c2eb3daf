//! Time as an argument.

/// Monotonic nanoseconds since an arbitrary start; only the shell reads a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The arbitrary start.
    pub const ZERO: Self = Self(0);
    /// A moment that never comes.
    pub const MAX: Self = Self(u64::MAX);

    /// `ms` milliseconds after the start.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// `us` microseconds after the start.
    pub const fn from_us(us: u64) -> Self {
        Self(us.saturating_mul(1_000))
    }

    /// `s` seconds after the start.
    pub const fn from_secs(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000_000))
    }

    /// The moment `ms` milliseconds later; stops at [`Nanos::MAX`].
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// The moment `us` microseconds later; stops at [`Nanos::MAX`].
    #[must_use]
    pub const fn plus_us(self, us: u64) -> Self {
        Self(self.0.saturating_add(us.saturating_mul(1_000)))
    }

    /// The moment `s` seconds later; stops at [`Nanos::MAX`].
    #[must_use]
    pub const fn plus_secs(self, s: u64) -> Self {
        Self(self.0.saturating_add(s.saturating_mul(1_000_000_000)))
    }

    /// The moment `ns` nanoseconds later; stops at [`Nanos::MAX`].
    #[must_use]
    pub const fn plus_ns(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// The moment `ms` milliseconds earlier; stops at the start.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms.saturating_mul(1_000_000)))
    }

    /// Nanoseconds elapsed since `earlier`; 0 when `earlier` is in the future.
    #[inline]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole milliseconds elapsed since `earlier`; 0 when `earlier` is in the future.
    #[inline]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.since(earlier) / 1_000_000
    }

    /// Whole milliseconds since the start.
    pub const fn ms(self) -> u64 {
        self.0 / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Nanos::MAX.plus_ms(1), Nanos::MAX);
        assert_eq!(Nanos::ZERO.minus_ms(1), Nanos::ZERO);
        assert_eq!(Nanos::from_ms(3).since(Nanos::from_ms(5)), 0);
    }

    #[test]
    fn units_agree() {
        assert_eq!(Nanos::from_secs(2).ms(), 2_000);
        assert_eq!(Nanos::from_ms(2), Nanos::from_us(2_000));
        assert_eq!(Nanos::ZERO.plus_secs(1).plus_us(5).plus_ns(7), Nanos(1_000_005_007));
        assert_eq!(Nanos::from_ms(9).ms_since(Nanos::from_ms(4)), 5);
    }
}
