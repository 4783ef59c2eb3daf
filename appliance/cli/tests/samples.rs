//! Answers as members give them, from the smallest to the worst.

use holdfast_api::{
    ChildSa, ClusterStatus, DropReason, DropReasons, Flow, FlowList, Health, IkeSa, MemberInfo,
    Ownership, Problem, RecordKind, RecordReadiness, Refusal, Role, SaList, Status, StoreList,
    StoreRecord, Target, TargetList,
};

/// 2026-03-01T12:00:00Z.
const NOON: u64 = 1_772_366_400_000;

pub(super) fn child_sa(number: u32) -> ChildSa {
    let ready = !number.is_multiple_of(2);
    ChildSa {
        inbound_spi: 0xc0de_0000 + number,
        outbound_spi: 0xfeed_0000 + number,
        ike_spi: 0x1122_3344_5566_7788,
        connection: "headquarters-and-branches".into(),
        peer: "198.51.100.10".into(),
        suite: "Aes256Gcm16, ESN, in UDP".into(),
        local_ts: vec!["198.51.100.100".into()],
        remote_ts: vec!["10.77.0.0/16".into(), "10.78.0.0/16".into()],
        outbound_granted_end: u64::MAX,
        inbound_floor: 1,
        inbound_horizon: 128,
        takeover_ready: ready,
        takeover_reason: if ready { String::new() } else { REASON.into() },
        policy: "reestablish".into(),
        continuity: if ready { "certain" } else { "ambiguous" }.into(),
    }
}

const REASON: &str = "committed, but only 0 other members are connected and 1 must be";

pub(super) fn child_sas(count: u32) -> Vec<ChildSa> {
    (1..=count).map(child_sa).collect()
}

pub(super) fn sa_list(count: u32) -> SaList {
    let ike_sa = |number: u32| IkeSa {
        initiator_spi: 0x8877_6655_4433_2211,
        responder_spi: u64::from(number),
        connection: "road".into(),
        peer: "198.51.100.10:4500".into(),
        identity: "a.rather.long.name.of.a.client@branch.office.example.org".into(),
        state: "established".into(),
        takeover_ready: true,
        policy: "renew".into(),
    };
    SaList {
        ike_sas: (1..=count).map(ike_sa).collect(),
        child_sas: child_sas(count),
        ike_sas_total: count.into(),
        child_sas_total: count.into(),
    }
}

/// An IKE SA with two Child SAs after a takeover that is not through, and one that failed.
pub(super) fn store() -> StoreList {
    let record = |kind: RecordKind, inbound_spi, epoch, readiness: RecordReadiness| StoreRecord {
        kind: kind.into(),
        ike_spi: 0x1122_3344_5566_7788,
        inbound_spi,
        connection: "headquarters-and-branches".into(),
        peer: if inbound_spi == 0 { String::new() } else { "198.51.100.10".into() },
        owner_member: 2,
        owner_incarnation: 7,
        epoch,
        readiness: readiness.into(),
        reason: String::new(),
        keep_ms: 0,
    };
    let failed = StoreRecord {
        reason: "IKE SA 1122334455667788 cannot be restored: written by a newer version".into(),
        keep_ms: 3_600_000,
        ..record(RecordKind::IkeSa, 0, 5, RecordReadiness::Failed)
    };
    StoreList {
        common_address: "198.51.100.100".into(),
        member: 1,
        applied_index: 4_711,
        lag_entries: 0,
        follows: true,
        owner: cluster().owner,
        ike_sas: 1,
        child_sas: 2,
        inherited: 1,
        pending: 0,
        failed: 1,
        takeover_ready: true,
        takeover_reason: "committed; 2 of 2 other members are connected".into(),
        records: vec![
            failed,
            record(RecordKind::ChildSa, 0xc0de_0001, 5, RecordReadiness::Ready),
            record(RecordKind::Relation, 0xc0de_0001, 5, RecordReadiness::Ready),
            record(RecordKind::ChildSa, 0xc0de_0002, 4, RecordReadiness::Inherited),
            record(RecordKind::Relation, 0xc0de_0002, 4, RecordReadiness::Inherited),
        ],
        truncated: false,
        refused_changes: vec![Refusal { reason: "stale_record".into(), count: 1 }],
    }
}

pub(super) fn target(number: u8) -> Target {
    Target {
        name: format!("web{number}"),
        address: format!("192.0.2.{number}"),
        weight: 1,
        draining: number.is_multiple_of(3),
        mac: if number.is_multiple_of(4) { String::new() } else { "02:00:00:00:00:01".into() },
        delivery: "clear".into(),
        notice: "absent".into(),
        open: true,
        ..Target::default()
    }
}

