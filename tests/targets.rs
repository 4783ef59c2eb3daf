//! Targets that run `holdfast-target`: they follow the owner, whoever that is, and take nothing in
//! clear. Needs root.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helper fails its test"
)]

use holdfast::notice::NoticeListener;
use holdfast::pki::Credentials;
use holdfast_bed::bed::{Bed, BedOptions};
use holdfast_bed::capture::{Capture, Direction, read_frames};
use holdfast_bed::error::BedError;
use holdfast_bed::fetch::{Download, short_connections};
use holdfast_bed::follower::{Delivery, Followers};
use holdfast_bed::hostile::{InsideStranger, udp_between};
use holdfast_bed::member::{Cluster, ClusterOptions, PROGRAMS_VARIABLE, Profile, Programs};
use holdfast_bed::peer::{Connection, StrongSwan};
use holdfast_bed::topology::{
    CLIENT_INNER, COMMON, ECHO_PORT, INSIDE, NOTICE_PORT, Size, management_address,
    member_inside_mac, member_target_address, target_address,
};
use holdfast_bed::wait::wait_until;
use holdfast_cluster::{Epoch, Incarnation, MemberId, Owner, TargetId};
use holdfast_member::{OwnerNotice, TargetEvent};
use holdfast_packet::{MacAddr, gue};
use mio::{Events, Poll};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

/// Long enough for a crowded machine; never a figure that is asserted.
const PATIENCE: Duration = Duration::from_secs(40);
const LARGE_BYTES: u64 = 24 << 20;
const LIMIT_BYTES_PER_S: u64 = 3 << 20;
/// Pace of the download that two handovers and several captures must fit into.
const SLOW_BYTES_PER_S: u64 = 768 << 10;
/// What marked packets go to.
const MARK_PORT: u16 = 6080;
/// The same as a filter.
const MARKED: &str = "udp dst port 6080";
/// How much of a download a capture lasts.
const WINDOW_BYTES: u64 = 1 << 20;

/// The product's programs: those the environment names, else what cargo built for this test.
fn programs() -> Programs {
    let built = Path::new(env!("CARGO_BIN_EXE_holdfastd")).parent().expect("a folder");
    let named = std::env::var_os(PROGRAMS_VARIABLE);
    Programs::in_folder(named.as_ref().map_or(built, |folder| Path::new(folder)))
}

/// Everything, with a program on each target. What runs ends before what it runs in.
struct Scene {
    client: StrongSwan,
    followers: Followers,
    cluster: Cluster,
    bed: Bed,
}

impl Scene {
    fn connected(delivery: Delivery) -> Result<Self, BedError> {
        Self::build(delivery, None)
    }

    /// With a target on the host of one member, if wanted.
    fn build(delivery: Delivery, serving: Option<u8>) -> Result<Self, BedError> {
        let mut bed = Bed::build(&BedOptions {
            size: Size { members: 3, targets: 3 },
            large_file_bytes: LARGE_BYTES,
            limit_bytes_per_s: LIMIT_BYTES_PER_S,
        })?;
        if let Some(member) = serving {
            bed.add_member_target(member, SLOW_BYTES_PER_S)?;
        }
        let options = ClusterOptions {
            programs: programs(),
            profile: Profile::Relaxed,
            connection_settings: String::new(),
        };
        let mut cluster = Cluster::prepare_with_followers(&bed, options, delivery)?;
        let mut followers = Followers::prepare(&bed, &cluster, &programs(), delivery)?;
        cluster.start_all(&bed)?;
        cluster.wait_for_owner(PATIENCE)?;
        followers.start_all(&bed, PATIENCE)?;
        let client = bed.start_client(&Connection::default())?;
        let scene = Self { client, followers, cluster, bed };
        scene.client.initiate().inspect_err(|_| scene.explain())?;
        Ok(scene)
    }

