//! Loading what the records hold after a takeover, a slice at a time.
//!
//! A hundred thousand SAs take longer to set up than a lease lasts. So the Child SAs go to the workers
//! in slices, between which heartbeats are answered: those that carry traffic come first, and one that
//! a packet waits for at once. The IKE SAs follow; until the last of them is there, IKE messages are dropped (peers repeat them), lest
//! a known SA be answered as unknown.
//!
//! After each slice comes a pause as long as the slice took, however many messages arrive meanwhile: half
//! of the controller's time is left for these, and for the workers where they share its core.

use crate::limits;
use holdfast_cluster::{IkeSpi, State, small};
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use std::collections::{BTreeSet, VecDeque};

/// What is still to be loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loading {
    /// Those that carry traffic.
    busy: VecDeque<Spi>,
    /// All, those of `busy` included.
    children: VecDeque<Spi>,
    /// Which of `children` were loaded before their turn.
    loaded: BTreeSet<Spi>,
    ike_sas: VecDeque<IkeSpi>,
    /// When the last slice began, until it is known how long it took.
    begun: Option<Nanos>,
    /// When the next slice is, once that is known.
    due: Nanos,
}

impl Loading {
    /// Everything in the records, `active` ones first.
    pub(crate) fn everything(state: &State, active: impl Iterator<Item = Spi>) -> Self {
        let children = state.children().map(|child| child.parameters.inbound_spi).collect();
        let busy = active.filter(|spi| state.child(*spi).is_some()).collect();
        Self { busy, children, ..Self::ike_only(state) }
    }

    /// The IKE SAs in the records; the workers keep their Child SAs.
    pub(crate) fn ike_only(state: &State) -> Self {
        let ike_sas = state.ike_sas().map(|(spi, _)| spi).collect();
        Self { ike_sas, ..Self::default() }
    }

    /// True when all is loaded.
    pub(crate) fn is_done(&self) -> bool {
        self.children.is_empty() && self.ike_sas.is_empty()
    }

    /// True when the workers have all Child SAs.
    pub(crate) fn has_all_children(&self) -> bool {
        self.children.is_empty()
    }

    /// Whether a Child SA is still to be loaded; it is not to be any more then.
    pub(crate) fn take(&mut self, spi: Spi) -> bool {
        // In the order of the records, which is that of the SPIs.
        self.children.binary_search(&spi).is_ok() && self.loaded.insert(spi)
    }

    /// When to ask for the next slice, if there is one: at once after a slice, which shows how long that
    /// took, then at the end of the pause.
    pub(crate) fn due(&self) -> Option<Nanos> {
        (!self.is_done()).then_some(self.begun.unwrap_or(self.due))
    }

    /// Whether a slice is to be loaded now.
    ///
    /// What a slice costs includes handing its SAs to the workers, which the controller does after this call;
    /// so it is measured from one call to the next.
    pub(crate) fn begin_slice(&mut self, now: Nanos) -> bool {
        if let Some(begun) = self.begun.take() {
            let longest_ns = limits::LOAD_PAUSE_MS_MAX.saturating_mul(1_000_000);
            self.due = now.plus_ns(now.since(begun).min(longest_ns));
        }
        let begins = !self.is_done() && self.due <= now;
        self.begun = begins.then_some(now);
        begins
    }

    /// How many SAs of either kind are to come.
    pub(crate) fn left(&self) -> usize {
        let children = self.children.len().saturating_sub(self.loaded.len());
        children.saturating_add(self.ike_sas.len())
    }

    /// The Child SAs of the next slice, each once.
    pub(crate) fn next_children(&mut self) -> Vec<Spi> {
        let most = small(limits::LOAD_CHILDREN_PER_ROUND, limits::LOAD_CHILDREN_SMALL);
        let mut slice = Vec::with_capacity(most);
        while slice.len() < most
            && let Some(spi) = self.busy.pop_front()
        {
            if self.loaded.insert(spi) {
                slice.push(spi);
            }
        }
        while slice.len() < most
            && let Some(spi) = self.children.pop_front()
        {
            if !self.loaded.remove(&spi) {
                slice.push(spi);
            }
        }
        slice
    }

    /// The IKE SAs of the next slice; none before the last Child SA.
    pub(crate) fn next_ike_sas(&mut self) -> Vec<IkeSpi> {
        if !self.children.is_empty() {
            return Vec::new();
        }
        let count = self.ike_sas.len().min(limits::LOAD_IKE_SAS_PER_ROUND);
        self.ike_sas.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spi(value: u32) -> Spi {
        Spi::new(value).expect("an SPI")
    }

    #[test]
    fn busy_sas_come_first_and_none_comes_twice() {
        let mut loading = Loading {
            busy: [300, 299, 300].map(spi).into(),
            children: (256..2_000).map(spi).collect(),
            ..Loading::default()
        };
        let first = loading.next_children();
        assert_eq!(first[..3], [300, 299, 256].map(spi));
        assert_eq!(loading.left(), 1_744 - limits::LOAD_CHILDREN_PER_ROUND);
        let mut all: Vec<Spi> = first;
        while !loading.is_done() {
            all.extend(loading.next_children());
        }
        all.sort();
        assert_eq!(all, (256..2_000).map(spi).collect::<Vec<_>>());
    }

    #[test]
    fn an_sa_that_is_waited_for_comes_at_once_and_only_once() {
        let busy = VecDeque::from([spi(300)]);
        let children = (256..2_000).map(spi).collect();
        let mut loading = Loading { busy, children, ..Loading::default() };
        assert!(!loading.take(spi(2_000)), "there is none");
        assert!(loading.take(spi(300)) && loading.take(spi(1_999)));
        assert!(!loading.take(spi(300)), "it is on its way");
        let mut all = Vec::new();
        while !loading.is_done() {
            all.extend(loading.next_children());
        }
        assert_eq!(all.len(), 1_742);
        assert!(!all.contains(&spi(300)) && !all.contains(&spi(1_999)));
        assert!(!loading.take(spi(700)), "loaded already");
    }

    #[test]
    fn at_most_half_of_the_time_goes_to_loading_whatever_else_arrives() {
        let children = (256..100_000).map(spi).collect();
        let mut loading = Loading { children, ..Loading::default() };
        let (mut now, mut slices_us, mut messages_us) = (Nanos::from_secs(10), 0, 0);
        let start = now;
        while !loading.is_done() {
            // Messages come without end, and each asks for a slice.
            let (spent_us, sum_us) = if loading.begin_slice(now) {
                loading.next_children();
                (2_000, &mut slices_us)
            } else {
                (100, &mut messages_us)
            };
            *sum_us += spent_us;
            now = now.plus_us(spent_us);
        }
        assert!(messages_us + 2_000 >= slices_us, "{slices_us} us of {}", now.since(start) / 1_000);
        assert!(messages_us <= slices_us + slices_us / 10, "and not much less than half");
    }

    #[test]
    fn a_controller_that_slept_does_not_pause_for_as_long() {
        let children = (256..10_000).map(spi).collect();
        let mut loading = Loading { children, ..Loading::default() };
        let start = Nanos::from_secs(10);
        assert!(loading.begin_slice(start));
        loading.next_children();
        assert_eq!(loading.due(), Some(start), "at once: how long did it take?");
        let late = start.plus_secs(1);
        assert!(!loading.begin_slice(late));
        let due = late.plus_ms(limits::LOAD_PAUSE_MS_MAX);
        assert_eq!(loading.due(), Some(due));
        assert!(loading.begin_slice(due));
    }
}
