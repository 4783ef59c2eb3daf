//! Putting fragmented messages together (RFC 7383 section 2.6).

use std::collections::BTreeMap;

use holdfast_packet::Nanos;

use crate::codec::PayloadType;
use crate::protect::FragmentNumber;

/// Fragments of one message: 64 of 576 octets carry more than any message we have a use for.
const FRAGMENTS_MAX: u16 = 64;
/// Octets of one message's content.
const CONTENT_MAX: usize = 32 * 1024;
/// Milliseconds after which an incomplete message is forgotten.
const INCOMPLETE_MS: u64 = 30_000;

/// The authentic fragments of one message so far.
#[derive(Debug)]
pub(crate) struct Reassembly {
    message_id: u32,
    total: u16,
    begun: Nanos,
    first: PayloadType,
    chunks: BTreeMap<u16, Vec<u8>>,
}

/// A fragment that does not fit the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfit;

/// One authentic fragment.
#[derive(Debug)]
pub(crate) struct Fragment {
    pub(crate) message_id: u32,
    pub(crate) place: FragmentNumber,
    /// Type of the first payload inside, in fragment 1.
    pub(crate) first: PayloadType,
    pub(crate) content: Vec<u8>,
}

impl Reassembly {
    /// Adds a fragment to the message in `slot`. Returns the whole message with its last fragment.
    ///
    /// # Errors
    /// [`Unfit`] when the fragment's numbers are illegal, it came before, it belongs to a coarser
    /// fragmentation than the ones before it, or the message exceeds the bounds.
    pub(crate) fn accept(
        slot: &mut Option<Self>,
        now: Nanos,
        fragment: Fragment,
    ) -> Result<Option<(PayloadType, Vec<u8>)>, Unfit> {
        let FragmentNumber { number, total } = fragment.place;
        if number == 0 || number > total || total > FRAGMENTS_MAX {
            return Err(Unfit);
        }
        // A finer fragmentation of the same message replaces the one before (section 2.5.2).
        let outdated = |known: &Self| {
            known.message_id != fragment.message_id
                || total > known.total
                || now.ms_since(known.begun) > INCOMPLETE_MS
        };
        if slot.as_ref().is_some_and(outdated) {
            *slot = None;
        }
        let known = slot.get_or_insert_with(|| Self {
            message_id: fragment.message_id,
            total,
            begun: now,
            first: PayloadType::NONE,
            chunks: BTreeMap::new(),
        });
        let held: usize = known.chunks.values().map(Vec::len).sum();
        if total < known.total
            || known.chunks.contains_key(&number)
            || held + fragment.content.len() > CONTENT_MAX
        {
            return Err(Unfit);
        }
        if number == 1 {
            known.first = fragment.first;
        }
        known.chunks.insert(number, fragment.content);
        if known.chunks.len() < usize::from(total) {
            return Ok(None);
        }
        Ok(slot.take().map(|whole| (whole.first, whole.chunks.into_values().flatten().collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(number: u16, total: u16, content: &[u8]) -> Fragment {
        let first = if number == 1 { PayloadType::NONCE } else { PayloadType::NONE };
        let place = FragmentNumber { number, total };
        Fragment { message_id: 1, place, first, content: content.to_vec() }
    }

    #[test]
    fn any_order_makes_the_message() {
        let mut slot = None;
        let now = Nanos::ZERO;
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(3, 3, b"c")), Ok(None));
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(1, 3, b"a")), Ok(None));
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(1, 3, b"a")), Err(Unfit));
        let whole = Reassembly::accept(&mut slot, now, fragment(2, 3, b"b"));
        assert_eq!(whole, Ok(Some((PayloadType::NONCE, b"abc".to_vec()))));
        assert!(slot.is_none());
    }

    #[test]
    fn a_finer_fragmentation_replaces_a_coarser() {
        let mut slot = None;
        let now = Nanos::ZERO;
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(1, 2, b"a")), Ok(None));
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(2, 3, b"y")), Ok(None));
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(2, 2, b"b")), Err(Unfit));
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(1, 3, b"x")), Ok(None));
        let whole = Reassembly::accept(&mut slot, now, fragment(3, 3, b"z"));
        assert_eq!(whole, Ok(Some((PayloadType::NONCE, b"xyz".to_vec()))));
    }

    #[test]
    fn bounds_hold() {
        let now = Nanos::ZERO;
        for (number, total) in [(0, 1), (2, 1), (1, 0), (1, FRAGMENTS_MAX + 1)] {
            let refused = Reassembly::accept(&mut None, now, fragment(number, total, b"a"));
            assert_eq!(refused, Err(Unfit), "{number} of {total}");
        }
        let mut slot = None;
        let half = vec![0; CONTENT_MAX / 2 + 1];
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(1, 3, &half)), Ok(None));
        assert_eq!(Reassembly::accept(&mut slot, now, fragment(2, 3, &half)), Err(Unfit));
    }

    #[test]
    fn an_old_beginning_is_forgotten() {
        let mut slot = None;
        assert_eq!(Reassembly::accept(&mut slot, Nanos::ZERO, fragment(1, 2, b"a")), Ok(None));
        let late = Nanos::from_ms(INCOMPLETE_MS + 1);
        assert_eq!(Reassembly::accept(&mut slot, late, fragment(2, 2, b"b")), Ok(None));
    }
}
