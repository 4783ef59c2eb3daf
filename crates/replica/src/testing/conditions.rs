//! What the world around the members is like.

use super::ConnectionConditions;
use crate::{Compaction, Timing};
use holdfast_cluster::MemberId;
use std::collections::BTreeSet;

/// What the world around the members is like. Times in microseconds of true time.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The members' timing.
    pub timing: Timing,
    /// When the members cut their logs.
    pub compaction: Compaction,
    /// Shortest and longest way of a message.
    pub delay_us: (u64, u64),
    /// Messages lost of a thousand.
    pub loss_per_mille: u64,
    /// Shortest and longest write with sync.
    pub sync_us: (u64, u64),
    /// How much faster or slower a clock may run, in parts per million.
    pub drift_ppm: u64,
    /// Whether the sender learns that a snapshot got lost, as it does when a connection breaks.
    pub reports_lost_snapshots: bool,
    /// Whether a new leader proposes to take the ownership, as the member above does.
    pub take_ownership: bool,
    /// The members that vote and never own.
    pub witnesses: BTreeSet<MemberId>,
    /// What the connections are like; `None` where each message goes by itself.
    pub connections: Option<ConnectionConditions>,
}

impl Default for Conditions {
    /// A quiet LAN and a good SSD, with ordinary oscillators.
    fn default() -> Self {
        Self {
            timing: Timing::DEFAULT,
            compaction: Compaction::default(),
            delay_us: (50, 150),
            loss_per_mille: 0,
            sync_us: (200, 600),
            drift_ppm: 100,
            reports_lost_snapshots: true,
            take_ownership: true,
            witnesses: BTreeSet::new(),
            connections: None,
        }
    }
}
