//! The daemon: one member of a cluster.

use clap::Parser;
use holdfast::config::Config;
use holdfast::daemon;
use std::path::PathBuf;
use std::process::ExitCode;

/// One member of a Holdfast cluster.
#[derive(Debug, Parser)]
#[command(name = "holdfastd", version = env!("HOLDFAST_VERSION"))]
struct Arguments {
    /// The configuration of this member, TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return complain(&error, 2),
    };
    daemon::start_log(&config.log);
    match daemon::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            complain(&error, 1)
        }
    }
}

/// Says why on the standard error output; the log may go elsewhere.
fn complain(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("holdfastd: {error}");
    ExitCode::from(code)
}
