//! One member takes over: how long its controller is busy until which step.
//!
//! A cluster of one, so that every microsecond is this member's own. Detection and agreement are
//! measured elsewhere; here it counts what the number of SAs adds to them.

use crate::records::{COMMON, state};
use crate::{Figure, cpu_ms};
use holdfast_cluster::{Incarnation, MemberId};
use holdfast_datapath::{Prefix, WorkerCommand};
use holdfast_ike::{Identity, IkeConfig};
use holdfast_member::{
    Addresses, Input, Member, MemberConfig, MemberEvent, Output, SuccessionPolicy,
};
use holdfast_packet::{MacAddr, Nanos};
use holdfast_replica::{HardState, Recovered, SnapshotImage, Timing};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

pub(crate) fn config() -> MemberConfig {
    MemberConfig {
        id: MemberId(1),
        incarnation: Incarnation(1),
        members: vec![MemberId(1)],
        witnesses: BTreeSet::new(),
        release: String::new(),
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
        member_addresses: BTreeMap::new(),
        join: false,
        succession: SuccessionPolicy::default(),
    }
}

pub(crate) fn disk(sas: u32) -> Recovered {
    let (state, index) = state(sas);
    Recovered {
        hard_state: HardState { term: 1, vote: 0, commit: index },
        snapshot: Some(SnapshotImage { index, term: 1, data: state.snapshot().into() }),
        entries: Vec::new(),
    }
}

/// When, in controller time since the claim was committed, each step was through.
#[derive(Default)]
struct Steps {
    began: bool,
    busy_ms: f64,
    longest_call_ms: f64,
    leased: Option<f64>,
    installed: u32,
    all_installed: Option<f64>,
    current: Option<f64>,
}

/// A takeover by a standby that has every SA ready, and by a member that has just started.
pub(crate) fn measure(sas: u32) -> Vec<Figure> {
    let slow = Timing { tick_ms: WARM_TICK_MS, ..Timing::DEFAULT };
    let mut figures = measure_one("takeover, warm", sas, MemberConfig { timing: slow, ..config() });
    figures.extend(measure_one("takeover, cold", sas, config()));
    figures
}

/// So slow a clockwork that the boot quarantine is long enough to get every SA ready in.
const WARM_TICK_MS: u64 = 1_000;

fn measure_one(section: &'static str, sas: u32, config: MemberConfig) -> Vec<Figure> {
    let disk = disk(sas);
    let begin = cpu_ms();
    let mut now = Nanos::from_secs(1);
    let mut member = Member::new(config, disk, [3; 32], now).expect("a member");
    let started_ms = cpu_ms() - begin;
    let mut steps = Steps::default();
    let mut persisted = drain(&mut member, &mut steps, sas);
    while steps.current.is_none() || steps.all_installed.is_none() {
        let begin = cpu_ms();
        match persisted.take() {
            Some(number) => member.handle(now, Input::Persisted(number)),
            None => {
                now = member.next_deadline().expect("more to do").max(now);
                member.handle_timeout(now);
            }
        }
        let call_ms = cpu_ms() - begin;
        // Before the claim is committed nothing depends on the number of SAs.
        let leads = member.state().owner().is_some_and(|owner| owner.member == MemberId(1));
        if leads || steps.began {
            steps.began = true;
            steps.busy_ms += call_ms;
            steps.longest_call_ms = steps.longest_call_ms.max(call_ms);
        }
        persisted = drain(&mut member, &mut steps, sas);
        assert!(now < Nanos::from_secs(600), "a takeover ends");
    }
    let figure = |name, value| Figure { section, sas, name, value, unit: "ms", timed: true };
    vec![
        figure("start of a member with this disk", started_ms),
        figure("claim committed to announced", steps.leased.unwrap_or(f64::NAN)),
        figure("... to every Child SA at its worker", steps.all_installed.unwrap_or(f64::NAN)),
        figure("... to store current", steps.current.unwrap_or(f64::NAN)),
        figure("longest call", steps.longest_call_ms),
    ]
}

/// Carries the outputs out; returns the write to acknowledge.
fn drain(member: &mut Member, steps: &mut Steps, sas: u32) -> Option<u64> {
    let mut persisted = None;
    while let Some(output) = member.poll_output() {
        match output {
            Output::Persist(batch) => persisted = Some(batch.number),
            Output::Lease(until) if until > Nanos::ZERO => {
                steps.leased.get_or_insert(steps.busy_ms);
            }
            Output::Worker { command: WorkerCommand::InstallInbound(_), .. } => {
                steps.installed += 1;
            }
            Output::Event(MemberEvent::StoreCurrent { .. }) => {
                steps.current.get_or_insert(steps.busy_ms);
            }
            _ => {}
        }
    }
    if steps.installed >= sas {
        steps.all_installed.get_or_insert(steps.busy_ms);
    }
    persisted
}
