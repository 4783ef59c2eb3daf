//! Node: sorts what came from inside.

use crate::classify::{FromInside, InnerPacket, from_inside};
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_packet::{BURST, PacketBuf, Port, Side};

impl<P: Port> Nodes<P> {
    /// Packets that want to leave go on as one burst; everything else is finished here.
    pub(crate) fn inside(
        &mut self,
        context: &Context<'_>,
        burst: ArrayVec<P::Buf, BURST>,
        origin: Origin,
    ) {
        let mut leaving: ArrayVec<(P::Buf, InnerPacket), BURST> = ArrayVec::new();
        for buf in burst {
            match from_inside(buf.bytes(), context.tables, context.lease) {
                FromInside::Outbound(inner) => leaving.push((buf, inner)),
                FromInside::Arp => self.arp(context, Side::Inside, buf),
                FromInside::Echo => self.answer_echo(context, Side::Inside, buf),
                FromInside::Unleased(reason) => {
                    self.without_lease(context, Side::Inside, buf, reason);
                }
                FromInside::Drop(reason) => context.drop_packet(reason),
            }
        }
        self.outbound(context, leaving, origin);
    }
}
