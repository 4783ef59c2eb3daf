//! Every reason a packet is dropped for, from the bytes that cause it.

use super::bench::*;
use crate::{DropReason, HELD_FRAMES_MAX, WorkerCommand};
use holdfast_ipsec::{Encapsulation, OutboundSa, SequenceRange};
use holdfast_packet::{Nanos, Side, arp, frame, icmp, ipv4};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Never given here, and why.
const NOT_HERE: &[DropReason] = &[
    DropReason::HandoffFull,     // needs two workers: in `workers`
    DropReason::FragmentOverlap, // takes two packets at least: in `reassembly`
];

type Scenario = (DropReason, fn(&mut Bench));

/// Each leaves exactly one packet to be dropped by the next poll, or has polled already.
const SCENARIOS: &[Scenario] = &[
    (DropReason::Runt, |bench| bench.receive(Side::Outside, &[0; 13])),
    (DropReason::NotUnicast, |bench| {
        bench.receive(Side::Outside, &frame::ethernet_frame(PEER_MAC, PEER_MAC, &request(1)));
    }),
    (DropReason::NotIpv4, |bench| {
        let mut frame = from_peer(&request(1));
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        bench.receive(Side::Outside, &frame);
    }),
    (DropReason::Ipv4Malformed, |bench| outside_packet_with(bench, 0, 0x42)),
    (DropReason::BadChecksum, |bench| outside_packet_with(bench, 8, 3)),
    (DropReason::Fragment, |bench| {
        let mut packet = frame::icmp_packet(COMMON, INSIDE, &echo_request());
        packet[6] = 0x20;
        set_checksum(&mut packet);
        bench.receive(Side::Inside, &from_target(&packet));
    }),
    (DropReason::FragmentRepeated, |bench| {
        outside_fragment(bench, 1, 0x2000, 40);
        outside_fragment(bench, 1, 0x2000, 40);
    }),
    (DropReason::ReassemblyFull, |bench| {
        for identification in 0..65 {
            outside_fragment(bench, identification, 0x2000, 40);
            bench.poll();
        }
    }),
    (DropReason::ReassemblyExpired, |bench| {
        outside_fragment(bench, 1, 0x2000, 40);
        bench.poll();
        bench.now = bench.now.plus_ms(1_000);
    }),
    (DropReason::NotForUs, |bench| {
        let packet = frame::udp_packet(PEER, 500, Ipv4Addr::new(198, 51, 100, 99), 500, &[0; 40]);
        bench.receive(Side::Outside, &from_peer(&packet));
    }),
    (DropReason::ProtocolUnsupported, |bench| {
        let header = ipv4::Repr::new(PEER, COMMON, ipv4::PROTOCOL_TCP, 0);
        bench.receive(Side::Outside, &from_peer(&frame::ipv4_packet(&header, &[0; 20])));
    }),
    (DropReason::UdpMalformed, |bench| {
        let header = ipv4::Repr::new(PEER, COMMON, ipv4::PROTOCOL_UDP, 0);
        let packet = frame::ipv4_packet(&header, &[1, 244, 1, 244, 0, 99, 0, 0]);
        bench.receive(Side::Outside, &from_peer(&packet));
    }),
    (DropReason::UdpPort, |bench| outside_udp(bench, 501, &[0; 40])),
    (DropReason::KeepAlive, |bench| outside_udp(bench, 4500, &[0xff])),
    (DropReason::IkeTruncated, |bench| outside_udp(bench, 500, &[0; 27])),
    (DropReason::IcmpMalformed, |bench| {
        let header = ipv4::Repr::new(PEER, COMMON, ipv4::PROTOCOL_ICMP, 0);
        bench.receive(Side::Outside, &from_peer(&frame::ipv4_packet(&header, &[8, 0, 0, 0])));
    }),
    (DropReason::IcmpIgnored, |bench| {
        let message = icmp::Repr::EchoReply { identifier: 1, sequence: 1, data: b"" };
        let packet = frame::icmp_packet(PEER, COMMON, &message);
        bench.receive(Side::Outside, &from_peer(&packet));
    }),
    (DropReason::ArpMalformed, |bench| {
        let mut frame = arp::Repr::request(PEER_MAC, PEER, COMMON).frame(OUTSIDE_MAC);
        frame[14] = 9;
        bench.receive(Side::Outside, &frame);
    }),
    (DropReason::ArpIgnored, |bench| {
        let other = Ipv4Addr::new(198, 51, 100, 7);
        let frame = arp::Repr::request(PEER_MAC, PEER, other).frame(OUTSIDE_MAC);
        bench.receive(Side::Outside, &frame);
    }),
    (DropReason::NotOwner, |bench| {
        bench.lease.set(Nanos::ZERO);
        outside_udp(bench, 500, &[0; 40]);
    }),
    (DropReason::LeaseExpired, |bench| {
        bench.lease.set(bench.now);
        outside_udp(bench, 500, &[0; 40]);
    }),
    (DropReason::ForwardedTwice, |bench| {
        bench.tables.members = vec![OTHER];
        bench.publish();
        bench.command(WorkerCommand::Forward { to: OTHER, until: Nanos::MAX });
        let packet = frame::udp_packet(PEER, 500, COMMON, 500, &[0; 40]);
        bench.receive(Side::Outside, &frame::ethernet_frame(OUTSIDE_MAC, OTHER.outside, &packet));
    }),
    (DropReason::HoldFull, |bench| {
        bench.command(WorkerCommand::Hold { until: Nanos::MAX });
        for _ in 0..HELD_FRAMES_MAX {
            outside_udp(bench, 500, &[0; 40]);
            bench.poll();
        }
        outside_udp(bench, 500, &[0; 40]);
    }),
    (DropReason::HoldExpired, |bench| {
        bench.command(WorkerCommand::Hold { until: bench.now.plus_ms(5) });
        outside_udp(bench, 500, &[0; 40]);
        bench.poll();
        bench.now = bench.now.plus_ms(10);
    }),
    (DropReason::EspMalformed, |bench| {
        let frame = bench.peer.frame(&[0, 0, 0x10, 0, 0, 0, 0, 1]);
        bench.receive(Side::Outside, &frame);
    }),
    (DropReason::UnknownSpi, |bench| {
        let frame = bench.peer.frame(&[0xab; 64]);
        bench.receive(Side::Outside, &frame);
    }),
    (DropReason::Replayed, |bench| {
        let sealed = bench.peer.seal(&request(1));
        assert_eq!(bench.inbound(std::slice::from_ref(&sealed)).len(), 1);
        bench.receive(Side::Outside, &sealed);
    }),
    (DropReason::TooOld, |bench| {
        let old = bench.peer.seal(&request(1));
        bench.peer.jump_to(5_000);
        let new = bench.peer.seal(&request(1));
        assert_eq!(bench.inbound(&[new]).len(), 1);
        bench.receive(Side::Outside, &old);
    }),
    (DropReason::Ambiguous, |bench| {
        bench.install_inbound(&parameters(0, Encapsulation::Esp), 10, HORIZON);
        bench.poll();
        bench.peer.jump_to(10);
        seal_one(bench);
    }),
    (DropReason::HorizonExceeded, |bench| {
        bench.peer.jump_to(HORIZON + 1);
        seal_one(bench);
    }),
    (DropReason::IcvMismatch, |bench| {
        let mut sealed = bench.peer.seal(&request(1));
        *sealed.last_mut().unwrap() ^= 1;
        bench.receive(Side::Outside, &sealed);
    }),
    (DropReason::BadPadding, |bench| seal_text(bench, &text(&request(1), 0xff, 4))),
    (DropReason::NextHeader, |bench| seal_text(bench, &text(&request(1), 0, 6))),
    (DropReason::DummyPacket, |bench| seal_text(bench, &text(&request(1), 0, 59))),
    (DropReason::InnerMalformed, |bench| seal_text(bench, &text(&[0x45; 9], 0, 4))),
    (DropReason::SelectorMismatch, |bench| {
        let foreign = Ipv4Addr::new(10, 78, 0, 1);
        let sealed = bench.peer.seal(&frame::udp_packet(foreign, 1, COMMON, 80, b""));
        bench.receive(Side::Outside, &sealed);
    }),
    (DropReason::EcnCongested, |bench| {
        bench.peer.ecn = 3;
        seal_one(bench);
    }),
    (DropReason::FragmentAlone, |bench| {
        arrive_alone(bench, 1);
        bench.poll();
        bench.now = bench.now.plus_ms(500);
    }),
    (DropReason::FragmentsFull, |bench| {
        for identification in 0..128 {
            arrive_alone(bench, identification);
            bench.poll();
        }
        arrive_alone(bench, 128);
    }),
    (DropReason::TtlExpired, |bench| {
        let header = ipv4::Repr { ttl: 1, ..ipv4::Repr::new(COMMON, CLIENT, 17, 0) };
        let packet = frame::ipv4_packet(&header, &[0; 8]);
        bench.receive(Side::Inside, &from_target(&packet));
    }),
    (DropReason::TooBig, |bench| {
        let header = ipv4::Repr { dont_fragment: true, ..ipv4::Repr::new(COMMON, CLIENT, 1, 0) };
        let packet = frame::ipv4_packet(&header, &[0; 1480]);
        bench.receive(Side::Inside, &from_target(&packet));
    }),
    (DropReason::NoTarget, |bench| {
        bench.tables.targets = targets(&[]);
        bench.publish();
        seal_one(bench);
    }),
    (DropReason::MarkKeyMissing, |bench| {
        let entry = crate::TargetEntry { way: crate::Way::Unmarked, ..target(1) };
        bench.tables.targets = targets(&[1]);
        bench.tables.targets.by_id.insert(1, entry);
        bench.publish();
        seal_one(bench);
    }),
    (DropReason::NeighbourUnresolved, |bench| {
        bench.tables.neighbours.clear();
        bench.publish();
        bench.receive(Side::Inside, &from_target(&reply(1)));
    }),
    (DropReason::NoPolicy, |bench| {
        let packet = frame::udp_packet(COMMON, 80, Ipv4Addr::new(10, 99, 0, 1), 1, b"");
        bench.receive(Side::Inside, &from_target(&packet));
    }),
    (DropReason::NoSa, |bench| {
        bench.command(WorkerCommand::RemoveOutbound(bench.spi()));
        bench.receive(Side::Inside, &from_target(&reply(1)));
    }),
    (DropReason::RangeExhausted, |bench| {
        install_outbound(bench, SequenceRange::new(1, 1));
        bench.receive(Side::Inside, &from_target(&reply(1)));
    }),
    (DropReason::SequenceEnd, |bench| {
        let last = u64::from(u32::MAX);
        install_outbound(bench, SequenceRange::new(last, last + 1));
        assert_eq!(bench.outbound(&[reply(1)]).len(), 1);
        bench.receive(Side::Inside, &from_target(&reply(1)));
    }),
    (DropReason::NoRoom, |bench| {
        let tight = holdfast_packet::HeapBuf::with_room(&from_target(&reply(1)), 0, 0);
        assert!(bench.worker.port_mut(Side::Inside).deliver_buf(tight));
    }),
    (DropReason::NoBuffer, |bench| {
        bench.worker.port_mut(Side::Outside).limit_alloc(0);
        let frame = arp::Repr::probe(OUTSIDE_MAC, PEER).frame(holdfast_packet::MacAddr::BROADCAST);
        bench.command(WorkerCommand::Transmit { side: Side::Outside, frame: frame.into() });
    }),
    (DropReason::TxFull, |bench| {
        bench.worker.port_mut(Side::Outside).limit_tx(0);
        bench.receive(Side::Inside, &from_target(&reply(1)));
    }),
    (DropReason::PuntFull, |bench| {
        for _ in 0..4096 {
            outside_udp(bench, 500, &[0; 40]);
            bench.poll();
        }
        outside_udp(bench, 500, &[0; 40]);
    }),
    (DropReason::RateLimited, |bench| {
        for _ in 0..=crate::PUNTS_PER_POLL {
            outside_udp(bench, 500, &[0; 40]);
        }
    }),
];

