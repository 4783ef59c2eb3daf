//! Members that vote and never own.

use super::{ONE, THREE, TWO, drain, others};
use crate::testing::{Conditions, Network, Prng};
use crate::{Timing, TransferError};
use holdfast_cluster::MemberId;

/// A cluster of `members`, the last `witnesses` of which own nothing.
fn cluster(members: u64, witnesses: u64, seed: u64) -> (Network, MemberId) {
    let witnesses = (members - witnesses + 1..=members).map(MemberId).collect();
    let mut network =
        Network::new(members, seed, Conditions { witnesses, ..Conditions::default() });
    let owner = network.run_until_owned();
    network.run_for_us(100_000 + seed * 7_919 % 50_000);
    assert_eq!(network.owner(), Some(owner), "seed {seed}");
    (network, owner)
}

#[test]
fn every_shape_of_cluster_survives_the_crash_of_its_owner_in_time() {
    for (members, witnesses) in [(3, 1), (3, 0), (5, 0), (5, 2)] {
        let mut worst_us = 0;
        for seed in 0..60 {
            let (mut network, owner) = cluster(members, witnesses, seed);
            network.crash(owner);
            let crashed_ns = network.now_ns();
            let next = network.run_until_owned();
            worst_us = worst_us.max((network.now_ns() - crashed_ns) / 1_000);
            assert!(next.0 <= members - witnesses, "seed {seed}: witness {next} owns");
        }
        println!("{members} members, {witnesses} of them witnesses: worst {worst_us} us");
        assert!(worst_us <= 45_000, "{members}, {witnesses}: {worst_us} us");
    }
}

#[test]
fn a_pair_with_a_witness_changes_sides_as_often_as_one_of_the_two_dies() {
    let (mut network, mut owner) = cluster(3, 1, 5);
    for round in 0..10 {
        network.crash(owner);
        let next = network.run_until_owned();
        assert_eq!(next, if owner == ONE { TWO } else { ONE }, "round {round}");
        network.start(owner);
        network.run_for_ms(200);
        owner = next;
    }
}

#[test]
fn a_witness_that_is_elected_for_its_log_hands_over_at_once() {
    for seed in 0..50 {
        let (mut network, owner) = cluster(3, 1, seed);
        let other = if owner == ONE { TWO } else { ONE };
        // What is committed with the help of the witness alone ...
        network.cut_one_way(owner, other);
        let proposal = network.propose(owner, &drain(7)).unwrap();
        network.run_for_ms(5);
        assert!(network.applied(owner).contains(&(proposal.index, proposal.term)));
        network.crash(owner);
        network.heal();
        let crashed_ns = network.now_ns();
        // ... only the witness can be elected with; it passes the entry and the lead on.
        network.run_until("the other full member owns", 500, |network| {
            assert!(!network.lease_holders().contains(&THREE), "seed {seed}: a witness's lease");
            network.owner() == Some(other)
        });
        let took_ms = (network.now_ns() - crashed_ns) / 1_000_000;
        assert!(took_ms <= 130, "seed {seed}: {took_ms} ms");
        assert!(network.applied(other).contains(&(proposal.index, proposal.term)), "seed {seed}");
    }
}

#[test]
fn a_witness_never_owns_whatever_happens() {
    for seed in 0..60 {
        let (mut network, _) = cluster(3, 1, seed);
        let mut prng = Prng::new(seed ^ 0xbeef);
        for _ in 0..40 {
            let id = MemberId(prng.between(1, 3));
            match prng.between(0, 4) {
                0 if network.replica(id).is_some() => network.crash(id),
                0 | 1 if network.replica(id).is_none() => network.start(id),
                2 => network.isolate(id),
                3 => network.heal(),
                _ => network.stall(id, prng.between(1_000, 80_000)),
            }
            network.run_for_ms(prng.between(1, 80));
            assert!(!network.lease_holders().contains(&THREE), "seed {seed}");
        }
        network.heal();
        for id in network.members() {
            if network.replica(id).is_none() {
                network.start(id);
            }
        }
        assert_ne!(network.run_until_owned(), THREE, "seed {seed}");
    }
}

#[test]
fn nothing_is_handed_over_to_a_witness() {
    let (mut network, owner) = cluster(3, 1, 9);
    let refused = network.with_replica(owner, |replica, now| replica.transfer_to(now, THREE));
    assert_eq!(refused, Some(Err(TransferError::Witness(THREE))));
}

#[test]
fn the_brisk_timing_fails_over_within_23_ms() {
    let timing = Timing::BRISK;
    let mut worst_us = 0;
    for seed in 0..100 {
        let mut network = Network::new(3, seed, Conditions { timing, ..Conditions::default() });
        let owner = network.run_until_owned();
        network.run_for_us(100_000 + seed * 7_919 % 50_000);
        network.crash(owner);
        let crashed_ns = network.now_ns();
        let next = network.run_until_owned();
        assert!(others(&network, owner).contains(&next));
        worst_us = worst_us.max((network.now_ns() - crashed_ns) / 1_000);
    }
    println!("brisk: worst {worst_us} us");
    assert!(worst_us <= 23_000, "{worst_us} us");
}

#[test]
fn members_learn_each_others_release_and_level() {
    let (network, owner) = cluster(3, 1, 11);
    let replica = network.replica(owner).unwrap();
    for id in network.members() {
        assert_eq!(replica.told_by(id), Some(("test", holdfast_cluster::level::LEVEL)), "{id}");
    }
}
