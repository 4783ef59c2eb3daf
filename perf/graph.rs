//! The whole worker graph over in-memory frames: from the Ethernet header to handing over for
//! transmission, no NIC. `cargo bench --bench graph`.
//!
//! Frames of 64 packets, one SA, hot buffers. Each row is timed in rounds; the rows of one run may be
//! compared with each other, absolute times of different runs may not.

#![allow(clippy::print_stdout, reason = "a bench prints its table")]
#![allow(clippy::expect_used, reason = "a bench has nobody to report an impossible setup to")]

use arrayvec::ArrayVec;
use holdfast_crypto::{AeadAlgorithm, Portable};
use holdfast_datapath::{
    ConnectionCount, Counters, Handoff, LeaseCell, Metric, Prefix, RingSender, SaRef, Tables,
    TablesPublisher, TargetEntry, TargetTable, Way, Worker, WorkerCommand, WorkerLimits,
    WorkerParts, ring,
};
use holdfast_ipsec::{
    ChildSaParameters, Encapsulation, InboundSa, OutboundSa, SaKey, Selectors, SequenceRange, Spi,
    TrafficSelector,
};
use holdfast_maglev::Table;
use holdfast_packet::{BURST, HeapBuf, MacAddr, Nanos, NoRoom, PacketBuf, Port, frame, ipv4};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const OUTSIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const INSIDE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 1]);
const SPI: u32 = 0x1000;

/// Packets of one timed round; a multiple of a burst.
const PACKETS_PER_ROUND: usize = 64 * 1024;
/// Rounds of a row: enough for a median that repeats within a few per cent.
const ROUNDS: usize = 15;
/// Sizes of the inner packet in octets.
const SIZES: [usize; 5] = [64, 256, 512, 1024, 1420];
/// Room in front and behind, as an mbuf has it.
const HEADROOM: usize = 128;
const ROOM: usize = 2048;

fn main() {
    println!("| direction | aead | inner octets | ns/packet min | median | max | Mpps median |");
    println!("|---|---|---|---|---|---|---|");
    for algorithm in [AeadAlgorithm::Aes128Gcm16, AeadAlgorithm::Aes256Gcm16] {
        for size in SIZES {
            print_row("encrypt", algorithm, size, Bench::new(algorithm).encrypt(size));
            print_row("decrypt", algorithm, size, Bench::new(algorithm).decrypt(size));
        }
    }
}

fn print_row(direction: &str, algorithm: AeadAlgorithm, size: usize, mut rounds: Vec<f64>) {
    rounds.sort_by(f64::total_cmp);
    let at = |index: usize| rounds.get(index).copied().unwrap_or(f64::NAN);
    let median = at(rounds.len() / 2);
    println!(
        "| {direction} | {algorithm:?} | {size} | {:.1} | {median:.1} | {:.1} | {:.2} |",
        at(0),
        at(rounds.len() - 1),
        1000.0 / median
    );
}

/// A worker between two ports that never run dry.
struct Bench {
    worker: Worker<LoopPort>,
    commands: RingSender<WorkerCommand>,
    parameters: ChildSaParameters,
    _publisher: TablesPublisher,
    now: Nanos,
}

impl Bench {
    fn new(algorithm: AeadAlgorithm) -> Self {
        let parameters = parameters(algorithm);
        let (commands, orders) = ring(16);
        let (news, _) = ring(16);
        let mut publisher = TablesPublisher::new();
        let lease = LeaseCell::new();
        lease.set(Nanos::from_secs(1_000_000));
        let worker = Worker::new(WorkerParts {
            outside: LoopPort::new(OUTSIDE_MAC),
            inside: LoopPort::new(INSIDE_MAC),
            commands: orders,
            events: news,
            lease,
            clock: || Nanos::ZERO,
            tables: publisher.reader(),
            counters: Arc::new(Counters::new()),
            handoff: Handoff::mesh(1).remove(0),
            aead: Box::new(Portable),
            limits: WorkerLimits { sas: 64, flows: 1024 },
        });
        publisher.publish(Arc::new(tables(&parameters)));
        let now = Nanos::from_secs(1);
        Self { worker, commands, parameters, _publisher: publisher, now }
    }

