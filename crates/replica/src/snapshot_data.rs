//! The bytes of a snapshot, or what they are to be made of.
//!
//! Encoding a hundred thousand SAs takes longer than a lease lasts. So a replica hands out the state of
//! the moment, which costs nothing, and whoever stores it encodes it, in a thread of its own.
//! Until then the snapshot is sent to nobody.

use bytes::Bytes;
use holdfast_cluster::Frozen;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use zeroize::Zeroizing;

/// The content of a snapshot. Contains keys, which are wiped with its last clone.
///
/// Reading it ([`Deref`]) encodes it first, where nobody has yet. That is for who stores it, or reads
/// what was stored; a replica only asks whether it is [`ready`](Self::ready).
#[derive(Clone)]
pub struct SnapshotData(Arc<Content>);

struct Content {
    bytes: OnceLock<Zeroizing<Vec<u8>>>,
    /// `None` once it is encoded.
    origin: Mutex<Option<Origin>>,
}

struct Origin {
    frozen: Frozen,
    /// Wiping as many bytes takes its time too, so that is done by the same thread.
    _superseded: Option<SnapshotData>,
}

impl SnapshotData {
    /// To be encoded by whoever reads it first, who also drops what it supersedes.
    #[must_use]
    pub fn later(frozen: Frozen, superseded: Option<Self>) -> Self {
        let origin = Origin { frozen, _superseded: superseded };
        Self(Arc::new(Content { bytes: OnceLock::new(), origin: Mutex::new(Some(origin)) }))
    }

    /// The bytes, if they are there.
    #[must_use]
    pub fn ready(&self) -> Option<&[u8]> {
        self.0.bytes.get().map(|bytes| bytes.as_slice())
    }

    /// The same as [`Bytes`], without a copy, if they are there.
    pub(crate) fn ready_bytes(&self) -> Option<Bytes> {
        self.ready().map(|_| Bytes::from_owner(self.clone()))
    }
}

impl Content {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner).take();
        origin.map(|origin| origin.frozen.encode()).unwrap_or_default()
    }
}

impl Deref for SnapshotData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes.get_or_init(|| self.0.encode())
    }
}

impl AsRef<[u8]> for SnapshotData {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Zeroizing<Vec<u8>>> for SnapshotData {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(Content { bytes: OnceLock::from(bytes), origin: Mutex::new(None) }))
    }
}

impl From<Vec<u8>> for SnapshotData {
    fn from(bytes: Vec<u8>) -> Self {
        Zeroizing::new(bytes).into()
    }
}

impl Default for SnapshotData {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl PartialEq for SnapshotData {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SnapshotData {}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ready() {
            Some(bytes) => write!(f, "{} bytes", bytes.len()),
            None => f.write_str("to be encoded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_cluster::{Command, State};

    #[test]
    fn it_is_encoded_once_by_who_reads_it_first_and_drops_what_it_supersedes() {
        let mut state = State::new();
        state.apply(1, &Command::Noop);
        let old = SnapshotData::from(vec![1, 2, 3]);
        let watch = Arc::downgrade(&old.0);
        let data = SnapshotData::later(state.freeze(), Some(old));
        let clone = data.clone();
        state.apply(2, &Command::Noop);
        assert_eq!(clone.ready(), None);
        assert!(watch.upgrade().is_some(), "not by the thread that makes the new one");
        assert_eq!(State::restore(&data).unwrap().applied(), 1);
        assert_eq!(clone.ready(), Some(&*data));
        assert!(watch.upgrade().is_none());
        assert_eq!(clone.ready_bytes().unwrap(), data.to_vec());
    }
}
