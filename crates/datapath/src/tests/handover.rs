//! The ownership moves on purpose: nothing is lost, and nothing is used twice.

use super::bench::*;
use crate::{DropReason, HELD_FRAMES_MAX, Handoff, Metric, StoppedSa, WorkerCommand, WorkerEvent};
use holdfast_ipsec::{Encapsulation, ReplayEdge};
use holdfast_packet::{MacAddr, Nanos, Side, arp, ethernet, frame};
use std::cell::Cell;

fn suspend(bench: &Bench) {
    bench.command(WorkerCommand::Suspend { number: 7, to: OTHER, until: Nanos::MAX });
}

/// Often enough for a whole report.
fn poll_some(bench: &mut Bench) {
    for _ in 0..4 {
        bench.poll();
    }
}

/// Everything reported, and whether the report came to its end.
fn report(bench: &Bench) -> (Vec<StoppedSa>, bool) {
    let mut all = Vec::new();
    let mut ended = false;
    for event in bench.events() {
        if let WorkerEvent::Stopped { number, sas, last } = event {
            assert!(number == 7 && !ended);
            all.extend(sas);
            ended = last;
        }
    }
    (all, ended)
}

fn addresses(frame: &[u8]) -> (MacAddr, MacAddr) {
    let view = ethernet::View::parse(frame).unwrap();
    (view.destination(), view.source())
}

#[test]
fn a_suspended_worker_passes_frames_on_as_they_came() {
    let mut bench = Bench::new();
    suspend(&bench);
    let sealed = bench.peer.seal(&request(1));
    bench.receive(Side::Outside, &sealed);
    let ike = from_peer(&frame::ike_packet(PEER, 500, COMMON, 500, &[0; 40]));
    bench.receive(Side::Outside, &ike);
    let clear = from_target(&reply(1));
    bench.receive(Side::Inside, &clear);
    bench.poll();
    let (outside, inside) = (bench.sent(Side::Outside), bench.sent(Side::Inside));
    assert_eq!([&outside[0][12..], &outside[1][12..]], [&sealed[12..], &ike[12..]]);
    assert_eq!(inside[0][12..], clear[12..]);
    assert_eq!(addresses(&outside[0]), (OTHER.outside, OUTSIDE_MAC));
    assert_eq!(addresses(&inside[0]), (OTHER.inside, INSIDE_MAC));
    assert_eq!((bench.metric(Metric::Forwarded), bench.metric(Metric::Opened)), (3, 0));
    bench.command(WorkerCommand::CountForwarded);
    bench.poll();
    assert!(
        bench.events().iter().any(|event| matches!(event, WorkerEvent::Forwarded { frames: 3 }))
    );
}

#[test]
fn a_suspended_worker_says_nothing_in_the_name_of_the_address() {
    let mut bench = Bench::new();
    suspend(&bench);
    let question = arp::Repr::request(PEER_MAC, PEER, COMMON).frame(MacAddr::BROADCAST);
    bench.receive(Side::Outside, &question);
    bench.poll();
    let announcement = arp::Repr::announcement(OUTSIDE_MAC, COMMON).frame(MacAddr::BROADCAST);
    bench.command(WorkerCommand::Transmit { side: Side::Outside, frame: announcement.into() });
    bench.poll();
    assert!(bench.sent(Side::Outside).is_empty());
}

#[test]
fn the_report_is_what_a_successor_must_know_exactly() {
    let mut bench = Bench::new();
    bench.outbound(&[reply(1), reply(1), reply(1)]);
    let sealed: Vec<_> = (0..5).map(|_| bench.peer.seal(&request(1))).collect();
    bench.inbound(&[sealed[0].clone(), sealed[4].clone()]);
    suspend(&bench);
    poll_some(&mut bench);
    let (stopped, ended) = report(&bench);
    let edge = ReplayEdge { right_edge: 5, unseen: vec![(2, 4)] };
    let id = bench.spi();
    assert_eq!(stopped, [StoppedSa { id, outbound_next: Some(4), edge: Some(edge) }]);
    assert!(ended);
    bench.outbound(&[reply(1)]);
    bench.inbound(&[sealed[1].clone()]);
    assert!(report(&bench).0.is_empty(), "nothing moved since");
    assert_eq!(bench.metric(Metric::Sealed), 3);
}

