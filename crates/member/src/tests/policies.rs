//! What each policy does after a takeover, and how long flows stall.

use super::*;
use holdfast_ike::SyncSupport;

/// A new owner after a takeover during which the peer was silent; its next number is ambiguous.
fn paused_takeover(setup: Setup) -> (World, MemberId) {
    let mut world = connected(setup);
    world.run_for_ms(200);
    let now = world.now();
    world.peers_mut()[0].set_traffic(now, None);
    world.run_for_ms(100);
    let first = owner(&world);
    world.kill(first);
    world.run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first));
    world.run_for_ms(5);
    (world, first)
}

fn sync_setup(peer_sync: SyncSupport, esn: bool) -> Setup {
    Setup { policy: TakeoverPolicy::Sync, peer_sync, esn, ..Setup::default() }
}

#[test]
fn sync_has_the_peer_jump_over_the_ambiguous_zone_on_the_same_sa() {
    for esn in [true, false] {
        let (mut world, _) = paused_takeover(sync_setup(SyncSupport::BOTH, esn));
        let (start, sa) = (world.now(), world.peers()[0].sending());
        world.peers_mut()[0].set_traffic(start, Some(20_000));
        world.run_for_ms(500);
        let answered = world.peers()[0].first_answer_since(start).expect("answers again");
        assert!(answered.ms_since(start) <= 25, "the second packet passes");
        world.run_for_ms(5_000);
        assert_eq!((world.peers()[0].sending(), world.peers()[0].rekeys()), (sa, 0));
        assert_eq!(count(&world, |e| matches!(e, MemberEvent::IkeSynchronising { .. })), 1);
        assert_lawful(&mut world);
    }
}

#[test]
fn sync_renews_where_the_peer_cannot() {
    let mids = SyncSupport { message_id: true, replay_counter: false };
    for peer_sync in [SyncSupport::NONE, mids] {
        let (mut world, _) = paused_takeover(sync_setup(peer_sync, true));
        let start = world.now();
        world.peers_mut()[0].set_traffic(start, Some(20_000));
        world.run_for_ms(1_000);
        let answered = world.peers()[0].first_answer_since(start).expect("answers again");
        assert!(answered.ms_since(start) <= 45, "{} ms", answered.ms_since(start));
        assert_eq!(world.peers()[0].rekeys(), 1);
        assert_lawful(&mut world);
    }
}

#[test]
fn sync_survives_a_chain_of_owners() {
    let setup = Setup { members: 5, ..sync_setup(SyncSupport::BOTH, true) };
    let (mut world, _) = paused_takeover(setup);
    for after_us in [300, 900, 2_000] {
        let start = world.now();
        world.peers_mut()[0].set_traffic(start, Some(20_000));
        world.run_for_us(after_us);
        let before = owner(&world);
        world.kill(before);
        takeover_ms(&mut world, before);
        world.run_for_ms(300);
        world.restart(before, true).unwrap();
        let now = world.now();
        world.peers_mut()[0].set_traffic(now, None);
        world.run_for_ms(500);
    }
    assert_lawful(&mut world);
}

#[test]
fn a_new_owner_negotiates_anew_and_the_peer_keeps_talking() {
    let setup = Setup { policy: TakeoverPolicy::Reestablish, members: 5, ..Setup::default() };
    let mut world = connected(setup);
    for round in 0..2 {
        world.run_for_ms(2_000);
        let (first, sa) = (owner(&world), world.peers()[0].sending());
        let old: Vec<_> = records(&world).0;
        world.kill(first);
        let ms = takeover_ms(&mut world, first);
        assert!(ms <= 80, "round {round}: outage {ms} ms");
        let start = world.now();
        world.run_for_ms(2_000);
        let silence_ms = world.peers()[0].longest_silence_ms(start, world.now());
        assert!(silence_ms <= 20, "round {round}: silent for {silence_ms} ms");
        assert_ne!(world.peers()[0].sending(), sa, "round {round}: a new Child SA");
        let (ike, children) = records(&world);
        assert_eq!((ike.len(), children), (1, 1), "round {round}: the old ones are gone");
        assert_ne!(ike, old, "round {round}: a new IKE SA");
        assert_eq!(world.peers_mut()[0].ike_sas(), 1, "round {round}: at the peer too");
    }
    assert_eq!(count(&world, |e| matches!(e, MemberEvent::IkeReestablished { .. })), 2);
    assert_lawful(&mut world);
}

fn records(world: &World) -> (Vec<holdfast_cluster::IkeSpi>, usize) {
    let state = world.node(owner(world)).unwrap().member().state();
    (state.ike_sas().map(|(spi, _)| spi).collect(), state.children().len())
}

