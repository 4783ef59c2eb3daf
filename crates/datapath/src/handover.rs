//! What a worker does with packets while the ownership moves.
//!
//! ```text
//!      old owner, on purpose                         new owner
//!   Suspend  -->  Forwarding: open and seal    Hold --> Holding: keep what arrives, in order,
//!                 nothing, pass frames on,              at most so much and for so long
//!                 report where each SA                              |
//!                 stopped                      Fill (also after     v
//!   Serve, or until: without any SA            a crash) ---> Filling: serve the SAs that are
//!            |                                          installed, keep frames of others
//!            v                                          and ask for those SAs
//!         Serving                                                   |
//!                                              Serve (all SAs       v
//!                                              are here)     Releasing: the kept frames first
//!                                                                   |
//!                                                                   v
//!                                                                Serving
//! ```
//!
//! All of it lies behind the branches for frames without a lease, an SA or a policy's SA: while a worker
//! serves, a packet costs nothing more.
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
//!
//! Why filling keeps the laws: only what the lease allows is treated, and an SA is used only once it is
//! installed, which it is with the numbers, window and horizon its record grants. A packet whose SA is
//! missing is kept as it came or dropped, and never leaves in clear. The frames of an SA stay in order
//! ([`crate::kept`]). Kept frames are treated under a lease or not at all: without one they expire.

use crate::command::WorkerEvent;
use crate::counters::Metric;
use crate::events::EventSink;
use crate::kept::{Kept, Missing};
use crate::lease::LeaseState;
use crate::tables::Stations;
use crate::worker::{Context, Nodes, Origin};
use holdfast_ipsec::{DropReason, Spi};
use holdfast_packet::{MacAddr, Nanos, PacketBuf, Port, Side, ethernet, ipv4};

/// Bursts of kept frames treated in one poll, so that they are gone soon and the ports still get
/// their turn.
const RELEASED_BURSTS_PER_POLL: usize = 4;

/// Slots of the SA tables looked at in one poll for the report: the window of each SA is looked
/// through.
const STOPPED_SLOTS_PER_POLL: usize = 64;

/// SAs asked for in one poll: who sends to many SPIs that name nothing must not fill the event ring.
const MISSING_PER_POLL: usize = 32;

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
    /// Treated while the lease is valid, those without it and those whose SA is missing kept so long.
    Filling { keep_ms: u64 },
    /// Kept behind those that were kept before, which are being treated.
    Releasing,
}

/// The stance with all that belongs to it.
#[derive(Debug)]
pub(crate) struct Handover<B> {
    pub(crate) stance: Stance,
    kept: Kept<B>,
    /// Kept frames wait for the next poll.
    treating: bool,
    missing_left: usize,
    /// The number of the suspension and the slot to go on reporting from, while there are more.
    reporting: Option<(u64, usize)>,
    forwarded: u64,
}

