//! The state file: what `holdfast-target status` shows.

use super::health::Health;
use super::marks::MarkCounts;
use super::owner::OwnerBook;
use crate::clock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// A file not written for so long is of a program that is gone.
const STALE_MS: u64 = 5_000;

/// Everything a running program tells of itself. No key has a place in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// The target's name.
    pub name: String,
    /// The program's process.
    pub process: u32,
    /// When this was written, Unix milliseconds.
    pub updated_unix_ms: u64,
    /// Who owns the common address, once known.
    pub owner: Option<OwnerState>,
    /// Members whose connection stands.
    pub connected: Vec<u64>,
    /// Acknowledgements sent.
    pub notices_acknowledged: u64,
    /// Notices refused because a later epoch was known.
    pub notices_refused_stale: u64,
    /// Messages that were no proper notice of their sender's.
    pub notices_malformed: u64,
    /// Whether the last owner could be followed; else why not.
    pub problem: Option<String>,
    /// Whether all services accept connections.
    pub healthy: bool,
    /// Services that do not.
    pub failed_checks: Vec<String>,
    /// Load average in percent of the processors.
    pub load_percent: u32,
    /// TCP sockets in use.
    pub connections: u64,
    /// Marked packets, when protected flows must arrive marked.
    pub marks: Option<MarkState>,
}

/// The owner as the target knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerState {
    /// The member.
    pub member: u64,
    /// Its boot counter.
    pub incarnation: u64,
    /// The epoch of its ownership.
    pub epoch: u64,
    /// The station that has the inside address.
    pub inside_mac: String,
    /// When it was first heard of, Unix milliseconds.
    pub since_unix_ms: u64,
    /// Whether this host's own member is the owner, so that its connections are local.
    pub local: bool,
}

/// What became of marked packets and of those that should have been.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkState {
    /// Handed to the host.
    pub accepted: u64,
    /// Dropped because of their mark.
    pub refused_total: u64,
    /// The same by reason.
    pub refused: BTreeMap<String, u64>,
    /// Authentic, and the host did not take them.
    pub undelivered: u64,
    /// Dropped because they came in clear.
    pub clear_dropped: u64,
}

impl StateFile {
    pub(super) fn set_owner(&mut self, book: &OwnerBook, own_member: Option<u64>) {
        (self.notices_acknowledged, self.notices_refused_stale) = book.counts();
        self.owner = book.latest().map(|notice| OwnerState {
            member: notice.owner.member.0,
            incarnation: notice.owner.incarnation.0,
            epoch: notice.owner.epoch.0,
            inside_mac: notice.inside_mac.to_string(),
            since_unix_ms: book.since_unix_ms(),
            local: own_member == Some(notice.owner.member.0),
        });
    }

    pub(super) fn set_health(&mut self, health: &Health) {
        self.healthy = health.is_well();
        self.failed_checks = health.failed.iter().map(ToString::to_string).collect();
        self.load_percent = health.load_percent;
        self.connections = health.connections;
    }

    pub(super) fn set_marks(&mut self, counts: &MarkCounts, clear_dropped: u64) {
        self.marks = Some(MarkState {
            accepted: counts.accepted,
            refused_total: counts.refused_total(),
            refused: counts.refused.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(),
            undelivered: counts.undelivered,
            clear_dropped,
        });
    }

    /// Replaces the file at `path` whole.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644);
        options.open(&new)?.write_all(&text)?;
        fs::rename(new, path)
    }

    /// Reads what a running program wrote.
    ///
    /// # Errors
    /// When there is no such file or it is of another release.
    pub fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
    }

    /// Whether the program that wrote this is most likely gone.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        clock::unix_ms().saturating_sub(self.updated_unix_ms) > STALE_MS
    }

    /// What is not as it should be.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.is_stale() {
            problems.push(format!("process {} has not written lately; is it gone?", self.process));
        }
        if self.owner.is_none() {
            problems.push("no owner is known yet".to_owned());
        }
        if self.connected.is_empty() {
            problems.push("no member is connected".to_owned());
        }
        problems.extend(self.problem.iter().map(|problem| format!("cannot follow: {problem}")));
        problems.extend(self.failed_checks.iter().map(|at| format!("{at} accepts no connection")));
        problems
    }

    /// For programs: the file's fields and `problems`.
    #[must_use]
    pub fn json(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.insert("problems".to_owned(), self.problems().into());
        }
        format!("{value:#}")
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![format!("Target    {}", self.name)];
        let now = clock::unix_ms();
        lines.push(match &self.owner {
            Some(owner) => format!(
                "Owner     member {}, epoch {}, at {}, for {} s{}",
                owner.member,
                owner.epoch,
                owner.inside_mac,
                now.saturating_sub(owner.since_unix_ms) / 1_000,
                if owner.local { "; its connections here are local" } else { "" }
            ),
            None => "Owner     not known".to_owned(),
        });
        let members: Vec<String> = self.connected.iter().map(ToString::to_string).collect();
        lines.push(format!("Members   connected: {}", members.join(", ")));
        lines.push(format!(
            "Notices   {} acknowledged, {} refused as stale, {} malformed",
            self.notices_acknowledged, self.notices_refused_stale, self.notices_malformed
        ));
        lines.push(format!(
            "Health    {}; load {} %, {} TCP sockets",
            if self.healthy { "well" } else { "not well" },
            self.load_percent,
            self.connections
        ));
        if let Some(marks) = &self.marks {
            let reasons = marks.refused.iter().filter(|(_, count)| **count > 0);
            let reasons: Vec<String> = reasons.map(|(name, n)| format!("{name} {n}")).collect();
            lines.push(format!(
                "Marks     {} accepted, {} refused ({}), {} undelivered; {} dropped in clear",
                marks.accepted,
                marks.refused_total,
                reasons.join(", "),
                marks.undelivered,
                marks.clear_dropped
            ));
        }
        lines.extend(self.problems().into_iter().map(|problem| format!("Problem   {problem}")));
        lines.join("\n")
    }
}

/// Makes the folder of the state file.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => fs::DirBuilder::new().recursive(true).mode(0o755).create(folder),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_silent_program_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut state = StateFile { name: "web1".into(), ..StateFile::default() };
        state.updated_unix_ms = clock::unix_ms();
        state.write(&path).unwrap();
        assert_eq!(StateFile::read(&path).unwrap(), state);
        assert!(!state.is_stale());
        state.updated_unix_ms = state.updated_unix_ms.saturating_sub(STALE_MS + 1_000);
        assert!(state.text().contains("is it gone?"));
    }
}
