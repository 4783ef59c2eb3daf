//! A stranger on the outside wire sends whatever does harm elsewhere: noise, broken and forged IKE
//! and ESP, wrong credentials, replays, also in the client's name and with the client's key.
//!
//! Each of it must be counted under a name, none may reach a target, and the client's traffic goes
//! on over the same security associations. Needs root.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a test's helper fails its test")]

mod common;
mod scapy;

use common::{PATIENCE, Scene, log_keys, logged_key};
use holdfast_bed::capture::{Capture, Direction, read_frames};
use holdfast_bed::hostile::{
    Kind, Message, Overheard, PORT_IKE, PORT_NAT_TRAVERSAL, PROTOCOL_ESP, STRANGER, Stranger, ipv4,
    udp,
};
use holdfast_bed::peer::{CLIENT_IDENTITY, Connection, GATEWAY_IDENTITY, StrongSwan};
use holdfast_bed::probe::Prober;
use holdfast_bed::time::Wall;
use holdfast_bed::topology::{CLIENT_INNER, CLIENT_OUTER, COMMON, ECHO_PORT};
use holdfast_bed::wait::{let_pass, wait_until};
use scapy::{Scapy, hex, unhex};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fs, io};

/// Where the stranger sends from, and in whose name it likes to.
const OWN: SocketAddrV4 = SocketAddrV4::new(STRANGER, 4500);
const CLIENT: SocketAddrV4 = SocketAddrV4::new(CLIENT_OUTER, 4500);
/// Source ports inside the tunnel of what must arrive and of what must not.
const RIGHTFUL_PORT: u16 = 40_077;
const FORBIDDEN_PORT: u16 = 40_078;
/// Of each kind of packet.
const SOME: usize = 60;
/// Longest gap in the answers that is put down to the machine, in milliseconds.
const TOLERATED_GAP_MS: f64 = 300.0;
/// Share of probes that must be answered.
const ANSWERED_MIN: f64 = 0.95;
/// Waiting for an answer ends after this time without one.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const IKE_HEADER_LEN: usize = 28;
const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

#[test]
fn hostile_input_is_counted_by_name_and_stops_nothing() {
    let mut siege = Siege::begin();
    let associations = siege.associations();
    let prober = siege.probing();
    let from = Wall::now();

    siege.noise();
    siege.broken_ike();
    siege.wrong_credentials();
    siege.many_beginnings();
    siege.broken_esp();
    siege.forged_esp();
    siege.replays();

    siege.expect_undisturbed(prober, from);
    assert_eq!(siege.associations(), associations, "the same SAs as before");

    siege.the_clients_key_in_other_hands();
    assert_eq!(siege.associations(), associations, "still the same SAs");
    let fallen = siege.replays_after_a_takeover();
    siege.torn_tail_of(fallen);
    assert_eq!(siege.associations()[0], associations[0], "still the same IKE SA");
    siege.expect_only_rightful_deliveries();
}

/// A connected client, and a stranger that hears it.
struct Siege {
    scapy: Scapy,
    random: Random,
    owner: u8,
    deliveries: Vec<Capture>,
    overheard: Overheard,
    stranger: Stranger,
    scene: Scene,
}

type Counts = BTreeMap<String, u64>;

impl Siege {
    fn begin() -> Self {
        let scapy = Scapy::start();
        let mut scene = Scene::connected(&Connection::default(), "").expect("the tunnel comes up");
        let stranger = Stranger::join(&scene.bed.topology).expect("a further host");
        let overheard = Overheard::start(&scene.bed).expect("a capture");
        let deliveries = (1..=3).map(|target| deliveries(&scene, target)).collect();
        // Once more, overheard and with the keys in charon's log.
        log_keys(&scene.client);
        scene.client.terminate().expect("a DELETE is answered");
        scene.client.initiate().expect("the tunnel comes up again");
        let owner = scene.cluster.wait_until_ready(PATIENCE).expect("every member is ready");
        Self { scapy, random: Random(0x5eed), owner, deliveries, overheard, stranger, scene }
    }

