//! Who owns: fitness first, preference then, and neither flaps.

use super::*;
use crate::{SuccessionPolicy, Takeback};
use holdfast_packet::{Nanos, Side};
use holdfast_replica::Timing;

/// A connected world in which member 1 owns and everybody is known to be fit.
fn settled(succession: SuccessionPolicy) -> World {
    let mut world = connected(Setup { succession, ..Setup::default() });
    world.run_for_ms(1_500);
    assert_eq!(owner(&world), MemberId(1));
    world
}

fn policy(takeback: Takeback) -> SuccessionPolicy {
    let preference = vec![MemberId(1), MemberId(2), MemberId(3)];
    SuccessionPolicy { takeback, preference, hold_down_ms: 5_000, idle_ms: 2_000 }
}

/// How often another member began to speak for the addresses since `start`.
fn moves(world: &World, start: Nanos) -> usize {
    world.checks().speakers().iter().filter(|(at, _)| *at > start).count()
}

#[test]
fn an_owner_whose_port_goes_down_on_either_side_hands_over_at_once() {
    for side in Side::ALL {
        let mut world = settled(SuccessionPolicy::default());
        let (start, rekeys) = (world.now(), world.peers()[0].rekeys());
        world.set_port(MemberId(1), side, false);
        world.run_for_ms(1_000);
        assert_eq!(owner(&world), MemberId(2));
        let silence = world.peers()[0].longest_silence_ms(start, world.now());
        println!("{}: silent for {silence} ms", side.name());
        assert!(silence <= 15, "{}: silent for {silence} ms", side.name());
        assert_eq!(world.peers()[0].rekeys(), rekeys, "the numbers are exact all the same");
        assert_lawful(&mut world);
    }
}

/// How long the peers of an owner whose worker stops are not served; and who owns then.
fn silence_of_a_stuck_worker(timing: Timing) -> u64 {
    let mut world = connected(Setup { workers: 2, timing, ..Setup::default() });
    world.run_for_ms(1_500);
    let (before, start) = (owner(&world), world.now());
    world.stall_worker(before, 1, true);
    world.run_for_ms(1_000);
    assert_ne!(owner(&world), before);
    let silence = world.peers()[0].longest_silence_ms(start, world.now());
    world.stall_worker(before, 1, false);
    world.run_for_ms(1_000);
    assert_lawful(&mut world);
    silence
}

#[test]
fn an_owner_with_a_stuck_worker_is_replaced_as_fast_as_a_dead_one() {
    for (timing, bound_ms) in [(Timing::DEFAULT, 45), (Timing::BRISK, 23), (Timing::RELAXED, 250)] {
        let silence = silence_of_a_stuck_worker(timing);
        println!("silent for {silence} ms");
        assert!(silence <= bound_ms, "silent for {silence} ms, {timing:?}");
    }
}

#[test]
fn the_fit_member_is_chosen_not_the_next() {
    let mut world = settled(SuccessionPolicy::default());
    world.set_port(MemberId(2), Side::Outside, false);
    world.run_for_ms(50);
    world.set_port(MemberId(1), Side::Inside, false);
    world.run_for_ms(500);
    assert_eq!(owner(&world), MemberId(3));
    assert_lawful(&mut world);
}

#[test]
fn an_unfit_member_elected_for_want_of_others_hands_over_as_soon_as_one_is_fit() {
    let mut world = settled(SuccessionPolicy::default());
    for id in [2, 3] {
        world.set_port(MemberId(id), Side::Inside, false);
    }
    world.run_for_ms(50);
    world.kill(MemberId(1));
    world.run_for_ms(3_000);
    let unfit = owner(&world);
    let fit = MemberId(5 - unfit.0);
    let start = world.now();
    world.set_port(fit, Side::Inside, true);
    let took = world.run_until(PATIENCE_MS, |world| world.owner() == Some(fit)).expect("it moves");
    println!("after {} ms", took / 1_000_000);
    assert!(took <= 50_000_000, "after {took} ns");
    world.run_for_ms(500);
    assert!(world.peers()[0].first_answer_since(start).is_some());
    assert_lawful(&mut world);
}

