//! What a worker does with packets while the ownership moves on purpose.
//!
//! ```text
//!                 old owner                                  new owner
//!   Suspend  -->  Forwarding: open and seal nothing,   Hold --> Holding: keep what arrives,
//!                 pass frames on, report where                  in order, at most so much and
//!                 each SA stopped                               for so long
//!   Serve, or until: without any SA                        Serve (the lease and its SAs are here)
//!            |                                                  |
//!            v                                                  v
//!         Serving                                        Releasing: the kept frames first
//!                                                               |
//!                                                               v
//!                                                            Serving
//! ```
//!
//! All of it lies behind the branch for frames without a lease: while a worker serves, a packet
//! costs nothing more.
//!
//! A frame is passed on as it came, before decryption and before encryption, with other station
//! addresses: from this member's port to the other's. A frame that comes from a member's port was
//! passed on already and is not passed on again, so two members never send a frame to and fro.
//!
//! Why a report is true (second law): a worker takes one command at a time. From `Suspend` on its
//! packets are judged as without a lease, in the same poll and in all later ones, until it is told
//! to serve; so neither a window nor a next number moves between the stop and the report. A worker
//! that nobody told to serve in time forgets its SAs: what it reported may be in use elsewhere, or
//! here again in SAs that are on their way to it.

use crate::command::WorkerEvent;
use crate::counters::Metric;
use crate::lease::LeaseState;
use crate::tables::Stations;
use crate::worker::{Context, Nodes, Origin};
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::{BURST, MacAddr, Nanos, PacketBuf, Port, Side, ethernet, ipv4};
use std::collections::VecDeque;

/// Frames a worker keeps for the ownership that is about to come: at 10000 packets/s a hundred
/// milliseconds, and a quarter of the smallest packet pool.
pub const HELD_FRAMES_MAX: usize = 1_024;

/// Bursts of kept frames treated in one poll, so that they are gone soon and the ports still get
/// their turn.
const RELEASED_BURSTS_PER_POLL: usize = 4;

/// Slots of the SA tables looked at in one poll for the report: the window of each SA is looked
/// through.
const STOPPED_SLOTS_PER_POLL: usize = 64;

/// What becomes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stance {
    /// Treated while the lease is valid, else dropped.
    #[default]
    Serving,
    /// Passed on.
    Forwarding { to: Stations, until: Nanos },
    /// Kept.
    Holding { until: Nanos },
    /// Kept behind those that were kept before, which are being treated.
    Releasing,
}

/// The stance with all that belongs to it.
#[derive(Debug)]
pub(crate) struct Handover<B> {
    pub(crate) stance: Stance,
    held: VecDeque<(Side, B)>,
    /// The number of the suspension and the slot to go on reporting from, while there are more.
    reporting: Option<(u64, usize)>,
    forwarded: u64,
}

impl<B> Handover<B> {
    pub(crate) fn new() -> Self {
        Self {
            stance: Stance::Serving,
            held: VecDeque::with_capacity(HELD_FRAMES_MAX),
            reporting: None,
            forwarded: 0,
        }
    }

    /// Frames passed on since the last suspension.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded
    }

    /// Stops, passes frames on and reports.
    pub(crate) fn suspend(&mut self, number: u64, to: Stations, until: Nanos) {
        self.stance = Stance::Forwarding { to, until };
        self.reporting = Some((number, 0));
        self.forwarded = 0;
    }

    /// An SA goes: others may move in the table, also to where the report has been already.
    pub(crate) fn report_anew(&mut self) {
        if let Some((_, slot)) = &mut self.reporting {
            *slot = 0;
        }
    }

    /// There is more to report: not the moment to sleep.
    pub(crate) fn is_reporting(&self) -> bool {
        self.reporting.is_some()
    }

    /// All SAs go.
    pub(crate) fn report_no_more(&mut self) {
        self.reporting = None;
    }

    /// Passes frames on, to this member from now on.
    pub(crate) fn forward(&mut self, to: Stations, until: Nanos) {
        self.stance = Stance::Forwarding { to, until };
    }

    /// Keeps frames.
    pub(crate) fn hold(&mut self, until: Nanos) {
        self.stance = Stance::Holding { until };
    }

    /// From now on the lease alone decides; kept frames come first.
    pub(crate) fn serve(&mut self) {
        self.reporting = None;
        self.stance = if self.held.is_empty() { Stance::Serving } else { Stance::Releasing };
    }

    /// How packets are judged, and what may be said at all, given what the lease says.
    pub(crate) fn judge(&self, lease: LeaseState) -> (LeaseState, LeaseState) {
        match self.stance {
            Stance::Serving => (lease, lease),
            Stance::Forwarding { .. } => (LeaseState::None, LeaseState::None),
            Stance::Holding { .. } | Stance::Releasing => (LeaseState::None, lease),
        }
    }

    /// The next kept frames of one side.
    fn next_burst(&mut self) -> Option<(Side, ArrayVec<B, BURST>)> {
        let side = self.held.front()?.0;
        let mut burst = ArrayVec::new();
        while !burst.is_full() && self.held.front().is_some_and(|(next, _)| *next == side) {
            burst.extend(self.held.pop_front().map(|(_, buf)| buf));
        }
        Some((side, burst))
    }
}

