//! A worker neither allocates nor frees memory while it polls: a million polls under a counting
//! allocator, with packets both ways, packets to drop, new flows, grants and raised horizons.

#![allow(clippy::expect_used, reason = "a test reports by panicking")]

use allocation_counter::measure;
use crossbeam::queue::ArrayQueue;
use holdfast_crypto::{AeadAlgorithm, Engine};
use holdfast_datapath::{
    ConnectionCount, Controls, Metric, Prefix, SaRef, Tables, TargetEntry, TargetTable, Way,
    Worker, WorkerCommand, WorkerLimits, WorkerParts,
};
use holdfast_ipsec::{
    ChildSaParameters, DropReason, Encapsulation, InboundSa, OutboundSa, SaKey, Selectors,
    SequenceRange, Spi, TrafficSelector,
};
use holdfast_maglev::Table;
use holdfast_packet::{
    ArrayVec, BURST, HeapBuf, MacAddr, Nanos, NoRoom, PacketBuf, Port, Side, frame, ipv4,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

const POLLS: u64 = 1_000_000;
/// Numbers granted and horizons raised at a time.
const STEP: u64 = 1_000;

/// Bytes of the longest frame a buffer holds without growing.
const ROOM: usize = 1600;

const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const OUTSIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const INSIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);

#[test]
fn a_million_polls_allocate_and_free_nothing() {
    let mut bench = Bench::new();
    let (mut allocated, mut freed) = (0, 0);
    for n in 1..=POLLS {
        bench.provide(n);
        let now = Nanos::from_us(1_000_000 + 10 * n);
        let counted = measure(|| {
            bench.worker.poll(now);
        });
        allocated += counted.count_total;
        freed += i128::from(counted.count_total) - i128::from(counted.count_current);
        bench.listen();
    }
    assert_eq!((allocated, freed), (0, 0), "in {POLLS} polls");
    let counters = bench.worker.counters();
    assert_eq!(counters.metric(Metric::Opened), POLLS);
    assert_eq!(counters.metric(Metric::Sealed), POLLS);
    assert_eq!(counters.metric(Metric::FlowsAssigned), 5_000, "one for each port");
    for reason in [DropReason::Replayed, DropReason::NoPolicy] {
        assert_eq!(counters.dropped(reason), POLLS, "{reason}");
    }
    assert!(bench.heard >= POLLS / STEP, "it did tell the controller: {}", bench.heard);
}

/// A worker, one pair of SAs, and the controller's ends.
struct Bench {
    worker: Worker<PoolPort>,
    controls: Controls,
    peer: OutboundSa,
    /// From a target: to the client, and to where no policy leads.
    replies: [Vec<u8>; 2],
    heard: u64,
}

impl Bench {
    fn new() -> Self {
        let parameters = parameters();
        let (outside, inside) = (PoolPort::new(OUTSIDE_MAC), PoolPort::new(INSIDE_MAC));
        let limits = WorkerLimits { sas: 64, flows: 1 << 18 };
        let (parts, mut controls) = WorkerParts::alone(outside, inside, Box::new(Engine), limits);
        controls.lease.set(Nanos::MAX);
        controls.publisher.publish(Arc::new(tables(&parameters)));
        let reply = |to| {
            let packet = frame::udp_packet(COMMON, 80, to, 4000, b"it is me");
            frame::ethernet_frame(INSIDE_MAC, OTHER_MAC, &packet)
        };
        let mut bench = Self {
            worker: Worker::new(parts),
            controls,
            peer: OutboundSa::new(&parameters, SequenceRange::new(1, u64::from(u32::MAX))),
            replies: [reply(CLIENT), reply(STRANGER)],
            heard: 0,
        };
        let sa = Box::new(OutboundSa::new(&parameters, SequenceRange::new(1, 2 * STEP)));
        bench.order(WorkerCommand::InstallOutbound { id: parameters.inbound_spi, sa });
        let sa = Box::new(InboundSa::new(&parameters, 0, 2 * STEP));
        bench.order(WorkerCommand::InstallInbound(sa));
        bench.worker.poll(Nanos::from_us(1));
        bench
    }

    fn order(&mut self, command: WorkerCommand) {
        self.controls.commands.push(command).expect("the ring has room");
    }

    /// What poll `n` finds: a packet of a new or known flow, twice, and two from a target.
    fn provide(&mut self, n: u64) {
        let port = 1_000 + (n % 5_000) as u16;
        let mut buf = HeapBuf::from_frame(&frame::udp_packet(CLIENT, port, COMMON, 80, b"hello"));
        self.peer.seal(&mut buf).expect("the range is large");
        let header = ipv4::Repr::new(PEER, COMMON, ipv4::PROTOCOL_ESP, 0);
        let packet = frame::ipv4_packet(&header, buf.bytes());
        let arriving = frame::ethernet_frame(OUTSIDE_MAC, OTHER_MAC, &packet);
        let outside = self.worker.port_mut(Side::Outside);
        outside.deliver(&arriving);
        outside.deliver(&arriving);
        for reply in &self.replies {
            self.worker.port_mut(Side::Inside).deliver(reply);
        }
        if n.is_multiple_of(STEP) {
            let spi = Spi::new(0x1000).expect("not reserved");
            let range = SequenceRange::new(n + STEP, n + 2 * STEP);
            self.order(WorkerCommand::Grant { id: spi, range });
            self.order(WorkerCommand::Horizon { spi, horizon: n + 2 * STEP });
        }
    }

