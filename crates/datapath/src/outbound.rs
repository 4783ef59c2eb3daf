//! Nodes: from inner packets to ESP packets.
//!
//! ```text
//!   inner -> policy -> its SA -> touch -> does it fit? -> next hop known? -> one hop less
//!         -> number, header and trailer -> seal, many at once -> outer headers -> out
//! ```
//!
//! Everything that can fail comes before the number is taken: numbers are a granted resource.
//! Each node goes over the whole burst before the next begins; see `inbound` for *touch*.

use crate::classify::{InnerPacket, narrow};
use crate::counters::Metric;
use crate::kept::Missing;
use crate::mark::MARK_OVERHEAD;
use crate::mutation::{Mutation, mutated};
use crate::outer::PerPacket;
use crate::sad::Outbound;
use crate::spi_table::Place;
use crate::tables::SaRef;
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_crypto::SealJob;
use holdfast_ipsec::{
    DropReason, ESP_HEADER_LEN, Encapsulation, ICV_LEN, OutboundSa, Sealing, Spi,
};
use holdfast_packet::{
    BURST, FlowKey, MacAddr, PacketBuf, Port, Side, ethernet, icmp, ipv4, tcp, udp,
};
use std::hint::black_box;
use std::net::Ipv4Addr;

/// "Fragmentation needed" messages in one poll; a target that ignores them must not make us flood.
pub(crate) const TOO_BIG_REPORTS_PER_POLL: usize = 8;
/// The most bytes of a packet quoted in an error: 576 in all (RFC 1812, 4.3.2.3).
const QUOTATION_LEN: usize = 576 - ipv4::HEADER_LEN - icmp::HEADER_LEN;
/// Pad length and next header, and the boundary they end on (RFC 4303, 2.4).
const TRAILER_LEN: usize = 2;
const ALIGNMENT: usize = 4;

/// A packet from inside on its way through the nodes; one without a buffer has left it.
#[derive(Debug)]
pub(crate) struct Leaving<B> {
    buf: Option<B>,
    inner: InnerPacket,
    found: Option<SaRef>,
    place: Option<Place>,
    sealing: Option<Sealing>,
    sealed: bool,
}

impl<B> Leaving<B> {
    #[inline]
    pub(crate) const fn new(buf: B, inner: InnerPacket) -> Self {
        Self { buf: Some(buf), inner, found: None, place: None, sealing: None, sealed: false }
    }
}

impl<P: Port> Nodes<P> {
    pub(crate) fn outbound(
        &mut self,
        context: &Context<'_>,
        leaving: &mut ArrayVec<Leaving<P::Buf>, BURST>,
        origin: Origin,
    ) {
        touch_policies(context, leaving);
        policy(context, leaving);
        self.find_outbound(context, leaving, origin);
        // Compositions are seldom, and their packets have lengths of their own: a burst without any
        // does not ask again.
        if self.touch_outbound(leaving) {
            self.number::<true>(context, leaving);
            self.seal::<true>(leaving);
        } else {
            self.number::<false>(context, leaving);
            self.seal::<false>(leaving);
        }
        self.encapsulate(context, leaving);
        if !self.too_long.is_empty() {
            self.go_on_in_pieces(context);
        }
    }

    /// Finds where the SA of each packet is, that its policy names.
    #[inline(never)]
    fn find_outbound(
        &mut self,
        context: &Context<'_>,
        leaving: &mut ArrayVec<Leaving<P::Buf>, BURST>,
        origin: Origin,
    ) {
        let mut run: Option<(Spi, Option<Place>)> = None;
        for packet in leaving {
            let Some(SaRef { worker, spi }) = packet.found else { continue };
            let place = match run {
                Some((known, place)) if known == spi => place,
                _ => self.sad.find_outbound(spi),
            };
            run = Some((spi, place));
            packet.place = place;
            if worker != self.handoff.own() && origin == Origin::Port {
                if let Some(buf) = packet.buf.take() {
                    self.hand_off(context, worker, Side::Inside, buf);
                }
            } else if place.is_none()
                && let Some(buf) = packet.buf.take()
            {
                self.without_sa(context, Side::Inside, buf, Missing::Outbound { id: spi });
            }
        }
    }

    /// Gives whether any SA of the burst is a composition.
    #[inline(never)]
    fn touch_outbound(&self, leaving: &ArrayVec<Leaving<P::Buf>, BURST>) -> bool {
        let (mut read, mut composed) = (0, false);
        let mut run = None;
        for packet in leaving {
            if packet.place != run {
                run = packet.place;
                if let Some(outbound) = run.and_then(|place| self.sad.outbound(place)) {
                    read ^= outbound.touch();
                    composed |= outbound.sa.is_composed();
                }
            }
        }
        black_box(read);
        composed
    }

