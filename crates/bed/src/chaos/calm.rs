//! The control of a storm: nothing is done to any member, all work as hard as the machine allows,
//! and their own network loses packets. Nobody may take the address over.
//!
//! ```text
//!   clients --> unpaced downloads, probes, rekeys        members' network --> loses some of every hundred
//!                                       |
//!                 gratuitous ARP on both wires, owner and epoch before and after --> CalmReport
//! ```
//!
//! Announcements are captured, and nothing else: at full load whole captures would outgrow memory
//! and be load themselves.

use super::client::{CLIENTS, Client, Seen, Tally};
use super::fault::Rekey;
use super::inflict::restart_if_ended;
use super::prepare_cluster;
use super::speech::Speech;
use crate::bed::{Bed, BedOptions};
use crate::capture::{Capture, Direction};
use crate::cuts::{Way, cut};
use crate::demo::Progress;
use crate::error::BedError;
use crate::member::{Cluster, Profile, Programs};
use crate::report::{Machine, Promise};
use crate::time::{Wall, rounded};
use crate::topology::Size;
use crate::wait::let_pass;
use crate::wire::{Sender, Tap};
use serde::Serialize;
use std::time::{Duration, Instant};

/// As in a storm.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Each download: long enough that TCP reaches its pace.
const DOWNLOAD_BYTES: u64 = 32 << 20;
/// nginx sends as fast as it can.
const UNPACED: u64 = 0;
/// How often downloads are begun anew and members looked at.
const ROUND: Duration = Duration::from_millis(100);
/// Rounds between two rekeys, and between two words about progress.
const ROUNDS_TO_REKEY: u64 = 300;
const ROUNDS_TO_TELL: u64 = 600;
/// Name of the rules that lose packets.
const LOSSY: &str = "calm";

/// What is asked for.
#[derive(Debug, Clone)]
pub struct CalmOptions {
    /// The product.
    pub programs: Programs,
    /// The members' timing.
    pub profile: Profile,
    /// How long.
    pub time: Duration,
    /// Of a hundred packets between members, so many are lost, each way at each member.
    pub loss_percent: f64,
}

/// What a calm time found.
#[derive(Debug, Clone, Serialize, Default)]
pub struct CalmReport {
    /// Every entry of `promises` is kept.
    pub ok: bool,
    /// Timing profile of the members.
    pub profile: String,
    /// How long it lasted.
    pub minutes: f64,
    /// Loss between members, each way at each member.
    pub loss_percent: f64,
    /// Changes of the speaking member on the wires.
    pub owner_changes: u64,
    /// By how much the owner's epoch grew: takeovers, those too short to be heard included.
    pub epochs: u64,
    /// Members that ended.
    pub ended: u64,
    /// Downloads that were whole.
    pub downloads: u64,
    /// Downloads that ended early.
    pub downloads_failed: u64,
    /// Downloads that were whole and wrong.
    pub sha256_mismatches: u64,
    /// Bytes of whole downloads a second, all clients.
    pub mbit_per_s: f64,
    /// TCP resets on the clients' tunnel devices.
    pub tcp_resets: u64,
    /// Frames that the captures missed: above 0, the zeros above prove less.
    pub capture_dropped_frames: u64,
    /// Longest gap between answers to the first client's prober.
    pub longest_gap_ms: f64,
    /// Probes of the first client.
    pub probes_sent: u64,
    /// Of these, not answered.
    pub probes_lost: u64,
    /// The machine.
    pub machine: Machine,
    /// Each promise, what was found, and whether it is kept.
    pub promises: Vec<Promise>,
}

