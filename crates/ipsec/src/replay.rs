//! The anti-replay window (RFC 4303 section 3.4.3 and appendix A2), kept as blocks (RFC 6479).
//!
//! The bitmap is a ring of 64-bit blocks, a power of two of them and at least one more than the
//! window spans, so that moving the right edge clears whole blocks and never shifts a bit.

mod edge;

pub use edge::{ReplayEdge, UNSEEN_RUNS_MAX};

/// The smallest window; RFC 4303 section 3.4.3 asks for 32 and recommends 64.
pub const WINDOW_PACKETS_MIN: u32 = 64;
/// The largest window: 16 KiB of bitmap, enough for tens of milliseconds of reordering at line
/// rate.
pub const WINDOW_PACKETS_MAX: u32 = 131_072;

const BLOCK_BITS: u64 = u64::BITS as u64;

/// Why a sequence number is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The number was accepted before.
    Seen,
    /// The number is left of the window, so nobody can know.
    TooOld,
}

/// Which sequence numbers were accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplayWindow {
    right_edge: u64,
    packets: u64,
    blocks: Box<[u64]>,
}

impl ReplayWindow {
    /// The window of a new SA: number 0 counts as seen, since no sender uses it.
    #[must_use]
    pub fn new(window_packets: u32) -> Self {
        Self::with_edge(window_packets, 0)
    }

    /// A window in which every number up to and including `edge` counts as seen.
    ///
    /// The size is limited to [`WINDOW_PACKETS_MIN`]..=[`WINDOW_PACKETS_MAX`] and rounded up to
    /// whole blocks.
    #[must_use]
    pub fn with_edge(window_packets: u32, edge: u64) -> Self {
        let packets = window_packets
            .clamp(WINDOW_PACKETS_MIN, WINDOW_PACKETS_MAX)
            .next_multiple_of(u64::BITS);
        let packets = u64::from(packets);
        let block_count = (packets / BLOCK_BITS + 1).next_power_of_two();
        let blocks = (0..block_count).map(|_| u64::MAX).collect();
        let mut window = Self { right_edge: 0, packets, blocks };
        window.set_edge(edge);
        window
    }

    /// Every number up to and including `edge` counts as seen, and none behind it.
    fn set_edge(&mut self, edge: u64) {
        self.right_edge = edge;
        self.blocks.fill(u64::MAX);
        // Numbers right of the edge share its block; they have not been seen.
        if let Some(block) = self.block_mut(edge) {
            *block = u64::MAX >> (BLOCK_BITS - 1 - edge % BLOCK_BITS);
        }
    }

    /// The highest number accepted (T of RFC 4303 appendix A2).
    #[must_use]
    pub const fn right_edge(&self) -> u64 {
        self.right_edge
    }

    /// The size of the window (W of RFC 4303 appendix A2).
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Whether a number may still be accepted. Changes nothing: the packet may be forged.
    ///
    /// # Errors
    /// [`Replay`] tells a duplicate from a number that has left the window.
    #[inline]
    pub fn check(&self, sequence: u64) -> Result<(), Replay> {
        if sequence > self.right_edge {
            return Ok(());
        }
        if self.right_edge - sequence >= self.packets {
            return Err(Replay::TooOld);
        }
        let bit = 1 << (sequence % BLOCK_BITS);
        match self.block(sequence) {
            Some(block) if block & bit == 0 => Ok(()),
            _ => Err(Replay::Seen),
        }
    }

    /// Reads the block at the right edge, where the next numbers go.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        self.block(self.right_edge).unwrap_or_default()
    }

    /// Accepts the number of a packet that has authenticated.
    ///
    /// # Errors
    /// As [`check`](Self::check): of two copies in one burst both pass the first check and only one
    /// passes here.
    #[inline]
    pub fn accept(&mut self, sequence: u64) -> Result<(), Replay> {
        self.check(sequence)?;
        if sequence > self.right_edge {
            self.advance(sequence);
        }
        if let Some(block) = self.block_mut(sequence) {
            *block |= 1 << (sequence % BLOCK_BITS);
        }
        Ok(())
    }

    /// The 64-bit number behind the 32 bits on the wire (RFC 4303 appendix A2.2). `None` when there
    /// is no such number, at the end of all 64 bits.
    ///
    /// Before the first wrap there is no lower subspace, so a number that case B would place there
    /// is taken to be ahead.
    #[must_use]
    pub fn infer_high(&self, low: u32) -> Option<u64> {
        self.infer(low, self.packets)
    }

    /// Like [`infer_high`](Self::infer_high) with a window of 2^31, the widest appendix A2 allows:
    /// the number nearest to the right edge.
    #[must_use]
    pub fn infer_nearest(&self, low: u32) -> Option<u64> {
        self.infer(low, 1 << 31)
    }

    fn infer(&self, low: u32, window: u64) -> Option<u64> {
        let (low, edge_low, edge_high) =
            (u64::from(low), self.right_edge & LOW_HALF, self.right_edge >> 32);
        let high = if edge_low >= window - 1 {
            // Case A: the window lies within one subspace.
            let bottom = edge_low - (window - 1);
            if low >= bottom { edge_high } else { edge_high + 1 }
        } else {
            // Case B: the window begins in the subspace below.
            let bottom = edge_low + (1 << 32) - (window - 1);
            if low >= bottom { edge_high.saturating_sub(1) } else { edge_high }
        };
        (high <= LOW_HALF).then_some(high << 32 | low)
    }

    /// Moves the right edge and clears the blocks it moves over.
    #[inline]
    fn advance(&mut self, to: u64) {
        let (old, new) = (self.right_edge / BLOCK_BITS, to / BLOCK_BITS);
        let moved = (new - old).min(self.blocks.len() as u64);
        for step in 0..moved {
            if let Some(block) = self.block_mut((new - step) * BLOCK_BITS) {
                *block = 0;
            }
        }
        self.right_edge = to;
    }

    #[inline]
    fn block(&self, sequence: u64) -> Option<u64> {
        self.blocks.get(self.index(sequence)).copied()
    }

    #[inline]
    fn block_mut(&mut self, sequence: u64) -> Option<&mut u64> {
        let index = self.index(sequence);
        self.blocks.get_mut(index)
    }

    #[inline]
    const fn index(&self, sequence: u64) -> usize {
        (sequence / BLOCK_BITS) as usize & (self.blocks.len() - 1)
    }
}

const LOW_HALF: u64 = u32::MAX as u64;

impl std::fmt::Debug for ReplayWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplayWindow({} packets up to {})", self.packets, self.right_edge)
    }
}

#[cfg(test)]
mod tests;
