//! Members change and disks fail while a peer's traffic goes on.

use super::{ask, assert_lawful, connected, owner, seeds, takeover_ms};
use crate::testing::{Life, Setup};
use crate::{MemberEvent, OperatorReply, OperatorRequest, RefusedKind};
use holdfast_cluster::{MemberId, MemberRecord};

fn others(owner: MemberId) -> Vec<MemberId> {
    (1..=3).map(MemberId).filter(|id| *id != owner).collect()
}

#[test]
fn an_owner_whose_disk_fails_hands_over_and_ends_with_the_reason() {
    for seed in seeds(20) {
        let mut world = connected(Setup { seed, ..Setup::default() });
        let before = owner(&world);
        world.fail_disk(before);
        let took_ms = takeover_ms(&mut world, before);
        // Faster than any election: it is a handover.
        assert!(took_ms <= 25, "seed {seed}: {took_ms} ms");
        world.run_for_ms(1_500);
        let node = world.node(before).unwrap();
        assert_eq!(node.life(), Life::Dead, "seed {seed}: it ends");
        let told = node.events().iter().any(|(_, event)| {
            matches!(event, MemberEvent::StorageFailed { reason } if reason.contains("no space"))
        });
        assert!(told, "seed {seed}");
        assert_lawful(&mut world);
    }
}

#[test]
fn a_follower_whose_disk_fails_acknowledges_nothing_and_ends_and_nobody_notices() {
    for seed in seeds(20) {
        let mut world = connected(Setup { seed, ..Setup::default() });
        let before = owner(&world);
        let follower = others(before)[0];
        let start = world.now();
        world.fail_disk(follower);
        world.run_for_ms(500);
        assert_eq!(world.node(follower).unwrap().life(), Life::Dead);
        assert_eq!(owner(&world), before, "seed {seed}");
        assert!(world.peers()[0].first_answer_since(start).is_some(), "seed {seed}");
        assert_lawful(&mut world);
    }
}

#[test]
fn an_owner_whose_disk_fails_with_nobody_left_falls_silent() {
    let mut world = connected(Setup::default());
    let before = owner(&world);
    others(before).into_iter().for_each(|id| world.kill(id));
    world.fail_disk(before);
    world.run_for_ms(1_500);
    assert_eq!(world.owner(), None);
    assert_eq!(world.node(before).unwrap().life(), Life::Dead);
    assert_lawful(&mut world);
}

fn change(add: Option<u64>, remove: Option<u64>) -> OperatorRequest {
    let record = |id: u64| MemberRecord { address: format!("10.99.0.{id}:7000"), witness: false };
    OperatorRequest::ChangeMembers {
        add: add.map(|id| (MemberId(id), record(id))),
        remove: remove.map(MemberId),
    }
}

#[test]
fn the_operator_removes_a_member_and_sees_how_far_it_is() {
    let mut world = connected(Setup::default());
    let before = owner(&world);
    world.run_for_ms(200);
    let leaving = others(before)[0];
    let OperatorReply::Done(done) = ask(&mut world, before, change(None, Some(leaving.0))) else {
        panic!("it begins");
    };
    assert!(done.text.contains("is about to leave"), "{}", done.text);
    world.run_for_ms(200);
    let OperatorReply::ClusterStatus(status) =
        ask(&mut world, before, OperatorRequest::ClusterStatus)
    else {
        panic!("a status");
    };
    assert_eq!(status.members.len(), 2);
    assert_eq!((status.retired, status.change), (vec![leaving], None));
    assert_eq!(owner(&world), before);
    let OperatorReply::Refused(refused) = ask(&mut world, before, change(Some(leaving.0), None))
    else {
        panic!("its id is not used again");
    };
    assert_eq!(refused.kind, RefusedKind::Usage);
}

#[test]
fn a_member_that_is_waited_for_shows_in_the_status_and_can_be_given_up() {
    let mut world = connected(Setup::default());
    let before = owner(&world);
    world.run_for_ms(200);
    ask(&mut world, before, change(Some(4), Some(others(before)[0].0)));
    world.run_for_ms(200);
    let status = |world: &mut crate::testing::World| match ask(
        world,
        before,
        OperatorRequest::ClusterStatus,
    ) {
        OperatorReply::ClusterStatus(status) => *status,
        other => panic!("{other:?}"),
    };
    let change = status(&mut world).change.unwrap();
    assert!(change.contains("member 4 replaces") && change.contains("waited for"), "{change}");
    ask(&mut world, before, OperatorRequest::CancelMemberChange);
    world.run_for_ms(200);
    let now = status(&mut world);
    assert_eq!((now.change, now.members.len()), (None, 3));
}

#[test]
fn an_owner_that_leaves_hands_the_traffic_over_first() {
    for seed in seeds(10) {
        let mut world = connected(Setup { seed, ..Setup::default() });
        let before = owner(&world);
        world.run_for_ms(200);
        world.ask(before, change(None, Some(before.0)));
        let took_ms = takeover_ms(&mut world, before);
        assert!(took_ms <= 60, "seed {seed}: {took_ms} ms");
        world.run_for_ms(500);
        assert!(
            !world
                .node(owner(&world))
                .unwrap()
                .member()
                .state()
                .membership()
                .records()
                .any(|(id, _)| id == before),
            "seed {seed}: it left"
        );
    }
}

#[test]
fn a_forced_survivor_repeats_no_number() {
    for seed in seeds(20) {
        let mut world = connected(Setup { seed, ..Setup::default() });
        let before = owner(&world);
        let survivor = others(before)[0];
        // The survivor misses what the two others grant and use.
        world.isolate(survivor);
        world.run_for_ms(2_000);
        let behind = world.node(survivor).unwrap().member().state().applied();
        assert!(behind < world.node(before).unwrap().member().state().applied(), "seed {seed}");
        (1..=3).map(MemberId).for_each(|id| world.kill(id));
        world.run_for_ms(100);
        world.heal();
        world.force_quorum(survivor).unwrap();
        world.run_until(5_000, |world| world.owner() == Some(survivor)).expect("it owns");
        let state = world.node(survivor).unwrap().member().state();
        assert_eq!((state.children().len(), state.ike_sas().len()), (0, 0), "seed {seed}");
        assert_eq!(state.membership().generation(), 1);
        // The peer goes on with its SA for a while, and is answered nothing.
        world.run_for_ms(500);
        assert_lawful(&mut world);
    }
}
