//! The one thread that owns the [`Member`] and everything that talks to the world for it.
//!
//! ```text
//!   wait (epoll; the next deadline is a timerfd)
//!     -> sockets:  transport, operator, signals
//!     -> inbox:    messages, persisted batches, workers' events, questions  --> Member::handle
//!     -> timers:   Member::handle_timeout, redials, silent clients
//!     -> outputs:  lease first seen by workers, batches, messages, orders, answers, log
//! ```
//!
//! Contract:
//! * the inbox before timers: an overdue tick must not start an election that a message which is
//!   already here makes moot;
//! * outputs are carried out after each input or timeout, in the member's order;
//! * time is read after what it is used for has arrived.

mod backlog;
mod events;
mod signals;
mod stopwatch;
mod timer;

use crate::clock::{self, Calendar};
use crate::config::Config;
use crate::notice::NoticeListener;
use crate::server::{Context, Question, Server, question, reply};
use crate::store::{StorageThread, Stored};
use crate::transport::{Refusal, Transport, TransportEvent};
use crate::worker::WorkerSet;
use backlog::{Backlog, Order};
use holdfast_cluster::MemberId;
use holdfast_datapath::{COUNTERS_LEN, CountersView, LeaseCell, Metric, TablesPublisher};
use holdfast_member::{Input, Member, OperatorRequest, Output};
use holdfast_packet::{Nanos, Side};
use mio::{Events, Poll, Token, Waker};
pub(crate) use signals::Signals;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use stopwatch::Stopwatch;
use timer::Timer;

const WAKE: Token = Token(0);
const TIMER: Token = Token(1);
const SIGNALS: Token = Token(2);
const SERVER_FIRST: usize = 16;
const TRANSPORT_FIRST: usize = 1_024;
/// Far behind whatever the transport counts up to.
const NOTICE_FIRST: usize = 1 << 40;

/// Events of one turn of the poll.
const EVENTS_MAX: usize = 256;

/// How long one worker's events are treated before timers and sockets get their turn: a fraction of a
/// tick. By time, because an event may be a counter or the first message of a negotiation.
const WORKER_EVENTS_US: u64 = 1_000;

/// How often the statistics are copied.
const HOUSEKEEPING_MS: u64 = 100;

/// How often ports are asked for their link: an owner without one hands over, and the outage counts
/// from here. The question costs microseconds.
const LINK_CHECK_MS: u64 = 10;

/// Ticks in one turn of the controller beyond which the log says so: two more and the lease may end.
const LONG_TURN_TICKS: u64 = 2;

/// How long a full ring is left alone before it is tried again.
const BACKLOG_RETRY_MS: u64 = 1;

/// How long a member that stops waits for another one to take over.
const FAREWELL_MS: u64 = 1_000;

/// How long a member that handed over goes on passing frames to its successor before it ends: the
/// announcements of the first [`FAREWELL_FORWARDING_MS`] have reached the neighbours then.
const FAREWELL_FORWARDING_MS: u64 = 250;

/// The daemon's own question, when it stops. The server counts its questions up from 1.
const FAREWELL: u64 = 0;

/// Above ordinary threads, below what the kernel runs for itself.
const REAL_TIME_PRIORITY: i32 = 10;

/// Why the daemon ended other than by request.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The system refused what the loop cannot do without.
    #[error("the controller cannot go on: {0}")]
    Io(#[from] io::Error),
    /// The member cannot go on.
    #[error("the member cannot go on: {0}")]
    Halted(String),
    /// A worker does not take its orders.
    #[error("a worker leaves too many orders untaken")]
    Backlog,
}

/// The poll everything is registered with, before there is a controller.
#[derive(Debug)]
pub struct Foundation {
    poll: Poll,
    waker: Arc<Waker>,
}

