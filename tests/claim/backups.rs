//! Claims 2 and 3: what a further distributor can do, and what was transmitted before the failure.

use super::{REESTABLISH, c1, expect_one_record_for_each_sa, expect_whole, names, plan};
use crate::common::{Plan, Scene, expect_lawful};
use holdfast_bed::cuts::{Way, cut, lift};
use holdfast_bed::links::{Links, Wire};
use holdfast_bed::peer::{CLIENT_IDENTITY, PRE_SHARED_KEY};
use holdfast_bed::time::Wall;
use holdfast_bed::topology::{RAFT_PORT, Size, management_address};
use holdfast_bed::wire::Sender;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Duration;

#[test]
fn claim_02_a_further_distributor_restarts_what_runs_through_the_backup() {
    // Three that can own and two that vote, so that two may be off at the same time.
    let plan = Plan {
        size: Size { members: 5, targets: 2 },
        witnesses: vec![4, 5],
        clients: 3,
        large_file_bytes: 8 << 20,
        limit_bytes_per_s: 768 << 10,
        ..plan()
    };
    let mut scene = plan.build().expect("the bed comes up");
    for number in [1, 2] {
        scene.swan(number).initiate().expect("the tunnel comes up");
    }
    let (d1, _) = scene.owner();
    // Before any failure every other distributor can read it, not the next in line alone.
    let given = scene.wait_until_current(d1);
    expect_one_record_for_each_sa(&scene, d1, &given);
    let before = scene.before(&[1, 2]);
    let download = c1(&scene);

    // The backup dies in the middle of its takeover: what it had done and what not, the third finds.
    let first = scene.lose(d1);
    let second = scene.lose(first.to);
    let d3 = second.to;
    assert!(d3 != d1 && d3 != first.to);
    scene.wait_until_reestablished(&before);

    // Back come the first two, as backups. Meanwhile an SA is rekeyed and one is new.
    scene.power_on(d1);
    scene.power_on(first.to);
    scene.wait_until_current(d3);
    let old = scene.running_sas(d3);
    scene.swan(2).rekey_child().expect("a rekey starts");
    scene.wait_for("the rekey", |scene| !old.is_subset(&scene.running_sas(d3)));
    scene.swan(3).initiate().expect("the third client connects");
    let given = scene.wait_until_current(d3);
    assert_eq!(given.connections(), names(&["bed", "client2", "client3"]));
    expect_one_record_for_each_sa(&scene, d3, &given);

    // What was created and rekeyed on the third is restarted by one of them.
    let before = scene.before(&[1, 2, 3]);
    let third = scene.lose(d3);
    scene.wait_until_reestablished(&before);
    expect_whole(&scene, download);
    for number in [1, 2, 3] {
        scene.expect_traffic_of(number);
    }
    let links = scene.captured();
    let outside = links.outside().expect("captures");
    third.expect_restarted(&outside, &[1, 2, 3]);
    third.expect_routed(&links, 1, 5);
    expect_lawful(&outside);
    let owners: Vec<u8> = outside.ownership().iter().map(|change| change.member).collect();
    assert_eq!(owners, [d1, first.to, d3, third.to], "one owner after the other");
}

/// So much of the management traffic of a member is lost.
const LOSS: &str = "numgen random mod 100 < 20";

#[test]
fn claim_03_information_is_transmitted_to_the_backups_before_the_failure() {
    let plan = Plan { clients: 2, settings: REESTABLISH.to_owned(), ..plan() };
    let mut scene = plan.build().expect("the bed comes up");
    scene.client.initiate().expect("the tunnel comes up");
    let (d1, _) = scene.owner();
    scene.wait_until_current(d1);
    let standbys: Vec<u8> = (1..=3).filter(|member| *member != d1).collect();
    let [backup, deaf] = standbys[..] else { panic!("three members") };

    // The control: who is cut off from the owner has nothing of what happens meanwhile.
    let host = scene.bed.topology.member(deaf).expect("a member");
    cut(host, "deaf", Way::In, "iifname mgmt").expect("a cut");
    cut(host, "deaf", Way::Out, "oifname mgmt").expect("a cut");
    let quiet = (Wall::now(), Wall::now().plus_ms(300));
    scene.wait_for("a quiet while", |_| Wall::now() > quiet.1);
    let created = Wall::now();
    scene.swan(2).initiate().expect("the second client connects");
    let known_to = |scene: &Scene, member| {
        scene.store(member).is_ok_and(|store| store.connections().contains("client2"))
    };
    scene.wait_for("the backup to have it", |scene| known_to(scene, backup));
    let known = Wall::now();
    assert!(!known_to(&scene, deaf), "nothing came to who is cut off");
    let host = scene.bed.topology.member(deaf).expect("a member");
    lift(host, "deaf").expect("lifted");
    // Who was away is given all it missed.
    scene.wait_until_current(d1);
    assert!(known_to(&scene, deaf));

    what_is_lost_is_repeated(&mut scene, d1, deaf);
    strangers_are_refused(&scene, d1);

    // Cut off first, so that nothing can be transmitted any more; then off.
    let before = scene.before(&[1, 2]);
    let host = scene.bed.topology.member(d1).expect("a member");
    cut(host, "last", Way::Out, "oifname mgmt").expect("a cut");
    let takeover = scene.lose(d1);
    scene.wait_until_reestablished(&before);
    for number in [1, 2] {
        scene.expect_traffic_of(number);
    }
    let links = scene.captured();
    let outside = links.outside().expect("captures");
    takeover.expect_restarted(&outside, &[1, 2]);
    expect_lawful(&outside);
    the_words_are_larger_when_an_sa_is_made(&links, (d1, backup), quiet, (created, known));
    nobody_on_the_way_can_read(&links, d1);
}

