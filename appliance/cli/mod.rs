//! The operator's tool: `holdfast`.
//!
//! What it is: one question to one member (or one look at a file), shown as text for people or as
//! JSON for programs. What it is not: it decides nothing and keeps nothing; every judgement about
//! the cluster is the member's.
//!
//! ```text
//!   words --clap--> Arguments --> ask a member (Unix socket) --> Answer | Fault
//!                             --> read a file (segment, config, log)      |
//!                                          text or JSON, notes, exit code <
//! ```
//!
//! Contract:
//! * exit codes: 0 all is well, 1 it did not work, 2 usage, 3 it worked and the cluster is
//!   degraded, 4 only the owner can answer this ([`Exit`]);
//! * with `--json` the standard output is exactly one JSON value with stable `snake_case` names,
//!   also when something fails: `{"error": {"kind", "message", "next_action"}}`;
//! * every failure says what to do about it;
//! * text from elsewhere (identities, names) cannot steer the terminal;
//! * no key material: the messages have none, and certificates' keys go to files only.

mod answer;
mod arguments;
mod ask;
mod files;
mod members;
mod render;

pub use answer::Exit;
pub use arguments::Arguments;

use answer::{Answer, Fault};
use arguments::{ClusterCommand, Command, ConfigCommand, StoreCommand, TargetWork};
use clap::Parser;
use holdfast_api::{CancelMemberChange, ChangeMembers, ClusterStatusRequest, RequestKind};
use render::Width;
use std::ffi::OsString;
use std::io::Write;

/// Runs one command line, the program's name first, and tells how it ended.
///
/// Who closes the output early (`holdfast sa list | head`) does not make it fail.
pub fn run<W>(
    words: impl IntoIterator<Item = W>,
    out: &mut dyn Write,
    complaints: &mut dyn Write,
) -> Exit
where
    W: Into<OsString> + Clone,
{
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let _closed = write!(complaints, "{}", error.render());
            return Exit::Usage;
        }
        // Help and version are "errors" of clap's that succeed.
        Err(error) => {
            let _closed = write!(out, "{}", error.render());
            return Exit::Ok;
        }
    };
    let json = arguments.json;
    match carry_out(arguments) {
        Ok(answer) => {
            for note in &answer.notes {
                let _closed = writeln!(complaints, "holdfast: {note}");
            }
            let shown = if json { &answer.json } else { &answer.text };
            let _closed = writeln!(out, "{}", shown.trim_end());
            answer.exit
        }
        Err(fault) => {
            if json {
                let _closed = writeln!(out, "{}", fault.json());
            }
            let _closed = writeln!(complaints, "{fault}");
            fault.exit
        }
    }
}

fn carry_out(arguments: Arguments) -> Result<Answer, Fault> {
    let Arguments { socket, wide, command, .. } = arguments;
    let width = if wide { Width::Any } else { Width::Terminal };
    match command {
        Command::DropReasons(from) => files::drop_reasons(&socket, &from, width),
        Command::Config(ConfigCommand::Check { file }) => files::check_config(&file),
        Command::Store(StoreCommand::List(list)) => ask::member(&socket, list.into(), width),
        Command::Store(StoreCommand::Check { folder }) => files::check_store(&folder),
        Command::Cluster(ClusterCommand::Init(init)) => files::init_cluster(&init),
        Command::Cluster(ClusterCommand::Certificate(one)) => members::certificate(&one),
        Command::Cluster(ClusterCommand::Add(add)) => {
            ask::member(&socket, add.request(None), width)
        }
        Command::Cluster(ClusterCommand::Remove { member }) => {
            let change = ChangeMembers { add: None, remove: Some(member) };
            ask::member(&socket, RequestKind::ChangeMembers(change), width)
        }
        Command::Cluster(ClusterCommand::Replace { old, add }) => {
            ask::member(&socket, add.request(Some(old)), width)
        }
        Command::Cluster(ClusterCommand::Cancel) => {
            let kind = RequestKind::CancelMemberChange(CancelMemberChange {});
            ask::member(&socket, kind, width)
        }
        Command::Cluster(ClusterCommand::ForceQuorum(force)) => members::force_quorum(&force),
        Command::Cluster(ClusterCommand::Status) => {
            let kind = RequestKind::ClusterStatus(ClusterStatusRequest {});
            ask::member(&socket, kind, width)
        }
        Command::Status => ask::member(&socket, ask::STATUS, width),
        Command::Sa(command) => ask::member(&socket, command.into(), width),
        Command::Flow(command) => ask::member(&socket, command.into(), width),
        Command::Target(command) => match command.into() {
            TargetWork::Ask(request) => ask::member(&socket, request, width),
            TargetWork::Certify(arguments) => files::certify_target(&arguments),
        },
        Command::Handover(handover) => ask::member(&socket, handover.into(), width),
    }
}

#[cfg(test)]
mod tests;
