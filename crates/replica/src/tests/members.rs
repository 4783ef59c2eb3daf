//! Members join, leave and are replaced while everything goes on.

use super::{THREE, TWO, drain, others, settled};
use crate::testing::{Conditions, Network, Prng};
use crate::{Compaction, ProposeError};
use holdfast_cluster::{Command, Configuration, MemberCommand, MemberId, MemberRecord, level};

const FOUR: MemberId = MemberId(4);

fn record(id: MemberId) -> (MemberId, MemberRecord) {
    (id, MemberRecord { address: format!("10.99.0.{id}:7000"), witness: false })
}

pub(super) fn begin(
    network: &mut Network,
    leader: MemberId,
    add: Option<MemberId>,
    remove: Option<MemberId>,
) -> Result<(), ProposeError> {
    let command = Command::Members(MemberCommand::Begin { add: add.map(record), remove });
    network.propose(leader, &command).map(drop)
}

fn configuration(network: &Network, id: MemberId) -> &Configuration {
    network.replica(id).expect("it runs").configuration()
}

fn is_over(network: &Network) -> bool {
    network.owner().is_some_and(|owner| {
        let replica = network.replica(owner).expect("an owner runs");
        let membership = replica.state().membership();
        membership.change().is_none() && !replica.configuration().is_joint()
    })
}

/// Until the change that was just begun is over.
fn finish(network: &mut Network, most_ms: u64) {
    network.run_for_ms(10);
    network.run_until("the change of members is over", most_ms, is_over);
}

fn voters(ids: &[u64]) -> Configuration {
    Configuration::of_voters(ids.iter().copied().map(MemberId))
}

#[test]
fn a_member_joins_as_a_learner_and_gets_its_vote_when_it_has_caught_up() {
    for seed in 0..30 {
        let (mut network, owner) = settled(seed, Conditions::default());
        for target in 0..20 {
            network.propose(owner, &drain(target)).unwrap();
        }
        begin(&mut network, owner, Some(FOUR), None).unwrap();
        network.run_for_ms(100);
        let known = configuration(&network, owner);
        assert!(known.learners.contains(&FOUR), "seed {seed}: nobody is there to be promoted");
        network.join(FOUR);
        finish(&mut network, 2_000);
        network.run_for_ms(50);
        for id in network.members() {
            assert_eq!(configuration(&network, id), &voters(&[1, 2, 3, 4]), "seed {seed}: {id}");
        }
        assert_eq!(network.replaced(FOUR), 1, "seed {seed}: it began with a snapshot");
        assert_eq!(network.owner(), Some(owner), "seed {seed}: nobody noticed");
        let state = network.replica(FOUR).unwrap().state();
        assert_eq!(state.draining().len(), 20, "seed {seed}");
    }
}

#[test]
fn a_member_that_joined_counts_in_a_failover() {
    for seed in 0..20 {
        let (mut network, owner) = settled(seed, Conditions::default());
        let follower = others(&network, owner)[0];
        begin(&mut network, owner, Some(FOUR), Some(follower)).unwrap();
        network.join(FOUR);
        finish(&mut network, 2_000);
        network.crash(owner);
        let next = network.run_until_owned();
        assert!(next != owner && next != follower, "seed {seed}: {next}");
    }
}

#[test]
fn a_dead_member_is_replaced_and_cannot_come_back() {
    for seed in 0..20 {
        let (mut network, owner) = settled(seed, Conditions::default());
        let dead = others(&network, owner)[0];
        network.crash(dead);
        begin(&mut network, owner, Some(FOUR), Some(dead)).unwrap();
        network.join(FOUR);
        finish(&mut network, 2_000);
        assert!(network.replica(owner).unwrap().state().membership().is_retired(dead));
        // With its disk it comes back to a cluster that refuses it by name ...
        network.start(dead);
        network.run_for_ms(500);
        assert_eq!(network.owner(), Some(owner), "seed {seed}: it disturbs nobody");
        assert!(!configuration(&network, owner).contains(dead), "seed {seed}");
        // ... and its id is taken for ever.
        begin(&mut network, owner, Some(dead), None).unwrap();
        network.run_for_ms(100);
        assert!(!configuration(&network, owner).contains(dead), "seed {seed}");
    }
}

#[test]
fn an_owner_that_is_to_leave_hands_over_first() {
    for seed in 0..30 {
        let (mut network, owner) = settled(seed, Conditions::default());
        begin(&mut network, owner, None, Some(owner)).unwrap();
        network.run_until("another owner", 500, |network| {
            network.owner().is_some_and(|now| now != owner)
        });
        finish(&mut network, 1_000);
        network.run_for_ms(100);
        let now = network.run_until_owned();
        assert!(!configuration(&network, now).contains(owner), "seed {seed}");
        assert_eq!(configuration(&network, now).voters.len(), 2, "seed {seed}");
    }
}

#[test]
fn a_change_goes_on_under_the_next_leader() {
    for seed in 0..60 {
        let (mut network, owner) = settled(seed, Conditions::default());
        let leaving = others(&network, owner)[1];
        begin(&mut network, owner, Some(FOUR), Some(leaving)).unwrap();
        network.join(FOUR);
        network.run_for_us(seed * 997 % 60_000);
        network.crash(owner);
        network.run_for_ms(300);
        network.start(owner);
        finish(&mut network, 3_000);
        let now = network.run_until_owned();
        let mut expected = vec![owner, FOUR];
        expected
            .extend(others(&network, owner).into_iter().filter(|id| *id != leaving && *id != FOUR));
        assert_eq!(
            configuration(&network, now),
            &Configuration::of_voters(expected),
            "seed {seed}"
        );
    }
}