/// One that runs holdfast-target.
fn following(target: Target) -> Target {
    Target {
        delivery: "marked".into(),
        notice: "acknowledged".into(),
        epoch: Some(5),
        healthy: Some(true),
        load_percent: Some(7),
        connections: 3,
        ..target
    }
}

pub(super) fn targets(count: u8) -> TargetList {
    let one = |number| match number {
        1 => following(target(1)),
        _ => target(number),
    };
    TargetList { targets: (1..=count).map(one).collect() }
}

pub(super) fn flows() -> FlowList {
    let flow = Flow {
        protocol: "tcp".into(),
        source: "10.77.0.10:49152".into(),
        destination: "198.51.100.100:443".into(),
        target: "web1".into(),
        idle_ms: 192_000,
        worker: 1,
        way: "distributed".into(),
    };
    FlowList { flows: vec![flow], truncated: true }
}

pub(super) fn drops() -> DropReasons {
    let reason = |name: &str, packets| DropReason {
        name: name.into(),
        packets,
        description: "The sequence number was accepted before, so the packet is a duplicate of \
                      one that has been delivered or somebody repeats what he recorded."
            .into(),
    };
    DropReasons {
        reasons: vec![reason("replayed", 7), reason("too_old", 0), reason("no_policy", u64::MAX)],
    }
}

fn member(number: u64, role: Role) -> MemberInfo {
    MemberInfo {
        member: number,
        address: format!("10.99.0.{number}:7000"),
        role: role.into(),
        this: number == 1,
        matched_index: Some(1_042),
        connected: role != Role::Unreachable,
        witness: false,
        fitness: "fit".into(),
        release: "0.1.0".into(),
        level: 2,
        standing: "voter".into(),
    }
}

pub(super) fn cluster() -> ClusterStatus {
    ClusterStatus {
        member: 1,
        incarnation: 7,
        term: 5,
        leader: Some(1),
        commit_index: 1_042,
        applied_index: 1_042,
        members: vec![member(1, Role::Owner), member(2, Role::Standby), member(3, Role::Standby)],
        owner: Some(Ownership {
            member: 1,
            incarnation: 7,
            epoch: 5,
            since_unix_ms: NOON - 192_000,
        }),
        state_hash: "00112233aabbccdd".into(),
        level: 2,
        change: String::new(),
        retired: Vec::new(),
        generation: 0,
        refusals: vec![Refusal { reason: "foreign_certificate".into(), count: 2 }],
        takeback: "never".into(),
        hold_down_ms: 60_000,
        preference: vec![1, 2, 3],
        successors_ready: Some(2),
    }
}

/// A cluster that is well.
pub(super) fn status() -> Status {
    Status {
        version: "0.1.0 (1a2b3c4d5e6f)".into(),
        health: Health::Ok.into(),
        problems: Vec::new(),
        common_address: "198.51.100.100".into(),
        inside_address: "192.0.2.100".into(),
        role: Role::Owner.into(),
        lease_left_us: 24_310,
        cluster: Some(cluster()),
        ike_sas: 0,
        child_sas: Vec::new(),
        targets: targets(2).targets,
        drops: Vec::new(),
        now_unix_ms: NOON,
        started_unix_ms: NOON - 86_400_000,
        outside_up: true,
        inside_up: true,
        aead: "vaes512".into(),
    }
}

/// A status in which everything is wrong and every number and name is as long as it can be.
pub(super) fn worst_status(sas: u32) -> Status {
    let problem = |number: u32| Problem {
        what: format!("problem {number}: {}", "something long and winding is broken ".repeat(9)),
        next_action: "do this, then that, and after a while look whether it helped ".repeat(9),
    };
    let roles = [Role::Unreachable, Role::Quarantined, Role::Unreachable, Role::Candidate];
    let members = (0..7).zip(roles.iter().cycle());
    Status {
        version: "10.100.1000-some-very-long-suffix+that.never.ends (0123456789abcdef dirty)"
            .into(),
        health: Health::Failed.into(),
        problems: (1..=40).map(problem).collect(),
        lease_left_us: 0,
        cluster: Some(ClusterStatus {
            incarnation: u64::MAX,
            term: u64::MAX,
            leader: None,
            commit_index: u64::MAX,
            applied_index: 1,
            members: members.map(|(at, role)| member(u64::from(u32::MAX) - at, *role)).collect(),
            owner: Some(Ownership {
                member: u64::from(u32::MAX),
                incarnation: u64::MAX,
                epoch: u64::MAX,
                since_unix_ms: 1_577_836_800_000,
            }),
            ..cluster()
        }),
        ike_sas: sas,
        child_sas: child_sas(sas),
        targets: targets(255).targets,
        drops: (1..=90).map(|_| drops().reasons[2].clone()).collect(),
        started_unix_ms: 0,
        outside_up: false,
        inside_up: false,
        ..status()
    }
}
