//! Key derivation (RFC 7296 sections 2.13, 2.14, 2.17 and 2.18).

use holdfast_crypto::{AeadAlgorithm, CryptoError, PrfAlgorithm, SecretBytes};
use holdfast_ipsec::SaKey;

use crate::algorithm::IkeSuite;
use crate::codec::Cursor;

/// The seven secrets of an IKE SA, named as in RFC 7296 section 2.14.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IkeKeys {
    pub(crate) d: SecretBytes,
    pub(crate) ai: SecretBytes,
    pub(crate) ar: SecretBytes,
    pub(crate) ei: SecretBytes,
    pub(crate) er: SecretBytes,
    pub(crate) pi: SecretBytes,
    pub(crate) pr: SecretBytes,
}

/// Both nonces of an exchange, the exchange initiator's first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nonces<'a> {
    pub(crate) i: &'a [u8],
    pub(crate) r: &'a [u8],
}

impl Nonces<'_> {
    /// The lower of the two, compared octet by octet: it decides collisions (section 2.8.1).
    pub(crate) fn lowest(&self) -> &[u8] {
        self.i.min(self.r)
    }
}

/// SKEYSEED of a first IKE SA: `prf(Ni | Nr, g^ir)`.
pub(crate) fn skeyseed(prf: PrfAlgorithm, nonces: Nonces<'_>, shared: &SecretBytes) -> SecretBytes {
    let key = SecretBytes::concat(&[nonces.i, nonces.r]);
    prf.prf(key.as_bytes(), &[shared.as_bytes()])
}

/// SKEYSEED of a rekeyed IKE SA: `prf(SK_d (old), g^ir (new) | Ni | Nr)`, with the old SA's PRF.
pub(crate) fn skeyseed_of_rekey(
    old_prf: PrfAlgorithm,
    old_d: &SecretBytes,
    nonces: Nonces<'_>,
    shared: &SecretBytes,
) -> SecretBytes {
    old_prf.prf(old_d.as_bytes(), &[shared.as_bytes(), nonces.i, nonces.r])
}

impl IkeKeys {
    /// `prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)`, cut into the seven secrets.
    pub(crate) fn derive(
        suite: &IkeSuite,
        skeyseed: &SecretBytes,
        nonces: Nonces<'_>,
        spi_i: u64,
        spi_r: u64,
    ) -> Result<Self, CryptoError> {
        let p = suite.prf.output_len();
        let a = suite.integrity.map_or(0, |integrity| integrity.key_len());
        let e = suite.encryption.key_len();
        let seed = [nonces.i, nonces.r, &spi_i.to_be_bytes(), &spi_r.to_be_bytes()];
        let all = suite.prf.prf_plus(skeyseed.as_bytes(), &seed, 3 * p + 2 * a + 2 * e)?;
        let mut cursor = Cursor::new(all.as_bytes());
        let mut next =
            |len| cursor.take(len).map(SecretBytes::from).map_err(|_| CryptoError::OutputTooLong);
        Ok(Self {
            d: next(p)?,
            ai: next(a)?,
            ar: next(a)?,
            ei: next(e)?,
            er: next(e)?,
            pi: next(p)?,
            pr: next(p)?,
        })
    }
}

/// The keys of a new pair of ESP SAs; the exchange initiator's outbound key comes first.
#[derive(Clone, Debug)]
pub(crate) struct ChildKeys {
    /// Key of packets from the exchange's initiator to its responder.
    pub(crate) from_initiator: SaKey,
    /// Key of packets from the exchange's responder to its initiator.
    pub(crate) from_responder: SaKey,
}

impl ChildKeys {
    /// `KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr)`, cut into the two keys.
    pub(crate) fn derive(
        prf: PrfAlgorithm,
        d: &SecretBytes,
        cipher: AeadAlgorithm,
        shared: Option<&SecretBytes>,
        nonces: Nonces<'_>,
    ) -> Result<Self, CryptoError> {
        let len = SaKey::keymat_len(cipher);
        let shared = shared.map_or(&[][..], SecretBytes::as_bytes);
        let all = prf.prf_plus(d.as_bytes(), &[shared, nonces.i, nonces.r], 2 * len)?;
        let mut cursor = Cursor::new(all.as_bytes());
        let mut next = || {
            let octets = cursor.take(len).map_err(|_| CryptoError::OutputTooLong)?;
            SaKey::new(cipher, octets).map_err(|_| CryptoError::OutputTooLong)
        };
        Ok(Self { from_initiator: next()?, from_responder: next()? })
    }
}
