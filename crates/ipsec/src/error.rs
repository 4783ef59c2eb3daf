//! What can be wrong with SA parameters, by who is at fault.

/// Why values do not make SA parameters. Packets never cause one: they have
/// [`DropReason`](crate::DropReason)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpsecError {
    /// The peer (or a damaged record) names an SPI of the reserved values 0 to 255
    /// (RFC 4303 section 2.1).
    #[error("SPI {0} is one of the reserved values 0 to 255")]
    ReservedSpi(u32),
    /// Our own key derivation (or a damaged record) made a key of the wrong length.
    #[error("{got} octets of key and salt, where the algorithm takes {wanted}")]
    KeyLength {
        /// Octets the algorithm takes, salt included (RFC 4106 section 8.1).
        wanted: usize,
        /// Octets that were given.
        got: usize,
    },
}
