//! Machines: switched on, joined, wiped, crashed, forced.

use super::network::{Node, Running, WAL_KEY};
use super::{Disk, Network};
use crate::wal::{WalKey, WalWriter, recover};
use crate::{Config, Replica, force_quorum};
use holdfast_cluster::{Incarnation, MemberId};
use holdfast_packet::Nanos;

impl Network {
    pub(super) fn add_machine(&mut self, id: MemberId, joins: bool) {
        let drift = self.conditions.drift_ppm;
        let node = Node {
            running: None,
            disk: Disk::default(),
            boot: 0,
            offset_ns: self.prng.between(0, 1 << 40),
            rate: self.prng.between(1_000_000 - drift, 1_000_000 + drift),
            stalled_until: 0,
            joins,
            removed: false,
        };
        self.nodes.insert(id, node);
    }

    /// Switches on a machine with an empty disk that is to join.
    pub fn join(&mut self, id: MemberId) {
        assert!(!self.nodes.contains_key(&id), "member {id} is there already");
        self.add_machine(id, true);
        self.start(id);
    }

    /// A member whose disk is empty comes back under its old id, as if it were to join.
    pub fn wipe(&mut self, id: MemberId) {
        let node = self.node_mut(id);
        assert!(node.running.is_none(), "member {id} runs");
        (node.disk, node.joins) = (Disk::default(), true);
    }

    /// Whether a member noticed that it is none any more.
    #[must_use]
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.node(id).removed
    }

    /// The operator's override at a member that does not run.
    pub fn force_quorum(&mut self, id: MemberId) {
        let config = self.config_of(id);
        let node = self.node_mut(id);
        assert!(node.running.is_none(), "member {id} runs");
        let key = || WalKey::new(&WAL_KEY);
        let recovery = recover(&key(), &node.disk.files()).expect("a sound log");
        let checkpoint = force_quorum(&config, &recovery.recovered).expect("a readable log");
        let (mut writer, ops) = WalWriter::start(key(), [7; 32], &recovery).expect("a segment");
        ops.into_iter().for_each(|op| node.disk.carry_out(op));
        let batch = crate::WriteBatch {
            number: 1,
            must_sync: true,
            checkpoint: Some(checkpoint),
            entries: Vec::new(),
            hard_state: None,
        };
        let ops = writer.write(&batch).expect("a batch that fits");
        ops.into_iter().for_each(|op| node.disk.carry_out(op));
        // What the others agreed upon and what this one goes on with are two histories.
        self.hashes.clear();
    }

    fn config_of(&self, id: MemberId) -> Config {
        let mut members = self.founders.clone();
        let joins = self.node(id).joins;
        if joins && !members.contains(&id) {
            members.push(id);
        }
        let boot = Incarnation(self.node(id).boot);
        let mut config = Config::new(id, members, self.conditions.timing, boot);
        config.compaction = self.conditions.compaction;
        config.witnesses = self.conditions.witnesses.clone();
        config.release = "test".to_owned();
        config.join = joins;
        config.addresses =
            config.members.iter().map(|id| (*id, format!("10.99.0.{id}:7000"))).collect();
        config
    }

    /// Starts a member with what is on its disk.
    pub fn start(&mut self, id: MemberId) {
        let now = self.local_now(id);
        self.start_at(id, now);
    }

    /// Starts a member that believes it started at `local`: earlier than now, its boot quarantine
    /// is over already.
    pub fn start_at(&mut self, id: MemberId, local: Nanos) {
        let mut seed = [0; 32];
        seed.iter_mut().for_each(|octet| *octet = self.prng.next_u64() as u8);
        self.node_mut(id).boot += 1;
        let config = self.config_of(id);
        let node = self.node_mut(id);
        assert!(node.running.is_none(), "member {id} runs already");
        let recovery = recover(&WalKey::new(&WAL_KEY), &node.disk.files()).expect("a sound log");
        let (writer, ops) =
            WalWriter::start(WalKey::new(&WAL_KEY), seed, &recovery).expect("a new segment");
        ops.into_iter().for_each(|op| node.disk.carry_out(op));
        let replica = Replica::new(config, recovery.recovered, local).expect("a replica");
        node.running = Some(Running {
            replica,
            writer,
            disk_free_at: 0,
            applied: Vec::new(),
            effects: Vec::new(),
            replaced: 0,
            persist: true,
        });
        self.drain(id);
    }

    /// Ends a member between two instructions; unsynced writes are lost or torn.
    pub fn crash(&mut self, id: MemberId) {
        let mut prng = self.prng.clone();
        let node = self.node_mut(id);
        node.running = None;
        node.disk.crash(&mut prng);
        self.prng = prng;
    }
}
