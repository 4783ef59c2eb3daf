//! Stored bytes to what a replica begins with.

use super::record::{HEADER_LEN, Record, Scan, SegmentKind, scan};
use super::{
    WalError, WalKey, segment_name, segment_number, snapshot_file, snapshot_index, snapshot_name,
};
use crate::output::{HardState, LogEntry, Recovered};
use std::collections::{BTreeMap, BTreeSet};

/// A file of the data directory.
#[derive(Clone, Copy, Debug)]
pub struct NamedBytes<'a> {
    /// Its name, without the directory.
    pub name: &'a str,
    /// Its contents.
    pub bytes: &'a [u8],
}

/// An unfinished write at the end of the log, left out. Nothing in it was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub segment: String,
    /// Where the intact part ends.
    pub offset: u64,
    /// How many bytes were left out.
    pub bytes: u64,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// What the replica begins with.
    pub recovered: Recovered,
    /// What was left out, for the log of events.
    pub torn_tail: Option<TornTail>,
    /// The number of the next segment, never used before.
    pub(super) next_segment: u64,
    /// All files there are.
    pub(super) files: BTreeSet<String>,
}

/// Reads the log from all files of the data directory that [`super::is_wal_file`]; no files at
/// all are an empty log.
///
/// # Errors
/// [`WalError`] names the file and the place that do not check. Nothing was changed.
pub fn recover(key: &WalKey, files: &[NamedBytes<'_>]) -> Result<Recovery, WalError> {
    let segments = numbered(files, segment_number);
    let snapshots = numbered(files, snapshot_index);
    let named = segments.keys().map(|number| segment_name(*number));
    let mut recovery = Recovery {
        next_segment: segments.last_key_value().map_or(1, |(last, _)| last.saturating_add(1)),
        files: named.chain(snapshots.keys().map(|index| snapshot_name(*index))).collect(),
        ..Recovery::default()
    };
    let Some(chosen) = choose_segments(key, &segments, &mut recovery.torn_tail)? else {
        return match snapshots.last_key_value() {
            Some(_) => Err(WalError::Missing("the log of the snapshot".to_owned())),
            None => Ok(recovery),
        };
    };
    let (begin, recovered) = replay(chosen)?;
    recovery.recovered = recovered;
    if begin.0 > 0 {
        let name = snapshot_name(begin.0);
        let bytes = snapshots.get(&begin.0).ok_or(WalError::Missing(name))?;
        recovery.recovered.snapshot = Some(snapshot_file::decode(key, begin.0, begin.1, bytes)?);
    }
    Ok(recovery)
}

fn numbered<'a>(
    files: &[NamedBytes<'a>],
    number: impl Fn(&str) -> Option<u64>,
) -> BTreeMap<u64, &'a [u8]> {
    files.iter().filter_map(|file| Some((number(file.name)?, file.bytes))).collect()
}

/// The newest complete checkpoint and the segments that continue it, all intact but perhaps for
/// a torn end. `None`: nothing was ever stored.
fn choose_segments(
    key: &WalKey,
    segments: &BTreeMap<u64, &[u8]>,
    torn: &mut Option<TornTail>,
) -> Result<Option<Vec<Scan>>, WalError> {
    // Found from the end: the last segment may be torn, those before it may not.
    let mut chosen: Vec<Scan> = Vec::new();
    for (number, bytes) in segments.iter().rev() {
        let name = segment_name(*number);
        let last = chosen.is_empty();
        if last && was_never_begun(bytes) {
            note_torn(torn, name, 0, bytes.len());
            continue;
        }
        let scan = scan(&name, bytes, key)?;
        check_neighbour(&name, *number, &scan, chosen.last())?;
        if let Some(offset) = scan.broken_at {
            if !last || scan.intact_behind {
                let what = "a record does not check";
                return Err(WalError::Damaged { file: name, offset: offset as u64, what });
            }
            note_torn(torn, name, offset, bytes.len());
        }
        let begins = scan.header.kind == SegmentKind::Checkpoint;
        if begins && !is_complete(&scan) && last {
            // Its process crashed while it began; what was there before it still is.
            continue;
        }
        chosen.push(scan);
        if begins {
            chosen.reverse();
            return Ok(Some(chosen));
        }
    }
    // Nothing but unfinished beginnings: right for a member that never got through its very first
    // start, whose segment 1 is still there. Else what was before was deleted after one of these
    // was synced, and that one is damaged now.
    let oldest = segments.first_key_value().map_or(1, |(number, _)| *number);
    if oldest == 1 && chosen.is_empty() {
        return Ok(None);
    }
    Err(WalError::Missing(format!("the beginning of the log before {}", segment_name(oldest))))
}

fn was_never_begun(bytes: &[u8]) -> bool {
    bytes.len() < HEADER_LEN
}

fn is_complete(scan: &Scan) -> bool {
    scan.records.contains(&Record::CheckpointEnd)
}

fn note_torn(torn: &mut Option<TornTail>, segment: String, offset: usize, len: usize) {
    let bytes = len.saturating_sub(offset) as u64;
    torn.get_or_insert(TornTail { segment, offset: offset as u64, bytes });
}

fn check_neighbour(
    name: &str,
    number: u64,
    scan: &Scan,
    next: Option<&Scan>,
) -> Result<(), WalError> {
    let damaged = |what| Err(WalError::Damaged { file: name.to_owned(), offset: 0, what });
    if scan.header.number != number {
        return damaged("it is another segment");
    }
    let Some(next) = next else { return Ok(()) };
    if Some(next.header.number) != number.checked_add(1) {
        return Err(WalError::Missing(segment_name(number.saturating_add(1))));
    }
    if next.header.kind == SegmentKind::Continuation && next.header.chain != scan.chain {
        return damaged("the next segment does not continue it");
    }
    Ok(())
}

/// The records in order; also the snapshot they begin behind.
fn replay(segments: Vec<Scan>) -> Result<((u64, u64), Recovered), WalError> {
    let mut begin = (0, 0);
    let mut entries: Vec<LogEntry> = Vec::new();
    let mut hard_state = HardState::default();
    for scan in segments {
        let file = segment_name(scan.header.number);
        let gap =
            || WalError::Damaged { file: file.clone(), offset: 0, what: "entries are missing" };
        for record in scan.records {
            match record {
                Record::HardState(state) => hard_state = state,
                Record::CheckpointStart { index, term } => begin = (index, term),
                Record::CheckpointEnd => {}
                Record::Entry(entry) => {
                    let kept = entry.index.checked_sub(begin.0 + 1).ok_or_else(gap)?;
                    let kept = usize::try_from(kept).map_err(|_| gap())?;
                    if kept > entries.len() {
                        return Err(gap());
                    }
                    entries.truncate(kept);
                    entries.push(entry);
                }
            }
        }
    }
    let last = begin.0 + entries.len() as u64;
    let last_term = entries.last().map_or(begin.1, |entry| entry.term);
    if hard_state.term < last_term {
        // The hard state behind the entries was torn off. It held no vote: nothing of that term
        // was answered before it was stored.
        hard_state = HardState { term: last_term, vote: 0, commit: hard_state.commit };
    }
    if hard_state.commit > last {
        let what = format!("entry {} (the log ends at {last})", hard_state.commit);
        return Err(WalError::Missing(what));
    }
    Ok((begin, Recovered { hard_state, snapshot: None, entries }))
}
