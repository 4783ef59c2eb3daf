//! The drawing of the floors in the README, kept true: dependencies only go down.
//!
//! Reads `cargo metadata`, so it sees what cargo sees. A crate that is not in the table fails the
//! test as well: a new room needs a floor.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use std::collections::BTreeMap;

/// Floor of each package of the workspace.
const FLOORS: &[(&str, u32)] = &[
    ("holdfast-api", 0),
    ("holdfast-crypto", 0),
    ("holdfast-dpdk-sys", 0),
    ("holdfast-maglev", 0),
    ("holdfast-packet", 0),
    ("holdfast-dpdk-wrap", 1),
    ("holdfast-ipsec", 1),
    ("holdfast-cluster", 2),
    ("holdfast-datapath", 2),
    ("holdfast-ike", 2),
    ("holdfast-replica", 3),
    ("holdfast-member", 4),
    ("holdfast", 5),
    // Development only: namespaces, peers and captures for the tests of the root package.
    ("holdfast-bed", 5),
    // Development only: clusters in virtual time.
    ("holdfast-sim", 5),
];

/// Packages that only one crate may name, with that crate.
const CONFINED: &[(&str, &str)] = &[
    ("bindgen", "holdfast-dpdk-sys"),
    ("protobuf", "holdfast-replica"),
    ("raft", "holdfast-replica"),
    ("rustls", "holdfast"),
    ("slog", "holdfast-replica"),
];

fn workspace_packages() -> Vec<Package> {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata runs");
    metadata.packages
}

#[test]
fn dependencies_only_go_down() {
    let floors: BTreeMap<&str, u32> = FLOORS.iter().copied().collect();
    let mut upward = Vec::new();
    for package in workspace_packages() {
        let Some(own) = floors.get(package.name.as_str()) else {
            panic!("package {} has no floor: add it to FLOORS and to the README", package.name);
        };
        for dependency in &package.dependencies {
            let Some(below) = floors.get(dependency.name.as_str()) else { continue };
            let test_only = dependency.kind == DependencyKind::Development;
            let goes_down = below < own || (test_only && below <= own);
            if !goes_down {
                upward.push(format!("{} ({own}) -> {} ({below})", package.name, dependency.name));
            }
        }
    }
    assert!(upward.is_empty(), "upward dependencies: {upward:#?}");
}

#[test]
fn the_named_foreign_crates_stay_in_their_room() {
    for package in workspace_packages() {
        for dependency in &package.dependencies {
            for (name, home) in CONFINED {
                assert!(
                    dependency.name != *name || package.name.as_str() == *home,
                    "{} names {name}, which belongs to {home} alone",
                    package.name
                );
            }
        }
    }
}

/// What can be broken on purpose for tests is not in the programs. Built alone they must not have the
/// feature `testing` of any crate: only then is `holdfast_cluster::mutated` the constant `false`.
#[test]
fn the_product_is_built_without_what_tests_break() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = std::process::Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--package", "holdfast"])
        .args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}|{f}"])
        .output()
        .expect("cargo tree runs");
    let tree = String::from_utf8_lossy(&tree.stdout);
    let ours: Vec<&str> = tree.lines().filter(|line| line.starts_with("holdfast")).collect();
    assert!(ours.iter().any(|line| line.starts_with("holdfast-cluster ")), "{tree}");
    let has_testing = |line: &&&str| line.split('|').nth(1).is_some_and(|f| f.contains("testing"));
    let testing: Vec<&&str> = ours.iter().filter(has_testing).collect();
    assert!(testing.is_empty(), "{testing:#?}");
}
