//! Nodes: which target an inner packet goes to, and its way there.

use crate::classify::from_local;
use crate::counters::Metric;
use crate::flows::Inserted;
use crate::mark::MARK_OVERHEAD;
use crate::tables::{TargetEntry, Way};
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::{FlowKey, PacketBuf, Port, Side, ethernet, ipv4};

impl<P: Port> Nodes<P> {
    /// Sends the inner packet in `buf` to the target of its connection.
    pub(crate) fn distribute(&mut self, context: &Context<'_>, buf: P::Buf, flow: &FlowKey) {
        if flow.dst != context.tables.service {
            return context.drop_packet(DropReason::NotForUs);
        }
        let connection = connection(buf.bytes(), flow);
        let hash = connection.hash(context.tables.flow_seed);
        match self.choose_target(context, &connection, hash) {
            Some(target) => self.forward(context, buf, flow, hash, target),
            None => context.drop_packet(DropReason::NoTarget),
        }
    }

    /// The target the connection has, or a new one for a new connection and for one whose target
    /// is gone.
    fn choose_target<'a>(
        &mut self,
        context: &Context<'a>,
        flow: &FlowKey,
        hash: u64,
    ) -> Option<&'a TargetEntry> {
        let targets = &context.tables.targets;
        let known = self.flows.lookup(hash, flow, context.now);
        if let Some(entry) = known.and_then(|id| targets.by_id.get(&id)) {
            return Some(entry);
        }
        let id = targets.table.lookup(hash)?;
        let entry = targets.by_id.get(&id)?;
        let metric = if known.is_some() { Metric::FlowsMoved } else { Metric::FlowsAssigned };
        context.counters.add(metric, 1);
        entry.connections.add_one();
        if self.flows.insert(hash, *flow, id, context.now) == Inserted::Evicted {
            context.counters.add(Metric::FlowsEvicted, 1);
        }
        Some(entry)
    }

    /// Puts an Ethernet header in front: the target holds the service address itself, so nothing
    /// else changes, unless it wants its packets marked.
    fn forward(
        &mut self,
        context: &Context<'_>,
        mut buf: P::Buf,
        flow: &FlowKey,
        hash: u64,
        target: &TargetEntry,
    ) {
        if matches!(target.way, Way::Local) {
            return self.deliver(context, buf);
        }
        let Some(mac) = target.mac else {
            self.events.resolve(Side::Inside, target.address, context.now, context.counters);
            return context.drop_packet(DropReason::NeighbourUnresolved);
        };
        let around = if matches!(target.way, Way::Clear) { 0 } else { MARK_OVERHEAD };
        let largest = self.io.mtu(Side::Inside).saturating_sub(around);
        if buf.bytes().len() > largest {
            self.report_inner_too_big(context, buf.bytes(), flow, largest);
            return context.drop_packet(DropReason::TooBig);
        }
        if !matches!(target.way, Way::Clear)
            && let Err(reason) = mark(context, &mut buf, hash, &target.way)
        {
            return context.drop_packet(reason);
        }
        if buf.prepend(ethernet::HEADER_LEN).is_err() {
            return context.drop_packet(DropReason::NoRoom);
        }
        let header = ethernet::Repr {
            destination: mac,
            source: context.tables.inside_mac,
            ether_type: ethernet::TYPE_IPV4,
        };
        // The room has just been made.
        let _ = header.emit(buf.bytes_mut());
        context.counters.add(Metric::Opened, 1);
        self.io.send(Side::Inside, buf);
    }
}

impl<P: Port> Nodes<P> {
    /// Hands the packet to the target on this host. Nothing of it appears on the inside network.
    #[inline(never)]
    fn deliver(&mut self, context: &Context<'_>, mut buf: P::Buf) {
        let Some(station) = self.io.local_station() else {
            return context.drop_packet(DropReason::NoTarget);
        };
        let header = ethernet::Repr {
            destination: station,
            source: context.tables.inside_mac,
            ether_type: ethernet::TYPE_IPV4,
        };
        if buf.prepend(ethernet::HEADER_LEN).is_err() || header.emit(buf.bytes_mut()).is_err() {
            return context.drop_packet(DropReason::NoRoom);
        }
        context.counters.add(Metric::Opened, 1);
        self.io.send_local(buf);
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
    hash: u64,
    way: &Way,
) -> Result<(), DropReason> {
    let Way::Marked(marker) = way else { return Err(DropReason::MarkKeyMissing) };
    let headers = marker.headers(buf.bytes(), hash);
    buf.prepend(MARK_OVERHEAD).map_err(|_| DropReason::NoRoom)?;
    *buf.bytes_mut().first_chunk_mut().ok_or(DropReason::NoRoom)? = headers;
    context.counters.add(Metric::Marked, 1);
    Ok(())
}

/// The key to distribute by: an ICMP error goes with the connection it reports on.
fn connection(packet: &[u8], flow: &FlowKey) -> FlowKey {
    if flow.protocol != ipv4::PROTOCOL_ICMP {
        return *flow;
    }
    ipv4::View::parse(packet).ok().and_then(|view| FlowKey::of_connection(&view)).unwrap_or(*flow)
}
