//! The member's end: targets come, say who they are, and are told.

use super::message::{
    FromTarget, FromTargetBody, MESSAGE_BYTES_MAX, VERSION_MAJOR, notice_message,
};
use crate::pki::{Credentials, belongs_to_target};
use crate::transport::{Channel, Drained, End, QueueLimits, Refusal, RefusalCounters, prepare};
use holdfast_cluster::{Epoch, TargetId};
use holdfast_member::{OwnerNotice, TargetEvent};
use holdfast_packet::Nanos;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use prost::Message;
use rustls::ServerConnection;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use zeroize::Zeroizing;

/// Connections that have not said hello: every target of a large cluster at once, and some more.
const STRANGERS_MAX: usize = 300;

/// How long a connection may take from standing to its hello.
const HELLO_MS: u64 = 3_000;

/// What may wait for one target: the newest notice says all.
const QUEUE: QueueLimits = QueueLimits { messages: 4, bytes: 4 * MESSAGE_BYTES_MAX };

/// Messages of one target taken before others get their turn.
const MESSAGES_PER_TURN: usize = 64;

/// The listening socket and the targets that are connected.
#[derive(Debug)]
pub struct NoticeListener {
    own: u64,
    registry: Registry,
    credentials: Credentials,
    listener: TcpListener,
    first_token: usize,
    next_token: usize,
    /// Who is configured: number by name.
    targets: BTreeMap<String, u64>,
    connections: BTreeMap<Token, Connection>,
    unread: BTreeSet<Token>,
    events: VecDeque<(TargetId, TargetEvent)>,
    refusals: RefusalCounters,
}

#[derive(Debug)]
struct Connection {
    channel: Box<Channel>,
    from: SocketAddr,
    target: Option<TargetId>,
    deadline: Nanos,
}

