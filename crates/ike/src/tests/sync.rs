//! Counters brought in step after a failover (RFC 6311), both ends.

use super::{assert_agreement, client, config, the_child, the_ike_sa};
use crate::testing::{Network, Pair};
use crate::{IkeError, Outcome, Refusal, SyncSupport, TakeoverPolicy};

fn pair(seed: u64, asserted: SyncSupport) -> Pair {
    let mut ours = config();
    ours.connections[0].policy = TakeoverPolicy::Sync;
    let mut theirs = client();
    theirs.sync = asserted;
    let mut pair = Pair::new(ours, theirs, seed);
    assert!(pair.connect(), "seed {seed}");
    pair.run_ms(100);
    pair
}

fn counted_on(pair: &mut Pair) -> Vec<u64> {
    std::iter::from_fn(|| pair.client.poll_outcome())
        .filter_map(|outcome| match outcome {
            Outcome::CountOn { packets, .. } => Some(packets),
            _ => None,
        })
        .collect()
}

/// Rekeys begun by either end go through: both agree on the Message IDs.
fn assert_both_may_ask(pair: &mut Pair) {
    let child = the_child(pair);
    pair.gateway.rekey_child(pair.now, child).unwrap();
    pair.run_ms(3_000);
    assert_ne!(the_child(pair), child, "the gateway's request was answered");
    let theirs = pair.client.children().next().unwrap().inbound_spi;
    let now = pair.now;
    pair.client.ike().rekey_child(now, theirs).unwrap();
    pair.run_ms(3_000);
    assert_ne!(pair.client.children().next().unwrap().inbound_spi, theirs);
    assert_agreement(pair);
}

#[test]
fn only_what_both_assert_is_negotiated() {
    for policy in TakeoverPolicy::ALL {
        for asserted in [SyncSupport::NONE, SyncSupport::BOTH] {
            let mut ours = config();
            ours.connections[0].policy = policy;
            let mut theirs = client();
            theirs.sync = asserted;
            let mut pair = Pair::new(ours, theirs, 40);
            assert!(pair.connect());
            let expected =
                if policy == TakeoverPolicy::Sync { asserted } else { SyncSupport::NONE };
            assert_eq!(pair.gateway.sas().next().unwrap().sync, expected, "{policy:?}");
            assert_eq!(pair.client.ike().sas().next().unwrap().sync, expected, "{policy:?}");
        }
    }
}

#[test]
fn a_successor_has_the_peer_count_on_with_message_id_zero() {
    let mut pair = pair(41, SyncSupport::BOTH);
    pair.take_over();
    let (sa, sent) = (the_ike_sa(&pair), pair.sent.len());
    pair.gateway.synchronise(pair.now, sa, 1_000).unwrap();
    pair.run_ms(1_000);
    let exchange: Vec<_> = pair.sent[sent..].iter().map(|(_, d)| &d.payload[20..24]).collect();
    assert_eq!(exchange, [[0; 4], [0; 4]], "request and response");
    assert_eq!(counted_on(&mut pair), [1_000]);
    let synchronised = Outcome::Synchronised { ike: sa, counters: true };
    assert_eq!(pair.gateway.poll_outcome(), Some(synchronised));
    assert_both_may_ask(&mut pair);
}