    fn explain(&self) {
        println!("client:\n{}", self.client.last_words(15));
        println!("members:\n{}", self.cluster.last_words(15));
        println!("targets:\n{}", self.followers.last_words(15));
        for number in self.followers.numbers() {
            println!("target {number}: {:#?}", self.followers.status(number));
        }
    }

    /// Waits until every target follows the owner that the members know, and tells it.
    fn wait_until_followed(&mut self) -> (u8, u64) {
        self.wait_until_followed_after(0)
    }

    /// The same for an ownership later than `before`.
    fn wait_until_followed_after(&mut self, before: u64) -> (u8, u64) {
        let agreed = wait_until("every target to follow the owner", PATIENCE, || {
            self.followers.expect_running()?;
            let Some(&one) = self.cluster.running().first() else { return Ok(None) };
            let status = self.cluster.status(one)?;
            let epoch = status.0.pointer("/cluster/owner/epoch").and_then(|epoch| epoch.as_u64());
            let later = epoch.filter(|epoch| *epoch > before);
            let Some((owner, epoch)) = status.owner().zip(later) else { return Ok(None) };
            let expected = Some((u64::from(owner), epoch));
            let numbers = self.followers.numbers();
            let all = numbers.into_iter().all(|number| self.followers.owner(number) == expected);
            Ok(all.then_some((owner, epoch)))
        });
        agreed.inspect_err(|_| self.explain()).expect("every target follows")
    }

    /// Asks until it is done: a member that has just taken over may not be ready to give back.
    fn ask_to_hand_over(&self, from: u8, to: u8) {
        let done = wait_until("a handover", PATIENCE, || {
            let asked = self.cluster.ask(from, &["handover", "--to", &to.to_string()]);
            let moved = self.cluster.status(to)?.owner() == Some(to);
            Ok((asked.is_ok() || moved).then_some(()))
        });
        done.inspect_err(|_| self.explain()).expect("handed over");
        wait_for("the new owner", || self.cluster.status(to).is_ok_and(|s| s.owner() == Some(to)));
    }

    /// As [`Self::ask_to_hand_over`], until every target follows.
    fn hand_over(&mut self, from: u8, to: u8) {
        self.ask_to_hand_over(from, to);
        let (owner, _) = self.wait_until_followed();
        assert_eq!(owner, to);
    }

    /// Waits until every connection to `target` goes that way by the flow list of `owner`, which
    /// fills again with the first packets after a takeover.
    fn expect_way(&self, owner: u8, target: &str, way: &str) {
        let shown = wait_until("the connection in the flow list", PATIENCE, || {
            let list = self.cluster.ask(owner, &["flow", "list"])?;
            let flows = list["flows"].as_array().cloned().unwrap_or_default();
            let of_it = |flow: &&Value| flow["target"] == target && flow["protocol"] == "tcp";
            let ways: Vec<&Value> = flows.iter().filter(of_it).map(|flow| &flow["way"]).collect();
            Ok((!ways.is_empty() && ways.iter().all(|found| *found == way)).then_some(()))
        });
        shown.inspect_err(|_| self.explain()).expect("the flow is shown");
    }

    /// Frames of one link that match `filter` while the download makes progress.
    fn frames_on(
        &self,
        link: &str,
        direction: Direction,
        filter: &str,
        download: &Download,
    ) -> u64 {
        let file = self.bed.memory_path("window.pcap");
        let wires = &self.bed.topology.wires;
        let capture = Capture::start(wires, link, direction, filter, &file).expect("a capture");
        let goal = download.bytes() + WINDOW_BYTES;
        let progress = wait_until("the download to go on", PATIENCE, || {
            Ok((download.bytes() >= goal).then_some(()))
        });
        progress.inspect_err(|_| self.explain()).expect("progress");
        let captured = capture.finish().expect("a whole capture");
        assert_eq!(captured.dropped_frames, 0);
        let mut frames = 0;
        read_frames(&captured.path, |_, _| frames += 1).expect("a capture file");
        frames
    }

