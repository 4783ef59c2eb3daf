//! Station addresses of one network: learnt from ARP, kept warm by asking, needed to send.
//!
//! ```text
//!   want(address) ---> due? ---> question (ARP) ---> heard(address, mac) ---> known
//!                        ^                               |
//!                        '--- interval, or sooner while unanswered
//! ```
//!
//! A standby asks too, with the unspecified address as sender (RFC 5227 section 2.1.1), which
//! claims nothing: so when it takes over it can send at once.

use crate::limits;
use holdfast_packet::{MacAddr, Nanos, ethernet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

/// Why an address is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Interest {
    /// It spoke to us: kept while there is room, never asked for.
    Passive,
    /// A worker has a packet for it: asked for until known.
    Wanted,
    /// The next hop of a peer: asked for regularly.
    NextHop,
    /// A target: asked for often, and down when it does not answer.
    Target,
}

/// What hearing of an address changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing.
    Known,
    /// The station address is new or another one.
    Changed,
    /// It answers again after it was taken for down.
    Back,
    /// Nobody here needs it.
    Ignored,
}

#[derive(Debug, Clone)]
struct Entry {
    mac: Option<MacAddr>,
    interest: Interest,
    /// Questions since it was last heard of.
    unanswered: u32,
    due: Nanos,
    heard: Nanos,
    /// Frames that wait for the station address, with the moment each is given up.
    held: VecDeque<(Nanos, Vec<u8>)>,
}

impl Entry {
    fn is_down(&self) -> bool {
        self.mac.is_none() || self.unanswered > limits::UNANSWERED_MAX
    }
}

/// The neighbours in one network.
#[derive(Debug, Clone)]
pub(crate) struct Neighbours {
    entries: BTreeMap<Ipv4Addr, Entry>,
    /// Every address with a question to come, by its moment.
    due: BTreeSet<(Nanos, Ipv4Addr)>,
    held: usize,
    next_round: Nanos,
    target_check_ms: u64,
}

