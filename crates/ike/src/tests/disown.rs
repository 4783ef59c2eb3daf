//! A peer that sends to an SPI that names nothing here.

use std::net::Ipv4Addr;

use holdfast_ipsec::Spi;

use super::{CLIENT, connected, the_child, the_ike_sa};
use crate::testing::Pair;
use crate::{IkeError, IkeSpi};

/// The gateway forgets the Child SA, as if another owner had deleted it and the peer not heard of it.
fn forget_child(pair: &mut Pair) -> (IkeSpi, Spi) {
    let (ike, child) = (the_ike_sa(pair), the_child(pair));
    pair.gateway.sas.get_mut(&ike).unwrap().children.clear();
    pair.gateway.child_owners.remove(&child);
    pair.committed.children.remove(&child);
    (ike, child)
}

#[test]
fn a_peer_deletes_its_half_of_a_child_sa_that_is_gone_here() {
    let mut pair = connected(1);
    let (ike, child) = forget_child(&mut pair);
    assert_eq!(pair.client.children().count(), 1);
    assert!(!pair.gateway.uses(child));
    pair.gateway.disown(pair.now, ike, (child, true)).unwrap();
    pair.run_ms(1_000);
    assert_eq!(pair.client.children().count(), 0, "it was told");
    assert_eq!(pair.gateway.counters().disowned, 1);
    assert_eq!(the_ike_sa(&pair), ike, "the IKE SA goes on");
}

#[test]
fn an_spi_nobody_knows_is_named_and_changes_nothing() {
    let mut pair = connected(2);
    let (ike, child) = (the_ike_sa(&pair), the_child(&pair));
    let unknown = Spi::new(child.get() ^ 0xff).unwrap();
    pair.gateway.disown(pair.now, ike, (unknown, false)).unwrap();
    pair.run_ms(1_000);
    assert_eq!(pair.gateway.counters().disowned, 1);
    assert_eq!(pair.client.children().count(), 1);
    // The window is free again.
    pair.gateway.rekey_child(pair.now, child).unwrap();
    pair.run_ms(1_000);
    assert_ne!(the_child(&pair), child);
}

#[test]
fn an_spi_in_use_is_never_disowned_not_even_one_that_came_into_use_meanwhile() {
    let mut pair = connected(3);
    let (ike, child) = (the_ike_sa(&pair), the_child(&pair));
    assert_eq!(pair.gateway.disown(pair.now, ike, (child, false)), Err(IkeError::Busy));
    let offered = Spi::new(child.get() ^ 0xff).unwrap();
    // The window is taken, so it waits.
    pair.gateway.check_liveness(pair.now, ike).unwrap();
    pair.gateway.disown(pair.now, ike, (offered, false)).unwrap();
    pair.gateway.child_owners.insert(offered, ike);
    pair.run_ms(1_000);
    assert_eq!(pair.gateway.counters().disowned, 0);
}

#[test]
fn a_peer_is_found_by_its_address_whatever_its_ike_sa_is_called_now() {
    let mut pair = connected(4);
    let first = the_ike_sa(&pair);
    assert_eq!(pair.gateway.only_peer_at(CLIENT), Some(first));
    assert_eq!(pair.gateway.only_peer_at(Ipv4Addr::new(192, 0, 2, 1)), None);
    pair.gateway.rekey_ike(pair.now, first).unwrap();
    pair.run_ms(1_000);
    let second = the_ike_sa(&pair);
    assert_ne!(first, second);
    assert_eq!(pair.gateway.only_peer_at(CLIENT), Some(second));
    pair.take_over();
    assert_eq!(pair.gateway.only_peer_at(CLIENT), Some(second), "a successor finds it too");
    pair.gateway.delete_ike(pair.now, second).unwrap();
    pair.run_ms(1_000);
    assert_eq!(pair.gateway.only_peer_at(CLIENT), None);
    assert!(pair.gateway.places.is_empty(), "nothing is kept of it");
}
