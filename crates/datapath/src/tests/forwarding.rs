//! Packets that pass: both directions, both encapsulations, whole bursts.

use super::bench::*;
use crate::{DropReason, Metric, WorkerCommand};
use holdfast_crypto::{AeadAlgorithm, BlockMode, Composition, IntegrityAlgorithm};
use holdfast_ipsec::{ChildSaParameters, Encapsulation, SaKey};
use holdfast_packet::{HeapBuf, Side, frame, icmp, ipv4};
use proptest::prelude::*;

#[test]
fn a_request_reaches_a_target_unchanged_but_for_one_hop() {
    for encapsulation in [Encapsulation::Esp, NAT] {
        let mut bench = Bench::with_encapsulation(encapsulation);
        let sealed = bench.peer.seal(&request(4000));
        let out = bench.inbound(&[sealed]);
        assert_eq!(out.len(), 1, "{encapsulation:?}: {:?}", bench.drops());
        assert_eq!(packet_of(&out[0]), one_hop_on(&request(4000)));
        assert!((1..=3).any(|id| destination(&out[0]) == target_mac(id)));
    }
}

#[test]
fn a_reply_reaches_the_peer_through_the_tunnel() {
    for encapsulation in [Encapsulation::Esp, NAT] {
        let mut bench = Bench::with_encapsulation(encapsulation);
        let out = bench.outbound(&[reply(4000)]);
        assert_eq!(out.len(), 1, "{encapsulation:?}: {:?}", bench.drops());
        assert_eq!(bench.peer.open(&out[0]), Ok(one_hop_on(&reply(4000))));
    }
}

#[test]
fn link_padding_does_not_travel_through_the_tunnel() {
    let mut bench = Bench::new();
    let short = frame::udp_packet(COMMON, 80, CLIENT, 4000, b"");
    let out = bench.outbound(std::slice::from_ref(&short));
    assert_eq!(bench.peer.open(&out[0]).unwrap().len(), short.len());
}

#[test]
fn whole_bursts_keep_their_order() {
    let mut bench = Bench::new();
    let packets: Vec<Vec<u8>> = (0..64).map(|n| reply(4000 + n)).collect();
    let out = bench.outbound(&packets);
    assert_eq!(out.len(), 64);
    for (frame, packet) in out.iter().zip(&packets) {
        assert_eq!(bench.peer.open(frame), Ok(one_hop_on(packet)));
    }
    let sealed: Vec<Vec<u8>> = (0..64).map(|n| bench.peer.seal(&request(4000 + n))).collect();
    let out = bench.inbound(&sealed);
    let ports: Vec<Vec<u8>> = out.iter().map(|frame| packet_of(frame)).collect();
    let expected: Vec<Vec<u8>> = (0..64).map(|n| one_hop_on(&request(4000 + n))).collect();
    assert_eq!(ports, expected);
    assert_eq!(bench.metric(Metric::Opened), 64);
    assert_eq!(bench.metric(Metric::Sealed), 64);
}

#[test]
fn several_sas_share_one_burst() {
    sas_share_one_burst([AeadAlgorithm::Aes128Gcm16; 5]);
}

#[test]
fn sas_of_every_kind_of_algorithm_share_one_burst() {
    let pair = |mode, integrity| AeadAlgorithm::Composed(Composition { mode, integrity });
    sas_share_one_burst([
        AeadAlgorithm::Aes192Gcm16,
        pair(BlockMode::Cbc256, IntegrityAlgorithm::HmacSha512_256),
        AeadAlgorithm::ChaCha20Poly1305,
        pair(BlockMode::Ctr128, IntegrityAlgorithm::HmacSha256_128),
        AeadAlgorithm::Aes256Gmac,
    ]);
}

/// The longest packet that fits is one that the boundary and the ICV of the SA's algorithm leave room for.
#[test]
fn a_packet_that_only_another_algorithm_would_make_too_long_passes() {
    let algorithm = AeadAlgorithm::Composed(Composition {
        mode: BlockMode::Cbc128,
        integrity: IntegrityAlgorithm::HmacSha512_256,
    });
    let mut bench = Bench::new();
    let parameters = with_algorithm(parameters(1, Encapsulation::Esp), algorithm);
    bench.install(&parameters);
    bench.poll();
    let mut peer = Peer::new(&parameters);
    // 1500 less an IPv4 header, SPI and number, IV and ICV is 1424, 89 blocks.
    let reply =
        |len: usize| frame::udp_packet(COMMON, 80, [10, 77, 1, 9].into(), 1, &vec![b'y'; len - 28]);
    let out = bench.outbound(&[reply(1422)]);
    assert_eq!(out.len(), 1, "{:?}", bench.drops());
    assert_eq!(peer.open(&out[0]), Ok(one_hop_on(&reply(1422))));
    assert_ne!(bench.outbound(&[reply(1423)]).len(), 1, "not as one packet");
}

