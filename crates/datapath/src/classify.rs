//! What a received frame is, by its bytes alone.
//!
//! ```text
//!            for another station -------> NotUnicast
//!   frame -> ARP ----------------------> Arp                     (with and without a lease)
//!            no valid lease -----------> NotOwner, LeaseExpired  (or passed on, or kept)
//!            outside, to common -------> Esp | Ike | Echo | Fragment | KeepAlive ...
//!            inside, to inside address-> Echo
//!            inside, to anywhere else -> Outbound
//! ```

use crate::lease::LeaseState;
use crate::tables::Tables;
use holdfast_ipsec::DropReason;
use holdfast_packet::ethernet::{self, TYPE_ARP, TYPE_IPV4};
use holdfast_packet::path::TooNarrow;
use holdfast_packet::udp::{NatTraversal, PORT_IKE, PORT_NAT_TRAVERSAL};
use holdfast_packet::{FlowKey, MacAddr, PacketBuf, WireError, esp, icmp, ipv4, udp};
use std::net::Ipv4Addr;

/// Where ESP lies behind Ethernet and an IPv4 header without options.
const ESP_START: u16 = (ethernet::HEADER_LEN + ipv4::HEADER_LEN) as u16;
/// Bytes of an IKE header (RFC 7296, 3.1).
const IKE_HEADER_LEN: usize = 28;

/// Where an ESP packet lies in its frame, and what its outer header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EspAt {
    pub(crate) spi: u32,
    /// Offset of the ESP header in the frame.
    pub(crate) start: u16,
    /// Bytes of the ESP packet.
    pub(crate) len: u16,
    pub(crate) source: Ipv4Addr,
    pub(crate) ecn: u8,
}

/// What a packet from inside says that its outer header or its SA must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InnerPacket {
    pub(crate) flow: FlowKey,
    /// Bytes of the packet without its frame.
    pub(crate) len: u16,
    pub(crate) dscp: u8,
    pub(crate) ecn: u8,
    pub(crate) dont_fragment: bool,
}

impl InnerPacket {
    #[inline]
    fn of(packet: &ipv4::View<'_>) -> Result<Self, DropReason> {
        Ok(Self {
            flow: FlowKey::of(packet).ok_or(DropReason::Ipv4Malformed)?,
            // An IPv4 packet is no longer.
            len: packet.total_len() as u16,
            dscp: packet.dscp(),
            ecn: packet.ecn(),
            dont_fragment: packet.dont_fragment(),
        })
    }
}

/// What a frame from outside is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromOutside {
    Esp(EspAt),
    /// A piece of a packet to the common address.
    Fragment,
    /// A router tells that a packet of ours did not fit.
    TooNarrow,
    Ike,
    Arp,
    Echo,
    /// This member does not treat packets now.
    Unleased(DropReason),
    Drop(DropReason),
}

/// What a frame from inside is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromInside {
    Outbound(InnerPacket),
    Arp,
    Echo,
    /// This member does not treat packets now.
    Unleased(DropReason),
    Drop(DropReason),
}

/// What the layers below IP say.
enum Link<'a> {
    Arp,
    Unleased(DropReason),
    Ipv4(ipv4::View<'a>),
}

/// Where the ESP packet lies in a frame that carries one as nearly all do, as IP protocol 50. `None`
/// says nothing: [`from_outside`] then tells what the frame is. Every check of that is here too.
#[inline]
pub(crate) fn plain_esp(frame: &[u8], tables: &Tables, lease: LeaseState) -> Option<EspAt> {
    let ethernet = ethernet::View::parse(frame).ok()?;
    if ethernet.destination() != tables.outside_mac
        || ethernet.ether_type() != TYPE_IPV4
        || lease != LeaseState::Valid
    {
        return None;
    }
    let packet = ipv4::View::parse(ethernet.payload()).ok()?;
    if packet.header_len() != ipv4::HEADER_LEN
        || packet.protocol() != ipv4::PROTOCOL_ESP
        || packet.destination() != tables.common
        || packet.is_fragment()
        || !packet.checksum_is_valid()
    {
        return None;
    }
    let len = packet.total_len() - ipv4::HEADER_LEN;
    Some(EspAt {
        spi: esp::View::parse(packet.payload()).ok()?.spi(),
        start: ESP_START,
        len: len as u16,
        source: packet.source(),
        ecn: packet.ecn(),
    })
}

