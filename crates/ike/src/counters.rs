//! Why input was not acted upon, counted by name.

/// Why a datagram, or a request in it, was not acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Refusal {
    /// The octets are no IKE message.
    Malformed,
    /// Another major version of the protocol.
    Version,
    /// No IKE SA has the SPI it is addressed to.
    UnknownSpi,
    /// The message does not authenticate.
    NotAuthentic,
    /// An authentic message is malformed inside; the IKE SA is closed (RFC 7296 section 2.21.3).
    InvalidSyntax,
    /// An unknown payload was marked critical.
    UnknownCritical,
    /// The exchange type does not fit the state of the IKE SA.
    UnexpectedExchange,
    /// The Message ID is outside the window of one.
    MessageId,
    /// A response nobody waits for.
    UnexpectedResponse,
    /// A response that cannot be used; what it answered counts as failed.
    BadResponse,
    /// A fragment that does not fit the ones before it, or exceeds the bounds (RFC 7383 section 2.6).
    Fragment,
    /// The key exchange's public value is no legal element of the group.
    PublicValue,
    /// No proposal was acceptable.
    NoProposal,
    /// The key exchange was in another group than the one chosen.
    InvalidKe,
    /// No connection is for this identity.
    UnknownIdentity,
    /// The peer did not prove that it knows the key.
    AuthenticationFailed,
    /// The peer wants another authentication method than a pre-shared key.
    AuthenticationMethod,
    /// No part of the proposed traffic selectors is allowed.
    SelectorsUnacceptable,
    /// A cookie was demanded instead of beginning an IKE SA.
    CookieDemanded,
    /// Too many half-open IKE SAs.
    HalfOpenLimit,
    /// A half-open IKE SA was not completed in time.
    HalfOpenTimeout,
    /// Too many IKE SAs, or Child SAs on one IKE SA.
    SaLimit,
    /// Refused for the moment: an exchange under way concerns the same SA (section 2.25).
    TemporaryFailure,
    /// A request about a Child SA that is not here.
    ChildSaNotFound,
    /// The peer did not answer a request; the IKE SA was closed.
    PeerUnresponsive,
}

impl Refusal {
    /// Every reason, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::Malformed,
        Self::Version,
        Self::UnknownSpi,
        Self::NotAuthentic,
        Self::InvalidSyntax,
        Self::UnknownCritical,
        Self::UnexpectedExchange,
        Self::MessageId,
        Self::UnexpectedResponse,
        Self::BadResponse,
        Self::Fragment,
        Self::PublicValue,
        Self::NoProposal,
        Self::InvalidKe,
        Self::UnknownIdentity,
        Self::AuthenticationFailed,
        Self::AuthenticationMethod,
        Self::SelectorsUnacceptable,
        Self::CookieDemanded,
        Self::HalfOpenLimit,
        Self::HalfOpenTimeout,
        Self::SaLimit,
        Self::TemporaryFailure,
        Self::ChildSaNotFound,
        Self::PeerUnresponsive,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::UnknownSpi => "unknown_spi",
            Self::NotAuthentic => "not_authentic",
            Self::InvalidSyntax => "invalid_syntax",
            Self::UnknownCritical => "unknown_critical",
            Self::UnexpectedExchange => "unexpected_exchange",
            Self::MessageId => "message_id",
            Self::UnexpectedResponse => "unexpected_response",
            Self::BadResponse => "bad_response",
            Self::Fragment => "fragment",
            Self::PublicValue => "public_value",
            Self::NoProposal => "no_proposal",
            Self::InvalidKe => "invalid_ke",
            Self::UnknownIdentity => "unknown_identity",
            Self::AuthenticationFailed => "authentication_failed",
            Self::AuthenticationMethod => "authentication_method",
            Self::SelectorsUnacceptable => "selectors_unacceptable",
            Self::CookieDemanded => "cookie_demanded",
            Self::HalfOpenLimit => "half_open_limit",
            Self::HalfOpenTimeout => "half_open_timeout",
            Self::SaLimit => "sa_limit",
            Self::TemporaryFailure => "temporary_failure",
            Self::ChildSaNotFound => "child_sa_not_found",
            Self::PeerUnresponsive => "peer_unresponsive",
        }
    }
}

/// How often each thing happened since this [`crate::Ike`] was made.
#[derive(Clone, Debug, Default)]
pub struct IkeCounters {
    refusals: [u64; Refusal::ALL.len()],
    /// IKE SAs established by IKE_AUTH, begun by either side.
    pub established: u64,
    /// IKE SAs begun by us.
    pub begun: u64,
    /// Synchronisations of ours that were answered (RFC 6311).
    pub synchronised: u64,
    /// Child SAs rekeyed, by either side.
    pub child_rekeys: u64,
    /// IKE SAs rekeyed, by either side.
    pub ike_rekeys: u64,
    /// Peers told that nothing has the SPI they send to.
    pub disowned: u64,
    /// Responses repeated for a repeated request.
    pub repeated_responses: u64,
    /// Requests of our own sent again.
    pub retransmissions: u64,
}

impl IkeCounters {
    /// How often `reason` occurred.
    #[must_use]
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refusals.get(reason as usize).copied().unwrap_or_default()
    }

    /// Every reason with its count.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.iter().map(|reason| (*reason, self.refused(*reason)))
    }

    pub(crate) fn count(&mut self, reason: Refusal) {
        if let Some(count) = self.refusals.get_mut(reason as usize) {
            *count = count.saturating_add(1);
        }
    }
}
