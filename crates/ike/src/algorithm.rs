//! Which algorithms an IKE SA and its Child SAs may use, and how one suite is chosen from an offer
//! (RFC 7296 sections 2.7 and 3.3.6; RFC 8247 section 2 for what is worth offering).

use std::str::FromStr;

use holdfast_crypto::{
    AeadAlgorithm, BlockMode, Composition, Group, IntegrityAlgorithm, PrfAlgorithm,
};

use crate::codec::{Proposal, Protocol, Transform, TransformType};
use crate::error::ProposalError;

const ENCR_AES_CBC: u16 = 12;
const ENCR_AES_CTR: u16 = 13;
const ENCR_AES_GCM_16: u16 = 20;
const ENCR_NULL_AUTH_AES_GMAC: u16 = 21;
const ENCR_CHACHA20_POLY1305: u16 = 28;
const NONE: u16 = 0;

/// An encryption algorithm for IKE's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IkeEncryption {
    /// AES-GCM with a 16-octet ICV (RFC 5282).
    Gcm(AeadAlgorithm),
    /// AES-CBC with a 128-bit key; needs an integrity algorithm.
    Cbc128,
    /// AES-CBC with a 256-bit key; needs an integrity algorithm.
    Cbc256,
}

impl IkeEncryption {
    fn transform(self) -> Transform {
        let bits = match self {
            Self::Gcm(algorithm) => return aead_transform(algorithm),
            Self::Cbc128 => 128,
            Self::Cbc256 => 256,
        };
        Transform::new(TransformType::ENCR, ENCR_AES_CBC, Some(bits))
    }

    /// Octets of SK_ei or SK_er: the key, and for GCM four octets of salt (RFC 5282 section 7.1).
    pub(crate) const fn key_len(self) -> usize {
        match self {
            Self::Gcm(algorithm) => algorithm.key_len() + 4,
            Self::Cbc128 => 16,
            Self::Cbc256 => 32,
        }
    }

    const fn is_aead(self) -> bool {
        matches!(self, Self::Gcm(_))
    }
}

/// The transform that names an algorithm's cipher, with a Key Length attribute where the key may have several
/// lengths (RFC 7634 section 4: ChaCha20-Poly1305's has one).
fn aead_transform(algorithm: AeadAlgorithm) -> Transform {
    use AeadAlgorithm as A;
    let (id, bits) = match algorithm {
        A::Aes128Gcm16 => (ENCR_AES_GCM_16, Some(128)),
        A::Aes192Gcm16 => (ENCR_AES_GCM_16, Some(192)),
        A::Aes256Gcm16 => (ENCR_AES_GCM_16, Some(256)),
        A::ChaCha20Poly1305 => (ENCR_CHACHA20_POLY1305, None),
        A::Aes128Gmac => (ENCR_NULL_AUTH_AES_GMAC, Some(128)),
        A::Aes192Gmac => (ENCR_NULL_AUTH_AES_GMAC, Some(192)),
        A::Aes256Gmac => (ENCR_NULL_AUTH_AES_GMAC, Some(256)),
        A::Composed(Composition { mode, .. }) => {
            let bits = mode.aes_key_len() as u16 * 8;
            (if mode.is_ctr() { ENCR_AES_CTR } else { ENCR_AES_CBC }, Some(bits))
        }
    };
    Transform::new(TransformType::ENCR, id, bits)
}

/// The other transform of a composition; without one there is none, or that with the number of NONE
/// (RFC 7296 section 3.3.3).
fn integrity_transform(algorithm: AeadAlgorithm) -> Option<Transform> {
    let AeadAlgorithm::Composed(Composition { integrity, .. }) = algorithm else { return None };
    Some(Transform::new(TransformType::INTEG, integrity_id(integrity), None))
}

const fn prf_id(prf: PrfAlgorithm) -> u16 {
    match prf {
        PrfAlgorithm::HmacSha256 => 5,
        PrfAlgorithm::HmacSha384 => 6,
        PrfAlgorithm::HmacSha512 => 7,
    }
}

const fn integrity_id(integrity: IntegrityAlgorithm) -> u16 {
    match integrity {
        IntegrityAlgorithm::HmacSha256_128 => 12,
        IntegrityAlgorithm::HmacSha384_192 => 13,
        IntegrityAlgorithm::HmacSha512_256 => 14,
    }
}

