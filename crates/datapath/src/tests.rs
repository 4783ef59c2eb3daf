//! The worker from the outside: frames in, frames out, with real SAs against a peer.

mod bench;
mod drops;
mod events;
mod filling;
mod forwarding;
mod fragments;
mod handover;
mod lease;
mod local;
mod reassembly;
mod targets;
mod tunnel;
mod workers;
