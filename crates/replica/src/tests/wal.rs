//! The log on a disk: round trips, torn ends, damage of every byte.

use crate::EntryKind;
use crate::testing::{Disk, Prng};
use crate::wal::{WalError, WalKey, WalWriter, recover, segment_name, snapshot_name};
use crate::{Checkpoint, HardState, LogEntry, Recovered, SnapshotImage, WriteBatch};
use proptest::prelude::*;
use zeroize::Zeroizing;

const KEY: [u8; 32] = [7; 32];

fn key() -> WalKey {
    WalKey::new(&KEY)
}

fn entry(index: u64, term: u64, len: usize) -> LogEntry {
    LogEntry { term, index, kind: EntryKind::Command, data: vec![index as u8; len].into() }
}

fn batch(number: u64, entries: Vec<LogEntry>, commit: u64) -> WriteBatch {
    let hard_state = Some(HardState { term: 3, vote: 2, commit });
    WriteBatch { number, must_sync: true, checkpoint: None, entries, hard_state }
}

/// A writer on an empty disk; `seed` makes its nonces.
fn begin(disk: &mut Disk, seed: u8) -> WalWriter {
    let recovery = recover(&key(), &disk.files()).unwrap();
    let (writer, ops) = WalWriter::start(key(), [seed; 32], &recovery).unwrap();
    ops.into_iter().for_each(|op| disk.carry_out(op));
    writer
}

fn store(disk: &mut Disk, writer: &mut WalWriter, batch: &WriteBatch) {
    writer.write(batch).unwrap().into_iter().for_each(|op| disk.carry_out(op));
}

fn recovered(disk: &Disk) -> Recovered {
    recover(&key(), &disk.files()).unwrap().recovered
}

#[test]
fn an_empty_disk_is_an_empty_log() {
    assert_eq!(recovered(&Disk::default()), Recovered::default());
}

#[test]
fn what_is_stored_is_read_back() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    store(&mut disk, &mut writer, &batch(1, vec![entry(1, 1, 0), entry(2, 1, 300)], 1));
    store(&mut disk, &mut writer, &batch(2, vec![entry(3, 2, 5)], 3));
    let found = recovered(&disk);
    assert_eq!(found.entries, [entry(1, 1, 0), entry(2, 1, 300), entry(3, 2, 5)]);
    assert_eq!(found.hard_state, HardState { term: 3, vote: 2, commit: 3 });
    assert_eq!(found.snapshot, None);
}

#[test]
fn entries_in_another_form_replace_those_and_all_behind() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    let first = (1..=5).map(|index| entry(index, 1, 9)).collect();
    store(&mut disk, &mut writer, &batch(1, first, 1));
    store(&mut disk, &mut writer, &batch(2, vec![entry(3, 2, 9)], 1));
    assert_eq!(recovered(&disk).entries, [entry(1, 1, 9), entry(2, 1, 9), entry(3, 2, 9)]);
}

#[test]
fn a_restart_begins_a_new_segment_and_deletes_the_old_one() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    store(&mut disk, &mut writer, &batch(1, vec![entry(1, 1, 9)], 1));
    let before = recovered(&disk);
    let mut writer = begin(&mut disk, 2);
    assert_eq!(disk.files().len(), 1);
    assert_eq!(recovered(&disk), before);
    store(&mut disk, &mut writer, &batch(1, vec![entry(2, 3, 9)], 2));
    assert_eq!(recovered(&disk).entries, [entry(1, 1, 9), entry(2, 3, 9)]);
}

#[test]
fn a_checkpoint_deletes_what_it_supersedes() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    for round in 1..=3u64 {
        let first = round * 10 - 9;
        let entries = (first..first + 10).map(|index| entry(index, 1, 9)).collect();
        store(&mut disk, &mut writer, &batch(round * 2, entries, first + 9));
        let data = Zeroizing::new(vec![round as u8; 1_000]);
        let checkpoint = Checkpoint {
            snapshot: SnapshotImage { index: first + 7, term: 1, data: data.into() },
            hard_state: HardState { term: 3, vote: 2, commit: first + 9 },
            entries: vec![entry(first + 8, 1, 9), entry(first + 9, 1, 9)],
        };
        let batch = WriteBatch {
            number: round * 2 + 1,
            must_sync: false,
            checkpoint: Some(checkpoint),
            entries: Vec::new(),
            hard_state: None,
        };
        store(&mut disk, &mut writer, &batch);
    }
    let names: Vec<_> = disk.files().iter().map(|file| file.name.to_owned()).collect();
    assert_eq!(names, [segment_name(4), snapshot_name(28)]);
    let found = recovered(&disk);
    assert_eq!(found.entries, [entry(29, 1, 9), entry(30, 1, 9)]);
    assert_eq!(*found.snapshot.unwrap().data, [3; 1_000]);
    assert_eq!(found.hard_state.commit, 30);
}