impl CalmReport {
    fn judge(&mut self) {
        self.promises = vec![
            Promise::zero("change of the owner on the wire", self.owner_changes),
            Promise::zero("takeover in the members' own account", self.epochs),
            Promise::zero("member ended", self.ended),
            Promise::zero("download with a wrong SHA-256", self.sha256_mismatches),
            Promise::zero("download that ended early", self.downloads_failed),
            Promise::zero("TCP reset", self.tcp_resets),
            Promise::zero("frame missed by the captures", self.capture_dropped_frames),
            Promise::new(
                "there was load",
                format!("{} downloads, {} Mbit/s", self.downloads, self.mbit_per_s),
                self.downloads > 0,
            ),
        ];
        self.ok = self.promises.iter().all(|promise| promise.kept);
    }
}

/// Lets everything work. Everything made for it is gone when this returns.
///
/// # Errors
/// When the bed fails or the product does not even come up.
pub fn run(options: &CalmOptions, progress: &mut dyn Progress) -> Result<CalmReport, BedError> {
    let mut calm = Calm::set(options, progress)?;
    let begin = Instant::now();
    for round in 1_u64.. {
        if begin.elapsed() >= options.time {
            break;
        }
        calm.round(round)?;
        if round.is_multiple_of(ROUNDS_TO_TELL) {
            let (minutes, epoch) = (begin.elapsed().as_secs() / 60, calm.epoch()?);
            progress
                .tell(&format!("{minutes:4} min: epoch {epoch}, began at {}", calm.first_epoch));
        }
    }
    let mut report = CalmReport {
        profile: options.profile.name().to_owned(),
        minutes: rounded(begin.elapsed().as_secs_f64() / 60.0),
        loss_percent: options.loss_percent,
        machine: Machine::this(),
        ..CalmReport::default()
    };
    calm.finish(&mut report)?;
    report.judge();
    Ok(report)
}

struct Calm {
    // Order matters: what runs ends before the namespaces it runs in.
    announcements: Vec<(Sender, Capture)>,
    clients: Vec<Client>,
    cluster: Cluster,
    bed: Bed,
    begin: Wall,
    first_epoch: u64,
    ended: u64,
}

impl Calm {
    fn set(options: &CalmOptions, progress: &mut dyn Progress) -> Result<Self, BedError> {
        progress.tell("building namespaces and targets; starting 3 members ...");
        let bed = Bed::build(&BedOptions {
            size: Size { members: 3, targets: 3 },
            large_file_bytes: DOWNLOAD_BYTES,
            limit_bytes_per_s: UNPACED,
        })?;
        let mut cluster = prepare_cluster(&bed, &options.programs, options.profile)?;
        cluster.start_all(&bed)?;
        cluster.wait_for_owner(SETTLE_LIMIT)?;
        let connect =
            |number| Client::connect(&bed, number, bed.folder(&format!("client{number}")));
        let clients = (1..=CLIENTS).map(connect).collect::<Result<_, _>>()?;
        cluster.wait_until_ready(SETTLE_LIMIT)?;
        let announcements = capture_announcements(&bed)?;
        for number in cluster.numbers() {
            lose(&bed, number, options.loss_percent)?;
        }
        let begin = Wall::now();
        let mut calm =
            Self { announcements, clients, cluster, bed, begin, first_epoch: 0, ended: 0 };
        calm.first_epoch = calm.epoch()?;
        progress.tell(&format!(
            "{CLIENTS} strongSwan clients download unpaced; {} of 100 packets between members are lost",
            options.loss_percent
        ));
        Ok(calm)
    }

    fn round(&mut self, round: u64) -> Result<(), BedError> {
        for client in &mut self.clients {
            client.keep_busy(&self.bed)?;
        }
        if round.is_multiple_of(ROUNDS_TO_REKEY) {
            let rekey =
                if round.is_multiple_of(2 * ROUNDS_TO_REKEY) { Rekey::Ike } else { Rekey::Child };
            self.clients.iter().for_each(|client| client.rekey(rekey));
        }
        for number in self.cluster.numbers() {
            self.ended += u64::from(restart_if_ended(&self.bed, &mut self.cluster, number)?);
        }
        let_pass(ROUND)
    }