impl<B> Handover<B> {
    pub(crate) fn new() -> Self {
        Self {
            stance: Stance::Serving,
            kept: Kept::new(),
            treating: false,
            missing_left: 0,
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
        self.forward(to, until);
        self.reporting = Some((number, 0));
        self.forwarded = 0;
    }

    /// An SA goes: others may move in the table, also to where the report has been already.
    pub(crate) fn report_anew(&mut self) {
        if let Some((_, slot)) = &mut self.reporting {
            *slot = 0;
        }
    }

    /// There is more to report or to treat: not the moment to sleep.
    pub(crate) fn is_busy(&self) -> bool {
        self.reporting.is_some() || self.treating
    }

    /// All SAs go.
    pub(crate) fn report_no_more(&mut self) {
        self.reporting = None;
    }

    /// Passes frames on, to this member from now on, and first those that are kept.
    pub(crate) fn forward(&mut self, to: Stations, until: Nanos) {
        self.kept.release_all();
        self.stance = Stance::Forwarding { to, until };
    }

    /// Keeps frames.
    pub(crate) fn hold(&mut self, until: Nanos) {
        self.kept.release_all();
        self.stance = Stance::Holding { until };
    }

    /// Serves the SAs that are installed, and keeps the frames of others.
    pub(crate) fn fill(&mut self, keep_ms: u64) {
        self.reporting = None;
        self.kept.release_all();
        self.kept.ask_anew();
        self.stance = Stance::Filling { keep_ms };
    }

    /// An SA was installed.
    pub(crate) fn note_installed(&mut self) {
        self.kept.note_installed();
    }

    /// From now on the lease alone decides; kept frames come first.
    pub(crate) fn serve(&mut self) {
        self.reporting = None;
        self.kept.release_all();
        self.stance = if self.kept.is_empty() { Stance::Serving } else { Stance::Releasing };
    }

    /// How packets are judged, and what may be said at all, given what the lease says.
    pub(crate) fn judge(&self, lease: LeaseState) -> (LeaseState, LeaseState) {
        match self.stance {
            Stance::Serving => (lease, lease),
            Stance::Filling { .. } if !self.kept.has_arrived() => (lease, lease),
            Stance::Forwarding { .. } => (LeaseState::None, LeaseState::None),
            Stance::Filling { .. } | Stance::Holding { .. } | Stance::Releasing => {
                (LeaseState::None, lease)
            }
        }
    }
}

impl<P: Port> Nodes<P> {
    /// What is due before packets are looked at. `context` judges packets by the lease alone.
    pub(crate) fn attend(&mut self, context: &Context<'_>) {
        self.handover.treating = false;
        let leased = context.lease == LeaseState::Valid;
        match self.handover.stance {
            Stance::Serving => {}
            Stance::Forwarding { to, until } => {
                self.report_stopped(context);
                if context.now >= until {
                    self.sad.begin_clear();
                    self.give_up_kept(context);
                } else {
                    self.treat_kept(|nodes, side, buf| nodes.pass_frame(context, side, buf, to));
                }
            }
            Stance::Holding { until } if context.now >= until => self.give_up_kept(context),
            Stance::Holding { .. } => {}
            Stance::Filling { keep_ms } => {
                self.expire_kept(context, keep_ms);
                if leased {
                    self.fill(context);
                }
            }
            Stance::Releasing if leased => {
                self.release(context);
                self.handover.serve();
            }
            Stance::Releasing => self.give_up_kept(context),
        }
    }

    /// Treats what arrived, and first what waited for SAs that are there now.
    fn fill(&mut self, context: &Context<'_>) {
        self.handover.missing_left = MISSING_PER_POLL;
        self.handover.kept.release_ready(&self.sad);
        self.release(context);
        let Self { handover: Handover { kept, missing_left, .. }, events, .. } = self;
        kept.ask_for_rest(|id| ask(events, missing_left, id, context));
    }

    fn release(&mut self, context: &Context<'_>) {
        for _ in 0..RELEASED_BURSTS_PER_POLL {
            let Some((side, burst)) = self.handover.kept.next_burst() else { break };
            self.dispatch(context, side, burst, Origin::Port);
        }
        self.handover.treating = self.handover.kept.has_arrived();
    }

    fn treat_kept(&mut self, mut treat: impl FnMut(&mut Self, Side, P::Buf)) {
        for _ in 0..RELEASED_BURSTS_PER_POLL {
            let Some((side, burst)) = self.handover.kept.next_burst() else { break };
            burst.into_iter().for_each(|buf| treat(self, side, buf));
        }
        self.handover.treating = self.handover.kept.has_arrived();
    }

    fn expire_kept(&mut self, context: &Context<'_>, keep_ms: u64) {
        let oldest = Nanos(context.now.0.saturating_sub(keep_ms.saturating_mul(1_000_000)));
        let late = self.handover.kept.expire(oldest);
        context.counters.drop_packets(DropReason::HoldExpired, late);
    }

