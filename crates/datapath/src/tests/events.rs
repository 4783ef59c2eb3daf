//! What the controller is told, when, and how often.

use super::bench::*;
use crate::{DropReason, Metric, Retired, WorkerCommand, WorkerEvent};
use holdfast_ipsec::{Encapsulation, OutboundSa, SequenceRange};
use holdfast_packet::{Side, ethernet, frame, ipv4, udp};

fn install_range(bench: &mut Bench, numbers: u64) {
    let sa =
        OutboundSa::new(&parameters(0, Encapsulation::Esp), SequenceRange::new(1, numbers + 1));
    bench.command(WorkerCommand::InstallOutbound { id: bench.spi(), sa: Box::new(sa) });
    bench.poll();
    bench.events();
}

fn install_horizon(bench: &mut Bench, floor: u64, horizon: u64) {
    bench.install_inbound(&parameters(0, Encapsulation::Esp), floor, horizon);
    bench.poll();
    bench.events();
}

fn range_questions(events: &[WorkerEvent]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| match event {
            WorkerEvent::RangeLow { remaining, .. } => Some(*remaining),
            _ => None,
        })
        .collect()
}

/// Right edge and horizon of each question.
fn horizon_questions(events: &[WorkerEvent]) -> Vec<(u64, u64)> {
    events
        .iter()
        .filter_map(|event| match event {
            WorkerEvent::HorizonLow { right_edge, horizon, .. } => Some((*right_edge, *horizon)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_range_is_asked_for_once_at_half_and_again_after_a_while() {
    let mut bench = Bench::new();
    install_range(&mut bench, 100);
    bench.outbound(&vec![reply(1); 49]);
    assert!(range_questions(&bench.events()).is_empty());
    bench.outbound(&vec![reply(1); 10]);
    assert_eq!(range_questions(&bench.events()), [50], "once, not for every packet");
    bench.now = bench.now.plus_ms(2);
    bench.outbound(&[reply(1)]);
    assert_eq!(range_questions(&bench.events()).len(), 1, "not answered: asked again");
    bench.outbound(&[reply(1)]);
    assert!(range_questions(&bench.events()).is_empty());
}

#[test]
fn a_grant_lets_the_sa_go_on_and_the_next_half_is_of_the_new_range() {
    let mut bench = Bench::new();
    install_range(&mut bench, 10);
    assert_eq!(bench.outbound(&vec![reply(1); 12]).len(), 10);
    assert_eq!(bench.dropped(DropReason::RangeExhausted), 2);
    bench.events();
    bench.command(WorkerCommand::Grant { id: bench.spi(), range: SequenceRange::new(11, 111) });
    assert_eq!(bench.outbound(&vec![reply(1); 40]).len(), 40);
    assert!(range_questions(&bench.events()).is_empty());
    bench.outbound(&vec![reply(1); 10]);
    assert_eq!(range_questions(&bench.events()), [50]);
}

#[test]
fn the_end_of_all_numbers_is_told_once_and_nothing_follows() {
    let mut bench = Bench::new();
    let last = u64::from(u32::MAX);
    let range = SequenceRange::new(last - 1, last + 1);
    let sa = Box::new(OutboundSa::new(&parameters(0, Encapsulation::Esp), range));
    bench.command(WorkerCommand::InstallOutbound { id: bench.spi(), sa });
    assert_eq!(bench.outbound(&vec![reply(1); 5]).len(), 2);
    bench.outbound(&vec![reply(1); 5]);
    let ends = bench.events();
    let ends = ends.iter().filter(|event| matches!(event, WorkerEvent::SequenceEnd { .. }));
    assert_eq!(ends.count(), 1);
    assert_eq!(bench.dropped(DropReason::SequenceEnd), 8);
}

#[test]
fn the_horizon_is_asked_for_at_half_and_moves_when_committed() {
    let mut bench = Bench::new();
    install_horizon(&mut bench, 0, 100);
    let frames: Vec<Vec<u8>> = (0..60).map(|_| bench.peer.seal(&request(1))).collect();
    bench.inbound(&frames[..50]);
    assert!(horizon_questions(&bench.events()).is_empty());
    bench.inbound(&frames[50..]);
    assert_eq!(horizon_questions(&bench.events()), [(51, 100)]);

    bench.peer.jump_to(101);
    let beyond = bench.peer.seal(&request(1));
    assert!(bench.inbound(std::slice::from_ref(&beyond)).is_empty());
    assert_eq!(bench.dropped(DropReason::HorizonExceeded), 1);
    bench.command(WorkerCommand::Horizon { spi: bench.spi(), horizon: 300 });
    assert_eq!(bench.inbound(&[beyond]).len(), 1, "refused before, not seen");
}

#[test]
fn a_peer_that_went_on_numbering_is_caught_up_with_by_one_question() {
    let mut bench = Bench::new();
    install_horizon(&mut bench, 100, 228);
    bench.peer.jump_to(7_000);
    let sealed = bench.peer.seal(&request(1));
    assert!(bench.inbound(&[sealed]).is_empty());
    assert_eq!(horizon_questions(&bench.events()), [(7_000, 228)]);
}

#[test]
fn a_forged_number_raises_no_question() {
    let mut bench = Bench::new();
    install_horizon(&mut bench, 0, 128);
    bench.peer.jump_to(7_000);
    let mut sealed = bench.peer.seal(&request(1));
    *sealed.last_mut().unwrap() ^= 1;
    bench.inbound(&[sealed]);
    assert!(horizon_questions(&bench.events()).is_empty());
}

#[test]
fn an_authentic_packet_in_the_ambiguous_zone_is_refused_and_told_once() {
    let mut bench = Bench::new();
    install_horizon(&mut bench, 50, 178);
    bench.peer.jump_to(40);
    let frames: Vec<Vec<u8>> = (40..60).map(|_| bench.peer.seal(&request(1))).collect();
    assert_eq!(bench.inbound(&frames).len(), 9, "51 to 59");
    assert_eq!(bench.dropped(DropReason::Ambiguous), 11);
    let told = bench.events();
    let first = told.iter().filter_map(|event| match event {
        WorkerEvent::Ambiguous { sequence, .. } => Some(*sequence),
        _ => None,
    });
    assert_eq!(first.collect::<Vec<_>>(), [40]);
    let in_use = told.iter().filter(|event| matches!(event, WorkerEvent::InUse { .. }));
    assert_eq!(in_use.count(), 1, "once, when the peer counts beyond the floor");
}

/// Rate of the only question about a horizon: that of 3 new packets, whatever was replayed before.
fn rate_asked_after(bursts_replayed: u64) -> u64 {
    let mut bench = Bench::new();
    install_horizon(&mut bench, 50, 54);
    bench.peer.jump_to(40);
    let old = bench.peer.seal(&request(1));
    for _ in 0..bursts_replayed {
        bench.inbound(&vec![old.clone(); 60]);
    }
    assert_eq!(bench.dropped(DropReason::Ambiguous), 60 * bursts_replayed);
    bench.peer.jump_to(51);
    let fresh: Vec<Vec<u8>> = (0..3).map(|_| bench.peer.seal(&request(1))).collect();
    assert_eq!(bench.inbound(&fresh).len(), 3);
    let rate = bench.events().iter().find_map(|event| match event {
        WorkerEvent::HorizonLow { rate_pps, .. } => Some(*rate_pps),
        _ => None,
    });
    rate.expect("half of the way is gone")
}

#[test]
fn replays_into_the_ambiguous_zone_do_not_count_as_the_peers_rate() {
    assert_eq!(rate_asked_after(0), rate_asked_after(10));
}

#[test]
fn a_forged_packet_in_the_ambiguous_zone_tells_nothing() {
    let mut bench = Bench::new();
    install_horizon(&mut bench, 50, 178);
    bench.peer.jump_to(40);
    let mut sealed = bench.peer.seal(&request(1));
    *sealed.last_mut().unwrap() ^= 1;
    bench.inbound(&[sealed]);
    assert_eq!(bench.dropped(DropReason::IcvMismatch), 1);
    assert!(bench.events().is_empty());
}

#[test]
fn unknown_spis_are_told_with_pauses() {
    let mut bench = Bench::new();
    let stray = bench.peer.frame(&[0xab; 64]);
    bench.inbound(&vec![stray.clone(); 64]);
    assert!(matches!(
        bench.events()[..],
        [WorkerEvent::UnknownSpi { spi: 0xabab_abab, source: PEER }]
    ));
    bench.now = bench.now.plus_ms(10);
    bench.inbound(&[stray]);
    assert_eq!(bench.events().len(), 1);
}

#[test]
fn a_missing_neighbour_is_asked_for_with_pauses() {
    let mut bench = Bench::new();
    bench.tables.neighbours.clear();
    bench.publish();
    bench.outbound(&vec![reply(1); 10]);
    assert!(matches!(
        bench.events()[..],
        [WorkerEvent::Resolve { side: Side::Outside, address: PEER }]
    ));
    bench.now = bench.now.plus_ms(60);
    bench.outbound(&[reply(1)]);
    assert_eq!(bench.events().len(), 1);
    bench.command(WorkerCommand::ListSas { limit: 1 });
    bench.poll();
    let events = bench.events();
    let [WorkerEvent::Sas(sas)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(sas[0].outbound_remaining, RANGE, "no number was used up");
}

#[test]
fn ike_reaches_the_controller_as_whole_frames() {
    let mut bench = Bench::new();
    let message = [9; 60];
    for (source, port) in [(500, 500), (31_000, 4500)] {
        let packet = frame::ike_packet(PEER, source, COMMON, port, &message);
        bench.receive(Side::Outside, &from_peer(&packet));
    }
    let result = bench.poll();
    assert!(result.events_pushed);
    let events = bench.events();
    assert_eq!(events.len(), 2);
    for event in &events {
        let WorkerEvent::Punt { side: Side::Outside, frame } = event else { panic!("{event:?}") };
        let packet = ipv4::View::parse(ethernet::View::parse(frame).unwrap().payload()).unwrap();
        assert!(udp::View::parse(packet.payload()).unwrap().payload().ends_with(&message));
    }
}

#[test]
fn a_full_event_ring_defers_questions_and_keeps_memory() {
    let mut handoffs = crate::Handoff::mesh(1);
    let mut bench = Bench::bare(handoffs.remove(0), 1);
    bench.install(&parameters(0, Encapsulation::Esp));
    bench.poll();
    install_range(&mut bench, 10);
    // Replacing the outbound SA sent the old one home, which fills the ring of one.
    bench.command(WorkerCommand::RemoveInbound(bench.spi()));
    bench.poll();
    bench.outbound(&vec![reply(1); 8]);
    assert!(bench.metric(Metric::EventsDeferred) > 0);
    bench.command(WorkerCommand::RemoveOutbound(bench.spi()));
    bench.poll();
    assert!(bench.worker.has_work() || bench.ring.len() == 1, "orders wait, memory does not leak");
    let mut retired = Vec::new();
    for _ in 0..5 {
        retired.extend(bench.retired());
        bench.poll();
    }
    assert!(matches!(retired.last(), Some(Retired::Outbound(_))), "{retired:?}");
    assert!(!bench.worker.has_work());
}

#[test]
fn clear_forgets_all_sas_at_once_and_sends_them_home() {
    let mut bench = Bench::new();
    for n in 1..30 {
        bench.install(&parameters(n, Encapsulation::Esp));
    }
    bench.poll();
    bench.command(WorkerCommand::Clear);
    bench.install_inbound(&parameters(0, Encapsulation::Esp), 0, HORIZON);
    let sealed = bench.peer.seal(&request(1));
    for _ in 0..10 {
        bench.poll();
    }
    assert_eq!(bench.retired().len(), 60, "30 pairs");
    assert_eq!(bench.inbound(&[sealed]).len(), 1, "what was installed after the order stays");
    assert!(bench.outbound(&[reply(1)]).is_empty());
    assert_eq!(bench.dropped(DropReason::NoSa), 1);
}

#[test]
fn a_table_of_sas_that_is_full_gives_the_newcomer_back() {
    let mut bench = Bench::new();
    let mut returned = 0;
    for n in 1..200 {
        bench.install_inbound(&parameters(n, Encapsulation::Esp), 0, 1);
        bench.poll();
        returned += bench.retired().len();
    }
    assert!(returned > 0);
    let sealed = bench.peer.seal(&request(1));
    assert_eq!(bench.inbound(&[sealed]).len(), 1, "those already there are not harmed");
}
