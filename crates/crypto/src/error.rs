//! What can go wrong, by who is at fault.

/// Why a cryptographic operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// Our own caller handed over a key of a length the algorithm does not have.
    #[error("a key of {got} octets, where the algorithm takes {wanted}")]
    KeyLength {
        /// Octets the algorithm takes.
        wanted: usize,
        /// Octets that were given.
        got: usize,
    },
    /// Our own caller asked for more output than the algorithm may give.
    #[error("more output asked for than the algorithm may give")]
    OutputTooLong,
    /// Data to be encrypted or decrypted is not a whole number of cipher blocks (the peer's fault
    /// when decrypting).
    #[error("data is not a whole number of cipher blocks")]
    BlockLength,
    /// The peer, or somebody on the path, sent data that does not authenticate.
    #[error("data does not authenticate")]
    NotAuthentic,
    /// The peer's public value has the wrong length or is not a legal element of the group (RFC
    /// 6989 section 2).
    #[error("the peer's public value is not a legal element of the group")]
    PublicValue,
    /// A stored private value is not one of the group.
    #[error("a private value does not belong to the group")]
    PrivateValue,
    /// Two implementations that must agree do not: this machine's arithmetic is not to be trusted.
    #[error("self test failed: {0}")]
    SelfTest(&'static str),
    /// A level was asked for that this processor lacks the instructions of.
    #[error("this processor cannot run AES-GCM at level {0}")]
    LevelUnavailable(&'static str),
    /// Keys are being expanded for this level already.
    #[error("AES-GCM runs at level {0} already")]
    LevelChosen(&'static str),
    /// No level has this name.
    #[error("there is no such level of AES-GCM")]
    NoSuchLevel,
}
