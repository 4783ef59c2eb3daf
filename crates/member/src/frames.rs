//! Frames the workers punt, and frames the member has sent.

use holdfast_ike::Datagram;
use holdfast_packet::path::TooNarrow;
use holdfast_packet::{MacAddr, arp, ethernet, frame, ipv4, udp};
use std::net::{Ipv4Addr, SocketAddrV4};

/// What a punted frame is to the member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Punted {
    /// An ARP packet.
    Arp(arp::Repr),
    /// An IKE message for the common address, with the station it came from.
    Ike(Datagram, MacAddr),
    /// A router's report that a packet did not fit.
    TooNarrow(TooNarrow),
    /// Nothing this member understands.
    Other,
}

impl Punted {
    /// Reads a frame. Whatever is wrong with it makes it [`Punted::Other`].
    pub(crate) fn parse(bytes: &[u8], common: Ipv4Addr) -> Self {
        let Ok(view) = ethernet::View::parse(bytes) else { return Self::Other };
        match view.ether_type() {
            ethernet::TYPE_ARP => arp::Repr::parse(view.payload()).map_or(Self::Other, Self::Arp),
            ethernet::TYPE_IPV4 => ike(view.payload(), common)
                .map(|datagram| Self::Ike(datagram, view.source()))
                .or_else(|| too_narrow(view.payload(), common).map(Self::TooNarrow))
                .unwrap_or(Self::Other),
            _ => Self::Other,
        }
    }
}

fn ike(packet: &[u8], common: Ipv4Addr) -> Option<Datagram> {
    let ip = ipv4::View::parse(packet).ok()?;
    if ip.destination() != common || ip.protocol() != ipv4::PROTOCOL_UDP || ip.is_fragment() {
        return None;
    }
    let udp = udp::View::parse(ip.payload()).ok()?;
    if !udp.checksum_is_valid(ip.source(), ip.destination()) {
        return None;
    }
    let local_port = udp.destination_port();
    let message = match local_port {
        udp::PORT_IKE => udp.payload(),
        udp::PORT_NAT_TRAVERSAL => match udp::NatTraversal::parse(udp.payload()) {
            udp::NatTraversal::Ike(message) => message,
            _ => return None,
        },
        _ => return None,
    };
    let remote = SocketAddrV4::new(ip.source(), udp.source_port());
    Some(Datagram { local_port, remote, payload: message.to_vec() })
}

fn too_narrow(packet: &[u8], common: Ipv4Addr) -> Option<TooNarrow> {
    let ip = ipv4::View::parse(packet).ok().filter(|ip| ip.destination() == common)?;
    TooNarrow::parse(&ip)
}

/// The frame that carries an IKE message of ours to `station`.
pub(crate) fn of_ike(
    datagram: &Datagram,
    common: Ipv4Addr,
    own: MacAddr,
    station: MacAddr,
) -> Vec<u8> {
    let packet = frame::ike_packet(
        common,
        datagram.local_port,
        *datagram.remote.ip(),
        datagram.remote.port(),
        &datagram.payload,
    );
    frame::ethernet_frame(station, own, &packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
    const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const STATION: MacAddr = MacAddr([2, 0, 0, 0, 0, 10]);

    fn from_peer(port: u16, message: &[u8]) -> Vec<u8> {
        let packet = frame::ike_packet(PEER, 40_000, COMMON, port, message);
        frame::ethernet_frame(OWN, STATION, &packet)
    }

    #[test]
    fn ike_is_taken_from_both_ports_without_its_marker() {
        for port in [500, 4500] {
            let datagram = Datagram {
                local_port: port,
                remote: SocketAddrV4::new(PEER, 40_000),
                payload: b"message".to_vec(),
            };
            let punted = Punted::parse(&from_peer(port, b"message"), COMMON);
            assert_eq!(punted, Punted::Ike(datagram, STATION));
        }
    }

    #[test]
    fn what_is_sent_reads_back_at_the_peer() {
        for port in [500, 4500] {
            let datagram = Datagram {
                local_port: port,
                remote: SocketAddrV4::new(PEER, port),
                payload: b"answer".to_vec(),
            };
            let bytes = of_ike(&datagram, COMMON, OWN, STATION);
            let Punted::Ike(read, station) = Punted::parse(&bytes, PEER) else { panic!("not IKE") };
            assert_eq!((read.payload, station), (b"answer".to_vec(), OWN));
        }
    }

    #[test]
    fn anything_broken_is_nothing() {
        let good = from_peer(500, b"message");
        for len in 0..good.len() - 18 {
            assert_eq!(Punted::parse(&good[..len], COMMON), Punted::Other, "{len} bytes");
        }
        let mut flipped = good;
        flipped[44] ^= 1;
        assert_eq!(Punted::parse(&flipped, COMMON), Punted::Other, "checksum");
        assert_eq!(Punted::parse(&from_peer(500, b"message"), PEER), Punted::Other, "not to us");
    }
}
