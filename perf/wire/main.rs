//! Packets through real DPDK ports on one processor: our worker against DPDK's own example of an IPsec
//! gateway, `ipsec-secgw`. `./perf/run wire [--json FILE] [--rounds N] [--only WORD]`.
//!
//! Both replay the same file for ever (`net_pcap` with `infinite_rx`: a copy of each packet into a fresh
//! buffer) and send to `net_null`. Each measurement is a process of its own, and the implementations take
//! turns round by round, so they may be compared with each other. Before anything is timed, each
//! sends one replay into a file, and every packet in there is opened and compared.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]
#![allow(clippy::expect_used, reason = "a bench has nobody to report an impossible setup to")]
#![allow(clippy::panic, reason = "as above")]

mod capture;
mod case;
mod device;
mod gateway;
mod meter;
mod report;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each bench uses its part of what they share")]
mod support;

use case::Case;
use device::Order;
use gateway::Mode;
use report::Row;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use support::clock::{self, Tsc};

/// Turns of each implementation, unless told otherwise.
const ROUNDS: usize = 5;
/// Windows of a second in each turn. The first warms up and is not among the figures.
const WINDOWS: u32 = 3;
/// The first word of the command line of our device under test.
const DEVICE: &str = "device";
/// What the rows of bare ports are called.
pub(crate) const PORTS_ALONE: &str = "ports alone";

/// What happened in a window, and the time it took of the processor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    packets: u64,
    dropped: u64,
    elapsed: Duration,
}

/// Packets to receive, and where.
pub(crate) struct Replay<'a> {
    case: &'a Case,
    folder: &'a Path,
    file: PathBuf,
    cpu: usize,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Implementation {
    Ours,
    Gateway(Mode),
    /// Nobody: the ports forward to each other.
    PortsAlone,
}

impl Implementation {
    fn all() -> Vec<Self> {
        let theirs = [Self::Gateway(Mode::Queues), Self::Gateway(Mode::Library)];
        let theirs = theirs.into_iter().filter(|_| gateway::is_there());
        [Self::Ours].into_iter().chain(theirs).chain([Self::PortsAlone]).collect()
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ours => report::OURS,
            Self::Gateway(mode) => mode.name(),
            Self::PortsAlone => PORTS_ALONE,
        }
    }

    fn capture(self, replay: &Replay<'_>) {
        let file = replay.folder.join("sent.pcap");
        match self {
            Self::Ours => drop(ours(replay, report::OURS, Some(&file))),
            Self::Gateway(mode) => gateway::capture(mode, replay, &file),
            Self::PortsAlone => return,
        }
        if let Err(fault) = capture::check(replay.case, &file) {
            println!("{} {}: {fault}", replay.case, self.name());
            std::process::exit(1);
        }
    }

    fn measure(self, replay: &Replay<'_>) -> Vec<Figure> {
        match self {
            Self::Ours => ours(replay, report::OURS, None).split_off(1),
            Self::PortsAlone => ours(replay, PORTS_ALONE, None).split_off(1),
            Self::Gateway(mode) => gateway::measure(mode, replay, WINDOWS),
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((word, order)) if word == DEVICE => device::run(&parse_order(order)),
        _ => compare(&words),
    }
}

fn parse_order(words: &[String]) -> Order {
    let word = |at: usize| words.get(at).expect("all words are there").clone();
    Order {
        case: Case::named(&word(0)).expect("a known case"),
        replay: word(1),
        cpu: word(2).parse().expect("a number"),
        windows: word(3).parse().expect("a number"),
        ports_alone: word(4) == PORTS_ALONE,
        capture: words.get(5).cloned(),
    }
}

/// Our worker, in a process of its own.
fn ours(replay: &Replay<'_>, what: &str, capture: Option<&Path>) -> Vec<Figure> {
    let output = Command::new(std::env::current_exe().expect("it runs"))
        .args([DEVICE, &replay.case.to_string()])
        .arg(&replay.file)
        .args([&replay.cpu.to_string(), &WINDOWS.to_string(), what])
        .args(capture)
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {said}", replay.case);
    let text = String::from_utf8(output.stdout).expect("numbers");
    text.lines().filter_map(parse_figure).collect()
}

fn parse_figure(line: &str) -> Option<Figure> {
    let mut numbers = line.split(' ').map_while(|word| word.parse::<u64>().ok());
    let (packets, dropped) = (numbers.next()?, numbers.next()?);
    Some(Figure { packets, dropped, elapsed: Duration::from_nanos(numbers.next()?) })
}

fn compare(words: &[String]) {
    let after = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)
    };
    let rounds = after("--rounds").and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let only = after("--only");
    let tsc = Tsc::of_this_machine();
    println!("# {}, {} MHz TSC, {rounds} rounds", clock::machine(), tsc.mhz);
    let folder = tempfile::tempdir().expect("there is room for captures");
    let cpu = thread::available_parallelism().map_or(1, usize::from) - 1;
    let mut rows = Vec::new();
    for case in Case::all() {
        if only.is_none_or(|word| case.to_string().split('/').any(|part| part == word)) {
            let file = folder.path().join("replay.pcap");
            capture::write(&file, &case.frames());
            let replay = Replay { case: &case, folder: folder.path(), file, cpu };
            let measured = measure(&replay, rounds, tsc);
            measured.iter().for_each(|row| println!("{row}"));
            rows.extend(measured);
        }
    }
    let results = words.iter().any(|word| word == "--results") && only.is_none();
    report::write(&rows, after("--json"), results && gateway::is_there(), tsc);
}

fn measure(replay: &Replay<'_>, rounds: usize, tsc: Tsc) -> Vec<Row> {
    let mut all: Vec<(Implementation, Vec<Figure>)> =
        Implementation::all().into_iter().map(|who| (who, Vec::new())).collect();
    all.iter().for_each(|(who, _)| who.capture(replay));
    for _ in 0..rounds {
        for (who, figures) in &mut all {
            figures.extend(who.measure(replay));
        }
    }
    let row = |(who, figures): (Implementation, Vec<Figure>)| {
        let dropped: u64 = figures.iter().map(|figure| figure.dropped).sum();
        assert_eq!(dropped, 0, "{} by {}", replay.case, who.name());
        Row::new(*replay.case, who.name(), &figures, tsc)
    };
    all.into_iter().map(row).collect()
}
