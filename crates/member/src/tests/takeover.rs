//! The owner dies: the same SA goes on elsewhere.

use super::*;
use crate::FailureCause;
use holdfast_cluster::Owner;
use holdfast_replica::Timing;

#[test]
fn a_tunnel_comes_up_and_carries_traffic_both_ways() {
    let mut world = connected(Setup::default());
    world.run_for_ms(1_000);
    let (requests, answers) = (world.peers()[0].requests(), world.peers()[0].answers());
    assert!(requests > 900 && answers + 5 >= requests, "{answers} of {requests} answered");
    let busy = world.targets().iter().filter(|target| target.received() > 0).count();
    assert_eq!(busy, 3, "calls spread over all targets");
    assert_lawful(&mut world);
}

#[test]
fn the_same_sa_goes_on_after_the_owner_dies() {
    let mut world = connected(Setup::default());
    steady(&mut world);
    let (first, sa) = (owner(&world), world.peers()[0].sending());
    let killed = world.now();
    world.kill(first);
    let ms = takeover_ms(&mut world, first);
    println!("outage {ms} ms");
    assert!(ms <= 60, "outage {ms} ms");
    world.run_for_ms(2_000);
    let silence = world.peers()[0].longest_silence_ms(killed, world.now());
    assert!(silence <= 60, "silent for {silence} ms");
    assert_eq!(world.peers()[0].sending(), sa, "no renegotiation for a steady flow");
    assert_eq!(world.peers()[0].refused().len(), 0, "{:?}", world.peers()[0].refused());
    assert_lawful(&mut world);
}

/// Traffic fast enough that the numbers of the shortest outage exceed what is granted ahead.
fn steady(world: &mut World) {
    let now = world.now();
    world.peers_mut()[0].set_traffic(now, Some(300));
    world.run_for_ms(1_000);
}

#[test]
fn a_slow_steady_flow_is_silent_no_longer_than_a_fast_one() {
    let mut world = connected(Setup::default());
    world.run_for_ms(500);
    let first = owner(&world);
    let killed = world.now();
    world.kill(first);
    takeover_ms(&mut world, first);
    world.run_for_ms(1_000);
    let silence = world.peers()[0].longest_silence_ms(killed, world.now());
    println!("silent for {silence} ms, {} rekeys", world.peers()[0].rekeys());
    assert!(silence <= 60, "silent for {silence} ms");
    assert!(world.peers()[0].rekeys() <= 1);
    assert_lawful(&mut world);
}

#[test]
fn a_flow_that_paused_is_rekeyed_within_a_round_trip() {
    let mut world = connected(Setup::default());
    world.run_for_ms(20);
    let now = world.now();
    world.peers_mut()[0].set_traffic(now, None);
    world.run_for_ms(100);
    let (first, sa) = (owner(&world), world.peers()[0].sending());
    world.kill(first);
    world.run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first));
    world.run_for_ms(50);

    // One packet at a time, as after a retransmission timer: its number is ambiguous.
    let start = world.now();
    world.peers_mut()[0].set_traffic(start, Some(200_000));
    world
        .run_until(2_000, |world| world.peers()[0].sending() != sa)
        .expect("the peer was given a new SA");
    let rekeyed_ms = world.now().ms_since(start);
    assert!(rekeyed_ms <= 20, "rekeyed after {rekeyed_ms} ms");
    world.run_for_ms(1_000);
    let answered = world.peers()[0].first_answer_since(start).expect("answers again");
    assert!(answered.ms_since(start) <= 410, "the second packet passes");
    assert_eq!(world.peers()[0].rekeys(), 1, "once per SA and takeover");
    assert_eq!(count(&world, |event| matches!(event, MemberEvent::SaRenewing { .. })), 1);
    assert_lawful(&mut world);
}

#[test]
fn a_second_owner_may_die_too() {
    let mut world = connected(Setup { members: 5, ..Setup::default() });
    steady(&mut world);
    for round in 0..2 {
        world.run_for_ms(3_000);
        let (before, sa) = (owner(&world), world.peers()[0].sending());
        let rekeys = world.peers()[0].rekeys();
        world.kill(before);
        let ms = takeover_ms(&mut world, before);
        assert!(ms <= 60, "round {round}: outage {ms} ms");
        world.run_for_ms(500);
        // The peer may meet the end of the ambiguous zone: that is one rekey, or else it is the same SA.
        let (renewed, sending) = (world.peers()[0].rekeys() - rekeys, world.peers()[0].sending());
        assert!(renewed <= 1, "round {round}: {renewed} rekeys");
        assert_eq!(renewed == 0, sending == sa, "round {round}: no other way to another SA");
    }
    assert_lawful(&mut world);
}

