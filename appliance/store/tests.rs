use super::*;
use bytes::Bytes;
use holdfast_cluster::{Command, State};
use holdfast_replica::wal::SnapshotTask;
use holdfast_replica::{Checkpoint, HardState, LogEntry, SnapshotData, SnapshotImage, WriteBatch};
use std::sync::mpsc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn batch(number: u64, text: &'static str) -> WriteBatch {
    WriteBatch {
        number,
        must_sync: true,
        checkpoint: None,
        entries: vec![LogEntry {
            kind: Default::default(),
            term: 1,
            index: number,
            data: Bytes::from_static(text.as_bytes()),
        }],
        hard_state: Some(HardState { term: 1, vote: 1, commit: number.saturating_sub(1) }),
    }
}

/// Stores `batches` with a process that then goes; returns its incarnation.
fn store(folder: &Path, batches: Vec<WriteBatch>) -> u64 {
    let store = Store::open(folder).unwrap();
    let incarnation = store.incarnation;
    let (bell, rings) = mpsc::channel();
    let (_, thread) = store.start_thread(move || bell.send(()).unwrap()).unwrap();
    let last = batches.last().map(|batch| batch.number);
    for batch in batches {
        thread.write(batch);
    }
    let mut persisted = None;
    while persisted != last {
        rings.recv_timeout(PATIENCE).unwrap();
        while let Some(news) = thread.poll_news() {
            match news {
                Stored::Persisted(number) => persisted = Some(number),
                Stored::Failed(error) => panic!("{error}"),
            }
        }
    }
    incarnation
}

fn three_entries(folder: &Path) {
    store(folder, vec![batch(1, "one"), batch(2, "two"), batch(3, "three")]);
}

fn last_segment(folder: &Path) -> PathBuf {
    let name = log_files(folder).unwrap().into_iter().rfind(|n| n.starts_with("log-")).unwrap();
    folder.join(name)
}

#[test]
fn what_was_persisted_is_there_after_a_restart_under_a_new_incarnation() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(store(folder.path(), vec![batch(1, "one"), batch(2, "two")]), 1);

    let again = Store::open(folder.path()).unwrap();
    assert_eq!(again.incarnation, 2);
    assert_eq!(again.torn_tail, None);
    let texts: Vec<_> = again.recovered.entries.iter().map(|entry| &entry.data[..]).collect();
    assert_eq!(texts, [b"one", b"two"]);
    assert_eq!(again.recovered.hard_state, HardState { term: 1, vote: 1, commit: 1 });
}

#[test]
fn every_start_is_a_new_incarnation_even_without_any_write() {
    let folder = tempfile::tempdir().unwrap();
    for expected in 1..5 {
        assert_eq!(Store::open(folder.path()).unwrap().incarnation, expected);
    }
}

#[test]
fn a_second_daemon_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Locked(_))));
    drop(first);
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_torn_tail_is_dropped_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    three_entries(folder.path());
    let segment = last_segment(folder.path());
    let length = fs::metadata(&segment).unwrap().len();
    OpenOptions::new().write(true).open(&segment).unwrap().set_len(length - 3).unwrap();

    assert!(check(folder.path()).unwrap().torn_tail.is_some());
    let opened = Store::open(folder.path()).unwrap();
    let torn = opened.torn_tail.unwrap();
    assert_eq!(folder.path().join(torn.segment), segment);
    assert!(torn.offset < length);
    assert!(!opened.recovered.entries.is_empty());

    drop(opened.lock);
    drop(opened.files);
    assert_eq!(check(folder.path()).unwrap().torn_tail, None, "the next start finds it whole");
}

#[test]
fn a_corrupt_log_is_refused_with_file_and_offset_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    three_entries(folder.path());
    let segment = last_segment(folder.path());
    let mut bytes = fs::read(&segment).unwrap();
    // In the first of several records: not a torn write.
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&segment, &bytes).unwrap();

    let message = Store::open(folder.path()).unwrap_err().to_string();
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name), "{message}");
    assert!(message.contains("at byte"), "{message}");
    assert_eq!(fs::read(&segment).unwrap(), bytes);
    assert!(matches!(check(folder.path()), Err(StoreError::Log { .. })));
}

