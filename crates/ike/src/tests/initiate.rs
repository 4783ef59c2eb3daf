//! A new owner begins IKE SAs in place of those it took over.

use holdfast_crypto::Group;
use holdfast_ipsec::{Selectors, TrafficSelector};

use super::{assert_agreement, config, connected, the_child, the_ike_sa};
use crate::testing::{Network, Pair};
use crate::{Dial, IkeProposal, IkeSpi, Outcome, Refusal};

fn outcomes(pair: &mut Pair) -> Vec<Outcome> {
    std::iter::from_fn(|| pair.gateway.poll_outcome()).collect()
}

/// The new IKE SA stands, begun by the gateway, and the old one is gone at both ends.
fn assert_reestablished(pair: &mut Pair, old: IkeSpi) {
    let new = the_ike_sa(pair);
    assert_ne!(new, old);
    assert_eq!(outcomes(pair), [Outcome::Reestablished { old, new }]);
    let sa = pair.gateway.sas().next().unwrap();
    assert_eq!(sa.spi_i, new.0, "the gateway is the original initiator");
    assert_eq!(pair.gateway.sas().count(), 1, "the old one is gone");
    assert_eq!(pair.gateway.begun(), 0);
    the_child(pair);
    assert_agreement(pair);
}

#[test]
fn a_successor_begins_a_new_ike_sa_and_deletes_the_old_one_at_the_peer() {
    let mut pair = connected(60);
    let (old, sent) = (the_ike_sa(&pair), pair.sent.len());
    pair.take_over();
    pair.gateway.reestablish(pair.now, old).unwrap();
    pair.gateway.reestablish(pair.now, old).unwrap();
    pair.run_ms(3_000);
    assert!(pair.sent[sent].0, "the gateway speaks first");
    assert_eq!(pair.sent[sent].1.payload[18], 34, "IKE_SA_INIT");
    assert_reestablished(&mut pair, old);
    // Both may go on from here.
    let child = the_child(&pair);
    pair.gateway.rekey_child(pair.now, child).unwrap();
    pair.run_ms(1_000);
    let (now, theirs) = (pair.now, pair.client.ike().sas().next().unwrap().spi);
    pair.client.ike().rekey_ike(now, theirs).unwrap();
    pair.run_ms(1_000);
    assert_agreement(&mut pair);
}

#[test]
fn a_cookie_and_another_group_are_detours() {
    let mut pair = connected(61);
    let old = the_ike_sa(&pair);
    let peer = pair.client.ike();
    peer.config.half_open_cookie_threshold = 0;
    let mut proposals = IkeProposal::defaults();
    proposals.iter_mut().for_each(|proposal| proposal.groups = vec![Group::Ecp384]);
    peer.config.connections[0].ike_proposals = proposals;
    pair.gateway.reestablish(pair.now, old).unwrap();
    pair.run_ms(3_000);
    assert!(pair.client.ike().counters().refused(Refusal::CookieDemanded) > 0);
    assert!(pair.client.ike().counters().refused(Refusal::InvalidKe) > 0);
    assert_reestablished(&mut pair, old);
}

#[test]
fn a_lossy_way_only_makes_it_slower() {
    for seed in 900..930 {
        let mut pair = connected(seed);
        let old = the_ike_sa(&pair);
        pair.network = Network { loss_percent: 20, ..Network::BAD };
        pair.gateway.reestablish(pair.now, old).unwrap();
        pair.run_ms(200_000);
        pair.network = Network::GOOD;
        pair.run_ms(60_000);
        println!("seed {seed}");
        assert_reestablished(&mut pair, old);
    }
}

#[test]
fn a_further_successor_repeats_the_identical_request_and_carries_on() {
    let mut pair = connected(62);
    let old = the_ike_sa(&pair);
    pair.gateway.reestablish(pair.now, old).unwrap();
    // Up to the moment our IKE_AUTH request is committed, and dead before it is sent.
    let sent = pair.sent.len();
    let lost = loop {
        pair.step();
        let answered = pair.sent[sent..].iter().any(|(ours, d)| !ours && d.payload[18] == 34);
        if answered {
            let (_, answer) = pair.sent.last().unwrap().clone();
            pair.inject(&answer);
            break pair.commit_without_sending();
        }
    };
    assert_eq!(lost[0].payload[18], 35, "IKE_AUTH");
    pair.take_over();
    pair.gateway.reestablish(pair.now, old).unwrap();
    pair.gateway.handle_timeout(pair.now);
    assert_eq!(pair.commit_without_sending(), lost, "one attempt, the same octets");
    pair.run_ms(5_000);
    assert_reestablished(&mut pair, old);
}

