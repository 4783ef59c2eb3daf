//! Laws broken on purpose, to show that the simulator's checks notice.
//!
//! A hook in product code is one expression, `mutated(Mutation::...)`. Without the feature `testing`
//! it is the constant `false`, so that nothing of it is in what is shipped (`tests/floors.rs` sees
//! to it that the product is built without the feature). With it, a simulated cluster switches a
//! mutation on for the thread it runs on.

/// A law, or a rule a law rests on, that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// The leader takes itself a lease without counting promises.
    LeaseIgnored,
    /// A follower votes although it promised its vote.
    PromiseIgnored,
    /// A member that starts votes at once.
    QuarantineSkipped,
    /// A leader keeps its lease when it asks a successor to campaign.
    LeaseKeptOnTransfer,
    /// A write counts as stored before it is.
    PersistedEarly,
    /// Member 2 leaves some entries out.
    EntrySkipped,
    /// A member that was the owner before its restart takes its own old numbers up.
    IncarnationForgotten,
    /// A takeover hands out the predecessor's outbound numbers again.
    RangeReused,
    /// A takeover leaves the floor where it was, so that the successor accepts what is ambiguous.
    FloorNotMoved,
    /// A worker gets outbound numbers when they are asked for, not when they are committed.
    RangeNotCommitted,
    /// A worker accepts inbound numbers above the horizon.
    HorizonIgnored,
    /// An IKE message leaves before the change it rests on is committed.
    SentBeforeCommit,
    /// A tunnel lets every inner address pass.
    SelectorsIgnored,
    /// A new owner does not say where the addresses are.
    NotAnnounced,
    /// Nobody asks for numbers when they run low.
    GrantsForgotten,
    /// A worker takes every lease for valid (`holdfast_datapath`).
    LeaseUnheeded,
    /// A worker sends what it should have encrypted as it is (`holdfast_datapath`).
    SealSkipped,
    /// IKE is given more to do, however much of what it wants recorded waits.
    QueueUnbounded,
    /// A member whose workers do not have all SAs yet hands over.
    OfferedWhileFilling,
}

impl Mutation {
    /// All of them.
    #[cfg(any(test, feature = "testing"))]
    pub const ALL: [Self; 19] = [
        Self::LeaseIgnored,
        Self::PromiseIgnored,
        Self::QuarantineSkipped,
        Self::LeaseKeptOnTransfer,
        Self::PersistedEarly,
        Self::EntrySkipped,
        Self::IncarnationForgotten,
        Self::RangeReused,
        Self::FloorNotMoved,
        Self::RangeNotCommitted,
        Self::HorizonIgnored,
        Self::SentBeforeCommit,
        Self::SelectorsIgnored,
        Self::NotAnnounced,
        Self::GrantsForgotten,
        Self::LeaseUnheeded,
        Self::SealSkipped,
        Self::QueueUnbounded,
        Self::OfferedWhileFilling,
    ];
}

/// Whether `mutation` is switched on here.
#[inline]
#[must_use]
pub fn mutated(mutation: Mutation) -> bool {
    #[cfg(any(test, feature = "testing"))]
    {
        active::MUTATION.get() == Some(mutation)
    }
    #[cfg(not(any(test, feature = "testing")))]
    {
        let _ = mutation;
        false
    }
}

/// A bound where simulated clusters run on small ones, so that they meet the ends of their ranges and
/// queues within seconds; the `usual` one where they do not, and in the product.
#[inline]
#[must_use]
pub fn small<T>(usual: T, small: T) -> T {
    #[cfg(any(test, feature = "testing"))]
    {
        if active::SMALL.get() { small } else { usual }
    }
    #[cfg(not(any(test, feature = "testing")))]
    {
        let _ = small;
        usual
    }
}

/// From now on, what runs on this thread breaks `mutation` and, with `small`, grants few numbers at
/// a time.
#[cfg(any(test, feature = "testing"))]
pub fn set_mutation(mutation: Option<Mutation>, small: bool) {
    active::MUTATION.set(mutation);
    active::SMALL.set(small);
}

#[cfg(any(test, feature = "testing"))]
mod active {
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        pub(super) static MUTATION: Cell<Option<Mutation>> = const { Cell::new(None) };
        pub(super) static SMALL: Cell<bool> = const { Cell::new(false) };
    }
}
