//! Both ends do something about the same SA at once (RFC 7296 sections 2.8.1, 2.8.2 and 2.25).

use holdfast_ipsec::Spi;

use super::{assert_agreement, connected, the_child, the_ike_sa};
use crate::testing::{Network, Pair};

fn client_child(pair: &Pair) -> Spi {
    pair.client.children().next().expect("a Child SA").inbound_spi
}

fn client_ike(pair: &mut Pair) -> crate::IkeSpi {
    pair.client.ike().sas().next().expect("an IKE SA").spi
}

#[test]
fn both_rekey_the_same_child_sa() {
    for seed in 200..230 {
        let mut pair = connected(seed);
        let now = pair.now;
        let (ours, theirs) = (the_child(&pair), client_child(&pair));
        pair.gateway.rekey_child(now, ours).unwrap();
        pair.client.ike().rekey_child(now, theirs).unwrap();
        pair.run_ms(2_000);
        assert_ne!(the_child(&pair), ours, "seed {seed}");
        assert_agreement(&mut pair);
    }
}

#[test]
fn both_rekey_the_ike_sa() {
    for seed in 300..330 {
        let mut pair = connected(seed);
        let now = pair.now;
        let (ours, theirs) = (the_ike_sa(&pair), client_ike(&mut pair));
        pair.gateway.rekey_ike(now, ours).unwrap();
        pair.client.ike().rekey_ike(now, theirs).unwrap();
        pair.run_ms(2_000);
        assert_ne!(the_ike_sa(&pair), ours, "seed {seed}");
        the_child(&pair);
        assert_agreement(&mut pair);
    }
}

#[test]
fn a_child_rekey_and_an_ike_rekey_cross() {
    for seed in 400..420 {
        let mut pair = connected(seed);
        let now = pair.now;
        let theirs = client_ike(&mut pair);
        pair.gateway.rekey_child(now, the_child(&pair)).unwrap();
        pair.client.ike().rekey_ike(now, theirs).unwrap();
        pair.run_ms(60_000);
        the_child(&pair);
        the_ike_sa(&pair);
        assert_agreement(&mut pair);
    }
}

#[test]
fn both_delete_the_same_child_sa() {
    let mut pair = connected(500);
    let now = pair.now;
    let theirs = client_child(&pair);
    pair.gateway.delete_child(now, the_child(&pair)).unwrap();
    pair.client.ike().delete_child(now, theirs).unwrap();
    pair.run_ms(1_000);
    assert!(pair.committed.children.is_empty());
    assert_agreement(&mut pair);
}

#[test]
fn one_deletes_what_the_other_rekeys() {
    let mut pair = connected(501);
    let now = pair.now;
    let theirs = client_child(&pair);
    pair.gateway.rekey_child(now, the_child(&pair)).unwrap();
    pair.client.ike().delete_child(now, theirs).unwrap();
    pair.run_ms(60_000);
    assert_agreement(&mut pair);
}

#[test]
fn a_child_sa_deleted_while_it_is_rekeyed_leaves_nothing() {
    for seed in 503..513 {
        let mut pair = connected(seed);
        let (now, child) = (pair.now, the_child(&pair));
        if seed % 2 == 0 {
            let theirs = client_child(&pair);
            pair.client.ike().rekey_child(now, theirs).unwrap();
        }
        pair.gateway.rekey_child(now, child).unwrap();
        pair.gateway.delete_child(now, child).unwrap();
        pair.run_ms(60_000);
        assert!(pair.committed.children.is_empty(), "seed {seed}");
        assert_agreement(&mut pair);
    }
}

/// The peer moves its Child SAs to the new IKE SA when it answers: to delete the old one alone would
/// leave them there.
#[test]
fn an_ike_sa_deleted_while_it_is_rekeyed_leaves_nothing() {
    for seed in 520..540 {
        let mut pair = connected(seed);
        let (now, ours) = (pair.now, the_ike_sa(&pair));
        if seed % 2 == 0 {
            let theirs = client_ike(&mut pair);
            pair.client.ike().rekey_ike(now, theirs).unwrap();
        }
        pair.gateway.rekey_ike(now, ours).unwrap();
        if seed % 3 == 0 {
            // The peer's own rekey has arrived, the answer to ours has not.
            pair.run_ms(15);
        }
        pair.gateway.delete_ike(now, ours).unwrap();
        if seed % 5 == 0 {
            pair.collect();
            pair.take_over();
        }
        pair.run_ms(600_000);
        assert!(pair.committed.ike_sas.is_empty(), "seed {seed}");
        assert!(pair.committed.children.is_empty(), "seed {seed}");
        assert_eq!(pair.client.ike().sas().count(), 0, "seed {seed}");
    }
}

#[test]
fn both_delete_the_ike_sa() {
    let mut pair = connected(502);
    let now = pair.now;
    let theirs = client_ike(&mut pair);
    pair.gateway.delete_ike(now, the_ike_sa(&pair)).unwrap();
    pair.client.ike().delete_ike(now, theirs).unwrap();
    pair.run_ms(60_000);
    assert!(pair.committed.ike_sas.is_empty() && pair.committed.children.is_empty());
    assert_eq!(pair.client.ike().sas().count(), 0);
}

#[test]
fn collisions_resolve_over_a_bad_network() {
    for seed in 600..660 {
        let mut pair = connected(seed);
        pair.network = Network::BAD;
        let now = pair.now;
        if seed % 2 == 0 {
            let theirs = client_child(&pair);
            pair.gateway.rekey_child(now, the_child(&pair)).unwrap();
            pair.client.ike().rekey_child(now, theirs).unwrap();
        } else {
            let theirs = client_ike(&mut pair);
            pair.gateway.rekey_ike(now, the_ike_sa(&pair)).unwrap();
            pair.client.ike().rekey_ike(now, theirs).unwrap();
        }
        pair.run_ms(200_000);
        pair.network = Network::GOOD;
        pair.run_ms(400_000);
        assert_eq!(pair.committed.children.len(), 1, "seed {seed}");
        assert_eq!(pair.committed.ike_sas.len(), 1, "seed {seed}");
        assert_agreement(&mut pair);
    }
}
