//! Nodes: which target an inner packet goes to, and its way there.

use crate::classify::from_local;
use crate::counters::Metric;
use crate::flows::{Inserted, TargetNumber};
use crate::mark::MARK_OVERHEAD;
use crate::tables::{TargetEntry, Way};
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::{BURST, FlowKey, PacketBuf, Port, Side, ethernet, ipv4, tcp};
use std::hint::black_box;

/// What became of a packet that went to its target.
enum Went<B> {
    /// Into a frame for the inside network.
    Frame(B),
    /// To the target on this host.
    Delivered,
    /// Aside: its pieces are still to come.
    Aside,
}

/// An inner packet on its way to a target.
#[derive(Debug)]
pub(crate) struct Onward<B> {
    buf: Option<B>,
    flow: FlowKey,
    /// What it is distributed by: its flow, or the one an ICMP error reports on.
    connection: FlowKey,
    hash: u64,
}

impl<B: PacketBuf> Onward<B> {
    #[inline]
    pub(crate) fn new(context: &Context<'_>, buf: B, flow: FlowKey) -> Self {
        let connection = connection(buf.bytes(), &flow);
        Self::of_connection(context, buf, flow, connection)
    }

    /// A packet whose connection is known.
    #[inline]
    pub(crate) fn of_connection(
        context: &Context<'_>,
        buf: B,
        flow: FlowKey,
        connection: FlowKey,
    ) -> Self {
        let hash = connection.quick_hash(context.tables.flow_seed);
        Self { buf: Some(buf), flow, connection, hash }
    }
}

impl<P: Port> Nodes<P> {
    /// Sends each inner packet to the target of its connection.
    #[inline(never)]
    pub(crate) fn distribute(
        &mut self,
        context: &Context<'_>,
        onward: &mut ArrayVec<Onward<P::Buf>, BURST>,
    ) {
        black_box(onward.iter().fold(0, |read, packet| read ^ self.flows.touch_set(packet.hash)));
        black_box(onward.iter().fold(0, |read, packet| read ^ self.flows.touch_flow(packet.hash)));
        let mut count = 0;
        let mtu = self.io.mtu(Side::Inside);
        for packet in onward {
            if packet.flow.dst != context.tables.service {
                context.drop_packet(DropReason::NotForUs);
                continue;
            }
            let known = self.flows.lookup(packet.hash, &packet.connection, context.now);
            count += u64::from(match known {
                Some(number) if self.hop(context, packet, number, mtu) => true,
                _ => self.forward(context, packet, known),
            });
        }
        context.counters.add(Metric::Opened, count);
        if !self.too_long.is_empty() {
            self.go_on_in_pieces(context);
        }
    }

    /// Lowers the segment size in a SYN to what fits into the tunnel the answers will take.
    #[cold]
    fn clamp_request(&mut self, context: &Context<'_>, buf: &mut P::Buf, flow: &FlowKey) {
        let answers = context.tables.spd.lookup(&flow.reversed());
        let place = answers.and_then(|answers| self.sad.find_outbound(answers.spi));
        let largest = self.largest_through(place);
        self.clamp(context, buf, largest);
    }

    /// Sends a packet whose target is known and needs nothing but an Ethernet header. False when
    /// there is more to do; nothing has changed then.
    #[inline]
    fn hop(
        &mut self,
        context: &Context<'_>,
        packet: &mut Onward<P::Buf>,
        number: TargetNumber,
        mtu: usize,
    ) -> bool {
        let Some(header) = self.hops.get(number, &self.flows, context.tables) else { return false };
        let Some(mut buf) = packet.buf.take() else { return false };
        let syn = packet.flow.protocol == ipv4::PROTOCOL_TCP && tcp::opens(buf.bytes());
        if syn || buf.bytes().len() > mtu || buf.prepend(ethernet::HEADER_LEN).is_err() {
            packet.buf = Some(buf);
            return false;
        }
        if let Some(front) = buf.bytes_mut().first_chunk_mut() {
            *front = *header;
        }
        self.io.send(Side::Inside, buf);
        true
    }

