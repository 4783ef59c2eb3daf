//! The tool as its users meet it: sheets that fit, JSON that stays, exit codes that mean something.

mod files;
mod samples;

use super::*;
use crate::cli::render::{LINES_MAX, TERMINAL_COLUMNS};
use clap::CommandFactory;
use holdfast_api::{
    Done, Failure, FailureKind, FrameReader, Health, Request, Response, ResponseKind, Role, SaList,
    Status, StoreList, encode_frame,
};
use prost::Message;
use serde_json::Value;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

/// What a command printed and how it ended.
struct Ran {
    exit: Exit,
    out: String,
    complaints: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("one JSON value")
    }
}

fn holdfast(words: &[&str]) -> Ran {
    let (mut out, mut complaints) = (Vec::new(), Vec::new());
    let words = std::iter::once("holdfast").chain(words.iter().copied());
    let exit = run(words, &mut out, &mut complaints);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { exit, out: text(out), complaints: text(complaints) }
}

/// Runs a command against a member that gives one answer; also tells what it was asked.
fn against(answer: ResponseKind, words: &[&str]) -> (Ran, Option<RequestKind>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let member = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut reader, mut piece) = (FrameReader::default(), [0; 1_024]);
        let request = loop {
            if let Some(request) = reader.next_message().unwrap() {
                break request;
            }
            let read = stream.read(&mut piece).unwrap();
            reader.push(&piece[..read]);
        };
        stream.write_all(&encode_frame(&Response { kind: Some(answer) }).unwrap()).unwrap();
        Request::decode(request.as_slice()).unwrap().kind
    });
    let socket = path.to_str().unwrap();
    let ran = holdfast(&[&["--socket", socket], words].concat());
    (ran, member.join().unwrap())
}

fn status_of(status: &Status, words: &[&str]) -> Ran {
    against(ResponseKind::Status(Box::new(status.clone())), words).0
}

fn assert_fits_width(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= TERMINAL_COLUMNS, "too wide: {line}");
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn version_and_help_succeed_and_nonsense_is_usage() {
    let version = holdfast(&["--version"]);
    assert_eq!(version.exit, Exit::Ok);
    assert_eq!(version.out.trim(), format!("holdfast {}", env!("HOLDFAST_VERSION")));
    assert_eq!(holdfast(&["--help"]).exit, Exit::Ok);
    for words in [&["stauts"][..], &[], &["sa"], &["handover", "--to", "two"], &["status", "now"]] {
        let ran = holdfast(words);
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Usage, ""), "{words:?}");
        assert!(ran.complaints.contains("--help"), "{words:?}: {}", ran.complaints);
    }
}

#[test]
fn a_sound_cluster_reads_like_this() {
    let status = Status { ike_sas: 1, child_sas: vec![samples::child_sa(1)], ..samples::status() };
    let ran = status_of(&status, &["status"]);
    assert_eq!(ran.exit, Exit::Ok);
    assert_eq!(
        ran.out,
        "\
OK  member 1, Holdfast 0.1.0 (1a2b3c4d5e6f), AES-GCM vaes512
Common address  198.51.100.100 is owned by member 1 for 3 min 12 s, since
                2026-03-01T11:56:48Z, epoch 5, incarnation 7
This member     owner, lease for 24.3 ms, incarnation 7, running for 1 d 0 h
Cluster         3 of 3 members reachable, leader 1, term 5, takeback never
                1 owner (this), 2 standby, 3 standby
Replication     1042 of 1042 committed entries applied
SAs             1 IKE SA, 1 Child SA, 1 ready for a takeover (reestablish)
Targets         2 of 2 up
Ports           outside up, inside up (192.0.2.100)
Drops           none
"
    );
}

#[test]
fn status_fits_a_terminal_whatever_there_is_to_say() {
    for sas in [0, 3, 5_000] {
        for status in [
            Status { ike_sas: sas, child_sas: samples::child_sas(sas), ..samples::status() },
            samples::worst_status(sas),
            Status { cluster: None, ..samples::worst_status(sas) },
            Status { now_unix_ms: u64::MAX, ..samples::worst_status(sas) },
        ] {
            let ran = status_of(&status, &["status"]);
            assert_fits_width(&ran.out);
            let lines = ran.out.lines().count();
            assert!(lines <= LINES_MAX, "{lines} lines:\n{}", ran.out);
        }
    }
}

