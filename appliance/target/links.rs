//! One connection to each member, dialled again with growing pauses whenever it is gone.

use crate::notice::{
    FromTarget, FromTargetBody, Hello, MESSAGE_BYTES_MAX, ToTarget, VERSION_MAJOR,
};
use crate::pki::{Credentials, expected_name};
use crate::transport::{Channel, End, QueueLimits, is_connected, prepare};
use holdfast_packet::Nanos;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use prost::Message;
use rustls::ClientConnection;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use zeroize::Zeroizing;

/// First and longest pause before a member is dialled again. A member that comes back may be the
/// next owner, and what it has to tell cannot wait.
const REDIAL_MS: (u64, u64) = (50, 1_000);

/// How long a connection may take until TLS stands.
const CONNECT_MS: u64 = 3_000;

/// What may wait for one member: a few reports and answers.
const QUEUE: QueueLimits = QueueLimits { messages: 16, bytes: 16 * MESSAGE_BYTES_MAX };

#[derive(Debug)]
enum State {
    Waiting { until: Nanos },
    Connecting { channel: Box<Channel>, deadline: Nanos, greeted: bool },
    Up { channel: Box<Channel> },
}

#[derive(Debug)]
struct Link {
    member: u64,
    address: SocketAddr,
    state: State,
    pause_ms: u64,
}

/// The connections to all members.
#[derive(Debug)]
pub(crate) struct Links {
    name: String,
    credentials: Credentials,
    registry: Registry,
    first_token: usize,
    links: Vec<Link>,
    received: VecDeque<(u64, ToTarget)>,
    /// Members whose connection stands since the last call.
    joined: Vec<u64>,
}

impl Links {
    /// Dials `members` in the name of target `name`; tokens from `first_token` on, one each.
    pub(crate) fn new(
        name: &str,
        members: &[(u64, SocketAddr)],
        credentials: Credentials,
        registry: Registry,
        first_token: usize,
    ) -> Self {
        let link = |(member, address): &(u64, SocketAddr)| Link {
            member: *member,
            address: *address,
            state: State::Waiting { until: Nanos::ZERO },
            pause_ms: REDIAL_MS.0,
        };
        Self {
            name: name.to_owned(),
            credentials,
            registry,
            first_token,
            links: members.iter().map(link).collect(),
            received: VecDeque::new(),
            joined: Vec::new(),
        }
    }

    /// The members that are connected.
    pub(crate) fn connected(&self) -> Vec<u64> {
        let up = self.links.iter().filter(|link| matches!(link.state, State::Up { .. }));
        up.map(|link| link.member).collect()
    }

    /// What a member said next.
    pub(crate) fn poll_received(&mut self) -> Option<(u64, ToTarget)> {
        self.received.pop_front()
    }

    /// Members that were joined since the last call.
    pub(crate) fn take_joined(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.joined)
    }

    /// Says something to a member, when it is connected.
    pub(crate) fn send(&mut self, now: Nanos, member: u64, body: FromTargetBody) {
        let found = self.links.iter().position(|link| link.member == member);
        let Some(at) = found else { return };
        let Some(Link { state: State::Up { channel }, .. }) = self.links.get_mut(at) else {
            return;
        };
        channel.enqueue(FromTarget::from(body).encode_to_vec());
        if let Err(end) = channel.flush_all() {
            self.end(now, at, &end);
        }
    }

    /// Takes an event of the poll.
    pub(crate) fn handle_event(&mut self, now: Nanos, token: Token) {
        let at = token.0.saturating_sub(self.first_token);
        if let Err(end) = self.progress(at) {
            self.end(now, at, &end);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Nanos> {
        let due = self.links.iter().filter_map(|link| match link.state {
            State::Waiting { until } => Some(until),
            State::Connecting { deadline, .. } => Some(deadline),
            State::Up { .. } => None,
        });
        due.min()
    }

    /// Dials who is due and gives up what took too long.
    pub(crate) fn handle_timeout(&mut self, now: Nanos) {
        for at in 0..self.links.len() {
            let Some(link) = self.links.get(at) else { continue };
            match link.state {
                State::Waiting { until } if until <= now => {
                    if let Err(error) = self.dial(now, at) {
                        self.end(now, at, &End::Lost(error));
                    }
                }
                State::Connecting { deadline, .. } if deadline <= now => {
                    self.end(now, at, &End::Lost(io::ErrorKind::TimedOut.into()));
                }
                _ => {}
            }
        }
    }

    fn dial(&mut self, now: Nanos, at: usize) -> io::Result<()> {
        let Some(link) = self.links.get_mut(at) else { return Ok(()) };
        let name = expected_name(link.member).ok_or(io::ErrorKind::InvalidInput)?;
        let mut stream = TcpStream::connect(link.address)?;
        prepare(&stream)?;
        let token = Token(self.first_token.saturating_add(at));
        self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls =
            ClientConnection::new(self.credentials.client(), name).map_err(io::Error::other)?;
        let channel = Box::new(Channel::new(stream, tls.into(), QUEUE, MESSAGE_BYTES_MAX));
        let deadline = now.plus_ms(CONNECT_MS);
        link.state = State::Connecting { channel, deadline, greeted: false };
        Ok(())
    }

    fn progress(&mut self, at: usize) -> Result<(), End> {
        let Some(link) = self.links.get_mut(at) else { return Ok(()) };
        if let State::Connecting { channel, greeted: greeted @ false, .. } = &mut link.state {
            if !is_connected(channel.stream_mut())? {
                return Ok(());
            }
            let name = self.name.clone();
            let hello = Hello { version_major: VERSION_MAJOR, name, member: link.member };
            let hello = FromTarget::from(FromTargetBody::Hello(hello));
            channel.enqueue(hello.encode_to_vec());
            *greeted = true;
        }
        let (State::Connecting { channel, .. } | State::Up { channel }) = &mut link.state else {
            return Ok(());
        };
        let outcome = channel.read().and_then(|_| channel.flush_all());
        let mut messages = Vec::new();
        while let Some(bytes) = channel.next_message()?.map(Zeroizing::new) {
            messages.push(ToTarget::decode(bytes.as_slice()));
        }
        let stands = outcome.is_ok() && !channel.handshaking();
        self.received.extend(messages.into_iter().flatten().map(|m| (link.member, m)));
        if stands && matches!(link.state, State::Connecting { .. }) {
            let waiting = State::Waiting { until: Nanos::MAX };
            if let State::Connecting { channel, .. } = std::mem::replace(&mut link.state, waiting) {
                link.state = State::Up { channel };
            }
            link.pause_ms = REDIAL_MS.0;
            self.joined.push(link.member);
            tracing::info!(member = link.member, "connected");
        }
        outcome
    }

    fn end(&mut self, now: Nanos, at: usize, end: &End) {
        let Some(link) = self.links.get_mut(at) else { return };
        let was_up = matches!(link.state, State::Up { .. });
        link.state = State::Waiting { until: now.plus_ms(link.pause_ms) };
        link.pause_ms = link.pause_ms.saturating_mul(2).min(REDIAL_MS.1);
        let member = link.member;
        match end {
            End::Refused(refusal) => {
                tracing::warn!(member, reason = refusal.name(), "member refused");
            }
            End::Lost(error) if was_up => tracing::warn!(member, %error, "connection lost"),
            End::Lost(error) => tracing::debug!(member, %error, "member not reached"),
        }
    }
}
