//! Nodes: from inner packets to ESP packets.
//!
//! ```text
//!   inner -> policy -> its SA -> does it fit? -> next hop known? -> one hop less
//!         -> number, header and trailer -> seal, many at once -> outer headers -> out
//! ```
//!
//! Everything that can fail comes before the number is taken: numbers are a granted resource.

use crate::classify::{InnerPacket, narrow};
use crate::counters::Metric;
use crate::mutation::{Mutation, mutated};
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_crypto::SealJob;
use holdfast_ipsec::{
    DropReason, ESP_HEADER_LEN, Encapsulation, ICV_LEN, OutboundSa, Sealing, Spi,
};
use holdfast_packet::{BURST, FlowKey, MacAddr, PacketBuf, Port, Side, ethernet, icmp, ipv4, udp};
use std::net::Ipv4Addr;

/// "Fragmentation needed" messages in one poll; a target that ignores them must not make us flood.
pub(crate) const TOO_BIG_REPORTS_PER_POLL: usize = 8;
/// The most bytes of a packet quoted in an error: 576 in all (RFC 1812, 4.3.2.3).
const QUOTATION_LEN: usize = 576 - ipv4::HEADER_LEN - icmp::HEADER_LEN;
/// Pad length and next header, and the boundary they end on (RFC 4303, 2.4).
const TRAILER_LEN: usize = 2;
const ALIGNMENT: usize = 4;

/// A packet with its number, not yet encrypted.
#[derive(Debug)]
struct Leaving<B> {
    buf: B,
    id: Spi,
    sealing: Sealing,
    route: Route,
    dscp: u8,
    ecn: u8,
    dont_fragment: bool,
    sealed: bool,
}

/// The tunnel to the peer and the first station on the way.
#[derive(Debug, Clone, Copy)]
struct Route {
    local: Ipv4Addr,
    remote: Ipv4Addr,
    encapsulation: Encapsulation,
    next_hop: MacAddr,
}

impl<P: Port> Nodes<P> {
    pub(crate) fn outbound(
        &mut self,
        context: &Context<'_>,
        packets: ArrayVec<(P::Buf, InnerPacket), BURST>,
        origin: Origin,
    ) {
        let mut leaving: ArrayVec<Leaving<P::Buf>, BURST> = ArrayVec::new();
        for (buf, inner) in packets {
            leaving.extend(self.policy(context, buf, &inner, origin));
        }
        self.seal(&mut leaving);
        for packet in leaving {
            self.encapsulate(context, packet);
        }
    }

    /// Finds the policy and its SA; `None` when the packet went another way.
    fn policy(
        &mut self,
        context: &Context<'_>,
        buf: P::Buf,
        inner: &InnerPacket,
        origin: Origin,
    ) -> Option<Leaving<P::Buf>> {
        let Some(found) = context.tables.spd.lookup(&inner.flow) else {
            context.drop_packet(DropReason::NoPolicy);
            return None;
        };
        if found.worker != self.handoff.own() && origin == Origin::Port {
            self.hand_off(context, found.worker, Side::Inside, buf);
            return None;
        }
        match self.begin_seal(context, buf, inner, found.spi) {
            Ok(leaving) => Some(leaving),
            Err(reason) => {
                context.drop_packet(reason);
                None
            }
        }
    }

    fn begin_seal(
        &mut self,
        context: &Context<'_>,
        mut buf: P::Buf,
        inner: &InnerPacket,
        id: Spi,
    ) -> Result<Leaving<P::Buf>, DropReason> {
        let sa = &self.sad.outbound(id).ok_or(DropReason::NoSa)?.sa;
        let (local, remote, encapsulation) = (sa.local(), sa.remote(), sa.encapsulation());
        let largest = largest_inner(self.io.mtu(Side::Outside), sa);
        if inner.len > largest {
            self.report_too_big(context, buf.bytes(), inner, largest);
            return Err(DropReason::TooBig);
        }
        let next_hop = self.next_hop(context, remote)?;
        narrow(&mut buf, ethernet::HEADER_LEN, inner.len);
        ipv4::decrement_ttl(buf.bytes_mut()).ok_or(DropReason::TtlExpired)?;
        let outbound = self.sad.outbound_mut(id).ok_or(DropReason::NoSa)?;
        let begun = outbound.sa.begin_seal(&mut buf);
        if begun.as_ref().is_err_and(|reason| *reason == DropReason::SequenceEnd) {
            outbound.note_end(&mut self.events, context.counters);
        } else {
            outbound.note(context.now, &mut self.events, context.counters);
        }
        Ok(Leaving {
            buf,
            id,
            sealing: begun?,
            route: Route { local, remote, encapsulation, next_hop },
            dscp: inner.dscp,
            ecn: inner.ecn,
            dont_fragment: inner.dont_fragment,
            sealed: false,
        })
    }

