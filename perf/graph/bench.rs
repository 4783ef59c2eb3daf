//! One worker between two ports, and rounds of packets through it.

use crate::clock::Tsc;
use crate::frames::{COMMON, Frames, INSIDE_MAC, Load, OTHER_MAC, OUTSIDE_MAC, SERVICE};
use crate::port::{LoopPort, PooledBuf};
use holdfast_crypto::{AeadBurst, OpenJob, SealJob};
use holdfast_datapath::{
    ConnectionCount, Counters, Handoff, LeaseCell, Metric, Prefix, RingReceiver, RingSender, SaRef,
    Tables, TablesPublisher, TargetEntry, TargetTable, Way, Worker, WorkerCommand, WorkerEvent,
    WorkerLimits, WorkerParts, ring,
};
use holdfast_ipsec::{InboundSa, OutboundSa, SequenceRange};
use holdfast_maglev::{DEFAULT_SIZE, Table};
use holdfast_packet::{BURST, Nanos, Side};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

/// Packets of one timed round: as many as a vector of the comparison, so that their buffers stay in
/// the second level cache.
pub(crate) const PACKETS_PER_ROUND: usize = 256;
/// Rounds of a run. A run counts as its median round, which a busy neighbour does not move.
pub(crate) const ROUNDS_PER_RUN: usize = 60;
/// Time that passes in a poll: twelve million packets a second.
const POLL_US: u64 = 5;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
const TARGETS: u64 = 3;

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

/// No cryptography at all: what is left is the graph's own.
pub(crate) struct NoAead;

impl AeadBurst for NoAead {
    fn seal(&self, _jobs: &mut [SealJob<'_>]) {}

    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.ok = true;
        }
    }

    fn name(&self) -> &'static str {
        "none"
    }
}

/// A worker with its SAs, and the frames it will be given.
pub(crate) struct Bench {
    worker: Worker<LoopPort>,
    commands: RingSender<WorkerCommand>,
    events: RingReceiver<WorkerEvent>,
    _publisher: TablesPublisher,
    now: Nanos,
    direction: Direction,
    frames: Frames,
    next: usize,
    pool: Vec<PooledBuf>,
}

impl Bench {
    /// Every flow has been seen once when it is ready.
    pub(crate) fn new(
        direction: Direction,
        load: &Load,
        aead: Box<dyn AeadBurst>,
        runs: usize,
    ) -> Self {
        let warm_up = load.sas.max(load.flows).max(16_384) as usize;
        let timed = runs * ROUNDS_PER_RUN * PACKETS_PER_ROUND;
        let frames = match direction {
            Direction::Encrypt => Frames::plain(load),
            Direction::Decrypt => Frames::esp(
                load,
                (warm_up + timed).next_multiple_of(PACKETS_PER_ROUND),
                aead.name() != "none",
            ),
        };
        let mut bench = Self::assemble(direction, load, aead, frames);
        bench.install(load);
        for _ in 0..warm_up.div_ceil(PACKETS_PER_ROUND) {
            bench.round();
        }
        bench
    }

    fn assemble(
        direction: Direction,
        load: &Load,
        aead: Box<dyn AeadBurst>,
        frames: Frames,
    ) -> Self {
        let (commands, orders) = ring(4096);
        let (news, events) = ring(4096);
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
            aead,
            limits: WorkerLimits { sas: load.sas.max(64) as usize, flows: 2 * load.flows as usize },
        });
        publisher.publish(Arc::new(tables(load)));
        let now = Nanos::from_secs(1);
        let pool = Vec::new();
        Self {
            worker,
            commands,
            events,
            _publisher: publisher,
            now,
            direction,
            frames,
            next: 0,
            pool,
        }
    }

    fn install(&mut self, load: &Load) {
        for sa in 0..load.sas {
            let parameters = load.parameters(sa);
            let command = match self.direction {
                Direction::Encrypt => WorkerCommand::InstallOutbound {
                    id: parameters.inbound_spi,
                    sa: Box::new(OutboundSa::new(
                        &parameters,
                        SequenceRange::new(1, u64::from(u32::MAX)),
                    )),
                },
                Direction::Decrypt => WorkerCommand::InstallInbound(Box::new(InboundSa::new(
                    &parameters,
                    0,
                    u64::from(u32::MAX),
                ))),
            };
            self.commands.push(command).expect("the ring has room");
            while self.worker.has_work() {
                self.worker.poll(self.now);
            }
        }
    }

    /// Cycles a packet: the median round of a run.
    pub(crate) fn run(&mut self, tsc: Tsc) -> f64 {
        let mut rounds: Vec<f64> = (0..ROUNDS_PER_RUN)
            .map(|_| tsc.cycles(self.round()) / PACKETS_PER_ROUND as f64)
            .collect();
        rounds.sort_by(f64::total_cmp);
        rounds[ROUNDS_PER_RUN / 2]
    }

    /// Fills the buffers, and times only what the worker does with them.
    fn round(&mut self) -> std::time::Duration {
        let (from, to, metric) = match self.direction {
            Direction::Encrypt => (Side::Inside, Side::Outside, Metric::Sealed),
            Direction::Decrypt => (Side::Outside, Side::Inside, Metric::Opened),
        };
        for _ in 0..PACKETS_PER_ROUND {
            let frame = self.frames.get(self.next);
            self.next = if self.next + 1 < self.frames.len() { self.next + 1 } else { 0 };
            self.worker.port_mut(from).put(frame, &mut self.pool);
        }
        self.worker.port_mut(from).ready();
        let before = self.worker.counters().metric(metric);
        let start = Instant::now();
        for _ in 0..PACKETS_PER_ROUND / BURST {
            self.now = self.now.plus_us(POLL_US);
            self.worker.poll(self.now);
        }
        let elapsed = start.elapsed();
        let done = self.worker.counters().metric(metric) - before;
        let sent = self.worker.port_mut(to).take_sent(&mut self.pool);
        assert_eq!(
            (done, sent),
            (PACKETS_PER_ROUND as u64, PACKETS_PER_ROUND),
            "lost: {:?}",
            self.worker.counters()
        );
        while self.events.pop().is_some() {}
        elapsed
    }
}

fn tables(load: &Load) -> Tables {
    let target = |id: u64| TargetEntry {
        address: Ipv4Addr::new(203, 0, 113, id as u8),
        mac: Some(OTHER_MAC),
        draining: false,
        way: Way::Clear,
        connections: ConnectionCount::default(),
    };
    let weights: Vec<(u64, u32)> = (1..=TARGETS).map(|id| (id, 1)).collect();
    let mut tables = Tables {
        generation: 1,
        common: COMMON,
        inside: Ipv4Addr::new(203, 0, 113, 100),
        service: SERVICE,
        outside_mac: OUTSIDE_MAC,
        inside_mac: INSIDE_MAC,
        outside_prefix: Prefix { address: COMMON, length: 24 },
        gateway: Some(GATEWAY),
        targets: TargetTable {
            table: Arc::new(Table::new(&weights, DEFAULT_SIZE, 1)),
            by_id: (1..=TARGETS).map(|id| (id, target(id))).collect(),
        },
        neighbours: BTreeMap::from([(GATEWAY, OTHER_MAC)]),
        flow_seed: 42,
        ..Tables::empty()
    };
    for sa in 0..load.sas {
        let parameters = load.parameters(sa);
        let reference = SaRef { worker: 0, spi: parameters.inbound_spi };
        tables.spd.insert(parameters.selectors, reference);
    }
    tables
}
