//! Frames a worker keeps for later, in order.
//!
//! ```text
//!   kept without a look --> arrived --treated in order--> its SA is there: gone
//!                              ^                     '--> its SA is missing
//!                              |                               |
//!                       (to the front)                         v
//!                              '---- its SA was loaded ---- waiting
//! ```
//!
//! Why no two frames of one SA change places: of one SA, what is in `waiting` came before what is in
//! `arrived`, and that before what a port gives. For a frame gets to `waiting` only from the front of
//! `arrived` or, while that is empty, from a port; when an SA is there, *all* frames that wait for it go
//! to the front of `arrived`, in their order; and while anything is in `arrived` nothing from a port is
//! treated: it goes behind.

use crate::sad::Sad;
use arrayvec::ArrayVec;
use holdfast_ipsec::Spi;
use holdfast_packet::{BURST, Nanos, Side};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// Frames a worker keeps for the ownership that is about to come and for SAs that are being loaded: at
/// 10000 packets/s a hundred milliseconds, and a quarter of the smallest packet pool.
pub const HELD_FRAMES_MAX: usize = 1_024;

/// SAs of which is remembered that they were asked for; two in one place are asked for again.
const ASKED_SLOTS: usize = 256;

/// The SA a frame waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The one of this SPI, which this source sent to.
    Inbound { spi: Spi, source: Ipv4Addr },
    /// The one of this pair, which a policy names.
    Outbound { id: Spi },
}

impl Missing {
    /// The name of its pair.
    pub(crate) const fn id(self) -> Spi {
        match self {
            Self::Inbound { spi, .. } => spi,
            Self::Outbound { id } => id,
        }
    }

    fn is_there(self, sad: &Sad) -> bool {
        match self {
            Self::Inbound { spi, .. } => sad.find_inbound(spi.get()).is_some(),
            Self::Outbound { id } => sad.find_outbound(id).is_some(),
        }
    }
}

#[derive(Debug)]
struct Frame<B> {
    side: Side,
    since: Nanos,
    buf: B,
}

#[derive(Debug)]
struct Waiting<B> {
    frame: Frame<B>,
    missing: Missing,
    /// The controller was told.
    asked: bool,
}

/// The frames kept.
#[derive(Debug)]
pub(crate) struct Kept<B> {
    arrived: VecDeque<Frame<B>>,
    waiting: VecDeque<Waiting<B>>,
    /// SAs were installed since `waiting` was looked through.
    installed: bool,
    /// Some of `waiting` were not asked for.
    unasked: bool,
    asked: [Option<Spi>; ASKED_SLOTS],
}

