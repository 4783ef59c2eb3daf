//! The thread that waits for the disk, so that the controller does not.

use super::files::Files;
use crate::os::schedule_first_in_first_out;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use holdfast_replica::WriteBatch;
use holdfast_replica::wal::WalWriter;
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
        let storage = Storage { files, writer, received, report, wake, _lock: lock };
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

struct Storage<W> {
    files: Files,
    writer: WalWriter,
    received: Receiver<WriteBatch>,
    report: Sender<Stored>,
    wake: W,
    _lock: File,
}

impl<W: Fn()> Storage<W> {
    fn run(mut self) {
        // Votes and commits wait for this thread, and it does little but wait for the disk.
        if let Err(error) = schedule_first_in_first_out(REAL_TIME_PRIORITY) {
            tracing::debug!(%error, "the storage thread has no real-time scheduling");
        }
        while let Some(group) = self.next_group() {
            let last = group.last().map(|batch| batch.number);
            let outcome = self.store(&group);
            let news = match (outcome, last) {
                (Ok(()), Some(number)) => Stored::Persisted(number),
                (Ok(()), None) => continue,
                (Err(error), _) => Stored::Failed(error.to_string()),
            };
            let failed = matches!(news, Stored::Failed(_));
            let _received = self.report.send(news);
            (self.wake)();
            if failed {
                return;
            }
        }
    }

    /// Everything that waits, at least one batch; `None` at the end.
    fn next_group(&self) -> Option<Vec<WriteBatch>> {
        let mut group = vec![self.received.recv().ok()?];
        while group.len() < GROUP_BATCHES_MAX {
            match self.received.try_recv() {
                Ok(batch) => group.push(batch),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        Some(group)
    }

    fn store(&mut self, group: &[WriteBatch]) -> io::Result<()> {
        let mut steps = Vec::new();
        for batch in group {
            steps.extend(self.writer.write(batch).map_err(io::Error::other)?);
        }
        self.files.carry_out(steps)
    }
}