#[test]
fn status_lists_what_is_not_ready_with_a_count_and_says_what_to_do() {
    let ran = status_of(&samples::worst_status(5_000), &["status"]);
    assert_eq!(ran.exit, Exit::Degraded);
    for part in [
        "5000 IKE SAs, 5000 Child SAs, 2500 ready for a takeover",
        "not ready: c0de0002, c0de0004, ",
        " and 2496 more\n",
        "committed, but only 0 other members",
        "NO LEADER",
        "outside NO LINK",
        "NO LEASE",
        "192 of 255 up",
        "Problem         problem 1: ",
        "and 38 further problems\n",
        "NEXT ACTION     do this, then that",
    ] {
        assert!(ran.out.contains(part), "{part:?} is missing in:\n{}", ran.out);
    }
}

#[test]
fn nobody_owning_the_address_is_said_plainly() {
    let cluster = Some(holdfast_api::ClusterStatus { owner: None, ..samples::cluster() });
    let failed = Status { cluster, health: Health::Failed.into(), ..samples::status() };
    let ran = status_of(&failed, &["status"]);
    assert_eq!(ran.exit, Exit::Degraded);
    assert!(ran.out.contains("198.51.100.100 is owned by nobody"), "{}", ran.out);
    assert!(ran.out.contains("NEXT ACTION"), "{}", ran.out);
}

#[test]
fn a_clock_that_was_never_set_shows_how_long_only() {
    let mut status = samples::status();
    status.now_unix_ms = 200_000;
    status.cluster.as_mut().unwrap().owner.as_mut().unwrap().since_unix_ms = 8_000;
    let out = status_of(&status, &["status"]).out;
    assert!(out.contains("owned by member 1 for 3 min 12 s, epoch 5"), "{out}");
    assert!(!out.contains("1970"), "{out}");
}

#[test]
fn tables_fit_a_terminal_unless_asked_otherwise() {
    let answers = || {
        [
            (ResponseKind::SaList(samples::sa_list(3)), &["sa", "list"]),
            (ResponseKind::FlowList(samples::flows()), &["flow", "list"]),
            (ResponseKind::TargetList(samples::targets(255)), &["target", "list"]),
            (ResponseKind::ClusterStatus(Box::new(samples::cluster())), &["cluster", "status"]),
        ]
    };
    for (answer, words) in answers() {
        let ran = against(answer, words).0;
        assert_eq!(ran.exit, Exit::Ok, "{}", ran.complaints);
        assert_fits_width(&ran.out);
    }
    let drops = against(ResponseKind::DropReasons(samples::drops()), &["drop-reasons", "--all"]).0;
    assert_fits_width(&drops.out);
    let wide = against(ResponseKind::SaList(samples::sa_list(3)), &["sa", "list", "--wide"]).0;
    assert!(wide.out.contains("10.77.0.0/16 10.78.0.0/16"), "{}", wide.out);
    assert!(wide.out.contains(&u64::MAX.to_string()), "{}", wide.out);
}

#[test]
fn the_store_shows_who_each_record_stands_under_and_how() {
    let store = || ResponseKind::StoreList(Box::new(samples::store()));
    let ran = against(store(), &["store", "list", "--address", "198.51.100.100"]).0;
    assert_eq!(ran.exit, Exit::Degraded, "a record failed");
    assert_fits_width(&ran.out);
    for shown in [
        "applied 4711, up to date",
        "child_sa",
        "relation",
        "inherited",
        "1 IKE SA, 2 Child SAs with as many relations: 1 inherited, 0 pending, 1 failed.",
        "stale_record",
    ] {
        assert!(ran.out.contains(shown), "{shown}: {}", ran.out);
    }
    let wide = against(store(), &["store", "list", "--wide"]).0.out;
    assert!(
        wide.contains("cannot be restored: written by a newer version; kept for 1 h"),
        "{wide}"
    );

    let json = against(store(), &["store", "list", "--json"]).0.json();
    assert_eq!(json["records"][1]["kind"], "child_sa");
    assert_eq!(json["records"][1]["ike_spi"], "1122334455667788");
    assert_eq!(json["records"][3]["readiness"], "inherited");
    assert_eq!(json["records"][3]["epoch"], 4);
    assert_eq!((&json["applied_index"], &json["lag_entries"]), (&4_711.into(), &0.into()));
}

