//! The SAs that live on this worker, and what is asked for them.

use crate::command::{Retired, SaInfo, StoppedSa, WorkerEvent};
use crate::counters::Counters;
use crate::events::EventSink;
use crate::outer::Outer;
use crate::rate::{Asking, RateMeter};
use crate::spi_table::{Place, SpiTable};
use holdfast_ipsec::{InboundSa, OutboundSa, SequenceRange, Spi};
use holdfast_packet::Nanos;
use std::mem::{offset_of, size_of};

/// Pairs of SAs one worker keeps: a hundred thousand peers behind a single queue, and some room. An
/// installation beyond it is given back as retired.
pub const SAS_PER_WORKER: usize = 131_072;

/// An inbound SA with the state of its horizon, in one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Inbound {
    pub(crate) sa: Box<InboundSa>,
    pub(crate) refused: u64,
    rate: RateMeter,
    asking: Asking,
    /// The number whose packet shows that half of the way to the horizon is gone, as it was when the
    /// horizon was last set.
    ask_from: u64,
    ambiguity_raised: bool,
    use_raised: bool,
}

impl Inbound {
    fn new(sa: Box<InboundSa>) -> Self {
        Self {
            ask_from: ask_from(&sa),
            sa,
            refused: 0,
            rate: RateMeter::default(),
            asking: Asking::default(),
            ambiguity_raised: false,
            use_raised: false,
        }
    }

    fn extend(&mut self, horizon: u64) {
        self.sa.extend_horizon(horizon);
        self.ask_from = ask_from(&self.sa);
        self.asking.answered();
    }

    /// Grows with every authentic packet that was not here before, and with no other: accepted ones,
    /// and those beyond the horizon that are the highest so far.
    #[inline]
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.sa.packets(), self.sa.highest_authenticated())
    }

    /// After an authentic packet, with the [`progress`](Self::progress) before it: asks for a higher
    /// horizon once half of the way is gone, or at once when the peer's numbers are already beyond it.
    ///
    /// The rate is that of new packets. What is replayed into the ambiguous zone is authentic too, and
    /// counting it would let anybody who once listened raise the horizon by the speed of his replays,
    /// and with it the zone that the peer has to cross after the next takeover.
    #[inline]
    pub(crate) fn note(
        &mut self,
        now: Nanos,
        before: (u64, u64),
        events: &mut EventSink,
        counters: &Counters,
    ) {
        if self.progress() != before {
            self.rate.add(1, now);
        }
        if !self.use_raised && self.sa.packets() > 0 {
            self.use_raised = events.raise(WorkerEvent::InUse { spi: self.sa.spi() }, counters);
        }
        if self.sa.highest_authenticated() >= self.ask_from && self.asking.is_due(now) {
            self.ask(now, events, counters);
        }
    }

    #[cold]
    fn ask(&mut self, now: Nanos, events: &mut EventSink, counters: &Counters) {
        let event = WorkerEvent::HorizonLow {
            spi: self.sa.spi(),
            right_edge: self.sa.highest_authenticated(),
            horizon: self.sa.horizon(),
            rate_pps: self.rate.pps(now),
        };
        if events.raise(event, counters) {
            self.asking.asked(now);
        }
    }

    /// A packet authenticated in the ambiguous zone: says so once.
    pub(crate) fn note_ambiguity(
        &mut self,
        sequence: u64,
        events: &mut EventSink,
        counters: &Counters,
    ) {
        if !self.ambiguity_raised {
            let event = WorkerEvent::Ambiguous { spi: self.sa.spi(), sequence };
            self.ambiguity_raised = events.raise(event, counters);
        }
    }
}

/// Less than half of the way from the highest authentic number to the horizon is left from here on.
fn ask_from(sa: &InboundSa) -> u64 {
    let span = sa.horizon().saturating_sub(sa.highest_authenticated());
    (sa.horizon() - span / 2).saturating_add(1)
}

/// An outbound SA with the state of its range in one cache line, and in another its way to the peer.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Outbound {
    pub(crate) sa: Box<OutboundSa>,
    rate: RateMeter,
    asking: Asking,
    /// Numbers left when the range last grew.
    granted: u64,
    end_raised: bool,
    /// What goes in front of its packets.
    pub(crate) outer: Outer,
}

