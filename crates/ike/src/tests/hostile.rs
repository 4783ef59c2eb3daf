//! Input that nobody honest sends: counted by name, and nothing else changes.

use proptest::prelude::*;

use super::{assert_agreement, client, config, connected, the_child, the_ike_sa};
use crate::codec::{Chain, Delete, ExchangeType, Header, Notify, NotifyType, PayloadType};
use crate::protect::{DirectionKeys, IvSource};
use crate::sa::IkeSa;
use crate::testing::{Committed, Pair};
use crate::{Datagram, Ike, Refusal};

/// Every datagram a client sent in a session with all exchanges.
fn session() -> (Pair, Vec<Datagram>) {
    let mut pair = connected(40);
    pair.gateway.rekey_child(pair.now, the_child(&pair)).unwrap();
    pair.run_ms(1_000);
    pair.gateway.rekey_ike(pair.now, the_ike_sa(&pair)).unwrap();
    pair.run_ms(1_000);
    let now = pair.now;
    let theirs = pair.client.children().next().unwrap().inbound_spi;
    pair.client.ike().rekey_child(now, theirs).unwrap();
    pair.run_ms(1_000);
    let sent = pair.sent.iter().filter(|(gateway, _)| !gateway).map(|(_, d)| d.clone()).collect();
    (pair, sent)
}

fn fingerprint(committed: &Committed) -> (Vec<Vec<u8>>, usize) {
    let records = committed.ike_sas.values().map(|state| state.as_bytes().to_vec()).collect();
    (records, committed.children.len())
}

#[test]
fn damaged_datagrams_change_nothing() {
    let (mut pair, sent) = session();
    let before = fingerprint(&pair.committed);
    for original in sent.iter().filter(|datagram| datagram.local_port == 4500) {
        for position in 0..original.payload.len() {
            let mut damaged = original.clone();
            damaged.payload[position] ^= 1 << (position % 8);
            pair.inject(&damaged);
            let mut short = original.clone();
            short.payload.truncate(position);
            pair.inject(&short);
        }
    }
    pair.commit_without_sending();
    assert_eq!(before, fingerprint(&pair.committed));
    assert!(pair.gateway.counters().refused(Refusal::Malformed) > 0);
    pair.run_ms(1_000);
    assert_agreement(&mut pair);
}

/// Everything the gateway did not act upon, and every answer it repeated.
fn accounted(pair: &Pair) -> u64 {
    let counters = pair.gateway.counters();
    let refused: u64 = counters.refusals().map(|(_, count)| count).sum();
    refused + counters.repeated_responses
}

#[test]
fn whatever_reaches_a_closed_ike_sa_is_counted() {
    let mut pair = connected(42);
    let now = pair.now;
    let theirs = pair.client.ike().sas().next().unwrap().spi;
    pair.client.ike().delete_ike(now, theirs).unwrap();
    pair.run_ms(1_000);
    assert!(pair.committed.ike_sas.is_empty());
    let delete = pair.sent.iter().rev().find(|(gateway, _)| !gateway).unwrap().1.clone();
    for bit in 0..delete.payload.len() * 8 {
        let mut damaged = delete.clone();
        damaged.payload[bit / 8] ^= 1 << (bit % 8);
        let before = accounted(&pair);
        pair.inject(&damaged);
        assert_eq!(accounted(&pair), before + 1, "bit {bit} flipped");
    }
}

#[test]
fn replayed_sessions_change_nothing() {
    let (mut pair, sent) = session();
    let before = fingerprint(&pair.committed);
    for datagram in &sent {
        pair.inject(datagram);
    }
    pair.commit_without_sending();
    assert_eq!(before, fingerprint(&pair.committed));
}

#[test]
fn a_higher_version_is_told_ours_once_a_second() {
    let mut pair = Pair::new(config(), client(), 41);
    pair.client.connect(pair.now);
    pair.step();
    let mut newer = pair.sent[0].1.clone();
    newer.payload[17] = 0x30;
    pair.commit_without_sending();
    for _ in 0..5 {
        pair.inject(&newer);
    }
    let answers = pair.commit_without_sending();
    assert_eq!(answers.len(), 1);
    assert_eq!(pair.gateway.counters().refused(Refusal::Version), 5);
}

/// What an authentic peer would send if it were hostile.
struct Insider<'a> {
    sa: &'a mut IkeSa,
    random: rand_chacha::ChaCha20Rng,
}

impl Insider<'_> {
    fn seal(&mut self, exchange: ExchangeType, first: PayloadType, content: &[u8]) -> Vec<u8> {
        let header = Header {
            spi_i: self.sa.spi_i(),
            spi_r: self.sa.spi_r(),
            exchange,
            from_initiator: self.sa.original_initiator,
            response: false,
            message_id: self.sa.next_request,
        };
        let mut counter = 1 << 40;
        let mut iv = IvSource { counter: &mut counter, random: &mut self.random };
        let keys = DirectionKeys::new(&self.sa.suite, &self.sa.keys, self.sa.original_initiator);
        keys.seal_raw(&header, first, content, &mut iv)
    }
}

