//! A cluster in one process and in virtual time: replicas, their disks, the network between them.
//!
//! For tests of this crate and, with the feature `testing`, of the floors above. Everything
//! follows from one seed. After every step it checks what must always hold and panics with the
//! seed if it does not: at most one valid lease, equal states at equal indices.

// A test harness reports by panicking.
#![allow(clippy::panic, clippy::expect_used, reason = "a test harness reports by panicking")]

mod conditions;
mod connections;
mod disk;
mod machines;
mod network;
mod prng;

pub use conditions::Conditions;
pub use connections::ConnectionConditions;
pub use disk::Disk;
pub use network::{Network, WAL_KEY};
pub use prng::Prng;
