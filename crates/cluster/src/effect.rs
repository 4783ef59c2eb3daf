//! What applying a command changed, for those who carry it out; and why it changed nothing.

use crate::settlement::Settlement;
use crate::{Direction, Hold, IkeSpi, MemberId, Owner, RecordName, TargetId, limits};
use holdfast_ipsec::{SequenceRange, Spi};

/// One consequence of an applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The common address has a new owner. Every Child SA has new numbers: read them from
    /// [`crate::State::children`], there is no effect for each.
    OwnerChanged {
        /// Who owns it now.
        owner: Owner,
        /// Who did before.
        previous: Option<Owner>,
    },
    /// The record of an IKE SA was created or replaced.
    IkeChanged(IkeSpi),
    /// An IKE SA is gone.
    IkeRemoved(IkeSpi),
    /// A Child SA is new, with its first numbers.
    ChildInstalled(Spi),
    /// A Child SA belongs to another IKE SA now; its numbers go on.
    ChildMoved {
        /// The Child SA.
        spi: Spi,
        /// Its new IKE SA.
        ike: IkeSpi,
    },
    /// A Child SA is gone.
    ChildRemoved(Spi),
    /// The owner may send with these numbers too.
    Granted {
        /// The Child SA.
        spi: Spi,
        /// The additional numbers, directly behind those granted before.
        range: SequenceRange,
    },
    /// The owner may accept up to this number.
    HorizonMoved {
        /// The Child SA.
        spi: Spi,
        /// The highest number that may be accepted.
        horizon: u64,
    },
    /// Records of an earlier ownership are cleared and stand under the present owner.
    CarriedOn {
        /// The earlier ownership.
        from: Owner,
        /// How many there were to carry on.
        records: usize,
    },
    /// The owner says why an SA does not run, or that it runs again.
    Held {
        /// The record.
        record: RecordName,
        /// Why, and for how long it is kept; `None` when it runs.
        hold: Option<Hold>,
    },
    /// A target started or stopped draining.
    TargetChanged {
        /// The target.
        target: TargetId,
        /// Whether it drains now.
        draining: bool,
    },
    /// The secret of the marks is agreed upon; read it from [`crate::State::mark_secret`].
    MarkSecretSet,
    /// The owner has stopped for good; the argument tells whether the next takeover is exact.
    Settled(Settlement),
    /// Members, their addresses, or who votes changed: read it from [`crate::State::membership`].
    MembersChanged,
    /// The command, or one item of it, was refused. Every replica refuses it alike.
    Refused(Refusal),
}

/// Why a command or an item of it changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The proposer does not own the common address (any more).
    #[error("made by {claimed}, but the owner is {current:?}")]
    NotOwner {
        /// Who the command says made it.
        claimed: Owner,
        /// Who owns the common address.
        current: Option<Owner>,
    },
    /// The owner said that it has stopped; it gets and changes nothing any more.
    #[error("{0} has settled")]
    Settled(Owner),
    /// A takeover must name a higher epoch than every ownership before it.
    #[error("takeover by {claimed} does not follow epoch {}", current.epoch)]
    EpochNotNewer {
        /// The would-be owner.
        claimed: Owner,
        /// Who owns the common address.
        current: Owner,
    },
    /// The change means a record that another ownership has recorded since.
    #[error("{record} of {named} is meant, but the record is of {stands}")]
    StaleRecord {
        /// The record.
        record: RecordName,
        /// Under whom it stood when the change was made.
        named: Owner,
        /// Under whom it stands.
        stands: Owner,
    },
    /// The members of the configuration file are not in the log yet.
    #[error("the members are not recorded yet: each must have run a release that knows how")]
    MembersNotRecorded,
    /// Members are changed one at a time.
    #[error("another change of the members is under way")]
    MemberChangeUnderWay,
    /// There is nothing to cancel.
    #[error("no change of the members is under way")]
    NoMemberChange,
    /// The old and the new majority are being asked.
    #[error("the change of the members is too far to be cancelled")]
    TooLateToCancel,
    /// Whoever has this id now may have forgotten what it acknowledged before.
    #[error("id {0} was used before; give the member a new one")]
    MemberRetired(MemberId),
    /// There is such a member.
    #[error("member {0} is there already")]
    MemberExists(MemberId),
    /// There is no such member.
    #[error("there is no member {0}")]
    NoSuchMember(MemberId),
    /// Nobody could own the common address.
    #[error("member {0} is the last one that can own the common address")]
    LastFullMember(MemberId),
    /// More members than [`limits::MEMBERS_MAX`], or more removals than are remembered.
    #[error("no further member: at most {}", limits::MEMBERS_MAX)]
    TooManyMembers,
    /// No such IKE SA.
    #[error("no IKE SA {0}")]
    UnknownIkeSa(IkeSpi),
    /// No such Child SA.
    #[error("no Child SA {0:?}")]
    UnknownChildSa(Spi),
    /// A Child SA of this SPI exists with other parameters.
    #[error("Child SA {0:?} exists with other parameters")]
    ChildSaExists(Spi),
    /// The Child SA has used up its sequence numbers and needs a rekey (RFC 4303 section 3.3.3).
    #[error("sequence numbers of Child SA {spi:?} are used up ({direction:?})")]
    SequenceSpaceExhausted {
        /// The Child SA.
        spi: Spi,
        /// The direction without numbers.
        direction: Direction,
    },
    /// The cluster holds as many IKE SAs as it may.
    #[error("more than {} IKE SAs", limits::IKE_SAS_MAX)]
    TooManyIkeSas,
    /// The cluster holds as many Child SAs as it may.
    #[error("more than {} Child SAs", limits::CHILD_SAS_MAX)]
    TooManyChildSas,
    /// More targets draining than there can be.
    #[error("more than {} draining targets", limits::DRAINING_TARGETS_MAX)]
    TooManyTargets,
    /// A field or a list of the command is larger than it may be.
    #[error("{0} is larger than allowed")]
    TooLarge(&'static str),
}
