//! What a new owner does about the SAs it took over, with strongSwan as the peer. Needs root.
//!
//! What must never happen is asserted; how long things took is printed, not asserted: this machine
//! may be busy.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test's helper fails its test and tells times"
)]

mod common;

use common::{PATIENCE, Plan, Scene};
use holdfast_bed::error::BedError;
use holdfast_bed::peer::Connection;
use holdfast_bed::time::Wall;
use holdfast_bed::wait::{let_pass, wait_until};
use std::fs;
use std::time::Duration;

/// The tunnel is up, and a download through it takes about `download_s` seconds.
fn scene_with_download(settings: &str, download_s: u64) -> Result<Scene, BedError> {
    let bytes = 8 << 20;
    Plan {
        large_file_bytes: bytes,
        limit_bytes_per_s: bytes / download_s,
        settings: settings.to_owned(),
        ..Plan::default()
    }
    .connected()
}

/// Everything the client has logged.
fn client_log(scene: &Scene) -> String {
    fs::read_to_string(scene.client.log()).expect("the client logs")
}

/// Kills the owner and waits until the client's log has `words`, which the kill must have caused.
fn kill_the_owner_and_wait_for(scene: &mut Scene, words: &str) {
    let before = scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
    assert!(!client_log(scene).contains(words), "{words}: too early");
    let killed = scene.cluster.kill(before).expect("the owner runs");
    scene.cluster.bury(before).expect("it is gone");
    let said = wait_until(words, PATIENCE, || Ok(client_log(scene).contains(words).then_some(())));
    if said.is_err() {
        scene.explain();
    }
    said.expect(words);
    println!("{words}: {:.0} ms after the kill", Wall::now().ms_since(killed));
}

#[test]
fn a_new_owner_negotiates_anew_with_strongswan_and_the_download_goes_on() {
    let mut scene =
        scene_with_download("policy = \"reestablish\"", 16).expect("the tunnel comes up");
    let download = scene.bed.start_download().expect("the download starts");
    let_pass(Duration::from_secs(4)).expect("it runs");
    // Until then the client was the initiator of everything.
    kill_the_owner_and_wait_for(&mut scene, "parsed IKE_SA_INIT request 0");
    let replaced = wait_until("the old IKE SA is deleted", PATIENCE, || {
        Ok(client_log(&scene).contains("received DELETE for IKE_SA home[1]").then_some(()))
    });
    if replaced.is_err() {
        scene.explain();
    }
    replaced.expect("the new owner deletes it with its own keys");
    let done = wait_until("the end of the download", Duration::from_secs(60), || {
        Ok(download.is_done().then_some(()))
    });
    if done.is_err() {
        scene.explain();
    }
    done.expect("the download ends");
    let log = download.finish().expect("the download is known");
    assert_eq!(log.sha256, scene.bed.content.sha256, "{:?}", log.failure);
    let sas = scene.client.list().expect("swanctl lists");
    assert!(sas.contains("home: #2, ESTABLISHED"), "a new IKE SA: {sas}");
    assert!(!sas.contains("home: #1"), "the old one is gone: {sas}");
    let header = sas.lines().find(|line| line.contains("home: #2")).unwrap_or_default();
    assert!(header.trim_end().ends_with("_r*"), "the client is its responder: {header}");
    scene.expect_traffic();
    scene.client.rekey_child().expect("a rekey starts");
    scene.expect_traffic();
}

#[test]
fn strongswan_answers_a_synchronisation_of_message_ids_and_traffic_goes_on() {
    let mut scene =
        Scene::connected(&Connection::default(), "policy = \"sync\"").expect("the tunnel comes up");
    scene.expect_traffic();
    assert!(client_log(&scene).contains("N(MSG_ID_SYN_SUP)"), "both assert it");
    kill_the_owner_and_wait_for(&mut scene, "parsed INFORMATIONAL request 0 [ N(MSG_ID_SYN) ]");
    let answered = wait_until("an answer", PATIENCE, || {
        let words = "generating INFORMATIONAL response 0 [ N(MSG_ID_SYN) ]";
        Ok(client_log(&scene).contains(words).then_some(()))
    });
    answered.expect("strongSwan answers it");
    scene.expect_traffic();
    // Both sides go on asking with the Message IDs agreed upon.
    scene.client.rekey_child().expect("a rekey starts");
    scene.expect_traffic();
    let sas = scene.client.list().expect("swanctl lists");
    assert!(sas.contains("home: #1, ESTABLISHED"), "the first IKE SA still stands: {sas}");
}