    /// Datagrams that were never meant to be anything.
    fn noise(&mut self) {
        let noise: Vec<Vec<u8>> = (0..SOME).map(|i| self.random.octets(40 + i * 7)).collect();
        let ike = |datagram: &Vec<u8>| udp(OWN, PORT_IKE, datagram);
        let ike_names = ["ike_version", "ike_malformed"];
        self.inflict("noise on port 500", noise.iter().map(ike), &ike_names);
        let marked = |datagram: &Vec<u8>| udp(OWN, PORT_NAT_TRAVERSAL, &after_marker(datagram));
        self.inflict("noise as IKE on port 4500", noise.iter().map(marked), &ike_names);
        let esp = |datagram: &Vec<u8>| udp(OWN, PORT_NAT_TRAVERSAL, datagram);
        self.inflict("noise as ESP on port 4500", noise.iter().map(esp), &["unknown_spi"]);
        let bare = |datagram: &Vec<u8>| ipv4(STRANGER, PROTOCOL_ESP, datagram);
        self.inflict("noise as bare ESP", noise.iter().map(bare), &["unknown_spi"]);

        let other_port = noise.iter().map(|datagram| udp(OWN, 53, datagram));
        self.inflict("another port", other_port, &["udp_port"]);
        let other_protocol = noise.iter().map(|datagram| ipv4(STRANGER, 47, datagram));
        self.inflict("another protocol", other_protocol, &["protocol_unsupported"]);
        let wrong_sum = noise.iter().map(|datagram| {
            let mut packet = udp(OWN, PORT_IKE, datagram);
            packet[26..28].copy_from_slice(&[0xba, 0xad]);
            packet
        });
        self.inflict("a wrong UDP checksum", wrong_sum, &["bad_checksum"]);
        let keepalive = || udp(CLIENT, PORT_NAT_TRAVERSAL, &[0xff]);
        self.inflict("keepalives", (0..SOME).map(|_| keepalive()), &["keep_alive"]);
    }

