//! The CLI's side of the segment.

use super::{
    COUNTERS_MAX, HEADER_WORDS, MAGIC, NAMES_BYTES_MAX, VERSION, WORD_BYTES, WORD_COUNTERS,
    WORD_CREATED, WORD_NAMES_BYTES, WORD_PROCESS, WORD_UPDATED, WORD_WORKERS, WORKERS_MAX,
};
use crate::os::load_words;
use holdfast_api as api;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The file cannot be opened or mapped.
    #[error("cannot read the statistics segment {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{0} is not a statistics segment of Holdfast")]
    NotASegment(PathBuf),
    /// The layout is another one.
    #[error(
        "{path} has layout version {found}, and this program reads version {VERSION}; \
         use the holdfast that belongs to the daemon"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// Header, names and length of the file contradict each other.
    #[error("the statistics segment {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        what: &'static str,
    },
}

/// What a counter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something that happened.
    Metric,
    /// Packets dropped for one reason.
    Drop,
    /// Something a newer daemon counts.
    Other,
}

/// One counter, summed over the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// What it counts.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// One sentence; may be empty.
    pub description: String,
    /// The sum.
    pub value: u64,
}

/// A segment as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Number of workers.
    pub workers: usize,
    /// When the daemon last wrote, Unix milliseconds.
    pub updated_unix_ms: u64,
    /// When the segment was made, Unix milliseconds.
    pub created_unix_ms: u64,
    /// The daemon's process id.
    pub process: u64,
    /// Every counter, in the daemon's order.
    pub counters: Vec<Counter>,
}

impl Segment {
    /// Reads the segment at `path`.
    ///
    /// # Errors
    /// When there is none, or it is not understood.
    pub fn read(path: &Path) -> Result<Self, StatsError> {
        let unreadable = |source| StatsError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        // Nothing can be mapped of an empty file.
        if file.metadata().map_err(unreadable)?.len() == 0 {
            return Err(StatsError::NotASegment(path.to_owned()));
        }
        parse(&load_words(&file).map_err(unreadable)?, path)
    }

    /// The drop reasons in the operator's words.
    #[must_use]
    pub fn drop_reasons(&self) -> api::DropReasons {
        let drops = self.counters.iter().filter(|counter| counter.kind == Kind::Drop);
        let reason = |counter: &Counter| api::DropReason {
            name: counter.name.clone(),
            packets: counter.value,
            description: counter.description.clone(),
        };
        api::DropReasons { reasons: drops.map(reason).collect() }
    }
}

fn parse(words: &[u64], path: &Path) -> Result<Segment, StatsError> {
    let damaged = |what| StatsError::Damaged { path: path.to_owned(), what };
    if words.first() != Some(&MAGIC) {
        return Err(StatsError::NotASegment(path.to_owned()));
    }
    let field = |at: usize| words.get(at).copied().ok_or_else(|| damaged("its header is cut off"));
    let found = field(1)?;
    if found != VERSION {
        return Err(StatsError::Version { path: path.to_owned(), found });
    }
    let limited = |at: usize, limit: usize, what| {
        let number = usize::try_from(field(at)?).unwrap_or(usize::MAX);
        if number <= limit { Ok(number) } else { Err(damaged(what)) }
    };
    let workers = limited(WORD_WORKERS, WORKERS_MAX, "too many workers")?;
    let per_worker = limited(WORD_COUNTERS, COUNTERS_MAX, "too many counters")?;
    let names_bytes = limited(WORD_NAMES_BYTES, NAMES_BYTES_MAX, "too long a names table")?;
    let (created_unix_ms, process) = (field(WORD_CREATED)?, field(WORD_PROCESS)?);
    let updated_unix_ms = field(WORD_UPDATED)?;

    let rest = words.get(HEADER_WORDS..).unwrap_or_default();
    let cut = || damaged("its length does not fit its header");
    let (names, values) =
        rest.split_at_checked(names_bytes.div_ceil(WORD_BYTES)).ok_or_else(cut)?;
    if values.len() != workers.saturating_mul(per_worker) {
        return Err(cut());
    }
    let mut counters = read_names(names, names_bytes).ok_or_else(|| damaged("unreadable names"))?;
    if counters.len() != per_worker {
        return Err(damaged("its names do not fit its counters"));
    }
    for (at, value) in values.iter().enumerate() {
        // `per_worker` is not zero where there are values.
        if let Some(counter) = counters.get_mut(at.checked_rem(per_worker).unwrap_or(0)) {
            counter.value = counter.value.saturating_add(*value);
        }
    }
    Ok(Segment { workers, updated_unix_ms, created_unix_ms, process, counters })
}

fn read_names(words: &[u64], bytes: usize) -> Option<Vec<Counter>> {
    let mut table: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    table.truncate(bytes);
    let text = String::from_utf8(table).ok()?;
    text.lines().map(read_name).collect()
}

fn read_name(line: &str) -> Option<Counter> {
    let mut parts = line.splitn(3, '\t');
    let kind = match parts.next()? {
        "metric" => Kind::Metric,
        "drop" => Kind::Drop,
        _ => Kind::Other,
    };
    let name = parts.next()?.to_owned();
    let description = parts.next().unwrap_or_default().to_owned();
    Some(Counter { kind, name, description, value: 0 })
}
