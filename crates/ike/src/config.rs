//! What the operator decides.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use holdfast_crypto::{AeadAlgorithm, SecretBytes};
use holdfast_ipsec::{Spi, TrafficSelector};

use crate::algorithm::{ChildSuite, EsnPolicy, EspProposal, IkeProposal};
use crate::codec::{Cursor, Malformed, Proposal, Transform, TransformType, Writer};
use crate::sync::SyncSupport;

/// A name one end authenticates under (RFC 7296 section 3.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_FQDN.
    Fqdn(String),
    /// ID_RFC822_ADDR.
    Email(String),
    /// ID_KEY_ID.
    KeyId(Vec<u8>),
    /// Any other type, compared octet by octet.
    Other(u8, Vec<u8>),
}

/// Octets of an identity we are willing to keep; a longer one cannot be configured either.
const IDENTITY_LEN_MAX: usize = 1024;

impl Identity {
    /// Reads the body of an Identification payload.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(body);
        let kind = cursor.u8()?;
        cursor.take(3)?;
        let data = cursor.rest();
        if data.len() > IDENTITY_LEN_MAX {
            return Err(Malformed::TooMany);
        }
        let text = || std::str::from_utf8(data).map(str::to_owned);
        Ok(match kind {
            1 => Self::Ipv4(Ipv4Addr::from(
                <[u8; 4]>::try_from(data).map_err(|_| Malformed::Length)?,
            )),
            2 => text().map_or_else(|_| Self::Other(kind, data.to_vec()), Self::Fqdn),
            3 => text().map_or_else(|_| Self::Other(kind, data.to_vec()), Self::Email),
            11 => Self::KeyId(data.to_vec()),
            _ => Self::Other(kind, data.to_vec()),
        })
    }

    /// The body of an Identification payload.
    pub(crate) fn emit(&self) -> Vec<u8> {
        let address;
        let (kind, data): (u8, &[u8]) = match self {
            Self::Ipv4(ip) => {
                address = ip.octets();
                (1, &address)
            }
            Self::Fqdn(name) => (2, name.as_bytes()),
            Self::Email(name) => (3, name.as_bytes()),
            Self::KeyId(id) => (11, id),
            Self::Other(kind, data) => (*kind, data),
        };
        let mut writer = Writer::new();
        writer.u8(kind).bytes(&[0; 3]).bytes(data);
        writer.into_bytes()
    }
}

/// An IPv4 address, an e-mail address (with `@` inside), a key id (`keyid:text`), else a domain name.
impl FromStr for Identity {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ipv4(address));
        }
        if let Some(id) = text.strip_prefix("keyid:") {
            return Ok(Self::KeyId(id.as_bytes().to_vec()));
        }
        Ok(match text.strip_prefix('@') {
            Some(name) => Self::Fqdn(name.to_owned()),
            None if text.contains('@') => Self::Email(text.to_owned()),
            None => Self::Fqdn(text.to_owned()),
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Fqdn(name) | Self::Email(name) => write!(f, "{}", name.escape_debug()),
            Self::KeyId(id) => write!(f, "keyid:{}", id.escape_ascii()),
            Self::Other(kind, data) => write!(f, "id{kind}:{}", data.escape_ascii()),
        }
    }
}

/// Who may connect, and to what: one entry of the Peer Authorization Database joined with the policy
/// its Child SAs get.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The operator's name for it.
    pub name: String,
    /// The only identity that may use it; `None` lets in whoever knows the key.
    pub remote_identity: Option<Identity>,
    /// The pre-shared key of both directions.
    pub psk: SecretBytes,
    /// What peers may reach.
    pub local_ts: Vec<TrafficSelector>,
    /// Where peers may come from.
    pub remote_ts: Vec<TrafficSelector>,
    /// Algorithms of IKE SAs, in order of preference.
    pub ike_proposals: Vec<IkeProposal>,
    /// Algorithms of Child SAs, in order of preference.
    pub esp_proposals: Vec<EspProposal>,
    /// Whether Child SAs have 64-bit sequence numbers.
    pub esn: EsnPolicy,
    /// Seconds after which a Child SA is closed unless rekeyed; we rekey shortly before. 0: never.
    pub child_lifetime_s: u32,
    /// Seconds after which an IKE SA is closed unless rekeyed; we rekey shortly before. 0: never.
    pub ike_lifetime_s: u32,
    /// Seconds of silence after which the peer is asked whether it lives.
    pub liveness_s: Option<u32>,
    /// Size of the anti-replay window of Child SAs, in packets.
    pub replay_window: u32,
    /// What a new owner does about SAs it took over.
    pub policy: TakeoverPolicy,
}

/// What a new owner does about the SAs it took over from another one. Numbers its predecessor may
/// have accepted are refused whatever the policy; it only decides how the SA gets beyond them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TakeoverPolicy {
    /// Rekey a Child SA whose peer is heard in the ambiguous zone, at once, and the silent ones
    /// later.
    #[default]
    Renew,
    /// Ask the peer to count on from beyond the zone (RFC 6311); renew where it cannot.
    Sync,
    /// Wait until the peer has counted beyond the zone by itself.
    Strict,
    /// Negotiate new IKE SAs from the records, as initiator, and give the old ones up.
    Reestablish,
}