    /// The client's own IKE messages, cut short or changed, in the client's name.
    fn broken_ike(&mut self) {
        let messages = self.overheard(Kind::Ike);
        let auth = messages.iter().find(|message| message.content.get(18) == Some(&IKE_AUTH));
        let auth = auth.expect("the client sent IKE_AUTH").content.clone();

        let stumps = (0..IKE_HEADER_LEN).map(|length| ike_from_client(&auth[..length]));
        self.inflict("less than an IKE header", stumps, &["ike_truncated"]);
        let contents: Vec<Vec<u8>> = messages.into_iter().map(|message| message.content).collect();
        let cut = contents.iter().flat_map(|message| {
            (IKE_HEADER_LEN..message.len()).step_by(5).map(|length| &message[..length])
        });
        self.inflict("truncated IKE", cut.clone().map(ike_from_client), &["ike_malformed"]);
        let consistent = cut.map(|stump| {
            let mut stump = stump.to_vec();
            let length = u32::try_from(stump.len()).expect("a short message");
            stump[24..28].copy_from_slice(&length.to_be_bytes());
            ike_from_client(&stump)
        });
        self.inflict("IKE of a length too small", consistent, &["ike_malformed"]);

        // Behind the header and the payload header everything is under the integrity check.
        let inside = (IKE_HEADER_LEN + 4..auth.len()).map(|at| flipped(&auth, at * 8 + at % 8));
        let inside = inside.map(|message| ike_from_client(&message));
        self.inflict("IKE with a bit flipped", inside, &["ike_not_authentic"]);
        let names: Vec<String> =
            self.counts().into_keys().filter(|name| name.starts_with("ike_")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let header = (0..IKE_HEADER_LEN * 8).map(|bit| ike_from_client(&flipped(&auth, bit)));
        self.inflict("IKE with a bit of the header flipped", header, &names);
    }

    /// A second client without the right key, and one nobody knows.
    fn wrong_credentials(&mut self) {
        let folder = self.scene.bed.folder("stranger");
        let configuration = stranger_configuration();
        let mut swan = StrongSwan::start(&self.stranger.namespace, &folder, &configuration)
            .expect("a second strongSwan");
        for (child, reason) in
            [("wrong-key", "ike_authentication_failed"), ("unknown", "ike_unknown_identity")]
        {
            let before = self.counts();
            let up = swan.control(&["--initiate", "--child", child, "--timeout", "10"]);
            assert!(up.is_err(), "{child} must not connect");
            self.expect_rise(child, &before, 1, &[reason]);
        }
        swan.stop();
    }

    /// More beginnings than anybody finishes: cookies are demanded, and no room is taken.
    fn many_beginnings(&mut self) {
        let messages = self.overheard(Kind::Ike);
        let init = messages.iter().find(|message| message.content.get(18) == Some(&IKE_SA_INIT));
        let init = init.expect("the client sent IKE_SA_INIT").content.clone();
        let beginnings = (0..100u8).map(|number| {
            let mut message = init.clone();
            message[..8].copy_from_slice(&[0xaa, 1, 2, 3, 4, 5, 6, number]);
            udp(SocketAddrV4::new(STRANGER, 1000 + u16::from(number)), PORT_IKE, &message)
        });
        let before = self.counts();
        self.stranger.send(beginnings.collect()).expect("packets are sent");
        self.expect_rise("a flood of IKE_SA_INIT", &before, 50, &["ike_cookie_demanded"]);
    }

    /// The client's own ESP packets, cut short, and ESP for nobody.
    fn broken_esp(&mut self) {
        let newest = self.newest_esp();
        let stumps = || (2..32).map(|length| &newest.content[..length]);
        let bare = stumps().map(|stump| ipv4(CLIENT_OUTER, PROTOCOL_ESP, stump));
        self.inflict("truncated bare ESP", bare, &["esp_malformed"]);
        let in_udp = stumps().map(|stump| udp(CLIENT, PORT_NAT_TRAVERSAL, stump));
        self.inflict("truncated ESP in UDP", in_udp, &["esp_malformed"]);

        let (spi, _) = newest.spi_and_sequence().expect("ESP");
        for (what, wrong) in [("a wrong SPI", spi ^ 0x0101_0100), ("a reserved SPI", 77)] {
            let other = with_head(&newest.content, wrong, 1);
            let bare = (0..SOME).map(|_| ipv4(CLIENT_OUTER, PROTOCOL_ESP, &other));
            self.inflict(&format!("{what}, bare"), bare, &["unknown_spi"]);
            let in_udp = (0..SOME).map(|_| udp(CLIENT, PORT_NAT_TRAVERSAL, &other));
            self.inflict(&format!("{what}, in UDP"), in_udp, &["unknown_spi"]);
        }
    }

    /// The right SPI, numbers the client has not used yet, but not the key. If one of them moved
    /// the window, the client's own packets would be too old from then on.
    fn forged_esp(&mut self) {
        let newest = self.newest_esp();
        let (spi, sequence) = newest.spi_and_sequence().expect("ESP");
        let ahead = [2_000, 10_000, 1 << 20, 1 << 30].map(|distance| sequence + distance);
        let numbers = ahead.into_iter().chain([u32::MAX]);
        let forged: Vec<Vec<u8>> = numbers
            .flat_map(|number| (0..20).map(move |step| number.wrapping_sub(step)))
            .map(|number| with_head(&self.random.octets(120), spi, number))
            .collect();
        let bare = forged.iter().map(|esp| ipv4(CLIENT_OUTER, PROTOCOL_ESP, esp));
        self.inflict("forged bare ESP", bare, &["icv_mismatch"]);
        let in_udp = forged.iter().map(|esp| udp(OWN, PORT_NAT_TRAVERSAL, esp));
        self.inflict("forged ESP in UDP", in_udp, &["icv_mismatch"]);
    }

    /// Whatever the client sent, once more, octet by octet.
    fn replays(&mut self) {
        let ike = self.overheard(Kind::Ike).into_iter().map(|message| message.packet);
        self.stranger.send(ike.collect()).expect("packets are sent");
        let all: Vec<Vec<u8>> =
            self.overheard(Kind::Esp).into_iter().map(|message| message.packet).collect();
        let oldest = all.iter().take(500).cloned();
        self.inflict("the oldest ESP again", oldest, &["replayed", "too_old"]);
        let newest = all.iter().rev().take(500).cloned();
        let rise = self.inflict("the newest ESP again", newest, &["replayed", "too_old"]);
        assert!(rise.contains_key("replayed"), "the newest are inside the window: {rise:?}");
    }

    /// An independent implementation with the client's key: what is rightful is accepted, the same
    /// again is not, nor is what lies outside the SA's selectors.
    fn the_clients_key_in_other_hands(&mut self) {
        let (spi, last) = self.silence();
        let key = logged_key(&self.scene.client);
        let mut seal = |number: u32, inner: Vec<u8>| -> Vec<u8> {
            let question = json!({
                "op": "seal", "algorithm": "AES-GCM", "key_salt": hex(&key), "spi": spi,
                "sequence": last + number, "esn": false, "inner": hex(&inner),
            });
            unhex(self.scapy.ask(&question)["esp"].as_str().expect("scapy seals"))
        };
        let rightful: Vec<Vec<u8>> =
            (1..=20).map(|n| seal(n, inner(CLIENT_INNER, COMMON, RIGHTFUL_PORT, n))).collect();
        let elsewhere = Ipv4Addr::new(192, 0, 2, 11);
        let stranger = Ipv4Addr::new(10, 77, 0, 11);
        let to = (21..=30).map(|n| seal(n, inner(CLIENT_INNER, elsewhere, FORBIDDEN_PORT, n)));
        let mut forbidden: Vec<Vec<u8>> = to.collect();
        let by = (31..=40).map(|n| seal(n, inner(stranger, COMMON, FORBIDDEN_PORT, n)));
        forbidden.extend(by);
        let changed = flipped(&seal(41, inner(CLIENT_INNER, COMMON, FORBIDDEN_PORT, 41)), 300);

        let before = self.counts();
        let first_half = rightful[..10].iter().map(|esp| ipv4(CLIENT_OUTER, PROTOCOL_ESP, esp));
        let other_half = rightful[10..].iter().map(|esp| udp(CLIENT, PORT_NAT_TRAVERSAL, esp));
        let answers = self.answers_at_the_client();
        self.stranger.send(first_half.chain(other_half).collect()).expect("packets are sent");
        let answers = answers.join().expect("the listener ends").expect("in the namespace");
        assert_eq!(answers, (1..=20).collect(), "the client hears the answers to its double");
        let in_udp = |esp: &Vec<u8>| udp(CLIENT, PORT_NAT_TRAVERSAL, esp);
        self.inflict("the same again", rightful.iter().map(in_udp), &["replayed"]);
        let mut accepted = rise(&before, &self.counts());
        // Hosts on the wire ask for each other at any time; that is no packet of this test.
        accepted.remove("arp_ignored");
        assert_eq!(accepted, Counts::from([("replayed".to_owned(), 20)]), "nothing else refused");
        let outside = forbidden.iter().map(in_udp);
        self.inflict("outside the selectors", outside, &["selector_mismatch"]);
        self.inflict("changed", [in_udp(&changed)].into_iter(), &["icv_mismatch"]);

        // The client, whose numbers these were, loses a few packets to its double and goes on.
        drop(self.probing());
        self.scene.expect_traffic();
    }

    /// Waits in the client's namespace for the echoes of twenty different numbers.
    fn answers_at_the_client(&self) -> JoinHandle<io::Result<BTreeSet<u32>>> {
        let (ready, listening) = channel();
        let listener = self.scene.bed.topology.client.spawn("listener", move || {
            let socket = UdpSocket::bind((CLIENT_INNER, RIGHTFUL_PORT)).expect("a free port");
            socket.set_read_timeout(Some(ANSWER_LIMIT)).expect("a time limit");
            ready.send(()).expect("the test waits");
            let mut numbers = BTreeSet::new();
            let mut answer = [0; 4];
            while numbers.len() < 20 && socket.recv(&mut answer).is_ok() {
                numbers.insert(u32::from_be_bytes(answer));
            }
            numbers
        });
        listening.recv().expect("the listener starts");
        listener.expect("a thread")
    }

    /// The owner dies; its successor knows what its predecessor may have accepted.
    fn replays_after_a_takeover(&mut self) -> u8 {
        // Nobody but the stranger is to speak to the new owner first.
        drop(self.probing());
        let fallen = self.owner;
        self.scene.cluster.kill(fallen).expect("the owner dies");
        self.scene.cluster.bury(fallen).expect("and is forgotten");
        self.owner = self.scene.cluster.wait_for_owner(PATIENCE).expect("a new owner");
        self.stranger.forget_neighbours().expect("the new owner is asked for");
        let all = self.overheard(Kind::Esp);
        let newest = all.into_iter().rev().take(2_000).map(|message| message.packet);
        let refusals = ["replayed", "too_old", "ambiguous", "unknown_spi"];
        let rise = self.inflict("ESP again after a takeover", newest, &refusals);
        assert!(rise.contains_key("ambiguous"), "authentic, so the SA is renewed: {rise:?}");
        let ike = self.overheard(Kind::Ike).into_iter().map(|message| message.packet);
        self.stranger.send(ike.collect()).expect("packets are sent");
        drop(self.probing());
        fallen
    }

    /// What a power cut leaves of a log: its last write is incomplete.
    fn torn_tail_of(&mut self, member: u8) {
        let folder = self.scene.bed.folder(&format!("m{member}")).join("data");
        let segments = fs::read_dir(&folder).expect("a data directory").map(|entry| {
            let path = entry.expect("an entry").path();
            let is_log = path.extension().is_some_and(|extension| extension == "hfl");
            is_log.then_some(path)
        });
        let newest: PathBuf = segments.flatten().max().expect("a segment of the log");
        let file = fs::File::options().write(true).open(&newest).expect("the segment");
        let length = file.metadata().expect("its length").len();
        file.set_len(length - 3).expect("cut off");
        drop(file);
        self.scene.cluster.start(&self.scene.bed, member).expect("it starts");
        let back = self.scene.cluster.wait_until_ready(PATIENCE);
        if back.is_err() {
            self.scene.explain();
        }
        back.expect("it is one of three again");
        let log = fs::read_to_string(self.scene.cluster.log(member)).expect("its log");
        assert!(log.contains("the log's last write was torn and is dropped"), "{log}");
        self.scene.expect_traffic();
    }

    /// Every probe reached one target once, the double's rightful packets too, and nothing else.
    fn expect_only_rightful_deliveries(mut self) {
        self.overheard.stop();
        let mut delivered: BTreeMap<(u16, u32), u32> = BTreeMap::new();
        for capture in self.deliveries {
            let file = capture.finish().expect("a complete capture");
            assert_eq!(file.dropped_frames, 0, "the capture holds everything");
            read_frames(&file.path, |_, frame| {
                let port = frame.get(34..).and_then(|udp| udp.first_chunk());
                let number = frame.get(42..).and_then(|payload| payload.first_chunk());
                let (Some(port), Some(number)) = (port, number) else { return };
                let probe = (u16::from_be_bytes(*port), u32::from_be_bytes(*number));
                *delivered.entry(probe).or_default() += 1;
            })
            .expect("a capture");
        }
        let twice: Vec<_> = delivered.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "delivered more than once: {twice:?}");
        let of_port = |wanted: u16| delivered.keys().filter(|(port, _)| *port == wanted).count();
        assert_eq!(of_port(FORBIDDEN_PORT), 0);
        assert_eq!(of_port(RIGHTFUL_PORT), 20);
        println!("{} packets delivered, each once", delivered.len());
    }

