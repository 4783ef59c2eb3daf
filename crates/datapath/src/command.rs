//! What the controller tells a worker, and what a worker tells the controller.

use crate::flows::FlowInfo;
use crate::tables::Stations;
use holdfast_ipsec::{InboundSa, OutboundSa, ReplayEdge, SequenceRange, Spi};
use holdfast_packet::{Nanos, Side};
use std::net::Ipv4Addr;

/// An order for one worker. Orders take effect in the order they were pushed.
#[derive(Debug)]
pub enum WorkerCommand {
    /// Accept packets for this SA. Replaces an SA of the same SPI.
    InstallInbound(Box<InboundSa>),
    /// Have this SA ready for the policies that name `id`. Replaces an SA of the same id.
    InstallOutbound {
        /// The name of the pair: its inbound SPI.
        id: Spi,
        /// The SA, with its first range.
        sa: Box<OutboundSa>,
    },
    /// Accept no more packets for this SPI.
    RemoveInbound(Spi),
    /// Send no more packets with this SA.
    RemoveOutbound(Spi),
    /// A committed range of outbound sequence numbers.
    Grant {
        /// The name of the pair.
        id: Spi,
        /// The numbers granted.
        range: SequenceRange,
    },
    /// Accept numbers up to this committed horizon.
    Horizon {
        /// The inbound SPI.
        spi: Spi,
        /// The new horizon; a lower one than known changes nothing.
        horizon: u64,
    },
    /// Forget all SAs and flows: this member is not the owner any more, or owns anew.
    Clear,
    /// Send this frame. Without a valid lease only ARP probes leave; see [`crate::Worker`].
    Transmit {
        /// Where to.
        side: Side,
        /// The whole frame with its Ethernet header.
        frame: Box<[u8]>,
    },
    /// Stop opening and sealing, pass frames on to another member and report where each SA stopped
    /// by [`WorkerEvent::Stopped`], whose lists are allocated in the worker: once per handover.
    Suspend {
        /// Names the suspension in its report, so that no report is taken for that of another.
        number: u64,
        /// To whom.
        to: Stations,
        /// Nothing is passed on from then on.
        until: Nanos,
    },
    /// Pass frames on to this member.
    Forward {
        /// To whom.
        to: Stations,
        /// Nothing is passed on from then on.
        until: Nanos,
    },
    /// Pass on this frame too, which was punted before the worker stopped.
    Pass {
        /// Where it came from and goes to.
        side: Side,
        /// The whole frame with its Ethernet header.
        frame: Box<[u8]>,
    },
    /// Keep the frames that arrive, up to [`crate::HELD_FRAMES_MAX`]: this member is about to own.
    Hold {
        /// What is still kept then is dropped.
        until: Nanos,
    },
    /// Serve the SAs that are installed and keep the frames of others, up to [`crate::HELD_FRAMES_MAX`],
    /// each until its SA is installed; those SAs are asked for by [`WorkerEvent::Missing`]. This member
    /// owns and is loading its SAs; [`WorkerCommand::Serve`] follows the last one.
    Fill {
        /// A frame that is kept for longer is dropped.
        keep_ms: u64,
    },
    /// The answer to [`WorkerEvent::Missing`] when there is no such SA: what was kept for it is dropped.
    NoSuchSa(Spi),
    /// Neither pass on nor keep any more: treat what was kept, then what arrives, by the lease.
    Serve,
    /// Answer with [`WorkerEvent::Forwarded`].
    CountForwarded,
    /// Answer with [`WorkerEvent::Flows`]. Allocates the answer in the worker: a diagnosis, not a
    /// part of forwarding.
    ListFlows {
        /// The most flows wanted, at most [`LIST_LIMIT`].
        limit: usize,
    },
    /// Answer with [`WorkerEvent::Sas`]. Allocates the answer like [`WorkerCommand::ListFlows`].
    ListSas {
        /// The most SAs wanted, at most [`LIST_LIMIT`].
        limit: usize,
    },
}

/// The most entries one listing returns.
pub const LIST_LIMIT: usize = 65_536;