impl<P: Port> Nodes<P> {
    /// What is due before packets are looked at. `context` judges packets by the lease alone.
    pub(crate) fn attend(&mut self, context: &Context<'_>) {
        match self.handover.stance {
            Stance::Serving => {}
            Stance::Forwarding { until, .. } => {
                self.report_stopped(context);
                if context.now >= until {
                    self.sad.begin_clear();
                    self.handover.serve();
                }
            }
            Stance::Holding { until } => {
                if context.now >= until {
                    let late = self.handover.held.len() as u64;
                    context.counters.drop_packets(DropReason::HoldExpired, late);
                    self.handover.held.clear();
                    self.handover.serve();
                }
            }
            Stance::Releasing => self.release(context),
        }
    }

    fn release(&mut self, context: &Context<'_>) {
        for _ in 0..RELEASED_BURSTS_PER_POLL {
            let Some((side, burst)) = self.handover.next_burst() else { break };
            self.dispatch(context, side, burst, Origin::Port);
        }
        self.handover.serve();
    }

    fn report_stopped(&mut self, context: &Context<'_>) {
        let Some((number, slot)) = self.handover.reporting else { return };
        let (sas, next) = self.sad.stopped(slot, STOPPED_SLOTS_PER_POLL);
        let last = next.is_none();
        let tells = last || !sas.is_empty();
        let report = WorkerEvent::Stopped { number, sas, last };
        if !tells || self.events.raise(report, context.counters) {
            self.handover.reporting = next.map(|slot| (number, slot));
        }
    }

    /// A frame that arrived while packets are not treated here.
    pub(crate) fn without_lease(
        &mut self,
        context: &Context<'_>,
        side: Side,
        mut buf: P::Buf,
        reason: DropReason,
    ) {
        let reason = match self.handover.stance {
            Stance::Serving => reason,
            _ if !is_ours(context, side, buf.bytes()) => reason,
            Stance::Forwarding { to, .. } => match pass_on(context, side, buf.bytes_mut(), to) {
                Ok(()) => {
                    self.handover.forwarded = self.handover.forwarded.wrapping_add(1);
                    context.counters.add(Metric::Forwarded, 1);
                    return self.io.send(side, buf);
                }
                Err(reason) => reason,
            },
            Stance::Holding { .. } | Stance::Releasing => {
                if self.handover.held.len() < HELD_FRAMES_MAX {
                    context.counters.add(Metric::Held, 1);
                    return self.handover.held.push_back((side, buf));
                }
                DropReason::HoldFull
            }
        };
        context.drop_packet(reason);
    }

    /// Passes on a frame that the controller had not treated when this member stopped.
    pub(crate) fn pass(&mut self, context: &Context<'_>, side: Side, frame: &[u8]) {
        match self.io.copy_of(side, frame) {
            Some(buf) => self.without_lease(context, side, buf, DropReason::NotOwner),
            None => context.drop_packet(DropReason::NoBuffer),
        }
    }
}

/// An IPv4 packet the owner of the addresses would treat: outside for the common address, inside
/// for anywhere.
fn is_ours(context: &Context<'_>, side: Side, frame: &[u8]) -> bool {
    ethernet::View::parse(frame)
        .ok()
        .filter(|view| view.ether_type() == ethernet::TYPE_IPV4)
        .and_then(|view| ipv4::View::parse(view.payload()).ok())
        .is_some_and(|packet| side == Side::Inside || packet.destination() == context.tables.common)
}

fn pass_on(
    context: &Context<'_>,
    side: Side,
    frame: &mut [u8],
    to: Stations,
) -> Result<(), DropReason> {
    let source = ethernet::View::parse(frame).map_err(|_| DropReason::Runt)?.source();
    if is_members(context, side, source) {
        return Err(DropReason::ForwardedTwice);
    }
    let own = match side {
        Side::Outside => context.tables.outside_mac,
        Side::Inside => context.tables.inside_mac,
    };
    ethernet::set_addresses(frame, to.on(side), own);
    Ok(())
}

/// Whether a frame comes from another member's port.
pub(crate) fn is_members(context: &Context<'_>, side: Side, source: MacAddr) -> bool {
    context.tables.members.iter().any(|stations| stations.on(side) == source)
}