/// The algorithms of one IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// How messages are encrypted.
    pub encryption: IkeEncryption,
    /// How they are authenticated; `None` with an AEAD.
    pub integrity: Option<IntegrityAlgorithm>,
    /// How keys are derived.
    pub prf: PrfAlgorithm,
    /// The Diffie-Hellman group.
    pub group: Group,
}

impl IkeSuite {
    /// The proposal that offers or accepts exactly this suite.
    pub(crate) fn proposal(&self, number: u8, spi: Vec<u8>) -> Proposal {
        let mut transforms = vec![
            self.encryption.transform(),
            Transform::new(TransformType::PRF, prf_id(self.prf), None),
        ];
        if let Some(integrity) = self.integrity {
            transforms.push(Transform::new(TransformType::INTEG, integrity_id(integrity), None));
        }
        transforms.push(Transform::new(TransformType::DH, self.group.transform_id(), None));
        Proposal { number, protocol: Some(Protocol::Ike), spi, transforms }
    }
}

/// What may be combined into a suite for an IKE SA, each list in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// Encryption algorithms, either all AEAD or none.
    pub encryption: Vec<IkeEncryption>,
    /// Integrity algorithms; empty with AEAD.
    pub integrity: Vec<IntegrityAlgorithm>,
    /// Pseudorandom functions.
    pub prf: Vec<PrfAlgorithm>,
    /// Diffie-Hellman groups.
    pub groups: Vec<Group>,
}

impl IkeProposal {
    /// What is accepted when nothing is configured: AES-GCM first, then AES-CBC with HMAC-SHA2.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        let prf =
            vec![PrfAlgorithm::HmacSha256, PrfAlgorithm::HmacSha384, PrfAlgorithm::HmacSha512];
        let groups = Group::ALL.to_vec();
        let gcm = Self {
            encryption: vec![
                IkeEncryption::Gcm(AeadAlgorithm::Aes256Gcm16),
                IkeEncryption::Gcm(AeadAlgorithm::Aes128Gcm16),
            ],
            integrity: Vec::new(),
            prf: prf.clone(),
            groups: groups.clone(),
        };
        let cbc = Self {
            encryption: vec![IkeEncryption::Cbc256, IkeEncryption::Cbc128],
            integrity: vec![
                IntegrityAlgorithm::HmacSha256_128,
                IntegrityAlgorithm::HmacSha384_192,
                IntegrityAlgorithm::HmacSha512_256,
            ],
            prf,
            groups,
        };
        vec![gcm, cbc]
    }

    /// Offers everything this allows.
    pub(crate) fn offer(&self, number: u8, spi: Vec<u8>) -> Proposal {
        let of = |kind, id| Transform::new(kind, id, None);
        let mut transforms: Vec<_> = self.encryption.iter().map(|e| e.transform()).collect();
        transforms.extend(self.prf.iter().map(|prf| of(TransformType::PRF, prf_id(*prf))));
        let integrity = self.integrity.iter();
        transforms.extend(integrity.map(|i| of(TransformType::INTEG, integrity_id(*i))));
        let groups = self.groups.iter();
        transforms.extend(groups.map(|group| of(TransformType::DH, group.transform_id())));
        Proposal { number, protocol: Some(Protocol::Ike), spi, transforms }
    }

    /// Chooses a suite this allows from one offer, with the group of the KE payload if that is allowed:
    /// another group would cost a round trip.
    fn choose(&self, offer: &Proposal, ke_group: u16) -> Option<IkeSuite> {
        if offer.protocol != Some(Protocol::Ike) || !only_known_types(offer, IKE_TYPES) {
            return None;
        }
        let offers = |kind, id| offer.of(kind).any(|transform| transform.id == id);
        let encryption = *self.encryption.iter().find(|encryption| {
            offer.of(TransformType::ENCR).any(|transform| *transform == encryption.transform())
        })?;
        let prf = *self.prf.iter().find(|prf| offers(TransformType::PRF, prf_id(**prf)))?;
        let integrity = if encryption.is_aead() {
            let none_or_absent =
                !offer.mentions(TransformType::INTEG) || offers(TransformType::INTEG, NONE);
            none_or_absent.then_some(None)?
        } else {
            let chosen = self.integrity.iter();
            Some(*chosen.clone().find(|x| offers(TransformType::INTEG, integrity_id(**x)))?)
        };
        let group = choose_group(&self.groups, offer, ke_group)?;
        Some(IkeSuite { encryption, integrity, prf, group })
    }
}

