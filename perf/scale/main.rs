//! What a hundred thousand SAs cost: the takeover, the records, the steady replication.
//! `cargo bench --bench scale -- [--sas N,N,...] [--json]`.
//!
//! Pure code in one thread, no network and no disk: times are processor time of the controller's thread,
//! so that what else runs on the machine does not count.
//! Counts (entries, bytes, items) are exact and repeat.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]
#![allow(clippy::expect_used, reason = "a bench has nobody to report an impossible setup to")]

mod behind;
mod records;
mod steady;
mod takeover;

use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write;

/// Processor time of this thread in milliseconds: what else runs on the machine does not count.
fn cpu_ms() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// One figure: what, how much, of what unit, and whether it was timed or counted.
struct Figure {
    section: &'static str,
    sas: u32,
    name: &'static str,
    value: f64,
    unit: &'static str,
    timed: bool,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let json = words.iter().any(|word| word == "--json");
    let named = words.iter().position(|word| word == "--sas").and_then(|at| words.get(at + 1));
    let sizes: Vec<u32> = named.map_or_else(
        || vec![1, 1_000, 100_000],
        |list| list.split(',').filter_map(|size| size.parse().ok()).collect(),
    );
    let mut figures = Vec::new();
    for sas in &sizes {
        figures.extend(records::measure(*sas));
        figures.extend(takeover::measure(*sas));
        figures.extend(behind::measure(*sas));
    }
    if let Some(most) = sizes.iter().max() {
        figures.extend(steady::measure(*most));
    }
    println!("{}", if json { as_json(&figures) } else { as_table(&figures) });
}

fn as_table(figures: &[Figure]) -> String {
    let mut text =
        String::from("| part | SAs | what | value | unit | how |\n|---|---|---|---|---|---|\n");
    for Figure { section, sas, name, value, unit, timed } in figures {
        let how = if *timed { "timed" } else { "counted" };
        let _infallible =
            writeln!(text, "| {section} | {sas} | {name} | {value:.1} | {unit} | {how} |");
    }
    text
}

fn as_json(figures: &[Figure]) -> String {
    let objects = figures.iter().map(|figure| {
        serde_json::json!({
            "part": figure.section,
            "sas": figure.sas,
            "what": figure.name,
            "value": figure.value,
            "unit": figure.unit,
            "timed": figure.timed,
        })
    });
    serde_json::Value::Array(objects.collect()).to_string()
}