#[test]
fn a_member_that_restarts_does_not_use_what_it_was_granted_before() {
    let mut world = connected(Setup::default());
    for power_loss in [false, true] {
        world.run_for_ms(1_000);
        let first = owner(&world);
        world.kill(first);
        takeover_ms(&mut world, first);
        world.restart(first, power_loss).unwrap();
        world.run_for_ms(1_000);
        let second = owner(&world);
        world.kill(second);
        takeover_ms(&mut world, second);
        world.restart(second, power_loss).unwrap();
    }
    world.run_for_ms(1_000);
    assert_lawful(&mut world);
}

#[test]
fn a_cluster_of_one_that_restarts_skips_what_it_was_granted() {
    let mut world = connected(Setup { members: 1, ..Setup::default() });
    let only = owner(&world);
    for _ in 0..3 {
        world.run_for_ms(300);
        world.restart(only, true).unwrap();
        world.run_until(PATIENCE_MS, |world| world.owner().is_some()).expect("it owns again");
        let start = world.now();
        world
            .run_until(PATIENCE_MS, |world| world.peers()[0].first_answer_since(start).is_some())
            .expect("the SA goes on");
    }
    assert_lawful(&mut world);
}

#[test]
fn all_members_restart_and_the_sa_goes_on() {
    let mut world = connected(Setup::default());
    world.run_for_ms(500);
    let sa = world.peers()[0].sending();
    let ids: Vec<MemberId> = world.nodes().map(|(id, _)| id).collect();
    for id in &ids {
        world.kill(*id);
    }
    world.run_for_ms(1_000);
    for id in ids {
        world.restart(id, true).unwrap();
    }
    let start = world.now();
    world
        .run_until(PATIENCE_MS, |world| world.peers()[0].first_answer_since(start).is_some())
        .expect("the SA goes on from the disks");
    assert_eq!(world.peers()[0].sending(), sa);
    assert_lawful(&mut world);
}

/// The owner dies at every stage of an exchange, and the peer ends up with a working tunnel.
fn killed_during(stages_us: impl Iterator<Item = u64>, begin: impl Fn(&mut World)) {
    for after_us in stages_us {
        let mut world = connected(Setup { seed: after_us + 1, ..Setup::default() });
        world.run_for_ms(100);
        let first = owner(&world);
        begin(&mut world);
        world.run_for_us(after_us);
        world.kill(first);
        takeover_ms(&mut world, first);
        world.run_for_ms(3_000);
        let start = world.now();
        world.run_for_ms(100);
        let answered = world.peers()[0].first_answer_since(start).is_some();
        assert!(answered, "killed after {after_us} us: {:?}", world.peers()[0]);
        let state = world.node(owner(&world)).unwrap().member().state().clone();
        assert_eq!((state.ike_sas().len(), state.children().len()), (1, 1), "{after_us} us");
        assert_lawful(&mut world);
    }
}

#[test]
fn a_rekey_of_the_peer_survives_the_owner() {
    killed_during((0..3_000).step_by(250), |world| {
        let now = world.now();
        world.peers_mut()[0].rekey(now);
    });
}

#[test]
fn traffic_does_not_wait_for_a_peer_that_was_not_answered() {
    // The successor knows the new Child SA and the peer does not: it is sent with the old one, until the
    // peer has repeated its request half a second later (RFC 7296 section 2.8).
    for after_us in (0..3_000).step_by(250) {
        let mut world = connected(Setup { seed: after_us + 1, ..Setup::default() });
        // Fast enough to climb over the ambiguous zone during the outage.
        let now = world.now();
        world.peers_mut()[0].set_traffic(now, Some(200));
        world.run_for_ms(100);
        let (first, now) = (owner(&world), world.now());
        world.peers_mut()[0].rekey(now);
        world.run_for_us(after_us);
        world.kill(first);
        let ms = takeover_ms(&mut world, first);
        assert!(ms <= 80, "killed after {after_us} us: outage {ms} ms");
        let start = world.now();
        world.run_for_ms(3_000);
        let silence_ms = world.peers()[0].longest_silence_ms(start, world.now());
        assert!(silence_ms <= 20, "killed after {after_us} us: silent for {silence_ms} ms");
        assert_lawful(&mut world);
    }
}

