//! The thread that waits for the disk, so that the controller does not, and the one that encodes, reads,
//! seals and writes snapshots, so that no vote and no commit waits for that.
//!
//! ```text
//!   batch --> written, synced, reported
//!     '--- with a snapshot that is still to be encoded ---> encoder (an ordinary thread)
//!     |          what is stored meanwhile is taken in          |  snapshot's file written, synced
//!     |    checkpoint written, files before it deleted <-------'
//!     '--- with a snapshot that a leader sent ------------> encoder: it is read first
//!                what comes behind it is taken in and waits    |
//!          checkpoint written, all of that reported <----------'
//! ```

use super::files::{Files, Folder};
use crate::os::schedule_first_in_first_out;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded, select, unbounded};
use holdfast_datapath::{RingReceiver, RingSender, ring};
use holdfast_replica::wal::{FileOp, SnapshotTask, WalWriter};
use holdfast_replica::{Checkpoint, Superseded, WriteBatch};
use std::fs::File;
use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Batches that may wait for the disk. When so many do, it has stood still for seconds: the
/// controller then waits, too, and its lease ends by itself.
const WAITING_BATCHES_MAX: usize = 4_096;

/// Batches that share one sync at most: what arrives while the disk is busy.
const GROUP_BATCHES_MAX: usize = 256;

/// News that may wait for the controller: it takes all of them in each of its turns.
const WAITING_NEWS_MAX: usize = 1_024;

/// Pause before news are offered again to a controller that has left so many untaken.
const NEWS_PAUSE: Duration = Duration::from_millis(1);

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
    encode: Sender<Task>,
    /// A ring, because a channel's receiver spins for a sender that it preempted in the middle of sending.
    news: RingReceiver<Stored>,
    handle: Option<JoinHandle<()>>,
}

impl StorageThread {
    pub(super) fn start(
        files: Files,
        writer: WalWriter,
        lock: File,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_with(files, writer, lock, wake, store_snapshot)
    }

    /// As [`Self::start`], with snapshots that are made and stored by `store`.
    pub(super) fn start_with(
        files: Files,
        writer: WalWriter,
        lock: File,
        wake: impl Fn() + Send + 'static,
        store: impl Fn(&Folder, &SnapshotTask) -> io::Result<u64> + Send + 'static,
    ) -> io::Result<Self> {
        let (batches, received) = bounded(WAITING_BATCHES_MAX);
        let (report, news) = ring(WAITING_NEWS_MAX);
        let (encode, encoded) = start_encoder(files.folder()?, store)?;
        let ends = Ends { received, report, encode: encode.clone(), encoded };
        let (checkpoint, waiting) = (None, None);
        let storage = Storage { files, writer, ends, wake, checkpoint, waiting, _lock: lock };
        let thread = Builder::new().name("holdfast-store".into());
        let handle = thread.spawn(move || storage.run())?;
        Ok(Self { batches: Some(batches), encode, news, handle: Some(handle) })
    }

    /// Stores a batch behind all earlier ones.
    pub fn write(&self, batch: WriteBatch) {
        if let Some(batches) = &self.batches {
            // Without a receiver the thread has failed and its news say so.
            let _sent = batches.send(batch);
        }
    }

    /// Drops something large, behind the snapshots that are to be made.
    pub fn discard(&self, superseded: Superseded) {
        // Without a receiver it is dropped here: the thread has failed, and the member ends.
        let _sent = self.encode.send(Task::Discard(superseded));
    }

    /// The next piece of news, if there is one.
    pub fn poll_news(&self) -> Option<Stored> {
        self.news.pop()
    }
}

impl Drop for StorageThread {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(handle) = self.handle.take() {
            // It must not wait for somebody to take its news.
            while !handle.is_finished() {
                while self.news.pop().is_some() {}
                std::thread::sleep(NEWS_PAUSE);
            }
            // A thread that panicked has nothing left to finish.
            let _finished = handle.join();
        }
    }
}

/// What there is time for beside the storage thread.
enum Task {
    /// Make the file of a snapshot.
    Store(SnapshotTask),
    /// Drop it.
    Discard(Superseded),
}

/// Makes the files of snapshots with ordinary priority: with a hundred thousand SAs that takes the better part
/// of a second, for which no vote and no commit may wait. It ends with its senders.
fn start_encoder(
    folder: Folder,
    store: impl Fn(&Folder, &SnapshotTask) -> io::Result<u64> + Send + 'static,
) -> io::Result<(Sender<Task>, Receiver<io::Result<u64>>)> {
    // A replica has one snapshot at a time to encode, and discards something with each it receives.
    let (encode, to_encode) = unbounded::<Task>();
    let (done, encoded) = unbounded();
    Builder::new().name("holdfast-encode".into()).spawn(move || {
        for task in to_encode {
            match task {
                Task::Discard(superseded) => drop(superseded),
                Task::Store(task) if done.send(store(&folder, &task)).is_err() => return,
                Task::Store(_) => {}
            }
        }
    })?;
    Ok((encode, encoded))
}