#[test]
fn an_unfit_owner_stays_while_nobody_is_fitter() {
    let mut world = settled(SuccessionPolicy::default());
    let start = world.now();
    for id in [2, 3, 1] {
        world.set_port(MemberId(id), Side::Inside, false);
    }
    world.run_for_ms(5_000);
    assert_eq!((owner(&world), moves(&world, start)), (MemberId(1), 0));
    assert_lawful(&mut world);
}

#[test]
fn the_management_network_alone_may_fail_without_two_owners_or_a_flap() {
    let mut world = settled(policy(Takeback::Now));
    let start = world.now();
    world.isolate(MemberId(1));
    world.run_for_ms(1_000);
    let next = owner(&world);
    assert_ne!(next, MemberId(1));
    world.heal();
    world.run_for_ms(3_000);
    assert_eq!((owner(&world), moves(&world, start)), (next, 1), "not before the hold-down time");
    assert_lawful(&mut world);
}

/// Member 1 fails and comes back while traffic flows or not; who owns how long after.
fn owner_after_return(takeback: Takeback, idle: bool, ms: u64) -> MemberId {
    let mut world = settled(policy(takeback));
    world.kill(MemberId(1));
    world.run_for_ms(500);
    let now = world.now();
    world.peers_mut()[0].set_traffic(now, (!idle).then_some(1_000));
    world.restart(MemberId(1), true).unwrap();
    world.run_for_ms(ms);
    assert_lawful(&mut world);
    owner(&world)
}

#[test]
fn never_means_that_a_returned_member_stays_a_standby() {
    assert_eq!(owner_after_return(Takeback::Never, true, 30_000), MemberId(2));
}

#[test]
fn now_means_as_soon_as_it_has_been_fit_for_the_hold_down_time() {
    assert_eq!(owner_after_return(Takeback::Now, false, 4_900), MemberId(2));
    assert_eq!(owner_after_return(Takeback::Now, false, 8_000), MemberId(1));
}

#[test]
fn idle_means_not_while_packets_flow() {
    assert_eq!(owner_after_return(Takeback::Idle, false, 30_000), MemberId(2));
    assert_eq!(owner_after_return(Takeback::Idle, true, 4_900), MemberId(2));
    assert_eq!(owner_after_return(Takeback::Idle, true, 12_000), MemberId(1));
}

#[test]
fn the_configured_order_counts_not_the_ids() {
    let preference = vec![MemberId(3)];
    let policy = SuccessionPolicy { preference, ..policy(Takeback::Now) };
    let mut world = settled(policy);
    world.run_for_ms(8_000);
    assert_eq!(owner(&world), MemberId(3), "the first owner was elected by chance of its rank");
    world.set_port(MemberId(3), Side::Outside, false);
    world.run_for_ms(500);
    assert_eq!(owner(&world), MemberId(1), "those not named follow in the order of their ids");
    assert_lawful(&mut world);
}

#[test]
fn a_flapping_port_moves_the_address_once() {
    for takeback in [Takeback::Never, Takeback::Idle, Takeback::Now] {
        let mut world = settled(policy(takeback));
        let start = world.now();
        for _ in 0..40 {
            for up in [false, true] {
                world.set_port(MemberId(1), Side::Outside, up);
                world.run_for_ms(400);
            }
        }
        assert_eq!(moves(&world, start), 1, "{takeback:?}");
        assert_eq!(owner(&world), MemberId(2));
        assert_lawful(&mut world);
    }
}

#[test]
fn a_takeback_loses_nothing() {
    let mut world = settled(policy(Takeback::Now));
    world.set_port(MemberId(1), Side::Outside, false);
    world.run_for_ms(500);
    world.set_port(MemberId(1), Side::Outside, true);
    world.run_for_ms(1_000);
    let lost = |world: &World| world.peers()[0].requests() - world.peers()[0].answers();
    let (before, start) = (lost(&world), world.now());
    world.run_until(PATIENCE_MS, |world| world.owner() == Some(MemberId(1))).expect("it returns");
    world.run_for_ms(500);
    assert!(lost(&world) <= before + 1, "one may be on its way");
    assert!(world.peers()[0].longest_silence_ms(start, world.now()) <= 10);
    assert_lawful(&mut world);
}
