//! A port in memory: receives what was put into its buffers beforehand, and gives what it sends
//! back to its pool.

use holdfast_packet::{ArrayVec, BURST, MacAddr, NoRoom, PacketBuf, Port};

/// Room in front, as an mbuf has it.
const HEADROOM: usize = 128;
/// Room in all, as an mbuf of the usual size has it.
const ROOM: usize = 2048 + HEADROOM;

/// A buffer laid out like an mbuf: what describes the packet lies in memory beside its bytes, and
/// a burst is a row of pointers.
pub(crate) struct PooledBuf(Box<Block>);

#[repr(align(64))]
struct Block {
    start: usize,
    end: usize,
    /// Bytes begin in a cache line of their own.
    _pad: [u8; 48],
    room: [u8; ROOM],
}

impl PooledBuf {
    fn empty() -> Self {
        Self(Box::new(Block { start: HEADROOM, end: HEADROOM, _pad: [0; 48], room: [0; ROOM] }))
    }

    /// Makes it hold `frame`, as a NIC would.
    fn fill(&mut self, frame: &[u8]) {
        let block = &mut *self.0;
        block.start = HEADROOM;
        block.end = HEADROOM + frame.len();
        block.room[block.start..block.end].copy_from_slice(frame);
    }
}

impl PacketBuf for PooledBuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.0.room[self.0.start..self.0.end]
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let block = &mut *self.0;
        &mut block.room[block.start..block.end]
    }

    #[inline]
    fn headroom(&self) -> usize {
        self.0.start
    }

    #[inline]
    fn tailroom(&self) -> usize {
        ROOM - self.0.end
    }

    #[inline]
    fn prepend(&mut self, n: usize) -> Result<(), NoRoom> {
        self.0.start = self.0.start.checked_sub(n).ok_or(NoRoom)?;
        Ok(())
    }

    #[inline]
    fn append(&mut self, n: usize) -> Result<(), NoRoom> {
        let end = self.0.end + n;
        if end > ROOM {
            return Err(NoRoom);
        }
        self.0.end = end;
        Ok(())
    }

    #[inline]
    fn trim_front(&mut self, n: usize) {
        self.0.start = (self.0.start + n).min(self.0.end);
    }

    #[inline]
    fn trim_back(&mut self, n: usize) {
        self.0.end = self.0.end.saturating_sub(n).max(self.0.start);
    }
}

/// A port that never waits for a NIC.
pub(crate) struct LoopPort {
    mac: MacAddr,
    waiting: Vec<PooledBuf>,
    /// Buffers of both ports meet here: what one receives the other sends.
    free: Vec<PooledBuf>,
    sent: usize,
}

impl LoopPort {
    pub(crate) const fn new(mac: MacAddr) -> Self {
        Self { mac, waiting: Vec::new(), free: Vec::new(), sent: 0 }
    }

    /// Lets `frame` wait in a buffer of `pool`.
    pub(crate) fn put(&mut self, frame: &[u8], pool: &mut Vec<PooledBuf>) {
        let mut buf = pool.pop().unwrap_or_else(PooledBuf::empty);
        buf.fill(frame);
        self.waiting.push(buf);
    }

    /// What waits is received in the order it was put.
    pub(crate) fn ready(&mut self) {
        self.waiting.reverse();
    }

    /// Takes the buffers sent since, and says how many they were.
    pub(crate) fn take_sent(&mut self, pool: &mut Vec<PooledBuf>) -> usize {
        pool.append(&mut self.free);
        std::mem::take(&mut self.sent)
    }
}

impl Port for LoopPort {
    type Buf = PooledBuf;

    fn rx(&mut self, into: &mut ArrayVec<PooledBuf, BURST>) -> usize {
        let n = into.remaining_capacity().min(self.waiting.len());
        let from = self.waiting.len() - n;
        into.extend(self.waiting.drain(from..).rev());
        n
    }

    fn tx(&mut self, from: &mut ArrayVec<PooledBuf, BURST>) -> usize {
        let sent = from.len();
        self.free.extend(from.drain(..));
        self.sent += sent;
        sent
    }

    fn alloc(&mut self, _len: usize) -> Option<PooledBuf> {
        None
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn mtu(&self) -> u16 {
        1500
    }
}
