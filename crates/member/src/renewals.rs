//! Which Child SAs to rekey after a takeover, and when.
//!
//! ```text
//!   Ambiguous{spi} ---> urgent (first come, first served) --.
//!                                                            >-- at most 64 at once --> rekey
//!   takeover -------> idle, at a random moment within       --'
//!                     minutes, unless it moves on by itself
//! ```
//!
//! An SA whose peer counted beyond the floor has left the ambiguous zone and needs nothing. Each SA
//! is renewed at most once per takeover: a rekey gives it new numbers.

use crate::limits;
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The renewals of one ownership.
#[derive(Debug, Clone, Default)]
pub(crate) struct Renewals {
    urgent: VecDeque<Spi>,
    idle: BTreeSet<(Nanos, Spi)>,
    idle_at: BTreeMap<Spi, Nanos>,
    /// Under way, with the moment each stops counting.
    outstanding: BTreeMap<Spi, Nanos>,
    /// Everything begun in this ownership.
    begun: BTreeSet<Spi>,
    next_round: Nanos,
}

/// A renewal to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewal {
    pub(crate) spi: Spi,
    pub(crate) urgent: bool,
}

impl Renewals {
    /// A takeover of `spis`: plans the renewal of those that stay silent.
    pub(crate) fn takeover(now: Nanos, spis: impl Iterator<Item = Spi>, seed: u64) -> Self {
        let (first_ms, last_ms) = limits::IDLE_RENEWAL_MS;
        let span_ms = last_ms.saturating_sub(first_ms).max(1);
        let mut renewals = Self::default();
        for spi in spis {
            let jitter_ms = mix(seed, u64::from(spi.get())) % span_ms;
            let at = now.plus_ms(first_ms.saturating_add(jitter_ms));
            renewals.idle.insert((at, spi));
            renewals.idle_at.insert(spi, at);
        }
        renewals
    }

    /// A packet of this SA authenticated in the ambiguous zone. SAs made after the takeover have
    /// none.
    pub(crate) fn ambiguous(&mut self, spi: Spi) {
        if self.cancel_idle(spi) && !self.begun.contains(&spi) {
            self.urgent.push_back(spi);
        }
    }

    /// The peer counted beyond the floor.
    pub(crate) fn moved_on(&mut self, spi: Spi) {
        self.cancel_idle(spi);
    }

    /// The SA is gone: replaced by its successor, or deleted.
    pub(crate) fn removed(&mut self, spi: Spi) {
        self.cancel_idle(spi);
        self.urgent.retain(|queued| *queued != spi);
        self.outstanding.remove(&spi);
    }

    /// When [`Self::next`] may have something.
    pub(crate) fn due(&self) -> Option<Nanos> {
        if self.outstanding.len() >= limits::RENEWALS_OUTSTANDING_MAX {
            return self.outstanding.values().min().copied();
        }
        let urgent = (!self.urgent.is_empty()).then_some(Nanos::ZERO);
        let idle = self.idle.first().map(|(at, _)| *at);
        urgent.into_iter().chain(idle).min().map(|due| due.max(self.next_round))
    }

    /// The renewals to begin now.
    pub(crate) fn next(&mut self, now: Nanos) -> Vec<Renewal> {
        self.outstanding.retain(|_, until| now < *until);
        let mut begin = Vec::new();
        if now < self.next_round {
            return begin;
        }
        while begin.len() < limits::RENEWALS_PER_ROUND_MAX
            && self.outstanding.len() < limits::RENEWALS_OUTSTANDING_MAX
        {
            let Some(renewal) = self.pop(now) else { break };
            if self.begun.insert(renewal.spi) {
                let until = now.plus_ms(limits::RENEWAL_PATIENCE_MS);
                self.outstanding.insert(renewal.spi, until);
                begin.push(renewal);
            }
        }
        if !begin.is_empty() {
            self.next_round = now.plus_ms(limits::RENEWAL_ROUND_MS);
        }
        begin
    }

    /// How many wait to be renewed because their peer was heard in the ambiguous zone.
    pub(crate) fn urgent_waiting(&self) -> usize {
        self.urgent.len()
    }

    fn pop(&mut self, now: Nanos) -> Option<Renewal> {
        if let Some(spi) = self.urgent.pop_front() {
            return Some(Renewal { spi, urgent: true });
        }
        let (at, spi) = self.idle.first().copied()?;
        if now < at {
            return None;
        }
        self.cancel_idle(spi);
        Some(Renewal { spi, urgent: false })
    }

    fn cancel_idle(&mut self, spi: Spi) -> bool {
        let planned = self.idle_at.remove(&spi);
        planned.is_some_and(|at| self.idle.remove(&(at, spi)))
    }
}

/// A well-mixed function of a seed and a number (the finaliser of SplitMix64): jitter only.
pub(crate) const fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spis(count: u32) -> impl Iterator<Item = Spi> {
        (0..count).map(|n| Spi::new(256 + n).unwrap())
    }

    #[test]
    fn an_ambiguous_sa_goes_first_and_only_once() {
        let mut renewals = Renewals::takeover(Nanos::ZERO, spis(3), 1);
        let spi = Spi::new(257).unwrap();
        renewals.ambiguous(spi);
        renewals.ambiguous(spi);
        assert_eq!(renewals.due(), Some(Nanos::ZERO));
        assert_eq!(renewals.next(Nanos::ZERO), [Renewal { spi, urgent: true }]);
        renewals.ambiguous(spi);
        assert_eq!(renewals.next(Nanos::from_ms(100)), []);
    }

    #[test]
    fn outstanding_renewals_are_bounded_and_stop_counting() {
        let mut renewals = Renewals::takeover(Nanos::ZERO, spis(100), 1);
        spis(100).for_each(|spi| renewals.ambiguous(spi));
        let mut begun = 0;
        for round in 0..50 {
            begun += renewals.next(Nanos::from_ms(round * limits::RENEWAL_ROUND_MS)).len();
        }
        assert_eq!(begun, limits::RENEWALS_OUTSTANDING_MAX);
        spis(10).for_each(|spi| renewals.removed(spi));
        assert_eq!(renewals.next(Nanos::from_ms(200)).len(), limits::RENEWALS_PER_ROUND_MAX);
        let later = Nanos::from_ms(200 + limits::RENEWAL_PATIENCE_MS);
        assert_eq!(renewals.next(later).len(), limits::RENEWALS_PER_ROUND_MAX);
    }

    #[test]
    fn silent_sas_are_renewed_within_minutes_and_spread() {
        let mut renewals = Renewals::takeover(Nanos::ZERO, spis(50), 7);
        renewals.moved_on(Spi::new(256).unwrap());
        let mut moments = Vec::new();
        while let Some(due) = renewals.due() {
            for renewal in renewals.next(due) {
                assert!(!renewal.urgent);
                moments.push(due.ms());
                renewals.removed(renewal.spi);
            }
        }
        assert_eq!(moments.len(), 49);
        let (first_ms, last_ms) = limits::IDLE_RENEWAL_MS;
        assert!(moments.iter().all(|ms| (first_ms..=last_ms + 100).contains(ms)), "{moments:?}");
        let spread = moments.iter().max().unwrap() - moments.iter().min().unwrap();
        assert!(spread > (last_ms - first_ms) / 2, "{spread} ms");
    }
}
