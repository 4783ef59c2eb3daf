//! The IKE header (RFC 7296 section 3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------------------------------------------------------+
//! |                      IKE SA Initiator's SPI                   |
//! |                                                               |
//! |                      IKE SA Responder's SPI                   |
//! |                                                               |
//! |  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
//! |                          Message ID                           |
//! |                            Length                             |
//! +---------------------------------------------------------------+
//! ```

use super::{Cursor, Malformed, Writer};

/// Octets of the IKE header.
pub(crate) const HEADER_LEN: usize = 28;

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;
/// Major version 2, minor version 0.
const VERSION: u8 = 0x20;

/// What an exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExchangeType {
    IkeSaInit,
    IkeAuth,
    CreateChildSa,
    Informational,
    /// One this implementation does not know.
    Other(u8),
}

impl ExchangeType {
    const fn from_wire(value: u8) -> Self {
        match value {
            34 => Self::IkeSaInit,
            35 => Self::IkeAuth,
            36 => Self::CreateChildSa,
            37 => Self::Informational,
            other => Self::Other(other),
        }
    }

    const fn to_wire(self) -> u8 {
        match self {
            Self::IkeSaInit => 34,
            Self::IkeAuth => 35,
            Self::CreateChildSa => 36,
            Self::Informational => 37,
            Self::Other(other) => other,
        }
    }
}

/// The meaning of an IKE header; Next Payload and Length belong to the message around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// SPI of the IKE SA's original initiator.
    pub(crate) spi_i: u64,
    /// SPI of the original responder; zero in the first message.
    pub(crate) spi_r: u64,
    /// What the exchange is for.
    pub(crate) exchange: ExchangeType,
    /// Whether the sender is the original initiator of the IKE SA.
    pub(crate) from_initiator: bool,
    /// Whether this is a response.
    pub(crate) response: bool,
    /// Which exchange of this direction.
    pub(crate) message_id: u32,
}

impl Header {
    /// Reads a header and checks that `message` has exactly the length it states. Returns the type of
    /// the first payload too.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], [`Malformed::Length`], or [`Malformed::Version`] when the major
    /// version is not 2 (section 2.5).
    pub(crate) fn parse(message: &[u8]) -> Result<(Self, u8), Malformed> {
        let mut cursor = Cursor::new(message);
        let (spi_i, spi_r) = (cursor.u64()?, cursor.u64()?);
        let next_payload = cursor.u8()?;
        let version = cursor.u8()?;
        let exchange = ExchangeType::from_wire(cursor.u8()?);
        let flags = cursor.u8()?;
        let (message_id, length) = (cursor.u32()?, cursor.u32()?);
        if version >> 4 != VERSION >> 4 {
            return Err(Malformed::Version(version >> 4));
        }
        if usize::try_from(length) != Ok(message.len()) {
            return Err(Malformed::Length);
        }
        let header = Self {
            spi_i,
            spi_r,
            exchange,
            from_initiator: flags & FLAG_INITIATOR != 0,
            response: flags & FLAG_RESPONSE != 0,
            message_id,
        };
        Ok((header, next_payload))
    }

    /// The octets of the header of a message of `length` octets in all.
    pub(crate) fn emit(&self, next_payload: u8, length: usize) -> Vec<u8> {
        let mut flags = 0;
        if self.from_initiator {
            flags |= FLAG_INITIATOR;
        }
        if self.response {
            flags |= FLAG_RESPONSE;
        }
        let mut writer = Writer::new();
        writer.u64(self.spi_i).u64(self.spi_r).u8(next_payload).u8(VERSION);
        writer.u8(self.exchange.to_wire()).u8(flags).u32(self.message_id);
        writer.u32(u32::try_from(length).unwrap_or(u32::MAX));
        writer.into_bytes()
    }

    /// The header of the response to this request.
    pub(crate) const fn reply(&self) -> Self {
        Self { from_initiator: !self.from_initiator, response: true, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        spi_i: 0x0102_0304_0506_0708,
        spi_r: 0x1112_1314_1516_1718,
        exchange: ExchangeType::CreateChildSa,
        from_initiator: true,
        response: false,
        message_id: 7,
    };

    #[test]
    fn reads_back_what_was_written() {
        let bytes = HEADER.emit(46, HEADER_LEN);
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(Header::parse(&bytes), Ok((HEADER, 46)));
    }

    #[test]
    fn a_wrong_length_or_version_is_refused() {
        let mut bytes = HEADER.emit(46, HEADER_LEN + 1);
        assert_eq!(Header::parse(&bytes), Err(Malformed::Length));
        bytes[17] = 0x30;
        assert_eq!(Header::parse(&bytes), Err(Malformed::Version(3)));
        assert_eq!(Header::parse(&bytes[..27]), Err(Malformed::Truncated));
    }

    #[test]
    fn the_minor_version_and_reserved_flags_are_ignored() {
        let mut bytes = HEADER.emit(46, HEADER_LEN);
        bytes[17] = 0x2f;
        bytes[19] |= 0xc7;
        assert_eq!(Header::parse(&bytes), Ok((HEADER, 46)));
    }
}
