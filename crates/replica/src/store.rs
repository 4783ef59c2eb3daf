//! The log in memory, as raft-rs reads it. It holds what was handed to the disk as well as what
//! is synced already; which is which is raft-rs' own knowledge (asynchronous Ready).

use crate::SnapshotData;
use crate::output::{EntryKind, HardState, LogEntry, SnapshotImage};
use crate::superseded::{Superseded, wipe};
use holdfast_cluster::{Configuration, MemberId};
use raft::eraftpb::{
    ConfState, Entry, EntryType, HardState as RaftHardState, Snapshot, SnapshotMetadata,
};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};

pub(crate) struct LogStore {
    hard_state: RaftHardState,
    members: ConfState,
    /// Index and term of the entry before the first one held.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    /// Bytes of the entries behind the snapshot.
    bytes_since_snapshot: u64,
    /// Of which entry the snapshot is, and who voted then.
    snapshot: SnapshotMetadata,
    data: SnapshotData,
    /// A member needs a newer snapshot than there is: one that knows of it.
    snapshot_wanted: Cell<bool>,
    /// Entries that were overwritten by others, ever.
    replaced: u64,
}

impl LogStore {
    pub(crate) fn new(
        members: ConfState,
        hard_state: HardState,
        snapshot: Option<&SnapshotImage>,
        entries: &[LogEntry],
    ) -> Self {
        let mut store = Self {
            hard_state: hard_state_to_raft(hard_state),
            members,
            before: (0, 0),
            entries: VecDeque::new(),
            bytes_since_snapshot: 0,
            snapshot: SnapshotMetadata::default(),
            data: SnapshotData::default(),
            snapshot_wanted: Cell::new(false),
            replaced: 0,
        };
        if let Some(image) = snapshot {
            let metadata = store.metadata(image);
            drop(store.install(metadata, image.data.clone()));
        }
        for entry in entries {
            store.append_one(entry_to_raft(entry));
        }
        store
    }

    pub(crate) fn first(&self) -> u64 {
        self.before.0.saturating_add(1)
    }

