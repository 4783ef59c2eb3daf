//! Cookies: no state for initiators that have not shown that they can be reached (RFC 7296 section 2.6).

use holdfast_crypto::{PrfAlgorithm, SecretBytes};
use holdfast_packet::Nanos;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use std::net::SocketAddrV4;
use subtle::ConstantTimeEq;

/// Milliseconds a secret is used; cookies of the one before are still accepted.
const SECRET_MS: u64 = 60_000;

/// The current secret and the one before it.
#[derive(Debug)]
pub(crate) struct CookieJar {
    version: u8,
    since: Nanos,
    current: SecretBytes,
    previous: SecretBytes,
}

fn draw(random: &mut ChaCha20Rng) -> SecretBytes {
    let mut secret = vec![0; 32];
    random.fill_bytes(&mut secret);
    SecretBytes::new(secret)
}

impl CookieJar {
    pub(crate) fn new(random: &mut ChaCha20Rng) -> Self {
        let (current, previous) = (draw(random), draw(random));
        Self { version: 0, since: Nanos::ZERO, current, previous }
    }

    /// Changes the secret when it is old.
    pub(crate) fn refresh(&mut self, now: Nanos, random: &mut ChaCha20Rng) {
        if now.ms_since(self.since) >= SECRET_MS {
            self.since = now;
            self.version = self.version.wrapping_add(1);
            self.previous = std::mem::replace(&mut self.current, draw(random));
        }
    }

    /// `version | prf(secret, Ni | IPi | port | SPIi)`.
    fn bake(
        version: u8,
        secret: &SecretBytes,
        nonce: &[u8],
        from: SocketAddrV4,
        spi_i: u64,
    ) -> Vec<u8> {
        let parts: [&[u8]; 4] =
            [nonce, &from.ip().octets(), &from.port().to_be_bytes(), &spi_i.to_be_bytes()];
        let hash = PrfAlgorithm::HmacSha256.prf(secret.as_bytes(), &parts);
        [&[version], hash.as_bytes()].concat()
    }

    /// The cookie to demand.
    pub(crate) fn demand(&self, nonce: &[u8], from: SocketAddrV4, spi_i: u64) -> Vec<u8> {
        Self::bake(self.version, &self.current, nonce, from, spi_i)
    }

    /// Whether `cookie` is one we gave to this initiator.
    pub(crate) fn accepts(
        &self,
        cookie: &[u8],
        nonce: &[u8],
        from: SocketAddrV4,
        spi_i: u64,
    ) -> bool {
        let secret = match cookie.first() {
            Some(version) if *version == self.version => &self.current,
            Some(version) if *version == self.version.wrapping_sub(1) => &self.previous,
            _ => return false,
        };
        let version = cookie.first().copied().unwrap_or_default();
        Self::bake(version, secret, nonce, from, spi_i).ct_eq(cookie).into()
    }
}
