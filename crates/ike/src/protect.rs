//! The Encrypted payload (RFC 7296 section 3.14), with AEAD (RFC 5282) and in fragments
//! (RFC 7383 section 2.5).

use holdfast_crypto::{AeadKey, CbcKey, CryptoError, SecretBytes};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use crate::algorithm::{IkeEncryption, IkeSuite};
use crate::codec::{
    Chain, Cursor, Encrypted, HEADER_LEN, Header, PAYLOAD_HEADER_LEN, PayloadType, payload_header,
};
use crate::keys::IkeKeys;

const GCM_IV_LEN: usize = 8;
const GCM_TAG_LEN: usize = 16;
const CBC_BLOCK_LEN: usize = 16;
const FRAGMENT_HEADER_LEN: usize = 4;

/// The keys of messages in one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectionKeys<'a> {
    suite: &'a IkeSuite,
    e: &'a SecretBytes,
    a: &'a SecretBytes,
}

/// A place in a fragmented message, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentNumber {
    pub(crate) number: u16,
    pub(crate) total: u16,
}

/// What was inside an Encrypted or Encrypted Fragment payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) content: Vec<u8>,
    pub(crate) fragment: Option<FragmentNumber>,
}

/// What sealing needs besides keys: GCM takes a counter, so that an IV never repeats under a key (the
/// counter is part of the replicated record and every sealed message is committed before it is sent);
/// CBC takes unpredictable octets.
#[derive(Debug)]
pub(crate) struct IvSource<'a> {
    pub(crate) counter: &'a mut u64,
    pub(crate) random: &'a mut ChaCha20Rng,
}

impl<'a> DirectionKeys<'a> {
    /// Keys of what the original initiator sends, or of what it receives.
    pub(crate) const fn new(suite: &'a IkeSuite, keys: &'a IkeKeys, of_initiator: bool) -> Self {
        if of_initiator {
            Self { suite, e: &keys.ei, a: &keys.ai }
        } else {
            Self { suite, e: &keys.er, a: &keys.ar }
        }
    }

    fn iv_len(&self) -> usize {
        match self.suite.encryption {
            IkeEncryption::Gcm(_) => GCM_IV_LEN,
            IkeEncryption::Cbc128 | IkeEncryption::Cbc256 => CBC_BLOCK_LEN,
        }
    }

    fn icv_len(&self) -> usize {
        self.suite.integrity.map_or(GCM_TAG_LEN, |integrity| integrity.icv_len())
    }

    /// Octets of padding, without the Pad Length octet.
    fn padding(&self, content_len: usize) -> usize {
        match self.suite.encryption {
            IkeEncryption::Gcm(_) => 0,
            IkeEncryption::Cbc128 | IkeEncryption::Cbc256 => {
                CBC_BLOCK_LEN - 1 - content_len % CBC_BLOCK_LEN
            }
        }
    }

    fn message_len(&self, content_len: usize, fragment: bool) -> usize {
        let fragment_len = if fragment { FRAGMENT_HEADER_LEN } else { 0 };
        let padded = content_len + self.padding(content_len) + 1;
        HEADER_LEN + PAYLOAD_HEADER_LEN + fragment_len + self.iv_len() + padded + self.icv_len()
    }

    /// Protects payloads as one message, or as fragments when `limit` is given and exceeded.
    ///
    /// # Errors
    /// Only when a key has the wrong length, which derivation rules out.
    pub(crate) fn seal(
        &self,
        header: &Header,
        chain: &Chain,
        limit: Option<usize>,
        iv: &mut IvSource<'_>,
    ) -> Result<Vec<Vec<u8>>, CryptoError> {
        let content = chain.emit();
        let limit = limit.unwrap_or(usize::MAX);
        if self.message_len(content.len(), false) <= limit {
            let message = self.seal_one(header, chain.first(), &content, None, iv)?;
            return Ok(vec![message]);
        }
        let chunks: Vec<_> = content.chunks(self.chunk_len(limit)).collect();
        let total = u16::try_from(chunks.len()).map_err(|_| CryptoError::OutputTooLong)?;
        let mut first = chain.first();
        let mut messages = Vec::with_capacity(chunks.len());
        for (number, chunk) in (1..=total).zip(chunks) {
            let fragment = Some(FragmentNumber { number, total });
            messages.push(self.seal_one(header, first, chunk, fragment, iv)?);
            first = PayloadType::NONE;
        }
        Ok(messages)
    }

    /// The most content a fragment of `limit` octets has room for; at least one block's worth.
    fn chunk_len(&self, limit: usize) -> usize {
        let room = limit.saturating_sub(self.message_len(0, true) - 1 - self.padding(0));
        match self.suite.encryption {
            IkeEncryption::Gcm(_) => room.saturating_sub(1).max(CBC_BLOCK_LEN),
            IkeEncryption::Cbc128 | IkeEncryption::Cbc256 => {
                (room / CBC_BLOCK_LEN * CBC_BLOCK_LEN).saturating_sub(1).max(CBC_BLOCK_LEN - 1)
            }
        }
    }

