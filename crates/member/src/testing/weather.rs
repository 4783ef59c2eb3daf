//! How badly a network carries.

use super::random::Random;

/// The three networks of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// Between the members.
    Management,
    /// To the peers.
    Outside,
    /// To the targets.
    Inside,
}

/// What chance does to each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Packets lost of thousand.
    pub loss_per_mille: u64,
    /// Packets that arrive twice of thousand.
    pub duplicate_per_mille: u64,
    /// Packets that arrive with one bit flipped of thousand. The management network is TLS over
    /// TCP, which refuses such a record and ends the connection: there both ends lose each other.
    pub corrupt_per_mille: u64,
    /// What chance adds to the way at most; packets overtake each other within it.
    pub jitter_us: u64,
}

/// What becomes of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lost,
    Corrupt,
    Carried { twice: bool },
}

impl Weather {
    pub(crate) fn fate(&self, random: &mut Random) -> Fate {
        let calm = self.loss_per_mille | self.duplicate_per_mille | self.corrupt_per_mille == 0;
        if calm {
            Fate::Carried { twice: false }
        } else if random.chance(self.loss_per_mille) {
            Fate::Lost
        } else if random.chance(self.corrupt_per_mille) {
            Fate::Corrupt
        } else {
            Fate::Carried { twice: random.chance(self.duplicate_per_mille) }
        }
    }

    pub(crate) fn delay_us(&self, random: &mut Random) -> u64 {
        if self.jitter_us == 0 { 0 } else { random.below(self.jitter_us.saturating_add(1)) }
    }
}
