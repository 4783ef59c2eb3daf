//! The two ports and what waits to leave through them.

use crate::counters::{Counters, Metric};
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::{BURST, PacketBuf, Port, Side};
use std::sync::Arc;

/// One port with the burst being collected for it.
struct Queue<P: Port> {
    port: P,
    outgoing: ArrayVec<P::Buf, BURST>,
}

impl<P: Port> Queue<P> {
    const fn new(port: P) -> Self {
        Self { port, outgoing: ArrayVec::new_const() }
    }

    /// Sends what was collected. What the port does not take is dropped and counted: waiting for
    /// room would stall every other packet.
    fn flush(&mut self, side: Side, counters: &Counters) {
        if self.outgoing.is_empty() {
            return;
        }
        let offered = byte_count(&self.outgoing);
        let sent = self.port.tx(&mut self.outgoing);
        let (packets, bytes) = Metric::tx(side);
        counters.add(packets, sent as u64);
        counters.add(bytes, offered.saturating_sub(byte_count(&self.outgoing)));
        counters.drop_packets(DropReason::TxFull, self.outgoing.len() as u64);
        self.outgoing.clear();
    }
}

fn byte_count<B: PacketBuf>(burst: &[B]) -> u64 {
    burst.iter().map(|buf| buf.bytes().len() as u64).sum()
}

/// Both ports of a worker.
pub(crate) struct Io<P: Port> {
    outside: Queue<P>,
    inside: Queue<P>,
    counters: Arc<Counters>,
}

impl<P: Port> Io<P> {
    pub(crate) fn new(outside: P, inside: P, counters: Arc<Counters>) -> Self {
        Self { outside: Queue::new(outside), inside: Queue::new(inside), counters }
    }

    /// Receives one burst.
    pub(crate) fn rx(&mut self, side: Side, into: &mut ArrayVec<P::Buf, BURST>) -> usize {
        let received = self.queue(side).port.rx(into);
        let (packets, bytes) = Metric::rx(side);
        if received > 0 {
            self.counters.add(packets, received as u64);
            self.counters.add(bytes, byte_count(into));
        }
        received
    }

    /// Collects a frame to be sent with the next burst.
    pub(crate) fn send(&mut self, side: Side, frame: P::Buf) {
        let queue = match side {
            Side::Outside => &mut self.outside,
            Side::Inside => &mut self.inside,
        };
        if queue.outgoing.is_full() {
            queue.flush(side, &self.counters);
        }
        queue.outgoing.push(frame);
    }

    /// Sends everything collected.
    pub(crate) fn flush(&mut self) {
        self.outside.flush(Side::Outside, &self.counters);
        self.inside.flush(Side::Inside, &self.counters);
    }

    /// A fresh buffer that holds `frame`.
    pub(crate) fn copy_of(&mut self, side: Side, frame: &[u8]) -> Option<P::Buf> {
        let mut buf = self.queue(side).port.alloc(frame.len())?;
        let bytes = buf.bytes_mut().get_mut(..frame.len())?;
        bytes.copy_from_slice(frame);
        Some(buf)
    }

    pub(crate) fn alloc(&mut self, side: Side, len: usize) -> Option<P::Buf> {
        self.queue(side).port.alloc(len)
    }

    pub(crate) fn mtu(&self, side: Side) -> usize {
        usize::from(self.port(side).mtu())
    }

    pub(crate) fn port(&self, side: Side) -> &P {
        match side {
            Side::Outside => &self.outside.port,
            Side::Inside => &self.inside.port,
        }
    }

    pub(crate) fn port_mut(&mut self, side: Side) -> &mut P {
        &mut self.queue(side).port
    }

    fn queue(&mut self, side: Side) -> &mut Queue<P> {
        match side {
            Side::Outside => &mut self.outside,
            Side::Inside => &mut self.inside,
        }
    }
}
