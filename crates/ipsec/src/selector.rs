//! Traffic selectors (RFC 4301 section 4.4.1.1, RFC 7296 sections 2.9 and 3.13.1), IPv4.

use std::net::Ipv4Addr;

use holdfast_packet::FlowKey;

/// Protocols whose packets carry ports a [`FlowKey`] knows.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// How many selectors [`narrow`] returns at most: a TS payload counts them in one octet
/// (RFC 7296 section 3.13).
pub const NARROWED_MAX: usize = 255;

/// One selector: a protocol, a range of ports and a range of addresses, all inclusive.
///
/// Protocol 0 is any protocol. Ports `(0, 65535)` are any ports, also those a packet does not have;
/// `(65535, 0)` is OPAQUE: ports that cannot be seen (RFC 7296 section 3.13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficSelector {
    /// IP protocol; 0 for any.
    pub protocol: u8,
    /// First and last port.
    pub ports: (u16, u16),
    /// First and last address.
    pub addresses: (Ipv4Addr, Ipv4Addr),
}

impl TrafficSelector {
    /// Every port, and also no port.
    pub const ANY_PORT: (u16, u16) = (0, u16::MAX);
    /// A port that cannot be seen, as in a fragment.
    pub const OPAQUE_PORT: (u16, u16) = (u16::MAX, 0);

    /// All traffic of one address.
    #[must_use]
    pub const fn host(address: Ipv4Addr) -> Self {
        Self::range(address, address)
    }

    /// All traffic of a range of addresses.
    #[must_use]
    pub const fn range(first: Ipv4Addr, last: Ipv4Addr) -> Self {
        Self { protocol: 0, ports: Self::ANY_PORT, addresses: (first, last) }
    }

    /// All traffic of a prefix; lengths above 32 count as 32.
    #[must_use]
    pub fn prefix(address: Ipv4Addr, length: u8) -> Self {
        let host_bits = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let first = address.to_bits() & !host_bits;
        Self::range(Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(first | host_bits))
    }

    /// Whether the selector takes one end of a packet. A packet of a protocol without ports is
    /// taken only by a selector of any port.
    #[must_use]
    #[inline]
    pub fn contains(&self, protocol: u8, address: Ipv4Addr, port: u16) -> bool {
        let (first, last) = self.addresses;
        let (first_port, last_port) = self.ports;
        (self.protocol == 0 || self.protocol == protocol)
            && (first..=last).contains(&address)
            && (self.ports == Self::ANY_PORT
                || (matches!(protocol, TCP | UDP) && (first_port..=last_port).contains(&port)))
    }

    /// Whether every packet `other` takes is taken by this selector too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersect(other).is_some_and(|common| common == *other)
    }

    /// The traffic both selectors take, when there is any.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (0, protocol) | (protocol, 0) => protocol,
            (a, b) if a == b => a,
            _ => return None,
        };
        let ports = intersect_ports(self.ports, other.ports)?;
        let first = self.addresses.0.max(other.addresses.0);
        let last = self.addresses.1.min(other.addresses.1);
        (first <= last).then_some(Self { protocol, ports, addresses: (first, last) })
    }
}

fn intersect_ports(a: (u16, u16), b: (u16, u16)) -> Option<(u16, u16)> {
    match (a, b) {
        // "Any" includes OPAQUE (RFC 4301 section 4.4.1.1); no other range does.
        (TrafficSelector::ANY_PORT, other) | (other, TrafficSelector::ANY_PORT) => Some(other),
        (a, b) if a == b => Some(a),
        (a, b) => {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            (first <= last).then_some((first, last))
        }
    }
}