const IKE_TYPES: &[TransformType] =
    &[TransformType::ENCR, TransformType::PRF, TransformType::INTEG, TransformType::DH];
const ESP_TYPES: &[TransformType] =
    &[TransformType::ENCR, TransformType::INTEG, TransformType::DH, TransformType::ESN];

/// A proposal with a transform type we do not understand is unacceptable as a whole (section 3.3.6).
fn only_known_types(offer: &Proposal, known: &[TransformType]) -> bool {
    offer.transforms.iter().all(|transform| known.contains(&transform.kind))
}

fn choose_group(allowed: &[Group], offer: &Proposal, ke_group: u16) -> Option<Group> {
    let offered = |group: &Group| {
        offer.of(TransformType::DH).any(|transform| transform.id == group.transform_id())
    };
    let of_ke = Group::from_transform_id(ke_group).filter(|group| allowed.contains(group));
    of_ke.filter(offered).or_else(|| allowed.iter().copied().find(offered))
}

/// Chooses the suite of an IKE SA and names the number of the offer it is from. What we prefer decides,
/// not the order of the peer's offers.
pub(crate) fn choose_ike(
    allowed: &[IkeProposal],
    offers: &[Proposal],
    ke_group: u16,
) -> Option<(IkeSuite, u8, Vec<u8>)> {
    allowed.iter().find_map(|proposal| {
        offers.iter().find_map(|offer| {
            let suite = proposal.choose(offer, ke_group)?;
            Some((suite, offer.number, offer.spi.clone()))
        })
    })
}

/// Whether extended (64-bit) sequence numbers are negotiated (RFC 4303 section 2.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EsnPolicy {
    /// 32-bit numbers only.
    Never,
    /// 64-bit numbers when the peer offers them.
    #[default]
    Allow,
    /// 64-bit numbers or no Child SA.
    Require,
}

/// The algorithms of one Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChildSuite {
    pub(crate) cipher: AeadAlgorithm,
    pub(crate) esn: bool,
    /// Group of the exchange's own Diffie-Hellman, if it has one.
    pub(crate) group: Option<Group>,
}

impl ChildSuite {
    /// The proposal that offers or accepts exactly this suite.
    pub(crate) fn proposal(&self, number: u8, spi: Vec<u8>) -> Proposal {
        let mut transforms = vec![aead_transform(self.cipher)];
        transforms.extend(integrity_transform(self.cipher));
        if let Some(group) = self.group {
            transforms.push(Transform::new(TransformType::DH, group.transform_id(), None));
        }
        transforms.push(Transform::new(TransformType::ESN, self.esn.into(), None));
        Proposal { number, protocol: Some(Protocol::Esp), spi, transforms }
    }
}

/// What may be combined into a suite for a Child SA, each list in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// Ciphers. One that encrypts nothing (RFC 4543) is used when it is named here, and never
    /// without.
    pub ciphers: Vec<AeadAlgorithm>,
    /// Groups for a Diffie-Hellman exchange of its own when rekeying; empty allows every group a peer
    /// offers and asks for none.
    pub groups: Vec<Group>,
}

