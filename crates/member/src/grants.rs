//! Asking for sequence numbers in time and in batches.
//!
//! ```text
//!   RangeLow, HorizonLow ---> wanted ---> one Command::Grant per few ms ---> applied ---> worker
//!                              ^                      |
//!                              '---- asked again if nothing came back
//! ```
//!
//! # How far the horizon lies ahead
//!
//! With the rate `r` the worker has measured, a grant moves the horizon to `r * T` numbers above the
//! highest number that authenticated or above the horizon so far, whichever is higher, but by 64 at
//! least and 65536 at most. `T` is the promise: the time for which a follower that heard the leader
//! elects no other, 25 ms in the `default` profile, and so the shortest outage there is. It is asked for
//! when half of the way is gone. A new SA, and each one at a takeover, has 128.
//!
//! So a steady peer above 2560 packets a second counts over what became ambiguous (at most twice `r * T`)
//! in about the time of the outage and its end. A slower one would take 64 to 128 packets for it, which
//! at 10 a second is up to 13 seconds: that is why an SA whose horizon moved in the last 13 seconds is
//! renewed at once after a takeover, and any other when its peer is heard (see `renewals`).

use crate::limits;
use holdfast_cluster::{
    Direction, GrantItem, Mutation, limits::GRANTS_MAX, mutated, numbers, small,
};
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use std::collections::BTreeMap;

/// Fewest outbound numbers asked for.
const OUTBOUND_PACKETS_MIN: u64 = 1 << 10;

/// Fewest numbers a horizon moves by.
const HORIZON_PACKETS_MIN: u64 = 64;

/// The same two where simulated clusters run on small numbers, and most outbound numbers there.
const SMALL_PACKETS_MIN: u64 = 8;
const SMALL_PACKETS_MAX: u64 = 16;

/// Outbound numbers to ask for: a second of traffic, so that even many SAs make few entries.
pub(crate) fn outbound_packets(rate_pps: u64, esn: bool) -> u32 {
    let most = if esn {
        numbers::OUTBOUND_GRANT_PACKETS_MAX_ESN
    } else {
        numbers::OUTBOUND_GRANT_PACKETS_MAX
    };
    let least = small(OUTBOUND_PACKETS_MIN, SMALL_PACKETS_MIN);
    narrow(rate_pps.clamp(least, small(most, SMALL_PACKETS_MAX)))
}

/// Numbers to move a horizon by: some time's traffic ahead of the highest number that
/// authenticated, for what lies between is ambiguous after a takeover.
///
/// When that time is at most the shortest outage of a takeover, a steady peer has counted beyond the
/// ambiguous zone before its next packet meets the new owner, and notices nothing.
pub(crate) fn horizon_packets(rate_pps: u64, ahead_ms: u64, right_edge: u64, horizon: u64) -> u32 {
    let ahead = rate_pps.saturating_mul(ahead_ms) / 1_000;
    let least = small(HORIZON_PACKETS_MIN, SMALL_PACKETS_MIN);
    let ahead = ahead.clamp(least, numbers::HORIZON_GRANT_PACKETS_MAX);
    let wanted = right_edge.max(horizon).saturating_add(ahead).saturating_sub(horizon);
    narrow(wanted)
}

fn narrow(packets: u64) -> u32 {
    u32::try_from(packets).unwrap_or(u32::MAX)
}

/// What is wanted and what was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grants {
    wanted: BTreeMap<(Spi, Direction), u32>,
    asked: BTreeMap<(Spi, Direction), Nanos>,
    /// Outbound numbers yet to be given up.
    giving_up: BTreeMap<Spi, u64>,
    flush_at: Nanos,
}

impl Grants {
    /// An SA runs low. Asked for once at a time.
    pub(crate) fn want(&mut self, now: Nanos, spi: Spi, direction: Direction, packets: u32) {
        let key = (spi, direction);
        let pending =
            self.asked.get(&key).is_some_and(|asked| now.ms_since(*asked) < limits::GRANT_RETRY_MS);
        if !pending && !mutated(Mutation::GrantsForgotten) {
            self.wanted.insert(key, packets);
        }
    }

    /// So many outbound numbers are to be given up, in addition to those at the worker.
    pub(crate) fn count_on(&mut self, now: Nanos, spi: Spi, packets: u64) {
        let left = self.giving_up.entry(spi).or_insert(0);
        *left = left.saturating_add(packets);
        let wanted = narrow(*left);
        self.want(now, spi, Direction::Outbound, wanted.max(1));
    }

    /// Numbers were granted: whether they are to be given up. The worker gives up what it has when it
    /// gets numbers behind a gap.
    pub(crate) fn gives_up(&mut self, now: Nanos, spi: Spi, packets: u64) -> bool {
        let Some(left) = self.giving_up.remove(&spi) else { return false };
        let left = left.saturating_sub(packets);
        if left > 0 {
            self.giving_up.insert(spi, left);
        }
        let next = left.max(OUTBOUND_PACKETS_MIN);
        self.want(now, spi, Direction::Outbound, narrow(next));
        true
    }