    /// Gives each packet its number.
    #[inline(never)]
    fn number<const COMPOSED: bool>(
        &mut self,
        context: &Context<'_>,
        leaving: &mut ArrayVec<Leaving<P::Buf>, BURST>,
    ) {
        let largest = Largest::of(self.io.mtu(Side::Outside));
        for packet in leaving {
            let (Some(buf), Some(place)) = (&mut packet.buf, packet.place) else { continue };
            match self.begin_seal::<COMPOSED>(context, buf, &packet.inner, place, largest) {
                Ok(sealing) => packet.sealing = Some(sealing),
                Err(DropReason::TooBig) => self.too_long(context, packet, largest),
                Err(reason) => {
                    packet.buf = None;
                    context.drop_packet(reason);
                }
            }
        }
    }

    /// A packet too long for its tunnel: it goes on in pieces, or its sender is told (RFC 4301, 8.1).
    #[cold]
    fn too_long(&mut self, context: &Context<'_>, packet: &mut Leaving<P::Buf>, largest: Largest) {
        let outbound = packet.place.and_then(|place| self.sad.outbound(place));
        let (Some(outbound), Some(buf)) = (outbound, packet.buf.take()) else { return };
        let largest = largest.over::<true>(outbound);
        self.report_too_big(context, buf.bytes(), &packet.inner, largest);
        self.set_leaving_aside(context, buf, packet.inner, largest);
    }

    #[inline]
    fn begin_seal<const COMPOSED: bool>(
        &mut self,
        context: &Context<'_>,
        buf: &mut P::Buf,
        inner: &InnerPacket,
        place: Place,
        largest: Largest,
    ) -> Result<Sealing, DropReason> {
        let outbound = self.sad.outbound(place).ok_or(DropReason::NoSa)?;
        if !outbound.outer.is_of(context.tables.generation) {
            self.renew_outer(context, place)?;
        }
        let outbound = self.sad.outbound(place).ok_or(DropReason::NoSa)?;
        if usize::from(inner.len) > largest.over::<COMPOSED>(outbound) {
            return Err(DropReason::TooBig);
        }
        narrow(buf, ethernet::HEADER_LEN, usize::from(inner.len));
        ipv4::decrement_ttl(buf.bytes_mut()).ok_or(DropReason::TtlExpired)?;
        if inner.flow.protocol == ipv4::PROTOCOL_TCP && tcp::opens(buf.bytes()) {
            let largest = self.largest_through(Some(place));
            self.clamp(context, buf, largest);
        }
        let outbound = self.sad.outbound_mut(place).ok_or(DropReason::NoSa)?;
        let begun = if COMPOSED && outbound.sa.is_composed() {
            outbound.sa.seal_composed(buf)
        } else {
            outbound.sa.begin_seal(buf)
        };
        if begun.as_ref().is_err_and(|reason| *reason == DropReason::SequenceEnd) {
            outbound.note_end(&mut self.events, context.counters);
        } else {
            outbound.note(context.now, &mut self.events, context.counters);
        }
        begun
    }

    /// The longest packet that fits both into the tunnel of an outbound SA and, marked, onto the
    /// inside network: a connection has two directions.
    #[cold]
    pub(crate) fn largest_through(&self, place: Option<Place>) -> usize {
        let largest = Largest::of(self.io.mtu(Side::Outside));
        let outbound = place.and_then(|place| self.sad.outbound(place));
        let tunnel = outbound.map_or(largest.in_udp, |outbound| largest.over::<true>(outbound));
        tunnel.min(self.io.mtu(Side::Inside).saturating_sub(MARK_OVERHEAD))
    }

    /// Lowers the segment size that the SYN in `buf` announces to what `largest` allows.
    #[cold]
    pub(crate) fn clamp(&self, context: &Context<'_>, buf: &mut P::Buf, largest: usize) {
        if context.tables.tunnel.clamp_segment_size
            && tcp::clamp_segment_size(buf.bytes_mut(), largest)
        {
            context.counters.add(Metric::SegmentSizesLowered, 1);
        }
    }

    /// Makes the outer headers of an SA for this generation of tables.
    #[cold]
    fn renew_outer(&mut self, context: &Context<'_>, place: Place) -> Result<(), DropReason> {
        let outbound = self.sad.outbound_mut(place).ok_or(DropReason::NoSa)?;
        let tables = context.tables;
        let hop = tables.next_hop(outbound.sa.remote()).ok_or(DropReason::NeighbourUnresolved)?;
        if let Some(mac) = tables.neighbours.get(&hop) {
            let mtu = self.io.port(Side::Outside).mtu();
            let path = tables.path_mtus.get(&outbound.sa.remote()).copied().unwrap_or(mtu);
            let narrower = mtu.saturating_sub(path);
            let own = tables.outside_mac;
            outbound.outer.renew(tables.generation, &outbound.sa, own, *mac, narrower);
            return Ok(());
        }
        self.events.resolve(Side::Outside, hop, context.now, context.counters);
        Err(DropReason::NeighbourUnresolved)
    }

