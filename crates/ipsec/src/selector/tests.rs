//! Selectors: examples, and intersection as a property over packets.

use proptest::prelude::*;

use super::*;

const WEB: u16 = 80;

fn ts(protocol: u8, ports: (u16, u16), first: [u8; 4], last: [u8; 4]) -> TrafficSelector {
    TrafficSelector { protocol, ports, addresses: (first.into(), last.into()) }
}

#[test]
fn a_prefix_is_its_range() {
    let prefix = TrafficSelector::prefix([10, 1, 2, 3].into(), 22);
    assert_eq!(prefix.addresses, ([10, 1, 0, 0].into(), [10, 1, 3, 255].into()));
    let all = TrafficSelector::prefix([10, 1, 2, 3].into(), 0);
    assert_eq!(all.addresses, (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
    let host = TrafficSelector::prefix([10, 1, 2, 3].into(), 32);
    assert_eq!(host, TrafficSelector::host([10, 1, 2, 3].into()));
    assert_eq!(TrafficSelector::prefix([10, 1, 2, 3].into(), 99), host);
}

#[test]
fn ports_matter_only_to_protocols_that_have_them() {
    let web = ts(TCP, (WEB, WEB), [10, 0, 0, 1], [10, 0, 0, 1]);
    let address = [10, 0, 0, 1].into();
    assert!(web.contains(TCP, address, WEB));
    assert!(!web.contains(TCP, address, WEB + 1));
    assert!(!web.contains(UDP, address, WEB));
    let ports_without_protocol = ts(0, (0, 100), [10, 0, 0, 1], [10, 0, 0, 1]);
    assert!(!ports_without_protocol.contains(1, address, 0), "ICMP has no port");
    assert!(TrafficSelector::host(address).contains(1, address, 0));
}

#[test]
fn opaque_ports_take_no_packet_but_intersect_with_any() {
    let address = [10, 0, 0, 1].into();
    let opaque = TrafficSelector {
        protocol: TCP,
        ports: TrafficSelector::OPAQUE_PORT,
        ..TrafficSelector::host(address)
    };
    assert!(!opaque.contains(TCP, address, 0));
    assert_eq!(opaque.intersect(&TrafficSelector::host(address)), Some(opaque));
    assert_eq!(opaque.intersect(&opaque), Some(opaque));
    assert_eq!(opaque.intersect(&ts(TCP, (1, 9), [10, 0, 0, 1], [10, 0, 0, 1])), None);
}

#[test]
fn a_full_tunnel_is_narrowed_to_what_is_configured() {
    let everything = [TrafficSelector::prefix(Ipv4Addr::UNSPECIFIED, 0)];
    let configured = [
        TrafficSelector::host([198, 51, 100, 100].into()),
        TrafficSelector::prefix([10, 0, 0, 0].into(), 8),
    ];
    assert_eq!(narrow(&everything, &configured), configured);
    assert_eq!(narrow(&configured, &everything), configured);
}

#[test]
fn the_packet_that_asked_comes_first_unless_a_wider_one_covers_it() {
    let packet = ts(TCP, (WEB, WEB), [10, 0, 0, 7], [10, 0, 0, 7]);
    let network = TrafficSelector::prefix([10, 0, 0, 0].into(), 24);
    let configured = [TrafficSelector::prefix([10, 0, 0, 0].into(), 8)];
    assert_eq!(narrow(&[packet, network], &configured), [network]);
    let elsewhere = TrafficSelector::prefix([192, 0, 2, 0].into(), 24);
    assert_eq!(narrow(&[packet, elsewhere], &configured), [packet]);
    assert_eq!(narrow(&[elsewhere], &configured), []);
    assert_eq!(narrow(&[], &configured), []);
}

#[test]
fn a_peer_cannot_make_the_list_long() {
    let proposed: Vec<TrafficSelector> = (0..=u16::MAX)
        .step_by(2)
        .map(|port| ts(TCP, (port, port), [10, 0, 0, 1], [10, 0, 0, 1]))
        .collect();
    let configured = [TrafficSelector::prefix([10, 0, 0, 0].into(), 8)];
    assert_eq!(narrow(&proposed, &configured).len(), NARROWED_MAX);
}

#[test]
fn inbound_is_outbound_seen_from_the_other_side() {
    let selectors = Selectors {
        local: vec![ts(TCP, (WEB, WEB), [198, 51, 100, 100], [198, 51, 100, 100])],
        remote: vec![TrafficSelector::prefix([10, 77, 0, 0].into(), 24)],
    };
    let reply = FlowKey {
        src: [198, 51, 100, 100].into(),
        dst: [10, 77, 0, 10].into(),
        protocol: TCP,
        src_port: WEB,
        dst_port: 50_000,
    };
    assert!(selectors.matches_outbound(&reply) && selectors.matches_inbound(&reply.reversed()));
    assert!(!selectors.matches_outbound(&reply.reversed()));
    assert!(!selectors.matches_inbound(&reply));
    assert!(!Selectors::default().matches_outbound(&reply), "no selectors take nothing");
}

/// Selectors and packets from few enough values that they meet.
fn few_selectors() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![Just(TrafficSelector::ANY_PORT), (0..6_u16, 0..6_u16)];
    (prop::sample::select(vec![0, 1, TCP, UDP]), ports, 0..8_u8, 0..8_u8).prop_map(
        |(protocol, ports, first, last)| ts(protocol, ports, [10, 0, 0, first], [10, 0, 0, last]),
    )
}

fn few_packets() -> impl Strategy<Value = (u8, Ipv4Addr, u16)> {
    (prop::sample::select(vec![1, TCP, UDP]), 0..8_u8, 0..6_u16)
        .prop_map(|(protocol, host, port)| (protocol, [10, 0, 0, host].into(), port))
}

fn takes(selectors: &[TrafficSelector], (protocol, address, port): (u8, Ipv4Addr, u16)) -> bool {
    selectors.iter().any(|selector| selector.contains(protocol, address, port))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_intersection_takes_what_both_take(
        a in few_selectors(), b in few_selectors(), packet in few_packets(),
    ) {
        let common: Vec<TrafficSelector> = a.intersect(&b).into_iter().collect();
        prop_assert_eq!(takes(&common, packet), takes(&[a], packet) && takes(&[b], packet));
        let reversed: Vec<TrafficSelector> = b.intersect(&a).into_iter().collect();
        prop_assert_eq!(takes(&common, packet), takes(&reversed, packet));
    }

    #[test]
    fn narrowing_takes_what_proposal_and_configuration_take(
        proposed in prop::collection::vec(few_selectors(), 0..5),
        configured in prop::collection::vec(few_selectors(), 0..5),
        packet in few_packets(),
    ) {
        let narrowed = narrow(&proposed, &configured);
        let both_take = takes(&proposed, packet) && takes(&configured, packet);
        prop_assert_eq!(takes(&narrowed, packet), both_take);
        for (i, a) in narrowed.iter().enumerate() {
            for (j, b) in narrowed.iter().enumerate() {
                prop_assert!(i == j || !a.covers(b), "{:?} covers {:?}", a, b);
            }
        }
    }
}