    /// What is kept is not waited for any more.
    fn give_up_kept(&mut self, context: &Context<'_>) {
        let late = self.handover.kept.clear();
        context.counters.drop_packets(DropReason::HoldExpired, late);
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
        buf: P::Buf,
        reason: DropReason,
    ) {
        match self.handover.stance {
            Stance::Serving => context.drop_packet(reason),
            _ if !is_ours(context, side, buf.bytes()) => context.drop_packet(reason),
            // What is passed on stays in order.
            Stance::Forwarding { to, .. } if !self.handover.kept.has_arrived() => {
                self.pass_frame(context, side, buf, to);
            }
            _ if self.handover.kept.is_full() => context.drop_packet(DropReason::HoldFull),
            _ => {
                context.counters.add(Metric::Held, 1);
                self.handover.kept.push(side, context.now, buf);
            }
        }
    }

    /// A packet whose SA is not installed here; `packet` as it came. Kept while SAs are being loaded, else
    /// given up.
    #[cold]
    pub(crate) fn without_sa(
        &mut self,
        context: &Context<'_>,
        side: Side,
        buf: P::Buf,
        missing: Missing,
    ) {
        if !matches!(self.handover.stance, Stance::Filling { .. }) {
            return self.give_up(context, missing);
        }
        let Self { handover: Handover { kept, missing_left, .. }, events, .. } = self;
        let id = missing.id();
        let asked = kept.was_asked(id) || ask(events, missing_left, id, context);
        if asked {
            kept.note_asked(id);
        }
        if kept.is_full() {
            return context.drop_packet(DropReason::HoldFull);
        }
        context.counters.add(Metric::Awaiting, 1);
        kept.await_sa((side, context.now), buf, missing, asked);
    }

    /// There is no such SA, says the controller: what waits for it gets the usual treatment.
    pub(crate) fn no_such_sa(&mut self, context: &Context<'_>, id: Spi) {
        let (mut inbound, mut outbound) = ((0, None), 0);
        self.handover.kept.give_up(id, |missing| match missing {
            Missing::Inbound { source, .. } => inbound = (inbound.0 + 1, Some(source)),
            Missing::Outbound { .. } => outbound += 1,
        });
        context.counters.drop_packets(DropReason::NoSa, outbound);
        let (count, source) = inbound;
        context.counters.drop_packets(DropReason::UnknownSpi, count);
        if let Some(source) = source {
            self.tell_unknown_spi(context, id.get(), source);
        }
    }

    fn give_up(&mut self, context: &Context<'_>, missing: Missing) {
        match missing {
            Missing::Inbound { spi, source } => self.unknown_spi(context, spi.get(), source),
            Missing::Outbound { .. } => context.drop_packet(DropReason::NoSa),
        }
    }

    fn pass_frame(&mut self, context: &Context<'_>, side: Side, mut buf: P::Buf, to: Stations) {
        match pass_on(context, side, buf.bytes_mut(), to) {
            Ok(()) => {
                self.handover.forwarded = self.handover.forwarded.wrapping_add(1);
                context.counters.add(Metric::Forwarded, 1);
                self.io.send(side, buf);
            }
            Err(reason) => context.drop_packet(reason),
        }
    }

    /// Passes on a frame that the controller had not treated when this member stopped.
    pub(crate) fn pass(&mut self, context: &Context<'_>, side: Side, frame: &[u8]) {
        match self.io.copy_of(side, frame) {
            Some(buf) => self.without_lease(context, side, buf, DropReason::NotOwner),
            None => context.drop_packet(DropReason::NoBuffer),
        }
    }
}

/// Asks the controller for an SA; false when this poll or the event ring has no room for it.
fn ask(events: &mut EventSink, left: &mut usize, id: Spi, context: &Context<'_>) -> bool {
    let Some(less) = left.checked_sub(1) else { return false };
    *left = less;
    events.raise(WorkerEvent::Missing { id }, context.counters)
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
