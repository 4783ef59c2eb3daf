//! The flows of RFC 7296 over a good network, then over a bad one.

use std::net::Ipv4Addr;

use holdfast_crypto::{AeadAlgorithm, Group, IntegrityAlgorithm, PrfAlgorithm, SecretBytes};
use holdfast_ipsec::{Encapsulation, TrafficSelector};

use super::{CLIENT, GATEWAY, assert_agreement, client, config, connected, the_child, the_ike_sa};
use crate::testing::{Network, Pair};
use crate::{EsnPolicy, Identity, IkeEncryption, IkeSuite, Refusal};

const CBC: IkeSuite = IkeSuite {
    encryption: IkeEncryption::Cbc128,
    integrity: Some(IntegrityAlgorithm::HmacSha256_128),
    prf: PrfAlgorithm::HmacSha512,
    group: Group::Ecp256,
};

#[test]
fn a_client_connects_and_gets_what_it_may() {
    let pair = connected(1);
    let (_, child) = pair.committed.children.first_key_value().map(|(_, v)| v).unwrap();
    assert!(child.esn);
    assert_eq!(child.inbound_key.algorithm(), AeadAlgorithm::Aes256Gcm16);
    assert_eq!(child.encapsulation, Encapsulation::Udp { local_port: 4500, remote_port: 4500 });
    assert_eq!((child.local, child.remote), (GATEWAY, CLIENT));
    assert_eq!(child.selectors.local, vec![TrafficSelector::host(GATEWAY)]);
    let summary = pair.gateway.sas().next().unwrap();
    assert_eq!(summary.identity, Identity::Email("client@example.org".to_owned()));
    assert_eq!(summary.connection, "road");
    assert_eq!(pair.gateway.counters().refusals().map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn without_nat_esp_needs_no_udp() {
    let mut direct = client();
    direct.pretend_nat = false;
    let mut pair = Pair::new(config(), direct, 2);
    assert!(pair.connect());
    let (_, child) = pair.committed.children.first_key_value().map(|(_, v)| v).unwrap();
    assert_eq!(child.encapsulation, Encapsulation::Esp);
}

#[test]
fn every_suite_connects_and_rekeys() {
    let gcm = |group, prf| IkeSuite {
        encryption: IkeEncryption::Gcm(AeadAlgorithm::Aes128Gcm16),
        integrity: None,
        prf,
        group,
    };
    let cbc = |encryption, integrity| IkeSuite { encryption, integrity: Some(integrity), ..CBC };
    let suites = [
        gcm(Group::Curve25519, PrfAlgorithm::HmacSha256),
        gcm(Group::Ecp384, PrfAlgorithm::HmacSha384),
        gcm(Group::Modp2048, PrfAlgorithm::HmacSha512),
        cbc(IkeEncryption::Cbc128, IntegrityAlgorithm::HmacSha256_128),
        cbc(IkeEncryption::Cbc256, IntegrityAlgorithm::HmacSha384_192),
        cbc(IkeEncryption::Cbc256, IntegrityAlgorithm::HmacSha512_256),
    ];
    for suite in suites {
        let mut client = client();
        client.ike_suites = vec![suite];
        client.ke_group = suite.group;
        let mut pair = Pair::new(config(), client, 3);
        assert!(pair.connect(), "{suite:?}");
        pair.gateway.rekey_ike(pair.now, the_ike_sa(&pair)).unwrap();
        pair.run_ms(1_000);
        pair.gateway.rekey_child(pair.now, the_child(&pair)).unwrap();
        pair.run_ms(1_000);
        assert_agreement(&mut pair);
    }
}

#[test]
fn a_wrong_guess_of_the_group_costs_a_round_trip() {
    let mut guess = client();
    guess.ike_suites = vec![CBC];
    guess.ke_group = Group::Curve25519;
    let mut pair = Pair::new(config(), guess, 4);
    assert!(pair.connect());
    assert_eq!(pair.gateway.counters().refused(Refusal::InvalidKe), 1);
    assert_agreement(&mut pair);
}

#[test]
fn no_common_proposal_is_said() {
    let mut ours = config();
    ours.connections[0].ike_proposals = vec!["aes256gcm16-prfsha384-ecp384".parse().unwrap()];
    let mut pair = Pair::new(ours, client(), 5);
    assert!(!pair.connect());
    assert_eq!(pair.client.failure(), Some(14));
    assert_eq!(pair.gateway.counters().refused(Refusal::NoProposal), 1);
    assert!(pair.committed.ike_sas.is_empty());
}

#[test]
fn the_wrong_key_establishes_nothing() {
    let mut wrong = client();
    wrong.psk = SecretBytes::from(&b"another key"[..]);
    let mut pair = Pair::new(config(), wrong, 6);
    assert!(!pair.connect());
    assert_eq!(pair.client.failure(), Some(24));
    assert_eq!(pair.gateway.counters().refused(Refusal::AuthenticationFailed), 1);
    assert_eq!(pair.gateway.sas().count(), 0);
    assert!(pair.committed.ike_sas.is_empty() && pair.committed.children.is_empty());
}

#[test]
fn an_unknown_identity_establishes_nothing() {
    let mut ours = config();
    ours.connections[0].remote_identity = Some("other@example.org".parse().unwrap());
    let mut pair = Pair::new(ours, client(), 7);
    assert!(!pair.connect());
    assert_eq!(pair.client.failure(), Some(24));
    assert_eq!(pair.gateway.counters().refused(Refusal::UnknownIdentity), 1);
}

#[test]
fn the_connection_of_the_key_is_taken() {
    let mut ours = config();
    let mut other = ours.connections[0].clone();
    other.name = "other".to_owned();
    other.psk = SecretBytes::from(&b"another key"[..]);
    ours.connections.insert(0, other);
    let mut pair = Pair::new(ours, client(), 8);
    assert!(pair.connect());
    assert_eq!(pair.gateway.sas().next().unwrap().connection, "road");
}

#[test]
fn selectors_are_narrowed_and_refused() {
    let mut wide = client();
    let everything = TrafficSelector::range(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    wide.local_ts = vec![TrafficSelector::host(CLIENT), everything];
    wide.remote_ts = vec![everything];
    let mut pair = Pair::new(config(), wide, 9);
    assert!(pair.connect());
    assert_agreement(&mut pair);
    let (_, child) = pair.committed.children.first_key_value().map(|(_, v)| v).unwrap();
    assert_eq!(child.selectors.remote, config().connections[0].remote_ts);

    let mut foreign = client();
    foreign.local_ts = vec![TrafficSelector::host(CLIENT)];
    let mut pair = Pair::new(config(), foreign, 10);
    assert!(pair.connect(), "the IKE SA stands without a Child SA");
    assert!(pair.committed.children.is_empty());
    assert_eq!(pair.gateway.counters().refused(Refusal::SelectorsUnacceptable), 1);
}

#[test]
fn esn_follows_the_policy() {
    for (policy, offered, expected) in [
        (EsnPolicy::Never, true, Some(false)),
        (EsnPolicy::Allow, false, Some(false)),
        (EsnPolicy::Allow, true, Some(true)),
        (EsnPolicy::Require, true, Some(true)),
        (EsnPolicy::Require, false, None),
    ] {
        let (mut ours, mut theirs) = (config(), client());
        ours.connections[0].esn = policy;
        theirs.esn = offered;
        let mut pair = Pair::new(ours, theirs, 11);
        assert!(pair.connect());
        let esn = pair.committed.children.values().next().map(|(_, child)| child.esn);
        assert_eq!(esn, expected, "{policy:?} {offered}");
        assert_agreement(&mut pair);
    }
}

#[test]
fn long_messages_travel_in_fragments() {
    let mut long = client();
    long.ballast = 4_000;
    long.fragment_size = 576;
    let mut ours = config();
    ours.fragment_size = 160;
    let mut pair = Pair::new(ours, long, 12);
    pair.network = Network { jitter_ms: 30, ..Network::GOOD };
    assert!(pair.connect());
    pair.run_ms(500);
    assert_agreement(&mut pair);
    let longest = |of_gateway| {
        let sent = pair.sent.iter().filter(|(from, d)| *from == of_gateway && d.local_port == 4500);
        sent.map(|(_, d)| d.payload.len()).max().unwrap()
    };
    assert!(longest(false) <= 576 - 32, "{}", longest(false));
    assert!(longest(true) <= 160 - 32, "{}", longest(true));
}

#[test]
fn cookies_are_demanded_above_the_threshold() {
    let mut ours = config();
    ours.half_open_cookie_threshold = 0;
    let mut pair = Pair::new(ours, client(), 13);
    assert!(pair.connect());
    assert_eq!(pair.gateway.counters().refused(Refusal::CookieDemanded), 1);
    assert_agreement(&mut pair);
}

#[test]
fn half_open_sas_are_limited_and_expire() {
    let mut ours = config();
    ours.half_open_limit = 3;
    let mut pair = Pair::new(ours.clone(), client(), 14);
    pair.network.loss_percent = 100;
    for seed in 20..25 {
        let mut other = Pair::new(ours.clone(), client(), seed);
        other.client.connect(other.now);
        other.step();
        let init = other.sent[0].1.clone();
        pair.inject(&init);
    }
    assert_eq!(pair.gateway.half_open(), 3);
    assert_eq!(pair.gateway.counters().refused(Refusal::HalfOpenLimit), 2);
    pair.run_ms(31_000);
    assert_eq!(pair.gateway.half_open(), 0);
    assert_eq!(pair.gateway.counters().refused(Refusal::HalfOpenTimeout), 3);
}

#[test]
fn initial_contact_closes_what_was_before() {
    let mut pair = connected(15);
    let (before, child) = (the_ike_sa(&pair), the_child(&pair));
    pair.client = crate::testing::Client::new(client(), [9; 32]);
    assert!(pair.connect());
    assert_ne!(the_ike_sa(&pair), before);
    assert!(!pair.committed.children.contains_key(&child));
    assert_agreement(&mut pair);
}

#[test]
fn either_side_rekeys_a_child_sa() {
    let mut pair = connected(16);
    let first = the_child(&pair);
    pair.gateway.rekey_child(pair.now, first).unwrap();
    pair.run_ms(1_000);
    let second = the_child(&pair);
    assert_ne!(first, second);
    assert_agreement(&mut pair);
    let theirs = pair.client.children().next().unwrap().inbound_spi;
    let now = pair.now;
    pair.client.ike().rekey_child(now, theirs).unwrap();
    pair.run_ms(1_000);
    assert_ne!(the_child(&pair), second);
    assert_agreement(&mut pair);
    assert_eq!(pair.gateway.counters().child_rekeys, 2);
}

#[test]
fn rekeys_can_have_a_key_exchange_of_their_own() {
    let mut ours = config();
    ours.connections[0].esp_proposals = vec!["aes256gcm16-ecp256".parse().unwrap()];
    let mut pair = Pair::new(ours, client(), 17);
    assert!(pair.connect());
    for _ in 0..2 {
        pair.gateway.rekey_child(pair.now, the_child(&pair)).unwrap();
        pair.run_ms(1_000);
        assert_agreement(&mut pair);
    }
    // Now the client rekeys, with the group of the SA it replaces.
    let theirs = pair.client.children().next().unwrap().inbound_spi;
    let now = pair.now;
    pair.client.ike().rekey_child(now, theirs).unwrap();
    pair.run_ms(1_000);
    assert_agreement(&mut pair);
    assert_eq!(pair.gateway.counters().child_rekeys, 3);
}

#[test]
fn either_side_rekeys_the_ike_sa() {
    let mut pair = connected(18);
    let (first, child) = (the_ike_sa(&pair), the_child(&pair));
    pair.gateway.rekey_ike(pair.now, first).unwrap();
    pair.run_ms(1_000);
    let second = the_ike_sa(&pair);
    assert_ne!(first, second);
    assert_eq!(the_child(&pair), child, "Child SAs are inherited");
    assert_agreement(&mut pair);
    let now = pair.now;
    let theirs = pair.client.ike().sas().next().unwrap().spi;
    pair.client.ike().rekey_ike(now, theirs).unwrap();
    pair.run_ms(1_000);
    assert_ne!(the_ike_sa(&pair), second);
    assert_agreement(&mut pair);
    // The heir works: rekey its Child SA, then close it.
    pair.gateway.rekey_child(pair.now, child).unwrap();
    pair.run_ms(1_000);
    assert_agreement(&mut pair);
    pair.gateway.delete_ike(pair.now, the_ike_sa(&pair)).unwrap();
    pair.run_ms(1_000);
    assert_agreement(&mut pair);
    assert!(pair.committed.ike_sas.is_empty() && pair.committed.children.is_empty());
}

#[test]
fn either_side_deletes() {
    let mut pair = connected(19);
    pair.gateway.delete_child(pair.now, the_child(&pair)).unwrap();
    pair.run_ms(1_000);
    assert_agreement(&mut pair);
    assert!(pair.committed.children.is_empty());
    let now = pair.now;
    let theirs = pair.client.ike().sas().next().unwrap().spi;
    pair.client.ike().delete_ike(now, theirs).unwrap();
    pair.run_ms(1_000);
    assert!(pair.committed.ike_sas.is_empty());
    assert_eq!(pair.client.ike().sas().count(), 0);
}

#[test]
fn a_dead_peer_is_noticed_and_forgotten() {
    let mut ours = config();
    ours.connections[0].liveness_s = Some(10);
    let mut pair = Pair::new(ours, client(), 20);
    assert!(pair.connect());
    pair.run_ms(60_000);
    assert_eq!(pair.gateway.sas().count(), 1, "a peer that answers lives");
    pair.network.loss_percent = 100;
    pair.run_ms(300_000);
    assert_eq!(pair.gateway.counters().refused(Refusal::PeerUnresponsive), 1);
    assert!(pair.committed.ike_sas.is_empty() && pair.committed.children.is_empty());
    assert_eq!(pair.gateway.poll_timeout(), None);
}

#[test]
fn lifetimes_are_kept_by_rekeying() {
    let mut ours = config();
    ours.connections[0].child_lifetime_s = 100;
    ours.connections[0].ike_lifetime_s = 350;
    let mut pair = Pair::new(ours, client(), 21);
    assert!(pair.connect());
    pair.run_ms(1_000_000);
    assert_agreement(&mut pair);
    let counters = pair.gateway.counters();
    assert!(counters.child_rekeys >= 9, "{counters:?}");
    assert!(counters.ike_rekeys >= 2, "{counters:?}");
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut pair = connected(22);
    let child = the_child(&pair);
    // The NAT gives the client another port: its next request comes from there.
    let now = pair.now;
    let theirs = pair.client.ike().sas().next().unwrap().spi;
    pair.client.ike().check_liveness(now, theirs).unwrap();
    let mut moved = pair.client.poll_ready().unwrap().datagrams.remove(0);
    moved.remote = std::net::SocketAddrV4::new(CLIENT, 61_000);
    pair.inject(&moved);
    assert_eq!(pair.gateway.sas().next().unwrap().peer.port(), 61_000);
    // Its Child SA is rekeyed to have the new port.
    let rekey = pair.commit_without_sending();
    assert!(rekey.iter().all(|datagram| datagram.remote.port() == 61_000));
    assert_eq!(rekey.len(), 2, "an answer and a request for {child}");
}

#[test]
fn everything_works_over_a_bad_network() {
    for seed in 100..140 {
        let mut pair = Pair::new(config(), client(), seed);
        pair.network = Network::BAD;
        assert!(pair.connect(), "seed {seed}");
        for round in 0..4 {
            let now = pair.now;
            // Requests may be busy or their SA just gone; what counts is that both ends agree later.
            let spi = pair.gateway.sas().next().map(|sa| sa.spi);
            let child = pair.gateway.sas().flat_map(|sa| sa.children).next();
            match (round, spi, child) {
                (0 | 2, _, Some(child)) => drop(pair.gateway.rekey_child(now, child)),
                (_, Some(spi), _) => drop(pair.gateway.rekey_ike(now, spi)),
                _ => {}
            }
            let theirs = pair.client.children().next().map(|child| child.inbound_spi);
            if let (1, Some(theirs)) = (round, theirs) {
                drop(pair.client.ike().rekey_child(now, theirs));
            }
            pair.run_ms(90_000);
        }
        pair.network = Network::GOOD;
        pair.run_ms(120_000);
        assert_agreement(&mut pair);
        assert_eq!(pair.committed.children.len(), 1, "seed {seed}");
        assert_eq!(pair.committed.ike_sas.len(), 1, "seed {seed}");
    }
}
