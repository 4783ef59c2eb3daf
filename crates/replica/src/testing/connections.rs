//! The connections between members, as TCP makes them: in order, and held up as a whole.
//!
//! A segment that is lost twice holds its connection up for the system's shortest retransmission timeout,
//! 200 ms on Linux, and then everything arrives at once.

use crate::Lane;
use holdfast_cluster::MemberId;
use std::collections::BTreeMap;

/// From whom, to whom, and for what.
pub(super) type Connection = (MemberId, MemberId, Lane);

/// What the connections between members are like.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionConditions {
    /// Messages of a thousand that hold their connection up.
    pub held_up_per_mille: u64,
    /// For how long, in microseconds of true time.
    pub held_up_us: u64,
    /// Whether each heartbeat goes through the connection for appends as well, as the daemon does it.
    pub heartbeats_twice: bool,
}

/// When connections deliver again, and delivered last.
#[derive(Debug, Default)]
pub(super) struct Connections(BTreeMap<Connection, u64>);

impl Connections {
    /// Nothing arrives through the connection before `until_ns`.
    pub(super) fn hold_up(&mut self, connection: Connection, until_ns: u64) {
        let earliest = self.0.entry(connection).or_default();
        *earliest = until_ns.max(*earliest);
    }

    /// When a message arrives that is sent at `sent_ns`, alone would arrive at `alone_ns`, and holds its
    /// connection up for `held_up_ns`, which does not begin anew while it is held up.
    pub(super) fn arrival(
        &mut self,
        connection: Connection,
        (sent_ns, alone_ns): (u64, u64),
        held_up_ns: u64,
    ) -> u64 {
        let earliest = self.0.entry(connection).or_default();
        let held_up_ns = if *earliest > alone_ns { 0 } else { held_up_ns };
        *earliest = alone_ns.max(*earliest).max(sent_ns + held_up_ns);
        *earliest
    }
}
