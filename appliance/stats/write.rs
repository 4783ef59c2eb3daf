//! The daemon's side of the segment.

use super::{
    HEADER_WORDS, MAGIC, VERSION, WORD_BYTES, WORD_COUNTERS, WORD_CREATED, WORD_NAMES_BYTES,
    WORD_PROCESS, WORD_UPDATED, WORD_WORKERS, WORKERS_MAX,
};
use crate::clock;
use crate::os::MappedCounters;
use holdfast_datapath::{COUNTERS_LEN, Metric};
use holdfast_ipsec::DropReason;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Copies the workers' counters into the segment.
#[derive(Debug)]
pub struct Writer {
    mapping: MappedCounters,
    workers: usize,
    first_value: usize,
}

impl Writer {
    /// Puts a new segment, all zero, at `path`.
    ///
    /// # Errors
    /// What the system says, or [`io::ErrorKind::InvalidInput`] for more workers than the format
    /// allows.
    pub fn create(path: &Path, workers: usize) -> io::Result<Self> {
        if workers > WORKERS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many workers"));
        }
        let mut words = header(workers);
        let first_value = words.len();
        let values = workers.saturating_mul(COUNTERS_LEN);
        words.resize(first_value.saturating_add(values), 0);
        // Complete before it gets its name; see the module's contract.
        let unfinished = path.with_extension("stats-new");
        let file = write_file(&unfinished, &words)?;
        let mapping = MappedCounters::map(&file, 0)?;
        fs::rename(&unfinished, path)?;
        Ok(Self { mapping, workers, first_value })
    }

    /// Publishes what `worker` has counted so far. Cheap; a few times a second is enough.
    pub fn update(&self, worker: usize, values: &[u64; COUNTERS_LEN]) {
        if worker >= self.workers {
            return;
        }
        let words = self.mapping.counters();
        let first = self.first_value.saturating_add(worker.saturating_mul(COUNTERS_LEN));
        let places = words.get(first..).unwrap_or_default();
        for (place, value) in places.iter().zip(values) {
            place.store(*value, Ordering::Relaxed);
        }
        if let Some(updated) = words.get(WORD_UPDATED) {
            updated.store(clock::unix_ms(), Ordering::Relaxed);
        }
    }
}

/// Header and names table.
fn header(workers: usize) -> Vec<u64> {
    let number = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let names = names_table();
    let mut words = vec![0; HEADER_WORDS];
    let fields = [
        (0, MAGIC),
        (1, VERSION),
        (WORD_WORKERS, number(workers)),
        (WORD_COUNTERS, number(COUNTERS_LEN)),
        (WORD_NAMES_BYTES, number(names.len())),
        (WORD_UPDATED, clock::unix_ms()),
        (WORD_CREATED, clock::unix_ms()),
        (WORD_PROCESS, u64::from(std::process::id())),
    ];
    for (at, value) in fields {
        if let Some(word) = words.get_mut(at) {
            *word = value;
        }
    }
    words.extend(names.as_bytes().chunks(WORD_BYTES).map(|chunk| {
        let mut word = [0; WORD_BYTES];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        u64::from_ne_bytes(word)
    }));
    words
}

fn names_table() -> String {
    let metrics = Metric::ALL.iter().map(|metric| format!("metric\t{}\t\n", metric.name()));
    let drops = DropReason::ALL
        .iter()
        .map(|reason| format!("drop\t{}\t{}\n", reason.name(), reason.description()));
    metrics.chain(drops).collect()
}

fn write_file(path: &Path, words: &[u64]) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create_new(true).mode(0o644).open(path)?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    file.write_all(&bytes)?;
    Ok(file)
}