#[test]
fn a_rekey_of_the_ike_sa_survives_the_owner() {
    killed_during((0..3_000).step_by(250), |world| {
        let now = world.now();
        world.peers_mut()[0].rekey_ike(now);
    });
}

#[test]
fn a_renewal_survives_the_new_owner() {
    for after_us in (0..4_000).step_by(500) {
        let mut world = connected(Setup { members: 5, seed: after_us, ..Setup::default() });
        world.run_for_ms(20);
        let now = world.now();
        world.peers_mut()[0].set_traffic(now, None);
        world.run_for_ms(50);
        let first = owner(&world);
        world.kill(first);
        world.run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first));
        let start = world.now();
        world.peers_mut()[0].set_traffic(start, Some(50_000));
        world.run_until(PATIENCE_MS, |world| {
            world.nodes().any(|(_, node)| {
                let renews = |event: &MemberEvent| matches!(event, MemberEvent::SaRenewing { .. });
                node.events().iter().any(|(_, event)| renews(event))
            })
        });
        world.run_for_us(after_us);
        let second = owner(&world);
        world.kill(second);
        takeover_ms(&mut world, second);
        world.run_for_ms(5_000);
        let start = world.now();
        world.run_for_ms(200);
        let answered = world.peers()[0].first_answer_since(start).is_some();
        assert!(answered, "killed after {after_us} us: {:?}", world.peers()[0]);
        assert_lawful(&mut world);
    }
}

#[test]
fn many_flows_that_paused_are_rekeyed_with_a_bound_on_those_under_way() {
    let mut world = connected(Setup { peers: 80, ..Setup::default() });
    let now = world.now();
    world.peers_mut().iter_mut().for_each(|peer| peer.set_traffic(now, None));
    world.run_for_ms(100);
    let first = owner(&world);
    world.kill(first);
    world.run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first));
    world.run_for_ms(20);
    let start = world.now();
    world.peers_mut().iter_mut().for_each(|peer| peer.set_traffic(start, Some(100_000)));
    let took_ns = world.run_until(PATIENCE_MS, |world| {
        world.peers().iter().all(|peer| peer.first_answer_since(start).is_some())
    });
    let took_ms = took_ns.expect("all answered") / 1_000_000;
    assert!(took_ms <= 150, "{took_ms} ms until everybody's second packet is answered");
    assert!(world.peers().iter().all(|peer| peer.rekeys() == 1));
    assert_lawful(&mut world);
}

#[test]
fn relaxed_timing_and_loss_only_make_it_slower() {
    for seed in seeds(4) {
        let mut world = connected(Setup {
            seed,
            timing: Timing::RELAXED,
            loss_per_mille: 10,
            workers: 2,
            esn: seed % 2 == 0,
            ..Setup::default()
        });
        world.run_for_ms(1_000);
        let first = owner(&world);
        world.kill(first);
        let ms = takeover_ms(&mut world, first);
        assert!(ms <= 600, "outage {ms} ms");
        world.run_for_ms(500);
        assert_lawful(&mut world);
    }
}

#[test]
fn a_dead_target_is_left_out_and_taken_back() {
    let mut world = connected(Setup::default());
    world.target_mut(0).unwrap().on = false;
    world.run_for_ms(3_000);
    let start = world.now();
    let before = world.peers()[0].answers();
    world.run_for_ms(500);
    let silence = world.peers()[0].longest_silence_ms(start, world.now());
    assert!(silence <= 5 && world.peers()[0].answers() > before + 450, "silent for {silence} ms");
    world.target_mut(0).unwrap().on = true;
    let alone = world.targets()[0].received();
    world.run_for_ms(2_000);
    assert_eq!(world.targets()[0].received(), alone, "connections stay where they are");
    world.peers_mut()[0].hang_up();
    world.run_for_ms(500);
    assert!(world.targets()[0].received() > alone, "it has calls again");
    assert_lawful(&mut world);
}

/// Enough entries for the leader to cut its log and for nobody to have kept what was cut.
const ENTRIES_BEFORE_A_SNAPSHOT: u32 = 20_000;

