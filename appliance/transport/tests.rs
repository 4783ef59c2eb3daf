use super::*;
use crate::{clock, pki};
use mio::{Events, Poll};
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::path::Path;

const FIRST_TOKEN: usize = 100;
/// Real sockets on a crowded machine: long enough never to matter, short enough to end.
const PATIENCE_MS: u64 = 20_000;

/// One member's transport with a poll of its own.
struct Member {
    poll: Poll,
    transport: Transport,
    happened: Vec<TransportEvent>,
}

impl Member {
    fn new(own: u64, address: SocketAddr, peers: &[(u64, SocketAddr)], folder: &Path) -> Self {
        let poll = Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let peers = peers.iter().copied().collect();
        let credentials = credentials(folder, own);
        let transport =
            Transport::new(own, address, peers, credentials, registry, FIRST_TOKEN).unwrap();
        Self { poll, transport, happened: Vec::new() }
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        for event in &events {
            self.transport.handle_event(clock::now(), event.token());
        }
        self.transport.handle_unfinished(clock::now());
        self.transport.handle_timeout(clock::now());
        while let Some(event) = self.transport.poll_event() {
            self.happened.push(event);
        }
    }

    fn send(&mut self, to: u64, lane: Lane, bytes: &[u8]) {
        self.transport.send(clock::now(), to, lane, bytes.to_vec().into());
    }

    fn received(&self) -> Vec<&[u8]> {
        let mut received = Vec::new();
        for event in &self.happened {
            if let TransportEvent::Message { bytes, .. } = event {
                received.push(bytes.as_slice());
            }
        }
        received
    }
}

fn credentials(folder: &Path, member: u64) -> Credentials {
    let file = |name: String| folder.join(name);
    Credentials::load(
        &file("ca.pem".into()),
        &file(format!("member-{member}.pem")),
        &file(format!("member-{member}.key")),
    )
    .unwrap()
}

/// An address nobody listens on at the moment.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn authority(members: &[u64]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    pki::init(folder.path(), "test", members).unwrap();
    folder
}

/// Two members that know each other.
fn pair(folder: &Path) -> (Member, Member) {
    let (a, b) = (free_address(), free_address());
    (Member::new(1, a, &[(2, b)], folder), Member::new(2, b, &[(1, a)], folder))
}

fn run_until(ends: &mut [&mut Member], mut done: impl FnMut(&[&mut Member]) -> bool) {
    let start = clock::now();
    while !done(ends) {
        for end in &mut *ends {
            end.turn();
        }
        assert!(clock::now().ms_since(start) < PATIENCE_MS, "nothing came of it");
    }
}

fn connect(a: &mut Member, b: &mut Member) {
    run_until(&mut [a, b], |ends| ends[0].transport.connected(2) && ends[1].transport.connected(1));
}

#[test]
fn messages_of_every_lane_arrive_in_order_from_whom_the_certificate_names() {
    let folder = authority(&[1, 2]);
    let (mut a, mut b) = pair(folder.path());
    connect(&mut a, &mut b);
    assert!(a.happened.contains(&TransportEvent::Up(2)));

    for number in 0..20u8 {
        a.send(2, Lane::Append, &[number; 300]);
    }
    b.send(1, Lane::Heartbeat, b"alive");
    run_until(&mut [&mut a, &mut b], |ends| {
        ends[1].received().len() == 20 && !ends[0].received().is_empty()
    });
    let expected: Vec<Vec<u8>> = (0..20u8).map(|number| vec![number; 300]).collect();
    assert_eq!(b.received(), expected);
    assert!(a.happened.contains(&TransportEvent::Message { from: 2, bytes: b"alive".into() }));
}

#[test]
fn messages_right_behind_the_greeting_are_taken_however_long() {
    let folder = authority(&[1, 2]);
    let (mut a, mut b) = pair(folder.path());
    // In this order, so that the first side writes as soon as it may and the other one finds
    // greeting and messages in one piece.
    run_until(&mut [&mut b, &mut a], |ends| ends[1].transport.connected(2));
    for (number, lane) in (7..).zip(LANES) {
        a.send(2, lane, &vec![number; 100_000]);
    }
    run_until(&mut [&mut a, &mut b], |ends| {
        let different: BTreeSet<&[u8]> = ends[1].received().into_iter().collect();
        different.len() == LANES.len()
    });
    assert_eq!(b.transport.refusals().iter().count(), 0);
}

