//! Claims 1, 20 and 22: provide, detect, restart, route, process.

use super::{c1, expect_one_record_for_each_sa, expect_progress, expect_whole, names, plan};
use crate::common::{Plan, Scene, Takeover, expect_lawful, programs};
use holdfast_bed::cuts::{Way, cut, lift};
use holdfast_bed::fetch::short_connections;
use holdfast_bed::frame::Ike;
use holdfast_bed::hostile::{Kind, Overheard, PORT_NAT_TRAVERSAL, Stranger, udp};
use holdfast_bed::links::{EveryLink, Links, Wire};
use holdfast_bed::member::Programs;
use holdfast_bed::namespace::Namespace;
use holdfast_bed::peer::{Connection, Daemon, StrongSwan};
use holdfast_bed::peers::{identity, inner, outer};
use holdfast_bed::time::Wall;
use holdfast_bed::topology::{CLIENT_OUTER, COMMON, management_address, target_address};
use holdfast_bed::wire::Sender;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A further host of the inside network, which no policy covers.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const NEIGHBOUR_MAC: [u8; 6] = [0x02, 0x68, 0x66, 0x04, 0x01, 0x02];
/// A host that says it is client 3, started anew.
const DOUBLE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 60);
const DOUBLE_MAC: [u8; 6] = [0x02, 0x68, 0x66, 0x04, 0x01, 0x01];

/// The first client looks after its gateway: by itself it would find out within some seconds.
fn watchful(plan: Plan) -> Plan {
    let connection = Connection {
        connection_settings: "dpd_delay = 4s".to_owned(),
        child_settings: "dpd_action = restart".to_owned(),
        ..Connection::default()
    };
    let settings = "retransmit_tries = 2\n  retransmit_timeout = 1.0\n  retransmit_base = 1.0";
    let daemon = Daemon { settings: settings.to_owned(), ..Daemon::default() };
    Plan { connection, daemon, ..plan }
}

#[test]
fn claim_01_the_backup_restarts_the_communications_from_what_it_was_given() {
    let mut scene = watchful(Plan { clients: 3, ..plan() }).connected().expect("the bed comes up");
    let (d1, _) = scene.owner();
    // (a) Every standby has one record for each SA that runs.
    let given = scene.wait_until_current(d1);
    expect_one_record_for_each_sa(&scene, d1, &given);
    assert_eq!(given.connections(), names(&["bed", "client2", "client3"]));
    the_record_of_client_3_is_removed(&mut scene, d1);
    let given = scene.wait_until_current(d1);
    assert_eq!(given.connections(), names(&["bed", "client2"]));

    let before = scene.before(&[1, 2]);
    let download = c1(&scene);
    // Killed and without any cable: nothing more is heard of it.
    let takeover = scene.lose(d1);
    // (b)
    let told = scene.told_failure(takeover.to, d1);
    assert!(told.contains("cause=\"") && told.contains("detected_in_ms="), "{told}");
    // (c)
    scene.wait_until_reestablished(&before);
    let numbers = sequence_numbers(&scene, takeover.to);
    assert!(download.bytes() < scene.bed.content.bytes, "the failure met it in its middle");
    expect_whole(&scene, download);
    // (e) At the backup the numbers of both directions rise; at the target there is no SA at all.
    let later = sequence_numbers(&scene, takeover.to);
    assert!(later.0 > numbers.0 && later.1 > numbers.1, "{numbers:?}, then {later:?}");
    let target = scene.bed.topology.target(1).expect("a target");
    assert_eq!(target.run(&["ip", "xfrm", "state"]).expect("ip").trim(), "");
    a_changed_octet_is_dropped_at(&scene, takeover.to);
    what_no_policy_covers_goes_its_own_way(&scene, takeover.to);
    assert!(scene.ike_sas(3).contains_key("home: #1"), "client 3 knows of nothing");

    let links = scene.captured();
    let outside = links.outside().expect("captures");
    takeover.expect_restarted(&outside, &[1, 2]);
    takeover.expect_esp(&outside);
    let about_3 = takeover.first_ike(&outside, outer(3));
    assert!(about_3.is_none(), "without a record nobody is restarted: {about_3:?}");
    takeover.expect_routed(&links, 1, 3);
    no_answer_was_taken_by(&links, takeover.to);
    expect_lawful(&outside);

    nothing_is_restarted_from_an_empty_store(&mut scene);
}

/// The control of (a): somebody with the identity and key of client 3 connects and says that it is the
/// only one (INITIAL_CONTACT), then leaves. That removes the old record, of which nothing is said to
/// client 3, as RFC 7296 section 2.4 wants.
fn the_record_of_client_3_is_removed(scene: &mut Scene, owner: u8) {
    let host = scene.bed.topology.join_outside("double", DOUBLE, DOUBLE_MAC).expect("a host");
    host.links(&format!("addr add {}/32 dev lo\n", inner(3))).expect("its inner address");
    let connection = Connection { identity: identity(3), inner: inner(3), ..Connection::default() };
    let folder = scene.bed.folder("double");
    let mut double = StrongSwan::start_client(&host, &folder, &connection).expect("charon");
    double.initiate().inspect_err(|_| scene.explain()).expect("it knows the key");
    double.terminate().expect("a DELETE is answered");
    double.stop();
    scene.wait_for("the record to be gone", |scene| {
        scene.store(owner).is_ok_and(|store| !store.connections().contains("client3"))
    });
}

