//! What the bed reads out of a captured frame. An observer's parser, written apart from the
//! product's on purpose: it must not share the product's mistakes.

use std::net::Ipv4Addr;

/// A captured Ethernet frame, as far as the bed cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An IPv4 ARP packet.
    Arp(Arp),
    /// An IPv4 packet.
    Ipv4(Ipv4),
    /// Anything else.
    Other,
}

/// An IPv4 ARP packet (RFC 826).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arp {
    /// Address the sender speaks for.
    pub sender: Ipv4Addr,
    /// Address it speaks about or asks for.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Whether it announces `address` unasked: sender and target are the same (RFC 5227).
    pub fn announces(&self, address: Ipv4Addr) -> bool {
        self.sender == address && self.target == address
    }
}

/// An IPv4 packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub content: Content,
}

/// Content of an IPv4 packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An IKE message, on port 500 or behind the non-ESP marker on port 4500.
    Ike(Ike),
    /// An ESP packet, with or without UDP encapsulation.
    Esp(Esp),
    /// A NAT keepalive (RFC 3948, 2.3).
    Keepalive,
    /// A TCP segment.
    Tcp {
        /// RST flag.
        reset: bool,
    },
    /// A UDP datagram on another port.
    Udp,
    /// An ICMP message.
    Icmp,
    /// A later fragment, or a protocol of no interest, or cut too short to tell.
    Other,
}

/// The header of an IKE message (RFC 7296, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ike {
    /// The initiator's SPI.
    pub initiator_spi: u64,
    /// The responder's SPI, 0 in the first request.
    pub responder_spi: u64,
    /// Exchange type.
    pub exchange: u8,
    /// Whether it is a response.
    pub response: bool,
    /// Message ID.
    pub message_id: u32,
}

impl Ike {
    /// Exchange type of IKE_SA_INIT.
    pub const SA_INIT: u8 = 34;
    /// Exchange type of IKE_AUTH.
    pub const AUTH: u8 = 35;
    /// Exchange type of CREATE_CHILD_SA.
    pub const CREATE_CHILD_SA: u8 = 36;
    /// Exchange type of INFORMATIONAL.
    pub const INFORMATIONAL: u8 = 37;

    /// The RFC's name of the exchange.
    pub fn exchange_name(&self) -> &'static str {
        match self.exchange {
            Self::SA_INIT => "IKE_SA_INIT",
            Self::AUTH => "IKE_AUTH",
            Self::CREATE_CHILD_SA => "CREATE_CHILD_SA",
            Self::INFORMATIONAL => "INFORMATIONAL",
            _ => "unknown exchange",
        }
    }
}

/// The start of an ESP packet (RFC 4303; RFC 4106 for the IV).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Esp {
    /// Security parameters index.
    pub spi: u32,
    /// Sequence number, the low 32 bits.
    pub sequence: u32,
    /// Explicit IV of AES-GCM.
    pub iv: u64,
}

/// Parses an Ethernet frame. `None` when it is cut short before its type is clear.
pub fn parse_ethernet(frame: &[u8]) -> Option<Frame> {
    let ether_type = u16_at(frame, 12)?;
    let payload = frame.get(14..)?;
    Some(match ether_type {
        0x0806 => parse_arp(payload).map_or(Frame::Other, Frame::Arp),
        0x0800 => parse_ipv4(payload).map_or(Frame::Other, Frame::Ipv4),
        _ => Frame::Other,
    })
}

/// Parses an IPv4 packet, as captures on a TUN device hold them.
pub fn parse_ipv4(packet: &[u8]) -> Option<Ipv4> {
    let first = *packet.first()?;
    if first >> 4 != 4 {
        return None;
    }
    let header_length = usize::from(first & 15) * 4;
    let protocol = *packet.get(9)?;
    let fragment_offset = u16_at(packet, 6)? & 0x1fff;
    let payload = packet.get(header_length..).unwrap_or_default();
    let content = if fragment_offset == 0 { parse_content(protocol, payload) } else { None };
    Some(Ipv4 {
        source: address_at(packet, 12)?,
        destination: address_at(packet, 16)?,
        content: content.unwrap_or(Content::Other),
    })
}

fn parse_arp(packet: &[u8]) -> Option<Arp> {
    let is_ipv4 = u16_at(packet, 2)? == 0x0800;
    let arp = Arp { sender: address_at(packet, 14)?, target: address_at(packet, 24)? };
    is_ipv4.then_some(arp)
}

fn parse_content(protocol: u8, payload: &[u8]) -> Option<Content> {
    match protocol {
        1 => Some(Content::Icmp),
        6 => Some(Content::Tcp { reset: payload.get(13)? & 4 != 0 }),
        17 => parse_udp(payload),
        50 => parse_esp(payload),
        _ => None,
    }
}

fn parse_udp(datagram: &[u8]) -> Option<Content> {
    let ports = [u16_at(datagram, 0)?, u16_at(datagram, 2)?];
    let payload = datagram.get(8..)?;
    if ports.contains(&500) {
        return parse_ike(payload);
    }
    if !ports.contains(&4500) {
        return Some(Content::Udp);
    }
    match payload {
        [0xff] => Some(Content::Keepalive),
        // The Ethernet padding of a short frame follows the single byte.
        [0xff, ..] if u16_at(datagram, 4)? == 9 => Some(Content::Keepalive),
        [0, 0, 0, 0, message @ ..] => parse_ike(message),
        _ => parse_esp(payload),
    }
}

