//! Which target gets what, and what happens when the set of targets changes.

use super::bench::*;
use crate::{
    DropReason, MARK_OVERHEAD, MarkKey, Marker, Metric, Way, WorkerCommand, WorkerEvent, open_mark,
};
use holdfast_packet::{MacAddr, Side, ethernet, frame, gue, icmp, ipv4, udp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sends one packet of each of `flows` connections; the target of each.
fn probe(bench: &mut Bench, flows: u16) -> BTreeMap<u16, MacAddr> {
    (0..flows)
        .map(|port| {
            let sealed = bench.peer.seal(&request(port));
            let out = bench.inbound(&[sealed]);
            (port, destination(&out[0]))
        })
        .collect()
}

#[test]
fn connections_spread_and_stay() {
    let mut bench = Bench::new();
    let first = probe(&mut bench, 60);
    for id in 1..=3 {
        let share = first.values().filter(|mac| **mac == target_mac(id)).count();
        assert!((8..=35).contains(&share), "target {id} has {share} of 60");
    }
    assert_eq!(probe(&mut bench, 60), first);
    assert_eq!(bench.metric(Metric::FlowsAssigned), 60);
}

#[test]
fn a_new_target_takes_no_running_connections() {
    let mut bench = Bench::new();
    let before = probe(&mut bench, 40);
    bench.tables.targets = targets(&[1, 2, 3, 4, 5]);
    bench.publish();
    assert_eq!(probe(&mut bench, 40), before);
    let all = probe(&mut bench, 200);
    assert!(all.values().any(|mac| *mac == target_mac(5)), "but it takes new ones");
}

#[test]
fn a_draining_target_keeps_its_connections_and_gets_no_new_ones() {
    let mut bench = Bench::new();
    let before = probe(&mut bench, 40);
    let mut draining = targets(&[1, 2]);
    draining.by_id.insert(3, crate::TargetEntry { draining: true, ..target(3) });
    bench.tables.targets = draining;
    bench.publish();
    let after = probe(&mut bench, 120);
    for (port, mac) in &before {
        assert_eq!(after[port], *mac);
    }
    assert!(after.range(40..).all(|(_, mac)| *mac != target_mac(3)));
}

#[test]
fn connections_of_a_removed_target_move_and_others_stay() {
    let mut bench = Bench::new();
    let before = probe(&mut bench, 60);
    bench.tables.targets = targets(&[1, 2]);
    bench.publish();
    let after = probe(&mut bench, 60);
    let (moved, stayed): (Vec<_>, Vec<_>) =
        before.iter().partition(|(_, mac)| **mac == target_mac(3));
    assert!(!moved.is_empty());
    assert!(moved.iter().all(|(port, _)| after[port] != target_mac(3)));
    assert!(stayed.iter().all(|(port, mac)| after[port] == **mac));
    assert_eq!(bench.metric(Metric::FlowsMoved), moved.len() as u64);
}

#[test]
fn two_members_choose_alike() {
    let (mut one, mut other) = (Bench::new(), Bench::new());
    assert_eq!(probe(&mut one, 50), probe(&mut other, 50));
}

#[test]
fn a_target_without_a_station_is_asked_for() {
    let mut bench = Bench::new();
    let mut silent = targets(&[1]);
    silent.by_id.insert(1, crate::TargetEntry { mac: None, ..target(1) });
    bench.tables.targets = silent;
    bench.publish();
    let sealed = bench.peer.seal(&request(1));
    assert!(bench.inbound(&[sealed]).is_empty());
    assert_eq!(bench.dropped(DropReason::NeighbourUnresolved), 1);
    let events = bench.other_events();
    let [WorkerEvent::Resolve { side: Side::Inside, address }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(address, target(1).address);
}

#[test]
fn an_icmp_error_follows_its_connection() {
    let mut bench = Bench::new();
    let flows = probe(&mut bench, 20);
    for (port, mac) in flows {
        let quoted = reply(port);
        let error = icmp::Repr::FragmentationNeeded { mtu: 1400, packet: &quoted[..28] };
        let sealed = bench.peer.seal(&frame::icmp_packet(CLIENT, COMMON, &error));
        assert_eq!(destination(&bench.inbound(&[sealed])[0]), mac);
    }
}

#[test]
fn other_addresses_than_the_service_are_not_served() {
    let mut bench = Bench::new();
    bench.tables.service = [198, 51, 100, 200].into();
    bench.publish();
    let sealed = bench.peer.seal(&request(1));
    assert!(bench.inbound(&[sealed]).is_empty());
    assert_eq!(bench.dropped(DropReason::NotForUs), 1);
}

#[test]
fn flows_are_listed() {
    let mut bench = Bench::new();
    let flows = probe(&mut bench, 5);
    bench.now = bench.now.plus_ms(500);
    bench.command(WorkerCommand::ListFlows { limit: 100 });
    bench.poll();
    let events = bench.other_events();
    let [WorkerEvent::Flows(listed)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(listed.len(), 5);
    for flow in listed {
        assert_eq!(target_mac(flow.target), flows[&flow.key.src_port]);
        assert!((499..=501).contains(&flow.idle_ms));
    }
}

#[test]
fn more_flows_than_the_table_holds_are_still_forwarded() {
    let mut bench = Bench::new();
    let first = probe(&mut bench, 3_000);
    assert!(bench.metric(Metric::FlowsEvicted) > 0);
    assert_eq!(probe(&mut bench, 3_000), first, "evicted flows are assigned as before");
}

#[test]
fn tables_shared_between_generations_are_not_copied() {
    let bench = Bench::new();
    let next = bench.tables.clone();
    assert!(Arc::ptr_eq(&next.targets.table, &bench.tables.targets.table));
}

/// Target 1 alone, reached by `way`.
fn only_target(bench: &mut Bench, way: Way) {
    let mut one = targets(&[1]);
    one.by_id.insert(1, crate::TargetEntry { way, ..target(1) });
    bench.tables.targets = one;
    bench.publish();
}

fn marker() -> Arc<Marker> {
    let key = MarkKey::new(&[3; 16]).unwrap();
    Arc::new(Marker { epoch: 5, key, source: INSIDE, destination: target(1).address })
}

#[test]
fn a_marked_target_gets_its_packets_with_the_tag_of_the_epoch() {
    let mut bench = Bench::new();
    only_target(&mut bench, Way::Marked(marker()));
    let sealed = bench.peer.seal(&request(7));
    let out = bench.inbound(&[sealed]);
    let link = ethernet::View::parse(&out[0]).unwrap();
    assert_eq!((link.destination(), link.source()), (target_mac(1), INSIDE_MAC));
    let outer = ipv4::View::parse(link.payload()).unwrap();
    assert!(outer.checksum_is_valid() && outer.dont_fragment());
    assert_eq!((outer.source(), outer.destination()), (INSIDE, target(1).address));
    let datagram = udp::View::parse(outer.payload()).unwrap();
    assert_eq!(datagram.destination_port(), gue::PORT);
    let inner = open_mark(datagram.payload(), 5, &marker().key).unwrap();
    let mut expected = request(7);
    ipv4::decrement_ttl(&mut expected).unwrap();
    assert_eq!(inner, expected);
    assert_eq!(bench.metric(Metric::Marked), 1);
}

#[test]
fn a_packet_too_long_to_be_marked_is_answered_through_the_tunnel() {
    let mut bench = Bench::new();
    only_target(&mut bench, Way::Marked(marker()));
    let room = usize::from(MTU) - MARK_OVERHEAD;
    let packet = |len: usize| {
        let header = ipv4::Repr {
            dont_fragment: true,
            ..ipv4::Repr::new(CLIENT, COMMON, ipv4::PROTOCOL_UDP, 0)
        };
        let plain = frame::udp_packet(CLIENT, 4000, COMMON, 80, &vec![0; len - 28]);
        frame::ipv4_packet(&header, &plain[ipv4::HEADER_LEN..])
    };
    let sealed = bench.peer.seal(&packet(room));
    assert_eq!(bench.inbound(&[sealed])[0].len(), usize::from(MTU) + ethernet::HEADER_LEN);

    let sealed = bench.peer.seal(&packet(room + 1));
    assert!(bench.inbound(&[sealed]).is_empty());
    assert_eq!(bench.dropped(DropReason::TooBig), 1);
    assert_eq!(bench.metric(Metric::TooBigReported), 1);
    let answer = bench.sent(Side::Outside).pop().unwrap();
    let inner = bench.peer.open(&answer).unwrap();
    let view = ipv4::View::parse(&inner).unwrap();
    assert_eq!((view.source(), view.destination()), (COMMON, CLIENT));
    let error = icmp::View::parse(view.payload()).unwrap();
    assert!(error.is_error());
    assert_eq!(&view.payload()[6..8], (room as u16).to_be_bytes());
}

#[test]
fn a_packet_too_long_to_be_marked_goes_in_pieces_if_its_sender_allows_it() {
    let mut bench = Bench::new();
    only_target(&mut bench, Way::Marked(marker()));
    let packet = frame::udp_packet(CLIENT, 4000, COMMON, 80, &[9; 1472]);
    let sealed = bench.peer.seal(&packet);
    let frames = bench.inbound(&[sealed]);
    assert_eq!(frames.len(), 2);
    assert!(frames.iter().all(|frame| packet_of(frame).len() <= usize::from(MTU)));
    let marked = (bench.metric(Metric::Marked), bench.metric(Metric::Opened));
    assert_eq!(marked, (2, 2));
    assert!(bench.drops().is_empty());
}

const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 4, 1]);
const LOCAL_MAC: MacAddr = MacAddr([2, 0, 0, 0, 4, 2]);

/// A bench whose only target is on this member's own host.
fn local_bench() -> Bench {
    let mut bench = Bench::new();
    bench.add_local(LOCAL_MAC, HOST_MAC);
    only_target(&mut bench, Way::Local);
    bench
}

/// A frame of the target on this host.
fn from_host(packet: &[u8]) -> Vec<u8> {
    frame::ethernet_frame(INSIDE_MAC, HOST_MAC, packet)
}

fn local_port(bench: &mut Bench) -> &mut holdfast_packet::MemoryPort {
    bench.worker.local_port_mut().unwrap()
}

#[test]
fn a_target_on_this_host_is_served_without_the_inside_network() {
    let mut bench = local_bench();
    let sealed = bench.peer.seal(&request(7));
    assert_eq!(bench.inbound(&[sealed]), Vec::<Vec<u8>>::new());
    let delivered = local_port(&mut bench).take_sent();
    let link = ethernet::View::parse(&delivered[0]).unwrap();
    assert_eq!((link.destination(), link.source()), (HOST_MAC, INSIDE_MAC));
    assert!(local_port(&mut bench).deliver(&from_host(&reply(7))));
    bench.poll();
    let answer = bench.sent(Side::Outside).pop().unwrap();
    let mut expected = reply(7);
    ipv4::decrement_ttl(&mut expected).unwrap();
    assert_eq!(bench.peer.open(&answer).unwrap(), expected);
    assert_eq!(bench.sent(Side::Inside), Vec::<Vec<u8>>::new());
}

#[test]
fn nothing_of_a_target_on_this_host_appears_on_the_inside_network() {
    let mut bench = local_bench();
    let too_big = {
        let header = ipv4::Repr {
            dont_fragment: true,
            ..ipv4::Repr::new(COMMON, CLIENT, ipv4::PROTOCOL_UDP, 0)
        };
        let plain = frame::udp_packet(COMMON, 80, CLIENT, 4000, &[0; 1472]);
        frame::ipv4_packet(&header, &plain[ipv4::HEADER_LEN..])
    };
    let question = holdfast_packet::arp::Repr::request(HOST_MAC, target(1).address, INSIDE);
    let echo = icmp::Repr::EchoRequest { identifier: 1, sequence: 1, data: b"" };
    for frame in [
        from_host(&too_big),
        question.frame(MacAddr::BROADCAST).to_vec(),
        from_host(&frame::icmp_packet(target(1).address, INSIDE, &echo)),
        frame::ethernet_frame(MacAddr::BROADCAST, HOST_MAC, &reply(1)),
        vec![0; 5],
    ] {
        assert!(local_port(&mut bench).deliver(&frame));
    }
    bench.poll();
    assert_eq!(bench.sent(Side::Inside), Vec::<Vec<u8>>::new());
    assert_eq!(bench.sent(Side::Outside), Vec::<Vec<u8>>::new());
    let answers = local_port(&mut bench).take_sent();
    assert_eq!(answers.len(), 1, "only that the packet was too big");
    for reason in [
        DropReason::TooBig,
        DropReason::ArpIgnored,
        DropReason::NotForUs,
        DropReason::NotUnicast,
        DropReason::Runt,
    ] {
        assert_eq!(bench.dropped(reason), 1, "{reason}");
    }
}

#[test]
fn without_a_lease_a_target_on_this_host_is_not_served() {
    let mut bench = local_bench();
    bench.lease.set(holdfast_packet::Nanos::ZERO);
    assert!(local_port(&mut bench).deliver(&from_host(&reply(7))));
    let sealed = bench.peer.seal(&request(7));
    assert!(bench.inbound(&[sealed]).is_empty());
    assert!(local_port(&mut bench).take_sent().is_empty());
    assert!(bench.sent(Side::Outside).is_empty());
}
