//! When each SA last moved, as far as the log tells: known to every member, the successor among them.

use crate::limits;
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use std::collections::BTreeMap;

/// The moments at which this member saw horizons move. Not replicated: each member has its own clock,
/// and one that has just started knows nothing, which costs a flow that paused one round trip more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity {
    moved: BTreeMap<Spi, Nanos>,
}

impl Activity {
    /// The SA was made, or its horizon moved.
    pub(crate) fn note(&mut self, now: Nanos, spi: Spi) {
        self.moved.insert(spi, now);
    }

    /// The SA is gone.
    pub(crate) fn forget(&mut self, spi: Spi) {
        self.moved.remove(&spi);
    }

    /// All that moved within the last [`limits::ACTIVE_MS`], the last one first: the busier an SA, the
    /// more often its horizon moves.
    pub(crate) fn active(&self, now: Nanos) -> impl Iterator<Item = Spi> + use<> {
        let lately = |at: &Nanos| now.ms_since(*at) <= limits::ACTIVE_MS;
        let active = self.moved.iter().filter(|(_, at)| lately(at));
        let mut active: Vec<(Nanos, Spi)> = active.map(|(spi, at)| (*at, *spi)).collect();
        active.sort_unstable_by(|one, other| other.cmp(one));
        active.into_iter().map(|(_, spi)| spi)
    }

    /// Whether it moved within the last [`limits::ACTIVE_MS`].
    pub(crate) fn is_active(&self, now: Nanos, spi: Spi) -> bool {
        self.moved.get(&spi).is_some_and(|moved| now.ms_since(*moved) <= limits::ACTIVE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_last_comes_first_and_what_is_silent_not_at_all() {
        let spi = |value| Spi::new(value).unwrap();
        let mut activity = Activity::default();
        let now = Nanos::from_ms(2 * limits::ACTIVE_MS);
        for (value, ago_ms) in [(300, 7), (301, limits::ACTIVE_MS + 1), (302, 1), (303, 9)] {
            activity.note(Nanos(now.0 - ago_ms * 1_000_000), spi(value));
        }
        let active: Vec<Spi> = activity.active(now).collect();
        assert_eq!(active, [302, 300, 303].map(spi));
    }
}
