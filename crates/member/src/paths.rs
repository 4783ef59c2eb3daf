//! Paths to peers that are narrower than our own link, as routers tell.
//!
//! ```text
//!   worker: ICMP "fragmentation needed" (paced) --> owner with a lease? --> about a packet of ours to a
//!     peer with an IKE SA, and of one of its Child SAs? --> narrower than known, and not absurd?
//!     --> remembered for ten minutes, published to the workers
//! ```
//!
//! The report is not authentic (RFC 4301, 8.2.1). What a forger gains who can guess an SPI is that
//! packets to one peer are no longer than [`limits::PATH_MTU_MIN`] for a while. A new owner learns
//! anew: the first packet that does not fit tells it.

use crate::event::MemberEvent;
use crate::limits;
use crate::member::Member;
use holdfast_ike::IkeSpi;
use holdfast_packet::Nanos;
use holdfast_packet::path::TooNarrow;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What is known of one path.
#[derive(Debug, Clone, Copy)]
struct Narrow {
    mtu: u16,
    until: Nanos,
}

/// The narrow paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paths {
    narrow: BTreeMap<Ipv4Addr, Narrow>,
    /// When the first of them is forgotten.
    due: Option<Nanos>,
}

impl Paths {
    /// A path is narrower than was known; false when that is no news.
    fn narrow(&mut self, now: Nanos, remote: Ipv4Addr, mtu: u16) -> bool {
        let known = self.narrow.get(&remote).map(|path| path.mtu);
        let room = known.is_some() || self.narrow.len() < limits::PATHS_MAX;
        let news = room && mtu >= limits::PATH_MTU_MIN && known.is_none_or(|known| mtu < known);
        if news {
            let until = now.plus_ms(limits::PATH_MEMORY_MS);
            self.narrow.insert(remote, Narrow { mtu, until });
            self.due = self.next_due();
        }
        news
    }

    /// Forgets what is long ago; true when there was something.
    pub(crate) fn expire(&mut self, now: Nanos) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        self.narrow.retain(|_, path| now < path.until);
        self.due = self.next_due();
        true
    }

    fn next_due(&self) -> Option<Nanos> {
        self.narrow.values().map(|path| path.until).min()
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) const fn due(&self) -> Option<Nanos> {
        self.due
    }

    /// For the workers.
    pub(crate) fn mtus(&self) -> BTreeMap<Ipv4Addr, u16> {
        self.narrow.iter().map(|(remote, path)| (*remote, path.mtu)).collect()
    }
}

impl Member {
    /// A router tells that a packet did not fit.
    pub(crate) fn on_too_narrow(&mut self, now: Nanos, report: &TooNarrow) {
        let ours = report.source == self.config.addresses.common;
        if !ours || !self.speaks(now) || !self.is_of_peer(report) {
            return;
        }
        let (peer, mtu) = (report.destination, report.mtu);
        if self.paths.narrow(now, peer, mtu) {
            self.tables.touch();
            self.event(MemberEvent::PathNarrow { peer, mtu });
        }
    }

    /// Whether the packet a report is about can have been one of ours: the peer has an IKE SA, and the SPI
    /// is that of one of its Child SAs.
    fn is_of_peer(&self, report: &TooNarrow) -> bool {
        let state = self.replica.state();
        let has_sa = |ike: IkeSpi| {
            let mut children = state
                .children_of(holdfast_cluster::IkeSpi(ike.0))
                .filter_map(|spi| state.child(spi));
            report
                .spi
                .is_none_or(|spi| children.any(|child| child.parameters.outbound_spi.get() == spi))
        };
        self.ike.peers_at(report.destination).any(has_sa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

    #[test]
    fn a_path_only_becomes_narrower_until_it_is_forgotten() {
        let mut paths = Paths::default();
        let start = Nanos::from_secs(100);
        assert!(paths.narrow(start, PEER, 1400));
        assert!(!paths.narrow(start, PEER, 1400) && !paths.narrow(start, PEER, 1450));
        let later = start.plus_ms(1_000);
        assert!(paths.narrow(later, PEER, 1300));
        assert_eq!(paths.mtus(), BTreeMap::from([(PEER, 1300)]));
        let end = later.plus_ms(limits::PATH_MEMORY_MS);
        assert_eq!(paths.due(), Some(end));
        assert!(!paths.expire(end.minus_ms(1)) && paths.expire(end));
        assert!(paths.mtus().is_empty() && paths.due().is_none());
    }

    #[test]
    fn absurd_and_surplus_reports_are_no_news() {
        let mut paths = Paths::default();
        assert!(!paths.narrow(Nanos::ZERO, PEER, limits::PATH_MTU_MIN - 1));
        for peer in 0..limits::PATHS_MAX {
            let peer = Ipv4Addr::from_bits(u32::try_from(peer).unwrap());
            assert!(paths.narrow(Nanos::ZERO, peer, 1400));
        }
        assert!(!paths.narrow(Nanos::ZERO, PEER, 1400));
    }
}