#[test]
fn a_log_without_its_key_or_its_incarnation_is_refused() {
    for (file, expected) in [(SEAL_KEY, "seals"), (INCARNATION, "although there is a log")] {
        let folder = tempfile::tempdir().unwrap();
        three_entries(folder.path());
        fs::remove_file(folder.path().join(file)).unwrap();
        let message = Store::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!folder.path().join(file).exists(), "nothing is made up in its place");
    }
}

#[test]
fn a_log_of_another_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    three_entries(folder.path());
    fs::write(folder.path().join(SEAL_KEY), [7; 32]).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(&error, StoreError::Log { source: WalError::Sealed { .. }, .. }), "{error}");
}

#[test]
fn nothing_readable_of_the_entries_lies_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), vec![batch(1, "a key of a security association")]);
    for name in log_files(folder.path()).unwrap() {
        let bytes = fs::read(folder.path().join(name)).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"security"));
    }
}

#[test]
fn the_check_of_a_sound_directory_counts_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    three_entries(folder.path());
    let checked = check(folder.path()).unwrap();
    assert_eq!((checked.incarnation, checked.entries), (1, 3));
}

#[test]
fn a_disk_that_fails_is_told_once_and_nothing_is_acknowledged_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = Store::open(&data).unwrap();
    let (bell, rings) = mpsc::channel();
    let (_, thread) = store.start_thread(move || bell.send(()).unwrap()).unwrap();
    // The next snapshot finds no folder to be written to.
    fs::remove_dir_all(&data).unwrap();
    let snapshot = SnapshotImage { index: 1, term: 1, data: vec![1].into() };
    let hard_state = HardState { term: 1, vote: 1, commit: 1 };
    let checkpoint = Some(Checkpoint { snapshot, hard_state, entries: Vec::new() });
    thread.write(WriteBatch { checkpoint, ..batch(1, "one") });
    thread.write(batch(2, "two"));
    rings.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(thread.poll_news(), Some(Stored::Failed(_))));
    thread.write(batch(3, "three"));
    assert!(rings.recv_timeout(PATIENCE).is_err(), "the thread is gone, and says nothing more");
    assert!(thread.poll_news().is_none());
}

#[test]
fn an_empty_or_foreign_directory_is_not_forced() {
    let folder = tempfile::tempdir().unwrap();
    let members = [1, 2, 3].map(holdfast_cluster::MemberId).to_vec();
    let config = Config::new(
        holdfast_cluster::MemberId(2),
        members,
        holdfast_replica::Timing::DEFAULT,
        holdfast_cluster::Incarnation(1),
    );
    let refused = force_quorum(folder.path(), &config).unwrap_err().to_string();
    assert!(refused.contains("holds no log"), "{refused}");
    // Entries that are no commands: a log of something else.
    three_entries(folder.path());
    let refused = force_quorum(folder.path(), &config).unwrap_err().to_string();
    assert!(refused.contains("nothing was changed"), "{refused}");
    assert_eq!(check(folder.path()).unwrap().entries, 3);
}

const KEY: &[u8] = b"the very key of an SA, 32 octets";

/// Every file of the data directory, whatever it is called.
fn all_bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// What the log says to who has the key that seals it, which lies beside it.
fn opened(folder: &Path) -> Vec<u8> {
    let key = seal_key(folder, true).unwrap();
    let names = log_files(folder).unwrap();
    let recovered = read_log(folder, &WalKey::new(&key), &names).unwrap().recovered;
    let mut bytes: Vec<u8> =
        recovered.snapshot.map(|snapshot| snapshot.data.to_vec()).unwrap_or_default();
    recovered.entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.data));
    bytes
}