#[test]
fn a_lost_answer_is_asked_for_anew_and_a_replay_is_not_answered() {
    let mut pair = pair(42, SyncSupport::BOTH);
    let sa = the_ike_sa(&pair);
    pair.gateway.synchronise(pair.now, sa, 7).unwrap();
    let first = pair.commit_without_sending();
    pair.run_ms(2_000);
    let all: Vec<_> = pair.sent.iter().filter(|(ours, _)| *ours).map(|(_, d)| d.clone()).collect();
    assert_ne!(all.last(), first.last(), "the same octets would be taken for a replay");
    assert_eq!(counted_on(&mut pair), [7]);

    let sent = pair.sent.len();
    let now = pair.now;
    for replayed in all.into_iter().chain(first).filter(|d| d.payload[20..24] == [0; 4]) {
        let remote = std::net::SocketAddrV4::new(super::GATEWAY, replayed.local_port);
        let seen = crate::Datagram { local_port: replayed.remote.port(), remote, ..replayed };
        pair.client.handle_datagram(now, &seen);
    }
    pair.collect();
    let answers = pair.sent[sent..].iter().filter(|(_, d)| d.payload[18] == 37).count();
    assert_eq!(answers, 0, "silently dropped");
    assert_eq!(counted_on(&mut pair), Vec::<u64>::new());
    assert_both_may_ask(&mut pair);
}

#[test]
fn a_late_answer_to_an_earlier_request_is_dropped() {
    let mut pair = pair(43, SyncSupport::BOTH);
    pair.network = Network { latency_ms: 400, ..Network::GOOD };
    let sa = the_ike_sa(&pair);
    pair.gateway.synchronise(pair.now, sa, 7).unwrap();
    pair.run_ms(10_000);
    assert!(pair.gateway.counters().refused(Refusal::UnexpectedResponse) > 0, "another nonce");
    assert!(matches!(pair.gateway.poll_outcome(), Some(Outcome::Synchronised { .. })));
    pair.network = Network::GOOD;
    assert_both_may_ask(&mut pair);
}

#[test]
fn a_second_failover_does_not_repeat_the_request() {
    for seed in 44..54 {
        let mut pair = pair(seed, SyncSupport::BOTH);
        let sa = the_ike_sa(&pair);
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..5 {
            pair.take_over();
            pair.gateway.synchronise(pair.now, sa, 7).unwrap();
            if (seed + round) % 2 == 0 {
                pair.run_ms((seed + round) * 7 % 30);
            }
            for datagram in pair.commit_without_sending() {
                assert!(seen.insert(datagram.payload), "seed {seed}: sent twice");
            }
        }
        pair.take_over();
        pair.gateway.synchronise(pair.now, sa, 7).unwrap();
        pair.run_ms(60_000);
        assert!(!counted_on(&mut pair).is_empty());
        assert_both_may_ask(&mut pair);
    }
}

#[test]
fn a_request_of_the_peer_under_way_is_made_anew() {
    let mut pair = pair(55, SyncSupport::BOTH);
    let (now, sa) = (pair.now, the_ike_sa(&pair));
    let theirs = pair.client.children().next().unwrap().inbound_spi;
    pair.client.ike().rekey_child(now, theirs).unwrap();
    while pair.client.poll_ready().is_some() {}
    pair.take_over();
    pair.gateway.synchronise(pair.now, sa, 7).unwrap();
    pair.run_ms(5_000);
    assert_ne!(pair.client.children().next().unwrap().inbound_spi, theirs);
    assert_both_may_ask(&mut pair);
}

/// The client asks for a rekey; what the gateway makes of it is committed and the answer lost.
fn rekey_without_answer(pair: &mut Pair) -> holdfast_ipsec::Spi {
    let theirs = pair.client.children().next().unwrap().inbound_spi;
    let now = pair.now;
    pair.client.ike().rekey_child(now, theirs).unwrap();
    pair.collect();
    pair.network.loss_percent = 100;
    pair.run_ms(15);
    pair.network = Network::GOOD;
    assert_eq!(pair.committed.children.len(), 2, "the old one and what replaces it");
    theirs
}

