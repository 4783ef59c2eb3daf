//! What a member wants in the log.

use holdfast_cluster::{
    Epoch, Hold, HoldKind, IkeSpi, MemberId, Owner, RecordName, Refusal, TargetId,
};
use holdfast_ipsec::Spi;
use holdfast_packet::{MacAddr, Side};
use std::fmt;
use std::net::Ipv4Addr;

/// One line of the log. Never carries key material.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MemberEvent {
    /// This member speaks for the common address from now on.
    OwnershipTaken {
        /// As what.
        owner: Owner,
        /// Who did before.
        previous: Option<Owner>,
        /// How many Child SAs it carries on.
        child_sas: usize,
    },
    /// This member does not speak for the common address any more.
    OwnershipLost {
        /// As what it had.
        owner: Owner,
        /// Why.
        cause: LossCause,
    },
    /// Another member speaks for the common address.
    OwnerChanged {
        /// Who.
        owner: Owner,
    },
    /// The owner failed, as this member noticed and the others agreed.
    OwnerFailed {
        /// Who.
        owner: Owner,
        /// How it showed.
        cause: FailureCause,
        /// From the last word of it to the decision that it failed.
        detected_in_ms: u64,
    },
    /// Who leads the replication changed.
    LeaderChanged {
        /// In this term.
        term: u64,
        /// Who leads, when known.
        leader: Option<MemberId>,
    },
    /// The lease ran out or was given up although this member still leads: silent until it is back.
    LeaseLost,
    /// The lease is back.
    LeaseRegained,
    /// A pair of Child SAs is new.
    SaEstablished {
        /// Our SPI.
        spi: Spi,
        /// The IKE SA it belongs to.
        ike: IkeSpi,
        /// The configured connection.
        connection: String,
        /// The peer's tunnel end.
        peer: Ipv4Addr,
    },
    /// A pair of Child SAs is gone.
    SaRemoved {
        /// Our SPI.
        spi: Spi,
    },
    /// A pair of Child SAs is being renewed after a takeover.
    SaRenewing {
        /// Our SPI.
        spi: Spi,
        /// Whether its peer was heard in the ambiguous zone.
        urgent: bool,
    },
    /// A peer is asked to count its Child SAs on after a takeover (RFC 6311).
    IkeSynchronising {
        /// The IKE SA.
        ike: IkeSpi,
        /// By so many numbers.
        delta: u64,
    },
    /// A new IKE SA is begun in place of one that was taken over.
    IkeReestablishing {
        /// The old one.
        ike: IkeSpi,
    },
    /// It stands; the old one is being deleted.
    IkeReestablished {
        /// The old one.
        old: IkeSpi,
        /// The new one.
        new: IkeSpi,
    },
    /// No new IKE SA could be made in place of an old one.
    IkeNotReestablished {
        /// The old one.
        ike: IkeSpi,
        /// Why.
        reason: String,
    },
    /// The sequence numbers of a pair are used up: it needs a rekey, now.
    SequenceEnd {
        /// Our SPI.
        spi: Spi,
    },
    /// A target answers ARP.
    TargetUp {
        /// Which one.
        target: TargetId,
        /// Its station address.
        mac: MacAddr,
    },
    /// A target does not answer ARP any more.
    TargetDown {
        /// Which one.
        target: TargetId,
    },
    /// A target gets new connections by its own account, or gets none.
    TargetStanding {
        /// Which one.
        target: TargetId,
        /// Whether it gets new connections.
        open: bool,
        /// Its weight in quarters of the configured one.
        quarters: u32,
    },
    /// A target follows the owner of this epoch.
    TargetAcknowledged {
        /// Which one.
        target: TargetId,
        /// Of which epoch.
        epoch: Epoch,
    },
    /// A target knows a later owner than the one it was told of.
    TargetRefused {
        /// Which one.
        target: TargetId,
        /// The epoch it was told.
        epoch: Epoch,
        /// The epoch it knows.
        known: Epoch,
    },
    /// A target started or stopped draining.
    TargetDraining {
        /// Which one.
        target: TargetId,
        /// Whether it drains now.
        draining: bool,
    },
    /// Another station claims an address this member speaks for.
    AddressClaimed {
        /// Where.
        side: Side,
        /// Which address.
        address: Ipv4Addr,
        /// By which station.
        by: MacAddr,
    },
    /// A handover was asked for.
    HandoverStarted {
        /// The chosen successor.
        to: MemberId,
        /// Why.
        cause: HandoverCause,
    },
    /// A handover did not come to its end.
    HandoverFailed {
        /// The chosen successor.
        to: MemberId,
        /// Why.
        reason: String,
    },
    /// Records of an earlier ownership are cleared and stand under the present one.
    RecordsCarriedOn {
        /// The earlier ownership.
        from: Owner,
        /// How many.
        records: usize,
    },
    /// Every record stands under this ownership: a successor finds nothing older.
    StoreCurrent {
        /// This ownership.
        owner: Owner,
        /// How many records there are.
        records: usize,
        /// Since the takeover.
        after_ms: u64,
    },
    /// An SA does not run and its record is kept for a time, or it runs again.
    RecordHeld {
        /// The record.
        record: RecordName,
        /// Why and for how long; `None` when it runs.
        hold: Option<Hold>,
    },
    /// The address was handed over.
    HandoverDone {
        /// To whom.
        owner: Owner,
        /// From the request to its ownership, in microseconds.
        took_us: u64,
        /// Of that, with frames being passed on, in microseconds; 0 for a handover the plain way.
        passed_on_us: u64,
        /// How many frames were passed on.
        frames: u64,
    },
    /// Where this member stopped contradicts the records: its successor takes over as after a crash.
    SettlementVoid,
    /// A replicated command was refused by all members alike.
    CommandRefused(Refusal),
    /// A peer sends to an SPI that names nothing here, and was told so inside its IKE SA.
    SpiDisowned {
        /// The SPI.
        spi: Spi,
        /// The source of what it sent.
        peer: Ipv4Addr,
        /// Whether a Child SA had it that is gone.
        deleted: bool,
    },
    /// A router told that the path to a peer is narrower than was known.
    PathNarrow {
        /// The peer's address.
        peer: Ipv4Addr,
        /// The longest packets that get through, in bytes.
        mtu: u16,
    },
    /// The replicated records and the IKE machine disagreed; it was loaded anew from the records.
    IkeReloaded,
    /// The record of an IKE SA cannot be read, most likely because a newer release wrote it. Its
    /// Child SAs go on until they end; its peer must begin anew then.
    IkeUnreadable {
        /// Which one, and why.
        reason: String,
    },
    /// A message of another member was not taken.
    PeerMessageRefused {
        /// Who sent it.
        from: MemberId,
        /// Why not.
        reason: String,
    },
    /// Of the others nobody could take the address over at once.
    NoSuccessor {
        /// Which one.
        address: Ipv4Addr,
        /// What is in the way of each.
        missing: String,
    },
    /// Somebody could again.
    SuccessorReady {
        /// Which one.
        address: Ipv4Addr,
        /// How many could.
        ready: usize,
    },
    /// Members, their addresses, or who votes changed.
    MembersChanged {
        /// Who votes now; while a change is under way, who will.
        voters: Vec<MemberId>,
        /// Who learns.
        learners: Vec<MemberId>,
        /// Whether a majority of the old voters is needed as well.
        joint: bool,
    },
    /// The disk takes nothing any more.
    StorageFailed {
        /// What the system said.
        reason: String,
    },
    /// IKE datagrams or frames were dropped because a queue is full.
    QueueFull {
        /// Which queue.
        queue: &'static str,
    },
}

