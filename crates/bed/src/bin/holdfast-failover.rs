//! `holdfast-failover`: how long the service is away when its owner dies, beside the rivals.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use clap::Parser;
use holdfast_bed::error::BedError;
use holdfast_bed::failover::{FailoverOptions, chart, run};
use holdfast_bed::leftovers::clean_up_orphans;
use holdfast_bed::member::{Profile, Programs};
use holdfast_bed::swarm::PEERS_MAX;
use holdfast_bed::tool::{clean_up_on_panic, write_file, write_json};
use holdfast_bed::wait::catch_signals;
use std::path::PathBuf;
use std::process::ExitCode;

/// Kills the owner of the common address again and again and measures the outage, beside
/// keepalived's VRRP and strongSwan's own ways.
#[derive(Debug, Parser)]
#[command(name = "holdfast-failover", version)]
struct Arguments {
    /// Kills of the owner, for each number of SAs below 10000; a tenth of them above.
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// Kills of the owner of a second cluster, with one SA and brisk timing.
    #[arg(long, default_value_t = 50)]
    brisk_kills: usize,
    /// Handovers, likewise.
    #[arg(long, default_value_t = 20)]
    handovers: usize,
    /// Numbers of Child SA pairs (as `holdfast sa list` counts them; each is two ESP SAs),
    /// ascending.
    #[arg(long, value_delimiter = ',', default_value = "1,1000,50000")]
    sas: Vec<u32>,
    /// Measures keepalived and strongSwan in between.
    #[arg(long)]
    rivals: bool,
    /// Runs the members with the relaxed timing profile, for crowded machines.
    #[arg(long)]
    relaxed: bool,
    /// Writes the findings as one JSON object to FILE ("-" for standard output, at the end).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where failover.csv and failover.svg go.
    #[arg(long, value_name = "FOLDER", default_value = "perf/results")]
    output: PathBuf,
    /// Keeps captures and logs in FOLDER.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Where holdfastd and holdfast are [default: beside this program].
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Only removes what benches that were killed themselves have left.
    #[arg(long)]
    cleanup: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match perform(&arguments) {
        Ok(all_came_back) => ExitCode::from(u8::from(!all_came_back)),
        Err(error) => {
            eprintln!("holdfast-failover: {error}");
            ExitCode::from(if matches!(error, BedError::Interrupted) { 130 } else { 2 })
        }
    }
}

/// Whether Holdfast came back after every failure.
fn perform(arguments: &Arguments) -> Result<bool, BedError> {
    if arguments.cleanup {
        clean_up_orphans()?;
        return Ok(true);
    }
    if let Some(many) = arguments.sas.iter().find(|sas| **sas as usize > PEERS_MAX) {
        let detail = format!("{many} SAs are more than the bed has peers for: {PEERS_MAX}");
        return Err(BedError::Answer { program: "--sas".to_owned(), detail });
    }
    catch_signals()?;
    clean_up_on_panic();
    let programs = match &arguments.programs {
        Some(folder) => Programs::in_folder(folder),
        None => Programs::find()?,
    };
    let options = FailoverOptions {
        programs,
        profile: if arguments.relaxed { Profile::Relaxed } else { Profile::Default },
        kills: arguments.kills,
        brisk_kills: arguments.brisk_kills,
        handovers: arguments.handovers,
        sas: arguments.sas.clone(),
        rivals: arguments.rivals,
        keep: arguments.keep.clone(),
    };
    let results = run(&options, &mut |line: &str| println!("{line}"))?;
    println!("\n{}", results.table());
    let (csv, svg) = (arguments.output.join("failover.csv"), arguments.output.join("failover.svg"));
    write_file(&csv, &results.csv())?;
    write_file(&svg, &chart::svg(&results))?;
    println!("{}\n{}", csv.display(), svg.display());
    if let Some(path) = &arguments.json {
        write_json(path, &results)?;
    }
    let ours = results.rows.iter().filter(|row| row.system.key().starts_with("holdfast"));
    Ok(ours.into_iter().all(|row| row.measured.recovered))
}
