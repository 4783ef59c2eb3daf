//! A whole cluster in virtual time: members, workers, disks, networks, a peer, targets.
//!
//! What it is: the ground of the tests of this crate and of the simulator. It runs the very
//! [`Member`](crate::Member) and [`Worker`](holdfast_datapath::Worker) the daemon runs; around them
//! everything is made up, and everything that can go wrong is a verb of [`World`].
//! What it is not: fast, or a model of any real network's timing.
//!
//! ```text
//!                          management network (delay, loss, partitions)
//!                   .----------------+-----------------+------------------.
//!               +---+----+       +---+----+        +---+----+
//!               | Node 1 |       | Node 2 |        | Node 3 |     Member + Workers + Disk
//!               +-+----+-+       +-+----+-+        +-+----+-+
//!   outside Lan ==+====|==========+=====|===========+=====|====== Peer (IKE, ESP)
//!   inside Lan  =======+================+=================+====== Targets
//!
//!   World::step(): the next event (message, frame, write, deadline) -> the nodes it touches
//!                  -> Checks: laws 1 and 2, replays
//! ```
//!
//! Deterministic: a [`World`] is a function of its [`Setup`], whose seed every test prints.

mod checks;
mod clock;
mod disk;
mod hazards;
mod host;
mod lan;
mod node;
mod peer;
mod random;
mod weather;
mod world;

pub use checks::{Checks, Violation};
pub use clock::Clock;
pub use disk::Disk;
pub use hazards::DiskHealth;
pub use host::Target;
pub use lan::{Attachment, Lan};
pub use node::{Life, Node};
pub use peer::Peer;
pub use random::Random;
pub use weather::{Network, Weather};
pub use world::{PEERS_MAX, Setup, World};