#[test]
fn a_key_is_in_no_raw_file_and_after_a_checkpoint_without_it_nowhere_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut with_key = batch(1, "");
    with_key.entries[0].data = Bytes::from_static(KEY);
    store(folder.path(), vec![with_key]);
    assert!(contains(&opened(folder.path()), KEY), "the test finds what is there");
    for (name, bytes) in all_bytes(folder.path()) {
        assert!(!contains(&bytes, KEY), "{name}");
    }

    let hard_state = HardState { term: 1, vote: 1, commit: 1 };
    let data = Zeroizing::new(b"a state without it".to_vec());
    let snapshot = SnapshotImage { index: 1, term: 1, data: data.into() };
    let checkpoint = Checkpoint { snapshot, hard_state, entries: Vec::new() };
    let cut = WriteBatch {
        number: 1,
        must_sync: true,
        checkpoint: Some(checkpoint),
        entries: Vec::new(),
        hard_state: None,
    };
    store(folder.path(), vec![cut]);
    assert_eq!(opened(folder.path()), b"a state without it");
    let logs = log_files(folder.path()).unwrap();
    assert_eq!(logs.len(), 2, "one segment, one snapshot, nothing older: {logs:?}");
}

#[test]
fn what_a_crash_left_half_written_is_removed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    three_entries(folder.path());
    let half = folder.path().join("snapshot-0000000000000007.hfs.new");
    let strange = folder.path().join("notes.new");
    fs::write(&half, b"half a snapshot, keys and all").unwrap();
    fs::write(&strange, b"not ours").unwrap();
    Store::open(folder.path()).unwrap();
    assert!(strange.exists());
    assert!(!half.exists());
}

/// Three entries, and a checkpoint behind the second whose snapshot is still to be encoded.
fn three_entries_and_a_checkpoint() -> Vec<WriteBatch> {
    let mut state = State::new();
    state.apply(1, &Command::Noop);
    state.apply(2, &Command::Noop);
    let data = SnapshotData::later(state.freeze(), None);
    let behind = |number| batch(number, "three").entries;
    let checkpoint = Checkpoint {
        snapshot: SnapshotImage { index: 2, term: 1, data },
        hard_state: HardState { term: 1, vote: 1, commit: 2 },
        entries: behind(3),
    };
    let mut batches: Vec<WriteBatch> = (1..=3).map(|number| batch(number, "three")).collect();
    let (must_sync, entries, hard_state) = (false, Vec::new(), None);
    let checkpoint = Some(checkpoint);
    batches.push(WriteBatch { number: 4, must_sync, checkpoint, entries, hard_state });
    batches
}

#[test]
fn what_is_stored_while_a_snapshot_is_encoded_is_in_its_checkpoint_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut batches = three_entries_and_a_checkpoint();
    // Two entries more, and then others in the place of the last two.
    for (number, index, text) in [(5, 4, "old"), (6, 5, "old"), (7, 4, "new")] {
        batches.push(WriteBatch { number, ..batch(index, text) });
    }
    store(folder.path(), batches);

    let recovered = Store::open(folder.path()).unwrap().recovered;
    let snapshot = recovered.snapshot.unwrap();
    assert_eq!((snapshot.index, State::restore(&snapshot.data).unwrap().applied()), (2, 2));
    let texts: Vec<_> = recovered.entries.iter().map(|e| (e.index, &e.data[..])).collect();
    assert_eq!(texts, [(3, &b"three"[..]), (4, b"new")]);
    assert_eq!(recovered.hard_state.commit, 3);
    assert_eq!(log_files(folder.path()).unwrap().len(), 2, "one snapshot, one segment");
}

#[test]
fn an_encoder_that_panics_ends_the_thread_with_the_reason_and_nothing_reported_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Store { files, writer, lock, .. } = Store::open(folder.path()).unwrap();
    let (bell, rings) = mpsc::channel();
    let wake = move || bell.send(()).unwrap();
    let panics = |_: &files::Folder, _: &SnapshotTask| panic!("on purpose, by a test");
    let thread = StorageThread::start_with(files, writer, lock, wake, panics).unwrap();
    three_entries_and_a_checkpoint().into_iter().for_each(|batch| thread.write(batch));
    // They may come before the end is noticed or after it.
    for number in 5..9 {
        thread.write(WriteBatch { number, ..batch(number - 1, "behind") });
    }
    let mut persisted = 0;
    let reason = loop {
        match thread.poll_news() {
            Some(Stored::Persisted(number)) => persisted = number,
            Some(Stored::Failed(reason)) => break reason,
            None => rings.recv_timeout(PATIENCE).unwrap(),
        }
    };
    assert_eq!(reason, "the thread that encodes snapshots has ended");
    assert!(persisted >= 4, "the checkpoint itself was taken: {persisted}");
    drop(thread);

    let recovered = Store::open(folder.path()).unwrap().recovered;
    assert!(recovered.snapshot.is_none(), "what it was to shorten is whole");
    let last = recovered.entries.last().unwrap().index;
    assert!(last >= persisted - 1, "{last} is the last entry, {persisted} batches were reported");
    assert!(recovered.entries.iter().map(|entry| entry.index).eq(1..=last));
}

