//! What else can go wrong in a world: networks, disks, clocks, and an attacker on the outside wire.

use super::lan::Attachment;
use super::node::Life;
use super::weather::{Network, Weather};
use super::world::{Event, World};
use crate::Input;
use holdfast_cluster::MemberId;
use holdfast_packet::{MacAddr, Side, ethernet};

/// The station address of the attacker.
const ATTACKER: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

/// Frames the attacker keeps: everything of a run of some seconds.
const RECORDED_MAX: usize = 1 << 16;

/// What a disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskHealth {
    /// It syncs in the time of the [`Setup`](super::Setup).
    Good,
    /// Each sync takes this much longer.
    Slow(u64),
    /// It is full or fails: no sync comes to its end until it is good again.
    Stuck,
}

impl World {
    /// Changes how badly a network carries.
    pub fn set_weather(&mut self, network: Network, weather: Weather) {
        self.weather.insert(network, weather);
    }

    /// One direction of the management network takes this much longer.
    pub fn set_slow(&mut self, from: MemberId, to: MemberId, extra_us: u64) {
        self.slow.insert((from, to), extra_us);
    }

    /// Mends one direction of the management network.
    pub fn mend(&mut self, from: MemberId, to: MemberId) {
        self.cut.remove(&(from, to));
        self.slow.remove(&(from, to));
    }

    /// Has a member's disk be slow, stuck or good.
    pub fn set_disk(&mut self, id: MemberId, health: DiskHealth) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let waiting = node.set_disk_health(health);
        if let Some(number) = waiting {
            let event = Event::Synced { member: id, boots: node.boots(), number };
            self.schedule(self.setup.sync_us, event);
        }
    }

    /// Has a member's clock jump forward, when that is within what law 1 assumes of clocks: on a
    /// member that leads (it owes its vote to nobody) or is not running (its promise counts from
    /// its start). Everywhere else `CLOCK_BOOTTIME` does not jump. Returns whether it did.
    pub fn jump_clock(&mut self, id: MemberId, ms: u64) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let harmless = node.life() == Life::Dead || node.member().is_owner();
        if harmless {
            node.jump_clock(ms);
        }
        harmless
    }

    /// Tells a member that its transport to another one broke.
    pub fn break_connection(&mut self, one: MemberId, other: MemberId) {
        self.input(one, Input::PeerDown(other));
        self.input(other, Input::PeerDown(one));
    }

    /// Keeps every frame on the outside wire from now on, for [`Self::replay_recorded`].
    pub fn record_outside(&mut self) {
        self.recording = true;
    }

    pub(super) fn record(&mut self, side: Side, bytes: &[u8]) {
        if self.recording && side == Side::Outside && self.recorded.len() < RECORDED_MAX {
            self.recorded.push(bytes.to_vec());
        }
    }

    /// An attacker sends every IP packet ever seen on the outside wire once more, ESP and IKE, in
    /// both directions: those to the cluster to whoever has the common address now.
    pub fn replay_recorded(&mut self) {
        let station = self.peers.iter().find_map(super::Peer::common_mac);
        let Some(station) = station else { return };
        let members: Vec<MacAddr> =
            self.nodes.keys().map(|id| super::checks::member_mac(*id, 0)).collect();
        let recorded = std::mem::take(&mut self.recorded);
        for frame in &recorded {
            let Ok(view) = ethernet::View::parse(frame) else { continue };
            if view.ether_type() != ethernet::TYPE_IPV4 {
                continue;
            }
            let to = view.destination();
            let to = if members.contains(&to) { station } else { to };
            let mut bytes = frame.clone();
            ethernet::set_addresses(&mut bytes, to, ATTACKER);
            // A port of its own, behind the peers'.
            self.transmit(Side::Outside, Attachment::Host(usize::MAX), bytes);
        }
        self.recorded = recorded;
    }
}
