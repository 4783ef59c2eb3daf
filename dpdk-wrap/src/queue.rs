//! Queues: where frames enter and leave.

use crate::Mempool;
use crate::mbuf::{Mbuf, segments};
use crate::port::Running;
use arrayvec::ArrayVec;
use holdfast_dpdk_sys as sys;
use holdfast_packet::{BURST, MacAddr, Port as PacketPort};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Room for the pointers of one burst.
type Pointers = [*mut sys::rte_mbuf; BURST];

/// A receive queue of a started port.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Running>,
    queue: u16,
    burst: Box<Pointers>,
}

/// A transmit queue of a started port.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Running>,
    queue: u16,
    burst: Box<Pointers>,
}

// SAFETY: the pointers are scratch space that is only meaningful within one call.
unsafe impl Send for RxQueue {}
// SAFETY: as above.
unsafe impl Send for TxQueue {}

impl RxQueue {
    pub(crate) fn new(port: Arc<Running>, queue: u16) -> Self {
        Self { port, queue, burst: Box::new([ptr::null_mut(); BURST]) }
    }

    /// Appends received frames to `into` until it is full or nothing waits; returns how many.
    /// Never waits. Frames of several segments are freed and counted.
    pub fn receive(&mut self, into: &mut ArrayVec<Mbuf, BURST>) -> usize {
        let room = into.remaining_capacity();
        let asked = u16::try_from(room).unwrap_or(u16::MAX);
        let pointers = self.burst.as_mut_ptr();
        // SAFETY: a started port's queue, used by no other thread as self is borrowed exclusively;
        // `burst` has room for BURST >= asked pointers.
        let received = unsafe { sys::rte_eth_rx_burst(self.port.id, self.queue, pointers, asked) };
        let before = into.len();
        for &raw in self.burst.iter().take(usize::from(received)) {
            let Some(raw) = NonNull::new(raw) else { continue };
            // SAFETY: the driver gave this allocated mbuf to us.
            let whole = unsafe { segments(raw) } == 1;
            if whole {
                // SAFETY: one segment, owned by nobody else once received; pools live for ever.
                into.push(unsafe { Mbuf::from_raw(raw) });
            } else {
                self.refuse(raw);
            }
        }
        into.len() - before
    }

    #[cold]
    fn refuse(&self, raw: NonNull<sys::rte_mbuf>) {
        self.port.multi_segment.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a received mbuf that nobody else owns; this frees all its segments.
        unsafe { sys::rte_pktmbuf_free(raw.as_ptr()) };
    }
}

impl TxQueue {
    pub(crate) fn new(port: Arc<Running>, queue: u16) -> Self {
        Self { port, queue, burst: Box::new([ptr::null_mut(); BURST]) }
    }

    /// Sends from the front of `from`, removes what the driver took, leaves the rest in order;
    /// returns how many were taken. Never waits.
    pub fn send(&mut self, from: &mut ArrayVec<Mbuf, BURST>) -> usize {
        if from.is_empty() {
            return 0;
        }
        for (pointer, mbuf) in self.burst.iter_mut().zip(from.iter()) {
            *pointer = mbuf.as_ptr();
        }
        let asked = u16::try_from(from.len()).unwrap_or(u16::MAX);
        let pointers = self.burst.as_mut_ptr();
        // SAFETY: a started port's queue, used by no other thread as self is borrowed exclusively;
        // the first `asked` pointers are mbufs that we own. The driver owns the first `sent` of
        // them from here on: they leave `from` below without being freed or looked at.
        let sent = unsafe { sys::rte_eth_tx_burst(self.port.id, self.queue, pointers, asked) };
        let sent = usize::from(sent).min(from.len());
        for mbuf in from.drain(..sent) {
            mbuf.into_raw();
        }
        sent
    }
}

/// One receive and one transmit queue with the same number: what a worker holds of a port.
#[derive(Debug)]
pub struct QueuePair {
    rx: RxQueue,
    tx: TxQueue,
    pool: Mempool,
    mac: MacAddr,
    mtu: u16,
}

impl QueuePair {
    pub(crate) const fn new(
        rx: RxQueue,
        tx: TxQueue,
        pool: Mempool,
        mac: MacAddr,
        mtu: u16,
    ) -> Self {
        Self { rx, tx, pool, mac, mtu }
    }
}

impl PacketPort for QueuePair {
    type Buf = Mbuf;

    fn rx(&mut self, into: &mut ArrayVec<Mbuf, BURST>) -> usize {
        self.rx.receive(into)
    }

    fn tx(&mut self, from: &mut ArrayVec<Mbuf, BURST>) -> usize {
        self.tx.send(from)
    }

    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        self.pool.alloc(len)
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }
}
