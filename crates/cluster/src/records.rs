//! The records of the common store: what a successor needs, and under whom each of them stands.
//!
//! ```text
//!   owner, epoch n                              owner, epoch n + 1
//!   PutIkeSa, PutChildSa --> record under n  --TakeOwnership--> still under n: *inherited*
//!                                                    | read, established
//!                                                    v
//!                            CarryOn: record under n + 1 put, under n cleared, in one entry
//! ```
//!
//! So a copy of each record is in the store at all times, and once everything is carried on none
//! of an earlier ownership is left. A record that could not be carried on is put under the new
//! owner too, with a [`Hold`] that says why and for how long it is kept.

use crate::settlement::Settled;
use crate::{IkeSpi, Mutation, Owner, limits, mutated, numbers};
use holdfast_crypto::SecretBytes;
use holdfast_ipsec::{ChildSaParameters, ReplayEdge, SequenceRange, Spi};
use std::fmt;

/// What a successor needs to carry on with one IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeRecord {
    /// The connection it was made for.
    pub connection: String,
    /// The whole IKE SA as exported by `ike`; opaque here, zeroized on drop.
    pub state: SecretBytes,
    /// Under whom it stands.
    pub standing: Standing,
}

/// What a successor needs to carry on with one Child SA (both directions), and its relation to its
/// IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRecord {
    /// Keys, SPIs, selectors, addresses.
    pub parameters: ChildSaParameters,
    /// The IKE SA it belongs to.
    pub ike: IkeSpi,
    /// The first outbound number granted to the present owner.
    pub outbound_start: u64,
    /// The end (exclusive) of all outbound numbers ever granted; never moves down.
    pub outbound_high: u64,
    /// Inbound numbers at or below may have been accepted by an earlier owner: refused.
    pub floor: u64,
    /// The highest inbound number the present owner may accept.
    pub horizon: u64,
    /// What earlier owners accepted above the floor, exactly; the present one begins with this.
    pub edge: ReplayEdge,
    /// Where the present owner stopped, once it has.
    pub(crate) settled: Option<Box<Settled>>,
    /// The Child SA it takes the place of, when the peer rekeyed that one: see
    /// [`crate::State::is_known_to_peer`].
    pub replaces: Option<Spi>,
    /// Under whom the Child SA and its relation stand. The numbers do not wait for it: they are
    /// the present owner's from the entry of its takeover on.
    pub standing: Standing,
}

impl ChildRecord {
    pub(crate) fn new(
        ike: IkeSpi,
        parameters: ChildSaParameters,
        replaces: Option<Spi>,
        standing: Standing,
    ) -> Self {
        let esn = parameters.esn;
        // RFC 4303 section 2.2: the first packet of an SA carries number 1.
        let first = 1;
        Self {
            parameters,
            ike,
            outbound_start: first,
            outbound_high: numbers::begin_outbound(first, esn),
            floor: 0,
            horizon: numbers::begin_horizon(0, esn),
            edge: ReplayEdge::at(0),
            settled: None,
            replaces,
            standing,
        }
    }

    /// Gives a new owner numbers that no earlier owner can have used or accepted.
    pub(crate) fn take_over(&mut self) {
        let esn = self.parameters.esn;
        if !mutated(Mutation::RangeReused) {
            self.outbound_start = self.outbound_high;
        }
        self.outbound_high = numbers::begin_outbound(self.outbound_high, esn);
        if !mutated(Mutation::FloorNotMoved) {
            self.floor = self.horizon;
        }
        self.edge = ReplayEdge::at(self.floor);
        self.settled = None;
        self.horizon = numbers::begin_horizon(self.horizon, esn);
    }

    /// All outbound numbers granted to the present owner, used or not.
    ///
    /// Only the process that took the ownership knows which of them it used; nobody else may
    /// use any of them.
    #[must_use]
    pub fn outbound(&self) -> SequenceRange {
        SequenceRange::new(self.outbound_start, self.outbound_high)
    }
}

/// Under whom a record stands, and whether anything keeps its SA from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The ownership that recorded it or carried it on last.
    pub owner: Owner,
    /// Why the SA does not run; `None` when it does.
    pub hold: Option<Box<Hold>>,
}

impl Standing {
    /// Recorded by `owner`, which runs the SA.
    #[must_use]
    pub const fn under(owner: Owner) -> Self {
        Self { owner, hold: None }
    }
}

/// Why an SA does not run although its record is kept, and for how long it is kept so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Whether the owner still tries.
    pub kind: HoldKind,
    /// Why, for people; at most [`limits::HOLD_REASON_BYTES_MAX`].
    pub reason: String,
    /// How long the owner keeps the record from this entry on before it deletes it, in
    /// milliseconds of the owner's clock. A successor counts anew from its takeover: the records
    /// know no clock.
    pub keep_ms: u64,
}

/// Whether an owner still tries to have an SA run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldKind {
    /// It is being re-established.
    Pending,
    /// It could not be carried on nor re-established.
    Failed,
}

/// How a record stands, seen by whoever wants to take over or look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness<'a> {
    /// Recorded or carried on by the present owner.
    Ready,
    /// Recorded by an earlier owner; the present one has it and has not carried it on yet.
    Inherited,
    /// Kept although the SA does not run.
    Held(&'a Hold),
}

impl Readiness<'_> {
    /// One word for lists and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Inherited => "inherited",
            Self::Held(Hold { kind: HoldKind::Pending, .. }) => "pending",
            Self::Held(Hold { kind: HoldKind::Failed, .. }) => "failed",
        }
    }
}

/// The name of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordName {
    /// Of an IKE SA, by its local SPI.
    Ike(IkeSpi),
    /// Of a Child SA and its relation, by its inbound SPI.
    Child(Spi),
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ike(spi) => write!(f, "IKE SA {spi}"),
            Self::Child(spi) => write!(f, "Child SA {spi}"),
        }
    }
}

impl Hold {
    /// A hold of `kind`; a longer reason is cut.
    #[must_use]
    pub fn new(kind: HoldKind, reason: &str, keep_ms: u64) -> Self {
        let mut end = reason.len().min(limits::HOLD_REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        Self { kind, reason: reason.get(..end).unwrap_or_default().to_owned(), keep_ms }
    }
}