/// The highest numbers granted for sending and admitted for receiving, of all Child SAs together.
fn sequence_numbers(scene: &Scene, owner: u8) -> (u64, u64) {
    let list = scene.cluster.ask(owner, &["sa", "list"]).expect("SAs");
    let children = list["child_sas"].as_array().cloned().unwrap_or_default();
    let highest = |field: &str| children.iter().filter_map(|c| c[field].as_u64()).max();
    (
        highest("outbound_granted_end").unwrap_or_default(),
        highest("inbound_horizon").unwrap_or_default(),
    )
}

/// One octet of an ESP packet is changed on its way: its number, so that it is not refused for that.
fn a_changed_octet_is_dropped_at(scene: &Scene, owner: u8) {
    let mut overheard = Overheard::start(&scene.bed).expect("a capture");
    scene.expect_traffic_of(1);
    let stranger = Stranger::join(&scene.bed.topology).expect("a host");
    let before = scene.dropped(owner, "icv_mismatch");
    let messages = overheard.messages(Kind::Esp).expect("a capture");
    let mut changed = messages.last().expect("ESP of the client").content.clone();
    changed[7] = changed[7].wrapping_add(3);
    let from = SocketAddrV4::new(CLIENT_OUTER, PORT_NAT_TRAVERSAL);
    stranger.send(vec![udp(from, PORT_NAT_TRAVERSAL, &changed)]).expect("sent");
    scene.wait_for("the changed packet to be counted", |scene| {
        scene.dropped(owner, "icv_mismatch") > before
    });
    overheard.stop();
}

/// "c0": a host of the inside network uses the first target's service. Its answers are nobody's
/// business: the target sends them straight back.
fn what_no_policy_covers_goes_its_own_way(scene: &Scene, owner: u8) {
    let host: Namespace = scene
        .bed
        .topology
        .join_inside("neighbour", NEIGHBOUR, NEIGHBOUR_MAC)
        .expect("a further host");
    let route = format!("route add {COMMON}/32 via {}\n", target_address(1));
    host.links(&route).expect("a route");
    let made = short_connections(&host, 5).expect("threads start");
    assert_eq!(made.failures, Vec::<String>::new());
    assert_eq!(made.per_target.keys().collect::<Vec<_>>(), ["target1"], "not by member {owner}");
}

fn no_answer_was_taken_by(links: &Links, owner: u8) {
    let by =
        |sender| links.frames_between(Wire::Inside, sender, NEIGHBOUR).expect("captures").len();
    assert!(by(Sender::Target(1)) > 0, "answered by the target itself");
    assert_eq!(by(Sender::Member(owner)), 0);
}

/// The control of (c): the same members, but nothing in their store. One of them owns the address, and
/// begins nothing; the client with a liveness check finds out by itself, the other does not.
fn nothing_is_restarted_from_an_empty_store(scene: &mut Scene) {
    for member in scene.cluster.running() {
        scene.cluster.kill(member).expect("it runs");
    }
    for member in scene.cluster.numbers() {
        scene.cluster.bury(member).expect("it is gone");
        scene.plug(member, true);
        let data = scene.bed.folder(&format!("m{member}")).join("data");
        fs::remove_dir_all(data).expect("it had a disk");
    }
    let links = EveryLink::start(&scene.bed, 3).expect("captures");
    let from = Wall::now();
    let before = scene.before(&[1]);
    scene.cluster.start_all(&scene.bed).expect("they start");
    let (owner, _) = scene.owner();
    assert_eq!(scene.store(owner).expect("a store").records.len(), 0);
    scene.wait_for("client 1 to find out by itself", |scene| {
        let now = scene.ike_sas(1);
        let own = |line: &String| line.contains("ESTABLISHED") && line.contains("_i*");
        now.values().any(own) && now.keys().all(|name| !before[&1].contains(name))
    });
    println!("client 1 took {:.0} ms to find out", Wall::now().ms_since(from));
    let outside = links.finish().expect("captures").outside().expect("readable");
    assert!(outside.ownership().iter().any(|change| change.member == owner), "it owns");
    let begun = |m: &&holdfast_bed::wire::IkeMessage| m.header.exchange == Ike::SA_INIT;
    let first = outside.ike.iter().find(begun).expect("a negotiation");
    assert_eq!(first.sender, Sender::Client, "the client's own");
    let requests = outside
        .ike
        .iter()
        .filter(|message| matches!(message.sender, Sender::Member(_)) && !message.header.response);
    assert_eq!(requests.filter(|message| message.at < first.at).count(), 0, "nothing is begun");
    assert_eq!(outside.ike.iter().filter(|message| message.peer == outer(2)).count(), 0);
}

