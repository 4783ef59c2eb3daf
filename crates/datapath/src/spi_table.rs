//! SPI to whatever belongs to it, without allocation after construction.

use holdfast_ipsec::Spi;

/// Where a value lies. It stays there until it is removed, so that a burst looks each SPI up once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

/// One place of the index; the SPI 0, which no SA has, for a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    spi: u32,
    place: Place,
}

const FREE: Slot = Slot { spi: 0, place: Place(u32::MAX) };

/// A mask over the SPI gives its place in an index of eight slots a cache line, at most half full,
/// with linear probing; the index names the value's place. A removal closes its gap, so there are
/// no tombstones.
///
/// The controller chooses the SPIs, hence nobody outside can choose colliding ones.
#[derive(Debug)]
pub(crate) struct SpiTable<T> {
    index: Vec<Slot>,
    values: Vec<Option<T>>,
    /// Whose the values are; apart from them, so that a value fills its cache lines.
    spis: Vec<Option<Spi>>,
    free: Vec<Place>,
    /// Low bits that all SPIs here have in common: they name the worker.
    worker_bits: u32,
}

impl<T> SpiTable<T> {
    /// A table for `entries` whose SPIs have `worker_bits` low bits in common.
    pub(crate) fn new(entries: usize, worker_bits: u32) -> Self {
        let entries = u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
        let size = (entries as usize).saturating_mul(2).next_power_of_two();
        Self {
            index: vec![FREE; size],
            values: (0..entries).map(|_| None).collect(),
            spis: vec![None; entries as usize],
            free: (0..entries).rev().map(Place).collect(),
            worker_bits,
        }
    }

    /// Where the value of an SPI lies.
    #[inline]
    pub(crate) fn find(&self, spi: u32) -> Option<Place> {
        let at = self.slot_of(spi).ok()?;
        self.index.get(at).map(|slot| slot.place)
    }

    #[inline]
    pub(crate) fn at(&self, place: Place) -> Option<&T> {
        self.values.get(place.0 as usize)?.as_ref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, place: Place) -> Option<&mut T> {
        self.values.get_mut(place.0 as usize)?.as_mut()
    }

    pub(crate) fn get(&self, spi: Spi) -> Option<&T> {
        self.at(self.find(spi.get())?)
    }

    pub(crate) fn get_mut(&mut self, spi: Spi) -> Option<&mut T> {
        self.at_mut(self.find(spi.get())?)
    }

    /// Puts `value` under `spi`. Gives back what was there before, or `value` itself when the
    /// table is full.
    pub(crate) fn insert(&mut self, spi: Spi, value: T) -> Result<Option<T>, T> {
        match self.slot_of(spi.get()) {
            Ok(at) => {
                let place = self.index.get(at).map(|slot| slot.place);
                let old = place.and_then(|place| self.values.get_mut(place.0 as usize));
                Ok(old.and_then(|old| old.replace(value)))
            }
            Err(at) => {
                let Some(place) = self.free.pop() else { return Err(value) };
                if let Some(slot) = self.index.get_mut(at) {
                    *slot = Slot { spi: spi.get(), place };
                }
                if let Some(owner) = self.spis.get_mut(place.0 as usize) {
                    *owner = Some(spi);
                }
                if let Some(free) = self.values.get_mut(place.0 as usize) {
                    *free = Some(value);
                }
                Ok(None)
            }
        }
    }

    pub(crate) fn remove(&mut self, spi: Spi) -> Option<T> {
        let gap = self.slot_of(spi.get()).ok()?;
        let place = self.index.get(gap)?.place;
        self.close(gap);
        self.free.push(place);
        *self.spis.get_mut(place.0 as usize)? = None;
        self.values.get_mut(place.0 as usize)?.take()
    }

    /// Takes some entry out, for emptying the table piece by piece: starting with a cursor of 0 and
    /// calling until `None`, each place is looked at once.
    pub(crate) fn pop_from(&mut self, cursor: &mut usize) -> Option<T> {
        if self.free.len() == self.values.len() {
            // Looking through all places of an empty table takes milliseconds.
            *cursor = self.values.len();
        }
        loop {
            match *self.spis.get(*cursor)? {
                Some(spi) => return self.remove(spi),
                None => *cursor += 1,
            }
        }
    }

    /// How many places there are, taken or not.
    pub(crate) fn places(&self) -> usize {
        self.values.len()
    }

    /// What is in a place.
    pub(crate) fn entry(&self, place: usize) -> Option<(Spi, &T)> {
        // Values are looked at only where there is one: those of all places are megabytes.
        let spi = (*self.spis.get(place)?)?;
        Some((spi, self.values.get(place)?.as_ref()?))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Spi, &T)> {
        let entries = self.spis.iter().zip(&self.values);
        entries.filter_map(|(spi, value)| Some(((*spi)?, value.as_ref()?)))
    }

    /// Frees a slot and moves those behind it up.
    fn close(&mut self, mut gap: usize) {
        let mask = self.mask();
        let mut at = (gap + 1) & mask;
        while let Some(slot) = self.index.get(at).copied().filter(|slot| *slot != FREE) {
            // An entry may move back into the gap when its home does not lie behind the gap.
            if at.wrapping_sub(self.home(slot.spi)) & mask >= at.wrapping_sub(gap) & mask {
                self.index.swap(gap, at);
                gap = at;
            }
            at = (at + 1) & mask;
        }
        if let Some(slot) = self.index.get_mut(gap) {
            *slot = FREE;
        }
    }

    /// The slot of `spi`, or the free slot where it would go. A free slot always exists. A number
    /// that is no SPI has none.
    #[inline]
    fn slot_of(&self, spi: u32) -> Result<usize, usize> {
        let mut at = self.home(spi);
        loop {
            match self.index.get(at) {
                Some(slot) if slot.spi == spi && spi != FREE.spi => return Ok(at),
                Some(slot) if slot.spi != FREE.spi => at = (at + 1) & self.mask(),
                _ => return Err(at),
            }
        }
    }

    #[inline]
    fn home(&self, spi: u32) -> usize {
        spi.checked_shr(self.worker_bits).unwrap_or(0) as usize & self.mask()
    }

    #[inline]
    fn mask(&self) -> usize {
        self.index.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn spi(n: u32) -> Spi {
        Spi::new(n).unwrap()
    }

    #[test]
    fn a_full_table_gives_the_value_back() {
        let mut table = SpiTable::new(3, 0);
        let mut taken = 0;
        while table.insert(spi(1000 + taken), taken).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 3);
        assert_eq!(table.insert(spi(1000), 99), Ok(Some(0)), "replacing needs no room");
        assert_eq!(table.insert(spi(5000), 7), Err(7));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((0u8..3, 256u32..300, any::<u16>()), 0..300)) {
            let mut table = SpiTable::new(64, 2);
            let mut model = BTreeMap::new();
            for (op, key, value) in ops {
                match op {
                    0 | 1 => prop_assert_eq!(table.insert(spi(key), value), Ok(model.insert(key, value))),
                    _ => prop_assert_eq!(table.remove(spi(key)), model.remove(&key)),
                }
                prop_assert_eq!(table.iter().count(), model.len());
            }
            for key in 256..300 {
                prop_assert_eq!(table.get(spi(key)), model.get(&key));
            }
            let mut drained = Vec::new();
            let mut cursor = 0;
            while let Some(value) = table.pop_from(&mut cursor) { drained.push(value); }
            prop_assert_eq!(drained.len(), model.len());
        }
    }
}
