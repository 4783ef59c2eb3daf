//! An encoded message that shares its bulk with whoever made it.
//!
//! ```text
//!   head: header, Raft message              tail: the content of a snapshot, or nothing
//!   [44 bytes | a few hundred bytes]        [shared, never copied as a whole]
//! ```
//!
//! A snapshot of a hundred thousand SAs is some hundred megabytes. Copying that takes longer than a lease
//! lasts, so whoever sends it takes it out of here piece by piece.

use bytes::Bytes;
use std::fmt;

/// The bytes of one message between members, in two parts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MessageBytes {
    head: Vec<u8>,
    tail: Bytes,
}

impl MessageBytes {
    /// A message that begins with `head` and ends with `tail`.
    pub(crate) fn new(head: Vec<u8>, tail: Bytes) -> Self {
        Self { head, tail }
    }

    /// How long it is in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len().saturating_add(self.tail.len())
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends at most `most` bytes from position `at` on to `piece`. Fewer only at the end.
    pub fn copy_piece(&self, at: usize, most: usize, piece: &mut Vec<u8>) {
        let end = at.saturating_add(most);
        let head = self.head.len();
        piece.extend_from_slice(cut(&self.head, at, end));
        let (at, end) = (at.saturating_sub(head), end.saturating_sub(head));
        piece.extend_from_slice(cut(&self.tail, at, end));
    }

    /// All of it as one, copied unless it has no tail.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        self.head.extend_from_slice(&self.tail);
        self.head
    }
}

/// The part of `bytes` between two positions, as far as it goes.
fn cut(bytes: &[u8], at: usize, end: usize) -> &[u8] {
    bytes.get(at.min(bytes.len())..end.min(bytes.len())).unwrap_or_default()
}

impl From<Vec<u8>> for MessageBytes {
    fn from(head: Vec<u8>) -> Self {
        Self { head, tail: Bytes::new() }
    }
}

impl fmt::Debug for MessageBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may carry log entries, and those carry keys.
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_whole_wherever_they_are_cut() {
        let message = MessageBytes::new((0..10).collect(), (10..30).collect());
        let whole: Vec<u8> = (0..30).collect();
        assert_eq!(message.len(), 30);
        for most in 1..=31 {
            let mut pieces = Vec::new();
            for at in (0..message.len()).step_by(most) {
                message.copy_piece(at, most, &mut pieces);
            }
            assert_eq!(pieces, whole, "in pieces of {most}");
        }
        let mut beyond = Vec::new();
        message.copy_piece(30, 5, &mut beyond);
        assert!(beyond.is_empty());
        assert_eq!(message.into_vec(), whole);
    }
}
