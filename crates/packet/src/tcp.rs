//! The part of TCP (RFC 9293) a distributor reads: ports and flags.

use crate::WireError;
use crate::field::{u8_at, u16_at};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// The flag that ends one direction.
pub const FLAG_FIN: u8 = 0x01;
/// The flag that opens a connection.
pub const FLAG_SYN: u8 = 0x02;
/// The flag that resets a connection.
pub const FLAG_RST: u8 = 0x04;
/// The flag that makes the acknowledgement field count.
pub const FLAG_ACK: u8 = 0x10;

/// A header with its length checked.
#[derive(Debug, Clone, Copy)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// # Errors
    /// [`WireError::Truncated`] when the header exceeds `bytes`, [`WireError::BadLength`] when the
    /// data offset is below 20 bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        if bytes.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let header_len = usize::from(u8_at(bytes, 12) >> 4) * 4;
        if header_len < HEADER_LEN {
            return Err(WireError::BadLength);
        }
        if bytes.len() < header_len {
            return Err(WireError::Truncated);
        }
        Ok(Self(bytes))
    }

    /// The sender's port.
    pub fn source_port(&self) -> u16 {
        u16_at(self.0, 0)
    }

    /// The receiver's port.
    pub fn destination_port(&self) -> u16 {
        u16_at(self.0, 2)
    }

    /// The flags [`FLAG_FIN`], [`FLAG_SYN`], ...
    pub fn flags(&self) -> u8 {
        u8_at(self.0, 13)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_ports_and_flags() {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&[0x1f, 0x90, 0, 80]);
        bytes[12] = 0x60;
        bytes[13] = FLAG_SYN | FLAG_ACK;
        let view = View::parse(&bytes).unwrap();
        assert_eq!((view.source_port(), view.destination_port()), (8080, 80));
        assert_eq!(view.flags(), FLAG_SYN | FLAG_ACK);
        assert_eq!(View::parse(&bytes[..23]).map(|_| ()), Err(WireError::Truncated));
        bytes[12] = 0x40;
        assert_eq!(View::parse(&bytes).map(|_| ()), Err(WireError::BadLength));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = View::parse(&bytes).map(|view| (view.source_port(), view.flags()));
        }
    }
}
