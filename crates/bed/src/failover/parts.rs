//! The parts of a takeover: where its time went, from the members' event logs and the captures.
//!
//! ```text
//!   SIGKILL --detect--> campaign --agree--> elected --install--> owner --announce--> ARP
//!                       (log)               (log)                (log)              (capture)
//!                                                     --first packet--> first ESP (capture)
//! ```
//!
//! All members log with the one clock of the machine, which the captures use as well.

use crate::time::Wall;
use crate::wire::OutsideWire;
use serde::Serialize;

/// One takeover, cut into consecutive parts that add up to the time until the first ESP packet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Parts {
    /// From the kill until the successor stands for election.
    pub detect_ms: f64,
    /// Until a majority has elected it.
    pub agree_ms: f64,
    /// Until its ownership is committed, its lease valid, and the workers have the first SAs.
    pub install_ms: f64,
    /// Until its first gratuitous ARP is on the outside wire.
    pub announce_ms: f64,
    /// Until its first ESP packet is on the outside wire.
    pub first_packet_ms: f64,
}

impl Parts {
    /// Names and lengths, in order.
    pub fn named(&self) -> [(&'static str, f64); 5] {
        [
            ("detect", self.detect_ms),
            ("agree", self.agree_ms),
            ("install", self.install_ms),
            ("announce", self.announce_ms),
            ("first packet", self.first_packet_ms),
        ]
    }
}

/// An event of a member's log, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Wall,
    /// What.
    pub kind: EventKind,
}

/// Events that delimit the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It knows of no leader in its term.
    NobodyLeads,
    /// A member leads.
    Leads(u8),
    /// It became the owner.
    OwnershipTaken,
}

/// Reads the events out of a member's log.
pub fn events(log: &str) -> Vec<Event> {
    log.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Event> {
    let at = parse_time(line.split_whitespace().next()?)?;
    let kind = match field(line, "event")? {
        "ownership_taken" => EventKind::OwnershipTaken,
        "leader_changed" => match field(line, "leader") {
            None => EventKind::NobodyLeads,
            Some(leader) => EventKind::Leads(leader.parse().ok()?),
        },
        _ => return None,
    };
    Some(Event { at, kind })
}

/// The value of `name=value` or `name="value"`.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let words = line.split_whitespace();
    let value = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('=')).next()?;
    Some(value.trim_matches('"'))
}

/// Parses a UTC time such as `2026-11-25T21:32:24.194306Z` (RFC 3339).
fn parse_time(text: &str) -> Option<Wall> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.splitn(3, ':');
    let hours: u64 = time.next()?.parse().ok()?;
    let minutes: u64 = time.next()?.parse().ok()?;
    let (seconds, fraction) = time.next()?.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?;
    let nanoseconds = fraction.parse::<u64>().ok()? * 10u64.pow(9 - digits);
    let days = days_since_epoch(year, month, day)?;
    let whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
    Some(Wall(whole * 1_000_000_000 + nanoseconds))
}

/// Days from 1970-01-01, Gregorian. Years begin in March here, so that the leap day comes last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let since_march = (month + 9) % 12;
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (since_march * 153 + 2) / 5 + day;
    // Days of that calendar before 1970-01-01.
    days.checked_sub(719_469)
}

/// Cuts the takeover by `successor` after a kill at `kill` into its parts. `None` when a milestone
/// is missing from its log or from the wire before `end`.
pub fn cut(
    kill: Wall,
    end: Wall,
    successor: u8,
    log: &[Event],
    wire: &OutsideWire,
) -> Option<Parts> {
    let in_time = |event: &&Event| event.at >= kill && event.at <= end;
    let first = |kind| log.iter().filter(in_time).find(|e| e.kind == kind).map(|e| e.at);
    let elected = first(EventKind::Leads(successor))?;
    // It may know of a vacancy for a while before it stands: the last notice counts.
    let vacancies = log.iter().filter(in_time).filter(|e| e.kind == EventKind::NobodyLeads);
    let stood = vacancies.map(|e| e.at).filter(|at| *at <= elected).max()?;
    let owned = first(EventKind::OwnershipTaken)?;
    let announced = wire.announcements.iter().find(|a| a.at >= kill && a.member == successor)?.at;
    let spoke = wire.first_esp_after(successor, kill)?;
    // The log is written beside the announcement and may be a little later.
    let announced_after = announced.max(owned);
    Some(Parts {
        detect_ms: stood.ms_since(kill),
        agree_ms: elected.ms_since(stood),
        install_ms: owned.ms_since(elected),
        announce_ms: announced_after.ms_since(owned),
        first_packet_ms: spoke.max(announced_after).ms_since(announced_after),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Announcement;

    const LOG: &str = "\
2026-11-25T21:32:23.968781Z  INFO connection lost member=1 lane=Snapshot error=unexpected end
2026-11-25T21:32:24.100000Z  INFO nobody leads in term 2 event=\"leader_changed\" term=2
2026-11-25T21:32:24.101000Z  INFO nobody leads in term 3 event=\"leader_changed\" term=3
2026-11-25T21:32:24.103000Z  INFO member 2 leads in term 3 event=\"leader_changed\" term=3 leader=2
2026-11-25T21:32:24.106000Z  WARN took over event=\"ownership_taken\" member=2 child_sas=1
not a line of a log";

    #[test]
    fn times_are_read_as_the_captures_have_them() {
        assert_eq!(parse_time("1970-01-01T00:00:00.5Z"), Some(Wall(500_000_000)));
        // 2024-02-29 and 2026-11-25, from `date -u +%s`.
        assert_eq!(parse_time("2024-02-29T12:00:00.0Z"), Some(Wall(1_709_208_000_000_000_000)));
        let logged = parse_time("2026-11-25T21:32:24.194306Z");
        assert_eq!(logged, Some(Wall(1_795_642_344_194_306_000)));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn a_takeover_is_cut_into_parts_that_add_up() {
        let log = events(LOG);
        assert_eq!(log.len(), 4);
        let at = |ms: u64| Wall(log[0].at.0 - 40_000_000).plus_ms(ms);
        let mut wire = OutsideWire::default();
        wire.announcements.push(Announcement { at: at(47), member: 2 });
        wire.esp_of_member.insert(2, vec![at(50)]);
        let parts = cut(at(0), at(1000), 2, &log, &wire).expect("every milestone is there");
        assert_eq!(parts.named().map(|(_, ms)| ms.round()), [41.0, 2.0, 3.0, 1.0, 3.0]);
        assert_eq!(cut(at(0), at(1000), 3, &log, &wire), None, "another member's takeover");
        assert_eq!(cut(at(60), at(1000), 2, &log, &wire), None, "another kill's takeover");
    }

    #[test]
    fn an_announcement_before_its_log_line_takes_no_time() {
        let log = events(LOG);
        let at = |ms: u64| Wall(log[0].at.0 - 40_000_000).plus_ms(ms);
        let mut wire = OutsideWire::default();
        wire.announcements.push(Announcement { at: at(45), member: 2 });
        wire.esp_of_member.insert(2, vec![at(45)]);
        let parts = cut(at(0), at(1000), 2, &log, &wire).expect("every milestone is there");
        assert_eq!((parts.announce_ms, parts.first_packet_ms), (0.0, 0.0));
    }
}
