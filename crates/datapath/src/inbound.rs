//! Nodes: from ESP packets to inner packets.
//!
//! ```text
//!   ESP -> find by SPI -> touch -> prepare (window, changes nothing) -> open, many at once
//!       -> finish in order (window again, so that of two equal packets in one burst one passes)
//!       -> decapsulate -> distribute
//! ```
//!
//! Each node goes over the whole burst before the next begins. *Touch* reads what the next nodes
//! will, and waits for none of it: so the cache misses of many packets and SAs overlap.
//!
//! The outer source address is not compared with the SA's peer: an SA is found by its SPI alone
//! (RFC 4301, 4.1), the ICV decides who sent the packet, and a peer behind a NAT may move
//! (RFC 7296, 2.23), also between ESP with and without UDP.

use crate::classify::{EspAt, checked_packet, narrow};
use crate::command::WorkerEvent;
use crate::counters::Metric;
use crate::distribute::Onward;
use crate::kept::Missing;
use crate::spi_table::Place;
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_crypto::OpenJob;
use holdfast_ipsec::{DropReason, Opened, Opening, Spi};
use holdfast_packet::ipv4::ECN_CE;
use holdfast_packet::{BURST, PacketBuf, Port, Side, ipv4};
use std::hint::black_box;
use std::net::Ipv4Addr;

/// Time between two reports of unknown SPIs.
const UNKNOWN_SPI_INTERVAL_MS: u64 = 10;

/// Explicit congestion notification (RFC 3168, 5).
const ECN_ECT_1: u8 = 1;
const ECN_NOT_ECT: u8 = 0;

/// A packet from outside on its way through the nodes; one without a buffer has left it.
#[derive(Debug)]
pub(crate) struct Arriving<B> {
    buf: Option<B>,
    at: EspAt,
    place: Option<Place>,
    opening: Option<Opening>,
    authentic: bool,
}

impl<B> Arriving<B> {
    #[inline]
    pub(crate) const fn new(buf: B, at: EspAt) -> Self {
        Self { buf: Some(buf), at, place: None, opening: None, authentic: false }
    }
}

impl<P: Port> Nodes<P> {
    pub(crate) fn inbound(
        &mut self,
        context: &Context<'_>,
        arriving: &mut ArrayVec<Arriving<P::Buf>, BURST>,
        origin: Origin,
    ) {
        self.find_inbound(context, arriving, origin);
        let mut onward = ArrayVec::new();
        // Compositions are seldom, and their packets have lengths of their own: a burst without any
        // does not ask again.
        if self.touch_inbound(arriving) {
            self.prepare::<true>(context, arriving);
            self.open::<true>(arriving);
            self.accept::<true>(context, arriving, &mut onward);
        } else {
            self.prepare::<false>(context, arriving);
            self.open::<false>(arriving);
            self.accept::<false>(context, arriving, &mut onward);
        }
        self.distribute(context, &mut onward);
        self.distribute_followers(context);
    }

    /// Finds the SA of each packet; packets of a run have the same.
    #[inline(never)]
    fn find_inbound(
        &mut self,
        context: &Context<'_>,
        arriving: &mut ArrayVec<Arriving<P::Buf>, BURST>,
        origin: Origin,
    ) {
        let mut run = (0, None);
        for packet in arriving {
            let spi = packet.at.spi;
            if spi != run.0 || run.1.is_none() {
                run = (spi, self.sad.find_inbound(spi));
            }
            packet.place = run.1;
            if packet.place.is_none() {
                self.not_found(context, packet, origin);
            }
        }
    }

