//! Each check bites: a law broken on purpose is noticed within a stated number of seeds.

#![allow(clippy::panic, clippy::print_stdout, reason = "a test reports by panicking and prints")]

use holdfast_sim::{Mutation, Plan, run};

/// Runs seeds with `mutation` until one fails as it must, `seeds` at most.
fn bites(mutation: Mutation, seeds: u64, expected: &[&str]) {
    for seed in 1..=seeds {
        let mut plan = Plan::new(seed);
        plan.setup.mutation = Some(mutation);
        let failures = run(&plan).failures;
        let Some(failure) = failures.first() else { continue };
        println!("{mutation:?}: seed {seed}: {failure}");
        assert!(
            expected.iter().any(|name| failure.contains(name)),
            "seed {seed}: {failure}, not one of {expected:?}"
        );
        return;
    }
    panic!("{mutation:?} went unnoticed over {seeds} seeds");
}

#[test]
fn a_lease_without_promises_is_noticed_within_40_seeds() {
    bites(Mutation::LeaseIgnored, 40, &["TwoLeases"]);
}

#[test]
fn a_broken_promise_is_noticed_within_800_seeds() {
    bites(Mutation::PromiseIgnored, 800, &["TwoLeases"]);
}

#[test]
fn a_skipped_quarantine_is_noticed_within_1000_seeds() {
    bites(Mutation::QuarantineSkipped, 1_000, &["TwoLeases"]);
}

#[test]
fn a_lease_kept_on_transfer_is_noticed_within_600_seeds() {
    bites(Mutation::LeaseKeptOnTransfer, 600, &["TwoLeases"]);
}

#[test]
fn a_write_reported_too_early_is_noticed_within_400_seeds() {
    bites(
        Mutation::PersistedEarly,
        400,
        &[
            "no traffic",
            "RepeatedDifferently",
            "Halted",
            "StatesDiffer",
            "ForgottenSa",
            "NumberTwice",
            "does not start",
        ],
    );
}

#[test]
fn a_skipped_entry_is_noticed_within_5_seeds() {
    bites(Mutation::EntrySkipped, 5, &["StatesDiffer", "ForgottenSa"]);
}

#[test]
fn a_forgotten_incarnation_is_noticed_within_40_seeds() {
    bites(Mutation::IncarnationForgotten, 40, &["NumberTwice", "DeliveredTwice"]);
}

#[test]
fn a_range_used_by_two_owners_is_noticed_within_10_seeds() {
    bites(Mutation::RangeReused, 10, &["NumberTwice"]);
}

#[test]
fn a_floor_that_stays_is_noticed_within_20_seeds() {
    bites(Mutation::FloorNotMoved, 20, &["DeliveredTwice"]);
}

#[test]
fn a_range_used_before_its_commit_is_noticed_within_500_seeds() {
    bites(Mutation::RangeNotCommitted, 500, &["NumberTwice"]);
}

#[test]
fn a_horizon_that_is_not_enforced_is_noticed_within_20_seeds() {
    bites(Mutation::HorizonIgnored, 20, &["DeliveredTwice"]);
}

#[test]
fn a_response_before_its_commit_is_noticed_within_60_seeds() {
    bites(Mutation::SentBeforeCommit, 60, &["no traffic", "ForgottenSa", "RepeatedDifferently"]);
}

#[test]
fn a_tunnel_without_selectors_is_noticed_within_50_seeds() {
    bites(Mutation::SelectorsIgnored, 50, &["ForeignPacket"]);
}

#[test]
fn a_takeover_nobody_hears_of_is_noticed_within_300_seeds() {
    bites(Mutation::NotAnnounced, 300, &["no traffic", "does not connect"]);
}

#[test]
fn numbers_nobody_asks_for_are_noticed_within_20_seeds() {
    bites(Mutation::GrantsForgotten, 20, &["no traffic"]);
}
