//! How members talk: length-prefixed messages over mutual TLS 1.3, three lanes to each member.
//!
//! ```text
//!   member A                                             member B
//!     heartbeat  --- TLS: greeting, messages ------------>
//!     append     --- TLS: greeting, messages ------------>     each side dials its own three
//!     snapshot   --- TLS: greeting, messages ------------>     connections and only writes there
//!                <--------------------------- and B's three
//! ```
//!
//! What it is: sockets that never block, driven by the controller's `mio::Poll`. What it is not: it
//! does not look into messages and repeats none; Raft does.
//!
//! Contract:
//! * `from` of a message is what the certificate of its connection proves;
//! * each lane keeps the order of its messages and may lose any of them;
//! * a heartbeat goes in its lane and beside it in the append lane, so that one held up by lost segments
//!   does not cost the lease: its reader gets it twice;
//! * nothing here waits: a peer that does not read loses its oldest messages, a peer that does not
//!   answer is dialled again with growing pauses;
//! * whoever is refused is counted under a [`Refusal`].

mod arrivals;
mod channel;
mod frame;
mod greeting;
mod refusal;

pub(crate) use arrivals::{ArrivalLimits, Arrivals};
pub(crate) use channel::{Channel, Drained, End, QueueLimits};
pub use refusal::{Refusal, RefusalCounters};

use crate::pki::{Credentials, belongs_to, expected_name};
use greeting::{GREETING_BYTES, Greeting};
use holdfast_packet::Nanos;
use holdfast_replica::{Lane, MessageBytes};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConnection;
use socket2::SockRef;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The lanes, in the order of their urgency.
const LANES: [Lane; 3] = [Lane::Heartbeat, Lane::Append, Lane::Snapshot];

/// Tokens of connections that are made; those that arrive get the ones behind.
const DIALLED_TOKENS: usize = 64;

/// What arrives is only read from.
const ARRIVALS: ArrivalLimits = ArrivalLimits {
    // Three lanes of seven members, twice.
    strangers: 42,
    introduction_ms: GREETING_MS,
    queue: QueueLimits { messages: 0, bytes: 0 },
    message_bytes: GREETING_BYTES,
};

/// First and longest pause before a member is dialled again.
const REDIAL_MS: (u64, u64) = (5, 200);

/// Pause before a member that was refused is dialled again: certificates do not change quickly.
const REFUSED_REDIAL_MS: u64 = 1_000;

/// How long a connection may take to stand. Shorter than the system's first repetition of a SYN
/// (1 s), because dialling anew finds a member sooner that has just come back.
const CONNECT_MS: u64 = 300;

/// How long a connection may take from standing to its greeting.
const GREETING_MS: u64 = 3_000;

/// How long sent bytes may stay unacknowledged before the connection is given up.
const USER_TIMEOUT: Duration = Duration::from_millis(500);

/// What happened between members.
#[derive(Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// A message arrived.
    Message {
        /// Who sent it, by its certificate.
        from: u64,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The connections to a member stand.
    Up(u64),
    /// A connection with a member broke; messages may be lost.
    Down(u64),
    /// A message of the snapshot lane was handed over whole, or was lost.
    SnapshotSent {
        /// To whom.
        to: u64,
        /// Whether it was handed over.
        delivered: bool,
    },
}

/// Connections to and from all other members.
#[derive(Debug)]
pub struct Transport {
    own: u64,
    registry: Registry,
    credentials: Credentials,
    first_token: usize,
    peers: BTreeMap<u64, SocketAddr>,
    /// Ids that were removed from the cluster.
    retired: BTreeSet<u64>,
    dialled: BTreeMap<Token, Dialled>,
    /// Connections that would take more, and no event will tell.
    unsent: BTreeSet<Token>,
    /// Connections to read from, by member and lane.
    arrivals: Arrivals<(u64, Lane)>,
    events: VecDeque<TransportEvent>,
    dropped_messages: u64,
}

/// A connection we make, to write to.
#[derive(Debug)]
struct Dialled {
    peer: u64,
    lane: Lane,
    state: DialState,
    pause_ms: u64,
    /// Snapshots queued and neither handed over nor lost yet.
    snapshots: u64,
}