    /// What is wanted, asked for or to be given up.
    #[cfg(test)]
    pub(crate) fn outstanding(&self) -> usize {
        self.wanted.len() + self.asked.len() + self.giving_up.len()
    }

    /// When the next batch leaves.
    pub(crate) fn due(&self) -> Option<Nanos> {
        (!self.wanted.is_empty()).then_some(self.flush_at)
    }

    /// The batch to propose now; empty when there is none.
    pub(crate) fn batch(&mut self, now: Nanos) -> Vec<GrantItem> {
        if self.wanted.is_empty() || now < self.flush_at {
            return Vec::new();
        }
        self.wanted
            .iter()
            .take(GRANTS_MAX)
            .map(|((spi, direction), packets)| GrantItem {
                spi: *spi,
                direction: *direction,
                packets: *packets,
            })
            .collect()
    }

    /// The batch was proposed.
    pub(crate) fn proposed(&mut self, now: Nanos, batch: &[GrantItem]) {
        for item in batch {
            let key = (item.spi, item.direction);
            self.wanted.remove(&key);
            self.asked.insert(key, now);
        }
        self.flush_at = now.plus_ms(limits::GRANT_BATCH_MS);
    }

    /// The batch could not be proposed: later.
    pub(crate) fn postpone(&mut self, now: Nanos) {
        self.flush_at = now.plus_ms(limits::PROPOSE_RETRY_MS);
    }

    /// The answer to what was asked for, whatever it was.
    pub(crate) fn answered(&mut self, spi: Spi, direction: Direction) {
        self.asked.remove(&(spi, direction));
    }

    /// The SA is gone.
    pub(crate) fn forget(&mut self, spi: Spi) {
        self.giving_up.remove(&spi);
        for direction in [Direction::Inbound, Direction::Outbound] {
            self.wanted.remove(&(spi, direction));
            self.asked.remove(&(spi, direction));
        }
    }

    /// All SAs are gone.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spi(value: u32) -> Spi {
        Spi::new(value).unwrap()
    }

    #[test]
    fn sizes_follow_the_rate_within_bounds() {
        assert_eq!(outbound_packets(10, false), 1_024);
        assert_eq!(outbound_packets(20_000, false), 20_000);
        assert_eq!(outbound_packets(10_000_000, false), 65_536);
        assert_eq!(outbound_packets(10_000_000, true), 1 << 20);
        assert_eq!(horizon_packets(10, 25, 100, 128), 64);
        assert_eq!(horizon_packets(20_000, 25, 100, 128), 500);
        assert_eq!(horizon_packets(20_000, 25, 5_128, 128), 5_500, "it went on in an outage");
    }

    #[test]
    fn low_sas_share_a_batch_and_ask_once() {
        let mut grants = Grants::default();
        let now = Nanos::from_ms(10);
        grants.want(now, spi(256), Direction::Outbound, 1_024);
        grants.want(now, spi(256), Direction::Inbound, 64);
        grants.want(now, spi(257), Direction::Outbound, 1_024);
        let batch = grants.batch(now);
        assert_eq!(batch.len(), 3);
        grants.proposed(now, &batch);
        grants.want(now, spi(256), Direction::Outbound, 1_024);
        assert_eq!(grants.due(), None);

        grants.answered(spi(256), Direction::Outbound);
        grants.want(now, spi(256), Direction::Outbound, 1_024);
        assert_eq!(grants.due(), Some(Nanos::from_ms(12)), "the next batch waits for company");
        assert!(grants.batch(now).is_empty());
    }

    #[test]
    fn numbers_a_peer_does_not_want_are_granted_and_given_up() {
        let mut grants = Grants::default();
        let asks = |grants: &mut Grants, ms| {
            let now = Nanos::from_ms(ms);
            let batch = grants.batch(now);
            grants.proposed(now, &batch);
            grants.answered(spi(256), Direction::Outbound);
            batch.iter().map(|item| item.packets).sum::<u32>()
        };
        grants.count_on(Nanos::ZERO, spi(256), 100_000);
        assert_eq!(asks(&mut grants, 10), 100_000, "cut to one grant's bound when applied");
        assert!(grants.gives_up(Nanos::from_ms(10), spi(256), 65_536));
        assert_eq!(asks(&mut grants, 20), 34_464);
        assert!(grants.gives_up(Nanos::from_ms(20), spi(256), 34_464));
        assert_eq!(asks(&mut grants, 30), 1_024, "numbers behind the gap, to send with");
        assert!(!grants.gives_up(Nanos::from_ms(30), spi(256), 1_024));
    }

    #[test]
    fn a_lost_request_is_made_again() {
        let mut grants = Grants::default();
        grants.want(Nanos::ZERO, spi(256), Direction::Outbound, 1_024);
        let batch = grants.batch(Nanos::ZERO);
        grants.proposed(Nanos::ZERO, &batch);
        let later = Nanos::from_ms(limits::GRANT_RETRY_MS);
        grants.want(later, spi(256), Direction::Outbound, 1_024);
        assert_eq!(grants.batch(later).len(), 1);
    }
}
