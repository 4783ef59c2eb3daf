//! The encoded form of [`Membership`] and its commands.

use super::{MemberChange, MemberCommand, MemberRecord, Membership};
use crate::codec::CodecError;
use crate::codec::check_level;
use crate::{Configuration, MemberId, wire};
use std::collections::BTreeSet;

impl MemberCommand {
    pub(crate) fn to_wire(&self) -> wire::Members {
        let change = match self {
            Self::RaiseLevel(level) => wire::MembersBody::RaiseLevel(*level),
            Self::Record(members) => wire::MembersBody::Record(wire::MemberRecords {
                members: members.iter().map(|(id, record)| record_to_wire(*id, record)).collect(),
            }),
            Self::Begin { add, remove } => wire::MembersBody::Begin(wire::BeginMemberChange {
                add: add.as_ref().map(|(id, record)| record_to_wire(*id, record)),
                remove: remove.map(|id| id.0),
            }),
            Self::Cancel => wire::MembersBody::Cancel(wire::Noop {}),
        };
        wire::Members { body: Some(change) }
    }

    pub(crate) fn from_wire(members: wire::Members) -> Result<Self, CodecError> {
        let body = members.body.ok_or(CodecError::Invalid("the change of members"))?;
        Ok(match body {
            wire::MembersBody::RaiseLevel(level) => {
                check_level(level)?;
                Self::RaiseLevel(level)
            }
            wire::MembersBody::Record(records) => {
                Self::Record(records.members.into_iter().map(record_from_wire).collect())
            }
            wire::MembersBody::Begin(begin) => Self::Begin {
                add: begin.add.map(record_from_wire),
                remove: begin.remove.map(MemberId),
            },
            wire::MembersBody::Cancel(_) => Self::Cancel,
        })
    }
}

fn record_to_wire(id: MemberId, record: &MemberRecord) -> wire::MemberRecord {
    wire::MemberRecord { id: id.0, address: record.address.clone(), witness: record.witness }
}

fn record_from_wire(record: wire::MemberRecord) -> (MemberId, MemberRecord) {
    let wire::MemberRecord { id, address, witness } = record;
    (MemberId(id), MemberRecord { address, witness })
}

fn ids(ids: &BTreeSet<MemberId>) -> Vec<u64> {
    ids.iter().map(|id| id.0).collect()
}

fn set(ids: Vec<u64>) -> BTreeSet<MemberId> {
    ids.into_iter().map(MemberId).collect()
}

impl Membership {
    /// Nothing for a cluster that never recorded anything: earlier releases read its snapshots.
    pub(crate) fn to_wire(&self) -> Option<wire::Membership> {
        if *self == Self::default() {
            return None;
        }
        Some(wire::Membership {
            level: self.level,
            generation: self.generation,
            configuration: self.configuration.as_ref().map(|known| wire::Configuration {
                voters: ids(&known.voters),
                outgoing: ids(&known.outgoing),
                learners: ids(&known.learners),
                learners_next: ids(&known.learners_next),
                auto_leave: known.auto_leave,
            }),
            records: self.records().map(|(id, record)| record_to_wire(id, record)).collect(),
            retired: ids(&self.retired),
            change: self.change.map(|change| wire::MemberChange {
                begun: change.begun,
                add: change.add.map(|id| id.0),
                remove: change.remove.map(|id| id.0),
            }),
        })
    }

    pub(crate) fn from_wire(wire: Option<wire::Membership>) -> Self {
        let Some(wire) = wire else { return Self::default() };
        Self {
            level: wire.level,
            generation: wire.generation,
            configuration: wire.configuration.map(|known| Configuration {
                voters: set(known.voters),
                outgoing: set(known.outgoing),
                learners: set(known.learners),
                learners_next: set(known.learners_next),
                auto_leave: known.auto_leave,
            }),
            records: wire.records.into_iter().map(record_from_wire).collect(),
            retired: set(wire.retired),
            change: wire.change.map(|change| MemberChange {
                begun: change.begun,
                add: change.add.map(MemberId),
                remove: change.remove.map(MemberId),
            }),
        }
    }
}
