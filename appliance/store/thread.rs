//! The thread that waits for the disk, so that the controller does not, and the one that encodes
//! snapshots, so that nobody who waits for the disk waits for that.
//!
//! ```text
//!   batch --> written, synced, reported
//!     '--- with a snapshot that is still to be encoded ---> encoder (an ordinary thread)
//!                what is stored meanwhile is taken in          |
//!          checkpoint written, files before it deleted <-------'
//! ```

use super::files::Files;
use crate::os::schedule_first_in_first_out;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded, select, unbounded};
use holdfast_replica::wal::WalWriter;
use holdfast_replica::{Checkpoint, SnapshotData, WriteBatch};
use std::fs::File;
use std::io;
use std::thread::{Builder, JoinHandle};

/// Batches that may wait for the disk. When so many do, it has stood still for seconds: the
/// controller then waits, too, and its lease ends by itself.
const WAITING_BATCHES_MAX: usize = 4_096;

/// Batches that share one sync at most: what arrives while the disk is busy.
const GROUP_BATCHES_MAX: usize = 256;

/// Below the controller, above ordinary threads.
const REAL_TIME_PRIORITY: i32 = 9;

/// News of the storage thread.
#[derive(Debug)]
pub enum Stored {
    /// The batch of this number and all before it are on the disk.
    Persisted(u64),
    /// The disk failed; nothing more will be stored.
    Failed(String),
}

/// The controller's end of the storage thread. Dropping it lets the thread finish what it has.
#[derive(Debug)]
pub struct StorageThread {
    batches: Option<Sender<WriteBatch>>,
    news: Receiver<Stored>,
    handle: Option<JoinHandle<()>>,
}

impl StorageThread {
    pub(super) fn start(
        files: Files,
        writer: WalWriter,
        lock: File,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (batches, received) = bounded(WAITING_BATCHES_MAX);
        // One piece of news per group of batches, and those are bounded.
        let (report, news) = unbounded();
        let (encode, encoded) = start_encoder()?;
        let ends = Ends { received, report, encode, encoded };
        let storage = Storage { files, writer, ends, wake, checkpoint: None, _lock: lock };
        let thread = Builder::new().name("holdfast-store".into());
        let handle = thread.spawn(move || storage.run())?;
        Ok(Self { batches: Some(batches), news, handle: Some(handle) })
    }

    /// Stores a batch behind all earlier ones.
    pub fn write(&self, batch: WriteBatch) {
        if let Some(batches) = &self.batches {
            // Without a receiver the thread has failed and its news say so.
            let _sent = batches.send(batch);
        }
    }

    /// The next piece of news, if there is one.
    pub fn poll_news(&self) -> Option<Stored> {
        self.news.try_recv().ok()
    }
}

impl Drop for StorageThread {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(handle) = self.handle.take() {
            // A thread that panicked has nothing left to finish.
            let _finished = handle.join();
        }
    }
}

/// Encodes snapshots with ordinary priority: a hundred thousand SAs take a third of a second, for
/// which no commit and no worker on the same core may wait. It ends with its sender.
fn start_encoder() -> io::Result<(Sender<SnapshotData>, Receiver<()>)> {
    // A replica has one snapshot at a time to encode.
    let (encode, to_encode) = unbounded::<SnapshotData>();
    let (done, encoded) = unbounded();
    Builder::new().name("holdfast-encode".into()).spawn(move || {
        for data in to_encode {
            // Reading it encodes it.
            let bytes = data.len();
            tracing::debug!(bytes, "snapshot encoded");
            drop(data);
            if done.send(()).is_err() {
                return;
            }
        }
    })?;
    Ok((encode, encoded))
}

/// The storage thread's ends of its channels.
struct Ends {
    received: Receiver<WriteBatch>,
    report: Sender<Stored>,
    encode: Sender<SnapshotData>,
    encoded: Receiver<()>,
}

struct Storage<W> {
    files: Files,
    writer: WalWriter,
    ends: Ends,
    wake: W,
    /// Waits for its snapshot to be encoded. It grows by what is stored meanwhile.
    checkpoint: Option<Checkpoint>,
    _lock: File,
}

impl<W: Fn()> Storage<W> {
    fn run(mut self) {
        // Votes and commits wait for this thread, and it does little but wait for the disk.
        if let Err(error) = schedule_first_in_first_out(REAL_TIME_PRIORITY) {
            tracing::debug!(%error, "the storage thread has no real-time scheduling");
        }
        let mut outcome = Ok(());
        while outcome.is_ok() {
            outcome = select! {
                recv(self.ends.received) -> batch => match batch {
                    Ok(first) => self.store_group(first),
                    Err(_) => break,
                },
                recv(self.ends.encoded) -> done => match done {
                    Ok(()) => self.store_checkpoint(false),
                    // It ends with this thread, or by a panic: waiting for it would spin.
                    Err(_) => Err(io::Error::other("the thread that encodes snapshots has ended")),
                },
            };
        }
        // At the end nobody waits for anything any more.
        if let Err(error) = outcome.and_then(|()| self.store_checkpoint(true)) {
            self.tell(Stored::Failed(error.to_string()));
        }
    }

    fn tell(&self, news: Stored) {
        let _received = self.ends.report.send(news);
        (self.wake)();
    }

    /// Stores a batch with everything that waits behind it, up to a limit.
    fn store_group(&mut self, first: WriteBatch) -> io::Result<()> {
        let mut group = vec![first];
        while group.len() < GROUP_BATCHES_MAX {
            match self.ends.received.try_recv() {
                Ok(batch) => group.push(batch),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let mut steps = Vec::new();
        let mut last = 0;
        for mut batch in group {
            self.defer_checkpoint(&mut batch);
            steps.extend(self.writer.write(&batch).map_err(io::Error::other)?);
            last = batch.number;
        }
        self.files.carry_out(steps)?;
        self.tell(Stored::Persisted(last));
        Ok(())
    }

    /// Takes a checkpoint out of its batch when its snapshot is still to be encoded: what it would
    /// begin anew is stored already, only longer.
    fn defer_checkpoint(&mut self, batch: &mut WriteBatch) {
        let unready = |checkpoint: &mut Checkpoint| checkpoint.snapshot.data.ready().is_none();
        if let Some(checkpoint) = batch.checkpoint.take_if(unready) {
            let _taken = self.ends.encode.send(checkpoint.snapshot.data.clone());
            self.checkpoint = Some(checkpoint);
        } else if batch.checkpoint.is_some() {
            // It supersedes the one that waits as well.
            self.checkpoint = None;
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.absorb(batch);
        }
    }

    /// Stores the checkpoint that waits once its snapshot is encoded; `at_once` without waiting.
    fn store_checkpoint(&mut self, at_once: bool) -> io::Result<()> {
        let ready =
            |checkpoint: &mut Checkpoint| at_once || checkpoint.snapshot.data.ready().is_some();
        let Some(checkpoint) = self.checkpoint.take_if(ready) else { return Ok(()) };
        let batch = WriteBatch {
            number: 0,
            must_sync: true,
            checkpoint: Some(checkpoint),
            entries: Vec::new(),
            hard_state: None,
        };
        let steps = self.writer.write(&batch).map_err(io::Error::other)?;
        self.files.carry_out(steps)
    }
}
