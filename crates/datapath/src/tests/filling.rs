//! A new owner serves each SA from the moment it is installed, and loses nothing of the others.

use super::bench::*;
use crate::{DropReason, HELD_FRAMES_MAX, Handoff, Metric, WorkerCommand, WorkerEvent};
use holdfast_ipsec::{ChildSaParameters, Encapsulation, OutboundSa, SequenceRange, Spi};
use holdfast_packet::{Nanos, Side, frame, ipv4};
use std::net::Ipv4Addr;

const KEEP_MS: u64 = 100;

/// A new owner that has the policies of so many pairs and none of their SAs.
fn filling(pairs: u32) -> (Bench, Vec<ChildSaParameters>) {
    let mut bench = Bench::bare(Handoff::mesh(1).remove(0), 4_096);
    let pairs: Vec<_> = (0..pairs).map(|n| parameters(n, Encapsulation::Esp)).collect();
    add_policies(&mut bench, &pairs);
    bench.command(WorkerCommand::Clear);
    bench.command(WorkerCommand::Fill { keep_ms: KEEP_MS });
    bench.poll();
    (bench, pairs)
}

fn add_policies(bench: &mut Bench, pairs: &[ChildSaParameters]) {
    for pair in pairs {
        bench.add_policy(pair, 0);
        bench.poll();
    }
}

fn client(pair: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, pair as u8, 10)
}

fn request_of(pair: u32, port: u16) -> Vec<u8> {
    frame::udp_packet(client(pair), port, COMMON, 80, b"who is there?")
}

fn reply_to(pair: u32, port: u16) -> Vec<u8> {
    frame::udp_packet(COMMON, 80, client(pair), port, b"it is me")
}

fn install_outbound(bench: &Bench, pair: &ChildSaParameters, first: u64) {
    let sa = Box::new(OutboundSa::new(pair, SequenceRange::new(first, first + RANGE)));
    bench.command(WorkerCommand::InstallOutbound { id: pair.inbound_spi, sa });
}

fn asked(bench: &Bench) -> Vec<Spi> {
    let events = bench.events().into_iter();
    let asked = events.filter_map(|event| match event {
        WorkerEvent::Missing { id } => Some(id),
        _ => None,
    });
    asked.collect()
}

/// The ports clients sent from, as the targets see them.
fn source_ports(frames: &[Vec<u8>]) -> Vec<u16> {
    frames.iter().map(|frame| u16::from_be_bytes([frame[34], frame[35]])).collect()
}

/// The ports of the clients that replies go to.
fn opened_ports(peer: &mut Peer, frames: &[Vec<u8>]) -> Vec<u16> {
    let inner = frames.iter().map(|frame| peer.open(frame).unwrap());
    inner.map(|packet| u16::from_be_bytes([packet[22], packet[23]])).collect()
}

/// The sequence numbers of ESP frames.
fn numbers(frames: &[Vec<u8>]) -> Vec<u32> {
    let esp = frames.iter().map(|frame| packet_of(frame));
    esp.map(|packet| u32::from_be_bytes(packet[24..28].try_into().unwrap())).collect()
}

#[test]
fn an_installed_sa_is_served_while_others_are_missing() {
    let (mut bench, pairs) = filling(2);
    bench.install_inbound(&pairs[0], 0, HORIZON);
    install_outbound(&bench, &pairs[0], 1);
    let here = Peer::new(&pairs[0]).seal(&request_of(0, 1));
    let there = Peer::new(&pairs[1]).seal(&request_of(1, 1));
    assert_eq!(bench.inbound(&[there, here]).len(), 1);
    assert_eq!(bench.outbound(&[reply_to(1, 1), reply_to(0, 1)]).len(), 1);
    assert_eq!(bench.metric(Metric::Awaiting), 2);
    assert_eq!(bench.drops().len(), 0);
    assert_eq!(asked(&bench), [pairs[1].inbound_spi], "asked for once");
}

