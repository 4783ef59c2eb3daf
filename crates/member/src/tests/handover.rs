//! Handing over on purpose: nothing is lost, and whatever goes wrong leaves an owner.

use super::*;
use crate::testing::Violation;
use holdfast_cluster::Owner;
use holdfast_datapath::{DropReason, Metric};
use holdfast_packet::Side;
use holdfast_replica::Timing;

/// Requests without an answer, once nothing is under way.
fn unanswered(world: &mut World) -> u64 {
    let now = world.now();
    world.peers_mut().iter_mut().for_each(|peer| peer.set_traffic(now, None));
    world.run_for_ms(100);
    let lost = |peer: &Peer| peer.requests() - peer.answers();
    let lost = world.peers().iter().map(lost).sum();
    let now = world.now();
    world.peers_mut().iter_mut().for_each(|peer| peer.set_traffic(now, Some(1_000)));
    lost
}

fn metric(world: &World, metric: Metric) -> u64 {
    let counters = world.nodes().flat_map(|(_, node)| node.counters());
    counters.map(|counters| counters.metric(metric)).sum()
}

fn dropped(world: &World, reason: DropReason) -> u64 {
    let counters = world.nodes().flat_map(|(_, node)| node.counters());
    counters.map(|counters| counters.dropped(reason)).sum()
}

fn hand_over(world: &mut World, to: Option<MemberId>) -> OperatorReply {
    let before = owner(world);
    ask(world, before, OperatorRequest::Handover { to })
}

/// Ten handovers in a row under probes of 1 kHz through every tunnel; what is lost.
fn lost_in_ten_handovers(setup: Setup) -> u64 {
    lost_in_ten_handovers_of(connected(setup))
}

fn lost_in_ten_handovers_of(mut world: World) -> u64 {
    world.run_for_ms(1_500);
    let (before, rekeys) = (unanswered(&mut world), rekeys(&world));
    world.run_for_ms(50);
    for round in 0..10 {
        let reply = hand_over(&mut world, None);
        let OperatorReply::Done(done) = reply else { panic!("round {round}: {reply:?}") };
        println!("{}", done.text);
        world.run_for_ms(50 + round * 7);
    }
    let lost = unanswered(&mut world) - before;
    assert_eq!(self::rekeys(&world), rekeys, "no renewal");
    assert!(metric(&world, Metric::Forwarded) > 0);
    assert_eq!(dropped(&world, DropReason::Ambiguous), 0);
    assert_lawful(&mut world);
    lost
}

fn rekeys(world: &World) -> u64 {
    world.peers().iter().map(Peer::rekeys).sum()
}

#[test]
fn a_handover_with_thousands_of_sas_loses_no_packet_either() {
    const STORED: u32 = 3_000;
    let setup = Setup { peers: 3, workers: 2, ..Setup::default() };
    println!("seed {}: {setup:?}", setup.seed);
    let world = World::storing(setup, &scale::disk_with(STORED), STORED as usize).unwrap();
    assert_eq!(lost_in_ten_handovers_of(connect(world)), 0);
}

#[test]
fn a_handover_loses_no_packet_at_1_khz_in_either_direction_and_renews_nothing() {
    for seed in seeds(3) {
        assert_eq!(lost_in_ten_handovers(Setup { seed, ..Setup::default() }), 0, "seed {seed}");
    }
}

#[test]
fn nor_with_several_workers_peers_members_and_a_slow_disk() {
    let setup = Setup { seed: 11, members: 5, workers: 4, peers: 8, ..Setup::default() };
    assert_eq!(lost_in_ten_handovers(setup), 0);
    let setup = Setup { seed: 12, sync_us: 6_000, timing: Timing::RELAXED, ..Setup::default() };
    assert_eq!(lost_in_ten_handovers(setup), 0);
}

#[test]
fn nothing_replayed_passes_after_a_handover() {
    let mut world = connected(Setup::default());
    world.run_for_ms(1_500);
    for _ in 0..3 {
        let reply = hand_over(&mut world, None);
        assert!(matches!(reply, OperatorReply::Done(_)), "{reply:?}");
        world.replay_everything();
        world.run_for_ms(100);
    }
    assert_lawful(&mut world);
}

#[test]
fn an_exchange_under_way_is_finished_first_and_a_new_one_goes_on_at_the_successor() {
    for after_us in (0..6_000).step_by(400) {
        let mut world = connected(Setup { seed: after_us + 1, ..Setup::default() });
        world.run_for_ms(1_500);
        let before = unanswered(&mut world);
        let question = {
            let member = owner(&world);
            (member, world.ask(member, OperatorRequest::Handover { to: None }))
        };
        world.run_for_us(after_us);
        let now = world.now();
        world.peers_mut()[0].rekey(now);
        world.run_for_ms(300);
        let reply = world.answer(question.0, question.1);
        assert!(matches!(reply, Some(OperatorReply::Done(_))), "{after_us} us: {reply:?}");
        assert_eq!(world.peers()[0].rekeys(), 1, "rekeyed without a repetition, {after_us} us");
        assert_eq!(unanswered(&mut world), before, "{after_us} us");
        assert_lawful(&mut world);
    }
}

