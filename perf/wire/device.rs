//! Our device under test, in a process of its own: the worker between two real DPDK ports.
//!
//! The loop is the one of the appliance's worker threads that never idle: read the clock, poll. The
//! ports, the buffers and the AEAD are the appliance's, too.
//!
//! A replay that goes on for ever repeats its sequence numbers, and our worker always checks for
//! replays. So each time around, the control path gives it the SA anew, as a rekeying does, and that is
//! within the time that counts.

use crate::case::{Case, PACKETS};
use crate::meter::Meter;
use crate::support::setup::{self, Direction};
use crossbeam::utils::CachePadded;
use holdfast::clock;
use holdfast_crypto::Engine;
use holdfast_datapath::{COMMANDS_PER_POLL, Controls, Counters, RingSender, Worker, WorkerCommand};
use holdfast_dpdk_wrap::{
    Device, Eal, EalConfig, Mempool, MempoolOptions, Port, PortOptions, QueuePair,
    RegisteredThread, Started,
};
use holdfast_ipsec::DropReason;
use holdfast_packet::{ArrayVec, Port as _};
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Packet memory: the replayed packets and those on their way, and the drivers' rings.
const MEMORY_MB: u32 = 128;
const BUFFERS: u32 = 16_383;
/// Packets a second for which SAs are made beforehand.
const FASTEST_PPS: u64 = 30_000_000;
/// How often the control path looks at the worker's news.
const LOOK: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(1);
/// A replay that ends is through in this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the process is to do.
pub(crate) struct Order {
    pub(crate) case: Case,
    /// The file with the packets to receive.
    pub(crate) replay: String,
    /// Only what the ports cost: packets leave as they came.
    pub(crate) ports_alone: bool,
    /// Where packets sent go. Without it the replay goes on for ever, and they go nowhere.
    pub(crate) capture: Option<String>,
    /// The processor to poll on.
    pub(crate) cpu: usize,
    /// Windows of a second to tell about.
    pub(crate) windows: u32,
}

/// Works, and writes for each window `packets dropped nanoseconds` to standard output, the time being
/// that of the worker on its processor.
pub(crate) fn run(order: &Order) {
    let [from, to] = devices(order);
    let config = EalConfig {
        memory_mb: MEMORY_MB,
        ..EalConfig::new(vec![from.clone(), to.clone()], "wire")
    };
    let eal = Eal::start(&config).expect("DPDK starts");
    let options = MempoolOptions { buffers: BUFFERS, ..MempoolOptions::default() };
    let pool = Mempool::new(eal, "packets", &options).expect("there is memory");
    let (_from, from_queue) = open(eal, &from, pool);
    let (_to, to_queue) = open(eal, &to, pool);
    if order.ports_alone {
        return ports_alone(order, eal, from_queue, to_queue);
    }
    let (outside, inside) = match order.case.direction {
        Direction::Encrypt => (to_queue, from_queue),
        Direction::Decrypt => (from_queue, to_queue),
    };
    let (mut parts, controls) = setup::parts(outside, inside, &order.case.load, Box::new(Engine));
    parts.clock = clock::now;
    let Controls { commands, events, publisher: _publisher, lease: _lease } = controls;
    let life = Life::new(order, Worker::new(parts), commands);
    let counters = Arc::clone(life.worker.counters());
    let stop = AtomicBool::new(false);
    let metric = order.case.direction.metric();
    let count = || (counters.metric(metric), dropped(&counters));
    let control = || while events.pop().is_some() {};
    accompany(order, &count, &control, &stop, || life.lead(eal, order.cpu, &stop));
}

