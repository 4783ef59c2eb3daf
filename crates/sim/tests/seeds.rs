//! A fixed set of seeds, on every change.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test reports by panicking and prints"
)]

use holdfast_sim::{Campaign, LOAD_FROM_SEED, Plan, campaign, run};

/// Seeds run on every change; `holdfast-sim --seeds N` runs as many as one likes.
const SEEDS: u64 = 180;

#[test]
fn a_fixed_set_of_seeds_is_clean() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let report = campaign(Campaign { first: 1, seeds: SEEDS, jobs, mutation: None }, |_, _| {});
    println!("{} steps, {} takeovers", report.steps, report.takeovers);
    assert_eq!(report.failed, [], "replay with holdfast-sim --seed N");
    assert!(report.takeovers > SEEDS, "the faults hit");
    assert!(report.outage_ms(500).is_some(), "calm kills are among them");
}

#[test]
fn a_fixed_set_of_seeds_in_which_loading_takes_time_is_clean() {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let first = LOAD_FROM_SEED;
    let report = campaign(Campaign { first, seeds: 60, jobs, mutation: None }, |_, _| {});
    assert_eq!(report.failed, [], "replay with holdfast-sim --seed N");
    let slow = (first..first + 60).filter(|seed| Plan::new(*seed).setup.load_us > 0);
    assert!(slow.count() > 5, "every fourth or so");
}

#[test]
fn two_runs_of_a_seed_are_the_same() {
    for seed in 1..=20 {
        let [first, second] = [(); 2].map(|()| run(&Plan::new(seed)));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.trace_hash, run(&Plan::new(seed + 1)).trace_hash, "seed {seed}");
    }
}

#[test]
fn a_plan_can_be_replayed_in_part() {
    let plan = Plan::new(7);
    let numbers = plan.numbers();
    assert_eq!(plan.keep(&numbers).faults, plan.faults);
    let kept: Vec<usize> = numbers.iter().copied().skip(1).collect();
    assert_eq!(plan.keep(&kept).numbers(), kept);
    assert_ne!(run(&plan.keep(&[])).trace_hash, run(&plan).trace_hash);
}
