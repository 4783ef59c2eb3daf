//! The common store after a takeover: obtained, carried on, cleared, and guarded against the past.

use super::*;
use crate::{RecordReadiness, RefusedKind};
use holdfast_cluster::{Owner, State};

/// Everything that cleans up by the clock has done so: liveness, retransmissions, renewals.
const EVERY_CLEANUP_TIMER_MS: u64 = 600_000;

fn state(world: &World, member: MemberId) -> &State {
    world.node(member).expect("there is such a member").member().state()
}

fn standing_owners(state: &State) -> Vec<Owner> {
    let ike = state.ike_sas().map(|(_, record)| record.standing.owner);
    let mut owners: Vec<Owner> =
        ike.chain(state.children().map(|child| child.standing.owner)).collect();
    owners.sort();
    owners.dedup();
    owners
}

/// Waits until every record stands under the present owner, on every living member.
fn current(world: &mut World) -> Owner {
    world
        .run_until(PATIENCE_MS, |world| {
            world.owner().is_some_and(|owner| {
                let state = state(world, owner);
                state.owner().is_some_and(|by| by.member == owner) && state.inherited() == 0
            })
        })
        .expect("the store is current");
    state(world, owner(world)).owner().expect("an owner")
}

fn hand_over(world: &mut World, to: MemberId) {
    let before = owner(world);
    let reply = ask(world, before, OperatorRequest::Handover { to: Some(to) });
    assert!(matches!(reply, OperatorReply::Done(_)), "{reply:?}");
    assert_eq!(owner(world), to);
}

#[test]
fn after_a_takeover_the_store_holds_the_new_owners_records_and_none_of_the_old_ones() {
    let mut world = connected(Setup { peers: 5, ..Setup::default() });
    world.run_for_ms(500);
    let first = owner(&world);
    let before = standing_owners(state(&world, first));
    let records = state(&world, first).records();
    assert_eq!((before.len(), before[0].member), (1, first));
    world.kill(first);
    takeover_ms(&mut world, first);
    let second = current(&mut world);
    assert_ne!(second, before[0]);
    world.run_for_ms(50);
    for (id, node) in world.nodes().filter(|(id, _)| *id != first) {
        let state = node.member().state();
        assert_eq!(standing_owners(state), [second], "member {id} applied it too");
        assert_eq!(state.records(), records, "a copy was there at all times");
    }
    let is_current = |event: &MemberEvent| matches!(event, MemberEvent::StoreCurrent { owner, .. } if *owner == second);
    assert_eq!(count(&world, is_current), 1);
    assert_lawful(&mut world);
}

#[test]
fn what_was_carried_on_serves_the_next_successor_and_a_returned_first() {
    let mut world = connected(Setup { peers: 3, ..Setup::default() });
    let mut seen = Vec::new();
    for _ in 0..4 {
        world.run_for_ms(500);
        let before = owner(&world);
        world.kill(before);
        takeover_ms(&mut world, before);
        world.restart(before, false).unwrap();
        let owner = current(&mut world);
        assert!(!seen.contains(&owner));
        seen.push(owner);
        let now = world.now();
        world.peers_mut()[1].rekey(now);
        world.run_for_ms(1_000);
        assert_eq!(standing_owners(state(&world, owner.member)), [owner]);
    }
    assert!(world.peers().iter().all(Peer::is_connected));
    assert_lawful(&mut world);
}