impl NoticeListener {
    /// Listens on `address` in the name of member `own` for `targets`, numbers by name. Every token
    /// from `first_token` on belongs to it.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn new(
        own: u64,
        address: SocketAddr,
        targets: BTreeMap<String, u64>,
        credentials: Credentials,
        registry: Registry,
        first_token: usize,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, Token(first_token), Interest::READABLE)?;
        Ok(Self {
            own,
            registry,
            credentials,
            listener,
            first_token,
            next_token: first_token,
            targets,
            connections: BTreeMap::new(),
            unread: BTreeSet::new(),
            events: VecDeque::new(),
            refusals: RefusalCounters::default(),
        })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Refused connections by reason.
    #[must_use]
    pub const fn refusals(&self) -> &RefusalCounters {
        &self.refusals
    }

    /// What a target said next, if anything.
    pub fn poll_event(&mut self) -> Option<(TargetId, TargetEvent)> {
        self.events.pop_front()
    }

    /// Tells a target who owns the address, when it is connected; the member repeats what is lost.
    pub fn send(&mut self, target: TargetId, notice: &OwnerNotice) {
        let found = self.connections.iter_mut().find(|(_, c)| c.target == Some(target));
        let Some((token, connection)) = found else { return };
        let token = *token;
        let bytes = Zeroizing::new(notice_message(notice).encode_to_vec());
        connection.channel.enqueue(&bytes);
        if let Err(end) = connection.channel.flush() {
            self.end(token, &end);
        }
    }

    /// Takes an event of the poll.
    pub fn handle_event(&mut self, now: Nanos, token: Token) {
        if token.0 == self.first_token {
            self.accept(now);
        } else {
            self.read(token);
        }
    }

    /// Whether [`Self::handle_unread`] has something to do without any event.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Reads on where a turn ended before everything was read.
    pub fn handle_unread(&mut self) {
        for token in std::mem::take(&mut self.unread) {
            self.read(token);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        let strangers = self.connections.values().filter(|c| c.target.is_none());
        strangers.map(|connection| connection.deadline).min()
    }

    /// Gives up who did not say hello in time.
    pub fn handle_timeout(&mut self, now: Nanos) {
        let late =
            |connection: &Connection| connection.target.is_none() && connection.deadline <= now;
        let late: Vec<Token> =
            self.connections.iter().filter(|(_, c)| late(c)).map(|(token, _)| *token).collect();
        for token in late {
            self.end(token, &End::Refused(Refusal::GreetingLate));
        }
    }

    fn accept(&mut self, now: Nanos) {
        loop {
            match self.listener.accept() {
                Ok((stream, from)) => self.welcome(now, stream, from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a target's connection");
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, now: Nanos, mut stream: TcpStream, from: SocketAddr) {
        if self.connections.values().filter(|c| c.target.is_none()).count() >= STRANGERS_MAX {
            self.refusals.add(Refusal::TooManyStrangers);
            return;
        }
        self.next_token = self.next_token.checked_add(1).unwrap_or(self.first_token + 1);
        let token = Token(self.next_token);
        let open = || -> io::Result<Box<Channel>> {
            prepare(&stream)?;
            self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            let tls = ServerConnection::new(self.credentials.server()).map_err(io::Error::other)?;
            Ok(Box::new(Channel::new(stream, tls.into(), QUEUE, MESSAGE_BYTES_MAX)))
        };
        match open() {
            Ok(channel) => {
                let deadline = now.plus_ms(HELLO_MS);
                let connection = Connection { channel, from, target: None, deadline };
                self.connections.insert(token, connection);
            }
            Err(error) => tracing::warn!(%from, %error, "cannot take a target's connection"),
        }
    }

    fn read(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let outcome = connection.channel.read().and_then(|drained| {
            connection.channel.flush()?;
            Ok(drained)
        });
        // What arrived before the end counts.
        let taken = self.take_messages(token);
        match taken.and(outcome) {
            Ok(Drained::Wholly) => {}
            Ok(Drained::Partly) => {
                self.unread.insert(token);
            }
            Err(end) => self.end(token, &end),
        }
    }

    fn take_messages(&mut self, token: Token) -> Result<(), End> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
            let Some(bytes) = connection.channel.next_message()? else { return Ok(()) };
            self.take_message(token, &bytes).map_err(End::Refused)?;
        }
        self.unread.insert(token);
        Ok(())
    }

    fn take_message(&mut self, token: Token, bytes: &[u8]) -> Result<(), Refusal> {
        let message = FromTarget::decode(bytes).map_err(|_| Refusal::GreetingMalformed)?;
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        let event = match (connection.target, message.body) {
            (None, Some(FromTargetBody::Hello(hello))) => {
                if hello.version_major != VERSION_MAJOR {
                    return Err(Refusal::GreetingMalformed);
                }
                let certificate = connection.channel.certificate().ok_or(Refusal::NoCertificate)?;
                let id = self.targets.get(&hello.name).copied();
                let id = id.filter(|_| hello.member == self.own).ok_or(Refusal::WrongTarget)?;
                if !belongs_to_target(certificate, &hello.name) {
                    return Err(Refusal::WrongTarget);
                }
                self.join(token, TargetId(id));
                return Ok(());
            }
            (None, _) | (_, Some(FromTargetBody::Hello(_))) => {
                return Err(Refusal::GreetingMalformed);
            }
            (_, Some(FromTargetBody::Acknowledged(epoch))) => {
                TargetEvent::Acknowledged { epoch: Epoch(epoch) }
            }
            (_, Some(FromTargetBody::Stale(stale))) => {
                TargetEvent::Refused { epoch: Epoch(stale.epoch), known: Epoch(stale.known_epoch) }
            }
            (_, Some(FromTargetBody::Report(report))) => TargetEvent::Report(report.into()),
            // Of a newer release.
            (_, None) => return Ok(()),
        };
        if let Some(target) = connection.target {
            self.events.push_back((target, event));
        }
        Ok(())
    }

    /// The target is known. One that comes anew has given its earlier connection up.
    fn join(&mut self, token: Token, target: TargetId) {
        let earlier: Vec<Token> = self
            .connections
            .iter()
            .filter(|(other, c)| **other != token && c.target == Some(target))
            .map(|(other, _)| *other)
            .collect();
        for other in earlier {
            self.connections.remove(&other);
            self.unread.remove(&other);
        }
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.target = Some(target);
        }
        self.events.push_back((target, TargetEvent::Joined));
    }

    fn end(&mut self, token: Token, end: &End) {
        self.unread.remove(&token);
        let Some(connection) = self.connections.remove(&token) else { return };
        let from = connection.from;
        if let End::Refused(refusal) = end
            && let Some(count) = self.refusals.add(*refusal)
        {
            tracing::warn!(%from, reason = refusal.name(), count, "target refused");
        }
        if let Some(target) = connection.target {
            self.events.push_back((target, TargetEvent::Left));
        }
    }
}
