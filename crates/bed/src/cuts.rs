//! Packets taken away between hosts that otherwise stay up: rules in a host's own packet filter.

use crate::error::BedError;
use crate::namespace::Namespace;
use crate::process::run_with_input;
use std::fmt::Write;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What would arrive at the host.
    In,
    /// What the host would send.
    Out,
}

/// Begins to take packets away at a host: those that go `way` and match an nftables `rule`, such as
/// `ip daddr 10.99.0.1`. Rules of one `name` are lifted together.
///
/// # Errors
/// When nft refuses the rule.
pub fn cut(host: &Namespace, name: &str, way: Way, rule: &str) -> Result<(), BedError> {
    let hook = match way {
        Way::In => "input",
        Way::Out => "output",
    };
    let mut rules = format!("add table ip {name}\n");
    let _ = write!(
        rules,
        "add chain ip {name} {hook} {{ type filter hook {hook} priority 0; }}\n\
         add rule ip {name} {hook} {rule} drop\n"
    );
    let arguments = ["netns", "exec", host.name(), "nft", "-f", "-"];
    run_with_input("ip", &arguments, &rules).map(drop)
}

/// Lifts the rules of that name.
///
/// # Errors
/// When there are none.
pub fn lift(host: &Namespace, name: &str) -> Result<(), BedError> {
    host.run(&["nft", "delete", "table", "ip", name]).map(drop)
}