/// The successor of the handovers below, which is not the owner.
fn other_than(owner: MemberId) -> MemberId {
    MemberId(if owner == MemberId(3) { 1 } else { 3 })
}

fn refusal(reply: &OperatorReply) -> String {
    match reply {
        OperatorReply::Refused(refused) => refused.message.clone(),
        other => panic!("{other:?}"),
    }
}

/// Traffic goes on through `wanted`, nothing is ambiguous, and nothing was renewed.
fn assert_carried_on_by(world: &mut World, wanted: MemberId, rekeys_before: u64) {
    world.run_for_ms(300);
    assert_eq!(owner(world), wanted);
    let before = unanswered(world);
    world.run_for_ms(200);
    assert_eq!(unanswered(world), before, "nothing is lost any more");
    assert_eq!(rekeys(world), rekeys_before);
    assert_eq!(dropped(world, DropReason::Ambiguous), 0);
    assert_lawful(world);
}

#[test]
fn a_successor_that_dies_at_any_stage_gives_the_address_back_where_it_was() {
    let mut taken_back = 0;
    for after_us in (0..5_000).step_by(250) {
        let mut world = connected(Setup { seed: after_us + 1, ..Setup::default() });
        world.run_for_ms(1_500);
        let (before, rekeys) = (owner(&world), rekeys(&world));
        let start = world.now();
        let to = other_than(before);
        let question = world.ask(before, OperatorRequest::Handover { to: Some(to) });
        world.run_for_us(after_us);
        world.kill(to);
        world.run_for_ms(2_500);
        let silence = world.peers()[0].longest_silence_ms(start, world.now());
        let reply = world.answer(before, question).expect("the operator is told");
        if matches!(reply, OperatorReply::Done(_)) {
            assert_lawful(&mut world);
            continue;
        }
        println!("{after_us} us: silent for {silence} ms, {}", refusal(&reply));
        assert!(silence <= 160, "{after_us} us: silent for {silence} ms");
        let now = owner(&world);
        assert_ne!(now, to);
        assert_carried_on_by(&mut world, now, rekeys);
        taken_back += u64::from(now == before);
    }
    assert!(taken_back >= 8, "before the successor was elected the old owner carries on");
}

/// The ownership in the records of who owns.
fn ownership(world: &World) -> Owner {
    world.node(owner(world)).unwrap().member().state().owner().expect("an ownership")
}

/// Whether a handover failed because the numbers were settled for a member that does not vote any more.
fn found_no_successor(world: &World, to: MemberId) -> bool {
    let wanted = format!("member {to} is not another member");
    count(
        world,
        |event| matches!(event, MemberEvent::HandoverFailed { reason, .. } if reason.contains(&wanted)),
    ) > 0
}

/// The member that was removed ends, and nothing else happened.
fn assert_lawful_but_for_the_removed(world: &mut World, removed: MemberId) {
    let mut violations = world.verdict();
    violations.retain(|violation| {
        !matches!(violation, Violation::Halted { member, reason }
            if *member == removed && reason.contains("was removed from the cluster"))
    });
    assert_eq!(violations, []);
}

#[test]
fn a_successor_removed_while_the_numbers_settle_leaves_no_owner_in_the_same_term() {
    let mut found = 0;
    for after_us in (0..4_000).step_by(100) {
        let mut world = connected(Setup { seed: after_us + 1, ..Setup::default() });
        world.run_for_ms(1_500);
        let (before, rekeys) = (ownership(&world), rekeys(&world));
        let start = world.now();
        let to = other_than(before.member);
        let remove = OperatorRequest::ChangeMembers { add: None, remove: Some(to) };
        world.ask(before.member, remove);
        world.run_for_us(after_us);
        let question = world.ask(before.member, OperatorRequest::Handover { to: Some(to) });
        world.run_for_ms(500);
        assert!(world.answer(before.member, question).is_some(), "{after_us} us: it is told");
        if found_no_successor(&world, to) {
            found += 1;
            let silence = world.peers()[0].longest_silence_ms(start, world.now());
            println!("{after_us} us: silent for {silence} ms, {}", ownership(&world));
            assert!(silence <= 60, "{after_us} us: silent for {silence} ms");
            assert!(
                ownership(&world).epoch > before.epoch,
                "{after_us} us: settled, and it went on"
            );
            assert_eq!((owner(&world), self::rekeys(&world)), (before.member, rekeys));
            assert_eq!(dropped(&world, DropReason::Ambiguous), 0);
        }
        world.run_for_ms(500);
        let silence = world.peers()[0].longest_silence_ms(world.now().minus_ms(400), world.now());
        assert!(silence <= 5, "{after_us} us: {silence} ms");
        assert_lawful_but_for_the_removed(&mut world, to);
    }
    assert!(found >= 3, "the successor was removed in time {found} times only");
}

