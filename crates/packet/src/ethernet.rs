//! Ethernet II frames (RFC 894): untagged only.
//!
//! ```text
//!   0                6               12      14
//!   +----------------+----------------+-------+------------
//!   |  destination   |     source     | type  |  payload
//!   +----------------+----------------+-------+------------
//! ```

use crate::WireError;
use crate::field::{array_at, put, rest, u16_at};
use std::fmt;
use std::str::FromStr;

/// Bytes before the payload.
pub const HEADER_LEN: usize = 14;
/// The shortest frame without its check sequence; shorter payloads are padded with zeros.
pub const MIN_FRAME_LEN: usize = 60;
/// Ethernet type of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// Ethernet type of ARP (RFC 826).
pub const TYPE_ARP: u16 = 0x0806;

/// A station address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The unknown address in an ARP request.
    pub const ZERO: Self = Self([0; 6]);

    /// True for broadcast and multicast.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six hexadecimal pairs joined by colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected six hexadecimal pairs joined by colons, as in 02:00:00:00:00:01")]
pub struct MacAddrSyntax;

impl FromStr for MacAddr {
    type Err = MacAddrSyntax;

    fn from_str(text: &str) -> Result<Self, MacAddrSyntax> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(MacAddrSyntax)?;
            *octet = u8::from_str_radix(pair, 16).map_err(|_| MacAddrSyntax)?;
        }
        if pairs.next().is_some() {
            return Err(MacAddrSyntax);
        }
        Ok(Self(octets))
    }
}

/// A frame at least as long as its header.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// # Errors
    /// [`WireError::Truncated`] below 14 bytes.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Self(bytes)) }
    }

    /// Who is to receive it.
    #[inline]
    pub fn destination(&self) -> MacAddr {
        MacAddr(array_at(self.0, 0).unwrap_or_default())
    }

    /// Who sent it.
    #[inline]
    pub fn source(&self) -> MacAddr {
        MacAddr(array_at(self.0, 6).unwrap_or_default())
    }

    /// What the payload is: [`TYPE_IPV4`], [`TYPE_ARP`], ...
    #[inline]
    pub fn ether_type(&self) -> u16 {
        u16_at(self.0, 12)
    }

    /// Everything behind the header, padding included.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        rest(self.0, HEADER_LEN)
    }
}

/// Overwrites both addresses of the frame in `bytes`; no effect on a runt.
#[inline]
pub fn set_addresses(bytes: &mut [u8], destination: MacAddr, source: MacAddr) {
    put(bytes, 0, &destination.0);
    put(bytes, 6, &source.0);
}

/// The meaning of an Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Who is to receive it.
    pub destination: MacAddr,
    /// Who sends it.
    pub source: MacAddr,
    /// What the payload is.
    pub ether_type: u16,
}

impl Repr {
    /// # Errors
    /// [`WireError::Truncated`] below 14 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let view = View::parse(bytes)?;
        Ok(Self {
            destination: view.destination(),
            source: view.source(),
            ether_type: view.ether_type(),
        })
    }

    /// Bytes [`Repr::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// The header's bytes.
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        set_addresses(&mut header, self.destination, self.source);
        put(&mut header, 12, &self.ether_type.to_be_bytes());
        header
    }

    /// Writes the header at the front of `into`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when `into` is shorter than [`Repr::buffer_len`].
    #[inline]
    pub fn emit(&self, into: &mut [u8]) -> Result<(), WireError> {
        // Field by field: bytes gathered elsewhere first and copied in wider words would wait for
        // each other in the processor's store buffer.
        let header: &mut [u8; HEADER_LEN] = into.first_chunk_mut().ok_or(WireError::Truncated)?;
        put(header, 0, &self.destination.0);
        put(header, 6, &self.source.0);
        put(header, 12, &self.ether_type.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mac_address_text_round_trips() {
        let mac: MacAddr = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for bad in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:01", "2:0:5e:10:0:ff", "zz:00:5e:10:00:ff"]
        {
            assert_eq!(bad.parse::<MacAddr>(), Err(MacAddrSyntax), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn header_round_trips(destination: [u8; 6], source: [u8; 6], ether_type: u16) {
            let repr = Repr { destination: MacAddr(destination), source: MacAddr(source), ether_type };
            prop_assert_eq!(Repr::parse(&repr.bytes()), Ok(repr));
        }

        #[test]
        fn truncation_is_an_error(len in 0..HEADER_LEN) {
            prop_assert_eq!(Repr::parse(&vec![0; len]), Err(WireError::Truncated));
        }
    }
}
