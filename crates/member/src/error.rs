//! Why a member cannot start.

use crate::limits;
use holdfast_replica::ReplicaError;

/// A configuration or a disk a member cannot start with. The operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// The replication cannot start: its configuration or the stored log is unusable.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// SPIs name workers by their low bits.
    #[error("the number of workers must be a power of two, not {0}")]
    Workers(u32),
    /// More targets than a member distributes over.
    #[error("{0} targets are more than {max}", max = limits::TARGETS_MAX)]
    TooManyTargets(usize),
    /// Two targets share what must tell them apart.
    #[error("two targets have the same id, name or address as {0}")]
    DuplicateTarget(String),
}