impl EspProposal {
    /// What is accepted when nothing is configured.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        vec![Self {
            ciphers: vec![AeadAlgorithm::Aes256Gcm16, AeadAlgorithm::Aes128Gcm16],
            groups: Vec::new(),
        }]
    }

    fn choose(&self, offer: &Proposal, request: ChildRequest) -> Option<ChildSuite> {
        if offer.protocol != Some(Protocol::Esp) || !only_known_types(offer, ESP_TYPES) {
            return None;
        }
        let offers = |kind, id| offer.of(kind).any(|transform| transform.id == id);
        let without = !offer.mentions(TransformType::INTEG) || offers(TransformType::INTEG, NONE);
        let cipher = *self.ciphers.iter().find(|cipher| {
            let wanted = aead_transform(**cipher);
            offer.of(TransformType::ENCR).any(|transform| *transform == wanted)
                && integrity_transform(**cipher)
                    .map_or(without, |wanted| offers(TransformType::INTEG, wanted.id))
        })?;
        let esn = choose_esn(offer, request.esn)?;
        let group = self.choose_group(offer, request.ke_group)?;
        Some(ChildSuite { cipher, esn, group })
    }

    /// `Some(None)` chooses to do without an exchange of its own.
    fn choose_group(&self, offer: &Proposal, ke_group: Option<u16>) -> Option<Option<Group>> {
        let may_omit = !offer.mentions(TransformType::DH)
            || offer.of(TransformType::DH).any(|transform| transform.id == NONE);
        // IKE_AUTH has no KE payload: only NONE can be chosen there (section 1.2).
        let Some(ke_group) = ke_group else {
            return may_omit.then_some(None);
        };
        let allowed = if self.groups.is_empty() { Group::ALL } else { &self.groups };
        match choose_group(allowed, offer, ke_group) {
            Some(group) => Some(Some(group)),
            None if may_omit && self.groups.is_empty() => Some(None),
            None => None,
        }
    }
}

/// What else decides about a Child SA's suite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChildRequest {
    pub(crate) esn: EsnPolicy,
    /// Group of the KE payload; `Some(0)` in a CREATE_CHILD_SA without one, `None` in IKE_AUTH.
    pub(crate) ke_group: Option<u16>,
}

/// The proposal must mention ESN: it is a mandatory type of ESP (section 3.3.3). A peer that leaves it
/// out all the same means 32-bit numbers, which costs us nothing to grant.
fn choose_esn(offer: &Proposal, policy: EsnPolicy) -> Option<bool> {
    let extended = offer.of(TransformType::ESN).any(|transform| transform.id == 1);
    let plain = !offer.mentions(TransformType::ESN)
        || offer.of(TransformType::ESN).any(|transform| transform.id == 0);
    match policy {
        EsnPolicy::Never => plain.then_some(false),
        EsnPolicy::Allow if extended => Some(true),
        EsnPolicy::Allow => plain.then_some(false),
        EsnPolicy::Require => extended.then_some(true),
    }
}

/// Chooses the suite of a Child SA; returns it with the chosen offer's number and SPI.
pub(crate) fn choose_child(
    allowed: &[EspProposal],
    offers: &[Proposal],
    request: ChildRequest,
) -> Option<(ChildSuite, u8, u32)> {
    allowed.iter().find_map(|proposal| {
        proposal.ciphers.iter().find_map(|cipher| {
            let single = EspProposal { ciphers: vec![*cipher], groups: proposal.groups.clone() };
            offers.iter().find_map(|offer| {
                let spi = offer.spi.as_slice().try_into().map(u32::from_be_bytes).ok()?;
                Some((single.choose(offer, request)?, offer.number, spi))
            })
        })
    })
}

enum Keyword {
    Encryption(IkeEncryption),
    /// Of Child SAs only.
    Esp(AeadAlgorithm),
    /// The same, with an integrity algorithm.
    Mode(BlockMode),
    Integrity(IntegrityAlgorithm, PrfAlgorithm),
    Prf(PrfAlgorithm),
    Group(Group),
    Esn,
}

