//! The messages, as protobuf written out by hand. Fields are only ever added.

use holdfast_member::{OwnerNotice, TargetReport};
use prost::{Message, Oneof};
use zeroize::Zeroize;

/// Raised by a change that an older end must not skip.
pub(crate) const VERSION_MAJOR: u32 = 1;

/// The longest message either end accepts.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4_096;

/// What a member says: who owns the common address.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub(crate) struct ToTarget {
    #[prost(uint32, tag = "1")]
    pub(crate) version_major: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) member: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) epoch: u64,
    #[prost(fixed32, tag = "5")]
    pub(crate) common: u32,
    #[prost(fixed32, tag = "6")]
    pub(crate) inside: u32,
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) inside_mac: Vec<u8>,
    /// Empty when packets come in clear.
    #[prost(bytes = "vec", tag = "8")]
    pub(crate) key: Vec<u8>,
}

impl Drop for ToTarget {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl std::fmt::Debug for ToTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ToTarget(member {}, epoch {})", self.member, self.epoch)
    }
}

/// The message of a notice.
pub(crate) fn notice_message(notice: &OwnerNotice) -> ToTarget {
    ToTarget {
        version_major: VERSION_MAJOR,
        member: notice.owner.member.0,
        incarnation: notice.owner.incarnation.0,
        epoch: notice.owner.epoch.0,
        common: notice.common.to_bits(),
        inside: notice.inside.to_bits(),
        inside_mac: notice.inside_mac.0.to_vec(),
        key: notice.key.as_ref().map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
    }
}

/// What a target says.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct FromTarget {
    #[prost(oneof = "FromTargetBody", tags = "1, 2, 3, 4")]
    pub(crate) body: Option<FromTargetBody>,
}

impl From<FromTargetBody> for FromTarget {
    fn from(body: FromTargetBody) -> Self {
        Self { body: Some(body) }
    }
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub(crate) enum FromTargetBody {
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// The epoch of the owner it follows now.
    #[prost(uint64, tag = "2")]
    Acknowledged(u64),
    #[prost(message, tag = "3")]
    Stale(StaleNotice),
    #[prost(message, tag = "4")]
    Report(Report),
}

/// The first message of a connection.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) version_major: u32,
    /// The target's configured name; its certificate must be of the same.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// The member it wants to talk to.
    #[prost(uint64, tag = "3")]
    pub(crate) member: u64,
}

/// A notice was refused because its epoch is not the latest.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StaleNotice {
    #[prost(uint64, tag = "1")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) known_epoch: u64,
}

/// How the target is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Report {
    #[prost(bool, tag = "1")]
    pub(crate) healthy: bool,
    #[prost(uint32, tag = "2")]
    pub(crate) load_percent: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) connections: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) marks_refused: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) clear_dropped: u64,
    #[prost(uint64, tag = "6")]
    pub(crate) notices_refused: u64,
}

impl From<Report> for TargetReport {
    fn from(report: Report) -> Self {
        Self {
            healthy: report.healthy,
            load_percent: report.load_percent,
            connections: report.connections,
            marks_refused: report.marks_refused,
            clear_dropped: report.clear_dropped,
            notices_refused: report.notices_refused,
        }
    }
}