    /// The target the connection has, or a new one for a new connection and for one whose target
    /// is gone.
    fn choose_target<'a>(
        &mut self,
        context: &Context<'a>,
        packet: &Onward<P::Buf>,
        known: Option<TargetNumber>,
    ) -> Option<&'a TargetEntry> {
        let id = known.and_then(|number| self.flows.target(number));
        match id.and_then(|id| context.tables.targets.by_id.get(&id)) {
            Some(entry) => Some(entry),
            None => self.assign(context, &packet.connection, packet.hash, id.is_some()),
        }
    }

    /// Gives a connection to the target that Maglev names, the same one on every member.
    #[inline(never)]
    fn assign<'a>(
        &mut self,
        context: &Context<'a>,
        flow: &FlowKey,
        hash: u64,
        moved: bool,
    ) -> Option<&'a TargetEntry> {
        let targets = &context.tables.targets;
        let id = targets.table.lookup(flow.hash(context.tables.flow_seed))?;
        let entry = targets.by_id.get(&id)?;
        let metric = if moved { Metric::FlowsMoved } else { Metric::FlowsAssigned };
        context.counters.add(metric, 1);
        entry.connections.add_one();
        if self.flows.insert(hash, *flow, id, context.now) == Inserted::Evicted {
            context.counters.add(Metric::FlowsEvicted, 1);
        }
        Some(entry)
    }

    /// Puts an Ethernet header in front: the target holds the service address itself, so nothing
    /// else changes, unless it wants its packets marked. True when the packet is on its way.
    #[inline(never)]
    fn forward(
        &mut self,
        context: &Context<'_>,
        packet: &mut Onward<P::Buf>,
        known: Option<TargetNumber>,
    ) -> bool {
        let Some(target) = self.choose_target(context, packet, known) else {
            context.drop_packet(DropReason::NoTarget);
            return false;
        };
        match self.address(context, packet, target) {
            Ok(Went::Frame(buf)) => {
                self.io.send(Side::Inside, buf);
                true
            }
            Ok(Went::Delivered) => true,
            Ok(Went::Aside) => false,
            Err(reason) => {
                context.drop_packet(reason);
                false
            }
        }
    }

    /// The frame for the target's station, if it takes one.
    #[inline]
    fn address(
        &mut self,
        context: &Context<'_>,
        packet: &mut Onward<P::Buf>,
        target: &TargetEntry,
    ) -> Result<Went<P::Buf>, DropReason> {
        let Onward { buf, flow, connection, .. } = packet;
        let mut buf = buf.take().ok_or(DropReason::NoBuffer)?;
        if flow.protocol == ipv4::PROTOCOL_TCP && tcp::opens(buf.bytes()) {
            self.clamp_request(context, &mut buf, flow);
        }
        if matches!(target.way, Way::Local) {
            return self.deliver(context, buf).map(|()| Went::Delivered);
        }
        let Some(mac) = target.mac else {
            self.events.resolve(Side::Inside, target.address, context.now, context.counters);
            return Err(DropReason::NeighbourUnresolved);
        };
        let around = if matches!(target.way, Way::Clear) { 0 } else { MARK_OVERHEAD };
        let largest = self.io.mtu(Side::Inside).saturating_sub(around);
        if buf.bytes().len() > largest {
            self.report_inner_too_big(context, buf.bytes(), flow, largest);
            self.set_onward_aside(context, buf, *flow, *connection, largest);
            return Ok(Went::Aside);
        }
        if !matches!(target.way, Way::Clear) {
            mark(context, &mut buf, connection, &target.way)?;
        }
        buf.prepend(ethernet::HEADER_LEN).map_err(|_| DropReason::NoRoom)?;
        let header = ethernet::Repr {
            destination: mac,
            source: context.tables.inside_mac,
            ether_type: ethernet::TYPE_IPV4,
        };
        // The room has just been made.
        let _ = header.emit(buf.bytes_mut());
        Ok(Went::Frame(buf))
    }
}

impl<P: Port> Nodes<P> {
    /// Hands the packet to the target on this host. Nothing of it appears on the inside network.
    #[inline(never)]
    fn deliver(&mut self, context: &Context<'_>, mut buf: P::Buf) -> Result<(), DropReason> {
        let station = self.io.local_station().ok_or(DropReason::NoTarget)?;
        let header = ethernet::Repr {
            destination: station,
            source: context.tables.inside_mac,
            ether_type: ethernet::TYPE_IPV4,
        };
        buf.prepend(ethernet::HEADER_LEN).map_err(|_| DropReason::NoRoom)?;
        header.emit(buf.bytes_mut()).map_err(|_| DropReason::NoRoom)?;
        self.io.send_local(buf);
        Ok(())
    }

    /// Treats what the target on this host sends like what comes from the inside network, but for
    /// what would be answered there: that way nothing of it could appear on the wire.
    pub(crate) fn receive_local(&mut self, context: &Context<'_>) -> usize {
        let mut burst = ArrayVec::new();
        let received = self.io.rx_local(&mut burst);
        if received > 0 {
            burst.retain(|buf| {
                let verdict = from_local(buf.bytes(), context.tables);
                verdict.map_err(|reason| context.drop_packet(reason)).is_ok()
            });
            self.inside(context, burst, Origin::Port);
        }
        received
    }
}

/// Puts the mark in front of the packet in `buf`.
#[inline(never)]
fn mark<B: PacketBuf>(
    context: &Context<'_>,
    buf: &mut B,
    connection: &FlowKey,
    way: &Way,
) -> Result<(), DropReason> {
    let Way::Marked(marker) = way else { return Err(DropReason::MarkKeyMissing) };
    let hash = connection.hash(context.tables.flow_seed);
    let headers = marker.headers(buf.bytes(), hash);
    buf.prepend(MARK_OVERHEAD).map_err(|_| DropReason::NoRoom)?;
    *buf.bytes_mut().first_chunk_mut().ok_or(DropReason::NoRoom)? = headers;
    context.counters.add(Metric::Marked, 1);
    Ok(())
}

/// The key to distribute by: an ICMP error goes with the connection it reports on.
#[inline]
fn connection(packet: &[u8], flow: &FlowKey) -> FlowKey {
    if flow.protocol != ipv4::PROTOCOL_ICMP {
        return *flow;
    }
    ipv4::View::parse(packet).ok().and_then(|view| FlowKey::of_connection(&view)).unwrap_or(*flow)
}