    fn next_hop(&mut self, context: &Context<'_>, peer: Ipv4Addr) -> Result<MacAddr, DropReason> {
        let hop = context.tables.next_hop(peer).ok_or(DropReason::NeighbourUnresolved)?;
        if let Some(mac) = context.tables.neighbours.get(&hop) {
            return Ok(*mac);
        }
        self.events.resolve(Side::Outside, hop, context.now, context.counters);
        Err(DropReason::NeighbourUnresolved)
    }

    /// Seals all packets in one call, whatever SAs they belong to.
    fn seal(&self, leaving: &mut ArrayVec<Leaving<P::Buf>, BURST>) {
        let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
        for packet in leaving.iter_mut() {
            let Some(outbound) = self.sad.outbound(packet.id) else { continue };
            if let Some(job) = packet.sealing.job(&outbound.sa, packet.buf.bytes_mut()) {
                jobs.push(job);
                packet.sealed = true;
            }
        }
        if !mutated(Mutation::SealSkipped) {
            self.aead.seal(&mut jobs);
        }
    }

    /// Puts the outer headers in front and sends. DSCP, ECN and the ban on fragmentation are the
    /// inner packet's (RFC 4301, 5.1.2.1; RFC 6040, 4.1 normal mode).
    fn encapsulate(&mut self, context: &Context<'_>, mut packet: Leaving<P::Buf>) {
        if !packet.sealed {
            // Never let a packet out in clear, whatever went wrong.
            return context.drop_packet(DropReason::NoRoom);
        }
        let header = ipv4::Repr {
            dscp: packet.dscp,
            ecn: packet.ecn,
            dont_fragment: packet.dont_fragment,
            // Unique enough where fragmentation is allowed: 2^16 packets of one SA apart.
            identification: packet.sealing.sequence() as u16,
            ..ipv4::Repr::new(packet.route.local, packet.route.remote, ipv4::PROTOCOL_ESP, 0)
        };
        match put_headers(&mut packet.buf, header, &packet.route, context.tables.outside_mac) {
            Ok(()) => {
                context.counters.add(Metric::Sealed, 1);
                self.io.send(Side::Outside, packet.buf);
            }
            Err(reason) => context.drop_packet(reason),
        }
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
        let quotation = frame.get(ethernet::HEADER_LEN..)?.get(..inner.len)?;
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

/// The longest inner packet whose ESP packet fits into `mtu` bytes.
fn largest_inner(mtu: usize, sa: &OutboundSa) -> usize {
    let udp_len = match sa.encapsulation() {
        Encapsulation::Esp => 0,
        Encapsulation::Udp { .. } => udp::HEADER_LEN,
    };
    let around = ipv4::HEADER_LEN + udp_len + ESP_HEADER_LEN + ICV_LEN;
    let encrypted = mtu.saturating_sub(around) / ALIGNMENT * ALIGNMENT;
    encrypted.saturating_sub(TRAILER_LEN)
}

/// UDP when there is a NAT, then IPv4, then Ethernet, in front of the ESP packet in `buf`.
fn put_headers<B: PacketBuf>(
    buf: &mut B,
    header: ipv4::Repr,
    route: &Route,
    own: MacAddr,
) -> Result<(), DropReason> {
    let mut header = ipv4::Repr { payload_len: buf.bytes().len(), ..header };
    if let Encapsulation::Udp { local_port, remote_port } = route.encapsulation {
        let udp = udp::Repr { source_port: local_port, destination_port: remote_port };
        put_front(buf, &udp.bytes_without_checksum(header.payload_len))?;
        header.protocol = ipv4::PROTOCOL_UDP;
        header.payload_len += udp::HEADER_LEN;
    }
    put_front(buf, &header.bytes())?;
    let link = ethernet::Repr {
        destination: route.next_hop,
        source: own,
        ether_type: ethernet::TYPE_IPV4,
    };
    put_front(buf, &link.bytes())
}

fn put_front<B: PacketBuf, const N: usize>(
    buf: &mut B,
    header: &[u8; N],
) -> Result<(), DropReason> {
    buf.prepend(N).map_err(|_| DropReason::NoRoom)?;
    let front = buf.bytes_mut().first_chunk_mut::<N>().ok_or(DropReason::NoRoom)?;
    *front = *header;
    Ok(())
}
