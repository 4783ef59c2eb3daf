//! Putting outer fragments together: ESP is opened whole (RFC 4303, 3.4.1).
//!
//! ```text
//!   fragment from outside --> its datagram --complete?--> one packet in a fresh buffer --> classify
//!                                  |no
//!                                  +--> waits, for [`PATIENCE_MS`] at most
//! ```
//!
//! Fragments cannot be told from forged ones before the whole is opened, so little is kept: the
//! oldest datagram goes when there is no room for a new one, and one with pieces that overlap or
//! contradict each other goes at once, as RFC 5722 demands for IPv6. A piece that comes twice is
//! ignored. All fragments of a datagram must arrive at one worker: those that NICs spread by address
//! alone do.

use crate::classify::checked_packet;
use crate::counters::Metric;
use crate::worker::{Context, Nodes};
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::{FlowKey, Nanos, PacketBuf, Port, Side, ethernet, fragment, ipv4};

/// Datagrams under way at once.
const DATAGRAMS_MAX: usize = 64;
/// Fragments of one datagram; a packet buffer holds no more than so many of the smallest usual size.
pub(crate) const PIECES_MAX: usize = 16;
/// Fragments kept in all: each holds a packet buffer, of which the smallest pool has 16 times as many.
const BUFFERS_MAX: usize = 256;
/// How long a datagram waits for what is missing. Much shorter than hosts wait (RFC 791 names 15 s):
/// the pieces of a tunnel's packet follow each other on the wire.
pub(crate) const PATIENCE_MS: u64 = 1_000;

/// A frame with a fragment, and where its payload lies.
#[derive(Debug)]
struct Piece<B> {
    buf: B,
    /// Of the payload in the frame.
    start: usize,
    /// Of the payload in the datagram.
    offset: usize,
    len: usize,
    is_last: bool,
}

/// A datagram of which something is missing.
#[derive(Debug)]
struct Partial<B> {
    name: FlowKey,
    since: Nanos,
    /// In the order of the datagram, without overlaps.
    pieces: ArrayVec<Piece<B>, PIECES_MAX>,
    /// Congestion was experienced by one of them (RFC 3168, 5.3).
    congested: bool,
}

/// What a fragment makes of its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Complete,
    /// It was here already.
    Repeated,
    /// It contradicts the others, or there are too many.
    Broken(DropReason),
}

impl<B> Partial<B> {
    fn add(&mut self, piece: Piece<B>) -> Progress {
        let same = |known: &Piece<B>| known.offset == piece.offset && known.len == piece.len;
        if self.pieces.iter().any(same) {
            return Progress::Repeated;
        }
        let end = piece.offset + piece.len;
        let at = self.pieces.iter().take_while(|known| known.offset < piece.offset).count();
        let overlaps =
            |known: &Piece<B>| known.offset < end && piece.offset < known.offset + known.len;
        let behind_last =
            |known: &Piece<B>| known.is_last && (piece.is_last || known.offset < piece.offset);
        let before = |known: &Piece<B>| piece.is_last && known.offset > piece.offset;
        let contradicts = |known| overlaps(known) || behind_last(known) || before(known);
        if self.pieces.iter().any(contradicts) {
            return Progress::Broken(DropReason::FragmentOverlap);
        }
        if self.pieces.is_full() {
            return Progress::Broken(DropReason::ReassemblyFull);
        }
        self.pieces.insert(at, piece);
        if self.is_complete() { Progress::Complete } else { Progress::Waiting }
    }

    fn is_complete(&self) -> bool {
        let mut end = 0;
        for piece in &self.pieces {
            if piece.offset != end {
                return false;
            }
            end += piece.len;
        }
        self.pieces.last().is_some_and(|piece| piece.is_last)
    }
}

/// The datagrams one worker puts together.
#[derive(Debug)]
pub(crate) struct Reassembly<B> {
    /// The oldest first.
    partials: Vec<Partial<B>>,
    buffers: usize,
}

impl<B> Reassembly<B> {
    /// Allocates all it will need.
    pub(crate) fn new() -> Self {
        Self { partials: Vec::with_capacity(DATAGRAMS_MAX), buffers: 0 }
    }

    fn remove(&mut self, at: usize) -> Option<Partial<B>> {
        let partial = (at < self.partials.len()).then(|| self.partials.remove(at))?;
        self.buffers = self.buffers.saturating_sub(partial.pieces.len());
        Some(partial)
    }

    /// The place of a datagram, new ones included.
    fn place(&mut self, name: FlowKey, now: Nanos) -> usize {
        if let Some(at) = self.partials.iter().position(|partial| partial.name == name) {
            return at;
        }
        let partial = Partial { name, since: now, pieces: ArrayVec::new(), congested: false };
        self.partials.push(partial);
        self.partials.len() - 1
    }
}

