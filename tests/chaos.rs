//! A short storm of random faults over real processes. Needs root. `scripts/chaos` storms as long
//! as one likes.
//!
//! What must never happen is asserted; how long the service was away is printed.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test fails with its expectations")]

use holdfast_bed::chaos::{ChaosOptions, run};
use holdfast_bed::member::{PROGRAMS_VARIABLE, Profile, Programs};
use holdfast_bed::time::Wall;
use std::path::Path;
use std::time::Duration;

/// Long enough for every fault to come once.
const STORM: Duration = Duration::from_secs(60);

/// The product's programs: those the environment names, else what cargo built for this test.
fn programs() -> Programs {
    let built = Path::new(env!("CARGO_BIN_EXE_holdfastd")).parent();
    let named = std::env::var_os(PROGRAMS_VARIABLE);
    let folder = named.as_ref().map(Path::new).or(built);
    Programs::in_folder(folder.expect("a program lies in a folder"))
}

#[test]
fn a_storm_of_faults_breaks_no_promise() {
    let options = ChaosOptions {
        programs: programs(),
        profile: Profile::Relaxed,
        // Printed with the first line; `scripts/chaos --seed` draws the same faults again.
        seed: Wall::now().0 / 1_000_000_000,
        time: STORM,
        keep: None,
    };
    let report = run(&options, &mut |line: &str| println!("{line}")).expect("the bed stands");
    println!("{}", report.table());
    report.repeats.iter().for_each(|repeat| println!("repeat: {repeat}"));
    report.not_done.iter().for_each(|what| println!("not done: {what}"));
    let broken: Vec<_> = report.promises.iter().filter(|promise| !promise.kept).collect();
    assert!(broken.is_empty(), "seed {}: {broken:#?}\n{}", report.seed, report.troubles.join("\n"));
}