/// Classifies a frame received outside.
#[inline]
pub(crate) fn from_outside(frame: &[u8], tables: &Tables, lease: LeaseState) -> FromOutside {
    let verdict = link(frame, tables.outside_mac, lease).and_then(|link| match link {
        Link::Arp => Ok(FromOutside::Arp),
        Link::Unleased(reason) => Ok(FromOutside::Unleased(reason)),
        Link::Ipv4(packet) if packet.destination() != tables.common => Err(DropReason::NotForUs),
        Link::Ipv4(packet) if packet.is_fragment() => Ok(FromOutside::Fragment),
        Link::Ipv4(packet) => outside_protocol(&packet),
    });
    verdict.unwrap_or_else(FromOutside::Drop)
}

/// The packet of a frame from inside, when it is one to encrypt, as nearly all are. `None` says
/// nothing: [`from_inside`] then tells what the frame is. Every check of that is here too.
#[inline]
pub(crate) fn plain_packet(
    frame: &[u8],
    tables: &Tables,
    lease: LeaseState,
) -> Option<InnerPacket> {
    let ethernet = ethernet::View::parse(frame).ok()?;
    if ethernet.destination() != tables.inside_mac
        || ethernet.ether_type() != TYPE_IPV4
        || lease != LeaseState::Valid
    {
        return None;
    }
    let packet = ipv4::View::parse(ethernet.payload()).ok()?;
    if packet.destination() == tables.inside || !packet.checksum_is_valid() {
        return None;
    }
    InnerPacket::of(&packet).ok()
}

/// Classifies a frame received inside.
#[inline]
pub(crate) fn from_inside(frame: &[u8], tables: &Tables, lease: LeaseState) -> FromInside {
    let verdict = link(frame, tables.inside_mac, lease).and_then(|link| match link {
        Link::Arp => Ok(FromInside::Arp),
        Link::Unleased(reason) => Ok(FromInside::Unleased(reason)),
        Link::Ipv4(packet) if packet.destination() == tables.inside => {
            echo(&packet).map(|()| FromInside::Echo)
        }
        Link::Ipv4(packet) => InnerPacket::of(&packet).map(FromInside::Outbound),
    });
    verdict.unwrap_or_else(FromInside::Drop)
}

/// Whether a frame of the target on this host is one to forward. Its neighbour entry for the inside
/// address is pinned, so it has nothing to ask.
pub(crate) fn from_local(frame: &[u8], tables: &Tables) -> Result<(), DropReason> {
    let ethernet = ethernet::View::parse(frame).map_err(|_| DropReason::Runt)?;
    if ethernet.ether_type() == TYPE_ARP {
        return Err(DropReason::ArpIgnored);
    }
    if ethernet.destination() != tables.inside_mac {
        return Err(DropReason::NotUnicast);
    }
    if ethernet.ether_type() != TYPE_IPV4 {
        return Err(DropReason::NotIpv4);
    }
    let packet = checked_packet(ethernet.payload())?;
    if packet.destination() == tables.inside { Err(DropReason::NotForUs) } else { Ok(()) }
}

#[inline]
fn link(frame: &[u8], own: MacAddr, lease: LeaseState) -> Result<Link<'_>, DropReason> {
    let ethernet = ethernet::View::parse(frame).map_err(|_| DropReason::Runt)?;
    let destination = ethernet.destination();
    let is_arp = ethernet.ether_type() == TYPE_ARP;
    if destination != own && !(is_arp && destination.is_group()) {
        return Err(DropReason::NotUnicast);
    }
    if is_arp {
        return Ok(Link::Arp);
    }
    match lease {
        LeaseState::Valid => {}
        LeaseState::Expired => return Ok(Link::Unleased(DropReason::LeaseExpired)),
        LeaseState::None => return Ok(Link::Unleased(DropReason::NotOwner)),
    }
    if ethernet.ether_type() != TYPE_IPV4 {
        return Err(DropReason::NotIpv4);
    }
    checked_packet(ethernet.payload()).map(Link::Ipv4)
}

