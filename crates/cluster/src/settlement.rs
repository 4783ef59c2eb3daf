//! Settling: an owner that stops on purpose says how far it used what it was granted.
//!
//! A successor of an owner that died must take everything granted for used: it starts behind the
//! range, and refuses what lies below the horizon. An owner that hands over knows better. It has its
//! workers stop, collects where each of them stopped, and has that committed:
//!
//! ```text
//!   owner        workers stop | Settle, Settle, ... Settle(last)  |
//!   records                   | grants are refused from here on   | complete
//!   next owner                                                    | TakeOwnership: exact numbers
//! ```
//!
//! # Why law 2 holds
//!
//! *No number is sent with twice.* A worker is one thread. It reports the next number of an SA only
//! after it has stopped sealing, and the owner puts reports into entries only when every worker has
//! made its last one. So when `Settle` is applied no number at or above the reported one was used.
//! None will be: a worker that stopped takes up sealing only when its member gives it SAs anew, and
//! a member does that only for an ownership of its own, whose numbers come out of a `TakeOwnership`
//! behind this entry; or when the settling was given up before any of it was proposed. Grants of
//! the settled owner that are behind `Settle` in the log are refused, those before it end below
//! `outbound_high`, which never moves down. Should some of it be in the log and the rest not, the
//! settlement is not complete and the takeover is one as after a crash.
//!
//! *No packet is accepted twice.* The same for opening: what the reported window says was not
//! accepted was not, and is not by this owner any more. So the next owner may accept exactly that.
//!
//! That holds for whoever takes over next, also for one nobody thought of, and for the settled
//! owner itself in a later term.

use crate::effect::{Effect, Refusal};
use crate::records::ChildRecord;
use crate::state::State;
use crate::{Owner, limits, numbers};
use holdfast_ipsec::{ReplayEdge, Spi};

/// Where the worker of one Child SA stopped. A Child SA without any packet since its owner began
/// needs none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettleItem {
    /// The Child SA, by its inbound SPI.
    pub spi: Spi,
    /// The lowest outbound number that was not used.
    pub outbound_next: u64,
    /// What was accepted inbound.
    pub edge: ReplayEdge,
}

/// How far a Child SA was used when its owner stopped; kept until the next takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) outbound_next: u64,
    pub(crate) edge: ReplayEdge,
}

/// Whether the present owner has stopped and said where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Settlement {
    /// It works.
    #[default]
    Open,
    /// It has stopped and some of its items are here.
    Begun,
    /// All its items are here: the next takeover is exact.
    Complete,
    /// An item contradicts the records: the next takeover is one as after a crash.
    Void,
}

impl State {
    /// Whether the present owner has stopped and said where.
    #[must_use]
    pub fn settlement(&self) -> Settlement {
        self.settlement
    }

    pub(crate) fn settle(
        &mut self,
        owner: Owner,
        items: &[SettleItem],
        last: bool,
    ) -> Result<Vec<Effect>, Refusal> {
        if items.len() > limits::SETTLE_ITEMS_MAX {
            return Err(Refusal::TooLarge("the list of settled SAs"));
        }
        if self.settlement == Settlement::Complete {
            return Err(Refusal::Settled(owner));
        }
        let fitting = items.iter().all(|item| self.settle_child(item));
        self.settlement = match self.settlement {
            Settlement::Open | Settlement::Begun if !fitting => Settlement::Void,
            Settlement::Open | Settlement::Begun if last => Settlement::Complete,
            Settlement::Open => Settlement::Begun,
            other => other,
        };
        Ok(if last { vec![Effect::Settled(self.settlement)] } else { Vec::new() })
    }

    /// False when an item cannot be true. A Child SA that is gone needs no numbers.
    fn settle_child(&mut self, item: &SettleItem) -> bool {
        let fits = self.update_child(item.spi, |child| {
            let fits = child.can_have_stopped_at(item);
            if fits {
                let (outbound_next, edge) = (item.outbound_next, item.edge.clone());
                child.settled = Some(Box::new(Settled { outbound_next, edge }));
            }
            fits
        });
        fits.unwrap_or(true)
    }
}

impl ChildRecord {
    fn can_have_stopped_at(&self, item: &SettleItem) -> bool {
        let edge = &item.edge;
        (self.outbound_start..=self.outbound_high).contains(&item.outbound_next)
            && (self.edge.right_edge..=self.horizon).contains(&edge.right_edge)
            && edge.is_well_formed()
            && edge.unseen.first().is_none_or(|(first, _)| *first > self.floor)
    }

    /// Gives a new owner the numbers the one before it left, exactly.
    ///
    /// What was granted and not used is granted anew, and enough on top to begin with. Numbers that
    /// were ambiguous stay so: that is about a takeover before.
    pub(crate) fn carry_on(&mut self) {
        let esn = self.parameters.esn;
        if let Some(settled) = self.settled.take() {
            self.outbound_start = settled.outbound_next;
            self.edge = settled.edge;
        }
        let high = numbers::begin_outbound(self.outbound_start, esn);
        self.outbound_high = self.outbound_high.max(high);
        let horizon = numbers::begin_horizon(self.edge.right_edge, esn);
        self.horizon = self.horizon.max(horizon);
    }
}