#[test]
fn an_old_answer_of_the_store_says_that_it_may_be_old() {
    let alone = StoreList { follows: false, ..samples::store() };
    let out = against(ResponseKind::StoreList(Box::new(alone)), &["store", "list"]).0.out;
    assert!(out.contains("no leader known: this may be old"), "{out}");
    let empty = StoreList { follows: true, ..StoreList::default() };
    let out = against(ResponseKind::StoreList(Box::new(empty)), &["store", "list"]).0.out;
    assert!(out.contains("No records."), "{out}");
}

#[test]
fn numbers_stand_to_the_right() {
    let out = against(ResponseKind::TargetList(samples::targets(4)), &["target", "list"]).0.out;
    assert_eq!(
        out,
        "\
NAME  ADDRESS    WEIGHT  STATE     WAY     OWNER    HEALTH          CONNS
web1  192.0.2.1       1  up        marked  epoch 5  well, load 7 %      3
web2  192.0.2.2       1  up        clear   -        -                   0
web3  192.0.2.3       1  draining  clear   -        -                   0
web4  192.0.2.4       1  down      clear   -        -                   0
"
    );
}

#[test]
fn an_empty_list_is_a_sentence_for_people_and_a_list_for_programs() {
    let empty = || ResponseKind::SaList(SaList::default());
    assert_eq!(against(empty(), &["sa", "list"]).0.out, "No security associations.\n");
    let json = against(empty(), &["sa", "list", "--json"]).0.json();
    assert_eq!(json["child_sas"], Value::Array(Vec::new()));
}

#[test]
fn drop_reasons_come_by_frequency_and_zeros_when_asked() {
    let drops = || ResponseKind::DropReasons(samples::drops());
    let ran = against(drops(), &["drop-reasons"]).0;
    let first = ran.out.lines().next().unwrap();
    assert!(first.starts_with("18446744073709551615  no_policy  The "), "{first}");
    assert!(!ran.out.contains("too_old"));
    assert!(against(drops(), &["drop-reasons", "--all"]).0.out.contains("too_old"));
}

#[test]
fn json_is_accepted_before_and_after_the_command_with_stable_names() {
    let status = Status { child_sas: vec![samples::child_sa(1)], ..samples::status() };
    let before = status_of(&status, &["--json", "status"]);
    let after = status_of(&status, &["status", "--json"]);
    assert_eq!(before.out, after.out);

    let json = after.json();
    assert_eq!(
        keys(&json),
        [
            "aead",
            "child_sas",
            "cluster",
            "common_address",
            "drops",
            "health",
            "ike_sas",
            "inside_address",
            "inside_up",
            "lease_left_us",
            "now_unix_ms",
            "outside_up",
            "problems",
            "role",
            "started_unix_ms",
            "targets",
            "version",
        ]
    );
    assert_eq!(json.pointer("/cluster/owner/member"), Some(&Value::from(1)));
    assert_eq!((&json["health"], &json["role"]), (&"ok".into(), &"owner".into()));
    assert_eq!(json.pointer("/child_sas/0/inbound_spi"), Some(&"c0de0001".into()));
    assert_eq!(
        keys(&json["child_sas"][0]),
        [
            "connection",
            "continuity",
            "ike_spi",
            "inbound_floor",
            "inbound_horizon",
            "inbound_spi",
            "local_ts",
            "outbound_granted_end",
            "outbound_spi",
            "peer",
            "policy",
            "remote_ts",
            "suite",
            "takeover_ready",
            "takeover_reason",
        ]
    );
    assert_eq!(
        keys(&json["cluster"]),
        [
            "applied_index",
            "change",
            "commit_index",
            "generation",
            "hold_down_ms",
            "incarnation",
            "leader",
            "level",
            "member",
            "members",
            "owner",
            "preference",
            "refusals",
            "retired",
            "state_hash",
            "successors_ready",
            "takeback",
            "term",
        ]
    );
}

#[test]
fn lists_in_json_have_stable_names() {
    let of = |answer, words: &[&str]| against(answer, words).0.json();
    let flows = of(ResponseKind::FlowList(samples::flows()), &["flow", "list", "--json"]);
    assert_eq!(keys(&flows), ["flows", "truncated"]);
    assert_eq!(
        keys(&flows["flows"][0]),
        ["destination", "idle_ms", "protocol", "source", "target", "way", "worker"]
    );
    let targets = of(ResponseKind::TargetList(samples::targets(1)), &["target", "list", "--json"]);
    assert_eq!(
        keys(&targets["targets"][0]),
        [
            "address",
            "attempts",
            "clear_dropped",
            "connections",
            "delivery",
            "draining",
            "epoch",
            "healthy",
            "load_percent",
            "mac",
            "marks_refused",
            "member",
            "name",
            "notice",
            "notices_refused",
            "open",
            "sockets",
            "waiting_ms",
            "weight",
        ]
    );
    let drops = of(ResponseKind::DropReasons(samples::drops()), &["drop-reasons", "--json"]);
    assert_eq!(keys(&drops["reasons"][0]), ["description", "name", "packets"]);
    let sas = of(ResponseKind::SaList(samples::sa_list(1)), &["sa", "list", "--json"]);
    assert_eq!(
        keys(&sas["ike_sas"][0]),
        [
            "connection",
            "identity",
            "initiator_spi",
            "peer",
            "policy",
            "responder_spi",
            "state",
            "takeover_ready",
        ]
    );
}

