//! Narrow paths: who is believed, and for how long.

use super::*;
use crate::MemberEvent;
use crate::limits;
use holdfast_packet::{frame, icmp, ipv4};
use std::net::Ipv4Addr;

const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A report that a packet of this SPI from the common address to `peer` did not fit.
fn report(common: Ipv4Addr, peer: Ipv4Addr, spi: u32, mtu: u16) -> Vec<u8> {
    let esp = [spi.to_be_bytes(), [0; 4]].concat();
    let quoted = frame::ipv4_packet(&ipv4::Repr::new(common, peer, ipv4::PROTOCOL_ESP, 0), &esp);
    let message = icmp::Repr::FragmentationNeeded { mtu, packet: &quoted };
    frame::icmp_packet(ROUTER, common, &message)
}

#[test]
fn a_router_is_believed_that_quotes_a_packet_of_ours() {
    let mut world = connected(Setup { peers: 2, ..Setup::default() });
    world.run_for_ms(500);
    let first = owner(&world);
    let member = world.node(first).unwrap().member();
    let common = member.config.addresses.common;
    let child = member.replica.state().children().next().unwrap();
    let (peer, spi) = (child.parameters.remote, child.parameters.outbound_spi.get());
    let narrow = |world: &World| count(world, |e| matches!(e, MemberEvent::PathNarrow { .. }));
    let paths = |world: &World| world.node(first).unwrap().member().paths.mtus();
    for forged in [
        report(common, peer, spi ^ 1, 1400),
        report(common, ROUTER, spi, 1400),
        report(ROUTER, peer, spi, 1400),
        report(common, peer, spi, limits::PATH_MTU_MIN - 1),
    ] {
        world.router_says(0, &forged);
        world.run_for_ms(50);
    }
    assert_eq!(narrow(&world), 0);
    world.router_says(0, &report(common, peer, spi, 1400));
    world.run_for_ms(50);
    assert_eq!(paths(&world), std::collections::BTreeMap::from([(peer, 1400)]));
    world.run_for_ms(limits::PATH_MEMORY_MS);
    assert!(paths(&world).is_empty());
    assert_eq!(narrow(&world), 1);
    assert_lawful(&mut world);
}