fn encoder_ended() -> io::Error {
    io::Error::other("the thread that encodes snapshots has ended")
}

/// Stores the snapshot of a task; its index.
pub(super) fn store_snapshot(folder: &Folder, task: &SnapshotTask) -> io::Result<u64> {
    if let FileOp::Replace { name, bytes } = task.seal().map_err(io::Error::other)? {
        tracing::debug!(name, bytes = bytes.len(), "snapshot encoded");
        folder.replace(&name, &bytes)?;
    }
    Ok(task.index())
}

/// The storage thread's ends of its channels.
struct Ends {
    received: Receiver<WriteBatch>,
    report: RingSender<Stored>,
    encode: Sender<Task>,
    encoded: Receiver<io::Result<u64>>,
}

struct Storage<W> {
    files: Files,
    writer: WalWriter,
    ends: Ends,
    wake: W,
    /// Waits for its snapshot to be stored. It grows by what is stored meanwhile.
    checkpoint: Option<Checkpoint>,
    /// The last batch that is nowhere but in that checkpoint, whose snapshot a leader sent: the log on the
    /// disk ends before it.
    waiting: Option<u64>,
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
                    Ok(index) => index.and_then(|index| self.store_checkpoint(index)),
                    // It ends with this thread, or by a panic: waiting for it would spin.
                    Err(_) => Err(encoder_ended()),
                },
            };
        }
        // At the end nobody waits for anything any more.
        if let Err(error) = outcome.and_then(|()| self.finish()) {
            self.tell(Stored::Failed(error.to_string()));
        }
    }

    fn tell(&self, mut news: Stored) {
        while let Err(untaken) = self.ends.report.push(news) {
            if self.ends.report.is_abandoned() {
                return;
            }
            news = untaken;
            std::thread::sleep(NEWS_PAUSE);
        }
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
        let mut last = None;
        for mut batch in group {
            self.defer_checkpoint(&mut batch)?;
            if let Some(waiting) = &mut self.waiting {
                *waiting = batch.number;
                continue;
            }
            steps.extend(self.writer.write(&batch).map_err(io::Error::other)?);
            last = Some(batch.number);
        }
        self.files.carry_out(steps)?;
        if let Some(last) = last {
            self.tell(Stored::Persisted(last));
        }
        Ok(())
    }

    /// Takes a checkpoint out of its batch when its snapshot is still to be encoded: what it would
    /// begin anew is stored already, only longer. Or still to be read: that is stored nowhere.
    fn defer_checkpoint(&mut self, batch: &mut WriteBatch) -> io::Result<()> {
        let takes_time = |checkpoint: &mut Checkpoint| {
            let data = &checkpoint.snapshot.data;
            data.ready().is_none() || data.is_unread()
        };
        if let Some(checkpoint) = batch.checkpoint.take_if(takes_time) {
            if checkpoint.snapshot.data.is_unread() {
                self.waiting = Some(batch.number);
            }
            let task = self.writer.snapshot_task(&checkpoint.snapshot).map_err(io::Error::other)?;
            let _taken = self.ends.encode.send(Task::Store(task));
            self.checkpoint = Some(checkpoint);
        } else if batch.checkpoint.is_some() {
            // It supersedes the one that waits as well.
            (self.checkpoint, self.waiting) = (None, None);
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.absorb(batch);
        }
        Ok(())
    }

    /// Stores the checkpoint that waits for the snapshot at `index`, which is stored.
    fn store_checkpoint(&mut self, index: u64) -> io::Result<()> {
        let waits = |checkpoint: &mut Checkpoint| checkpoint.snapshot.index == index;
        match self.checkpoint.take_if(waits) {
            Some(checkpoint) => {
                let steps = self.writer.write_behind(&checkpoint).map_err(io::Error::other)?;
                self.files.carry_out(steps)?;
                if let Some(number) = self.waiting.take() {
                    self.tell(Stored::Persisted(number));
                }
                Ok(())
            }
            None => {
                self.writer.supersede(index);
                Ok(())
            }
        }
    }

    /// Waits for a checkpoint that is under way: at the end it holds nobody up.
    fn finish(&mut self) -> io::Result<()> {
        while self.checkpoint.is_some() {
            let stored = self.ends.encoded.recv().map_err(|_| encoder_ended())?;
            self.store_checkpoint(stored?)?;
        }
        Ok(())
    }
}
