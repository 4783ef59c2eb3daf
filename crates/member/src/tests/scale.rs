//! A takeover of many SAs.

use super::*;
use crate::bulletin::{Bulletin, Fitness, MemberMessage};
use crate::event::HandoverCause;
use crate::{Addresses, Input, Member, MemberConfig, Output, limits};
use holdfast_cluster::{
    Command, Epoch, IkeSpi, Incarnation, Mutation, Owner, State, StateChange,
    limits::{CHANGES_MAX, COMMAND_BYTES_MAX},
    set_mutation,
};
use holdfast_crypto::{AeadAlgorithm, SecretBytes};
use holdfast_datapath::{Prefix, Stations, WorkerCommand, WorkerEvent};
use holdfast_ike::{Identity, IkeConfig};
use holdfast_ipsec::{ChildSaParameters, Encapsulation, SaKey, Selectors, Spi, TrafficSelector};
use holdfast_packet::{MacAddr, Nanos};
use holdfast_replica::{
    Compaction, HardState, LogEntry, Recovered, SnapshotImage, Timing, WriteBatch,
};
use std::collections::{BTreeSet, VecDeque};
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
    disk_with(SAS)
}

pub(super) fn disk_with(sas: u32) -> Recovered {
    disk(sas, sas)
}

/// The disk of a member whose cluster had so many Child SAs of so many IKE SAs.
fn disk(ike_sas: u32, sas: u32) -> Recovered {
    let owner = Owner { member: MemberId(9), incarnation: Incarnation(1), epoch: Epoch(1) };
    let mut state = State::new();
    let mut index = 1;
    state.apply(index, &Command::TakeOwnership { owner });
    let changes: Vec<StateChange> = (0..sas)
        .flat_map(|number| {
            let ike = IkeSpi(u64::from(number % ike_sas) + 1);
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
    assert_eq!(state.children().len(), sas as usize);
    Recovered {
        hard_state: HardState { term: 1, vote: 0, commit: index },
        snapshot: Some(SnapshotImage { index, term: 1, data: state.snapshot().into() }),
        entries: Vec::new(),
    }
}

fn config() -> MemberConfig {
    MemberConfig {
        succession: crate::SuccessionPolicy::default(),
        id: MemberId(1),
        incarnation: Incarnation(1),
        witnesses: BTreeSet::new(),
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
        tunnel: holdfast_datapath::TunnelRules::default(),
    }
}

#[test]
fn a_standby_has_every_sa_ready_before_it_owns_and_again_once_it_does_not_any_more() {
    let mut now = Nanos::from_secs(1);
    let mut member = Member::new(config(), full_disk(), [3; 32], now).unwrap();
    // The boot quarantine is no time to own, but one to get ready in.
    for _ in 0..SAS as usize / limits::WARM_CHILDREN_PER_ROUND {
        assert!(!member.warming.is_warm() && !member.own_fitness().warm);
        now = now.plus_ms(limits::WARM_PAUSE_MS);
        member.handle_timeout(now);
    }
    assert!(member.warming.is_warm());
    now = now.plus_ms(limits::WARM_PAUSE_MS);
    member.handle_timeout(now);
    assert_eq!(member.warming.prepared(), SAS as usize);
    assert_eq!(member.state().owner().unwrap().member, MemberId(9), "not the owner yet");

    let end = now.plus_ms(1_000);
    while now < end {
        carry_out(&mut member, now);
        now = member.next_deadline().unwrap().clamp(now, end);
        member.handle_timeout(now);
    }
    assert!(member.speaks(now));
    assert_eq!(member.warming.prepared(), 0, "all of them went to the workers");

    member.relinquish(now, crate::LossCause::Leadership);
    assert!(!member.warming.is_warm());
    for _ in 0..=SAS as usize / limits::WARM_CHILDREN_PER_ROUND {
        now = now.plus_ms(limits::WARM_PAUSE_MS);
        member.warming.step(now, member.replica.state());
    }
    assert_eq!(member.warming.prepared(), SAS as usize);
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

/// A member in the moment it has the lease.
fn new_owner(now: &mut Nanos) -> Member {
    let mut member = Member::new(config(), full_disk(), [3; 32], *now).unwrap();
    while member.ownership.owner().is_none() {
        for command in carry_out_for_workers(&mut member, *now) {
            assert!(!matches!(command, WorkerCommand::Serve), "nothing to serve yet");
        }
        if member.ownership.owner().is_none() {
            *now = member.next_deadline().unwrap().max(*now);
            member.handle_timeout(*now);
        }
    }
    member
}

/// Carries out what a cluster of one needs, until it owns; returns what the workers are told before.
fn carry_out_for_workers(member: &mut Member, now: Nanos) -> Vec<WorkerCommand> {
    let mut commands = Vec::new();
    while member.ownership.owner().is_none() {
        let mut persisted = None;
        while let Some(output) = member.poll_output() {
            match output {
                Output::Persist(batch) => persisted = Some(batch.number),
                Output::Worker { command, .. } => commands.push(command),
                _ => {}
            }
        }
        let Some(number) = persisted else { break };
        member.handle(now, Input::Persisted(number));
    }
    commands
}

fn worker_commands(member: &mut Member) -> Vec<WorkerCommand> {
    let outputs = std::iter::from_fn(|| member.poll_output());
    let commands = outputs.filter_map(|output| match output {
        Output::Worker { command, .. } => Some(command),
        _ => None,
    });
    commands.collect()
}

fn installed(commands: &[WorkerCommand]) -> Vec<Spi> {
    let ids = commands.iter().filter_map(|command| match command {
        WorkerCommand::InstallOutbound { id, .. } => Some(*id),
        _ => None,
    });
    ids.collect()
}

#[test]
fn workers_fill_until_the_last_sa_is_there() {
    let mut now = Nanos::from_secs(1);
    let mut member = new_owner(&mut now);
    let (mut filled, mut served, mut all) = (0, 0, 0);
    for _ in 0..SAS {
        for command in worker_commands(&mut member) {
            match command {
                WorkerCommand::Fill { .. } => filled += 1,
                WorkerCommand::InstallOutbound { .. } => {
                    assert_eq!(filled, 2, "each worker once, and first");
                    all += 1;
                }
                WorkerCommand::Serve => {
                    assert_eq!(all, SAS as usize, "not before the last SA");
                    served += 1;
                }
                _ => {}
            }
        }
        if served > 0 {
            break;
        }
        // As on a slow machine: each slice takes longer than an election.
        now = now.plus_ms(limits::LOAD_PAUSE_MS_MAX);
        member.handle_timeout(now);
    }
    assert_eq!(served, 2, "each worker once");
}

#[test]
fn workers_serve_after_the_lease_also_without_any_sa() {
    let mut now = Nanos::from_secs(1);
    let mut member = Member::new(config(), disk(1, 0), [3; 32], now).unwrap();
    let mut leased = false;
    let mut served = 0;
    while served == 0 {
        while let Some(output) = member.poll_output() {
            match output {
                Output::Persist(batch) => member.handle(now, Input::Persisted(batch.number)),
                Output::Lease(until) => leased = now < until,
                Output::Worker { command: WorkerCommand::Serve, .. } => {
                    assert!(leased, "without one they would drop what they kept");
                    served += 1;
                }
                _ => {}
            }
        }
        now = member.next_deadline().unwrap().max(now);
        member.handle_timeout(now);
    }
    assert_eq!(served, 2);
}

#[test]
fn an_sa_that_a_packet_waits_for_is_loaded_at_once() {
    let mut now = Nanos::from_secs(1);
    let mut member = new_owner(&mut now);
    let first = installed(&worker_commands(&mut member));
    let last = child(SAS - 1).inbound_spi;
    assert!(!first.contains(&last));
    let told = ask(&mut member, now, last);
    assert_eq!(installed(&told).first(), Some(&last), "before the next slice");
    assert_eq!(installed(&told).iter().filter(|spi| **spi == last).count(), 1);
    assert!(!installed(&ask(&mut member, now, last)).contains(&last), "it is on its way");
}

#[test]
fn a_worker_is_told_that_there_is_no_sa_for_what_it_keeps() {
    let mut now = Nanos::from_secs(1);
    let mut member = new_owner(&mut now);
    let nothing = child(SAS).inbound_spi;
    let told = ask(&mut member, now, nothing);
    assert!(told.iter().any(|c| matches!(c, WorkerCommand::NoSuchSa(spi) if *spi == nothing)));
}

/// What the workers are told when one of them keeps a frame for an SA.
fn ask(member: &mut Member, now: Nanos, id: Spi) -> Vec<WorkerCommand> {
    let event = WorkerEvent::Missing { id };
    member.handle(now, Input::Worker { worker: 1, event });
    worker_commands(member)
}

/// Whether member 2 was asked to take over.
fn offered(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| match output {
        Output::SendPeer { to: MemberId(2), bytes, .. } => {
            let bytes: Vec<u8> = bytes.clone().into_vec();
            matches!(MemberMessage::decode(&bytes), Some(MemberMessage::Offer { .. }))
        }
        _ => false,
    })
}

/// Has an owner that is loading its SAs hand over; returns what it does until its workers serve, and then.
fn handed_over_while_filling() -> [Vec<Output>; 2] {
    let mut now = Nanos::from_secs(1);
    let mut member = new_owner(&mut now);
    let stations = Stations { outside: MacAddr([2; 6]), inside: MacAddr([4; 6]) };
    let fitness = Fitness { outside_up: true, inside_up: true, stalled_workers: 0, warm: true };
    let bulletin = Bulletin { incarnation: Incarnation(1), stations, fitness };
    member.fellows.heard(now, MemberId(2), bulletin);
    member.begin_handover(now, MemberId(2), HandoverCause::Operator, None);
    let mut phases = [Vec::new(), Vec::new()];
    for _ in 0..8 {
        member.advance_handover(now);
        let phase = if member.filling { &mut phases[0] } else { &mut phases[1] };
        phase.extend(std::iter::from_fn(|| member.poll_output()));
        now = now.plus_ms(limits::LOAD_PAUSE_MS_MAX);
        member.load(now);
    }
    assert!(!member.filling);
    phases
}

#[test]
fn a_member_whose_workers_fill_does_not_offer_its_ownership() {
    let [filling, serving] = handed_over_while_filling();
    assert!(!offered(&filling) && offered(&serving));
    // Their Serve would come after they stopped and said where.
    set_mutation(Some(Mutation::OfferedWhileFilling), false);
    let [filling, serving] = handed_over_while_filling();
    set_mutation(None, false);
    let serves = |outputs: &[Output]| {
        let serves = |output: &Output| {
            matches!(output, Output::Worker { command: WorkerCommand::Serve, .. })
        };
        outputs.iter().any(serves)
    };
    assert!(offered(&filling) && !serves(&filling) && serves(&serving));
}

#[test]
fn an_owner_that_ends_while_it_loads_has_its_workers_keep_nothing() {
    let mut now = Nanos::from_secs(1);
    let mut member = new_owner(&mut now);
    worker_commands(&mut member);
    member.relinquish(now, crate::LossCause::Leadership);
    let commands = worker_commands(&mut member);
    let ends = |command: &&WorkerCommand| matches!(command, WorkerCommand::Hold { until } if *until == now);
    assert_eq!(commands.iter().filter(ends).count(), 2, "{commands:?}");
    assert!(!commands.iter().any(|command| matches!(command, WorkerCommand::Serve)));
}

/// What is on a disk behind its last checkpoint, at most.
#[derive(Default)]
struct LogSize {
    entries: usize,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    checkpoints: usize,
}

impl LogSize {
    fn store(&mut self, batch: &WriteBatch) {
        let bytes =
            |entries: &[LogEntry]| entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        if let Some(checkpoint) = &batch.checkpoint {
            // Whoever stores a snapshot encodes it.
            assert!(!checkpoint.snapshot.data.is_empty());
            (self.entries, self.bytes) = (checkpoint.entries.len(), bytes(&checkpoint.entries));
            self.checkpoints += 1;
        }
        self.entries += batch.entries.len();
        self.bytes += bytes(&batch.entries);
        self.entries_max = self.entries_max.max(self.entries);
        self.bytes_max = self.bytes_max.max(self.bytes);
    }
}

/// Carries everything out and answers as disk and workers would; grants are taken off `asked`.
fn serve(member: &mut Member, now: Nanos, log: &mut LogSize, asked: &mut BTreeSet<Spi>) {
    loop {
        let mut persisted = None;
        while let Some(output) = member.poll_output() {
            match output {
                Output::Persist(batch) => {
                    log.store(&batch);
                    persisted = Some(batch.number);
                }
                Output::Worker { command: WorkerCommand::Grant { id, .. }, .. } => {
                    asked.remove(&id);
                }
                _ => {}
            }
        }
        let Some(number) = persisted else { return };
        member.handle(now, Input::Persisted(number));
    }
}

/// Counts only, no times: nothing that is kept grows with what has been done.
#[test]
fn log_and_queues_of_a_hundred_thousand_sas_under_load_stay_within_their_bounds() {
    const MANY: u32 = 100_000;
    const ROUNDS: usize = 10;
    let mut now = Nanos::from_secs(1);
    let mut member = Member::new(config(), disk(1, MANY), [3; 32], now).unwrap();
    let (mut log, mut asked) = (LogSize::default(), BTreeSet::new());
    let mut step = |member: &mut Member, asked: &mut BTreeSet<Spi>| {
        serve(member, now, &mut log, asked);
        now = member.next_deadline().unwrap().max(now);
        member.handle_timeout(now);
        now
    };
    while member.ownership.owner().is_none() || !member.loading.is_done() {
        step(&mut member, &mut asked);
    }
    let spis: Vec<Spi> = member.state().children().map(|c| c.parameters.inbound_spi).collect();
    assert_eq!(spis.len(), MANY as usize);
    for _ in 0..ROUNDS {
        asked.extend(&spis);
        for few in spis.chunks(4_096) {
            let now = step(&mut member, &mut asked);
            for id in few.iter().copied() {
                let event = WorkerEvent::RangeLow { id, remaining: 0, rate_pps: 100 };
                member.handle(now, Input::Worker { worker: id.worker(1), event });
            }
            for (name, length, bound) in member.queues() {
                assert!(length <= bound, "{name}: {length}");
            }
        }
        while !asked.is_empty() {
            step(&mut member, &mut asked);
        }
        assert_eq!(member.grants.outstanding(), 0, "nothing is kept of what was answered");
    }
    let rule = Compaction::default();
    assert!(log.checkpoints > 0, "the load is enough to meet the bound");
    assert!(log.bytes_max as u64 <= rule.bytes + COMMAND_BYTES_MAX as u64, "{}", log.bytes_max);
    assert!(log.entries_max as u64 <= rule.entries + rule.retained_entries, "{}", log.entries_max);
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

/// What a member of one proposed, and when; grants are taken off `asked`.
struct Proposed {
    /// Moments of the entries that carry records on, and how many each names.
    carried: Vec<(Nanos, usize)>,
    /// Entries that carry records on since the last question for a grant.
    since: usize,
}

impl Proposed {
    fn note(&mut self, now: Nanos, batch: &WriteBatch) {
        for entry in &batch.entries {
            if let Ok(Command::CarryOn { ike_sas, children, .. }) = Command::decode(&entry.data) {
                self.carried.push((now, ike_sas.len() + children.len()));
                self.since += 1;
            }
        }
    }
}

/// While a hundred thousand records are carried on, what else is to be committed goes between: at most one
/// entry of theirs is before it, and they take one moment of five milliseconds.
#[test]
fn records_are_carried_on_with_pauses_in_which_grants_are_committed() {
    const MANY: u32 = 100_000;
    const COMMIT_MS: u64 = 1;
    let mut now = Nanos::from_secs(1);
    let mut member = Member::new(config(), disk(1, MANY), [3; 32], now).unwrap();
    let mut proposed = Proposed { carried: Vec::new(), since: 0 };
    let mut stored: VecDeque<(Nanos, u64)> = VecDeque::new();
    let (mut asked, mut waits_ms): (Option<(Spi, Nanos)>, Vec<u64>) = (None, Vec::new());
    let end = now.plus_ms(3_000);
    while now < end {
        while let Some(output) = member.poll_output() {
            match output {
                Output::Persist(batch) => {
                    proposed.note(now, &batch);
                    stored.push_back((now.plus_ms(COMMIT_MS), batch.number));
                }
                Output::Worker { command: WorkerCommand::Grant { id, .. }, .. } => {
                    let (spi, at) = asked.take().expect("asked for");
                    assert_eq!(spi, id);
                    assert!(proposed.since <= 1, "{} batches before it", proposed.since);
                    waits_ms.push(now.ms_since(at));
                }
                _ => {}
            }
        }
        let carries = member.state().inherited() > 0 && member.loading.is_done();
        if carries && asked.is_none() && !proposed.carried.is_empty() {
            let id = Spi::new(1_000 + waits_ms.len() as u32).unwrap();
            let event = WorkerEvent::RangeLow { id, remaining: 0, rate_pps: 100 };
            (asked, proposed.since) = (Some((id, now)), 0);
            member.handle(now, Input::Worker { worker: id.worker(1), event });
            continue;
        }
        match stored.pop_front_if(|(at, _)| *at <= now) {
            Some((_, number)) => member.handle(now, Input::Persisted(number)),
            None => {
                let due = member.next_deadline().unwrap();
                let written = stored.front().map_or(end, |(at, _)| *at);
                now = due.min(written).clamp(now, end);
                member.handle_timeout(now);
            }
        }
    }
    assert_eq!(member.state().inherited(), 0, "all of them in {end:?}");
    let carried: usize = proposed.carried.iter().map(|(_, records)| records).sum();
    assert_eq!(carried, MANY as usize, "each once; the IKE SA is held");
    for pair in proposed.carried.windows(2) {
        assert!(pair[1].0 >= pair[0].0.plus_ms(limits::CARRY_PAUSE_MS));
    }
    assert!(proposed.carried.iter().all(|(_, records)| *records <= limits::CARRIED_PER_BATCH));
    let most_ms = limits::GRANT_BATCH_MS + 2 * COMMIT_MS;
    assert!(waits_ms.len() > 50 && waits_ms.iter().all(|ms| *ms <= most_ms), "{waits_ms:?}");
}