#[test]
fn kept_frames_leave_in_order_as_soon_as_their_sa_is_there() {
    let (mut bench, pairs) = filling(3);
    let mut peers: Vec<Peer> = pairs.iter().map(Peer::new).collect();
    for port in 1..=200 {
        for (pair, peer) in (0..3).zip(&mut peers) {
            let sealed = peer.seal(&request_of(pair, port));
            bench.receive(Side::Outside, &sealed);
        }
        bench.receive(Side::Inside, &from_target(&reply_to(1, port)));
        bench.poll();
    }
    assert_eq!(bench.metric(Metric::Awaiting), 800);
    assert!(bench.sent(Side::Inside).is_empty() && bench.sent(Side::Outside).is_empty());
    bench.install_inbound(&pairs[1], 0, HORIZON);
    install_outbound(&bench, &pairs[1], 5_000);
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for port in 201..=400 {
        let sealed = peers[1].seal(&request_of(1, port));
        bench.receive(Side::Outside, &sealed);
        bench.receive(Side::Inside, &from_target(&reply_to(1, port)));
        bench.poll();
        inside.extend(bench.sent(Side::Inside));
        outside.extend(bench.sent(Side::Outside));
    }
    assert_eq!(source_ports(&inside), (1..=400).collect::<Vec<_>>());
    assert_eq!(numbers(&outside), (5_000..5_400).collect::<Vec<_>>());
    assert_eq!(opened_ports(&mut peers[1], &outside), (1..=400).collect::<Vec<_>>());
    assert_eq!(bench.drops().len(), 0, "the others are kept still");
}

#[test]
fn frames_kept_before_the_lease_come_before_those_after_it() {
    let (mut bench, pairs) = filling(1);
    bench.lease.set(Nanos::ZERO);
    bench.command(WorkerCommand::Hold { until: Nanos::MAX });
    let mut peer = Peer::new(&pairs[0]);
    let mut port = 0;
    let mut next = |bench: &mut Bench| {
        port += 1;
        bench.inbound(&[peer.seal(&request_of(0, port))])
    };
    for _ in 0..400 {
        assert!(next(&mut bench).is_empty());
    }
    bench.command(WorkerCommand::Fill { keep_ms: KEEP_MS });
    for _ in 0..10 {
        assert!(next(&mut bench).is_empty(), "no lease");
    }
    bench.lease.set(Nanos::MAX);
    for _ in 0..3 {
        assert!(next(&mut bench).is_empty(), "no SA");
    }
    bench.install_inbound(&pairs[0], 0, HORIZON);
    let served: Vec<_> = (0..10).flat_map(|_| next(&mut bench)).collect();
    assert_eq!(source_ports(&served), (1..=423).collect::<Vec<_>>());
}

#[test]
fn nothing_is_treated_without_a_lease_and_what_is_kept_then_expires() {
    let (mut bench, pairs) = filling(1);
    bench.lease.set(Nanos::ZERO);
    bench.install_inbound(&pairs[0], 0, HORIZON);
    install_outbound(&bench, &pairs[0], 1);
    let sealed = Peer::new(&pairs[0]).seal(&request_of(0, 1));
    assert!(bench.inbound(&[sealed]).is_empty());
    assert!(bench.outbound(&[reply_to(0, 1)]).is_empty());
    bench.now = bench.now.plus_ms(KEEP_MS + 1);
    bench.lease.set(Nanos::MAX);
    bench.poll();
    assert!(bench.sent(Side::Inside).is_empty() && bench.sent(Side::Outside).is_empty());
    assert_eq!(bench.dropped(DropReason::HoldExpired), 2);
}

#[test]
fn a_frame_whose_sa_comes_too_late_is_dropped() {
    let (mut bench, pairs) = filling(1);
    bench.outbound(&[reply_to(0, 1)]);
    bench.now = bench.now.plus_ms(KEEP_MS);
    install_outbound(&bench, &pairs[0], 1);
    assert_eq!(bench.outbound(&[reply_to(0, 2)]).len(), 1);
    assert_eq!(bench.dropped(DropReason::HoldExpired), 1);
}

#[test]
fn horizon_floor_and_window_hold_for_what_was_kept() {
    let (mut bench, pairs) = filling(1);
    let mut peer = Peer::new(&pairs[0]);
    let first = peer.seal(&request_of(0, 1));
    peer.jump_to(11);
    let good = peer.seal(&request_of(0, 2));
    peer.jump_to(21);
    let beyond = peer.seal(&request_of(0, 3));
    assert!(bench.inbound(&[first, good.clone(), good, beyond]).is_empty());
    bench.install_inbound(&pairs[0], 10, 20);
    bench.poll();
    assert_eq!(source_ports(&bench.sent(Side::Inside)), [2]);
    let reasons = [DropReason::Ambiguous, DropReason::Replayed, DropReason::HorizonExceeded];
    assert_eq!(reasons.map(|reason| bench.dropped(reason)), [1, 1, 1]);
}

