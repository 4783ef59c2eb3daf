//! Claims 4, 6, 7 and 10: the common storage, and what of it is read, cleared and written.

use super::{c1, expect_one_record_for_each_sa, expect_whole, names, plan};
use crate::common::{Plan, Record, Scene, Store, expect_lawful, log_keys, logged_key};
use holdfast_bed::cuts::{Way, cut};
use holdfast_bed::links::Wire;
use holdfast_bed::peer::{CLIENT_IDENTITY, Daemon, GATEWAY_IDENTITY, PRE_SHARED_KEY, StrongSwan};
use holdfast_bed::time::Wall;
use holdfast_bed::topology::{CLIENT_INNER, COMMON, ECHO_PORT, HTTP_PORT, management_address};
use holdfast_bed::wait::let_pass;
use holdfast_bed::wire::Sender;
use holdfast_cluster::{
    Command, Effect, Epoch, IkeSpi, Incarnation, MemberId, Owner, RecordName, Refusal, State,
    StateChange,
};
use holdfast_crypto::SecretBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The member that is a copy of the store and nothing else.
const STORE: u8 = 3;

#[test]
fn claim_04_information_is_in_a_common_store_that_the_backup_reads() {
    let plan = Plan { clients: 2, witnesses: vec![STORE], ..plan() };
    let mut scene = plan.build().expect("the bed comes up");
    scene.client.initiate().expect("the tunnel comes up");
    let (d1, _) = scene.owner();
    let d2 = 3 - d1;
    scene.wait_until_current(d1);
    a_copy_that_is_down_is_an_alarm_and_stops_nothing(&mut scene, d1);

    // Not a word goes between the two distributors any more: a new SA is in the store alone.
    let separated = Wall::now();
    for (one, other) in [(d1, d2), (d2, d1)] {
        let (host, other) = (scene.bed.topology.member(one), management_address(other));
        let host = host.expect("a member");
        cut(host, "apart", Way::In, &format!("ip saddr {other}")).expect("a cut");
        cut(host, "apart", Way::Out, &format!("ip daddr {other}")).expect("a cut");
    }
    log_keys(scene.swan(2));
    scene.swan(2).initiate().expect("the second client connects");
    let connections = |scene: &Scene, member| scene.store(member).map(|s| s.connections());
    let both = names(&["bed", "client2"]);
    scene.wait_for("the store to have it", |scene| {
        connections(scene, STORE).is_ok_and(|connections| connections == both)
    });
    assert_eq!(connections(&scene, d2).expect("a store"), names(&["bed"]), "not the backup");
    // At rest it is sealed: neither names nor keys are in any file.
    let key = logged_key(scene.swan(2));
    let secrets = [CLIENT_IDENTITY.as_bytes(), PRE_SHARED_KEY.as_bytes(), &key];
    in_no_file_of_any_member(&scene, &secrets);

    let before = scene.before(&[1, 2]);
    let takeover = scene.lose(d1);
    assert_eq!(takeover.to, d2);
    scene.wait_until_reestablished(&before);
    for number in [1, 2] {
        scene.expect_traffic_of(number);
    }
    assert_eq!(scene.wait_until_current(d2).connections(), both);
    let links = scene.captured();
    let outside = links.outside().expect("captures");
    takeover.expect_restarted(&outside, &[1, 2]);
    expect_lawful(&outside);
    let (owner, backup) = (Sender::Member(d1), management_address(d2));
    let words = links.frames_between(Wire::Management, owner, backup).expect("frames");
    assert!(words.iter().all(|(at, _)| *at < separated.plus_ms(200)), "the store told it alone");
}

/// One copy of the store is off: traffic goes on, the operator is told; back again it is given what it
/// missed, and no peer notices.
fn a_copy_that_is_down_is_an_alarm_and_stops_nothing(scene: &mut Scene, owner: u8) {
    scene.cluster.kill(STORE).expect("it runs");
    scene.cluster.bury(STORE).expect("it is gone");
    scene.wait_for("the alarm", |scene| {
        let Ok(status) = scene.cluster.status(owner) else { return false };
        let problem = status.0["problems"].to_string().contains(&format!("member {STORE}"));
        status.0["health"] == "degraded" && problem
    });
    let sas = scene.ike_sas(1);
    scene.expect_traffic_of(1);
    scene.swan(1).rekey_child().expect("a rekey starts");
    scene.cluster.start(&scene.bed, STORE).expect("it starts");
    scene.wait_until_current(owner);
    assert_eq!(scene.ike_sas(1), sas, "the same IKE SA throughout");
}

