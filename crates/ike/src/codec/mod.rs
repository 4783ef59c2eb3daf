//! IKE messages as octets (RFC 7296 section 3): parsing that cannot run past the end, and writing.
//!
//! Nothing here knows states or keys. A [`Contents`] holds every payload of a message sorted by type;
//! the exchanges take out of it what they require and name what is missing.

mod cursor;
mod header;
mod notify;
mod payload;
mod proposal;
mod selector;

pub(crate) use cursor::{Cursor, Writer};
pub(crate) use header::{ExchangeType, HEADER_LEN, Header};
pub(crate) use notify::{Delete, Notify, NotifyType};
pub(crate) use payload::{
    Chain, Contents, Encrypted, KeyExchange, PAYLOAD_HEADER_LEN, PayloadType, payload_header,
};
pub(crate) use proposal::{Proposal, Protocol, Transform, TransformType};
pub(crate) use selector::{emit_selectors, parse_selectors};

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// It ends inside a field.
    #[error("ends inside a field")]
    Truncated,
    /// Two lengths disagree.
    #[error("lengths disagree")]
    Length,
    /// A field has a value it must not have.
    #[error("a field has an illegal value")]
    Value,
    /// More of something than we are willing to look at.
    #[error("too many parts")]
    TooMany,
    /// A payload that may come once came twice.
    #[error("payload {0} came twice")]
    Duplicate(u8),
    /// A payload the exchange requires is not there.
    #[error("payload {0} is missing")]
    Missing(u8),
    /// Another major version of the protocol.
    #[error("major version {0}")]
    Version(u8),
}
