//! `holdfast-demo`: the main job end to end, on this machine, in network namespaces.
#![allow(clippy::print_stdout, reason = "a demonstration talks to the person who runs it")]

use clap::{Parser, Subcommand};
use holdfast_bed::demo::{DemoOptions, run};
use holdfast_bed::error::BedError;
use holdfast_bed::leftovers::clean_up_orphans;
use holdfast_bed::member::{Profile, Programs};
use holdfast_bed::report::{DOWNLOAD_MIN_BYTES, Promise, Report};
use holdfast_bed::tool::{clean_up_on_panic, write_json};
use holdfast_bed::wait::catch_signals;
use std::path::PathBuf;
use std::process::ExitCode;

/// Kills the owner of the common address in mid-download and measures what the client notices.
#[derive(Debug, Parser)]
#[command(name = "holdfast-demo", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Task>,
    /// Writes the findings as one JSON object to FILE ("-" for standard output, at the end).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keeps captures and logs in the output folder.
    #[arg(long)]
    keep: bool,
    /// Runs the members with the relaxed timing profile, for crowded machines.
    #[arg(long)]
    relaxed: bool,
    /// How many owners to kill, one after the other.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    kills: u8,
    /// Where the picture, and what is kept, goes.
    #[arg(long, value_name = "FOLDER", default_value = "target/demo")]
    output: PathBuf,
    /// Where holdfastd and holdfast are [default: beside this program].
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Removes namespaces, processes and folders of demos and tests that were killed themselves.
    Cleanup,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("holdfast-demo: {error}");
            ExitCode::from(if matches!(error, BedError::Interrupted) { 130 } else { 2 })
        }
    }
}

/// Whether everything promised was kept.
fn perform(arguments: &Arguments) -> Result<bool, BedError> {
    if let Some(Task::Cleanup) = arguments.command {
        for name in clean_up_orphans()? {
            println!("removed {name}");
        }
        return Ok(true);
    }
    catch_signals()?;
    clean_up_on_panic();
    let programs = match &arguments.programs {
        Some(folder) => Programs::in_folder(folder),
        None => Programs::find()?,
    };
    let options = DemoOptions {
        programs,
        profile: if arguments.relaxed { Profile::Relaxed } else { Profile::Default },
        kills: arguments.kills,
        download_bytes: DOWNLOAD_MIN_BYTES + (1 << 20),
        keep: arguments.keep,
        output: arguments.output.clone(),
    };
    let report = run(&options, &mut |line: &str| println!("{line}"))?;
    print_findings(&report);
    if let Some(path) = &arguments.json {
        write_json(path, &report)?;
    }
    Ok(report.ok)
}

fn print_findings(report: &Report) {
    for (index, kill) in report.kills.iter().enumerate() {
        println!(
            "kill {}: member {} -> {}   outage {:.1} ms   {} of {} probes lost   stall {:.0} ms   \
             renewals {}",
            index + 1,
            kill.killed,
            kill.owner_after.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string()),
            kill.outage_ms,
            kill.probes_lost,
            kill.probes_sent,
            kill.longest_stall_ms,
            kill.child_renewals,
        );
    }
    println!(
        "median outage {:.1} ms (quiet before: longest gap {:.1} ms), {} timing",
        report.outage_median_ms, report.baseline.longest_gap_ms, report.profile
    );
    report.repeats.iter().for_each(|repeat| println!("repeat: {repeat}"));
    println!("\npromises");
    report.promises.iter().for_each(|promise| print_promise(promise, "BROKEN"));
    println!("expected on a shared two-core machine");
    report.expectations.iter().for_each(|promise| print_promise(promise, "missed"));
    println!("\npicture: {}", report.svg);
    for path in &report.pcap {
        println!("capture: {path}");
    }
}

fn print_promise(promise: &Promise, otherwise: &str) {
    let verdict = if promise.kept { "kept" } else { otherwise };
    println!("  {verdict:<7} {:<52} {}", promise.promise, promise.found);
}