    /// Where each target's kernel sends replies.
    fn stations(&self) -> BTreeSet<String> {
        let numbers = self.followers.numbers().into_iter();
        let neighbour = |number| {
            let namespace = self.bed.topology.target(number).expect("a target");
            namespace.run(&["ip", "neigh", "show", &INSIDE.to_string()]).expect("ip neigh")
        };
        numbers.map(neighbour).map(|line| line.trim().to_owned()).collect()
    }
}

fn pinned_to(member: u8) -> String {
    let mac = MacAddr(member_inside_mac(member));
    format!("{INSIDE} dev inside lladdr {mac} PERMANENT")
}

#[test]
fn every_target_follows_a_takeover_and_takes_marked_packets_only() {
    let mut scene = Scene::connected(Delivery::Marked).expect("the bed comes up");
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
    a_revived_owner_is_refused(&scene, first, epoch);
    assert_eq!(scene.wait_until_followed(), (second, later), "nothing of that moved a target");

    // At its end the program leaves the host as it found it.
    scene.followers.stop(1).expect("it stops");
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
    let mut scene = Scene::build(Delivery::Marked, Some(SERVING)).expect("the bed comes up");
    let (mut other, _) = scene.wait_until_followed();
    if other == SERVING {
        other = 1;
        scene.hand_over(SERVING, other);
    }
    let (_, name) = scene.bed.member_target().expect("a target on a member");
    let number = scene.followers.numbers().into_iter().max().expect("targets");
    let local =
        |scene: &Scene| scene.followers.status(number).expect("a status")["owner"]["local"] == true;

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
    what_was_distributed_before_is_refused(&scene, number, SERVING);

    scene.hand_over(SERVING, other);
    assert!(!local(&scene));
    let marked = scene.frames_on("m2-target", Direction::Both, MARKED, &download);
    assert!(marked > 0, "it is distributed again");
    scene.expect_way(other, &name, "distributed");

    let log = download.finish().expect("the download ends");
    assert_eq!((log.failure, log.target), (None, name));
    assert_eq!(log.sha256, scene.bed.content.sha256, "the connection was never reset");
}

/// Marks as they were right a moment ago, from a revived owner or a stranger.
fn what_was_distributed_before_is_refused(scene: &Scene, number: u8, member: u8) {
    let stranger = InsideStranger::join(&scene.bed.topology).expect("a stranger");
    let own = member_target_address(member);
    let (_, epoch) = scene.followers.owner(number).expect("an owner");
    let refused = || scene.followers.count(number, "/marks/refused/local");
    let before = refused();
    let packets = [epoch - 1, epoch].map(|epoch| marked_by_nobody(epoch, own)).to_vec();
    stranger.send(own, packets).expect("sent");
    wait_for("both to be refused", || refused() == before + 2);
}

#[test]
fn after_two_takeovers_in_a_row_every_target_follows_the_last_owner() {
    let mut scene = Scene::connected(Delivery::Clear).expect("the bed comes up");
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
    let before = scene.followers.count(1, "/marks/clear_dropped");
    let from = SocketAddrV4::new(CLIENT_INNER, 5555);
    let to = SocketAddrV4::new(COMMON, ECHO_PORT);
    let clear: Vec<_> = (0..20).map(|_| udp_between(from, to, b"in clear")).collect();
    stranger.send(target_address(1), clear).expect("sent");
    wait_for("20 clear packets to be counted", || {
        scene.followers.count(1, "/marks/clear_dropped") >= before + 20
    });
}

