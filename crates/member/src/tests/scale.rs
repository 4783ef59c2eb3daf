//! A takeover of many SAs.

use super::*;
use crate::{Addresses, Input, Member, MemberConfig, Output, limits};
use holdfast_cluster::{
    Command, Epoch, IkeSpi, Incarnation, Owner, State, StateChange, limits::CHANGES_MAX,
};
use holdfast_crypto::{AeadAlgorithm, SecretBytes};
use holdfast_datapath::{Prefix, WorkerCommand};
use holdfast_ike::{Identity, IkeConfig};
use holdfast_ipsec::{ChildSaParameters, Encapsulation, SaKey, Selectors, Spi, TrafficSelector};
use holdfast_packet::{MacAddr, Nanos};
use holdfast_replica::{HardState, Recovered, SnapshotImage, Timing};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

const SAS: u32 = 1_000;
const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

fn child(number: u32) -> ChildSaParameters {
    let key = || SaKey::new(AeadAlgorithm::Aes256Gcm16, &[7; 36]).unwrap();
    let client = Ipv4Addr::from_bits(0x0a00_0000 + number);
    ChildSaParameters {
        inbound_spi: Spi::new(1_000 + number).unwrap(),
        outbound_spi: Spi::new(900_000 + number).unwrap(),
        inbound_key: key(),
        outbound_key: key(),
        esn: true,
        window_packets: 64,
        local: COMMON,
        remote: Ipv4Addr::from_bits(0xcb00_7100 + number),
        encapsulation: Encapsulation::Esp,
        selectors: Selectors {
            local: vec![TrafficSelector::host(COMMON)],
            remote: vec![TrafficSelector::host(client)],
        },
        connection: "peers".into(),
    }
}

/// The disk of a member whose cluster had one IKE SA with a Child SA per number.
fn full_disk() -> Recovered {
    let owner = Owner { member: MemberId(9), incarnation: Incarnation(1), epoch: Epoch(1) };
    let mut state = State::new();
    let mut index = 1;
    state.apply(index, &Command::TakeOwnership { owner });
    let changes: Vec<StateChange> = (0..SAS)
        .flat_map(|number| {
            let ike = IkeSpi(u64::from(number) + 1);
            let state = SecretBytes::new(b"unreadable".to_vec());
            let parameters = Box::new(child(number));
            [
                StateChange::PutIkeSa { spi: ike, connection: "peers".into(), state },
                StateChange::PutChildSa { ike, parameters, replaces: None },
            ]
        })
        .collect();
    for changes in changes.chunks(CHANGES_MAX / 2) {
        index += 1;
        state.apply(index, &Command::Ike { owner, changes: changes.to_vec() });
    }
    assert_eq!(state.children().len(), SAS as usize);
    Recovered {
        hard_state: HardState { term: 1, vote: 0, commit: index },
        snapshot: Some(SnapshotImage { index, term: 1, data: state.snapshot() }),
        entries: Vec::new(),
    }
}

fn config() -> MemberConfig {
    MemberConfig {
        succession: crate::SuccessionPolicy::default(),
        id: MemberId(1),
        incarnation: Incarnation(1),
        witnesses: std::collections::BTreeSet::new(),
        release: String::new(),
        member_addresses: std::collections::BTreeMap::new(),
        join: false,
        members: vec![MemberId(1)],
        timing: Timing::DEFAULT,
        addresses: Addresses {
            common: COMMON,
            inside: Ipv4Addr::new(192, 0, 2, 100),
            service: COMMON,
            outside_prefix: Prefix { address: COMMON, length: 24 },
            gateway: Some(Ipv4Addr::new(198, 51, 100, 1)),
        },
        outside_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        inside_mac: MacAddr([2, 0, 0, 1, 0, 1]),
        ike: IkeConfig::new(COMMON, Identity::Ipv4(COMMON)),
        targets: Vec::new(),
        workers: 2,
        maglev_seed: 1,
        flow_seed: 2,
    }
}

#[test]
fn a_takeover_installs_every_sa_once_and_in_slices() {
    let mut now = Nanos::from_secs(1);
    let mut member = Member::new(config(), full_disk(), [3; 32], now).unwrap();
    let (mut installed, mut calls) = (Vec::new(), 0);
    let mut writes = VecDeque::new();
    while installed.len() < SAS as usize {
        let mut slice = Vec::new();
        while let Some(output) = member.poll_output() {
            match output {
                Output::Persist(batch) => writes.push_back(batch.number),
                Output::Worker { worker, command: WorkerCommand::InstallOutbound { id, sa } } => {
                    assert_eq!(worker, id.worker(1));
                    assert_eq!(sa.remaining(), 4_096, "fresh numbers");
                    slice.push(id);
                }
                _ => {}
            }
        }
        assert!(slice.len() <= limits::LOAD_CHILDREN_PER_ROUND, "{} at once", slice.len());
        calls += usize::from(!slice.is_empty());
        installed.extend(slice);
        if let Some(number) = writes.pop_front() {
            member.handle(now, Input::Persisted(number));
            continue;
        }
        now = member.next_deadline().unwrap().max(now);
        assert!(now < Nanos::from_secs(2), "{} installed", installed.len());
        member.handle_timeout(now);
    }
    assert!(calls >= SAS as usize / limits::LOAD_CHILDREN_PER_ROUND);
    installed.dedup();
    assert_eq!(installed.len(), SAS as usize, "each once");
}

/// Carries the outputs out that a cluster of one needs; returns the events.
fn carry_out(member: &mut Member, now: Nanos) -> Vec<MemberEvent> {
    let mut events = Vec::new();
    loop {
        let mut persisted = None;
        while let Some(output) = member.poll_output() {
            match output {
                Output::Persist(batch) => persisted = Some(batch.number),
                Output::Event(event) => events.push(event),
                _ => {}
            }
        }
        let Some(number) = persisted else { return events };
        member.handle(now, Input::Persisted(number));
    }
}

#[test]
fn ike_sas_that_cannot_be_read_are_held_with_their_reason_and_deleted_in_the_end() {
    let mut now = Nanos::from_secs(1);
    let mut member = Member::new(config(), full_disk(), [3; 32], now).unwrap();
    let mut events = Vec::new();
    let mut run_until = |member: &mut Member, now: &mut Nanos, end: Nanos| {
        while *now < end {
            events.extend(carry_out(member, *now));
            *now = member.next_deadline().unwrap().clamp(*now, end);
            member.handle_timeout(*now);
        }
        std::mem::take(&mut events)
    };
    let events = run_until(&mut member, &mut now, Nanos::from_secs(3));
    let state = member.state();
    assert_eq!((state.inherited(), state.held().count()), (0, SAS as usize), "none is lost");
    let (_, hold) = state.held().next().unwrap();
    assert!(hold.reason.contains("cannot be restored"), "{}", hold.reason);
    assert_eq!(hold.keep_ms, limits::HOLD_FAILED_MS);
    let current = events.iter().filter(|event| matches!(event, MemberEvent::StoreCurrent { .. }));
    assert_eq!(current.count(), 1);

    let end = now.plus_ms(limits::HOLD_FAILED_MS + 1_000);
    run_until(&mut member, &mut now, end);
    let state = member.state();
    assert_eq!((state.held().count(), state.records()), (0, 0), "nor kept for ever");
}