impl<B> Kept<B> {
    /// Room for all there may be.
    pub(crate) fn new() -> Self {
        Self {
            arrived: VecDeque::with_capacity(HELD_FRAMES_MAX),
            waiting: VecDeque::with_capacity(HELD_FRAMES_MAX),
            installed: false,
            unasked: false,
            asked: [None; ASKED_SLOTS],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.arrived.len().saturating_add(self.waiting.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Something is to be treated before what a port gives.
    pub(crate) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= HELD_FRAMES_MAX
    }

    /// Forgets what was asked for.
    pub(crate) fn ask_anew(&mut self) {
        self.asked = [None; ASKED_SLOTS];
    }

    /// Keeps a frame without a look; to be asked first whether there is [room](Self::is_full).
    pub(crate) fn push(&mut self, side: Side, since: Nanos, buf: B) {
        self.arrived.push_back(Frame { side, since, buf });
    }

    /// Keeps a frame until an SA is there, with whether the controller was told; to be asked first whether
    /// there is [room](Self::is_full).
    pub(crate) fn await_sa(
        &mut self,
        (side, since): (Side, Nanos),
        buf: B,
        missing: Missing,
        asked: bool,
    ) {
        self.unasked |= !asked;
        self.waiting.push_back(Waiting { frame: Frame { side, since, buf }, missing, asked });
    }

    /// Whether an SA was asked for lately.
    pub(crate) fn was_asked(&self, id: Spi) -> bool {
        self.asked.get(asked_slot(id)).is_some_and(|asked| *asked == Some(id))
    }

    /// An SA was asked for.
    pub(crate) fn note_asked(&mut self, id: Spi) {
        if let Some(slot) = self.asked.get_mut(asked_slot(id)) {
            *slot = Some(id);
        }
    }

    /// Asks for what was not asked for yet, as long as `ask` takes it.
    pub(crate) fn ask_for_rest(&mut self, mut ask: impl FnMut(Spi) -> bool) {
        if !std::mem::take(&mut self.unasked) {
            return;
        }
        for waiting in self.waiting.iter_mut().filter(|waiting| !waiting.asked) {
            let id = waiting.missing.id();
            let at = asked_slot(id);
            let known = self.asked.get(at).is_some_and(|asked| *asked == Some(id));
            waiting.asked = known || ask(id);
            if !waiting.asked {
                self.unasked = true;
                return;
            }
            if let Some(slot) = self.asked.get_mut(at) {
                *slot = Some(id);
            }
        }
    }

    /// An SA was installed.
    pub(crate) fn note_installed(&mut self) {
        self.installed = true;
    }

    /// Moves what waits for SAs that are there to the front of what arrived.
    pub(crate) fn release_ready(&mut self, sad: &Sad) {
        if std::mem::take(&mut self.installed) {
            self.release(|missing| missing.is_there(sad));
        }
    }

    /// Moves all that waits to the front of what arrived.
    pub(crate) fn release_all(&mut self) {
        self.unasked = false;
        self.release(|_| true);
    }

    /// From the back to the front, so that both orders stay.
    fn release(&mut self, is_ready: impl Fn(Missing) -> bool) {
        for _ in 0..self.waiting.len() {
            let Some(last) = self.waiting.pop_back() else { return };
            if is_ready(last.missing) {
                self.arrived.push_front(last.frame);
            } else {
                self.waiting.push_front(last);
            }
        }
    }

    /// Ends the waiting for an SA that there is not: tells what its frames waited for, and lets them go.
    pub(crate) fn give_up(&mut self, id: Spi, mut give_up: impl FnMut(Missing)) {
        if let Some(slot) = self.asked.get_mut(asked_slot(id)) {
            *slot = None;
        }
        self.waiting.retain(|waiting| {
            let keeps = waiting.missing.id() != id;
            if !keeps {
                give_up(waiting.missing);
            }
            keeps
        });
    }

    /// Lets frames go that are kept since before `oldest`; returns how many.
    pub(crate) fn expire(&mut self, oldest: Nanos) -> u64 {
        let before = self.len();
        while self.arrived.front().is_some_and(|frame| frame.since < oldest) {
            self.arrived.pop_front();
        }
        while self.waiting.front().is_some_and(|waiting| waiting.frame.since < oldest) {
            self.waiting.pop_front();
        }
        before.saturating_sub(self.len()) as u64
    }

    /// Lets all frames go; returns how many there were.
    pub(crate) fn clear(&mut self) -> u64 {
        let count = self.len() as u64;
        self.arrived.clear();
        self.waiting.clear();
        count
    }

    /// The next frames of one side that arrived, with when the first of them did.
    pub(crate) fn next_burst(&mut self) -> Option<(Side, ArrayVec<B, BURST>)> {
        let side = self.arrived.front()?.side;
        let mut burst = ArrayVec::new();
        while !burst.is_full() && self.arrived.front().is_some_and(|next| next.side == side) {
            burst.extend(self.arrived.pop_front().map(|frame| frame.buf));
        }
        Some((side, burst))
    }
}

/// SPIs are drawn at random but for their low bits, which name the worker.
const fn asked_slot(id: Spi) -> usize {
    (id.get() >> 8) as usize % ASKED_SLOTS
}
