//! Key exchange groups (RFC 3526, RFC 5903, RFC 8031), with the checks on the peer's value of RFC
//! 6989.

use std::fmt;

use p256::elliptic_curve::sec1::ToSec1Point;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::{CryptoError, SecretBytes, modp};

/// A Diffie-Hellman group; the number is its IKEv2 transform ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Group {
    /// The 2048-bit MODP group (RFC 3526 section 3).
    Modp2048 = 14,
    /// The 256-bit random ECP group, NIST P-256 (RFC 5903).
    Ecp256 = 19,
    /// The 384-bit random ECP group, NIST P-384 (RFC 5903).
    Ecp384 = 20,
    /// Curve25519 (RFC 8031).
    Curve25519 = 31,
}

impl Group {
    /// Every group this crate can do.
    pub const ALL: &[Self] = &[Self::Curve25519, Self::Ecp256, Self::Ecp384, Self::Modp2048];

    /// The IKEv2 transform ID.
    #[must_use]
    pub const fn transform_id(self) -> u16 {
        self as u16
    }

    /// The group of a transform ID, when this crate can do it.
    #[must_use]
    pub fn from_transform_id(id: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|group| group.transform_id() == id)
    }

    /// Octets of a public value in a KE payload.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => modp::VALUE_LEN,
            Self::Ecp256 => 64,
            Self::Ecp384 => 96,
            Self::Curve25519 => 32,
        }
    }

    /// Octets of a private value as [`PrivateKey::to_bytes`] gives it.
    const fn private_len(self) -> usize {
        match self {
            Self::Modp2048 => modp::EXPONENT_LEN,
            Self::Ecp256 | Self::Curve25519 => 32,
            Self::Ecp384 => 48,
        }
    }
}

/// The secret both sides arrive at: g^ir of RFC 7296 section 2.14, in the encoding the key
/// derivation takes.
pub type SharedSecret = SecretBytes;

/// One exchange's private value, wiped when dropped. Draw a fresh one for each exchange.
pub struct PrivateKey(Secret);

enum Secret {
    Modp2048(Zeroizing<[u8; modp::EXPONENT_LEN]>),
    Ecp256(p256::SecretKey),
    Ecp384(p384::SecretKey),
    Curve25519(x25519_dalek::StaticSecret),
}

impl PrivateKey {
    /// Draws a private value.
    #[must_use]
    pub fn generate(group: Group, random: &mut impl CryptoRng) -> Self {
        use p256::elliptic_curve::Generate;
        Self(match group {
            Group::Modp2048 => {
                let mut exponent = Zeroizing::new([0; modp::EXPONENT_LEN]);
                random.fill_bytes(&mut *exponent);
                Secret::Modp2048(exponent)
            }
            Group::Ecp256 => Secret::Ecp256(p256::SecretKey::generate_from_rng(random)),
            Group::Ecp384 => Secret::Ecp384(p384::SecretKey::generate_from_rng(random)),
            Group::Curve25519 => {
                Secret::Curve25519(x25519_dalek::StaticSecret::random_from_rng(random))
            }
        })
    }

    /// Takes up a private value that [`to_bytes`](Self::to_bytes) wrote, so that a successor can
    /// complete an exchange its predecessor began.
    ///
    /// # Errors
    /// [`CryptoError::PrivateValue`] when the octets are none of the group's private values.
    pub fn from_bytes(group: Group, octets: &[u8]) -> Result<Self, CryptoError> {
        if octets.len() != group.private_len() {
            return Err(CryptoError::PrivateValue);
        }
        let refused = |_| CryptoError::PrivateValue;
        Ok(Self(match group {
            Group::Modp2048 => Secret::Modp2048(Zeroizing::new(
                octets.try_into().map_err(|_| CryptoError::PrivateValue)?,
            )),
            Group::Ecp256 => Secret::Ecp256(p256::SecretKey::from_slice(octets).map_err(refused)?),
            Group::Ecp384 => Secret::Ecp384(p384::SecretKey::from_slice(octets).map_err(refused)?),
            Group::Curve25519 => {
                let mut scalar: [u8; 32] =
                    octets.try_into().map_err(|_| CryptoError::PrivateValue)?;
                let secret = x25519_dalek::StaticSecret::from(scalar);
                scalar.zeroize();
                Secret::Curve25519(secret)
            }
        }))
    }

