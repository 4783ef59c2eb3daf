use super::*;
use crate::CodecError;
use crate::Command;

fn record(address: u64) -> MemberRecord {
    MemberRecord { address: format!("10.99.0.{address}:7000"), witness: false }
}

fn three() -> State {
    let mut state = State::new();
    apply(&mut state, MemberCommand::RaiseLevel(crate::level::LEVEL));
    let members = (1..=3).map(|id| (MemberId(id), record(id))).collect();
    assert_eq!(apply(&mut state, MemberCommand::Record(members)), [Effect::MembersChanged]);
    state
}

fn apply(state: &mut State, command: MemberCommand) -> Vec<Effect> {
    state.apply(state.applied() + 1, &Command::Members(command))
}

fn begin(state: &mut State, add: Option<u64>, remove: Option<u64>) -> Vec<Effect> {
    let add = add.map(|id| (MemberId(id), record(id)));
    apply(state, MemberCommand::Begin { add, remove: remove.map(MemberId) })
}

fn configure(state: &mut State, voters: &[u64], outgoing: &[u64], learners: &[u64]) {
    let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
    let configuration = Configuration {
        voters: set(voters),
        outgoing: set(outgoing),
        learners: set(learners),
        ..Configuration::default()
    };
    state.configure(state.applied() + 1, configuration);
}

fn refused(effects: &[Effect]) -> Refusal {
    match effects {
        [Effect::Refused(refusal)] => refusal.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_replacement_goes_through_learner_and_joint_and_retires_the_old_id() {
    let mut state = three();
    assert_eq!(begin(&mut state, Some(4), Some(2)), [Effect::MembersChanged]);
    configure(&mut state, &[1, 2, 3], &[], &[4]);
    configure(&mut state, &[1, 3, 4], &[1, 2, 3], &[]);
    assert!(state.membership().change().is_some(), "two majorities are still needed");
    configure(&mut state, &[1, 3, 4], &[], &[]);
    assert_eq!(state.membership().change(), None);
    assert!(state.membership().is_retired(MemberId(2)));
    assert_eq!(state.membership().record(MemberId(2)), None);
    assert_eq!(state.membership().record(MemberId(4)), Some(&record(4)));
    assert_eq!(
        refused(&begin(&mut state, Some(2), None)),
        Refusal::MemberRetired(MemberId(2)),
        "an id is never used again"
    );
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let mut fresh = State::new();
    assert_eq!(refused(&begin(&mut fresh, Some(4), None)), Refusal::MembersNotRecorded);
    let mut state = three();
    assert_eq!(refused(&begin(&mut state, Some(1), None)), Refusal::MemberExists(MemberId(1)));
    assert_eq!(refused(&begin(&mut state, None, Some(9))), Refusal::NoSuchMember(MemberId(9)));
    begin(&mut state, Some(4), None);
    assert_eq!(refused(&begin(&mut state, Some(5), None)), Refusal::MemberChangeUnderWay);
    let mut alone = State::new();
    let members =
        vec![(MemberId(1), record(1)), (MemberId(2), MemberRecord { witness: true, ..record(2) })];
    apply(&mut alone, MemberCommand::Record(members));
    assert_eq!(refused(&begin(&mut alone, None, Some(1))), Refusal::LastFullMember(MemberId(1)));
    let mut full = State::new();
    let members = (1..=7).map(|id| (MemberId(id), record(id))).collect();
    apply(&mut full, MemberCommand::Record(members));
    assert_eq!(refused(&begin(&mut full, Some(8), None)), Refusal::TooManyMembers);
    assert_eq!(begin(&mut full, Some(8), Some(7)), [Effect::MembersChanged], "one for another");
}

#[test]
fn a_change_is_cancelled_by_taking_the_learner_out_again() {
    let mut state = three();
    assert_eq!(refused(&apply(&mut state, MemberCommand::Cancel)), Refusal::NoMemberChange);
    begin(&mut state, Some(4), Some(2));
    configure(&mut state, &[1, 2, 3], &[], &[4]);
    apply(&mut state, MemberCommand::Cancel);
    let change = state.membership().change().unwrap();
    assert_eq!((change.add, change.remove), (None, Some(MemberId(4))));
    configure(&mut state, &[1, 2, 3], &[], &[]);
    assert_eq!(state.membership().change(), None);
    assert!(
        state.membership().is_retired(MemberId(4)) && !state.membership().is_retired(MemberId(2))
    );
    // In the middle of two majorities there is no way back.
    begin(&mut state, None, Some(2));
    configure(&mut state, &[1, 3], &[1, 2, 3], &[]);
    assert_eq!(refused(&apply(&mut state, MemberCommand::Cancel)), Refusal::TooLateToCancel);
}

#[test]
fn members_survive_the_snapshot_and_their_commands_the_wire() {
    let mut state = three();
    begin(&mut state, Some(4), Some(2));
    configure(&mut state, &[1, 3, 4], &[1, 2, 3], &[]);
    assert_eq!(State::restore(&state.snapshot()).unwrap(), state);
    for command in [
        MemberCommand::RaiseLevel(crate::level::LEVEL),
        MemberCommand::Record(vec![(MemberId(1), record(1))]),
        MemberCommand::Begin { add: Some((MemberId(4), record(4))), remove: Some(MemberId(2)) },
        MemberCommand::Begin { add: None, remove: Some(MemberId(2)) },
        MemberCommand::Cancel,
    ] {
        let command = Command::Members(command);
        assert_eq!(Command::decode(&command.encode().unwrap()).unwrap(), command);
    }
}

#[test]
fn a_cluster_without_recorded_members_writes_what_earlier_releases_read() {
    assert_eq!(State::new().membership.to_wire(), None);
    assert_eq!(State::new().membership().level(), crate::level::FIRST);
}

#[test]
fn a_forced_survivor_is_alone_and_the_others_may_not_come_back() {
    let mut state = three();
    state.force_quorum(state.applied() + 1, MemberId(2), &[]);
    let membership = state.membership();
    assert_eq!(membership.generation(), 1);
    assert_eq!(membership.configuration(), Some(&Configuration::of_voters([MemberId(2)])));
    assert_eq!(membership.retired().collect::<Vec<_>>(), [MemberId(1), MemberId(3)]);
    assert_eq!(State::restore(&state.snapshot()).unwrap(), state);
}

#[test]
fn a_forced_survivor_with_a_young_log_retires_the_members_it_was_started_with() {
    let mut state = State::new();
    state.force_quorum(1, MemberId(2), &[MemberId(1), MemberId(2), MemberId(3)]);
    let retired: Vec<_> = state.membership().retired().collect();
    assert_eq!(retired, [MemberId(1), MemberId(3)]);
}

#[test]
fn a_release_below_the_level_of_the_cluster_reads_neither_its_entry_nor_its_snapshot() {
    let (found, known) = (crate::level::LEVEL + 1, crate::level::LEVEL);
    let raise = MemberCommand::RaiseLevel(found);
    let entry = Command::Members(raise.clone()).encode().unwrap();
    let refused = CodecError::Level { found, known };
    assert_eq!(Command::decode(&entry), Err(refused.clone()));
    assert!(refused.to_string().contains("upgrade this member"), "{refused}");

    let mut state = State::new();
    apply(&mut state, MemberCommand::RaiseLevel(known));
    assert!(State::restore(&state.snapshot()).is_ok());
    apply(&mut state, raise);
    assert_eq!(State::restore(&state.snapshot()).map(|_| ()), Err(refused));
}
