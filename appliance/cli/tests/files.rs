//! Commands on files.

use super::*;
use crate::stats::{Writer, path_beside};
use holdfast_datapath::{COUNTERS_LEN, Metric};
use holdfast_ipsec::DropReason;
use std::fs;

const SECRET: &str = "correct-horse-battery-staple";

fn configuration(folder: &Path, change: impl FnOnce(String) -> String) -> String {
    let example = include_str!("../../config/example.toml");
    let file = folder.join("holdfast.toml");
    let text = example
        .replace("psk_file = \"road.psk\"", &format!("psk = \"{SECRET}\""))
        .replace("/run/holdfast/holdfast.sock", folder.join("member.sock").to_str().unwrap());
    fs::write(&file, change(text)).unwrap();
    file.to_str().unwrap().to_owned()
}

fn segment_with(socket: &Path, reason: DropReason, packets: u64) -> Writer {
    let writer = Writer::create(&path_beside(socket), 1).unwrap();
    let mut values = [0; COUNTERS_LEN];
    values[Metric::ALL.len() + reason.index()] = packets;
    writer.update(0, &values);
    writer
}

#[test]
fn a_sound_configuration_is_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let ran = holdfast(&["config", "check", &configuration(folder.path(), |text| text)]);
    assert_eq!(ran.exit, Exit::Ok, "{}{}", ran.out, ran.complaints);
    assert!(ran.out.contains("Member 1 of 3, 1 connection, 2 targets"), "{}", ran.out);
}

#[test]
fn problems_of_a_configuration_are_told_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = configuration(folder.path(), |text| text.replace("data_dir", "data_dri"));
    let ran = holdfast(&["config", "check", &file]);
    assert_eq!(ran.exit, Exit::Failure);
    assert!(ran.out.contains(&format!("{file}:6:1: ")), "{}", ran.out);
    assert!(ran.out.contains("data_dir"), "{}", ran.out);

    let json = holdfast(&["config", "check", &file, "--json"]).json();
    assert_eq!(keys(&json), ["file", "problems", "valid"]);
    assert_eq!(keys(&json["problems"][0]), ["column", "line", "remedy", "what"]);
    assert_eq!(json["valid"], false);
    let problems = json["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem["line"] == 6), "{problems:?}");
}

#[test]
fn no_key_is_printed_whatever_is_wrong_with_the_line_it_is_on() {
    let folder = tempfile::tempdir().unwrap();
    let quoted = format!("\"{SECRET}\"");
    for broken in [
        quoted.clone(),
        format!("\"{SECRET}"),
        format!("{quoted}{quoted}"),
        format!("[{quoted}]"),
        format!("{quoted} psk_file = {quoted}"),
        SECRET.to_owned(),
    ] {
        let file = configuration(folder.path(), |text| text.replace(&quoted, &broken));
        for words in [&["config", "check", &file][..], &["drop-reasons", "--config", &file]] {
            for json in [&[][..], &["--json"]] {
                let ran = holdfast(&[words, json].concat());
                assert!(!ran.out.contains(SECRET), "{}", ran.out);
                assert!(!ran.complaints.contains(SECRET), "{}", ran.complaints);
            }
        }
    }
}

#[test]
fn drop_reasons_are_read_from_the_segment_where_no_daemon_answers() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("member.sock");
    let reason = DropReason::ALL[3];
    let _writer = segment_with(&socket, reason, 41);
    let segment = path_beside(&socket);
    let file = configuration(folder.path(), |text| text);
    for words in [
        &["--socket", socket.to_str().unwrap(), "drop-reasons"][..],
        &["drop-reasons", "--config", &file],
        &["drop-reasons", "--segment", segment.to_str().unwrap()],
    ] {
        let ran = holdfast(words);
        assert_eq!(ran.exit, Exit::Ok, "{}", ran.complaints);
        assert!(ran.out.starts_with(&format!("41  {}", reason.name())), "{}", ran.out);
        assert!(ran.complaints.contains("read from"), "{}", ran.complaints);
        assert_eq!(ran.out.lines().filter(|line| !line.starts_with(' ')).count(), 1);

        let json = holdfast(&[words, &["--json", "--all"]].concat()).json();
        assert_eq!(json["reasons"].as_array().unwrap().len(), DropReason::ALL.len());
    }
}

#[test]
fn without_daemon_and_segment_the_daemon_is_what_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("member.sock");
    let ran = holdfast(&["--socket", socket.to_str().unwrap(), "drop-reasons"]);
    assert_eq!(ran.exit, Exit::Failure);
    assert!(ran.complaints.contains("is holdfastd running?"), "{}", ran.complaints);

    fs::write(path_beside(&socket), "something else").unwrap();
    let file = configuration(folder.path(), |text| text);
    let ran = holdfast(&["drop-reasons", "--config", &file]);
    assert_eq!(ran.exit, Exit::Failure);
    assert!(ran.complaints.contains("is not a statistics segment"), "{}", ran.complaints);
}

#[test]
fn init_makes_certificates_tells_the_next_step_and_prints_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("pki");
    let dir = target.to_str().unwrap();
    let members = ["--member", "1=10.99.0.1:7000", "--member", "2=10.99.0.2:7000"];
    let ran = holdfast(&[&["cluster", "init", "--dir", dir], &members[..]].concat());
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.complaints);
    assert!(ran.out.contains("[[cluster.member]]\nid = 2\naddress = \"10.99.0.2:7000\"\n"));
    for name in ["ca.pem", "ca.key", "member-1.pem", "member-1.key", "member-2.key"] {
        let content = fs::read_to_string(target.join(name)).unwrap();
        assert!(content.lines().all(|line| !ran.out.contains(line)), "{name} is printed");
    }

    let again = holdfast(&[&["cluster", "init", "--dir", dir], &members[..]].concat());
    assert_eq!(again.exit, Exit::Failure);
    assert!(again.complaints.contains("nothing is overwritten"), "{}", again.complaints);
}

#[test]
fn init_takes_a_number_of_members_instead() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("pki");
    let dir = target.to_str().unwrap();
    let ran = holdfast(&["cluster", "init", "--members", "3", "--out", dir, "--json"]);
    assert_eq!(ran.json()["members"], serde_json::json!([1, 2, 3]));
    assert!(target.join("member-3.key").exists());
}

#[test]
fn members_that_make_no_sense_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("pki");
    let dir = target.to_str().unwrap();
    for members in [
        &[][..],
        &["--member", "1"],
        &["--member", "0=10.0.0.1:7000"],
        &["--member", "1=10.0.0.1"],
        &["--member", "1=10.0.0.1:1", "--member", "1=10.0.0.2:1"],
        &["--member", "1=10.0.0.1:1", "--member", "2=10.0.0.1:1"],
        &["--members", "0"],
        &["--members", "8"],
    ] {
        let ran = holdfast(&[&["cluster", "init", "--dir", dir], members].concat());
        assert_eq!(ran.exit, Exit::Usage, "{members:?}: {}", ran.complaints);
    }
    assert!(!target.exists());
}

#[test]
fn a_data_directory_that_holds_no_log_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nothing");
    let ran = holdfast(&["store", "check", missing.to_str().unwrap()]);
    assert_eq!(ran.exit, Exit::Failure);
    let ran = holdfast(&["store", "check", folder.path().to_str().unwrap(), "--json"]);
    assert_eq!(
        keys(&ran.json()),
        ["entries", "files", "folder", "incarnation", "snapshot_index", "torn_tail"]
    );
}
