//! Tests that need a process, and perhaps a network namespace, of their own.
//!
//! DPDK's environment starts once in a process. So a test of it runs twice: first as the parent that
//! makes namespaces and starts its own binary again, then, in that child, its body.

use std::env;
use std::process::Command;

/// Set in a child process that is to run a test's body.
const CHILD: &str = "HOLDFAST_TEST_CHILD";

/// Runs the body of `test` in a process of its own.
pub(crate) fn in_own_process(test: &str, body: impl FnOnce()) {
    in_own_process_through(&[], test, body);
}

/// Runs the body of `test` in a process of its own, started through the command `prefix`.
pub(crate) fn in_own_process_through(prefix: &[String], test: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    let mut words: Vec<String> = prefix.to_vec();
    words.push(env::current_exe().unwrap().display().to_string());
    words.extend(["--exact", test, "--nocapture", "--test-threads=1"].map(str::to_owned));
    let (program, arguments) = words.split_first().unwrap();
    let status = Command::new(program).args(arguments).env(CHILD, "1").status().unwrap();
    assert!(status.success(), "{test} failed in its own process: {status}");
}

/// True in the process that runs a test's body.
pub(crate) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// A network namespace that is removed when dropped.
pub(crate) struct Namespace(String);

impl Namespace {
    /// A namespace with these veth pairs up in it, silent but for what a test sends. `None`, said
    /// aloud, where namespaces cannot be made. In a test's child process nothing is made.
    pub(crate) fn with_veths(name: &str, pairs: &[(&str, &str)]) -> Option<Self> {
        if is_child() {
            return Some(Self(String::new()));
        }
        let namespace = Self(format!("{name}-{}", std::process::id()));
        if !succeeds(&["ip", "netns", "add", &namespace.0]) {
            println!("SKIPPED: network namespaces need root and iproute2");
            return None;
        }
        let quiet = ["all", "default"].map(|of| format!("net.ipv6.conf.{of}.disable_ipv6=1"));
        assert!(namespace.run(&["sysctl", "-qw", &quiet[0], &quiet[1]]), "no IPv6 chatter");
        for (a, b) in pairs {
            let made = namespace.run(&["ip", "link", "add", a, "type", "veth", "peer", "name", b]);
            assert!(made, "a veth pair {a} - {b}");
            for end in [a, b] {
                assert!(namespace.run(&["ip", "link", "set", end, "up"]), "{end} up");
            }
        }
        Some(namespace)
    }

    /// Runs a command inside; true when it succeeds.
    pub(crate) fn run(&self, words: &[&str]) -> bool {
        succeeds(&[&["ip", "netns", "exec", &self.0], words].concat())
    }

    /// What to put before a command to run it inside.
    pub(crate) fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.0].map(str::to_owned).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            succeeds(&["ip", "netns", "del", &self.0]);
        }
    }
}

/// Runs a command; true when it succeeds.
pub(crate) fn succeeds(words: &[&str]) -> bool {
    let Some((program, arguments)) = words.split_first() else { return false };
    Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}
