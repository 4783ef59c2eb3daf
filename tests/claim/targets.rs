//! Claims 5 and 8: obtain, establish, notify; distributed before, local after.

use super::{c1, expect_whole, plan};
use crate::common::{Plan, Scene, Takeover, expect_lawful, pinned_to};
use holdfast_bed::capture::Direction;
use holdfast_bed::cuts::{Way, cut, lift};
use holdfast_bed::follower::Delivery;
use holdfast_bed::hostile::{Stranger, udp_between};
use holdfast_bed::links::{InnerPacket, Links, Wire};
use holdfast_bed::topology::{
    CLIENT_INNER, COMMON, ECHO_PORT, NOTICE_PORT, Size, member_target_address,
    target_management_address,
};
use holdfast_bed::wire::Sender;
use serde_json::Value;
use std::net::SocketAddrV4;

#[test]
fn claim_05_the_backup_obtains_establishes_and_notifies_the_targets() {
    let plan = Plan {
        size: Size { members: 3, targets: 3 },
        clients: 2,
        delivery: Some(Delivery::Marked),
        ..plan()
    };
    let mut scene = plan.connected().expect("the bed comes up");
    let (d1, epoch) = scene.wait_until_followed();
    scene.wait_until_current(d1);
    let terms = scene.terms(d1);
    let before = scene.before(&[1, 2]);
    let download = c1(&scene);

    // The second target is off, and the third hears of nothing.
    scene.followers_mut().stop(2).expect("it stops");
    let third = scene.bed.topology.target(3).expect("a target");
    cut(third, "unheard", Way::In, &format!("tcp sport {NOTICE_PORT}")).expect("a cut");
    let takeover = scene.lose(d1);
    let d2 = takeover.to;
    let (owner, later) = scene.wait_until_followed_by(&[1], epoch);
    assert_eq!(owner, d2);
    // Shown for each target: who knows, who does not, and what was given to it.
    scene.wait_for("the third to be told again", |scene| {
        told(scene, d2, 3)["attempts"].as_u64() > Some(1)
    });
    let (first, second, third) = (told(&scene, d2, 1), told(&scene, d2, 2), told(&scene, d2, 3));
    assert_eq!((&first["notice"], &first["epoch"]), (&"acknowledged".into(), &later.into()));
    assert_ne!(second["notice"], "acknowledged");
    assert_eq!(third["notice"], "pending");
    assert_eq!(scene.followers().owner(3), Some((u64::from(d1), epoch)), "it still believes");
    // The third hears it at last, and the second when it is back.
    lift(scene.bed.topology.target(3).expect("a target"), "unheard").expect("lifted");
    let Scene { followers, bed, .. } = &mut scene;
    followers.as_mut().expect("programs").start(bed, 2).expect("it starts");
    assert_eq!(scene.wait_until_followed_after(epoch), (d2, later));
    assert_eq!(scene.stations(), [pinned_to(d2)].into());

    // Established: the same peers, identities, algorithms and selectors.
    scene.wait_until_reestablished(&before);
    scene.wait_until_current(d2);
    assert_eq!(scene.terms(d2), terms);
    scene.expect_way(d2, "target1", "distributed");
    let given = told(&scene, d2, 1)["connections"].as_u64();
    assert!(given >= Some(1), "counted for the target that has them: {given:?}");
    expect_whole(&scene, download);
    in_this_order(&scene, d2, ["owner_failed", "ownership_taken", "target_acknowledged"]);

    // Somebody who believes in the epoch that has passed moves no target.
    scene.plug(d1, true);
    scene.a_revived_owner_is_refused(d1, epoch);
    assert_eq!(scene.wait_until_followed(), (d2, later));

    let links = scene.captured();
    takeover.expect_routed(&links, 1, 3);
    marked_packets_and_notices_come_from_the_backup(&links, &takeover);
    expect_lawful(&links.outside().expect("captures"));
}

/// What a member shows of a target.
fn told(scene: &Scene, member: u8, target: usize) -> Value {
    let list = scene.cluster.ask(member, &["target", "list"]).expect("a list");
    list["targets"][target - 1].clone()
}

fn in_this_order(scene: &Scene, member: u8, events: [&str; 3]) {
    let log = scene.log_of(member);
    let last = |event: &str| log.rfind(&format!("event=\"{event}\"")).expect("told");
    let first = |event: &str| log.find(&format!("event=\"{event}\"")).expect("told");
    let [failed, taken, acknowledged] = events;
    assert!(last(failed) < last(taken) && last(taken) < first(acknowledged), "{events:?}");
}

