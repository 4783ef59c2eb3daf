//! What a member keeps on disk: its incarnation, the key that seals its log, and the log.
//!
//! ```text
//!   data_dir/  lock          held while a daemon runs
//!              incarnation   the boot counter, raised and synced before anything else
//!              seal.key      256 random bits, 0600; without them the log cannot be read
//!              log-*.hfl, snapshot-*.hfs       see holdfast_replica::wal
//!
//!   controller --WriteBatch--> storage thread --append, fdatasync (one for many)--> disk
//!              <--Persisted--- (wakes the controller)
//! ```
//!
//! Contract:
//! * [`Store::open`] returns only after the new incarnation is on the disk, so whatever this
//!   process is granted is granted to nobody before it;
//! * a log that does not check is refused with file and offset, and left as it is; only the torn
//!   end of the very last write is dropped, and that is reported;
//! * a batch is reported persisted after it and all before it are synced, but for a checkpoint whose
//!   snapshot is still to be encoded: what it shortens is stored already. A snapshot that a leader sent is
//!   read before it is stored, and not stored if it cannot be read. After a disk
//!   failed nothing more is reported: a follower acknowledges nothing and ends, an owner hands over
//!   and ends. A member that forgets what it promised must not vote.

mod files;
mod thread;

pub use thread::{StorageThread, Stored};

use crate::os::map_for_reading;
use files::Files;
use holdfast_cluster::State;
use holdfast_replica::wal::{
    NamedBytes, Recovery, TornTail, WalError, WalKey, WalWriter, is_wal_file, recover,
};
use holdfast_replica::{Config, Recovered, ReplicaError, WriteBatch};
use memmap2::Mmap;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A member that forgot what it promised could vote twice and let numbers be used twice, so an
/// emptied directory is no remedy under the same number: the others notice and it ends.
const REPLACE: &str = "replace this member by one with a new id; the others carry on meanwhile";

const LOCK: &str = "lock";
const INCARNATION: &str = "incarnation";
const SEAL_KEY: &str = "seal.key";

/// Why the data directory cannot be used. The operator or the disk is at fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another daemon uses the directory.
    #[error("{0} is in use by another daemon")]
    Locked(PathBuf),
    /// A file that must be there with the log is not, or is not what it should be.
    #[error("{path}: {what}; {remedy}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The log cannot be made that of a survivor.
    #[error("the log in {folder}: {source}; nothing was changed")]
    Force {
        /// The data directory.
        folder: PathBuf,
        /// What is wrong.
        source: ReplicaError,
    },
    /// The log does not check.
    #[error("the log in {folder} is refused: {source}; nothing was changed. {REPLACE}")]
    Log {
        /// The data directory.
        folder: PathBuf,
        /// Which file, where, and what is wrong.
        source: WalError,
    },
}

impl StoreError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// An opened data directory.
#[derive(Debug)]
pub struct Store {
    /// The boot counter of this process.
    pub incarnation: u64,
    /// What the log contained.
    pub recovered: Recovered,
    /// What was dropped of the log's last write.
    pub torn_tail: Option<TornTail>,
    writer: WalWriter,
    files: Files,
    lock: File,
}

impl Store {
    /// Takes the directory (made if need be), raises the incarnation, reads the log.
    ///
    /// # Errors
    /// [`StoreError`]; a log that is refused is left as it was.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(StoreError::io(folder))?;
        let lock = lock(folder)?;
        remove_unfinished(folder)?;
        let logs = log_files(folder)?;
        let incarnation = raise_incarnation(folder, !logs.is_empty())?;
        let key = seal_key(folder, !logs.is_empty())?;
        let recovery = read_log(folder, &WalKey::new(&key), &logs)?;
        let mut files = Files::open(folder).map_err(StoreError::io(folder))?;
        let (writer, begin) = WalWriter::start(WalKey::new(&key), *random()?, &recovery)
            .map_err(|source| StoreError::Log { folder: folder.to_owned(), source })?;
        files.carry_out(begin).map_err(StoreError::io(folder))?;
        let Recovery { recovered, torn_tail, .. } = recovery;
        Ok(Self { incarnation, recovered, torn_tail, writer, files, lock })
    }

    /// Hands the directory to a storage thread, which calls `wake` whenever it has news.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn start_thread(
        self,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<(Recovered, StorageThread)> {
        let thread = StorageThread::start(self.files, self.writer, self.lock, wake)?;
        Ok((self.recovered, thread))
    }
}