    pub(crate) fn last(&self) -> u64 {
        self.before.0.saturating_add(self.entries.len() as u64)
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.first())?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        self.get(index).map(|entry| entry.term)
    }

    pub(crate) fn snapshot_index(&self) -> u64 {
        self.snapshot.index
    }

    /// The size of the snapshot, once it is encoded.
    pub(crate) fn snapshot_bytes(&self) -> Option<u64> {
        self.data.ready().map(|bytes| bytes.len() as u64)
    }

    pub(crate) fn bytes_since_snapshot(&self) -> u64 {
        self.bytes_since_snapshot
    }

    pub(crate) fn hard_state(&self) -> HardState {
        HardState {
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            commit: self.hard_state.commit,
        }
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: &RaftHardState) {
        self.hard_state = hard_state.clone();
    }

    /// Entries that exist in another form are replaced with everything behind them. True when there
    /// were such: on disk they are still readable.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> bool {
        let before = self.replaced;
        for entry in entries {
            self.append_one(entry.clone());
        }
        self.replaced != before
    }

    fn append_one(&mut self, entry: Entry) {
        let Some(kept) = entry.index.checked_sub(self.first()) else { return };
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        while self.entries.len() > kept {
            if let Some(mut dropped) = self.entries.pop_back() {
                self.replaced = self.replaced.saturating_add(1);
                self.bytes_since_snapshot =
                    self.bytes_since_snapshot.saturating_sub(dropped.data.len() as u64);
                wipe(&mut dropped.data);
            }
        }
        self.bytes_since_snapshot =
            self.bytes_since_snapshot.saturating_add(entry.data.len() as u64);
        self.entries.push_back(entry);
    }

    fn metadata(&self, image: &SnapshotImage) -> SnapshotMetadata {
        let (index, term) = (image.index, image.term);
        let mut metadata = SnapshotMetadata { index, term, ..SnapshotMetadata::default() };
        metadata.set_conf_state(self.members.clone());
        metadata
    }

    /// The log begins behind a snapshot received or recovered; what was in it before is given back.
    pub(crate) fn install(&mut self, metadata: SnapshotMetadata, data: SnapshotData) -> Superseded {
        self.before = (metadata.index, metadata.term);
        self.hard_state.term = self.hard_state.term.max(metadata.term);
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        self.bytes_since_snapshot = 0;
        self.members = metadata.get_conf_state().clone();
        self.snapshot = metadata;
        let entries = std::mem::take(&mut self.entries);
        Superseded::log(entries.into(), std::mem::replace(&mut self.data, data))
    }

    /// The snapshot there is.
    pub(crate) fn image(&self) -> SnapshotImage {
        let (index, term) = (self.snapshot.index, self.snapshot.term);
        SnapshotImage { index, term, data: self.data.clone() }
    }

    /// Who votes, by the entries applied.
    pub(crate) fn set_members(&mut self, members: ConfState) {
        self.members = members;
    }

    /// Whether a snapshot was asked for that is newer than the one there is; asking forgets it.
    pub(crate) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }

    /// Keeps a snapshot of this member's own state and forgets entries up to it, but for the
    /// last `retained` of them (or `retained_bytes`), which serve followers that lag a little.
    ///
    /// The very first entry always goes: a member that joins must begin with a snapshot, because
    /// no entry says who voted in the beginning.
    pub(crate) fn compact(&mut self, image: &SnapshotImage, retained: u64, retained_bytes: u64) {
        self.snapshot = self.metadata(image);
        self.data = image.data.clone();
        let forget_to = image.index.saturating_sub(retained);
        let mut bytes: u64 = self.entries.iter().map(|entry| entry.data.len() as u64).sum();
        let forget_to = forget_to.max(1);
        while self.first() <= forget_to || (self.first() <= image.index && bytes > retained_bytes) {
            let Some(mut entry) = self.entries.pop_front() else { break };
            self.before = (entry.index, entry.term);
            bytes = bytes.saturating_sub(entry.data.len() as u64);
            wipe(&mut entry.data);
        }
        let behind = self.entries.iter().filter(|entry| entry.index > image.index);
        self.bytes_since_snapshot = behind.map(|entry| entry.data.len() as u64).sum();
    }

    pub(crate) fn entries_behind(&self, index: u64) -> Vec<LogEntry> {
        self.entries.iter().filter(|entry| entry.index > index).map(entry_from_raft).collect()
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last().saturating_add(1) {
            return Err(StorageError::Unavailable.into());
        }
        let most = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0u64;
        let mut found = Vec::new();
        for index in low..high {
            let entry = self.get(index).ok_or(StorageError::Unavailable)?;
            size = size.saturating_add(u64::from(protobuf::Message::compute_size(entry)));
            if size > most && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        self.term_of(index).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let index = self.snapshot_index();
        // A member ignores a snapshot that does not know of it.
        let known = configuration_from_raft(self.snapshot.get_conf_state());
        let unknown = !known.contains(MemberId(to));
        if index == 0 || index < request_index || unknown {
            self.snapshot_wanted.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        // While it is encoded raft-rs asks again with every heartbeat.
        let data = self.data.ready_bytes().ok_or(StorageError::SnapshotTemporarilyUnavailable)?;
        let mut snapshot = Snapshot { data, ..Snapshot::default() };
        snapshot.set_metadata(self.snapshot.clone());
        Ok(snapshot)
    }
}

pub(crate) fn hard_state_to_raft(hard_state: HardState) -> RaftHardState {
    RaftHardState {
        term: hard_state.term,
        vote: hard_state.vote,
        commit: hard_state.commit,
        ..RaftHardState::default()
    }
}

pub(crate) fn entry_to_raft(entry: &LogEntry) -> Entry {
    let mut raft = Entry::default();
    raft.set_entry_type(match entry.kind {
        EntryKind::Command => EntryType::EntryNormal,
        EntryKind::Configuration => EntryType::EntryConfChangeV2,
    });
    raft.term = entry.term;
    raft.index = entry.index;
    raft.data = entry.data.clone();
    raft
}

pub(crate) fn entry_from_raft(entry: &Entry) -> LogEntry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Command,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Configuration,
    };
    LogEntry { term: entry.term, index: entry.index, kind, data: entry.data.clone() }
}

pub(crate) fn configuration_from_raft(members: &ConfState) -> Configuration {
    let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    Configuration {
        voters: set(members.get_voters()),
        outgoing: set(members.get_voters_outgoing()),
        learners: set(members.get_learners()),
        learners_next: set(members.get_learners_next()),
        auto_leave: members.auto_leave,
    }
}

pub(crate) fn configuration_to_raft(configuration: &Configuration) -> ConfState {
    let list = |ids: &BTreeSet<MemberId>| ids.iter().map(|id| id.0).collect();
    ConfState {
        voters: list(&configuration.voters),
        voters_outgoing: list(&configuration.outgoing),
        learners: list(&configuration.learners),
        learners_next: list(&configuration.learners_next),
        auto_leave: configuration.auto_leave,
        ..ConfState::default()
    }
}
