//! The deterministic simulator: whole clusters in virtual time, with everything going wrong.
//!
//! What it is: from one `u64` seed, a cluster (the daemon's own `Member` and `Worker`, in the world
//! of `holdfast_member::testing`), its surroundings and a list of faults; a run of it; and the
//! verdict of the checkers. Development only: no product depends on it.
//! What it is not: fast or slow like any real machine. Its milliseconds are virtual: they tell what
//! the rules cost (detection, agreement, round trips), not what a processor adds.
//!
//! ```text
//!   seed --> Plan { cluster, faults } --> run: connect -> safety -> heal -> liveness --> Outcome
//!                     |                            faults at will            |
//!                     '-- keep(numbers) <-- shrink <------- fails? ----------'
//! ```
//!
//! # What is checked
//!
//! After every step: at most one member holds a lease, and nobody else sends from the common or
//! inside address or passes a packet on; no (SA, sequence number) is sealed twice; no inner packet
//! is passed on twice; nothing but ESP, IKE and ARP leaves outside, and no clear text in it; inside
//! only what the tunnel's selectors allow; a repeated IKE message is the identical one. Every few
//! hundred steps and at the end: equal applied index, equal state, also over time; the owner knows
//! every Child SA of which its peer was told, until it is deleted; queues keep their bounds. At the
//! end: every peer has a tunnel that carries traffic in both directions within
//! [`LIVENESS_MS`] of the healing.
//!
//! # The virtual outage
//!
//! From the kill of the owner to the first answer a peer receives to a request it sent after the
//! kill, in clusters with `default` timing in which nothing else was wrong for
//! [`QUIET_MS`] before and nothing else went wrong until that answer. Its resolution
//! is the time between two requests of a peer, 2 to 16 ms.
//!
//! # Contract
//!
//! * A run is a function of its [`Plan`], and a plan of its seed: two runs give the same
//!   [`Outcome::trace_hash`].
//! * Clocks drift within what the lease allows for, and jump forward only where it allows for it;
//!   what the README excludes (a lost disk, a clock that runs wild) is not simulated.
#![forbid(unsafe_code)]

pub use holdfast_cluster::Mutation;

mod campaign;
mod plan;
mod run;
mod shrink;

pub use campaign::{Campaign, Report, campaign};
pub use plan::{Action, Fault, Plan};
pub use run::{LIVENESS_MS, Outcome, QUIET_MS, run};
pub use shrink::shrink;
