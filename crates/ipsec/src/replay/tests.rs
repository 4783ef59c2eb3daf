//! The window against a naive model, and the cases of RFC 4303 appendix A.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// What the window should do, without blocks or rings.
struct Model {
    edge: u64,
    packets: u64,
    seen: BTreeSet<u64>,
    /// Every number up to here counts as seen.
    floor: u64,
}

impl Model {
    fn accept(&mut self, sequence: u64) -> Result<(), Replay> {
        if sequence <= self.edge && self.edge - sequence >= self.packets {
            return Err(Replay::TooOld);
        }
        if sequence <= self.floor || !self.seen.insert(sequence) {
            return Err(Replay::Seen);
        }
        self.edge = self.edge.max(sequence);
        Ok(())
    }
}

/// Steps of a sender on an unruly network, relative to the right edge.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![
        6 => -3_i64..4,
        3 => -200_i64..200,
        1 => -140_000_i64..140_000,
        1 => 0_i64..(1 << 40),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    #[test]
    fn a_successor_accepts_exactly_what_its_predecessor_would(
        window_packets in prop_oneof![0..300_u32, Just(4096)],
        edge in prop_oneof![Just(0), 0..200_u64],
        steps in prop::collection::vec(prop_oneof![8 => 1_i64..3, 1 => -150_i64..150], 1..300),
    ) {
        let mut window = ReplayWindow::with_edge(window_packets, edge);
        for step in steps {
            let _ = window.accept(window.right_edge().saturating_add_signed(step));
        }
        let exported = window.export();
        prop_assert!(exported.is_well_formed(), "{:?}", exported);
        let successor = ReplayWindow::resume(window_packets, &exported);
        let all_carried = exported.unseen.len() < UNSEEN_RUNS_MAX;
        for sequence in 0..window.right_edge() + 200 {
            let (before, after) = (window.check(sequence), successor.check(sequence));
            prop_assert!(after.is_err() || before.is_ok(), "{} passes at a successor only", sequence);
            prop_assert!(!all_carried || after == before, "number {}", sequence);
        }
    }

    #[test]
    fn a_window_that_is_started_again_forgets_all_it_was(
        window_packets in prop_oneof![0..300_u32, Just(4096)],
        before in prop::collection::vec(0..100_000_u64, 0..50),
        edge in 0..100_000_u64,
        accepted in prop::collection::vec(1..300_u64, 0..50),
    ) {
        let mut of_another = ReplayWindow::with_edge(window_packets, edge);
        for ahead in accepted {
            let _ = of_another.accept(edge + ahead);
        }
        let exported = of_another.export();
        let mut window = ReplayWindow::new(window_packets);
        for sequence in before {
            let _ = window.accept(sequence);
        }
        window.restart(&exported);
        prop_assert!(window == ReplayWindow::resume(window_packets, &exported));
    }

    #[test]
    fn the_window_does_what_the_model_does(
        window_packets in prop_oneof![0..300_u32, Just(4096), Just(131_072), Just(u32::MAX)],
        edge in prop_oneof![Just(0), 0..200_u64, any::<u32>().prop_map(u64::from)],
        steps in steps(),
    ) {
        let mut window = ReplayWindow::with_edge(window_packets, edge);
        let mut model =
            Model { edge, packets: window.packets(), seen: BTreeSet::new(), floor: edge };
        for step in steps {
            let sequence = model.edge.saturating_add_signed(step);
            let checked = window.check(sequence);
            let accepted = window.accept(sequence);
            prop_assert_eq!(checked, accepted);
            prop_assert_eq!(accepted, model.accept(sequence), "number {}", sequence);
            prop_assert_eq!(window.right_edge(), model.edge);
        }
    }

    #[test]
    fn a_number_the_window_can_place_is_inferred(
        edge in prop_oneof![0..200_u64, any::<u32>().prop_map(u64::from), 0..(u64::MAX >> 1)],
        window_packets in prop_oneof![Just(64_u32), 64..131_072_u32],
        forth in 0..(1_u64 << 32),
    ) {
        let window = ReplayWindow::with_edge(window_packets, edge);
        // From the left edge on, the next 2^32 numbers are told apart by their lower halves.
        let bottom = (edge + 1).saturating_sub(window.packets());
        let sequence = bottom + forth;
        prop_assert_eq!(window.infer_high(sequence as u32), Some(sequence));
        // The widest window places those within 2^31 of the edge.
        let near = edge.saturating_sub((1 << 31) - 1) + forth;
        prop_assert_eq!(window.infer_nearest(near as u32), Some(near));
    }

    #[test]
    fn any_number_at_any_edge_is_no_panic(edge: u64, sequence: u64, low: u32, packets: u32) {
        let mut window = ReplayWindow::with_edge(packets, edge);
        let _ = window.infer_high(low);
        let _ = window.infer_nearest(low);
        let accepted = window.accept(sequence);
        prop_assert_eq!(accepted.is_ok(), sequence > edge);
    }
}