#[test]
fn claim_20_a_system_has_the_five_means_and_survives_a_hang_and_half_a_network() {
    let mut scene =
        Plan { large_file_bytes: 8 << 20, ..plan() }.connected().expect("the bed comes up");
    let (d1, _) = scene.owner();
    let given = scene.wait_until_current(d1);
    expect_one_record_for_each_sa(&scene, d1, &given);
    let download = c1(&scene);

    // A member that hangs, and goes on later as if nothing had been.
    let before = scene.before(&[1]);
    let at = scene.cluster.freeze(d1, true).expect("it stops");
    let hang = Takeover { at, from: d1, to: scene.wait_for_another(d1) };
    let told = scene.told_failure(hang.to, d1);
    assert!(told.contains("cause=\"silent\""), "{told}");
    scene.wait_until_reestablished(&before);
    scene.cluster.freeze(d1, false).expect("it goes on");
    let d2 = hang.to;
    scene.wait_until_current(d2);
    expect_progress(&scene, &download);

    // A member whose words do not reach the others, while it hears them: half a partition.
    let before = scene.before(&[1]);
    let host = scene.bed.topology.member(d2).expect("a member");
    let at = Wall::now();
    cut(host, "mute", Way::Out, "oifname mgmt").expect("a cut");
    let mute = Takeover { at, from: d2, to: scene.wait_for_another(d2) };
    let told = scene.told_failure(mute.to, d2);
    assert!(told.contains("cause=\"silent\""), "{told}");
    scene.wait_until_reestablished(&before);
    lift(scene.bed.topology.member(d2).expect("a member"), "mute").expect("lifted");
    scene.wait_until_current(mute.to);
    assert!(download.bytes() < scene.bed.content.bytes, "both failures met it in its middle");
    expect_whole(&scene, download);

    let links = scene.captured();
    let outside = links.outside().expect("captures");
    // Means for providing: the owner's words to each other member, on the management wire.
    for other in (1..=3).filter(|member| *member != d1) {
        let to = management_address(other);
        let words = links.frames_between(Wire::Management, Sender::Member(d1), to).expect("frames");
        assert!(words.iter().any(|(when, _)| *when < hang.at), "to member {other}");
    }
    // For restarting, routing and processing: whoever owns; and never two, hung, mute or well.
    for takeover in [hang, mute] {
        takeover.expect_restarted(&outside, &[1]);
        takeover.expect_esp(&outside);
    }
    mute.expect_routed(&links, 1, 3);
    expect_lawful(&outside);
    let owners: Vec<u8> = outside.ownership().iter().map(|change| change.member).collect();
    assert_eq!(owners, [d1, d2, mute.to], "one owner after the other");
}

/// Hides the folder that it is given and becomes the rest of its arguments.
const WITHOUT: [&str; 3] = ["sh", "-c", "mount -t tmpfs none \"$0\" && exec \"$@\""];

#[test]
fn claim_22_the_programs_as_shipped_do_it_on_bare_hosts() {
    // Two files on a medium, and hosts that have nothing else of it: no source, no build.
    let medium = tempfile::tempdir().expect("a folder");
    let built = programs();
    let shipped = Programs::in_folder(medium.path());
    for (from, to) in [(&built.holdfastd, &shipped.holdfastd), (&built.holdfast, &shipped.holdfast)]
    {
        fs::copy(from, to).expect("copied");
    }
    let source = env!("CARGO_MANIFEST_DIR");
    let [sh, c, script] = WITHOUT;
    let plan = Plan { programs: shipped, ..plan() };
    let mut scene = plan
        .build_with(|cluster, bed| {
            let all = cluster.numbers();
            all.into_iter().try_for_each(|n| cluster.start_under(bed, n, &[sh, c, script, source]))
        })
        .expect("the bed comes up");
    scene.connect_all().expect("the tunnel comes up");
    let (d1, _) = scene.owner();
    for member in scene.cluster.running() {
        let process = scene.cluster.process_id(member).expect("it runs");
        let seen = fs::read_dir(format!("/proc/{process}/root{source}")).expect("its view");
        assert_eq!(seen.count(), 0, "member {member} sees no source");
    }
    let given = scene.wait_until_current(d1);
    expect_one_record_for_each_sa(&scene, d1, &given);
    let before = scene.before(&[1]);
    let download = c1(&scene);
    let takeover = scene.lose(d1);
    scene.told_failure(takeover.to, d1);
    scene.wait_until_reestablished(&before);
    expect_whole(&scene, download);
    let links = scene.captured();
    let outside = links.outside().expect("captures");
    takeover.expect_restarted(&outside, &[1]);
    takeover.expect_esp(&outside);
    takeover.expect_routed(&links, 1, 3);
    expect_lawful(&outside);
}
