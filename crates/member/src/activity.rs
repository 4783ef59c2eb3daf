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

    /// All that moved within the last [`limits::ACTIVE_MS`].
    pub(crate) fn active(&self, now: Nanos) -> impl Iterator<Item = Spi> {
        let moved = self.moved.iter();
        let active = moved.filter(move |(_, at)| now.ms_since(**at) <= limits::ACTIVE_MS);
        active.map(|(spi, _)| *spi)
    }

    /// Whether it moved within the last [`limits::ACTIVE_MS`].
    pub(crate) fn is_active(&self, now: Nanos, spi: Spi) -> bool {
        self.moved.get(&spi).is_some_and(|moved| now.ms_since(*moved) <= limits::ACTIVE_MS)
    }
}
