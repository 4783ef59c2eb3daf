//! What members agree upon: the entries of the replicated log.

use crate::{Hold, IkeSpi, Owner, RecordName, TargetId};
use crate::{MemberCommand, settlement::SettleItem};
use holdfast_crypto::{AeadAlgorithm, SecretBytes};
use holdfast_ipsec::{ChildSaParameters, Spi};

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Changes nothing; a new leader's first entry.
    Noop,
    /// Something about members.
    Members(MemberCommand),
    /// A leader takes the common address. Everything granted before is spent and every Child SA
    /// gets a fresh outbound range and a fresh inbound horizon in this very entry.
    TakeOwnership {
        /// The new owner.
        owner: Owner,
    },
    /// What one IKE exchange changed; nothing of that exchange is sent before this is applied.
    Ike {
        /// Who ran the exchange.
        owner: Owner,
        /// The changes, in order; all of them or none.
        changes: Vec<StateChange>,
    },
    /// The owner runs SAs that an earlier owner recorded: their records are put under the new
    /// owner and cleared under the earlier one.
    CarryOn {
        /// Who runs them now.
        owner: Owner,
        /// Under whom they stood.
        from: Owner,
        /// IKE SAs by their local SPIs; with `children` at most [`crate::limits::CARRIED_MAX`].
        ike_sas: Vec<IkeSpi>,
        /// Child SAs by their inbound SPIs.
        children: Vec<Spi>,
    },
    /// The owner says why an SA does not run, or that it runs again. Its record stands under the
    /// owner then.
    Hold {
        /// Who says so.
        owner: Owner,
        /// The record.
        record: RecordName,
        /// Under whom it stood: the record that is meant.
        under: Owner,
        /// Why, and for how long it is kept; `None` when it runs.
        hold: Option<Hold>,
    },
    /// More sequence numbers for Child SAs that run low.
    Grant {
        /// Who will use the numbers.
        owner: Owner,
        /// One item per Child SA and direction; each stands alone.
        grants: Vec<GrantItem>,
    },
    /// Agrees upon the secret from which the marks of decrypted packets are derived. The first one
    /// stands; a later one changes nothing.
    SetMarkSecret {
        /// Who drew it.
        owner: Owner,
        /// [`crate::limits::MARK_SECRET_BYTES`] random bytes.
        secret: SecretBytes,
    },
    /// The owner has stopped and says how far it used its numbers; it is granted nothing any more.
    /// See [`crate::settlement`].
    Settle {
        /// Who stopped.
        owner: Owner,
        /// Where, for each Child SA that had packets; those of several entries add up.
        items: Vec<SettleItem>,
        /// Nothing follows: the next takeover may rely on it.
        last: bool,
    },
    /// Stop or resume giving new connections to a target. Any member's operator may ask.
    SetTarget {
        /// The target.
        target: TargetId,
        /// `true` drains, `false` takes it back into service.
        draining: bool,
    },
}

/// One change an IKE exchange made to the replicated records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Creates or replaces the record of an IKE SA.
    PutIkeSa {
        /// Its local SPI.
        spi: IkeSpi,
        /// The connection it was made for.
        connection: String,
        /// The whole IKE SA, exported by `ike`; opaque here.
        state: SecretBytes,
    },
    /// Removes an IKE SA together with the Child SAs that still belong to it
    /// (RFC 7296 section 1.4.1).
    DeleteIkeSa {
        /// Its local SPI.
        spi: IkeSpi,
        /// Under whom the record that is meant stands: refused when it is another. `None` in logs
        /// of releases that did not say.
        under: Option<Owner>,
    },
    /// Installs a Child SA, or moves one to another IKE SA: after a rekey of the IKE SA the new
    /// one inherits the Child SAs (RFC 7296 section 2.8).
    PutChildSa {
        /// The IKE SA it belongs to.
        ike: IkeSpi,
        /// Both directions of it.
        parameters: Box<ChildSaParameters>,
        /// The Child SA of the same connection that it takes the place of, when the peer has rekeyed that
        /// one and may not know this one yet (RFC 7296 section 2.8).
        replaces: Option<Spi>,
    },
    /// Removes one Child SA, both directions.
    DeleteChildSa {
        /// Its inbound SPI, which names the pair.
        inbound_spi: Spi,
        /// Under whom the record that is meant stands, as with [`Self::DeleteIkeSa`].
        under: Option<Owner>,
    },
}

impl StateChange {
    /// What every member must be able to read before this may be written. What IKE records of its own
    /// needs no more than the records of the Child SAs that come with it.
    fn level(&self) -> u32 {
        let Self::PutChildSa { parameters, .. } = self else { return crate::level::FIRST };
        let keys = [&parameters.inbound_key, &parameters.outbound_key];
        let old = [AeadAlgorithm::Aes128Gcm16, AeadAlgorithm::Aes256Gcm16];
        if keys.iter().all(|key| old.contains(&key.algorithm())) {
            crate::level::FIRST
        } else {
            crate::level::ALGORITHMS
        }
    }
}

/// The direction of a grant, as seen from the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Numbers the owner may accept: moves the horizon.
    Inbound,
    /// Numbers the owner may send with: extends the range.
    Outbound,
}

/// A wish for more sequence numbers of one Child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantItem {
    /// The Child SA, by its inbound SPI.
    pub spi: Spi,
    /// Which of its two directions.
    pub direction: Direction,
    /// How many packets more; cut to the bounds in [`crate::numbers`].
    pub packets: u32,
}

impl Command {
    /// What every member must be able to read before this may be written.
    #[must_use]
    pub fn level(&self) -> u32 {
        match self {
            // Nothing was released before these: the first level is all of them. Whoever adds a
            // command is asked here for the level of its release. (An owner settles only once all
            // members have told the level for it, and hands over without it before.)
            Self::Noop
            | Self::Members(MemberCommand::RaiseLevel(_))
            | Self::TakeOwnership { .. }
            | Self::CarryOn { .. }
            | Self::Hold { .. }
            | Self::Grant { .. }
            | Self::SetMarkSecret { .. }
            | Self::Settle { .. }
            | Self::SetTarget { .. } => crate::level::FIRST,
            Self::Members(_) => crate::level::MEMBERSHIP,
            Self::Ike { changes, .. } => {
                changes.iter().map(StateChange::level).max().unwrap_or(crate::level::FIRST)
            }
        }
    }

    /// The owner the command was made by, where it has one.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        match self {
            Self::TakeOwnership { owner }
            | Self::Ike { owner, .. }
            | Self::CarryOn { owner, .. }
            | Self::Hold { owner, .. }
            | Self::Grant { owner, .. }
            | Self::SetMarkSecret { owner, .. }
            | Self::Settle { owner, .. } => Some(*owner),
            Self::Noop | Self::SetTarget { .. } | Self::Members(_) => None,
        }
    }
}