    /// Nanoseconds a packet, one figure a round.
    fn encrypt(mut self, size: usize) -> Vec<f64> {
        let inner = frame::udp_packet(COMMON, 80, CLIENT, 4000, &vec![0x5a; size - 28]);
        let arriving = frame::ethernet_frame(INSIDE_MAC, OTHER_MAC, &inner);
        let round = |bench: &mut Self| {
            let range = SequenceRange::new(1, u64::from(u32::MAX));
            let sa = Box::new(OutboundSa::new(&bench.parameters, range));
            let id = bench.parameters.inbound_spi;
            bench.order(WorkerCommand::InstallOutbound { id, sa });
            bench.worker.port_mut(holdfast_packet::Side::Inside).arm(vec![arriving.clone()]);
        };
        self.rounds(Metric::Sealed, round)
    }

    /// Nanoseconds a packet, one figure a round.
    fn decrypt(mut self, size: usize) -> Vec<f64> {
        let inner = frame::udp_packet(CLIENT, 4000, COMMON, 80, &vec![0x5a; size - 28]);
        let arriving = sealed_frames(&self.parameters, &inner);
        let round = |bench: &mut Self| {
            let sa = Box::new(InboundSa::new(&bench.parameters, 0, u64::from(u32::MAX)));
            bench.order(WorkerCommand::InstallInbound(sa));
            bench.worker.port_mut(holdfast_packet::Side::Outside).arm(arriving.clone());
        };
        self.rounds(Metric::Opened, round)
    }

    fn rounds(&mut self, metric: Metric, prepare: impl Fn(&mut Self)) -> Vec<f64> {
        (0..=ROUNDS)
            .map(|_| {
                prepare(self);
                let before = self.worker.counters().metric(metric);
                let start = Instant::now();
                for _ in 0..PACKETS_PER_ROUND / BURST {
                    self.now = self.now.plus_us(1);
                    self.worker.poll(self.now);
                }
                let elapsed_ns = start.elapsed().as_secs_f64() * 1e9;
                let done = self.worker.counters().metric(metric) - before;
                assert_eq!(done, PACKETS_PER_ROUND as u64, "the graph lost packets");
                elapsed_ns / PACKETS_PER_ROUND as f64
            })
            .skip(1)
            .collect()
    }

    fn order(&mut self, command: WorkerCommand) {
        let spi = self.parameters.inbound_spi;
        let remove = match command {
            WorkerCommand::InstallInbound(_) => WorkerCommand::RemoveInbound(spi),
            _ => WorkerCommand::RemoveOutbound(spi),
        };
        for command in [remove, command] {
            self.commands.push(command).expect("the ring has room");
        }
        self.worker.poll(self.now);
    }
}

fn parameters(algorithm: AeadAlgorithm) -> ChildSaParameters {
    let octets = vec![7; SaKey::keymat_len(algorithm)];
    let key = || SaKey::new(algorithm, &octets).expect("the right length");
    ChildSaParameters {
        inbound_spi: Spi::new(SPI).expect("above 255"),
        outbound_spi: Spi::new(SPI).expect("above 255"),
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
        connection: "bench".to_owned(),
    }
}

