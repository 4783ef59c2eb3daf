//! The ports and what waits to leave through them.

use crate::counters::{Counters, Metric};
use crate::lease::LeaseCell;
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::{BURST, MacAddr, Nanos, PacketBuf, Port, Side};
use std::sync::Arc;

/// Whether frames that were made under a lease may still leave.
///
/// A process can be stopped between looking at the lease and sending, and go on long after the lease
/// has ended (SIGSTOP, a paused virtual machine). So the lease is compared with the clock again right
/// before each burst is given to the port: once per burst, not per packet. What is left is a stop
/// between this look and the port taking the burst: at most one burst per port, whose numbers no
/// other owner uses, and which the new owner's next announcement makes harmless. The same goes for what
/// a port has taken and its link not: a driver may keep it until the link is back.
pub(crate) struct Guard {
    lease: LeaseCell,
    clock: fn() -> Nanos,
    /// The frames being collected were made under the lease.
    leased: bool,
}

impl Guard {
    pub(crate) fn new(lease: LeaseCell, clock: fn() -> Nanos) -> Self {
        Self { lease, clock, leased: false }
    }

    fn allows(&self) -> bool {
        !self.leased || self.lease.valid((self.clock)())
    }
}

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
    fn flush(&mut self, (packets, bytes): (Metric, Metric), counters: &Counters, guard: &Guard) {
        if self.outgoing.is_empty() {
            return;
        }
        if !guard.allows() {
            counters.drop_packets(DropReason::LeaseExpired, self.outgoing.len() as u64);
            return self.outgoing.clear();
        }
        let offered = byte_count(&self.outgoing);
        let sent = self.port.tx(&mut self.outgoing);
        counters.add(packets, sent as u64);
        counters.add(bytes, offered.saturating_sub(byte_count(&self.outgoing)));
        counters.drop_packets(DropReason::TxFull, self.outgoing.len() as u64);
        self.outgoing.clear();
    }
}

fn byte_count<B: PacketBuf>(burst: &[B]) -> u64 {
    burst.iter().map(|buf| buf.bytes().len() as u64).sum()
}

/// The way to the target on this member's own host.
struct LocalQueue<P: Port> {
    queue: Queue<P>,
    /// The host's end of it.
    station: MacAddr,
}

/// The ports of a worker.
pub(crate) struct Io<P: Port> {
    outside: Queue<P>,
    inside: Queue<P>,
    local: Option<LocalQueue<P>>,
    counters: Arc<Counters>,
    guard: Guard,
}

impl<P: Port> Io<P> {
    pub(crate) fn new(outside: P, inside: P, counters: Arc<Counters>, guard: Guard) -> Self {
        let (outside, inside) = (Queue::new(outside), Queue::new(inside));
        Self { outside, inside, local: None, counters, guard }
    }

    /// Adds the way to the target on this host, whose end of it is `station`.
    pub(crate) fn set_local(&mut self, port: P, station: MacAddr) {
        self.local = Some(LocalQueue { queue: Queue::new(port), station });
    }

    /// The host's end of the way to the target on this host, if there is one.
    pub(crate) fn local_station(&self) -> Option<MacAddr> {
        self.local.as_ref().map(|local| local.station)
    }

    /// Receives one burst of what the target on this host sends.
    pub(crate) fn rx_local(&mut self, into: &mut ArrayVec<P::Buf, BURST>) -> usize {
        let received = self.local.as_mut().map_or(0, |local| local.queue.port.rx(into));
        if received > 0 {
            self.counters.add(Metric::LocalRxPackets, received as u64);
        }
        received
    }

    /// Collects a frame for the target on this host.
    pub(crate) fn send_local(&mut self, frame: P::Buf) {
        let Some(LocalQueue { queue, .. }) = &mut self.local else {
            return self.counters.drop_packet(DropReason::NoTarget);
        };
        if queue.outgoing.is_full() {
            queue.flush(Metric::LOCAL_TX, &self.counters, &self.guard);
        }
        queue.outgoing.push(frame);
    }

    /// The port to the target on this host, for tests to exchange frames with.
    pub(crate) fn local_port_mut(&mut self) -> Option<&mut P> {
        self.local.as_mut().map(|local| &mut local.queue.port)
    }

    /// Begins a poll: nothing is collected.
    pub(crate) fn begin(&mut self) {
        self.guard.leased = false;
    }

    /// Some of the frames collected in this poll are made under a lease.
    pub(crate) fn mark_leased(&mut self) {
        self.guard.leased = true;
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
    #[inline]
    pub(crate) fn send(&mut self, side: Side, frame: P::Buf) {
        let queue = match side {
            Side::Outside => &mut self.outside,
            Side::Inside => &mut self.inside,
        };
        if queue.outgoing.is_full() {
            queue.flush(Metric::tx(side), &self.counters, &self.guard);
        }
        queue.outgoing.push(frame);
    }

    /// Sends everything collected.
    pub(crate) fn flush(&mut self) {
        self.outside.flush(Metric::tx(Side::Outside), &self.counters, &self.guard);
        self.inside.flush(Metric::tx(Side::Inside), &self.counters, &self.guard);
        if let Some(local) = &mut self.local {
            local.queue.flush(Metric::LOCAL_TX, &self.counters, &self.guard);
        }
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
