//! The packets: those of the comparison's generator, by the same formulas, with keys of our own.
//!
//! ```text
//!   SA i    peer 100.64.(i>>8).(i&255), its inner host 10.(i>>8).(i&255).5, SPI 0x10000 + i
//!   plain   192.0.2.2 -> 10.a.b.5 in Ethernet
//!   ESP     100.64.a.b -> 198.51.100.1 in Ethernet, inside it 10.a.b.5 -> 192.0.2.2
//! ```

use holdfast_crypto::AeadAlgorithm;
use holdfast_ipsec::{
    ChildSaParameters, Encapsulation, OutboundSa, SaKey, Selectors, SequenceRange, Spi,
    TrafficSelector,
};
use holdfast_packet::{HeapBuf, MacAddr, PacketBuf, frame, ipv4, udp};
use std::fmt;
use std::net::Ipv4Addr;

pub(crate) const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const OUTSIDE_MAC: MacAddr = MacAddr([2, 0xfe, 0, 0, 0, 2]);
pub(crate) const INSIDE_MAC: MacAddr = MacAddr([2, 0xfe, 0, 0, 0, 1]);
pub(crate) const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);

/// Ports of the first flow; the others count up from here.
const PORT: u16 = 4444;
/// Flows that differ in the peer's port alone.
const PORTS: u32 = 50_000;
/// Seven small, four middling, one large.
const IMIX: [usize; 12] = [64, 64, 64, 64, 64, 64, 64, 570, 570, 570, 570, 1420];
/// IMIX packets after which the order repeats.
const IMIX_ORDER: usize = 240;

/// Octets of the inner packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Octets(usize),
    Imix,
}

impl Size {
    /// Sizes to repeat.
    fn order(self) -> Vec<usize> {
        match self {
            Self::Octets(octets) => vec![octets],
            Self::Imix => {
                let mut order: Vec<usize> = IMIX.into_iter().cycle().take(IMIX_ORDER).collect();
                // Any fixed shuffle: a multiplicative generator (Lehmer, modulus 2^31 - 1).
                let mut state: u64 = 1;
                for last in (1..order.len()).rev() {
                    state = state * 48_271 % 0x7fff_ffff;
                    order.swap(last, state as usize % (last + 1));
                }
                order
            }
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Octets(octets) => write!(f, "{octets}"),
            Self::Imix => f.write_str("imix"),
        }
    }
}

/// What is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) algorithm: AeadAlgorithm,
    pub(crate) size: Size,
    pub(crate) sas: u32,
    /// Flows in all; at least one for each SA.
    pub(crate) flows: u32,
    pub(crate) window_packets: u32,
}

impl Load {
    /// Key and salt of an SA.
    pub(crate) fn keymat(&self, sa: u32) -> Vec<u8> {
        (0..)
            .take(SaKey::keymat_len(self.algorithm))
            .map(|at: u32| (sa >> (at % 4 * 8) ^ at) as u8)
            .collect()
    }

    pub(crate) fn parameters(&self, sa: u32) -> ChildSaParameters {
        let octets = self.keymat(sa);
        let key = || SaKey::new(self.algorithm, &octets).expect("the right length");
        let spi = Spi::new(0x10000 + sa).expect("above 255");
        ChildSaParameters {
            inbound_spi: spi,
            outbound_spi: spi,
            inbound_key: key(),
            outbound_key: key(),
            esn: false,
            window_packets: self.window_packets,
            local: COMMON,
            remote: peer(sa),
            encapsulation: Encapsulation::Esp,
            selectors: Selectors {
                local: vec![TrafficSelector::host(SERVICE)],
                remote: vec![TrafficSelector::host(host(sa))],
            },
            connection: "bench".to_owned(),
        }
    }

    /// The same SA as the peer sees it.
    pub(crate) fn mirrored(&self, sa: u32) -> ChildSaParameters {
        let parameters = self.parameters(sa);
        let Selectors { local, remote } = parameters.selectors;
        ChildSaParameters { selectors: Selectors { local: remote, remote: local }, ..parameters }
    }

    /// The inner packet number `n` of those from the peers.
    pub(crate) fn peer_packet(&self, n: usize) -> Vec<u8> {
        let (sa, (peer_port, port), octets) = self.packet(&self.size.order(), n);
        inner((host(sa), peer_port), (SERVICE, port), octets, n)
    }

