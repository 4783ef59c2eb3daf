//! The common store as this member has it applied: which records, under whom, how they stand.

use crate::member::Member;
use crate::operator::{OperatorReply, RefusedKind, RefusedReply, TakeoverReadiness};
use holdfast_cluster::{HoldKind, IkeSpi, MemberId, Owner, Readiness, Standing};
use holdfast_ipsec::Spi;
use holdfast_packet::Nanos;
use std::net::Ipv4Addr;

/// The answer to [`crate::OperatorRequest::StoreList`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreListReply {
    /// The common address.
    pub common: Ipv4Addr,
    /// The member that answers.
    pub member: MemberId,
    /// The last entry applied here: what the answer contains.
    pub applied_index: u64,
    /// The last entry known here to be committed.
    pub commit_index: u64,
    /// Whether a leader is known, from whom news would come.
    pub follows: bool,
    /// Who owns the common address.
    pub owner: Option<Owner>,
    /// When this member learnt of that ownership.
    pub owner_since: Option<Nanos>,
    /// How many records of IKE SAs there are.
    pub ike_sas: usize,
    /// How many records of Child SAs there are.
    pub child_sas: usize,
    /// Records under an earlier owner.
    pub inherited: usize,
    /// Records whose SA is being re-established.
    pub pending: usize,
    /// Records whose SA could not be carried on.
    pub failed: usize,
    /// Whether a successor could carry on.
    pub takeover: TakeoverReadiness,
    /// The records, an IKE SA before its Child SAs.
    pub records: Vec<RecordReply>,
    /// Whether there are more.
    pub truncated: bool,
    /// Refused commands by reason, since the start of this member.
    pub refusals: Vec<(&'static str, u64)>,
}

/// One record. A Child SA's stands for its relation to the IKE SA too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordReply {
    /// The IKE SA it is of or belongs to.
    pub ike_spi: IkeSpi,
    /// The Child SA and its peer; `None` in the record of an IKE SA.
    pub child: Option<(Spi, Ipv4Addr)>,
    /// The connection.
    pub connection: String,
    /// Under whom it stands.
    pub owner: Owner,
    /// How it stands.
    pub readiness: RecordReadiness,
    /// Why it is held; else empty.
    pub reason: String,
    /// How long it is held.
    pub keep_ms: u64,
}

/// How a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordReadiness {
    /// Recorded or carried on by the present owner.
    Ready,
    /// Of an earlier owner, not carried on yet.
    Inherited,
    /// Being re-established.
    Pending,
    /// Could not be carried on.
    Failed,
}

impl Member {
    /// The first `limit` records and counts of all.
    pub(crate) fn store_list(&self, address: Option<Ipv4Addr>, limit: usize) -> OperatorReply {
        let common = self.config.addresses.common;
        if let Some(other) = address.filter(|address| *address != common) {
            return OperatorReply::Refused(RefusedReply {
                kind: RefusedKind::Usage,
                message: format!("this cluster holds no store of {other}"),
                next_action: format!("leave --address out, or name {common}"),
            });
        }
        let state = self.replica.state();
        let status = self.replica.status();
        let records = self.first_records(limit);
        let of = |kind| state.held().filter(|(_, hold)| hold.kind == kind).count();
        let truncated = records.len() < state.records();
        OperatorReply::StoreList(Box::new(StoreListReply {
            common,
            member: self.config.id,
            applied_index: state.applied(),
            commit_index: status.commit,
            follows: status.leader.is_some(),
            owner: state.owner(),
            owner_since: self.owner_since,
            ike_sas: state.ike_sas().len(),
            child_sas: state.children().len(),
            inherited: state.inherited(),
            pending: of(HoldKind::Pending),
            failed: of(HoldKind::Failed),
            takeover: self.readiness(),
            records,
            truncated,
            refusals: self.refusals.iter().map(|(name, count)| (*name, *count)).collect(),
        }))
    }

    fn first_records(&self, limit: usize) -> Vec<RecordReply> {
        let state = self.replica.state();
        let of_one = |(spi, record): (IkeSpi, &holdfast_cluster::IkeRecord)| {
            let ike = self.record(spi, None, &record.connection, &record.standing);
            let children = state.children_of(spi).filter_map(|child| state.child(child));
            let children: Vec<RecordReply> = children
                .take(limit)
                .map(|child| {
                    let parameters = &child.parameters;
                    let named = Some((parameters.inbound_spi, parameters.remote));
                    self.record(spi, named, &parameters.connection, &child.standing)
                })
                .collect();
            std::iter::once(ike).chain(children)
        };
        state.ike_sas().flat_map(of_one).take(limit).collect()
    }

    fn record(
        &self,
        ike_spi: IkeSpi,
        child: Option<(Spi, Ipv4Addr)>,
        connection: &str,
        standing: &Standing,
    ) -> RecordReply {
        let (readiness, reason, keep_ms) = match self.replica.state().readiness(standing) {
            Readiness::Ready => (RecordReadiness::Ready, String::new(), 0),
            Readiness::Inherited => (RecordReadiness::Inherited, String::new(), 0),
            Readiness::Held(hold) => {
                let readiness = match hold.kind {
                    HoldKind::Pending => RecordReadiness::Pending,
                    HoldKind::Failed => RecordReadiness::Failed,
                };
                (readiness, hold.reason.clone(), hold.keep_ms)
            }
        };
        RecordReply {
            ike_spi,
            child,
            connection: connection.to_owned(),
            owner: standing.owner,
            readiness,
            reason,
            keep_ms,
        }
    }
}
