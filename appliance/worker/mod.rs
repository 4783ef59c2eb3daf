//! The workers' shell: DPDK, ports and threads around [`holdfast_datapath::Worker`].
//!
//! What it is: it starts DPDK, takes the two ports, gives every worker one queue of each, runs the
//! workers in threads of their own and carries commands and events. What it is not: it never looks
//! into a packet.
//!
//! ```text
//!   controller thread                                     worker thread N
//!   WorkerSet::send     ── command ring ──────────────>  ┌─> clock::now
//!   WorkerSet::receive  <─ event ring ─────────────────  │   Worker::poll(now)
//!   wake()              <─ Bell, when events are new ──  │   idle? sleep a moment
//!   TablesPublisher, LeaseCell, Counters  ── shared ──>  └── stop?
//!
//!   outside port ══ queue N ══╗
//!                             ╠═ Worker N     one memory pool for both ports
//!   inside port  ══ queue N ══╝
//! ```
//!
//! Contract:
//! * [`start`] returns when every worker polls. DPDK starts once in a process, so it is called once;
//! * a worker whose controller is stuck falls silent when its lease ends; a worker that is stuck
//!   itself stops counting polls, which [`WorkerSet::is_stuck`] tells within about a lease;
//! * dropping the [`WorkerSet`] joins the threads, then stops and closes the ports.

mod idle;
mod ports;
mod thread;

pub use idle::IdlePolicy;

use crate::config;
use holdfast_crypto::Engine;
use holdfast_datapath::{
    COMMAND_RING, Counters, EVENT_RING, Handoff, LeaseCell, Metric, RingReceiver, RingSender,
    TablesPublisher, Worker, WorkerCommand, WorkerEvent, WorkerLimits, WorkerParts, ring,
};
use holdfast_dpdk_wrap::{DpdkError, Mbuf, PortStatistics, QueuePair};
use holdfast_member::WorkerWatch;
use holdfast_packet::{MacAddr, Nanos, Side};
use holdfast_replica::Timing;
use ports::{OpenPort, Ports};
use std::fmt;
use std::io;
use std::sync::Arc;
use thread::{Bell, ThreadOptions, WorkerThread};

/// What the workers are started with.
pub struct WorkerPlan {
    /// The port towards the peers.
    pub outside: config::Port,
    /// The port towards the targets.
    pub inside: config::Port,
    /// The way to the target on this host, if there is one.
    pub local: Option<config::Local>,
    /// How DPDK is started and how the workers idle.
    pub dpdk: config::Dpdk,
    /// Whether this member is the owner.
    pub lease: LeaseCell,
    /// The member's clockwork: a stuck worker is found as fast as a dead member.
    pub timing: Timing,
    /// Called from a worker thread when events wait and the controller has not been called since
    /// it last found none. Must be quick.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// Why the workers cannot be started. The configuration or the system is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// DPDK refused, or the configuration names no device.
    #[error(transparent)]
    Dpdk(#[from] DpdkError),
    /// A worker needs a queue on both sides.
    #[error(
        "both ports need the same number of queues, at least 1: outside {outside}, inside {inside}"
    )]
    QueuesDiffer {
        /// Queues of the outside port.
        outside: u16,
        /// Queues of the inside port.
        inside: u16,
    },
    /// The host's end of the way to the target on this host is not there.
    #[error("local.interface {interface}: {source}")]
    LocalInterface {
        /// The interface.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// The packet pool does not fit.
    #[error("dpdk.memory_mb is {memory_mb}; this many queues need {needed_mb}")]
    TooLittleMemory {
        /// What is needed.
        needed_mb: u64,
        /// What is configured.
        memory_mb: u32,
    },
    /// A worker cannot be bound to its CPU.
    #[error("dpdk.cpus names CPU {cpu}, which this process may not use")]
    NoSuchCpu {
        /// The CPU.
        cpu: usize,
    },
    /// The system starts no thread.
    #[error("a worker thread cannot be started: {0}")]
    Thread(io::Error),
    /// A worker thread ended before it polled.
    #[error("worker {worker} ended while it was set up")]
    Died {
        /// The worker.
        worker: u32,
    },
}

/// The running workers, in the controller's hands.
#[derive(Debug)]
pub struct WorkerSet {
    /// Before the ports, so that threads end before their ports stop.
    threads: Vec<WorkerThread>,
    workers: Vec<Controls>,
    /// Outside and inside; `None` for a witness.
    ports: Option<(OpenPort, OpenPort)>,
    /// Kept open for as long as the workers use it.
    #[allow(dead_code, reason = "dropping it closes the port")]
    local: Option<OpenPort>,
}

/// The controller's ends of one worker.
#[derive(Debug)]
struct Controls {
    commands: RingSender<WorkerCommand>,
    events: RingReceiver<WorkerEvent>,
    counters: Arc<Counters>,
    bell: Arc<Bell>,
    watch: WorkerWatch,
}

