//! The SAs that live on this worker, and what is asked for them.

use crate::command::{Retired, SaInfo, StoppedSa, WorkerEvent};
use crate::counters::Counters;
use crate::events::EventSink;
use crate::rate::{Asking, RateMeter};
use crate::spi_table::SpiTable;
use holdfast_ipsec::{InboundSa, OutboundSa, SequenceRange, Spi};
use holdfast_packet::Nanos;

/// Pairs of SAs one worker keeps: a hundred thousand peers behind a single queue, and some room. An
/// installation beyond it is given back as retired.
pub const SAS_PER_WORKER: usize = 131_072;

/// An inbound SA with the state of its horizon.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) sa: Box<InboundSa>,
    pub(crate) refused: u64,
    rate: RateMeter,
    asking: Asking,
    /// Numbers between the highest authentic one and the horizon when the horizon was last set.
    span: u64,
    ambiguity_raised: bool,
    use_raised: bool,
}

impl Inbound {
    fn new(sa: Box<InboundSa>) -> Self {
        Self {
            span: headroom(&sa),
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
        self.span = headroom(&self.sa);
        self.asking.answered();
    }

    /// After an authentic packet: asks for a higher horizon once half of the way is gone, or at
    /// once when the peer's numbers are already beyond it.
    pub(crate) fn note(&mut self, now: Nanos, events: &mut EventSink, counters: &Counters) {
        self.rate.add(1, now);
        if !self.use_raised && self.sa.packets() > 0 {
            self.use_raised = events.raise(WorkerEvent::InUse { spi: self.sa.spi() }, counters);
        }
        let is_beyond = self.sa.highest_authenticated() > self.sa.horizon();
        let is_low = is_beyond || headroom(&self.sa) < self.span / 2;
        if !is_low || !self.asking.is_due(now) {
            return;
        }
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

fn headroom(sa: &InboundSa) -> u64 {
    sa.horizon().saturating_sub(sa.highest_authenticated())
}

/// An outbound SA with the state of its range.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) sa: Box<OutboundSa>,
    id: Spi,
    rate: RateMeter,
    asking: Asking,
    /// Numbers left when the range last grew.
    granted: u64,
    end_raised: bool,
}

impl Outbound {
    fn new(id: Spi, sa: Box<OutboundSa>) -> Self {
        Self {
            granted: sa.remaining(),
            sa,
            id,
            rate: RateMeter::default(),
            asking: Asking::default(),
            end_raised: false,
        }
    }

    fn grant(&mut self, range: SequenceRange) {
        self.sa.grant(range);
        self.granted = self.sa.remaining();
        self.asking.answered();
    }

    /// After a packet took a number or found none: asks for more once half is gone.
    pub(crate) fn note(&mut self, now: Nanos, events: &mut EventSink, counters: &Counters) {
        self.rate.add(1, now);
        let remaining = self.sa.remaining();
        if self.end_raised || remaining > self.granted / 2 || !self.asking.is_due(now) {
            return;
        }
        let rate_pps = self.rate.pps(now);
        if events.raise(WorkerEvent::RangeLow { id: self.id, remaining, rate_pps }, counters) {
            self.asking.asked(now);
        }
    }

    /// The last number of all is used: says so once.
    pub(crate) fn note_end(&mut self, events: &mut EventSink, counters: &Counters) {
        if !self.end_raised {
            self.end_raised = events.raise(WorkerEvent::SequenceEnd { id: self.id }, counters);
        }
    }
}

/// The next slots to look at in the two tables.
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
    pub(crate) fn new(pairs: usize) -> Self {
        Self { inbound: SpiTable::new(pairs), outbound: SpiTable::new(pairs), clearing: None }
    }

    pub(crate) fn inbound(&self, spi: Spi) -> Option<&Inbound> {
        self.inbound.get(spi).filter(|_| self.clearing.is_none())
    }

    pub(crate) fn inbound_mut(&mut self, spi: Spi) -> Option<&mut Inbound> {
        self.inbound.get_mut(spi).filter(|_| self.clearing.is_none())
    }

    pub(crate) fn outbound(&self, id: Spi) -> Option<&Outbound> {
        self.outbound.get(id).filter(|_| self.clearing.is_none())
    }

    pub(crate) fn outbound_mut(&mut self, id: Spi) -> Option<&mut Outbound> {
        self.outbound.get_mut(id).filter(|_| self.clearing.is_none())
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

    /// The pairs in `count` slots from slot `first` on that had packets, and where to go on; `None`
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
        // Both tables have equally many slots.
        (stopped, Some(next).filter(|next| *next < self.inbound.slots()))
    }

    /// The pair in a slot of the inbound table, and the one in the same slot of the outbound table
    /// when that has no inbound SA.
    fn pairs_at(
        &self,
        slot: usize,
    ) -> impl Iterator<Item = (Spi, Option<&Inbound>, Option<&Outbound>)> {
        let whole = self.inbound.at(slot);
        let alone = self.outbound.at(slot).filter(|(id, _)| self.inbound.get(*id).is_none());
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
