//! The operator's socket: who may open it may ask everything, so only root may.
//!
//! ```text
//!   client --frame--> Server::poll_request  (id, request) --> controller
//!          <--frame-- Server::answer        (id, response) <--
//! ```
//!
//! Contract: nothing here waits for a client. A client has one question outstanding; the next is
//! looked at when it is answered. Who is silent or does not read is closed.

mod store;
mod translate;

pub use translate::{Context, Question, question, reply};

use holdfast_api::{
    Failure, FailureKind, FrameReader, Request, RequestKind, Response, ResponseKind, encode_frame,
};
use holdfast_packet::Nanos;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Clients at once: people and a monitoring system.
const CLIENTS_MAX: usize = 32;

/// A client that neither asks nor reads for so long is closed.
const SILENCE_MS: u64 = 60_000;

/// The listening socket and its clients.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
    registry: Registry,
    first_token: usize,
    clients: BTreeMap<Token, Client>,
    requests: VecDeque<(u64, RequestKind)>,
    next_request: u64,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    reader: FrameReader,
    unsent: Vec<u8>,
    outstanding: Option<u64>,
    last_sign: Nanos,
}

impl Server {
    /// Listens on `path`, readable and writable by its owner only. The tokens from `first_token`
    /// on, [`Server::TOKENS`] of them, belong to the server.
    ///
    /// # Errors
    /// When another daemon listens there or the socket cannot be made.
    pub fn new(path: &Path, registry: Registry, first_token: usize) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        remove_stale(path)?;
        let mut listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        registry.register(&mut listener, Token(first_token), Interest::READABLE)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            registry,
            first_token,
            clients: BTreeMap::new(),
            requests: VecDeque::new(),
            next_request: 0,
        })
    }

    /// How many tokens the server uses.
    pub const TOKENS: usize = 1 + CLIENTS_MAX;

    /// Takes an event of the poll.
    pub fn handle_event(&mut self, now: Nanos, token: Token) {
        if token.0 == self.first_token {
            self.accept(now);
        } else {
            self.serve(now, token);
        }
    }

    /// The next question, with the name to answer it by.
    pub fn poll_request(&mut self) -> Option<(u64, RequestKind)> {
        self.requests.pop_front()
    }

    /// Answers a question. A client that has gone since does not hear it.
    pub fn answer(&mut self, now: Nanos, request: u64, kind: ResponseKind) {
        let asker = self.clients.iter_mut().find(|(_, c)| c.outstanding == Some(request));
        let Some((token, client)) = asker else { return };
        let token = *token;
        client.outstanding = None;
        client.unsent.extend(frame(kind));
        client.last_sign = now;
        // What it asked meanwhile comes next.
        self.serve(now, token);
    }

    /// When [`Server::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.clients.values().map(|client| client.last_sign.plus_ms(SILENCE_MS)).min()
    }

    /// Closes who has been silent for too long.
    pub fn handle_timeout(&mut self, now: Nanos) {
        self.clients.retain(|_, client| client.last_sign.plus_ms(SILENCE_MS) > now);
    }

    fn accept(&mut self, now: Nanos) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(now, stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an operator's connection");
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, now: Nanos, mut stream: UnixStream) {
        let mut tokens = (1..Self::TOKENS).map(|n| Token(self.first_token.saturating_add(n)));
        let Some(token) = tokens.find(|token| !self.clients.contains_key(token)) else {
            tracing::warn!(limit = CLIENTS_MAX, "too many operators at once; one is turned away");
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut stream, token, interest) {
            tracing::warn!(%error, "cannot take an operator's connection");
            return;
        }
        let reader = FrameReader::default();
        let client =
            Client { stream, reader, unsent: Vec::new(), outstanding: None, last_sign: now };
        self.clients.insert(token, client);
    }

    fn serve(&mut self, now: Nanos, token: Token) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        let alive = client.read(now).and_then(|open| {
            while client.outstanding.is_none() {
                let Some(message) = client.reader.next_message().map_err(io::Error::other)? else {
                    break;
                };
                match Request::decode(message.as_slice()).ok().and_then(|request| request.kind) {
                    Some(kind) => {
                        self.next_request = self.next_request.wrapping_add(1);
                        client.outstanding = Some(self.next_request);
                        self.requests.push_back((self.next_request, kind));
                    }
                    None => client.unsent.extend(frame(not_understood())),
                }
            }
            client.write()?;
            Ok(open || client.outstanding.is_some() || !client.unsent.is_empty())
        });
        if !alive.unwrap_or(false) {
            self.clients.remove(&token);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: a socket that stays is found stale at the next start.
        let _removed = fs::remove_file(&self.path);
    }
}

impl Client {
    /// Reads what is there; `false` when the client will say no more.
    fn read(&mut self, now: Nanos) -> io::Result<bool> {
        let mut piece = [0u8; 4096];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.last_sign = now;
                    self.reader.push(piece.get(..read).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Removes a socket nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(ErrorKind::AddrInUse, "another daemon listens on the socket"));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn frame(kind: ResponseKind) -> Vec<u8> {
    encode_frame(&Response { kind: Some(kind) }).unwrap_or_else(|error| {
        let message = error.to_string();
        let failure = Failure { message, ..Failure::default() };
        let response = Response { kind: Some(ResponseKind::Failure(failure)) };
        encode_frame(&response).unwrap_or_default()
    })
}

fn not_understood() -> ResponseKind {
    ResponseKind::Failure(Failure {
        kind: FailureKind::Usage.into(),
        message: "this daemon does not know the request".into(),
        next_action: "use the CLI of the daemon's version".into(),
    })
}

#[cfg(test)]
mod tests;