/// The data folder of a member.
fn data(scene: &Scene, member: u8) -> PathBuf {
    scene.bed.folder(&format!("m{member}")).join("data")
}

/// Fails when the files of a member's data folder hold one of these anywhere.
fn in_no_file_of_any_member(scene: &Scene, secrets: &[&[u8]]) {
    for member in scene.cluster.numbers() {
        let mut octets = 0;
        for entry in fs::read_dir(data(scene, member)).expect("a data folder") {
            let path = entry.expect("an entry").path();
            octets += expect_free_of(&path, secrets);
        }
        assert!(octets > 0, "member {member} stores something");
    }
}

/// How many octets the file has.
fn expect_free_of(path: &Path, secrets: &[&[u8]]) -> usize {
    let bytes = fs::read(path).unwrap_or_default();
    for secret in secrets {
        let found = bytes.windows(secret.len()).position(|window| window == *secret);
        assert_eq!(found, None, "{} holds a secret", path.display());
    }
    bytes.len()
}

#[test]
fn claim_06_the_store_is_cleared_of_what_the_backup_has_obtained() {
    let plan = Plan { clients: 3, ..plan() };
    let mut scene = plan.build().expect("the bed comes up");
    log_keys(&scene.client);
    scene.connect_all().expect("the tunnels come up");
    let (d1, epoch) = scene.owner();
    let old = scene.wait_until_current(d1);
    assert_eq!(old.owners, BTreeSet::from([(u64::from(d1), epoch)]), "set(n)");
    let key = logged_key(&scene.client);
    let before = scene.before(&[1, 3]);
    let peer = scene.peers.first().expect("the second client");
    peer.plug(false).expect("it cannot be reached any more");

    let takeover = scene.lose(d1);
    let d2 = takeover.to;
    scene.wait_until_reestablished(&before);
    let new = scene.wait_until_current(d2);
    let later = scene.owner().1;
    // (i) Of the old set nothing is left under its epoch, and what runs is all there.
    assert!(later > epoch);
    assert_eq!(new.owners, BTreeSet::from([(u64::from(d2), later)]), "set(n+1)");
    expect_one_record_for_each_sa(&scene, d2, &new);
    let spis = |store: &Store, connection: &str| -> BTreeSet<Record> {
        let of_it = |record: &&Record| record.connection == connection;
        store.records.iter().filter(of_it).cloned().collect()
    };
    for connection in ["bed", "client3"] {
        assert!(spis(&old, connection).is_disjoint(&spis(&new, connection)), "{connection}");
    }
    // (iv) Who could not be reached is neither forgotten nor restarted.
    assert_eq!(spis(&old, "client2"), spis(&new, "client2"));

    // (iii) PI67701: the first owner owns again, with that peer still away, and what the second had yet
    // to clean up is not cleaned up under the first's hands.
    scene.power_on(d1);
    scene.wait_until_current(d2);
    scene.ask_to_hand_over(d2, d1);
    let again = scene.wait_until_current(d1);
    assert_eq!(again.records, new.records);
    // Longer than a renewal without outcome counts, and than the key of a deleted SA may stay.
    let_pass(Duration::from_secs(3)).expect("nothing interrupts");
    let kept = scene.wait_until_current(d1);
    assert_eq!(spis(&kept, "client2"), spis(&again, "client2"), "still there");
    assert_eq!(kept.connections(), names(&["bed", "client2", "client3"]));
    scene.peers.first().expect("the second client").plug(true).expect("it is back");
    scene.wait_for("the second client to be served", |scene| {
        let host = &scene.peers.first().expect("the second client").host;
        holdfast_bed::fetch::short_connections(host, 1).is_ok_and(|m| m.failures.is_empty())
    });
    for number in [1, 3] {
        scene.expect_traffic_of(number);
    }
    // (v)
    in_no_file_of_any_member(&scene, &[&key]);
    a_delete_by_a_stale_owner_is_refused();

    // (ii) Whoever else wanted to take over: one did.
    let outside = scene.captured().outside().expect("captures");
    let owners: Vec<u8> = outside.ownership().iter().map(|change| change.member).collect();
    assert_eq!(owners, [d1, d2, d1]);
    takeover.expect_restarted(&outside, &[1, 3]);
    expect_lawful(&outside);
}

