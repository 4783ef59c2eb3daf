//! The worker's end of the event ring.

use crate::command::{Retired, WorkerEvent};
use crate::counters::{Counters, Metric};
use crate::ring::RingSender;
use arrayvec::ArrayVec;
use holdfast_ipsec::DropReason;
use holdfast_packet::{Nanos, Side};
use std::net::Ipv4Addr;

/// Memory waiting for room in the event ring. While anything waits here, no command is taken, so a
/// controller that does not listen only stops its own orders.
const RETIRED_BACKLOG: usize = 8;
/// Frames handed to the controller in one poll; the copies are the only allocations of a poll.
pub const PUNTS_PER_POLL: usize = 32;
/// Addresses whose last question is remembered, to pace [`WorkerEvent::Resolve`].
const RESOLVE_SLOTS: usize = 16;
/// Time between two questions for one address.
const RESOLVE_INTERVAL_MS: u64 = 50;

/// Pushes events, keeps what must not be lost, paces what may repeat.
#[derive(Debug)]
pub(crate) struct EventSink {
    ring: RingSender<WorkerEvent>,
    backlog: ArrayVec<Retired, RETIRED_BACKLOG>,
    pushed: bool,
    punts_left: usize,
    resolving: [Option<(Side, Ipv4Addr, Nanos)>; RESOLVE_SLOTS],
}

impl EventSink {
    pub(crate) fn new(ring: RingSender<WorkerEvent>) -> Self {
        Self {
            ring,
            backlog: ArrayVec::new(),
            pushed: false,
            punts_left: PUNTS_PER_POLL,
            resolving: [None; RESOLVE_SLOTS],
        }
    }

    /// Begins a poll.
    pub(crate) fn begin(&mut self) {
        self.pushed = false;
        self.punts_left = PUNTS_PER_POLL;
        self.flush();
    }

    /// True when an event went out since [`EventSink::begin`].
    pub(crate) fn pushed(&self) -> bool {
        self.pushed
    }

    /// Pushes an event that will be raised again when it does not fit now; false then.
    pub(crate) fn raise(&mut self, event: WorkerEvent, counters: &Counters) -> bool {
        let fits = self.push(event).is_ok();
        if !fits {
            counters.add(Metric::EventsDeferred, 1);
        }
        fits
    }

    /// True when [`EventSink::retire`] can keep its promise.
    pub(crate) fn can_retire(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Sends memory home, now or as soon as the ring has room. To be called only after
    /// [`EventSink::can_retire`], at most as often as the backlog is long.
    pub(crate) fn retire(&mut self, retired: Retired) {
        if let Err(WorkerEvent::Retired(retired)) = self.push(WorkerEvent::Retired(retired)) {
            // Full only if the caller did not ask first; freeing late is then worse than freeing here.
            drop(self.backlog.try_push(retired));
        }
    }

    /// Copies a frame to the controller.
    ///
    /// # Errors
    /// [`DropReason::RateLimited`] when this poll, [`DropReason::PuntFull`] when the ring has no
    /// room for it; nothing is copied then.
    pub(crate) fn punt(&mut self, side: Side, frame: &[u8]) -> Result<(), DropReason> {
        if self.ring.room() == 0 {
            return Err(DropReason::PuntFull);
        }
        self.punts_left = self.punts_left.checked_sub(1).ok_or(DropReason::RateLimited)?;
        let event = WorkerEvent::Punt { side, frame: frame.into() };
        self.push(event).map_err(|_| DropReason::PuntFull)
    }

    /// Asks for a station address, not more than once per interval and address.
    pub(crate) fn resolve(
        &mut self,
        side: Side,
        address: Ipv4Addr,
        now: Nanos,
        counters: &Counters,
    ) {
        let at = (address.to_bits() as usize).wrapping_add(side.index()) % RESOLVE_SLOTS;
        let asked_recently = matches!(self.resolving.get(at), Some(Some((s, a, asked)))
            if (*s, *a) == (side, address) && now < asked.plus_ms(RESOLVE_INTERVAL_MS));
        if !asked_recently
            && self.raise(WorkerEvent::Resolve { side, address }, counters)
            && let Some(slot) = self.resolving.get_mut(at)
        {
            *slot = Some((side, address, now));
        }
    }

    fn flush(&mut self) {
        while let Some(retired) = self.backlog.pop() {
            if let Err(WorkerEvent::Retired(retired)) = self.push(WorkerEvent::Retired(retired)) {
                self.backlog.push(retired);
                return;
            }
        }
    }

    fn push(&mut self, event: WorkerEvent) -> Result<(), WorkerEvent> {
        self.ring.push(event)?;
        self.pushed = true;
        Ok(())
    }
}
