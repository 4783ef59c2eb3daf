//! One TLS connection: bytes in and out of a socket that never blocks.

use super::frame::{Assembler, Frames, TooLong};
use super::refusal::Refusal;
use holdfast_replica::MessageBytes;
use mio::net::TcpStream;
use rustls::Connection;
use rustls::pki_types::CertificateDer;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

/// Bytes read from one socket before others get their turn.
const READ_BUDGET_BYTES: usize = 1024 * 1024;

/// Bytes written to one socket before others get their turn: a receiver that keeps up with the sealing of
/// a snapshot would hold the controller for as long as that takes.
const WRITE_BUDGET_BYTES: usize = 256 * 1024;

/// Why a channel is over.
#[derive(Debug)]
pub(crate) enum End {
    /// The other side closed it, or the network lost it.
    Lost(io::Error),
    /// We refuse to go on.
    Refused(Refusal),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// What a call to [`Channel::read`] left behind in the socket, or one to [`Channel::flush`] in the
/// queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing: the next event tells of more.
    Wholly,
    /// More: call again without waiting for an event.
    Partly,
}

/// How much may wait in a channel. When it is full, the oldest message goes: Raft repeats what is
/// lost, and what is newer says more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// A TLS connection over a TCP stream.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: TcpStream,
    tls: Connection,
    assembler: Assembler,
    /// Messages; the first may be on its way already.
    queue: VecDeque<MessageBytes>,
    queued_bytes: usize,
    /// The first one as frames, as far as TLS has taken it.
    frames: Frames,
    limits: QueueLimits,
    dropped: u64,
    completed: u64,
}

impl Channel {
    pub(crate) fn new(
        stream: TcpStream,
        tls: Connection,
        limits: QueueLimits,
        message_bytes_max: usize,
    ) -> Self {
        Self {
            stream,
            tls,
            assembler: Assembler::new(message_bytes_max),
            queue: VecDeque::new(),
            queued_bytes: 0,
            frames: Frames::default(),
            limits,
            dropped: 0,
            completed: 0,
        }
    }

    pub(crate) const fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Allows received messages of another length from now on.
    pub(crate) const fn allow(&mut self, message_bytes_max: usize) {
        self.assembler.allow(message_bytes_max);
    }

    pub(crate) fn handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The certificate the other side proved to have the key of.
    pub(crate) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.tls.peer_certificates().and_then(<[_]>::first)
    }

    /// Messages that had to go because the queue was full, since the last call.
    pub(crate) const fn take_dropped(&mut self) -> u64 {
        std::mem::replace(&mut self.dropped, 0)
    }

    /// Messages handed to the system as a whole, since the last call.
    pub(crate) const fn take_completed(&mut self) -> u64 {
        std::mem::replace(&mut self.completed, 0)
    }

    /// Puts a message at the end of the queue.
    pub(crate) fn enqueue(&mut self, message: impl Into<MessageBytes>) {
        let message = message.into();
        self.queued_bytes = self.queued_bytes.saturating_add(message.len());
        self.queue.push_back(message);
        while self.over_full() {
            // A message that TLS has begun to take must be finished, or the frames lose their sync.
            let oldest = usize::from(self.frames.has_begun());
            let Some(dropped) = self.queue.remove(oldest) else { break };
            if oldest == 0 {
                self.frames.begin_anew();
            }
            self.queued_bytes = self.queued_bytes.saturating_sub(dropped.len());
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    fn over_full(&self) -> bool {
        // The last message always stays, however long.
        let full = self.queue.len() > self.limits.messages || self.queued_bytes > self.limits.bytes;
        full && self.queue.len() > 1 + usize::from(self.frames.has_begun())
    }

    /// Writes until the socket takes no more, nothing is left, or others are to have their turn.
    pub(crate) fn flush(&mut self) -> Result<Drained, End> {
        let mut budget = WRITE_BUDGET_BYTES;
        while budget > 0 {
            self.feed_tls()?;
            if !self.tls.wants_write() {
                return Ok(Drained::Wholly);
            }
            match self.tls.write_tls(&mut self.stream) {
                Ok(0) => return Err(End::Lost(ErrorKind::WriteZero.into())),
                Ok(written) => budget = budget.saturating_sub(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Drained::Wholly),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Drained::Partly)
    }

    /// Writes until the socket takes no more or nothing is left: where all messages are small.
    pub(crate) fn flush_all(&mut self) -> Result<(), End> {
        while self.flush()? == Drained::Partly {}
        Ok(())
    }

    /// Hands queued bytes to TLS until its buffer is full.
    fn feed_tls(&mut self) -> io::Result<()> {
        while let Some(first) = self.queue.front() {
            while let Some(rest) = self.frames.rest(first) {
                let (taken, length) = (self.tls.writer().write(rest)?, rest.len());
                self.frames.advance(taken);
                if taken < length {
                    return Ok(());
                }
            }
            self.queued_bytes = self.queued_bytes.saturating_sub(first.len());
            self.queue.pop_front();
            self.frames.begin_anew();
            self.completed = self.completed.saturating_add(1);
        }
        Ok(())
    }

    /// Reads what has arrived; [`Channel::next_message`] has it. What arrived before the end of the
    /// channel is there, too.
    pub(crate) fn read(&mut self) -> Result<Drained, End> {
        let mut budget = READ_BUDGET_BYTES;
        while budget > 0 {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) => return Err(End::Lost(ErrorKind::UnexpectedEof.into())),
                Ok(read) => budget = budget.saturating_sub(read),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Drained::Wholly),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            let state = match self.tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // Best effort: the other side's log should say why, too.
                    let _told = self.tls.write_tls(&mut self.stream);
                    return Err(End::Refused(Refusal::of(&error)));
                }
            };
            self.take_plaintext(state.plaintext_bytes_to_read())?;
            if state.peer_has_closed() {
                return Err(End::Lost(ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(Drained::Partly)
    }

    fn take_plaintext(&mut self, length: usize) -> Result<(), End> {
        if length > 0 {
            let mut plaintext = vec![0; length];
            self.tls.reader().read_exact(&mut plaintext)?;
            self.assembler.push(&plaintext);
        }
        Ok(())
    }

    /// The next message that has arrived whole. One at a time, because the first one decides how
    /// long the others may be.
    pub(crate) fn next_message(&mut self) -> Result<Option<Vec<u8>>, End> {
        self.assembler.next_message().map_err(|TooLong| End::Refused(Refusal::MessageTooLong))
    }

    /// Says goodbye, as far as that is possible without waiting.
    pub(crate) fn close(&mut self) {
        self.tls.send_close_notify();
        let _told = self.tls.write_tls(&mut self.stream);
    }
}