#[test]
fn a_packet_never_leaves_in_clear_in_place_of_an_sa_that_is_not_loaded() {
    let (mut bench, pairs) = filling(1);
    let stranger = frame::udp_packet(COMMON, 80, Ipv4Addr::new(10, 99, 0, 1), 1, b"no policy");
    assert!(bench.outbound(&[reply_to(0, 1), stranger]).is_empty());
    assert_eq!(bench.dropped(DropReason::NoPolicy), 1);
    bench.command(WorkerCommand::NoSuchSa(pairs[0].inbound_spi));
    bench.poll();
    bench.outbound(&[reply_to(0, 2)]);
    bench.command(WorkerCommand::Serve);
    bench.poll();
    bench.poll();
    assert!(bench.sent(Side::Outside).is_empty() && bench.sent(Side::Inside).is_empty());
    assert_eq!(bench.dropped(DropReason::NoSa), 2);
}

#[test]
fn an_spi_that_names_nothing_is_treated_as_usual_once_that_is_known() {
    let (mut bench, _) = filling(1);
    let mut stranger = Peer::new(&parameters(9, Encapsulation::Esp));
    let spi = parameters(9, Encapsulation::Esp).inbound_spi;
    bench.inbound(&[stranger.seal(&request_of(9, 1)), stranger.seal(&request_of(9, 2))]);
    assert_eq!(asked(&bench), [spi]);
    bench.command(WorkerCommand::NoSuchSa(spi));
    bench.poll();
    assert_eq!(bench.dropped(DropReason::UnknownSpi), 2);
    let told = |bench: &Bench| {
        let told = |event: &WorkerEvent| matches!(event, WorkerEvent::UnknownSpi { .. });
        bench.events().iter().filter(|event| told(event)).count()
    };
    assert_eq!(told(&bench), 1);
    bench.inbound(&[stranger.seal(&request_of(9, 3))]);
    assert_eq!(asked(&bench), [spi], "it may be there by now");
    bench.now = bench.now.plus_ms(20);
    bench.command(WorkerCommand::Serve);
    bench.poll();
    bench.poll();
    assert_eq!((bench.dropped(DropReason::UnknownSpi), told(&bench)), (3, 1));
}

#[test]
fn kept_frames_are_bounded_and_more_are_still_asked_for() {
    let (mut bench, pairs) = filling(2);
    for port in 0..=HELD_FRAMES_MAX {
        bench.outbound(&[reply_to(0, port as u16)]);
    }
    assert_eq!(bench.dropped(DropReason::HoldFull), 1);
    bench.outbound(&[reply_to(1, 1)]);
    assert_eq!(bench.dropped(DropReason::HoldFull), 2);
    assert_eq!(asked(&bench), [pairs[0].inbound_spi, pairs[1].inbound_spi]);
    install_outbound(&bench, &pairs[1], 1);
    assert_eq!(bench.outbound(&[reply_to(1, 1)]).len(), 1, "what is installed is served");
}

#[test]
fn what_could_not_be_asked_for_at_once_is_asked_for_later() {
    let (mut bench, pairs) = filling(64);
    let replies: Vec<_> = (0..64).map(|pair| reply_to(pair, 1)).collect();
    bench.outbound(&replies);
    assert_eq!(asked(&bench).len(), 32, "in one poll");
    bench.poll();
    bench.poll();
    assert_eq!(asked(&bench), pairs[32..].iter().map(|p| p.inbound_spi).collect::<Vec<_>>());
}

#[test]
fn a_full_event_ring_delays_a_question_and_loses_none() {
    let mut bench = Bench::bare(Handoff::mesh(1).remove(0), 2);
    let pairs: Vec<_> = (0..8).map(|n| parameters(n, Encapsulation::Esp)).collect();
    add_policies(&mut bench, &pairs);
    bench.command(WorkerCommand::Fill { keep_ms: KEEP_MS });
    bench.outbound(&(0..8).map(|pair| reply_to(pair, 1)).collect::<Vec<_>>());
    let mut all = Vec::new();
    for _ in 0..8 {
        all.extend(asked(&bench));
        bench.poll();
    }
    assert_eq!(all, pairs.iter().map(|pair| pair.inbound_spi).collect::<Vec<_>>());
}

#[test]
fn a_worker_that_has_all_sas_is_done_with_filling() {
    let (mut bench, pairs) = filling(1);
    let mut peer = Peer::new(&pairs[0]);
    for port in 1..=300 {
        bench.inbound(&[peer.seal(&request_of(0, port))]);
    }
    bench.install_inbound(&pairs[0], 0, HORIZON);
    bench.command(WorkerCommand::Serve);
    let mut served = Vec::new();
    for port in 301..=310 {
        served.extend(bench.inbound(&[peer.seal(&request_of(0, port))]));
    }
    assert_eq!(source_ports(&served), (1..=310).collect::<Vec<_>>());
    assert_eq!(bench.poll().packets, 0, "idle");
}