impl Neighbours {
    /// Nobody known yet.
    pub(crate) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            held: 0,
            next_round: Nanos::ZERO,
            target_check_ms: limits::TARGET_CHECK_STANDBY_MS,
        }
    }

    /// Checks targets at the owner's pace or at a standby's. When the pace becomes the owner's,
    /// unknown and doubtful addresses are asked for at once.
    pub(crate) fn set_pace(&mut self, now: Nanos, owner: bool) {
        self.target_check_ms =
            if owner { limits::TARGET_CHECK_MS } else { limits::TARGET_CHECK_STANDBY_MS };
        if !owner {
            return;
        }
        let latest = now.plus_ms(self.target_check_ms);
        let wanted = |entry: &Entry| match entry.interest {
            Interest::Passive => None,
            _ if entry.mac.is_none() || entry.unanswered > 0 => Some(now),
            Interest::Target => Some(latest),
            Interest::Wanted | Interest::NextHop => None,
        };
        let sooner: Vec<(Ipv4Addr, Nanos)> = self
            .entries
            .iter()
            .filter_map(|(address, entry)| Some((*address, wanted(entry)?, entry.due)))
            .filter(|(_, due, planned)| due < planned)
            .map(|(address, due, _)| (address, due))
            .collect();
        for (address, due) in sooner {
            self.reschedule(address, due);
        }
    }

    /// Someone needs `address` from now on; a lesser interest than known changes nothing.
    pub(crate) fn want(&mut self, now: Nanos, address: Ipv4Addr, interest: Interest) {
        if !self.entries.contains_key(&address) && !self.make_room() {
            return;
        }
        let entry = self.entries.entry(address).or_insert_with(|| Entry {
            mac: None,
            interest: Interest::Passive,
            unanswered: 0,
            due: Nanos::MAX,
            heard: now,
            held: VecDeque::new(),
        });
        let unscheduled = entry.due == Nanos::MAX;
        entry.interest = entry.interest.max(interest);
        if unscheduled
            && interest > Interest::Passive
            && (entry.mac.is_none() || interest > Interest::Wanted)
        {
            self.reschedule(address, now);
        }
    }

    /// `address` is at `mac`. Addresses nobody wants are taken only when `create` says so.
    pub(crate) fn heard(
        &mut self,
        now: Nanos,
        address: Ipv4Addr,
        mac: MacAddr,
        create: bool,
    ) -> Heard {
        if mac.is_group() || mac == MacAddr::ZERO || address.is_unspecified() {
            return Heard::Ignored;
        }
        if !self.entries.contains_key(&address) {
            if !create || !self.make_room() {
                return Heard::Ignored;
            }
            self.want(now, address, Interest::Passive);
        }
        let interval_ms = self.target_check_ms;
        let Some(entry) = self.entries.get_mut(&address) else { return Heard::Ignored };
        let was_down = entry.is_down();
        let changed = entry.mac != Some(mac);
        entry.mac = Some(mac);
        entry.unanswered = 0;
        entry.heard = now;
        let next = match entry.interest {
            Interest::Passive | Interest::Wanted => Nanos::MAX,
            Interest::NextHop => now.plus_ms(limits::NEXT_HOP_CHECK_MS),
            Interest::Target => now.plus_ms(interval_ms),
        };
        self.reschedule(address, next);
        if changed {
            Heard::Changed
        } else if was_down {
            Heard::Back
        } else {
            Heard::Known
        }
    }

    /// `address` was learnt from something any station can send: asks its owner.
    pub(crate) fn confirm(&mut self, now: Nanos, address: Ipv4Addr) {
        self.want(now, address, Interest::Wanted);
        self.reschedule(address, now);
    }

    /// The station of `address`, as last heard.
    pub(crate) fn mac(&self, address: Ipv4Addr) -> Option<MacAddr> {
        self.entries.get(&address)?.mac
    }

    /// Whether a target at `address` answers.
    pub(crate) fn is_up(&self, address: Ipv4Addr) -> bool {
        self.entries.get(&address).is_some_and(|entry| !entry.is_down())
    }

    /// Whether every station somebody needs is known, or was asked for in vain.
    pub(crate) fn is_warm(&self) -> bool {
        let needed = self.entries.values().filter(|entry| entry.interest > Interest::Wanted);
        needed
            .into_iter()
            .all(|entry| entry.mac.is_some() || entry.unanswered >= limits::UNANSWERED_MAX)
    }

    /// All known stations.
    pub(crate) fn known(&self) -> BTreeMap<Ipv4Addr, MacAddr> {
        self.entries
            .iter()
            .filter_map(|(address, entry)| entry.mac.map(|mac| (*address, mac)))
            .collect()
    }

    /// Keeps `frame` until the station of `address` is known; false when there is no room.
    pub(crate) fn hold(&mut self, now: Nanos, address: Ipv4Addr, frame: Vec<u8>) -> bool {
        self.want(now, address, Interest::Wanted);
        if self.held >= limits::HELD_FRAMES_MAX {
            return false;
        }
        let Some(entry) = self.entries.get_mut(&address) else { return false };
        if entry.held.len() >= limits::HELD_FRAMES_PER_HOP_MAX {
            return false;
        }
        entry.held.push_back((now.plus_ms(limits::HELD_FRAME_MS), frame));
        self.held = self.held.saturating_add(1);
        true
    }

    /// The frames that waited for `address`, addressed to its station; without those kept too long.
    pub(crate) fn release(&mut self, now: Nanos, address: Ipv4Addr, own: MacAddr) -> Vec<Vec<u8>> {
        let Some(entry) = self.entries.get_mut(&address) else { return Vec::new() };
        let Some(mac) = entry.mac else { return Vec::new() };
        self.held = self.held.saturating_sub(entry.held.len());
        entry
            .held
            .drain(..)
            .filter(|(until, _)| now < *until)
            .map(|(_, mut frame)| {
                ethernet::set_addresses(&mut frame, mac, own);
                frame
            })
            .collect()
    }

    /// Frames that wait for their next hop.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Forgets the frames that wait: they were ours to send as the owner.
    pub(crate) fn drop_held(&mut self) {
        for entry in self.entries.values_mut() {
            entry.held.clear();
        }
        self.held = 0;
    }

    /// Only these are next hops of peers any more; the others are kept while there is room.
    pub(crate) fn keep_next_hops(&mut self, hops: &BTreeSet<Ipv4Addr>) {
        let left: Vec<Ipv4Addr> = self
            .entries
            .iter()
            .filter(|(address, entry)| {
                entry.interest == Interest::NextHop && !hops.contains(*address)
            })
            .map(|(address, _)| *address)
            .collect();
        for address in left {
            self.reschedule(address, Nanos::MAX);
            if let Some(entry) = self.entries.get_mut(&address) {
                entry.interest = Interest::Passive;
            }
        }
    }

    /// When [`Self::questions`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        self.due.first().map(|(due, _)| (*due).max(self.next_round))
    }

    /// The addresses to ask for now, and the targets that are down because they did not answer.
    pub(crate) fn questions(&mut self, now: Nanos) -> (Vec<Ipv4Addr>, Vec<Ipv4Addr>) {
        let (mut ask, mut down) = (Vec::new(), Vec::new());
        if now < self.next_round {
            return (ask, down);
        }
        while ask.len() < limits::PROBES_PER_ROUND_MAX {
            let Some((due, address)) = self.due.first().copied() else { break };
            if due > now {
                break;
            }
            self.due.pop_first();
            let Some(entry) = self.entries.get_mut(&address) else { continue };
            let was_down = entry.is_down();
            entry.unanswered = entry.unanswered.saturating_add(1);
            if entry.is_down() && !was_down && entry.interest == Interest::Target {
                down.push(address);
            }
            entry.due = now.plus_ms(retry_ms(entry));
            if entry.held.front().is_some_and(|(until, _)| *until <= now) {
                self.held = self.held.saturating_sub(entry.held.len());
                entry.held.clear();
            }
            if entry.interest == Interest::Wanted && entry.unanswered > limits::UNANSWERED_MAX {
                entry.due = Nanos::MAX;
                entry.unanswered = 0;
            } else {
                ask.push(address);
                self.due.insert((entry.due, address));
            }
        }
        if ask.len() >= limits::PROBES_PER_ROUND_MAX {
            self.next_round = now.plus_ms(limits::PROBE_ROUND_MS);
        }
        (ask, down)
    }

    fn reschedule(&mut self, address: Ipv4Addr, due: Nanos) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        if entry.due != Nanos::MAX {
            self.due.remove(&(entry.due, address));
        }
        entry.due = due;
        if due != Nanos::MAX {
            self.due.insert((due, address));
        }
    }

    /// Makes room for one more address, at the cost of the one that was heard longest ago and is
    /// not needed.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < limits::NEIGHBOURS_MAX {
            return true;
        }
        let oldest = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.interest <= Interest::Wanted)
            .min_by_key(|(_, entry)| entry.heard)
            .map(|(address, _)| *address);
        let Some(address) = oldest else { return false };
        self.reschedule(address, Nanos::MAX);
        if let Some(entry) = self.entries.remove(&address) {
            self.held = self.held.saturating_sub(entry.held.len());
        }
        true
    }
}

