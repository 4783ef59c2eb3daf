//! Fragments: packets that are cut, and pieces that follow their connection.

use super::bench::*;
use crate::{DropReason, Metric};
use holdfast_packet::{MacAddr, Side, fragment, frame, ipv4};
use std::collections::BTreeSet;

/// The largest inner packet through the bench's tunnel.
const LARGEST: usize = (1500 - 20 - 16 - 16) / 4 * 4 - 2;

fn long_reply(payload_len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload_len).map(|i| (i * 7) as u8).collect();
    frame::udp_packet(COMMON, 80, CLIENT, 4000, &payload)
}

/// The fragments of a request from `port`, each at most 500 bytes long.
fn request_pieces(port: u16, identification: u16, payload_len: usize) -> Vec<Vec<u8>> {
    let header =
        ipv4::Repr { identification, ..ipv4::Repr::new(CLIENT, COMMON, ipv4::PROTOCOL_UDP, 0) };
    let whole = frame::udp_packet(CLIENT, port, COMMON, 80, &vec![3; payload_len]);
    let whole = frame::ipv4_packet(&header, &whole[ipv4::HEADER_LEN..]);
    let view = ipv4::View::parse(&whole).unwrap();
    let emit = |piece: fragment::Piece<'_>| {
        let mut bytes = vec![0; piece.buffer_len()];
        piece.emit(&mut bytes).unwrap();
        bytes
    };
    fragment::Pieces::of(&view, 500).unwrap().map(emit).collect()
}

/// Where an unfragmented request from `port` goes.
fn target_of(bench: &mut Bench, port: u16) -> MacAddr {
    let sealed = bench.peer.seal(&request(port));
    destination(&bench.inbound(&[sealed])[0])
}

/// Lets these packets come from the peer, in this order and one burst.
fn arrive(bench: &mut Bench, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let sealed: Vec<_> = packets.iter().map(|packet| bench.peer.seal(packet)).collect();
    bench.inbound(&sealed)
}

/// The payload of fragments that arrived in order, each a valid packet with one hop less.
fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for piece in pieces {
        let view = ipv4::View::parse(piece).unwrap();
        assert!(view.checksum_is_valid());
        assert_eq!((view.fragment_offset(), view.ttl()), (payload.len(), 63));
        payload.extend_from_slice(view.payload());
    }
    payload
}

#[test]
fn a_packet_too_long_for_the_tunnel_is_cut_if_its_sender_allows_it() {
    for encapsulation in [holdfast_ipsec::Encapsulation::Esp, NAT] {
        let mut bench = Bench::with_encapsulation(encapsulation);
        let packet = long_reply(3000);
        let frames = bench.outbound(std::slice::from_ref(&packet));
        assert!(frames.iter().all(|frame| packet_of(frame).len() <= usize::from(MTU)));
        let pieces: Vec<_> = frames.iter().map(|frame| bench.peer.open(frame).unwrap()).collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(joined(&pieces), packet[ipv4::HEADER_LEN..]);
        assert_eq!(bench.metric(Metric::Fragmented), 1);
        assert_eq!(bench.metric(Metric::Sealed), 3);
        assert!(bench.drops().is_empty());
    }
}

#[test]
fn a_burst_of_long_packets_leaves_whole() {
    let mut bench = Bench::new();
    let frames = bench.outbound(&vec![long_reply(LARGEST); 64]);
    assert_eq!((frames.len(), bench.metric(Metric::Fragmented)), (128, 64));
    let pieces: Vec<_> = frames.iter().map(|frame| bench.peer.open(frame).unwrap()).collect();
    for pair in pieces.chunks(2) {
        assert_eq!(joined(pair), long_reply(LARGEST)[ipv4::HEADER_LEN..]);
    }
    assert!(bench.drops().is_empty());
}

#[test]
fn a_piece_without_a_buffer_is_counted() {
    let mut bench = Bench::new();
    bench.worker.port_mut(Side::Inside).limit_alloc(1);
    assert_eq!(bench.outbound(&[long_reply(2000)]).len(), 1);
    assert_eq!(bench.dropped(DropReason::NoBuffer), 1);
}

#[test]
fn fragments_follow_their_connection_in_any_order() {
    let mut bench = Bench::new();
    let mut used = BTreeSet::new();
    for port in 1..30 {
        let target = target_of(&mut bench, port);
        let pieces = request_pieces(port, port, 1300);
        assert_eq!(pieces.len(), 3);
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
            let arrived = arrive(&mut bench, &order.map(|at| pieces[at].clone()));
            assert_eq!(arrived.len(), 3, "port {port}, order {order:?}");
            assert!(arrived.iter().all(|frame| destination(frame) == target));
            let mut packets: Vec<_> = arrived.iter().map(|frame| packet_of(frame)).collect();
            packets.sort_by_key(|p| ipv4::View::parse(p).map(|view| view.fragment_offset()).ok());
            let whole = request_pieces(port, port, 1300).concat().len() - 3 * ipv4::HEADER_LEN;
            assert_eq!(joined(&packets).len(), whole);
            bench.now = bench.now.plus_secs(3);
        }
        used.insert(target);
    }
    assert_eq!(used.len(), 3, "all targets take part");
    assert!(bench.drops().is_empty());
}

#[test]
fn fragments_wait_over_bursts_for_the_first_of_their_datagram() {
    let mut bench = Bench::new();
    let pieces = request_pieces(7, 1, 1300);
    assert!(arrive(&mut bench, &pieces[1..2]).is_empty());
    assert!(arrive(&mut bench, &request_pieces(8, 2, 600)[1..]).is_empty());
    assert!(arrive(&mut bench, &pieces[2..]).is_empty());
    let arrived = arrive(&mut bench, &pieces[..1]);
    assert_eq!(arrived.len(), 3);
    let packets: Vec<_> = arrived.iter().map(|frame| packet_of(frame)).collect();
    assert_eq!(joined(&packets).len(), 1308);
    assert!(bench.drops().is_empty(), "the other datagram's fragment still waits");
}

#[test]
fn a_full_table_forgets_the_datagram_longest_unseen() {
    let mut bench = Bench::new();
    let (kept, forgotten) = (request_pieces(7, 60_001, 600), request_pieces(8, 60_000, 600));
    arrive(&mut bench, &[forgotten[0].clone(), kept[0].clone()]);
    for identification in 0..20_000 {
        let first = request_pieces(9, identification, 600).swap_remove(0);
        assert_eq!(arrive(&mut bench, &[first]).len(), 1);
        if identification % 16 == 0 {
            assert_eq!(arrive(&mut bench, &kept[1..]).len(), 1, "{identification}");
        }
    }
    assert!(arrive(&mut bench, &forgotten[1..]).is_empty());
}