#[test]
fn orders_ask_for_what_was_written() {
    let done = || ResponseKind::Done(Done { operation: 9, text: "member 2 owns it now".into() });
    let (ran, asked) = against(done(), &["handover", "--to", "2"]);
    assert_eq!(asked, Some(RequestKind::Handover(holdfast_api::Handover { to: Some(2) })));
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "member 2 owns it now (operation 9)\n"));

    for (word, draining) in [("drain", true), ("undrain", false)] {
        let asked = against(done(), &["target", word, "web1"]).1;
        let set = holdfast_api::TargetSet { name: "web1".into(), draining };
        assert_eq!(asked, Some(RequestKind::TargetSet(set)));
    }
}

#[test]
fn a_refusal_keeps_its_kind_and_its_remedy() {
    for (kind, exit, name) in [
        (FailureKind::Failed, Exit::Failure, "failed"),
        (FailureKind::Usage, Exit::Usage, "usage"),
        (FailureKind::Degraded, Exit::Degraded, "degraded"),
        (FailureKind::NotOwner, Exit::NotOwner, "not_owner"),
    ] {
        let refusal = ResponseKind::Failure(Failure {
            kind: kind.into(),
            message: "only the owner can do this".into(),
            next_action: "ask member 2".into(),
        });
        let ran = against(refusal, &["flow", "list", "--json"]).0;
        assert_eq!(ran.exit, exit);
        assert_eq!(ran.json()["error"]["kind"], name);
        assert_eq!(ran.json()["error"]["next_action"], "ask member 2");
        assert!(ran.complaints.contains("NEXT ACTION: ask member 2"));
    }
}

#[test]
fn exit_codes_are_the_documented_numbers() {
    let all = [Exit::Ok, Exit::Failure, Exit::Usage, Exit::Degraded, Exit::NotOwner];
    assert_eq!(all.map(|exit| exit as u8), [0, 1, 2, 3, 4]);
}

#[test]
fn a_cluster_that_lacks_a_member_is_degraded() {
    let mut cluster = samples::cluster();
    cluster.members[2].role = Role::Unreachable.into();
    let ran = against(ResponseKind::ClusterStatus(Box::new(cluster)), &["cluster", "status"]).0;
    assert_eq!(ran.exit, Exit::Degraded);
    assert!(ran.out.contains("unreachable"), "{}", ran.out);
}

#[test]
fn a_missing_or_dead_daemon_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let ask = |path: &Path| holdfast(&["--socket", path.to_str().unwrap(), "status", "--json"]);

    let missing = ask(&path);
    assert_eq!(missing.exit, Exit::Failure);
    assert!(missing.complaints.contains(path.to_str().unwrap()));
    assert!(missing.complaints.contains("is holdfastd running?"));
    assert!(missing.complaints.contains("--socket"));
    assert_eq!(missing.json()["error"]["kind"], "failed");

    drop(UnixListener::bind(&path).unwrap());
    assert!(ask(&path).complaints.contains("nobody listens"));
}

#[test]
fn an_answer_of_the_wrong_kind_is_not_shown() {
    let done = ResponseKind::DropReasons(samples::drops());
    let ran = against(done, &["status"]).0;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Failure, ""));
    assert!(ran.complaints.contains("holdfast --version"));
}

#[test]
fn a_peer_cannot_steer_the_terminal() {
    let mut list = samples::sa_list(1);
    list.ike_sas[0].identity = "\u{1b}[2J\u{1b}]0;owned\u{7}".into();
    list.ike_sas[0].connection = "a\nb\u{9b}31m".into();
    let ran = against(ResponseKind::SaList(list), &["sa", "list", "--wide"]).0;
    assert!(ran.out.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", ran.out);
}