#[test]
fn an_sa_that_moves_in_its_table_while_another_goes_is_not_missed() {
    // Where an SA is in the table depends on its SPI: some of these sets move one to where the
    // report has been already.
    for first in (0..1_000).step_by(50) {
        let mut bench = Bench::bare(Handoff::mesh(1).remove(0), 4_096);
        let numbers = (0..48).map(|n: u32| first + n * n * n);
        let pairs: Vec<_> = numbers.map(|n| parameters(n, Encapsulation::Esp)).collect();
        for pair in &pairs {
            bench.install(pair);
            bench.poll();
            bench.peer = Peer::new(pair);
            let sealed = bench.peer.seal(&request(1));
            bench.inbound(&[sealed]);
        }
        assert_eq!(bench.metric(Metric::Authenticated), 48);
        suspend(&bench);
        bench.poll();
        for gone in &pairs[..24] {
            bench.command(WorkerCommand::RemoveOutbound(gone.inbound_spi));
            bench.command(WorkerCommand::RemoveInbound(gone.inbound_spi));
        }
        poll_some(&mut bench);
        let (stopped, ended) = report(&bench);
        for pair in &pairs[24..] {
            let reported = stopped.iter().any(|sa| sa.id == pair.inbound_spi);
            assert!(ended && reported, "{} of those from {first} on", pair.inbound_spi);
        }
    }
}

#[test]
fn an_sa_without_packets_is_not_reported() {
    let mut bench = Bench::new();
    suspend(&bench);
    poll_some(&mut bench);
    assert_eq!(report(&bench), (Vec::new(), true));
}

#[test]
fn a_worker_that_serves_again_goes_on_where_it_stopped() {
    let mut bench = Bench::new();
    bench.outbound(&[reply(1)]);
    suspend(&bench);
    bench.poll();
    bench.command(WorkerCommand::Serve);
    let out = bench.outbound(&[reply(1)]);
    assert_eq!(packet_of(&out[0])[24..28], [0, 0, 0, 2]);
}

#[test]
fn passing_on_ends_by_itself_and_then_only_the_lease_counts() {
    let mut bench = Bench::new();
    bench.lease.set(Nanos::ZERO);
    bench.command(WorkerCommand::Forward { to: OTHER, until: bench.now.plus_ms(1) });
    bench.receive(Side::Inside, &from_target(&reply(1)));
    bench.poll();
    assert_eq!(bench.sent(Side::Inside).len(), 1);
    bench.now = bench.now.plus_ms(2);
    bench.poll();
    bench.receive(Side::Inside, &from_target(&reply(1)));
    bench.poll();
    assert!(bench.sent(Side::Inside).is_empty());
    assert_eq!(bench.dropped(DropReason::NotOwner), 1);
}

#[test]
fn a_suspension_that_runs_out_leaves_no_sa_behind_whatever_the_lease_says() {
    let mut bench = Bench::new();
    bench.outbound(&[reply(1)]);
    let until = bench.now.plus_ms(1);
    bench.command(WorkerCommand::Suspend { number: 7, to: OTHER, until });
    poll_some(&mut bench);
    assert!(report(&bench).1);
    bench.now = until;
    assert!(bench.outbound(&[reply(1)]).is_empty(), "its number may be another's");
    poll_some(&mut bench);
    assert!(bench.outbound(&[reply(1)]).is_empty());
    assert_eq!((bench.metric(Metric::Sealed), bench.dropped(DropReason::NoSa)), (1, 2));
    let anew = parameters(0, Encapsulation::Esp);
    bench.install(&anew);
    bench.poll();
    assert_eq!(bench.outbound(&[reply(1)]).len(), 1, "an SA of a new ownership serves");
}