/// A log of one entry, a checkpoint with a snapshot that a leader sent, and two entries behind it.
fn one_entry_and_a_received_checkpoint(snapshot: Bytes) -> Vec<WriteBatch> {
    let checkpoint = Checkpoint {
        snapshot: SnapshotImage { index: 9, term: 1, data: SnapshotData::received(snapshot) },
        hard_state: HardState { term: 1, vote: 1, commit: 9 },
        entries: Vec::new(),
    };
    let (must_sync, entries, hard_state) = (true, Vec::new(), None);
    let checkpoint = Some(checkpoint);
    let received = WriteBatch { number: 2, must_sync, checkpoint, entries, hard_state };
    let behind = |number, index| WriteBatch { number, ..batch(index, "behind") };
    vec![batch(1, "before"), received, behind(3, 10), behind(4, 11)]
}

fn snapshot_of_entry_nine() -> Bytes {
    let mut state = State::new();
    state.apply(9, &Command::Noop);
    Bytes::from_owner(state.snapshot())
}

#[test]
fn a_received_snapshot_is_read_and_stored_elsewhere_and_what_is_behind_it_waits() {
    let folder = tempfile::tempdir().unwrap();
    let Store { files, writer, lock, .. } = Store::open(folder.path()).unwrap();
    let (bell, rings) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let slow = move |folder: &files::Folder, task: &SnapshotTask| {
        gate.recv().unwrap();
        thread::store_snapshot(folder, task)
    };
    let wake = move || bell.send(()).unwrap();
    let thread = StorageThread::start_with(files, writer, lock, wake, slow).unwrap();
    let batches = one_entry_and_a_received_checkpoint(snapshot_of_entry_nine());
    let data = batches[1].checkpoint.as_ref().unwrap().snapshot.data.clone();
    batches.into_iter().for_each(|batch| thread.write(batch));
    rings.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(thread.poll_news(), Some(Stored::Persisted(1))));
    assert!(data.is_unread() && thread.poll_news().is_none(), "the log behind it is not stored");
    go.send(()).unwrap();
    let mut persisted = 1;
    while persisted < 4 {
        rings.recv_timeout(PATIENCE).unwrap();
        while let Some(Stored::Persisted(number)) = thread.poll_news() {
            assert!(number >= 2 && !data.is_unread());
            persisted = number;
        }
    }
    drop(thread);
    let recovered = Store::open(folder.path()).unwrap().recovered;
    assert_eq!(recovered.snapshot.unwrap().index, 9);
    assert!(recovered.entries.iter().map(|entry| entry.index).eq(10..=11));
    assert_eq!(recovered.hard_state.commit, 10);
}

#[test]
fn a_received_snapshot_that_cannot_be_read_is_not_stored_nor_what_is_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (bell, rings) = mpsc::channel();
    let (_, thread) = store.start_thread(move || bell.send(()).unwrap()).unwrap();
    let mut newer = snapshot_of_entry_nine().to_vec();
    assert_eq!(newer.get(..2), Some(&[8, 1][..]), "the format is the first field");
    newer[1] = 2;
    let batches = one_entry_and_a_received_checkpoint(newer.into());
    batches.into_iter().for_each(|batch| thread.write(batch));
    let reason = loop {
        match thread.poll_news() {
            Some(Stored::Persisted(number)) => assert_eq!(number, 1),
            Some(Stored::Failed(reason)) => break reason,
            None => rings.recv_timeout(PATIENCE).unwrap(),
        }
    };
    assert!(reason.contains("the leader's snapshot") && reason.contains("upgrade"), "{reason}");
    drop(thread);
    let recovered = Store::open(folder.path()).unwrap().recovered;
    assert!(recovered.snapshot.is_none(), "it could not start with that");
    assert!(recovered.entries.iter().map(|entry| entry.index).eq(1..=1));
}
