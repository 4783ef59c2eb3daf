//! The Ready loop: what raft-rs wants stored, sent and applied, in the order that is safe.
//!
//! ```text
//!   ready ---> messages of a leader            sent at once (its followers write while it writes)
//!         ---> snapshot, entries, hard state   into the store, and out as a WriteBatch
//!         ---> committed entries               applied (raft-rs gives only locally stored ones)
//!         ---> messages of a follower          held until the batch, and all before, are stored
//!   persisted(n) -> on_persist_ready -> held messages leave -> more Ready
//! ```
//!
//! One kind of follower's message does not wait: the answer to a heartbeat. It acknowledges no
//! entry, and a disk that stalls for a moment would otherwise cost the leader its lease. It does
//! wait while a term or a vote is unwritten.
//!
//! A snapshot of the leader goes into the log at once and out as a checkpoint, which whoever stores it
//! also reads: with a hundred thousand SAs that takes longer than an election. The state it replaces
//! stays until both are done; raft-rs gives no entry behind it before, and this member neither votes nor
//! campaigns meanwhile.

use crate::envelope::{Envelope, lane_of};
use crate::output::{Checkpoint, LogEntry, Output, SnapshotImage, WriteBatch};
use crate::replica::SentSnapshot;
use crate::store::{configuration_from_raft, entry_from_raft};
use crate::{Replica, ReplicaError, SnapshotData, Superseded};
use holdfast_cluster::{Command, Effect, MemberId, Mutation, mutated};
use holdfast_packet::Nanos;
use raft::Ready;
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use std::collections::VecDeque;

/// Batches handed out and not reported stored.
#[derive(Default)]
pub(crate) struct Writes {
    last_number: u64,
    pending: VecDeque<PendingWrite>,
}

struct PendingWrite {
    number: u64,
    /// The last Ready whose storing this batch completes.
    ready: u64,
    /// Messages that may leave then.
    held: Vec<Message>,
    changes_vote: bool,
    snapshot: Option<SnapshotImage>,
}

/// What a Ready has stored.
struct Stored {
    batch: Option<WriteBatch>,
    changes_vote: bool,
    /// A snapshot of the leader among it.
    snapshot: Option<SnapshotImage>,
}

impl Writes {
    fn next_number(&mut self) -> u64 {
        self.last_number = self.last_number.saturating_add(1);
        self.last_number
    }

    fn vote_pending(&self) -> bool {
        self.pending.iter().any(|write| write.changes_vote)
    }

    /// Whether a received snapshot is not stored yet.
    pub(crate) fn snapshot_pending(&self) -> bool {
        self.pending.iter().any(|write| write.snapshot.is_some())
    }
}

impl Replica {
    pub(crate) fn process_ready(&mut self, now: Nanos) {
        let mut ready = self.node.ready();
        for message in ready.take_messages() {
            self.send(now, message);
        }
        let mut held = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        let number = ready.number();
        let Ok(stored) = self.store_ready(now, &ready) else { return };
        let Stored { batch, changes_vote, snapshot } = stored;
        self.node.advance_append_async(ready);
        if !changes_vote && !self.writes.vote_pending() {
            let (answers, others): (Vec<_>, _) = held.into_iter().partition(is_heartbeat_answer);
            held = others;
            for answer in answers {
                self.send(now, answer);
            }
        }
        match batch {
            Some(batch) if batch.must_sync && !mutated(Mutation::PersistedEarly) => {
                self.writes.pending.push_back(PendingWrite {
                    number: batch.number,
                    ready: number,
                    held,
                    changes_vote,
                    snapshot,
                });
                self.outputs.push_back(Output::Persist(batch));
            }
            unsynced => {
                self.outputs.extend(unsynced.map(Output::Persist));
                if snapshot.is_some_and(|image| self.replace_state(&image).is_err()) {
                    return;
                }
                self.hold_or_finish(now, number, held);
            }
        }
        self.apply_all(now, committed);
    }

    /// Nothing of this Ready needs a sync: it is complete with the batches before it.
    fn hold_or_finish(&mut self, now: Nanos, ready: u64, held: Vec<Message>) {
        if let Some(last) = self.writes.pending.back_mut() {
            last.ready = ready;
            last.held.extend(held);
        } else {
            self.node.on_persist_ready(ready);
            for message in held {
                self.send(now, message);
            }
        }
    }