/// An IPv4 packet with right lengths and header checksum.
#[inline]
pub(crate) fn checked_packet(bytes: &[u8]) -> Result<ipv4::View<'_>, DropReason> {
    let packet = ipv4::View::parse(bytes).map_err(|error| match error {
        WireError::Truncated if bytes.len() < ipv4::HEADER_LEN => DropReason::Runt,
        _ => DropReason::Ipv4Malformed,
    })?;
    if packet.checksum_is_valid() { Ok(packet) } else { Err(DropReason::BadChecksum) }
}

#[inline]
fn outside_protocol(packet: &ipv4::View<'_>) -> Result<FromOutside, DropReason> {
    match packet.protocol() {
        ipv4::PROTOCOL_ESP => esp_at(packet, packet.payload()),
        ipv4::PROTOCOL_UDP => outside_udp(packet),
        ipv4::PROTOCOL_ICMP => match echo(packet) {
            Err(DropReason::IcmpIgnored) if TooNarrow::parse(packet).is_some() => {
                Ok(FromOutside::TooNarrow)
            }
            verdict => verdict.map(|()| FromOutside::Echo),
        },
        _ => Err(DropReason::ProtocolUnsupported),
    }
}

fn outside_udp(packet: &ipv4::View<'_>) -> Result<FromOutside, DropReason> {
    let datagram = udp::View::parse(packet.payload()).map_err(|_| DropReason::UdpMalformed)?;
    let ike = |message: &[u8]| {
        if message.len() < IKE_HEADER_LEN {
            return Err(DropReason::IkeTruncated);
        }
        if !datagram.checksum_is_valid(packet.source(), packet.destination()) {
            return Err(DropReason::BadChecksum);
        }
        Ok(FromOutside::Ike)
    };
    match datagram.destination_port() {
        PORT_IKE => ike(datagram.payload()),
        PORT_NAT_TRAVERSAL => match NatTraversal::parse(datagram.payload()) {
            NatTraversal::KeepAlive => Err(DropReason::KeepAlive),
            NatTraversal::Ike(message) => ike(message),
            NatTraversal::Esp(packet_bytes) => esp_at(packet, packet_bytes),
            NatTraversal::Malformed => Err(DropReason::EspMalformed),
        },
        _ => Err(DropReason::UdpPort),
    }
}

/// Where `esp_bytes` lies: behind the headers whose lengths the views have checked.
#[inline]
fn esp_at(packet: &ipv4::View<'_>, esp_bytes: &[u8]) -> Result<FromOutside, DropReason> {
    let header = esp::View::parse(esp_bytes).map_err(|_| DropReason::EspMalformed)?;
    let udp_len = if packet.protocol() == ipv4::PROTOCOL_UDP { udp::HEADER_LEN } else { 0 };
    Ok(FromOutside::Esp(EspAt {
        spi: header.spi(),
        // Both are less than an IPv4 packet is long.
        start: (ethernet::HEADER_LEN + packet.header_len() + udp_len) as u16,
        len: esp_bytes.len() as u16,
        source: packet.source(),
        ecn: packet.ecn(),
    }))
}

/// Accepts an echo request in one piece. Options would have to be reversed in the answer, so they
/// are refused.
fn echo(packet: &ipv4::View<'_>) -> Result<(), DropReason> {
    if packet.protocol() != ipv4::PROTOCOL_ICMP {
        return Err(DropReason::ProtocolUnsupported);
    }
    if packet.is_fragment() {
        return Err(DropReason::Fragment);
    }
    let message = icmp::View::parse(packet.payload()).map_err(|error| match error {
        WireError::BadChecksum => DropReason::BadChecksum,
        _ => DropReason::IcmpMalformed,
    })?;
    if message.is_echo_request() && packet.header_len() == ipv4::HEADER_LEN {
        Ok(())
    } else {
        Err(DropReason::IcmpIgnored)
    }
}

/// Cuts a buffer down to `len` bytes from `start` on.
#[inline]
pub(crate) fn narrow<B: PacketBuf>(buf: &mut B, start: usize, len: usize) {
    buf.trim_front(start);
    let behind = buf.bytes().len().saturating_sub(len);
    buf.trim_back(behind);
}
