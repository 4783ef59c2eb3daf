//! The operator's override after the loss of a quorum.

use crate::output::{Checkpoint, HardState, Recovered, SnapshotImage};
use crate::replica::open_store;
use crate::store::{LogStore, configuration_from_raft};
use crate::{Config, EntryKind, ReplicaError};
use holdfast_cluster::Command;
use raft::{GetEntriesContext, RawNode, Storage};

/// How far the term is moved: beyond any the others can have reached, so that whoever remembers
/// an epoch of theirs (a target) takes this member's for newer. Elections every millisecond would
/// need seventeen minutes.
const TERMS_SKIPPED: u64 = 1 << 20;

/// Makes this member alone the cluster: the log it is to start with.
///
/// Everything in the log counts as committed, since it may be; every SA is dropped, since the
/// others may have used numbers this log does not know of
/// ([`holdfast_cluster::State::force_quorum`] has the proof). The ids of all others are retired:
/// should they come back, they are refused by name.
///
/// # Safety of the cluster
/// If the others live and are a majority, there are two owners from now on. Nothing here can know
/// that; law 1 rests on the operator.
///
/// # Errors
/// [`ReplicaError`] when the stored log cannot be read.
pub fn force_quorum(config: &Config, recovered: &Recovered) -> Result<Checkpoint, ReplicaError> {
    let (store, mut state, _) = open_store(config, recovered)?;
    let hard_state = store.hard_state();
    let last = store.last();
    apply_all(config, store, &mut state)?;
    let index = last.saturating_add(1);
    let term = hard_state.term.saturating_add(TERMS_SKIPPED);
    state.force_quorum(index, config.id, &config.members);
    Ok(Checkpoint {
        snapshot: SnapshotImage { index, term, data: state.snapshot().into() },
        hard_state: HardState { term, vote: 0, commit: index },
        entries: Vec::new(),
    })
}

/// Applies the whole log, committed or not.
fn apply_all(
    config: &Config,
    store: LogStore,
    state: &mut holdfast_cluster::State,
) -> Result<(), ReplicaError> {
    let raft = |error: raft::Error| ReplicaError::Raft(error.to_string());
    let first = state.applied().saturating_add(1);
    let end = store.last().saturating_add(1);
    let context = GetEntriesContext::empty(false);
    let entries = if first < end {
        store.entries(first, end, None, context).map_err(raft)?
    } else {
        Vec::new()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let raft_config = crate::config::raft_config(config, state.applied());
    // Raft's own arithmetic of configurations; nothing is elected or sent.
    let mut node = RawNode::new(&raft_config, store, &logger).map_err(raft)?;
    for entry in entries {
        let index = entry.index;
        if crate::store::entry_from_raft(&entry).kind == EntryKind::Configuration {
            let change = protobuf::Message::parse_from_bytes(&entry.data).unwrap_or_default();
            let change: raft::eraftpb::ConfChangeV2 = change;
            match node.apply_conf_change(&change) {
                Ok(members) => drop(state.configure(index, configuration_from_raft(&members))),
                Err(_) => drop(state.apply(index, &Command::Noop)),
            }
            continue;
        }
        let command = match entry.data.is_empty() {
            true => Command::Noop,
            false => Command::decode(&entry.data)
                .map_err(|error| ReplicaError::Entry { index, error })?,
        };
        drop(state.apply(index, &command));
    }
    Ok(())
}
