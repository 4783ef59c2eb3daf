//! SPI to whatever belongs to it, without allocation after construction.

use holdfast_ipsec::Spi;

/// Open addressing with linear probing; a removal closes its gap, so there are no tombstones.
///
/// The controller chooses the SPIs, hence nobody outside can choose colliding ones.
#[derive(Debug)]
pub(crate) struct SpiTable<T> {
    slots: Vec<Option<(Spi, T)>>,
    len: usize,
}

impl<T> SpiTable<T> {
    /// A table for up to `entries`, at most three quarters full then.
    pub(crate) fn new(entries: usize) -> Self {
        let size = (entries.saturating_mul(4) / 3 + 1).next_power_of_two();
        Self { slots: (0..size).map(|_| None).collect(), len: 0 }
    }

    pub(crate) fn get(&self, spi: Spi) -> Option<&T> {
        let at = self.find(spi).ok()?;
        self.slots.get(at)?.as_ref().map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, spi: Spi) -> Option<&mut T> {
        let at = self.find(spi).ok()?;
        self.slots.get_mut(at)?.as_mut().map(|(_, value)| value)
    }

    /// Puts `value` under `spi`. Gives back what was there before, or `value` itself when the
    /// table is full.
    pub(crate) fn insert(&mut self, spi: Spi, value: T) -> Result<Option<T>, T> {
        match self.find(spi) {
            Ok(at) => Ok(self.put(at, spi, value)),
            Err(_) if self.len >= self.slots.len() / 4 * 3 => Err(value),
            Err(at) => {
                self.len += 1;
                Ok(self.put(at, spi, value))
            }
        }
    }

    pub(crate) fn remove(&mut self, spi: Spi) -> Option<T> {
        let mut gap = self.find(spi).ok()?;
        let (_, removed) = self.slots.get_mut(gap)?.take()?;
        self.len -= 1;
        let mask = self.mask();
        let mut at = (gap + 1) & mask;
        while let Some(home) = self.home_of(at) {
            // An entry may move back into the gap when its home does not lie behind the gap.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.slots.swap(gap, at);
                gap = at;
            }
            at = (at + 1) & mask;
        }
        Some(removed)
    }

    /// Takes some entry out, for emptying the table piece by piece: starting with a cursor of 0 and
    /// calling until `None`, each slot is looked at once. A removal only moves entries from behind
    /// the cursor forward, so none is missed.
    pub(crate) fn pop_from(&mut self, cursor: &mut usize) -> Option<T> {
        if self.len == 0 {
            // Looking through all slots of an empty table takes milliseconds.
            *cursor = self.slots.len();
        }
        loop {
            match self.slots.get(*cursor)? {
                Some((spi, _)) => return self.remove(*spi),
                None => *cursor += 1,
            }
        }
    }

    /// How many slots there are, full or not.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// What is in a slot.
    pub(crate) fn at(&self, slot: usize) -> Option<(Spi, &T)> {
        self.slots.get(slot)?.as_ref().map(|(spi, value)| (*spi, value))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Spi, &T)> {
        self.slots.iter().flatten().map(|(spi, value)| (*spi, value))
    }

    fn put(&mut self, at: usize, spi: Spi, value: T) -> Option<T> {
        let slot = self.slots.get_mut(at)?;
        slot.replace((spi, value)).map(|(_, old)| old)
    }

    /// The slot of `spi`, or the free slot where it would go. A free slot always exists.
    fn find(&self, spi: Spi) -> Result<usize, usize> {
        let mut at = self.home(spi);
        loop {
            match self.slots.get(at) {
                Some(Some((found, _))) if *found == spi => return Ok(at),
                Some(Some(_)) => at = (at + 1) & self.mask(),
                _ => return Err(at),
            }
        }
    }

    fn home_of(&self, at: usize) -> Option<usize> {
        self.slots.get(at)?.as_ref().map(|(spi, _)| self.home(*spi))
    }

    /// Fibonacci hashing (Knuth, volume 3, 6.4): SPIs of one worker share their low bits.
    fn home(&self, spi: Spi) -> usize {
        let spread = u64::from(spi.get()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread as usize & self.mask()
    }

    fn mask(&self) -> usize {
        self.slots.len() - 1
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
        let mut table = SpiTable::new(3);
        let mut taken = 0;
        while table.insert(spi(1000 + taken), taken).is_ok() {
            taken += 1;
        }
        assert!(taken >= 3);
        assert_eq!(table.insert(spi(1000), 99), Ok(Some(0)), "replacing needs no room");
        assert_eq!(table.insert(spi(5000), 7), Err(7));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((0u8..3, 256u32..300, any::<u16>()), 0..300)) {
            let mut table = SpiTable::new(64);
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
