//! The cryptography Holdfast needs, and nothing that knows what it is needed for.
//!
//! What it is: AES-GCM for bursts of packets, the other AEADs of ESP, the PRFs, integrity algorithms and AES-CBC that IKEv2
//! negotiates, four key exchange groups, and a container for secrets that wipes itself. What it is
//! not: it draws no randomness (generators are arguments), opens no socket, knows neither IKE nor
//! ESP, and keeps no counter, so whoever seals is answerable for never repeating a nonce.
//!
//! ```text
//!   worker                               IKE
//!     │ one job per packet                │ PrivateKey::agree ─► prf, prf_plus ─► keys
//!     ▼                                   ▼
//!   AeadBurst::{seal, open}             AeadKey::{seal_one, open_one}
//!     ├─ AES-GCM in 512-bit vectors     or CbcKey and IntegrityAlgorithm
//!     └─ the `aes-gcm` crate, others of their crates
//! ```
//!
//! Contract: every key type is wiped when dropped and prints nothing of itself; tags and ICVs are
//! compared in constant time; data that failed authentication is overwritten with zeroes before the
//! caller sees it again; no function panics, whatever bytes it is given. [`self_test`] holds the
//! pieces against each other before a daemon trusts them.
#![deny(unsafe_code)]

pub mod aead;
mod block;
pub mod cbc;
mod composed;
mod error;
pub mod exchange;
mod gmac;
pub mod integrity;
mod level;
mod modp;
pub mod prf;
mod secret;
mod self_test;
#[cfg(target_arch = "x86_64")]
mod simd;

pub use aead::{AeadAlgorithm, AeadBurst, AeadKey, Engine, OpenJob, Portable, SealJob};
pub use cbc::CbcKey;
pub use composed::{BlockMode, ComposedKey, Composition};
pub use error::CryptoError;
pub use exchange::{Group, PrivateKey, SharedSecret};
pub use integrity::IntegrityAlgorithm;
pub use level::Level;
pub use prf::PrfAlgorithm;
pub use secret::SecretBytes;
pub use self_test::self_test;

#[cfg(test)]
mod known_answers;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod wycheproof;
