//! Connections that arrive: accepted, strangers until they have said who they are, refused by name.
//!
//! ```text
//!   accept --> stranger (deadline) --[its first message, judged by the caller]--> known as W
//!                  |                                                                |
//!                  +--> late, refused, lost: ended and counted <--------------------+
//! ```

use super::channel::{Channel, Drained, End, QueueLimits};
use super::prepare;
use super::refusal::{Refusal, RefusalCounters};
use crate::pki::Credentials;
use holdfast_packet::Nanos;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustls::ServerConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;

/// What is allowed to who arrives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrivalLimits {
    /// Connections that may be open without having said who they are.
    pub(crate) strangers: usize,
    /// How long one may take for it.
    pub(crate) introduction_ms: u64,
    /// What may wait to be written to one.
    pub(crate) queue: QueueLimits,
    /// The longest message a stranger may send.
    pub(crate) message_bytes: usize,
}

/// A connection that arrived.
#[derive(Debug)]
pub(crate) struct Arrived<W> {
    pub(crate) channel: Box<Channel>,
    from: SocketAddr,
    /// Who it is, once it said so.
    pub(crate) who: Option<W>,
    deadline: Nanos,
}

/// A listening socket and every connection that arrived at it.
#[derive(Debug)]
pub(crate) struct Arrivals<W> {
    /// Who comes here, for the log.
    kind: &'static str,
    limits: ArrivalLimits,
    registry: Registry,
    credentials: Credentials,
    listener: TcpListener,
    tokens_from: usize,
    next_token: usize,
    connections: BTreeMap<Token, Arrived<W>>,
    unread: BTreeSet<Token>,
    pub(crate) refusals: RefusalCounters,
}

impl<W: Copy + Eq> Arrivals<W> {
    /// Listens on `address` under `token`; connections get the tokens from `tokens_from` on.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) fn bind(
        kind: &'static str,
        address: SocketAddr,
        (token, tokens_from): (Token, usize),
        limits: ArrivalLimits,
        credentials: Credentials,
        registry: Registry,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            kind,
            limits,
            registry,
            credentials,
            listener,
            tokens_from,
            next_token: tokens_from,
            connections: BTreeMap::new(),
            unread: BTreeSet::new(),
            refusals: RefusalCounters::default(),
        })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes everybody who waits at the door.
    pub(crate) fn accept(&mut self, now: Nanos) {
        loop {
            match self.listener.accept() {
                Ok((stream, from)) => self.welcome(now, stream, from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(kind = self.kind, %error, "cannot accept a connection");
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, now: Nanos, mut stream: TcpStream, from: SocketAddr) {
        if self.strangers().count() >= self.limits.strangers {
            self.refusals.add(Refusal::TooManyStrangers);
            return;
        }
        let token = Token(self.next_token);
        self.next_token = self.next_token.checked_add(1).unwrap_or(self.tokens_from);
        let open = || -> io::Result<Box<Channel>> {
            prepare(&stream)?;
            self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            let tls = ServerConnection::new(self.credentials.server()).map_err(io::Error::other)?;
            let ArrivalLimits { queue, message_bytes, .. } = self.limits;
            Ok(Box::new(Channel::new(stream, tls.into(), queue, message_bytes)))
        };
        match open() {
            Ok(channel) => {
                let deadline = now.plus_ms(self.limits.introduction_ms);
                self.connections.insert(token, Arrived { channel, from, who: None, deadline });
            }
            Err(error) => {
                tracing::warn!(kind = self.kind, %from, %error, "cannot take a connection");
            }
        }
    }

    fn strangers(&self) -> impl Iterator<Item = (&Token, &Arrived<W>)> {
        self.connections.iter().filter(|(_, arrived)| arrived.who.is_none())
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut Arrived<W>> {
        self.connections.get_mut(&token)
    }

    /// The connection of `who`, if it is here.
    pub(crate) fn find_mut(&mut self, who: W) -> Option<(Token, &mut Arrived<W>)> {
        let found = self.connections.iter_mut().find(|(_, arrived)| arrived.who == Some(who));
        found.map(|(token, arrived)| (*token, arrived))
    }

    /// Reads what has come and writes what is due; messages wait in the channel then.
    pub(crate) fn pump(&mut self, token: Token) -> Result<Drained, End> {
        let Some(arrived) = self.connections.get_mut(&token) else { return Ok(Drained::Wholly) };
        let read = arrived.channel.read()?;
        let written = arrived.channel.flush()?;
        Ok(if written == Drained::Partly { written } else { read })
    }

    /// The next whole message of a connection.
    pub(crate) fn next_message(&mut self, token: Token) -> Result<Option<Vec<u8>>, End> {
        let Some(arrived) = self.connections.get_mut(&token) else { return Ok(None) };
        arrived.channel.next_message()
    }

    /// There is more to read, and no event will tell.
    pub(crate) fn mark_unread(&mut self, token: Token) {
        self.unread.insert(token);
    }

    /// Whether something was marked as unread.
    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// What was marked as unread; it is no longer.
    pub(crate) fn take_unread(&mut self) -> BTreeSet<Token> {
        std::mem::take(&mut self.unread)
    }

    /// The connection is that of `who`, who has given its earlier ones up by coming anew.
    pub(crate) fn introduce(&mut self, token: Token, who: W) {
        self.retain(|known| known != who);
        if let Some(arrived) = self.connections.get_mut(&token) {
            arrived.who = Some(who);
        }
    }

    /// Closes the connections of everybody known for whom `keep` does not hold.
    pub(crate) fn retain(&mut self, keep: impl Fn(W) -> bool) {
        let unread = &mut self.unread;
        self.connections.retain(|token, arrived| {
            let kept = arrived.who.is_none_or(&keep);
            if !kept {
                unread.remove(token);
            }
            kept
        });
    }

    /// When the next stranger has taken too long.
    pub(crate) fn poll_timeout(&self) -> Option<Nanos> {
        self.strangers().map(|(_, arrived)| arrived.deadline).min()
    }

    /// Gives up who did not say in time who it is.
    pub(crate) fn handle_timeout(&mut self, now: Nanos) {
        let late: Vec<Token> = self
            .strangers()
            .filter(|(_, arrived)| arrived.deadline <= now)
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            self.end(token, &End::Refused(Refusal::GreetingLate));
        }
    }

    /// Closes a connection, counts why, and says whose it was.
    pub(crate) fn end(&mut self, token: Token, end: &End) -> Option<W> {
        self.unread.remove(&token);
        let Arrived { from, who, .. } = self.connections.remove(&token)?;
        if let End::Refused(refusal) = end
            && let Some(count) = self.refusals.add(*refusal)
        {
            let reason = refusal.name();
            tracing::warn!(kind = self.kind, %from, reason, count, "connection refused");
        }
        who
    }
}