    /// The private value, for the replicated record of an exchange under way.
    #[must_use]
    pub fn to_bytes(&self) -> SecretBytes {
        match &self.0 {
            Secret::Modp2048(exponent) => SecretBytes::from(&exponent[..]),
            Secret::Ecp256(secret) => SecretBytes::from(&Zeroizing::new(secret.to_bytes())[..]),
            Secret::Ecp384(secret) => SecretBytes::from(&Zeroizing::new(secret.to_bytes())[..]),
            Secret::Curve25519(secret) => SecretBytes::from(&secret.as_bytes()[..]),
        }
    }

    /// The group this value belongs to.
    #[must_use]
    pub const fn group(&self) -> Group {
        match self.0 {
            Secret::Modp2048(_) => Group::Modp2048,
            Secret::Ecp256(_) => Group::Ecp256,
            Secret::Ecp384(_) => Group::Ecp384,
            Secret::Curve25519(_) => Group::Curve25519,
        }
    }

    /// The public value as a KE payload carries it: padded to the prime's length (RFC 7296 section
    /// 3.4), x and y joined (RFC 5903 section 7), or 32 octets (RFC 8031 section 3.1).
    #[must_use]
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Secret::Modp2048(exponent) => modp::public_value(exponent),
            Secret::Ecp256(secret) => {
                without_form(secret.public_key().to_sec1_point(false).as_bytes())
            }
            Secret::Ecp384(secret) => {
                without_form(secret.public_key().to_sec1_point(false).as_bytes())
            }
            Secret::Curve25519(secret) => x25519_dalek::PublicKey::from(secret).to_bytes().to_vec(),
        }
    }

    /// Completes the exchange with the peer's public value.
    ///
    /// # Errors
    /// [`CryptoError::PublicValue`] when the value has the wrong length, is out of range, is not on
    /// the curve (RFC 6989 sections 2.1 and 2.3), or leads to an all-zero Curve25519 secret.
    pub fn agree(&self, peer_public: &[u8]) -> Result<SharedSecret, CryptoError> {
        if peer_public.len() != self.group().public_len() {
            return Err(CryptoError::PublicValue);
        }
        let refused = |_| CryptoError::PublicValue;
        match &self.0 {
            Secret::Modp2048(exponent) => modp::shared_secret(exponent, peer_public),
            Secret::Ecp256(secret) => {
                let peer = p256::PublicKey::from_sec1_bytes(&uncompressed(peer_public))
                    .map_err(refused)?;
                Ok(SecretBytes::from(&secret.diffie_hellman(&peer).raw_secret_bytes()[..]))
            }
            Secret::Ecp384(secret) => {
                let peer = p384::PublicKey::from_sec1_bytes(&uncompressed(peer_public))
                    .map_err(refused)?;
                Ok(SecretBytes::from(&secret.diffie_hellman(&peer).raw_secret_bytes()[..]))
            }
            Secret::Curve25519(secret) => {
                let peer: [u8; 32] =
                    peer_public.try_into().map_err(|_| CryptoError::PublicValue)?;
                let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(peer));
                // A point of small order would make the secret one the whole world knows.
                if !shared.was_contributory() {
                    return Err(CryptoError::PublicValue);
                }
                Ok(SecretBytes::from(&shared.as_bytes()[..]))
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("group", &self.group()).finish_non_exhaustive()
    }
}

/// SEC 1's first octet of an uncompressed point, which IKE leaves out.
const UNCOMPRESSED: u8 = 4;

fn uncompressed(coordinates: &[u8]) -> Vec<u8> {
    let mut point = Vec::with_capacity(coordinates.len() + 1);
    point.push(UNCOMPRESSED);
    point.extend_from_slice(coordinates);
    point
}

fn without_form(point: &[u8]) -> Vec<u8> {
    point.get(1..).unwrap_or_default().to_vec()
}
