//! Peers that go on sending to an SPI that names nothing here, and what they are told.
//!
//! A peer can have a Child SA that the cluster has not: its delete was lost with an owner, or the
//! operator forced a quorum. Everything it sends is dropped until it notices by itself. So its own IKE
//! SA is used to tell it (`ike`, `disown`), which is protected and acknowledged.
//!
//! ```text
//!   worker: UnknownSpi (paced) --> owner with a lease? --> in no record and no exchange under way?
//!     --> gone for more than stragglers take? --> exactly one IKE SA with its source? --> not told lately?
//!     --> INFORMATIONAL in it
//! ```
//!
//! The packet is not authentic and its source may be forged. What a forger gains is one exchange between
//! two parties that trust each other, in ten seconds and per peer; nothing is ever sent in clear, and
//! nothing to an address without an IKE SA.

use crate::event::MemberEvent;
use crate::limits;
use crate::member::Member;
use holdfast_ike::IkeSpi;
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

/// SPIs that were ours, and who was told lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct Strays {
    gone: BTreeMap<Spi, Nanos>,
    /// The keys of `gone`, the longest gone first.
    order: VecDeque<Spi>,
    told: BTreeMap<IkeSpi, Nanos>,
}

impl Strays {
    /// A Child SA is gone.
    pub(crate) fn note(&mut self, now: Nanos, spi: Spi) {
        if self.gone.insert(spi, now).is_none() {
            self.order.push_back(spi);
        }
        if self.order.len() > limits::GONE_SPIS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    /// Since when a Child SA of this SPI is gone, while that is remembered.
    fn gone_since(&self, spi: Spi) -> Option<Nanos> {
        self.gone.get(&spi).copied()
    }

    /// Whether a peer may be told now; takes note that it is.
    fn may_tell(&mut self, now: Nanos, ike: IkeSpi) -> bool {
        let recent = |at: Nanos| now.ms_since(at) < limits::STRAY_PAUSE_MS;
        if self.told.get(&ike).copied().is_some_and(recent) {
            return false;
        }
        if self.told.len() >= limits::STRAY_PEERS_MAX {
            self.told.retain(|_, at| recent(*at));
        }
        let room = self.told.len() < limits::STRAY_PEERS_MAX;
        if room {
            self.told.insert(ike, now);
        }
        room
    }
}

impl Member {
    /// ESP came from `source` for an SPI that no worker knows.
    pub(crate) fn on_unknown_spi(&mut self, now: Nanos, spi: u32, source: Ipv4Addr) {
        let Ok(spi) = Spi::new(spi) else { return };
        let able = self.speaks(now) && self.ike_serves() && !self.outbox.is_full();
        // In the records it is about to be installed or removed; offered, the peer may be ahead of its
        // own answer.
        if !able || self.replica.state().child(spi).is_some() || self.ike.uses(spi) {
            return;
        }
        let gone = self.strays.gone_since(spi);
        if gone.is_some_and(|at| now.ms_since(at) < limits::STRAGGLERS_MS) {
            return;
        }
        let Some(ike) = self.ike.only_peer_at(source) else { return };
        if !self.strays.may_tell(now, ike) {
            return;
        }
        // Busy with its end: then the peer learns of that.
        if self.ike.disown(now, ike, (spi, gone.is_some())).is_ok() {
            self.event(MemberEvent::SpiDisowned { spi, peer: source, deleted: gone.is_some() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let mut strays = Strays::default();
        let spi = |number: usize| Spi::new(256 + u32::try_from(number).unwrap()).unwrap();
        for number in 0..limits::GONE_SPIS_MAX + 10 {
            strays.note(Nanos::from_ms(number as u64), spi(number));
        }
        assert_eq!(strays.gone.len(), limits::GONE_SPIS_MAX);
        assert_eq!(strays.order.len(), limits::GONE_SPIS_MAX);
        assert!(strays.gone_since(spi(9)).is_none() && strays.gone_since(spi(10)).is_some());
    }

    #[test]
    fn each_peer_is_told_once_in_a_while_and_few_at_a_time() {
        let mut strays = Strays::default();
        let start = Nanos::from_secs(100);
        for peer in 1..=limits::STRAY_PEERS_MAX as u64 {
            assert!(strays.may_tell(start, IkeSpi(peer)));
            assert!(!strays.may_tell(start, IkeSpi(peer)));
        }
        assert!(!strays.may_tell(start, IkeSpi(0)), "too many at a time");
        let later = start.plus_ms(limits::STRAY_PAUSE_MS);
        assert!(strays.may_tell(later, IkeSpi(0)) && strays.may_tell(later, IkeSpi(1)));
        assert_eq!(strays.told.len(), 2, "the others are forgotten");
    }
}
