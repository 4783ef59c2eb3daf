//! At no instant two leases: whatever is cut, stalled, restarted or handed over.
//!
//! The network panics when two leases are valid after any step, so these tests only have to make
//! trouble.

use super::members::change_members;
use super::{ONE, THREE, TWO, drain, others, settled};
use crate::envelope::Envelope;
use crate::testing::{Conditions, Network, Prng};
use crate::{Config, Recovered, Replica, Role, Timing};
use holdfast_cluster::{Incarnation, MemberId};
use holdfast_packet::Nanos;
use raft::eraftpb::{Message, MessageType};

/// Clocks as different as the lease allows for.
const WORST_DRIFT_PPM: u64 = 4_900;

#[test]
fn a_cut_off_leader_loses_its_lease_before_another_gets_one() {
    let mut gaps_us = Vec::new();
    for seed in 0..300 {
        let conditions = Conditions { drift_ppm: WORST_DRIFT_PPM, ..Conditions::default() };
        let (mut network, owner) = settled(seed, conditions);
        network.isolate(owner);
        network.run_until("no lease", 100, |network| network.lease_holders().is_empty());
        let ended_ns = network.now_ns();
        let next = network.run_until_owned();
        assert_ne!(next, owner, "seed {seed}");
        gaps_us.push((network.now_ns() - ended_ns) / 1_000);
        network.heal();
        network.run_for_ms(200);
        assert_eq!(network.owner(), Some(next), "seed {seed}: the returning one does not disturb");
    }
    gaps_us.sort_unstable();
    println!("without any lease: shortest {} us, longest {} us", gaps_us[0], gaps_us[299]);
}

#[test]
fn asymmetric_cuts_give_no_second_lease() {
    for seed in 0..100 {
        let (mut network, owner) = settled(seed, Conditions::default());
        let mut prng = Prng::new(seed);
        for _ in 0..6 {
            let members = network.members();
            let pick = |prng: &mut Prng| members[prng.between(0, 2) as usize];
            let (from, to) = (pick(&mut prng), pick(&mut prng));
            network.cut_one_way(from, to);
            network.run_for_ms(prng.between(1, 120));
            if prng.chance(400) {
                network.heal();
            }
        }
        network.heal();
        network.run_for_ms(500);
        assert!(network.owner().is_some(), "seed {seed}: it recovers; first owner {owner}");
    }
}

#[test]
fn nothing_that_goes_wrong_at_random_gives_a_second_lease() {
    let mut joined = 0;
    for seed in 0..150 {
        let conditions = Conditions {
            loss_per_mille: seed % 50,
            delay_us: (50, 500 + (seed % 7) * 3_000),
            sync_us: (200, 600 + (seed % 5) * 2_000),
            drift_ppm: WORST_DRIFT_PPM,
            ..Conditions::default()
        };
        let mut network = Network::new(if seed % 4 == 0 { 5 } else { 3 }, seed, conditions);
        let mut prng = Prng::new(seed ^ 0xfeed);
        let mut next_id = 10;
        for step in 0..60 {
            if prng.chance(150) {
                change_members(&mut network, &mut prng, &mut next_id);
            }
            make_trouble(&mut network, &mut prng, step);
            network.run_for_ms(prng.between(1, 80));
        }
        repair(&mut network);
        network.run_until("an owner after all is repaired", 5_000, |network| {
            network.owner().is_some()
        });
        joined += next_id - 10;
    }
    println!("{joined} members joined");
    assert!(joined > 150, "{joined}: members must change as well");
}

fn make_trouble(network: &mut Network, prng: &mut Prng, step: u64) {
    let members = network.members();
    let last = members.len() as u64 - 1;
    let id = members[prng.between(0, last) as usize];
    let other = members[prng.between(0, last) as usize];
    match prng.between(0, 9) {
        0 | 1 if network.replica(id).is_some() => network.crash(id),
        0..=2 if network.replica(id).is_none() && !network.is_removed(id) => network.start(id),
        3 => network.isolate(id),
        4 => network.cut_one_way(id, other),
        5 => network.heal(),
        6 => network.stall(id, prng.between(1_000, 120_000)),
        7 => {
            let _refused = network.with_replica(id, |replica, now| replica.transfer_to(now, other));
        }
        _ => {
            let _refused = network.propose(id, &drain(step));
        }
    }
}

fn repair(network: &mut Network) {
    network.heal();
    network.conditions_mut().loss_per_mille = 0;
    network.conditions_mut().delay_us = (50, 150);
    for id in network.members() {
        if network.replica(id).is_none() && !network.is_removed(id) {
            network.start(id);
        }
    }
}

