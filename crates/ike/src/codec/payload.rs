//! The chain of payloads (RFC 7296 section 3.2) and what it is sorted into.

use super::{Cursor, Delete, Malformed, Notify, NotifyType, Proposal, Writer};

/// Octets of the generic payload header.
pub(crate) const PAYLOAD_HEADER_LEN: usize = 4;
/// Payloads in one message: strongSwan's largest default message has about twenty, most of them
/// CERTREQ and Notify.
const PAYLOADS_MAX: usize = 128;
const CRITICAL: u8 = 0x80;

/// A payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PayloadType(pub(crate) u8);

impl PayloadType {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const SA: Self = Self(33);
    pub(crate) const KE: Self = Self(34);
    pub(crate) const ID_I: Self = Self(35);
    pub(crate) const ID_R: Self = Self(36);
    pub(crate) const CERT: Self = Self(37);
    pub(crate) const CERTREQ: Self = Self(38);
    pub(crate) const AUTH: Self = Self(39);
    pub(crate) const NONCE: Self = Self(40);
    pub(crate) const NOTIFY: Self = Self(41);
    pub(crate) const DELETE: Self = Self(42);
    pub(crate) const VENDOR_ID: Self = Self(43);
    pub(crate) const TS_I: Self = Self(44);
    pub(crate) const TS_R: Self = Self(45);
    pub(crate) const SK: Self = Self(46);
    pub(crate) const CP: Self = Self(47);
    pub(crate) const EAP: Self = Self(48);
    /// Encrypted Fragment (RFC 7383 section 2.5).
    pub(crate) const SKF: Self = Self(53);
}

/// The generic payload header.
pub(crate) fn payload_header(next: PayloadType, body_len: usize) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u8(next.0).u8(0).len16(PAYLOAD_HEADER_LEN + body_len);
    writer.into_bytes()
}

/// The body of a Key Exchange payload (section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyExchange<'a> {
    /// Transform ID of the group.
    pub(crate) group: u16,
    /// The public value.
    pub(crate) public: &'a [u8],
}

impl<'a> KeyExchange<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let group = cursor.u16()?;
        cursor.u16()?;
        Ok(Self { group, public: cursor.rest() })
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u16(self.group).u16(0).bytes(self.public);
        writer.into_bytes()
    }
}

/// The Encrypted or Encrypted Fragment payload at the end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encrypted<'a> {
    /// Type of the first payload inside.
    pub(crate) first: PayloadType,
    /// Whether this is a fragment (RFC 7383).
    pub(crate) fragment: bool,
    /// What follows the generic payload header: IV, ciphertext, checksum.
    pub(crate) body: &'a [u8],
    /// Octets of the message before `body`.
    pub(crate) offset: usize,
}

/// Every payload of a message, sorted by type. Types this implementation has no use for are skipped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents<'a> {
    sa: Option<&'a [u8]>,
    ke: Option<&'a [u8]>,
    id_i: Option<&'a [u8]>,
    id_r: Option<&'a [u8]>,
    auth: Option<&'a [u8]>,
    nonce: Option<&'a [u8]>,
    ts_i: Option<&'a [u8]>,
    ts_r: Option<&'a [u8]>,
    /// Notify payloads in the order they came.
    pub(crate) notifies: Vec<Notify<'a>>,
    /// Delete payloads in the order they came.
    pub(crate) deletes: Vec<Delete>,
    /// The first unknown payload marked critical: the message must be rejected (section 2.5).
    pub(crate) unknown_critical: Option<PayloadType>,
    /// The payload that ends the chain when the rest is encrypted.
    pub(crate) encrypted: Option<Encrypted<'a>>,
}

