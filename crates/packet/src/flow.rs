//! What makes two packets belong together.

use crate::field::{u16_at, u32_at};
use crate::icmp;
use crate::ipv4::{self, PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP};
use std::net::Ipv4Addr;

/// The five numbers that name one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port of TCP and UDP, identifier of an ICMP echo, else 0.
    pub src_port: u16,
    /// Destination port of TCP and UDP, identifier of an ICMP echo, else 0.
    pub dst_port: u16,
}

impl FlowKey {
    /// The key of the IPv4 packet in `packet`; `None` when its lengths are wrong or it is too short
    /// for its ports.
    ///
    /// Fragments have no ports here, the first one included, so that all pieces of a datagram get
    /// the same key. Other ICMP messages than echo have none either.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        Self::of(&ipv4::View::parse(packet).ok()?)
    }

    /// The key whose [`FlowKey::words`] these are.
    pub const fn from_words([addresses, rest]: [u64; 2]) -> Self {
        let [a, b, c, d, e, f, g, h] = addresses.to_le_bytes();
        let [i, j, k, l, protocol, ..] = rest.to_le_bytes();
        Self {
            src: Ipv4Addr::new(a, b, c, d),
            dst: Ipv4Addr::new(e, f, g, h),
            protocol,
            src_port: u16::from_be_bytes([i, j]),
            dst_port: u16::from_be_bytes([k, l]),
        }
    }

    /// The key of a checked packet; `None` when it is too short for its ports.
    #[inline]
    pub fn of(packet: &ipv4::View<'_>) -> Option<Self> {
        let ports =
            if packet.is_fragment() { (0, 0) } else { ports(packet.protocol(), packet.payload())? };
        Some(Self {
            src: packet.source(),
            dst: packet.destination(),
            protocol: packet.protocol(),
            src_port: ports.0,
            dst_port: ports.1,
        })
    }

    /// The key of the whole datagram whose first fragment the checked packet is; `None` when it is too
    /// short for its ports (RFC 1858, 3.2.1 has such ones dropped) or not the first.
    pub fn of_first_fragment(packet: &ipv4::View<'_>) -> Option<Self> {
        if packet.fragment_offset() != 0 {
            return None;
        }
        let (src_port, dst_port) = ports(packet.protocol(), packet.payload())?;
        Some(Self { src_port, dst_port, ..Self::of(packet)? })
    }

    /// What the fragments of one datagram have in common: a key with the identification in place of
    /// the source port (RFC 791, 3.2).
    pub fn of_datagram(packet: &ipv4::View<'_>) -> Self {
        Self {
            src: packet.source(),
            dst: packet.destination(),
            protocol: packet.protocol(),
            src_port: packet.identification(),
            dst_port: 0,
        }
    }

    /// The key to distribute a checked packet by: like [`FlowKey::of`], but an ICMP error counts
    /// as part of the connection it reports on, so that it reaches the host that keeps it.
    pub fn of_connection(packet: &ipv4::View<'_>) -> Option<Self> {
        quoted(packet).map(|quoted| quoted.reversed()).or_else(|| Self::of(packet))
    }

    /// The key of the other direction.
    #[inline]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            protocol: self.protocol,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }

    /// SipHash-2-4 of the key's 13 bytes (addresses, ports, protocol; big-endian, three zero bytes
    /// behind) under the 128-bit key `seed || !seed`, both little-endian.
    ///
    /// Every member must use the same seed, or a takeover would move connections. A seed unknown
    /// to the peers keeps them from choosing ports that all meet one target.
    pub fn hash(&self, seed: u64) -> u64 {
        siphash_2_4(seed, !seed, self.words())
    }

    /// A hash for the tables of one worker: two multiplications where [`FlowKey::hash`] takes ten
    /// rounds. It need not be the same anywhere else. Who knows the seed can make keys collide; who
    /// does not must guess a product of two 64-bit secrets, and would gain that flows share a place
    /// which has room for a few.
    #[inline]
    pub fn quick_hash(&self, seed: u64) -> u64 {
        let [addresses, rest] = self.words();
        let product = fold_multiply(addresses ^ seed, rest ^ seed.rotate_left(32) ^ GOLDEN);
        fold_multiply(product ^ seed, GOLDEN)
    }

    /// The key as two words: addresses; ports and protocol. Different keys have different words.
    #[inline]
    pub fn words(&self) -> [u64; 2] {
        let [a, b, c, d] = self.src.octets();
        let [e, f, g, h] = self.dst.octets();
        let [i, j] = self.src_port.to_be_bytes();
        let [k, l] = self.dst_port.to_be_bytes();
        [
            u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            u64::from_le_bytes([i, j, k, l, self.protocol, 0, 0, 0]),
        ]
    }
}