/// A leader is cut off from one follower, and the other follower restarts within the lease: it
/// has forgotten its promise, and the first one asks for its vote.
fn restart_inside_a_lease(seed: u64, quarantine: bool) -> u64 {
    let (mut network, owner) = settled(seed, Conditions::default());
    network.forgive_lease_overlaps();
    let followers = others(&network, owner);
    let (hungry, forgetful) = (followers[0], followers[1]);
    // The hungry one hears nothing for so long that it asks for votes again and again.
    network.cut_one_way(owner, hungry);
    network.run_for_ms(100 + seed % 20);
    // The leader is cut off just when the other one restarts.
    network.isolate(owner);
    network.crash(forgetful);
    let now = network.local_now(forgetful);
    network.start_at(forgetful, if quarantine { now } else { now.minus_ms(1_000) });
    network.run_for_ms(100);
    network.lease_overlaps()
}

#[test]
fn the_boot_quarantine_closes_the_restart_hole() {
    let overlaps: u64 = (0..200).map(|seed| restart_inside_a_lease(seed, true)).sum();
    assert_eq!(overlaps, 0);
}

#[test]
fn without_the_quarantine_a_restart_would_give_two_leases() {
    let overlaps: u64 = (0..200).map(|seed| restart_inside_a_lease(seed, false)).sum();
    assert!(overlaps > 0, "this test no longer shows what the quarantine is for");
}

#[test]
fn a_late_order_to_campaign_meets_no_lease_of_its_term() {
    // The order reaches the successor only after the transfer was given up and the leader
    // campaigned anew: the way there takes longer than an election timeout.
    for seed in 0..100 {
        let (mut network, owner) = settled(seed, Conditions::default());
        let successor = others(&network, owner)[0];
        network.conditions_mut().delay_us = (36_000 + seed * 100, 36_000 + seed * 100);
        network
            .with_replica(owner, |replica, now| replica.transfer_to(now, successor))
            .unwrap()
            .unwrap();
        network.conditions_mut().delay_us = (50, 150);
        // The leader does not hear that the successor campaigns.
        network.cut_one_way(successor, owner);
        network.run_for_ms(500);
        network.heal();
        network.run_for_ms(500);
        assert!(network.owner().is_some(), "seed {seed}");
    }
}

/// A heartbeat of member 2 in term 2, sent at `sent`.
fn heartbeat(sent: Nanos) -> Vec<u8> {
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgHeartbeat);
    (message.from, message.to, message.term) = (TWO.0, ONE.0, 2);
    let promise_ns = Timing::DEFAULT.promise_ns();
    Envelope { from: TWO, term: 2, sent, echo: None, promise_ns, note: None, message }
        .encode()
        .unwrap()
        .into_vec()
}

#[test]
fn ticks_overdue_before_a_heartbeat_do_not_shorten_the_promise() {
    // The follower of the lowest rank stalls; a heartbeat sent just before it wakes is followed
    // by silence.
    let members = vec![ONE, TWO, THREE];
    let config = Config::new(ONE, members, Timing::DEFAULT, Incarnation(1));
    let mut replica = Replica::new(config, Recovered::default(), Nanos::ZERO).unwrap();
    let awake = Nanos::from_ms(500);
    replica.handle_message(awake, TWO, heartbeat(awake.minus_ms(1))).unwrap();
    let mut now = awake;
    while replica.role() == Role::Follower {
        now = replica.poll_timeout().unwrap().max(now);
        replica.handle_timeout(now);
    }
    let waited_ns = now.since(awake);
    assert!(waited_ns >= Timing::DEFAULT.promise_ns(), "campaigned after {waited_ns} ns");
}

#[test]
fn stalled_followers_give_no_second_lease() {
    for seed in 0..200 {
        let (mut network, owner) = settled(seed, Conditions::default());
        let followers = others(&network, owner);
        network.cut_one_way(owner, followers[0]);
        network.stall(followers[1], 10_000 + seed * 300);
        network.run_for_ms(20);
        network.isolate(owner);
        network.run_for_ms(300);
        assert!(network.owner().is_some_and(|now| now != owner), "seed {seed}");
    }
}

#[test]
fn a_member_alone_of_three_has_no_lease() {
    let (mut network, owner) = settled(71, Conditions::default());
    for other in others(&network, owner) {
        network.crash(other);
    }
    network.run_for_ms(26);
    assert_eq!(network.lease_holders(), Vec::<MemberId>::new());
    network.run_for_ms(2_000);
    assert_eq!(network.lease_holders(), Vec::<MemberId>::new());
}

#[test]
fn the_lease_is_told_and_ends_by_itself_when_nothing_is_called() {
    let (network, owner) = settled(72, Conditions::default());
    let replica = network.replica(owner).unwrap();
    let now = network.local_now(owner);
    let until = replica.lease_until(now).unwrap();
    assert!(until > now && until.since(now) <= 24_750_000, "{}", until.since(now));
    assert_eq!(replica.lease_until(until), None, "the end itself is outside");
    assert_eq!(replica.lease_until(Nanos::MAX), None);
}
