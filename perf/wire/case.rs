//! What is measured: a direction and a load, and the packets of it.

use crate::support::frames::{Frames, Load, Size};
use crate::support::setup::Direction;
use holdfast_crypto::AeadAlgorithm;
use holdfast_packet::ethernet;
use std::fmt;

/// Packets of a replay. Small ones stay in the second level cache. A multiple of a burst, so that a burst
/// ends where the replay does, and of the packets after which the sizes of IMIX repeat.
pub(crate) const PACKETS: usize = 1920;
const WINDOW: u32 = 1024;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) direction: Direction,
    pub(crate) load: Load,
}

impl Case {
    /// Both directions, both key sizes, all sizes, with one SA.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for direction in [Direction::Encrypt, Direction::Decrypt] {
            for algorithm in [AeadAlgorithm::Aes128Gcm16, AeadAlgorithm::Aes256Gcm16] {
                for size in [Size::Octets(64), Size::Octets(1420), Size::Imix] {
                    let load = Load { algorithm, size, sas: 1, flows: 1, window_packets: WINDOW };
                    all.push(Self { direction, load });
                }
            }
        }
        all
    }

    /// The case of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|case| case.to_string() == name)
    }

    /// The frames to receive.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let frames = match self.direction {
            Direction::Encrypt => Frames::plain(&self.load),
            Direction::Decrypt => Frames::esp(&self.load, PACKETS, true),
        };
        (0..PACKETS).map(|n| frames.get(n % frames.len()).to_vec()).collect()
    }

    /// The inner packets of [`Self::frames`].
    pub(crate) fn inner_packets(&self) -> Vec<Vec<u8>> {
        match self.direction {
            Direction::Encrypt => {
                let behind = |frame: Vec<u8>| frame.get(ethernet::HEADER_LEN..).map(<[u8]>::to_vec);
                self.frames().into_iter().filter_map(behind).collect()
            }
            Direction::Decrypt => (0..PACKETS).map(|n| self.load.peer_packet(n)).collect(),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Load { algorithm, size, sas, .. } = self.load;
        write!(f, "{}/{}/{size}/{sas}", self.direction.name(), algorithm.name())
    }
}
