//! The other end, for tests: a client that initiates, and a [`Pair`] of both ends over a bad network
//! in virtual time. Built from the same codec and the same machine, so it proves flows and recovery,
//! not the format; against other implementations there is `examples/responder.rs`.

mod client;
mod pair;

pub use client::{Client, ClientConfig};
pub use pair::{Committed, Network, Pair};