#[test]
fn a_frame_is_never_passed_to_and_fro() {
    let mut bench = Bench::new();
    bench.tables.members = vec![OTHER];
    bench.publish();
    bench.command(WorkerCommand::Forward { to: OTHER, until: Nanos::MAX });
    bench.receive(Side::Inside, &frame::ethernet_frame(INSIDE_MAC, OTHER.inside, &reply(1)));
    bench.poll();
    assert!(bench.sent(Side::Inside).is_empty());
    assert_eq!(bench.dropped(DropReason::ForwardedTwice), 1);
}

#[test]
fn a_frame_the_controller_had_already_is_passed_on_too() {
    let mut bench = Bench::new();
    suspend(&bench);
    let ike = from_peer(&frame::ike_packet(PEER, 500, COMMON, 500, &[0; 40]));
    bench.command(WorkerCommand::Pass { side: Side::Outside, frame: ike.clone().into() });
    bench.poll();
    assert_eq!(bench.sent(Side::Outside)[0][12..], ike[12..]);
}

#[test]
fn kept_frames_are_treated_in_order_once_this_member_owns() {
    let mut bench = Bench::new();
    bench.lease.set(Nanos::ZERO);
    bench.command(WorkerCommand::Hold { until: Nanos::MAX });
    for port in 1..=300 {
        let sealed = bench.peer.seal(&request(port));
        bench.receive(Side::Outside, &sealed);
        bench.receive(Side::Inside, &from_target(&reply(port)));
        bench.poll();
    }
    assert_eq!(bench.metric(Metric::Held), 600);
    bench.lease.set(Nanos::MAX);
    bench.poll();
    assert!(bench.sent(Side::Inside).is_empty(), "its SAs may not be there yet");
    bench.command(WorkerCommand::Serve);
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for port in 301..=500 {
        let sealed = bench.peer.seal(&request(port));
        bench.receive(Side::Outside, &sealed);
        bench.poll();
        inside.extend(bench.sent(Side::Inside));
        outside.extend(bench.sent(Side::Outside));
    }
    let ports: Vec<u16> =
        inside.iter().map(|frame| u16::from_be_bytes([frame[34], frame[35]])).collect();
    assert_eq!(ports, (1..=500).collect::<Vec<_>>());
    assert_eq!(outside.len(), 300);
    assert_eq!(bench.drops().len(), 0);
}

#[test]
fn kept_frames_are_bounded_in_number_and_time() {
    let mut bench = Bench::new();
    bench.lease.set(Nanos::ZERO);
    bench.command(WorkerCommand::Hold { until: bench.now.plus_ms(50) });
    for _ in 0..=HELD_FRAMES_MAX {
        bench.receive(Side::Inside, &from_target(&reply(1)));
        bench.poll();
    }
    assert_eq!(bench.dropped(DropReason::HoldFull), 1);
    bench.now = bench.now.plus_ms(50);
    bench.poll();
    assert_eq!(bench.dropped(DropReason::HoldExpired), HELD_FRAMES_MAX as u64);
    bench.receive(Side::Inside, &from_target(&reply(1)));
    bench.poll();
    assert_eq!(bench.dropped(DropReason::NotOwner), 1);
}

thread_local! {
    static CLOCK: Cell<Nanos> = const { Cell::new(Nanos::ZERO) };
}

#[test]
fn a_worker_stopped_in_the_middle_of_a_poll_sends_nothing_when_it_goes_on() {
    let mut bench = Bench::with_clock(|| CLOCK.get());
    bench.lease.set(bench.now.plus_ms(25));
    assert_eq!(bench.outbound(&[reply(1)]).len(), 1);
    CLOCK.set(bench.now.plus_ms(25));
    assert!(bench.outbound(&[reply(1)]).is_empty(), "the poll began under a lease that has ended");
    assert_eq!(bench.dropped(DropReason::LeaseExpired), 1);
}