/// Narrows what a peer proposes to what is configured (RFC 7296 section 2.9): every intersection,
/// in the peer's order, without those that another one covers; at most [`NARROWED_MAX`]. Empty
/// means TS_UNACCEPTABLE.
#[must_use]
pub fn narrow(
    proposed: &[TrafficSelector],
    configured: &[TrafficSelector],
) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for proposal in proposed {
        for common in configured.iter().filter_map(|own| proposal.intersect(own)) {
            if narrowed.iter().any(|kept| kept.covers(&common)) {
                continue;
            }
            narrowed.retain(|kept| !common.covers(kept));
            narrowed.push(common);
            if narrowed.len() == NARROWED_MAX {
                return narrowed;
            }
        }
    }
    narrowed
}

/// The selectors of a Child SA: our side's and the peer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// What is behind us.
    pub local: Vec<TrafficSelector>,
    /// What is behind the peer.
    pub remote: Vec<TrafficSelector>,
}

impl Selectors {
    /// Whether a packet from our side to the peer's may use the SA.
    #[must_use]
    pub fn matches_outbound(&self, flow: &FlowKey) -> bool {
        any_contains(&self.local, flow.protocol, flow.src, flow.src_port)
            && any_contains(&self.remote, flow.protocol, flow.dst, flow.dst_port)
    }

    /// Whether a packet that came out of the SA may pass (RFC 4301 section 5.2, step 4).
    #[must_use]
    pub fn matches_inbound(&self, flow: &FlowKey) -> bool {
        self.matches_outbound(&flow.reversed())
    }
}

/// Selectors as a packet meets them: the usual ones, a single selector for each side, in one place
/// without a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PairOfSelectors {
    local: Ranges,
    remote: Ranges,
}

/// One selector as two comparisons: what is not above a span from the first one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ranges {
    first: u32,
    span: u32,
    first_port: u16,
    port_span: u16,
    /// 0 for any.
    protocol: u8,
    any_port: bool,
}

impl Ranges {
    /// `None` for a selector that takes nothing, or ports that cannot be seen.
    fn of(selector: &TrafficSelector) -> Option<Self> {
        let (first, last) = (selector.addresses.0.to_bits(), selector.addresses.1.to_bits());
        let (first_port, last_port) = selector.ports;
        Some(Self {
            first,
            span: last.checked_sub(first)?,
            first_port,
            port_span: last_port.checked_sub(first_port)?,
            protocol: selector.protocol,
            any_port: selector.ports == TrafficSelector::ANY_PORT,
        })
    }

    /// As [`TrafficSelector::contains`].
    #[inline]
    const fn contains(&self, protocol: u8, address: Ipv4Addr, port: u16) -> bool {
        address.to_bits().wrapping_sub(self.first) <= self.span
            && (self.protocol == 0 || self.protocol == protocol)
            && (self.any_port
                || (matches!(protocol, TCP | UDP)
                    && port.wrapping_sub(self.first_port) <= self.port_span))
    }
}

impl PairOfSelectors {
    /// `None` when one of the sides has more than one selector, or none, or an odd one.
    pub(crate) fn of(selectors: &Selectors) -> Option<Self> {
        match (&*selectors.local, &*selectors.remote) {
            ([local], [remote]) => {
                Some(Self { local: Ranges::of(local)?, remote: Ranges::of(remote)? })
            }
            _ => None,
        }
    }

    /// As [`Selectors::matches_outbound`].
    #[inline]
    pub(crate) const fn matches_outbound(&self, flow: &FlowKey) -> bool {
        self.local.contains(flow.protocol, flow.src, flow.src_port)
            && self.remote.contains(flow.protocol, flow.dst, flow.dst_port)
    }

    /// As [`Selectors::matches_inbound`].
    #[inline]
    pub(crate) const fn matches_inbound(&self, flow: &FlowKey) -> bool {
        self.local.contains(flow.protocol, flow.dst, flow.dst_port)
            && self.remote.contains(flow.protocol, flow.src, flow.src_port)
    }
}

fn any_contains(selectors: &[TrafficSelector], protocol: u8, address: Ipv4Addr, port: u16) -> bool {
    selectors.iter().any(|selector| selector.contains(protocol, address, port))
}

#[cfg(test)]
mod tests;