    /// SA and flow of the packet number `n`, and its size.
    fn packet(&self, order: &[usize], n: usize) -> (u32, (u16, u16), usize) {
        let (round, sa) = (n as u32 / self.sas, n as u32 % self.sas);
        let flow = round % (self.flows / self.sas).max(1);
        let ports = (PORT + (flow % PORTS) as u16, PORT + (flow / PORTS) as u16);
        (sa, ports, order[n % order.len()])
    }
}

/// `base` plus a number; 10.a.b.5 has it above the last octet.
fn address(base: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(base.to_bits() + n)
}

/// The peer of an SA.
pub(crate) fn peer(sa: u32) -> Ipv4Addr {
    address(Ipv4Addr::new(100, 64, 0, 0), sa)
}

/// The host behind the peer.
pub(crate) fn host(sa: u32) -> Ipv4Addr {
    address(Ipv4Addr::new(10, 0, 0, 5), sa << 8 & 0x00ff_ff00)
        .to_bits()
        .checked_add(sa >> 16 << 24)
        .map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from_bits)
}

/// UDP without checksum, as in the comparison.
fn inner(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), octets: usize, id: usize) -> Vec<u8> {
    let payload_len = octets - ipv4::HEADER_LEN - udp::HEADER_LEN;
    let ports = udp::Repr { source_port: from.1, destination_port: to.1 };
    let payload = (0..payload_len).map(|at| (at * 7 + octets) as u8);
    let datagram: Vec<u8> =
        ports.bytes_without_checksum(payload_len).into_iter().chain(payload).collect();
    let header = ipv4::Repr {
        identification: id as u16,
        ..ipv4::Repr::new(from.0, to.0, ipv4::PROTOCOL_UDP, 0)
    };
    frame::ipv4_packet(&header, &datagram)
}

/// Frames one behind the other.
pub(crate) struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    /// Frames from the targets' side, until they repeat: as many as the comparison has.
    pub(crate) fn plain(load: &Load) -> Self {
        let order = load.size.order();
        let each = if load.size == Size::Imix && load.sas > 1 { 3 } else { 1 };
        let count = load.sas.max(load.flows).max(IMIX_ORDER as u32) as usize * each;
        Self::collect((0..count).map(|n| {
            let (sa, (peer_port, port), octets) = load.packet(&order, n);
            let packet = inner((SERVICE, port), (host(sa), peer_port), octets, n);
            frame::ethernet_frame(INSIDE_MAC, OTHER_MAC, &packet)
        }))
    }

    /// Frames from the peers; `sealed` or else in clear with an ICV of zeros.
    pub(crate) fn esp(load: &Load, count: usize, sealed: bool) -> Self {
        let order = load.size.order();
        let range = || SequenceRange::new(1, u64::from(u32::MAX));
        let parameters: Vec<_> = (0..load.sas).map(|sa| load.parameters(sa)).collect();
        let mut senders: Vec<_> =
            parameters.iter().map(|parameters| OutboundSa::new(parameters, range())).collect();
        Self::collect((0..count).map(|n| {
            let (sa, (peer_port, port), octets) = load.packet(&order, n);
            let packet = inner((host(sa), peer_port), (SERVICE, port), octets, n);
            let mut buf = HeapBuf::from_frame(&packet);
            let sender = &mut senders[sa as usize];
            if sealed {
                sender.seal(&mut buf).expect("the range is large");
            } else {
                let _in_clear = sender.begin_seal(&mut buf).expect("the range is large");
            }
            let remote = parameters[sa as usize].remote;
            let header = ipv4::Repr::new(remote, COMMON, ipv4::PROTOCOL_ESP, 0);
            frame::ethernet_frame(OUTSIDE_MAC, OTHER_MAC, &frame::ipv4_packet(&header, buf.bytes()))
        }))
    }

    fn collect(frames: impl Iterator<Item = Vec<u8>>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for frame in frames {
            bytes.extend(frame);
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    pub(crate) fn get(&self, n: usize) -> &[u8] {
        &self.bytes[self.ends[n]..self.ends[n + 1]]
    }
}
