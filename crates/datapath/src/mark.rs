//! The mark of a packet that came out of a tunnel: what lets a target refuse the same packet from
//! anybody else.
//!
//! ```text
//!   Ethernet | IPv4 inside -> target | UDP xxxxx -> 6080 | GUE epoch, tag | the inner packet
//!                                                                  |             |
//!                                     tag = SipHash-2-4 under the target's key of the epoch
//!                                           of epoch | length | first 56 bytes of the inner packet
//! ```
//!
//! **What a valid tag proves**: whoever made it knew the key that the owner of this epoch shares
//! with this target, and made it for a packet of this length with these first 56 bytes (zeroes
//! behind a shorter one): the whole IPv4 header; of TCP and UDP the whole header with its checksum.
//!
//! **What it does not prove**: that the rest of the payload is unchanged, for only the inner
//! checksum, which is no secret, stands for it; and that the packet is seen for the first time. So
//! a station that *reads* the inside network can repeat a packet of the present epoch, or replace
//! its payload by another with the same checksum. A station that only sends there can do nothing,
//! and nobody can carry anything from one epoch, or from one target, to another. Whoever does not
//! trust the wire itself needs encryption there.
//!
//! SipHash is made for short messages under a secret key: the tag costs about as much as hashing
//! the flow three times over, and no table, no state and no burst interface.

use holdfast_crypto::SecretBytes;
use holdfast_packet::{gue, ipv4, siphash_2_4, udp};
use std::fmt;
use std::net::Ipv4Addr;

/// Bytes of a key.
pub const MARK_KEY_LEN: usize = 16;

/// Bytes in front of a marked packet, Ethernet not counted.
pub const MARK_OVERHEAD: usize = ipv4::HEADER_LEN + udp::HEADER_LEN + gue::HEADER_LEN;

/// Words of the inner packet that the tag covers.
const WORDS: usize = 7;

/// Source ports are chosen among the dynamic ones (RFC 6335) by the flow's hash, so that a target's
/// receive queues can tell connections apart.
const DYNAMIC_PORTS: u16 = 0xc000;

/// What one target and the owner of one epoch share. Wiped on drop, prints nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct MarkKey(SecretBytes);

impl MarkKey {
    /// The first [`MARK_KEY_LEN`] bytes of a secret; `None` when it is shorter.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        secret.get(..MARK_KEY_LEN).map(|key| Self(SecretBytes::from(key)))
    }

    /// The key itself, for the one who shares it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The tag of `inner` in `epoch`.
    #[must_use]
    pub fn tag(&self, epoch: u64, inner: &[u8]) -> u64 {
        let [k0, k1] = words(self.as_bytes());
        let [a, b, c, d, e, f, g]: [u64; WORDS] = words(inner);
        siphash_2_4(k0, k1, [epoch, inner.len() as u64, a, b, c, d, e, f, g])
    }
}

impl fmt::Debug for MarkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarkKey")
    }
}

/// The first `N` little-endian words, with zeroes behind the end.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        for (to, from) in whole.iter_mut().zip(chunk) {
            *to = *from;
        }
        *word = u64::from_le_bytes(whole);
    }
    words
}

/// Everything needed to mark packets for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The ownership in whose name it marks.
    pub epoch: u64,
    /// Shared with the target for this epoch.
    pub key: MarkKey,
    /// The address it sends from: the inside address.
    pub source: Ipv4Addr,
    /// The target's own address.
    pub destination: Ipv4Addr,
}

impl Marker {
    /// The headers in front of `inner`, a whole IPv4 packet.
    #[must_use]
    pub(crate) fn headers(&self, inner: &[u8], flow_hash: u64) -> [u8; MARK_OVERHEAD] {
        let mark = gue::Repr { epoch: self.epoch, tag: self.key.tag(self.epoch, inner) };
        let ports = udp::Repr {
            source_port: DYNAMIC_PORTS | flow_hash as u16 & !DYNAMIC_PORTS,
            destination_port: gue::PORT,
        };
        let payload_len = inner.len().saturating_add(gue::HEADER_LEN);
        let header = ipv4::Repr {
            // It was measured: it fits, and nobody reassembles marks.
            dont_fragment: true,
            ..ipv4::Repr::new(
                self.source,
                self.destination,
                ipv4::PROTOCOL_UDP,
                payload_len.saturating_add(udp::HEADER_LEN),
            )
        };
        let mut bytes = [0; MARK_OVERHEAD];
        let ip = header.bytes();
        let udp = ports.bytes_without_checksum(payload_len);
        let gue = mark.bytes();
        for (to, from) in bytes.iter_mut().zip(ip.iter().chain(&udp).chain(&gue)) {
            *to = *from;
        }
        bytes
    }
}