#[test]
fn from_one_member_to_five_and_back_with_all_power_lost_in_between() {
    let compaction =
        Compaction { entries: 30, bytes: 1 << 20, retained_entries: 5, ..Compaction::default() };
    let mut network = Network::new(1, 7, Conditions { compaction, ..Conditions::default() });
    network.run_until_owned();
    for id in 2..=5 {
        let leader = network.run_until_owned();
        begin(&mut network, leader, Some(MemberId(id)), None).unwrap();
        network.join(MemberId(id));
        finish(&mut network, 3_000);
        for target in 0..40 {
            let leader = network.run_until_owned();
            network.propose(leader, &drain(target)).unwrap();
            network.run_for_ms(2);
        }
    }
    network.run_for_ms(200);
    for id in network.members() {
        network.crash(id);
    }
    for id in network.members() {
        network.start(id);
    }
    for id in [1, 2, 3] {
        let leader = network.run_until_owned();
        network.run_for_ms(100);
        begin(&mut network, leader, None, Some(MemberId(id))).unwrap();
        finish(&mut network, 3_000);
        network.run_for_ms(200);
    }
    let owner = network.run_until_owned();
    assert_eq!(configuration(&network, owner), &voters(&[4, 5]));
    assert_eq!(network.replica(owner).unwrap().state().draining().len(), 40);
}

#[test]
fn a_member_that_never_comes_is_given_up() {
    let (mut network, owner) = settled(3, Conditions::default());
    let leaving = others(&network, owner)[0];
    begin(&mut network, owner, Some(FOUR), Some(leaving)).unwrap();
    network.run_for_ms(200);
    network.propose(owner, &Command::Members(MemberCommand::Cancel)).unwrap();
    finish(&mut network, 1_000);
    assert_eq!(configuration(&network, owner), &voters(&[1, 2, 3]));
    assert!(network.replica(owner).unwrap().state().membership().is_retired(FOUR));
}

#[test]
fn members_are_recorded_by_themselves_once_all_run_a_release_that_knows_how() {
    let mut network = Network::new(3, 5, Conditions::default());
    network.crash(THREE);
    let owner = network.run_until_owned();
    network.run_for_ms(500);
    let membership =
        |network: &Network| network.replica(owner).unwrap().state().membership().clone();
    assert_eq!(membership(&network).level(), level::FIRST, "nobody knows what member 3 can read");
    assert_eq!(
        begin(&mut network, owner, Some(FOUR), None),
        Err(ProposeError::Level { needed: level::MEMBERSHIP, cluster: level::FIRST })
    );
    network.start(THREE);
    network.run_for_ms(200);
    assert_eq!(membership(&network).level(), level::LEVEL);
    assert_eq!(membership(&network).configuration(), Some(&voters(&[1, 2, 3])));
    assert_eq!(membership(&network).record(TWO).unwrap().address, "10.99.0.2:7000");
}

#[test]
fn a_wiped_member_does_not_come_back_under_its_id() {
    let (mut network, owner) = settled(13, Conditions::default());
    let wiped = others(&network, owner)[0];
    network.crash(wiped);
    network.wipe(wiped);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        network.start(wiped);
        network.run_for_ms(2_000);
    }));
    let message = outcome.expect_err("it halts").downcast::<String>().expect("words");
    assert!(
        message.contains("has voted before") || message.contains("its disk lost data"),
        "{message}"
    );
}

#[test]
fn a_forced_survivor_is_a_cluster_and_the_others_are_refused() {
    for seed in 0..20 {
        let (mut network, owner) = settled(seed, Conditions::default());
        let survivor = others(&network, owner)[0];
        for id in network.members() {
            network.crash(id);
        }
        network.force_quorum(survivor);
        network.start(survivor);
        assert_eq!(network.run_until_owned(), survivor, "seed {seed}");
        assert_eq!(configuration(&network, survivor), &Configuration::of_voters([survivor]));
        let state = network.replica(survivor).unwrap().state();
        assert_eq!(state.membership().generation(), 1);
        // It grows again, under new ids.
        begin(&mut network, survivor, Some(FOUR), None).unwrap();
        network.join(FOUR);
        finish(&mut network, 2_000);
        network.run_for_ms(100);
        // One that was left behind comes back and is alone.
        network.start(owner);
        network.run_for_ms(500);
        assert_eq!(network.lease_holders(), [survivor], "seed {seed}");
    }
}

/// A change at random at whoever owns, with the machine it needs.
pub(super) fn change_members(network: &mut Network, prng: &mut Prng, next_id: &mut u64) {
    let Some(owner) = network.owner() else { return };
    let voters: Vec<MemberId> = configuration(network, owner).voters.iter().copied().collect();
    let pick = voters[prng.between(0, voters.len() as u64 - 1) as usize];
    let add = (voters.len() < 6 && prng.chance(600)).then_some(MemberId(*next_id));
    let remove = (voters.len() > 2 && (add.is_none() || prng.chance(600))).then_some(pick);
    if begin(network, owner, add, remove).is_ok()
        && let Some(id) = add
    {
        *next_id += 1;
        network.join(id);
    }
    if prng.chance(100) {
        let _refused = network.propose(owner, &Command::Members(MemberCommand::Cancel));
    }
}
