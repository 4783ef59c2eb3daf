use super::*;
use holdfast_datapath::{COUNTERS_LEN, Metric};
use holdfast_ipsec::DropReason;
use std::fs;
use tempfile::TempDir;

fn segment_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = path_beside(&folder.path().join("holdfast.sock"));
    (folder, path)
}

fn values(reason: DropReason, packets: u64) -> [u64; COUNTERS_LEN] {
    let mut values = [0; COUNTERS_LEN];
    values[Metric::ALL.len() + reason.index()] = packets;
    values
}

fn packets(segment: &Segment, reason: DropReason) -> u64 {
    let reasons = segment.drop_reasons().reasons;
    reasons.iter().find(|found| found.name == reason.name()).unwrap().packets
}

/// Writes one word of a sound segment anew and tells what the reader says.
fn read_with_word(at: usize, value: u64) -> String {
    let (_folder, path) = segment_file();
    Writer::create(&path, 1).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[at * WORD_BYTES..(at + 1) * WORD_BYTES].copy_from_slice(&value.to_ne_bytes());
    fs::write(&path, bytes).unwrap();
    Segment::read(&path).unwrap_err().to_string()
}

#[test]
fn the_segment_lies_beside_the_socket() {
    let path = path_beside(Path::new("/run/holdfast/holdfast.sock"));
    assert_eq!(path, Path::new("/run/holdfast/holdfast.sock.stats"));
}

#[test]
fn what_the_workers_count_is_read_as_one_sum() {
    let (_folder, path) = segment_file();
    let writer = Writer::create(&path, 2).unwrap();
    let (first, last) = (DropReason::ALL[0], *DropReason::ALL.last().unwrap());
    writer.update(0, &values(first, 5));
    writer.update(1, &values(first, 7));
    assert_eq!(packets(&Segment::read(&path).unwrap(), first), 12);

    writer.update(1, &values(last, u64::MAX));
    let segment = Segment::read(&path).unwrap();
    assert_eq!((packets(&segment, first), packets(&segment, last)), (5, u64::MAX));
    assert_eq!(segment.workers, 2);
    assert_eq!(segment.process, u64::from(std::process::id()));
    assert!(segment.updated_unix_ms >= segment.created_unix_ms);
}

#[test]
fn names_and_descriptions_come_from_the_file() {
    let (_folder, path) = segment_file();
    Writer::create(&path, 1).unwrap();
    let segment = Segment::read(&path).unwrap();
    assert_eq!(segment.counters.len(), COUNTERS_LEN);
    let expected = |counter: &Counter| {
        let reason = DropReason::ALL.iter().find(|reason| reason.name() == counter.name);
        reason.is_some_and(|reason| reason.description() == counter.description)
    };
    assert!(segment.counters.iter().filter(|c| c.kind == Kind::Drop).all(expected));
}

#[test]
fn a_worker_the_segment_has_no_room_for_changes_nothing() {
    let (_folder, path) = segment_file();
    let writer = Writer::create(&path, 1).unwrap();
    writer.update(1, &[1; COUNTERS_LEN]);
    let segment = Segment::read(&path).unwrap();
    assert!(segment.counters.iter().all(|counter| counter.value == 0));
}

#[test]
fn a_new_run_replaces_the_file_and_leaves_the_old_writer_harmless() {
    let (_folder, path) = segment_file();
    let old = Writer::create(&path, 1).unwrap();
    let _new = Writer::create(&path, 3).unwrap();
    old.update(0, &[9; COUNTERS_LEN]);
    let segment = Segment::read(&path).unwrap();
    assert_eq!(segment.workers, 3);
    assert!(segment.counters.iter().all(|counter| counter.value == 0));
}

#[test]
fn foreign_files_are_refused() {
    let (_folder, path) = segment_file();
    assert!(matches!(Segment::read(&path), Err(StatsError::Unreadable { .. })));
    for content in [&b""[..], b"short", b"[member]\nid = 1\ndata_dir = \"/var/lib/holdfast\"\n"] {
        fs::write(&path, content).unwrap();
        assert!(matches!(Segment::read(&path), Err(StatsError::NotASegment(_))));
    }
    assert!(read_with_word(0, MAGIC ^ 1).contains("is not a statistics segment"));
}

#[test]
fn another_version_is_refused_with_both_numbers_and_the_remedy() {
    let message = read_with_word(1, 2);
    assert!(message.contains("layout version 2"), "{message}");
    assert!(message.contains("reads version 1"), "{message}");
    assert!(message.contains("use the holdfast that belongs to the daemon"), "{message}");
}

#[test]
fn contradictions_are_refused() {
    assert!(read_with_word(WORD_WORKERS, 2).contains("length"));
    assert!(read_with_word(WORD_WORKERS, u64::MAX).contains("too many workers"));
    assert!(read_with_word(WORD_COUNTERS, 1 << 40).contains("too many counters"));
    assert!(read_with_word(WORD_NAMES_BYTES, 1 << 40).contains("names table"));
    assert!(read_with_word(HEADER_WORDS, u64::MAX).contains("unreadable names"));
}

#[test]
fn no_prefix_of_a_segment_is_taken_for_one() {
    let (_folder, path) = segment_file();
    Writer::create(&path, 2).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(WORD_BYTES) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(Segment::read(&path).is_err(), "{length} of {} bytes", whole.len());
    }
}
