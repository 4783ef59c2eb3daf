//! UDP headers (RFC 768) and what UDP port 4500 carries (RFC 3948).
//!
//! ```text
//!   0             2             4             6             8
//!   +-------------+-------------+-------------+-------------+---------
//!   | source port |  dest port  |   length    |  checksum   | payload
//!   +-------------+-------------+-------------+-------------+---------
//! ```

use crate::WireError;
use crate::checksum::Sum;
use crate::field::{emit, put, rest, u16_at};
use crate::ipv4::PROTOCOL_UDP;
use std::net::Ipv4Addr;

/// Bytes before the payload.
pub const HEADER_LEN: usize = 8;
/// IKE (RFC 7296, 2).
pub const PORT_IKE: u16 = 500;
/// IKE and ESP through address translation (RFC 3948).
pub const PORT_NAT_TRAVERSAL: u16 = 4500;
/// Four zero bytes where ESP has its SPI: an IKE message follows (RFC 3948, 2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The one payload byte of a NAT keepalive (RFC 3948, 2.3).
pub const NAT_KEEPALIVE: u8 = 0xff;

/// A header and its payload, with its length checked.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Checks the length, not the checksum.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when header or length field exceed `bytes`,
    /// [`WireError::BadLength`] when the length field is below 8.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let len = usize::from(u16_at(bytes, 4));
        if len < HEADER_LEN {
            return Err(WireError::BadLength);
        }
        Ok(Self(bytes.get(..len).ok_or(WireError::Truncated)?))
    }

    /// The sender's port.
    pub fn source_port(&self) -> u16 {
        u16_at(self.0, 0)
    }

    /// The receiver's port.
    pub fn destination_port(&self) -> u16 {
        u16_at(self.0, 2)
    }

    /// True when the checksum adds up over the pseudo header, or the sender computed none (0).
    pub fn checksum_is_valid(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        let len = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        u16_at(self.0, 6) == 0
            || Sum::new()
                .with_pseudo_header(source, destination, PROTOCOL_UDP, len)
                .with(self.0)
                .is_valid()
    }

    /// Everything behind the header, up to the length field.
    pub fn payload(&self) -> &'a [u8] {
        rest(self.0, HEADER_LEN)
    }
}

/// The meaning of a UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
}

impl Repr {
    /// # Errors
    /// Those of [`View::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let view = View::parse(bytes)?;
        Ok(Self { source_port: view.source_port(), destination_port: view.destination_port() })
    }

    /// Bytes [`Repr::emit`] writes: the header alone.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// The header for `payload_len` bytes without checksum (0), as RFC 3948 2.1 wants it for ESP.
    pub fn bytes_without_checksum(&self, payload_len: usize) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        put(&mut header, 0, &self.source_port.to_be_bytes());
        put(&mut header, 2, &self.destination_port.to_be_bytes());
        put(&mut header, 4, &length_field(payload_len).to_be_bytes());
        header
    }

    /// The header for `payload` with its checksum.
    pub fn bytes(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
    ) -> [u8; HEADER_LEN] {
        let mut header = self.bytes_without_checksum(payload.len());
        let sum = Sum::new()
            .with_pseudo_header(source, destination, PROTOCOL_UDP, length_field(payload.len()))
            .with(&header)
            .with(payload)
            .finish();
        // A computed zero is sent as all ones, for zero means "no checksum" (RFC 768).
        let sum = if sum == 0 { 0xffff } else { sum };
        put(&mut header, 6, &sum.to_be_bytes());
        header
    }

    /// Writes the header for `payload` with its checksum at the front of `into`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when `into` is shorter than [`Repr::buffer_len`].
    pub fn emit(
        &self,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        payload: &[u8],
        into: &mut [u8],
    ) -> Result<(), WireError> {
        emit(into, &self.bytes(source, destination, payload))
    }
}

/// What a datagram on UDP port 4500 carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatTraversal<'a> {
    /// A keepalive, to be ignored.
    KeepAlive,
    /// An IKE message, the marker taken off.
    Ike(&'a [u8]),
    /// An ESP packet.
    Esp(&'a [u8]),
    /// None of them: too short.
    Malformed,
}

impl<'a> NatTraversal<'a> {
    /// Tells the three kinds of payload apart (RFC 3948, 2).
    pub fn parse(payload: &'a [u8]) -> Self {
        match payload {
            [NAT_KEEPALIVE] => Self::KeepAlive,
            [0, 0, 0, 0, message @ ..] => Self::Ike(message),
            [_, _, _, _, ..] => Self::Esp(payload),
            _ => Self::Malformed,
        }
    }
}

fn length_field(payload_len: usize) -> u16 {
    u16::try_from(payload_len.saturating_add(HEADER_LEN)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    #[test]
    fn port_4500_payloads_are_told_apart() {
        assert_eq!(NatTraversal::parse(&[0xff]), NatTraversal::KeepAlive);
        assert_eq!(NatTraversal::parse(&[0, 0, 0, 0, 9]), NatTraversal::Ike(&[9]));
        assert_eq!(NatTraversal::parse(&[0, 0, 1, 0]), NatTraversal::Esp(&[0, 0, 1, 0]));
        for short in [&[][..], &[0xfe], &[0, 0, 0]] {
            assert_eq!(NatTraversal::parse(short), NatTraversal::Malformed);
        }
    }

    #[test]
    fn absent_checksum_is_valid() {
        let header = Repr { source_port: 4500, destination_port: 4500 }.bytes_without_checksum(0);
        assert!(View::parse(&header).unwrap().checksum_is_valid(A, B));
    }

    proptest! {
        #[test]
        fn round_trips_with_checksum(source_port: u16, destination_port: u16, payload: Vec<u8>) {
            let repr = Repr { source_port, destination_port };
            let mut bytes = repr.bytes(A, B, &payload).to_vec();
            bytes.extend_from_slice(&payload);
            prop_assert_eq!(Repr::parse(&bytes), Ok(repr));
            let view = View::parse(&bytes).unwrap();
            prop_assert_eq!(view.payload(), payload.as_slice());
            prop_assert!(view.checksum_is_valid(A, B));
            prop_assert!(!view.checksum_is_valid(A, Ipv4Addr::new(198, 51, 100, 3)));
            for len in 0..bytes.len() {
                prop_assert_eq!(View::parse(&bytes[..len]).map(|_| ()), Err(WireError::Truncated));
            }
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            if let Ok(view) = View::parse(&bytes) {
                let _ = (NatTraversal::parse(view.payload()), view.checksum_is_valid(A, B));
            }
        }
    }
}
