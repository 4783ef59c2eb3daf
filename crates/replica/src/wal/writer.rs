//! Batches to file operations.

use super::record::{Header, Record, SegmentKind, SegmentWriter};
use super::{
    Recovery, SEGMENT_BYTES_MAX, WalError, WalKey, segment_name, snapshot_file, snapshot_name,
};
use crate::output::{Checkpoint, HardState, LogEntry, SnapshotImage, WriteBatch};
use holdfast_crypto::aead::AeadKey;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One step of the shell, in order. None may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// Create a file that does not exist, with these bytes; sync it and its directory.
    Create {
        /// The file.
        name: String,
        /// All it contains so far.
        bytes: Vec<u8>,
    },
    /// Write a file under another name, sync it, rename it to `name`, sync the directory.
    Replace {
        /// The file.
        name: String,
        /// All it contains.
        bytes: Vec<u8>,
    },
    /// Append to a file made by `Create`; no sync yet.
    Append {
        /// The file.
        name: String,
        /// The additional bytes.
        bytes: Vec<u8>,
    },
    /// Make what was appended survive a crash. Several in a row for one file may be one.
    Sync {
        /// The file.
        name: String,
    },
    /// Delete a file; it need not exist any more.
    Delete {
        /// The file.
        name: String,
    },
}

/// Turns batches into bytes. One per process, made from what was recovered.
pub struct WalWriter {
    key: Arc<WalKey>,
    entropy: Entropy,
    segment: SegmentWriter,
    /// Files a checkpoint supersedes.
    files: BTreeSet<String>,
}

impl std::fmt::Debug for WalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalWriter").field("segment", &self.segment.number()).finish_non_exhaustive()
    }
}

impl WalWriter {
    /// Begins a new segment that contains all that was recovered; older files are deleted.
    ///
    /// `seed` is fresh randomness of this process: the nonces depend on it.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] if a record does not fit the format.
    pub fn start(
        key: WalKey,
        seed: [u8; 32],
        recovery: &Recovery,
    ) -> Result<(Self, Vec<FileOp>), WalError> {
        let recovered = &recovery.recovered;
        let mut entropy = Entropy::new(&seed);
        let mut bytes = Vec::new();
        let header = Header {
            number: recovery.next_segment,
            random: entropy.eight()?,
            chain: 0,
            kind: SegmentKind::Checkpoint,
        };
        let segment = SegmentWriter::begin(header, &mut bytes);
        let (key, files) = (Arc::new(key), recovery.files.clone());
        let mut writer = Self { key, entropy, segment, files };
        let begin = recovered.snapshot.as_ref().map_or((0, 0), |image| (image.index, image.term));
        writer.push_checkpoint(begin, &recovered.entries, recovered.hard_state, &mut bytes)?;
        let keep = recovered.snapshot.as_ref().map(|image| snapshot_name(image.index));
        let mut ops = vec![FileOp::Create { name: segment_name(recovery.next_segment), bytes }];
        ops.extend(writer.retire_files(keep));
        Ok((writer, ops))
    }

    /// The steps that store a batch. When the last one is done, the batch is stored.
    ///
    /// # Errors
    /// [`WalError::TooLarge`] if a record does not fit the format, [`WalError::Unreadable`] for what a
    /// leader sent; nothing can be stored then.
    pub fn write(&mut self, batch: &WriteBatch) -> Result<Vec<FileOp>, WalError> {
        let mut ops = Vec::new();
        if let Some(checkpoint) = &batch.checkpoint {
            ops.push(self.snapshot_task(&checkpoint.snapshot)?.seal()?);
            self.write_checkpoint(checkpoint, &mut ops)?;
        }
        let hard_state = batch.hard_state.map(Record::HardState);
        let records = batch.entries.iter().cloned().map(Record::Entry).chain(hard_state);
        let mut bytes = Vec::new();
        for record in records {
            self.segment.push(&self.key, &record, &mut bytes)?;
            if self.segment.len >= SEGMENT_BYTES_MAX {
                self.append(&mut bytes, &mut ops);
                self.rotate(&mut ops)?;
            }
        }
        self.append(&mut bytes, &mut ops);
        if batch.must_sync {
            ops.push(FileOp::Sync { name: segment_name(self.segment.number()) });
        }
        Ok(ops)
    }

