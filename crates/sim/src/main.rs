//! `holdfast-sim`: runs as many seeds as one likes. Exits 0 when all are clean, 1 when one failed,
//! 2 when it was called wrongly.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a command line is for")]

use clap::Parser;
use holdfast_sim::{Campaign, Mutation, Plan, Report, campaign, shrink, tell};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Simulates whole clusters in virtual time while everything goes wrong, and checks the laws.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Write the result as a JSON object to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Seeds run at the same time; as many as there are cores unless given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Run this seed alone and tell what happened.
    #[arg(long, conflicts_with_all = ["seeds", "first", "json", "jobs"])]
    seed: Option<u64>,
    /// Of the faults of `--seed`, only those with these numbers.
    #[arg(long, requires = "seed", value_delimiter = ',')]
    keep: Option<Vec<usize>>,
    /// Break this law on purpose, by its name in `holdfast_cluster::Mutation`.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let known = Mutation::ALL.into_iter().find(|known| format!("{known:?}") == name);
    known.ok_or_else(|| format!("one of {:?}", Mutation::ALL))
}

#[derive(Serialize)]
struct Json {
    seeds: u64,
    failures: u64,
    failed_seeds: Vec<u64>,
    steps: u64,
    takeovers: u64,
    virtual_outage_ms: Option<OutageMs>,
    virtual_outages: usize,
}

#[derive(Serialize)]
struct OutageMs {
    p50: f64,
    p99: f64,
    max: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    }
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let mut plan = Plan::new(seed);
    plan.setup.mutation = arguments.mutation;
    if let Some(numbers) = &arguments.keep {
        plan = plan.keep(numbers);
    }
    println!("{:?}", plan.setup);
    plan.faults.iter().for_each(|fault| println!("{fault}"));
    let outcome = tell(&plan);
    outcome.log.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {seed}: trace {:016x}, {} steps, {} takeovers",
        outcome.trace_hash, outcome.steps, outcome.takeovers
    );
    outcome.outages.iter().for_each(|outage| println!("outage: {:?} ns", outage.parts()));
    outcome.failures.iter().for_each(|failure| println!("FAILED: {failure}"));
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(arguments: &Arguments) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.map_or(cores, usize::from);
    let wanted = Campaign {
        first: arguments.first,
        seeds: arguments.seeds,
        jobs,
        mutation: arguments.mutation,
    };
    let report = campaign(wanted, |report, elapsed| show_progress(wanted, report, elapsed));
    eprintln!();
    for (seed, failure) in &report.failed {
        println!("seed {seed} failed: {failure}");
    }
    if let Some((seed, _)) = report.failed.first() {
        show_smallest(*seed, arguments.mutation);
    }
    let json = to_json(&report);
    println!(
        "{} seeds, {} failures, {} steps, {} takeovers",
        json.seeds, json.failures, json.steps, json.takeovers
    );
    if let Some(OutageMs { p50, p99, max }) = &json.virtual_outage_ms {
        let count = json.virtual_outages;
        println!("virtual outage of {count} kills: p50 {p50} ms, p99 {p99} ms, max {max} ms");
        for per_mille in [500, 990, 1_000] {
            let parts = report.parts_ms(per_mille);
            let parts: Vec<String> = parts.map(|(name, ms)| format!("{name} {ms:.1} ms")).collect();
            println!("  {per_mille} per mille of each part within: {}", parts.join(", "));
        }
    }
    if let Some(file) = &arguments.json
        && let Err(error) = write_json(file, &json)
    {
        eprintln!("{}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    if report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show_progress(wanted: Campaign, report: &Report, elapsed: Duration) {
    let per_s = report.seeds as f64 / elapsed.as_secs_f64().max(0.001);
    eprint!(
        "\r{} of {} seeds, {} failures, {per_s:.0} seeds/s ",
        report.seeds, wanted.seeds, report.failures
    );
}

fn show_smallest(seed: u64, mutation: Option<Mutation>) {
    let mut plan = Plan::new(seed);
    plan.setup.mutation = mutation;
    let smallest = shrink(&plan);
    let numbers: Vec<String> = smallest.numbers().iter().map(usize::to_string).collect();
    println!("the smallest part of seed {seed} that fails:");
    smallest.faults.iter().for_each(|fault| println!("{fault}"));
    println!("replay it: holdfast-sim --seed {seed} --keep {}", numbers.join(","));
}

fn to_json(report: &Report) -> Json {
    let outages = [500, 990, 1_000].map(|per_mille| report.outage_ms(per_mille));
    let virtual_outage_ms = match outages {
        [Some(p50), Some(p99), Some(max)] => Some(OutageMs { p50, p99, max }),
        _ => None,
    };
    Json {
        seeds: report.seeds,
        failures: report.failures,
        failed_seeds: report.failed.iter().map(|(seed, _)| *seed).collect(),
        steps: report.steps,
        takeovers: report.takeovers,
        virtual_outage_ms,
        virtual_outages: report.outages.len(),
    }
}

fn write_json(file: &std::path::Path, json: &Json) -> std::io::Result<()> {
    let mut text = serde_json::to_string_pretty(json).map_err(std::io::Error::other)?;
    text.push('\n');
    std::fs::write(file, text)
}