/// Synchronised Message IDs would have the peer give up its request, and leave a Child SA here that it
/// does not know.
#[test]
fn a_peer_that_waits_for_an_sa_is_answered_and_its_message_ids_left_alone() {
    for support in [SyncSupport::BOTH, SyncSupport { message_id: true, replay_counter: false }] {
        let mut pair = pair(59, support);
        let (sa, sent) = (the_ike_sa(&pair), pair.sent.len());
        let theirs = rekey_without_answer(&mut pair);
        pair.take_over();
        let begun = pair.gateway.synchronise(pair.now, sa, 7);
        assert_eq!(begun.is_ok(), support.replay_counter);
        pair.run_ms(5_000);
        let asked = pair.sent[sent..].iter().filter(|(ours, d)| !ours && d.payload[18] == 36);
        let ids: std::collections::BTreeSet<_> = asked.map(|(_, d)| &d.payload[20..24]).collect();
        assert_eq!(ids.len(), 1, "the peer was not made to give up its request");
        assert!(pair.gateway.counters().repeated_responses > 0);
        assert_ne!(pair.client.children().next().unwrap().inbound_spi, theirs);
        assert_eq!(counted_on(&mut pair).is_empty(), !support.replay_counter);
        assert_both_may_ask(&mut pair);
    }
}

#[test]
fn nothing_is_made_for_a_peer_that_is_about_to_give_up() {
    for seed in 60..70 {
        let mut pair = pair(seed, SyncSupport::BOTH);
        pair.take_over();
        let (now, sa) = (pair.now, the_ike_sa(&pair));
        pair.gateway.synchronise(now, sa, 7).unwrap();
        pair.collect();
        pair.run_ms(seed % 10);
        // The request crosses the synchronisation.
        let theirs = pair.client.children().next().unwrap().inbound_spi;
        let now = pair.now;
        pair.client.ike().rekey_child(now, theirs).unwrap();
        pair.run_ms(5_000);
        assert_ne!(pair.client.children().next().unwrap().inbound_spi, theirs, "seed {seed}");
        assert_eq!(pair.gateway.counters().refused(Refusal::TemporaryFailure), 1);
        assert_eq!(counted_on(&mut pair), [7]);
        assert_both_may_ask(&mut pair);
    }
}

/// The peer gives up the request it waits for and asks anew, as it does when it is synchronised.
fn give_up(pair: &mut Pair) {
    let now = pair.now;
    let client = pair.client.ike();
    let spi = client.sas().next().unwrap().spi;
    let mut sa = client.sas.remove(&spi).unwrap();
    client.ask_anew(&mut sa);
    client.start_next(now, &mut sa);
    client.keep(sa);
    client.flush(now);
}

#[test]
fn what_the_peer_gave_up_is_withdrawn_when_it_asks_again() {
    for seed in 70..80 {
        let mut pair = pair(seed, SyncSupport::BOTH);
        let theirs = rekey_without_answer(&mut pair);
        if seed % 2 == 0 {
            let replaced = pair.committed.replacements();
            pair.take_over();
            replaced.into_iter().for_each(|(new, old)| pair.gateway.note_replacement(new, old));
        }
        give_up(&mut pair);
        pair.run_ms(5_000);
        assert_ne!(pair.client.children().next().unwrap().inbound_spi, theirs, "seed {seed}");
        assert_both_may_ask(&mut pair);
    }
}

/// What the gateway asks for with Message ID zero is committed and lost. Returns it as the client sees it.
fn synchronise_unheard(pair: &mut Pair) -> Vec<crate::Datagram> {
    let sa = the_ike_sa(pair);
    pair.gateway.synchronise(pair.now, sa, 7).unwrap();
    let unheard = pair.commit_without_sending().into_iter().map(|datagram| {
        let remote = std::net::SocketAddrV4::new(super::GATEWAY, datagram.local_port);
        crate::Datagram { local_port: datagram.remote.port(), remote, ..datagram }
    });
    unheard.collect()
}

/// The Message IDs of synchronisations that were not answered are spent, and the peer knows nothing of
/// it: a successor that wants nothing of its own brings it in step all the same.
#[test]
fn a_successor_begins_an_unanswered_synchronisation_anew() {
    for takeovers in 1..4 {
        let mut pair = pair(81, SyncSupport::BOTH);
        for _ in 0..takeovers {
            synchronise_unheard(&mut pair);
            pair.take_over();
        }
        pair.run_ms(5_000);
        assert_eq!(counted_on(&mut pair), Vec::<u64>::new(), "that is for the successor to say");
        assert_both_may_ask(&mut pair);
    }
}