impl<P: Port> Nodes<P> {
    /// Keeps a fragment; the whole packet when it was the last one missing.
    #[cold]
    pub(crate) fn reassemble(&mut self, context: &Context<'_>, buf: P::Buf) -> Option<P::Buf> {
        let (name, piece, congested) = match described(buf) {
            Ok(described) => described,
            Err(reason) => {
                context.drop_packet(reason);
                return None;
            }
        };
        self.make_room(context, &name);
        let at = self.reassembly.place(name, context.now);
        let partial = self.reassembly.partials.get_mut(at)?;
        partial.congested |= congested;
        let progress = partial.add(piece);
        match progress {
            Progress::Waiting => self.reassembly.buffers += 1,
            Progress::Complete => {
                self.reassembly.buffers += 1;
                return self.reassembly.remove(at).and_then(|whole| self.join(context, whole));
            }
            Progress::Repeated => context.drop_packet(DropReason::FragmentRepeated),
            Progress::Broken(reason) => {
                context.drop_packet(reason);
                self.abandon(context, at, reason);
            }
        }
        None
    }

    /// Makes room for one more fragment.
    fn make_room(&mut self, context: &Context<'_>, name: &FlowKey) {
        let reassembly = &self.reassembly;
        let is_new = reassembly.partials.iter().all(|partial| partial.name != *name);
        let full = is_new && reassembly.partials.len() >= DATAGRAMS_MAX;
        if full || reassembly.buffers >= BUFFERS_MAX {
            self.abandon(context, 0, DropReason::ReassemblyFull);
        }
    }

    fn abandon(&mut self, context: &Context<'_>, at: usize, reason: DropReason) {
        if let Some(partial) = self.reassembly.remove(at) {
            context.counters.drop_packets(reason, partial.pieces.len() as u64);
        }
    }

    /// Lets those go that have waited too long.
    #[inline]
    pub(crate) fn give_up_reassembly(&mut self, context: &Context<'_>) {
        while let Some(oldest) = self.reassembly.partials.first()
            && context.now.ms_since(oldest.since) >= PATIENCE_MS
        {
            self.abandon(context, 0, DropReason::ReassemblyExpired);
        }
    }

    /// The packet that all pieces make, in a frame like that of the first.
    fn join(&mut self, context: &Context<'_>, whole: Partial<P::Buf>) -> Option<P::Buf> {
        let joined = self.joined(&whole);
        if joined.is_some() {
            context.counters.add(Metric::Reassembled, 1);
        } else {
            context.counters.drop_packets(DropReason::NoBuffer, whole.pieces.len() as u64);
        }
        joined
    }

    fn joined(&mut self, whole: &Partial<P::Buf>) -> Option<P::Buf> {
        let first = whole.pieces.first()?;
        let header = first.buf.bytes().get(..first.start)?;
        let payload_len: usize = whole.pieces.iter().map(|piece| piece.len).sum();
        let mut buf = self.io.alloc(Side::Outside, header.len() + payload_len)?;
        let (front, mut behind) = buf.bytes_mut().split_at_mut_checked(header.len())?;
        front.copy_from_slice(header);
        for piece in &whole.pieces {
            let (into, rest) = behind.split_at_mut_checked(piece.len)?;
            into.copy_from_slice(piece.buf.bytes().get(piece.start..)?.get(..piece.len)?);
            behind = rest;
        }
        let ip = front.get_mut(ethernet::HEADER_LEN..)?;
        fragment::make_whole(ip, payload_len, whole.congested);
        Some(buf)
    }
}

/// What a frame with a fragment says: the name of its datagram, its piece of it, and whether it
/// experienced congestion.
fn described<B: PacketBuf>(buf: B) -> Result<(FlowKey, Piece<B>, bool), DropReason> {
    let packet = checked_packet(buf.bytes().get(ethernet::HEADER_LEN..).unwrap_or_default())?;
    let name = FlowKey::of_datagram(&packet);
    let (offset, len) = (packet.fragment_offset(), packet.payload().len());
    let is_last = !packet.more_fragments();
    // Every piece but the last ends where another can begin, and none beyond the longest packet.
    let is_odd = len == 0 || !(is_last || len.is_multiple_of(8));
    if is_odd || offset + len + packet.header_len() > ipv4::MAX_LEN {
        return Err(DropReason::Ipv4Malformed);
    }
    let congested = packet.ecn() == ipv4::ECN_CE;
    let start = ethernet::HEADER_LEN + packet.header_len();
    Ok((name, Piece { buf, start, offset, len, is_last }, congested))
}
