//! Sequence numbers as ranges granted by committed entries: law 2, "commit before use".
//!
//! Outbound, a Child SA has one high mark: the end of everything ever granted. A grant moves it
//! up and hands the numbers between the old and the new mark to the present owner; a takeover
//! does the same for the new one and forgets what the predecessor had left. The mark never moves
//! down while the keys live, so no number is handed out twice and no AES-GCM nonce repeats
//! (RFC 4106 section 3.1: the IV is derived from the number).
//!
//! Inbound, the horizon is the highest number that may be accepted. A takeover makes the old
//! horizon the floor: everything at or below may have been accepted by the predecessor and is
//! refused. So what one owner accepted no later one accepts again. How far it lies ahead is the
//! owner's choice (`member::grants` has the rule): more keeps a fast peer from waiting for a commit,
//! less leaves less behind that a successor cannot tell apart.
//!
//! Only an owner that stopped on purpose is believed where it stopped: see [`crate::settlement`].
//!
//! ```text
//!   outbound   1 ........ high            high + grant
//!              |  spent   | present owner |
//!   inbound    1 ........ floor ..................... horizon
//!              | refused  | replay window decides     | refused until granted
//! ```

use holdfast_ipsec::Width;

/// Outbound numbers of a new Child SA, and after each takeover. Some milliseconds of a fast SA:
/// time for the first real grant to be committed.
pub const INITIAL_OUTBOUND_PACKETS: u64 = 4_096;

/// Inbound numbers of a new Child SA, and after each takeover. Small, because numbers between
/// what a successor knows and the horizon are refused.
pub const INITIAL_HORIZON_PACKETS: u64 = 128;

/// The same two where simulated clusters run on small numbers.
const SMALL_OUTBOUND_PACKETS: u64 = 24;
const SMALL_HORIZON_PACKETS: u64 = 16;

/// The end of the outbound numbers a new owner has behind `high`.
#[must_use]
pub fn begin_outbound(high: u64, esn: bool) -> u64 {
    extend_outbound(high, crate::small(INITIAL_OUTBOUND_PACKETS, SMALL_OUTBOUND_PACKETS), esn)
}

/// The horizon a new owner has above `horizon`.
#[must_use]
pub fn begin_horizon(horizon: u64, esn: bool) -> u64 {
    extend_horizon(horizon, crate::small(INITIAL_HORIZON_PACKETS, SMALL_HORIZON_PACKETS), esn)
}

/// Most outbound numbers of one grant to an SA with 32-bit numbers: its space is finite.
pub const OUTBOUND_GRANT_PACKETS_MAX: u64 = 1 << 16;

/// Most outbound numbers of one grant to an SA with extended numbers.
pub const OUTBOUND_GRANT_PACKETS_MAX_ESN: u64 = 1 << 20;

/// Most numbers one grant moves a horizon by.
pub const HORIZON_GRANT_PACKETS_MAX: u64 = 1 << 16;

/// The last sequence number that may be used: the counter must not cycle
/// (RFC 4303 section 3.3.3).
#[must_use]
pub const fn last_number(esn: bool) -> u64 {
    Width::from_esn(esn).last()
}

/// The end of the outbound numbers after a grant of `packets` behind `high` (both exclusive ends).
#[must_use]
pub fn extend_outbound(high: u64, packets: u64, esn: bool) -> u64 {
    let most = if esn { OUTBOUND_GRANT_PACKETS_MAX_ESN } else { OUTBOUND_GRANT_PACKETS_MAX };
    let end = high.saturating_add(packets.min(most));
    // `last_number + 1` is the exclusive end of all numbers; a high mark is never beyond it.
    end.min(last_number(esn).saturating_add(1)).max(high)
}

/// The horizon after a grant of `packets` above `horizon` (inclusive).
#[must_use]
pub fn extend_horizon(horizon: u64, packets: u64, esn: bool) -> u64 {
    let moved = horizon.saturating_add(packets.min(HORIZON_GRANT_PACKETS_MAX));
    moved.min(last_number(esn)).max(horizon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_two_bit_numbers_stop_at_their_last() {
        let end_of_all = 1u64 << 32;
        assert_eq!(extend_outbound(end_of_all - 10, 4_096, false), end_of_all);
        assert_eq!(extend_outbound(end_of_all, 4_096, false), end_of_all);
        assert_eq!(extend_horizon(u64::from(u32::MAX) - 1, 64, false), u64::from(u32::MAX));
        assert_eq!(extend_horizon(u64::from(u32::MAX), 64, false), u64::from(u32::MAX));
    }

    #[test]
    fn extended_numbers_go_on_beyond_and_never_wrap() {
        assert_eq!(extend_outbound(1 << 32, 4_096, true), (1 << 32) + 4_096);
        assert_eq!(extend_outbound(u64::MAX - 1, 4_096, true), u64::MAX);
        assert_eq!(extend_outbound(u64::MAX, 4_096, true), u64::MAX);
        assert_eq!(extend_horizon(u64::MAX - 3, 64, true), u64::MAX - 1);
    }

    #[test]
    fn a_grant_is_cut_to_its_bound() {
        assert_eq!(extend_outbound(1, u64::MAX, false), 1 + OUTBOUND_GRANT_PACKETS_MAX);
        assert_eq!(extend_outbound(1, u64::MAX, true), 1 + OUTBOUND_GRANT_PACKETS_MAX_ESN);
        assert_eq!(extend_horizon(0, u64::MAX, true), HORIZON_GRANT_PACKETS_MAX);
    }
}
