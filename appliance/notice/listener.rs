//! The member's end: targets come, say who they are, and are told.

use super::message::{
    FromTarget, FromTargetBody, MESSAGE_BYTES_MAX, VERSION_MAJOR, notice_message,
};
use crate::pki::{Credentials, belongs_to_target};
use crate::transport::{
    ArrivalLimits, Arrivals, Drained, End, QueueLimits, Refusal, RefusalCounters,
};
use holdfast_cluster::{Epoch, TargetId};
use holdfast_member::{OwnerNotice, TargetEvent};
use holdfast_packet::Nanos;
use mio::{Registry, Token};
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

/// What is allowed to targets.
const ARRIVALS: ArrivalLimits = ArrivalLimits {
    // Every target of a large cluster at once, and some more.
    strangers: 300,
    introduction_ms: 3_000,
    // The newest notice says all.
    queue: QueueLimits { messages: 4, bytes: 4 * MESSAGE_BYTES_MAX },
    message_bytes: MESSAGE_BYTES_MAX,
};

/// Messages of one target taken before others get their turn.
const MESSAGES_PER_TURN: usize = 64;

/// The listening socket and the targets that are connected.
#[derive(Debug)]
pub struct NoticeListener {
    own: u64,
    first_token: usize,
    /// Who is configured: number by name.
    targets: BTreeMap<String, u64>,
    arrivals: Arrivals<TargetId>,
    events: VecDeque<(TargetId, TargetEvent)>,
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
        let tokens = (Token(first_token), first_token.saturating_add(1));
        let arrivals = Arrivals::bind("target", address, tokens, ARRIVALS, credentials, registry)?;
        Ok(Self { own, first_token, targets, arrivals, events: VecDeque::new() })
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

    /// What a target said next, if anything.
    pub fn poll_event(&mut self) -> Option<(TargetId, TargetEvent)> {
        self.events.pop_front()
    }

    /// Tells a target who owns the address, when it is connected; the member repeats what is lost.
    pub fn send(&mut self, target: TargetId, notice: &OwnerNotice) {
        let Some((token, arrived)) = self.arrivals.find_mut(target) else { return };
        arrived.channel.enqueue(notice_message(notice).encode_to_vec());
        if let Err(end) = arrived.channel.flush_all() {
            self.end(token, &end);
        }
    }

    /// Takes an event of the poll.
    pub fn handle_event(&mut self, now: Nanos, token: Token) {
        if token.0 == self.first_token {
            self.arrivals.accept(now);
        } else {
            self.read(token);
        }
    }

    /// Whether [`Self::handle_unread`] has something to do without any event.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.arrivals.has_unread()
    }

    /// Reads on where a turn ended before everything was read.
    pub fn handle_unread(&mut self) {
        for token in self.arrivals.take_unread() {
            self.read(token);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.arrivals.poll_timeout()
    }

    /// Gives up who did not say hello in time.
    pub fn handle_timeout(&mut self, now: Nanos) {
        self.arrivals.handle_timeout(now);
    }

    fn read(&mut self, token: Token) {
        let outcome = self.arrivals.pump(token);
        // What arrived before the end counts.
        match self.take_messages(token).and(outcome) {
            Ok(Drained::Wholly) => {}
            Ok(Drained::Partly) => self.arrivals.mark_unread(token),
            Err(end) => self.end(token, &end),
        }
    }

    fn take_messages(&mut self, token: Token) -> Result<(), End> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(bytes) = self.arrivals.next_message(token)? else { return Ok(()) };
            self.take_message(token, &bytes).map_err(End::Refused)?;
        }
        self.arrivals.mark_unread(token);
        Ok(())
    }

    fn take_message(&mut self, token: Token, bytes: &[u8]) -> Result<(), Refusal> {
        let message = FromTarget::decode(bytes).map_err(|_| Refusal::GreetingMalformed)?;
        let Some(arrived) = self.arrivals.get_mut(token) else { return Ok(()) };
        let event = match (arrived.who, message.body) {
            (None, Some(FromTargetBody::Hello(hello))) => {
                if hello.version_major != VERSION_MAJOR {
                    return Err(Refusal::GreetingMalformed);
                }
                let certificate = arrived.channel.certificate().ok_or(Refusal::NoCertificate)?;
                let id = self.targets.get(&hello.name).copied();
                let id = id.filter(|_| hello.member == self.own).ok_or(Refusal::WrongTarget)?;
                if !belongs_to_target(certificate, &hello.name) {
                    return Err(Refusal::WrongTarget);
                }
                self.arrivals.introduce(token, TargetId(id));
                self.events.push_back((TargetId(id), TargetEvent::Joined));
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
        if let Some(target) = arrived.who {
            self.events.push_back((target, event));
        }
        Ok(())
    }

    fn end(&mut self, token: Token, end: &End) {
        if let Some(target) = self.arrivals.end(token, end) {
            self.events.push_back((target, TargetEvent::Left));
        }
    }
}
