//! The statistics segment: the workers' counters in a mapped file beside the operator's socket.
//!
//! What it is: numbers that can be read while the controller is busy, stuck or dead. What it is
//! not: a history; the file holds the present values of one run of the daemon.
//!
//! ```text
//!   word 0  magic        "HFSTATS\0"
//!   word 1  version
//!   word 2  workers
//!   word 3  counters per worker
//!   word 4  bytes of the names table
//!   word 5  last update, Unix milliseconds
//!   word 6  created, Unix milliseconds
//!   word 7  process id of the writer
//!   word 8  names table, a line per counter: kind TAB name TAB description; padded to a word
//!   then    workers x counters values
//! ```
//!
//! Words are in the machine's byte order: the file never leaves it. The names are in the file so
//! that a CLI of another version reads it.
//!
//! Contract:
//! * a file under its final name is complete and never changes its length; a new run of the daemon
//!   puts a new file in its place, so that whoever still maps the old one is not disturbed;
//! * there is one writer; single numbers are never torn, but numbers read together may be a few
//!   packets apart;
//! * a reader refuses what it does not understand, it never guesses.

mod read;
mod write;

pub use read::{Counter, Kind, Segment, StatsError};
pub use write::Writer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const MAGIC: u64 = u64::from_ne_bytes(*b"HFSTATS\0");
/// The layout above. A change that an older reader would misread takes the next number.
const VERSION: u64 = 1;

const WORD_BYTES: usize = size_of::<u64>();
const WORD_WORKERS: usize = 2;
const WORD_COUNTERS: usize = 3;
const WORD_NAMES_BYTES: usize = 4;
const WORD_UPDATED: usize = 5;
const WORD_CREATED: usize = 6;
const WORD_PROCESS: usize = 7;
const HEADER_WORDS: usize = 8;

/// Most workers of a segment: more than any machine has queues.
const WORKERS_MAX: usize = 1_024;
/// Most counters per worker: ten times what there is.
const COUNTERS_MAX: usize = 4_096;
/// Longest names table.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// Where the segment of the member with this operator's socket lies.
#[must_use]
pub fn path_beside(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".stats");
    path.into()
}

#[cfg(test)]
mod tests;
