//! The records in the order of their names, in pieces that are shared until they change.
//!
//! ```text
//!   clone   [first name | Arc]  [first name | Arc]  [first name | Arc]      a few pointers
//!                 |                   |                   |
//!              names, records      names, records      names, records       at most CHUNK_MAX each
//! ```
//!
//! Whoever holds a clone keeps what it saw: a change copies the one piece it is in, if that is
//! shared. So a snapshot of a hundred thousand records can be encoded elsewhere while this one
//! goes on changing. Each change also brings the digest of all records up to date: the sum of a
//! digest of each, so equal records have equal digests in whatever order they came.

use crate::digest::Digest;
use std::fmt;
use std::sync::Arc;

/// Records of one piece: what is copied at most when one record of a shared piece changes, a few
/// microseconds.
const CHUNK_MAX: usize = 128;

/// Records by name. Nothing hands a record out to be changed except [`RecordMap::update`] and
/// [`RecordMap::update_all`], which keep the digest true.
#[derive(Clone)]
pub(crate) struct RecordMap<K, V> {
    chunks: Vec<(K, Arc<Chunk<K, V>>)>,
    len: usize,
    digest: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk<K, V> {
    names: Vec<K>,
    records: Vec<V>,
}

/// Where a name is, or would be.
#[derive(Clone, Copy)]
struct Place {
    chunk: usize,
    at: usize,
}

impl<K, V> Default for RecordMap<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0, digest: 0 }
    }
}

impl<K: Copy + Ord, V: Clone + Digest<K>> RecordMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The sum of the digests of all records.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn get(&self, name: K) -> Option<&V> {
        let place = self.find(name).ok()?;
        self.chunks.get(place.chunk)?.1.records.get(place.at)
    }

    pub(crate) fn contains_key(&self, name: K) -> bool {
        self.find(name).is_ok()
    }

    pub(crate) fn iter(&self) -> Records<'_, K, V> {
        Records { chunks: self.chunks.iter(), names: [].iter(), records: [].iter(), left: self.len }
    }

    /// Puts a record; gives back the one there was.
    pub(crate) fn insert(&mut self, name: K, record: V) -> Option<V> {
        let added = record.digest(name);
        let place = match self.find(name) {
            Ok(place) => {
                let present = self.record_mut(place)?;
                let removed = present.digest(name);
                let previous = std::mem::replace(present, record);
                self.exchange(removed, added);
                return Some(previous);
            }
            Err(place) => place,
        };
        self.exchange(0, added);
        self.len += 1;
        match self.chunks.get_mut(place.chunk) {
            None => self.chunks.push((name, Arc::new(Chunk::of_one(name, record)))),
            Some((first, chunk)) => {
                *first = name.min(*first);
                let chunk = Arc::make_mut(chunk);
                chunk.names.insert(place.at, name);
                chunk.records.insert(place.at, record);
                self.split(place.chunk);
            }
        }
        None
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, name: K) -> Option<V> {
        let place = self.find(name).ok()?;
        let (first, chunk) = self.chunks.get_mut(place.chunk)?;
        let chunk = Arc::make_mut(chunk);
        chunk.names.remove(place.at);
        let record = chunk.records.remove(place.at);
        match chunk.names.first() {
            Some(name) => {
                *first = *name;
                self.merge(place.chunk);
            }
            None => drop(self.chunks.remove(place.chunk)),
        }
        self.len -= 1;
        self.exchange(record.digest(name), 0);
        Some(record)
    }

    /// Changes a record that is there; what `change` returns is handed on.
    pub(crate) fn update<R>(&mut self, name: K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let place = self.find(name).ok()?;
        let record = self.record_mut(place)?;
        let removed = record.digest(name);
        let returned = change(record);
        let added = record.digest(name);
        self.exchange(removed, added);
        Some(returned)
    }

    /// Changes every record.
    pub(crate) fn update_all(&mut self, mut change: impl FnMut(&mut V)) {
        let mut digest = 0u64;
        for (_, chunk) in &mut self.chunks {
            let chunk = Arc::make_mut(chunk);
            for (name, record) in chunk.names.iter().zip(&mut chunk.records) {
                change(record);
                digest = digest.wrapping_add(record.digest(*name));
            }
        }
        self.digest = digest;
    }

    /// The digest computed anew, for tests of the one that is kept.
    #[cfg(test)]
    pub(crate) fn recomputed(&self) -> u64 {
        self.iter().fold(0, |sum, (name, record)| sum.wrapping_add(record.digest(name)))
    }

    fn exchange(&mut self, removed: u64, added: u64) {
        self.digest = self.digest.wrapping_sub(removed).wrapping_add(added);
    }

    fn find(&self, name: K) -> Result<Place, Place> {
        let behind = self.chunks.partition_point(|(first, _)| *first <= name);
        // A name before all others goes into the first piece.
        let chunk = behind.saturating_sub(1);
        let Some((_, found)) = self.chunks.get(chunk) else {
            return Err(Place { chunk: 0, at: 0 });
        };
        let place = |at| Place { chunk, at };
        found.names.binary_search(&name).map(place).map_err(place)
    }

    fn record_mut(&mut self, place: Place) -> Option<&mut V> {
        let (_, chunk) = self.chunks.get_mut(place.chunk)?;
        Arc::make_mut(chunk).records.get_mut(place.at)
    }

    fn split(&mut self, at: usize) {
        let Some((_, chunk)) = self.chunks.get_mut(at).filter(|(_, chunk)| chunk.len() > CHUNK_MAX)
        else {
            return;
        };
        let upper = Arc::make_mut(chunk).split_off(CHUNK_MAX / 2);
        if let Some(first) = upper.names.first() {
            self.chunks.insert(at + 1, (*first, Arc::new(upper)));
        }
    }

    /// Joins a piece with its neighbour while both together are small, so that there are never many
    /// more pieces than records need.
    fn merge(&mut self, at: usize) {
        let len = |at: usize| self.chunks.get(at).map_or(CHUNK_MAX, |(_, chunk)| chunk.len());
        if len(at) + len(at + 1) > CHUNK_MAX / 2 {
            return;
        }
        let (_, next) = self.chunks.remove(at + 1);
        let next = Arc::unwrap_or_clone(next);
        if let Some((_, chunk)) = self.chunks.get_mut(at) {
            let chunk = Arc::make_mut(chunk);
            chunk.names.extend(next.names);
            chunk.records.extend(next.records);
        }
    }
}

