//! The common store in the operator's words.

use super::translate::{Context, ownership};
use holdfast_api as api;
use holdfast_member::{RecordReadiness, RecordReply, StoreListReply};

pub(super) fn store_list(reply: StoreListReply, context: &Context<'_>) -> api::StoreList {
    let count = |records: usize| u64::try_from(records).unwrap_or(u64::MAX);
    let refusal = |(reason, count): &(&'static str, u64)| api::Refusal {
        reason: (*reason).to_owned(),
        count: *count,
    };
    api::StoreList {
        common_address: reply.common.to_string(),
        member: reply.member.0,
        applied_index: reply.applied_index,
        lag_entries: reply.commit_index.saturating_sub(reply.applied_index),
        follows: reply.follows,
        owner: reply.owner.map(|owner| ownership(owner, reply.owner_since, context)),
        ike_sas: count(reply.ike_sas),
        child_sas: count(reply.child_sas),
        inherited: count(reply.inherited),
        pending: count(reply.pending),
        failed: count(reply.failed),
        takeover_ready: reply.takeover.ready,
        takeover_reason: reply.takeover.reason,
        records: reply.records.iter().flat_map(records).collect(),
        truncated: reply.truncated,
        refused_changes: reply.refusals.iter().map(refusal).collect(),
    }
}

/// A record of a Child SA is two for the operator: the SA, and whose it is.
fn records(reply: &RecordReply) -> Vec<api::StoreRecord> {
    let readiness = match reply.readiness {
        RecordReadiness::Ready => api::RecordReadiness::Ready,
        RecordReadiness::Inherited => api::RecordReadiness::Inherited,
        RecordReadiness::Pending => api::RecordReadiness::Pending,
        RecordReadiness::Failed => api::RecordReadiness::Failed,
    };
    let of = |kind: api::RecordKind| api::StoreRecord {
        kind: kind.into(),
        ike_spi: reply.ike_spi.0,
        inbound_spi: reply.child.map_or(0, |(spi, _)| spi.get()),
        connection: reply.connection.clone(),
        peer: reply.child.map(|(_, peer)| peer.to_string()).unwrap_or_default(),
        owner_member: reply.owner.member.0,
        owner_incarnation: reply.owner.incarnation.0,
        epoch: reply.owner.epoch.0,
        readiness: readiness.into(),
        reason: reply.reason.clone(),
        keep_ms: reply.keep_ms,
    };
    match reply.child {
        None => vec![of(api::RecordKind::IkeSa)],
        Some(_) => vec![of(api::RecordKind::ChildSa), of(api::RecordKind::Relation)],
    }
}
