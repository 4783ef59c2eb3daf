//! Commands that work on files, without asking a member for more than it can give.

use super::answer::{Answer, Exit, Fault};
use super::arguments::{CertificateArguments, DropReasonsArguments, InitArguments};
use super::ask;
use super::render::{self, Width};
use crate::config::{Config, ConfigError, Problem};
use crate::pki::{self, PkiError};
use crate::stats::{self, Segment, StatsError};
use crate::{clock, store};
use holdfast_api::DropReasons;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;

/// Counts from the member or, when it does not answer or shall not be asked, from its segment.
pub(super) fn drop_reasons(
    socket: &Path,
    arguments: &DropReasonsArguments,
    width: Width,
) -> Result<Answer, Fault> {
    let (mut reasons, note) = match (&arguments.segment, &arguments.config) {
        (Some(segment), _) => from_segment(segment).map_err(unreadable)?,
        (None, Some(file)) => {
            let config = Config::load(file).map_err(|error| unsound(&error))?;
            from_segment(&stats::path_beside(&config.member.socket)).map_err(unreadable)?
        }
        (None, None) => from_member(socket)?,
    };
    if !arguments.all {
        reasons.reasons.retain(|reason| reason.packets > 0);
    }
    let mut answer = Answer::new(render::drop_reasons(&reasons, width), &reasons)?;
    answer.notes.extend(note);
    Ok(answer)
}

type Counts = (DropReasons, Option<String>);

fn from_member(socket: &Path) -> Result<Counts, Fault> {
    let fault = match ask::drop_reasons(socket) {
        Ok(reasons) => return Ok((reasons, None)),
        Err(fault) => fault,
    };
    // The first reason is the one to repair; why the way out failed as well is of no interest.
    let (reasons, note) =
        from_segment(&stats::path_beside(socket)).map_err(|_| Fault { ..fault })?;
    Ok((reasons, note))
}

fn from_segment(path: &Path) -> Result<Counts, StatsError> {
    let segment = Segment::read(path)?;
    let age_ms = clock::unix_ms().saturating_sub(segment.updated_unix_ms);
    let note = format!(
        "read from {}, written {} ago by process {}",
        path.display(),
        render::duration(age_ms),
        segment.process
    );
    Ok((segment.drop_reasons(), Some(note)))
}

fn unreadable(error: StatsError) -> Fault {
    let next_action = match &error {
        StatsError::Unreadable { source, .. } if source.kind() == ErrorKind::NotFound => {
            "the daemon makes it when it starts; check --segment or member.socket in the \
             configuration"
        }
        StatsError::Unreadable { .. } => "check the file's permissions",
        StatsError::NotASegment(_) => {
            "it is named like the member's socket, with .stats at the end"
        }
        StatsError::Version { .. } => "",
        StatsError::Damaged { .. } => "restart the daemon; it makes a new one",
    };
    Fault::failure(error, next_action)
}

/// Tells every problem of a configuration.
pub(super) fn check_config(path: &Path) -> Result<Answer, Fault> {
    match Config::load(path) {
        Ok(config) => {
            let text = format!(
                "{}: sound. Member {} of {}, {}, {}.",
                path.display(),
                config.member.id,
                config.cluster.members.len(),
                render::counted(config.connections.len(), "connection"),
                render::counted(config.targets.len(), "target")
            );
            Answer::new(text, &json!({ "file": path, "valid": true, "problems": [] }))
        }
        Err(ConfigError::Invalid { problems, .. }) => {
            let lines = problems.iter().map(|problem| format!("{}:{problem}\n", path.display()));
            let text = render::clean_lines(&lines.collect::<String>());
            let list: Vec<_> = problems.iter().map(problem_json).collect();
            let value = json!({ "file": path, "valid": false, "problems": list });
            Ok(Answer::new(text, &value)?.ending(Exit::Failure))
        }
        Err(error @ ConfigError::Unreadable { .. }) => Err(unsound(&error)),
    }
}

fn problem_json(problem: &Problem) -> serde_json::Value {
    let Problem { line, column, what, remedy } = problem;
    json!({ "line": line, "column": column, "what": what, "remedy": remedy })
}