fn with_algorithm(parameters: ChildSaParameters, algorithm: AeadAlgorithm) -> ChildSaParameters {
    let octets: Vec<u8> = (0_u8..).take(SaKey::keymat_len(algorithm)).collect();
    let key = SaKey::new(algorithm, &octets).unwrap();
    ChildSaParameters { inbound_key: key.clone(), outbound_key: key, ..parameters }
}

fn sas_share_one_burst(algorithms: [AeadAlgorithm; 5]) {
    let mut bench = Bench::new();
    let mut peers: Vec<Peer> = (1..)
        .zip(algorithms)
        .map(|(n, algorithm)| {
            let parameters = with_algorithm(parameters(n, Encapsulation::Esp), algorithm);
            bench.install(&parameters);
            Peer::new(&parameters)
        })
        .collect();
    bench.poll();
    let client = |n: usize| [10, 77, n as u8 + 1, 9].into();
    let mut frames = Vec::new();
    for round in 0..10u16 {
        for (n, peer) in peers.iter_mut().enumerate() {
            frames.push(peer.seal(&frame::udp_packet(client(n), round, COMMON, 80, b"x")));
        }
    }
    assert_eq!(bench.inbound(&frames).len(), 50, "{:?}", bench.drops());
    let replies: Vec<Vec<u8>> =
        (0..50).map(|n| frame::udp_packet(COMMON, 80, client(n % 5), 1, b"y")).collect();
    let out = bench.outbound(&replies);
    assert_eq!(out.len(), 50);
    for (n, frame) in out.iter().enumerate() {
        assert_eq!(peers[n % 5].open(frame), Ok(one_hop_on(&replies[n])));
    }
}

#[test]
fn peers_beyond_the_outside_network_are_reached_through_the_gateway() {
    let mut bench = Bench::new();
    bench.tables.outside_prefix.length = 32;
    bench.tables.gateway = Some(PEER);
    bench.publish();
    assert_eq!(bench.outbound(&[reply(1)]).len(), 1);
}

#[test]
fn traffic_flow_padding_behind_the_inner_packet_is_cut_off() {
    let mut bench = Bench::new();
    let inner = request(4000);
    let mut text = inner.clone();
    text.extend([0; 99]);
    text.extend([0, 4]);
    text.resize(text.len().next_multiple_of(4), 0);
    let len = text.len();
    text[len - 2..].copy_from_slice(&[0, 4]);
    let sealed = bench.peer.seal_text(1, &text);
    let out = bench.inbound(&[sealed]);
    assert_eq!(packet_of(&out[0]), one_hop_on(&inner));
}

#[test]
fn service_class_and_congestion_cross_the_tunnel_both_ways() {
    let mut bench = Bench::new();
    let ect = ipv4::Repr {
        ecn: 2,
        dscp: 46,
        dont_fragment: true,
        ..ipv4::Repr::new(COMMON, CLIENT, ipv4::PROTOCOL_UDP, 0)
    };
    let out = bench.outbound(&[frame::ipv4_packet(&ect, &[0, 80, 1, 1, 0, 8, 0, 0])]);
    let outer = packet_of(&out[0]);
    let outer = ipv4::View::parse(&outer).unwrap();
    assert_eq!((outer.ecn(), outer.dscp(), outer.dont_fragment()), (2, 46, true));

    let inner = ipv4::Repr { source: CLIENT, destination: COMMON, ..ect };
    bench.peer.ecn = 3;
    let sealed = bench.peer.seal(&frame::ipv4_packet(&inner, &[1, 1, 0, 80, 0, 8, 0, 0]));
    let out = bench.inbound(&[sealed]);
    let inner = packet_of(&out[0]);
    assert_eq!(ipv4::View::parse(&inner).unwrap().ecn(), 3, "the outer mark is carried over");
}

#[test]
fn a_packet_that_just_fits_passes_and_one_byte_more_is_reported() {
    for encapsulation in [Encapsulation::Esp, NAT] {
        let mut bench = Bench::with_encapsulation(encapsulation);
        let udp_len = if encapsulation == NAT { 8 } else { 0 };
        let largest = (1500 - 20 - udp_len - 16 - 16) / 4 * 4 - 2;
        let packet = |len: usize| {
            let header = ipv4::Repr {
                dont_fragment: true,
                ..ipv4::Repr::new(COMMON, CLIENT, ipv4::PROTOCOL_UDP, 0)
            };
            frame::ipv4_packet(&header, &vec![0; len - 20])
        };
        let out = bench.outbound(&[packet(largest)]);
        assert!(packet_of(&out[0]).len() <= usize::from(MTU));
        assert_eq!(bench.peer.open(&out[0]).unwrap().len(), largest);

        assert!(bench.outbound(&[packet(largest + 1)]).is_empty());
        assert_eq!(bench.dropped(DropReason::TooBig), 1);
        let error = bench.sent(Side::Inside);
        assert_eq!(destination(&error[0]), target_mac(1));
        let error = packet_of(&error[0]);
        let view = ipv4::View::parse(&error).unwrap();
        assert_eq!((view.source(), view.destination()), (INSIDE, COMMON));
        let Ok(icmp::Repr::FragmentationNeeded { mtu, packet: quoted }) =
            icmp::Repr::parse(view.payload())
        else {
            panic!("not a fragmentation needed");
        };
        assert_eq!(usize::from(mtu), largest);
        assert!(quoted.len() >= 28 && packet(largest + 1).starts_with(quoted));
    }
}

