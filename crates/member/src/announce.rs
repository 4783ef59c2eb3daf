//! Telling both networks who has the addresses now: gratuitous ARP (RFC 5227 section 2.3).
//!
//! ```text
//!   takeover  0 +1 +10 +50 +200 ms  +1 s  +5 s   then every 30 s
//! ```
//!
//! The first one usually does it. The next ones are for a switch port that was not forwarding yet
//! and for a frame of the old owner that was still on its way; the late ones for hosts and switches
//! that forget sooner than their neighbours speak.

use holdfast_packet::{MacAddr, Nanos, arp};
use std::net::Ipv4Addr;

/// Milliseconds after the takeover.
const SCHEDULE_MS: [u64; 7] = [0, 1, 10, 50, 200, 1_000, 5_000];

/// Milliseconds between announcements after the schedule: a tenth of the usual age-out of switches.
const REFRESH_MS: u64 = 30_000;

/// When to announce next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announcer {
    since: Nanos,
    done: usize,
    last: Nanos,
}

impl Announcer {
    /// A schedule that starts at `now` with an announcement at once.
    pub(crate) fn new(now: Nanos) -> Self {
        Self { since: now, done: 0, last: now }
    }

    /// When the next announcement is due.
    pub(crate) fn due(&self) -> Nanos {
        match SCHEDULE_MS.get(self.done) {
            Some(offset_ms) => self.since.plus_ms(*offset_ms),
            None => self.last.plus_ms(REFRESH_MS),
        }
    }

    /// True when an announcement is to be sent now. A late call makes up for the missed ones with
    /// a single one.
    pub(crate) fn fire(&mut self, now: Nanos) -> bool {
        let mut fired = false;
        while self.done < SCHEDULE_MS.len() && self.due() <= now {
            self.done += 1;
            fired = true;
        }
        if !fired && self.due() <= now {
            fired = true;
        }
        if fired {
            self.last = now;
        }
        fired
    }
}

/// Both forms of the announcement that `mac` has `address`: some stations learn from requests only,
/// some from replies only.
pub(crate) fn frames(mac: MacAddr, address: Ipv4Addr) -> [Box<[u8]>; 2] {
    [arp::Repr::announcement(mac, address), arp::Repr::announcement_reply(mac, address)]
        .map(|repr| Box::from(repr.frame(MacAddr::BROADCAST).as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_kept_and_then_refreshed() {
        let start = Nanos::from_ms(7);
        let mut announcer = Announcer::new(start);
        let mut sent_ms = Vec::new();
        while sent_ms.len() < 9 {
            let due = announcer.due();
            assert!(announcer.fire(due));
            assert!(!announcer.fire(due));
            sent_ms.push(due.ms_since(start));
        }
        assert_eq!(sent_ms, [0, 1, 10, 50, 200, 1_000, 5_000, 35_000, 65_000]);
    }

    #[test]
    fn missed_announcements_are_made_up_for_by_one() {
        let mut announcer = Announcer::new(Nanos::ZERO);
        assert!(announcer.fire(Nanos::from_ms(100)));
        assert!(!announcer.fire(Nanos::from_ms(100)));
        assert_eq!(announcer.due(), Nanos::from_ms(200));
    }
}
