//! Which connection the fragments of a datagram from a peer belong to.
//!
//! ```text
//!   first fragment (has the ports) --> remembered under (addresses, protocol, identification)
//!                                      --> goes on; those that waited for it follow
//!   other fragment --> remembered? ----yes--> goes on with the connection of the first
//!                          |no
//!                          +--> waits, for [`PATIENCE_MS`] at most
//! ```
//!
//! A distributor need not put a datagram together: the fragments only have to reach one target, and
//! that one does. Everything here is bounded and forgets the oldest first.

use crate::distribute::Onward;
use crate::worker::{Context, Nodes};
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::{BURST, FlowKey, Nanos, PacketBuf, Port, ipv4};
use std::collections::VecDeque;

/// Sets of places in which datagrams are remembered; with [`WAYS`] 1024 datagrams, those that are
/// under way at once from all peers of one worker.
const SETS: usize = 256;
/// Places a datagram may be remembered in.
const WAYS: usize = 4;
/// A datagram is forgotten after so long without a fragment. Identifications come round after 2^16
/// datagrams, at 30000 a second after two seconds.
const MEMORY_MS: u64 = 2_000;
/// Fragments that wait for the first of their datagram; each holds a packet buffer.
pub(crate) const WAITING_MAX: usize = 128;
/// How long a fragment waits: reordering on the way is shorter, and buffers are few.
pub(crate) const PATIENCE_MS: u64 = 500;

/// A datagram that is known.
#[derive(Debug, Clone, Copy)]
struct Known {
    datagram: FlowKey,
    connection: FlowKey,
    seen: Nanos,
}

/// A fragment that waits.
#[derive(Debug)]
struct Waiting<B> {
    datagram: FlowKey,
    buf: B,
    since: Nanos,
}

/// The fragments of one worker.
#[derive(Debug)]
pub(crate) struct FragmentTable<B> {
    known: Box<[[Option<Known>; WAYS]]>,
    waiting: VecDeque<Waiting<B>>,
    /// Datagrams whose first fragment came in this burst while others waited.
    begun: ArrayVec<FlowKey, BURST>,
}

impl<B> FragmentTable<B> {
    /// Knows nothing. Allocates all it will need.
    pub(crate) fn new() -> Self {
        Self {
            known: vec![[None; WAYS]; SETS].into_boxed_slice(),
            waiting: VecDeque::with_capacity(WAITING_MAX),
            begun: ArrayVec::new(),
        }
    }

    fn set(&mut self, datagram: &FlowKey, seed: u64) -> Option<&mut [Option<Known>; WAYS]> {
        self.known.get_mut(datagram.quick_hash(seed) as usize % SETS)
    }

    /// Remembers what the first fragment of a datagram says, instead of the one longest unseen when
    /// there is no room.
    fn remember(&mut self, new: Known, seed: u64) {
        let rank = |way: &Option<Known>| match way {
            Some(known) if known.datagram == new.datagram => (0, Nanos::ZERO),
            None => (1, Nanos::ZERO),
            Some(known) => (2, known.seen),
        };
        let way = self
            .set(&new.datagram, seed)
            .and_then(|set| set.iter_mut().min_by_key(|way| rank(way)));
        if let Some(way) = way {
            *way = Some(new);
        }
        if !self.waiting.is_empty() {
            // A burst has no more.
            let _ = self.begun.try_push(new.datagram);
        }
    }

    /// The connection of a datagram whose first fragment was here.
    fn connection(&mut self, datagram: &FlowKey, now: Nanos, seed: u64) -> Option<FlowKey> {
        let mut known = self.set(datagram, seed)?.iter_mut().flatten();
        let known = known.find(|known| known.datagram == *datagram)?;
        if now.ms_since(known.seen) >= MEMORY_MS {
            return None;
        }
        known.seen = now;
        Some(known.connection)
    }

    /// Keeps a fragment whose first is not here yet; false when too many wait.
    fn wait(&mut self, datagram: FlowKey, buf: B, since: Nanos) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.waiting.push_back(Waiting { datagram, buf, since });
        }
        room
    }

    /// Takes one that waited for the first fragment of a datagram which has begun, and its datagram.
    fn follower(&mut self) -> Option<(FlowKey, B)> {
        while let Some(datagram) = self.begun.last() {
            let at = self.waiting.iter().position(|waiting| waiting.datagram == *datagram);
            if let Some(Waiting { datagram, buf, .. }) = at.and_then(|at| self.waiting.remove(at)) {
                return Some((datagram, buf));
            }
            self.begun.pop();
        }
        None
    }

    /// Takes one that has waited in vain.
    fn given_up(&mut self, now: Nanos) -> Option<B> {
        let oldest = self.waiting.front()?;
        if now.ms_since(oldest.since) < PATIENCE_MS {
            return None;
        }
        self.waiting.pop_front().map(|waiting| waiting.buf)
    }
}

impl<P: Port> Nodes<P> {
    /// Sends a fragment after the first one of its datagram, or has it wait for that.
    #[cold]
    pub(crate) fn follow(
        &mut self,
        context: &Context<'_>,
        buf: P::Buf,
        flow: FlowKey,
    ) -> Result<Option<Onward<P::Buf>>, DropReason> {
        let (now, seed) = (context.now, context.tables.flow_seed);
        let packet = ipv4::View::parse(buf.bytes()).map_err(|_| DropReason::InnerMalformed)?;
        let datagram = FlowKey::of_datagram(&packet);
        let connection = if packet.fragment_offset() == 0 {
            let first = FlowKey::of_first_fragment(&packet).ok_or(DropReason::InnerMalformed)?;
            self.fragments.remember(Known { datagram, connection: first, seen: now }, seed);
            first
        } else {
            match self.fragments.connection(&datagram, now, seed) {
                Some(connection) => connection,
                None if self.fragments.wait(datagram, (buf, flow), now) => return Ok(None),
                None => return Err(DropReason::FragmentsFull),
            }
        };
        Ok(Some(Onward::of_connection(context, buf, flow, connection)))
    }

    /// Sends those on that waited for a fragment of the burst that was just distributed.
    #[inline]
    pub(crate) fn distribute_followers(&mut self, context: &Context<'_>) {
        if !self.fragments.begun.is_empty() {
            self.distribute_begun(context);
        }
    }

    #[cold]
    fn distribute_begun(&mut self, context: &Context<'_>) {
        let (now, seed) = (context.now, context.tables.flow_seed);
        let mut onward = ArrayVec::new();
        while let Some((datagram, (buf, flow))) = self.fragments.follower() {
            match self.fragments.connection(&datagram, now, seed) {
                Some(connection) => {
                    onward.push(Onward::of_connection(context, buf, flow, connection));
                }
                None => context.drop_packet(DropReason::FragmentAlone),
            }
            if onward.is_full() {
                self.distribute(context, &mut onward);
                onward.clear();
            }
        }
        self.distribute(context, &mut onward);
    }

    /// Lets those go that have waited too long.
    #[inline]
    pub(crate) fn give_up_fragments(&mut self, context: &Context<'_>) {
        if self.fragments.waiting.is_empty() {
            return;
        }
        while self.fragments.given_up(context.now).is_some() {
            context.drop_packet(DropReason::FragmentAlone);
        }
    }
}