/// News from one worker.
#[derive(Debug)]
pub enum WorkerEvent {
    /// A frame that is not the worker's to handle: IKE (UDP 500, or UDP 4500 with the non-ESP
    /// marker) or ARP.
    Punt {
        /// Where it came from.
        side: Side,
        /// The whole frame with its Ethernet header.
        frame: Box<[u8]>,
    },
    /// Less than half of an outbound range is left. Repeated with growing pauses until granted.
    RangeLow {
        /// The name of the pair.
        id: Spi,
        /// Numbers left.
        remaining: u64,
        /// Estimated packets per second.
        rate_pps: u64,
    },
    /// Less than half of the way to the horizon is left. Repeated like `RangeLow`.
    HorizonLow {
        /// The inbound SPI.
        spi: Spi,
        /// The highest number that authenticated, whether accepted or not; above the horizon when
        /// the peer went on numbering during an outage.
        right_edge: u64,
        /// The horizon known here.
        horizon: u64,
        /// Estimated packets per second.
        rate_pps: u64,
    },
    /// A packet authenticated in the ambiguous zone after a takeover: renew this SA first. Once
    /// per installed SA.
    Ambiguous {
        /// The inbound SPI.
        spi: Spi,
        /// The number of that packet: the peer's next ones are higher.
        sequence: u64,
    },
    /// The first packet was accepted on this SA: the peer has it, and counts beyond the floor. Once
    /// per installed SA.
    InUse {
        /// The inbound SPI.
        spi: Spi,
    },
    /// ESP for an SPI nobody here knows. Paced, so not every packet.
    UnknownSpi {
        /// The SPI in the packet.
        spi: u32,
        /// Its unauthenticated source.
        source: Ipv4Addr,
    },
    /// A frame is kept for an SA that is not installed: it is to be loaded first, or there is none. Once
    /// for each while it is waited for, or somewhat more often.
    Missing {
        /// The name of the pair.
        id: Spi,
    },
    /// The sequence numbers of an outbound SA are used up for good (RFC 4303, 3.3.3). Once per
    /// installed SA.
    SequenceEnd {
        /// The name of the pair.
        id: Spi,
    },
    /// A station address is wanted. Paced.
    Resolve {
        /// The network of the address.
        side: Side,
        /// The address without a known station.
        address: Ipv4Addr,
    },
    /// Memory the worker has finished with; dropping it here is all there is to do.
    Retired(Retired),
    /// After [`WorkerCommand::Suspend`]: where SAs stopped. Several, until the last one.
    Stopped {
        /// The number of the suspension.
        number: u64,
        /// Those of them that had packets. One may be reported twice, alike.
        sas: Vec<StoppedSa>,
        /// All have been reported.
        last: bool,
    },
    /// The answer to [`WorkerCommand::CountForwarded`].
    Forwarded {
        /// Frames passed on since the worker was suspended last.
        frames: u64,
    },
    /// The answer to [`WorkerCommand::ListFlows`].
    Flows(Vec<FlowInfo>),
    /// The answer to [`WorkerCommand::ListSas`].
    Sas(Vec<SaInfo>),
}

/// How far a pair of SAs was used when its worker stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedSa {
    /// The name of the pair: its inbound SPI.
    pub id: Spi,
    /// The lowest number not used; `None` when the outbound SA is not installed.
    pub outbound_next: Option<u64>,
    /// What was accepted; `None` when the inbound SA is not installed.
    pub edge: Option<ReplayEdge>,
}

/// Memory that only the controller may free.
#[derive(Debug)]
pub enum Retired {
    /// A removed, replaced or refused inbound SA.
    Inbound(Box<InboundSa>),
    /// A removed, replaced or refused outbound SA.
    Outbound(Box<OutboundSa>),
    /// A frame that was sent or refused.
    Frame(Box<[u8]>),
}

/// One direction of a pair of SAs as listed to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaInfo {
    /// The name of the pair: its inbound SPI.
    pub id: Spi,
    /// Packets accepted.
    pub inbound_packets: u64,
    /// Bytes of the inner packets accepted.
    pub inbound_bytes: u64,
    /// Packets refused after their SPI was recognised.
    pub inbound_refused: u64,
    /// Right edge of the replay window.
    pub right_edge: u64,
    /// The committed horizon.
    pub horizon: u64,
    /// Packets sealed.
    pub outbound_packets: u64,
    /// Bytes of the inner packets sealed.
    pub outbound_bytes: u64,
    /// Sequence numbers left in the committed range.
    pub outbound_remaining: u64,
}