/// A fifth of what goes to and from a standby is lost while SAs come, change and go.
fn what_is_lost_is_repeated(scene: &mut Scene, owner: u8, lossy: u8) {
    let host = scene.bed.topology.member(lossy).expect("a member");
    cut(host, "lossy", Way::In, &format!("iifname mgmt {LOSS}")).expect("a cut");
    cut(host, "lossy", Way::Out, &format!("oifname mgmt {LOSS}")).expect("a cut");
    scene.swan(2).terminate().expect("a DELETE is answered");
    scene.swan(2).initiate().expect("it connects again");
    let old = scene.running_sas(owner);
    scene.swan(1).rekey_child().expect("a rekey starts");
    scene.wait_for("the rekey", |scene| !old.is_subset(&scene.running_sas(owner)));
    let changed = Wall::now();
    scene.wait_until_current(owner);
    println!("equal {:.0} ms after the last change", Wall::now().ms_since(changed));
    lift(scene.bed.topology.member(lossy).expect("a member"), "lossy").expect("lifted");
    assert_eq!(scene.owner().0, owner, "no false takeover");
}

/// Whoever has no certificate of the cluster is refused by name, from wherever it comes.
fn strangers_are_refused(scene: &Scene, owner: u8) {
    let to = SocketAddrV4::new(management_address(owner), RAFT_PORT);
    let target = scene.bed.topology.target(1).expect("a target");
    let stranger = target.spawn("stranger", move || {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"give me the records\r\n\r\n")?;
        let mut answer = Vec::new();
        // A reset is an answer as well.
        let _ = stream.read_to_end(&mut answer);
        Ok::<_, std::io::Error>(answer)
    });
    let answer = stranger.expect("a thread").join().expect("no panic").expect("in the namespace");
    assert!(answer.expect("it listens").len() < 64, "no more than an alert");
    scene.wait_for("the refusal to be counted", |scene| {
        let Ok(status) = scene.cluster.ask(owner, &["cluster", "status"]) else { return false };
        status["refusals"].to_string().contains("tls_malformed")
    });
}

/// The largest frame from one member to another in a while.
fn largest(links: &Links, (from, to): (u8, u8), (begin, end): (Wall, Wall)) -> usize {
    let to = management_address(to);
    let frames = links.frames_between(Wire::Management, Sender::Member(from), to).expect("frames");
    let within = frames.iter().filter(|(at, _)| *at >= begin && *at <= end);
    within.map(|(_, length)| *length).max().unwrap_or(0)
}

fn the_words_are_larger_when_an_sa_is_made(
    links: &Links,
    pair: (u8, u8),
    quiet: (Wall, Wall),
    making: (Wall, Wall),
) {
    let (quiet, making) = (largest(links, pair, quiet), largest(links, pair, making));
    println!("largest frame {quiet} octets in quiet, {making} while an SA is made");
    assert!(making > quiet, "the record of an SA is more than a heartbeat");
}

/// TLS records, and no name nor secret that the records of SAs contain.
fn nobody_on_the_way_can_read(links: &Links, owner: u8) {
    let bytes = links.bytes_of(Wire::Management, Sender::Member(owner)).expect("a capture");
    let has = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
    assert!(has(&[0x17, 3, 3]), "TLS application data");
    for words in [CLIENT_IDENTITY, PRE_SHARED_KEY, "client2"] {
        assert!(!has(words.as_bytes()), "{words}");
    }
}