    /// Sends `packets` and waits until as many were counted under `reasons`, taken together.
    fn inflict(
        &self,
        what: &str,
        packets: impl Iterator<Item = Vec<u8>>,
        reasons: &[&str],
    ) -> Counts {
        let packets: Vec<Vec<u8>> = packets.collect();
        let sent = packets.len();
        let before = self.counts();
        self.stranger.send(packets).expect("packets are sent");
        self.expect_rise(what, &before, sent, reasons)
    }

    fn expect_rise(&self, what: &str, before: &Counts, sent: usize, reasons: &[&str]) -> Counts {
        let mut rose = Counts::new();
        let counted = wait_until(what, PATIENCE, || {
            rose = rise(before, &self.counts());
            let sum: u64 = reasons.iter().filter_map(|reason| rose.get(*reason)).sum();
            Ok((sum >= sent as u64).then_some(()))
        });
        println!("{what}: {sent} sent, counted {rose:?}");
        if counted.is_err() {
            self.scene.explain();
        }
        counted.expect("everything sent is counted under its name");
        rose
    }

    /// The owner's counters, as the operator sees them.
    fn counts(&self) -> Counts {
        let answer = self.scene.cluster.ask(self.owner, &["drop-reasons", "--all"]);
        let answer = answer.expect("drop reasons");
        let reasons = answer["reasons"].as_array().expect("a list");
        let counts: Counts = reasons
            .iter()
            .map(|reason| {
                let name = reason["name"].as_str().expect("a name");
                (name.to_owned(), reason["packets"].as_u64().expect("a count"))
            })
            .collect();
        assert_eq!(counts.len(), reasons.len(), "each name stands for one reason");
        counts
    }

