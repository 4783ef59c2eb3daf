//! Answering INFORMATIONAL requests: deletion and signs of life (RFC 7296 section 1.4).

use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;

use crate::codec::{Chain, Contents, Delete, Header, NotifyType, PayloadType};
use crate::endpoint::Fate;
use crate::sa::{IkeSa, Outstanding, Pending, Task};
use crate::{Datagram, Ike};

impl Ike {
    pub(crate) fn informational(
        &mut self,
        now: Nanos,
        sa: &mut IkeSa,
        datagram: &Datagram,
        (header, contents): (&Header, &Contents<'_>),
    ) -> Fate {
        // A peer that does not like our AUTH says so here, and has forgotten the IKE SA already
        // (section 2.21.2).
        let rejected = contents.notify(NotifyType::AUTHENTICATION_FAILED).is_some();
        if rejected || contents.deletes.contains(&Delete::Ike) {
            self.respond(sa, datagram, header, &Chain::new());
            self.forget_own_rekey(now, sa);
            return Fate::Discard;
        }
        self.count_on(sa, contents);
        let mut answered = Vec::new();
        for delete in &contents.deletes {
            if let Delete::Esp(spis) = delete {
                let paired = spis.iter().filter_map(|spi| self.peer_deletes(sa, *spi));
                answered.extend(paired.map(Spi::get));
            }
        }
        let mut chain = Chain::new();
        if !answered.is_empty() {
            chain.push(PayloadType::DELETE, Delete::Esp(answered).emit());
        }
        self.respond(sa, datagram, header, &chain);
        Fate::Keep
    }

    /// Removes the Child SA the peer deletes. Returns the SPI to name in the answer, unless our own
    /// deletion of the same SA is under way: then it must not be named twice (section 1.4.1).
    fn peer_deletes(&mut self, sa: &mut IkeSa, spi: u32) -> Option<Spi> {
        let inbound = sa.child_by_outbound(spi)?;
        self.remove_child(sa, inbound);
        sa.tasks.remove(&Task::CloseChild(inbound));
        let crossing = match &sa.outstanding {
            Some(Outstanding { pending: Pending::CloseChildren(ours), .. }) => {
                ours.contains(&inbound)
            }
            _ => false,
        };
        (!crossing).then_some(inbound)
    }
}
