//! A NIC port as the datapath sees it, and one in memory.

use crate::{HeapBuf, MacAddr, PacketBuf};
use arrayvec::ArrayVec;
use std::collections::VecDeque;

/// The most packets one receive or transmit call moves.
pub const BURST: usize = 64;

/// Which of the two networks a packet or address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Towards the peers: the common address, IKE and ESP.
    Outside,
    /// Towards the targets: clear packets.
    Inside,
}

impl Side {
    /// Both sides, outside first.
    pub const ALL: [Self; 2] = [Self::Outside, Self::Inside];

    /// 0 for outside, 1 for inside; for dense tables.
    pub const fn index(self) -> usize {
        match self {
            Self::Outside => 0,
            Self::Inside => 1,
        }
    }

    /// `outside` or `inside`, as metric label and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
        }
    }
}

/// One queue of one NIC port, owned by one worker.
pub trait Port {
    /// The buffers this port receives into and sends from.
    type Buf: PacketBuf;

    /// Appends received packets to `into` until it is full or nothing waits; returns how many.
    fn rx(&mut self, into: &mut ArrayVec<Self::Buf, BURST>) -> usize;

    /// Sends from the front of `from`, removes what was taken, leaves what did not fit; returns
    /// how many were taken. Never waits.
    fn tx(&mut self, from: &mut ArrayVec<Self::Buf, BURST>) -> usize;

    /// A fresh buffer of `len` bytes of unspecified content, with headroom for all headers.
    /// `None` when the pool is empty or `len` exceeds a buffer.
    fn alloc(&mut self, len: usize) -> Option<Self::Buf>;

    /// The port's own station address.
    fn mac(&self) -> MacAddr;

    /// The largest IP packet the port sends, in bytes (without the Ethernet header).
    fn mtu(&self) -> u16;
}

/// Frames either queue of a [`MemoryPort`] holds; more are refused like by a full NIC ring.
pub const MEMORY_PORT_QUEUE_FRAMES: usize = 4096;

/// A port made of two queues, for tests and the simulator.
#[derive(Debug)]
pub struct MemoryPort {
    mac: MacAddr,
    mtu: u16,
    received: VecDeque<HeapBuf>,
    sent: VecDeque<HeapBuf>,
    tx_limit: usize,
    buffers_left: usize,
}

impl MemoryPort {
    /// An idle port.
    pub fn new(mac: MacAddr, mtu: u16) -> Self {
        Self {
            mac,
            mtu,
            received: VecDeque::new(),
            sent: VecDeque::new(),
            tx_limit: MEMORY_PORT_QUEUE_FRAMES,
            buffers_left: usize::MAX,
        }
    }

    /// Lets `frame` arrive at this port; false when the receive queue is full.
    pub fn deliver(&mut self, frame: &[u8]) -> bool {
        self.deliver_buf(HeapBuf::from_frame(frame))
    }

    /// Lets `buf` arrive at this port as it is; false when the receive queue is full.
    pub fn deliver_buf(&mut self, buf: HeapBuf) -> bool {
        let room = self.received.len() < MEMORY_PORT_QUEUE_FRAMES;
        if room {
            self.received.push_back(buf);
        }
        room
    }

    /// Takes everything this port has sent so far, oldest first.
    pub fn take_sent(&mut self) -> Vec<Vec<u8>> {
        self.sent.drain(..).map(HeapBuf::into_vec).collect()
    }

    /// How many frames wait to be received.
    pub fn waiting(&self) -> usize {
        self.received.len()
    }

    /// From now on refuses to hold more than `frames` sent frames, like a NIC whose ring is full.
    pub fn limit_tx(&mut self, frames: usize) {
        self.tx_limit = frames.min(MEMORY_PORT_QUEUE_FRAMES);
    }

    /// From now on grants only `buffers` further allocations, like a NIC whose pool runs dry.
    pub fn limit_alloc(&mut self, buffers: usize) {
        self.buffers_left = buffers;
    }
}

impl Port for MemoryPort {
    type Buf = HeapBuf;

    fn rx(&mut self, into: &mut ArrayVec<HeapBuf, BURST>) -> usize {
        let n = into.remaining_capacity().min(self.received.len());
        into.extend(self.received.drain(..n));
        n
    }

    fn tx(&mut self, from: &mut ArrayVec<HeapBuf, BURST>) -> usize {
        let n = from.len().min(self.tx_limit.saturating_sub(self.sent.len()));
        self.sent.extend(from.drain(..n));
        n
    }

    fn alloc(&mut self, len: usize) -> Option<HeapBuf> {
        self.buffers_left = self.buffers_left.checked_sub(1)?;
        Some(HeapBuf::zeroed(len))
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port() -> MemoryPort {
        MemoryPort::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500)
    }

    #[test]
    fn rx_moves_at_most_one_burst_in_order() {
        let mut port = port();
        for i in 0..70u8 {
            assert!(port.deliver(&[i]));
        }
        let mut burst = ArrayVec::new();
        assert_eq!(port.rx(&mut burst), BURST);
        assert_eq!(burst[0].bytes(), [0]);
        assert_eq!(port.rx(&mut burst), 0);
        assert_eq!(port.waiting(), 6);
    }

    #[test]
    fn tx_leaves_what_does_not_fit() {
        let mut port = port();
        port.limit_tx(2);
        let mut burst: ArrayVec<HeapBuf, BURST> =
            (0..3u8).map(|i| HeapBuf::from_frame(&[i])).collect();
        assert_eq!(port.tx(&mut burst), 2);
        assert_eq!(burst.len(), 1);
        assert_eq!(burst[0].bytes(), [2]);
        assert_eq!(port.take_sent(), [vec![0], vec![1]]);
    }

    #[test]
    fn alloc_ends_with_the_pool() {
        let mut port = port();
        port.limit_alloc(1);
        assert!(port.alloc(10).is_some());
        assert!(port.alloc(10).is_none());
    }
}