    /// A packet whose SA is not here: at another worker, or nowhere.
    #[cold]
    fn not_found(&mut self, context: &Context<'_>, packet: &mut Arriving<P::Buf>, origin: Origin) {
        let Some(buf) = packet.buf.take() else { return };
        if let Ok(spi) = Spi::new(packet.at.spi) {
            let worker = spi.worker(self.spi_mask);
            let is_others = worker != self.handoff.own() && worker < self.handoff.workers();
            if is_others && origin == Origin::Port {
                return self.hand_off(context, worker, Side::Outside, buf);
            }
        }
        match Spi::new(packet.at.spi) {
            Ok(spi) => {
                let missing = Missing::Inbound { spi, source: packet.at.source };
                self.without_sa(context, Side::Outside, buf, missing);
            }
            Err(_) => self.unknown_spi(context, packet.at.spi, packet.at.source),
        }
    }

    pub(crate) fn unknown_spi(&mut self, context: &Context<'_>, spi: u32, source: Ipv4Addr) {
        context.drop_packet(DropReason::UnknownSpi);
        self.tell_unknown_spi(context, spi, source);
    }

    pub(crate) fn tell_unknown_spi(&mut self, context: &Context<'_>, spi: u32, source: Ipv4Addr) {
        if self.unknown_spi.allows(context.now, UNKNOWN_SPI_INTERVAL_MS) {
            self.events.raise(WorkerEvent::UnknownSpi { spi, source }, context.counters);
        }
    }

    /// Gives whether any SA of the burst is a composition.
    #[inline(never)]
    fn touch_inbound(&self, arriving: &ArrayVec<Arriving<P::Buf>, BURST>) -> bool {
        let (mut read, mut composed) = (0, false);
        let mut run = None;
        for packet in arriving {
            if packet.place != run {
                run = packet.place;
                if let Some(inbound) = run.and_then(|place| self.sad.inbound(place)) {
                    read ^= inbound.sa.touch();
                    composed |= inbound.sa.is_composed();
                }
            }
        }
        black_box(read);
        composed
    }

    /// Asks each packet's SA for a first opinion, and cuts its buffer to the ESP packet.
    #[inline(never)]
    fn prepare<const COMPOSED: bool>(
        &mut self,
        context: &Context<'_>,
        arriving: &mut ArrayVec<Arriving<P::Buf>, BURST>,
    ) {
        for packet in arriving {
            let (Some(buf), Some(place)) = (&mut packet.buf, packet.place) else { continue };
            let Some(inbound) = self.sad.inbound_mut(place) else { continue };
            narrow(buf, usize::from(packet.at.start), usize::from(packet.at.len));
            let prepared = if COMPOSED && inbound.sa.is_composed() {
                inbound.sa.prepare_composed(buf.bytes_mut())
            } else {
                inbound.sa.prepare(buf.bytes())
            };
            match prepared {
                Ok(opening) => packet.opening = Some(opening),
                Err(reason) => {
                    inbound.refused = inbound.refused.wrapping_add(1);
                    packet.buf = None;
                    context.drop_packet(reason);
                }
            }
        }
    }

    /// Opens all packets in one call, whatever SAs they belong to; those of a composition by themselves.
    #[inline(never)]
    fn open<const COMPOSED: bool>(&self, arriving: &mut ArrayVec<Arriving<P::Buf>, BURST>) {
        let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
        let mut verdicts: ArrayVec<&mut bool, BURST> = ArrayVec::new();
        for packet in arriving {
            let Arriving { buf: Some(buf), place: Some(place), opening, authentic, .. } = packet
            else {
                continue;
            };
            let Some(inbound) = self.sad.inbound(*place) else { continue };
            if COMPOSED && inbound.sa.is_composed() {
                *authentic = opening
                    .as_ref()
                    .is_some_and(|opening| inbound.sa.open_composed(opening, buf.bytes_mut()));
                continue;
            }
            let job =
                opening.as_ref().and_then(|opening| opening.job(&inbound.sa, buf.bytes_mut()));
            if let Some(job) = job {
                jobs.push(job);
                verdicts.push(authentic);
            }
        }
        self.aead.open(&mut jobs);
        for (job, verdict) in jobs.iter().zip(&mut verdicts) {
            **verdict = job.ok;
        }
    }

