//! Claim 9: the communications are IPsec, with peers that know nothing of Holdfast.

use super::{c1, expect_whole, plan};
use crate::common::{Plan, Scene, expect_lawful};
use holdfast_bed::hostile::{Stranger, ipv4};
use holdfast_bed::peer::{Connection, StrongSwan};
use holdfast_bed::peers::{identity, inner, outer};
use holdfast_bed::topology::CLIENT_INNER;
use std::fs;

/// IP protocol number of TCP.
const TCP: u8 = 6;

#[test]
fn claim_09_the_communications_are_ipsec_with_unmodified_peers() {
    // Tunnel mode; transport mode is not offered.
    let plan = Plan { clients: 2, ..plan() };
    let mut scene = plan.build().expect("the bed comes up");
    // strongSwan's own proposals for one, a stronger suite wanted by the other.
    scene.swan(1).initiate().expect("the tunnel comes up");
    let suite = Connection {
        connection_settings: "proposals = aes256gcm16-prfsha384-ecp384".to_owned(),
        child_settings: "esp_proposals = aes256gcm16".to_owned(),
        identity: identity(2),
        inner: inner(2),
        ..Connection::default()
    };
    reconfigure(&mut scene, &suite);
    scene.swan(2).initiate().expect("the tunnel comes up");
    let (d1, _) = scene.owner();
    scene.wait_until_current(d1);
    let before = scene.before(&[1, 2]);
    let download = c1(&scene);

    let takeover = scene.lose(d1);
    let d2 = takeover.to;
    // By the peers' own tools: the SA with the common address is up, the old one is gone, and nobody
    // did anything.
    scene.wait_until_reestablished(&before);
    scene.wait_for_words(scene.swan(1), "received DELETE for IKE_SA home[1]", 1);
    let list = scene.swan(2).list().expect("swanctl lists");
    assert!(list.contains("ESP:AES_GCM_16-256") && list.contains("TUNNEL"), "{list}");
    expect_whole(&scene, download);
    // The peers do with it what they do with any.
    for number in [1, 2] {
        let old = scene.running_sas(d2);
        scene.swan(number).rekey_child().expect("a rekey starts");
        scene.wait_for("the Child SA to be new", |scene| !old.is_subset(&scene.running_sas(d2)));
        let old = scene.before(&[number]);
        scene.swan(number).rekey_ike().expect("a rekey starts");
        scene.wait_for("the IKE SA to be new", |scene| scene.before(&[number]) != old);
        scene.expect_traffic_of(number);
    }
    who_has_not_the_key_does_not_get_in(&mut scene);
    what_is_not_protected_does_not_get_in(&scene, d2);

    let outside = scene.captured().outside().expect("captures");
    takeover.expect_restarted(&outside, &[1, 2]);
    assert!(outside.esp_of_client > 100, "{} ESP packets", outside.esp_of_client);
    for member in [d1, d2] {
        let sent = outside.esp_of_member.get(&member).map_or(0, Vec::len);
        assert!(sent > 100, "{sent} ESP packets of member {member}");
    }
    // Everything of the tunnels is ESP or IKE, in both directions, before and after.
    expect_lawful(&outside);
}

/// The second client begins anew with other settings.
fn reconfigure(scene: &mut Scene, connection: &Connection) {
    let folder = scene.bed.folder("client2");
    let peer = scene.peers.first_mut().expect("a second client");
    peer.swan.stop();
    peer.swan = StrongSwan::start_client(&peer.host, &folder, connection).expect("charon starts");
}

fn who_has_not_the_key_does_not_get_in(scene: &mut Scene) {
    scene.swan(2).terminate().expect("a DELETE is answered");
    let wrong = Connection {
        pre_shared_key: "not the right one".to_owned(),
        identity: identity(2),
        inner: inner(2),
        ..Connection::default()
    };
    reconfigure(scene, &wrong);
    scene.swan(2).initiate().expect_err("it must not connect");
    let log = fs::read_to_string(scene.swan(2).log()).expect("charon's log");
    assert!(log.contains("AUTH_FAILED"), "it is told why");
    let (owner, _) = scene.owner();
    let connections = scene.store(owner).expect("a store").connections();
    assert!(!connections.contains("client2"), "{connections:?}");
}

/// Packets of a protected flow in clear, as from the client's own host and from its inner address.
fn what_is_not_protected_does_not_get_in(scene: &Scene, owner: u8) {
    let before = scene.dropped(owner, "protocol_unsupported");
    let stranger = Stranger::join(&scene.bed.topology).expect("a host");
    let clear = [CLIENT_INNER, outer(1)].map(|source| ipv4(source, TCP, &[0; 20]));
    stranger.send(clear.to_vec()).expect("sent");
    scene.wait_for("both to be counted", |scene| {
        scene.dropped(owner, "protocol_unsupported") >= before + 2
    });
}