#[test]
fn a_member_that_was_away_for_long_gets_a_snapshot_and_can_own() {
    let mut world = connected(Setup::default());
    let now = world.now();
    world.peers_mut()[0].set_traffic(now, None);
    let first = owner(&world);
    let away = world.nodes().map(|(id, _)| id).find(|id| *id != first).unwrap();
    world.kill(away);
    for batch in 0..ENTRIES_BEFORE_A_SNAPSHOT / 50 {
        for _ in 0..50 {
            let draining = batch % 2 == 0;
            world.ask(first, OperatorRequest::TargetSet { name: "t1".into(), draining });
        }
        world.run_for_ms(4);
    }
    world.restart(away, true).unwrap();
    let reached = |world: &World| {
        let applied = |id| world.node(id).map(|node| node.member().state().applied());
        applied(away) == applied(first)
    };
    world.run_until(PATIENCE_MS, reached).expect("it catches up");
    assert!(world.snapshots() > 0, "its entries are not kept any more");

    let now = world.now();
    world.peers_mut()[0].set_traffic(now, Some(1_000));
    world.run_for_ms(500);
    let reply = ask(&mut world, first, OperatorRequest::Handover { to: Some(away) });
    assert!(matches!(reply, OperatorReply::Done(_)), "{reply:?}");
    let start = world.now();
    world.run_for_ms(200);
    assert!(world.peers()[0].first_answer_since(start).is_some());
    assert_lawful(&mut world);
}

/// Every failure of an owner that was told, by whomever.
fn failures(world: &World) -> Vec<(Owner, FailureCause, u64)> {
    let events = world.nodes().flat_map(|(_, node)| node.events());
    let failed = events.filter_map(|(_, event)| match event {
        MemberEvent::OwnerFailed { owner, cause, detected_in_ms } => {
            Some((*owner, *cause, *detected_in_ms))
        }
        _ => None,
    });
    failed.collect()
}

#[test]
fn the_failure_of_an_owner_is_told_once_with_its_cause_and_a_handover_is_none() {
    let mut world = connected(Setup::default());
    world.run_for_ms(1_500);
    let first = owner(&world);
    let done = ask(&mut world, first, OperatorRequest::Handover { to: None });
    assert!(matches!(done, OperatorReply::Done(_)), "{done:?}");
    world.run_for_ms(1_000);
    assert_eq!(failures(&world), [], "nobody failed");

    let second = owner(&world);
    world.freeze(second, true);
    takeover_ms(&mut world, second);
    let told = failures(&world);
    let [(owner_then, FailureCause::Silent, ms)] = told[..] else { panic!("{told:?}") };
    assert_eq!(owner_then.member, second);
    assert!((25..=50).contains(&ms), "{ms} ms");
    world.freeze(second, false);
    world.run_for_ms(1_000);

    let third = owner(&world);
    world.kill(third);
    for (id, _) in world.nodes().map(|(id, node)| (id, node.life())).collect::<Vec<_>>() {
        if id != third {
            world.break_connection(id, third);
        }
    }
    takeover_ms(&mut world, third);
    let told = failures(&world);
    let [_, (owner_then, FailureCause::Disconnected, _)] = told[..] else { panic!("{told:?}") };
    assert_eq!(owner_then.member, third);
    assert_lawful(&mut world);
}

#[test]
fn a_peer_that_sends_to_an_sa_that_is_gone_is_told_now_and_then_by_the_owner_alone() {
    let mut world = connected(Setup { peers: 2, ..Setup::default() });
    world.run_for_ms(500);
    let now = world.now();
    world.peers_mut()[0].rekey(now);
    world.run_for_ms(3_000);
    let told = |world: &World| count(world, |e| matches!(e, MemberEvent::SpiDisowned { .. }));
    assert_eq!(told(&world), 0, "stragglers of a rekey are nothing to speak of");
    // Everything it ever sent once more, by whoever: among it packets of the SA that is gone.
    let (first, sa) = (owner(&world), world.peers()[0].sending());
    for _ in 0..5 {
        world.replay_everything();
        world.run_for_ms(1_000);
    }
    assert_eq!(told(&world), 1, "once in ten seconds");
    let deleted =
        |event: &MemberEvent| matches!(event, MemberEvent::SpiDisowned { deleted: true, .. });
    assert_eq!(count(&world, deleted), 1);
    let counters = world.nodes().map(|(id, node)| (id, node.member().ike_counters().disowned));
    for (id, disowned) in counters {
        assert_eq!(disowned, u64::from(id == first), "member {id}");
    }
    assert_eq!(world.peers()[0].sending(), sa, "what is in use is not touched");
    world.run_for_ms(6_000);
    world.replay_everything();
    world.run_for_ms(1_000);
    assert_eq!(told(&world), 2, "and again after them");
    assert_lawful(&mut world);
}
