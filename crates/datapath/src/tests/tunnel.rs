//! What outer headers take from inner ones, and what connections are told to fit the tunnel.

use super::bench::*;
use crate::{DontFragment, DropReason, Metric, TunnelRules, WorkerEvent};
use holdfast_ipsec::Encapsulation;
use holdfast_packet::{Side, frame, icmp, ipv4};
use std::net::Ipv4Addr;

/// The IPv4 header of the ESP packet made of a packet with these properties.
fn outer_of(rules: TunnelRules, dscp: u8, ecn: u8, dont_fragment: bool) -> (u8, u8, bool) {
    let mut bench = Bench::new();
    bench.tables.tunnel = rules;
    bench.publish();
    let header = ipv4::Repr {
        dscp,
        ecn,
        dont_fragment,
        ..ipv4::Repr::new(COMMON, CLIENT, ipv4::PROTOCOL_UDP, 0)
    };
    let sealed = bench.outbound(&[frame::ipv4_packet(&header, &[0; 8])]);
    let outer = packet_of(&sealed[0]);
    let view = ipv4::View::parse(&outer).unwrap();
    (view.dscp(), view.ecn(), view.dont_fragment())
}

#[test]
fn outer_headers_are_copied_unless_told_otherwise() {
    let copy = TunnelRules::default();
    for dscp in [0, 10, 46, 63] {
        for ecn in 0..4 {
            for ban in [false, true] {
                assert_eq!(outer_of(copy, dscp, ecn, ban), (dscp, ecn, ban));
                let fixed = TunnelRules { dscp: Some(46), ..copy };
                assert_eq!(outer_of(fixed, dscp, ecn, ban), (46, ecn, ban));
                let no_ecn = TunnelRules { ecn: false, ..copy };
                assert_eq!(outer_of(no_ecn, dscp, ecn, ban), (dscp, 0, ban));
                let set = TunnelRules { dont_fragment: DontFragment::Set, ..copy };
                assert_eq!(outer_of(set, dscp, ecn, ban), (dscp, ecn, true));
                let clear = TunnelRules { dont_fragment: DontFragment::Clear, ..copy };
                assert_eq!(outer_of(clear, dscp, ecn, ban), (dscp, ecn, false));
            }
        }
    }
}

/// A SYN with a maximum segment size of 1460 and the flag ACK or not.
fn syn(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut tcp = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    tcp.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0x60, flags, 255, 255, 0, 0, 0, 0]);
    tcp.extend_from_slice(&[2, 4, 5, 180]);
    let header = ipv4::Repr::new(from.0, to.0, ipv4::PROTOCOL_TCP, 0);
    frame::ipv4_packet(&header, &tcp)
}

fn segment_size(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[42], packet[43]])
}

#[test]
fn connections_are_told_to_fit_the_tunnel_in_both_directions() {
    for (encapsulation, around) in [(Encapsulation::Esp, 16 + 16), (NAT, 8 + 16 + 16)] {
        let mut bench = Bench::with_encapsulation(encapsulation);
        let largest = (1500 - 20 - around) / 4 * 4 - 2;
        // The first meets a new flow, the others a known one.
        for round in 1..=3 {
            let sealed = bench.peer.seal(&syn((CLIENT, 4000), (COMMON, 80), 0x02));
            let arrived = packet_of(&bench.inbound(&[sealed])[0]);
            assert_eq!(segment_size(&arrived), largest - 40);
            let left = bench.outbound(&[syn((COMMON, 80), (CLIENT, 4000), 0x12)]);
            assert_eq!(segment_size(&bench.peer.open(&left[0]).unwrap()), largest - 40);
            assert_eq!(bench.metric(Metric::SegmentSizesLowered), 2 * round);
        }
    }
}

#[test]
fn connections_are_left_alone_where_the_rules_say_so() {
    let mut bench = Bench::new();
    bench.tables.tunnel.clamp_segment_size = false;
    bench.publish();
    let sealed = bench.peer.seal(&syn((CLIENT, 4000), (COMMON, 80), 0x02));
    assert_eq!(segment_size(&packet_of(&bench.inbound(&[sealed])[0])), 1460);
    let left = bench.outbound(&[syn((COMMON, 80), (CLIENT, 4000), 0x12)]);
    assert_eq!(segment_size(&bench.peer.open(&left[0]).unwrap()), 1460);
    assert_eq!(bench.metric(Metric::SegmentSizesLowered), 0);
}

#[test]
fn a_narrow_path_makes_packets_shorter() {
    let mut bench = Bench::new();
    let packet = frame::udp_packet(COMMON, 80, CLIENT, 1, &[0; 1300]);
    assert_eq!(bench.outbound(std::slice::from_ref(&packet)).len(), 1);
    bench.tables.path_mtus.insert(PEER, 1000);
    bench.publish();
    let pieces = bench.outbound(std::slice::from_ref(&packet));
    assert_eq!(pieces.len(), 2);
    assert!(pieces.iter().all(|piece| packet_of(piece).len() <= 1000));
    let left = bench.outbound(&[syn((COMMON, 80), (CLIENT, 4000), 0x12)]);
    let largest = (1000 - 20 - 16 - 16) / 4 * 4 - 2;
    assert_eq!(segment_size(&bench.peer.open(&left[0]).unwrap()), largest - 40);
    bench.tables.path_mtus.clear();
    bench.publish();
    assert_eq!(bench.outbound(&[packet]).len(), 1);
    assert!(bench.drops().is_empty());
}

#[test]
fn reports_of_routers_reach_the_controller_but_not_without_end() {
    let mut bench = Bench::new();
    let quoted = frame::ipv4_packet(&ipv4::Repr::new(COMMON, PEER, 50, 0), &[0; 8]);
    let message = icmp::Repr::FragmentationNeeded { mtu: 1400, packet: &quoted };
    let report = from_peer(&frame::icmp_packet(PEER, COMMON, &message));
    for _ in 0..10 {
        bench.receive(Side::Outside, &report);
    }
    bench.poll();
    let events = bench.other_events();
    let [WorkerEvent::Punt { frame, .. }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(&frame[..], report);
    assert_eq!(bench.dropped(DropReason::RateLimited), 9);
}