const _: () = assert!(size_of::<Option<Inbound>>() == 64);
const _: () = assert!(offset_of!(Outbound, outer) == 64);
const _: () = assert!(size_of::<Option<Outbound>>() == 128);

impl Outbound {
    fn new(id: Spi, sa: Box<OutboundSa>) -> Self {
        Self {
            granted: sa.remaining(),
            sa,
            rate: RateMeter::default(),
            asking: Asking::default(),
            end_raised: false,
            outer: Outer::unknown(id),
        }
    }

    /// Reads what sealing a packet will, without waiting for it.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        self.sa.touch() ^ u64::from(self.outer.id().get())
    }

    fn grant(&mut self, range: SequenceRange) {
        self.sa.grant(range);
        self.granted = self.sa.remaining();
        self.asking.answered();
    }

    /// After a packet took a number or found none: asks for more once half is gone.
    pub(crate) fn note(&mut self, now: Nanos, events: &mut EventSink, counters: &Counters) {
        self.rate.add(1, now);
        if self.sa.remaining() <= self.granted / 2 && !self.end_raised && self.asking.is_due(now) {
            self.ask(now, events, counters);
        }
    }

    #[cold]
    fn ask(&mut self, now: Nanos, events: &mut EventSink, counters: &Counters) {
        let remaining = self.sa.remaining();
        let rate_pps = self.rate.pps(now);
        if events
            .raise(WorkerEvent::RangeLow { id: self.outer.id(), remaining, rate_pps }, counters)
        {
            self.asking.asked(now);
        }
    }

    /// The last number of all is used: says so once.
    pub(crate) fn note_end(&mut self, events: &mut EventSink, counters: &Counters) {
        if !self.end_raised {
            self.end_raised =
                events.raise(WorkerEvent::SequenceEnd { id: self.outer.id() }, counters);
        }
    }
}

/// The next places to look at in the two tables.
#[derive(Debug, Clone, Copy, Default)]
struct Cursors {
    inbound: usize,
    outbound: usize,
}

/// The SAs of one worker, inbound by SPI, outbound by the name of their pair.
#[derive(Debug)]
pub(crate) struct Sad {
    inbound: SpiTable<Inbound>,
    outbound: SpiTable<Outbound>,
    /// Where emptying the tables has got to. Meanwhile no SA is found.
    clearing: Option<Cursors>,
}

impl Sad {
    /// For so many pairs, whose SPIs have `worker_bits` low bits in common.
    pub(crate) fn new(pairs: usize, worker_bits: u32) -> Self {
        Self {
            inbound: SpiTable::new(pairs, worker_bits),
            outbound: SpiTable::new(pairs, worker_bits),
            clearing: None,
        }
    }

    /// Where the inbound SA of an SPI is; valid until the next command.
    #[inline]
    pub(crate) fn find_inbound(&self, spi: u32) -> Option<Place> {
        if self.clearing.is_some() { None } else { self.inbound.find(spi) }
    }

    #[inline]
    pub(crate) fn inbound(&self, place: Place) -> Option<&Inbound> {
        self.inbound.at(place)
    }

    #[inline]
    pub(crate) fn inbound_mut(&mut self, place: Place) -> Option<&mut Inbound> {
        self.inbound.at_mut(place)
    }

    /// Where the outbound SA of a pair is; valid until the next command.
    #[inline]
    pub(crate) fn find_outbound(&self, id: Spi) -> Option<Place> {
        if self.clearing.is_some() { None } else { self.outbound.find(id.get()) }
    }

    #[inline]
    pub(crate) fn outbound(&self, place: Place) -> Option<&Outbound> {
        self.outbound.at(place)
    }

    #[inline]
    pub(crate) fn outbound_mut(&mut self, place: Place) -> Option<&mut Outbound> {
        self.outbound.at_mut(place)
    }

    /// Gives back the SA replaced, or the one there is no room for.
    pub(crate) fn install_inbound(&mut self, sa: Box<InboundSa>) -> Option<Retired> {
        let old = self.inbound.insert(sa.spi(), Inbound::new(sa)).unwrap_or_else(Some);
        old.map(|old| Retired::Inbound(old.sa))
    }

