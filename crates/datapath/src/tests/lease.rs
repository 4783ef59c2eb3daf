//! The first law: without a valid lease, silence.

use super::bench::*;
use crate::{DropReason, WorkerCommand, WorkerEvent};
use holdfast_ipsec::{Encapsulation, OutboundSa, SequenceRange};
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

/// What the cluster commits with a takeover: outbound numbers behind every range granted, and the
/// old horizon as the new floor.
fn take_over(successor: &mut Bench) {
    let parameters = parameters(0, Encapsulation::Esp);
    let range = SequenceRange::new(RANGE + 1, 2 * RANGE + 1);
    let sa = Box::new(OutboundSa::new(&parameters, range));
    successor.command(WorkerCommand::InstallOutbound { id: successor.spi(), sa });
    successor.install_inbound(&parameters, HORIZON, 2 * HORIZON);
    successor.poll();
}

#[test]
fn a_successor_repeats_no_number_and_accepts_no_replay() {
    let (mut owner, mut successor) = (Bench::new(), Bench::new());
    successor.lease.set(Nanos::ZERO);
    let requests: Vec<Vec<u8>> = (0..64).map(|n| owner.peer.seal(&request(n))).collect();
    assert_eq!(owner.inbound(&requests).len(), 64);
    let before = owner.outbound(&vec![reply(1); 64]);

    owner.lease.set(owner.now);
    assert!(owner.outbound(&[reply(1)]).is_empty());
    successor.lease.set(Nanos::MAX);
    take_over(&mut successor);

    assert!(successor.inbound(&requests).is_empty(), "an attacker repeats all it has seen");
    assert_eq!(successor.dropped(DropReason::Ambiguous), 64);
    let after = successor.outbound(&vec![reply(1); 64]);
    for frame in before.iter().chain(&after) {
        // The peer's own replay window is the judge: a repeated number would be refused.
        assert!(owner.peer.open(frame).is_ok());
    }
    owner.peer.jump_to(HORIZON + 1);
    let fresh = owner.peer.seal(&request(1));
    assert_eq!(successor.inbound(&[fresh]).len(), 1, "a flow that went on is served");
}