#[derive(Debug)]
enum DialState {
    Waiting { until: Nanos },
    Connecting { channel: Box<Channel>, deadline: Nanos },
    Shaking { channel: Box<Channel>, deadline: Nanos },
    Up { channel: Box<Channel> },
}

const fn queue_limits(lane: Lane) -> QueueLimits {
    match lane {
        // A heartbeat that waited for 64 younger ones says nothing any more.
        Lane::Heartbeat => QueueLimits { messages: 64, bytes: 1024 * 1024 },
        // Raft keeps at most some hundred appends in flight.
        Lane::Append => QueueLimits { messages: 1_024, bytes: 64 * 1024 * 1024 },
        // One under way and one newer.
        Lane::Snapshot => {
            QueueLimits { messages: 2, bytes: 2 * holdfast_replica::ENVELOPE_BYTES_MAX }
        }
    }
}

const fn message_bytes_max(lane: Lane) -> usize {
    match lane {
        Lane::Heartbeat => 1024 * 1024,
        Lane::Append => 64 * 1024 * 1024,
        Lane::Snapshot => holdfast_replica::ENVELOPE_BYTES_MAX,
    }
}

impl Transport {
    /// Listens on `address` for the members `peers` (without `own`) and dials them. Every token
    /// from `first_token` on belongs to the transport.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn new(
        own: u64,
        address: SocketAddr,
        peers: BTreeMap<u64, SocketAddr>,
        credentials: Credentials,
        registry: Registry,
        first_token: usize,
    ) -> io::Result<Self> {
        let tokens = (Token(first_token), first_token.saturating_add(DIALLED_TOKENS));
        let (doors, keys) = (registry.try_clone()?, credentials.clone());
        let arrivals = Arrivals::bind("member", address, tokens, ARRIVALS, keys, doors)?;
        let lanes = peers.keys().flat_map(|peer| LANES.map(|lane| (*peer, lane)));
        let dialled = lanes.enumerate().map(|(number, (peer, lane))| {
            let token = Token(first_token.saturating_add(1).saturating_add(number));
            let state = DialState::Waiting { until: Nanos::ZERO };
            (token, Dialled { peer, lane, state, pause_ms: REDIAL_MS.0, snapshots: 0 })
        });
        let dialled = dialled.collect();
        Ok(Self {
            own,
            registry,
            credentials,
            first_token,
            peers,
            retired: BTreeSet::new(),
            dialled,
            unsent: BTreeSet::new(),
            arrivals,
            events: VecDeque::new(),
            dropped_messages: 0,
        })
    }

    /// Connects to `peers` and to nobody else from now on; those of `retired` are refused by name.
    ///
    /// A member that is in neither may still arrive with a certificate of this cluster: it may
    /// know of a change before this member does.
    pub fn set_peers(&mut self, peers: BTreeMap<u64, SocketAddr>, retired: BTreeSet<u64>) {
        let moved = |id: &u64| self.peers.get(id) != peers.get(id);
        let stale: BTreeSet<u64> = self.peers.keys().copied().filter(moved).collect();
        self.dialled.retain(|_, dialled| !stale.contains(&dialled.peer));
        self.arrivals.retain(|(from, _)| !retired.contains(&from));
        let known: BTreeSet<u64> = self.dialled.values().map(|dialled| dialled.peer).collect();
        for peer in peers.keys().copied().filter(|peer| !known.contains(peer)) {
            for lane in LANES {
                let Some(token) = self.free_token() else { return };
                let state = DialState::Waiting { until: Nanos::ZERO };
                let pause_ms = REDIAL_MS.0;
                self.dialled.insert(token, Dialled { peer, lane, state, pause_ms, snapshots: 0 });
            }
        }
        (self.peers, self.retired) = (peers, retired);
    }

    /// The first token of a connection to make that is not in use.
    fn free_token(&self) -> Option<Token> {
        let tokens = (1..DIALLED_TOKENS).map(|at| Token(self.first_token.saturating_add(at)));
        tokens.into_iter().find(|token| !self.dialled.contains_key(token))
    }

    /// Members to whom every lane stands.
    pub fn connected_peers(&self) -> impl Iterator<Item = u64> {
        self.peers.keys().copied().filter(|peer| self.connected(*peer))
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.arrivals.local_address()
    }

    /// Refused connections by reason.
    #[must_use]
    pub const fn refusals(&self) -> &RefusalCounters {
        &self.arrivals.refusals
    }

    /// Messages that were dropped because no connection stood or its queue was full.
    #[must_use]
    pub const fn dropped_messages(&self) -> u64 {
        self.dropped_messages
    }

    /// Whether every lane to `peer` stands.
    #[must_use]
    pub fn connected(&self, peer: u64) -> bool {
        let mut lanes = self.dialled.values().filter(|dialled| dialled.peer == peer).peekable();
        lanes.peek().is_some() && lanes.all(|lane| matches!(lane.state, DialState::Up { .. }))
    }

    /// Sends a message, or drops it when the lane does not stand. One of [`Lane::Heartbeat`] goes
    /// twice, see [`Transport::send_beside`].
    pub fn send(&mut self, now: Nanos, to: u64, lane: Lane, bytes: MessageBytes) {
        let beside = (lane == Lane::Heartbeat).then(|| bytes.clone());
        self.send_in(now, to, lane, bytes);
        if let Some(bytes) = beside {
            self.send_beside(now, to, bytes);
        }
    }

    /// Sends a heartbeat in the append lane as well, where nothing waits in it.
    ///
    /// A segment that is lost twice holds its TCP connection up for the system's shortest retransmission
    /// timeout, 200 ms: several leases. The other connection has nothing to do with that. Raft takes
    /// a message twice, and late, as it takes what any network does.
    fn send_beside(&mut self, now: Nanos, to: u64, bytes: MessageBytes) {
        let append = |d: &Dialled| d.peer == to && d.lane == Lane::Append;
        let Some((token, dialled)) = self.dialled.iter_mut().find(|(_, d)| append(d)) else {
            return;
        };
        let token = *token;
        if let DialState::Up { channel } = &mut dialled.state
            && channel.is_idle()
        {
            channel.enqueue(bytes);
            let outcome = channel.flush();
            self.after_write(now, token, outcome);
        }
    }

    fn send_in(&mut self, now: Nanos, to: u64, lane: Lane, bytes: MessageBytes) {
        let found = self.dialled.iter_mut().find(|(_, d)| d.peer == to && d.lane == lane);
        let Some((token, dialled)) = found else { return };
        let token = *token;
        if let DialState::Up { channel } = &mut dialled.state {
            channel.enqueue(bytes);
            if lane == Lane::Snapshot {
                dialled.snapshots = dialled.snapshots.saturating_add(1);
            }
            let outcome = channel.flush();
            self.after_write(now, token, outcome);
        } else {
            self.dropped_messages = self.dropped_messages.saturating_add(1);
            if lane == Lane::Snapshot {
                self.events.push_back(TransportEvent::SnapshotSent { to, delivered: false });
            }
        }
    }

    /// What happened next, if anything.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Takes an event of the poll.
    pub fn handle_event(&mut self, now: Nanos, token: Token) {
        if token.0 == self.first_token {
            self.arrivals.accept(now);
        } else if self.dialled.contains_key(&token) {
            self.progress_dialled(now, token);
        } else {
            self.read_arrived(now, token);
        }
    }

    /// Whether [`Transport::handle_unfinished`] has something to do without any event.
    #[must_use]
    pub fn has_unfinished(&self) -> bool {
        self.arrivals.has_unread() || !self.unsent.is_empty()
    }

    /// Goes on where a turn ended before everything was read or written.
    pub fn handle_unfinished(&mut self, now: Nanos) {
        for token in std::mem::take(&mut self.unsent) {
            self.pump_dialled(now, token);
        }
        for token in self.arrivals.take_unread() {
            self.read_arrived(now, token);
        }
    }

    /// When [`Transport::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        let dialled = self.dialled.values().filter_map(|dialled| match dialled.state {
            DialState::Waiting { until } => Some(until),
            DialState::Connecting { deadline, .. } | DialState::Shaking { deadline, .. } => {
                Some(deadline)
            }
            DialState::Up { .. } => None,
        });
        dialled.chain(self.arrivals.poll_timeout()).min()
    }

    /// Dials who is due and gives up what took too long.
    pub fn handle_timeout(&mut self, now: Nanos) {
        let due: Vec<Token> = self.dialled.keys().copied().collect();
        for token in due {
            let Some(dialled) = self.dialled.get(&token) else { continue };
            match dialled.state {
                DialState::Waiting { until } if until <= now => self.dial(now, token),
                DialState::Connecting { deadline, .. } | DialState::Shaking { deadline, .. }
                    if deadline <= now =>
                {
                    self.dialled_end(now, token, End::Lost(io::ErrorKind::TimedOut.into()));
                }
                _ => {}
            }
        }
        self.arrivals.handle_timeout(now);
    }

    /// Says goodbye to everybody.
    pub fn close(&mut self) {
        for dialled in self.dialled.values_mut() {
            if let DialState::Up { channel } = &mut dialled.state {
                channel.close();
            }
        }
    }

    fn dial(&mut self, now: Nanos, token: Token) {
        let Some(dialled) = self.dialled.get_mut(&token) else { return };
        let Some(address) = self.peers.get(&dialled.peer) else { return };
        let Some(name) = expected_name(dialled.peer) else { return };
        let connect = || -> io::Result<Box<Channel>> {
            let mut stream = TcpStream::connect(*address)?;
            prepare(&stream)?;
            self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            let tls =
                ClientConnection::new(self.credentials.client(), name).map_err(io::Error::other)?;
            // Nothing but TLS itself is ever expected from a connection that was dialled.
            Ok(Box::new(Channel::new(stream, tls.into(), queue_limits(dialled.lane), 0)))
        };
        match connect() {
            Ok(channel) => {
                let deadline = now.plus_ms(CONNECT_MS);
                dialled.state = DialState::Connecting { channel, deadline };
            }
            Err(error) => self.dialled_end(now, token, End::Lost(error)),
        }
    }

    /// A connection that was dialled may have come further, or have ended.
    fn progress_dialled(&mut self, now: Nanos, token: Token) {
        let Some(dialled) = self.dialled.get_mut(&token) else { return };
        let waiting = DialState::Waiting { until: Nanos::MAX };
        dialled.state = match std::mem::replace(&mut dialled.state, waiting) {
            DialState::Connecting { mut channel, deadline } => {
                match is_connected(channel.stream_mut()) {
                    Ok(true) => {
                        let greeting =
                            Greeting { from: self.own, to: dialled.peer, lane: dialled.lane };
                        channel.enqueue(greeting.encode());
                        let deadline = now.plus_ms(GREETING_MS);
                        DialState::Shaking { channel, deadline }
                    }
                    Ok(false) => DialState::Connecting { channel, deadline },
                    Err(error) => return self.dialled_end(now, token, End::Lost(error)),
                }
            }
            other => other,
        };
        self.pump_dialled(now, token);
    }

    fn pump_dialled(&mut self, now: Nanos, token: Token) {
        let Some(dialled) = self.dialled.get_mut(&token) else { return };
        let (DialState::Shaking { channel, .. } | DialState::Up { channel }) = &mut dialled.state
        else {
            return;
        };
        let outcome = channel.read().and_then(|_| channel.flush());
        let stands = outcome.is_ok() && !channel.handshaking();
        let waiting = DialState::Waiting { until: Nanos::MAX };
        if stands && matches!(dialled.state, DialState::Shaking { .. }) {
            if let DialState::Shaking { mut channel, .. } =
                std::mem::replace(&mut dialled.state, waiting)
            {
                // The greeting is not a message.
                channel.take_completed();
                dialled.state = DialState::Up { channel };
            }
            dialled.pause_ms = REDIAL_MS.0;
            let peer = dialled.peer;
            if self.connected(peer) {
                self.events.push_back(TransportEvent::Up(peer));
            }
        }
        self.after_write(now, token, outcome);
    }

    fn after_write(&mut self, now: Nanos, token: Token, outcome: Result<Drained, End>) {
        if let Some(dialled) = self.dialled.get_mut(&token)
            && let DialState::Up { channel } = &mut dialled.state
        {
            let dropped = channel.take_dropped();
            self.dropped_messages = self.dropped_messages.saturating_add(dropped);
            let completed = channel.take_completed();
            if dialled.lane == Lane::Snapshot {
                let to = dialled.peer;
                dialled.snapshots = dialled.snapshots.saturating_sub(completed + dropped);
                for (count, delivered) in [(completed, true), (dropped, false)] {
                    for _ in 0..count {
                        self.events.push_back(TransportEvent::SnapshotSent { to, delivered });
                    }
                }
            }
        }
        match outcome {
            Ok(Drained::Wholly) => {}
            Ok(Drained::Partly) => drop(self.unsent.insert(token)),
            Err(end) => self.dialled_end(now, token, end),
        }
    }

    fn dialled_end(&mut self, now: Nanos, token: Token, end: End) {
        let Some(dialled) = self.dialled.get_mut(&token) else { return };
        let peer = dialled.peer;
        let was_up = matches!(dialled.state, DialState::Up { .. });
        for _ in 0..std::mem::replace(&mut dialled.snapshots, 0) {
            self.events.push_back(TransportEvent::SnapshotSent { to: peer, delivered: false });
        }
        let until = now.plus_ms(dialled.pause_ms);
        dialled.state = DialState::Waiting { until };
        dialled.pause_ms = dialled.pause_ms.saturating_mul(2).min(REDIAL_MS.1);
        match end {
            End::Refused(refusal) => {
                dialled.state = DialState::Waiting { until: now.plus_ms(REFUSED_REDIAL_MS) };
                if let Some(count) = self.arrivals.refusals.add(refusal) {
                    tracing::warn!(member = peer, reason = refusal.name(), count, "member refused");
                }
            }
            End::Lost(error) if was_up => {
                tracing::info!(member = peer, lane = ?dialled.lane, %error, "connection lost");
            }
            End::Lost(error) => tracing::trace!(member = peer, %error, "member not reached"),
        }
        if was_up {
            self.events.push_back(TransportEvent::Down(peer));
        }
    }

    fn read_arrived(&mut self, now: Nanos, token: Token) {
        let outcome = self.arrivals.pump(token);
        // What arrived before the end counts.
        match self.take_messages(now, token).and(outcome) {
            Ok(Drained::Wholly) => {}
            Ok(Drained::Partly) => self.arrivals.mark_unread(token),
            Err(end) => self.arrived_end(token, &end),
        }
    }

    fn take_messages(&mut self, now: Nanos, token: Token) -> Result<(), End> {
        while let Some(bytes) = self.arrivals.next_message(token)? {
            self.take_message(now, token, bytes).map_err(End::Refused)?;
        }
        Ok(())
    }

    fn take_message(&mut self, now: Nanos, token: Token, bytes: Vec<u8>) -> Result<(), Refusal> {
        let Some(arrived) = self.arrivals.get_mut(token) else { return Ok(()) };
        if let Some((from, _)) = arrived.who {
            self.events.push_back(TransportEvent::Message { from, bytes });
            return Ok(());
        }
        let greeting = Greeting::decode(&bytes).ok_or(Refusal::GreetingMalformed)?;
        let certificate = arrived.channel.certificate().ok_or(Refusal::NoCertificate)?;
        let other = greeting.to == self.own && greeting.from != self.own;
        if !other || !belongs_to(certificate, greeting.from) {
            return Err(Refusal::WrongMember);
        }
        if self.retired.contains(&greeting.from) {
            if self.arrivals.refusals.count(Refusal::RetiredMember) == 0 {
                let member = greeting.from;
                tracing::warn!(
                    member,
                    "it was removed from the cluster and is refused; empty its data directory and \
                     add it under a new id"
                );
            }
            return Err(Refusal::RetiredMember);
        }
        arrived.channel.allow(message_bytes_max(greeting.lane));
        self.arrivals.introduce(token, (greeting.from, greeting.lane));
        self.dial_soon(now, greeting.from);
        Ok(())
    }

    /// A member that has just dialled us is there: no need to wait with dialling it.
    fn dial_soon(&mut self, now: Nanos, peer: u64) {
        for dialled in self.dialled.values_mut().filter(|dialled| dialled.peer == peer) {
            dialled.pause_ms = REDIAL_MS.0;
            if let DialState::Waiting { until } = &mut dialled.state {
                *until = (*until).min(now);
            }
        }
    }

    fn arrived_end(&mut self, token: Token, end: &End) {
        if let Some((member, lane)) = self.arrivals.end(token, end) {
            tracing::debug!(member, ?lane, "connection of a member ended");
            self.events.push_back(TransportEvent::Down(member));
        }
    }
}

/// Options every connection of members has.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Whether a connection stands; an error when it never will.
pub(crate) fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