impl Foundation {
    /// A poll with its waker.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self { poll, waker })
    }

    /// Wakes the controller, from any thread.
    pub fn wake(&self) -> impl Fn() + Send + Sync + Clone + use<> {
        let waker = Arc::clone(&self.waker);
        move || {
            // Fails only when the counter is full, and then the controller is awake.
            let _woken = waker.wake();
        }
    }

    /// The operator's socket.
    ///
    /// # Errors
    /// See [`Server::new`].
    pub fn server(&self, config: &Config) -> io::Result<Server> {
        Server::new(&config.member.socket, self.poll.registry().try_clone()?, SERVER_FIRST)
    }

    /// Where targets come to, when any run `holdfast-target`.
    ///
    /// # Errors
    /// See [`NoticeListener::new`].
    pub fn notices(
        &self,
        config: &Config,
        credentials: crate::pki::Credentials,
    ) -> io::Result<Option<NoticeListener>> {
        let Some(address) = config.notice_address else { return Ok(None) };
        let own = config.member.id;
        let targets = config.targets.iter().map(|t| (t.name.clone(), t.id())).collect();
        let registry = self.poll.registry().try_clone()?;
        NoticeListener::new(own, address, targets, credentials, registry, NOTICE_FIRST).map(Some)
    }

    /// The connections to the other members.
    ///
    /// # Errors
    /// See [`Transport::new`].
    pub fn transport(
        &self,
        config: &Config,
        credentials: crate::pki::Credentials,
    ) -> io::Result<Transport> {
        let address = config.own_address().ok_or_else(|| io::Error::other("no own address"))?;
        let own = config.member.id;
        let members = config.cluster.members.iter().filter(|peer| peer.id != own);
        let peers = members.map(|peer| (peer.id, peer.address)).collect();
        let registry = self.poll.registry().try_clone()?;
        Transport::new(own, address, peers, credentials, registry, TRANSPORT_FIRST)
    }
}

/// What the controller is made of.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// The poll that transport and server are registered with.
    pub foundation: Foundation,
    /// The member.
    pub member: Member,
    /// The connections to the others.
    pub transport: Transport,
    /// The targets that are connected, when any may be.
    pub notices: Option<NoticeListener>,
    /// The operator's socket.
    pub server: Server,
    /// The storage thread.
    pub storage: StorageThread,
    /// The workers.
    pub workers: WorkerSet,
    /// The workers' tables.
    pub tables: TablesPublisher,
    /// The workers' lease.
    pub lease: LeaseCell,
    /// Where the workers' counters are shown.
    pub statistics: crate::stats::Writer,
}

/// The controller.
#[derive(Debug)]
pub struct Controller {
    parts: Parts,
    timer: Timer,
    signals: Signals,
    backlog: Backlog,
    counters: Vec<u64>,
    stuck: Vec<bool>,
    ports_up: [Option<bool>; 2],
    next_housekeeping: Nanos,
    next_link_check: Nanos,
    next_worker_check: Nanos,
    calendar: Calendar,
    started_unix_ms: u64,
    /// When the daemon ends, once it was asked to.
    ends: Option<Nanos>,
    /// Something is left to do without any further event.
    hurry: bool,
}

