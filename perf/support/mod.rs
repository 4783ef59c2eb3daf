//! What the benches of the data plane have in common: the packets, the worker they go through, the
//! clock, and how figures are written down.

pub(crate) mod clock;
pub(crate) mod frames;
pub(crate) mod readme;
pub(crate) mod setup;
