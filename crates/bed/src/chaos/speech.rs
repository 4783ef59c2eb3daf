//! Who speaks for the cluster's addresses, and whether two ever do at once. Pure: frames in,
//! findings out.
//!
//! A member speaks when it sends as the common address on the outside wire (IKE, ESP, ICMP, ARP),
//! or as the inside address or with an inner source address on the inside wire.
//!
//! ```text
//!   A  a||||||      |             a: announcement (gratuitous ARP, on either wire)
//!   B          a||||||||||        the late frame of A has no announcement of A before it
//! ```
//!
//! An owner announces itself first, so from an announcement until another member's nobody else may
//! speak. A worker checks the lease once a burst: a process that is stopped or crowded out in the
//! middle of one sends its rest when it runs again, at most one burst, back to back; their sequence
//! numbers are its own. So a member's late frames within one ownership of another are a *residual*
//! when they are no more than a burst and come within a moment; anything else is two owners at
//! once.

use crate::capture::read_frames;
use crate::error::BedError;
use crate::frame::{Frame, parse_ethernet};
use crate::time::Wall;
use crate::topology::{COMMON, INSIDE};
use crate::wire::{Sender, Tap};
use std::collections::BTreeMap;

/// Frames of one burst of a worker on each of its two sides.
const BURST_FRAMES: usize = 2 * 64;
/// A burst leaves within this time.
const BURST_MS: f64 = 2.0;

/// What was found about owners.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Owners {
    /// Changes of the speaking member.
    pub changes: u64,
    /// Time during which two members spoke, residuals left out.
    pub owners_at_once_ms: f64,
    /// Late frames that were the rest of a burst.
    pub residual_frames: u64,
    /// The latest of them, after the owner's announcement.
    pub residual_latest_ms: f64,
}

/// A frame in which a member spoke for the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Spoken {
    at: Wall,
    member: u8,
    announces: bool,
}

/// Every frame in which a member spoke for the cluster.
#[derive(Debug, Default)]
pub struct Speech {
    spoken: Vec<Spoken>,
}

impl Speech {
    /// Reads what the members sent on the outside and on the inside wire.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(outside: &[Tap], inside: &[Tap]) -> Result<Self, BedError> {
        let mut speech = Self::default();
        let sides =
            [(outside, speaks_outside as fn(&Frame) -> Option<bool>), (inside, speaks_inside)];
        for (taps, speaks) in sides {
            for tap in taps {
                let Sender::Member(member) = tap.sender else { continue };
                read_frames(&tap.file.path, |at, frame| {
                    if let Some(announces) = parse_ethernet(frame).and_then(|f| speaks(&f)) {
                        speech.note(at, member, announces);
                    }
                })?;
            }
        }
        Ok(speech)
    }

    /// Notes a frame of a member.
    pub fn note(&mut self, at: Wall, member: u8, announces: bool) {
        self.spoken.push(Spoken { at, member, announces });
    }

    /// Looks at every ownership.
    pub fn owners(&mut self) -> Owners {
        self.spoken.sort();
        let mut found = Owners::default();
        let mut present: Option<Ownership> = None;
        for frame in &self.spoken {
            match &mut present {
                Some(ownership) if ownership.member == frame.member => {}
                Some(ownership) if !frame.announces => {
                    ownership.late.entry(frame.member).or_default().push(frame.at);
                }
                _ if frame.announces => {
                    found.changes += u64::from(present.is_some());
                    if let Some(ended) = present.replace(Ownership::of(frame)) {
                        ended.judge(&mut found);
                    }
                }
                _ => {}
            }
        }
        if let Some(last) = present {
            last.judge(&mut found);
        }
        found
    }
}

/// From a member's announcement until another's.
struct Ownership {
    member: u8,
    begin: Wall,
    /// Frames of other members meanwhile.
    late: BTreeMap<u8, Vec<Wall>>,
}

impl Ownership {
    fn of(frame: &Spoken) -> Self {
        Self { member: frame.member, begin: frame.at, late: BTreeMap::new() }
    }

    fn judge(&self, found: &mut Owners) {
        for late in self.late.values() {
            let (Some(&first), Some(&last)) = (late.first(), late.last()) else { continue };
            if late.len() <= BURST_FRAMES && last.ms_since(first) <= BURST_MS {
                found.residual_frames += late.len() as u64;
                found.residual_latest_ms = found.residual_latest_ms.max(last.ms_since(self.begin));
            } else {
                found.owners_at_once_ms += last.ms_since(self.begin);
            }
        }
    }
}

/// Whether a frame on the outside wire speaks for the cluster, and whether it announces.
fn speaks_outside(frame: &Frame) -> Option<bool> {
    match frame {
        Frame::Arp(arp) => (arp.sender == COMMON).then(|| arp.announces(COMMON)),
        Frame::Ipv4(packet) => (packet.source == COMMON).then_some(false),
        Frame::Other => None,
    }
}

/// The same on the inside wire.
fn speaks_inside(frame: &Frame) -> Option<bool> {
    match frame {
        Frame::Arp(arp) => (arp.sender == INSIDE).then(|| arp.announces(INSIDE)),
        Frame::Ipv4(packet) => {
            let inner = packet.source.octets().starts_with(&[10, 77]);
            (inner || packet.source == INSIDE).then_some(false)
        }
        Frame::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame a millisecond of each member in its range, the first an announcement.
    fn speech(owners: &[(std::ops::Range<u64>, u8)], late: &[(u64, u8)]) -> Owners {
        let mut speech = Speech::default();
        let at = |ms| Wall::default().plus_ms(ms);
        for (range, member) in owners {
            range.clone().for_each(|ms| speech.note(at(ms), *member, ms == range.start));
        }
        late.iter().for_each(|&(ms, member)| speech.note(at(ms), member, false));
        speech.owners()
    }

    #[test]
    fn owners_one_after_the_other_never_overlap() {
        let owners = speech(&[(0..100, 1), (150..152, 2), (200..300, 1)], &[]);
        assert_eq!((owners.changes, owners.owners_at_once_ms, owners.residual_frames), (2, 0.0, 0));
    }

    #[test]
    fn two_who_both_announce_and_speak_are_two_at_once() {
        let owners = speech(&[(0..100, 1), (50..200, 2)], &[]);
        assert_eq!((owners.owners_at_once_ms, owners.residual_frames), (49.0, 0));
    }

    #[test]
    fn a_zombie_that_goes_on_speaking_is_found() {
        let zombie: Vec<_> = (500..540).map(|ms| (ms, 1)).collect();
        let owners = speech(&[(0..100, 1), (150..1000, 2)], &zombie);
        assert_eq!(owners.owners_at_once_ms, 389.0);
    }

    #[test]
    fn the_rest_of_one_burst_is_a_residual() {
        let owners = speech(&[(0..100, 1), (150..1000, 2)], &[(500, 1); 10]);
        assert_eq!((owners.owners_at_once_ms, owners.residual_frames), (0.0, 10));
        assert_eq!(owners.residual_latest_ms, 350.0);
    }

    #[test]
    fn two_bursts_are_not_one() {
        let owners = speech(&[(0..100, 1), (150..1000, 2)], &[(300, 1), (600, 1)]);
        assert_eq!(owners.owners_at_once_ms, 450.0);
    }
}