#[test]
fn too_big_packets_are_reported_only_when_asked_for_and_not_without_end() {
    let mut bench = Bench::new();
    let packet = |protocol| {
        let header =
            ipv4::Repr { dont_fragment: true, ..ipv4::Repr::new(COMMON, CLIENT, protocol, 0) };
        frame::ipv4_packet(&header, &vec![0; 1480])
    };
    bench.outbound(&[packet(ipv4::PROTOCOL_ICMP)]);
    assert!(bench.sent(Side::Inside).is_empty());
    bench.outbound(&vec![packet(ipv4::PROTOCOL_UDP); 64]);
    assert_eq!(bench.sent(Side::Inside).len(), 8);
    assert_eq!(bench.dropped(DropReason::TooBig), 65);
}

#[test]
fn what_the_port_does_not_take_is_counted_and_freed() {
    let mut bench = Bench::new();
    bench.worker.port_mut(Side::Outside).limit_tx(3);
    assert_eq!(bench.outbound(&[reply(1), reply(2), reply(3), reply(4), reply(5)]).len(), 3);
    assert_eq!(bench.dropped(DropReason::TxFull), 2);
    assert_eq!(bench.metric(Metric::OutsideTxPackets), 3);
}

#[test]
fn a_buffer_without_room_is_dropped_and_uses_no_number() {
    let mut bench = Bench::new();
    let tight = HeapBuf::with_room(&from_target(&reply(1)), 0, 0);
    assert!(bench.worker.port_mut(Side::Inside).deliver_buf(tight));
    bench.poll();
    assert_eq!(bench.dropped(DropReason::NoRoom), 1);
    bench.command(WorkerCommand::ListSas { limit: 1 });
    bench.poll();
    let events = bench.events();
    let Some(crate::WorkerEvent::Sas(sas)) = events.last() else { panic!("no answer") };
    assert_eq!(sas[0].outbound_remaining, RANGE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_payload_crosses_the_tunnel_and_back(payload in prop::collection::vec(any::<u8>(), 0..1400), nat: bool) {
        let encapsulation = if nat { NAT } else { Encapsulation::Esp };
        let mut bench = Bench::with_encapsulation(encapsulation);
        let there = frame::udp_packet(CLIENT, 9, COMMON, 80, &payload);
        let sealed = bench.peer.seal(&there);
        let out = bench.inbound(&[sealed]);
        prop_assert_eq!(packet_of(&out[0]), one_hop_on(&there));
        let back = frame::udp_packet(COMMON, 80, CLIENT, 9, &payload);
        let out = bench.outbound(std::slice::from_ref(&back));
        prop_assert_eq!(bench.peer.open(&out[0]), Ok(one_hop_on(&back)));
    }

    #[test]
    fn a_changed_esp_packet_never_gets_through(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        const OUTER_LEN: usize = 34;
        let mut bench = Bench::new();
        let sealed = bench.peer.seal(&request(1));
        let mut changed = sealed.clone();
        for (at, flip) in &flips {
            changed[OUTER_LEN + at.index(sealed.len() - OUTER_LEN)] ^= flip;
        }
        if let Some(cut) = cut {
            changed.truncate(cut.index(sealed.len()));
        }
        prop_assume!(changed != sealed);
        prop_assert!(bench.inbound(&[changed]).is_empty());
        prop_assert_eq!(bench.inbound(&[sealed]).len(), 1, "and does no harm");
    }

    #[test]
    fn random_bytes_never_stop_the_worker(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..64)) {
        let mut bench = Bench::new();
        for mut frame in frames {
            let header = from_target(&reply(1));
            for (byte, wanted) in frame.iter_mut().zip(&header[..14]) {
                *byte = *wanted;
            }
            bench.receive(Side::Inside, &frame);
            for (byte, wanted) in frame.iter_mut().zip(&OUTSIDE_MAC.0) {
                *byte = *wanted;
            }
            bench.receive(Side::Outside, &frame);
        }
        bench.poll();
        prop_assert!(bench.sent(Side::Outside).is_empty());
    }
}

#[test]
fn nothing_is_lost_without_being_counted() {
    let mut bench = Bench::new();
    let mut frames: Vec<Vec<u8>> = (0..20).map(|n| bench.peer.seal(&request(n))).collect();
    frames.push(frames[3].clone());
    frames.push(from_peer(&frame::udp_packet(PEER, 1, COMMON, 9999, b"")));
    frames.push(vec![0; 10]);
    let total = frames.len() as u64;
    bench.inbound(&frames);
    let dropped: u64 = bench.drops().values().sum();
    assert_eq!(bench.metric(Metric::OutsideRxPackets), total);
    assert_eq!(bench.metric(Metric::InsideTxPackets) + dropped, total);
}