impl Controller {
    /// Puts the controller together.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let registry = parts.foundation.poll.registry();
        let timer = Timer::new(registry, TIMER)?;
        let signals = Signals::new(registry, SIGNALS)?;
        let workers = usize::try_from(parts.workers.count()).unwrap_or(0);
        Ok(Self {
            timer,
            signals,
            backlog: Backlog::default(),
            counters: vec![0; COUNTERS_LEN],
            stuck: vec![false; workers],
            ports_up: [None; 2],
            next_housekeeping: Nanos::ZERO,
            next_link_check: Nanos::ZERO,
            next_worker_check: Nanos::ZERO,
            calendar: Calendar::new(clock::now(), clock::unix_ms()),
            started_unix_ms: clock::unix_ms(),
            ends: None,
            hurry: false,
            parts,
        })
    }

    /// Runs until the daemon is asked to stop.
    ///
    /// # Errors
    /// [`ControllerError`]; the workers are silent when this returns.
    pub fn run(mut self) -> Result<(), ControllerError> {
        if let Err(error) = crate::os::schedule_first_in_first_out(REAL_TIME_PRIORITY) {
            tracing::info!(%error, "no real-time scheduling; a crowded machine may delay takeovers");
        }
        let outcome = self.turns();
        // Whatever happened, nobody speaks for the common address in this member's name.
        self.parts.lease.set(Nanos::ZERO);
        self.parts.transport.close();
        outcome
    }

    fn turns(&mut self) -> Result<(), ControllerError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let tick_ns = crate::daemon::timing(&self.parts.config).tick_ns();
        self.carry_out()?;
        loop {
            self.wait(&mut events)?;
            self.hurry = false;
            let stopwatch = Stopwatch::start();
            for event in &events {
                self.dispatch(event.token());
            }
            if self.parts.transport.has_unfinished() {
                self.parts.transport.handle_unfinished(clock::now());
            }
            if let Some(notices) = self.parts.notices.as_mut().filter(|n| n.has_unread()) {
                notices.handle_unread();
            }
            self.take_inbox()?;
            self.let_time_pass()?;
            stopwatch.stop(LONG_TURN_TICKS * tick_ns);
            if self.has_ended() {
                return Ok(());
            }
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let parts = &mut self.parts;
        let retry = (!self.backlog.is_empty()).then(|| clock::now().plus_ms(BACKLOG_RETRY_MS));
        let deadline = [
            parts.member.next_deadline(),
            parts.transport.poll_timeout(),
            parts.notices.as_ref().and_then(NoticeListener::poll_timeout),
            parts.server.poll_timeout(),
            Some(self.next_housekeeping),
            Some(self.next_link_check),
            Some(self.next_worker_check),
            retry,
            self.ends,
        ];
        let deadline = deadline.into_iter().flatten().min();
        let due = deadline.is_some_and(|deadline| deadline <= clock::now());
        let unread = parts.notices.as_ref().is_some_and(NoticeListener::has_unread);
        let at_once = due || self.hurry || unread || parts.transport.has_unfinished();
        let timeout = at_once.then_some(Duration::ZERO);
        if !at_once {
            self.timer.set(deadline)?;
        }
        match parts.foundation.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            outcome => outcome,
        }
    }

    fn dispatch(&mut self, token: Token) {
        match token {
            WAKE => {}
            TIMER => self.timer.acknowledge(),
            SIGNALS => self.take_signals(),
            Token(number) if number >= NOTICE_FIRST => {
                if let Some(notices) = &mut self.parts.notices {
                    notices.handle_event(clock::now(), token);
                }
            }
            Token(number) if number >= TRANSPORT_FIRST => {
                self.parts.transport.handle_event(clock::now(), token);
            }
            _ => self.parts.server.handle_event(clock::now(), token),
        }
    }

    fn take_signals(&mut self) {
        if self.signals.take_hangup() {
            tracing::info!("SIGHUP is ignored: a changed configuration takes effect at a restart");
        }
        if self.signals.take_stop() && self.ends.is_none() {
            tracing::info!("asked to stop; handing over first if this is the owner");
            let now = clock::now();
            self.ends = Some(now.plus_ms(FAREWELL_MS));
            let request = OperatorRequest::Handover { to: None };
            self.parts.member.handle(now, Input::Operator { id: FAREWELL, request });
        }
    }

    /// Gives the member everything that has arrived.
    fn take_inbox(&mut self) -> Result<(), ControllerError> {
        self.take_stored()?;
        self.take_messages()?;
        self.take_worker_events()?;
        self.take_targets()?;
        self.take_requests()
    }

    fn take_stored(&mut self) -> Result<(), ControllerError> {
        while let Some(stored) = self.parts.storage.poll_news() {
            match stored {
                Stored::Persisted(number) => self.handle(Input::Persisted(number))?,
                // The member hands over if it owns, and then ends the process.
                Stored::Failed(error) => self.handle(Input::StorageFailed(error))?,
            }
        }
        Ok(())
    }

    fn take_messages(&mut self) -> Result<(), ControllerError> {
        while let Some(event) = self.parts.transport.poll_event() {
            let input = match event {
                TransportEvent::Message { from, bytes } => {
                    Input::PeerMessage { from: MemberId(from), bytes }
                }
                TransportEvent::Down(member) => Input::PeerDown(MemberId(member)),
                TransportEvent::SnapshotSent { to, delivered } => {
                    Input::SnapshotDelivered { to: MemberId(to), delivered }
                }
                TransportEvent::Up(member) => {
                    tracing::info!(member, "connected");
                    continue;
                }
            };
            self.handle(input)?;
        }
        Ok(())
    }

    fn take_targets(&mut self) -> Result<(), ControllerError> {
        while let Some(said) = self.parts.notices.as_mut().and_then(NoticeListener::poll_event) {
            let (target, event) = said;
            self.handle(Input::Target { target, event })?;
        }
        Ok(())
    }

    fn take_worker_events(&mut self) -> Result<(), ControllerError> {
        for worker in 0..self.parts.workers.count() {
            let end = clock::now().plus_ns(WORKER_EVENTS_US * 1_000);
            while let Some(event) = self.parts.workers.receive(worker) {
                self.handle(Input::Worker { worker, event })?;
                if clock::now() >= end {
                    self.hurry = true;
                    break;
                }
            }
        }
        Ok(())
    }

    fn take_requests(&mut self) -> Result<(), ControllerError> {
        while let Some((id, request)) = self.parts.server.poll_request() {
            match question(request) {
                Question::Member(request) => self.handle(Input::Operator { id, request })?,
                Question::DropReasons => {
                    let now = clock::now();
                    self.count();
                    let answer = self.context(now).drop_reasons();
                    self.parts.server.answer(now, id, answer);
                }
            }
        }
        Ok(())
    }

    fn let_time_pass(&mut self) -> Result<(), ControllerError> {
        let now = clock::now();
        self.parts.transport.handle_timeout(now);
        self.parts.server.handle_timeout(now);
        if let Some(notices) = &mut self.parts.notices {
            notices.handle_timeout(now);
        }
        if self.next_link_check <= now {
            self.next_link_check = now.plus_ms(LINK_CHECK_MS);
            self.look_after_ports()?;
        }
        if self.next_worker_check <= now {
            let tick_ns = crate::daemon::timing(&self.parts.config).tick_ns();
            self.next_worker_check = now.plus_ns(tick_ns);
            self.look_after_workers(now)?;
        }
        if self.next_housekeeping <= now {
            self.next_housekeeping = now.plus_ms(HOUSEKEEPING_MS);
            self.calendar.follow(now, clock::unix_ms());
            self.tell_figures()?;
        }
        let now = clock::now();
        if self.parts.member.next_deadline().is_some_and(|due| due <= now) {
            self.parts.member.handle_timeout(now);
        }
        self.carry_out()
    }

    fn look_after_ports(&mut self) -> Result<(), ControllerError> {
        if self.parts.workers.count() == 0 {
            return Ok(());
        }
        for (at, side) in [Side::Outside, Side::Inside].into_iter().enumerate() {
            let up = self.parts.workers.link_up(side);
            let Some(known) = self.ports_up.get_mut(at) else { continue };
            if known.replace(up) != Some(up) {
                tracing::info!(side = side.name(), up, "port");
                self.handle(Input::PortState { side, up })?;
            }
        }
        Ok(())
    }

    /// A stuck worker serves nobody: that is known as soon as a dead member would be.
    fn look_after_workers(&mut self, now: Nanos) -> Result<(), ControllerError> {
        for worker in 0..self.parts.workers.count() {
            let stalled = self.parts.workers.is_stuck(worker, now);
            let Some(known) = self.stuck.get_mut(worker as usize) else { continue };
            if std::mem::replace(known, stalled) != stalled {
                tracing::warn!(worker, stalled, "worker");
                self.handle(Input::WorkerStalled { worker, stalled })?;
            }
        }
        Ok(())
    }

    /// Shows what the workers count, and tells the member how much passed.
    fn tell_figures(&mut self) -> Result<(), ControllerError> {
        if self.parts.workers.count() == 0 {
            return Ok(());
        }
        for (worker, counters) in self.parts.workers.counters().enumerate() {
            self.parts.statistics.update(worker, &counters.snapshot());
        }
        self.parts.tables.reclaim();
        self.count();
        let counters = CountersView::new(&self.counters);
        let done = [Metric::Opened, Metric::Sealed].map(|metric| counters.metric(metric));
        let packets = done.into_iter().fold(0, u64::wrapping_add);
        self.handle(Input::Traffic { packets })
    }

    fn handle(&mut self, input: Input) -> Result<(), ControllerError> {
        self.parts.member.handle(clock::now(), input);
        self.carry_out()
    }

    /// Carries out everything the member wants.
    fn carry_out(&mut self) -> Result<(), ControllerError> {
        while let Some(output) = self.parts.member.poll_output() {
            match output {
                Output::Lease(end) => self.set_lease(end),
                Output::SendPeer { to, lane, bytes } => {
                    self.parts.transport.send(clock::now(), to.0, lane, bytes);
                }
                Output::Persist(batch) => self.parts.storage.write(batch),
                Output::Worker { worker, command } => {
                    self.backlog.push(Order::Command(worker, command));
                }
                Output::NotifyTarget { target, notice } => {
                    if let Some(notices) = &mut self.parts.notices {
                        notices.send(target, &notice);
                    }
                }
                Output::PublishTables(tables) => self.backlog.push(Order::Tables(tables)),
                Output::Operator { id: FAREWELL, reply } => self.take_farewell(&reply),
                Output::Operator { id, reply: answer } => {
                    let now = clock::now();
                    self.count();
                    let answer = reply(answer, &self.context(now));
                    self.parts.server.answer(now, id, answer);
                }
                Output::Peers { peers, retired } => self.connect_to(&peers, &retired),
                Output::Discard(superseded) => self.parts.storage.discard(superseded),
                Output::Event(event) => events::log(&event),
                Output::Halt { reason } => return Err(ControllerError::Halted(reason)),
            }
        }
        self.give_orders()
    }

    /// A lease that begins does so behind the orders before it: no worker may use under it what it has
    /// from an earlier ownership. One that goes on or ends does so at once.
    fn set_lease(&mut self, end: Nanos) {
        let begins = self.parts.lease.end() == Nanos::ZERO;
        match end {
            Nanos::ZERO => {
                self.backlog.end_lease();
                self.parts.lease.set(end);
            }
            end if begins => self.backlog.begin_lease(end),
            end => self.parts.lease.set(end),
        }
    }

    fn connect_to(&mut self, peers: &BTreeMap<MemberId, String>, retired: &BTreeSet<MemberId>) {
        let mut addresses = BTreeMap::new();
        for (member, address) in peers {
            match address.parse() {
                Ok(address) => drop(addresses.insert(member.0, address)),
                Err(_) => tracing::warn!(%member, address, "not an address with a port"),
            }
        }
        let retired = retired.iter().map(|member| member.0).collect();
        self.parts.transport.set_peers(addresses, retired);
    }

    fn give_orders(&mut self) -> Result<(), ControllerError> {
        let parts = &mut self.parts;
        parts.tables.catch_up();
        self.backlog.flush(|order| match order {
            Order::Command(worker, command) => parts
                .workers
                .send(worker, command)
                .map_err(|command| Order::Command(worker, command)),
            Order::Tables(tables) => {
                parts.tables.publish(tables);
                Ok(())
            }
            Order::Lease(end) => {
                parts.lease.set(end);
                Ok(())
            }
        });
        if self.backlog.is_hopeless() { Err(ControllerError::Backlog) } else { Ok(()) }
    }

    /// The handover is done or cannot be: only stragglers keep the daemon any longer.
    fn take_farewell(&mut self, reply: &holdfast_member::OperatorReply) {
        tracing::info!(outcome = ?reply, "farewell");
        let handed_over = matches!(reply, holdfast_member::OperatorReply::Done(_));
        let forwarding_ms = if handed_over { FAREWELL_FORWARDING_MS } else { 0 };
        self.ends = Some(clock::now().plus_ms(forwarding_ms));
    }

    fn has_ended(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= clock::now())
    }

    /// Sums up the workers' counters.
    fn count(&mut self) {
        self.counters.fill(0);
        for counters in self.parts.workers.counters() {
            for (sum, count) in self.counters.iter_mut().zip(counters.snapshot()) {
                *sum = sum.wrapping_add(count);
            }
        }
    }

    /// Connections of members and of targets that were refused, by reason.
    fn refusals(&self) -> Vec<(&'static str, u64)> {
        let of_targets = self.parts.notices.iter().flat_map(|n| n.refusals().iter());
        let mut sums: BTreeMap<Refusal, u64> = BTreeMap::new();
        for (refusal, count) in self.parts.transport.refusals().iter().chain(of_targets) {
            let sum = sums.entry(refusal).or_default();
            *sum = sum.saturating_add(count);
        }
        sums.into_iter().map(|(refusal, count)| (refusal.name(), count)).collect()
    }

    fn context(&self, now: Nanos) -> Context<'_> {
        let transport = &self.parts.transport;
        Context {
            config: &self.parts.config,
            now,
            calendar: self.calendar,
            started_unix_ms: self.started_unix_ms,
            refusals: self.refusals(),
            connected: transport.connected_peers().collect(),
            counters: &self.counters,
            ike: self.parts.member.ike_counters(),
        }
    }
}
