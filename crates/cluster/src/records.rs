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

use crate::command::{Direction, GrantItem};
use crate::digest::{Digest, Mixer, sha256_words};
use crate::effect::{Effect, Refusal};
use crate::settlement::Settled;
use crate::{IkeSpi, Mutation, Owner, codec, limits, mutated, numbers};
use holdfast_crypto::SecretBytes;
use holdfast_ipsec::{ChildSaParameters, ReplayEdge, SequenceRange, Spi};
use std::fmt;
use std::sync::Arc;

/// What a successor needs to carry on with one IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeRecord {
    /// The connection it was made for.
    pub connection: Arc<str>,
    /// The whole IKE SA as exported by `ike`; opaque here, zeroized when the last copy of the
    /// record is dropped.
    pub state: Arc<SecretBytes>,
    /// Under whom it stands.
    pub standing: Standing,
    /// The digest of connection and state.
    fixed: u64,
}

impl IkeRecord {
    pub(crate) fn new(connection: &str, state: SecretBytes, standing: Standing) -> Self {
        let fixed = sha256_words(&[connection.as_bytes(), state.as_bytes()]);
        Self { connection: connection.into(), state: Arc::new(state), standing, fixed }
    }
}

impl Digest<IkeSpi> for IkeRecord {
    fn digest(&self, name: IkeSpi) -> u64 {
        self.standing.mix(Mixer::new(name.0).word(self.fixed)).end()
    }
}

/// What a successor needs to carry on with one Child SA (both directions), and its relation to its
/// IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRecord {
    /// Keys, SPIs, selectors, addresses: what never changes, shared by all copies of the record.
    pub parameters: Arc<ChildSaParameters>,
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
    /// The digest of the parameters.
    pub(crate) fixed: u64,
}

impl Digest<Spi> for ChildRecord {
    fn digest(&self, name: Spi) -> u64 {
        let numbers = Mixer::new(u64::from(name.get()))
            .word(self.fixed)
            .word(self.ike.0)
            .word(self.outbound_start)
            .word(self.outbound_high)
            .word(self.floor)
            .word(self.horizon)
            .word(self.replaces.map_or(0, |spi| u64::from(spi.get())));
        let mixer = mix_edge(numbers, &self.edge);
        let mixer = match self.settled.as_deref() {
            None => mixer,
            Some(settled) => mix_edge(mixer.word(settled.outbound_next), &settled.edge),
        };
        self.standing.mix(mixer).end()
    }
}

fn mix_edge(mixer: Mixer, edge: &ReplayEdge) -> Mixer {
    let runs =
        edge.unseen.iter().fold(mixer, |mixer, (first, last)| mixer.word(*first).word(*last));
    runs.word(edge.right_edge).word(edge.unseen.len() as u64)
}

/// The digest of what never changes in a Child SA.
pub(crate) fn fixed_digest(parameters: &ChildSaParameters) -> u64 {
    sha256_words(&[&codec::encode_parameters(parameters)])
}

impl ChildRecord {
    pub(crate) fn new(
        ike: IkeSpi,
        parameters: Arc<ChildSaParameters>,
        replaces: Option<Spi>,
        standing: Standing,
    ) -> Self {
        let esn = parameters.esn;
        let fixed = fixed_digest(&parameters);
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
            fixed,
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

    /// Moves the range or the horizon up, if the numbers are not used up.
    pub(crate) fn grant(&mut self, item: GrantItem) -> Result<Effect, Refusal> {
        let GrantItem { spi, direction, packets } = item;
        let esn = self.parameters.esn;
        let exhausted = Refusal::SequenceSpaceExhausted { spi, direction };
        match direction {
            Direction::Outbound => {
                let start = self.outbound_high;
                let end = numbers::extend_outbound(start, u64::from(packets), esn);
                if end == start {
                    return Err(exhausted);
                }
                self.outbound_high = end;
                Ok(Effect::Granted { spi, range: SequenceRange::new(start, end) })
            }
            Direction::Inbound => {
                let horizon = numbers::extend_horizon(self.horizon, u64::from(packets), esn);
                if horizon == self.horizon {
                    return Err(exhausted);
                }
                self.horizon = horizon;
                Ok(Effect::HorizonMoved { spi, horizon })
            }
        }
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

    fn mix(&self, mixer: Mixer) -> Mixer {
        let Owner { member, incarnation, epoch } = self.owner;
        let mixer = mixer.word(member.0).word(incarnation.0).word(epoch.0);
        match self.hold.as_deref() {
            None => mixer,
            Some(Hold { kind, reason, keep_ms }) => {
                let failed = *kind == HoldKind::Failed;
                mixer.word(*keep_ms).word(u64::from(failed)).bytes(reason.as_bytes())
            }
        }
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