    fn overheard(&self, kind: Kind) -> Vec<Message> {
        self.overheard.messages(kind).expect("a readable capture")
    }

    fn newest_esp(&self) -> Message {
        self.overheard(Kind::Esp).pop().expect("the client sends ESP")
    }

    /// SPI and last number of the client's SA, once the client says nothing any more.
    fn silence(&self) -> (u32, u32) {
        let look = || self.newest_esp().spi_and_sequence().expect("ESP");
        let mut last = look();
        wait_until("the client's silence", PATIENCE, || {
            let_pass(Duration::from_millis(100))?;
            let quiet = look() == last;
            last = look();
            Ok(quiet.then_some(last))
        })
        .expect("the client falls silent")
    }

    /// A prober that has its first answers.
    fn probing(&self) -> Prober {
        let prober = self.scene.bed.start_prober().expect("a prober");
        self.wait_for_answers(&prober);
        prober
    }

    fn wait_for_answers(&self, prober: &Prober) {
        let wanted = prober.answered() + 200;
        let answered = wait_until("answers to the probes", PATIENCE, || {
            Ok((prober.answered() >= wanted).then_some(()))
        });
        if answered.is_err() {
            self.scene.explain();
        }
        answered.expect("the tunnel works");
    }

    fn expect_undisturbed(&self, prober: Prober, from: Wall) {
        let to = Wall::now();
        self.wait_for_answers(&prober);
        let seen = prober.finish().expect("a log").outage(from, to);
        println!("under attack: {seen:?}");
        let answered = 1.0 - seen.probes_lost as f64 / seen.probes_sent as f64;
        let gap_ms = seen.outage_ms - seen.longest_send_gap_ms;
        assert!(answered >= ANSWERED_MIN && gap_ms <= TOLERATED_GAP_MS, "{seen:?}");
    }

