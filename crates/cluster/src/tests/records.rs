//! Records and under whom they stand: obtained, carried on, cleared, held, guarded.

use super::*;

fn carry_on(owner: Owner, from: Owner, ike_sas: &[IkeSpi], children: &[u32]) -> Command {
    let children = children.iter().map(|value| spi(*value)).collect();
    Command::CarryOn { owner, from, ike_sas: ike_sas.to_vec(), children }
}

fn standing_owners(state: &State) -> Vec<Owner> {
    let ike = state.ike_sas().map(|(_, record)| record.standing.owner);
    ike.chain(state.children().map(|child| child.standing.owner)).collect()
}

fn failed(keep_ms: u64) -> Hold {
    Hold::new(HoldKind::Failed, "its peer does not answer", keep_ms)
}

pub(super) fn any_carry_on() -> impl Strategy<Value = Command> {
    let ike_sas = proptest::collection::vec((1..4u64).prop_map(IkeSpi), 0..4);
    let children = proptest::collection::vec(any_spi(), 0..6);
    (any_owner(), any_owner(), ike_sas, children)
        .prop_map(|(owner, from, ike_sas, children)| carry_on(owner, from, &ike_sas, &children))
}

pub(super) fn any_hold() -> impl Strategy<Value = Command> {
    let record = prop_oneof![
        (1..4u64).prop_map(|value| RecordName::Ike(IkeSpi(value))),
        any_spi().prop_map(|value| RecordName::Child(spi(value))),
    ];
    let hold = proptest::option::of((0..9u64).prop_map(failed));
    (any_owner(), any_owner(), record, hold)
        .prop_map(|(owner, under, record, hold)| Command::Hold { owner, record, under, hold })
}

#[test]
fn a_takeover_inherits_the_records_and_carrying_on_clears_the_old_owners() {
    let (mut log, first) = with_children();
    assert_eq!(standing_owners(&log.0), [first; 3]);
    assert_eq!(log.0.inherited(), 0);

    let second = owner(2, 1, 3);
    log.take_ownership(second);
    assert_eq!(standing_owners(&log.0), [first; 3], "a copy is there at all times");
    assert_eq!(log.0.inherited(), 3);
    assert_eq!(log.0.readiness(&log.child(0x1000).standing), Readiness::Inherited);

    let effects = log.apply(&carry_on(second, first, &[], &[0x1000]));
    assert_eq!(effects, [Effect::CarriedOn { from: first, records: 1 }]);
    assert_eq!(log.0.inherited(), 2);
    log.apply(&carry_on(second, first, &[IKE], &[0x1000, 0x2000]));
    assert_eq!(standing_owners(&log.0), [second; 3], "none of the old owner is left");
    assert_eq!(log.0.inherited(), 0);
    assert_eq!(log.0.readiness(&log.child(0x1000).standing), Readiness::Ready);
}

#[test]
fn carrying_on_changes_no_number_no_key_and_no_relation() {
    let (mut log, first) = with_children();
    let second = owner(2, 1, 3);
    log.take_ownership(second);
    let before = log.child(0x1000).clone();
    log.apply(&carry_on(second, first, &[IKE], &[0x1000]));
    let standing = Standing::under(second);
    assert_eq!(log.child(0x1000), &ChildRecord { standing, ..before });
}

#[test]
fn what_the_new_owner_records_stands_under_it_at_once() {
    let (mut log, _) = with_children();
    let second = owner(2, 1, 3);
    log.take_ownership(second);
    log.change(second, vec![put_ike(IKE), put_child(IKE, parameters(0x1000, false))]);
    assert_eq!(log.0.ike_sa(IKE).unwrap().standing, Standing::under(second));
    assert_eq!(log.child(0x1000).standing, Standing::under(second));
    assert_eq!(log.0.inherited(), 1);
}

#[test]
fn a_stale_owner_carries_nothing_on() {
    let (mut log, first) = with_children();
    let (second, third) = (owner(2, 1, 3), owner(3, 1, 4));
    log.take_ownership(second);
    log.take_ownership(third);
    let late = carry_on(second, first, &[IKE], &[0x1000]);
    let refused = Refusal::NotOwner { claimed: second, current: Some(third) };
    assert_eq!(log.apply(&late), [Effect::Refused(refused)]);
    assert_eq!(standing_owners(&log.0), [first; 3]);
}