#[test]
fn an_owner_that_dies_negotiating_is_succeeded_by_one_that_ends_it() {
    for after_us in (0..3_000).step_by(250) {
        let policy = TakeoverPolicy::Reestablish;
        let mut world =
            connected(Setup { policy, members: 5, seed: after_us + 1, ..Setup::default() });
        world.run_for_ms(200);
        let first = owner(&world);
        world.kill(first);
        world
            .run_until(PATIENCE_MS, |world| {
                let begins = |e: &MemberEvent| matches!(e, MemberEvent::IkeReestablishing { .. });
                count(world, begins) > 0
            })
            .expect("the new owner begins");
        world.run_for_us(after_us);
        let second = owner(&world);
        world.kill(second);
        takeover_ms(&mut world, second);
        world.run_for_ms(8_000);
        let start = world.now();
        world.run_for_ms(100);
        assert!(world.peers()[0].first_answer_since(start).is_some(), "{after_us} us");
        let (ike, children) = records(&world);
        assert_eq!((ike.len(), children), (1, 1), "killed after {after_us} us");
        assert_lawful(&mut world);
    }
}

#[test]
fn strict_waits_and_says_who_is_in_the_ambiguous_zone() {
    let setup = Setup { policy: TakeoverPolicy::Strict, ..Setup::default() };
    let (mut world, _) = paused_takeover(setup);
    let now = world.now();
    world.peers_mut()[0].set_traffic(now, Some(5_000));
    world.run_for_ms(20);
    let new_owner = owner(&world);
    let OperatorReply::SaList(list) = ask(&mut world, new_owner, OperatorRequest::SaList) else {
        panic!("another answer")
    };
    assert_eq!(list.child_sas[0].policy, TakeoverPolicy::Strict);
    assert_eq!(list.child_sas[0].continuity, Some(crate::Continuity::Ambiguous));
    let OperatorReply::Status(status) = ask(&mut world, new_owner, OperatorRequest::Status) else {
        panic!("another answer")
    };
    let said = |problem: &crate::Problem| problem.what.contains("in the ambiguous zone");
    assert!(status.problems.iter().any(said), "{:?}", status.problems);
    world.run_for_ms(3_000);
    let start = world.now();
    world.run_for_ms(100);
    assert!(world.peers()[0].first_answer_since(start).is_some(), "it counted its way out");
    assert_eq!(world.peers()[0].rekeys(), 0);
    let OperatorReply::SaList(list) = ask(&mut world, new_owner, OperatorRequest::SaList) else {
        panic!("another answer")
    };
    assert_eq!(list.child_sas[0].continuity, Some(crate::Continuity::Certain));
    assert_lawful(&mut world);
}

/// How long a takeover lasts and how much longer nothing is answered, in milliseconds.
fn stall_ms(world: &mut World) -> (u64, u64) {
    let (start, first) = (world.now(), owner(world));
    world.kill(first);
    world
        .run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != first))
        .expect("a new owner");
    let outage_ms = world.now().ms_since(start);
    world.run_for_ms(5_000);
    let silence_ms = world.peers()[0].longest_silence_ms(start, world.now());
    (outage_ms, silence_ms.saturating_sub(outage_ms))
}

/// Policies that are to keep a stall short.
const PROMPT: [(TakeoverPolicy, SyncSupport); 3] = [
    (TakeoverPolicy::Renew, SyncSupport::NONE),
    (TakeoverPolicy::Sync, SyncSupport::BOTH),
    (TakeoverPolicy::Reestablish, SyncSupport::NONE),
];

#[test]
fn a_tcp_connection_in_mid_transfer_stalls_300_ms_more_than_the_outage_at_most() {
    for (policy, peer_sync) in PROMPT {
        let mut longest_ms = 0;
        for seed in seeds(12) {
            let mut world = connected(Setup { seed, policy, peer_sync, ..Setup::default() });
            let now = world.now();
            world.peers_mut()[0].set_window(now, 4, 500);
            world.run_for_ms(1_500 + seed * 13);
            let (outage_ms, more_ms) = stall_ms(&mut world);
            longest_ms = longest_ms.max(more_ms);
            assert!(more_ms <= 300, "{policy:?}: {more_ms} ms after an outage of {outage_ms} ms");
            assert_lawful(&mut world);
        }
        println!("{policy:?}: a TCP connection stalls {longest_ms} ms beyond the outage at most");
    }
}

#[test]
fn a_slow_flow_stalls_500_ms_more_than_the_outage_at_most() {
    for (policy, peer_sync) in PROMPT {
        let mut longest_ms = 0;
        for seed in seeds(12) {
            let mut world = connected(Setup { seed, policy, peer_sync, ..Setup::default() });
            let now = world.now();
            world.peers_mut()[0].set_traffic(now, Some(100_000));
            world.run_for_ms(10_000 + seed * 717);
            let (outage_ms, more_ms) = stall_ms(&mut world);
            longest_ms = longest_ms.max(more_ms);
            assert!(more_ms <= 500, "{policy:?}: {more_ms} ms after an outage of {outage_ms} ms");
            assert_lawful(&mut world);
        }
        println!("{policy:?}: a flow of 10 packets/s stalls {longest_ms} ms beyond the outage");
    }
}