impl TakeoverPolicy {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Renew, Self::Sync, Self::Strict, Self::Reestablish];

    /// Its name in configuration and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::Sync => "sync",
            Self::Strict => "strict",
            Self::Reestablish => "reestablish",
        }
    }
}

/// When an unanswered request is sent again (RFC 7296 section 2.4: exponentially rarer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmitSchedule {
    /// Milliseconds before the first repetition; each following one waits twice as long.
    pub first_ms: u32,
    /// Milliseconds no wait exceeds.
    pub longest_ms: u32,
    /// Repetitions before the peer is taken for dead and the IKE SA is closed.
    pub attempts: u32,
}

impl Default for RetransmitSchedule {
    /// A dozen repetitions over about four minutes, as RFC 7296 section 2.4 suggests.
    fn default() -> Self {
        Self { first_ms: 500, longest_ms: 30_000, attempts: 12 }
    }
}

impl RetransmitSchedule {
    /// Milliseconds to wait for an answer after transmission number `attempt`, counted from 0; `None`
    /// when it is time to give up.
    pub(crate) fn wait_ms(&self, attempt: u32) -> Option<u64> {
        if attempt > self.attempts {
            return None;
        }
        let wait = u64::from(self.first_ms).checked_shl(attempt.min(32)).unwrap_or(u64::MAX);
        // At least one, or a schedule of zeros would never let time pass.
        Some(wait.min(self.longest_ms.into()).max(1))
    }
}

/// Everything an [`crate::Ike`] is told about its task.
#[derive(Clone, Debug)]
pub struct IkeConfig {
    /// The common address, at which peers reach us.
    pub local: Ipv4Addr,
    /// The name we authenticate under.
    pub local_identity: Identity,
    /// Who may connect; the first that fits the peer is taken.
    pub connections: Vec<Connection>,
    /// Half-open IKE SAs from which on peers must prove with a COOKIE that they can be reached
    /// (RFC 7296 section 2.6).
    pub half_open_cookie_threshold: usize,
    /// Half-open IKE SAs from which on no more are begun.
    pub half_open_limit: usize,
    /// Octets of the largest IP datagram sent; longer messages are fragmented when the peer can
    /// (RFC 7383).
    pub fragment_size: u16,
    /// Workers of the datapath. Inbound SPIs are spread over them: an SPI's low bits, modulo this
    /// number rounded up to a power of two, name one.
    pub workers: u32,
    /// When unanswered requests are repeated.
    pub retransmit: RetransmitSchedule,
}

impl IkeConfig {
    /// A configuration without connections, with every number at its default.
    #[must_use]
    pub fn new(local: Ipv4Addr, local_identity: Identity) -> Self {
        Self {
            local,
            local_identity,
            connections: Vec::new(),
            half_open_cookie_threshold: 30,
            half_open_limit: 1000,
            fragment_size: 1280,
            workers: 1,
            retransmit: RetransmitSchedule::default(),
        }
    }
}

impl Connection {
    /// What is asserted of RFC 6311.
    pub(crate) fn sync_support(&self) -> SyncSupport {
        if self.policy == TakeoverPolicy::Sync { SyncSupport::BOTH } else { SyncSupport::NONE }
    }

    /// What is offered for the first Child SA of an IKE SA that we begin: each cipher by itself, with
    /// `inbound` as the SPI.
    pub(crate) fn esp_offers(&self, inbound: Spi) -> Vec<Proposal> {
        let mut ciphers: Vec<AeadAlgorithm> = Vec::new();
        for cipher in self.esp_proposals.iter().flat_map(|proposal| &proposal.ciphers) {
            if !ciphers.contains(cipher) {
                ciphers.push(*cipher);
            }
        }
        let offer = |(number, cipher): (u8, &AeadAlgorithm)| {
            let esn = self.esn != EsnPolicy::Never;
            let suite = ChildSuite { cipher: *cipher, esn, group: None };
            let mut offer = suite.proposal(number, inbound.get().to_be_bytes().to_vec());
            if self.esn == EsnPolicy::Allow {
                offer.transforms.push(Transform::new(TransformType::ESN, 0, None));
            }
            offer
        };
        (1..).zip(&ciphers).map(offer).collect()
    }

    /// A connection anybody who knows `psk` may use, with every other setting at its default.
    #[must_use]
    pub fn new(name: &str, psk: SecretBytes) -> Self {
        Self {
            name: name.to_owned(),
            remote_identity: None,
            psk,
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
            ike_proposals: IkeProposal::defaults(),
            esp_proposals: EspProposal::defaults(),
            esn: EsnPolicy::Allow,
            child_lifetime_s: 3_600,
            ike_lifetime_s: 14_400,
            liveness_s: Some(30),
            replay_window: 1024,
            policy: TakeoverPolicy::Renew,
        }
    }
}
