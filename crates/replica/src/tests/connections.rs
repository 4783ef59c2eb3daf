//! Heartbeats through connections that are held up for several leases, as TCP holds them up: the daemon sends
//! each of them in two.

use super::{MemberId, others, settled};
use crate::Lane;
use crate::testing::{Conditions, ConnectionConditions, Network};

/// The system's shortest retransmission timeout.
const HELD_UP_US: u64 = 200_000;

fn conditions(held_up_per_mille: u64, heartbeats_twice: bool) -> Conditions {
    let held_up_us = HELD_UP_US;
    let connections = ConnectionConditions { held_up_per_mille, held_up_us, heartbeats_twice };
    Conditions { connections: Some(connections), ..Conditions::default() }
}

/// Milliseconds without a valid lease while time passes, and whether the owner and its term stayed.
fn watch(network: &mut Network, owner: MemberId, ms: u64) -> (u64, bool) {
    let term = |network: &Network| network.replica(owner).map(|replica| replica.term());
    let before = term(network);
    let mut without = 0;
    for _ in 0..ms {
        network.run_for_ms(1);
        without += u64::from(network.lease_holders().is_empty());
    }
    (without, network.owner() == Some(owner) && term(network) == before)
}

/// Holds up the connections of one lane between the owner and everybody else, both ways.
fn hold_up(network: &mut Network, owner: MemberId, lane: Lane) {
    for other in others(network, owner) {
        network.hold_up(owner, other, lane, HELD_UP_US);
        network.hold_up(other, owner, lane, HELD_UP_US);
    }
}

#[test]
fn connections_held_up_for_200_ms_cost_the_lease_when_heartbeats_go_in_one() {
    let (mut network, owner) = settled(61, conditions(0, false));
    hold_up(&mut network, owner, Lane::Append);
    assert_eq!(watch(&mut network, owner, 1_000), (0, true), "no heartbeat is in that one");
    hold_up(&mut network, owner, Lane::Heartbeat);
    let (without_ms, stayed) = watch(&mut network, owner, 1_000);
    assert!(without_ms > 0 && !stayed, "{without_ms} ms");
}

#[test]
fn connections_held_up_for_200_ms_cost_nothing_when_heartbeats_go_in_two() {
    for lane in [Lane::Heartbeat, Lane::Append] {
        let (mut network, owner) = settled(62, conditions(0, true));
        hold_up(&mut network, owner, lane);
        assert_eq!(watch(&mut network, owner, 1_000), (0, true), "{lane:?}");
    }
}

#[test]
fn random_losses_that_take_the_lease_with_one_connection_leave_it_with_two() {
    const MS: u64 = 30_000;
    let mut lapsed = 0;
    for seed in 63..67 {
        let (mut network, owner) = settled(seed, conditions(0, false));
        network.conditions_mut().connections = conditions(1, false).connections;
        lapsed += u64::from(watch(&mut network, owner, MS) != (0, true));
        let (mut network, owner) = settled(seed, conditions(0, true));
        network.conditions_mut().connections = conditions(1, true).connections;
        assert_eq!(watch(&mut network, owner, MS), (0, true), "seed {seed}");
    }
    assert!(lapsed >= 3, "with one connection only {lapsed} of 4 worlds noticed");
}
