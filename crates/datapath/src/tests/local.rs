//! What the worker answers itself.

use super::bench::*;
use crate::{DropReason, Metric, WorkerEvent};
use holdfast_packet::{MacAddr, Side, arp, ethernet, frame, icmp, ipv4};
use std::net::Ipv4Addr;

fn ask(bench: &mut Bench, side: Side, question: arp::Repr) -> Vec<Vec<u8>> {
    bench.receive(side, &question.frame(MacAddr::BROADCAST));
    bench.poll();
    bench.sent(side)
}

#[test]
fn arp_is_answered_for_the_common_address_outside_and_the_inside_address_inside() {
    let mut bench = Bench::new();
    for (side, address, mac) in
        [(Side::Outside, COMMON, OUTSIDE_MAC), (Side::Inside, INSIDE, INSIDE_MAC)]
    {
        let question = arp::Repr::request(PEER_MAC, PEER, address);
        let answers = ask(&mut bench, side, question);
        let link = ethernet::View::parse(&answers[0]).unwrap();
        assert_eq!((link.destination(), link.source()), (PEER_MAC, mac));
        assert_eq!(arp::Repr::parse(link.payload()), Ok(question.reply(mac)));
        assert!(matches!(bench.events()[..], [WorkerEvent::Punt { .. }]), "to learn the asker");
    }
    assert_eq!(bench.metric(Metric::ArpAnswered), 2);
}

#[test]
fn arp_for_others_and_announcements_are_not_answered() {
    let mut bench = Bench::new();
    let other = Ipv4Addr::new(198, 51, 100, 77);
    assert!(ask(&mut bench, Side::Outside, arp::Repr::request(PEER_MAC, PEER, other)).is_empty());
    assert!(ask(&mut bench, Side::Outside, arp::Repr::request(PEER_MAC, PEER, INSIDE)).is_empty());
    assert!(bench.events().is_empty());
    assert!(ask(&mut bench, Side::Outside, arp::Repr::announcement(PEER_MAC, COMMON)).is_empty());
    assert!(
        matches!(bench.events()[..], [WorkerEvent::Punt { .. }]),
        "somebody claims our address"
    );
}

#[test]
fn a_probe_for_our_address_is_defended_but_teaches_nothing() {
    let mut bench = Bench::new();
    assert_eq!(ask(&mut bench, Side::Outside, arp::Repr::probe(PEER_MAC, COMMON)).len(), 1);
    assert!(bench.events().is_empty());
    assert!(bench.drops().is_empty());
}

#[test]
fn echo_is_answered_for_both_addresses() {
    let mut bench = Bench::new();
    for (side, address, own) in
        [(Side::Outside, COMMON, OUTSIDE_MAC), (Side::Inside, INSIDE, INSIDE_MAC)]
    {
        let echo = icmp::Repr::EchoRequest { identifier: 7, sequence: 9, data: b"ping" };
        let packet = frame::icmp_packet(PEER, address, &echo);
        bench.receive(side, &frame::ethernet_frame(own, PEER_MAC, &packet));
        bench.poll();
        let sent = bench.sent(side);
        assert_eq!(destination(&sent[0]), PEER_MAC);
        let answer = packet_of(&sent[0]);
        let answer = ipv4::View::parse(&answer).unwrap();
        assert_eq!((answer.source(), answer.destination()), (address, PEER));
        let reply = icmp::Repr::EchoReply { identifier: 7, sequence: 9, data: b"ping" };
        assert_eq!(icmp::Repr::parse(answer.payload()), Ok(reply));
    }
    assert_eq!(bench.metric(Metric::EchoAnswered), 2);
}

#[test]
fn an_echo_through_the_tunnel_goes_to_a_target() {
    let mut bench = Bench::new();
    let echo = icmp::Repr::EchoRequest { identifier: 7, sequence: 9, data: b"ping" };
    let sealed = bench.peer.seal(&frame::icmp_packet(CLIENT, COMMON, &echo));
    assert_eq!(bench.inbound(&[sealed]).len(), 1);
    assert_eq!(bench.metric(Metric::EchoAnswered), 0);
}

#[test]
fn keepalives_are_swallowed() {
    let mut bench = Bench::new();
    let packet = frame::udp_packet(PEER, 31_000, COMMON, 4500, &[0xff]);
    bench.receive(Side::Outside, &from_peer(&packet));
    bench.poll();
    assert_eq!(bench.dropped(DropReason::KeepAlive), 1);
    assert!(bench.events().is_empty());
}