fn keyword(word: &str) -> Result<Keyword, ProposalError> {
    use {Keyword as K, PrfAlgorithm as P};
    Ok(match word {
        "aes128gcm16" | "aes128gcm128" => {
            K::Encryption(IkeEncryption::Gcm(AeadAlgorithm::Aes128Gcm16))
        }
        "aes192gcm16" | "aes192gcm128" => K::Esp(AeadAlgorithm::Aes192Gcm16),
        "chacha20poly1305" => K::Esp(AeadAlgorithm::ChaCha20Poly1305),
        "aes128gmac" => K::Esp(AeadAlgorithm::Aes128Gmac),
        "aes192gmac" => K::Esp(AeadAlgorithm::Aes192Gmac),
        "aes256gmac" => K::Esp(AeadAlgorithm::Aes256Gmac),
        "aes192" => K::Mode(BlockMode::Cbc192),
        "aes128ctr" => K::Mode(BlockMode::Ctr128),
        "aes192ctr" => K::Mode(BlockMode::Ctr192),
        "aes256ctr" => K::Mode(BlockMode::Ctr256),
        "aes256gcm16" | "aes256gcm128" => {
            K::Encryption(IkeEncryption::Gcm(AeadAlgorithm::Aes256Gcm16))
        }
        "aes128" => K::Encryption(IkeEncryption::Cbc128),
        "aes256" => K::Encryption(IkeEncryption::Cbc256),
        "sha256" => K::Integrity(IntegrityAlgorithm::HmacSha256_128, P::HmacSha256),
        "sha384" => K::Integrity(IntegrityAlgorithm::HmacSha384_192, P::HmacSha384),
        "sha512" => K::Integrity(IntegrityAlgorithm::HmacSha512_256, P::HmacSha512),
        "prfsha256" => K::Prf(P::HmacSha256),
        "prfsha384" => K::Prf(P::HmacSha384),
        "prfsha512" => K::Prf(P::HmacSha512),
        "curve25519" | "x25519" => K::Group(Group::Curve25519),
        "ecp256" => K::Group(Group::Ecp256),
        "ecp384" => K::Group(Group::Ecp384),
        "modp2048" => K::Group(Group::Modp2048),
        "esn" | "noesn" => K::Esn,
        other => return Err(ProposalError::Unknown(other.to_owned())),
    })
}

/// Reads the notation operators know, such as `aes256gcm16-prfsha384-ecp384` or
/// `aes128-sha256-modp2048`. With AES-CBC an integrity algorithm names the PRF too, unless one is given.
impl FromStr for IkeProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut proposal =
            Self { encryption: vec![], integrity: vec![], prf: vec![], groups: vec![] };
        let mut implied = Vec::new();
        for word in text.split('-') {
            match keyword(word)? {
                Keyword::Encryption(encryption) => proposal.encryption.push(encryption),
                Keyword::Integrity(integrity, prf) => {
                    proposal.integrity.push(integrity);
                    implied.push(prf);
                }
                Keyword::Prf(prf) => proposal.prf.push(prf),
                Keyword::Group(group) => proposal.groups.push(group),
                Keyword::Esn | Keyword::Esp(_) | Keyword::Mode(_) => {
                    return Err(ProposalError::Misplaced(word.to_owned()));
                }
            }
        }
        if proposal.prf.is_empty() {
            proposal.prf = implied;
        }
        let aead = proposal.encryption.iter().filter(|encryption| encryption.is_aead()).count();
        if aead != 0 && aead != proposal.encryption.len() {
            return Err(ProposalError::Mixed);
        }
        if proposal.encryption.is_empty() {
            return Err(ProposalError::Without("encryption algorithm"));
        }
        if aead == 0 && proposal.integrity.is_empty() {
            return Err(ProposalError::Without("integrity algorithm"));
        }
        if proposal.prf.is_empty() {
            return Err(ProposalError::Without("pseudorandom function"));
        }
        if proposal.groups.is_empty() {
            return Err(ProposalError::Without("key exchange group"));
        }
        if aead != 0 {
            proposal.integrity.clear();
        }
        Ok(proposal)
    }
}

