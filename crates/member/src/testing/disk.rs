//! A disk that forgets what was not synced when its machine loses power.

use holdfast_cluster::Incarnation;
use holdfast_replica::{LogEntry, Recovered, WriteBatch};
use std::collections::VecDeque;

/// The stable storage of one member.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    synced: Recovered,
    written: VecDeque<WriteBatch>,
    incarnation: u64,
}

impl Disk {
    /// A disk with a log.
    #[must_use]
    pub fn holding(stored: Recovered) -> Self {
        Self { synced: stored, ..Self::default() }
    }

    /// Counts a boot, as the daemon does before anything else.
    pub fn boot(&mut self) -> Incarnation {
        self.incarnation = self.incarnation.saturating_add(1);
        Incarnation(self.incarnation)
    }

    /// Takes a batch in; it is not safe yet.
    pub fn write(&mut self, batch: WriteBatch) {
        self.written.push_back(batch);
    }

    /// Makes every batch up to `number` safe.
    pub fn sync(&mut self, number: u64) {
        while let Some(batch) = self.written.pop_front_if(|batch| batch.number <= number) {
            apply(&mut self.synced, batch);
        }
    }

    /// What a restart after a loss of power finds.
    pub fn power_loss(&mut self) -> Recovered {
        self.written.clear();
        self.synced.clone()
    }

    /// What a restart after a crash of the process finds: the kernel still had everything.
    pub fn crash(&mut self) -> Recovered {
        self.sync(u64::MAX);
        self.synced.clone()
    }
}

fn apply(stored: &mut Recovered, batch: WriteBatch) {
    if let Some(checkpoint) = batch.checkpoint {
        // A disk holds bytes: from now on the snapshot is encoded, or read if it was received.
        let _bytes: &[u8] = &checkpoint.snapshot.data;
        // Whether it can be read is found out by who is told that it is stored.
        let _read = checkpoint.snapshot.data.restore();
        stored.snapshot = Some(checkpoint.snapshot);
        stored.hard_state = checkpoint.hard_state;
        stored.entries = checkpoint.entries;
    }
    for entry in batch.entries {
        append(&mut stored.entries, entry);
    }
    if let Some(hard_state) = batch.hard_state {
        stored.hard_state = hard_state;
    }
}

/// An entry replaces the one of its index and everything behind it.
fn append(entries: &mut Vec<LogEntry>, entry: LogEntry) {
    entries.retain(|kept| kept.index < entry.index);
    entries.push(entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_replica::HardState;

    fn batch(number: u64, indices: std::ops::Range<u64>, term: u64) -> WriteBatch {
        WriteBatch {
            number,
            must_sync: true,
            checkpoint: None,
            entries: indices
                .map(|index| LogEntry {
                    term,
                    index,
                    kind: Default::default(),
                    data: Default::default(),
                })
                .collect(),
            hard_state: Some(HardState { term, vote: 1, commit: 0 }),
        }
    }

    #[test]
    fn power_loss_forgets_what_was_not_synced() {
        let mut disk = Disk::default();
        disk.write(batch(1, 1..4, 2));
        disk.sync(1);
        disk.write(batch(2, 3..6, 3));
        assert_eq!(disk.power_loss().entries.len(), 3);
        disk.write(batch(2, 3..6, 3));
        let found = disk.crash();
        assert_eq!(
            found.entries.iter().map(|e| (e.index, e.term)).collect::<Vec<_>>(),
            [(1, 2), (2, 2), (3, 3), (4, 3), (5, 3)]
        );
        assert_eq!(found.hard_state.term, 3);
    }

    #[test]
    fn each_boot_has_its_own_incarnation() {
        let mut disk = Disk::default();
        assert!(disk.boot() < disk.boot());
    }
}
