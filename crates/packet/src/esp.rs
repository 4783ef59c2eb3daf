//! The clear part of ESP (RFC 4303, 2): SPI and low sequence number.
//!
//! ```text
//!   0             4                  8
//!   +-------------+------------------+---------------------------------+
//!   |     SPI     | sequence number  |  IV, ciphertext, ICV            |
//!   +-------------+------------------+---------------------------------+
//! ```

use crate::WireError;
use crate::field::{emit, put, rest, u32_at};

/// Bytes before IV and ciphertext.
pub const HEADER_LEN: usize = 8;

/// A packet at least as long as its header.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// # Errors
    /// [`WireError::Truncated`] below 8 bytes.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN { Err(WireError::Truncated) } else { Ok(Self(bytes)) }
    }

    /// The security parameters index.
    #[inline]
    pub fn spi(&self) -> u32 {
        u32_at(self.0, 0)
    }

    /// The low 32 bits of the sequence number.
    #[inline]
    pub fn sequence_low(&self) -> u32 {
        u32_at(self.0, 4)
    }

    /// IV, ciphertext and ICV.
    pub fn body(&self) -> &'a [u8] {
        rest(self.0, HEADER_LEN)
    }
}

/// The meaning of an ESP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// The security parameters index.
    pub spi: u32,
    /// The low 32 bits of the sequence number.
    pub sequence_low: u32,
}

impl Repr {
    /// # Errors
    /// [`WireError::Truncated`] below 8 bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let view = View::parse(bytes)?;
        Ok(Self { spi: view.spi(), sequence_low: view.sequence_low() })
    }

    /// Bytes [`Repr::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// The header's bytes.
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        put(&mut header, 0, &self.spi.to_be_bytes());
        put(&mut header, 4, &self.sequence_low.to_be_bytes());
        header
    }

    /// Writes the header at the front of `into`.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when `into` is shorter than [`Repr::buffer_len`].
    pub fn emit(&self, into: &mut [u8]) -> Result<(), WireError> {
        emit(into, &self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(spi: u32, sequence_low: u32, body: Vec<u8>) {
            let repr = Repr { spi, sequence_low };
            let mut bytes = repr.bytes().to_vec();
            bytes.extend_from_slice(&body);
            prop_assert_eq!(Repr::parse(&bytes), Ok(repr));
            prop_assert_eq!(View::parse(&bytes).unwrap().body(), body.as_slice());
        }

        #[test]
        fn truncation_is_an_error(len in 0..HEADER_LEN) {
            prop_assert_eq!(Repr::parse(&vec![0; len]), Err(WireError::Truncated));
        }
    }
}