/// Reads the notation operators know, such as `aes256gcm16`, `chacha20poly1305`, `aes128gcm16-ecp256`
/// or `aes256-sha256`. Whether sequence
/// numbers are extended is the connection's [`EsnPolicy`], not part of this.
impl FromStr for EspProposal {
    type Err = ProposalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut proposal = Self { ciphers: vec![], groups: vec![] };
        let (mut modes, mut integrity) = (Vec::new(), Vec::new());
        for word in text.split('-') {
            match keyword(word)? {
                Keyword::Mode(mode) => modes.push(mode),
                Keyword::Encryption(IkeEncryption::Cbc128) => modes.push(BlockMode::Cbc128),
                Keyword::Encryption(IkeEncryption::Cbc256) => modes.push(BlockMode::Cbc256),
                Keyword::Integrity(algorithm, _) => integrity.push((word, algorithm)),
                Keyword::Encryption(IkeEncryption::Gcm(cipher)) | Keyword::Esp(cipher) => {
                    proposal.ciphers.push(cipher);
                }
                Keyword::Group(group) => proposal.groups.push(group),
                _ => return Err(ProposalError::Misplaced(word.to_owned())),
            }
        }
        match (modes.is_empty(), integrity.first()) {
            (false, None) => return Err(ProposalError::Without("integrity algorithm")),
            (false, _) if !proposal.ciphers.is_empty() => return Err(ProposalError::Mixed),
            (true, Some((word, _))) => return Err(ProposalError::Misplaced((*word).to_owned())),
            _ => {}
        }
        proposal.ciphers.extend(modes.iter().flat_map(|&mode| {
            let pair = move |integrity| AeadAlgorithm::Composed(Composition { mode, integrity });
            integrity.iter().map(move |(_, integrity)| pair(*integrity))
        }));
        if proposal.ciphers.is_empty() {
            return Err(ProposalError::Without("encryption algorithm"));
        }
        Ok(proposal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(ours: &str, theirs: &str) -> Option<AeadAlgorithm> {
        let theirs: EspProposal = theirs.parse().unwrap();
        let offers: Vec<Proposal> = (1..)
            .zip(&theirs.ciphers)
            .map(|(number, cipher)| {
                ChildSuite { cipher: *cipher, esn: true, group: None }.proposal(number, vec![1; 4])
            })
            .collect();
        let request = ChildRequest { esn: EsnPolicy::Allow, ke_group: None };
        let suite = choose_child(&[ours.parse().unwrap()], &offers, request);
        suite.map(|(suite, ..)| suite.cipher)
    }

    #[test]
    fn every_cipher_of_esp_is_agreed_on_by_its_transform_alone() {
        let words = [
            "aes128gcm16",
            "aes192gcm16",
            "aes256gcm16",
            "chacha20poly1305",
            "aes128gmac",
            "aes192gmac",
            "aes256gmac",
        ];
        for (word, algorithm) in words.iter().zip(AeadAlgorithm::ALL) {
            assert_eq!(chosen(word, word), Some(*algorithm));
            for other in words.iter().filter(|other| *other != word) {
                assert_eq!(chosen(word, other), None, "{word} {other}");
            }
        }
        assert_eq!(
            chosen("chacha20poly1305-aes192gcm16", "aes128gcm16-aes192gcm16"),
            Some(AeadAlgorithm::Aes192Gcm16)
        );
    }

    #[test]
    fn a_cipher_and_an_integrity_algorithm_are_agreed_on_as_a_pair() {
        let modes = ["aes128", "aes192", "aes256", "aes128ctr", "aes192ctr", "aes256ctr"];
        let hashes = ["sha256", "sha384", "sha512"];
        let words: Vec<String> =
            modes.iter().flat_map(|mode| hashes.map(|hash| format!("{mode}-{hash}"))).collect();
        for (word, composition) in words.iter().zip(Composition::all()) {
            assert_eq!(chosen(word, word), Some(AeadAlgorithm::Composed(composition)));
            for other in words.iter().filter(|other| *other != word) {
                assert_eq!(chosen(word, other), None, "{word} {other}");
            }
            assert_eq!(chosen(word, "aes256gcm16"), None);
        }
        for (text, why) in [
            ("aes256", ProposalError::Without("integrity algorithm")),
            ("aes256gcm16-sha256", ProposalError::Misplaced("sha256".to_owned())),
            ("aes256-aes256gcm16-sha256", ProposalError::Mixed),
        ] {
            assert_eq!(text.parse::<EspProposal>(), Err(why));
        }
    }

    #[test]
    fn what_encrypts_nothing_is_used_only_where_it_is_named() {
        for proposal in EspProposal::defaults() {
            assert!(proposal.ciphers.iter().all(|cipher| cipher.encrypts()));
        }
        for word in ["aes128gmac", "chacha20poly1305", "aes192gcm16"] {
            let ike = format!("{word}-prfsha256-ecp256");
            assert_eq!(
                ike.parse::<IkeProposal>(),
                Err(ProposalError::Misplaced(word.to_owned())),
                "not for IKE's own messages"
            );
        }
    }
}
