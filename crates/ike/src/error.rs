//! What can go wrong, and who is at fault.

use crate::IkeSpi;

/// Why a request of our own side was refused. What peers do wrong is counted, never returned: see
/// [`crate::IkeCounters`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IkeError {
    /// The caller named a Child SA that is not here (any more).
    #[error("no Child SA with inbound SPI {0:#010x}")]
    NoChildSa(u32),
    /// The caller named an IKE SA that is not here (any more).
    #[error("no established IKE SA {0}")]
    NoIkeSa(IkeSpi),
    /// The SA is being replaced or closed already.
    #[error("the SA is being replaced or closed already")]
    Busy,
    /// The peer did not negotiate what a synchronisation of the counters needs (RFC 6311).
    #[error("IKE SA {0} cannot have its counters synchronised")]
    CannotSync(IkeSpi),
    /// No new IKE SA can be begun in place of an old one.
    #[error("no new IKE SA can be begun: {0}")]
    CannotBegin(&'static str),
    /// An exported IKE SA cannot be read: written by a newer version, or damaged.
    #[error("IKE SA {0} cannot be restored: {1}")]
    Restore(IkeSpi, &'static str),
}

/// Why a proposal in an operator's notation cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposalError {
    /// No algorithm has this name.
    #[error("unknown algorithm {0:?}")]
    Unknown(String),
    /// The algorithm cannot be used in this kind of proposal.
    #[error("{0:?} does not belong into this proposal")]
    Misplaced(String),
    /// AEAD and other ciphers need separate proposals (RFC 7296 section 3.3).
    #[error("AES-GCM and AES-CBC need separate proposals")]
    Mixed,
    /// Something mandatory is not there.
    #[error("the proposal has no {0}")]
    Without(&'static str),
}
