//! The encoded form of commands and snapshots, as protobuf messages written out by hand.
//!
//! Fields are only ever added, with new numbers; numbers are never used again. A change that an
//! older member must not skip raises [`VERSION_MAJOR`].

use prost::{Message, Oneof};
use zeroize::Zeroize;

/// A member refuses entries and snapshots of a higher major version.
pub(crate) const VERSION_MAJOR: u32 = 1;

/// Bytes that must not outlive their use nor be printed.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub(crate) struct Secret {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) bytes: Vec<u8>,
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.bytes.len())
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Command {
    #[prost(uint32, tag = "1")]
    pub(crate) version_major: u32,
    #[prost(oneof = "Body", tags = "2, 3, 4, 5, 6, 20, 40, 41, 50, 60")]
    pub(crate) body: Option<Body>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum Body {
    #[prost(message, tag = "50")]
    Members(Members),
    #[prost(message, tag = "2")]
    Noop(Noop),
    #[prost(message, tag = "3")]
    TakeOwnership(Owner),
    #[prost(message, tag = "4")]
    Ike(Ike),
    #[prost(message, tag = "5")]
    Grant(Grant),
    #[prost(message, tag = "6")]
    SetTarget(SetTarget),
    #[prost(message, tag = "60")]
    SetMarkSecret(SetMarkSecret),
    #[prost(message, tag = "20")]
    Settle(Settle),
    #[prost(message, tag = "40")]
    CarryOn(CarryOn),
    #[prost(message, tag = "41")]
    Hold(SetHold),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Noop {}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Owner {
    #[prost(uint64, tag = "1")]
    pub(crate) member: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) epoch: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Ike {
    #[prost(message, optional, tag = "1")]
    pub(crate) owner: Option<Owner>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) changes: Vec<StateChange>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StateChange {
    #[prost(oneof = "Change", tags = "1, 2, 3, 4")]
    pub(crate) change: Option<Change>,
    /// For deletions: the ownership whose record is meant.
    #[prost(message, optional, tag = "40")]
    pub(crate) under: Option<Owner>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum Change {
    #[prost(message, tag = "1")]
    PutIke(IkeSa),
    #[prost(fixed64, tag = "2")]
    DeleteIke(u64),
    #[prost(message, tag = "3")]
    PutChild(PutChildSa),
    #[prost(fixed32, tag = "4")]
    DeleteChild(u32),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct IkeSa {
    #[prost(fixed64, tag = "1")]
    pub(crate) spi: u64,
    #[prost(string, tag = "2")]
    pub(crate) connection: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) state: Option<Secret>,
    /// In snapshots; in commands the owner is the command's.
    #[prost(message, optional, tag = "40")]
    pub(crate) standing: Option<Standing>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct PutChildSa {
    #[prost(fixed64, tag = "1")]
    pub(crate) ike: u64,
    #[prost(message, optional, tag = "2")]
    pub(crate) parameters: Option<ChildParameters>,
    #[prost(fixed32, optional, tag = "30")]
    pub(crate) replaces: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ChildParameters {
    #[prost(fixed32, tag = "1")]
    pub(crate) inbound_spi: u32,
    #[prost(fixed32, tag = "2")]
    pub(crate) outbound_spi: u32,
    #[prost(message, optional, tag = "3")]
    pub(crate) inbound_key: Option<Key>,
    #[prost(message, optional, tag = "4")]
    pub(crate) outbound_key: Option<Key>,
    #[prost(bool, tag = "5")]
    pub(crate) esn: bool,
    #[prost(uint32, tag = "6")]
    pub(crate) window_packets: u32,
    /// 4 octets for IPv4; 16 are left for IPv6.
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) local: Vec<u8>,
    #[prost(bytes = "vec", tag = "8")]
    pub(crate) remote: Vec<u8>,
    #[prost(message, optional, tag = "9")]
    pub(crate) udp: Option<UdpEncapsulation>,
    #[prost(message, repeated, tag = "10")]
    pub(crate) local_selectors: Vec<TrafficSelector>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) remote_selectors: Vec<TrafficSelector>,
    #[prost(string, tag = "12")]
    pub(crate) connection: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Key {
    /// Bits of the cipher's key.
    #[prost(uint32, tag = "1")]
    pub(crate) key_bits: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) key: Option<Secret>,
    /// The number of the cipher's transform in IANA's list; 0 is ENCR_AES_GCM_16, which was the only
    /// one once. Written from level `ALGORITHMS` on.
    #[prost(uint32, tag = "3")]
    pub(crate) encryption: u32,
    /// The number of the integrity algorithm's transform; 0 is none.
    #[prost(uint32, tag = "4")]
    pub(crate) integrity: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct UdpEncapsulation {
    #[prost(uint32, tag = "1")]
    pub(crate) local_port: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) remote_port: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct TrafficSelector {
    #[prost(uint32, tag = "1")]
    pub(crate) protocol: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) first_port: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) last_port: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) first_address: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) last_address: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Grant {
    #[prost(message, optional, tag = "1")]
    pub(crate) owner: Option<Owner>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) items: Vec<GrantItem>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct GrantItem {
    #[prost(fixed32, tag = "1")]
    pub(crate) spi: u32,
    #[prost(bool, tag = "2")]
    pub(crate) outbound: bool,
    #[prost(uint32, tag = "3")]
    pub(crate) packets: u32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct SetTarget {
    #[prost(uint64, tag = "1")]
    pub(crate) target: u64,
    #[prost(bool, tag = "2")]
    pub(crate) draining: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct SetMarkSecret {
    #[prost(message, optional, tag = "1")]
    pub(crate) owner: Option<Owner>,
    #[prost(message, optional, tag = "2")]
    pub(crate) secret: Option<Secret>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Settle {
    #[prost(message, optional, tag = "1")]
    pub(crate) owner: Option<Owner>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) items: Vec<SettleItem>,
    #[prost(bool, tag = "3")]
    pub(crate) last: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct SettleItem {
    #[prost(fixed32, tag = "1")]
    pub(crate) spi: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) settled: Option<Settled>,
}

/// Where the worker of a Child SA stopped.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Settled {
    #[prost(uint64, tag = "1")]
    pub(crate) outbound_next: u64,
    #[prost(message, optional, tag = "2")]
    pub(crate) edge: Option<ReplayEdge>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ReplayEdge {
    #[prost(uint64, tag = "1")]
    pub(crate) right_edge: u64,
    /// Two numbers a run, ascending: how far its first number is left of the edge, and how many
    /// numbers follow that one.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) unseen: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Snapshot {
    #[prost(uint32, tag = "1")]
    pub(crate) version_major: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) applied: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) owner: Option<Owner>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) ike_sas: Vec<IkeSa>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) children: Vec<ChildSa>,
    #[prost(uint64, repeated, tag = "6")]
    pub(crate) draining: Vec<u64>,
    #[prost(message, optional, tag = "60")]
    pub(crate) mark_secret: Option<Secret>,
    /// 0 open, 1 begun, 2 complete, 3 void.
    #[prost(uint32, tag = "20")]
    pub(crate) settlement: u32,
    /// Absent until the log said anything about members.
    #[prost(message, optional, tag = "50")]
    pub(crate) membership: Option<Membership>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ChildSa {
    #[prost(fixed64, tag = "1")]
    pub(crate) ike: u64,
    #[prost(message, optional, tag = "2")]
    pub(crate) parameters: Option<ChildParameters>,
    #[prost(uint64, tag = "3")]
    pub(crate) outbound_start: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) outbound_high: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) floor: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) horizon: u64,
    /// Absent where it is the floor.
    #[prost(message, optional, tag = "20")]
    pub(crate) edge: Option<ReplayEdge>,
    #[prost(message, optional, tag = "21")]
    pub(crate) settled: Option<Settled>,
    #[prost(fixed32, optional, tag = "30")]
    pub(crate) replaces: Option<u32>,
    #[prost(message, optional, tag = "40")]
    pub(crate) standing: Option<Standing>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct CarryOn {
    #[prost(message, optional, tag = "1")]
    pub(crate) owner: Option<Owner>,
    #[prost(message, optional, tag = "2")]
    pub(crate) from: Option<Owner>,
    #[prost(fixed64, repeated, tag = "3")]
    pub(crate) ike_sas: Vec<u64>,
    #[prost(fixed32, repeated, tag = "4")]
    pub(crate) children: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct SetHold {
    #[prost(message, optional, tag = "1")]
    pub(crate) owner: Option<Owner>,
    #[prost(message, optional, tag = "2")]
    pub(crate) under: Option<Owner>,
    #[prost(oneof = "RecordName", tags = "3, 4")]
    pub(crate) record: Option<RecordName>,
    #[prost(message, optional, tag = "5")]
    pub(crate) hold: Option<Hold>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum RecordName {
    #[prost(fixed64, tag = "3")]
    Ike(u64),
    #[prost(fixed32, tag = "4")]
    Child(u32),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Hold {
    #[prost(bool, tag = "1")]
    pub(crate) failed: bool,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
    #[prost(uint64, tag = "3")]
    pub(crate) keep_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Standing {
    #[prost(message, optional, tag = "1")]
    pub(crate) owner: Option<Owner>,
    #[prost(message, optional, tag = "2")]
    pub(crate) hold: Option<Hold>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Members {
    #[prost(oneof = "MembersBody", tags = "1, 2, 3, 4")]
    pub(crate) body: Option<MembersBody>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum MembersBody {
    #[prost(uint32, tag = "1")]
    RaiseLevel(u32),
    #[prost(message, tag = "2")]
    Record(MemberRecords),
    #[prost(message, tag = "3")]
    Begin(BeginMemberChange),
    #[prost(message, tag = "4")]
    Cancel(Noop),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct MemberRecords {
    #[prost(message, repeated, tag = "1")]
    pub(crate) members: Vec<MemberRecord>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct MemberRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    #[prost(string, tag = "2")]
    pub(crate) address: String,
    #[prost(bool, tag = "3")]
    pub(crate) witness: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct BeginMemberChange {
    #[prost(message, optional, tag = "1")]
    pub(crate) add: Option<MemberRecord>,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) remove: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Membership {
    #[prost(uint32, tag = "1")]
    pub(crate) level: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) generation: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) configuration: Option<Configuration>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) records: Vec<MemberRecord>,
    #[prost(uint64, repeated, tag = "5")]
    pub(crate) retired: Vec<u64>,
    #[prost(message, optional, tag = "6")]
    pub(crate) change: Option<MemberChange>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Configuration {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) outgoing: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) learners: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(crate) learners_next: Vec<u64>,
    #[prost(bool, tag = "5")]
    pub(crate) auto_leave: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct MemberChange {
    #[prost(uint64, tag = "1")]
    pub(crate) begun: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) add: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) remove: Option<u64>,
}