/// A real member does not even propose such a delete (it knows that it owns no more), so the control is
/// made with the state machine that every member applies the log with, and its real commands.
fn a_delete_by_a_stale_owner_is_refused() {
    let owner = |member, epoch| Owner {
        member: MemberId(member),
        incarnation: Incarnation(1),
        epoch: Epoch(epoch),
    };
    let (first, second, again) = (owner(1, 2), owner(2, 3), owner(1, 4));
    let spi = IkeSpi(0x1111_2222_3333_4444);
    let put = StateChange::PutIkeSa {
        spi,
        connection: "bed".to_owned(),
        state: SecretBytes::new(vec![7; 64]),
    };
    let carry_on =
        |owner, from| Command::CarryOn { owner, from, ike_sas: vec![spi], children: Vec::new() };
    let mut state = State::new();
    let mut apply = |command: &Command| state.apply(state.applied() + 1, command);
    apply(&Command::TakeOwnership { owner: first });
    apply(&Command::Ike { owner: first, changes: vec![put] });
    apply(&Command::TakeOwnership { owner: second });
    apply(&carry_on(second, first));
    apply(&Command::TakeOwnership { owner: again });
    apply(&carry_on(again, second));
    let delete = |owner, under| Command::Ike {
        owner,
        changes: vec![StateChange::DeleteIkeSa { spi, under: Some(under) }],
    };
    let stale = Refusal::StaleRecord { record: RecordName::Ike(spi), named: first, stands: again };
    assert_eq!(apply(&delete(again, first)), [Effect::Refused(stale)], "of an old timer");
    let foreign = Refusal::NotOwner { claimed: second, current: Some(again) };
    assert_eq!(apply(&delete(second, second)), [Effect::Refused(foreign)], "of an old owner");
    assert_eq!(apply(&delete(again, again)), [Effect::IkeRemoved(spi)], "the control's control");
}

#[test]
fn claim_07_what_runs_through_the_backup_is_in_the_common_store() {
    let plan = Plan { clients: 3, witnesses: vec![STORE], ..plan() };
    let mut scene = plan.build().expect("the bed comes up");
    for number in [1, 2] {
        scene.swan(number).initiate().expect("the tunnel comes up");
    }
    let (d1, _) = scene.owner();
    let d2 = 3 - d1;
    scene.wait_until_current(d1);
    let before = scene.before(&[1, 2]);
    let first = scene.lose(d1);
    assert_eq!(first.to, d2);
    scene.wait_until_reestablished(&before);
    let stored = scene.wait_until_current(d2);
    expect_one_record_for_each_sa(&scene, d2, &stored);

    // What changes on the backup changes in the store.
    let old = scene.running_sas(d2);
    scene.swan(1).rekey_child().expect("a rekey starts");
    scene.wait_for("the rekey", |scene| !old.is_subset(&scene.running_sas(d2)));
    let changed = Wall::now();
    scene.wait_for("the record to follow", |scene| {
        scene.store(STORE).is_ok_and(|store| store.records != stored.records)
    });
    println!("in the store {:.0} ms after it was seen", Wall::now().ms_since(changed));
    scene.swan(3).initiate().expect("the third client connects");
    scene.swan(2).terminate().expect("a DELETE is answered");
    let given = scene.wait_until_current(d2);
    expect_one_record_for_each_sa(&scene, d2, &given);
    assert_eq!(given.connections(), names(&["bed", "client3"]));

    // The first has been off all the while, and the second is when it comes back: what it knows of that
    // time the store alone can have told it.
    let before = scene.before(&[1, 3]);
    let at = scene.power_off(d2);
    let back = Wall::now();
    scene.power_on(d1);
    assert_eq!(scene.wait_for_another(d2), d1);
    let second = crate::common::Takeover { at, from: d2, to: d1 };
    scene.wait_until_reestablished(&before);
    for number in [1, 3] {
        scene.expect_traffic_of(number);
    }
    let restarted = scene.wait_until_current(d1);
    assert_eq!(restarted.connections(), names(&["bed", "client3"]), "and not who left meanwhile");
    expect_one_record_for_each_sa(&scene, d1, &restarted);

    let links = scene.captured();
    let outside = links.outside().expect("captures");
    first.expect_restarted(&outside, &[1, 2]);
    second.expect_restarted(&outside, &[1, 3]);
    expect_lawful(&outside);
    let (backup, returned) = (Sender::Member(d2), management_address(d1));
    let words = links.frames_between(Wire::Management, backup, returned).expect("frames");
    let late = words.iter().filter(|(at, _)| *at > back).count();
    assert_eq!(late, 0, "the store told it alone");
}