#[test]
fn the_size_is_limited_and_whole_blocks() {
    for (asked, given) in [(0, 64), (64, 64), (65, 128), (131_072, 131_072), (u32::MAX, 131_072)] {
        assert_eq!(ReplayWindow::new(asked).packets(), given);
    }
}

#[test]
fn the_ring_has_a_block_to_spare() {
    for packets in [64, 128, 1024, 131_072] {
        let window = ReplayWindow::new(packets);
        let blocks = window.blocks.len() as u64;
        assert!(blocks.is_power_of_two() && blocks > window.packets() / BLOCK_BITS);
    }
}

#[test]
fn numbers_before_the_window_is_full_are_refused_the_second_time() {
    let mut window = ReplayWindow::new(64);
    for sequence in 1..=34 {
        assert_eq!(window.accept(sequence), Ok(()));
    }
    for sequence in 0..=34 {
        assert_eq!(window.accept(sequence), Err(Replay::Seen));
    }
}

#[test]
fn a_jump_leaves_the_old_numbers_of_the_window_open() {
    let mut window = ReplayWindow::new(64);
    window.accept(10).expect("new");
    window.accept(64 + 100).expect("ahead");
    assert_eq!(window.accept(164), Err(Replay::Seen));
    assert_eq!(window.accept(101), Ok(()), "the left edge");
    assert_eq!(window.accept(101), Err(Replay::Seen));
    assert_eq!(window.accept(100), Err(Replay::TooOld));
    assert_eq!(window.accept(10), Err(Replay::TooOld));
}

#[test]
fn a_jump_over_the_whole_ring_forgets_nothing_it_should_know() {
    let mut window = ReplayWindow::new(64);
    for sequence in 1..200 {
        window.accept(sequence).expect("new");
    }
    window.accept(1 << 40).expect("ahead");
    for sequence in (1 << 40) - 63..1 << 40 {
        assert_eq!(window.accept(sequence), Ok(()), "number {sequence}");
    }
}

/// Appendix A2.2, every sub-case, with W = 64: the lower half received, and the whole number meant.
#[test]
fn the_upper_half_is_inferred_as_appendix_a2_says() {
    const WRAP: u64 = 1 << 32;
    let case_a = ReplayWindow::with_edge(64, 5 * WRAP + 1000);
    for (low, sequence) in [
        (1000, 5 * WRAP + 1000),  // at Tl
        (937, 5 * WRAP + 937),    // at Bl
        (1001, 5 * WRAP + 1001),  // right of Tl
        (u32::MAX, 6 * WRAP - 1), // the subspace's last
        (936, 6 * WRAP + 936),    // left of Bl: the next subspace
        (0, 6 * WRAP),            // the next subspace's first
    ] {
        assert_eq!(case_a.infer_high(low), Some(sequence), "case A, {low}");
    }

    let case_b = ReplayWindow::with_edge(64, 5 * WRAP + 10);
    for (low, sequence) in [
        (10, 5 * WRAP + 10),            // at Tl
        (0, 5 * WRAP),                  // the subspace's first
        (11, 5 * WRAP + 11),            // right of Tl
        (u32::MAX, 5 * WRAP - 1),       // the subspace below
        (u32::MAX - 52, 5 * WRAP - 53), // at Bl
        (u32::MAX - 53, 6 * WRAP - 54), // left of Bl: ahead
    ] {
        assert_eq!(case_b.infer_high(low), Some(sequence), "case B, {low}");
    }

    let boundary = ReplayWindow::with_edge(64, 5 * WRAP + 63);
    assert_eq!(boundary.infer_high(0), Some(5 * WRAP), "Tl = W - 1 is case A still");
    assert_eq!(boundary.infer_high(u32::MAX), Some(6 * WRAP - 1));
}

#[test]
fn before_the_first_wrap_there_is_nothing_below() {
    let window = ReplayWindow::with_edge(64, 10);
    assert_eq!(window.infer_high(u32::MAX), Some(u64::from(u32::MAX)));
    assert_eq!(ReplayWindow::new(64).infer_nearest(1), Some(1));
}

#[test]
fn after_the_last_wrap_there_is_nothing_above() {
    let window = ReplayWindow::with_edge(64, u64::MAX - 5);
    assert_eq!(window.infer_high(0), None);
    assert_eq!(window.infer_high(u32::MAX), Some(u64::MAX));
}

#[test]
fn the_window_moves_from_one_subspace_to_the_next_and_judges_both() {
    let mut window = ReplayWindow::with_edge(64, (1 << 32) - 20);
    for low in [u32::MAX, 0, 5, u32::MAX - 3, 3] {
        let sequence = window.infer_high(low).expect("a number");
        assert_eq!(window.accept(sequence), Ok(()), "{low}");
        assert_eq!(window.accept(sequence), Err(Replay::Seen), "{low}");
    }
    assert_eq!(window.right_edge(), (1 << 32) + 5);
}
