//! The Security Association payload (RFC 7296 section 3.3): proposals, transforms, attributes.

use super::{Cursor, Malformed, Writer};

/// Proposals in one payload: clients offer a handful, and each costs a comparison with our list.
const PROPOSALS_MAX: usize = 32;
/// Transforms in all proposals together; strongSwan's default has about seventy.
const TRANSFORMS_MAX: usize = 512;

const PROPOSAL_FOLLOWS: u8 = 2;
const TRANSFORM_FOLLOWS: u8 = 3;
const PROPOSAL_HEADER_LEN: usize = 8;
const TRANSFORM_HEADER_LEN: usize = 8;
const ATTRIBUTE_KEY_LENGTH: u16 = 14;
/// AF bit: type and value in four octets.
const ATTRIBUTE_SHORT: u16 = 0x8000;

/// An IPsec protocol (section 3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ike,
    Ah,
    Esp,
}

impl Protocol {
    pub(crate) const fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Ike),
            2 => Some(Self::Ah),
            3 => Some(Self::Esp),
            _ => None,
        }
    }

    pub(crate) const fn to_wire(self) -> u8 {
        match self {
            Self::Ike => 1,
            Self::Ah => 2,
            Self::Esp => 3,
        }
    }
}

/// A transform type (section 3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransformType(pub(crate) u8);

impl TransformType {
    pub(crate) const ENCR: Self = Self(1);
    pub(crate) const PRF: Self = Self(2);
    pub(crate) const INTEG: Self = Self(3);
    pub(crate) const DH: Self = Self(4);
    pub(crate) const ESN: Self = Self(5);
}

/// One algorithm on offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transform {
    /// Which of the suite's places it would fill.
    pub(crate) kind: TransformType,
    /// The algorithm, in the number space of its type.
    pub(crate) id: u16,
    /// The Key Length attribute.
    pub(crate) key_bits: Option<u16>,
    /// Whether there was an attribute we do not know: such a transform is unacceptable
    /// (section 3.3.6).
    pub(crate) foreign: bool,
}

impl Transform {
    pub(crate) const fn new(kind: TransformType, id: u16, key_bits: Option<u16>) -> Self {
        Self { kind, id, key_bits, foreign: false }
    }

    fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let kind = TransformType(cursor.u8()?);
        cursor.u8()?;
        let mut transform = Self::new(kind, cursor.u16()?, None);
        while !cursor.is_empty() {
            let (attribute, value) = (cursor.u16()?, cursor.u16()?);
            if attribute == ATTRIBUTE_SHORT | ATTRIBUTE_KEY_LENGTH {
                transform.key_bits = Some(value);
            } else {
                transform.foreign = true;
                if attribute & ATTRIBUTE_SHORT == 0 {
                    cursor.take(value.into())?;
                }
            }
        }
        Ok(transform)
    }

    fn emit(&self, writer: &mut Writer, last: bool) {
        let attribute_len = if self.key_bits.is_some() { 4 } else { 0 };
        writer.u8(if last { 0 } else { TRANSFORM_FOLLOWS }).u8(0);
        writer.len16(TRANSFORM_HEADER_LEN + attribute_len);
        writer.u8(self.kind.0).u8(0).u16(self.id);
        if let Some(bits) = self.key_bits {
            writer.u16(ATTRIBUTE_SHORT | ATTRIBUTE_KEY_LENGTH).u16(bits);
        }
    }
}

/// One proposal: an offer, or the one that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// Its number, from 1; the answer repeats the number of the offer it accepts.
    pub(crate) number: u8,
    /// The protocol on offer, if we know it.
    pub(crate) protocol: Option<Protocol>,
    /// The sender's SPI for the SA to be; empty in IKE_SA_INIT.
    pub(crate) spi: Vec<u8>,
    /// The algorithms on offer.
    pub(crate) transforms: Vec<Transform>,
}

impl Proposal {
    /// Whether this is what `other` is, but for the SPI: the same number, protocol and transforms. A
    /// choice must be one of each kind and nothing else (section 3.3.6).
    pub(crate) fn has_exactly(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| a.transforms.iter().all(|t| b.transforms.contains(t));
        self.number == other.number
            && self.protocol == other.protocol
            && self.transforms.len() == other.transforms.len()
            && within(self, other)
            && within(other, self)
    }

