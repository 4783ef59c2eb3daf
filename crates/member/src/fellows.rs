//! What the other members said of themselves.

use crate::bulletin::{Bulletin, Fitness};
use crate::limits;
use holdfast_cluster::MemberId;
use holdfast_datapath::Stations;
use holdfast_packet::Nanos;
use std::collections::BTreeMap;

/// The newest word of one member.
#[derive(Debug, Clone, Copy)]
struct Fellow {
    bulletin: Bulletin,
    heard: Nanos,
    /// Since when it has been fit without a break, as far as was heard.
    fit_since: Option<Nanos>,
}

impl Fellow {
    fn is_silent(&self, now: Nanos) -> bool {
        now.ms_since(self.heard) > limits::BULLETIN_STALE_MS
    }
}

/// The other members, as they describe themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fellows {
    known: BTreeMap<MemberId, Fellow>,
}

impl Fellows {
    /// A member spoke. True when its stations are new.
    pub(crate) fn heard(&mut self, now: Nanos, from: MemberId, bulletin: Bulletin) -> bool {
        let before = self.known.get(&from).copied();
        let same_boot = |fellow: &Fellow| fellow.bulletin.incarnation == bulletin.incarnation;
        let unbroken = before.filter(|fellow| same_boot(fellow) && !fellow.is_silent(now));
        let fit_since = bulletin
            .fitness
            .is_fit()
            .then(|| unbroken.and_then(|fellow| fellow.fit_since).unwrap_or(now));
        self.known.insert(from, Fellow { bulletin, heard: now, fit_since });
        before.is_none_or(|fellow| fellow.bulletin.stations != bulletin.stations)
    }

    /// How a member is, unless it has been silent for long.
    pub(crate) fn fitness(&self, now: Nanos, member: MemberId) -> Option<Fitness> {
        let fellow = self.known.get(&member).filter(|fellow| !fellow.is_silent(now))?;
        Some(fellow.bulletin.fitness)
    }

    /// Since when a member has been fit.
    pub(crate) fn fit_since(&self, now: Nanos, member: MemberId) -> Option<Nanos> {
        self.known.get(&member).filter(|fellow| !fellow.is_silent(now))?.fit_since
    }

    /// The ports of a member.
    pub(crate) fn stations(&self, member: MemberId) -> Option<Stations> {
        self.known.get(&member).map(|fellow| fellow.bulletin.stations)
    }

    /// The ports of all.
    pub(crate) fn all_stations(&self) -> Vec<Stations> {
        self.known.values().map(|fellow| fellow.bulletin.stations).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_cluster::Incarnation;
    use holdfast_packet::MacAddr;

    fn bulletin(boot: u64, fit: bool) -> Bulletin {
        let stations = Stations { outside: MacAddr([2; 6]), inside: MacAddr([4; 6]) };
        let fitness = Fitness { outside_up: fit, inside_up: true, stalled_workers: 0, warm: true };
        Bulletin { incarnation: Incarnation(boot), stations, fitness }
    }

    #[test]
    fn fitness_counts_from_the_last_break() {
        let mut fellows = Fellows::default();
        let (id, at) = (MemberId(2), Nanos::from_ms);
        assert!(fellows.heard(at(100), id, bulletin(1, true)));
        assert!(!fellows.heard(at(300), id, bulletin(1, true)));
        assert_eq!(fellows.fit_since(at(400), id), Some(at(100)));
        fellows.heard(at(500), id, bulletin(1, false));
        assert_eq!(fellows.fit_since(at(500), id), None);
        fellows.heard(at(600), id, bulletin(1, true));
        fellows.heard(at(700), id, bulletin(2, true));
        assert_eq!(fellows.fit_since(at(700), id), Some(at(700)), "another boot");
    }

    #[test]
    fn old_news_is_no_news() {
        let mut fellows = Fellows::default();
        let (id, at) = (MemberId(2), Nanos::from_ms);
        fellows.heard(at(100), id, bulletin(1, true));
        let late = at(101 + limits::BULLETIN_STALE_MS);
        assert_eq!((fellows.fitness(late, id), fellows.fit_since(late, id)), (None, None));
        assert!(fellows.stations(id).is_some(), "its ports are still where they were");
        fellows.heard(late, id, bulletin(1, true));
        assert_eq!(fellows.fit_since(late, id), Some(late));
    }
}
