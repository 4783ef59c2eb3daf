//! An owner that stops on purpose, and whoever carries on.

use super::*;
use holdfast_ipsec::ReplayEdge;

fn item(of: u32, outbound_next: u64, right_edge: u64, unseen: &[(u64, u64)]) -> SettleItem {
    let edge = ReplayEdge { right_edge, unseen: unseen.to_vec() };
    SettleItem { spi: spi(of), outbound_next, edge }
}

fn settle(owner: Owner, items: Vec<SettleItem>, last: bool) -> Command {
    Command::Settle { owner, items, last }
}

#[test]
fn a_settled_owner_is_followed_exactly_where_it_stopped() {
    let (mut log, first) = with_children();
    let high = log.child(0x1000).outbound_high;
    let stopped = item(0x1000, 700, 90, &[(80, 82)]);
    assert!(log.apply(&settle(first, vec![stopped.clone()], false)).is_empty());
    let effects = log.apply(&settle(first, vec![], true));
    assert_eq!(effects, [Effect::Settled(Settlement::Complete)]);
    log.take_ownership(owner(2, 1, 3));
    let child = log.child(0x1000);
    assert_eq!(child.outbound(), SequenceRange::new(700, high.max(700 + 4_096)));
    assert_eq!((child.floor, &child.edge), (0, &stopped.edge));
    assert_eq!(child.horizon, 90 + numbers::INITIAL_HORIZON_PACKETS);
    let idle = log.child(0x2000);
    assert_eq!((idle.outbound_start, idle.floor, idle.edge.right_edge), (1, 0, 0), "had no packet");
    assert_eq!(log.0.settlement(), Settlement::Open);
}

#[test]
fn a_settled_owner_is_granted_nothing_and_changes_nothing() {
    let (mut log, first) = with_children();
    log.apply(&settle(first, vec![item(0x1000, 2, 0, &[])], false));
    let refused = [Effect::Refused(Refusal::Settled(first))];
    assert_eq!(log.grant(first, spi(0x1000), Direction::Outbound, 100), refused);
    assert_eq!(log.change(first, vec![put_ike(IKE)]), refused);
    log.apply(&settle(first, vec![], true));
    assert_eq!(log.apply(&settle(first, vec![], true)), refused);
}

#[test]
fn half_a_settlement_is_none() {
    let (mut log, first) = with_children();
    log.apply(&settle(first, vec![item(0x1000, 700, 90, &[])], false));
    let before = log.child(0x1000).clone();
    log.take_ownership(owner(2, 1, 3));
    let child = log.child(0x1000);
    assert_eq!((child.outbound_start, child.floor), (before.outbound_high, before.horizon));
    assert_eq!(child.edge, ReplayEdge::at(before.horizon));
}

#[test]
fn an_item_that_cannot_be_true_voids_the_settlement() {
    let (_, first) = with_children();
    let impossible = [
        item(0x1000, 0, 90, &[]),
        item(0x1000, 1 << 40, 90, &[]),
        item(0x1000, 2, 1 << 40, &[]),
        item(0x1000, 2, 90, &[(0, 3)]),
    ];
    for wrong in impossible {
        let (mut log, _) = with_children();
        let items = vec![item(0x2000, 9, 9, &[]), wrong];
        assert_eq!(log.apply(&settle(first, items, true)), [Effect::Settled(Settlement::Void)]);
        let before = log.child(0x2000).clone();
        log.take_ownership(owner(2, 1, 3));
        assert_eq!(log.child(0x2000).floor, before.horizon);
    }
}

#[test]
fn numbers_that_were_ambiguous_stay_so_after_a_handover() {
    let (mut log, _) = with_children();
    let second = owner(2, 1, 3);
    log.take_ownership(second);
    let floor = log.child(0x1000).floor;
    log.apply(&settle(second, vec![item(0x1000, 5_000, floor + 7, &[])], true));
    log.take_ownership(owner(3, 1, 4));
    assert_eq!((log.child(0x1000).floor, log.child(0x1000).edge.right_edge), (floor, floor + 7));
}

#[test]
fn a_snapshot_carries_a_settlement() {
    let (mut log, first) = with_children();
    log.apply(&settle(first, vec![item(0x1000, 700, 90, &[(3, 5), (80, 82)])], true));
    let mut restored = State::restore(&log.0.snapshot()).unwrap();
    assert_eq!(restored, log.0);
    let take = Command::TakeOwnership { owner: owner(2, 1, 3) };
    let index = restored.applied() + 1;
    restored.apply(index, &take);
    log.apply(&take);
    assert_eq!(State::restore(&restored.snapshot()).unwrap(), log.0);
}

#[test]
fn only_the_owner_settles() {
    let (mut log, first) = with_children();
    let stranger = owner(2, 1, 2);
    assert_eq!(
        log.apply(&settle(stranger, vec![], true)),
        [Effect::Refused(Refusal::NotOwner { claimed: stranger, current: Some(first) })]
    );
    assert_eq!(log.0.settlement(), Settlement::Open);
}
