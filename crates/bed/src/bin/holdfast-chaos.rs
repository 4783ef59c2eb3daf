//! `holdfast-chaos`: a storm of faults over a cluster that serves.
#![allow(clippy::print_stdout, reason = "it talks to the person who runs it")]

use clap::Parser;
use holdfast_bed::chaos::calm::{self, CalmOptions};
use holdfast_bed::chaos::report::Report;
use holdfast_bed::chaos::{ChaosOptions, run};
use holdfast_bed::error::BedError;
use holdfast_bed::leftovers::clean_up_orphans;
use holdfast_bed::member::{Profile, Programs};
use holdfast_bed::report::Promise;
use holdfast_bed::time::Wall;
use holdfast_bed::tool::{clean_up_on_panic, write_json};
use holdfast_bed::wait::catch_signals;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Does random faults to members while clients download, probe and rekey, and checks that nothing
/// happens that must not.
#[derive(Debug, Parser)]
#[command(name = "holdfast-chaos", version)]
struct Arguments {
    /// How long it storms.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Draws the faults; the same seed draws the same ones [default: the time].
    #[arg(long)]
    seed: Option<u64>,
    /// Writes the findings as one JSON object to FILE ("-" for standard output, at the end).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs the members with the relaxed timing profile, for crowded machines.
    #[arg(long)]
    relaxed: bool,
    /// Does nothing to any member: all work as hard as the machine allows, and nobody may take over.
    #[arg(long, conflicts_with_all = ["seed", "keep"])]
    calm: bool,
    /// With --calm: of a hundred packets between members so many are lost, each way at each member.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, requires = "calm")]
    loss: f64,
    /// Keeps captures and logs of the last act in FOLDER.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Where holdfastd and holdfast are [default: beside this program].
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Only removes what storms that were killed themselves have left.
    #[arg(long)]
    cleanup: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments) {
        Ok(all_kept) => ExitCode::from(u8::from(!all_kept)),
        Err(error) => {
            eprintln!("holdfast-chaos: {error}");
            ExitCode::from(if matches!(error, BedError::Interrupted) { 130 } else { 2 })
        }
    }
}

/// Whether everything promised was kept.
fn perform(arguments: &Arguments) -> Result<bool, BedError> {
    if arguments.cleanup {
        clean_up_orphans()?;
        return Ok(true);
    }
    catch_signals()?;
    clean_up_on_panic();
    let programs = match &arguments.programs {
        Some(folder) => Programs::in_folder(folder),
        None => Programs::find()?,
    };
    let profile = if arguments.relaxed { Profile::Relaxed } else { Profile::Default };
    let time = Duration::from_secs_f64(arguments.minutes.clamp(0.1, 10_000.0) * 60.0);
    if arguments.calm {
        return keep_calm(
            arguments,
            CalmOptions { programs, profile, time, loss_percent: arguments.loss.clamp(0.0, 50.0) },
        );
    }
    let options = ChaosOptions {
        programs,
        profile,
        seed: arguments.seed.unwrap_or(Wall::now().0 / 1_000_000_000),
        time,
        keep: arguments.keep.clone(),
    };
    let report = run(&options, &mut |line: &str| println!("{line}"))?;
    print_findings(&report);
    if let Some(path) = &arguments.json {
        write_json(path, &report)?;
    }
    Ok(report.ok)
}

fn keep_calm(arguments: &Arguments, options: CalmOptions) -> Result<bool, BedError> {
    let report = calm::run(&options, &mut |line: &str| println!("{line}"))?;
    println!(
        "\n{} min, {} downloads at {} Mbit/s; {} of {} probes lost, longest gap {} ms",
        report.minutes,
        report.downloads,
        report.mbit_per_s,
        report.probes_lost,
        report.probes_sent,
        report.longest_gap_ms
    );
    print_promises(&report.promises);
    if let Some(path) = &arguments.json {
        write_json(path, &report)?;
    }
    Ok(report.ok)
}

fn print_promises(promises: &[Promise]) {
    for promise in promises {
        let verdict = if promise.kept { "kept" } else { "BROKEN" };
        println!("  {verdict:<7} {:<52} {}", promise.promise, promise.found);
    }
}

fn print_findings(report: &Report) {
    println!("\n{}", report.table());
    report.troubles.iter().for_each(|trouble| println!("trouble: {trouble}"));
    report.repeats.iter().for_each(|repeat| println!("repeat: {repeat}"));
    report.not_done.iter().for_each(|what| println!("not done: {what}"));
    println!(
        "{} kills, {} zombies, {} partitions, {} handovers ({} refused), {} changes of owner, {} rekeys, \
         {} negotiations",
        report.kills,
        report.zombies,
        report.partitions,
        report.handovers,
        report.handovers_refused,
        report.owner_changes,
        report.rekeys,
        report.negotiations
    );
    println!(
        "{} downloads whole, {} failed, {} TCP resets; {} ESP packets, {} frames of them seen twice",
        report.downloads,
        report.downloads_failed,
        report.tcp_resets,
        report.esp_packets,
        report.repeated_frames
    );
    println!("\npromises (seed {})", report.seed);
    print_promises(&report.promises);
}