/// Why a datagram on the mark's port is not the owner's. Whoever sent it is at fault, or late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarkRefusal {
    /// It is no mark, or what it carries is no IPv4 packet.
    Malformed,
    /// It names an earlier epoch: its sender is the owner no more.
    Stale,
    /// It names an epoch nobody told us of.
    Unknown,
    /// It names the present epoch, and the tag is not that of the packet.
    Forged,
}

impl MarkRefusal {
    /// All refusals.
    pub const ALL: &'static [Self] = &[Self::Malformed, Self::Stale, Self::Unknown, Self::Forged];

    /// A stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Stale => "stale",
            Self::Unknown => "unknown_epoch",
            Self::Forged => "forged",
        }
    }
}

/// The inner packet of a marked datagram's UDP payload, when it is marked for `epoch` under `key`.
///
/// # Errors
/// [`MarkRefusal`] says what is wrong with it.
pub fn open_mark<'a>(
    payload: &'a [u8],
    epoch: u64,
    key: &MarkKey,
) -> Result<&'a [u8], MarkRefusal> {
    let (mark, inner) = gue::Repr::parse(payload).map_err(|_| MarkRefusal::Malformed)?;
    if mark.epoch < epoch {
        return Err(MarkRefusal::Stale);
    }
    if mark.epoch > epoch {
        return Err(MarkRefusal::Unknown);
    }
    // Whoever can measure how soon a 64-bit comparison ends cannot see where in the word: it is one
    // instruction.
    if key.tag(epoch, inner) != mark.tag {
        return Err(MarkRefusal::Forged);
    }
    let packet = ipv4::View::parse(inner).map_err(|_| MarkRefusal::Malformed)?;
    if packet.bytes().len() == inner.len() { Ok(inner) } else { Err(MarkRefusal::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_packet::frame;
    use proptest::prelude::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
    const COMMON: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

    fn marker(epoch: u64) -> Marker {
        Marker {
            epoch,
            key: MarkKey::new(&[9; 32]).unwrap(),
            source: Ipv4Addr::new(192, 0, 2, 100),
            destination: Ipv4Addr::new(192, 0, 2, 11),
        }
    }

    fn packet(payload: &[u8]) -> Vec<u8> {
        frame::udp_packet(CLIENT, 4000, COMMON, 80, payload)
    }

    /// The UDP payload of the packet marked.
    fn marked(inner: &[u8], epoch: u64) -> Vec<u8> {
        let marker = marker(epoch);
        let whole = [marker.headers(inner, 0x1234).as_slice(), inner].concat();
        let outer = ipv4::View::parse(&whole).unwrap();
        assert!(outer.checksum_is_valid());
        assert_eq!((outer.source(), outer.destination()), (marker.source, marker.destination));
        let datagram = udp::View::parse(outer.payload()).unwrap();
        assert_eq!((datagram.source_port(), datagram.destination_port()), (0xd234, 6080));
        datagram.payload().to_vec()
    }

    #[test]
    fn what_is_marked_can_be_opened_in_its_epoch_only() {
        let inner = packet(&[1; 200]);
        let payload = marked(&inner, 7);
        let key = marker(7).key;
        assert_eq!(open_mark(&payload, 7, &key), Ok(inner.as_slice()));
        assert_eq!(open_mark(&payload, 8, &key), Err(MarkRefusal::Stale));
        assert_eq!(open_mark(&payload, 6, &key), Err(MarkRefusal::Unknown));
        let other = MarkKey::new(&[8; 16]).unwrap();
        assert_eq!(open_mark(&payload, 7, &other), Err(MarkRefusal::Forged));
    }

    #[test]
    fn a_mark_does_not_fit_another_packet() {
        let (inner, key) = (packet(&[1; 200]), marker(7).key);
        let payload = marked(&inner, 7);
        for at in gue::HEADER_LEN..gue::HEADER_LEN + 56 {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_eq!(open_mark(&changed, 7, &key), Err(MarkRefusal::Forged), "byte {at}");
        }
        let longer = [payload.as_slice(), &[0]].concat();
        assert_eq!(open_mark(&longer, 7, &key), Err(MarkRefusal::Forged));
        let shorter = &payload[..payload.len() - 1];
        assert_eq!(open_mark(shorter, 7, &key), Err(MarkRefusal::Forged));
    }

    #[test]
    fn an_authentic_mark_of_something_else_than_a_packet_is_malformed() {
        let key = marker(7).key;
        let payload = marked(b"no packet", 7);
        assert_eq!(open_mark(&payload, 7, &key), Err(MarkRefusal::Malformed));
        assert_eq!(open_mark(b"", 7, &key), Err(MarkRefusal::Malformed));
    }

    #[test]
    fn a_key_prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", marker(1).key), "MarkKey");
        assert_eq!(MarkKey::new(&[0; 15]), None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_refused(bytes: Vec<u8>, epoch: u64) {
            prop_assert!(open_mark(&bytes, epoch, &marker(1).key).is_err());
        }
    }
}
