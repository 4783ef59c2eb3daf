//! Node: sorts what came from outside.

use crate::classify::{FromOutside, from_outside, plain_esp};
use crate::inbound::Arriving;
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_packet::{BURST, PacketBuf, Port, Side};

impl<P: Port> Nodes<P> {
    /// ESP goes on as one burst; everything else is finished here.
    pub(crate) fn outside(
        &mut self,
        context: &Context<'_>,
        mut burst: ArrayVec<P::Buf, BURST>,
        origin: Origin,
    ) {
        let mut esp: ArrayVec<Arriving<P::Buf>, BURST> = ArrayVec::new();
        for buf in burst.drain(..) {
            match plain_esp(buf.bytes(), context.tables, context.lease) {
                Some(at) => esp.push(Arriving::new(buf, at)),
                None => esp.extend(self.other_from_outside(context, buf)),
            }
        }
        if !esp.is_empty() {
            self.inbound(context, &mut esp, origin);
        }
    }

    /// Finishes what is no ESP, and gives back what is.
    #[inline(never)]
    fn other_from_outside(
        &mut self,
        context: &Context<'_>,
        buf: P::Buf,
    ) -> Option<Arriving<P::Buf>> {
        match from_outside(buf.bytes(), context.tables, context.lease) {
            FromOutside::Esp(at) => return Some(Arriving::new(buf, at)),
            FromOutside::Fragment => {
                let whole = self.reassemble(context, buf)?;
                return self.other_from_outside(context, whole);
            }
            FromOutside::TooNarrow => self.too_narrow(context, &buf),
            FromOutside::Ike => self.punt(context, Side::Outside, &buf),
            FromOutside::Arp => self.arp(context, Side::Outside, buf),
            FromOutside::Echo => self.answer_echo(context, Side::Outside, buf),
            FromOutside::Unleased(reason) => {
                self.without_lease(context, Side::Outside, buf, reason);
            }
            FromOutside::Drop(reason) => context.drop_packet(reason),
        }
        None
    }
}