    /// Puts a Ready into the store and makes its batch.
    fn store_ready(&mut self, now: Nanos, ready: &Ready) -> Result<Stored, ()> {
        let received = Some(ready.snapshot()).filter(|snapshot| !snapshot.is_empty());
        if let Some(snapshot) = received {
            self.install_snapshot(snapshot)?;
        }
        let store = self.node.mut_store();
        if store.append(ready.entries()) {
            self.keys_cleared.get_or_insert(now);
        }
        let store = self.node.mut_store();
        let before = store.hard_state();
        if let Some(hard_state) = ready.hs() {
            store.set_hard_state(hard_state);
        }
        let after = store.hard_state();
        let changes_vote = (before.term, before.vote) != (after.term, after.vote);
        let snapshot = received.map(|_| store.image());
        let checkpoint = snapshot.as_ref().map(|image| Checkpoint {
            snapshot: image.clone(),
            hard_state: after,
            entries: store.entries_behind(image.index),
        });
        let entries: Vec<LogEntry> = match checkpoint {
            Some(_) => Vec::new(),
            None => ready.entries().iter().map(entry_from_raft).collect(),
        };
        let hard_state = ready.hs().filter(|_| checkpoint.is_none()).map(|_| after);
        if checkpoint.is_none() && entries.is_empty() && hard_state.is_none() {
            return Ok(Stored { batch: None, changes_vote, snapshot: None });
        }
        let batch = WriteBatch {
            number: self.writes.next_number(),
            must_sync: ready.must_sync(),
            checkpoint,
            entries,
            hard_state,
        };
        Ok(Stored { batch: Some(batch), changes_vote, snapshot })
    }

