//! The common store: which records there are and under whom they stand. Never a key.

use crate::messages::{Ownership, Refusal};
use crate::names::{Named, by_name, ike_spi, spi};
use prost::{Enumeration, Message};
use serde::Serialize;

/// Asks for [`StoreList`]. Any member answers, from what it has applied itself.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StoreListRequest {
    /// The common address whose store is meant; empty for the one there is.
    #[prost(string, tag = "1")]
    pub address: String,
    /// At most this many records; the counts are of all.
    #[prost(uint32, tag = "2")]
    pub limit: u32,
}

/// Kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum RecordKind {
    /// An IKE SA ("phase 1").
    IkeSa = 0,
    /// A pair of Child SAs ("phase 2").
    ChildSa = 1,
    /// Which Child SA belongs to which IKE SA.
    Relation = 2,
}

impl Named for RecordKind {
    fn name(self) -> &'static str {
        match self {
            Self::IkeSa => "ike_sa",
            Self::ChildSa => "child_sa",
            Self::Relation => "relation",
        }
    }
}

/// How a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum RecordReadiness {
    /// Recorded or carried on by the present owner: a successor can carry it on.
    Ready = 0,
    /// Of an earlier owner; the present one has it and has not put it under itself yet.
    Inherited = 1,
    /// Its SA is being re-established.
    Pending = 2,
    /// Its SA could not be carried on nor re-established; the record is kept for a time.
    Failed = 3,
}

impl Named for RecordReadiness {
    fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Inherited => "inherited",
            Self::Pending => "pending",
            Self::Failed => "failed",
        }
    }
}

/// One record.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct StoreRecord {
    /// What it is of.
    #[prost(enumeration = "RecordKind", tag = "1")]
    #[serde(serialize_with = "by_name::<RecordKind, _>")]
    pub kind: i32,
    /// Our SPI of the IKE SA it is of or belongs to.
    #[prost(uint64, tag = "2")]
    #[serde(serialize_with = "ike_spi")]
    pub ike_spi: u64,
    /// Our SPI of the pair of Child SAs; 0 in records of IKE SAs.
    #[prost(uint32, tag = "3")]
    #[serde(serialize_with = "spi")]
    pub inbound_spi: u32,
    /// The connection it belongs to.
    #[prost(string, tag = "4")]
    pub connection: String,
    /// The peer's address; empty where only the owner knows it.
    #[prost(string, tag = "5")]
    pub peer: String,
    /// The member under which it stands.
    #[prost(uint64, tag = "6")]
    pub owner_member: u64,
    /// The boot of that member.
    #[prost(uint64, tag = "7")]
    pub owner_incarnation: u64,
    /// The epoch under which it stands.
    #[prost(uint64, tag = "8")]
    pub epoch: u64,
    /// How it stands.
    #[prost(enumeration = "RecordReadiness", tag = "9")]
    #[serde(serialize_with = "by_name::<RecordReadiness, _>")]
    pub readiness: i32,
    /// Why it is pending or failed; else empty.
    #[prost(string, tag = "10")]
    pub reason: String,
    /// How long a pending or failed record is kept, from when its owner said so.
    #[prost(uint64, tag = "11")]
    pub keep_ms: u64,
}

/// The store of one common address.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
pub struct StoreList {
    /// The common address.
    #[prost(string, tag = "1")]
    pub common_address: String,
    /// The member that answers.
    #[prost(uint64, tag = "2")]
    pub member: u64,
    /// The last entry this answer contains.
    #[prost(uint64, tag = "3")]
    pub applied_index: u64,
    /// Entries known here to be committed and not applied yet.
    #[prost(uint64, tag = "4")]
    pub lag_entries: u64,
    /// Whether this member hears of new entries: it leads, or knows who does.
    #[prost(bool, tag = "5")]
    pub follows: bool,
    /// The present owner.
    #[prost(message, optional, tag = "6")]
    pub owner: Option<Ownership>,
    /// Records of IKE SAs.
    #[prost(uint64, tag = "7")]
    pub ike_sas: u64,
    /// Records of pairs of Child SAs; as many relations.
    #[prost(uint64, tag = "8")]
    pub child_sas: u64,
    /// Records of IKE SAs and Child SAs under an earlier owner.
    #[prost(uint64, tag = "9")]
    pub inherited: u64,
    /// Records whose SA is being re-established.
    #[prost(uint64, tag = "10")]
    pub pending: u64,
    /// Records whose SA could not be carried on.
    #[prost(uint64, tag = "11")]
    pub failed: u64,
    /// Whether a successor could carry on now, as far as this member knows.
    #[prost(bool, tag = "12")]
    pub takeover_ready: bool,
    /// Why, or why not.
    #[prost(string, tag = "13")]
    pub takeover_reason: String,
    /// The records, an IKE SA before what belongs to it.
    #[prost(message, repeated, tag = "14")]
    pub records: Vec<StoreRecord>,
    /// Whether there are more.
    #[prost(bool, tag = "15")]
    pub truncated: bool,
    /// Changes that were refused, by reason, since this member started; a delete by a stale owner
    /// or of a stale record is among them.
    #[prost(message, repeated, tag = "16")]
    pub refused_changes: Vec<Refusal>,
}