/// Takes packets from one port and gives them to the other.
fn ports_alone(order: &Order, eal: Eal, mut from: QueuePair, mut to: QueuePair) {
    let (stop, sent) = (AtomicBool::new(false), CachePadded::new(AtomicU64::new(0)));
    let count = || (sent.load(Ordering::Relaxed), 0);
    accompany(order, &count, &|| {}, &stop, || {
        let identity = settle(eal, order.cpu);
        let mut burst = ArrayVec::new();
        while !stop.load(Ordering::Relaxed) {
            from.rx(&mut burst);
            let n = to.tx(&mut burst) as u64;
            sent.store(sent.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        }
        drop((from, to));
        drop(identity);
    });
}

/// Lets `work` run in a thread, tells what it counts, packets and those lost, and stops it.
fn accompany(
    order: &Order,
    count: &dyn Fn() -> (u64, u64),
    control: &dyn Fn(),
    stop: &AtomicBool,
    work: impl FnOnce() + Send,
) {
    thread::scope(|scope| {
        let (say, thread) = mpsc::channel();
        scope.spawn(move || {
            say.send(gettid().as_raw_nonzero().get()).expect("somebody listens");
            work();
        });
        let meter = Meter::of(std::process::id(), thread.recv().expect("the thread runs"));
        let start = Instant::now();
        if order.capture.is_some() {
            let whole = || count().0 + count().1 >= PACKETS as u64;
            wait(control, || whole() || start.elapsed() > PATIENCE);
            println!("{} {} 0", count().0, count().1);
        } else {
            (0..order.windows).for_each(|_| window(count, control, &meter));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Tells what goes through in a second.
fn window(count: &dyn Fn() -> (u64, u64), control: &dyn Fn(), meter: &Meter) {
    let ((done, lost), start, busy) = (count(), Instant::now(), meter.busy());
    wait(control, || start.elapsed() >= WINDOW);
    let (after, elapsed_ns) = (count(), (meter.busy() - busy).as_nanos());
    println!("{} {} {elapsed_ns}", after.0 - done, after.1 - lost);
}

/// Does what the controller does meanwhile.
fn wait(control: &dyn Fn(), is_over: impl Fn() -> bool) {
    while !is_over() {
        control();
        thread::sleep(LOOK);
    }
}

/// Binds this thread to its processor and has DPDK know it.
fn settle(eal: Eal, cpu: usize) -> RegisteredThread {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).expect("the processor is ours");
    RegisteredThread::register(eal).expect("DPDK has room for a thread")
}

fn devices(order: &Order) -> [Device; 2] {
    let replay = &order.replay;
    let (from, to) = match &order.capture {
        Some(file) => (format!("net_pcap0,rx_pcap={replay}"), format!("net_pcap1,tx_pcap={file}")),
        None => {
            (format!("net_pcap0,rx_pcap={replay},infinite_rx=1"), "net_null1,no-rx=1".to_owned())
        }
    };
    [from, to].map(|text| text.parse().expect("it names a device"))
}

fn open(eal: Eal, device: &Device, pool: Mempool) -> (Port<Started>, QueuePair) {
    let port = Port::open(eal, device.port_name()).expect("the port is there");
    let (port, mut queues) = port.start(&PortOptions::default(), pool).expect("the port starts");
    (port, queues.remove(0))
}

/// The worker and the commands it gets without being asked.
struct Life {
    worker: Worker<QueuePair>,
    commands: RingSender<WorkerCommand>,
    /// The SAs for each time around the replay but the first, last ones first.
    renewals: Vec<WorkerCommand>,
    sas: usize,
}

impl Life {
    fn new(order: &Order, worker: Worker<QueuePair>, commands: RingSender<WorkerCommand>) -> Self {
        let Case { direction, load } = order.case;
        // All of them are there before the first packet is looked at.
        assert!(load.sas as usize <= COMMANDS_PER_POLL, "too many SAs for a replay");
        for sa in 0..load.sas {
            commands.push(direction.installation(&load, sa)).expect("the ring has room");
        }
        let endless = order.capture.is_none() && direction == Direction::Decrypt;
        let rounds = FASTEST_PPS * u64::from(order.windows + 1) / PACKETS as u64;
        let renewals = (0..if endless { rounds } else { 0 })
            .flat_map(|_| (0..load.sas).map(|sa| direction.installation(&load, sa)))
            .collect();
        Self { worker, commands, renewals, sas: load.sas as usize }
    }

    fn lead(mut self, eal: Eal, cpu: usize, stop: &AtomicBool) {
        let identity = settle(eal, cpu);
        let (mut left, mut pushed) = (PACKETS, self.sas);
        while !stop.load(Ordering::Relaxed) {
            let polled = self.worker.poll(clock::now());
            left -= polled.packets - pushed;
            pushed = 0;
            if left == 0 {
                left = PACKETS;
                pushed = self.renew();
            }
        }
        // Buffers go back while the thread still has its cache.
        drop(self);
        drop(identity);
    }

    /// Gives the worker the SAs of the next time around; returns how many.
    fn renew(&mut self) -> usize {
        let first = self.renewals.len().saturating_sub(self.sas);
        let renewals = self.renewals.drain(first..);
        renewals.map(|order| self.commands.push(order).expect("the ring has room")).count()
    }
}

fn dropped(counters: &Counters) -> u64 {
    DropReason::ALL.iter().map(|reason| counters.dropped(*reason)).sum()
}