    fn listen(&mut self) {
        while self.controls.events.pop().is_some() {
            self.heard += 1;
        }
    }
}

fn parameters() -> ChildSaParameters {
    let key = || SaKey::new(AeadAlgorithm::Aes128Gcm16, &[7; 20]).expect("the right length");
    let spi = Spi::new(0x1000).expect("not reserved");
    ChildSaParameters {
        inbound_spi: spi,
        outbound_spi: spi,
        inbound_key: key(),
        outbound_key: key(),
        esn: false,
        window_packets: 1024,
        local: COMMON,
        remote: PEER,
        encapsulation: Encapsulation::Esp,
        selectors: Selectors {
            local: vec![TrafficSelector::host(COMMON)],
            remote: vec![TrafficSelector::host(CLIENT)],
        },
        connection: "test".to_owned(),
    }
}

fn tables(parameters: &ChildSaParameters) -> Tables {
    let target = TargetEntry {
        address: Ipv4Addr::new(192, 0, 2, 11),
        mac: Some(OTHER_MAC),
        draining: false,
        way: Way::Clear,
        connections: ConnectionCount::default(),
    };
    let mut tables = Tables {
        generation: 1,
        common: COMMON,
        inside: Ipv4Addr::new(192, 0, 2, 100),
        service: COMMON,
        outside_mac: OUTSIDE_MAC,
        inside_mac: INSIDE_MAC,
        outside_prefix: Prefix { address: COMMON, length: 24 },
        targets: TargetTable {
            table: Arc::new(Table::new(&[(1, 1)], 251, 1)),
            by_id: BTreeMap::from([(1, target)]),
        },
        neighbours: BTreeMap::from([(PEER, OTHER_MAC)]),
        flow_seed: 42,
        ..Tables::empty()
    };
    let reference = SaRef { worker: 0, spi: parameters.inbound_spi };
    tables.spd.insert(parameters.selectors.clone(), reference);
    tables
}

/// A port with buffers of its own, as a NIC has a pool: what is sent or dropped goes back there.
struct PoolPort {
    mac: MacAddr,
    pool: Arc<ArrayQueue<HeapBuf>>,
    received: ArrayVec<PoolBuf, BURST>,
}

impl PoolPort {
    fn new(mac: MacAddr) -> Self {
        let pool = ArrayQueue::new(BURST);
        while pool.push(HeapBuf::zeroed(ROOM)).is_ok() {}
        Self { mac, pool: Arc::new(pool), received: ArrayVec::new() }
    }

    fn deliver(&mut self, frame: &[u8]) {
        let buf = self.take(frame).expect("no buffer is lost");
        self.received.push(buf);
    }

    fn take(&self, frame: &[u8]) -> Option<PoolBuf> {
        let mut buf = self.pool.pop()?;
        buf.refill(frame);
        Some(PoolBuf { buf: Some(buf), pool: Arc::clone(&self.pool) })
    }
}

impl Port for PoolPort {
    type Buf = PoolBuf;

    fn rx(&mut self, into: &mut ArrayVec<PoolBuf, BURST>) -> usize {
        let received = self.received.len();
        into.extend(self.received.drain(..));
        received
    }

    fn tx(&mut self, from: &mut ArrayVec<PoolBuf, BURST>) -> usize {
        let sent = from.len();
        from.clear();
        sent
    }

    fn alloc(&mut self, len: usize) -> Option<PoolBuf> {
        self.take([0; ROOM].get(..len)?)
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn mtu(&self) -> u16 {
        1500
    }
}

/// A buffer that goes back to its pool when it is dropped.
struct PoolBuf {
    buf: Option<HeapBuf>,
    pool: Arc<ArrayQueue<HeapBuf>>,
}

impl Drop for PoolBuf {
    fn drop(&mut self) {
        if let Some(buf) = self.buf.take() {
            self.pool.push(buf).expect("it came from there");
        }
    }
}

impl PoolBuf {
    fn held(&self) -> &HeapBuf {
        self.buf.as_ref().expect("held until it is dropped")
    }

    fn held_mut(&mut self) -> &mut HeapBuf {
        self.buf.as_mut().expect("held until it is dropped")
    }
}

impl PacketBuf for PoolBuf {
    fn bytes(&self) -> &[u8] {
        self.held().bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.held_mut().bytes_mut()
    }

    fn headroom(&self) -> usize {
        self.held().headroom()
    }

    fn tailroom(&self) -> usize {
        self.held().tailroom()
    }

    fn prepend(&mut self, n: usize) -> Result<(), NoRoom> {
        self.held_mut().prepend(n)
    }

    fn append(&mut self, n: usize) -> Result<(), NoRoom> {
        self.held_mut().append(n)
    }

    fn trim_front(&mut self, n: usize) {
        self.held_mut().trim_front(n);
    }

    fn trim_back(&mut self, n: usize) {
        self.held_mut().trim_back(n);
    }
}