    /// Seals all packets in one call, whatever SAs they belong to; those of a composition are sealed
    /// already.
    #[inline(never)]
    fn seal<const COMPOSED: bool>(&self, leaving: &mut ArrayVec<Leaving<P::Buf>, BURST>) {
        let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
        for packet in leaving {
            let Leaving { buf: Some(buf), place: Some(place), sealing, sealed, .. } = packet else {
                continue;
            };
            let Some(outbound) = self.sad.outbound(*place) else { continue };
            if COMPOSED && outbound.sa.is_composed() {
                *sealed = sealing.is_some();
                continue;
            }
            let job =
                sealing.as_ref().and_then(|sealing| sealing.job(&outbound.sa, buf.bytes_mut()));
            if let Some(job) = job {
                jobs.push(job);
                *sealed = true;
            }
        }
        if !mutated(Mutation::SealSkipped) {
            self.aead.seal(&mut jobs);
        }
    }

    /// Puts the outer headers in front and sends.
    #[inline(never)]
    fn encapsulate(
        &mut self,
        context: &Context<'_>,
        leaving: &mut ArrayVec<Leaving<P::Buf>, BURST>,
    ) {
        let mut count = 0;
        for packet in leaving {
            let Some(mut buf) = packet.buf.take() else { continue };
            let outbound = packet.place.and_then(|place| self.sad.outbound(place));
            let (Some(outbound), Some(sealing), true) = (outbound, &packet.sealing, packet.sealed)
            else {
                // Never let a packet out in clear, whatever went wrong.
                context.drop_packet(DropReason::NoRoom);
                continue;
            };
            let rules = &context.tables.tunnel;
            let per_packet = PerPacket::of(&packet.inner, rules, sealing.sequence());
            match outbound.outer.put(&mut buf, per_packet) {
                Ok(()) => {
                    count += 1;
                    self.io.send(Side::Outside, buf);
                }
                Err(reason) => context.drop_packet(reason),
            }
        }
        context.counters.add(Metric::Sealed, count);
    }

    /// Tells the sender inside how long its packets may be, when it forbade fragmentation
    /// (RFC 1191, 4; RFC 4301, 8.2.1), unless its packet is an ICMP message: no errors about errors.
    fn report_too_big(
        &mut self,
        context: &Context<'_>,
        frame: &[u8],
        inner: &InnerPacket,
        mtu: usize,
    ) {
        if !inner.dont_fragment || inner.flow.protocol == ipv4::PROTOCOL_ICMP {
            return;
        }
        let Some(left) = self.too_big_left.checked_sub(1) else { return };
        self.too_big_left = left;
        if let Some(error) = self.too_big_error(context, frame, inner, mtu) {
            context.counters.add(Metric::TooBigReported, 1);
            let sender = ethernet::View::parse(frame).map(|frame| frame.source()).ok();
            if sender.is_some() && sender == self.io.local_station() {
                self.io.send_local(error);
            } else {
                self.io.send(Side::Inside, error);
            }
        }
    }

    fn too_big_error(
        &mut self,
        context: &Context<'_>,
        frame: &[u8],
        inner: &InnerPacket,
        mtu: usize,
    ) -> Option<P::Buf> {
        let sender = ethernet::View::parse(frame).ok()?.source();
        let quotation = frame.get(ethernet::HEADER_LEN..)?.get(..usize::from(inner.len))?;
        let route = (context.tables.inside, inner.flow.src);
        self.fragmentation_needed(context, Side::Inside, sender, route, quotation, mtu)
    }

    /// Tells the peer's side how long its packets may be to reach their target, like
    /// [`Self::report_too_big`] does the target's side. The message comes from the service address
    /// and goes through the tunnel like anything a target answers.
    #[cold]
    pub(crate) fn report_inner_too_big(
        &mut self,
        context: &Context<'_>,
        packet: &[u8],
        flow: &FlowKey,
        mtu: usize,
    ) {
        let forbids = ipv4::View::parse(packet).is_ok_and(|view| view.dont_fragment());
        if !forbids || flow.protocol == ipv4::PROTOCOL_ICMP {
            return;
        }
        let Some(left) = self.too_big_left.checked_sub(1) else { return };
        self.too_big_left = left;
        let route = (flow.dst, flow.src);
        let own = context.tables.inside_mac;
        let error = self.fragmentation_needed(context, Side::Outside, own, route, packet, mtu);
        let Some(error) = error else { return };
        context.counters.add(Metric::TooBigReported, 1);
        self.inside(context, ArrayVec::from_iter([error]), Origin::Port);
    }

