//! Targets are told who owns the common address, and tell how they are.

use super::*;
use crate::{Delivery, NoticeState, OwnerNotice, TargetEvent, TargetReply, TargetReport};
use holdfast_cluster::{Epoch, TargetId};
use holdfast_packet::Nanos;

const TARGETS: [TargetId; 3] = [TargetId(1), TargetId(2), TargetId(3)];

/// Every target joins every member, as `holdfast-target` does.
fn join_all(world: &mut World) {
    let members: Vec<MemberId> = world.nodes().map(|(id, _)| id).collect();
    for member in members {
        for target in TARGETS {
            world.target_says(member, target, TargetEvent::Joined);
        }
    }
}

/// A world in which every target has joined every member.
fn joined(setup: Setup) -> World {
    let mut world = world(setup);
    world.run_until(PATIENCE_MS, |world| world.owner().is_some()).expect("an owner");
    join_all(&mut world);
    world.run_for_ms(100);
    world
}

/// What `member` told since `start`.
fn told(world: &World, member: MemberId, start: Nanos) -> Vec<(TargetId, OwnerNotice)> {
    let notices = world.node(member).unwrap().notices().iter();
    let lately = notices.filter(|(at, ..)| *at >= start);
    lately.map(|(_, target, notice)| (*target, notice.clone())).collect()
}

fn rows(world: &mut World, member: MemberId) -> Vec<TargetReply> {
    match ask(world, member, OperatorRequest::TargetList) {
        OperatorReply::TargetList(list) => list.targets,
        other => panic!("{other:?}"),
    }
}

fn epoch(world: &World, member: MemberId) -> Epoch {
    world.node(member).unwrap().member().state().owner().unwrap().epoch
}

#[test]
fn every_target_is_told_of_a_takeover_at_once_and_until_it_acknowledges() {
    let mut world = joined(Setup::default());
    let first = owner(&world);
    assert_eq!(told(&world, first, Nanos::ZERO).len(), 3 + 3, "joined, and once repeated");
    world.kill(first);
    world.run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first));
    let (second, taken) = (owner(&world), world.now());
    world.run_for_ms(1);
    let notices = told(&world, second, taken);
    let named: Vec<TargetId> = notices.iter().map(|(target, _)| *target).collect();
    assert_eq!(named, TARGETS);
    let now = epoch(&world, second);
    for (target, notice) in notices {
        assert_eq!((notice.owner.member, notice.owner.epoch), (second, now));
        assert_eq!(notice.key, None, "it takes clear packets");
        if target != TargetId(3) {
            let event = TargetEvent::Acknowledged { epoch: now };
            world.target_says(second, target, event);
        }
    }
    world.run_for_ms(5_000);
    let later = told(&world, second, taken.plus_ms(2));
    assert!(later.len() >= 5 && later.iter().all(|(target, _)| *target == TargetId(3)));
    let rows = rows(&mut world, second);
    assert_eq!(rows[0].notice, NoticeState::Acknowledged { epoch: now });
    assert!(rows[2].overdue && !rows[1].overdue);
    let OperatorReply::Status(status) = ask(&mut world, second, OperatorRequest::Status) else {
        panic!("no status")
    };
    let named = |text: &str| status.problems.iter().any(|problem| problem.what.contains(text));
    assert!(named("target t3 (0 connections) has not acknowledged"), "{:?}", status.problems);
}

#[test]
fn a_frozen_owner_tells_nobody_anything_when_it_wakes_up() {
    let mut world = joined(Setup::default());
    let first = owner(&world);
    world.freeze(first, true);
    world.run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first));
    let thawed = world.now();
    world.freeze(first, false);
    world.run_for_ms(3_000);
    assert!(told(&world, first, thawed).is_empty());
    assert_lawful(&mut world);
}

#[test]
fn a_marked_target_shares_a_key_of_the_epoch_with_each_owner() {
    let mut world = joined(Setup { delivery: Delivery::Marked, ..Setup::default() });
    let first = owner(&world);
    let (_, notice) = told(&world, first, Nanos::ZERO).pop().unwrap();
    let others = told(&world, first, Nanos::ZERO);
    let keys: Vec<_> = others.iter().rev().take(3).map(|(_, n)| n.key.clone().unwrap()).collect();
    assert!(keys[0] != keys[1] && keys[1] != keys[2], "each target has its own");
    world.kill(first);
    world.run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first));
    let second = owner(&world);
    world.run_for_ms(1);
    let told = told(&world, second, Nanos::ZERO);
    let (_, next) = told.iter().find(|(_, next)| next.inside == notice.inside).unwrap();
    assert!(next.key.is_some(), "any owner can mark at once");
    assert_ne!(next.key, notice.key);
    assert_lawful(&mut world);
}

#[test]
fn a_target_that_refused_or_is_not_well_is_named() {
    let mut world = joined(Setup::default());
    let first = owner(&world);
    let now = epoch(&world, first);
    let known = Epoch(now.0 + 1);
    world.target_says(first, TargetId(1), TargetEvent::Refused { epoch: now, known });
    let sick = TargetReport { healthy: false, load_percent: 30, ..TargetReport::default() };
    world.target_says(first, TargetId(2), TargetEvent::Report(sick));
    let rows = rows(&mut world, first);
    assert_eq!((rows[0].notice, rows[0].refused), (NoticeState::Refused { known }, 1));
    assert_eq!((rows[1].report, rows[1].open), (Some(sick), false));
    assert!(rows[2].open);
}