fn tables(parameters: &ChildSaParameters) -> Tables {
    let address = Ipv4Addr::new(192, 0, 2, 11);
    let target = TargetEntry {
        address,
        mac: Some(OTHER_MAC),
        draining: false,
        way: Way::Clear,
        connections: ConnectionCount::default(),
    };
    let mut tables = Tables {
        generation: 1,
        common: COMMON,
        inside: INSIDE,
        service: COMMON,
        outside_mac: OUTSIDE_MAC,
        inside_mac: INSIDE_MAC,
        outside_prefix: Prefix { address: COMMON, length: 24 },
        targets: TargetTable {
            table: Arc::new(Table::new(&[(1, 1)], 65_537, 1)),
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

/// One frame for each packet of a round: a replay window accepts no number twice.
fn sealed_frames(parameters: &ChildSaParameters, inner: &[u8]) -> Vec<Vec<u8>> {
    let mut sa = OutboundSa::new(parameters, SequenceRange::new(1, u64::from(u32::MAX)));
    let seal = |_| {
        let mut buf = HeapBuf::from_frame(inner);
        sa.seal(&mut buf).expect("the range is large");
        let header = ipv4::Repr::new(PEER, COMMON, ipv4::PROTOCOL_ESP, 0);
        let packet = frame::ipv4_packet(&header, buf.bytes());
        frame::ethernet_frame(OUTSIDE_MAC, OTHER_MAC, &packet)
    };
    (0..PACKETS_PER_ROUND).map(seal).collect()
}

/// A port that receives prepared frames, over and over, and forgets what it sends. Its buffers are
/// recycled, so that no allocation is timed; the copy into them stands for the NIC's.
struct LoopPort {
    mac: MacAddr,
    frames: Vec<Vec<u8>>,
    next: usize,
    left: usize,
    free: Vec<PooledBuf>,
}

impl LoopPort {
    fn new(mac: MacAddr) -> Self {
        let free = (0..4 * BURST).map(|_| PooledBuf::empty()).collect();
        Self { mac, frames: Vec::new(), next: 0, left: 0, free }
    }

    fn arm(&mut self, frames: Vec<Vec<u8>>) {
        self.frames = frames;
        self.next = 0;
        self.left = PACKETS_PER_ROUND;
    }
}

impl Port for LoopPort {
    type Buf = PooledBuf;

    fn rx(&mut self, into: &mut ArrayVec<PooledBuf, BURST>) -> usize {
        let mut received = 0;
        while self.left > 0 && !into.is_full() {
            let mut buf = self.free.pop().unwrap_or_else(PooledBuf::empty);
            if let Some(frame) = self.frames.get(self.next) {
                buf.fill(frame);
            }
            self.next = if self.next + 1 < self.frames.len() { self.next + 1 } else { 0 };
            self.left -= 1;
            received += 1;
            into.push(buf);
        }
        received
    }

    fn tx(&mut self, from: &mut ArrayVec<PooledBuf, BURST>) -> usize {
        let sent = from.len();
        self.free.extend(from.drain(..));
        sent
    }

    fn alloc(&mut self, _len: usize) -> Option<PooledBuf> {
        self.free.pop()
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn mtu(&self) -> u16 {
        1500
    }
}

/// A buffer laid out like an mbuf: room in front, the packet, room behind.
struct PooledBuf {
    room: Box<[u8; ROOM]>,
    start: usize,
    end: usize,
}

impl PooledBuf {
    fn empty() -> Self {
        Self { room: Box::new([0; ROOM]), start: HEADROOM, end: HEADROOM }
    }

    fn fill(&mut self, frame: &[u8]) {
        self.start = HEADROOM;
        self.end = HEADROOM + frame.len();
        self.room[self.start..self.end].copy_from_slice(frame);
    }
}

impl PacketBuf for PooledBuf {
    fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.end]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn tailroom(&self) -> usize {
        ROOM - self.end
    }

    fn prepend(&mut self, n: usize) -> Result<(), NoRoom> {
        self.start = self.start.checked_sub(n).ok_or(NoRoom)?;
        Ok(())
    }

    fn append(&mut self, n: usize) -> Result<(), NoRoom> {
        let end = self.end + n;
        if end > ROOM {
            return Err(NoRoom);
        }
        self.end = end;
        Ok(())
    }

    fn trim_front(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    fn trim_back(&mut self, n: usize) {
        self.end = self.end.saturating_sub(n).max(self.start);
    }
}