/// 2^64 divided by the golden ratio: odd, and without a pattern.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of the product: every bit of it depends on most bits of both numbers.
#[inline]
const fn fold_multiply(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// Source and destination port as the protocol has them.
#[inline]
fn ports(protocol: u8, payload: &[u8]) -> Option<(u16, u16)> {
    match protocol {
        PROTOCOL_TCP | PROTOCOL_UDP => {
            payload.get(..4).map(|ports| (u16_at(ports, 0), u16_at(ports, 2)))
        }
        PROTOCOL_ICMP => {
            let header = payload.get(..icmp::HEADER_LEN)?;
            let is_echo =
                matches!(header.first(), Some(&(icmp::TYPE_ECHO_REPLY | icmp::TYPE_ECHO_REQUEST)));
            let identifier = if is_echo { u16_at(header, 4) } else { 0 };
            Some((identifier, identifier))
        }
        _ => Some((0, 0)),
    }
}

/// The key of the packet quoted by an ICMP error. The quotation is usually cut short, so only its
/// header and eight bytes are asked for (RFC 792).
fn quoted(packet: &ipv4::View<'_>) -> Option<FlowKey> {
    if packet.protocol() != PROTOCOL_ICMP || packet.is_fragment() {
        return None;
    }
    let error = icmp::View::parse(packet.payload()).ok().filter(icmp::View::is_error)?;
    let quotation = error.data();
    let first = *quotation.get(..ipv4::HEADER_LEN)?.first()?;
    let header_len = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_len < ipv4::HEADER_LEN {
        return None;
    }
    let protocol = *quotation.get(9)?;
    let (src_port, dst_port) = ports(protocol, quotation.get(header_len..)?)?;
    Some(FlowKey {
        src: Ipv4Addr::from_bits(u32_at(quotation, 12)),
        dst: Ipv4Addr::from_bits(u32_at(quotation, 16)),
        protocol,
        src_port,
        dst_port,
    })
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of `N` whole words under the key `k0`, `k1`, all of
/// them little-endian readings of the bytes they stand for. A keyed hash: without the key nobody
/// can tell the hash of a message from a random number.
#[must_use]
pub fn siphash_2_4<const N: usize>(k0: u64, k1: u64, words: [u64; N]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    // The message's length modulo 256, as the authors end every message.
    let length_word = (N as u64).wrapping_mul(8) << 56;
    for word in words.into_iter().chain([length_word]) {
        v[3] ^= word;
        v = sip_round(sip_round(v));
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        v = sip_round(v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use proptest::prelude::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
    const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

    fn udp_packet(src_port: u16, dst_port: u16) -> Vec<u8> {
        frame::udp_packet(CLIENT, src_port, SERVICE, dst_port, b"hello")
    }

    #[test]
    fn ports_are_read_from_udp() {
        let key = FlowKey::parse(&udp_packet(4000, 80)).unwrap();
        assert_eq!((key.src, key.dst), (CLIENT, SERVICE));
        assert_eq!((key.src_port, key.dst_port, key.protocol), (4000, 80, PROTOCOL_UDP));
        assert_eq!(key.reversed().reversed(), key);
    }

    #[test]
    fn fragments_have_no_ports() {
        let mut packet = udp_packet(4000, 80);
        packet[6] = 0x20;
        assert_eq!(FlowKey::parse(&packet).unwrap().src_port, 0);
    }

    #[test]
    fn the_first_fragment_has_the_ports_of_its_datagram() {
        let whole = udp_packet(4000, 80);
        let first = |packet: &[u8]| FlowKey::of_first_fragment(&ipv4::View::parse(packet).unwrap());
        let mut packet = whole.clone();
        packet[6] = 0x20;
        assert_eq!(first(&packet), FlowKey::parse(&whole));
        packet[7] = 1;
        assert_eq!(first(&packet), None);
        let mut tiny = whole[..23].to_vec();
        (tiny[3], tiny[6]) = (23, 0x20);
        assert_eq!(first(&tiny), None);
    }

    #[test]
    fn icmp_echo_has_its_identifier_as_port() {
        let echo = icmp::Repr::EchoRequest { identifier: 77, sequence: 1, data: b"" };
        let packet = frame::icmp_packet(CLIENT, SERVICE, &echo);
        let key = FlowKey::parse(&packet).unwrap();
        assert_eq!((key.src_port, key.dst_port), (77, 77));
    }

    #[test]
    fn an_icmp_error_belongs_to_the_connection_it_quotes() {
        let reply = frame::udp_packet(SERVICE, 80, CLIENT, 4000, &[0; 100]);
        let error = icmp::Repr::FragmentationNeeded { mtu: 1400, packet: &reply[..28] };
        let packet = frame::icmp_packet(CLIENT, SERVICE, &error);
        let view = ipv4::View::parse(&packet).unwrap();
        assert_eq!(FlowKey::of_connection(&view), FlowKey::parse(&udp_packet(4000, 80)));
        assert_ne!(FlowKey::of(&view), FlowKey::of_connection(&view));
    }

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The authors' published 64-bit vector for the message 00..0f under the key 00..0f.
        let le = |from: u8| u64::from_le_bytes(std::array::from_fn(|i| from + i as u8));
        assert_eq!(siphash_2_4(le(0), le(8), [le(0), le(8)]), 0x3f2a_cc7f_57c2_9bdb);
        // The same table's lines for no byte at all and for 00..37.
        assert_eq!(siphash_2_4(le(0), le(8), []), 0x726f_db47_dd0e_0e31);
        let words: [u64; 7] = std::array::from_fn(|i| le(8 * i as u8));
        assert_eq!(siphash_2_4(le(0), le(8), words), 0xb78d_bfaf_3a8d_83bd);
    }

    proptest! {
        #[test]
        fn words_are_the_key(src: u32, dst: u32, protocol: u8, src_port: u16, dst_port: u16) {
            let (src, dst) = (Ipv4Addr::from_bits(src), Ipv4Addr::from_bits(dst));
            let key = FlowKey { src, dst, protocol, src_port, dst_port };
            prop_assert_eq!(FlowKey::from_words(key.words()), key);
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = FlowKey::parse(&bytes);
            let _ = ipv4::View::parse(&bytes).map(|view| FlowKey::of_connection(&view));
        }

        #[test]
        fn broken_packets_are_safe(flips in prop::collection::vec((0usize..60, any::<u8>()), 0..8), len in 0usize..64) {
            let reply = udp_packet(1, 2);
            let error = icmp::Repr::FragmentationNeeded { mtu: 1400, packet: &reply };
            let mut packet = frame::icmp_packet(CLIENT, SERVICE, &error);
            for (at, value) in flips {
                if let Some(byte) = packet.get_mut(at) { *byte = value; }
            }
            packet.truncate(len);
            let _ = ipv4::View::parse(&packet).map(|view| FlowKey::of_connection(&view));
        }
    }
}
