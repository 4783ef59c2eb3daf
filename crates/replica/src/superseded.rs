//! What a snapshot of the leader takes the place of.

use crate::SnapshotData;
use bytes::Bytes;
use holdfast_cluster::State;
use raft::eraftpb::Entry;
use std::fmt;
use zeroize::Zeroize;

/// Something with many keys that nobody needs any more. Wiping a hundred thousand takes longer than a tick:
/// drop it where there is time. It does nothing else.
pub struct Superseded(What);

enum What {
    State { _state: Box<State> },
    Log { entries: Vec<Entry>, _snapshot: SnapshotData },
}

impl Superseded {
    pub(crate) fn state(state: State) -> Self {
        Self(What::State { _state: Box::new(state) })
    }

    pub(crate) fn log(entries: Vec<Entry>, snapshot: SnapshotData) -> Self {
        Self(What::Log { entries, _snapshot: snapshot })
    }
}

impl Drop for Superseded {
    fn drop(&mut self) {
        if let What::Log { entries, .. } = &mut self.0 {
            entries.iter_mut().for_each(|entry| wipe(&mut entry.data));
        }
    }
}

impl fmt::Debug for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            What::State { .. } => "a state",
            What::Log { .. } => "a log",
        })
    }
}

/// Overwrites bytes that may be keys, where nobody else holds them: raft-rs, or a message on its
/// way, may still do for a moment.
pub(crate) fn wipe(data: &mut Bytes) {
    if let Ok(mut bytes) = std::mem::take(data).try_into_mut() {
        bytes.zeroize();
    }
}
