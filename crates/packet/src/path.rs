//! What a router says of a path that is too narrow (RFC 1191).

use crate::field::{u16_at, u32_at};
use crate::{icmp, ipv4, udp};
use std::net::Ipv4Addr;

/// The narrowest links there are to be expected (RFC 1191, 7.1), for routers that do not say how narrow
/// theirs is.
const PLATEAUS: [u16; 9] = [17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 576, 508, 296];

/// A report that a packet of ESP did not fit and forbade fragmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooNarrow {
    /// The longest packet that would have fitted, in bytes.
    pub mtu: u16,
    /// Who had sent the packet.
    pub source: Ipv4Addr,
    /// Whom it should have reached.
    pub destination: Ipv4Addr,
    /// Its SPI; `None` when the report quotes no more than the UDP header in front of ESP.
    pub spi: Option<u32>,
}

impl TooNarrow {
    /// Reads the ICMP message in a checked packet; `None` when it is no such report. Nothing in it is
    /// authentic but to who can see the packets it quotes.
    pub fn parse(packet: &ipv4::View<'_>) -> Option<Self> {
        if packet.protocol() != ipv4::PROTOCOL_ICMP || packet.is_fragment() {
            return None;
        }
        let message = icmp::Repr::parse(packet.payload()).ok()?;
        let icmp::Repr::FragmentationNeeded { mtu, packet: quoted } = message else { return None };
        let first = *quoted.get(..ipv4::HEADER_LEN)?.first()?;
        let header_len = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header_len < ipv4::HEADER_LEN {
            return None;
        }
        let behind = quoted.get(header_len..)?;
        let spi_at = match *quoted.get(9)? {
            ipv4::PROTOCOL_ESP => 0,
            ipv4::PROTOCOL_UDP if u16_at(behind, 0) == udp::PORT_NAT_TRAVERSAL => udp::HEADER_LEN,
            _ => return None,
        };
        let spi = behind.get(spi_at..).filter(|esp| esp.len() >= 4).map(|esp| u32_at(esp, 0));
        Some(Self {
            mtu: if mtu == 0 { plateau_below(u16_at(quoted, 2)) } else { mtu },
            source: Ipv4Addr::from_bits(u32_at(quoted, 12)),
            destination: Ipv4Addr::from_bits(u32_at(quoted, 16)),
            spi,
        })
    }
}

/// The next usual size below that of a packet which did not fit.
fn plateau_below(len: u16) -> u16 {
    PLATEAUS.into_iter().find(|plateau| *plateau < len).unwrap_or(68)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use proptest::prelude::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
    const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);

    fn report(mtu: u16, quoted: &[u8]) -> Option<TooNarrow> {
        let message = icmp::Repr::FragmentationNeeded { mtu, packet: quoted };
        let packet = frame::icmp_packet(ROUTER, COMMON, &message);
        TooNarrow::parse(&ipv4::View::parse(&packet).unwrap())
    }

    fn esp(len: usize) -> Vec<u8> {
        let mut payload = vec![0; len - ipv4::HEADER_LEN];
        payload[..4].copy_from_slice(&0xc0ff_ee01u32.to_be_bytes());
        frame::ipv4_packet(&ipv4::Repr::new(COMMON, PEER, ipv4::PROTOCOL_ESP, 0), &payload)
    }

    #[test]
    fn a_report_about_esp_names_its_spi() {
        let expected =
            TooNarrow { mtu: 1400, source: COMMON, destination: PEER, spi: Some(0xc0ff_ee01) };
        assert_eq!(report(1400, &esp(1500)[..28]), Some(expected));
    }

    #[test]
    fn a_report_about_esp_in_udp_names_it_if_it_quotes_enough() {
        let packet = frame::udp_packet(COMMON, 4500, PEER, 40_000, &0xc0ff_ee01u32.to_be_bytes());
        assert_eq!(report(1400, &packet).unwrap().spi, Some(0xc0ff_ee01));
        assert_eq!(report(1400, &packet[..28]).unwrap().spi, None);
        let other = frame::udp_packet(COMMON, 53, PEER, 40_000, &[0; 8]);
        assert_eq!(report(1400, &other), None);
    }

    #[test]
    fn a_router_that_does_not_say_how_narrow_is_taken_for_the_next_usual_size() {
        let mtus = [1500, 1492, 700, 200].map(|len| report(0, &esp(len)).unwrap().mtu);
        assert_eq!(mtus, [1492, 1006, 576, 68]);
    }

    proptest! {
        #[test]
        fn any_quotation_is_safe(mtu: u16, quoted: Vec<u8>) {
            report(mtu, &quoted);
        }
    }
}