    /// The log begins behind a snapshot of the leader from now on; the state stays until it is read.
    fn install_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), ()> {
        let metadata = snapshot.get_metadata();
        let configuration = configuration_from_raft(metadata.get_conf_state());
        if self.is_blank() && configuration.is_voter(self.config.id) {
            self.halt(ReplicaError::VotedBefore(self.config.id));
            return Err(());
        }
        self.configuration = configuration;
        let data = SnapshotData::received(snapshot.data.clone());
        let superseded = self.node.mut_store().install(metadata.clone(), data);
        self.outputs.push_back(Output::Discard(superseded));
        Ok(())
    }

    /// The state is that of a snapshot of the leader from now on.
    fn replace_state(&mut self, image: &SnapshotImage) -> Result<(), ()> {
        let index = image.index;
        let state = match image.data.take_restored() {
            Ok(state) if state.applied() == index => state,
            Ok(_) => {
                self.halt(ReplicaError::Log("the leader's snapshot is of another entry"));
                return Err(());
            }
            Err(error) => {
                self.halt(ReplicaError::Snapshot { index, error });
                return Err(());
            }
        };
        let before = std::mem::replace(&mut self.state, state);
        self.outputs.push_back(Output::Discard(Superseded::state(before)));
        self.snapshot_has_members = self.state.membership().configuration().is_some();
        self.peers_due = true;
        self.outputs.push_back(Output::StateReplaced { index });
        Ok(())
    }

    fn apply_all(&mut self, now: Nanos, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else { return };
        for entry in entries {
            if self.apply(now, &entry).is_err() {
                return;
            }
        }
        self.node.advance_apply_to(last);
    }

    fn apply(&mut self, now: Nanos, entry: &Entry) -> Result<(), ()> {
        let (index, term) = (entry.index, entry.term);
        if entry.get_entry_type() != EntryType::EntryNormal {
            let effects = self.apply_configuration(entry);
            let command = Command::Noop;
            self.outputs.push_back(Output::Applied { index, term, command, effects });
            return self.still_a_member();
        }
        let command = if entry.data.is_empty() {
            Command::Noop
        } else {
            match Command::decode(&entry.data) {
                Ok(command) => command,
                Err(error) => {
                    // Going on without it would let this member's state differ from the others'.
                    self.halt(ReplicaError::Entry { index, error });
                    return Err(());
                }
            }
        };
        let skipped = mutated(Mutation::EntrySkipped) && self.config.id.0 == 2 && index % 4 == 0;
        let command = if skipped { Command::Noop } else { command };
        let effects = self.state.apply(index, &command);
        let members = matches!(command, Command::Members(_));
        if clears_keys(&command, &effects) {
            self.keys_cleared.get_or_insert(now);
        }
        self.outputs.push_back(Output::Applied { index, term, command, effects });
        if members { self.members_applied() } else { Ok(()) }
    }

    /// Batches up to `number` are stored.
    pub(crate) fn finish_writes(&mut self, now: Nanos, number: u64) {
        while self.writes.pending.front().is_some_and(|write| write.number <= number) {
            let Some(write) = self.writes.pending.pop_front() else { break };
            self.node.on_persist_ready(write.ready);
            if let Some(image) = write.snapshot {
                if self.replace_state(&image).is_err() {
                    return;
                }
                self.node.advance_apply_to(image.index);
            }
            for message in write.held {
                self.send(now, message);
            }
        }
    }

    fn send(&mut self, now: Nanos, message: Message) {
        let kind = message.get_msg_type();
        let Some(lane) = lane_of(kind) else { return };
        let to = MemberId(message.to);
        match kind {
            MessageType::MsgTimeoutNow if !mutated(Mutation::LeaseKeptOnTransfer) => {
                // The lease ends before the successor can hear that it may campaign.
                self.lease.suspend(message.term);
                self.announce_lease();
            }
            MessageType::MsgSnapshot => {
                self.snapshots_sent.insert(to, SentSnapshot { last_news: now, delivered: false });
            }
            _ => {}
        }
        let answers =
            matches!(kind, MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse);
        let tells = matches!(kind, MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse);
        let envelope = Envelope {
            from: self.config.id,
            term: message.term,
            sent: now,
            echo: self.promise.echo(to, message.term).filter(|_| answers),
            promise_ns: self.config.timing.promise_ns(),
            note: tells.then(|| self.note()),
            message,
        };
        // Encoding fails only above 4 GiB, which no bounded message reaches.
        if let Ok(bytes) = envelope.encode() {
            self.outputs.push_back(Output::Send { to, lane, bytes });
        }
    }

    /// How long a cleared key may still be in a file.
    fn keys_gone_after_ms(&self) -> u64 {
        let per_mib_ms = 1_000;
        let size_mib = self.node.store().snapshot_bytes().unwrap_or(0) / (1024 * 1024);
        self.config.compaction.keys_gone_ms.max(size_mib.saturating_mul(per_mib_ms))
    }

    /// Whether keys were cleared so long ago that the log is to be rewritten without them.
    fn keys_must_go(&self, now: Nanos) -> bool {
        let since = self.keys_cleared;
        since.is_some_and(|since| since.plus_ms(self.keys_gone_after_ms()) <= now)
    }

    /// Cuts the log once enough of it is applied, or holds keys that were cleared long enough ago.
    pub(crate) fn compact_if_due(&mut self, now: Nanos) {
        // One at a time: a disk that does not keep up gets no second one to encode.
        if self.writes.snapshot_pending() || self.node.store().snapshot_bytes().is_none() {
            return;
        }
        let due = {
            let (store, rule) = (self.node.store(), self.config.compaction);
            let entries = self.state.applied().saturating_sub(store.snapshot_index());
            let wanted = store.take_snapshot_wanted();
            // From then on the configuration file does not say any more who votes.
            let recorded = self.state.membership().configuration().is_some();
            let undurable = recorded && !self.snapshot_has_members;
            let long = entries >= rule.entries || store.bytes_since_snapshot() >= rule.bytes;
            entries > 0 && (long || wanted || undurable || self.keys_must_go(now))
        };
        if !due {
            return;
        }
        self.keys_cleared = None;
        let index = self.state.applied();
        let Some(term) = self.node.store().term_of(index) else { return };
        let superseded = self.node.store().image().data;
        let data = SnapshotData::later(self.state.freeze(), Some(superseded));
        let image = SnapshotImage { index, term, data };
        let rule = self.config.compaction;
        self.snapshot_has_members = self.state.membership().configuration().is_some();
        let store = self.node.mut_store();
        store.compact(&image, rule.retained_entries, rule.bytes);
        let checkpoint = Checkpoint {
            hard_state: store.hard_state(),
            entries: store.entries_behind(index),
            snapshot: image,
        };
        let number = self.writes.next_number();
        // Nobody waits for it: the same is stored already, only longer.
        self.outputs.push_back(Output::Persist(WriteBatch {
            number,
            must_sync: false,
            checkpoint: Some(checkpoint),
            entries: Vec::new(),
            hard_state: None,
        }));
    }
}

/// Whether an applied entry made key material in earlier entries, or in the snapshot, obsolete.
fn clears_keys(command: &Command, effects: &[Effect]) -> bool {
    let removes =
        |effect: &Effect| matches!(effect, Effect::ChildRemoved(_) | Effect::IkeRemoved(_));
    matches!(command, Command::SetMarkSecret { .. }) || effects.iter().any(removes)
}

fn is_heartbeat_answer(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgHeartbeatResponse
}
