//! `holdfast-target`: what runs beside the services of a target.
//!
//! What it is: one thread that keeps a connection to every member, follows the owner, tells how the
//! host is, and takes marked packets. What it is not: it serves nothing and decides nothing about
//! ownership.
//!
//! ```text
//!   member 1 --mTLS--> links --notice--> OwnerBook --latest--> Host: neighbour, route, filter
//!   member 2 --mTLS-->   |               (pure)                Marks: the key of the epoch
//!   member 3 --mTLS-->   |<-- acknowledged, refused, report --
//!   inside network --GUE--> Marks --inner packets--> tun device --> the host's services
//! ```
//!
//! Contract:
//! * a notice is acknowledged after it took effect, not before;
//! * a notice of an epoch that is not the latest changes nothing, is counted, and its sender told;
//! * everything done to the host is undone at the end; after a crash `holdfast-target restore` does.

mod health;
mod links;
mod marks;
mod owner;
mod state;
mod system;

pub(crate) use links::Links;
pub use owner::{Notice, OwnerBook, Verdict};
pub use state::{MarkState, OwnerState, StateFile};

use crate::clock;
use crate::config::TargetProgram;
use crate::controller::Signals;
use crate::notice::{FromTargetBody, Report, StaleNotice, ToTarget};
use crate::pki::{Credentials, PkiError};
use health::Health;
use holdfast_cluster::MemberId;
use holdfast_packet::Nanos;
use marks::Marks;
use mio::{Events, Poll, Token, Waker};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use system::Host;

const WAKE: Token = Token(0);
const SIGNALS: Token = Token(1);
const MARKS: Token = Token(2);
const LINKS_FIRST: usize = 16;

/// Events of one turn of the poll.
const EVENTS_MAX: usize = 64;

/// How often members are told how this host is, and the state file is written.
const REPORT_MS: u64 = 1_000;

/// Why the program did not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The certificates cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What for.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> TargetError {
    let what = what.into();
    move |source| TargetError::Io { what, source }
}

/// Runs until asked to stop, then puts the host back as it was.
///
/// # Errors
/// [`TargetError`] says what it could not do without.
pub fn run(config: &TargetProgram) -> Result<(), TargetError> {
    let mut program = Program::start(config)?;
    let outcome = program.turns();
    program.host.restore();
    outcome.map_err(io("poll"))
}

/// Undoes what a program that crashed has left behind.
pub fn restore(config: &TargetProgram) {
    Host::new(config).restore();
}

struct Program<'a> {
    config: &'a TargetProgram,
    poll: Poll,
    signals: Signals,
    links: Links,
    marks: Option<Marks>,
    host: Host<'a>,
    book: OwnerBook,
    health: Arc<Mutex<Health>>,
    /// What was told last.
    told: Health,
    state: StateFile,
    next_report: Nanos,
    stop: bool,
    more_marks: bool,
}

impl<'a> Program<'a> {
    fn start(config: &'a TargetProgram) -> Result<Self, TargetError> {
        let credentials = Credentials::load(&config.ca, &config.certificate, &config.key)?;
        let poll = Poll::new().map_err(io("poll"))?;
        let registry = || poll.registry().try_clone().map_err(io("poll"));
        state::make_folder(&config.state).map_err(io(config.state.display().to_string()))?;
        let marks = match &config.marks {
            Some(marks) => {
                let opened = Marks::open(marks.address, &marks.device, &registry()?, MARKS);
                let what = format!("marks at {} on {}", marks.address, marks.device);
                Some(opened.map_err(io(what))?)
            }
            None => None,
        };
        let mut host = Host::new(config);
        host.prepare().map_err(|error| {
            host.restore();
            io("the host")(error)
        })?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(io("poll"))?;
        let wake = move || drop(waker.wake());
        let marked = config.marks.is_some();
        let clear_dropped = move || if marked { system::clear_dropped() } else { 0 };
        let health = health::watch(&config.health, clear_dropped, wake).map_err(io("health"))?;
        let signals = Signals::new(poll.registry(), SIGNALS).map_err(io("signals"))?;
        let links =
            Links::new(&config.name, &config.members, credentials, registry()?, LINKS_FIRST);
        tracing::info!(
            version = env!("HOLDFAST_VERSION"),
            target = config.name,
            marked = marks.is_some(),
            "started"
        );
        let state = StateFile {
            name: config.name.clone(),
            process: std::process::id(),
            healthy: true,
            ..StateFile::default()
        };
        Ok(Self {
            config,
            poll,
            signals,
            links,
            marks,
            host,
            book: OwnerBook::default(),
            health,
            told: Health::default(),
            state,
            next_report: Nanos::ZERO,
            stop: false,
            more_marks: false,
        })
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.stop {
            self.wait(&mut events)?;
            for event in &events {
                self.dispatch(event.token());
            }
            if self.more_marks {
                self.take_marks();
            }
            self.take_notices();
            self.let_time_pass();
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let deadline = self.links.poll_timeout().unwrap_or(Nanos::MAX).min(self.next_report);
        let left_ms = deadline.ms_since(clock::now()).saturating_add(1);
        let timeout = if self.more_marks { Duration::ZERO } else { Duration::from_millis(left_ms) };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            outcome => outcome,
        }
    }

