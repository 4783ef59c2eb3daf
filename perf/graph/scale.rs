//! How the figures grow: with SAs, with flows, with workers. `./perf/run scale`.
//!
//! Workers share nothing but the processor's caches and memory: each has its SAs, its flows and its
//! packets, as with a queue each. They work at the same time, each on a processor of its own.

use crate::bench::Bench;
use crate::support::clock::{self, Tsc};
use crate::support::frames::{Load, Size};
use crate::support::readme;
use crate::support::setup::Direction;
use crate::{Options, WINDOW, implementations};
use holdfast_crypto::AeadAlgorithm;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Barrier;
use std::thread;

const SAS: [u32; 5] = [1, 100, 1_000, 10_000, 100_000];
/// Of one SA.
const FLOWS: [u32; 4] = [1_000, 100_000, 1_000_000, 4_000_000];
/// Loads that more than one worker is tried with.
const SAS_PER_WORKER: [u32; 2] = [1, 1_000];

/// What one row is measured with.
#[derive(Debug, Clone, Copy)]
struct Case {
    direction: Direction,
    /// Of each worker.
    load: Load,
    workers: usize,
}

/// One case through one implementation.
struct Row {
    case: Case,
    implementation: &'static str,
    /// Cycles a packet of one worker: the least, the median and the greatest of the runs.
    cycles: [f64; 3],
    /// Of all workers together.
    mpps_p50: f64,
}

pub(crate) fn run(options: &Options, tsc: Tsc) {
    let mut rows = Vec::new();
    for case in cases() {
        if options.wants(&case.to_string()) {
            let measured = measure(&case, options, tsc);
            measured.iter().for_each(|row| println!("{row}"));
            rows.extend(measured);
        }
    }
    if let Some(file) = &options.json {
        readme::write_json(file, rows.iter().map(Row::as_json).collect());
    }
    if options.results && options.is_all() {
        let head = "bench,direction,aead,size,sas,flows,workers,implementation,\
                    cycles_min,cycles_p50,cycles_max,mpps_p50\n";
        let lines: String = rows.iter().map(|row| row.as_csv() + "\n").collect();
        readme::write_results("scale", &(head.to_owned() + &lines), &markdown(&rows, tsc));
    }
}

fn cases() -> Vec<Case> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let load = |sas, flows| Load {
        algorithm: AeadAlgorithm::Aes128Gcm16,
        size: Size::Octets(64),
        sas,
        flows,
        window_packets: WINDOW,
    };
    let mut cases = Vec::new();
    for direction in [Direction::Encrypt, Direction::Decrypt] {
        let one = |load| Case { direction, load, workers: 1 };
        cases.extend(SAS.map(|sas| one(load(sas, sas))));
        cases.extend(FLOWS.map(|flows| one(load(1, flows))));
        for workers in 2..=processors {
            let each = |sas| Case { direction, load: load(sas, sas), workers };
            cases.extend(SAS_PER_WORKER.map(each));
        }
    }
    cases
}

fn measure(case: &Case, options: &Options, tsc: Tsc) -> Vec<Row> {
    let names: Vec<&'static str> = implementations().iter().map(|aead| aead.name()).collect();
    let wanted = names.into_iter().filter(|name| options.wants_implementation(name));
    wanted
        .map(|name| {
            let cycles = readme::spread(together(case, name, options.runs, tsc));
            let mpps_p50 = case.workers as f64 * tsc.mhz / cycles[1];
            Row { case: *case, implementation: name, cycles, mpps_p50 }
        })
        .collect()
}

/// Cycles a packet of each run, the mean of the workers.
fn together(case: &Case, implementation: &str, runs: usize, tsc: Tsc) -> Vec<f64> {
    let barrier = Barrier::new(case.workers);
    let work = &|cpu: usize| {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).expect("the processor is ours");
        let aead = implementations().into_iter().find(|aead| aead.name() == implementation);
        let mut bench = Bench::new(case.direction, &case.load, aead.expect("it is one"), runs);
        (0..runs)
            .map(|_| {
                barrier.wait();
                bench.run(tsc)
            })
            .collect::<Vec<f64>>()
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let each: Vec<Vec<f64>> = thread::scope(|scope| {
        // The last processors first: interrupts tend to meet the first.
        let cpus = (0..processors.max(case.workers)).rev().take(case.workers);
        let threads: Vec<_> = cpus.map(|cpu| scope.spawn(move || work(cpu))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it has worked")).collect()
    });
    let of_run = |run: usize| each.iter().filter_map(move |runs| runs.get(run)).sum::<f64>();
    (0..runs).map(|run| of_run(run) / case.workers as f64).collect()
}

impl Row {
    fn as_json(&self) -> Value {
        let ([min, p50, max], Load { size, sas, flows, .. }) = (self.cycles, self.case.load);
        json!({
            "bench": "scale",
            "direction": self.case.direction.name(),
            "aead": "aes-128-gcm",
            "size": size.to_string(),
            "sas": sas,
            "flows": flows,
            "workers": self.case.workers,
            "implementation": self.implementation,
            "cycles_min": min,
            "cycles_p50": p50,
            "cycles_max": max,
            "mpps_p50": self.mpps_p50,
        })
    }

    fn as_csv(&self) -> String {
        let ([min, p50, max], Load { size, sas, flows, .. }) = (self.cycles, self.case.load);
        let (direction, workers, mpps) =
            (self.case.direction.name(), self.case.workers, self.mpps_p50);
        let implementation = self.implementation;
        format!(
            "scale,{direction},aes-128-gcm,{size},{sas},{flows},{workers},{implementation},\
             {min:.1},{p50:.1},{max:.1},{mpps:.2}"
        )
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, Load { size, sas, flows, .. }) = (self.direction.name(), self.load);
        write!(f, "{direction} {size} sas={sas} flows={flows} workers={}", self.workers)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([min, p50, max], mpps) = (self.cycles, self.mpps_p50);
        let (case, implementation) = (self.case, self.implementation);
        write!(f, "{case} {implementation}: {min:.0} / {p50:.0} / {max:.0} cycles, {mpps:.1} Mpps")
    }
}

/// A line for each case: cycles with the AEAD and without, and packets a second of all workers.
fn markdown(rows: &[Row], tsc: Tsc) -> String {
    let mut text = format!(
        "{}, {} MHz TSC, 64 octets, AES-128-GCM. Cycles a packet of each worker: least / median of the \
         runs; packets a second of all workers.\n\n\
         | direction | SAs each | flows each | workers | with | cycles | Mpps |\n\
         |---|---|---|---|---|---|---|\n",
        clock::machine(),
        tsc.mhz
    );
    for Row { case, implementation, cycles: [min, p50, _], mpps_p50 } in rows {
        let (direction, Load { sas, flows, .. }) = (case.direction.name(), case.load);
        text += &format!(
            "| {direction} | {sas} | {flows} | {} | {implementation} | {min:.0} / {p50:.0} | \
             {mpps_p50:.1} |\n",
            case.workers
        );
    }
    text
}