    /// The newest epoch that any member knows of.
    fn epoch(&self) -> Result<u64, BedError> {
        let epoch = |number| Ok(self.cluster.status(number)?.epoch().unwrap_or(0));
        let epochs =
            self.cluster.numbers().into_iter().map(epoch).collect::<Result<Vec<_>, BedError>>()?;
        Ok(epochs.into_iter().max().unwrap_or(0))
    }

    /// Ends everything and adds what it showed.
    fn finish(self, report: &mut CalmReport) -> Result<(), BedError> {
        report.epochs = self.epoch()?.saturating_sub(self.first_epoch);
        report.ended = self.ended;
        let end = Wall::now();
        let seen: Vec<Seen> =
            self.clients.into_iter().map(Client::finish).collect::<Result<_, _>>()?;
        if let Some(first) = seen.first() {
            let gap = first.probes.outage(self.begin, end);
            report.longest_gap_ms = rounded(gap.outage_ms);
            (report.probes_sent, report.probes_lost) = (gap.probes_sent, gap.probes_lost);
        }
        let tally = Tally::of(&seen, &self.bed.content)?;
        report.tcp_resets = tally.tcp_resets;
        report.capture_dropped_frames = tally.capture_dropped_frames;
        report.downloads = tally.downloads;
        report.downloads_failed = tally.downloads_failed;
        report.sha256_mismatches = tally.sha256_mismatches;
        let megabits = (report.downloads * DOWNLOAD_BYTES * 8) as f64 / 1e6;
        report.mbit_per_s = rounded(megabits / end.s_since(self.begin));
        let finish =
            |(sender, capture): (Sender, Capture)| Ok(Tap { sender, file: capture.finish()? });
        let taps =
            self.announcements.into_iter().map(finish).collect::<Result<Vec<_>, BedError>>()?;
        report.capture_dropped_frames +=
            taps.iter().map(|tap| tap.file.dropped_frames).sum::<u64>();
        report.owner_changes = Speech::read(&taps, &[])?.owners().changes;
        Ok(())
    }
}

/// What members announce on the outside wire.
fn capture_announcements(bed: &Bed) -> Result<Vec<(Sender, Capture)>, BedError> {
    let start = |number: u8| {
        let file = bed.memory_path(&format!("m{number}-announcements.pcap"));
        let host = bed.topology.member(number)?;
        let capture = Capture::start_short(host, "outside", Direction::Out, "arp", &file)?;
        Ok((Sender::Member(number), capture))
    };
    (1..).take(bed.topology.members.len()).map(start).collect()
}

/// Has the network between members lose packets at `member`, each way.
fn lose(bed: &Bed, member: u8, percent: f64) -> Result<(), BedError> {
    let host = bed.topology.member(member)?;
    let which = format!("numgen random mod 10000 < {}", (percent * 100.0).round());
    cut(host, LOSSY, Way::In, &format!("iifname mgmt {which}"))?;
    cut(host, LOSSY, Way::Out, &format!("oifname mgmt {which}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(spoil: impl FnOnce(&mut CalmReport)) -> Vec<String> {
        let mut report = CalmReport { downloads: 2, ..CalmReport::default() };
        spoil(&mut report);
        report.judge();
        assert_eq!(report.ok, report.promises.iter().all(|promise| promise.kept));
        report.promises.into_iter().filter(|p| !p.kept).map(|p| p.promise).collect()
    }

    #[test]
    fn a_takeover_breaks_the_calm_and_so_does_idleness() {
        assert!(broken(|_| ()).is_empty());
        assert_eq!(broken(|r| r.owner_changes = 1), ["no change of the owner on the wire"]);
        assert_eq!(broken(|r| r.epochs = 1), ["no takeover in the members' own account"]);
        assert_eq!(broken(|r| r.downloads = 0), ["there was load"]);
    }
}