#[test]
fn two_claims_at_once_have_one_winner_and_each_record_is_carried_on_once() {
    let (mut log, first) = with_children();
    let (second, rival) = (owner(2, 1, 3), owner(3, 1, 3));
    log.take_ownership(second);
    let lost = Refusal::EpochNotNewer { claimed: rival, current: second };
    assert_eq!(log.take_ownership(rival), [Effect::Refused(lost)]);
    let all = carry_on(second, first, &[IKE], &[0x1000, 0x2000]);
    assert_eq!(log.apply(&all), [Effect::CarriedOn { from: first, records: 3 }]);
    assert_eq!(log.apply(&all), [Effect::CarriedOn { from: first, records: 0 }]);
}

/// PI67701: primary, backup, primary again; what the first ownership meant to clean up later must
/// not hit the records of the third.
#[test]
fn a_delete_that_means_a_record_of_an_earlier_epoch_is_refused_and_names_both() {
    let (mut log, first) = with_children();
    let (backup, again) = (owner(2, 1, 3), owner(1, 1, 4));
    log.take_ownership(backup);
    log.apply(&carry_on(backup, first, &[IKE], &[0x1000]));
    log.take_ownership(again);
    log.apply(&carry_on(again, backup, &[IKE], &[0x1000]));
    let before = log.0.clone();
    for (change, record) in [
        (delete_child(0x1000, Some(first)), RecordName::Child(spi(0x1000))),
        (delete_ike(IKE, Some(first)), RecordName::Ike(IKE)),
    ] {
        // Even when the present owner itself proposes it, out of an old timer.
        let stale = Refusal::StaleRecord { record, named: first, stands: again };
        assert_eq!(log.change(again, vec![change.clone()]), [Effect::Refused(stale)]);
        let other = Refusal::NotOwner { claimed: backup, current: Some(again) };
        assert_eq!(log.change(backup, vec![change]), [Effect::Refused(other)]);
    }
    let mut expected = before;
    expected.apply(log.0.applied(), &Command::Noop);
    assert_eq!(log.0, expected, "nothing is gone");

    // The one record nobody carried on can still be cleaned up by who means it as it stands.
    let effects = log.change(again, vec![delete_child(0x2000, Some(first))]);
    assert_eq!(effects, [Effect::ChildRemoved(spi(0x2000))]);
    assert_eq!(log.0.inherited(), 0);
}

#[test]
fn a_refused_delete_takes_its_whole_exchange_back() {
    let (mut log, first) = with_children();
    let second = owner(2, 1, 3);
    log.take_ownership(second);
    let before = standing_owners(&log.0);
    let changes = vec![put_ike(IKE), delete_child(0x1000, Some(second))];
    assert!(matches!(log.change(second, changes)[..], [Effect::Refused(_)]));
    assert_eq!(standing_owners(&log.0), before);
    assert_eq!(log.0.inherited(), 3);
    assert_eq!(log.child(0x1000).standing.owner, first);
}

#[test]
fn an_sa_that_cannot_be_carried_on_is_held_with_its_reason_and_its_time() {
    let (mut log, first) = with_children();
    let (second, third) = (owner(2, 1, 3), owner(3, 1, 4));
    log.take_ownership(second);
    let record = RecordName::Ike(IKE);
    let hold = Some(failed(60_000));
    let command = Command::Hold { owner: second, record, under: first, hold: hold.clone() };
    assert_eq!(log.apply(&command), [Effect::Held { record, hold }]);
    let standing = log.0.standing(record).unwrap().clone();
    assert_eq!(standing.owner, second, "it is the new owner's to clean up");
    assert_eq!(log.0.readiness(&standing).name(), "failed");

    // A further successor carries the record on as it is: the SA does not run by that.
    log.take_ownership(third);
    log.apply(&carry_on(third, second, &[IKE], &[]));
    let standing = log.0.standing(record).unwrap().clone();
    assert_eq!((standing.owner, log.0.readiness(&standing).name()), (third, "failed"));
    assert_eq!(log.0.held().map(|(held, _)| held).collect::<Vec<_>>(), [record]);
    log.apply(&Command::Hold { owner: third, record, under: third, hold: None });
    assert_eq!(log.0.standing(record), Some(&Standing::under(third)));
    assert_eq!(log.0.held().count(), 0);
}

#[test]
fn a_hold_means_one_record_too() {
    let (mut log, first) = with_children();
    let second = owner(2, 1, 3);
    log.take_ownership(second);
    let hold = |record, under| Command::Hold { owner: second, record, under, hold: None };
    let child = RecordName::Child(spi(0x1000));
    let stale = Refusal::StaleRecord { record: child, named: second, stands: first };
    assert_eq!(log.apply(&hold(child, second)), [Effect::Refused(stale)]);
    let unknown = RecordName::Ike(IkeSpi(9));
    let refused = Refusal::UnknownIkeSa(IkeSpi(9));
    assert_eq!(log.apply(&hold(unknown, first)), [Effect::Refused(refused)]);
}