/// A gateway with one IKE SA, as a record, and the client's half of it.
fn target() -> (Pair, Vec<u8>, Vec<Chain>) {
    let pair = connected(42);
    let record = pair.committed.ike_sas.values().next().unwrap().as_bytes().to_vec();
    let theirs = pair.client.children().next().unwrap().clone();
    let spi = theirs.inbound_spi.get();
    let suite = crate::algorithm::ChildSuite {
        cipher: theirs.inbound_key.algorithm(),
        esn: true,
        group: None,
    };
    let mut rekey = Chain::new();
    rekey.notify(&Notify::about_esp(NotifyType::REKEY_SA, &spi.to_be_bytes()));
    let proposal = suite.proposal(1, vec![9, 9, 9, 9]);
    rekey.push(PayloadType::SA, crate::codec::Proposal::emit_all(&[proposal]));
    rekey.push(PayloadType::NONCE, vec![7; 32]);
    rekey.push(PayloadType::TS_I, crate::codec::emit_selectors(&theirs.selectors.local));
    rekey.push(PayloadType::TS_R, crate::codec::emit_selectors(&theirs.selectors.remote));
    let mut delete = Chain::new();
    delete.push(PayloadType::DELETE, Delete::Esp(vec![spi]).emit());
    (pair, record, vec![rekey, delete])
}

#[test]
fn an_authentic_request_without_sense_closes_its_own_ike_sa_only() {
    let (mut pair, _, _) = target();
    let sa = pair.client.ike().sas.values_mut().next().unwrap();
    let mut insider = Insider { sa, random: rand_core::SeedableRng::seed_from_u64(1) };
    // A nonce payload that claims to be longer than the message.
    let bad = insider.seal(ExchangeType::CreateChildSa, PayloadType::NONCE, &[0, 0, 99, 99]);
    let remote = pair.gateway.sas().next().unwrap().peer;
    pair.inject(&Datagram { local_port: 4500, remote, payload: bad.clone() });
    let answer = pair.commit_without_sending();
    assert_eq!(answer.len(), 1);
    assert_eq!(pair.gateway.counters().refused(Refusal::InvalidSyntax), 1);
    assert!(pair.committed.ike_sas.is_empty() && pair.committed.children.is_empty());
    // The answer can be repeated.
    pair.inject(&Datagram { local_port: 4500, remote, payload: bad });
    assert_eq!(answer, pair.commit_without_sending());
}

#[test]
fn unknown_critical_payloads_are_refused_and_harmless() {
    let (mut pair, _, _) = target();
    let sa = pair.client.ike().sas.values_mut().next().unwrap();
    let mut insider = Insider { sa, random: rand_core::SeedableRng::seed_from_u64(1) };
    let critical = insider.seal(ExchangeType::Informational, PayloadType(200), &[0, 0x80, 0, 5, 1]);
    let remote = pair.gateway.sas().next().unwrap().peer;
    pair.inject(&Datagram { local_port: 4500, remote, payload: critical });
    assert_eq!(pair.commit_without_sending().len(), 1);
    assert_eq!(pair.gateway.counters().refused(Refusal::UnknownCritical), 1);
    assert_eq!(pair.gateway.sas().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut gateway = Ike::new(config(), [1; 32]);
        let remote = std::net::SocketAddrV4::new(super::CLIENT, 500);
        let datagram = Datagram { local_port: 500, remote, payload: octets };
        gateway.handle_datagram(holdfast_packet::Nanos::ZERO, &datagram);
        prop_assert_eq!(gateway.sas().count(), 0);
    }

    #[test]
    fn mutated_inits_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut pair = Pair::new(config(), client(), 43);
        pair.client.connect(pair.now);
        pair.step();
        let mut init = pair.sent[0].1.clone();
        for (at, value) in edits {
            let at = at.index(init.payload.len());
            init.payload[at] = value;
        }
        if let Some(cut) = cut {
            init.payload.truncate(cut.index(init.payload.len()) + 1);
            // The length field follows, so that parsing goes deeper than the header.
            let len = u32::try_from(init.payload.len()).unwrap().to_be_bytes();
            if let Some(field) = init.payload.get_mut(24..28) {
                field.copy_from_slice(&len);
            }
        }
        pair.inject(&init);
        prop_assert_eq!(pair.gateway.sas().count(), 0);
    }

    #[test]
    fn mutated_authentic_payloads_never_panic_or_touch_other_sas(
        which in 0..2_usize,
        kind in prop_oneof![Just(ExchangeType::CreateChildSa), Just(ExchangeType::Informational)],
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let (mut pair, record, chains) = target();
        // A second IKE SA of somebody else, which must not notice.
        let mut other = client();
        other.identity = crate::Identity::Email("other@example.org".to_owned());
        pair.client = crate::testing::Client::new(other, [3; 32]);
        let victim = *pair.committed.ike_sas.keys().next().unwrap();
        prop_assert!(pair.connect());
        let theirs: Vec<_> = pair.committed.ike_sas.iter().filter(|(spi, _)| **spi != victim)
            .map(|(spi, state)| (*spi, state.as_bytes().to_vec())).collect();
        let decoded = crate::state::decode(pair.now, victim, &record).unwrap();
        let crate::state::Record::Sa(mut sa) = decoded else { panic!("{decoded:?}") };
        // The peer's view: the same keys from the other side.
        let responder_spi = sa.local_spi.0;
        sa.local_spi = crate::IkeSpi(sa.remote_spi);
        sa.remote_spi = responder_spi;
        sa.original_initiator = true;
        sa.next_request = sa.expected_request;
        let mut content = chains[which].emit();
        for (at, value) in edits {
            let at = at.index(content.len());
            content[at] = value;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()));
        }
        let mut insider = Insider { sa: &mut sa, random: rand_core::SeedableRng::seed_from_u64(1) };
        let payload = insider.seal(kind, chains[which].first(), &content);
        let remote = std::net::SocketAddrV4::new(super::CLIENT, 4500);
        pair.inject(&Datagram { local_port: 4500, remote, payload });
        pair.commit_without_sending();
        for (spi, state) in theirs {
            prop_assert_eq!(pair.committed.ike_sas[&spi].as_bytes(), &state[..]);
        }
    }
}
