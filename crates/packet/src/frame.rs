//! Whole packets and frames from their parts, for the controller, tests and the simulator.
//! They allocate; the datapath edits in place instead.

use crate::ethernet::{self, MacAddr};
use crate::{icmp, ipv4, udp};
use std::net::Ipv4Addr;

/// `packet` (IPv4) behind an Ethernet header, padded to the shortest frame.
pub fn ethernet_frame(destination: MacAddr, source: MacAddr, packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Repr { destination, source, ether_type: ethernet::TYPE_IPV4 };
    let mut frame = [header.bytes().as_slice(), packet].concat();
    frame.resize(frame.len().max(ethernet::MIN_FRAME_LEN), 0);
    frame
}

/// An IPv4 packet of any protocol.
pub fn ipv4_packet(header: &ipv4::Repr, payload: &[u8]) -> Vec<u8> {
    let header = ipv4::Repr { payload_len: payload.len(), ..*header };
    [header.bytes().as_slice(), payload].concat()
}

/// An IPv4 packet with a UDP datagram and its checksum.
pub fn udp_packet(
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    destination_port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let header = udp::Repr { source_port, destination_port }.bytes(source, destination, payload);
    let datagram = [header.as_slice(), payload].concat();
    ipv4_packet(&ipv4::Repr::new(source, destination, ipv4::PROTOCOL_UDP, 0), &datagram)
}

/// An IPv4 packet with an ICMP message.
pub fn icmp_packet(source: Ipv4Addr, destination: Ipv4Addr, message: &icmp::Repr<'_>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    // The buffer has exactly the length asked for.
    let _ = message.emit(&mut bytes);
    ipv4_packet(&ipv4::Repr::new(source, destination, ipv4::PROTOCOL_ICMP, 0), &bytes)
}

/// An IPv4 packet with an IKE message: behind the non-ESP marker when it goes to or from port 4500
/// (RFC 3948, 2.2), bare on port 500.
pub fn ike_packet(
    source: Ipv4Addr,
    source_port: u16,
    destination: Ipv4Addr,
    destination_port: u16,
    message: &[u8],
) -> Vec<u8> {
    if source_port == udp::PORT_NAT_TRAVERSAL || destination_port == udp::PORT_NAT_TRAVERSAL {
        let marked = [udp::NON_ESP_MARKER.as_slice(), message].concat();
        udp_packet(source, source_port, destination, destination_port, &marked)
    } else {
        udp_packet(source, source_port, destination, destination_port, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::udp::NatTraversal;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    #[test]
    fn ike_is_marked_on_port_4500_only() {
        let marked = ike_packet(A, 4500, B, 32_000, b"ike");
        let ip = ipv4::View::parse(&marked).unwrap();
        let udp = udp::View::parse(ip.payload()).unwrap();
        assert!(udp.checksum_is_valid(A, B));
        assert_eq!(NatTraversal::parse(udp.payload()), NatTraversal::Ike(b"ike"));

        let bare = ike_packet(A, 500, B, 500, b"ike");
        let ip = ipv4::View::parse(&bare).unwrap();
        assert_eq!(udp::View::parse(ip.payload()).unwrap().payload(), b"ike");
    }

    #[test]
    fn short_frames_are_padded() {
        let frame = ethernet_frame(MacAddr::BROADCAST, MacAddr::ZERO, &udp_packet(A, 1, B, 2, b""));
        assert_eq!(frame.len(), ethernet::MIN_FRAME_LEN);
    }
}