    /// The client's SPIs, of IKE and of ESP.
    fn associations(&self) -> Vec<String> {
        let list = self.scene.client.list().expect("swanctl lists");
        let spis = list.lines().filter_map(|line| {
            let line = line.trim();
            match line.split_once("IKEv2, ") {
                Some((_, spis)) => Some(spis),
                None => line.strip_prefix("in ").or(line.strip_prefix("out ")),
            }
        });
        let words = spis.filter_map(|line| line.split([',', ' ']).find(|word| !word.is_empty()));
        let spis: Vec<String> = words.map(str::to_owned).collect();
        assert!(spis.len() >= 3, "one IKE SA and one pair of Child SAs: {list}");
        spis
    }
}

/// What the targets get to see of probes and of what pretends to be one.
fn deliveries(scene: &Scene, target: u8) -> Capture {
    let file = scene.bed.memory_path(&format!("delivered-{target}.pcap"));
    let filter = format!("udp and dst port {ECHO_PORT}");
    let wires = &scene.bed.topology.wires;
    Capture::start(wires, &format!("t{target}-in"), Direction::Both, &filter, &file)
        .expect("a capture")
}

/// What rose, and by how much.
fn rise(before: &Counts, after: &Counts) -> Counts {
    let difference = |(name, now): (&String, &u64)| {
        let rise = now - before.get(name).unwrap_or(&0);
        (rise > 0).then(|| (name.clone(), rise))
    };
    after.iter().filter_map(difference).collect()
}

