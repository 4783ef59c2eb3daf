//! What a worker counts.
//!
//! One writer (the worker), any readers. The layout is a plain row of 64-bit numbers, metrics first
//! and then one per [`DropReason`], so that the shell can copy it into a shared segment and the
//! operator's tool can read it back with [`CountersView`].

use crossbeam::utils::CachePadded;
use holdfast_ipsec::DropReason;
use holdfast_packet::Side;
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything counted that is not a drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Metric {
    /// Packets received outside.
    OutsideRxPackets,
    /// Bytes received outside, Ethernet header included.
    OutsideRxBytes,
    /// Packets sent outside.
    OutsideTxPackets,
    /// Bytes sent outside, Ethernet header included.
    OutsideTxBytes,
    /// Packets received inside.
    InsideRxPackets,
    /// Bytes received inside, Ethernet header included.
    InsideRxBytes,
    /// Packets sent inside.
    InsideTxPackets,
    /// Bytes sent inside, Ethernet header included.
    InsideTxBytes,
    /// Packets received from the target on this host.
    LocalRxPackets,
    /// Packets sent to the target on this host.
    LocalTxPackets,
    /// Bytes sent to the target on this host, Ethernet header included.
    LocalTxBytes,
    /// ESP packets that authenticated, whatever became of them.
    Authenticated,
    /// Packets from peers that went to a target's side.
    Opened,
    /// Packets from targets that were encrypted.
    Sealed,
    /// Packets from peers that went to their target marked.
    Marked,
    /// ARP requests answered.
    ArpAnswered,
    /// ICMP echo requests answered.
    EchoAnswered,
    /// ICMP "fragmentation needed" sent to targets.
    TooBigReported,
    /// Packets from outside put together from fragments.
    Reassembled,
    /// Packets too long for the way ahead that went on in fragments.
    Fragmented,
    /// SYN whose segment size was lowered to what fits into the tunnel.
    SegmentSizesLowered,
    /// Frames handed to the controller.
    Punted,
    /// Frames sent on the controller's behalf.
    Injected,
    /// Packets given to the worker that keeps their SA.
    HandedOff,
    /// Packets taken over from another worker.
    TakenOver,
    /// Connections assigned to a target.
    FlowsAssigned,
    /// Connections moved because their target is gone.
    FlowsMoved,
    /// Living connections forgotten because the flow table is full.
    FlowsEvicted,
    /// Events the controller missed because its ring was full; each is raised again.
    EventsDeferred,
    /// Frames passed on, as they came, to the member the ownership went to.
    Forwarded,
    /// Frames kept until this member owns.
    Held,
    /// Frames kept until their SA is loaded.
    Awaiting,
    /// Polls.
    Polls,
    /// Polls that moved at least one packet.
    BusyPolls,
}

impl Metric {
    /// All metrics in layout order.
    pub const ALL: &'static [Self] = &[
        Self::OutsideRxPackets,
        Self::OutsideRxBytes,
        Self::OutsideTxPackets,
        Self::OutsideTxBytes,
        Self::InsideRxPackets,
        Self::InsideRxBytes,
        Self::InsideTxPackets,
        Self::InsideTxBytes,
        Self::LocalRxPackets,
        Self::LocalTxPackets,
        Self::LocalTxBytes,
        Self::Authenticated,
        Self::Opened,
        Self::Sealed,
        Self::Marked,
        Self::ArpAnswered,
        Self::EchoAnswered,
        Self::TooBigReported,
        Self::Reassembled,
        Self::Fragmented,
        Self::SegmentSizesLowered,
        Self::Punted,
        Self::Injected,
        Self::HandedOff,
        Self::TakenOver,
        Self::FlowsAssigned,
        Self::FlowsMoved,
        Self::FlowsEvicted,
        Self::EventsDeferred,
        Self::Forwarded,
        Self::Held,
        Self::Awaiting,
        Self::Polls,
        Self::BusyPolls,
    ];

    /// The metric's name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutsideRxPackets => "outside_rx_packets",
            Self::OutsideRxBytes => "outside_rx_bytes",
            Self::OutsideTxPackets => "outside_tx_packets",
            Self::OutsideTxBytes => "outside_tx_bytes",
            Self::InsideRxPackets => "inside_rx_packets",
            Self::InsideRxBytes => "inside_rx_bytes",
            Self::InsideTxPackets => "inside_tx_packets",
            Self::InsideTxBytes => "inside_tx_bytes",
            Self::LocalRxPackets => "local_rx_packets",
            Self::LocalTxPackets => "local_tx_packets",
            Self::LocalTxBytes => "local_tx_bytes",
            Self::Authenticated => "authenticated",
            Self::Opened => "opened",
            Self::Sealed => "sealed",
            Self::Marked => "marked",
            Self::ArpAnswered => "arp_answered",
            Self::EchoAnswered => "echo_answered",
            Self::TooBigReported => "too_big_reported",
            Self::Reassembled => "reassembled",
            Self::Fragmented => "fragmented",
            Self::SegmentSizesLowered => "segment_sizes_lowered",
            Self::Punted => "punted",
            Self::Injected => "injected",
            Self::HandedOff => "handed_off",
            Self::TakenOver => "taken_over",
            Self::FlowsAssigned => "flows_assigned",
            Self::FlowsMoved => "flows_moved",
            Self::FlowsEvicted => "flows_evicted",
            Self::EventsDeferred => "events_deferred",
            Self::Forwarded => "forwarded",
            Self::Held => "held",
            Self::Awaiting => "awaiting",
            Self::Polls => "polls",
            Self::BusyPolls => "busy_polls",
        }
    }

    /// Packets and bytes sent to the target on this host.
    pub(crate) const LOCAL_TX: (Self, Self) = (Self::LocalTxPackets, Self::LocalTxBytes);

    /// Packets and bytes received on `side`.
    pub(crate) const fn rx(side: Side) -> (Self, Self) {
        match side {
            Side::Outside => (Self::OutsideRxPackets, Self::OutsideRxBytes),
            Side::Inside => (Self::InsideRxPackets, Self::InsideRxBytes),
        }
    }

    /// Packets and bytes sent on `side`.
    pub(crate) const fn tx(side: Side) -> (Self, Self) {
        match side {
            Side::Outside => (Self::OutsideTxPackets, Self::OutsideTxBytes),
            Side::Inside => (Self::InsideTxPackets, Self::InsideTxBytes),
        }
    }
}

