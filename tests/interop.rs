//! strongSwan, an implementation of IKEv2 and ESP that shares nothing with ours, as the peer.
//!
//! Its packages are Debian's, its proposals the defaults unless a test says otherwise. Needs root.
#![allow(clippy::expect_used, clippy::panic, reason = "a test's helper fails its test")]

mod common;

use common::{PATIENCE, Scene};
use holdfast_bed::peer::Connection;
use holdfast_bed::wait::wait_until;

/// The SPIs of the client's Child SAs, as swanctl lists them.
fn child_spis(scene: &Scene) -> Vec<String> {
    let list = scene.client.list().expect("swanctl lists");
    let directions = list
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("in ") || line.starts_with("out "));
    directions.filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

/// The SPIs of the client's IKE SAs, as swanctl lists them.
fn ike_spis(scene: &Scene) -> Vec<String> {
    let list = scene.client.list().expect("swanctl lists");
    let headers = list.lines().filter(|line| line.contains("IKEv2"));
    headers.map(|line| line.split_once("IKEv2").map_or("", |(_, spis)| spis).to_owned()).collect()
}

fn wait_for_change<T: PartialEq>(what: &str, scene: &Scene, before: &T, look: fn(&Scene) -> T) {
    let changed = wait_until(what, PATIENCE, || Ok((look(scene) != *before).then_some(())));
    if changed.is_err() {
        scene.explain();
    }
    changed.expect(what);
}

#[test]
fn default_settings_connect_and_connections_reach_every_target() {
    let scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
    let made = holdfast_bed::fetch::short_connections(&scene.bed.topology.client, 100)
        .expect("threads start");
    if !made.failures.is_empty() {
        scene.explain();
    }
    assert_eq!(made.failures, Vec::<String>::new());
    assert_eq!(made.per_target.len(), 3, "{:?}", made.per_target);
}

#[test]
fn the_client_renews_its_child_sa_and_its_ike_sa_and_traffic_goes_on() {
    let scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
    scene.expect_traffic();
    let child = child_spis(&scene);
    scene.client.rekey_child().expect("a rekey starts");
    wait_for_change("a new Child SA", &scene, &child, child_spis);
    scene.expect_traffic();
    let ike = ike_spis(&scene);
    scene.client.rekey_ike().expect("a rekey starts");
    wait_for_change("a new IKE SA", &scene, &ike, ike_spis);
    scene.expect_traffic();
    scene.client.rekey_child().expect("a rekey starts");
    scene.expect_traffic();
}

#[test]
fn a_connection_ended_by_the_client_can_be_made_again() {
    let scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
    scene.client.terminate().expect("a DELETE is answered");
    scene.client.initiate().expect("the tunnel comes up again");
    scene.expect_traffic();
}

#[test]
fn a_wrong_pre_shared_key_is_refused_by_name_and_stops_nobody() {
    let wrong =
        Connection { pre_shared_key: "not the right one".to_owned(), ..Connection::default() };
    let scene = Scene::build(&wrong, "").expect("the bed stands");
    let refusal = scene.client.initiate().expect_err("a wrong key must not connect").to_string();
    assert!(refusal.contains("AUTHENTICATION_FAILED") || refusal.contains("failed"), "{refusal}");
    assert!(scene.client.last_words(40).contains("AUTH_FAILED"), "the refusal has a name");
}

#[test]
fn other_suites_connect_as_well() {
    let mut scene = Scene::build(&Connection::default(), "").expect("the bed stands");
    for (ike, esp) in [
        ("aes256gcm16-prfsha384-ecp384", "aes256gcm16"),
        ("aes256-sha256-modp2048", "aes128gcm16"),
        ("aes128-sha384-ecp256", "aes256gcm16-ecp256"),
    ] {
        connects_with(&mut scene, ike, esp);
    }
}

#[test]
fn every_kind_of_cipher_of_esp_connects() {
    let ours = "esp_proposals = [\"aes192gcm16\", \"chacha20poly1305\", \"aes256-sha256\", \
                \"aes192ctr-sha512\"]";
    let mut scene = Scene::build(&Connection::default(), ours).expect("the bed stands");
    for esp in ["aes192gcm16", "chacha20poly1305", "aes256-sha256", "aes192ctr-sha512"] {
        connects_with(&mut scene, "aes256gcm16-prfsha256-ecp256", esp);
    }
}

/// The client offers these and nothing else, and the tunnel carries traffic before and after a rekey.
fn connects_with(scene: &mut Scene, ike: &str, esp: &str) {
    scene.client.stop();
    let connection = Connection {
        connection_settings: format!("proposals = {ike}"),
        child_settings: format!("esp_proposals = {esp}"),
        ..Connection::default()
    };
    scene.client = scene.bed.start_client(&connection).expect("the client starts");
    let up = scene.client.initiate();
    if up.is_err() {
        scene.explain();
    }
    up.unwrap_or_else(|e| panic!("{ike} / {esp}: {e}"));
    scene.expect_traffic();
    scene.client.rekey_child().expect("a rekey starts");
    scene.expect_traffic();
    scene.client.terminate().expect("a DELETE is answered");
}