fn unsound(error: &ConfigError) -> Fault {
    let next_action = match error {
        ConfigError::Unreadable { .. } => "check the path and its permissions",
        ConfigError::Invalid { .. } => "correct the file; `holdfast config check` looks again",
    };
    Fault::failure(error, next_action)
}

/// Reads the log of a member that does not run.
pub(super) fn check_store(folder: &Path) -> Result<Answer, Fault> {
    let checked = store::check(folder).map_err(|error| {
        Fault::failure(error, "stop holdfastd first; a member with a damaged log is rebuilt empty")
    })?;
    let torn = checked.torn_tail.is_some();
    let mut text = format!(
        "{}: sound. Incarnation {}, {} files, snapshot up to entry {}, {} entries behind it.",
        folder.display(),
        checked.incarnation,
        checked.files,
        checked.snapshot_index,
        checked.entries
    );
    if torn {
        text.push_str("\nThe last write is torn; the next start drops it. Nothing was promised.");
    }
    let value = json!({
        "folder": folder,
        "incarnation": checked.incarnation,
        "files": checked.files,
        "snapshot_index": checked.snapshot_index,
        "entries": checked.entries,
        "torn_tail": torn,
    });
    Answer::new(text, &value)
}

/// Makes the authority and the members' certificates.
pub(super) fn init_cluster(arguments: &InitArguments) -> Result<Answer, Fault> {
    let ids = members_of(arguments)?;
    let files = pki::init(&arguments.dir, &arguments.name, &ids).map_err(|error| {
        let exists =
            matches!(&error, PkiError::File { source, .. } if source.kind() == ErrorKind::AlreadyExists);
        let next_action = if exists {
            "nothing is overwritten; choose another --dir, or move the old files away"
        } else {
            "check --dir and --name"
        };
        Fault::failure(error, next_action)
    })?;
    let mut text = String::new();
    for file in &files {
        let _infallible = writeln!(text, "wrote {}", file.display());
    }
    text.push_str(
        "\nCopy ca.pem, member-N.pem and member-N.key to member N, and nothing else.\n\
         Keep ca.key off the members: whoever has it can add members.\n",
    );
    if !arguments.named.is_empty() {
        text.push_str("\nFor the configuration of every member:\n");
    }
    for member in &arguments.named {
        let (id, address) = (member.id, member.address);
        let _infallible =
            write!(text, "\n[[cluster.member]]\nid = {id}\naddress = \"{address}\"\n");
    }
    Answer::new(text, &json!({ "members": ids, "files": files }))
}

/// Makes a target's certificate.
pub(super) fn certify_target(arguments: &CertificateArguments) -> Result<Answer, Fault> {
    let CertificateArguments { name, dir, cluster } = arguments;
    let files = pki::issue_target(dir, cluster, name).map_err(|error| {
        let kind = match &error {
            PkiError::File { source, .. } => Some(source.kind()),
            _ => None,
        };
        let next_action = match kind {
            Some(ErrorKind::AlreadyExists) => "nothing is overwritten; move the old files away",
            Some(ErrorKind::NotFound) => {
                "give the --dir of `holdfast cluster init`, with its ca.key"
            }
            _ => "check --dir and the name",
        };
        Fault::failure(error, next_action)
    })?;
    let mut text = String::new();
    for file in &files {
        let _infallible = writeln!(text, "wrote {}", file.display());
    }
    text.push_str("\nCopy ca.pem and these two files to the target, and nothing else.\n");
    Answer::new(text, &json!({ "target": name, "files": files }))
}

fn members_of(arguments: &InitArguments) -> Result<Vec<u64>, Fault> {
    if let Some(count) = arguments.members {
        return Ok((1..=count).collect());
    }
    let usage = |message: String| Fault {
        exit: Exit::Usage,
        message,
        next_action: "give every member once, each with its own id and address".to_owned(),
    };
    let most = crate::config::MEMBERS_MAX;
    if arguments.named.len() > most {
        return Err(usage(format!("a cluster has at most {most} members")));
    }
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for member in &arguments.named {
        if !ids.insert(member.id) || !addresses.insert(member.address) {
            return Err(usage(format!("{}={} is given twice", member.id, member.address)));
        }
    }
    Ok(ids.into_iter().collect())
}
