//! Notify and Delete payloads (RFC 7296 sections 3.10 and 3.11).

use super::{Cursor, Malformed, Protocol, Writer};

/// A notify message type. Types below 16384 report errors (RFC 7296 section 3.10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NotifyType(pub(crate) u16);

impl NotifyType {
    pub(crate) const UNSUPPORTED_CRITICAL_PAYLOAD: Self = Self(1);
    pub(crate) const INVALID_MAJOR_VERSION: Self = Self(5);
    pub(crate) const INVALID_SYNTAX: Self = Self(7);
    pub(crate) const INVALID_SPI: Self = Self(11);
    pub(crate) const NO_PROPOSAL_CHOSEN: Self = Self(14);
    pub(crate) const INVALID_KE_PAYLOAD: Self = Self(17);
    pub(crate) const AUTHENTICATION_FAILED: Self = Self(24);
    pub(crate) const NO_ADDITIONAL_SAS: Self = Self(35);
    pub(crate) const TS_UNACCEPTABLE: Self = Self(38);
    pub(crate) const TEMPORARY_FAILURE: Self = Self(43);
    pub(crate) const CHILD_SA_NOT_FOUND: Self = Self(44);
    pub(crate) const INITIAL_CONTACT: Self = Self(16384);
    pub(crate) const NAT_DETECTION_SOURCE_IP: Self = Self(16388);
    pub(crate) const NAT_DETECTION_DESTINATION_IP: Self = Self(16389);
    pub(crate) const COOKIE: Self = Self(16390);
    pub(crate) const REKEY_SA: Self = Self(16393);
    /// RFC 6311 section 6.1.
    pub(crate) const IKEV2_MESSAGE_ID_SYNC_SUPPORTED: Self = Self(16420);
    /// RFC 6311 section 6.2.
    pub(crate) const IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED: Self = Self(16421);
    /// RFC 6311 section 6.3.
    pub(crate) const IKEV2_MESSAGE_ID_SYNC: Self = Self(16422);
    /// RFC 6311 section 6.4.
    pub(crate) const IPSEC_REPLAY_COUNTER_SYNC: Self = Self(16423);
    /// RFC 7383 section 2.3.
    pub(crate) const FRAGMENTATION_SUPPORTED: Self = Self(16430);

    /// Whether the type reports an error.
    pub(crate) const fn is_error(self) -> bool {
        self.0 < 16384
    }
}

/// One Notify payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notify<'a> {
    /// The protocol of the SA it concerns, meaningful when there is an SPI.
    pub(crate) protocol: u8,
    /// SPI of the SA it concerns, or empty.
    pub(crate) spi: &'a [u8],
    /// What it says.
    pub(crate) kind: NotifyType,
    /// Depends on the type.
    pub(crate) data: &'a [u8],
}

impl<'a> Notify<'a> {
    /// One that concerns no Child SA.
    pub(crate) const fn new(kind: NotifyType, data: &'a [u8]) -> Self {
        Self { protocol: 0, spi: &[], kind, data }
    }

    /// One that concerns the ESP SA with this SPI.
    pub(crate) const fn about_esp(kind: NotifyType, spi: &'a [u8]) -> Self {
        Self { protocol: Protocol::Esp.to_wire(), spi, kind, data: &[] }
    }

    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let protocol = cursor.u8()?;
        let spi_len = cursor.u8()?;
        let kind = NotifyType(cursor.u16()?);
        let spi = cursor.take(spi_len.into())?;
        Ok(Self { protocol, spi, kind, data: cursor.rest() })
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(self.protocol).u8(u8::try_from(self.spi.len()).unwrap_or(u8::MAX));
        writer.u16(self.kind.0).bytes(self.spi).bytes(self.data);
        writer.into_bytes()
    }

    /// The SPI, when this concerns an ESP SA.
    pub(crate) fn esp_spi(&self) -> Option<u32> {
        let spi = self.spi.try_into().map(u32::from_be_bytes).ok()?;
        (self.protocol == Protocol::Esp.to_wire()).then_some(spi)
    }
}

/// Child SAs one Delete payload may name; we never hold more on one IKE SA, so the rest name nothing.
const DELETE_SPIS_MAX: usize = 256;

/// One Delete payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delete {
    /// The IKE SA that carries it.
    Ike,
    /// The ESP SAs the sender receives on under these SPIs.
    Esp(Vec<u32>),
    /// AH or something newer, neither of which exists here.
    Other,
}

impl Delete {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let protocol = Protocol::from_wire(cursor.u8()?);
        let spi_len = usize::from(cursor.u8()?);
        let count = usize::from(cursor.u16()?);
        if cursor.remaining() != spi_len.saturating_mul(count) {
            return Err(Malformed::Length);
        }
        match (protocol, spi_len) {
            (Some(Protocol::Ike), 0) => Ok(Self::Ike),
            (Some(Protocol::Esp), 4) => {
                let count = count.min(DELETE_SPIS_MAX);
                (0..count).map(|_| cursor.u32()).collect::<Result<_, _>>().map(Self::Esp)
            }
            (Some(Protocol::Ike | Protocol::Esp), _) => Err(Malformed::Length),
            _ => Ok(Self::Other),
        }
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Ike | Self::Other => writer.u8(Protocol::Ike.to_wire()).u8(0).u16(0),
            Self::Esp(spis) => {
                writer.u8(Protocol::Esp.to_wire()).u8(4).len16(spis.len());
                for spi in spis {
                    writer.u32(*spi);
                }
                &mut writer
            }
        };
        writer.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_reads_back_what_was_written() {
        let notify = Notify::about_esp(NotifyType::REKEY_SA, &[1, 2, 3, 4]);
        let bytes = notify.emit();
        assert_eq!(Notify::parse(&bytes), Ok(notify.clone()));
        assert_eq!(notify.esp_spi(), Some(0x0102_0304));
        assert_eq!(Notify::parse(&bytes[..7]), Err(Malformed::Truncated));
    }

    #[test]
    fn delete_reads_back_what_was_written() {
        for delete in [Delete::Ike, Delete::Esp(vec![0x1234_5678, 9])] {
            assert_eq!(Delete::parse(&delete.emit()), Ok(delete));
        }
    }

    #[test]
    fn delete_counts_must_agree_with_the_length() {
        let mut bytes = Delete::Esp(vec![1, 2]).emit();
        bytes[3] = 3;
        assert_eq!(Delete::parse(&bytes), Err(Malformed::Length));
        assert_eq!(Delete::parse(&[1, 4, 0, 1, 0, 0, 0, 1]), Err(Malformed::Length));
    }
}