impl<'a> Contents<'a> {
    /// Sorts the chain that starts with type `first` in `message` after `offset` octets.
    ///
    /// # Errors
    /// When the chain breaks, has too many payloads, or a payload that may come once comes twice.
    pub(crate) fn parse(
        first: PayloadType,
        message: &'a [u8],
        offset: usize,
    ) -> Result<Self, Malformed> {
        let mut contents = Self::default();
        let mut cursor = Cursor::new(message);
        cursor.take(offset)?;
        let mut kind = first;
        let mut count = 0_usize;
        while kind != PayloadType::NONE {
            count += 1;
            if count > PAYLOADS_MAX {
                return Err(Malformed::TooMany);
            }
            let next = PayloadType(cursor.u8()?);
            let critical = cursor.u8()? & CRITICAL != 0;
            let len = usize::from(cursor.u16()?);
            let body_len = len.checked_sub(PAYLOAD_HEADER_LEN).ok_or(Malformed::Length)?;
            let offset = message.len() - cursor.remaining();
            let body = cursor.take(body_len)?;
            if kind == PayloadType::SK || kind == PayloadType::SKF {
                let fragment = kind == PayloadType::SKF;
                contents.encrypted = Some(Encrypted { first: next, fragment, body, offset });
                break;
            }
            contents.sort(kind, critical, body)?;
            kind = next;
        }
        cursor.finish()?;
        Ok(contents)
    }

    fn sort(&mut self, kind: PayloadType, critical: bool, body: &'a [u8]) -> Result<(), Malformed> {
        let place = match kind {
            PayloadType::SA => &mut self.sa,
            PayloadType::KE => &mut self.ke,
            PayloadType::ID_I => &mut self.id_i,
            PayloadType::ID_R => &mut self.id_r,
            PayloadType::AUTH => &mut self.auth,
            PayloadType::NONCE => &mut self.nonce,
            PayloadType::TS_I => &mut self.ts_i,
            PayloadType::TS_R => &mut self.ts_r,
            PayloadType::NOTIFY => {
                self.notifies.push(Notify::parse(body)?);
                return Ok(());
            }
            PayloadType::DELETE => {
                self.deletes.push(Delete::parse(body)?);
                return Ok(());
            }
            PayloadType::CERT
            | PayloadType::CERTREQ
            | PayloadType::VENDOR_ID
            | PayloadType::CP
            | PayloadType::EAP => return Ok(()),
            unknown => {
                if critical {
                    self.unknown_critical.get_or_insert(unknown);
                }
                return Ok(());
            }
        };
        match place.replace(body) {
            None => Ok(()),
            Some(_) => Err(Malformed::Duplicate(kind.0)),
        }
    }

    /// The proposals.
    pub(crate) fn proposals(&self) -> Result<Vec<Proposal>, Malformed> {
        Proposal::parse_all(require(self.sa, PayloadType::SA)?)
    }

    /// The Key Exchange payload, if there is one.
    pub(crate) fn key_exchange(&self) -> Result<Option<KeyExchange<'a>>, Malformed> {
        self.ke.map(KeyExchange::parse).transpose()
    }

    /// The nonce, 16 to 256 octets (section 3.9).
    pub(crate) fn nonce(&self) -> Result<&'a [u8], Malformed> {
        let nonce = require(self.nonce, PayloadType::NONCE)?;
        if (16..=256).contains(&nonce.len()) { Ok(nonce) } else { Err(Malformed::Length) }
    }

    /// The body of IDi.
    pub(crate) fn id_i(&self) -> Result<&'a [u8], Malformed> {
        require(self.id_i, PayloadType::ID_I)
    }

    /// The body of IDr.
    pub(crate) fn id_r(&self) -> Result<&'a [u8], Malformed> {
        require(self.id_r, PayloadType::ID_R)
    }

    /// The authentication method and data (section 3.8), if there is an AUTH payload.
    pub(crate) fn auth(&self) -> Result<Option<(u8, &'a [u8])>, Malformed> {
        let Some(body) = self.auth else { return Ok(None) };
        let mut cursor = Cursor::new(body);
        let method = cursor.u8()?;
        cursor.take(3)?;
        Ok(Some((method, cursor.rest())))
    }

    /// The bodies of TSi and TSr.
    pub(crate) fn selectors(&self) -> Result<(&'a [u8], &'a [u8]), Malformed> {
        Ok((require(self.ts_i, PayloadType::TS_I)?, require(self.ts_r, PayloadType::TS_R)?))
    }

    /// The first Notify payload of a type.
    pub(crate) fn notify(&self, kind: NotifyType) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|notify| notify.kind == kind)
    }

    /// The first Notify payload that reports an error.
    pub(crate) fn error(&self) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|notify| notify.kind.is_error())
    }
}

