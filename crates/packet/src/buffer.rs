//! Packet buffers: contiguous bytes with room before and behind them.

/// Bytes kept free before a fresh packet. Tunnel mode ESP in UDP needs 20 + 8 + 8 + 8 in front.
pub const HEADROOM: usize = 128;
/// Bytes kept free behind a fresh packet. ESP needs at most 3 padding + 2 trailer + 16 ICV.
pub const TAILROOM: usize = 128;

/// A buffer lacks the head- or tailroom asked for; the buffer is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet buffer has no room for this header or trailer")]
pub struct NoRoom;

/// One packet in one contiguous segment.
///
/// The datapath is generic over this trait, so that a DPDK mbuf and a vector in a test take the
/// same way. Bytes gained by `prepend` and `append` hold whatever was there before: the caller
/// overwrites them.
pub trait PacketBuf: Send {
    /// The packet's bytes.
    fn bytes(&self) -> &[u8];
    /// The packet's bytes, to change in place.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// How far [`PacketBuf::prepend`] can go, in bytes.
    fn headroom(&self) -> usize;
    /// How far [`PacketBuf::append`] can go, in bytes.
    fn tailroom(&self) -> usize;
    /// Grows the packet by `n` bytes at the front.
    ///
    /// # Errors
    /// [`NoRoom`] when the headroom is smaller; nothing has changed then.
    fn prepend(&mut self, n: usize) -> Result<(), NoRoom>;
    /// Grows the packet by `n` bytes at the back.
    ///
    /// # Errors
    /// [`NoRoom`] when the tailroom is smaller; nothing has changed then.
    fn append(&mut self, n: usize) -> Result<(), NoRoom>;
    /// Removes `n` bytes at the front; all of them when there are fewer.
    fn trim_front(&mut self, n: usize);
    /// Removes `n` bytes at the back; all of them when there are fewer.
    fn trim_back(&mut self, n: usize);
}

/// A packet in a vector, for tests and the simulator.
#[derive(Clone, PartialEq, Eq)]
pub struct HeapBuf {
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl HeapBuf {
    /// A copy of `frame` with [`HEADROOM`] and [`TAILROOM`] around it.
    pub fn from_frame(frame: &[u8]) -> Self {
        Self::with_room(frame, HEADROOM, TAILROOM)
    }

    /// `len` zero bytes with [`HEADROOM`] and [`TAILROOM`] around them.
    pub fn zeroed(len: usize) -> Self {
        Self::with_room(&vec![0; len], HEADROOM, TAILROOM)
    }

    /// A copy of `frame` with exactly this many bytes of room around it.
    pub fn with_room(frame: &[u8], headroom: usize, tailroom: usize) -> Self {
        let mut storage = vec![0; headroom];
        storage.extend_from_slice(frame);
        storage.resize(storage.len() + tailroom, 0);
        Self { storage, start: headroom, end: headroom + frame.len() }
    }

    /// Makes it hold `frame` with [`HEADROOM`] in front, as if it were new, in the memory it has. Allocates
    /// only when that is too small for the frame with [`TAILROOM`] behind it.
    pub fn refill(&mut self, frame: &[u8]) {
        let end = HEADROOM.saturating_add(frame.len());
        let needed = end.saturating_add(TAILROOM);
        if self.storage.len() < needed {
            self.storage.resize(needed, 0);
        }
        if let Some(room) = self.storage.get_mut(HEADROOM..end) {
            room.copy_from_slice(frame);
        }
        (self.start, self.end) = (HEADROOM, end);
    }

    /// Gives the packet's bytes away without the room around them.
    pub fn into_vec(mut self) -> Vec<u8> {
        self.storage.truncate(self.end);
        self.storage.drain(..self.start);
        self.storage
    }
}

impl std::fmt::Debug for HeapBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeapBuf({} bytes)", self.end - self.start)
    }
}

impl PacketBuf for HeapBuf {
    fn bytes(&self) -> &[u8] {
        self.storage.get(self.start..self.end).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.storage.get_mut(self.start..self.end).unwrap_or_default()
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn tailroom(&self) -> usize {
        self.storage.len() - self.end
    }

    fn prepend(&mut self, n: usize) -> Result<(), NoRoom> {
        self.start = self.start.checked_sub(n).ok_or(NoRoom)?;
        Ok(())
    }

    fn append(&mut self, n: usize) -> Result<(), NoRoom> {
        if n > self.tailroom() {
            return Err(NoRoom);
        }
        self.end += n;
        Ok(())
    }

    fn trim_front(&mut self, n: usize) {
        self.start += n.min(self.end - self.start);
    }

    fn trim_back(&mut self, n: usize) {
        self.end -= n.min(self.end - self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prepend_and_append_stop_at_the_room() {
        let mut buf = HeapBuf::with_room(b"abc", 2, 1);
        assert_eq!(buf.prepend(3), Err(NoRoom));
        assert_eq!(buf.append(2), Err(NoRoom));
        assert_eq!(buf.bytes(), b"abc");
        buf.prepend(2).unwrap();
        buf.append(1).unwrap();
        assert_eq!((buf.bytes().len(), buf.headroom(), buf.tailroom()), (6, 0, 0));
    }

    #[test]
    fn a_refilled_buffer_is_like_a_new_one_in_the_same_memory() {
        let mut buf = HeapBuf::with_room(&[1; 100], HEADROOM, TAILROOM);
        let memory = buf.storage.as_ptr();
        buf.prepend(28).unwrap();
        buf.trim_back(50);
        for frame in [&[2; 60][..], &[3; 100]] {
            buf.refill(frame);
            assert_eq!((buf.bytes(), buf.headroom()), (frame, HEADROOM));
            assert!(buf.tailroom() >= TAILROOM && buf.storage.as_ptr() == memory);
        }
        buf.refill(&[4; 2000]);
        assert_eq!((buf.bytes(), buf.tailroom()), (&[4; 2000][..], TAILROOM));
    }

    #[test]
    fn trims_clamp() {
        let mut buf = HeapBuf::from_frame(b"abcdef");
        buf.trim_front(2);
        buf.trim_back(1);
        assert_eq!(buf.bytes(), b"cde");
        buf.trim_front(99);
        assert_eq!(buf.bytes(), b"");
        buf.trim_back(99);
        assert_eq!(buf.into_vec(), b"");
    }

    proptest! {
        #[test]
        fn any_sequence_of_operations_keeps_storage_whole(ops in prop::collection::vec((0u8..4, 0usize..300), 0..40)) {
            let mut buf = HeapBuf::from_frame(&[7; 100]);
            let whole = buf.headroom() + buf.bytes().len() + buf.tailroom();
            for (op, n) in ops {
                match op {
                    0 => { let _ = buf.prepend(n); }
                    1 => { let _ = buf.append(n); }
                    2 => buf.trim_front(n),
                    _ => buf.trim_back(n),
                }
                prop_assert_eq!(buf.headroom() + buf.bytes().len() + buf.tailroom(), whole);
            }
        }
    }
}