/// One IKE SA with three Child SAs, and another one of the same identities with one. Of another suite,
/// or strongSwan would take them for the same.
fn kinship() -> String {
    let connection = |name: &str, suite: &str, children: &[(&str, String)]| {
        let children: String = children
            .iter()
            .map(|(child, ts)| {
                format!(
                    "      {child} {{\n        local_ts = {CLIENT_INNER}/32\n        \
                     remote_ts = {COMMON}/32[{ts}]\n      }}\n"
                )
            })
            .collect();
        format!(
            "  {name} {{
    version = 2
    unique = never
    proposals = {suite}
    remote_addrs = {COMMON}
    local {{
      auth = psk
      id = {CLIENT_IDENTITY}
    }}
    remote {{
      auth = psk
      id = {GATEWAY_IDENTITY}
    }}
    children {{
{children}    }}
  }}
"
        )
    };
    let web = ("web", format!("tcp/{HTTP_PORT}"));
    let echo = ("echo", format!("udp/{ECHO_PORT}"));
    let three =
        connection("home", "aes128-sha256-x25519", &[web, echo, ("ping", "icmp".to_owned())]);
    let one = connection("away", "aes256-sha256-x25519", &[("other", "udp/9".to_owned())]);
    format!(
        "connections {{\n{three}{one}}}\nsecrets {{\n  ike-home {{\n    secret = \
         \"{PRE_SHARED_KEY}\"\n  }}\n}}\n"
    )
}

/// Child SAs by the IKE SA they belong to.
fn families(store: &Store) -> BTreeMap<String, usize> {
    let mut families = BTreeMap::new();
    for relation in store.of("relation") {
        *families.entry(relation.ike_spi.clone()).or_default() += 1;
    }
    families
}

#[test]
fn claim_10_phase_1_phase_2_and_their_relation_are_in_the_store() {
    let plan = Plan { settings: "liveness_s = 0".to_owned(), ..plan() };
    let mut scene = plan.build().expect("the bed comes up");
    scene.client.stop();
    let (host, folder) = (&scene.bed.topology.client, scene.bed.folder("kin"));
    scene.client = StrongSwan::start_with(host, &folder, &kinship(), &Daemon::default())
        .expect("charon starts");
    for child in ["web", "echo", "ping", "other"] {
        let up = scene.client.control(&["--initiate", "--child", child, "--timeout", "20"]);
        up.inspect_err(|_| scene.explain()).expect("it comes up");
    }
    let (d1, _) = scene.owner();
    let given = scene.wait_until_current(d1);
    let counts = ["ike_sa", "child_sa", "relation"].map(|kind| given.of(kind).len());
    assert_eq!(counts, [2, 4, 4], "{given:#?}");
    expect_one_record_for_each_sa(&scene, d1, &given);
    let kin = families(&given);
    assert_eq!(kin.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 3]));
    let download = c1(&scene);

    let takeover = scene.lose(d1);
    expect_whole(&scene, download);
    let stored = scene.wait_until_current(takeover.to);
    assert_eq!(families(&stored), kin, "each Child SA with its own IKE SA, whatever was rekeyed");
    let list = scene.client.list().expect("swanctl lists");
    let ike_sas = list.lines().filter(|line| line.contains("IKEv2")).count();
    let children = list.lines().filter(|line| line.contains("INSTALLED")).count();
    assert_eq!((ike_sas, children), (2, 4), "the client sees no more and no fewer: {list}");
    scene.expect_traffic_of(1);
    let prober = scene.bed.start_prober().expect("a prober");
    scene.wait_for("echoes through the second child", |_| prober.answered() > 10);
    drop(prober);

    // The control: one Child SA is deleted, and its record with its relation; nothing else.
    scene.client.control(&["--terminate", "--child", "ping"]).expect("a DELETE is answered");
    scene.wait_for("the record of one child to be gone", |scene| {
        scene.store(takeover.to).is_ok_and(|s| s.of("child_sa").len() == 3)
    });
    let left = scene.wait_until_current(takeover.to);
    let counts = ["ike_sa", "child_sa", "relation"].map(|kind| left.of(kind).len());
    assert_eq!(counts, [2, 3, 3]);
    assert_eq!(families(&left).values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));

    let outside = scene.captured().outside().expect("captures");
    assert_eq!(outside.negotiations(takeover.at, takeover.at.plus_ms(60_000)), 0, "carried on");
    expect_lawful(&outside);
}