/// Starts DPDK, the ports and one thread for each queue pair. The workers poll at once; without a
/// lease and with the empty tables of a new publisher they forward nothing.
///
/// # Errors
/// See [`WorkerError`]. DPDK cannot be started a second time in the same process.
pub fn start(plan: &WorkerPlan, tables: &mut TablesPublisher) -> Result<WorkerSet, WorkerError> {
    let Ports { eal, outside, inside, local, local_queues, queues } = ports::open(plan)?;
    let station = local.as_ref().map(|(_, station)| *station);
    let mut local_queues = local_queues.into_iter();
    let count = u32::try_from(queues.len()).unwrap_or(u32::MAX);
    let local = local.map(|(port, _)| port);
    let mut set = WorkerSet { ports: Some((outside, inside)), local, ..WorkerSet::none() };
    for (number, (queues, handoff)) in
        (0..count).zip(queues.into_iter().zip(Handoff::<Mbuf>::mesh(count)))
    {
        let (controls, mut worker) = assemble(plan, tables, queues, handoff);
        if let (Some(queue), Some(station)) = (local_queues.next(), station) {
            worker = worker.with_local(queue, station);
        }
        let options = ThreadOptions {
            worker: number,
            cpu: plan.dpdk.cpus.get(number as usize).copied(),
            idle: idle_policy(plan.dpdk.idle),
        };
        let bell = Arc::clone(&controls.bell);
        let thread = WorkerThread::start(eal, options, bell, move |now| worker.poll(now))?;
        set.threads.push(thread);
        set.workers.push(controls);
    }
    Ok(set)
}

fn assemble(
    plan: &WorkerPlan,
    tables: &mut TablesPublisher,
    (outside, inside): (QueuePair, QueuePair),
    handoff: Handoff<Mbuf>,
) -> (Controls, Worker<QueuePair>) {
    let (command_sender, commands) = ring(COMMAND_RING);
    let (events, event_receiver) = ring(EVENT_RING);
    let counters = Arc::new(Counters::new());
    let worker = Worker::new(WorkerParts {
        outside,
        inside,
        commands,
        events,
        lease: plan.lease.clone(),
        clock: crate::clock::now,
        tables: tables.reader(),
        counters: Arc::clone(&counters),
        handoff,
        aead: Box::new(Engine),
        limits: WorkerLimits::default(),
    });
    let controls = Controls {
        commands: command_sender,
        events: event_receiver,
        counters,
        bell: Arc::new(Bell::new(Arc::clone(&plan.wake))),
        watch: WorkerWatch::new(plan.timing),
    };
    (controls, worker)
}

const fn idle_policy(idle: config::Idle) -> IdlePolicy {
    match idle {
        config::Idle::Busy => IdlePolicy::BusyPoll,
        config::Idle::Adaptive => IdlePolicy::Adaptive { sleep_us: IdlePolicy::SLEEP_US_DEFAULT },
    }
}

impl WorkerSet {
    /// No workers, no ports, no DPDK: what a witness has.
    pub const fn none() -> Self {
        Self { threads: Vec::new(), workers: Vec::new(), ports: None, local: None }
    }

    /// How many workers there are; they are numbered from 0.
    pub fn count(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// The outside port's station address.
    pub fn outside_mac(&self) -> MacAddr {
        self.port(Side::Outside).map_or(MacAddr::ZERO, |port| port.mac)
    }

    /// The inside port's station address.
    pub fn inside_mac(&self) -> MacAddr {
        self.port(Side::Inside).map_or(MacAddr::ZERO, |port| port.mac)
    }

    /// Gives a command to a worker.
    ///
    /// # Errors
    /// The command itself when the ring is full or there is no such worker.
    pub fn send(&self, worker: u32, command: WorkerCommand) -> Result<(), WorkerCommand> {
        match self.workers.get(worker as usize) {
            Some(controls) => controls.commands.push(command),
            None => Err(command),
        }
    }

    /// Takes the oldest event of a worker. After `None` the next event wakes the controller.
    pub fn receive(&self, worker: u32) -> Option<WorkerEvent> {
        let controls = self.workers.get(worker as usize)?;
        controls.events.pop().or_else(|| {
            controls.bell.rearm();
            controls.events.pop()
        })
    }

    /// What each worker counts, in order of their numbers.
    pub fn counters(&self) -> impl Iterator<Item = &Arc<Counters>> {
        self.workers.iter().map(|controls| &controls.counters)
    }

    /// Whether a worker does not poll and will not by itself: to be called at every tick.
    pub fn is_stuck(&mut self, worker: u32, now: Nanos) -> bool {
        let thread = self.threads.get(worker as usize);
        self.workers.get_mut(worker as usize).is_some_and(|controls| {
            let polls = controls.counters.metric(Metric::Polls);
            controls.watch.is_stuck(now, polls, || thread.and_then(WorkerThread::sight))
        })
    }

    /// Whether frames can pass on a side. Asks the driver, which may ask the kernel.
    pub fn link_up(&self, side: Side) -> bool {
        self.port(side).is_some_and(OpenPort::link_up)
    }

    /// The counters of a side's port; zeros when the device is gone.
    pub fn port_statistics(&self, side: Side) -> PortStatistics {
        self.port(side).map(OpenPort::statistics).unwrap_or_default()
    }

    /// Stops the workers and closes the ports.
    pub fn stop(self) {}

    fn port(&self, side: Side) -> Option<&OpenPort> {
        let (outside, inside) = self.ports.as_ref()?;
        Some(match side {
            Side::Outside => outside,
            Side::Inside => inside,
        })
    }
}

impl fmt::Debug for WorkerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPlan")
            .field("outside", &self.outside)
            .field("inside", &self.inside)
            .field("dpdk", &self.dpdk)
            .finish_non_exhaustive()
    }
}