    /// Gives back the SA replaced, or the one there is no room for.
    pub(crate) fn install_outbound(&mut self, id: Spi, sa: Box<OutboundSa>) -> Option<Retired> {
        let old = self.outbound.insert(id, Outbound::new(id, sa)).unwrap_or_else(Some);
        old.map(|old| Retired::Outbound(old.sa))
    }

    pub(crate) fn remove_inbound(&mut self, spi: Spi) -> Option<Retired> {
        self.inbound.remove(spi).map(|old| Retired::Inbound(old.sa))
    }

    pub(crate) fn remove_outbound(&mut self, id: Spi) -> Option<Retired> {
        self.outbound.remove(id).map(|old| Retired::Outbound(old.sa))
    }

    pub(crate) fn grant(&mut self, id: Spi, range: SequenceRange) {
        if let Some(outbound) = self.outbound.get_mut(id) {
            outbound.grant(range);
        }
    }

    pub(crate) fn extend_horizon(&mut self, spi: Spi, horizon: u64) {
        if let Some(inbound) = self.inbound.get_mut(spi) {
            inbound.extend(horizon);
        }
    }

    /// Hides all SAs at once; [`Sad::clear_step`] then gives them back one by one.
    pub(crate) fn begin_clear(&mut self) {
        self.clearing = Some(Cursors::default());
    }

    pub(crate) fn is_clearing(&self) -> bool {
        self.clearing.is_some()
    }

    /// One SA out; `None` when the tables are empty, and then they serve again.
    pub(crate) fn clear_step(&mut self) -> Option<Retired> {
        let cursors = self.clearing.as_mut()?;
        if let Some(old) = self.inbound.pop_from(&mut cursors.inbound) {
            return Some(Retired::Inbound(old.sa));
        }
        if let Some(old) = self.outbound.pop_from(&mut cursors.outbound) {
            return Some(Retired::Outbound(old.sa));
        }
        self.clearing = None;
        None
    }

    /// The pairs in `count` places from place `first` on that had packets, and where to go on; `None`
    /// at the end.
    pub(crate) fn stopped(&self, first: usize, count: usize) -> (Vec<StoppedSa>, Option<usize>) {
        let next = first.saturating_add(count);
        let mut stopped = Vec::new();
        for (id, inbound, outbound) in (first..next).flat_map(|slot| self.pairs_at(slot)) {
            let used = inbound.is_some_and(|inbound| inbound.sa.packets() > 0)
                || outbound.is_some_and(|outbound| outbound.sa.packets() > 0);
            if used {
                stopped.push(StoppedSa {
                    id,
                    outbound_next: outbound.map(|outbound| outbound.sa.range().next()),
                    edge: inbound.map(|inbound| inbound.sa.replay_edge()),
                });
            }
        }
        // Both tables have equally many places.
        (stopped, Some(next).filter(|next| *next < self.inbound.places()))
    }

    /// The pair in a place of the inbound table, and the one in the same place of the outbound table
    /// when that has no inbound SA.
    fn pairs_at(
        &self,
        slot: usize,
    ) -> impl Iterator<Item = (Spi, Option<&Inbound>, Option<&Outbound>)> {
        let whole = self.inbound.entry(slot);
        let alone = self.outbound.entry(slot).filter(|(id, _)| self.inbound.get(*id).is_none());
        let whole = whole.map(|(id, inbound)| (id, Some(inbound), self.outbound.get(id)));
        whole.into_iter().chain(alone.map(|(id, outbound)| (id, None, Some(outbound))))
    }

    /// Up to `limit` pairs.
    pub(crate) fn list(&self, limit: usize) -> Vec<SaInfo> {
        self.inbound
            .iter()
            .take(limit)
            .map(|(id, inbound)| {
                let outbound = self.outbound.get(id).map(|outbound| &outbound.sa);
                SaInfo {
                    id,
                    inbound_packets: inbound.sa.packets(),
                    inbound_bytes: inbound.sa.bytes(),
                    inbound_refused: inbound.refused,
                    right_edge: inbound.sa.right_edge(),
                    horizon: inbound.sa.horizon(),
                    outbound_packets: outbound.map_or(0, |sa| sa.packets()),
                    outbound_bytes: outbound.map_or(0, |sa| sa.bytes()),
                    outbound_remaining: outbound.map_or(0, |sa| sa.remaining()),
                }
            })
            .collect()
    }
}
