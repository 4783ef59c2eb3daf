//! Node: a packet too long for the way ahead of it goes on in fragments, if its sender allows that.
//!
//! ```text
//!   number     --too long for the tunnel--> set aside --+          +--> outbound
//!                                                       +--> cut --+
//!   distribute --too long for the target--> set aside --+          +--> distribute
//! ```
//!
//! Packets for a tunnel are cut before they are encrypted, so that each piece is a packet of its
//! own there and the peer need not put outer fragments together (RFC 4303, 3.3.4). All pieces carry
//! the flow of the whole, so they take its SA, or go to its target.

use crate::classify::InnerPacket;
use crate::counters::Metric;
use crate::distribute::Onward;
use crate::outbound::Leaving;
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::fragment::{Piece, Pieces};
use holdfast_packet::{BURST, FlowKey, PacketBuf, Port, Side, ethernet, ipv4};

/// Packets one call of a node may set aside: all of its burst.
const SET_ASIDE_MAX: usize = BURST;

/// Packets set aside, in order.
pub(crate) type SetAside<B> = ArrayVec<TooLong<B>, SET_ASIDE_MAX>;

/// A packet that is to go on in pieces.
#[derive(Debug)]
pub(crate) struct TooLong<B> {
    /// Behind [`Ahead::link_len`] bytes of link header.
    buf: B,
    /// Bytes of the longest packet that fits.
    largest: usize,
    ahead: Ahead,
}

/// What lies ahead of a packet.
#[derive(Debug, Clone, Copy)]
enum Ahead {
    Tunnel(InnerPacket),
    Target { flow: FlowKey, connection: FlowKey },
}

impl Ahead {
    /// Bytes in front of the packet, which the next node cuts off.
    const fn link_len(&self) -> usize {
        match self {
            Self::Tunnel(_) => ethernet::HEADER_LEN,
            Self::Target { .. } => 0,
        }
    }
}

impl<P: Port> Nodes<P> {
    /// Puts a frame that is too long for its tunnel aside.
    #[cold]
    pub(crate) fn set_leaving_aside(
        &mut self,
        context: &Context<'_>,
        buf: P::Buf,
        inner: InnerPacket,
        largest: usize,
    ) {
        self.set_aside(context, TooLong { buf, largest, ahead: Ahead::Tunnel(inner) });
    }

    /// Puts a packet that is too long for its target's network aside.
    #[cold]
    pub(crate) fn set_onward_aside(
        &mut self,
        context: &Context<'_>,
        buf: P::Buf,
        flow: FlowKey,
        connection: FlowKey,
        largest: usize,
    ) {
        let ahead = Ahead::Target { flow, connection };
        self.set_aside(context, TooLong { buf, largest, ahead });
    }

    fn set_aside(&mut self, context: &Context<'_>, packet: TooLong<P::Buf>) {
        if self.too_long.try_push(packet).is_err() {
            context.drop_packet(DropReason::TooBig);
        }
    }

    /// Sends what was set aside on its way, in pieces; what may not be cut goes no further.
    #[cold]
    pub(crate) fn go_on_in_pieces(&mut self, context: &Context<'_>) {
        for packet in std::mem::take(&mut self.too_long) {
            let TooLong { buf, largest, ahead } = packet;
            let whole = buf.bytes().get(ahead.link_len()..).unwrap_or_default();
            let pieces = ipv4::View::parse(whole).and_then(|view| Pieces::of(&view, largest));
            let Ok(pieces) = pieces else {
                context.drop_packet(DropReason::TooBig);
                continue;
            };
            context.counters.add(Metric::Fragmented, 1);
            match ahead {
                Ahead::Tunnel(inner) => self.leave_in_pieces(context, &inner, pieces),
                Ahead::Target { flow, connection } => {
                    self.distribute_in_pieces(context, flow, connection, pieces);
                }
            }
        }
    }

    fn leave_in_pieces(&mut self, context: &Context<'_>, whole: &InnerPacket, pieces: Pieces<'_>) {
        let mut burst: ArrayVec<Leaving<P::Buf>, BURST> = ArrayVec::new();
        for piece in pieces {
            // No longer than the packet it is cut out of.
            let inner = InnerPacket { len: piece.buffer_len() as u16, ..*whole };
            let buf = self.buffer_of(context, Side::Inside, &piece, ethernet::HEADER_LEN);
            burst.extend(buf.map(|buf| Leaving::new(buf, inner)));
            if burst.is_full() {
                self.outbound(context, &mut burst, Origin::OtherWorker);
                burst.clear();
            }
        }
        self.outbound(context, &mut burst, Origin::OtherWorker);
    }

    fn distribute_in_pieces(
        &mut self,
        context: &Context<'_>,
        flow: FlowKey,
        connection: FlowKey,
        pieces: Pieces<'_>,
    ) {
        let mut burst: ArrayVec<Onward<P::Buf>, BURST> = ArrayVec::new();
        for piece in pieces {
            let buf = self.buffer_of(context, Side::Outside, &piece, 0);
            burst.extend(buf.map(|buf| Onward::of_connection(context, buf, flow, connection)));
            if burst.is_full() {
                self.distribute(context, &mut burst);
                burst.clear();
            }
        }
        self.distribute(context, &mut burst);
    }

    /// A buffer with `piece` behind `link_len` bytes; `None`, and counted, when there is none.
    fn buffer_of(
        &mut self,
        context: &Context<'_>,
        side: Side,
        piece: &Piece<'_>,
        link_len: usize,
    ) -> Option<P::Buf> {
        let buf = self.io.alloc(side, link_len + piece.buffer_len()).and_then(|mut buf| {
            piece.emit(buf.bytes_mut().get_mut(link_len..)?).ok()?;
            Some(buf)
        });
        if buf.is_none() {
            context.drop_packet(DropReason::NoBuffer);
        }
        buf
    }
}
