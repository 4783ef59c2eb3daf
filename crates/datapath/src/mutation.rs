//! Rules of a worker broken on purpose, to show that the simulator's checks notice; the like of
//! `holdfast_cluster::Mutation`, which this floor cannot see. Without the feature `testing`
//! [`mutated`] is the constant `false`.

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A worker takes every lease for valid.
    LeaseUnheeded,
    /// A worker sends what it should have encrypted as it is.
    SealSkipped,
}

/// Whether `mutation` is switched on for this thread.
#[inline]
pub(crate) fn mutated(mutation: Mutation) -> bool {
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

/// From now on, workers on this thread break `mutation`.
#[cfg(any(test, feature = "testing"))]
pub fn set_mutation(mutation: Option<Mutation>) {
    active::MUTATION.set(mutation);
}

#[cfg(any(test, feature = "testing"))]
mod active {
    use super::Mutation;
    use std::cell::Cell;

    thread_local! {
        pub(super) static MUTATION: Cell<Option<Mutation>> = const { Cell::new(None) };
    }
}