fn stranger_configuration() -> String {
    let connection = |name: &str, identity: &str| {
        format!(
            "{name} {{
  version = 2
  remote_addrs = {COMMON}
  local {{
    auth = psk
    id = {identity}
  }}
  remote {{
    auth = psk
    id = {GATEWAY_IDENTITY}
  }}
  children {{
    {name} {{
      local_ts = {CLIENT_INNER}/32
      remote_ts = {COMMON}/32
    }}
  }}
}}
"
        )
    };
    let connections = connection("wrong-key", CLIENT_IDENTITY)
        + &connection("unknown", "nobody@holdfast.example");
    format!(
        "connections {{\n{connections}}}\nsecrets {{\n  ike {{\n    secret = \"a guess\"\n  }}\n}}\n"
    )
}

/// An IKE message in the client's name, on the port of NAT traversal.
fn ike_from_client(message: &[u8]) -> Vec<u8> {
    udp(CLIENT, PORT_NAT_TRAVERSAL, &after_marker(message))
}

/// Behind the non-ESP marker (RFC 3948, 2.2).
fn after_marker(message: &[u8]) -> Vec<u8> {
    [&[0; 4], message].concat()
}

/// A UDP packet to the echo as it is inside the tunnel, its number in front.
fn inner(from: Ipv4Addr, to: Ipv4Addr, port: u16, number: u32) -> Vec<u8> {
    let mut packet = udp(SocketAddrV4::new(from, port), ECHO_PORT, &number.to_be_bytes());
    packet[16..20].copy_from_slice(&to.octets());
    let sum = holdfast_packet::checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An ESP packet with another SPI and sequence number.
fn with_head(esp: &[u8], spi: u32, sequence: u32) -> Vec<u8> {
    [&spi.to_be_bytes(), &sequence.to_be_bytes(), &esp[8..]].concat()
}

fn flipped(octets: &[u8], bit: usize) -> Vec<u8> {
    let mut octets = octets.to_vec();
    octets[bit / 8] ^= 1 << (bit % 8);
    octets
}

/// The same noise in every run (xorshift).
struct Random(u64);

impl Random {
    /// Starts with nothing that has a meaning: no marker, no keepalive.
    fn octets(&mut self, length: usize) -> Vec<u8> {
        let mut octets: Vec<u8> = (0..length).map(|_| self.octet()).collect();
        octets[0] |= 1;
        octets
    }

    fn octet(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_le_bytes()[4]
    }
}
