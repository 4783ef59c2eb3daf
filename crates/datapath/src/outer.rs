//! The headers in front of an SA's packets: made once for each generation of tables, completed for
//! each packet.

use crate::classify::InnerPacket;
use crate::tables::{DontFragment, TunnelRules};
use holdfast_ipsec::{DropReason, Encapsulation, OutboundSa, Spi};
use holdfast_packet::checksum::Sum;
use holdfast_packet::{MacAddr, PacketBuf, ethernet, ipv4, udp};

/// Ethernet, IPv4 and UDP.
const LEN_MAX: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + udp::HEADER_LEN;
/// Without UDP.
const LEN: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
const DONT_FRAGMENT: u16 = 0x4000;
/// Where the protocol stands that follows IPv4.
const PROTOCOL_AT: usize = ethernet::HEADER_LEN + 9;

/// What the outer header takes from each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PerPacket {
    pub(crate) dscp: u8,
    pub(crate) ecn: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) identification: u16,
}

impl PerPacket {
    /// By the rules of the tunnel (RFC 4301, 5.1.2.1; RFC 6040, 4.1).
    #[inline]
    pub(crate) fn of(inner: &InnerPacket, rules: &TunnelRules, sequence: u64) -> Self {
        Self {
            dscp: rules.dscp.unwrap_or(inner.dscp),
            ecn: if rules.ecn { inner.ecn } else { 0 },
            dont_fragment: match rules.dont_fragment {
                DontFragment::Copy => inner.dont_fragment,
                DontFragment::Set => true,
                DontFragment::Clear => false,
            },
            // Unique enough where fragmentation is allowed: 2^16 packets of one SA apart.
            identification: sequence as u16,
        }
    }
}

/// The way of one SA: its headers, to the station that is the next hop in one generation of tables.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Outer {
    /// The generation it is right for, and the one after which there was none.
    generation: u64,
    /// Of the IPv4 header as it stands here: with a length, a type of service, an identification and
    /// flags of 0.
    sum: Sum,
    id: Spi,
    /// Bytes by which the path is narrower than the port.
    narrower: u16,
    bytes: [u8; LEN_MAX],
}

impl Outer {
    /// Of the pair `id`, before it was resolved.
    pub(crate) const fn unknown(id: Spi) -> Self {
        Self { generation: u64::MAX, sum: Sum::new(), id, narrower: 0, bytes: [0; LEN_MAX] }
    }

    /// The name of the pair of SAs.
    pub(crate) const fn id(&self) -> Spi {
        self.id
    }

    /// Whether it was made for this generation.
    #[inline]
    pub(crate) const fn is_of(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// Bytes by which the path is narrower than the port.
    #[inline]
    pub(crate) const fn narrower(&self) -> u16 {
        self.narrower
    }

    #[inline]
    const fn has_udp(&self) -> bool {
        self.bytes[PROTOCOL_AT] == ipv4::PROTOCOL_UDP
    }

    /// Bytes in front of ESP, Ethernet not counted.
    #[inline]
    pub(crate) const fn ip_len(&self) -> usize {
        if self.has_udp() { LEN_MAX - ethernet::HEADER_LEN } else { LEN - ethernet::HEADER_LEN }
    }

    /// Makes it right for a generation in which `next_hop` is the first station on the way, and the path
    /// `narrower` bytes narrower than the port.
    pub(crate) fn renew(
        &mut self,
        generation: u64,
        sa: &OutboundSa,
        own: MacAddr,
        next_hop: MacAddr,
        narrower: u16,
    ) {
        let link =
            ethernet::Repr { destination: next_hop, source: own, ether_type: ethernet::TYPE_IPV4 };
        let (protocol, udp) = match sa.encapsulation() {
            Encapsulation::Esp => (ipv4::PROTOCOL_ESP, [0; udp::HEADER_LEN]),
            Encapsulation::Udp { local_port, remote_port } => {
                let ports = udp::Repr { source_port: local_port, destination_port: remote_port };
                (ipv4::PROTOCOL_UDP, ports.bytes_without_checksum(0))
            }
        };
        let mut ip = ipv4::Repr::new(sa.local(), sa.remote(), protocol, 0).bytes();
        for varying in [2..4, 10..12] {
            ip.get_mut(varying).unwrap_or_default().fill(0);
        }
        let whole = link.bytes().into_iter().chain(ip).chain(udp);
        for (to, from) in self.bytes.iter_mut().zip(whole) {
            *to = from;
        }
        self.sum = Sum::new().with(&ip);
        self.narrower = narrower;
        self.generation = generation;
    }

    /// Puts the headers in front of the ESP packet in `buf`.
    ///
    /// # Errors
    /// [`DropReason::NoRoom`]; nothing has changed then.
    #[inline]
    pub(crate) fn put<B: PacketBuf>(
        &self,
        buf: &mut B,
        packet: PerPacket,
    ) -> Result<(), DropReason> {
        let ip_len = buf.bytes().len() + self.ip_len();
        let total = u16::try_from(ip_len).unwrap_or(u16::MAX);
        if self.has_udp() {
            buf.prepend(LEN_MAX).map_err(|_| DropReason::NoRoom)?;
            let front = buf.bytes_mut().first_chunk_mut().ok_or(DropReason::NoRoom)?;
            *front = self.bytes;
            let [.., l0, l1, _, _] = front;
            let udp_len = total.saturating_sub(ipv4::HEADER_LEN as u16);
            [*l0, *l1] = udp_len.to_be_bytes();
        } else {
            buf.prepend(LEN).map_err(|_| DropReason::NoRoom)?;
            let front = buf.bytes_mut().first_chunk_mut::<LEN>().ok_or(DropReason::NoRoom)?;
            *front = *self.bytes.first_chunk().ok_or(DropReason::NoRoom)?;
        }
        let ip = buf.bytes_mut().get_mut(ethernet::HEADER_LEN..).unwrap_or_default();
        if let Some(header) = ip.first_chunk_mut::<{ ipv4::HEADER_LEN }>() {
            self.complete(header, total, packet);
        }
        Ok(())
    }

    /// Fills in what differs from packet to packet, and the checksum.
    #[inline]
    fn complete(&self, header: &mut [u8; ipv4::HEADER_LEN], total: u16, packet: PerPacket) {
        let service = packet.dscp << 2 | packet.ecn & 3;
        let flags = if packet.dont_fragment { DONT_FRAGMENT } else { 0 };
        let sum = self
            .sum
            .with_word(u16::from(service))
            .with_word(total)
            .with_word(packet.identification)
            .with_word(flags)
            .finish();
        let [_, tos, l0, l1, i0, i1, f0, f1, _, _, c0, c1, ..] = header;
        *tos = service;
        [*l0, *l1] = total.to_be_bytes();
        [*i0, *i1] = packet.identification.to_be_bytes();
        [*f0, *f1] = flags.to_be_bytes();
        [*c0, *c1] = sum.to_be_bytes();
    }
}
