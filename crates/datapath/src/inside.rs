//! Node: sorts what came from inside.

use crate::classify::{FromInside, from_inside, plain_packet};
use crate::outbound::Leaving;
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_packet::{BURST, PacketBuf, Port, Side};

impl<P: Port> Nodes<P> {
    /// Packets that want to leave go on as one burst; everything else is finished here.
    pub(crate) fn inside(
        &mut self,
        context: &Context<'_>,
        mut burst: ArrayVec<P::Buf, BURST>,
        origin: Origin,
    ) {
        let mut leaving: ArrayVec<Leaving<P::Buf>, BURST> = ArrayVec::new();
        for buf in burst.drain(..) {
            match plain_packet(buf.bytes(), context.tables, context.lease) {
                Some(inner) => leaving.push(Leaving::new(buf, inner)),
                None => leaving.extend(self.other_from_inside(context, buf)),
            }
        }
        if !leaving.is_empty() {
            self.outbound(context, &mut leaving, origin);
        }
    }

    /// Finishes what does not leave, and gives back what does.
    #[inline(never)]
    fn other_from_inside(&mut self, context: &Context<'_>, buf: P::Buf) -> Option<Leaving<P::Buf>> {
        match from_inside(buf.bytes(), context.tables, context.lease) {
            FromInside::Outbound(inner) => return Some(Leaving::new(buf, inner)),
            FromInside::Arp => self.arp(context, Side::Inside, buf),
            FromInside::Echo => self.answer_echo(context, Side::Inside, buf),
            FromInside::Unleased(reason) => {
                self.without_lease(context, Side::Inside, buf, reason);
            }
            FromInside::Drop(reason) => context.drop_packet(reason),
        }
        None
    }
}