    fn seal_one(
        &self,
        header: &Header,
        first: PayloadType,
        content: &[u8],
        fragment: Option<FragmentNumber>,
        iv: &mut IvSource<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        let kind = if fragment.is_some() { PayloadType::SKF } else { PayloadType::SK };
        let len = self.message_len(content.len(), fragment.is_some());
        let mut message = header.emit(kind.0, len);
        message.extend_from_slice(&payload_header(first, len - HEADER_LEN - PAYLOAD_HEADER_LEN));
        if let Some(FragmentNumber { number, total }) = fragment {
            message.extend_from_slice(&number.to_be_bytes());
            message.extend_from_slice(&total.to_be_bytes());
        }
        let padding = self.padding(content.len());
        let mut data = Vec::with_capacity(content.len() + padding + 1);
        data.extend_from_slice(content);
        data.resize(content.len() + padding, 0);
        data.push(u8::try_from(padding).unwrap_or(0));
        self.encrypt(message, data, iv)
    }

    /// Protects octets that need not be payloads, as only a hostile peer would.
    #[cfg(test)]
    pub(crate) fn seal_raw(
        &self,
        header: &Header,
        first: PayloadType,
        content: &[u8],
        iv: &mut IvSource<'_>,
    ) -> Vec<u8> {
        self.seal_one(header, first, content, None, iv).unwrap()
    }

    fn encrypt(
        &self,
        mut message: Vec<u8>,
        mut data: Vec<u8>,
        iv: &mut IvSource<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        if let IkeEncryption::Gcm(algorithm) = self.suite.encryption {
            *iv.counter = iv.counter.checked_add(1).ok_or(CryptoError::OutputTooLong)?;
            let explicit = iv.counter.to_be_bytes();
            let (key, nonce) = self.gcm(algorithm, explicit)?;
            let tag = key.seal_one(&nonce, &message, &mut data)?;
            message.extend_from_slice(&explicit);
            message.extend_from_slice(&data);
            message.extend_from_slice(&tag);
            return Ok(message);
        }
        let mut vector = [0; CBC_BLOCK_LEN];
        iv.random.fill_bytes(&mut vector);
        CbcKey::new(self.e.as_bytes())?.encrypt(&vector, &mut data)?;
        message.extend_from_slice(&vector);
        message.extend_from_slice(&data);
        if let Some(integrity) = self.suite.integrity {
            let icv = integrity.sign(self.a.as_bytes(), &[&message]);
            message.extend_from_slice(&icv);
        }
        Ok(message)
    }

    /// The key without its salt, and the nonce: salt, then the explicit IV (RFC 5282 section 4).
    fn gcm(
        &self,
        algorithm: holdfast_crypto::AeadAlgorithm,
        explicit: [u8; GCM_IV_LEN],
    ) -> Result<(AeadKey, [u8; 12]), CryptoError> {
        let wrong = CryptoError::KeyLength { wanted: algorithm.key_len() + 4, got: self.e.len() };
        let split = self.e.as_bytes().split_at_checked(algorithm.key_len());
        let (key, salt) = split.ok_or(wrong)?;
        let salt: [u8; 4] = salt.try_into().map_err(|_| wrong)?;
        let [s0, s1, s2, s3] = salt;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = explicit;
        let nonce = [s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7];
        Ok((AeadKey::new(algorithm, key)?, nonce))
    }

    /// Authenticates and decrypts the Encrypted payload of `message`.
    ///
    /// # Errors
    /// [`CryptoError::NotAuthentic`] whatever is wrong with it.
    pub(crate) fn open(
        &self,
        message: &[u8],
        encrypted: &Encrypted<'_>,
    ) -> Result<Opened, CryptoError> {
        let refused = CryptoError::NotAuthentic;
        let mut cursor = Cursor::new(encrypted.body);
        let mut offset = encrypted.offset;
        let fragment = if encrypted.fragment {
            offset += FRAGMENT_HEADER_LEN;
            let number = cursor.u16().map_err(|_| refused)?;
            Some(FragmentNumber { number, total: cursor.u16().map_err(|_| refused)? })
        } else {
            None
        };
        let iv = cursor.take(self.iv_len()).map_err(|_| refused)?;
        let data_len = cursor.remaining().checked_sub(self.icv_len()).ok_or(refused)?;
        let mut content = cursor.take(data_len).map_err(|_| refused)?.to_vec();
        let icv = cursor.rest();
        let before = message.get(..offset).ok_or(refused)?;
        let signed = message.get(..message.len() - icv.len()).ok_or(refused)?;
        self.decrypt(before, signed, iv, &mut content, icv)?;
        let padding = usize::from(content.pop().ok_or(refused)?);
        let len = content.len().checked_sub(padding).ok_or(refused)?;
        content.truncate(len);
        Ok(Opened { content, fragment })
    }

    fn decrypt(
        &self,
        before: &[u8],
        signed: &[u8],
        iv: &[u8],
        data: &mut [u8],
        icv: &[u8],
    ) -> Result<(), CryptoError> {
        let refused = CryptoError::NotAuthentic;
        if let IkeEncryption::Gcm(algorithm) = self.suite.encryption {
            let (key, nonce) = self.gcm(algorithm, iv.try_into().map_err(|_| refused)?)?;
            return key.open_one(&nonce, before, data, icv.try_into().map_err(|_| refused)?);
        }
        let integrity = self.suite.integrity.ok_or(refused)?;
        integrity.verify(self.a.as_bytes(), &[signed], icv)?;
        let iv = iv.try_into().map_err(|_| refused)?;
        CbcKey::new(self.e.as_bytes())?.decrypt(iv, data).map_err(|_| refused)
    }
}
