//! Feature levels: how members of several releases share one log.
//!
//! A log entry is read by every member, and a record that a member does not understand in full it
//! would lose when it writes its next snapshot. So nothing is written that a member might not
//! know: each release has a [`LEVEL`], members tell it each other in their heartbeats, and the
//! leader raises the level of the *cluster* (an entry of the log) once every member has shown it.
//! Commands, fields and messages of a level are written only from then on, and the level never
//! goes down. Upgrading is replacing the program on one member after the other.
//!
//! A member below the cluster's level all the same (it was downgraded) reads neither the entry that
//! raised it nor a snapshot behind that: it does not start, or halts, with the reason; it disturbs
//! nobody, and nobody waits for it.

/// What this release can read and write.
pub const LEVEL: u32 = ALGORITHMS;

/// What there was before levels were told: every command but those about members. Nothing has been
/// released yet, so whoever adds a command gives it the level of its release (`Command::level`).
pub const FIRST: u32 = 1;

/// An owner that hands over settles: [`crate::settlement`].
pub const SETTLEMENT: u32 = 2;

/// Members are added, removed and replaced through the log.
pub const MEMBERSHIP: u32 = 2;

/// Child SAs with other algorithms than AES-GCM with 128 or 256 bits.
pub const ALGORITHMS: u32 = 3;
