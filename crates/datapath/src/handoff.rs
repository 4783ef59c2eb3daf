//! Packets that met the wrong worker.

use crossbeam::queue::ArrayQueue;
use holdfast_packet::Side;
use std::fmt;
use std::sync::Arc;

/// Packets that may wait for one worker.
pub const HANDOFF_RING: usize = 1024;

/// A packet with the side it was received on. It was checked only as far as finding its worker;
/// that worker treats it like one it received itself.
#[derive(Debug)]
pub(crate) struct HandedOff<B> {
    pub(crate) side: Side,
    pub(crate) buf: B,
}

/// One worker's place in the mesh: its own inbox and everybody's.
///
/// An SA lives on exactly one worker. A packet of it that a NIC queue gave to another worker
/// crosses once; a packet that would have to cross twice is dropped, so none can circle.
pub struct Handoff<B> {
    own: usize,
    inboxes: Arc<[ArrayQueue<HandedOff<B>>]>,
}

impl<B> Handoff<B> {
    /// The places of `workers` workers (at least one), in order of their numbers.
    pub fn mesh(workers: u32) -> Vec<Self> {
        let workers = workers.max(1) as usize;
        let inboxes: Arc<[_]> = (0..workers).map(|_| ArrayQueue::new(HANDOFF_RING)).collect();
        (0..workers).map(|own| Self { own, inboxes: Arc::clone(&inboxes) }).collect()
    }

    /// How many workers there are.
    pub fn workers(&self) -> u32 {
        u32::try_from(self.inboxes.len()).unwrap_or(u32::MAX)
    }

    /// This worker's number.
    pub fn own(&self) -> u32 {
        u32::try_from(self.own).unwrap_or(u32::MAX)
    }

    /// Gives a packet to `worker`; back when that worker's inbox is full or there is no such worker.
    pub(crate) fn give(&self, worker: u32, packet: HandedOff<B>) -> Result<(), HandedOff<B>> {
        match self.inboxes.get(worker as usize) {
            Some(inbox) => inbox.push(packet),
            None => Err(packet),
        }
    }

    /// True when nothing waits for this worker.
    pub(crate) fn is_empty(&self) -> bool {
        self.inboxes.get(self.own).is_none_or(ArrayQueue::is_empty)
    }

    /// Takes the oldest packet given to this worker.
    pub(crate) fn take(&self) -> Option<HandedOff<B>> {
        // Looking costs less than trying, and an inbox is mostly empty.
        self.inboxes.get(self.own).filter(|inbox| !inbox.is_empty())?.pop()
    }
}

impl<B> fmt::Debug for Handoff<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handoff(worker {} of {})", self.own, self.inboxes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_reach_the_named_worker_in_order() {
        let mesh = Handoff::mesh(2);
        for n in 0..3 {
            mesh[0].give(1, HandedOff { side: Side::Outside, buf: n }).unwrap();
        }
        assert!(mesh[0].take().is_none());
        let order: Vec<i32> = std::iter::from_fn(|| mesh[1].take()).map(|p| p.buf).collect();
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn a_full_inbox_and_a_missing_worker_give_the_packet_back() {
        let mesh = Handoff::mesh(1);
        for _ in 0..HANDOFF_RING {
            mesh[0].give(0, HandedOff { side: Side::Inside, buf: () }).unwrap();
        }
        assert!(mesh[0].give(0, HandedOff { side: Side::Inside, buf: () }).is_err());
        assert!(mesh[0].give(7, HandedOff { side: Side::Inside, buf: () }).is_err());
    }
}
