//! The first message of a connection: who speaks to whom, and for what.

use holdfast_replica::Lane;

const MAGIC: [u8; 4] = *b"HFT1";
/// Magic, sender, receiver, lane.
pub(super) const GREETING_BYTES: usize = 21;

/// The first message of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) lane: Lane,
}

impl Greeting {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.from.to_be_bytes());
        bytes.extend_from_slice(&self.to.to_be_bytes());
        bytes.push(match self.lane {
            Lane::Heartbeat => 0,
            Lane::Append => 1,
            Lane::Snapshot => 2,
        });
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (to, rest) = rest.split_first_chunk()?;
        let lane = match rest {
            [0] => Lane::Heartbeat,
            [1] => Lane::Append,
            [2] => Lane::Snapshot,
            _ => return None,
        };
        let (from, to) = (u64::from_be_bytes(*from), u64::from_be_bytes(*to));
        (*magic == MAGIC).then_some(Self { from, to, lane })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_survives_and_nothing_else_is_one() {
        let greeting = Greeting { from: 3, to: 1, lane: Lane::Append };
        let bytes = greeting.encode();
        assert_eq!(bytes.len(), GREETING_BYTES);
        assert_eq!(Greeting::decode(&bytes), Some(greeting));
        for length in 0..bytes.len() {
            assert_eq!(Greeting::decode(&bytes[..length]), None);
        }
        assert_eq!(Greeting::decode(&[bytes.clone(), vec![0]].concat()), None);
        assert_eq!(Greeting::decode(&[b"HFT2", &bytes[4..]].concat()), None);
    }
}
