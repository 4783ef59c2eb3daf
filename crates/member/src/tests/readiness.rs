//! Whether a successor is ready: who stands first, and who is told when there is none.

use super::*;
use crate::ClusterStatusReply;
use holdfast_packet::Side;
use holdfast_replica::Timing;

/// So many SAs that a member which starts needs an eighth of a second to make them ready.
const STORED: u32 = 8_000;

/// A world in which member 1 owns and member 2 has just come back: it follows and is not warm.
fn with_a_cold_member(setup: Setup) -> World {
    println!("seed {}: {setup:?}", setup.seed);
    let stored = scale::disk_with(STORED);
    let mut world = connect(World::storing(setup, &stored, STORED as usize).unwrap());
    world.run_for_ms(1_500);
    assert_eq!(owner(&world), MemberId(1));
    world.kill(MemberId(2));
    world.run_for_ms(300);
    world.restart(MemberId(2), false).unwrap();
    world.run_for_ms(40);
    world
}

#[test]
fn a_member_whose_sas_are_not_ready_lets_a_ready_one_take_over() {
    for seed in seeds(5) {
        let mut world = with_a_cold_member(Setup { seed, ..Setup::default() });
        world.kill(MemberId(1));
        let ms = takeover_ms(&mut world, MemberId(1));
        assert_eq!(owner(&world), MemberId(3), "seed {seed}: the one that was ready");
        println!("seed {seed}: outage {ms} ms");
        assert!(ms <= 75, "seed {seed}: {ms} ms");
        assert_lawful(&mut world);
    }
}

#[test]
fn once_it_is_ready_it_takes_over_first_again() {
    let mut world = with_a_cold_member(Setup::default());
    world.run_for_ms(500);
    world.kill(MemberId(1));
    takeover_ms(&mut world, MemberId(1));
    assert_eq!(owner(&world), MemberId(2));
    assert_lawful(&mut world);
}

#[test]
fn when_nobody_is_ready_one_that_is_not_takes_over_within_the_bound() {
    for seed in seeds(5) {
        // The other two are it and a witness, which owns nothing.
        let mut world = with_a_cold_member(Setup { seed, witnesses: 1, ..Setup::default() });
        let killed = world.now();
        world.kill(MemberId(1));
        world
            .run_until(PATIENCE_MS, |world| world.owner() == Some(MemberId(2)))
            .expect("better unprepared than nobody");
        let ms = world.now().ms_since(killed);
        println!("seed {seed}: owned after {ms} ms");
        // A tick more than the election timeout, one place, and the commits.
        let timing = Timing::DEFAULT;
        let ticks = timing.election_ticks + 1 + timing.stagger_ticks;
        assert!(ms <= ticks * timing.tick_ms + 10, "seed {seed}: {ms} ms");
        assert_lawful(&mut world);
    }
}

fn cluster_status(world: &mut World, member: MemberId) -> ClusterStatusReply {
    match ask(world, member, OperatorRequest::ClusterStatus) {
        OperatorReply::ClusterStatus(reply) => *reply,
        other => panic!("{other:?}"),
    }
}

fn alarms(world: &World) -> usize {
    count(world, |event| matches!(event, MemberEvent::NoSuccessor { .. }))
}

#[test]
fn a_missing_successor_is_a_number_a_problem_and_one_line_of_the_log() {
    let mut world = connected(Setup::default());
    world.run_for_ms(1_500);
    let (first, before) = (owner(&world), alarms(&world));
    assert_eq!(cluster_status(&mut world, first).successors_ready, Some(2));
    assert_eq!(cluster_status(&mut world, MemberId(2)).successors_ready, None, "the owner knows");

    world.kill(MemberId(2));
    world.run_for_ms(1_000);
    assert_eq!(cluster_status(&mut world, first).successors_ready, Some(1));
    assert_eq!(alarms(&world), before, "one is enough");

    world.set_port(MemberId(3), Side::Inside, false);
    world.run_for_ms(1_000);
    assert_eq!(cluster_status(&mut world, first).successors_ready, Some(0));
    assert_eq!(alarms(&world), before + 1, "once");
    let OperatorReply::Status(status) = ask(&mut world, first, OperatorRequest::Status) else {
        panic!("no status")
    };
    let what = status.problems.iter().map(|problem| problem.what.as_str());
    let what: Vec<_> = what.filter(|what| what.contains("could take")).collect();
    let expected = "nobody could take 198.51.100.100 over at once \
        (member 2: not connected; member 3: inside port down)";
    assert_eq!(what, [expected]);

    world.set_port(MemberId(3), Side::Inside, true);
    world.run_for_ms(1_000);
    assert_eq!(cluster_status(&mut world, first).successors_ready, Some(1));
    let cleared = |event: &MemberEvent| matches!(event, MemberEvent::SuccessorReady { .. });
    assert!(count(&world, cleared) > 0);
    assert_lawful(&mut world);
}
