//! The bytes of a snapshot, or what they are to be made of, or the state that is to be made of them.
//!
//! Encoding a hundred thousand SAs takes longer than a lease lasts, and so does reading them. So a replica
//! hands out the state of the moment, which costs nothing, and whoever stores it encodes it, in a thread of
//! its own; until then the snapshot is sent to nobody. And one that was received is read by whoever stores
//! it, before the replica hears that it is stored.
//!
//! ```text
//!   later(frozen)   --[stored by: encode]-->  bytes          sent to who is behind
//!   received(bytes) --[stored by: restore]--> bytes, State --> the replica takes the State
//! ```

use bytes::Bytes;
use holdfast_cluster::{CodecError, Frozen, State};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use zeroize::Zeroizing;

/// The content of a snapshot. Contains keys, which are wiped with its last clone.
///
/// Reading it ([`Deref`]) encodes it first, where nobody has yet. That is for who stores it, or reads
/// what was stored; a replica only asks whether it is [`ready`](Self::ready).
#[derive(Clone)]
pub struct SnapshotData(Arc<Content>);

struct Content {
    /// Each owner of these bytes wipes them.
    bytes: OnceLock<Bytes>,
    source: Mutex<Source>,
}

/// What was not done yet, or not taken yet.
enum Source {
    /// The bytes are to be made of it.
    Origin(Box<Origin>),
    /// A state is to be made of the bytes.
    Received,
    /// It was made, or cannot be, and waits for the replica.
    Restored(Box<Result<State, CodecError>>),
    /// Nothing is left to do.
    Done,
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
        let origin = Box::new(Origin { frozen, _superseded: superseded });
        Self(Arc::new(Content {
            bytes: OnceLock::new(),
            source: Mutex::new(Source::Origin(origin)),
        }))
    }

    /// As it came from a leader: to be read by whoever stores it. Whoever owns `bytes` wipes them.
    #[must_use]
    pub fn received(bytes: Bytes) -> Self {
        Self::of(bytes, Source::Received)
    }

    fn of(bytes: Bytes, source: Source) -> Self {
        Self(Arc::new(Content { bytes: OnceLock::from(bytes), source: Mutex::new(source) }))
    }

    /// The bytes, if they are there.
    #[must_use]
    pub fn ready(&self) -> Option<&[u8]> {
        self.0.bytes.get().map(|bytes| &**bytes)
    }

    /// The same as [`Bytes`], without a copy, if they are there.
    pub(crate) fn ready_bytes(&self) -> Option<Bytes> {
        self.ready().map(|_| Bytes::from_owner(self.clone()))
    }

    /// Whether it was received, and nobody has read it yet.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        matches!(*self.0.source(), Source::Received)
    }

    /// Reads what was received, where nobody has yet: for who stores it, before it is stored. The state is
    /// kept for the replica.
    ///
    /// # Errors
    /// [`CodecError`] when it cannot be read. It must not be stored then, nor what comes behind it, but be
    /// reported all the same: the replica ends with the reason.
    pub fn restore(&self) -> Result<(), CodecError> {
        let mut source = self.0.source();
        if matches!(*source, Source::Received) {
            // A panic in the midst of it leaves what was received as it was.
            let restored = State::restore(self.ready().unwrap_or_default());
            *source = Source::Restored(Box::new(restored));
        }
        match &*source {
            Source::Restored(restored) => {
                restored.as_ref().as_ref().map(drop).map_err(Clone::clone)
            }
            _ => Ok(()),
        }
    }

    /// The state of a snapshot that was received, read here where nobody has. To be taken once.
    pub(crate) fn take_restored(&self) -> Result<State, CodecError> {
        self.restore()?;
        match std::mem::replace(&mut *self.0.source(), Source::Done) {
            Source::Restored(restored) => *restored,
            _ => State::restore(self),
        }
    }
}

impl Content {
    fn source(&self) -> MutexGuard<'_, Source> {
        // Nothing is ever left half changed in it.
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn encode(&self, encode: impl FnOnce(&Frozen) -> Zeroizing<Vec<u8>>) -> Bytes {
        let mut source = self.source();
        let Source::Origin(origin) = &*source else { return Bytes::new() };
        // It is taken only when the bytes are there: should encoding panic, the next reader finds it.
        let bytes = Bytes::from_owner(encode(&origin.frozen));
        *source = Source::Done;
        bytes
    }
}

impl Deref for SnapshotData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes.get_or_init(|| self.0.encode(Frozen::encode))
    }
}

impl AsRef<[u8]> for SnapshotData {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Zeroizing<Vec<u8>>> for SnapshotData {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self::of(Bytes::from_owner(bytes), Source::Done)
    }
}

impl From<Vec<u8>> for SnapshotData {
    fn from(bytes: Vec<u8>) -> Self {
        Zeroizing::new(bytes).into()
    }
}

impl Default for SnapshotData {
    fn default() -> Self {
        Self::of(Bytes::new(), Source::Done)
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
    use holdfast_cluster::Command;
    use std::panic::{AssertUnwindSafe, catch_unwind};

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
    #[test]
    fn who_reads_after_an_encoder_that_panicked_gets_the_bytes() {
        let mut state = State::new();
        state.apply(7, &Command::Noop);
        let data = SnapshotData::later(state.freeze(), None);
        let read =
            || data.0.bytes.get_or_init(|| data.0.encode(|_| panic!("on purpose, by a test")));
        assert!(catch_unwind(AssertUnwindSafe(|| read().len())).is_err());
        assert_eq!(data.ready(), None);
        assert_eq!(State::restore(&data).unwrap().applied(), 7);
    }

    #[test]
    fn what_was_received_is_read_once_by_who_stores_it_and_taken_by_the_replica() {
        let mut state = State::new();
        state.apply(3, &Command::Noop);
        let received = || SnapshotData::received(Bytes::from_owner(state.snapshot()));
        let data = received();
        let stored = data.clone();
        assert!(stored.is_unread() && stored.ready().is_some());
        stored.restore().unwrap();
        assert!(!data.is_unread());
        assert_eq!(data.take_restored().unwrap(), state);
        // Also where nobody read it before.
        assert_eq!(received().take_restored().unwrap(), state);
        let broken = SnapshotData::received(Bytes::from_static(b"no snapshot"));
        let error = broken.restore().unwrap_err();
        assert_eq!(broken.take_restored().unwrap_err(), error);
    }
}