/// PI67701 of z/OS: a tunnel that could not be re-established on the backup was cleaned up half an
/// hour later by a backup that was none any more, and live tunnels lost their records.
#[test]
fn an_owner_of_the_past_with_an_unreachable_peer_deletes_no_record_of_the_present() {
    let mut world = connected(Setup { peers: 4, ..Setup::default() });
    world.run_for_ms(500);
    let first = owner(&world);
    let backup = MemberId(if first == MemberId(1) { 2 } else { 1 });
    world.set_peer_plugged(3, false);
    hand_over(&mut world, backup);
    world.run_for_ms(200);
    hand_over(&mut world, first);
    let present = current(&mut world);
    let now = world.now();
    for peer in world.peers_mut() {
        peer.set_traffic(now, Some(500_000));
    }
    world.run_for_ms(EVERY_CLEANUP_TIMER_MS);

    let state = state(&world, first);
    assert_eq!(state.owner(), Some(present), "nobody took over in between");
    assert_eq!(standing_owners(state), [present], "only records of the live epoch");
    assert_eq!(state.ike_sas().len(), 3, "the unreachable peer's went with its liveness check");
    assert_eq!(state.held().count(), 0);
    let now = world.now();
    world.run_for_ms(1_000);
    for (number, peer) in world.peers().iter().take(3).enumerate() {
        assert!(peer.is_connected(), "peer {number}");
        assert!(peer.first_answer_since(now).is_some(), "peer {number} still encrypts");
    }
    assert_lawful(&mut world);
}

#[test]
fn owners_that_die_while_they_carry_on_leave_every_record_to_the_next() {
    for seed in seeds(20) {
        let mut world = connected(Setup { seed, peers: 6, members: 5, ..Setup::default() });
        world.run_for_ms(200);
        for round in 0..2 {
            let before = owner(&world);
            world.kill(before);
            world
                .run_until(PATIENCE_MS, |world| world.owner().is_some_and(|owner| owner != before))
                .expect("a new owner");
            // Somewhere between having read the records and having put all of them.
            world.run_for_us((seed * 137 + round * 61) % 1_500);
        }
        let owner = current(&mut world);
        let sas = state(&world, owner.member);
        assert_eq!(sas.ike_sas().len(), 6, "seed {seed}");
        // A renewal has both its old and its new Child SA for a moment.
        assert!((6..=12).contains(&sas.children().len()), "seed {seed}");
        assert_eq!(standing_owners(state(&world, owner.member)), [owner], "seed {seed}");
        assert_lawful(&mut world);
    }
}

#[test]
fn any_member_lists_the_store_and_says_how_current_it_is() {
    let mut world = connected(Setup { peers: 3, ..Setup::default() });
    world.run_for_ms(500);
    let first = owner(&world);
    world.kill(first);
    takeover_ms(&mut world, first);
    let owner = current(&mut world);
    world.run_for_ms(100);
    let members: Vec<MemberId> =
        world.nodes().map(|(id, _)| id).filter(|id| *id != first).collect();
    for member in members {
        let all = OperatorRequest::StoreList { address: None, limit: 1_000 };
        let OperatorReply::StoreList(list) = ask(&mut world, member, all) else {
            panic!("another answer")
        };
        assert_eq!((list.owner, list.member, list.follows), (Some(owner), member, true));
        assert_eq!(list.commit_index, list.applied_index);
        assert_eq!((list.ike_sas, list.inherited, list.truncated), (3, 0, false));
        assert_eq!(list.records.len(), list.ike_sas + list.child_sas);
        let ready = |record: &crate::RecordReply| {
            record.readiness == RecordReadiness::Ready && record.owner == owner
        };
        assert!(list.records.iter().all(ready), "{list:?}");
        assert!(list.records[0].child.is_none() && list.records[1].child.is_some());
        assert_eq!(list.records[0].ike_spi, list.records[1].ike_spi);

        let some = OperatorRequest::StoreList { address: None, limit: 4 };
        let OperatorReply::StoreList(list) = ask(&mut world, member, some) else {
            panic!("another answer")
        };
        assert_eq!((list.records.len(), list.truncated, list.ike_sas), (4, true, 3));
    }
    let other = OperatorRequest::StoreList { address: Some([10, 0, 0, 1].into()), limit: 1 };
    let OperatorReply::Refused(refused) = ask(&mut world, owner.member, other) else {
        panic!("another answer")
    };
    assert_eq!(refused.kind, RefusedKind::Usage);
}
