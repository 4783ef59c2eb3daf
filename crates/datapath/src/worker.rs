//! The worker: one thread's whole life is calling [`Worker::poll`].

use crate::command::{LIST_LIMIT, Retired, WorkerCommand, WorkerEvent};
use crate::counters::{Counters, Metric};
use crate::cut::SetAside;
use crate::events::EventSink;
use crate::flows::{FLOWS, FlowTable};
use crate::fragments::FragmentTable;
use crate::handoff::{HandedOff, Handoff};
use crate::handover::{Handover, Stance};
use crate::hops::Hops;
use crate::io::{Guard, Io};
use crate::lease::{LeaseCell, LeaseState};
use crate::mutation::{Mutation, mutated};
use crate::reassembly::Reassembly;
use crate::ring::{RingReceiver, RingSender};
use crate::sad::{SAS_PER_WORKER, Sad};
use crate::tables::{Pace, Tables, TablesReader};
use arrayvec::ArrayVec;
use holdfast_crypto::AeadBurst;
use holdfast_ipsec::DropReason;
use holdfast_packet::{BURST, FlowKey, MacAddr, Nanos, Port, Side, arp, ethernet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Commands taken in one poll, so that a mass installation does not stop the packets.
pub const COMMANDS_PER_POLL: usize = 64;

/// How much a worker remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Pairs of SAs.
    pub sas: usize,
    /// Flows, rounded up to a power of two.
    pub flows: usize,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self { sas: SAS_PER_WORKER, flows: FLOWS }
    }
}

/// Everything a worker is made of. Its number is the one of its `handoff`.
pub struct WorkerParts<P: Port> {
    /// Its queue of the outside port.
    pub outside: P,
    /// Its queue of the inside port.
    pub inside: P,
    /// Orders of the controller.
    pub commands: RingReceiver<WorkerCommand>,
    /// News for the controller.
    pub events: RingSender<WorkerEvent>,
    /// Whether this member is the owner.
    pub lease: LeaseCell,
    /// What the lease is compared with right before a burst leaves.
    pub clock: fn() -> Nanos,
    /// What all workers know alike.
    pub tables: TablesReader,
    /// What it counts; nobody else may write there.
    pub counters: Arc<Counters>,
    /// Its place among the workers.
    pub handoff: Handoff<P::Buf>,
    /// How it opens and seals.
    pub aead: Box<dyn AeadBurst>,
    /// How much it remembers; all of it is allocated at once.
    pub limits: WorkerLimits,
}

impl<P: Port> fmt::Debug for WorkerParts<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerParts")
            .field("handoff", &self.handoff)
            .field("aead", &self.aead.name())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What one poll did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PollResult {
    /// Packets received or taken over and commands taken, and one while SAs are reported or kept frames
    /// treated; 0 means idle.
    pub packets: usize,
    /// The controller should look at its event ring.
    pub events_pushed: bool,
}

/// Moves packets between two ports: ESP to clear and clear to ESP.
///
/// Without a valid lease it answers nothing and forwards nothing (first law). ARP still reaches the
/// controller, so that a standby knows its neighbours, and of what the controller wants sent only
/// ARP probes leave, for they claim no address.
pub struct Worker<P: Port> {
    commands: RingReceiver<WorkerCommand>,
    lease: LeaseCell,
    tables: TablesReader,
    counters: Arc<Counters>,
    nodes: Nodes<P>,
}

/// What is the same for all packets of a poll.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) now: Nanos,
    /// What packets are judged by.
    pub(crate) lease: LeaseState,
    /// Whether this member may say that the addresses are here.
    pub(crate) voice: LeaseState,
    pub(crate) tables: &'a Tables,
    pub(crate) counters: &'a Counters,
}

impl Context<'_> {
    /// Counts a packet that goes no further; its buffer is freed by the caller letting it go.
    pub(crate) fn drop_packet(&self, reason: DropReason) {
        self.counters.drop_packet(reason);
    }
}

/// Where a burst comes from. A packet that has been handed over once is not handed over again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Port,
    OtherWorker,
}