#[test]
fn each_cause_is_counted_under_its_reason_alone() {
    for (reason, scenario) in SCENARIOS {
        let mut bench = Bench::new();
        scenario(&mut bench);
        bench.poll();
        let drops: Vec<(DropReason, u64)> = bench.drops().into_iter().collect();
        assert_eq!(drops, [(*reason, 1)]);
    }
}

#[test]
fn no_reason_is_left_out() {
    let covered: BTreeSet<DropReason> =
        SCENARIOS.iter().map(|(reason, _)| *reason).chain(NOT_HERE.iter().copied()).collect();
    let missing: Vec<_> =
        DropReason::ALL.iter().filter(|reason| !covered.contains(reason)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn dropped_packets_leave_by_neither_port() {
    for (reason, scenario) in SCENARIOS {
        let mut bench = Bench::new();
        scenario(&mut bench);
        bench.sent(Side::Outside);
        bench.sent(Side::Inside);
        bench.poll();
        assert!(bench.sent(Side::Outside).is_empty(), "{reason}");
        assert!(bench.sent(Side::Inside).is_empty(), "{reason}");
    }
}

#[test]
fn of_copies_in_one_burst_only_the_first_passes() {
    let mut bench = Bench::new();
    let sealed = bench.peer.seal(&request(1));
    assert_eq!(bench.inbound(&vec![sealed; 64]).len(), 1);
    assert_eq!(bench.dropped(DropReason::Replayed), 63);
}

#[test]
fn a_forged_number_does_not_move_the_window() {
    let mut bench = Bench::new();
    let first = bench.peer.seal(&request(1));
    bench.peer.jump_to(900);
    let mut forged = bench.peer.seal(&request(2));
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(bench.inbound(&[forged, first]).len(), 1);
}

#[test]
fn early_failures_do_not_harm_later_packets_of_the_burst() {
    let mut bench = Bench::new();
    let seen = bench.peer.seal(&request(1));
    bench.inbound(std::slice::from_ref(&seen));
    let good = bench.peer.seal(&request(2));
    let stray = bench.peer.frame(&[0xab; 64]);
    let out = bench.inbound(&[seen, stray, vec![0; 5], good]);
    assert_eq!(packet_of(&out[0]), one_hop_on(&request(2)));
}

#[test]
fn another_key_opens_nothing() {
    let mut bench = Bench::new();
    let mut other = parameters(0, Encapsulation::Esp);
    let key = holdfast_crypto::AeadAlgorithm::Aes128Gcm16;
    other.inbound_key = holdfast_ipsec::SaKey::new(key, &[8; 20]).unwrap();
    let sealed = Peer::new(&other).seal(&request(1));
    assert!(bench.inbound(&[sealed]).is_empty());
    assert_eq!(bench.dropped(DropReason::IcvMismatch), 1);
}

#[test]
fn reserved_spis_are_unknown() {
    let mut bench = Bench::new();
    for spi in [0u32, 255] {
        let esp = [spi.to_be_bytes().as_slice(), &[0; 60]].concat();
        let frame = bench.peer.frame(&esp);
        bench.receive(Side::Outside, &frame);
    }
    bench.poll();
    assert_eq!(bench.dropped(DropReason::UnknownSpi), 2);
}

fn outside_packet_with(bench: &mut Bench, at: usize, value: u8) {
    let mut packet = frame::udp_packet(PEER, 500, COMMON, 500, &[0; 40]);
    packet[at] = value;
    bench.receive(Side::Outside, &from_peer(&packet));
}

fn outside_udp(bench: &mut Bench, port: u16, payload: &[u8]) {
    let packet = frame::udp_packet(PEER, 500, COMMON, port, payload);
    bench.receive(Side::Outside, &from_peer(&packet));
}

fn echo_request() -> icmp::Repr<'static> {
    icmp::Repr::EchoRequest { identifier: 1, sequence: 1, data: b"" }
}

/// A fragment for the common address, with these flags and this offset.
fn outside_fragment(bench: &mut Bench, identification: u16, place: u16, len: usize) {
    let header =
        ipv4::Repr { identification, ..ipv4::Repr::new(PEER, COMMON, ipv4::PROTOCOL_ESP, 0) };
    let mut packet = frame::ipv4_packet(&header, &vec![0; len]);
    packet[6..8].copy_from_slice(&place.to_be_bytes());
    set_checksum(&mut packet);
    bench.receive(Side::Outside, &from_peer(&packet));
}

/// The second fragment of a datagram.
fn arrive_alone(bench: &mut Bench, identification: u16) {
    let mut packet = request(1);
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    packet[7] = 1;
    set_checksum(&mut packet);
    let sealed = bench.peer.seal(&packet);
    bench.receive(Side::Outside, &sealed);
}

fn seal_one(bench: &mut Bench) {
    let sealed = bench.peer.seal(&request(1));
    bench.receive(Side::Outside, &sealed);
}

fn seal_text(bench: &mut Bench, text: &[u8]) {
    let frame = bench.peer.seal_text(1, text);
    bench.receive(Side::Outside, &frame);
}

/// `payload`, zeros up to the boundary, and a trailer that says what it likes.
fn text(payload: &[u8], pad_len: u8, next_header: u8) -> Vec<u8> {
    let mut text = payload.to_vec();
    text.resize((payload.len() + 2).next_multiple_of(4) - 2, 0);
    text.extend([pad_len, next_header]);
    text
}

fn install_outbound(bench: &mut Bench, range: SequenceRange) {
    let sa = Box::new(OutboundSa::new(&parameters(0, Encapsulation::Esp), range));
    bench.command(WorkerCommand::InstallOutbound { id: bench.spi(), sa });
}

fn set_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = holdfast_packet::checksum::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_removed_sa_is_unknown_at_once() {
    let mut bench = Bench::new();
    bench.command(WorkerCommand::RemoveInbound(bench.spi()));
    seal_one(&mut bench);
    bench.poll();
    assert_eq!(bench.dropped(DropReason::UnknownSpi), 1);
}