/// Somebody who heard them sends the unanswered synchronisations of earlier owners to a peer that closes
/// its Child SA. Each has it give up that request and ask anew under another Message ID, and of what
/// it says only the first arrives.
#[test]
fn synchronisations_of_predecessors_that_arrive_late_leave_message_ids_in_step() {
    for arrive in 1..4 {
        let mut pair = pair(82, SyncSupport::BOTH);
        let mut late = Vec::new();
        for _ in 0..3 {
            late.extend(synchronise_unheard(&mut pair));
            pair.take_over();
        }
        let theirs = pair.client.children().next().unwrap().inbound_spi;
        let now = pair.now;
        pair.client.ike().delete_child(now, theirs).unwrap();
        pair.collect();
        pair.network.loss_percent = 100;
        for datagram in late.iter().take(arrive) {
            pair.client.handle_datagram(now, datagram);
            pair.collect();
        }
        pair.network = Network::GOOD;
        pair.run_ms(5_000);
        assert_eq!(pair.client.children().count(), 0, "the peer knows that it is closed");
        assert_eq!(pair.committed.children.len(), 0);
        let (now, sa) = (pair.now, the_ike_sa(&pair));
        pair.gateway.rekey_ike(now, sa).unwrap();
        pair.run_ms(3_000);
        assert_ne!(the_ike_sa(&pair), sa, "the gateway's request was answered");
    }
}

#[test]
fn a_synchronisation_of_the_successor_takes_the_place_of_its_predecessors() {
    let mut pair = pair(83, SyncSupport::BOTH);
    synchronise_unheard(&mut pair);
    pair.take_over();
    let sa = the_ike_sa(&pair);
    pair.gateway.synchronise(pair.now, sa, 9).unwrap();
    pair.run_ms(5_000);
    assert_eq!(counted_on(&mut pair), [9]);
    assert_eq!(
        pair.gateway.poll_outcome(),
        Some(Outcome::Synchronised { ike: sa, counters: true })
    );
    assert_eq!(pair.gateway.poll_outcome(), None);
    assert_both_may_ask(&mut pair);
}

#[test]
fn numbers_alone_are_an_ordinary_request() {
    let mut pair = pair(56, SyncSupport { message_id: false, replay_counter: true });
    let sa = the_ike_sa(&pair);
    pair.gateway.synchronise(pair.now, sa, 9).unwrap();
    pair.run_ms(500);
    pair.gateway.synchronise(pair.now, sa, 10).unwrap();
    pair.run_ms(500);
    assert_eq!(counted_on(&mut pair), [9, 10]);
    assert_both_may_ask(&mut pair);
}

#[test]
fn message_ids_alone_are_synchronised_and_the_caller_told_to_renew() {
    let mut pair = pair(57, SyncSupport { message_id: true, replay_counter: false });
    let sa = the_ike_sa(&pair);
    assert_eq!(pair.gateway.synchronise(pair.now, sa, 9), Err(IkeError::CannotSync(sa)));
    pair.run_ms(500);
    let synchronised = Outcome::Synchronised { ike: sa, counters: false };
    assert_eq!(pair.gateway.poll_outcome(), Some(synchronised));
    assert_eq!(counted_on(&mut pair), Vec::<u64>::new());
    assert_both_may_ask(&mut pair);
}

#[test]
fn a_peer_without_the_extension_is_not_asked() {
    let mut pair = pair(58, SyncSupport::NONE);
    let (sa, sent) = (the_ike_sa(&pair), pair.sent.len());
    assert_eq!(pair.gateway.synchronise(pair.now, sa, 9), Err(IkeError::CannotSync(sa)));
    pair.run_ms(500);
    assert_eq!(pair.sent.len(), sent);
}
