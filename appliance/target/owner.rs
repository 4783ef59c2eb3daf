//! What a target knows of the owner: pure, and the only place that believes a notice or refuses it.

use holdfast_cluster::{Epoch, Incarnation, MemberId, Owner};
use holdfast_datapath::MarkKey;
use holdfast_packet::MacAddr;
use std::net::Ipv4Addr;

/// A notice as it arrived, checked for its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The owner with its epoch.
    pub owner: Owner,
    /// The address it speaks for.
    pub common: Ipv4Addr,
    /// The address replies go through.
    pub inside: Ipv4Addr,
    /// The station that has the inside address.
    pub inside_mac: MacAddr,
    /// Under which packets are marked in this epoch.
    pub key: Option<MarkKey>,
}

impl Notice {
    /// Reads a message; `None` when it is not one, of another major version, or not about the
    /// member that sent it: nobody tells of an ownership but the owner.
    pub(crate) fn read(from: u64, message: &crate::notice::ToTarget) -> Option<Self> {
        let mac: [u8; 6] = message.inside_mac.as_slice().try_into().ok()?;
        let key = match message.key.as_slice() {
            [] => None,
            key => Some(MarkKey::new(key)?),
        };
        let right = message.version_major == crate::notice::VERSION_MAJOR && message.member == from;
        right.then_some(Self {
            owner: Owner {
                member: MemberId(message.member),
                incarnation: Incarnation(message.incarnation),
                epoch: Epoch(message.epoch),
            },
            common: Ipv4Addr::from_bits(message.common),
            inside: Ipv4Addr::from_bits(message.inside),
            inside_mac: MacAddr(mac),
            key,
        })
    }
}

/// What became of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A new owner: follow it, then acknowledge.
    New,
    /// Known already: acknowledge again, for the first acknowledgement may be lost.
    Known,
    /// Not the latest: refuse, and tell the sender what is.
    Stale {
        /// The latest epoch.
        known: Epoch,
    },
}

/// The latest owner.
#[derive(Debug, Default)]
pub struct OwnerBook {
    latest: Option<Notice>,
    since_unix_ms: u64,
    acknowledged: u64,
    refused_stale: u64,
}

impl OwnerBook {
    /// Judges a notice and remembers it if it is the latest.
    ///
    /// An epoch has one owner, whatever happens; a second one under the same number comes from a
    /// cluster that was made anew or from a liar, and is refused like an old one.
    pub fn hear(&mut self, notice: Notice, now_unix_ms: u64) -> Verdict {
        let verdict = match &self.latest {
            Some(latest) if notice.owner.epoch < latest.owner.epoch => {
                Verdict::Stale { known: latest.owner.epoch }
            }
            Some(latest) if notice.owner.epoch == latest.owner.epoch => {
                if notice == *latest {
                    Verdict::Known
                } else if notice.owner == latest.owner {
                    Verdict::New
                } else {
                    Verdict::Stale { known: latest.owner.epoch }
                }
            }
            _ => Verdict::New,
        };
        match verdict {
            Verdict::New => {
                let same = self.latest.as_ref().is_some_and(|latest| latest.owner == notice.owner);
                if !same {
                    self.since_unix_ms = now_unix_ms;
                }
                self.latest = Some(notice);
            }
            Verdict::Known => {}
            Verdict::Stale { .. } => self.refused_stale = self.refused_stale.saturating_add(1),
        }
        verdict
    }

    /// An acknowledgement was sent.
    pub const fn acknowledged(&mut self) {
        self.acknowledged = self.acknowledged.saturating_add(1);
    }

    /// The latest notice.
    #[must_use]
    pub const fn latest(&self) -> Option<&Notice> {
        self.latest.as_ref()
    }

    /// When the latest owner was first heard of, Unix milliseconds.
    #[must_use]
    pub const fn since_unix_ms(&self) -> u64 {
        self.since_unix_ms
    }

    /// Acknowledgements sent, and stale notices refused.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.acknowledged, self.refused_stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::{ToTarget, VERSION_MAJOR};

    fn notice(member: u64, epoch: u64) -> Notice {
        Notice {
            owner: Owner {
                member: MemberId(member),
                incarnation: Incarnation(1),
                epoch: Epoch(epoch),
            },
            common: Ipv4Addr::new(198, 51, 100, 100),
            inside: Ipv4Addr::new(192, 0, 2, 100),
            inside_mac: MacAddr([2, 0, 0, 0, 0, member as u8]),
            key: None,
        }
    }

    #[test]
    fn of_two_takeovers_in_any_order_the_later_one_stands() {
        for order in [[2, 3], [3, 2]] {
            let mut book = OwnerBook::default();
            assert_eq!(book.hear(notice(1, 1), 10), Verdict::New);
            for epoch in order {
                book.hear(notice(epoch, epoch), 20);
            }
            assert_eq!(book.latest(), Some(&notice(3, 3)));
            assert_eq!(book.counts().1, u64::from(order == [3, 2]));
        }
    }

    #[test]
    fn a_revived_owner_is_refused_and_told_the_latest_epoch() {
        let mut book = OwnerBook::default();
        book.hear(notice(2, 7), 10);
        assert_eq!(book.hear(notice(1, 6), 20), Verdict::Stale { known: Epoch(7) });
        assert_eq!(book.hear(notice(1, 7), 20), Verdict::Stale { known: Epoch(7) });
        assert_eq!(book.latest(), Some(&notice(2, 7)));
        assert_eq!((book.counts(), book.since_unix_ms()), ((0, 2), 10));
    }

    #[test]
    fn a_repeated_notice_is_known_and_a_key_that_came_later_is_taken() {
        let mut book = OwnerBook::default();
        assert_eq!(book.hear(notice(2, 7), 10), Verdict::New);
        assert_eq!(book.hear(notice(2, 7), 20), Verdict::Known);
        let with_key = Notice { key: MarkKey::new(&[1; 16]), ..notice(2, 7) };
        assert_eq!(book.hear(with_key.clone(), 30), Verdict::New);
        assert_eq!((book.latest(), book.since_unix_ms()), (Some(&with_key), 10));
    }

    #[test]
    fn a_member_can_tell_of_its_own_ownership_only() {
        let message = |member, version_major, mac: &[u8], key: &[u8]| ToTarget {
            version_major,
            member,
            incarnation: 1,
            epoch: 9,
            common: 1,
            inside: 2,
            inside_mac: mac.to_vec(),
            key: key.to_vec(),
        };
        let read = |message: ToTarget| Notice::read(2, &message).is_some();
        assert!(read(message(2, VERSION_MAJOR, &[0; 6], &[])));
        assert!(read(message(2, VERSION_MAJOR, &[0; 6], &[1; 16])));
        assert!(!read(message(3, VERSION_MAJOR, &[0; 6], &[])));
        assert!(!read(message(2, VERSION_MAJOR + 1, &[0; 6], &[])));
        assert!(!read(message(2, VERSION_MAJOR, &[0; 5], &[])));
        assert!(!read(message(2, VERSION_MAJOR, &[0; 6], &[1; 15])));
    }
}
