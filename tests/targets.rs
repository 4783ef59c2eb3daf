//! Targets that run `holdfast-target`: they follow the owner, whoever that is, and take nothing in
//! clear. Needs root.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helper fails its test"
)]

mod common;

use common::{PATIENCE, Plan, Scene, marked_by_nobody, pinned_to};
use holdfast_bed::capture::Direction;
use holdfast_bed::error::BedError;
use holdfast_bed::fetch::short_connections;
use holdfast_bed::follower::Delivery;
use holdfast_bed::hostile::{InsideStranger, udp_between};
use holdfast_bed::topology::{
    CLIENT_INNER, COMMON, ECHO_PORT, INSIDE, member_target_address, target_address,
};
use holdfast_bed::wait::wait_until;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddrV4;

const LARGE_BYTES: u64 = 24 << 20;
const LIMIT_BYTES_PER_S: u64 = 3 << 20;
/// Pace of the download that two handovers and several captures must fit into.
const SLOW_BYTES_PER_S: u64 = 768 << 10;
/// Marked packets, as a filter.
const MARKED: &str = "udp dst port 6080";

/// The tunnel is up, with a target on the host of one member if wanted.
fn connected(delivery: Delivery, serving: Option<u8>) -> Result<Scene, BedError> {
    Plan {
        large_file_bytes: LARGE_BYTES,
        limit_bytes_per_s: LIMIT_BYTES_PER_S,
        delivery: Some(delivery),
        serving: serving.map(|member| (member, SLOW_BYTES_PER_S)),
        ..Plan::default()
    }
    .connected()
}

#[test]
fn every_target_follows_a_takeover_and_takes_marked_packets_only() {
    let mut scene = connected(Delivery::Marked, None).expect("the bed comes up");
    let (first, epoch) = scene.wait_until_followed();
    assert_eq!(scene.stations(), BTreeSet::from([pinned_to(first)]));

    let prober = scene.bed.start_prober().expect("a prober");
    let download = scene.bed.start_download().expect("a download");
    scene.cluster.wait_until_ready(PATIENCE).expect("ready for a takeover");
    let runs = wait_until("the download to run", PATIENCE, || {
        Ok((download.bytes() > 1 << 20).then_some(()))
    });
    runs.inspect_err(|_| scene.explain()).expect("the download runs");
    scene.cluster.kill(first).expect("the owner dies");
    scene.cluster.bury(first).expect("buried");
    let (second, later) = scene.wait_until_followed_after(epoch);
    assert!(second != first && later > epoch, "epoch {later} of member {second}");
    assert_eq!(scene.stations(), BTreeSet::from([pinned_to(second)]));
    members_see_acknowledgements(&scene, second, later);
    tell_how_long_it_took(&scene, second);

    let log = download.finish().expect("the download ends");
    if log.failure.is_some() {
        scene.explain();
    }
    assert_eq!(log.failure, None);
    assert_eq!(log.sha256, scene.bed.content.sha256);
    prober.finish().expect("the prober ends");

    a_clear_packet_is_dropped(&scene);
    a_forged_or_stale_mark_is_dropped(&scene, later);
    scene.a_revived_owner_is_refused(first, epoch);
    assert_eq!(scene.wait_until_followed(), (second, later), "nothing of that moved a target");

    // At its end the program leaves the host as it found it.
    scene.followers_mut().stop(1).expect("it stops");
    let target = scene.bed.topology.target(1).expect("a target");
    let left = target.run(&["nft", "list", "tables"]).expect("nft");
    assert!(!left.contains("holdfast"), "{left}");
    let neighbours = target.run(&["ip", "neigh", "show", "nud", "permanent"]).expect("ip neigh");
    assert_eq!(neighbours.trim(), "");
    let route = target.run(&["ip", "route", "show", "10.77.0.0/16"]).expect("ip route");
    assert!(route.contains(&format!("via {INSIDE}")), "the operator's route stays: {route}");
}