#[test]
fn a_snapshot_of_many_frames_arrives_whole_and_its_delivery_is_told() {
    let folder = authority(&[1, 2]);
    let (mut a, mut b) = pair(folder.path());
    connect(&mut a, &mut b);
    let snapshot: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    a.send(2, Lane::Snapshot, &snapshot);
    run_until(&mut [&mut a, &mut b], |ends| !ends[1].received().is_empty());
    assert!(b.received()[0] == snapshot);
    assert!(a.happened.contains(&TransportEvent::SnapshotSent { to: 2, delivered: true }));
}

#[test]
fn a_member_that_goes_is_noticed_and_found_again_when_it_is_back() {
    let folder = authority(&[1, 2]);
    let (mut a, mut b) = pair(folder.path());
    connect(&mut a, &mut b);
    let (address_a, address_b) =
        (a.transport.local_address().unwrap(), b.transport.local_address().unwrap());
    drop(b);
    run_until(&mut [&mut a], |ends| ends[0].happened.contains(&TransportEvent::Down(2)));
    run_until(&mut [&mut a], |ends| !ends[0].transport.connected(2));

    a.happened.clear();
    a.send(2, Lane::Snapshot, b"into the void");
    a.turn();
    assert!(a.happened.contains(&TransportEvent::SnapshotSent { to: 2, delivered: false }));

    let mut b = Member::new(2, address_b, &[(1, address_a)], folder.path());
    connect(&mut a, &mut b);
    a.send(2, Lane::Append, b"welcome back");
    run_until(&mut [&mut a, &mut b], |ends| !ends[1].received().is_empty());
    assert_eq!(b.received(), [b"welcome back"]);
}

#[test]
fn a_member_with_a_foreign_certificate_is_refused_and_counted_on_both_sides() {
    let (ours, theirs) = (authority(&[1, 2]), authority(&[1, 2]));
    let (a, b) = (free_address(), free_address());
    let mut honest = Member::new(1, a, &[(2, b)], ours.path());
    let mut foreign = Member::new(2, b, &[(1, a)], theirs.path());
    run_until(&mut [&mut honest, &mut foreign], |ends| {
        let refusals = ends[0].transport.refusals();
        // As the one that is dialled, it learns that the other dislikes our certificate; as the
        // one that dials, that theirs is foreign.
        refusals.count(Refusal::ForeignCertificate) > 0
            && ends[1].transport.refusals().count(Refusal::ForeignCertificate) > 0
    });
    assert!(!honest.transport.connected(2));
    assert!(!foreign.transport.connected(1));
    assert!(honest.received().is_empty() && foreign.received().is_empty());
}

#[test]
fn a_member_that_claims_to_be_another_is_refused() {
    let folder = authority(&[1, 2, 3]);
    let (a, b) = (free_address(), free_address());
    let mut one = Member::new(1, a, &[(2, b), (3, free_address())], folder.path());
    // Number 3 by its certificate, at the address of number 2.
    let mut three = Member::new(3, b, &[(1, a)], folder.path());
    run_until(&mut [&mut one, &mut three], |ends| {
        ends[0].transport.refusals().count(Refusal::WrongMember) > 0
    });
    assert!(!one.transport.connected(2));
}

#[test]
fn a_stranger_without_tls_is_refused_and_harms_nobody() {
    let folder = authority(&[1, 2]);
    let (mut a, mut b) = pair(folder.path());
    let address = a.transport.local_address().unwrap();
    let mut stranger = StdStream::connect(address).unwrap();
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    run_until(&mut [&mut a], |ends| ends[0].transport.refusals().count(Refusal::TlsMalformed) > 0);
    stranger.read_to_end(&mut Vec::new()).ok();
    connect(&mut a, &mut b);
}