/// Unanswered questions are repeated sooner than answered ones, until it is clear that nobody is
/// there; then rarely.
fn retry_ms(entry: &Entry) -> u64 {
    let gone = entry.unanswered > limits::UNANSWERED_MAX;
    match entry.interest {
        Interest::Target if gone => limits::TARGET_CHECK_MS,
        Interest::NextHop if gone => limits::NEXT_HOP_CHECK_MS,
        _ => limits::RESOLVE_RETRY_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
    const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 11]);
    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn ask_all(neighbours: &mut Neighbours, until: Nanos) -> (Vec<(u64, Ipv4Addr)>, Vec<Ipv4Addr>) {
        let (mut asked, mut down) = (Vec::new(), Vec::new());
        while let Some(due) = neighbours.next_due().filter(|due| *due <= until) {
            let (ask, lost) = neighbours.questions(due);
            asked.extend(ask.into_iter().map(|address| (due.ms(), address)));
            down.extend(lost);
        }
        (asked, down)
    }

    #[test]
    fn a_target_is_asked_at_once_and_down_after_three_unanswered_questions() {
        let mut neighbours = Neighbours::new();
        neighbours.set_pace(Nanos::ZERO, true);
        neighbours.want(Nanos::ZERO, TARGET, Interest::Target);
        assert_eq!(neighbours.questions(Nanos::ZERO), (vec![TARGET], vec![]));
        assert!(!neighbours.is_up(TARGET));
        assert_eq!(neighbours.heard(Nanos::from_ms(1), TARGET, MAC, false), Heard::Changed);
        assert!(neighbours.is_up(TARGET));

        let (asked, down) = ask_all(&mut neighbours, Nanos::from_ms(1_601));
        assert_eq!(
            asked.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(),
            [1_001, 1_201, 1_401, 1_601]
        );
        assert_eq!(down, [TARGET], "the fourth question finds three unanswered");
        assert_eq!(neighbours.heard(Nanos::from_ms(1_700), TARGET, MAC, false), Heard::Back);
        assert!(neighbours.is_up(TARGET));
    }

    #[test]
    fn frames_wait_for_the_station_but_not_for_ever() {
        let mut neighbours = Neighbours::new();
        assert!(neighbours.hold(Nanos::ZERO, PEER, vec![0; 60]));
        assert!(neighbours.hold(Nanos::from_ms(400), PEER, vec![1; 60]));
        neighbours.heard(Nanos::from_ms(600), PEER, MAC, false);
        let released = neighbours.release(Nanos::from_ms(600), PEER, OWN);
        assert_eq!(released.len(), 1, "the older one was kept too long");
        assert_eq!(ethernet::View::parse(&released[0]).unwrap().destination(), MAC);
        for n in 0..limits::HELD_FRAMES_PER_HOP_MAX + 3 {
            let other = Ipv4Addr::new(203, 0, 113, 1);
            let kept = neighbours.hold(Nanos::from_ms(700), other, vec![0; 60]);
            assert_eq!(kept, n < limits::HELD_FRAMES_PER_HOP_MAX);
        }
    }

    #[test]
    fn a_wanted_address_is_given_up_and_asked_for_again_on_demand() {
        let mut neighbours = Neighbours::new();
        neighbours.want(Nanos::ZERO, PEER, Interest::Wanted);
        let (asked, _) = ask_all(&mut neighbours, Nanos::from_secs(60));
        assert_eq!(asked.len(), limits::UNANSWERED_MAX as usize);
        neighbours.want(Nanos::from_secs(60), PEER, Interest::Wanted);
        assert_eq!(neighbours.questions(Nanos::from_secs(60)).0, [PEER]);
    }

    #[test]
    fn what_a_mere_datagram_taught_is_asked_for_and_corrected() {
        let mut neighbours = Neighbours::new();
        let now = Nanos::from_secs(1);
        let [peer, attacker, own] = [[10, 0, 0, 9], [0, 0, 0, 6], [0, 0, 0, 7]];
        let peer = Ipv4Addr::from_octets(peer);
        let mac = |[a, b, c, d]: [u8; 4]| MacAddr([2, 0, a, b, c, d]);
        neighbours.heard(now, peer, mac(attacker), true);
        neighbours.confirm(now, peer);
        assert_eq!(neighbours.questions(now).0, [peer]);
        assert_eq!(neighbours.heard(now, peer, mac(own), false), Heard::Changed);
        assert_eq!(neighbours.mac(peer), Some(mac(own)));
        assert_eq!(neighbours.next_due(), None, "it is not asked for again");
    }

    #[test]
    fn strangers_are_learnt_only_when_they_speak_to_us_and_leave_first() {
        let mut neighbours = Neighbours::new();
        assert_eq!(neighbours.heard(Nanos::ZERO, PEER, MAC, false), Heard::Ignored);
        assert_eq!(neighbours.heard(Nanos::ZERO, PEER, MAC, true), Heard::Changed);
        for n in 0..limits::NEIGHBOURS_MAX as u32 {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + n);
            neighbours.want(Nanos::from_ms(1), address, Interest::NextHop);
        }
        assert_eq!(neighbours.mac(PEER), None);
        let full = Ipv4Addr::new(10, 200, 0, 1);
        assert_eq!(neighbours.heard(Nanos::ZERO, full, MAC, true), Heard::Ignored);
    }

    #[test]
    fn many_questions_are_paced() {
        let mut neighbours = Neighbours::new();
        for n in 0..100 {
            neighbours.want(Nanos::ZERO, Ipv4Addr::from_bits(0x0a00_0000 + n), Interest::NextHop);
        }
        assert_eq!(neighbours.questions(Nanos::ZERO).0.len(), limits::PROBES_PER_ROUND_MAX);
        assert_eq!(neighbours.questions(Nanos::ZERO).0.len(), 0);
        assert_eq!(neighbours.next_due(), Some(Nanos::from_ms(limits::PROBE_ROUND_MS)));
    }
}
