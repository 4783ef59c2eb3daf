//! The stored log as bytes: sealed, checksummed, and read back or refused.
//!
//! Pure: names and bytes in and out. The shell creates, appends, syncs and deletes.
//!
//! ```text
//!   data dir   snapshot-<index>.hfs            one sealed state
//!              log-<number>.hfl                segments; the newest is appended to
//!
//!   segment    header | record | record | ...
//!   header     magic 8 | number 8 | random 8 | chain 4 | kind 4 | crc 4
//!   record     length 4 | kind 1 | zero 3 | count 4 | crc 4 | sealed payload | chain 4
//! ```
//!
//! * Each payload is sealed with AES-256-GCM under a key that never leaves this member. The nonce
//!   is the segment's random number and the record's count, so it repeats only if two segments
//!   draw the same 64 random bits; header and record head are authenticated with it.
//! * `chain` is a CRC-32C over everything from the start of the log: it continues from record to
//!   record and from segment to segment, so a segment from elsewhere does not fit in. It tells
//!   damage from a torn write before any key is involved.
//! * A **checkpoint** segment begins the log anew: snapshot named, all entries behind it, an end
//!   mark. Every process starts with one, and each compaction makes one. Files before it are
//!   deleted after it is synced; without its end mark it counts for nothing.
//! * **Torn or damaged?** Only the last thing written can be torn: a record that is cut off or
//!   does not check, in the last segment, with nothing intact behind it, is dropped and reported.
//!   Anything else that does not check is damage: [`recover`] names segment and offset and
//!   refuses, for a member that lost synced entries must not vote.

mod record;
mod recover;
mod snapshot_file;
mod writer;

pub use recover::{NamedBytes, Recovery, TornTail, recover};
pub use writer::{FileOp, SnapshotTask, WalWriter};

use holdfast_crypto::aead::AeadKey;

/// Bytes after which a segment is left for the next: what a restart maps and reads at once.
pub const SEGMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The member-local key that seals log and snapshots; zeroized on drop.
pub struct WalKey(AeadKey);

impl WalKey {
    /// The key for these 256 bits. They must be random, and must not be used for anything else.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(AeadKey::aes_256(key))
    }
}

impl std::fmt::Debug for WalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WalKey")
    }
}

/// All that can be read of a file on its own with the key: what an attacker who has it would find.
#[cfg(test)]
pub(crate) fn open_everything(key: &WalKey, file: &NamedBytes<'_>) -> Vec<u8> {
    use record::Record;
    if segment_number(file.name).is_some() {
        let scan = record::scan(file.name, file.bytes, key).expect("a segment that opens");
        let entries = scan.records.into_iter().filter_map(|record| match record {
            Record::Entry(entry) => Some(entry.data.to_vec()),
            _ => None,
        });
        return entries.flatten().collect();
    }
    let image =
        snapshot_file::decode_any(key, file.name, file.bytes).expect("a snapshot that opens");
    image.data.to_vec()
}

/// Why stored bytes are refused. The first four need the operator; none is ever repaired silently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// Damage in the middle of the log, or an end that is missing more than a torn write.
    #[error("{file} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What does not check.
        what: &'static str,
    },
    /// It checks, but does not open: another key, or bytes forged with correct checksums.
    #[error("{file} does not open at byte {offset}: the key is another one, or it was forged")]
    Sealed {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
    },
    /// A file of the log is not there.
    #[error("{0} is missing")]
    Missing(String),
    /// A newer release wrote it.
    #[error("{file} has format {found}, newer than this release")]
    Newer {
        /// The file.
        file: String,
        /// Its version.
        found: u8,
    },
    /// More than the format can hold.
    #[error("{0} is too large to store")]
    TooLarge(&'static str),
    /// A snapshot that the leader sent is not for this release, or broken.
    #[error("the leader's snapshot cannot be read: {0}")]
    Unreadable(holdfast_cluster::CodecError),
}

/// The name of a segment.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("log-{number:016x}.hfl")
}

/// The name of the snapshot that ends with entry `index`.
#[must_use]
pub fn snapshot_name(index: u64) -> String {
    format!("snapshot-{index:016x}.hfs")
}

/// Whether a file belongs to the log: the rest of the directory is somebody else's.
#[must_use]
pub fn is_wal_file(name: &str) -> bool {
    segment_number(name).is_some() || snapshot_index(name).is_some()
}

fn segment_number(name: &str) -> Option<u64> {
    parse_name(name, "log-", ".hfl")
}

fn snapshot_index(name: &str) -> Option<u64> {
    parse_name(name, "snapshot-", ".hfs")
}

fn parse_name(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let lower_hex = |octet: u8| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet);
    if digits.len() != 16 || !digits.bytes().all(lower_hex) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_strangers_left_alone() {
        assert_eq!(segment_number(&segment_name(0x1f)), Some(0x1f));
        assert_eq!(snapshot_index(&snapshot_name(u64::MAX)), Some(u64::MAX));
        for stranger in ["log-1.hfl", "log-00000000000000zz.hfl", "snapshot-0.tmp", "incarnation"] {
            assert!(!is_wal_file(stranger), "{stranger}");
        }
    }
}
