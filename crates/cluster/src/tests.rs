//! The state machine as its users see it, and its laws as properties.

mod settle;

use crate::*;
use holdfast_crypto::SecretBytes;
use holdfast_crypto::aead::AeadAlgorithm;
use holdfast_ipsec::{
    ChildSaParameters, Encapsulation, ReplayEdge, SaKey, Selectors, SequenceRange, Spi,
    TrafficSelector,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

mod records;

const IKE: IkeSpi = IkeSpi(0x1111_2222_3333_4444);
const SECRET: u8 = 0xC5;

fn owner(member: u64, incarnation: u64, epoch: u64) -> Owner {
    Owner { member: MemberId(member), incarnation: Incarnation(incarnation), epoch: Epoch(epoch) }
}

fn spi(value: u32) -> Spi {
    Spi::new(value).unwrap()
}

fn key(octet: u8) -> SaKey {
    SaKey::new(AeadAlgorithm::Aes256Gcm16, &[octet; 36]).unwrap()
}

fn parameters(inbound: u32, esn: bool) -> ChildSaParameters {
    let client = TrafficSelector::host(Ipv4Addr::new(10, 77, 0, 10));
    ChildSaParameters {
        inbound_spi: spi(inbound),
        outbound_spi: spi(inbound + 1),
        inbound_key: key(SECRET),
        outbound_key: key(SECRET),
        esn,
        window_packets: 128,
        local: Ipv4Addr::new(198, 51, 100, 100),
        remote: Ipv4Addr::new(198, 51, 100, 10),
        encapsulation: Encapsulation::Udp { local_port: 4500, remote_port: 61_000 },
        selectors: Selectors {
            local: vec![TrafficSelector::prefix(Ipv4Addr::new(192, 0, 2, 0), 24)],
            remote: vec![client],
        },
        connection: "branch".to_owned(),
    }
}

fn put_ike(spi: IkeSpi) -> StateChange {
    let state = SecretBytes::new(vec![SECRET; 64]);
    StateChange::PutIkeSa { spi, connection: "branch".to_owned(), state }
}

fn put_child(ike: IkeSpi, parameters: ChildSaParameters) -> StateChange {
    StateChange::PutChildSa { ike, parameters: Box::new(parameters), replaces: None }
}

fn delete_ike(spi: IkeSpi, under: Option<Owner>) -> StateChange {
    StateChange::DeleteIkeSa { spi, under }
}

fn delete_child(inbound: u32, under: Option<Owner>) -> StateChange {
    StateChange::DeleteChildSa { inbound_spi: spi(inbound), under }
}

/// A state with indices counted, as a log would.
#[derive(Default)]
struct Log(State);

impl Log {
    fn apply(&mut self, command: &Command) -> Vec<Effect> {
        self.0.apply(self.0.applied() + 1, command)
    }

    fn take_ownership(&mut self, owner: Owner) -> Vec<Effect> {
        self.apply(&Command::TakeOwnership { owner })
    }

    fn change(&mut self, owner: Owner, changes: Vec<StateChange>) -> Vec<Effect> {
        self.apply(&Command::Ike { owner, changes })
    }

    fn grant(&mut self, owner: Owner, of: Spi, direction: Direction, packets: u32) -> Vec<Effect> {
        let grants = vec![GrantItem { spi: of, direction, packets }];
        self.apply(&Command::Grant { owner, grants })
    }

    fn child(&self, inbound: u32) -> &ChildRecord {
        self.0.child(spi(inbound)).expect("the Child SA is there")
    }
}

/// Owned by member 1, one IKE SA with the Child SA 0x1000 (32-bit) and 0x2000 (ESN).
fn with_children() -> (Log, Owner) {
    let (mut log, first) = (Log::default(), owner(1, 1, 2));
    log.take_ownership(first);
    let effects = log.change(
        first,
        vec![
            put_ike(IKE),
            put_child(IKE, parameters(0x1000, false)),
            put_child(IKE, parameters(0x2000, true)),
        ],
    );
    assert_eq!(
        effects,
        [
            Effect::IkeChanged(IKE),
            Effect::ChildInstalled(spi(0x1000)),
            Effect::ChildInstalled(spi(0x2000))
        ]
    );
    (log, first)
}

#[test]
fn a_new_child_sa_may_be_used_from_its_first_number_at_once() {
    let (log, _) = with_children();
    let child = log.child(0x1000);
    assert_eq!(child.outbound(), SequenceRange::new(1, 1 + numbers::INITIAL_OUTBOUND_PACKETS));
    assert_eq!((child.floor, child.horizon), (0, numbers::INITIAL_HORIZON_PACKETS));
    assert_eq!(child.ike, IKE);
}

#[test]
fn a_takeover_gives_every_child_sa_fresh_numbers_in_one_entry() {
    let (mut log, first) = with_children();
    let before: Vec<ChildRecord> = log.0.children().cloned().collect();
    let second = owner(2, 1, 3);
    let effects = log.take_ownership(second);
    assert_eq!(effects, [Effect::OwnerChanged { owner: second, previous: Some(first) }]);
    for (old, new) in before.iter().zip(log.0.children()) {
        let range = SequenceRange::new(
            old.outbound_high,
            old.outbound_high + numbers::INITIAL_OUTBOUND_PACKETS,
        );
        assert_eq!(new.outbound(), range, "behind everything the predecessor had");
        assert_eq!(new.floor, old.horizon, "what it may have accepted is refused");
        assert_eq!(new.horizon, old.horizon + numbers::INITIAL_HORIZON_PACKETS);
    }
}

#[test]
fn a_restarted_owner_gets_fresh_numbers_too() {
    let (mut log, _) = with_children();
    let before = log.child(0x1000).outbound_high;
    log.take_ownership(owner(1, 2, 3));
    assert_eq!(log.child(0x1000).outbound_start, before);
}

#[test]
fn a_takeover_needs_a_higher_epoch() {
    let (mut log, first) = with_children();
    let before = log.0.hash();
    for claimed in [owner(2, 1, 2), owner(2, 1, 1), first] {
        assert_eq!(
            log.take_ownership(claimed),
            [Effect::Refused(Refusal::EpochNotNewer { claimed, current: first })]
        );
    }
    assert_eq!(log.0.owner(), Some(first));
    let mut same = log.0.clone();
    same.apply(log.0.applied() + 1, &Command::Noop);
    assert_ne!(same.hash(), before, "the applied index is part of the hash");
}

#[test]
fn grants_extend_behind_what_was_granted() {
    let (mut log, first) = with_children();
    let high = log.child(0x1000).outbound_high;
    assert_eq!(
        log.grant(first, spi(0x1000), Direction::Outbound, 1_000),
        [Effect::Granted { spi: spi(0x1000), range: SequenceRange::new(high, high + 1_000) }]
    );
    assert_eq!(log.child(0x1000).outbound(), SequenceRange::new(1, high + 1_000));
    let horizon = log.child(0x1000).horizon + 64;
    assert_eq!(
        log.grant(first, spi(0x1000), Direction::Inbound, 64),
        [Effect::HorizonMoved { spi: spi(0x1000), horizon }]
    );
}

#[test]
fn whoever_is_not_the_owner_is_refused_visibly() {
    let (mut log, first) = with_children();
    let high = log.child(0x1000).outbound_high;
    let current = owner(2, 4, 7);
    log.take_ownership(current);
    let taken_high = log.child(0x1000).outbound_high;
    assert!(taken_high > high);
    let strangers = [first, owner(2, 3, 7), owner(2, 4, 6), owner(2, 4, 8), owner(3, 4, 7)];
    for claimed in strangers {
        let refused = [Effect::Refused(Refusal::NotOwner { claimed, current: Some(current) })];
        assert_eq!(log.grant(claimed, spi(0x1000), Direction::Outbound, 10), refused);
        assert_eq!(log.change(claimed, vec![delete_ike(IKE, None)]), refused);
    }
    assert_eq!(log.child(0x1000).outbound_high, taken_high);
    let message = Refusal::NotOwner { claimed: first, current: Some(current) }.to_string();
    assert!(message.starts_with("made by member 1 (boot 1, epoch 2), but"), "{message}");
}

#[test]
fn nobody_is_owner_before_the_first_takeover() {
    let mut log = Log::default();
    let claimed = owner(1, 1, 1);
    assert_eq!(
        log.change(claimed, vec![put_ike(IKE)]),
        [Effect::Refused(Refusal::NotOwner { claimed, current: None })]
    );
}

#[test]
fn thirty_two_bit_sequence_numbers_end_and_are_not_granted_beyond() {
    let (mut log, first) = with_children();
    let of = spi(0x1000);
    let mut granted = 0u64;
    let mut refused = None;
    for _ in 0..100_000 {
        match log.grant(first, of, Direction::Outbound, u32::MAX).remove(0) {
            Effect::Granted { range, .. } => granted = range.end(),
            other => {
                refused = Some(other);
                break;
            }
        }
    }
    assert_eq!(granted, 1 << 32, "the last number is 2^32 - 1");
    let exhausted = Refusal::SequenceSpaceExhausted { spi: of, direction: Direction::Outbound };
    assert_eq!(refused, Some(Effect::Refused(exhausted)));
    log.take_ownership(owner(2, 1, 3));
    assert!(log.child(0x1000).outbound().is_empty(), "a successor finds nothing either");
}

#[test]
fn one_bad_item_of_a_grant_does_not_harm_the_others() {
    let (mut log, first) = with_children();
    let item =
        |value, packets| GrantItem { spi: spi(value), direction: Direction::Outbound, packets };
    let grants = vec![item(0x9000, 5), item(0x1000, 0), item(0x2000, 5)];
    let effects = log.apply(&Command::Grant { owner: first, grants });
    assert_eq!(effects[0], Effect::Refused(Refusal::UnknownChildSa(spi(0x9000))));
    assert!(matches!(effects[1], Effect::Refused(Refusal::SequenceSpaceExhausted { .. })));
    assert!(matches!(effects[2], Effect::Granted { .. }));
}

#[test]
fn an_exchange_is_recorded_whole_or_not_at_all() {
    let (mut log, first) = with_children();
    let before = log.0.clone();
    let effects = log.change(
        first,
        vec![
            delete_child(0x1000, None),
            put_ike(IkeSpi(7)),
            put_child(IkeSpi(7), parameters(0x3000, true)),
            delete_ike(IKE, None),
            put_child(IkeSpi(99), parameters(0x4000, true)),
        ],
    );
    assert_eq!(effects, [Effect::Refused(Refusal::UnknownIkeSa(IkeSpi(99)))]);
    let mut expected = before;
    expected.apply(log.0.applied(), &Command::Noop);
    assert_eq!(log.0, expected);
}

#[test]
fn deleting_an_ike_sa_deletes_its_child_sas() {
    let (mut log, first) = with_children();
    let effects = log.change(first, vec![delete_ike(IKE, None)]);
    assert_eq!(
        effects,
        [
            Effect::ChildRemoved(spi(0x1000)),
            Effect::ChildRemoved(spi(0x2000)),
            Effect::IkeRemoved(IKE)
        ]
    );
    assert_eq!((log.0.ike_sas().len(), log.0.children().len()), (0, 0));
    assert!(log.change(first, vec![delete_ike(IKE, None)]).is_empty());
}

#[test]
fn a_rekeyed_ike_sa_inherits_the_child_sas_with_their_numbers() {
    let (mut log, first) = with_children();
    log.grant(first, spi(0x1000), Direction::Outbound, 500);
    let before = log.child(0x1000).clone();
    let new = IkeSpi(0xabc);
    let effects = log.change(
        first,
        vec![
            put_ike(new),
            put_child(new, parameters(0x1000, false)),
            put_child(new, parameters(0x2000, true)),
            delete_ike(IKE, None),
        ],
    );
    assert_eq!(effects[1], Effect::ChildMoved { spi: spi(0x1000), ike: new });
    assert_eq!(effects[3], Effect::IkeRemoved(IKE));
    assert_eq!(log.child(0x1000), &ChildRecord { ike: new, ..before });
    assert_eq!(log.0.children_of(new).collect::<Vec<_>>(), [spi(0x1000), spi(0x2000)]);
    assert_eq!(log.0.children_of(IKE).count(), 0);
}

#[test]
fn other_keys_do_not_slip_under_the_numbers_of_a_child_sa() {
    let (mut log, first) = with_children();
    let other = ChildSaParameters { outbound_key: key(1), ..parameters(0x1000, false) };
    assert_eq!(
        log.change(first, vec![put_child(IKE, other.clone())]),
        [Effect::Refused(Refusal::ChildSaExists(spi(0x1000)))]
    );
    // After it is gone the SPI may serve a new SA, whose numbers start anew under the new keys.
    let again = vec![delete_child(0x1000, None), put_child(IKE, other)];
    log.change(first, again);
    assert_eq!(log.child(0x1000).outbound_start, 1);
}

#[test]
fn targets_drain_and_return() {
    let mut log = Log::default();
    let set = |draining| Command::SetTarget { target: TargetId(4), draining };
    let changed = |draining| Effect::TargetChanged { target: TargetId(4), draining };
    assert_eq!(log.apply(&set(true)), [changed(true)]);
    assert!(log.apply(&set(true)).is_empty());
    assert!(log.0.is_draining(TargetId(4)));
    assert_eq!(log.apply(&set(false)), [changed(false)]);
    assert!(!log.0.is_draining(TargetId(4)));
}

#[test]
fn the_first_secret_of_the_marks_stands_and_only_the_owner_may_set_it() {
    let (mut log, first) = with_children();
    let secret = |byte| SecretBytes::new(vec![byte; limits::MARK_SECRET_BYTES]);
    let set = |owner, byte| Command::SetMarkSecret { owner, secret: secret(byte) };
    let stranger = owner(3, 1, first.epoch.0);
    assert!(matches!(
        log.apply(&set(stranger, 1))[..],
        [Effect::Refused(Refusal::NotOwner { .. })]
    ));
    assert_eq!(log.apply(&set(first, 2)), [Effect::MarkSecretSet]);
    assert!(log.apply(&set(first, 3)).is_empty());
    assert_eq!(log.0.mark_secret(), Some(&secret(2)));
    let copy = State::restore(&log.0.snapshot()).unwrap();
    assert_eq!(copy, log.0);
    let short = Command::SetMarkSecret { owner: first, secret: SecretBytes::new(vec![1; 31]) };
    assert!(Command::decode(&short.encode().unwrap()).is_err());
}

#[test]
fn an_entry_seen_again_changes_nothing() {
    let (mut log, first) = with_children();
    let grant = Command::Grant {
        owner: first,
        grants: vec![GrantItem { spi: spi(0x1000), direction: Direction::Outbound, packets: 100 }],
    };
    let index = log.0.applied() + 1;
    assert_eq!(log.0.apply(index, &grant).len(), 1);
    let after = log.0.clone();
    assert!(log.0.apply(index, &grant).is_empty());
    assert_eq!(log.0, after);
}

#[test]
fn what_is_too_large_is_refused() {
    let (mut log, first) = with_children();
    let long = "n".repeat(limits::CONNECTION_NAME_BYTES_MAX + 1);
    let state = SecretBytes::new(vec![0; limits::IKE_STATE_BYTES_MAX + 1]);
    let named = StateChange::PutIkeSa { spi: IKE, connection: long, state: SecretBytes::default() };
    let big = StateChange::PutIkeSa { spi: IKE, connection: String::new(), state };
    let mut many = parameters(0x5000, true);
    many.selectors.remote =
        vec![TrafficSelector::host(Ipv4Addr::LOCALHOST); limits::SELECTORS_MAX + 1];
    for change in [named, big, put_child(IKE, many)] {
        let effects = log.change(first, vec![change]);
        assert!(matches!(effects[..], [Effect::Refused(Refusal::TooLarge(_))]), "{effects:?}");
    }
    let delete = delete_child(0x1000, None);
    let effects = log.change(first, vec![delete; limits::CHANGES_MAX + 1]);
    assert!(matches!(effects[..], [Effect::Refused(Refusal::TooLarge(_))]));
    assert!(log.0.child(spi(0x1000)).is_some());
}

#[test]
fn a_snapshot_is_the_whole_state() {
    let (mut log, first) = with_children();
    log.grant(first, spi(0x2000), Direction::Inbound, 77);
    log.apply(&Command::SetTarget { target: TargetId(3), draining: true });
    log.take_ownership(owner(3, 9, 12));
    let restored = State::restore(&log.0.snapshot()).unwrap();
    assert_eq!(restored, log.0);
    assert_eq!(restored.hash(), log.0.hash());
    assert_eq!(State::restore(&State::new().snapshot()).unwrap(), State::new());
}

#[test]
fn newer_formats_are_told_from_broken_ones() {
    let mut bytes = Command::Noop.encode().unwrap();
    assert_eq!(&bytes[..2], [0x08, 0x01], "field 1 is the major version");
    bytes[1] = 2;
    assert_eq!(Command::decode(&bytes), Err(CodecError::Newer { found: 2, known: 1 }));
    bytes[1] = 0;
    assert_eq!(Command::decode(&bytes), Err(CodecError::Invalid("the version")));
    assert_eq!(Command::decode(&[0x08, 0x01]), Err(CodecError::Invalid("the command")));
    assert_eq!(Command::decode(&[0xff; 5]), Err(CodecError::Malformed));
    let mut snapshot = State::new().snapshot();
    snapshot[1] = 9;
    assert_eq!(State::restore(&snapshot), Err(CodecError::Newer { found: 9, known: 1 }));
}

#[test]
fn an_oversized_command_is_not_encoded() {
    let state = SecretBytes::new(vec![1; limits::IKE_STATE_BYTES_MAX]);
    let put = StateChange::PutIkeSa { spi: IKE, connection: String::new(), state };
    let command = Command::Ike { owner: owner(1, 1, 1), changes: vec![put; 5] };
    assert!(matches!(command.encode(), Err(CodecError::TooLarge(_))));
}

#[test]
fn no_key_shows_in_debug() {
    let (log, first) = with_children();
    let command = Command::Ike {
        owner: first,
        changes: vec![put_ike(IKE), put_child(IKE, parameters(0x1000, true))],
    };
    for shown in [format!("{command:?}"), format!("{:?}", log.0)] {
        assert!(!shown.contains("197, 197") && !shown.contains("c5c5"), "{shown}");
    }
}

fn any_owner() -> impl Strategy<Value = Owner> {
    (1..4u64, 1..3u64, 1..6u64).prop_map(|(member, boot, epoch)| owner(member, boot, epoch))
}

fn any_spi() -> impl Strategy<Value = u32> {
    (0..6u32).prop_map(|slot| 0x1000 + slot * 0x10)
}

fn any_change() -> impl Strategy<Value = StateChange> {
    let ike = (1..4u64).prop_map(IkeSpi);
    prop_oneof![
        ike.clone().prop_map(put_ike),
        (ike.clone(), proptest::option::of(any_owner()))
            .prop_map(|(spi, under)| delete_ike(spi, under)),
        (ike, any_spi(), any::<bool>())
            .prop_map(|(ike, spi, esn)| put_child(ike, parameters(spi, esn))),
        (any_spi(), proptest::option::of(any_owner()))
            .prop_map(|(value, under)| delete_child(value, under)),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let item = (any_spi(), any::<bool>(), 0..200_000u32).prop_map(|(value, outbound, packets)| {
        let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
        GrantItem { spi: spi(value), direction, packets }
    });
    let settled = (any_spi(), 0..9_000u64, 0..300u64).prop_map(|(value, outbound_next, edge)| {
        SettleItem { spi: spi(value), outbound_next, edge: ReplayEdge::at(edge) }
    });
    prop_oneof![
        1 => Just(Command::Noop),
        2 => (any_owner(), proptest::collection::vec(settled, 0..4), any::<bool>())
            .prop_map(|(owner, items, last)| Command::Settle { owner, items, last }),
        2 => any_owner().prop_map(|owner| Command::TakeOwnership { owner }),
        6 => (any_owner(), proptest::collection::vec(any_change(), 0..6))
            .prop_map(|(owner, changes)| Command::Ike { owner, changes }),
        6 => (any_owner(), proptest::collection::vec(item, 0..6))
            .prop_map(|(owner, grants)| Command::Grant { owner, grants }),
        1 => (any_owner(), any::<u8>()).prop_map(|(owner, byte)| {
            let secret = SecretBytes::new(vec![byte; limits::MARK_SECRET_BYTES]);
            Command::SetMarkSecret { owner, secret }
        }),
        1 => (0..5u64, any::<bool>()).prop_map(|(target, draining)| {
            Command::SetTarget { target: TargetId(target), draining }
        }),
        3 => records::any_carry_on(),
        1 => records::any_hold(),
    ]
}

/// Makes most commands the present owner's, or nothing interesting would be applied.
fn by_present_owner(state: &State, command: Command, honest: bool) -> Command {
    let Some(present) = state.owner().filter(|_| honest) else { return command };
    match command {
        Command::Ike { changes, .. } => Command::Ike { owner: present, changes },
        Command::Grant { grants, .. } => Command::Grant { owner: present, grants },
        Command::Settle { items, last, .. } => Command::Settle { owner: present, items, last },
        Command::CarryOn { ike_sas, children, .. } => {
            let from = state.children().map(|child| child.standing.owner).min().unwrap_or(present);
            Command::CarryOn { owner: present, from, ike_sas, children }
        }
        Command::Hold { record, hold, .. } => {
            let under = state.standing(record).map_or(present, |standing| standing.owner);
            Command::Hold { owner: present, record, under, hold }
        }
        Command::TakeOwnership { owner } => {
            let epoch = Epoch(present.epoch.0 + 1);
            Command::TakeOwnership { owner: Owner { epoch, ..owner } }
        }
        other => other,
    }
}

fn commands() -> impl Strategy<Value = Vec<(Command, bool)>> {
    let honest = proptest::bool::weighted(0.8);
    proptest::collection::vec((any_command(), honest), 1..60)
}

proptest! {
    #[test]
    fn commands_survive_encoding(command in any_command()) {
        let bytes = command.encode().unwrap();
        prop_assert_eq!(Command::decode(&bytes).unwrap(), command);
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _command = Command::decode(&bytes);
        let _state = State::restore(&bytes);
    }

    #[test]
    fn equal_applied_index_means_equal_hash_whatever_the_way(
        commands in commands(),
        restart_at in 0..60usize,
    ) {
        let (mut one, mut other) = (State::new(), State::new());
        for (at, (command, honest)) in commands.into_iter().enumerate() {
            let command = by_present_owner(&one, command, honest);
            let index = one.applied() + 1;
            let effects = one.apply(index, &command);
            if at == restart_at {
                other = State::restore(&other.snapshot()).unwrap();
            }
            let travelled = Command::decode(&command.encode().unwrap()).unwrap();
            prop_assert_eq!(other.apply(index, &travelled), effects);
            prop_assert_eq!(one.hash(), other.hash());
            prop_assert_eq!(one.record_digests(), one.recomputed_digests());
        }
        prop_assert_eq!(one, other);
    }

    #[test]
    fn states_that_differ_have_different_hashes(commands in commands()) {
        let mut state = State::new();
        let mut seen: BTreeMap<u64, State> = BTreeMap::new();
        for (command, honest) in commands {
            let command = by_present_owner(&state, command, honest);
            state.apply(state.applied() + 1, &command);
            if let Some(other) = seen.insert(state.hash(), state.clone()) {
                prop_assert_eq!(other, state.clone());
            }
        }
    }

    #[test]
    fn what_was_frozen_encodes_as_it_was_whatever_came_after(
        commands in commands(),
        at in 0..60usize,
    ) {
        let mut state = State::new();
        let mut frozen = None;
        for (number, (command, honest)) in commands.into_iter().enumerate() {
            let command = by_present_owner(&state, command, honest);
            state.apply(state.applied() + 1, &command);
            if number == at {
                frozen = Some((state.freeze(), State::restore(&state.snapshot()).unwrap()));
            }
        }
        if let Some((frozen, then)) = frozen {
            prop_assert_eq!(State::restore(&frozen.encode()).unwrap(), then);
        }
    }

    /// Law 2: whoever applies the effects never gets a number somebody else was given.
    #[test]
    fn no_number_is_granted_twice_while_its_keys_live(commands in commands()) {
        let mut state = State::new();
        let mut granted = BTreeMap::new();
        for (command, honest) in commands {
            let command = by_present_owner(&state, command, honest);
            let effects = state.apply(state.applied() + 1, &command);
            for effect in &effects {
                match effect {
                    Effect::Settled(Settlement::Complete) => give_back(&mut granted, &state),
                    Effect::ChildRemoved(spi) => drop(granted.remove(spi)),
                    Effect::ChildInstalled(spi) => {
                        let child = state.child(*spi);
                        // Removed again by a later change of the same entry.
                        let Some(child) = child else { continue };
                        take(&mut granted, *spi, &child.outbound());
                    }
                    Effect::Granted { spi, range } => take(&mut granted, *spi, range),
                    Effect::OwnerChanged { .. } => {
                        for child in state.children() {
                            take(&mut granted, child.parameters.inbound_spi, &child.outbound());
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn floors_and_horizons_only_rise_and_the_relation_holds(commands in commands()) {
        let mut state = State::new();
        for (command, honest) in commands {
            let before = state.clone();
            let command = by_present_owner(&state, command, honest);
            let effects = state.apply(state.applied() + 1, &command);
            for child in state.children() {
                prop_assert!(child.floor <= child.horizon);
                prop_assert!(state.ike_sa(child.ike).is_some());
                let spi = child.parameters.inbound_spi;
                prop_assert!(state.children_of(child.ike).any(|known| known == spi));
                let replaced = effects.contains(&Effect::ChildInstalled(spi));
                if let Some(old) = before.child(spi).filter(|_| !replaced) {
                    prop_assert!(child.floor >= old.floor && child.horizon >= old.horizon);
                    prop_assert!(child.outbound_high >= old.outbound_high);
                }
            }
        }
    }
}

/// Who has settled has not used what it did not name, and will not.
fn give_back(granted: &mut BTreeMap<Spi, Vec<SequenceRange>>, state: &State) {
    for child in state.children() {
        let Some(ranges) = granted.get_mut(&child.parameters.inbound_spi) else { continue };
        let next = child.settled.as_ref().map_or(child.outbound_start, |at| at.outbound_next);
        for range in ranges.iter_mut().filter(|range| range.end() > next) {
            *range = SequenceRange::new(range.next(), next.max(range.next()));
        }
        ranges.retain(|range| !range.is_empty());
    }
}

fn take(granted: &mut BTreeMap<Spi, Vec<SequenceRange>>, spi: Spi, range: &SequenceRange) {
    let known = granted.entry(spi).or_default();
    let overlapping = known.iter().find(|other| {
        !range.is_empty() && other.next() < range.end() && range.next() < other.end()
    });
    assert_eq!(overlapping, None, "{range:?} of {spi:?} was granted before");
    known.push(range.clone());
}

#[test]
fn what_a_peer_made_by_a_rekey_is_known_to_it_once_it_has_deleted_the_old() {
    let mut log = Log::default();
    let first = owner(1, 1, 1);
    log.take_ownership(first);
    log.change(first, vec![put_ike(IKE), put_child(IKE, parameters(0x1000, true))]);
    let replaces = Some(spi(0x1000));
    let rekeyed = Box::new(parameters(0x2000, true));
    log.change(first, vec![StateChange::PutChildSa { ike: IKE, parameters: rekeyed, replaces }]);
    let known = |state: &State| {
        let child = state.child(spi(0x2000)).unwrap();
        assert_eq!(child.replaces, replaces);
        state.is_known_to_peer(child)
    };
    assert!(!known(&log.0), "the answer may not have arrived");
    let restored = State::restore(&log.0.snapshot()).unwrap();
    assert_eq!(restored, log.0);
    let mut successor = Log(log.0.clone());
    successor.take_ownership(owner(2, 1, 2));
    assert!(!known(&successor.0), "nor does a successor know more");
    let delete = StateChange::DeleteChildSa { inbound_spi: spi(0x1000), under: None };
    log.change(first, vec![delete]);
    assert!(known(&log.0));
}
