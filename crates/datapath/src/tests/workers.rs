//! Several workers: each SA lives on one, its packets find it from all.

use super::bench::*;
use crate::{DropReason, HANDOFF_RING, Handoff, Metric};
use holdfast_ipsec::Encapsulation;
use holdfast_packet::{Side, frame};
use std::net::Ipv4Addr;

/// Two workers; pair 0 lives on worker 0, pair 1 on worker 1. Both know both policies.
fn two_workers() -> (Bench, Bench) {
    let mut handoffs = Handoff::mesh(2).into_iter();
    let mut first = Bench::bare(handoffs.next().unwrap(), 64);
    let mut second = Bench::bare(handoffs.next().unwrap(), 64);
    let pairs = [parameters(0, Encapsulation::Esp), parameters(1, Encapsulation::Esp)];
    first.install(&pairs[0]);
    first.add_policy(&pairs[1], 1);
    second.add_policy(&pairs[0], 0);
    second.install(&pairs[1]);
    second.tables.spd.retain(|reference| reference.spi != pairs[1].inbound_spi);
    second.add_policy(&pairs[1], 1);
    second.peer = Peer::new(&pairs[1]);
    first.poll();
    second.poll();
    (first, second)
}

fn second_client() -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, 10)
}

#[test]
fn esp_crosses_to_the_worker_of_its_spi() {
    let (mut first, mut second) = two_workers();
    let inner = frame::udp_packet(second_client(), 5, COMMON, 80, b"hello");
    let sealed: Vec<Vec<u8>> = (0..64).map(|_| second.peer.seal(&inner)).collect();
    assert!(first.inbound(&sealed).is_empty());
    assert_eq!(first.metric(Metric::HandedOff), 64);
    assert!(second.worker.has_work());
    second.poll();
    assert_eq!(second.metric(Metric::TakenOver), 64);
    assert_eq!(second.sent(Side::Inside).len(), 64, "{:?}", second.drops());
}

#[test]
fn replies_cross_to_the_worker_of_their_sa() {
    let (mut first, mut second) = two_workers();
    let packet = frame::udp_packet(COMMON, 80, second_client(), 5, b"hello");
    assert!(first.outbound(std::slice::from_ref(&packet)).is_empty());
    second.poll();
    let out = second.sent(Side::Outside);
    assert_eq!(second.peer.open(&out[0]), Ok(one_hop_on(&packet)));
}

#[test]
fn a_packet_handed_over_is_not_handed_back() {
    let (mut first, mut second) = two_workers();
    // Worker 0 believes that pair 0 lives on worker 1, which believes the opposite.
    first.tables.spd.retain(|_| false);
    first.add_policy(&parameters(0, Encapsulation::Esp), 1);
    assert!(first.outbound(&[reply(1)]).is_empty());
    second.poll();
    assert_eq!(second.dropped(DropReason::NoSa), 1);
    assert_eq!(second.metric(Metric::HandedOff), 0);
}

#[test]
fn a_full_inbox_drops_and_counts() {
    let (mut first, mut second) = two_workers();
    let inner = frame::udp_packet(second_client(), 5, COMMON, 80, b"hello");
    for _ in 0..HANDOFF_RING / 64 {
        let sealed: Vec<Vec<u8>> = (0..64).map(|_| second.peer.seal(&inner)).collect();
        first.inbound(&sealed);
    }
    let one_more = second.peer.seal(&inner);
    first.inbound(&[one_more]);
    assert_eq!(first.dropped(DropReason::HandoffFull), 1);
}

#[test]
fn the_lease_is_checked_again_by_the_worker_that_takes_over() {
    let (mut first, mut second) = two_workers();
    let inner = frame::udp_packet(second_client(), 5, COMMON, 80, b"hello");
    let sealed = second.peer.seal(&inner);
    first.inbound(&[sealed]);
    second.lease.set(second.now);
    second.poll();
    assert!(second.sent(Side::Inside).is_empty());
    assert_eq!(second.dropped(DropReason::LeaseExpired), 1);
}

#[test]
fn an_spi_of_a_worker_that_does_not_exist_is_unknown() {
    let mut handoffs = Handoff::mesh(3);
    let mut bench = Bench::bare(handoffs.remove(0), 64);
    let sealed = Peer::new(&parameters(3, Encapsulation::Esp)).seal(&request(1));
    bench.inbound(&[sealed]);
    assert_eq!(bench.dropped(DropReason::UnknownSpi), 1);
}
