//! The whole worker graph over in-memory frames: from parsing the Ethernet header to handing over
//! for transmission, no NIC. `cargo bench --bench graph -- [--json FILE] [--runs N] [--quick] [--scale]`.
//!
//! The graph is saturated: every frame is full. Buffers are filled outside of the time that
//! counts, 256 at a time, so they are in the second level cache, as in the comparison. A *run* is the
//! median of its rounds; a row has the least, the median and the greatest of its runs. The
//! implementations of a row take turns, run by run, so they may be compared with each other.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]
#![allow(clippy::expect_used, reason = "a bench has nobody to report an impossible setup to")]

mod bench;
mod port;
mod report;
mod scale;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each bench uses its part of what they share")]
mod support;

use bench::{Bench, NoAead};
use holdfast_crypto::{AeadAlgorithm, AeadBurst, Engine};
use report::Row;
use support::clock::{self, Tsc};
use support::frames::{Load, Size};
use support::setup::Direction;

/// Runs of a row, unless told otherwise.
const RUNS: usize = 7;
const WINDOW: u32 = 1024;
const WIDE_WINDOW: u32 = 131_072;
const MANY_FLOWS: u32 = 1_000_000;
const ALL_SIZES: [Size; 6] = [
    Size::Octets(64),
    Size::Octets(256),
    Size::Octets(512),
    Size::Octets(1024),
    Size::Octets(1420),
    Size::Imix,
];

/// What the words on the command line say.
struct Options {
    json: Option<String>,
    results: bool,
    runs: usize,
    quick: bool,
    /// How the figures grow, instead of the table.
    scale: bool,
    /// Only rows whose names have all of these words.
    only: Vec<String>,
    implementation: Option<String>,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            json: None,
            results: false,
            runs: RUNS,
            quick: false,
            scale: false,
            only: Vec::new(),
            implementation: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => options.json = words.next(),
                "--runs" => {
                    options.runs = words.next().and_then(|n| n.parse().ok()).unwrap_or(RUNS)
                }
                "--scale" => options.scale = true,
                "--quick" => options.quick = true,
                "--results" => options.results = true,
                "--only" => options.only.extend(words.next()),
                "--implementation" => options.implementation = words.next(),
                _ => {}
            }
        }
        options
    }

    /// The figures that are kept are those of all rows.
    fn is_all(&self) -> bool {
        self.only.is_empty() && self.implementation.is_none() && !self.quick
    }

    fn wants(&self, row: &str) -> bool {
        self.only.iter().all(|word| row.split(' ').any(|part| part == word))
    }

    fn wants_implementation(&self, name: &str) -> bool {
        self.implementation.as_deref().is_none_or(|wanted| wanted == name)
    }
}

fn main() {
    let options = Options::parse();
    let tsc = Tsc::of_this_machine();
    println!("# {}, {} MHz TSC, {} runs", clock::machine(), tsc.mhz, options.runs);
    if options.scale {
        return scale::run(&options, tsc);
    }
    let mut rows = Vec::new();
    for (direction, load) in cases(options.quick) {
        if options.wants(&Row::name(direction, &load)) {
            let measured = measure(direction, &load, &options, tsc);
            measured.iter().for_each(|row| println!("{row}"));
            rows.extend(measured);
        }
    }
    report::write(&rows, options.json.as_deref(), options.results && options.is_all(), tsc);
}

/// Every row's load, in the order of the table.
fn cases(quick: bool) -> Vec<(Direction, Load)> {
    let mut cases = Vec::new();
    for direction in [Direction::Encrypt, Direction::Decrypt] {
        for algorithm in [AeadAlgorithm::Aes128Gcm16, AeadAlgorithm::Aes256Gcm16] {
            for sas in [1, 1_000, 100_000] {
                for size in ALL_SIZES {
                    let load = Load { algorithm, size, sas, flows: sas, window_packets: WINDOW };
                    cases.push((direction, load));
                }
            }
        }
    }
    let base = |size, sas| Load {
        algorithm: AeadAlgorithm::Aes128Gcm16,
        size,
        sas,
        flows: sas,
        window_packets: WINDOW,
    };
    for size in [Size::Octets(64), Size::Imix] {
        for direction in [Direction::Encrypt, Direction::Decrypt] {
            for sas in [1, 1_000] {
                cases.push((direction, Load { flows: MANY_FLOWS, ..base(size, sas) }));
            }
        }
        for sas in [1, 1_000] {
            let load = Load { window_packets: WIDE_WINDOW, ..base(size, sas) };
            cases.push((Direction::Decrypt, load));
        }
    }
    if quick {
        let small = |load: &Load| {
            load.algorithm == AeadAlgorithm::Aes128Gcm16
                && !matches!(load.size, Size::Octets(256 | 1024))
        };
        cases.retain(|(_, load)| small(load));
    }
    cases
}

/// How packets are sealed and opened: as in the product, and not at all.
fn implementations() -> Vec<Box<dyn AeadBurst>> {
    vec![Box::new(Engine), Box::new(NoAead)]
}

fn measure(direction: Direction, load: &Load, options: &Options, tsc: Tsc) -> Vec<Row> {
    let mut benches: Vec<(&'static str, Bench, Vec<f64>)> = implementations()
        .into_iter()
        .filter(|aead| options.wants_implementation(aead.name()))
        .map(|aead| (aead.name(), Bench::new(direction, load, aead, options.runs), Vec::new()))
        .collect();
    for _ in 0..options.runs {
        for (_, bench, runs) in &mut benches {
            runs.push(bench.run(tsc));
        }
    }
    benches
        .into_iter()
        .map(|(implementation, _, runs)| Row::new(direction, load, implementation, runs, tsc))
        .collect()
}