    /// Has the SA judge each opened packet, in order, and passes it on.
    #[inline(never)]
    fn accept<const COMPOSED: bool>(
        &mut self,
        context: &Context<'_>,
        arriving: &mut ArrayVec<Arriving<P::Buf>, BURST>,
        onward: &mut ArrayVec<Onward<P::Buf>, BURST>,
    ) {
        let mut authenticated = 0;
        for packet in arriving {
            let (Some(buf), Some(opening)) = (packet.buf.take(), packet.opening.take()) else {
                continue;
            };
            let verdict = self.finish::<COMPOSED>(context, packet, opening, buf);
            authenticated += u64::from(packet.authentic);
            match verdict {
                Ok(passed) => onward.extend(passed),
                Err(reason) => context.drop_packet(reason),
            }
        }
        context.counters.add(Metric::Authenticated, authenticated);
    }

    #[inline]
    fn finish<const COMPOSED: bool>(
        &mut self,
        context: &Context<'_>,
        packet: &Arriving<P::Buf>,
        opening: Opening,
        mut buf: P::Buf,
    ) -> Result<Option<Onward<P::Buf>>, DropReason> {
        let inbound = packet.place.and_then(|place| self.sad.inbound_mut(place));
        let inbound = inbound.ok_or(DropReason::UnknownSpi)?;
        let sequence = opening.sequence();
        let before = inbound.progress();
        let finished = if COMPOSED && inbound.sa.is_composed() {
            inbound.sa.finish_composed(opening, packet.authentic, buf.bytes_mut())
        } else {
            inbound.sa.finish(opening, packet.authentic, buf.bytes_mut())
        };
        if packet.authentic {
            inbound.note(context.now, before, &mut self.events, context.counters);
        }
        match finished {
            Ok(opened) => match decapsulate(&mut buf, &opened, packet.at.ecn)? {
                Extent::Whole => Ok(Some(Onward::new(context, buf, opened.flow))),
                Extent::Fragment => self.follow(context, buf, opened.flow),
            },
            Err(reason) => {
                inbound.refused = inbound.refused.wrapping_add(1);
                if reason == DropReason::Ambiguous {
                    inbound.note_ambiguity(sequence, &mut self.events, context.counters);
                }
                Err(reason)
            }
        }
    }
}

/// How much of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Fragment,
}

/// Cuts the buffer to the inner packet and makes it one that was forwarded: checked, one hop less
/// (RFC 4301, 5.1.2.1), congestion carried over.
#[inline]
fn decapsulate<B: PacketBuf>(
    buf: &mut B,
    opened: &Opened,
    outer_ecn: u8,
) -> Result<Extent, DropReason> {
    narrow(buf, opened.inner.start, opened.inner.len());
    // An outer header without a mark changes nothing.
    if outer_ecn == ECN_NOT_ECT
        && let Some(header) = buf.bytes_mut().first_chunk_mut()
        && ipv4::take_hop(header) == ipv4::Hop::Taken
    {
        return Ok(Extent::Whole);
    }
    decapsulate_with_care(buf, outer_ecn)
}

/// The same for every packet, with a reason for those that go no further.
#[inline(never)]
fn decapsulate_with_care<B: PacketBuf>(buf: &mut B, outer_ecn: u8) -> Result<Extent, DropReason> {
    let inner = checked_packet(buf.bytes()).map_err(|reason| match reason {
        DropReason::BadChecksum => reason,
        _ => DropReason::InnerMalformed,
    })?;
    let extent = if inner.is_fragment() { Extent::Fragment } else { Extent::Whole };
    let marked = combine_ecn(inner.ecn(), outer_ecn).ok_or(DropReason::EcnCongested)?;
    if marked != inner.ecn() {
        ipv4::set_ecn(buf.bytes_mut(), marked);
    }
    ipv4::decrement_ttl(buf.bytes_mut()).map(|_| extent).ok_or(DropReason::TtlExpired)
}

/// RFC 6040, figure 4; `None` where it says drop.
#[inline]
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
