//! The first law: without a valid lease, silence.

use super::bench::*;
use crate::{DropReason, WorkerCommand, WorkerEvent};
use holdfast_packet::{MacAddr, Nanos, Side, arp, frame, icmp};

/// One of everything an owner would answer or forward.
fn provoke(bench: &mut Bench) {
    let sealed = bench.peer.seal(&request(1));
    bench.receive(Side::Outside, &sealed);
    bench.receive(Side::Inside, &from_target(&reply(1)));
    let echo = icmp::Repr::EchoRequest { identifier: 1, sequence: 1, data: b"" };
    let outside = frame::icmp_packet(PEER, COMMON, &echo);
    bench.receive(Side::Outside, &from_peer(&outside));
    let inside = frame::icmp_packet(target(1).address, INSIDE, &echo);
    bench.receive(Side::Inside, &from_target(&inside));
    let question = arp::Repr::request(PEER_MAC, PEER, COMMON).frame(MacAddr::BROADCAST);
    bench.receive(Side::Outside, &question);
    let ike = frame::ike_packet(PEER, 500, COMMON, 500, &[0; 40]);
    bench.receive(Side::Outside, &from_peer(&ike));
    let announcement = arp::Repr::announcement(OUTSIDE_MAC, COMMON).frame(MacAddr::BROADCAST);
    bench.command(WorkerCommand::Transmit { side: Side::Outside, frame: announcement.into() });
}

#[test]
fn an_owner_speaks() {
    let mut bench = Bench::new();
    provoke(&mut bench);
    bench.poll();
    assert_eq!(bench.sent(Side::Outside).len(), 4, "announcement, ESP, echo, ARP");
    assert_eq!(bench.sent(Side::Inside).len(), 2, "request, echo");
}

#[test]
fn an_expired_lease_silences_everything_in_the_same_poll() {
    let mut bench = Bench::new();
    provoke(&mut bench);
    bench.lease.set(bench.now.plus_us(10));
    bench.poll();
    assert!(bench.sent(Side::Outside).is_empty());
    assert!(bench.sent(Side::Inside).is_empty());
    assert_eq!(bench.dropped(DropReason::LeaseExpired), 6);
}

#[test]
fn a_standby_is_silent_and_uses_no_numbers() {
    let mut bench = Bench::new();
    bench.lease.set(Nanos::ZERO);
    provoke(&mut bench);
    bench.poll();
    assert!(bench.sent(Side::Outside).is_empty());
    assert!(bench.sent(Side::Inside).is_empty());
    assert_eq!(bench.dropped(DropReason::NotOwner), 6);
    bench.lease.set(Nanos::MAX);
    let out = bench.outbound(&[reply(1)]);
    let sequence = &packet_of(&out[0])[24..28];
    assert_eq!(sequence, [0, 0, 0, 1]);
}

#[test]
fn a_standby_may_ask_for_its_neighbours_and_hears_the_answers() {
    let mut bench = Bench::new();
    bench.lease.set(Nanos::ZERO);
    let probe = arp::Repr::probe(INSIDE_MAC, target(1).address).frame(MacAddr::BROADCAST);
    bench.command(WorkerCommand::Transmit { side: Side::Inside, frame: probe.into() });
    bench.poll();
    assert_eq!(bench.sent(Side::Inside), [probe.to_vec()]);

    let answer = arp::Repr::probe(INSIDE_MAC, target(1).address).reply(target_mac(1));
    bench.receive(Side::Inside, &answer.frame(INSIDE_MAC));
    bench.poll();
    assert!(matches!(bench.events()[..], [WorkerEvent::Punt { side: Side::Inside, .. }]));
}
