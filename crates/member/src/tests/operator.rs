//! What an operator sees and does.

use super::*;
use crate::{MemberRole, RefusedKind};

#[test]
fn a_handover_loses_next_to_nothing() {
    let mut world = connected(Setup::default());
    world.run_for_ms(1_000);
    let before = owner(&world);
    let to = MemberId(if before == MemberId(3) { 1 } else { 3 });
    let start = world.now();
    let reply = ask(&mut world, before, OperatorRequest::Handover { to: Some(to) });
    let OperatorReply::Done(done) = reply else { panic!("{reply:?}") };
    println!("{}", done.text);
    assert_eq!(owner(&world), to);
    world.run_for_ms(1_000);
    let silence = world.peers()[0].longest_silence_ms(start, world.now());
    println!("silent for {silence} ms");
    assert!(silence <= 20, "silent for {silence} ms");
    assert_lawful(&mut world);
}

#[test]
fn a_handover_back_and_forth_keeps_the_tunnel() {
    let mut world = connected(Setup::default());
    for _ in 0..6 {
        world.run_for_ms(300);
        let before = owner(&world);
        let reply = ask(&mut world, before, OperatorRequest::Handover { to: None });
        assert!(matches!(reply, OperatorReply::Done(_)), "{reply:?}");
        assert_ne!(owner(&world), before);
    }
    world.run_for_ms(300);
    assert_lawful(&mut world);
}

#[test]
fn a_handover_to_nobody_is_refused_with_advice() {
    let mut world = connected(Setup::default());
    let before = owner(&world);
    let others: Vec<MemberId> =
        world.nodes().map(|(id, _)| id).filter(|id| *id != before).collect();
    world.kill(others[0]);
    world.run_for_ms(500);
    let reply = ask(&mut world, before, OperatorRequest::Handover { to: Some(others[0]) });
    let OperatorReply::Refused(refused) = reply else { panic!("{reply:?}") };
    assert_eq!(refused.kind, RefusedKind::Degraded);
    assert_eq!(owner(&world), before);

    let reply = ask(&mut world, others[1], OperatorRequest::Handover { to: None });
    let OperatorReply::Refused(refused) = reply else { panic!("{reply:?}") };
    assert_eq!(refused.kind, RefusedKind::NotOwner { owner: Some(before) });
    assert_lawful(&mut world);
}

#[test]
fn a_handover_that_fails_leaves_an_owner() {
    let mut world = connected(Setup::default());
    world.run_for_ms(200);
    let before = owner(&world);
    let to = MemberId(if before == MemberId(3) { 1 } else { 3 });
    // It can be heard, but hears nothing: it will never campaign.
    for id in 1..=3 {
        world.cut(MemberId(id), to);
    }
    let reply = ask(&mut world, before, OperatorRequest::Handover { to: Some(to) });
    assert!(matches!(reply, OperatorReply::Refused(_)), "{reply:?}");
    let start = world.now();
    world.run_for_ms(500);
    assert!(world.peers()[0].first_answer_since(start).is_some());
    assert_lawful(&mut world);
}

#[test]
fn a_drained_target_gets_no_new_connections_on_any_owner() {
    let mut world = connected(Setup { targets: 2, ..Setup::default() });
    let first = owner(&world);
    let request = OperatorRequest::TargetSet { name: "t1".into(), draining: true };
    let reply = ask(&mut world, first, request);
    assert!(matches!(reply, OperatorReply::Done(_)), "{reply:?}");
    world.kill(first);
    takeover_ms(&mut world, first);
    world.run_for_ms(10);
    let before = world.targets()[0].received();
    world.run_for_ms(500);
    assert_eq!(world.targets()[0].received(), before, "flows moved with the owner's table");

    let second = owner(&world);
    let request = OperatorRequest::TargetSet { name: "t9".into(), draining: true };
    let OperatorReply::Refused(refused) = ask(&mut world, second, request) else { panic!() };
    assert_eq!(refused.kind, RefusedKind::Usage);
    assert!(refused.next_action.contains("t1, t2"), "{}", refused.next_action);
    assert_lawful(&mut world);
}

#[test]
fn status_tells_who_owns_what_is_ready_and_what_to_do() {
    let mut world = connected(Setup::default());
    world.run_for_ms(500);
    let first = owner(&world);
    let OperatorReply::Status(status) = ask(&mut world, first, OperatorRequest::Status) else {
        panic!()
    };
    assert_eq!(status.role, MemberRole::Owner);
    assert_eq!(status.problems, []);
    assert_eq!(status.cluster.owner.map(|owner| owner.member), Some(first));
    assert_eq!((status.ike_sas, status.child_sas.len()), (1, 1));
    assert!(status.child_sas[0].takeover.ready, "{:?}", status.child_sas[0].takeover);

    let standby = world.nodes().map(|(id, _)| id).find(|id| *id != first).unwrap();
    let OperatorReply::Status(there) = ask(&mut world, standby, OperatorRequest::Status) else {
        panic!()
    };
    assert_eq!(there.role, MemberRole::Standby);
    assert_eq!(there.child_sas.len(), 1);
    assert!(there.targets.iter().all(|target| target.up), "a standby knows its neighbours");

    world.kill(standby);
    world.target_mut(1).unwrap().on = false;
    world.run_for_ms(3_000);
    let OperatorReply::Status(status) = ask(&mut world, first, OperatorRequest::Status) else {
        panic!()
    };
    assert_eq!(status.problems.len(), 2, "{:?}", status.problems);
    assert!(status.problems.iter().all(|problem| !problem.next_action.is_empty()));
    assert!(!status.child_sas[0].takeover.ready, "two members would be one after a failure");
    assert_lawful(&mut world);
}

#[test]
fn flows_and_sas_can_be_listed() {
    let mut world = connected(Setup { workers: 2, ..Setup::default() });
    world.run_for_ms(200);
    let first = owner(&world);
    let OperatorReply::FlowList(list) =
        ask(&mut world, first, OperatorRequest::FlowList { limit: 10 })
    else {
        panic!()
    };
    assert_eq!((list.flows.len(), list.truncated, list.silent_workers.len()), (10, true, 0));
    assert!(list.flows.iter().all(|flow| flow.target.starts_with('t')));
    let OperatorReply::SaList(list) = ask(&mut world, first, OperatorRequest::SaList) else {
        panic!()
    };
    assert_eq!((list.ike_sas.len(), list.child_sas.len()), (1, 1));
    assert_eq!(list.ike_sas[0].identity, "198.51.100.10");
    assert_lawful(&mut world);
}