fn parse_ike(message: &[u8]) -> Option<Content> {
    Some(Content::Ike(Ike {
        initiator_spi: u64_at(message, 0)?,
        responder_spi: u64_at(message, 8)?,
        exchange: *message.get(18)?,
        response: message.get(19)? & 0x20 != 0,
        message_id: u32_at(message, 20)?,
    }))
}

fn parse_esp(packet: &[u8]) -> Option<Content> {
    Some(Content::Esp(Esp {
        spi: u32_at(packet, 0)?,
        sequence: u32_at(packet, 4)?,
        iv: u64_at(packet, 8)?,
    }))
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_be_bytes)
}

fn address_at(bytes: &[u8], offset: usize) -> Option<Ipv4Addr> {
    array_at::<4>(bytes, offset).map(Ipv4Addr::from)
}

/// Builders of the frames that tests analyse.
#[cfg(test)]
pub(crate) mod samples {
    use std::net::Ipv4Addr;

    pub(crate) fn ethernet(source: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend(source);
        frame.extend(ether_type.to_be_bytes());
        frame.extend(payload);
        frame
    }

    pub(crate) fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend(payload);
        packet
    }

    pub(crate) fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        datagram.extend(port.to_be_bytes());
        datagram.extend(port.to_be_bytes());
        datagram.extend(u16::try_from(payload.len() + 8).expect("short").to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(payload);
        datagram
    }

    pub(crate) fn esp(spi: u32, sequence: u32, iv: u64) -> Vec<u8> {
        [&spi.to_be_bytes()[..], &sequence.to_be_bytes(), &iv.to_be_bytes(), &[7; 40]].concat()
    }

    pub(crate) fn ike(exchange: u8, response: bool, message_id: u32) -> Vec<u8> {
        let mut message = vec![0x11; 16];
        message.extend([46, 0x20, exchange, if response { 0x20 } else { 0 }]);
        message.extend(message_id.to_be_bytes());
        message.extend(28u32.to_be_bytes());
        message
    }

    pub(crate) fn arp(sender: Ipv4Addr, target: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
        packet.extend(mac);
        packet.extend(sender.octets());
        packet.extend([0; 6]);
        packet.extend(target.octets());
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use samples::{arp, esp, ethernet, ike, ipv4, udp};

    const A: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

    fn content(protocol: u8, payload: &[u8]) -> Content {
        match parse_ethernet(&ethernet([2; 6], 0x0800, &ipv4(A, B, protocol, payload))) {
            Some(Frame::Ipv4(packet)) => packet.content,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn esp_is_read_plain_and_encapsulated() {
        let expected = Content::Esp(Esp { spi: 0x1234, sequence: 9, iv: 77 });
        assert_eq!(content(50, &esp(0x1234, 9, 77)), expected);
        assert_eq!(content(17, &udp(4500, &esp(0x1234, 9, 77))), expected);
    }

    #[test]
    fn ike_is_read_on_both_ports() {
        let message = ike(Ike::AUTH, true, 1);
        let Content::Ike(on_500) = content(17, &udp(500, &message)) else { panic!("no IKE") };
        assert_eq!(
            (on_500.exchange_name(), on_500.response, on_500.message_id),
            ("IKE_AUTH", true, 1)
        );
        let marked = [&[0; 4], message.as_slice()].concat();
        assert_eq!(content(17, &udp(4500, &marked)), Content::Ike(on_500));
    }

    #[test]
    fn keepalives_resets_and_the_rest_are_told_apart() {
        assert_eq!(content(17, &udp(4500, &[0xff])), Content::Keepalive);
        assert_eq!(content(17, &udp(53, &[1, 2])), Content::Udp);
        let mut segment = [0u8; 20];
        assert_eq!(content(6, &segment), Content::Tcp { reset: false });
        segment[13] = 0x14;
        assert_eq!(content(6, &segment), Content::Tcp { reset: true });
        assert_eq!(content(1, &[8, 0]), Content::Icmp);
    }

    #[test]
    fn announcements_name_the_same_address_twice() {
        let frame = ethernet([2; 6], 0x0806, &arp(B, B, [2; 6]));
        let Some(Frame::Arp(packet)) = parse_ethernet(&frame) else { panic!("no ARP") };
        assert!(packet.announces(B));
        assert!(!packet.announces(A));
    }

    #[test]
    fn no_cut_frame_is_misread() {
        let whole = ethernet([2; 6], 0x0800, &ipv4(A, B, 17, &udp(4500, &esp(1, 2, 3))));
        for length in 0..whole.len() {
            let parsed = parse_ethernet(&whole[..length]);
            if let Some(Frame::Ipv4(Ipv4 { content: Content::Esp(esp), .. })) = parsed {
                assert_eq!(esp, Esp { spi: 1, sequence: 2, iv: 3 });
            }
        }
    }
}