#[test]
fn a_silent_stranger_is_given_up_in_time() {
    let folder = authority(&[1, 2]);
    let (mut a, _) = pair(folder.path());
    let silent = StdStream::connect(a.transport.local_address().unwrap()).unwrap();
    run_until(&mut [&mut a], |ends| !ends[0].transport.arrivals.is_empty());
    let later = clock::now().plus_ms(GREETING_MS + 1);
    assert!(a.transport.poll_timeout().unwrap() <= later);
    a.transport.handle_timeout(later);
    assert_eq!(a.transport.refusals().count(Refusal::GreetingLate), 1);
    assert!(a.transport.arrivals.is_empty());
    drop(silent);
}

#[test]
fn a_heartbeat_goes_in_two_connections_unless_the_other_has_work() {
    let folder = authority(&[1, 2]);
    let (mut a, mut b) = pair(folder.path());
    connect(&mut a, &mut b);
    a.send(2, Lane::Heartbeat, b"first");
    run_until(&mut [&mut a, &mut b], |ends| ends[1].received() == [b"first", b"first"]);

    // Appends that nobody reads, until they wait in the queue.
    for _ in 0..64 {
        a.send(2, Lane::Append, &vec![0; 512 * 1024]);
    }
    a.send(2, Lane::Heartbeat, b"alone");
    a.send(2, Lane::Append, b"end");
    run_until(&mut [&mut a, &mut b], |ends| ends[1].received().contains(&&b"end"[..]));
    let copies = b.received().into_iter().filter(|message| *message == b"alone").count();
    assert_eq!(copies, 1);
}

#[test]
fn a_full_queue_loses_its_oldest_messages() {
    let folder = authority(&[1, 2]);
    let (mut a, mut b) = pair(folder.path());
    connect(&mut a, &mut b);
    // More than the sockets' buffers and the queue together take, while nobody reads.
    let big = vec![0u8; 512 * 1024];
    let mut sent = 0u32;
    while a.transport.dropped_messages() == 0 {
        a.send(2, Lane::Append, &[&sent.to_be_bytes()[..], &big].concat());
        sent += 1;
        assert!(sent < 10_000);
    }
    run_until(&mut [&mut a, &mut b], |ends| {
        ends[1].received().last().is_some_and(|m| m[..4] == (sent - 1).to_be_bytes())
    });
    let numbers: Vec<[u8; 4]> =
        b.received().iter().map(|message| message[..4].try_into().unwrap()).collect();
    assert!(numbers.is_sorted());
    assert_eq!(numbers.len() as u64 + a.transport.dropped_messages(), u64::from(sent));
}

#[test]
fn a_member_that_was_added_is_connected_to_and_one_that_was_removed_is_refused_by_name() {
    let folder = authority(&[1, 2, 3]);
    let (mut a, mut b) = pair(folder.path());
    connect(&mut a, &mut b);
    let (at_a, at_b) = (a.transport.local_address().unwrap(), b.transport.local_address().unwrap());
    let at_c = free_address();
    let mut c = Member::new(3, at_c, &[(1, at_a), (2, at_b)], folder.path());
    // Nobody told member 1 yet; the certificate speaks for member 3.
    run_until(&mut [&mut a, &mut b, &mut c], |ends| ends[2].transport.connected(1));
    let both = |other: u64, address| [(other, address), (3, at_c)].into_iter().collect();
    a.transport.set_peers(both(2, at_b), BTreeSet::new());
    b.transport.set_peers(both(1, at_a), BTreeSet::new());
    run_until(&mut [&mut a, &mut b, &mut c], |ends| {
        ends[0].transport.connected(3) && ends[1].transport.connected(3)
    });
    assert!(a.transport.connected(2), "the connection before goes on");
    a.transport.set_peers([(2, at_b)].into_iter().collect(), [3].into_iter().collect());
    run_until(&mut [&mut a, &mut b, &mut c], |ends| {
        ends[0].transport.refusals().count(Refusal::RetiredMember) > 0
    });
    assert!(!a.transport.connected(3) && a.transport.connected(2));
}