    fn dispatch(&mut self, token: Token) {
        match token {
            WAKE => self.look_at_health(),
            SIGNALS => {
                self.signals.take_hangup();
                self.stop |= self.signals.take_stop();
            }
            MARKS => self.take_marks(),
            link => self.links.handle_event(clock::now(), link),
        }
    }

    fn take_marks(&mut self) {
        self.more_marks = self.marks.as_mut().is_some_and(Marks::receive);
    }

    fn take_notices(&mut self) {
        while let Some((from, message)) = self.links.poll_received() {
            self.take_notice(from, &message);
        }
        for member in self.links.take_joined() {
            self.report_to(member);
        }
    }

    fn take_notice(&mut self, from: u64, message: &ToTarget) {
        let Some(notice) = Notice::read(from, message) else {
            self.state.notices_malformed = self.state.notices_malformed.saturating_add(1);
            tracing::warn!(member = from, "malformed notice refused");
            return;
        };
        let epoch = notice.owner.epoch.0;
        match self.book.hear(notice.clone(), clock::unix_ms()) {
            Verdict::Stale { known } => {
                tracing::warn!(member = from, epoch, known_epoch = known.0, "stale notice refused");
                let stale = StaleNotice { epoch, known_epoch: known.0 };
                self.links.send(clock::now(), from, FromTargetBody::Stale(stale));
            }
            Verdict::New => {
                self.follow(&notice);
                if self.state.problem.is_none() {
                    self.acknowledge(from, epoch);
                }
            }
            // What could not be done then may be possible now.
            Verdict::Known => {
                if self.state.problem.is_some() {
                    self.follow(&notice);
                }
                if self.state.problem.is_none() {
                    self.acknowledge(from, epoch);
                }
            }
        }
        self.write_state();
    }

    fn acknowledge(&mut self, from: u64, epoch: u64) {
        self.book.acknowledged();
        self.links.send(clock::now(), from, FromTargetBody::Acknowledged(epoch));
    }

    fn follow(&mut self, notice: &Notice) {
        // The key first: packets of the new owner are on their way already.
        if let Some(marks) = &mut self.marks {
            let own = self.config.local.as_ref().map(|local| MemberId(local.member));
            marks.follow(notice, own);
        }
        let outcome = match &self.marks {
            Some(_) if notice.key.is_none() => {
                Err(io::Error::other("the members do not mark packets for this target"))
            }
            _ if notice.inside != self.config.network.inside => Err(io::Error::other(format!(
                "the members' inside address is {}, not {}",
                notice.inside, self.config.network.inside
            ))),
            _ => self.host.follow(notice),
        };
        self.state.problem = outcome.err().map(|error| error.to_string());
        let owner = notice.owner;
        match &self.state.problem {
            None => tracing::info!(member = owner.member.0, epoch = owner.epoch.0, "new owner"),
            Some(problem) => {
                tracing::error!(
                    member = owner.member.0,
                    epoch = owner.epoch.0,
                    problem,
                    "new owner"
                );
            }
        }
    }

    fn look_at_health(&mut self) {
        let Ok(health) = self.health.lock().map(|health| health.clone()) else { return };
        let changed = health.failed != self.told.failed;
        if changed && !health.failed.is_empty() {
            tracing::warn!(failed = ?health.failed, "services accept no connection");
        } else if changed {
            tracing::info!("all services accept connections");
        }
        self.told = health;
        if changed {
            self.next_report = Nanos::ZERO;
        }
    }

    fn let_time_pass(&mut self) {
        let now = clock::now();
        self.links.handle_timeout(now);
        if self.next_report <= now {
            self.next_report = now.plus_ms(REPORT_MS);
            for member in self.links.connected() {
                self.report_to(member);
            }
            self.write_state();
        }
    }

    fn report_to(&mut self, member: u64) {
        if !self.told.known {
            return;
        }
        let counts = self.marks.as_ref().map(Marks::counts);
        let report = Report {
            healthy: self.told.is_well(),
            load_percent: self.told.load_percent,
            connections: self.told.connections,
            marks_refused: counts.map_or(0, marks::MarkCounts::refused_total),
            clear_dropped: self.told.clear_dropped,
            notices_refused: self.book.counts().1,
        };
        self.links.send(clock::now(), member, FromTargetBody::Report(report));
    }

    fn write_state(&mut self) {
        self.state.updated_unix_ms = clock::unix_ms();
        self.state.connected = self.links.connected();
        self.state.set_owner(&self.book, self.config.local.as_ref().map(|local| local.member));
        self.state.set_health(&self.told);
        if let Some(marks) = &self.marks {
            self.state.set_marks(marks.counts(), self.told.clear_dropped);
        }
        if let Err(error) = self.state.write(&self.config.state) {
            tracing::warn!(path = %self.config.state.display(), %error, "state not written");
        }
    }
}