#[test]
fn too_many_records_at_once_are_refused() {
    let (mut log, first) = with_children();
    let second = owner(2, 1, 3);
    log.take_ownership(second);
    let many = vec![IKE; limits::CARRIED_MAX + 1];
    let effects = log.apply(&carry_on(second, first, &many, &[]));
    assert_eq!(effects, [Effect::Refused(Refusal::TooLarge("the list of records"))]);
    assert_eq!(log.0.inherited(), 3);
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let hold = Hold::new(HoldKind::Pending, &"ä".repeat(200), 1);
    assert_eq!(hold.reason.len(), 254);
}

#[test]
fn a_snapshot_keeps_who_each_record_stands_under() {
    let (mut log, first) = with_children();
    let second = owner(2, 1, 3);
    log.take_ownership(second);
    log.apply(&carry_on(second, first, &[IKE], &[0x1000]));
    let record = RecordName::Child(spi(0x2000));
    log.apply(&Command::Hold { owner: second, record, under: first, hold: Some(failed(7)) });
    log.take_ownership(owner(3, 1, 4));
    let restored = State::restore(&log.0.snapshot()).unwrap();
    assert_eq!(restored, log.0);
    assert_eq!(restored.inherited(), 3);
}

/// Byte for byte what the release before owners wrote.
#[test]
fn logs_and_snapshots_without_standings_stay_readable() {
    let deletion = [
        &[0x08, 0x01, 0x22, 0x0b, 0x0a, 0x02, 0x08, 0x01, 0x12, 0x05, 0x25][..],
        &[0x00, 0x10, 0x00, 0x00],
    ]
    .concat();
    let Command::Ike { owner: by, changes } = Command::decode(&deletion).unwrap() else {
        panic!("another command");
    };
    assert_eq!(by.member, MemberId(1));
    assert_eq!(changes, [delete_child(0x1000, None)]);

    // A snapshot: version, applied 9, owner (member 1, boot 1, epoch 2), one IKE SA.
    let mut snapshot = vec![0x08, 0x01, 0x10, 0x09, 0x1a, 0x06, 0x08, 0x01, 0x10, 0x01, 0x18, 0x02];
    snapshot.extend([0x22, 0x0e, 0x09]);
    snapshot.extend(IKE.0.to_le_bytes());
    snapshot.extend([0x1a, 0x03, 0x0a, 0x01, 0x77]);
    let state = State::restore(&snapshot).unwrap();
    assert_eq!(state.ike_sa(IKE).unwrap().standing, Standing::under(owner(1, 1, 2)));
    assert_eq!(state.inherited(), 0);
}

proptest! {
    #[test]
    fn the_count_of_inherited_records_is_true_and_no_key_is_lost_by_carrying_on(
        commands in commands(),
    ) {
        let mut state = State::new();
        for (command, honest) in commands {
            let (ikes, children) = (state.ike_sas().len(), state.children().len());
            let command = by_present_owner(&state, command, honest);
            state.apply(state.applied() + 1, &command);
            let owner = state.owner();
            let inherited = standing_owners(&state).into_iter().filter(|of| Some(*of) != owner);
            prop_assert_eq!(state.inherited(), inherited.count());
            prop_assert!(state.held().count() <= state.records());
            if matches!(command, Command::CarryOn { .. } | Command::Hold { .. } | Command::TakeOwnership { .. }) {
                prop_assert_eq!((state.ike_sas().len(), state.children().len()), (ikes, children));
            }
        }
    }
}

#[test]
fn a_child_sa_of_any_algorithm_survives_the_log_and_names_the_level_it_needs() {
    for algorithm in AeadAlgorithm::every() {
        let octets: Vec<u8> = (0_u8..).take(SaKey::keymat_len(algorithm)).collect();
        let key = SaKey::new(algorithm, &octets).unwrap();
        let mut parameters = parameters(0x1000, true);
        (parameters.inbound_key, parameters.outbound_key) = (key.clone(), key);
        let changes = vec![put_ike(IKE), put_child(IKE, parameters)];
        let command = Command::Ike { owner: owner(1, 1, 2), changes };
        assert_eq!(Command::decode(&command.encode().unwrap()), Ok(command.clone()));
        let old = [AeadAlgorithm::Aes128Gcm16, AeadAlgorithm::Aes256Gcm16].contains(&algorithm);
        let needed = if old { level::FIRST } else { level::ALGORITHMS };
        assert_eq!(command.level(), needed, "{algorithm:?}");
    }
}
