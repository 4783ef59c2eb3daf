//! What runs beside the services of a target. Everything is in [`holdfast::target`].

use clap::{Args, Parser, Subcommand};
use holdfast::config::{STATE_DEFAULT, TargetProgram};
use holdfast::target::{self, StateFile};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Follows the owner of a Holdfast cluster from a target host.
#[derive(Debug, Parser)]
#[command(name = "holdfast-target", version = env!("HOLDFAST_VERSION"))]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Arguments {
    /// Run with this configuration, TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell every problem of a configuration file, with its place.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// What a running program knows: the owner, its epoch, notices, marks.
    Status(StatusArguments),
    /// Undo what a program that crashed left on the host, so that ARP is followed again.
    Restore {
        /// The configuration it ran with.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

#[derive(Debug, Args)]
struct StatusArguments {
    /// The program's state file (target.state in its configuration).
    #[arg(long, value_name = "PATH", default_value = STATE_DEFAULT)]
    state: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const DEGRADED: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match (arguments.command, arguments.config) {
        (Some(Command::Check { file }), _) => with(&file, |_| {
            let _closed = writeln!(io::stdout(), "{}: sound.", file.display());
            ExitCode::SUCCESS
        }),
        (Some(Command::Status(arguments)), _) => status(&arguments),
        (Some(Command::Restore { config }), _) => with(&config, |config| {
            holdfast::daemon::start_log(&config.log);
            target::restore(config);
            ExitCode::SUCCESS
        }),
        (None, Some(config)) => with(&config, |config| {
            holdfast::daemon::start_log(&config.log);
            match target::run(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => complain(&error, FAILURE),
            }
        }),
        (None, None) => ExitCode::from(USAGE),
    }
}

fn with(file: &Path, then: impl FnOnce(&TargetProgram) -> ExitCode) -> ExitCode {
    match TargetProgram::load(file) {
        Ok(config) => then(&config),
        Err(error) => complain(&error, USAGE),
    }
}

fn status(arguments: &StatusArguments) -> ExitCode {
    let state = match StateFile::read(&arguments.state) {
        Ok(state) => state,
        Err(error) => {
            eprintln!(
                "holdfast-target: {}: {error}; is it running? see target.state in its configuration",
                arguments.state.display()
            );
            return ExitCode::from(FAILURE);
        }
    };
    let shown = if arguments.json { state.json() } else { state.text() };
    let _closed = writeln!(io::stdout(), "{shown}");
    if state.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) }
}

fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("holdfast-target: {error}");
    ExitCode::from(code)
}
