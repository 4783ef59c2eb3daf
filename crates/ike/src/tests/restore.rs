//! Another instance continues where the first was (law: commit before send).

use super::{assert_agreement, client, config, connected, the_child, the_ike_sa};
use crate::testing::{Network, Pair};
use crate::{Datagram, Ike, IkeError, IkeSpi};

#[test]
fn a_successor_repeats_the_identical_response() {
    // The gateway dies after the commit of IKE_AUTH and of every later exchange, before anything is
    // sent. The client repeats its request and gets the very octets that were lost.
    let mut pair = Pair::new(config(), client(), 30);
    pair.client.connect(pair.now);
    while !matches!(pair.sent.last(), Some((false, d)) if d.local_port == 4500) {
        pair.step();
    }
    let request = pair.sent.last().unwrap().1.clone();
    pair.inject(&request);
    let lost = pair.commit_without_sending();
    pair.take_over();
    pair.inject(&request);
    let repeated: Vec<Datagram> = pair.commit_without_sending();
    assert_eq!(lost, repeated);
    assert!(pair.connect_on(), "the client goes on with the successor");
    assert_agreement(&mut pair);
}

#[test]
fn a_successor_answers_a_rekey_again() {
    let mut pair = connected(31);
    let now = pair.now;
    let theirs = pair.client.children().next().unwrap().inbound_spi;
    pair.client.ike().rekey_child(now, theirs).unwrap();
    let ready = pair.client.poll_ready().unwrap();
    let request = pair.as_seen_by_gateway(ready.datagrams[0].clone());
    pair.inject(&request);
    let lost = pair.commit_without_sending();
    pair.take_over();
    pair.inject(&request);
    assert_eq!(lost, pair.commit_without_sending());
    pair.run_ms(5_000);
    assert_agreement(&mut pair);
}

#[test]
fn a_successor_sends_the_outstanding_request_again_and_understands_the_answer() {
    for (seed, ike) in [(32, false), (33, true)] {
        let mut pair = connected(seed);
        let (sa, child) = (the_ike_sa(&pair), the_child(&pair));
        if ike {
            pair.gateway.rekey_ike(pair.now, sa).unwrap();
        } else {
            pair.gateway.rekey_child(pair.now, child).unwrap();
        }
        let lost = pair.commit_without_sending();
        pair.take_over();
        pair.gateway.handle_timeout(pair.now);
        assert_eq!(lost, pair.commit_without_sending(), "not the same octets");
        pair.run_ms(5_000);
        assert_agreement(&mut pair);
        assert_eq!(the_ike_sa(&pair) != sa, ike);
        assert_eq!(the_child(&pair) != child, !ike);
    }
}

#[test]
fn takeovers_at_every_moment_lose_nothing() {
    // A takeover after every number of events of a busy exchange, over a network that loses.
    for seed in 700..740 {
        let mut pair = connected(seed);
        pair.network = Network { loss_percent: 20, ..Network::BAD };
        for round in 0..6_u32 {
            let now = pair.now;
            let sa = pair.gateway.sas().next().map(|sa| sa.spi).unwrap();
            let child = pair.gateway.sas().flat_map(|sa| sa.children).next().unwrap();
            // Busy is fine.
            if round % 2 == 0 {
                drop(pair.gateway.rekey_child(now, child));
            } else {
                drop(pair.gateway.rekey_ike(now, sa));
            }
            for _ in 0..(seed + u64::from(round)) % 9 {
                pair.step();
            }
            pair.take_over();
            pair.run_ms(100_000);
        }
        pair.network = Network::GOOD;
        pair.run_ms(200_000);
        assert_eq!(pair.committed.children.len(), 1, "seed {seed}");
        assert_eq!(pair.committed.ike_sas.len(), 1, "seed {seed}");
        assert_agreement(&mut pair);
    }
}

#[test]
fn export_restores_to_the_same_export() {
    let mut pair = connected(34);
    pair.gateway.rekey_ike(pair.now, the_ike_sa(&pair)).unwrap();
    pair.commit_without_sending();
    let before = pair.committed.ike_sas.clone();
    let mut successor = Ike::new(config(), [5; 32]);
    let records = before.iter().map(|(spi, state)| (*spi, state.as_bytes()));
    assert_eq!(successor.restore(pair.now, records), vec![]);
    for (spi, state) in &before {
        let sa = &successor.sas[spi];
        assert_eq!(crate::state::encode(pair.now, sa), *state);
    }
}

#[test]
fn damaged_records_are_named_and_do_no_harm() {
    let pair = connected(35);
    let (spi, state) = pair.committed.ike_sas.first_key_value().unwrap();
    let whole = state.as_bytes();
    for len in 0..whole.len() {
        let mut successor = Ike::new(config(), [5; 32]);
        let errors = successor.restore(pair.now, [(*spi, &whole[..len])].into_iter());
        assert!(matches!(errors[..], [IkeError::Restore(named, _)] if named == *spi), "{len}");
        assert_eq!(successor.sas().count(), 0);
    }
    let mut newer = whole.to_vec();
    newer[1] = 99;
    let mut successor = Ike::new(config(), [5; 32]);
    let errors = successor.restore(pair.now, [(IkeSpi(1), &newer[..])].into_iter());
    assert_eq!(errors, vec![IkeError::Restore(IkeSpi(1), "written by another version")]);
}

#[test]
fn ivs_go_on_after_a_takeover() {
    // GCM's IV follows Encrypted's header at octets 32 to 40; no two messages of one direction of one
    // IKE SA may share it, takeovers or not.
    let mut pair = connected(36);
    for _ in 0..5 {
        pair.gateway.check_liveness(pair.now, the_ike_sa(&pair)).unwrap();
        pair.run_ms(100);
        pair.take_over();
    }
    let mut seen = std::collections::BTreeMap::new();
    for (_, datagram) in pair.sent.iter().filter(|(gateway, d)| *gateway && d.local_port == 4500) {
        let iv = datagram.payload[32..40].to_vec();
        let known = seen.entry(iv).or_insert_with(|| datagram.payload.clone());
        assert_eq!(*known, datagram.payload, "an IV was used for two messages");
    }
    assert!(seen.len() >= 6);
}

#[test]
fn nothing_printable_contains_key_material() {
    let mut pair = connected(37);
    pair.gateway.rekey_ike(pair.now, the_ike_sa(&pair)).unwrap();
    let text = format!("{:?}", pair.gateway);
    let record = pair.committed.ike_sas.values().next().unwrap().as_bytes().to_vec();
    let sa = pair.gateway.sas.values().next().unwrap();
    for key in [&sa.keys.d, &sa.keys.ei, &sa.keys.er, &sa.keys.pi, &sa.keys.pr] {
        let key = key.as_bytes();
        assert!(record.windows(key.len()).any(|window| window == key), "the record has it");
        let as_list = format!("{key:?}");
        assert!(!text.contains(as_list.trim_matches(['[', ']'])), "Debug has it");
    }
    assert!(!text.contains("a key of the tests"));
}

#[test]
fn what_is_forgotten_is_unknown_at_once_and_wiped_piece_by_piece() {
    let mut pair = connected(33);
    assert_eq!((pair.gateway.sas().count(), pair.gateway.has_unwiped()), (1, false));
    pair.gateway.clear();
    assert_eq!((pair.gateway.sas().count(), pair.gateway.has_unwiped()), (0, true));
    pair.gateway.wipe_some(1);
    assert!(pair.gateway.has_unwiped(), "whether there was another one shows with the next");
    pair.gateway.wipe_some(1);
    assert!(!pair.gateway.has_unwiped());
}