fn marked_packets_and_notices_come_from_the_backup(links: &Links, takeover: &Takeover) {
    let inside = links.inner_packets(Wire::Inside).expect("captures");
    let own = inside.iter().filter(|packet| packet.sender == Sender::Member(takeover.to));
    let (marked, clear): (Vec<&InnerPacket>, Vec<_>) = own.partition(|packet| packet.marked);
    assert!(!marked.is_empty() && clear.is_empty(), "{} in clear", clear.len());
    for target in [1, 3] {
        let to = target_management_address(target);
        let words = links
            .frames_between(Wire::Management, Sender::Member(takeover.to), to)
            .expect("frames");
        assert!(words.iter().any(|(at, _)| *at > takeover.at), "nothing to target {target}");
    }
}

/// The member that serves itself.
const SERVING: u8 = 2;
/// Marked packets, as a filter.
const MARKED: &str = "udp dst port 6080";

#[test]
fn claim_08_what_was_distributed_to_the_backup_is_local_once_it_owns() {
    // The third only votes, so that the serving one follows for certain.
    let plan = Plan {
        clients: 2,
        witnesses: vec![3],
        large_file_bytes: 14 << 20,
        limit_bytes_per_s: 1 << 20,
        settings: String::new(),
        delivery: Some(Delivery::Marked),
        serving: Some((SERVING, 1 << 20)),
        captured: false,
        ..plan()
    };
    let mut scene = plan.connected().expect("the bed comes up");
    if scene.wait_until_followed().0 == SERVING {
        scene.hand_over(SERVING, 1);
    }
    let (_, name) = scene.bed.member_target().expect("a target on a member");
    let number = scene.followers().numbers().into_iter().max().expect("targets");
    let local = |scene: &Scene| {
        scene.followers().status(number).expect("a status")["owner"]["local"] == true
    };
    // "c2" is served by the member itself, "c1" by a target.
    let host = &scene.peers.first().expect("a second client").host;
    let c1 = holdfast_bed::fetch::Download::start_from(host, Some("target1".to_owned()));
    let c1 = c1.expect("a download");
    let c2 = scene.bed.start_download_from(&name).expect("a download");
    scene.wait_for("both to run", |_| c1.bytes() > 64 << 10 && c2.bytes() > 64 << 10);
    assert!(!local(&scene));
    scene.expect_way(1, &name, "distributed");
    let marked = scene.frames_on("m2-target", Direction::Both, MARKED, &c2);
    assert!(marked > 0, "it comes marked over the inside wire");

    scene.wait_until_current(1);
    let takeover = scene.lose(1);
    assert_eq!(takeover.to, SERVING);
    scene.wait_until_followed();
    assert!(local(&scene));
    scene.expect_way(SERVING, &name, "local");
    scene.expect_way(SERVING, "target1", "distributed");
    let on_its_link = scene.frames_on("m2-target", Direction::Both, "not arp", &c2);
    let to_it = format!("ip dst host {}", member_target_address(SERVING));
    let sent_to_it = scene.frames_on("m2-in", Direction::In, &to_it, &c2);
    assert_eq!((on_its_link, sent_to_it), (0, 0), "nothing of it is on the inside wire any more");
    assert_eq!(connections_of(&scene, SERVING, &name), 1, "counted once");
    scene.what_was_distributed_before_is_refused(number, SERVING);
    what_comes_in_clear_is_dropped(&scene, SERVING);

    // The inverse: the first is back and owns again.
    scene.power_on(1);
    scene.wait_until_current(SERVING);
    scene.hand_over(SERVING, 1);
    assert!(!local(&scene));
    scene.expect_way(1, &name, "distributed");
    let marked = scene.frames_on("m2-target", Direction::Both, MARKED, &c2);
    assert!(marked > 0, "it is distributed again");
    assert_eq!(expect_whole(&scene, c2).target, name);
    assert_eq!(expect_whole(&scene, c1).target, "target1");
}

/// Connections of the first client to a target, by the flow list.
fn connections_of(scene: &Scene, owner: u8, target: &str) -> usize {
    let list = scene.cluster.ask(owner, &["flow", "list"]).expect("flows");
    let flows = list["flows"].as_array().cloned().unwrap_or_default();
    let from = format!("{CLIENT_INNER}:");
    let of_it = |flow: &&Value| {
        flow["target"] == target
            && flow["protocol"] == "tcp"
            && flow["source"].as_str().is_some_and(|source| source.starts_with(&from))
    };
    // Connections given up while one to this target was looked for are no more than remembered.
    flows.iter().filter(of_it).filter(|flow| flow["idle_ms"].as_u64() < Some(1_000)).count()
}

/// What would belong into the tunnel, from the outside without it.
fn what_comes_in_clear_is_dropped(scene: &Scene, owner: u8) {
    let before = scene.dropped(owner, "udp_port");
    let stranger = Stranger::join(&scene.bed.topology).expect("a host");
    let from = SocketAddrV4::new(CLIENT_INNER, 5555);
    let clear = udp_between(from, SocketAddrV4::new(COMMON, ECHO_PORT), b"in clear");
    stranger.send(vec![clear; 5]).expect("sent");
    scene.wait_for("the clear packets to be counted", |scene| {
        scene.dropped(owner, "udp_port") >= before + 5
    });
}