#[test]
fn takeovers_at_every_moment_end_with_one_ike_sa() {
    for seed in 930..960 {
        let mut pair = connected(seed);
        pair.network = Network { loss_percent: 10, ..Network::BAD };
        for round in 0..5 {
            let old = pair.gateway.sas().map(|sa| sa.spi).next().unwrap();
            // Busy is fine.
            drop(pair.gateway.reestablish(pair.now, old));
            for _ in 0..(seed * 7 + round) % 13 {
                pair.step();
            }
            pair.take_over();
            pair.run_ms(400);
        }
        pair.network = Network::GOOD;
        pair.run_ms(400_000);
        let established = pair.gateway.sas().filter(|sa| sa.state == "established").count();
        assert!(established >= 1, "seed {seed}");
        assert_eq!(pair.gateway.begun(), 0, "seed {seed}");
    }
}

#[test]
fn a_peer_out_of_reach_is_given_up_and_the_old_ike_sa_stays() {
    let mut pair = connected(63);
    let old = the_ike_sa(&pair);
    pair.network.loss_percent = 100;
    pair.gateway.reestablish(pair.now, old).unwrap();
    pair.run_ms(120_000);
    let reason = Refusal::PeerUnresponsive;
    assert_eq!(outcomes(&mut pair), [Outcome::NotReestablished { old, reason }]);
    assert_eq!((the_ike_sa(&pair), pair.gateway.begun()), (old, 0));
    assert!(pair.gateway.poll_timeout().is_none_or(|at| at > pair.now));
}

#[test]
fn a_peer_that_does_not_prove_itself_or_refuses_us_leaves_nothing_behind() {
    for refuse in [true, false] {
        let mut pair = connected(64);
        let old = the_ike_sa(&pair);
        if refuse {
            pair.client.ike().config.connections[0].psk = b"another key"[..].into();
        } else {
            // It knows the key and says it is somebody else.
            pair.client.ike().config.local_identity = crate::Identity::Fqdn("else".into());
        }
        pair.gateway.reestablish(pair.now, old).unwrap();
        pair.run_ms(3_000);
        let reason = Refusal::AuthenticationFailed;
        assert_eq!(outcomes(&mut pair), [Outcome::NotReestablished { old, reason }]);
        assert_eq!(the_ike_sa(&pair), old);
        assert_eq!(pair.committed.ike_sas.keys().copied().collect::<Vec<_>>(), [old]);
    }
}

#[test]
fn a_peer_that_refuses_the_child_sa_keeps_the_old_one() {
    let mut pair = connected(65);
    let old = the_ike_sa(&pair);
    let elsewhere = TrafficSelector::host([10, 1, 1, 1].into());
    pair.client.ike().config.connections[0].local_ts = vec![elsewhere];
    pair.gateway.reestablish(pair.now, old).unwrap();
    pair.run_ms(3_000);
    let reason = Refusal::SelectorsUnacceptable;
    assert_eq!(outcomes(&mut pair), [Outcome::NotReestablished { old, reason }]);
    assert_eq!(the_ike_sa(&pair), old);
    assert_agreement(&mut pair);
}

#[test]
fn without_the_old_keys_initial_contact_says_that_the_old_one_is_gone() {
    let mut pair = connected(66);
    let old = the_ike_sa(&pair);
    let (_, child) = pair.committed.children.values().next().unwrap().clone();
    let sa = pair.gateway.sas().next().unwrap();
    let dial = Dial {
        connection: sa.connection.clone(),
        local_port: 4500,
        peer: sa.peer,
        identity: None,
        selectors: Selectors { local: child.selectors.local, remote: child.selectors.remote },
        replaces: old,
    };
    // The successor cannot read the record.
    let records = std::mem::take(&mut pair.committed.ike_sas);
    pair.take_over();
    pair.committed.ike_sas = records;
    pair.gateway.begin(pair.now, dial).unwrap();
    pair.run_ms(3_000);
    assert!(matches!(outcomes(&mut pair)[..], [Outcome::Reestablished { .. }]));
    assert!(!pair.committed.ike_sas.contains_key(&old), "its record is cleared");
    assert_eq!(pair.client.ike().sas().count(), 1, "the peer dropped it too");
}

#[test]
fn what_cannot_be_begun_is_refused_by_name() {
    let mut pair = connected(67);
    let old = the_ike_sa(&pair);
    let mut no_connection = config();
    no_connection.connections.clear();
    pair.gateway.config = no_connection;
    let refused = pair.gateway.reestablish(pair.now, old).unwrap_err().to_string();
    assert!(refused.contains("not configured"), "{refused}");
}
