//! House rules that neither rustfmt nor clippy checks.
//!
//! Where `unsafe` may live, what a pure crate must never name, and that no test sleeps on the job
//! by being ignored.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Crates whose code takes time, randomness and I/O as arguments.
const PURE: &[&str] = &[
    "api", "cluster", "crypto", "datapath", "ike", "ipsec", "maglev", "member", "packet", "replica",
];

/// What a pure crate never names outside its tests and examples.
const IMPURE_WORDS: &[&str] = &[
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "getrandom::",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn all_rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["appliance", "crates", "dpdk-wrap", "perf", "tests"] {
        rust_files(&root().join(folder), &mut files);
    }
    files
}

/// The part of a file that ships: everything above its test module.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn pure_crates_name_no_socket_clock_thread_or_file() {
    let mut offences = Vec::new();
    for krate in PURE {
        let mut files = Vec::new();
        rust_files(&root().join("crates").join(krate).join("src"), &mut files);
        for file in files.iter().filter(|f| !f.ends_with("tests.rs")) {
            let text = fs::read_to_string(file).expect("a source file is readable");
            for word in IMPURE_WORDS {
                if shipped(&text).contains(word) {
                    offences.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    // The operator's blocking client speaks over a Unix socket by its nature; it names none of these.
    assert!(offences.is_empty(), "{offences:#?}");
}

/// What makes a thread wait, or ask the kernel, and so is no part of a worker.
const WAITING_WORDS: &[&str] =
    &["Mutex", "RwLock", "Condvar", "tracing", "println", "eprintln", "std::io", "std::thread"];

#[test]
fn a_worker_names_nothing_that_waits() {
    let mut files = Vec::new();
    for krate in ["datapath", "ipsec", "packet", "maglev"] {
        rust_files(&root().join("crates").join(krate).join("src"), &mut files);
    }
    for file in files.iter().filter(|f| !f.ends_with("tests.rs")) {
        let text = fs::read_to_string(file).expect("a source file is readable");
        for word in WAITING_WORDS {
            assert!(!shipped(&text).contains(word), "{}: {word}", file.display());
        }
    }
}

#[test]
fn unsafe_lives_in_the_dpdk_crates_and_one_module_of_crypto_only() {
    for krate in PURE.iter().chain(&["bed"]).filter(|krate| **krate != "crypto") {
        let text = fs::read_to_string(root().join("crates").join(krate).join("src/lib.rs"))
            .expect("each crate has a lib.rs");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{krate} does not forbid unsafe code");
    }
    let mut files = Vec::new();
    rust_files(&root().join("crates/crypto/src"), &mut files);
    let vectors = root().join("crates/crypto/src/simd");
    for file in files.iter().filter(|file| !file.starts_with(&vectors)) {
        let text = fs::read_to_string(file).expect("a source file is readable");
        let denies = text.contains("#![deny(unsafe_code)]");
        assert!(denies || !text.contains("unsafe"), "{} has unsafe code", file.display());
        assert!(!text.contains("allow(unsafe_code"), "{} allows unsafe code", file.display());
    }
    let shell = fs::read_to_string(root().join("appliance/lib.rs")).expect("the shell's lib.rs");
    assert!(shell.contains("#![forbid(unsafe_code)]") || shell.contains("#![deny(unsafe_code)]"));
}

#[test]
fn no_test_is_ignored() {
    let attribute = ["#[", "ignore"].concat();
    for file in all_rust_files() {
        let text = fs::read_to_string(&file).expect("a source file is readable");
        assert!(!text.contains(&attribute), "{} ignores a test", file.display());
    }
}

#[test]
fn files_stay_readable_in_length() {
    /// Hard ceiling; the aim is 600 (see README, "How the code reads").
    const LINES_MAX: usize = 1000;
    for file in all_rust_files() {
        let lines = fs::read_to_string(&file).expect("a source file is readable").lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: split it", file.display());
    }
}