#[test]
fn full_segments_are_left_and_chained() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    for index in 1..=40 {
        store(&mut disk, &mut writer, &batch(index, vec![entry(index, 1, 1 << 20)], index));
    }
    let files = disk.files();
    assert_eq!(files.len(), 3, "40 MiB in segments of 16");
    assert_eq!(recovered(&disk).entries.len(), 40);
    let middle = files[1].name.to_owned();
    let without_middle: Vec<_> =
        disk.files().into_iter().filter(|file| file.name != middle).collect();
    assert_eq!(recover(&key(), &without_middle).unwrap_err(), WalError::Missing(middle));
}

#[test]
fn another_key_opens_nothing() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    store(&mut disk, &mut writer, &batch(1, vec![entry(1, 1, 9)], 1));
    let other = recover(&WalKey::new(&[8; 32]), &disk.files());
    assert!(matches!(other, Err(WalError::Sealed { .. })), "{other:?}");
}

#[test]
fn payloads_are_not_readable_on_disk() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    let secret = b"the salt and the key of a child sa";
    let entry =
        LogEntry { term: 1, index: 1, kind: EntryKind::Command, data: secret.to_vec().into() };
    store(&mut disk, &mut writer, &batch(1, vec![entry], 1));
    for file in disk.files() {
        assert!(!file.bytes.windows(8).any(|window| secret.starts_with(window)));
    }
}

/// Three batches of two records each in one segment; returns where each batch ends.
fn small_log() -> (Disk, Vec<usize>) {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    let mut ends = vec![disk.len_bytes()];
    for index in 1..=3 {
        store(&mut disk, &mut writer, &batch(index, vec![entry(index, 1, 20)], index));
        ends.push(disk.len_bytes());
    }
    (disk, ends)
}

#[test]
fn a_log_cut_off_anywhere_is_what_was_stored_before_the_cut() {
    let (disk, ends) = small_log();
    let name = segment_name(1);
    for len in 0..disk.len_bytes() {
        let mut cut = disk.clone();
        cut.bytes_mut(&name).unwrap().truncate(len);
        let whole_batches = ends.iter().filter(|end| **end <= len).count().saturating_sub(1);
        let recovery = recover(&key(), &cut.files()).unwrap();
        let entries = recovery.recovered.entries.len();
        // The entry of a batch may be whole while the hard state behind it is not.
        assert!((whole_batches..=whole_batches + 1).contains(&entries), "{len}: {entries}");
        let begins = ends.contains(&len);
        if recovery.torn_tail.is_none() {
            assert!(begins || entries == whole_batches + 1 || len < ends[0], "{len}");
        }
        // And the member goes on from there.
        begin(&mut cut, 9);
        assert_eq!(recovered(&cut).entries.len(), entries, "{len}");
    }
}

#[test]
fn each_flipped_byte_is_refused_or_is_in_the_last_record() {
    let (disk, _) = small_log();
    let name = segment_name(1);
    let len = disk.len_bytes();
    // A hard state is three numbers; the last record is that of the third batch.
    let last_record = len - (16 + 24 + 16 + 4);
    for at in 0..len {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = disk.clone();
            damaged.bytes_mut(&name).unwrap()[at] ^= flip;
            match recover(&key(), &damaged.files()) {
                Ok(recovery) => {
                    assert!(at >= last_record, "byte {at} was not noticed");
                    let torn = recovery.torn_tail.expect("reported");
                    assert_eq!((torn.segment.as_str(), torn.offset), (&*name, last_record as u64));
                    assert_eq!(torn.bytes, (len - last_record) as u64);
                }
                Err(WalError::Damaged { file, offset, .. } | WalError::Sealed { file, offset }) => {
                    assert!(at < last_record, "byte {at}");
                    assert_eq!(file, name);
                    assert!(offset <= at as u64, "byte {at} reported at {offset}");
                }
                Err(other) => assert!(at < 36, "byte {at}: {other}"),
            }
        }
    }
}

#[test]
fn damage_before_the_last_segment_is_never_a_torn_end() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    for index in 1..=17 {
        store(&mut disk, &mut writer, &batch(index, vec![entry(index, 1, 1 << 20)], index));
    }
    assert_eq!(disk.files().len(), 2);
    let first = segment_name(1);
    let len = disk.bytes_mut(&first).unwrap().len();
    disk.bytes_mut(&first).unwrap().truncate(len - 1);
    let refused = recover(&key(), &disk.files()).unwrap_err();
    assert!(matches!(&refused, WalError::Damaged { file, .. } if *file == first), "{refused}");
}