/// What [`check`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// The boot counter of the last process.
    pub incarnation: u64,
    /// Files of the log.
    pub files: usize,
    /// The last entry of the newest snapshot; 0 without one.
    pub snapshot_index: u64,
    /// Entries behind it.
    pub entries: usize,
    /// The last write, if it is torn: the next start drops it.
    pub torn_tail: Option<TornTail>,
}

/// Reads the log of a member that does not run, and changes nothing.
///
/// # Errors
/// As [`Store::open`].
pub fn check(folder: &Path) -> Result<Checked, StoreError> {
    let _lock = lock(folder)?;
    let logs = log_files(folder)?;
    let incarnation = read_incarnation(folder)?.unwrap_or(0);
    if logs.is_empty() {
        let (files, snapshot_index, entries) = (0, 0, 0);
        return Ok(Checked { incarnation, files, snapshot_index, entries, torn_tail: None });
    }
    let key = seal_key(folder, true)?;
    let recovery = read_log(folder, &WalKey::new(&key), &logs)?;
    Ok(Checked {
        incarnation,
        files: logs.len(),
        snapshot_index: recovery.recovered.snapshot.map_or(0, |snapshot| snapshot.index),
        entries: recovery.recovered.entries.len(),
        torn_tail: recovery.torn_tail,
    })
}

/// What [`force_quorum`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Forced {
    /// The entry from which on the survivor is alone.
    pub index: u64,
    /// How often that was done, this time included.
    pub generation: u64,
    /// The ids that are not used again.
    pub retired: Vec<u64>,
}

/// Makes the member of `config`, which must not run, the whole cluster. See
/// [`holdfast_replica::force_quorum`] for what that does and what it endangers.
///
/// # Errors
/// As [`Store::open`]; also when the log cannot be read by this release.
pub fn force_quorum(folder: &Path, config: &Config) -> Result<Forced, StoreError> {
    let lock = lock(folder)?;
    let logs = log_files(folder)?;
    if logs.is_empty() {
        let (path, what) = (folder.to_owned(), "holds no log");
        return Err(StoreError::Unusable { path, what, remedy: "name the survivor's own" });
    }
    let key = seal_key(folder, true)?;
    let recovery = read_log(folder, &WalKey::new(&key), &logs)?;
    let checkpoint = holdfast_replica::force_quorum(config, &recovery.recovered)
        .map_err(|source| StoreError::Force { folder: folder.to_owned(), source })?;
    let state = State::restore(&checkpoint.snapshot.data).map_err(|error| {
        let index = checkpoint.snapshot.index;
        let source = ReplicaError::Snapshot { index, error };
        StoreError::Force { folder: folder.to_owned(), source }
    })?;
    let forced = Forced {
        index: checkpoint.snapshot.index,
        generation: state.membership().generation(),
        retired: state.membership().retired().map(|id| id.0).collect(),
    };
    let refused = |source| StoreError::Log { folder: folder.to_owned(), source };
    let (mut writer, mut steps) =
        WalWriter::start(WalKey::new(&key), *random()?, &recovery).map_err(refused)?;
    let batch = WriteBatch {
        number: 1,
        must_sync: true,
        checkpoint: Some(checkpoint),
        entries: Vec::new(),
        hard_state: None,
    };
    steps.extend(writer.write(&batch).map_err(refused)?);
    let mut files = Files::open(folder).map_err(StoreError::io(folder))?;
    files.carry_out(steps).map_err(StoreError::io(folder))?;
    drop(lock);
    Ok(forced)
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(StoreError::io(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked(folder.to_owned())),
        Err(error) => Err(StoreError::Io { path, source: error.into() }),
    }
}