impl<K, V> Chunk<K, V> {
    fn of_one(name: K, record: V) -> Self {
        Self { names: vec![name], records: vec![record] }
    }

    fn len(&self) -> usize {
        self.names.len()
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self { names: self.names.split_off(at), records: self.records.split_off(at) }
    }
}

impl<K: Copy + Ord, V: Clone + Digest<K> + PartialEq> PartialEq for RecordMap<K, V> {
    /// By the records: how they are cut into pieces depends on the way there.
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Copy + Ord, V: Clone + Digest<K> + Eq> Eq for RecordMap<K, V> {}

impl<K: Copy + Ord + fmt::Debug, V: Clone + Digest<K> + fmt::Debug> fmt::Debug for RecordMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// All records in the order of their names.
#[derive(Debug)]
pub(crate) struct Records<'a, K, V> {
    chunks: std::slice::Iter<'a, (K, Arc<Chunk<K, V>>)>,
    names: std::slice::Iter<'a, K>,
    records: std::slice::Iter<'a, V>,
    left: usize,
}

impl<'a, K: Copy, V> Iterator for Records<'a, K, V> {
    type Item = (K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let (Some(name), Some(record)) = (self.names.next(), self.records.next()) {
                self.left = self.left.saturating_sub(1);
                return Some((*name, record));
            }
            let (_, chunk) = self.chunks.next()?;
            self.names = chunk.names.iter();
            self.records = chunk.records.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K: Copy, V> ExactSizeIterator for Records<'_, K, V> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Digest<u16> for u32 {
        fn digest(&self, name: u16) -> u64 {
            crate::digest::Mixer::new(u64::from(name)).word(u64::from(*self)).end()
        }
    }

    fn same(map: &RecordMap<u16, u32>, model: &BTreeMap<u16, u32>) -> Result<(), TestCaseError> {
        prop_assert_eq!(map.len(), model.len());
        prop_assert!(map.iter().eq(model.iter().map(|(name, record)| (*name, record))));
        prop_assert_eq!(map.digest(), map.recomputed());
        let pieces = map.chunks.len();
        prop_assert!(pieces <= 1 + map.len() * 4 / CHUNK_MAX + 1, "{} pieces", pieces);
        for (first, chunk) in &map.chunks {
            prop_assert_eq!(chunk.names.first(), Some(first));
            prop_assert!(chunk.len() <= CHUNK_MAX);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_and_its_clones_keep_what_they_saw(
            steps in prop::collection::vec((0u8..8, any::<u16>(), any::<u32>()), 0..2_000),
            narrow in any::<bool>(),
        ) {
            let (mut map, mut model) = (RecordMap::default(), BTreeMap::new());
            let mut kept = Vec::new();
            for (step, name, record) in steps {
                let name = if narrow { name % 700 } else { name };
                match step {
                    0..4 => prop_assert_eq!(map.insert(name, record), model.insert(name, record)),
                    4 => prop_assert_eq!(map.remove(name), model.remove(&name)),
                    5 => {
                        let taken: Vec<u16> = model.range(name..).take(40).map(|(n, _)| *n).collect();
                        for name in taken {
                            prop_assert_eq!(map.remove(name), model.remove(&name));
                        }
                    }
                    6 => {
                        let changed = map.update(name, |present| *present = record);
                        prop_assert_eq!(changed.is_some(), model.contains_key(&name));
                        model.entry(name).and_modify(|present| *present = record);
                    }
                    _ if record % 16 == 0 => kept.push((map.clone(), model.clone())),
                    _ => {
                        map.update_all(|present| *present ^= record);
                        model.values_mut().for_each(|present| *present ^= record);
                    }
                }
                prop_assert_eq!(map.get(name), model.get(&name));
                prop_assert_eq!(map.contains_key(name), model.contains_key(&name));
            }
            same(&map, &model)?;
            for (map, model) in &kept {
                same(map, model)?;
            }
            let rebuilt = model.iter().rev().fold(RecordMap::default(), |mut map, (name, record)| {
                map.insert(*name, *record);
                map
            });
            prop_assert_eq!(&rebuilt, &map, "however it was reached");
        }
    }
}
