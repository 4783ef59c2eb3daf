//! A disk that forgets what was not synced.

use super::Prng;
use crate::wal::{FileOp, NamedBytes};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
struct StoredFile {
    bytes: Vec<u8>,
    synced: usize,
}

/// The files of one member.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<String, StoredFile>,
}

impl Disk {
    /// Carries out one step.
    pub fn carry_out(&mut self, op: FileOp) {
        match op {
            FileOp::Create { name, bytes } => {
                let known = self.files.contains_key(&name);
                assert!(!known, "{name} exists already");
                let synced = bytes.len();
                self.files.insert(name, StoredFile { bytes, synced });
            }
            FileOp::Replace { name, bytes } => {
                let synced = bytes.len();
                self.files.insert(name, StoredFile { bytes, synced });
            }
            FileOp::Append { name, bytes } => {
                let file = self.files.get_mut(&name).expect("appends to a file that exists");
                file.bytes.extend_from_slice(&bytes);
            }
            FileOp::Sync { name } => {
                // A checkpoint may have deleted it in the meantime.
                if let Some(file) = self.files.get_mut(&name) {
                    file.synced = file.bytes.len();
                }
            }
            FileOp::Delete { name } => {
                self.files.remove(&name);
            }
        }
    }

    /// The power fails: of what was not synced, some part is there and the rest is not.
    pub fn crash(&mut self, prng: &mut Prng) {
        for file in self.files.values_mut() {
            let left = prng.between(file.synced as u64, file.bytes.len() as u64);
            file.bytes.truncate(left as usize);
            file.synced = file.bytes.len();
        }
    }

    /// What is on it.
    #[must_use]
    pub fn files(&self) -> Vec<NamedBytes<'_>> {
        let named = |(name, file)| {
            let (name, file): (&String, &StoredFile) = (name, file);
            NamedBytes { name, bytes: &file.bytes }
        };
        self.files.iter().map(named).collect()
    }

    /// The bytes of a file, to damage them.
    pub fn bytes_mut(&mut self, name: &str) -> Option<&mut Vec<u8>> {
        self.files.get_mut(name).map(|file| &mut file.bytes)
    }

    /// All bytes on it.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.files.values().map(|file| file.bytes.len()).sum()
    }
}
