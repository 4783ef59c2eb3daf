//! Both ends in virtual time.

mod collisions;
mod disown;
mod flows;
mod hostile;
mod initiate;
mod restore;
mod sync;

use std::net::Ipv4Addr;

use holdfast_crypto::SecretBytes;
use holdfast_ipsec::{Spi, TrafficSelector};

use crate::testing::{ClientConfig, Pair};
use crate::{Connection, Identity, IkeConfig, IkeSpi, RetransmitSchedule};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

fn psk() -> SecretBytes {
    SecretBytes::from(&b"a key of the tests"[..])
}

fn config() -> IkeConfig {
    let mut connection = Connection::new("road", psk());
    connection.local_ts = vec![TrafficSelector::host(GATEWAY)];
    connection.remote_ts = vec![TrafficSelector::prefix(Ipv4Addr::new(10, 77, 0, 0), 16)];
    connection.liveness_s = None;
    let mut config = IkeConfig::new(GATEWAY, Identity::Ipv4(GATEWAY));
    config.retransmit = RetransmitSchedule { first_ms: 500, longest_ms: 8_000, attempts: 20 };
    config.connections.push(connection);
    config
}

fn client() -> ClientConfig {
    let mut client = ClientConfig::new(CLIENT, GATEWAY, psk());
    client.local_ts = vec![TrafficSelector::host(Ipv4Addr::new(10, 77, 0, 10))];
    client.remote_ts = vec![TrafficSelector::host(GATEWAY)];
    client
}

fn connected(seed: u64) -> Pair {
    let mut pair = Pair::new(config(), client(), seed);
    assert!(pair.connect(), "seed {seed}: {:?}", pair.gateway.counters());
    pair.run_ms(100);
    assert_agreement(&mut pair);
    pair
}

/// The only IKE SA of the gateway that is in use.
fn the_ike_sa(pair: &Pair) -> IkeSpi {
    let mut in_use = pair.gateway.sas().filter(|sa| sa.state == "established");
    let spi = in_use.next().expect("an IKE SA").spi;
    assert!(in_use.next().is_none(), "more than one IKE SA");
    spi
}

/// The only Child SA of the gateway.
fn the_child(pair: &Pair) -> Spi {
    let children: Vec<_> = pair.gateway.sas().flat_map(|sa| sa.children).collect();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// Both ends have the same SAs with the same keys, and the gateway has committed what it has.
fn assert_agreement(pair: &mut Pair) {
    let of_client: Vec<_> = pair.client.children().cloned().collect();
    let committed = &pair.committed.children;
    assert_eq!(of_client.len(), committed.len(), "{of_client:?} {committed:?}");
    for theirs in of_client {
        let (ike, ours) = &committed[&theirs.outbound_spi];
        assert_eq!(ours.outbound_spi, theirs.inbound_spi);
        assert_eq!(ours.inbound_key, theirs.outbound_key);
        assert_eq!(ours.outbound_key, theirs.inbound_key);
        assert_ne!(ours.inbound_key, ours.outbound_key);
        assert_eq!(ours.esn, theirs.esn);
        assert_eq!(ours.selectors.local, theirs.selectors.remote);
        assert_eq!(ours.selectors.remote, theirs.selectors.local);
        assert!(pair.committed.ike_sas.contains_key(ike), "child of an unknown IKE SA");
    }
    let ours: Vec<_> = pair.gateway.sas().map(|sa| (sa.spi_i, sa.spi_r)).collect();
    let theirs: Vec<_> = pair.client.ike().sas().map(|sa| (sa.spi_i, sa.spi_r)).collect();
    assert_eq!(sorted(ours), sorted(theirs));
    let known: Vec<_> = pair.gateway.sas().map(|sa| sa.spi).collect();
    assert_eq!(known, pair.committed.ike_sas.keys().copied().collect::<Vec<_>>());
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}