/// Numbers in the layout: metrics, then drop reasons.
pub const COUNTERS_LEN: usize = Metric::ALL.len() + DropReason::ALL.len();

/// The counters of one worker.
pub struct Counters(CachePadded<[AtomicU64; COUNTERS_LEN]>);

impl Default for Counters {
    fn default() -> Self {
        Self(CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to a metric. For the one writer only: it loads and stores without a locked instruction.
    #[inline]
    pub(crate) fn add(&self, metric: Metric, n: u64) {
        self.bump(metric as usize, n);
    }

    /// Counts one dropped packet. For the one writer only.
    pub(crate) fn drop_packet(&self, reason: DropReason) {
        self.bump(Metric::ALL.len() + reason.index(), 1);
    }

    /// Counts `n` dropped packets. For the one writer only.
    pub(crate) fn drop_packets(&self, reason: DropReason, n: u64) {
        self.bump(Metric::ALL.len() + reason.index(), n);
    }

    /// One metric.
    pub fn metric(&self, metric: Metric) -> u64 {
        self.load(metric as usize)
    }

    /// Packets dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.load(Metric::ALL.len() + reason.index())
    }

    /// All numbers in layout order. Not one moment: the worker goes on counting meanwhile.
    pub fn snapshot(&self) -> [u64; COUNTERS_LEN] {
        std::array::from_fn(|at| self.load(at))
    }

    #[inline]
    fn bump(&self, at: usize, n: u64) {
        if let Some(cell) = self.0.get(at) {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    fn load(&self, at: usize) -> u64 {
        self.0.get(at).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let snapshot = self.snapshot();
        let view = CountersView::new(&snapshot);
        f.debug_map().entries(view.named().filter(|(_, value)| *value != 0)).finish()
    }
}

/// Reads numbers in the layout of [`Counters::snapshot`], wherever they are kept.
#[derive(Debug, Clone, Copy)]
pub struct CountersView<'a>(&'a [u64]);

impl<'a> CountersView<'a> {
    /// A view of `numbers`; missing ones count as zero.
    pub const fn new(numbers: &'a [u64]) -> Self {
        Self(numbers)
    }

    /// One metric.
    pub fn metric(&self, metric: Metric) -> u64 {
        self.0.get(metric as usize).copied().unwrap_or(0)
    }

    /// Packets dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.0.get(Metric::ALL.len() + reason.index()).copied().unwrap_or(0)
    }

    /// Every number with its name; drops are named by their reason.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<'a> {
        let names = Metric::ALL
            .iter()
            .map(|metric| metric.name())
            .chain(DropReason::ALL.iter().map(|reason| reason.name()));
        names.zip(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_order_is_declaration_order() {
        for (at, metric) in Metric::ALL.iter().enumerate() {
            assert_eq!(*metric as usize, at);
        }
        for (at, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }

    #[test]
    fn names_are_unique() {
        let counters = Counters::new();
        let snapshot = counters.snapshot();
        let names: std::collections::BTreeSet<_> =
            CountersView::new(&snapshot).named().map(|(name, _)| name).collect();
        assert_eq!(names.len(), COUNTERS_LEN);
    }

    #[test]
    fn a_view_reads_what_was_counted() {
        let counters = Counters::new();
        counters.add(Metric::Sealed, 3);
        counters.drop_packet(DropReason::UnknownSpi);
        let snapshot = counters.snapshot();
        let view = CountersView::new(&snapshot);
        assert_eq!(view.metric(Metric::Sealed), 3);
        assert_eq!(view.dropped(DropReason::UnknownSpi), 1);
        assert_eq!(CountersView::new(&[]).dropped(DropReason::UnknownSpi), 0);
    }
}