#[test]
fn an_owner_that_dies_at_any_stage_is_followed_and_nothing_is_used_twice() {
    for after_us in (0..6_000).step_by(250) {
        let mut world = connected(Setup { seed: after_us + 1, ..Setup::default() });
        world.run_for_ms(1_500);
        let before = owner(&world);
        world.ask(before, OperatorRequest::Handover { to: Some(other_than(before)) });
        world.run_for_us(after_us);
        world.kill(before);
        world.run_for_ms(300);
        world.replay_everything();
        let start = world.now();
        world.run_for_ms(500);
        assert!(world.peers()[0].first_answer_since(start).is_some(), "{after_us} us");
        world.restart(before, true).unwrap();
        world.run_for_ms(500);
        assert_lawful(&mut world);
    }
}

#[test]
fn a_successor_cut_off_at_any_stage_never_makes_two_owners() {
    for after_us in (0..5_000).step_by(250) {
        let mut world = connected(Setup { seed: after_us + 1, ..Setup::default() });
        world.run_for_ms(1_500);
        let before = owner(&world);
        let to = other_than(before);
        world.ask(before, OperatorRequest::Handover { to: Some(to) });
        world.run_for_us(after_us);
        world.isolate(to);
        world.run_for_ms(400);
        world.heal();
        world.run_for_ms(2_000);
        let start = world.now();
        world.run_for_ms(300);
        assert!(world.peers()[0].first_answer_since(start).is_some(), "{after_us} us");
        assert_lawful(&mut world);
    }
}

#[test]
fn a_frozen_owner_in_a_handover_wakes_up_silent() {
    for after_us in (0..5_000).step_by(500) {
        let mut world = connected(Setup { seed: after_us + 1, ..Setup::default() });
        world.run_for_ms(1_500);
        let before = owner(&world);
        world.ask(before, OperatorRequest::Handover { to: Some(other_than(before)) });
        world.run_for_us(after_us);
        world.freeze(before, true);
        world.run_for_ms(400);
        world.freeze(before, false);
        world.run_for_ms(1_500);
        let start = world.now();
        world.run_for_ms(300);
        assert!(world.peers()[0].first_answer_since(start).is_some(), "{after_us} us");
        assert_lawful(&mut world);
    }
}

#[test]
fn a_handover_to_an_unfit_member_is_refused_with_what_is_in_the_way() {
    let mut world = connected(Setup::default());
    world.run_for_ms(1_500);
    let before = owner(&world);
    let to = other_than(before);
    world.set_port(to, Side::Inside, false);
    world.run_for_ms(50);
    let reply = hand_over(&mut world, Some(to));
    assert_eq!(refusal(&reply), format!("member {to} cannot take over: inside port down"));
    let reply = hand_over(&mut world, None);
    assert!(matches!(reply, OperatorReply::Done(_)), "to the third: {reply:?}");
    assert_ne!(owner(&world), to);
    assert_lawful(&mut world);
}

#[test]
fn a_member_that_just_started_is_not_handed_to_before_it_is_warm() {
    let mut world = connected(Setup::default());
    world.run_for_ms(1_500);
    let before = owner(&world);
    let to = other_than(before);
    world.restart(to, true).unwrap();
    world.run_for_ms(10);
    let reply = hand_over(&mut world, Some(to));
    assert!(refusal(&reply).contains(&format!("member {to} cannot take over")), "{reply:?}");
    world.run_for_ms(1_500);
    let reply = hand_over(&mut world, Some(to));
    assert!(matches!(reply, OperatorReply::Done(_)), "{reply:?}");
    assert_lawful(&mut world);
}

#[test]
fn frames_that_find_the_old_owner_later_are_passed_on_in_clear_of_its_numbers() {
    let mut world = connected(Setup::default());
    world.run_for_ms(1_500);
    let before = owner(&world);
    let sealed = |world: &World| -> u64 {
        let counters = world.node(before).unwrap().counters();
        counters.map(|counters| counters.metric(Metric::Sealed)).sum()
    };
    let reply = hand_over(&mut world, None);
    assert!(matches!(reply, OperatorReply::Done(_)), "{reply:?}");
    let (lost, done) = (unanswered(&mut world), sealed(&world));
    // A neighbour that misses every announcement.
    for _ in 0..100 {
        world.mislead_peers(before);
        world.run_for_ms(5);
    }
    let forwarded = metric(&world, Metric::Forwarded);
    assert!(forwarded > 400, "{forwarded} frames were passed on");
    assert_eq!(unanswered(&mut world), lost);
    assert_eq!(sealed(&world), done);
    world.run_for_ms(11_000);
    let later = metric(&world, Metric::Forwarded);
    world.mislead_peers(before);
    world.run_for_ms(100);
    assert_eq!(metric(&world, Metric::Forwarded), later, "not for ever");
    assert_lawful(&mut world);
}