    /// What makes the file of a snapshot, in whatever thread has the time. [`Self::write_behind`] or
    /// [`Self::supersede`] is to be called once the file is stored.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn snapshot_task(&mut self, image: &SnapshotImage) -> Result<SnapshotTask, WalError> {
        let (key, image) = (Arc::clone(&self.key), image.clone());
        Ok(SnapshotTask { key, image, nonce: self.entropy.twelve()? })
    }

    /// The steps that store a checkpoint whose snapshot is stored already.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_behind(&mut self, checkpoint: &Checkpoint) -> Result<Vec<FileOp>, WalError> {
        let mut ops = Vec::new();
        self.write_checkpoint(checkpoint, &mut ops)?;
        Ok(ops)
    }

    /// The snapshot at `index` is stored and no checkpoint will need it: it goes with the next one.
    pub fn supersede(&mut self, index: u64) {
        self.files.insert(snapshot_name(index));
    }

    fn append(&self, bytes: &mut Vec<u8>, ops: &mut Vec<FileOp>) {
        if !bytes.is_empty() {
            let name = segment_name(self.segment.number());
            ops.push(FileOp::Append { name, bytes: std::mem::take(bytes) });
        }
    }

    /// The next segment. The full one is synced first: only the last one may have a torn end.
    fn rotate(&mut self, ops: &mut Vec<FileOp>) -> Result<(), WalError> {
        let full = segment_name(self.segment.number());
        ops.push(FileOp::Sync { name: full.clone() });
        self.files.insert(full);
        self.begin_segment(SegmentKind::Continuation, self.segment.chain, |_, _| Ok(()), ops)
    }

    fn begin_segment(
        &mut self,
        kind: SegmentKind,
        chain: u32,
        fill: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), WalError>,
        ops: &mut Vec<FileOp>,
    ) -> Result<(), WalError> {
        let number = self.segment.number().saturating_add(1);
        let header = Header { number, random: self.entropy.eight()?, chain, kind };
        let mut bytes = Vec::new();
        self.segment = SegmentWriter::begin(header, &mut bytes);
        fill(self, &mut bytes)?;
        ops.push(FileOp::Create { name: segment_name(number), bytes });
        Ok(())
    }

    fn write_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
        ops: &mut Vec<FileOp>,
    ) -> Result<(), WalError> {
        let Checkpoint { snapshot: image, hard_state, entries } = checkpoint;
        let name = snapshot_name(image.index);
        self.files.insert(segment_name(self.segment.number()));
        let begin = (image.index, image.term);
        let fill = |writer: &mut Self, bytes: &mut Vec<u8>| {
            writer.push_checkpoint(begin, entries, *hard_state, bytes)
        };
        self.begin_segment(SegmentKind::Checkpoint, 0, fill, ops)?;
        ops.extend(self.retire_files(Some(name)));
        Ok(())
    }

    fn push_checkpoint(
        &mut self,
        (index, term): (u64, u64),
        entries: &[LogEntry],
        hard_state: HardState,
        bytes: &mut Vec<u8>,
    ) -> Result<(), WalError> {
        self.segment.push(&self.key, &Record::CheckpointStart { index, term }, bytes)?;
        for entry in entries {
            self.segment.push(&self.key, &Record::Entry(entry.clone()), bytes)?;
        }
        self.segment.push(&self.key, &Record::HardState(hard_state), bytes)?;
        self.segment.push(&self.key, &Record::CheckpointEnd, bytes)
    }

    /// Deletes what the checkpoint just written supersedes, but for the snapshot it needs.
    fn retire_files(&mut self, keep: Option<String>) -> Vec<FileOp> {
        let retired = std::mem::take(&mut self.files);
        let delete = retired
            .into_iter()
            .filter(|name| Some(name) != keep.as_ref())
            .map(|name| FileOp::Delete { name })
            .collect();
        self.files.extend(keep);
        delete
    }
}

/// A snapshot that is to become a file: encoding and sealing it take their time.
#[derive(Debug)]
pub struct SnapshotTask {
    key: Arc<WalKey>,
    image: SnapshotImage,
    nonce: [u8; 12],
}

impl SnapshotTask {
    /// Of which entry the snapshot is.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.image.index
    }

    /// The step that stores it. What it supersedes in memory is dropped. One that a leader sent is read
    /// first, for the replica.
    ///
    /// # Errors
    /// As [`WalWriter::write`], and [`WalError::Unreadable`]: such a snapshot must not be stored, because
    /// this member could not start with it.
    pub fn seal(&self) -> Result<FileOp, WalError> {
        self.image.data.restore().map_err(WalError::Unreadable)?;
        let bytes = snapshot_file::encode(&self.key, &self.image, self.nonce)?;
        Ok(FileOp::Replace { name: snapshot_name(self.image.index), bytes })
    }
}

/// Random numbers of one process, expanded from its seed with AES-256-GCM as a keystream.
struct Entropy {
    key: AeadKey,
    drawn: u64,
}

impl Entropy {
    fn new(seed: &[u8; 32]) -> Self {
        Self { key: AeadKey::aes_256(seed), drawn: 0 }
    }

    fn twelve(&mut self) -> Result<[u8; 12], WalError> {
        let mut nonce = [0; 12];
        for (slot, octet) in nonce.iter_mut().zip(self.drawn.to_le_bytes()) {
            *slot = octet;
        }
        self.drawn = self.drawn.saturating_add(1);
        let mut random = [0; 12];
        self.key
            .seal_one(&nonce, &[], &mut random)
            .map_err(|_| WalError::TooLarge("a random number"))?;
        Ok(random)
    }

    fn eight(&mut self) -> Result<[u8; 8], WalError> {
        let twelve = self.twelve()?;
        Ok(std::array::from_fn(|at| twelve.get(at).copied().unwrap_or_default()))
    }
}
