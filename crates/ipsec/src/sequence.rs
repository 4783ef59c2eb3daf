//! Sequence numbers of an outbound SA: their width, and ranges of them that were granted.

use std::fmt;

/// How wide an SA's sequence numbers are (RFC 4303 sections 2.2 and 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// 32 bits, all of them on the wire.
    Bits32,
    /// Extended sequence numbers: 64 bits, the lower half on the wire.
    Esn,
}

impl Width {
    /// The width that was negotiated.
    #[must_use]
    pub const fn from_esn(esn: bool) -> Self {
        if esn { Self::Esn } else { Self::Bits32 }
    }

    /// The largest number an SA of this width may use. It is used once and nothing comes after it
    /// (RFC 4303 section 3.3.3).
    #[must_use]
    pub const fn last(self) -> u64 {
        match self {
            Self::Bits32 => u32::MAX as u64,
            // A half-open range cannot hold u64::MAX itself; nobody lives to miss that packet.
            Self::Esn => u64::MAX - 1,
        }
    }
}

/// Sequence numbers `next..end` that may each be used once. A range only ever shrinks, and it
/// cannot be copied by accident: whoever holds it holds the right to its numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceRange {
    next: u64,
    end: u64,
}

impl SequenceRange {
    /// The numbers from `next` up to but excluding `end`; empty when `end` is not above `next`.
    /// Number 0 is left out: the first packet of an SA has number 1 (RFC 4303 section 3.3.3).
    #[must_use]
    pub fn new(next: u64, end: u64) -> Self {
        let next = next.max(1);
        Self { next, end: end.max(next) }
    }

    /// A range with no number in it.
    #[must_use]
    pub const fn empty() -> Self {
        Self { next: 1, end: 1 }
    }

    /// The number that would be taken next, if the range is not empty.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// The first number behind the range.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// How many numbers are left.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }

    /// Whether no number is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the lowest number out of the range.
    #[inline]
    pub fn take(&mut self) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let number = self.next;
        self.next = number.checked_add(1)?;
        Some(number)
    }

    /// Takes the range's lowest `count` numbers out of it, or as many as there are.
    #[must_use]
    pub fn take_up_to(&mut self, count: u64) -> Self {
        let middle = self.next.saturating_add(count).min(self.end);
        let taken = Self { next: self.next, end: middle };
        self.next = middle;
        taken
    }

    /// Cuts off every number an SA of this width does not have.
    pub fn limit(&mut self, width: Width) {
        self.end = self.end.min(width.last().saturating_add(1)).max(self.next);
    }
}

impl Default for SequenceRange {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for SequenceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.next, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_once_and_in_order() {
        let mut range = SequenceRange::new(0, 4);
        let taken: Vec<u64> = std::iter::from_fn(|| range.take()).collect();
        assert_eq!(taken, [1, 2, 3]);
        assert!(range.is_empty());
    }

    #[test]
    fn a_backward_range_is_empty() {
        assert!(SequenceRange::new(10, 3).is_empty());
    }

    #[test]
    fn taking_several_splits_the_range() {
        let mut range = SequenceRange::new(5, 12);
        assert_eq!(range.take_up_to(4), SequenceRange::new(5, 9));
        assert_eq!(range.take_up_to(100), SequenceRange::new(9, 12));
        assert!(range.is_empty());
    }

    #[test]
    fn the_width_cuts_a_range_off() {
        let mut range = SequenceRange::new(u64::from(u32::MAX), u64::from(u32::MAX) + 100);
        range.limit(Width::Bits32);
        assert_eq!(range.take(), Some(u64::from(u32::MAX)));
        assert_eq!(range.take(), None);
        let mut beyond = SequenceRange::new(1 << 40, 1 << 41);
        beyond.limit(Width::Bits32);
        assert!(beyond.is_empty());
    }

    #[test]
    fn the_end_of_all_numbers_is_no_overflow() {
        let mut range = SequenceRange::new(u64::MAX - 1, u64::MAX);
        assert_eq!(range.take(), Some(u64::MAX - 1));
        assert_eq!(range.take(), None);
    }
}