/// Why an ownership ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossCause {
    /// Another member leads, or nobody.
    Leadership,
    /// The state was replaced by another owner's.
    Superseded,
}

/// How an owner's failure showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// Its connections ended, and nothing came any more: the process is gone.
    Disconnected,
    /// Nothing came any more: it hangs, its host is off, or the network between is cut.
    Silent,
}

impl FailureCause {
    /// Its name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Silent => "silent",
        }
    }
}

/// Why a handover was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandoverCause {
    /// The operator wants it.
    Operator,
    /// A port of this member has no link.
    PortDown(Side),
    /// A worker of this member does not poll.
    WorkerStalled(u32),
    /// A preferred member is fit again.
    Takeback,
    /// This member's lease cannot come back in this term.
    LeaseSuspended,
    /// This member's disk failed.
    StorageFailed,
}

impl fmt::Display for MemberEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnershipTaken { owner, previous: Some(previous), child_sas } => {
                write!(f, "took over from {previous} as {owner}, with {child_sas} child SAs")
            }
            Self::OwnershipTaken { owner, previous: None, child_sas } => {
                write!(f, "took the common address as {owner}, with {child_sas} child SAs")
            }
            Self::OwnershipLost { owner, cause } => write!(f, "no longer {owner}: {cause}"),
            Self::OwnerChanged { owner } => write!(f, "the common address is owned by {owner}"),
            Self::OwnerFailed { owner, cause, detected_in_ms } => {
                write!(f, "owner {owner} failed: {}, detected in {detected_in_ms} ms", cause.name())
            }
            Self::LeaderChanged { term, leader: Some(leader) } => {
                write!(f, "member {leader} leads in term {term}")
            }
            Self::LeaderChanged { term, leader: None } => write!(f, "nobody leads in term {term}"),
            Self::LeaseLost => f.write_str("lease lost: silent until it is back"),
            Self::LeaseRegained => f.write_str("lease is back"),
            Self::SaEstablished { spi, ike, connection, peer } => {
                write!(f, "child SA {spi} of {connection} with {peer} established (IKE SA {ike})")
            }
            Self::SaRemoved { spi } => write!(f, "child SA {spi} removed"),
            Self::SaRenewing { spi, urgent: true } => {
                write!(f, "renewing child SA {spi}: its peer uses numbers that became ambiguous")
            }
            Self::SaRenewing { spi, urgent: false } => write!(f, "renewing silent child SA {spi}"),
            Self::IkeSynchronising { ike, delta } => {
                write!(f, "asking the peer of IKE SA {ike} to count on by {delta}")
            }
            Self::IkeReestablishing { ike } => write!(f, "negotiating IKE SA {ike} anew"),
            Self::IkeReestablished { old, new } => {
                write!(f, "IKE SA {new} stands in place of {old}")
            }
            Self::IkeNotReestablished { ike, reason } => {
                write!(f, "IKE SA {ike} could not be negotiated anew: {reason}")
            }
            Self::SequenceEnd { spi } => write!(f, "sequence numbers of child SA {spi} used up"),
            Self::TargetUp { target, mac } => write!(f, "target {target} is up at {mac}"),
            Self::TargetDown { target } => write!(f, "target {target} does not answer"),
            Self::TargetStanding { target, open: false, .. } => {
                write!(f, "target {target} gets no new connections by its own account")
            }
            Self::TargetStanding { target, quarters, .. } => {
                write!(f, "target {target} gets new connections, with {quarters}/4 of its weight")
            }
            Self::TargetAcknowledged { target, epoch } => {
                write!(f, "target {target} acknowledged epoch {epoch}")
            }
            Self::TargetRefused { target, epoch, known } => {
                write!(f, "target {target} refused epoch {epoch}: it knows epoch {known}")
            }
            Self::TargetDraining { target, draining: true } => write!(f, "target {target} drains"),
            Self::TargetDraining { target, .. } => write!(f, "target {target} is in service"),
            Self::AddressClaimed { side, address, by } => {
                write!(f, "{address} {} is claimed by {by} too", side.name())
            }
            Self::HandoverStarted { to, cause } => {
                write!(f, "handing over to member {to}: {cause}")
            }
            Self::RecordsCarriedOn { from, records } => {
                write!(f, "{records} records of {from} carried on and cleared")
            }
            Self::StoreCurrent { owner, records, after_ms } => {
                write!(
                    f,
                    "store current: all {records} records are of {owner}, {after_ms} ms after the takeover"
                )
            }
            Self::RecordHeld { record, hold: None } => write!(f, "{record} runs again"),
            Self::RecordHeld { record, hold: Some(hold) } => {
                let what = match hold.kind {
                    HoldKind::Pending => "is being re-established",
                    HoldKind::Failed => "could not be carried on",
                };
                let keep_s = hold.keep_ms / 1_000;
                write!(f, "{record} {what}: {}; its record is kept for {keep_s} s", hold.reason)
            }
            Self::HandoverFailed { to, reason } => {
                write!(f, "handover to member {to} failed: {reason}")
            }
            Self::HandoverDone { owner, took_us, passed_on_us, frames } => write!(
                f,
                "handed over to {owner} in {took_us} us, {passed_on_us} us of them passing on {frames} frames"
            ),
            Self::SettlementVoid => f.write_str("the settled numbers contradict the records"),
            Self::CommandRefused(refusal) => write!(f, "command refused: {refusal}"),
            Self::SpiDisowned { spi, peer, deleted } => {
                let gone = if *deleted { "is gone" } else { "is unknown" };
                write!(f, "{peer} sends to SPI {spi}, which {gone}, and was told so")
            }
            Self::PathNarrow { peer, mtu } => {
                write!(f, "the path to {peer} takes packets of {mtu} bytes at most")
            }
            Self::IkeReloaded => f.write_str("IKE SAs loaded anew from the replicated records"),
            Self::IkeUnreadable { reason } => f.write_str(reason),
            Self::PeerMessageRefused { from, reason } => {
                write!(f, "message of member {from} refused: {reason}")
            }
            Self::NoSuccessor { address, missing } => {
                write!(f, "nobody could take {address} over at once: {missing}")
            }
            Self::SuccessorReady { address, ready } => {
                write!(f, "{ready} of the others could take {address} over at once")
            }
            Self::MembersChanged { voters, learners, joint } => {
                let list = |ids: &[MemberId]| {
                    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                };
                write!(f, "members {} vote", list(voters))?;
                if !learners.is_empty() {
                    write!(f, ", {} learns", list(learners))?;
                }
                if *joint { f.write_str(", with the majority before") } else { Ok(()) }
            }
            Self::StorageFailed { reason } => write!(f, "the log cannot be stored: {reason}"),
            Self::QueueFull { queue } => write!(f, "{queue} is full"),
        }
    }
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leadership => "it does not lead any more",
            Self::Superseded => "another member took over",
        })
    }
}

impl fmt::Display for HandoverCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("the operator asked for it"),
            Self::PortDown(side) => write!(f, "the {} port has no link", side.name()),
            Self::WorkerStalled(worker) => write!(f, "worker {worker} does not poll"),
            Self::Takeback => f.write_str("a preferred member is fit again"),
            Self::LeaseSuspended => f.write_str("no lease in this term any more"),
            Self::StorageFailed => f.write_str("its log cannot be stored"),
        }
    }
}