/// What the nodes work on. Each node is a method over at most [`BURST`] packets; see the sibling
/// modules `outside`, `inbound`, `distribute`, `inside`, `outbound` and `local`.
pub(crate) struct Nodes<P: Port> {
    pub(crate) io: Io<P>,
    pub(crate) events: EventSink,
    pub(crate) sad: Sad,
    pub(crate) flows: FlowTable,
    pub(crate) hops: Hops,
    /// Fragments from outside.
    pub(crate) reassembly: Reassembly<P::Buf>,
    /// Fragments from peers, each with its flow.
    pub(crate) fragments: FragmentTable<(P::Buf, FlowKey)>,
    pub(crate) handoff: Handoff<P::Buf>,
    pub(crate) handover: Handover<P::Buf>,
    pub(crate) aead: Box<dyn AeadBurst>,
    /// Low bits of our SPIs that name the worker.
    pub(crate) spi_mask: u32,
    pub(crate) unknown_spi: Pace,
    pub(crate) path_reports: Pace,
    pub(crate) too_big_left: usize,
    /// Packets of this burst that go on in fragments.
    pub(crate) too_long: SetAside<P::Buf>,
}

impl<P: Port> Worker<P> {
    /// A worker that has not polled yet. Allocates all it will need.
    pub fn new(parts: WorkerParts<P>) -> Self {
        let spi_mask = parts.handoff.workers().next_power_of_two() - 1;
        let guard = Guard::new(parts.lease.clone(), parts.clock);
        Self {
            commands: parts.commands,
            lease: parts.lease,
            tables: parts.tables,
            counters: Arc::clone(&parts.counters),
            nodes: Nodes {
                io: Io::new(parts.outside, parts.inside, parts.counters, guard),
                events: EventSink::new(parts.events),
                sad: Sad::new(parts.limits.sas, spi_mask.count_ones()),
                flows: FlowTable::new(parts.limits.flows),
                hops: Hops::new(),
                reassembly: Reassembly::new(),
                fragments: FragmentTable::new(),
                handoff: parts.handoff,
                handover: Handover::new(),
                aead: parts.aead,
                spi_mask,
                unknown_spi: Pace::default(),
                path_reports: Pace::default(),
                too_big_left: 0,
                too_long: SetAside::new(),
            },
        }
    }

    /// Adds a port to the target on this member's own host; the host's end of it is `station`.
    /// [`crate::Way::Local`] leads there.
    #[must_use]
    pub fn with_local(mut self, port: P, station: MacAddr) -> Self {
        self.nodes.io.set_local(port, station);
        self
    }

    /// The port to the target on this host, for the simulator to exchange frames with.
    pub fn local_port_mut(&mut self) -> Option<&mut P> {
        self.nodes.io.local_port_mut()
    }

    /// One round: at most one burst from each side and from the other workers.
    ///
    /// The tables are looked at before the commands: so an SA whose installation was pushed before
    /// a table naming it was published is there when the table is. The lease is looked at after
    /// both, and compared with `now`, which the caller must have read after the previous round.
    pub fn poll(&mut self, now: Nanos) -> PollResult {
        self.tables.refresh();
        let Self { commands, lease, tables, counters, nodes } = self;
        let tables = tables.current();
        let judge = || {
            let unheeded = mutated(Mutation::LeaseUnheeded);
            let state = if unheeded { LeaseState::Valid } else { lease.state(now) };
            Context { now, lease: state, voice: state, tables, counters }
        };
        nodes.begin();
        let mut packets = nodes.take_commands(judge, commands);
        let context = nodes.take_stance(judge());
        nodes.give_up_reassembly(&context);
        nodes.give_up_fragments(&context);
        packets += nodes.receive(&context, Side::Outside);
        packets += nodes.receive(&context, Side::Inside);
        packets += nodes.receive_local(&context);
        packets += nodes.take_over(&context);
        packets += usize::from(nodes.handover.is_busy());
        nodes.io.flush();
        counters.add(Metric::Polls, 1);
        counters.add(Metric::BusyPolls, u64::from(packets > 0));
        PollResult { packets, events_pushed: nodes.events.pushed() }
    }