fn require<T>(payload: Option<T>, kind: PayloadType) -> Result<T, Malformed> {
    payload.ok_or(Malformed::Missing(kind.0))
}

/// Payloads to be sent, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain(Vec<(PayloadType, Vec<u8>)>);

impl Chain {
    /// No payloads.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a payload.
    pub(crate) fn push(&mut self, kind: PayloadType, body: Vec<u8>) -> &mut Self {
        self.0.push((kind, body));
        self
    }

    /// Appends a Notify payload.
    pub(crate) fn notify(&mut self, notify: &Notify<'_>) -> &mut Self {
        self.push(PayloadType::NOTIFY, notify.emit())
    }

    /// The type of the first payload.
    pub(crate) fn first(&self) -> PayloadType {
        self.0.first().map_or(PayloadType::NONE, |(kind, _)| *kind)
    }

    /// The octets of all payloads.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let next = self.0.iter().skip(1).map(|(kind, _)| *kind).chain([PayloadType::NONE]);
        for ((_, body), next) in self.0.iter().zip(next) {
            bytes.extend_from_slice(&payload_header(next, body.len()));
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Chain {
        let mut chain = Chain::new();
        chain.push(PayloadType::NONCE, vec![7; 16]);
        chain.notify(&Notify::new(NotifyType::COOKIE, &[1]));
        chain
    }

    #[test]
    fn sorts_what_was_written() {
        let bytes = chain().emit();
        let contents = Contents::parse(chain().first(), &bytes, 0).unwrap();
        assert_eq!(contents.nonce(), Ok(&[7; 16][..]));
        assert!(contents.notify(NotifyType::COOKIE).is_some());
        assert_eq!(contents.id_i(), Err(Malformed::Missing(35)));
        for len in 0..bytes.len() {
            assert!(Contents::parse(PayloadType::NONCE, &bytes[..len], 0).is_err(), "{len}");
        }
    }

    #[test]
    fn a_second_nonce_is_refused() {
        let mut twice = chain();
        twice.push(PayloadType::NONCE, vec![8; 16]);
        let bytes = twice.emit();
        let refused = Contents::parse(twice.first(), &bytes, 0).unwrap_err();
        assert_eq!(refused, Malformed::Duplicate(40));
    }

    #[test]
    fn unknown_payloads_are_skipped_unless_critical() {
        let mut unknown = Chain::new();
        unknown.push(PayloadType(200), vec![1, 2, 3]);
        let mut bytes = unknown.emit();
        let contents = Contents::parse(unknown.first(), &bytes, 0).unwrap();
        assert_eq!(contents.unknown_critical, None);
        bytes[1] |= CRITICAL;
        let contents = Contents::parse(unknown.first(), &bytes, 0).unwrap();
        assert_eq!(contents.unknown_critical, Some(PayloadType(200)));
    }

    #[test]
    fn nothing_may_follow_the_encrypted_payload() {
        let mut encrypted = Chain::new();
        encrypted.push(PayloadType::SK, vec![0; 20]);
        let mut bytes = encrypted.emit();
        let contents = Contents::parse(PayloadType::SK, &bytes, 0).unwrap();
        assert_eq!(contents.encrypted.unwrap().offset, PAYLOAD_HEADER_LEN);
        bytes.push(0);
        assert_eq!(Contents::parse(PayloadType::SK, &bytes, 0).unwrap_err(), Malformed::Length);
    }
}
