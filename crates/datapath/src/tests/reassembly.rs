//! Outer fragments.

use super::bench::*;
use crate::{DropReason, Metric, WorkerEvent};
use holdfast_packet::{Side, ethernet, fragment, frame, ipv4};
use proptest::prelude::*;

/// The fragments of a frame's packet, as frames, each packet at most `mtu` bytes long.
fn pieces(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let packet = &frame[ethernet::HEADER_LEN..];
    let view = ipv4::View::parse(packet).unwrap();
    let emit = |piece: fragment::Piece<'_>| {
        let mut bytes = vec![0; piece.buffer_len()];
        piece.emit(&mut bytes).unwrap();
        from_peer(&bytes)
    };
    fragment::Pieces::of(&view, mtu).unwrap().map(emit).collect()
}

#[test]
fn esp_in_fragments_is_opened_in_any_order() {
    for encapsulation in [holdfast_ipsec::Encapsulation::Esp, NAT] {
        let mut bench = Bench::with_encapsulation(encapsulation);
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let packet = frame::udp_packet(CLIENT, 7, COMMON, 80, &[5; 1000]);
            let pieces = pieces(&bench.peer.seal(&packet), 500);
            assert_eq!(pieces.len(), 3);
            let arrived = bench.inbound(&order.map(|at| pieces[at].clone()));
            assert_eq!(packet_of(&arrived[0]), one_hop_on(&packet), "{order:?}");
        }
        assert_eq!(bench.metric(Metric::Reassembled), 6);
        assert!(bench.drops().is_empty());
    }
}

#[test]
fn a_message_of_ike_in_fragments_reaches_the_controller_whole() {
    let mut bench = Bench::new();
    let message: Vec<u8> = (0..2000).map(|i| i as u8).collect();
    let packet = frame::udp_packet(PEER, 500, COMMON, 500, &message);
    for piece in pieces(&from_peer(&packet), 576) {
        bench.receive(Side::Outside, &piece);
        bench.poll();
    }
    let punted = bench.other_events();
    let [WorkerEvent::Punt { frame, .. }] = punted.as_slice() else { panic!("{punted:?}") };
    assert_eq!(packet_of(frame), packet);
}

#[test]
fn congestion_of_any_piece_is_that_of_the_whole() {
    let mut bench = Bench::new();
    let header = ipv4::Repr { ecn: 2, ..ipv4::Repr::new(CLIENT, COMMON, ipv4::PROTOCOL_UDP, 0) };
    let plain = frame::udp_packet(CLIENT, 7, COMMON, 80, &[5; 1000]);
    let packet = frame::ipv4_packet(&header, &plain[ipv4::HEADER_LEN..]);
    bench.peer.ecn = 2;
    let mut pieces = pieces(&bench.peer.seal(&packet), 500);
    ipv4::set_ecn(&mut pieces[1][ethernet::HEADER_LEN..], ipv4::ECN_CE);
    let arrived = packet_of(&bench.inbound(&pieces)[0]);
    assert_eq!(ipv4::View::parse(&arrived).unwrap().ecn(), ipv4::ECN_CE);
}

#[test]
fn overlapping_fragments_take_their_packet_with_them() {
    let mut bench = Bench::new();
    let sealed = bench.peer.seal(&frame::udp_packet(CLIENT, 7, COMMON, 80, &[5; 1000]));
    let (coarse, fine) = (pieces(&sealed, 600), pieces(&sealed, 300));
    assert!(bench.inbound(&[coarse[0].clone(), fine[1].clone()]).is_empty());
    assert_eq!(bench.dropped(DropReason::FragmentOverlap), 2);
    let mut second_last = fine[1].clone();
    second_last[20] &= 0x1f;
    let ip = &mut second_last[ethernet::HEADER_LEN..];
    ip[10..12].fill(0);
    let sum = holdfast_packet::checksum::checksum(&ip[..ipv4::HEADER_LEN]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    assert!(bench.inbound(&[fine[3].clone(), second_last.clone()]).is_empty());
    assert_eq!(bench.dropped(DropReason::FragmentOverlap), 4, "two are the last");
    assert!(bench.inbound(&[second_last, fine[2].clone()]).is_empty());
    assert_eq!(bench.dropped(DropReason::FragmentOverlap), 6, "one is behind the last");
}

#[test]
fn a_packet_longer_than_a_buffer_is_counted_by_its_pieces() {
    let mut bench = Bench::new();
    let sealed = bench.peer.seal(&frame::udp_packet(CLIENT, 7, COMMON, 80, &[5; 1000]));
    bench.worker.port_mut(Side::Outside).limit_alloc(0);
    assert!(bench.inbound(&pieces(&sealed, 500)).is_empty());
    assert_eq!(bench.dropped(DropReason::NoBuffer), 3);
}

proptest! {
    #[test]
    fn any_fragments_are_safe_and_each_is_accounted_for(
        fragments in prop::collection::vec((0u16..3, 0u16..12, any::<bool>(), 0usize..60), 0..200),
    ) {
        let mut bench = Bench::new();
        for (identification, offset, more, len) in &fragments {
            let header = ipv4::Repr {
                identification: *identification,
                ..ipv4::Repr::new(PEER, COMMON, ipv4::PROTOCOL_UDP, 0)
            };
            let mut packet = frame::ipv4_packet(&header, &vec![0; *len]);
            packet[6..8].copy_from_slice(&(offset | u16::from(*more) << 13).to_be_bytes());
            packet[10..12].fill(0);
            let sum = holdfast_packet::checksum::checksum(&packet[..ipv4::HEADER_LEN]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            bench.receive(Side::Outside, &from_peer(&packet));
            bench.poll();
        }
        bench.now = bench.now.plus_secs(5);
        bench.poll();
        let reassembled = bench.metric(Metric::Reassembled);
        let dropped: u64 = bench.drops().values().sum();
        prop_assert!(dropped <= fragments.len() as u64);
        // A whole packet is dropped too, or handed on: it stands for at least one fragment.
        prop_assert!(dropped + 16 * reassembled >= fragments.len() as u64);
    }
}