#[test]
fn connections_of_a_member_that_serves_are_local_while_it_owns_and_distributed_else() {
    const SERVING: u8 = 2;
    let mut scene = connected(Delivery::Marked, Some(SERVING)).expect("the bed comes up");
    let (mut other, _) = scene.wait_until_followed();
    if other == SERVING {
        other = 1;
        scene.hand_over(SERVING, other);
    }
    let (_, name) = scene.bed.member_target().expect("a target on a member");
    let number = scene.followers().numbers().into_iter().max().expect("targets");
    let local = |scene: &Scene| {
        scene.followers().status(number).expect("a status")["owner"]["local"] == true
    };

    let download = scene.bed.start_download_from(&name).expect("a download");
    wait_for("the download to run", || download.bytes() > 256 << 10);
    assert!(!local(&scene));
    scene.expect_way(other, &name, "distributed");
    let marked = scene.frames_on("m2-target", Direction::Both, MARKED, &download);
    assert!(marked > 0, "it comes marked over the inside wire");

    scene.hand_over(other, SERVING);
    assert!(local(&scene));
    scene.expect_way(SERVING, &name, "local");
    let on_its_link = scene.frames_on("m2-target", Direction::Both, "not arp", &download);
    let to_it = format!("ip dst host {}", member_target_address(SERVING));
    let sent_to_it = scene.frames_on("m2-in", Direction::In, &to_it, &download);
    assert_eq!((on_its_link, sent_to_it), (0, 0), "nothing of it is on the inside wire any more");
    scene.what_was_distributed_before_is_refused(number, SERVING);

    scene.hand_over(SERVING, other);
    assert!(!local(&scene));
    let marked = scene.frames_on("m2-target", Direction::Both, MARKED, &download);
    assert!(marked > 0, "it is distributed again");
    scene.expect_way(other, &name, "distributed");

    let log = download.finish().expect("the download ends");
    assert_eq!((log.failure, log.target), (None, name));
    assert_eq!(log.sha256, scene.bed.content.sha256, "the connection was never reset");
}

#[test]
fn after_two_takeovers_in_a_row_every_target_follows_the_last_owner() {
    let mut scene = connected(Delivery::Clear, None).expect("the bed comes up");
    let (first, epoch) = scene.wait_until_followed();
    let others: Vec<u8> =
        scene.cluster.numbers().into_iter().filter(|number| *number != first).collect();
    let [second, third] = others[..] else { panic!("three members: {others:?}") };
    // Without waiting for any target.
    scene.ask_to_hand_over(first, second);
    scene.ask_to_hand_over(second, third);
    let (owner, later) = scene.wait_until_followed();
    assert_eq!(owner, third);
    assert!(later >= epoch + 2, "epoch {epoch}, then {later}");
    assert_eq!(scene.stations(), BTreeSet::from([pinned_to(third)]));
    let made = short_connections(&scene.bed.topology.client, 30).expect("threads start");
    assert_eq!(made.failures, Vec::<String>::new());
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    wait_until(what, PATIENCE, || Ok(condition().then_some(()))).expect("in time");
}

fn members_see_acknowledgements(scene: &Scene, owner: u8, epoch: u64) {
    let list = || scene.cluster.ask(owner, &["target", "list"]).expect("a list");
    let acknowledged = |target: &Value| {
        target["notice"] == "acknowledged"
            && target["epoch"] == epoch
            && target["delivery"] == "marked"
            && target["healthy"] == true
    };
    wait_for("the owner to show every acknowledgement", || {
        list()["targets"].as_array().is_some_and(|all| all.iter().all(acknowledged))
    });
}

/// Prints when the new owner took the address and when each target had followed; a busy machine may
/// take its time.
fn tell_how_long_it_took(scene: &Scene, owner: u8) {
    let log = std::fs::read_to_string(scene.cluster.log(owner)).expect("a log");
    let told = ["ownership_taken", "target_acknowledged"];
    for line in log.lines().filter(|line| told.iter().any(|event| line.contains(event))) {
        println!("{line}");
    }
}

/// What a tunnel would have brought, straight from the inside network: not to the service.
fn a_clear_packet_is_dropped(scene: &Scene) {
    let stranger = InsideStranger::join(&scene.bed.topology).expect("a stranger");
    let before = scene.followers().count(1, "/marks/clear_dropped");
    let from = SocketAddrV4::new(CLIENT_INNER, 5555);
    let to = SocketAddrV4::new(COMMON, ECHO_PORT);
    let clear: Vec<_> = (0..20).map(|_| udp_between(from, to, b"in clear")).collect();
    stranger.send(target_address(1), clear).expect("sent");
    wait_for("20 clear packets to be counted", || {
        scene.followers().count(1, "/marks/clear_dropped") >= before + 20
    });
}

fn a_forged_or_stale_mark_is_dropped(scene: &Scene, epoch: u64) {
    let stranger = InsideStranger::join(&scene.bed.topology).expect("a stranger");
    let mark = |epoch: u64| marked_by_nobody(epoch, target_address(2));
    let accepted = scene.followers().count(2, "/marks/accepted");
    let refused = |reason: &str| scene.followers().count(2, &format!("/marks/refused/{reason}"));
    let before = ["forged", "stale", "unknown_epoch"].map(refused);
    let packets = [epoch, epoch - 1, epoch + 1].into_iter().map(mark).collect();
    stranger.send(target_address(2), packets).expect("sent");
    wait_for("each mark to be refused by name", || {
        ["forged", "stale", "unknown_epoch"].map(refused) == before.map(|count| count + 1)
    });
    assert_eq!(scene.followers().count(2, "/marks/accepted"), accepted);
}