    /// Reads a Security Association payload.
    ///
    /// # Errors
    /// When lengths and counts disagree, or there are more proposals or transforms than the bounds
    /// above.
    pub(crate) fn parse_all(body: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut cursor = Cursor::new(body);
        let mut proposals = Vec::new();
        let mut transforms = 0;
        loop {
            let more = cursor.u8()?;
            cursor.u8()?;
            let length = usize::from(cursor.u16()?);
            let inner = length.checked_sub(4).ok_or(Malformed::Length)?;
            let proposal = Self::parse(cursor.take(inner)?)?;
            transforms += proposal.transforms.len();
            proposals.push(proposal);
            if proposals.len() > PROPOSALS_MAX || transforms > TRANSFORMS_MAX {
                return Err(Malformed::TooMany);
            }
            match more {
                0 => return cursor.finish().map(|()| proposals),
                PROPOSAL_FOLLOWS => {}
                _ => return Err(Malformed::Value),
            }
        }
    }

    fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let number = cursor.u8()?;
        let protocol = Protocol::from_wire(cursor.u8()?);
        let spi_len = cursor.u8()?;
        let count = usize::from(cursor.u8()?);
        let spi = cursor.take(spi_len.into())?.to_vec();
        let mut transforms = Vec::with_capacity(count);
        while transforms.len() < count {
            let more = cursor.u8()?;
            cursor.u8()?;
            let length = usize::from(cursor.u16()?);
            let inner = length.checked_sub(4).ok_or(Malformed::Length)?;
            transforms.push(Transform::parse(cursor.take(inner)?)?);
            let wanted = if transforms.len() == count { 0 } else { TRANSFORM_FOLLOWS };
            if more != wanted {
                return Err(Malformed::Value);
            }
        }
        cursor.finish()?;
        Ok(Self { number, protocol, spi, transforms })
    }

    /// The body of a Security Association payload with these proposals.
    pub(crate) fn emit_all(proposals: &[Self]) -> Vec<u8> {
        let mut writer = Writer::new();
        for (index, proposal) in proposals.iter().enumerate() {
            let mut inner = Writer::new();
            for (index, transform) in proposal.transforms.iter().enumerate() {
                transform.emit(&mut inner, index + 1 == proposal.transforms.len());
            }
            let inner = inner.into_bytes();
            let last = index + 1 == proposals.len();
            writer.u8(if last { 0 } else { PROPOSAL_FOLLOWS }).u8(0);
            writer.len16(PROPOSAL_HEADER_LEN + proposal.spi.len() + inner.len());
            writer.u8(proposal.number);
            writer.u8(proposal.protocol.map_or(0, Protocol::to_wire));
            writer.u8(u8::try_from(proposal.spi.len()).unwrap_or(u8::MAX));
            writer.u8(u8::try_from(proposal.transforms.len()).unwrap_or(u8::MAX));
            writer.bytes(&proposal.spi).bytes(&inner);
        }
        writer.into_bytes()
    }

    /// The transforms of one type, without those that carry unknown attributes.
    pub(crate) fn of(&self, kind: TransformType) -> impl Iterator<Item = &Transform> {
        self.transforms.iter().filter(move |transform| transform.kind == kind && !transform.foreign)
    }

    /// Whether the type is part of this proposal at all.
    pub(crate) fn mentions(&self, kind: TransformType) -> bool {
        self.transforms.iter().any(|transform| transform.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Vec<Proposal> {
        let aes = |bits| Transform::new(TransformType::ENCR, 20, Some(bits));
        let none = Transform::new(TransformType::ESN, 0, None);
        let proposal = |number, transforms| Proposal {
            number,
            protocol: Some(Protocol::Esp),
            spi: vec![0, 0, 1, number],
            transforms,
        };
        vec![proposal(1, vec![aes(128), aes(256), none]), proposal(2, vec![aes(256), none])]
    }

    #[test]
    fn reads_back_what_was_written() {
        assert_eq!(Proposal::parse_all(&Proposal::emit_all(&offer())), Ok(offer()));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = Proposal::emit_all(&offer());
        for len in 0..bytes.len() {
            assert!(Proposal::parse_all(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn an_unknown_attribute_marks_the_transform() {
        let mut bytes = Proposal::emit_all(&offer()[1..]);
        let attribute = 4 + 8 + 8;
        bytes[attribute + 1] = 77;
        let parsed = Proposal::parse_all(&bytes).unwrap();
        assert!(parsed[0].transforms[0].foreign);
        assert_eq!(parsed[0].of(TransformType::ENCR).count(), 0);
        assert!(parsed[0].mentions(TransformType::ENCR));
    }

    #[test]
    fn counts_are_bounded() {
        let many = vec![offer()[1].clone(); PROPOSALS_MAX + 1];
        assert_eq!(Proposal::parse_all(&Proposal::emit_all(&many)), Err(Malformed::TooMany));
    }
}
