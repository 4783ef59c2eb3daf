//! A replay window on its way from one owner to the next: what was accepted, exactly.
//!
//! ```text
//!   numbers   ... 90 91 92 93 94 95 96 97 98 99 100      right edge 100
//!   accepted      x  x  .  .  x  x  x  .  x  x  x        unseen 92..=93, 97..=97
//! ```
//!
//! After a day of traffic in order there is nothing unseen, so the edge alone says it all: a few
//! octets, whatever the size of the window.

use super::{BLOCK_BITS, ReplayWindow};

/// Runs of unseen numbers carried along: a burst lost or reordered each. With more, the oldest ones
/// count as seen: safe, and at worst a packet that is very late is refused.
pub const UNSEEN_RUNS_MAX: usize = 32;

/// Which numbers an owner had accepted when it stopped: all up to the right edge, but for some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayEdge {
    /// The highest number accepted, or the highest one nobody may accept any more.
    pub right_edge: u64,
    /// Runs of numbers (first, last) left of it that were not accepted and may still be: ascending,
    /// apart from each other, at most [`UNSEEN_RUNS_MAX`].
    pub unseen: Vec<(u64, u64)>,
}

impl ReplayEdge {
    /// Every number up to `right_edge` counts as seen.
    #[must_use]
    pub const fn at(right_edge: u64) -> Self {
        Self { right_edge, unseen: Vec::new() }
    }

    /// Whether the runs are as documented.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let ordered = self.unseen.iter().all(|(first, last)| first <= last);
        let apart = self.unseen.windows(2).all(|pair| match pair {
            [(_, last), (next, _)] => last.saturating_add(1) < *next,
            _ => true,
        });
        let first = self.unseen.first().is_none_or(|(first, _)| *first > 0);
        let last = self.unseen.last().is_none_or(|(_, last)| *last < self.right_edge);
        ordered && apart && first && last && self.unseen.len() <= UNSEEN_RUNS_MAX
    }
}

impl ReplayWindow {
    /// What a successor must know to accept exactly what this window would.
    #[must_use]
    pub fn export(&self) -> ReplayEdge {
        let lowest = self.right_edge.saturating_sub(self.packets - 1).max(1);
        let mut unseen: Vec<(u64, u64)> = Vec::new();
        let mut at = self.right_edge;
        while at >= lowest {
            let Some((first, last)) = self.unseen_below(at, lowest) else { break };
            let full = unseen.len() == UNSEEN_RUNS_MAX;
            match unseen.last_mut() {
                Some(newer) if newer.0 == last + 1 => newer.0 = first,
                _ if full => break,
                _ => unseen.push((first, last)),
            }
            at = first - 1;
        }
        unseen.reverse();
        ReplayEdge { right_edge: self.right_edge, unseen }
    }

    /// The highest run of unseen numbers of one block at or below `at`, and not below `lowest`,
    /// which is at least 1.
    fn unseen_below(&self, mut at: u64, lowest: u64) -> Option<(u64, u64)> {
        loop {
            let (start, bit) = (at - at % BLOCK_BITS, at % BLOCK_BITS);
            let up_to_bit = u64::MAX >> (BLOCK_BITS - 1 - bit);
            let zeros = !self.block(at)? & up_to_bit;
            if let Some(top) = zeros.checked_ilog2().map(u64::from) {
                // Ones below the run end it; without any it reaches the block's first number.
                let ones = !zeros & (u64::MAX >> (BLOCK_BITS - 1 - top));
                let bottom = ones.checked_ilog2().map_or(0, |one| u64::from(one) + 1);
                let (first, last) = (start + bottom, start + top);
                return (last >= lowest).then_some((first.max(lowest), last));
            }
            at = start.checked_sub(1).filter(|at| *at >= lowest)?;
        }
    }

    /// The window a predecessor [exported](Self::export).
    #[must_use]
    pub fn resume(window_packets: u32, edge: &ReplayEdge) -> Self {
        let mut window = Self::with_edge(window_packets, edge.right_edge);
        window.forget_unseen(edge);
        window
    }

    /// Becomes the window a predecessor [exported](Self::export), in the memory it has.
    pub fn restart(&mut self, edge: &ReplayEdge) {
        self.set_edge(edge.right_edge);
        self.forget_unseen(edge);
    }

    fn forget_unseen(&mut self, edge: &ReplayEdge) {
        let lowest = edge.right_edge.saturating_sub(self.packets - 1).max(1);
        for (first, last) in &edge.unseen {
            self.forget(*first.max(&lowest), *last.min(&edge.right_edge));
        }
    }

    /// Marks numbers of the window as not accepted.
    fn forget(&mut self, first: u64, last: u64) {
        let mut at = first;
        while at <= last {
            let end = last.min(at | (BLOCK_BITS - 1));
            let bits = u64::MAX >> (BLOCK_BITS - 1 - (end - at)) << (at % BLOCK_BITS);
            if let Some(block) = self.block_mut(at) {
                *block &= !bits;
            }
            at = end + 1;
        }
    }
}
