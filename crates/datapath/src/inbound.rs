//! Nodes: from ESP packets to inner packets.
//!
//! ```text
//!   ESP -> lookup by SPI -> prepare (window, changes nothing) -> open, many at once
//!       -> finish in order (window again, so that of two equal packets in one burst one passes)
//!       -> decapsulate -> distribute
//! ```
//!
//! The outer source address is not compared with the SA's peer: an SA is found by its SPI alone
//! (RFC 4301, 4.1), the ICV decides who sent the packet, and a peer behind a NAT may move
//! (RFC 7296, 2.23), also between ESP with and without UDP.

use crate::classify::{EspAt, checked_packet, narrow};
use crate::command::WorkerEvent;
use crate::counters::Metric;
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_crypto::OpenJob;
use holdfast_ipsec::{DropReason, Opened, Opening, Spi};
use holdfast_packet::{BURST, PacketBuf, Port, Side, ipv4};
use std::net::Ipv4Addr;

/// Time between two reports of unknown SPIs.
const UNKNOWN_SPI_INTERVAL_MS: u64 = 10;

/// Congestion experienced (RFC 3168, 5).
const ECN_CE: u8 = 3;
const ECN_ECT_1: u8 = 1;
const ECN_NOT_ECT: u8 = 0;

/// A packet of a known SA, its buffer cut to the ESP packet.
#[derive(Debug)]
struct Arriving<B> {
    buf: B,
    spi: Spi,
    opening: Opening,
    ecn: u8,
    authentic: bool,
}

impl<P: Port> Nodes<P> {
    pub(crate) fn inbound(
        &mut self,
        context: &Context<'_>,
        esp: ArrayVec<(P::Buf, EspAt), BURST>,
        origin: Origin,
    ) {
        let mut arriving: ArrayVec<Arriving<P::Buf>, BURST> = ArrayVec::new();
        for (buf, at) in esp {
            arriving.extend(self.lookup(context, buf, &at, origin));
        }
        self.open(&mut arriving);
        for packet in arriving {
            self.accept(context, packet);
        }
    }

    /// Finds the SA and asks it for a first opinion; `None` when the packet went another way.
    fn lookup(
        &mut self,
        context: &Context<'_>,
        mut buf: P::Buf,
        at: &EspAt,
        origin: Origin,
    ) -> Option<Arriving<P::Buf>> {
        let Ok(spi) = Spi::new(at.spi) else {
            return self.unknown_spi(context, at.spi, at.source);
        };
        let worker = spi.worker(self.spi_mask);
        if worker != self.handoff.own() && origin == Origin::Port && worker < self.handoff.workers()
        {
            self.hand_off(context, worker, Side::Outside, buf);
            return None;
        }
        let Some(inbound) = self.sad.inbound_mut(spi) else {
            return self.unknown_spi(context, at.spi, at.source);
        };
        narrow(&mut buf, at.start, at.len);
        match inbound.sa.prepare(buf.bytes()) {
            Ok(opening) => Some(Arriving { buf, spi, opening, ecn: at.ecn, authentic: false }),
            Err(reason) => {
                inbound.refused = inbound.refused.wrapping_add(1);
                context.drop_packet(reason);
                None
            }
        }
    }

    fn unknown_spi<T>(&mut self, context: &Context<'_>, spi: u32, source: Ipv4Addr) -> Option<T> {
        context.drop_packet(DropReason::UnknownSpi);
        if self.unknown_spi.allows(context.now, UNKNOWN_SPI_INTERVAL_MS) {
            self.events.raise(WorkerEvent::UnknownSpi { spi, source }, context.counters);
        }
        None
    }

    /// Opens all packets in one call, whatever SAs they belong to.
    fn open(&self, arriving: &mut ArrayVec<Arriving<P::Buf>, BURST>) {
        let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
        let mut verdicts: ArrayVec<&mut bool, BURST> = ArrayVec::new();
        for packet in arriving.iter_mut() {
            let Some(inbound) = self.sad.inbound(packet.spi) else { continue };
            if let Some(job) = packet.opening.job(&inbound.sa, packet.buf.bytes_mut()) {
                jobs.push(job);
                verdicts.push(&mut packet.authentic);
            }
        }
        self.aead.open(&mut jobs);
        for (job, verdict) in jobs.iter().zip(verdicts) {
            *verdict = job.ok;
        }
    }

    /// Has the SA judge an opened packet, and passes it on.
    fn accept(&mut self, context: &Context<'_>, mut packet: Arriving<P::Buf>) {
        let Some(inbound) = self.sad.inbound_mut(packet.spi) else {
            return context.drop_packet(DropReason::UnknownSpi);
        };
        let sequence = packet.opening.sequence();
        let finished = inbound.sa.finish(packet.opening, packet.authentic, packet.buf.bytes_mut());
        if packet.authentic {
            context.counters.add(Metric::Authenticated, 1);
            inbound.note(context.now, &mut self.events, context.counters);
        }
        match finished {
            Ok(opened) => match decapsulate(&mut packet.buf, &opened, packet.ecn) {
                Ok(()) => self.distribute(context, packet.buf, &opened.flow),
                Err(reason) => context.drop_packet(reason),
            },
            Err(reason) => {
                inbound.refused = inbound.refused.wrapping_add(1);
                if reason == DropReason::Ambiguous {
                    inbound.note_ambiguity(sequence, &mut self.events, context.counters);
                }
                context.drop_packet(reason);
            }
        }
    }
}

/// Cuts the buffer to the inner packet and makes it one that was forwarded: checked, one hop less
/// (RFC 4301, 5.1.2.1), congestion carried over.
fn decapsulate<B: PacketBuf>(
    buf: &mut B,
    opened: &Opened,
    outer_ecn: u8,
) -> Result<(), DropReason> {
    narrow(buf, opened.inner.start, opened.inner.len());
    let inner = checked_packet(buf.bytes()).map_err(|reason| match reason {
        DropReason::BadChecksum => reason,
        _ => DropReason::InnerMalformed,
    })?;
    if inner.is_fragment() {
        // Without its ports a fragment cannot follow the other packets of its connection.
        return Err(DropReason::Fragment);
    }
    let marked = combine_ecn(inner.ecn(), outer_ecn).ok_or(DropReason::EcnCongested)?;
    if marked != inner.ecn() {
        ipv4::set_ecn(buf.bytes_mut(), marked);
    }
    ipv4::decrement_ttl(buf.bytes_mut()).map(|_| ()).ok_or(DropReason::TtlExpired)
}

/// RFC 6040, figure 4; `None` where it says drop.
const fn combine_ecn(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (ECN_NOT_ECT, ECN_CE) => None,
        (ECN_NOT_ECT, _) => Some(ECN_NOT_ECT),
        (ECN_CE, _) | (_, ECN_CE) => Some(ECN_CE),
        (_, ECN_ECT_1) => Some(ECN_ECT_1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn congestion_is_combined_as_in_figure_4_of_rfc_6040() {
        let (not_ect, ect_0, ect_1, ce) = (0, 2, 1, 3);
        let outer = [not_ect, ect_0, ect_1, ce];
        let rows = [
            (not_ect, [Some(not_ect), Some(not_ect), Some(not_ect), None]),
            (ect_0, [Some(ect_0), Some(ect_0), Some(ect_1), Some(ce)]),
            (ect_1, [Some(ect_1), Some(ect_1), Some(ect_1), Some(ce)]),
            (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
        ];
        for (inner, row) in rows {
            assert_eq!(outer.map(|outer| combine_ecn(inner, outer)), row, "inner {inner}");
        }
    }
}
