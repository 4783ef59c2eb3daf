//! A cluster in virtual time: what the three laws and the takeover promise.

mod handover;
mod laws;
mod members;
mod operator;
mod paths;
mod policies;
mod readiness;
mod records;
mod scale;
mod shapes;
mod succession;
mod takeover;
mod targets;

use crate::testing::{Peer, Setup, World};
use crate::{MemberEvent, OperatorReply, OperatorRequest};
use holdfast_cluster::MemberId;
use holdfast_ike::TakeoverPolicy;

/// The time after which anything that is to happen has happened.
const PATIENCE_MS: u64 = 10_000;

/// The first seeds, `few` of them unless the environment asks for another number.
fn seeds(few: u64) -> std::ops::RangeInclusive<u64> {
    let wanted = std::env::var("HOLDFAST_SEEDS").ok().and_then(|text| text.parse().ok());
    1..=wanted.unwrap_or(few)
}

/// A world whose seed is printed should the test fail.
fn world(setup: Setup) -> World {
    println!("seed {}: {setup:?}", setup.seed);
    World::new(setup).unwrap()
}

/// A world with an owner, all targets up, and a peer whose calls are answered.
fn connected(setup: Setup) -> World {
    connect(world(setup))
}

fn connect(mut world: World) -> World {
    world.run_until(PATIENCE_MS, |world| world.owner().is_some()).expect("an owner");
    let now = world.now();
    world.peers_mut().iter_mut().for_each(|peer| peer.connect(now));
    world
        .run_until(PATIENCE_MS, |world| world.peers().iter().all(Peer::is_connected))
        .expect("tunnels");
    let now = world.now();
    world.peers_mut().iter_mut().for_each(|peer| peer.set_traffic(now, Some(1_000)));
    world
        .run_until(PATIENCE_MS, |world| world.peers().iter().all(|peer| peer.answers() > 0))
        .expect("answers");
    world
}

fn owner(world: &World) -> MemberId {
    world.owner().expect("an owner")
}

/// The time until another member than `before` answers the peer, in milliseconds.
fn takeover_ms(world: &mut World, before: MemberId) -> u64 {
    let start = world.now();
    world
        .run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != before))
        .expect("a new owner");
    world
        .run_until(PATIENCE_MS, |world| world.peers()[0].first_answer_since(start).is_some())
        .expect("an answer through the new owner");
    world.now().ms_since(start)
}

fn ask(world: &mut World, member: MemberId, request: OperatorRequest) -> OperatorReply {
    let question = world.ask(member, request);
    for _ in 0..PATIENCE_MS {
        if let Some(reply) = world.answer(member, question) {
            return reply;
        }
        world.run_for_ms(1);
    }
    panic!("no answer");
}

fn count(world: &World, wanted: impl Fn(&MemberEvent) -> bool) -> usize {
    world.nodes().flat_map(|(_, node)| node.events()).filter(|(_, event)| wanted(event)).count()
}

/// No law was broken; prints what happened otherwise.
fn assert_lawful(world: &mut World) {
    let violations = world.verdict();
    if !violations.is_empty() {
        for (id, node) in world.nodes() {
            for (at, event) in node.events() {
                println!("{:>9} us member {id}: {event}", at.0 / 1_000);
            }
        }
    }
    assert_eq!(violations, []);
}
