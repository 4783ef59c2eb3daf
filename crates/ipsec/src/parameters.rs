//! A Child SA as IKE negotiates it and as the cluster replicates it.

use std::fmt;
use std::net::Ipv4Addr;

use arrayvec::ArrayVec;
use holdfast_crypto::{AeadAlgorithm, AeadKey, SecretBytes};
use zeroize::Zeroizing;

use crate::{IpsecError, Selectors, Spi};

/// Octets of salt behind the key in KEYMAT (RFC 4106 section 8.1, RFC 7634 section 2, RFC 4543
/// section 5.2).
pub(crate) const SALT_LEN: usize = 4;
/// Most octets of key and salt of an algorithm that is one transform.
const AEAD_KEYMAT_LEN_MAX: usize = 32 + SALT_LEN;

/// How ESP travels to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encapsulation {
    /// As IP protocol 50.
    Esp,
    /// In UDP, because a NAT is on the way (RFC 3948 section 2.1).
    Udp {
        /// Our port.
        local_port: u16,
        /// The peer's port as seen from here, so behind its NAT.
        remote_port: u16,
    },
}

/// Key and salt of one direction (RFC 4106 section 8.1), wiped when dropped, printed never.
#[derive(Clone, PartialEq, Eq)]
pub struct SaKey {
    algorithm: AeadAlgorithm,
    /// As many as the algorithm takes.
    octets: Octets,
}

/// The common ones without a way to another place: there are two for each of many SAs.
#[derive(Clone, PartialEq, Eq)]
enum Octets {
    Few(Zeroizing<ArrayVec<u8, AEAD_KEYMAT_LEN_MAX>>),
    Many(SecretBytes),
}

impl Octets {
    fn new(octets: &[u8]) -> Self {
        let mut few = ArrayVec::new();
        match few.try_extend_from_slice(octets) {
            Ok(()) => Self::Few(Zeroizing::new(few)),
            Err(_) => Self::Many(SecretBytes::from(octets)),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Few(octets) => octets,
            Self::Many(octets) => octets.as_bytes(),
        }
    }
}

impl SaKey {
    /// Octets of KEYMAT an algorithm takes: the key, then the salt. A composition has the cipher's key
    /// (with AES-CTR its nonce), then the integrity algorithm's.
    #[must_use]
    pub const fn keymat_len(algorithm: AeadAlgorithm) -> usize {
        match algorithm {
            AeadAlgorithm::Composed(composition) => composition.key_len(),
            _ => algorithm.key_len() + SALT_LEN,
        }
    }

    /// Splits KEYMAT into key and salt.
    ///
    /// # Errors
    /// [`IpsecError::KeyLength`] unless there are exactly [`keymat_len`](Self::keymat_len) octets.
    pub fn new(algorithm: AeadAlgorithm, key_and_salt: &[u8]) -> Result<Self, IpsecError> {
        let (wanted, got) = (Self::keymat_len(algorithm), key_and_salt.len());
        if got != wanted {
            return Err(IpsecError::KeyLength { wanted, got });
        }
        Ok(Self { algorithm, octets: Octets::new(key_and_salt) })
    }

    /// The algorithm the key is for.
    #[must_use]
    pub const fn algorithm(&self) -> AeadAlgorithm {
        self.algorithm
    }

    /// Key and salt joined, as [`new`](Self::new) takes them: for the replicated record.
    #[must_use]
    pub fn key_and_salt(&self) -> SecretBytes {
        SecretBytes::from(self.octets.as_slice())
    }

    /// Expands the key.
    pub(crate) fn expand(&self) -> (AeadKey, [u8; SALT_LEN]) {
        let octets = self.octets.as_slice();
        let (key, salt) = match self.algorithm {
            AeadAlgorithm::Composed(_) => (octets, &[0; SALT_LEN]),
            _ => octets.split_last_chunk().unwrap_or((&[], &[0; SALT_LEN])),
        };
        (AeadKey::new(self.algorithm, key).unwrap_or_else(|_| AeadKey::refusing()), *salt)
    }
}

impl fmt::Debug for SaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SaKey").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

/// Everything two SAs, one in each direction, need to process packets. Sequence numbers are not
/// here: they change, and are granted by the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSaParameters {
    /// SPI the peer puts into packets to us; the pair of SAs goes by it.
    pub inbound_spi: Spi,
    /// SPI we put into packets to the peer.
    pub outbound_spi: Spi,
    /// Key of packets to us.
    pub inbound_key: SaKey,
    /// Key of packets to the peer.
    pub outbound_key: SaKey,
    /// Whether sequence numbers are extended to 64 bits (RFC 4303 section 2.2.1).
    pub esn: bool,
    /// Size of the replay window; rounded up to a multiple of 64 and limited to 64..=131072 when
    /// used.
    pub window_packets: u32,
    /// Our tunnel end.
    pub local: Ipv4Addr,
    /// The peer's tunnel end.
    pub remote: Ipv4Addr,
    /// How ESP travels between the two.
    pub encapsulation: Encapsulation,
    /// Traffic that may use the pair.
    pub selectors: Selectors,
    /// Name of the configured connection.
    pub connection: String,
}