    /// This worker's number.
    pub fn id(&self) -> u32 {
        self.nodes.handoff.own()
    }

    /// One of its ports.
    pub fn port(&self, side: Side) -> &P {
        self.nodes.io.port(side)
    }

    /// One of its ports, for the simulator to exchange frames with.
    pub fn port_mut(&mut self, side: Side) -> &mut P {
        self.nodes.io.port_mut(side)
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// True when a packet of another worker or a command waits: not the moment to sleep.
    pub fn has_work(&self) -> bool {
        !self.commands.is_empty() || !self.nodes.handoff.is_empty() || self.nodes.handover.is_busy()
    }
}

impl<P: Port> fmt::Debug for Worker<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id())
            .field("lease", &self.lease.end())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl<P: Port> Nodes<P> {
    fn begin(&mut self) {
        self.io.begin();
        self.events.begin();
        self.too_big_left = crate::outbound::TOO_BIG_REPORTS_PER_POLL;
    }

    /// Does what a handover asks for, and judges the packets of this poll.
    fn take_stance<'a>(&mut self, context: Context<'a>) -> Context<'a> {
        let context = if self.handover.stance == Stance::Serving {
            context
        } else {
            self.attend(&context);
            let (lease, voice) = self.handover.judge(context.lease);
            Context { lease, voice, ..context }
        };
        if context.voice == LeaseState::Valid {
            self.io.mark_leased();
        }
        context
    }

    /// Each command is judged by the lease as it is once the command has been taken: an announcement
    /// pushed after the lease was won must not meet the silence from before.
    fn take_commands<'a>(
        &mut self,
        judge: impl Fn() -> Context<'a>,
        commands: &RingReceiver<WorkerCommand>,
    ) -> usize {
        let mut taken = 0;
        while taken < COMMANDS_PER_POLL && self.events.can_retire() {
            if self.sad.is_clearing() {
                match self.sad.clear_step() {
                    Some(retired) => self.events.retire(retired),
                    None => self.flows.clear(),
                }
            } else {
                let Some(command) = commands.pop() else { break };
                let (_, voice) = self.handover.judge(judge().lease);
                self.obey(&Context { voice, ..judge() }, command);
            }
            taken += 1;
        }
        taken
    }

    fn obey(&mut self, context: &Context<'_>, command: WorkerCommand) {
        let retired = match command {
            WorkerCommand::InstallInbound(sa) => {
                self.handover.note_installed();
                self.sad.install_inbound(sa)
            }
            WorkerCommand::InstallOutbound { id, sa } => {
                self.handover.note_installed();
                self.sad.install_outbound(id, sa)
            }
            WorkerCommand::RemoveInbound(spi) => {
                self.handover.report_anew();
                self.sad.remove_inbound(spi)
            }
            WorkerCommand::RemoveOutbound(id) => {
                self.handover.report_anew();
                self.sad.remove_outbound(id)
            }
            WorkerCommand::Grant { id, range } => {
                self.sad.grant(id, range);
                None
            }
            WorkerCommand::Horizon { spi, horizon } => {
                self.sad.extend_horizon(spi, horizon);
                None
            }
            WorkerCommand::Clear => {
                self.handover.report_no_more();
                self.sad.begin_clear();
                None
            }
            WorkerCommand::Transmit { side, frame } => {
                self.inject(context, side, &frame);
                Some(Retired::Frame(frame))
            }
            WorkerCommand::Suspend { number, to, until } => {
                self.handover.suspend(number, to, until);
                None
            }
            WorkerCommand::Forward { to, until } => {
                self.handover.forward(to, until);
                None
            }
            WorkerCommand::Pass { side, frame } => {
                self.pass(context, side, &frame);
                Some(Retired::Frame(frame))
            }
            WorkerCommand::Hold { until } => {
                self.handover.hold(until);
                None
            }
            WorkerCommand::Fill { keep_ms } => {
                self.handover.fill(keep_ms);
                None
            }
            WorkerCommand::NoSuchSa(id) => {
                self.no_such_sa(context, id);
                None
            }
            WorkerCommand::Serve => {
                self.handover.serve();
                None
            }
            WorkerCommand::CountForwarded => {
                let frames = self.handover.forwarded();
                self.events.raise(WorkerEvent::Forwarded { frames }, context.counters);
                None
            }
            WorkerCommand::ListFlows { limit } => {
                let flows = self.flows.list(limit.min(LIST_LIMIT), context.now);
                self.events.raise(WorkerEvent::Flows(flows), context.counters);
                None
            }
            WorkerCommand::ListSas { limit } => {
                let sas = self.sad.list(limit.min(LIST_LIMIT));
                self.events.raise(WorkerEvent::Sas(sas), context.counters);
                None
            }
        };
        if let Some(retired) = retired {
            self.events.retire(retired);
        }
    }

    /// Sends a frame of the controller's. The lease is checked here too: the controller may have
    /// written it while it was still the owner.
    fn inject(&mut self, context: &Context<'_>, side: Side, frame: &[u8]) {
        let reason = match context.voice {
            LeaseState::Expired if !is_arp_probe(frame) => DropReason::LeaseExpired,
            LeaseState::None if !is_arp_probe(frame) => DropReason::NotOwner,
            _ => match self.io.copy_of(side, frame) {
                Some(buf) => {
                    context.counters.add(Metric::Injected, 1);
                    if context.voice == LeaseState::Valid {
                        self.io.mark_leased();
                    }
                    return self.io.send(side, buf);
                }
                None => DropReason::NoBuffer,
            },
        };
        context.drop_packet(reason);
    }

    fn receive(&mut self, context: &Context<'_>, side: Side) -> usize {
        let mut burst = ArrayVec::new();
        let received = self.io.rx(side, &mut burst);
        if received > 0 {
            self.dispatch(context, side, burst, Origin::Port);
        }
        received
    }

    pub(crate) fn dispatch(
        &mut self,
        context: &Context<'_>,
        side: Side,
        burst: ArrayVec<P::Buf, BURST>,
        origin: Origin,
    ) {
        match side {
            Side::Outside => self.outside(context, burst, origin),
            Side::Inside => self.inside(context, burst, origin),
        }
    }

    /// Treats what other workers handed over.
    fn take_over(&mut self, context: &Context<'_>) -> usize {
        let mut outside = ArrayVec::new();
        let mut inside = ArrayVec::new();
        for _ in 0..BURST {
            match self.handoff.take() {
                Some(HandedOff { side: Side::Outside, buf }) => outside.push(buf),
                Some(HandedOff { side: Side::Inside, buf }) => inside.push(buf),
                None => break,
            }
        }
        let taken = outside.len() + inside.len();
        if taken > 0 {
            context.counters.add(Metric::TakenOver, taken as u64);
            self.dispatch(context, Side::Outside, outside, Origin::OtherWorker);
            self.dispatch(context, Side::Inside, inside, Origin::OtherWorker);
        }
        taken
    }

    /// Gives a packet to the worker that keeps its SA.
    pub(crate) fn hand_off(&mut self, context: &Context<'_>, worker: u32, side: Side, buf: P::Buf) {
        match self.handoff.give(worker, HandedOff { side, buf }) {
            Ok(()) => context.counters.add(Metric::HandedOff, 1),
            Err(_) => context.drop_packet(DropReason::HandoffFull),
        }
    }
}

/// An ARP request that claims no address (RFC 5227, 2.1.1).
fn is_arp_probe(frame: &[u8]) -> bool {
    ethernet::View::parse(frame)
        .ok()
        .filter(|header| header.ether_type() == ethernet::TYPE_ARP)
        .and_then(|header| arp::Repr::parse(header.payload()).ok())
        .is_some_and(|arp| {
            arp.operation == arp::Operation::Request && arp.source == Ipv4Addr::UNSPECIFIED
        })
}
