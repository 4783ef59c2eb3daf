//! Node: sorts what came from outside.

use crate::classify::{EspAt, FromOutside, from_outside};
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_packet::{BURST, PacketBuf, Port, Side};

impl<P: Port> Nodes<P> {
    /// ESP goes on as one burst; everything else is finished here.
    pub(crate) fn outside(
        &mut self,
        context: &Context<'_>,
        burst: ArrayVec<P::Buf, BURST>,
        origin: Origin,
    ) {
        let mut esp: ArrayVec<(P::Buf, EspAt), BURST> = ArrayVec::new();
        for buf in burst {
            match from_outside(buf.bytes(), context.tables, context.lease) {
                FromOutside::Esp(at) => esp.push((buf, at)),
                FromOutside::Ike => self.punt(context, Side::Outside, &buf),
                FromOutside::Arp => self.arp(context, Side::Outside, buf),
                FromOutside::Echo => self.answer_echo(context, Side::Outside, buf),
                FromOutside::Unleased(reason) => {
                    self.without_lease(context, Side::Outside, buf, reason);
                }
                FromOutside::Drop(reason) => context.drop_packet(reason),
            }
        }
        self.inbound(context, esp, origin);
    }
}