    /// The message as a frame for `station`, with as much of `packet` as an error may quote.
    fn fragmentation_needed(
        &mut self,
        context: &Context<'_>,
        side: Side,
        station: MacAddr,
        (from, to): (Ipv4Addr, Ipv4Addr),
        packet: &[u8],
        mtu: usize,
    ) -> Option<P::Buf> {
        let message = icmp::Repr::FragmentationNeeded {
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            packet: packet.get(..packet.len().min(QUOTATION_LEN))?,
        };
        let header = ipv4::Repr::new(from, to, ipv4::PROTOCOL_ICMP, message.buffer_len());
        let link = ethernet::Repr {
            destination: station,
            source: context.tables.inside_mac,
            ether_type: ethernet::TYPE_IPV4,
        };
        let len = ethernet::HEADER_LEN + ipv4::HEADER_LEN + message.buffer_len();
        let mut buf = self.io.alloc(side, len)?;
        let bytes = buf.bytes_mut();
        link.emit(bytes).ok()?;
        header.emit(bytes.get_mut(ethernet::HEADER_LEN..)?).ok()?;
        message.emit(bytes.get_mut(ethernet::HEADER_LEN + ipv4::HEADER_LEN..)?).ok()?;
        Some(buf)
    }
}

/// The longest inner packet whose ESP packet fits into the port's MTU.
#[derive(Debug, Clone, Copy)]
struct Largest {
    plain: usize,
    in_udp: usize,
    /// Of the outside port.
    mtu: usize,
}

impl Largest {
    fn of(mtu: usize) -> Self {
        let around = ipv4::HEADER_LEN + ESP_HEADER_LEN + ICV_LEN;
        let inner = |around| {
            let encrypted = mtu.saturating_sub(around) / ALIGNMENT * ALIGNMENT;
            encrypted.saturating_sub(TRAILER_LEN)
        };
        Self { plain: inner(around), in_udp: inner(around + udp::HEADER_LEN), mtu }
    }

    /// Through the tunnel and over the path of an SA.
    #[inline]
    fn over<const COMPOSED: bool>(self, outbound: &Outbound) -> usize {
        match usize::from(outbound.outer.narrower()) {
            0 => self.through::<COMPOSED>(&outbound.sa),
            narrower => {
                Self::of(self.mtu.saturating_sub(narrower)).through::<COMPOSED>(&outbound.sa)
            }
        }
    }

    #[inline]
    fn through<const COMPOSED: bool>(self, sa: &OutboundSa) -> usize {
        if COMPOSED && sa.is_composed() {
            let around = ipv4::HEADER_LEN + outer_udp_len(sa);
            return sa.inner_len_max(self.mtu.saturating_sub(around));
        }
        match sa.encapsulation() {
            Encapsulation::Esp => self.plain,
            Encapsulation::Udp { .. } => self.in_udp,
        }
    }
}

/// Octets of UDP header between the outer header and ESP.
const fn outer_udp_len(sa: &OutboundSa) -> usize {
    match sa.encapsulation() {
        Encapsulation::Esp => 0,
        Encapsulation::Udp { .. } => udp::HEADER_LEN,
    }
}

/// Reads where the policies of each packet are looked up.
#[inline(never)]
fn touch_policies<B>(context: &Context<'_>, leaving: &ArrayVec<Leaving<B>, BURST>) {
    let mut read = 0;
    let mut run = Ipv4Addr::UNSPECIFIED;
    for packet in leaving {
        if packet.inner.flow.dst != run {
            run = packet.inner.flow.dst;
            read ^= context.tables.spd.touch(run);
        }
    }
    black_box(read);
}

/// Finds the policy of each packet; packets of one flow side by side have the same.
#[inline(never)]
fn policy<B>(context: &Context<'_>, leaving: &mut ArrayVec<Leaving<B>, BURST>) {
    let mut run: Option<(FlowKey, SaRef)> = None;
    for packet in leaving {
        let flow = &packet.inner.flow;
        packet.found = match &run {
            Some((known, found)) if known == flow => Some(*found),
            _ => context.tables.spd.lookup(flow).copied(),
        };
        match packet.found {
            Some(found) => run = Some((*flow, found)),
            None => {
                packet.buf = None;
                context.drop_packet(DropReason::NoPolicy);
            }
        }
    }
}