fn a_forged_or_stale_mark_is_dropped(scene: &Scene, epoch: u64) {
    let stranger = InsideStranger::join(&scene.bed.topology).expect("a stranger");
    let mark = |epoch: u64| marked_by_nobody(epoch, target_address(2));
    let accepted = scene.followers.count(2, "/marks/accepted");
    let refused = |reason: &str| scene.followers.count(2, &format!("/marks/refused/{reason}"));
    let before = ["forged", "stale", "unknown_epoch"].map(refused);
    let packets = [epoch, epoch - 1, epoch + 1].into_iter().map(mark).collect();
    stranger.send(target_address(2), packets).expect("sent");
    wait_for("each mark to be refused by name", || {
        ["forged", "stale", "unknown_epoch"].map(refused) == before.map(|count| count + 1)
    });
    assert_eq!(scene.followers.count(2, "/marks/accepted"), accepted);
}

fn marked_by_nobody(epoch: u64, target: Ipv4Addr) -> Vec<u8> {
    let from = SocketAddrV4::new(CLIENT_INNER, 5555);
    let inner = udp_between(from, SocketAddrV4::new(COMMON, ECHO_PORT), b"marked by nobody");
    let header = gue::Repr { epoch, tag: 0x1234_5678_9abc_def0 };
    let payload = [header.bytes().as_slice(), &inner].concat();
    let from = SocketAddrV4::new(INSIDE, 50_000);
    udp_between(from, SocketAddrV4::new(target, MARK_PORT), &payload)
}

/// In the place of the dead owner, with its certificate, speaks somebody who still believes in its
/// epoch.
fn a_revived_owner_is_refused(scene: &Scene, member: u8, epoch: u64) {
    let folder = scene.bed.folder("cluster");
    let targets: BTreeMap<String, u64> = scene.bed.target_names().into_iter().zip(1..).collect();
    let namespace = scene.bed.topology.member(member).expect("a member");
    let revived = namespace
        .spawn("revived", move || tell_stale(&folder, member, epoch, targets))
        .expect("a thread");
    let refusals = revived.join().expect("no panic").expect("entered");
    assert_eq!(refusals.len(), 3, "every target refused: {refusals:?}");
    assert!(refusals.values().all(|known| known.0 > epoch));
    for number in scene.followers.numbers() {
        let refused = || scene.followers.count(number, "/notices_refused_stale");
        wait_for("the refusal to be shown", || refused() >= 1);
    }
}

/// Tells every target that comes of an ownership that has passed; what epoch each knows instead.
fn tell_stale(
    folder: &Path,
    member: u8,
    epoch: u64,
    targets: BTreeMap<String, u64>,
) -> BTreeMap<TargetId, Epoch> {
    let wanted = targets.len();
    let file = |end: &str| folder.join(format!("member-{member}.{end}"));
    let credentials = Credentials::load(&folder.join("ca.pem"), &file("pem"), &file("key"))
        .expect("certificates");
    let mut poll = Poll::new().expect("poll");
    let registry = poll.registry().try_clone().expect("registry");
    let at = (management_address(member), NOTICE_PORT).into();
    let number = u64::from(member);
    let mut listener =
        NoticeListener::new(number, at, targets, credentials, registry, 0).expect("a listener");
    let notice = OwnerNotice {
        owner: Owner { member: MemberId(number), incarnation: Incarnation(1), epoch: Epoch(epoch) },
        common: COMMON,
        inside: INSIDE,
        inside_mac: MacAddr(member_inside_mac(member)),
        key: None,
    };
    let mut refusals = BTreeMap::new();
    let mut events = Events::with_capacity(64);
    let start = Instant::now();
    while refusals.len() < wanted && start.elapsed() < PATIENCE {
        poll.poll(&mut events, Some(Duration::from_millis(50))).expect("poll");
        for event in &events {
            listener.handle_event(holdfast::clock::now(), event.token());
        }
        while let Some((target, event)) = listener.poll_event() {
            match event {
                TargetEvent::Joined => listener.send(target, &notice),
                TargetEvent::Refused { known, .. } => drop(refusals.insert(target, known)),
                _ => {}
            }
        }
    }
    refusals
}
