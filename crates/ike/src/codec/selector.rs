//! Traffic Selector payloads (RFC 7296 section 3.13).

use std::net::Ipv4Addr;

use holdfast_ipsec::TrafficSelector;

use super::{Cursor, Malformed, Writer};

const TS_IPV4_ADDR_RANGE: u8 = 7;
/// Octets of an IPv4 selector, its header included.
const IPV4_LEN: u16 = 16;

/// Reads the selectors we can use. Unknown types are left out, so that they are not returned in the
/// narrowed set (section 2.9); so are reversed ranges, which select nothing.
///
/// # Errors
/// When lengths and counts disagree.
pub(crate) fn parse_selectors(body: &[u8]) -> Result<Vec<TrafficSelector>, Malformed> {
    let mut cursor = Cursor::new(body);
    let count = cursor.u8()?;
    cursor.take(3)?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        let kind = cursor.u8()?;
        let protocol = cursor.u8()?;
        let inner = usize::from(cursor.u16()?).checked_sub(4).ok_or(Malformed::Length)?;
        let mut inner = Cursor::new(cursor.take(inner)?);
        if kind != TS_IPV4_ADDR_RANGE {
            continue;
        }
        let ports = (inner.u16()?, inner.u16()?);
        let addresses = (Ipv4Addr::from(inner.u32()?), Ipv4Addr::from(inner.u32()?));
        inner.finish()?;
        let opaque = ports == TrafficSelector::OPAQUE_PORT;
        if (ports.0 <= ports.1 || opaque) && addresses.0 <= addresses.1 {
            selectors.push(TrafficSelector { protocol, ports, addresses });
        }
    }
    cursor.finish()?;
    Ok(selectors)
}

/// The body of a Traffic Selector payload.
pub(crate) fn emit_selectors(selectors: &[TrafficSelector]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(u8::try_from(selectors.len()).unwrap_or(u8::MAX)).bytes(&[0; 3]);
    for selector in selectors {
        writer.u8(TS_IPV4_ADDR_RANGE).u8(selector.protocol).u16(IPV4_LEN);
        writer.u16(selector.ports.0).u16(selector.ports.1);
        writer.u32(selector.addresses.0.into()).u32(selector.addresses.1.into());
    }
    writer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector() -> TrafficSelector {
        TrafficSelector {
            protocol: 17,
            ports: (0, 65535),
            addresses: (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 0, 0, 255)),
        }
    }

    #[test]
    fn reads_back_what_was_written() {
        let bytes = emit_selectors(&[selector(), selector()]);
        assert_eq!(parse_selectors(&bytes), Ok(vec![selector(), selector()]));
        for len in 0..bytes.len() {
            assert!(parse_selectors(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn selectors_of_other_families_are_left_out() {
        let mut bytes = emit_selectors(&[selector()]);
        bytes[0] = 2;
        bytes.extend_from_slice(&[8, 0, 0, 40]);
        bytes.extend_from_slice(&[0; 36]);
        assert_eq!(parse_selectors(&bytes), Ok(vec![selector()]));
    }

    #[test]
    fn reversed_ranges_select_nothing_but_opaque_is_kept() {
        let mut opaque = selector();
        opaque.ports = TrafficSelector::OPAQUE_PORT;
        let mut reversed = selector();
        reversed.ports = (9, 8);
        assert_eq!(parse_selectors(&emit_selectors(&[opaque, reversed])), Ok(vec![opaque]));
    }
}
