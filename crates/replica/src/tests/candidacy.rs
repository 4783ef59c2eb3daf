//! Who stands when, and what that is worth.

use super::{ONE, THREE, TWO, drain, others};
use crate::testing::{Conditions, Network, Prng};
use holdfast_cluster::MemberId;

/// A cluster that `owner` has owned for a while.
fn owned_by(owner: MemberId, members: u64, seed: u64, conditions: Conditions) -> Network {
    let mut network = Network::new(members, seed, conditions);
    let first = network.run_until_owned();
    network.run_for_ms(50);
    if first != owner {
        network
            .with_replica(first, |replica, now| replica.transfer_to(now, owner))
            .expect("it runs")
            .expect("a transfer");
        network.run_until("handed over", 100, |network| network.owner() == Some(owner));
    }
    network.run_for_us(100_000 + seed * 7_919 % 50_000);
    assert_eq!(network.owner(), Some(owner), "seed {seed}");
    network
}

/// Ends `owner`; the successor and after how many microseconds it owns.
fn replaced(network: &mut Network, owner: MemberId) -> (MemberId, u64) {
    network.crash(owner);
    let crashed_ns = network.now_ns();
    let next = network.run_until_owned();
    (next, (network.now_ns() - crashed_ns) / 1_000)
}

#[test]
fn it_takes_the_same_time_whoever_owned_and_nobody_splits_the_votes() {
    for (members, owner) in [(3, 1), (3, 2), (3, 3), (5, 1), (5, 3), (5, 5)] {
        let owner = MemberId(owner);
        let mut outages_us = Vec::new();
        for seed in 0..200 {
            let mut network = owned_by(owner, members, seed, Conditions::default());
            let term = network.replica(owner).unwrap().term();
            let (next, us) = replaced(&mut network, owner);
            assert_eq!(network.replica(next).unwrap().term(), term + 1, "seed {seed}: split votes");
            let first = if owner == ONE { TWO } else { ONE };
            assert_eq!(next, first, "seed {seed}: the first that is left");
            outages_us.push(us);
        }
        outages_us.sort_unstable();
        let (median, worst) = (outages_us[100], outages_us[199]);
        println!("{members} members, {owner} owned: median {median} us, worst {worst} us");
        assert!(worst <= 38_000, "{members} members, {owner} owned: worst {worst} us");
    }
}

#[test]
fn stalls_of_25_ms_depose_no_owner_whoever_it_is() {
    for owner in [ONE, TWO, THREE] {
        for seed in 0..20 {
            let mut network = owned_by(owner, 3, seed, Conditions::default());
            let term = network.replica(owner).unwrap().term();
            for _ in 0..50 {
                network.stall(owner, 25_000);
                // Not a multiple of a tick, so that every phase is met.
                network.run_for_us(300_100);
            }
            assert_eq!(network.replica(owner).unwrap().term(), term, "{owner}, seed {seed}");
        }
    }
}

/// Tells a member whether it could serve.
fn set_fit(network: &mut Network, id: MemberId, fit: bool) {
    network.with_replica(id, |replica, _| replica.set_fit(fit)).expect("it runs");
}

#[test]
fn a_member_that_is_not_fit_lets_one_stand_that_is() {
    for seed in 0..200 {
        let mut network = owned_by(ONE, 3, seed, Conditions::default());
        set_fit(&mut network, TWO, false);
        let (next, us) = replaced(&mut network, ONE);
        assert_eq!(next, THREE, "seed {seed}");
        assert!(us <= 48_000, "seed {seed}: one place later is 10 ms: {us} us");
    }
    // As many places behind as there are fit ones: of five the last one that is fit wins.
    for seed in 0..100 {
        let mut network = owned_by(THREE, 5, seed, Conditions::default());
        for id in [ONE, TWO, MemberId(4)] {
            set_fit(&mut network, id, false);
        }
        let (next, us) = replaced(&mut network, THREE);
        assert_eq!(next, MemberId(5), "seed {seed}");
        assert!(us <= 68_000, "seed {seed}: {us} us");
    }
}

#[test]
fn who_is_not_fit_stands_all_the_same_when_nobody_better_does() {
    for seed in 0..100 {
        // None is fit ...
        let mut network = owned_by(ONE, 3, seed, Conditions::default());
        set_fit(&mut network, TWO, false);
        set_fit(&mut network, THREE, false);
        let (next, us) = replaced(&mut network, ONE);
        assert_eq!(next, TWO, "seed {seed}");
        assert!(us <= 58_000, "seed {seed}: {us} us");
        // ... or the one that is cannot be heard: a pair with a witness.
        let witnesses = [THREE].into();
        let conditions = Conditions { witnesses, ..Conditions::default() };
        let mut network = owned_by(ONE, 3, seed, conditions);
        set_fit(&mut network, TWO, false);
        let (next, us) = replaced(&mut network, ONE);
        assert_eq!(next, TWO, "seed {seed}: before the witness");
        assert!(us <= 48_000, "seed {seed}: {us} us");
    }
}

#[test]
fn a_member_that_knows_it_is_behind_lets_the_others_stand() {
    for seed in 0..100 {
        let mut network = owned_by(ONE, 3, seed, Conditions::default());
        // One entry passes it by; with the next one it hears that the first is committed, and what it
        // answers does not arrive.
        network.isolate(TWO);
        network.propose(ONE, &drain(1)).unwrap();
        network.run_for_ms(5);
        network.heal();
        network.cut_one_way(TWO, ONE);
        network.propose(ONE, &drain(2)).unwrap();
        network.run_for_ms(5);
        network.heal();
        network.crash(ONE);
        let crashed_ns = network.now_ns();
        // By now it would have asked in vain, and forgotten whom it had followed.
        network.run_for_us(35_050);
        assert_eq!(network.replica(TWO).unwrap().leader(), Some(ONE), "seed {seed}: it waits");
        let next = network.run_until_owned();
        assert_eq!(next, THREE, "seed {seed}");
        let us = (network.now_ns() - crashed_ns) / 1_000;
        assert!(us <= 48_000, "seed {seed}: {us} us");
    }
}

#[test]
fn fit_or_not_changing_all_the_time_costs_no_leader_and_no_law() {
    for seed in 0..30 {
        let mut network = owned_by(ONE, 5, seed, Conditions::default());
        let mut prng = Prng::new(seed);
        for round in 0..20 {
            let owner = network.run_until_owned();
            for id in others(&network, owner) {
                set_fit(&mut network, id, prng.between(0, 1) == 0);
            }
            if round % 4 == 0 {
                network.crash(owner);
                network.run_for_us(prng.between(20_000, 60_000));
                network.start(owner);
            }
            network.run_for_us(prng.between(1_000, 20_000));
        }
        network.run_until_owned();
    }
}