#[test]
fn a_successor_that_is_stopped_while_it_treats_kept_frames_passes_the_rest_on() {
    let (mut bench, pairs) = filling(1);
    for port in 1..=600 {
        bench.outbound(&[reply_to(0, port)]);
    }
    install_outbound(&bench, &pairs[0], 1);
    bench.command(WorkerCommand::Serve);
    bench.poll();
    assert_eq!(bench.sent(Side::Outside).len(), 256);
    bench.command(WorkerCommand::Suspend { number: 7, to: OTHER, until: Nanos::MAX });
    let mut passed = Vec::new();
    for port in 601..=610 {
        bench.receive(Side::Inside, &from_target(&reply_to(0, port)));
        bench.poll();
        passed.extend(bench.sent(Side::Inside));
    }
    let ports = passed.iter().map(|frame| {
        let packet = ipv4::View::parse(&frame[14..]).unwrap();
        u16::from_be_bytes([packet.payload()[2], packet.payload()[3]])
    });
    assert_eq!(ports.collect::<Vec<_>>(), (257..=610).collect::<Vec<_>>());
    assert_eq!(bench.metric(Metric::Sealed), 256, "nothing is sealed after the stop");
}

#[test]
fn frames_kept_for_an_ownership_that_went_elsewhere_are_passed_on_to_it() {
    let mut bench = Bench::new();
    bench.lease.set(Nanos::ZERO);
    bench.command(WorkerCommand::Hold { until: bench.now.plus_ms(50) });
    for port in 1..=10 {
        bench.outbound(&[reply(port)]);
    }
    bench.command(WorkerCommand::Forward { to: OTHER, until: bench.now.plus_ms(10) });
    bench.poll();
    assert_eq!(bench.sent(Side::Inside).len(), 10);
    bench.now = bench.now.plus_ms(60);
    bench.poll();
    assert_eq!(bench.drops().len(), 0);
}

#[test]
fn kept_frames_do_not_go_round_without_a_lease() {
    let mut bench = Bench::new();
    bench.lease.set(Nanos::ZERO);
    bench.command(WorkerCommand::Hold { until: Nanos::MAX });
    for port in 1..=10 {
        bench.outbound(&[reply(port)]);
    }
    bench.command(WorkerCommand::Serve);
    bench.poll();
    assert_eq!(bench.dropped(DropReason::HoldExpired), 10);
    assert_eq!((bench.poll().packets, bench.metric(Metric::Held)), (0, 10));

    bench.command(WorkerCommand::Hold { until: Nanos::MAX });
    bench.outbound(&[reply(1)]);
    // It expires in the very poll in which it begins.
    bench.command(WorkerCommand::Forward { to: OTHER, until: bench.now });
    for _ in 0..3 {
        bench.poll();
    }
    assert_eq!(bench.dropped(DropReason::HoldExpired), 11);
    bench.lease.set(Nanos::MAX);
    bench.poll();
    assert!(bench.sent(Side::Outside).is_empty(), "a later ownership finds nothing stale");
}

#[test]
fn an_sa_missing_at_another_worker_is_asked_for_there() {
    let mut handoffs = Handoff::mesh(2).into_iter();
    let mut first = Bench::bare(handoffs.next().unwrap(), 64);
    let mut second = Bench::bare(handoffs.next().unwrap(), 64);
    let pair = parameters(1, Encapsulation::Esp);
    first.add_policy(&pair, 1);
    second.add_policy(&pair, 1);
    for bench in [&first, &second] {
        bench.command(WorkerCommand::Fill { keep_ms: KEEP_MS });
    }
    let mut peer = Peer::new(&pair);
    first.outbound(&[reply_to(1, 1), reply_to(1, 2)]);
    first.inbound(&[peer.seal(&request_of(1, 1)), peer.seal(&request_of(1, 2))]);
    second.poll();
    assert_eq!((asked(&first), asked(&second)), (vec![], vec![pair.inbound_spi]));
    second.install_inbound(&pair, 0, HORIZON);
    install_outbound(&second, &pair, 1);
    second.poll();
    assert_eq!(source_ports(&second.sent(Side::Inside)), [1, 2]);
    assert_eq!(opened_ports(&mut peer, &second.sent(Side::Outside)), [1, 2]);
    assert!(first.drops().is_empty() && second.drops().is_empty());
}
