//! Whole clusters in virtual time, and the log on a disk that forgets.

mod candidacy;
mod connections;
mod failover;
mod keys;
mod leases;
mod members;
mod recovery;
mod upgrade;
mod wal;
mod witness;

use crate::testing::{Conditions, Network};
use holdfast_cluster::{Command, MemberId, TargetId};

const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);
const THREE: MemberId = MemberId(3);

/// A harmless command that can be told from others.
fn drain(target: u64) -> Command {
    Command::SetTarget { target: TargetId(target), draining: true }
}

/// Three members, one of them owner for a while.
fn settled(seed: u64, conditions: Conditions) -> (Network, MemberId) {
    let mut network = Network::new(3, seed, conditions);
    let owner = network.run_until_owned();
    network.run_for_us(100_000 + seed * 7_919 % 50_000);
    assert_eq!(network.owner(), Some(owner), "seed {seed}: a quiet cluster keeps its owner");
    (network, owner)
}

/// Everybody else.
fn others(network: &Network, id: MemberId) -> Vec<MemberId> {
    network.members().into_iter().filter(|other| *other != id).collect()
}