#[test]
fn a_damaged_or_missing_snapshot_is_refused() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    let data = Zeroizing::new(vec![9; 100]);
    let checkpoint = Checkpoint {
        snapshot: SnapshotImage { index: 5, term: 1, data: data.into() },
        hard_state: HardState { term: 1, vote: 0, commit: 5 },
        entries: Vec::new(),
    };
    let batch = WriteBatch {
        number: 1,
        must_sync: true,
        checkpoint: Some(checkpoint),
        entries: Vec::new(),
        hard_state: None,
    };
    store(&mut disk, &mut writer, &batch);
    let name = snapshot_name(5);
    for at in 0..disk.bytes_mut(&name).unwrap().len() {
        let mut damaged = disk.clone();
        damaged.bytes_mut(&name).unwrap()[at] ^= 0x40;
        let refused = recover(&key(), &damaged.files());
        assert!(matches!(refused, Err(WalError::Damaged { .. })), "byte {at}: {refused:?}");
    }
    let without: Vec<_> = disk.files().into_iter().filter(|file| file.name != name).collect();
    assert_eq!(recover(&key(), &without).unwrap_err(), WalError::Missing(name.clone()));
    let alone: Vec<_> = disk.files().into_iter().filter(|file| file.name == name).collect();
    assert!(matches!(recover(&key(), &alone), Err(WalError::Missing(_))));
}

#[test]
fn a_crash_between_any_two_steps_of_a_start_or_a_checkpoint_loses_nothing() {
    let mut disk = Disk::default();
    let mut writer = begin(&mut disk, 1);
    store(&mut disk, &mut writer, &batch(1, vec![entry(1, 1, 9), entry(2, 1, 9)], 2));
    let data = Zeroizing::new(vec![1; 10]);
    let checkpoint = Checkpoint {
        snapshot: SnapshotImage { index: 1, term: 1, data: data.into() },
        hard_state: HardState { term: 3, vote: 2, commit: 2 },
        entries: vec![entry(2, 1, 9)],
    };
    let batch = WriteBatch {
        number: 2,
        must_sync: true,
        checkpoint: Some(checkpoint),
        entries: Vec::new(),
        hard_state: None,
    };
    let recovery = recover(&key(), &disk.files()).unwrap();
    let (_, of_start) = WalWriter::start(key(), [2; 32], &recovery).unwrap();
    let of_checkpoint = writer.write(&batch).unwrap();
    for ops in [of_start, of_checkpoint] {
        for done in 0..=ops.len() {
            let mut crashed = disk.clone();
            ops.iter().take(done).cloned().for_each(|op| crashed.carry_out(op));
            let found = recovered(&crashed);
            assert_eq!(found.entries.last(), Some(&entry(2, 1, 9)), "{done} steps");
            assert_eq!(found.hard_state.commit, 2, "{done} steps");
            // Also when the file being made is there in part only.
            if let Some(crate::wal::FileOp::Create { name, bytes }) = ops.get(done) {
                for len in 0..bytes.len() {
                    let mut torn = crashed.clone();
                    let bytes = bytes[..len].to_vec();
                    torn.carry_out(crate::wal::FileOp::Create { name: name.clone(), bytes });
                    assert_eq!(recovered(&torn).entries.len(), 2, "{len} bytes of {name}");
                    begin(&mut torn, 3);
                    assert_eq!(recovered(&torn).entries.len(), 2, "{len} bytes of {name}");
                }
            }
        }
    }
}

#[test]
fn a_member_that_never_got_through_its_first_start_is_new() {
    let recovery = recover(&key(), &[]).unwrap();
    let (_, ops) = WalWriter::start(key(), [1; 32], &recovery).unwrap();
    let [crate::wal::FileOp::Create { name, bytes }] = ops.as_slice() else {
        panic!("one file: {ops:?}")
    };
    for len in 0..bytes.len() {
        let mut disk = Disk::default();
        let bytes = bytes[..len].to_vec();
        disk.carry_out(crate::wal::FileOp::Create { name: name.clone(), bytes });
        assert_eq!(recovered(&disk), Recovered::default(), "{len} bytes");
        begin(&mut disk, 2);
        assert_eq!(recovered(&disk), Recovered::default(), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        of_snapshot in any::<bool>(),
    ) {
        let name = if of_snapshot { snapshot_name(1) } else { segment_name(2) };
        let mut disk = Disk::default();
        disk.carry_out(crate::wal::FileOp::Create { name, bytes });
        prop_assert!(recover(&key(), &disk.files()).is_err());
    }

    #[test]
    fn a_crash_at_random_keeps_every_synced_batch(seed in any::<u64>()) {
        let mut prng = Prng::new(seed);
        let mut disk = Disk::default();
        let mut writer = begin(&mut disk, 1);
        let mut synced = 0;
        for number in 1..=prng.between(1, 30) {
            let len = prng.between(0, 2_000) as usize;
            let mut ops = writer.write(&batch(number, vec![entry(number, 1, len)], 0)).unwrap();
            if prng.chance(500) {
                synced = number;
            } else {
                ops.pop();
            }
            ops.into_iter().for_each(|op| disk.carry_out(op));
        }
        disk.crash(&mut prng);
        let found = recovered(&disk).entries.len() as u64;
        prop_assert!(found >= synced, "{found} of {synced}");
    }
}