/// A crash in the middle of writing a file under another name leaves that: it was never the file,
/// and holds what it would have held, keys too.
fn remove_unfinished(folder: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(StoreError::io(folder))? {
        let path = entry.map_err(StoreError::io(folder))?.path();
        let unfinished = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            let whole = name.strip_suffix(files::UNFINISHED);
            whole.is_some_and(|whole| {
                is_wal_file(whole) || whole == INCARNATION || whole == SEAL_KEY
            })
        });
        if unfinished {
            fs::remove_file(&path).map_err(StoreError::io(&path))?;
        }
    }
    Ok(())
}

/// Names of the log's files.
fn log_files(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io(folder))? {
        let entry = entry.map_err(StoreError::io(folder))?;
        if let Ok(name) = entry.file_name().into_string()
            && is_wal_file(&name)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read_log(folder: &Path, key: &WalKey, names: &[String]) -> Result<Recovery, StoreError> {
    let mut mapped: Vec<(&str, Option<Mmap>)> = Vec::with_capacity(names.len());
    for name in names {
        let path = folder.join(name);
        let file = File::open(&path).map_err(StoreError::io(&path))?;
        // An empty file cannot be mapped; to the log it is a write that was never begun.
        let empty = file.metadata().map_err(StoreError::io(&path))?.len() == 0;
        let mapping = match empty {
            true => None,
            false => Some(map_for_reading(&file).map_err(StoreError::io(&path))?),
        };
        mapped.push((name, mapping));
    }
    let files: Vec<NamedBytes<'_>> = mapped
        .iter()
        .map(|(name, mapping)| NamedBytes { name, bytes: mapping.as_deref().unwrap_or_default() })
        .collect();
    recover(key, &files).map_err(|source| StoreError::Log { folder: folder.to_owned(), source })
}

fn read_incarnation(folder: &Path) -> Result<Option<u64>, StoreError> {
    let path = folder.join(INCARNATION);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { path, source }),
    };
    let number = text.trim_end().parse().ok();
    number.map(Some).ok_or(StoreError::Unusable { path, what: "not a number", remedy: REPLACE })
}

/// The boot counter of this process, on the disk when this returns.
fn raise_incarnation(folder: &Path, log_exists: bool) -> Result<u64, StoreError> {
    let path = folder.join(INCARNATION);
    let earlier = read_incarnation(folder)?;
    if earlier.is_none() && log_exists {
        return Err(StoreError::Unusable {
            path,
            what: "missing, although there is a log",
            remedy: REPLACE,
        });
    }
    let incarnation = earlier.unwrap_or(0).saturating_add(1);
    write_durably(folder, INCARNATION, format!("{incarnation}\n").as_bytes())?;
    Ok(incarnation)
}

fn seal_key(folder: &Path, log_exists: bool) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let path = folder.join(SEAL_KEY);
    let bytes = match fs::read(&path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !log_exists => {
            let key = random()?;
            write_durably(folder, SEAL_KEY, &*key)?;
            return Ok(key);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Unusable {
                path,
                what: "missing, although there is a log that it seals",
                remedy: REPLACE,
            });
        }
        Err(source) => return Err(StoreError::Io { path, source }),
    };
    let key = <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| StoreError::Unusable {
        path,
        what: "not 32 bytes long",
        remedy: REPLACE,
    })?;
    Ok(Zeroizing::new(key))
}

/// Writes a file so that a crash leaves either the old content or the new.
fn write_durably(folder: &Path, name: &str, content: &[u8]) -> Result<(), StoreError> {
    let path = folder.join(name);
    let written = folder.join(format!("{name}{}", files::UNFINISHED));
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&written)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&written, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(StoreError::io(&path))
}

fn random() -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| StoreError::Io {
        path: "/dev/urandom".into(),
        source: io::Error::other(error),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
