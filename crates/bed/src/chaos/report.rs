//! A storm's findings as one JSON object, and which promises they keep.

use super::deliveries::Deliveries;
use super::fault::{Fault, Link};
use super::speech::Owners;
use crate::failover::stats::Summary;
use crate::report::{Machine, Promise};
use crate::time::Wall;
use crate::wire::{OutsideWire, ToldRepeat};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// One fault that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Episode {
    /// What.
    pub fault: &'static str,
    /// To which member.
    pub member: u8,
    /// Whether it owned the address.
    pub met_owner: bool,
    /// When, from the start of the storm.
    pub at_s: f64,
    /// Longest gap between answers to the first client's prober, until all was well again.
    pub outage_ms: f64,
    /// Probes that were not answered.
    pub probes_lost: u64,
    /// From the end of the fault until every member had caught up.
    pub settled_after_ms: f64,
    /// When it began, for the analysis.
    #[serde(skip)]
    pub at: Wall,
    /// When all was well again.
    #[serde(skip)]
    pub end: Wall,
}

/// Everything a storm found.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Report {
    /// Every entry of `promises` is kept.
    pub ok: bool,
    /// The seed: the same one draws the same faults.
    pub seed: u64,
    /// Timing profile of the members.
    pub profile: String,
    /// How long it stormed.
    pub minutes: f64,
    /// Faults in all.
    pub faults: u64,
    /// Processes killed, for whatever reason.
    pub kills: u64,
    /// Members stopped and continued.
    pub zombies: u64,
    /// Members cut off: one way, a link, or power.
    pub partitions: u64,
    /// Handovers on purpose.
    pub handovers: u64,
    /// Of these, not carried out within their time.
    pub handovers_refused: u64,
    /// Changes of the speaking member on the wire.
    pub owner_changes: u64,
    /// ESP packets that repeat an SPI and sequence number.
    pub duplicate_spi_seq: u64,
    /// ESP packets that repeat an SPI and IV.
    pub duplicate_spi_iv: u64,
    /// ESP frames seen a second time, every captured byte the same and from the same sender: not in
    /// the two figures above.
    pub repeated_frames: u64,
    /// The first of all these, with times, senders and missing neighbours.
    pub repeats: Vec<ToldRepeat>,
    /// ESP packets seen.
    pub esp_packets: u64,
    /// ESP packets of the client that a stranger sent again after faults.
    pub replays_sent: u64,
    /// Inner packets that reached a target a second time.
    pub replays_accepted: u64,
    /// Probes that reached a target.
    pub probes_delivered: u64,
    /// IKE messages of members that were not the owner.
    pub ike_from_non_owner: u64,
    /// Packets of members on the outside wire that belong into the tunnel.
    pub clear_packets: u64,
    /// Time during which two members spoke for the cluster's addresses.
    pub owners_at_once_ms: f64,
    /// Frames of a former owner that were the rest of a burst its process was stopped in.
    pub residual_frames: u64,
    /// The latest of these, after the new owner's announcement.
    pub residual_latest_ms: f64,
    /// TCP resets on the clients' tunnel devices.
    pub tcp_resets: u64,
    /// Downloads that were whole.
    pub downloads: u64,
    /// Downloads that ended early.
    pub downloads_failed: u64,
    /// Downloads that were whole and wrong.
    pub sha256_mismatches: u64,
    /// SAs that carried no traffic within the stated time after a fault had ended.
    pub unrecovered_sas: u64,
    /// IKE_SA_INIT and IKE_AUTH exchanges during the storm.
    pub negotiations: u64,
    /// CREATE_CHILD_SA requests of clients and members: rekeys and renewals.
    pub rekeys: u64,
    /// Times after which the cluster was not whole within its time.
    pub unsettled: u64,
    /// Members that ended although nothing had been done to them that allows for it.
    pub unexpected_ends: u64,
    /// Frames the kernel could not hand to a capture: above 0, the zeros above prove less.
    pub capture_dropped_frames: u64,
    /// Outages by fault, of the owner and of others.
    pub outage: BTreeMap<String, Summary>,
    /// What went wrong, in words.
    pub troubles: Vec<String>,
    /// What cannot be done to members on this machine.
    pub not_done: Vec<String>,
    /// Every fault.
    pub episodes: Vec<Episode>,
    /// The machine.
    pub machine: Machine,
    /// Each promise, what was found, and whether it is kept.
    pub promises: Vec<Promise>,
}

impl Report {
    /// Counts a fault that was done.
    pub fn count(&mut self, fault: Fault) {
        self.faults += 1;
        match fault {
            Fault::Kill | Fault::ClockJump | Fault::KernelPanic | Fault::FailingDisk => {
                self.kills += 1;
            }
            Fault::KillTwice => self.kills += 2,
            Fault::Zombie => self.zombies += 1,
            Fault::PowerOff => {
                self.kills += 1;
                self.partitions += 1;
            }
            Fault::Deaf | Fault::Mute | Fault::LinkDown(Link::Management) => self.partitions += 1,
            Fault::Handover => self.handovers += 1,
            Fault::LinkDown(_) | Fault::FullDisk | Fault::StuckWorker => {}
        }
    }

    /// Adds what the captures of one act show, which began at `begin`.
    pub fn add_wires(
        &mut self,
        begin: Wall,
        wire: &OutsideWire,
        owners: &Owners,
        deliveries: &Deliveries,
    ) {
        self.duplicate_spi_seq += wire.repeats.duplicate_numbers;
        self.duplicate_spi_iv += wire.repeats.duplicate_ivs;
        self.repeated_frames += wire.repeats.repeated_frames;
        self.repeats.extend(wire.repeats.told(begin));
        self.esp_packets += wire.esp_of_client
            + wire.esp_of_member.values().map(|times| times.len() as u64).sum::<u64>();
        self.clear_packets += wire.clear_packets_of_members;
        self.ike_from_non_owner += wire.ike_from_non_owner();
        self.owner_changes += owners.changes;
        self.owners_at_once_ms += owners.owners_at_once_ms;
        self.residual_frames += owners.residual_frames;
        self.residual_latest_ms = self.residual_latest_ms.max(owners.residual_latest_ms);
        self.probes_delivered += deliveries.probes;
        self.replays_accepted += deliveries.repeated;
    }

    /// Summarises and judges.
    pub fn judge(&mut self) {
        let mut outages: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for episode in &self.episodes {
            let whom = if episode.met_owner { "owner" } else { "standby" };
            let times = outages.entry(format!("{} of {whom}", episode.fault)).or_default();
            times.push(episode.outage_ms);
        }
        let summaries = outages.into_iter().filter_map(|(name, ms)| Some((name, Summary::of(ms)?)));
        self.outage = summaries.collect();
        self.promises = vec![
            Promise::zero("repeated (SPI, sequence number)", self.duplicate_spi_seq),
            Promise::zero("repeated (SPI, IV)", self.duplicate_spi_iv),
            Promise::zero("replay accepted", self.replays_accepted),
            Promise::zero("IKE message of a non-owner", self.ike_from_non_owner),
            Promise::zero("packet of a member in clear on the outside wire", self.clear_packets),
            Promise::new(
                "never two owners at once".to_owned(),
                format!(
                    "{:.1} ms, {} frames of interrupted bursts",
                    self.owners_at_once_ms, self.residual_frames
                ),
                self.owners_at_once_ms == 0.0,
            ),
            Promise::zero("download with a wrong SHA-256", self.sha256_mismatches),
            Promise::zero("SA left without traffic", self.unrecovered_sas),
            Promise::zero("cluster left unsettled", self.unsettled),
            Promise::zero("member ended by itself", self.unexpected_ends),
            Promise::zero("frame missed by the captures", self.capture_dropped_frames),
            Promise::new(
                "faults, probes, replays and downloads took place".to_owned(),
                format!(
                    "{} faults, {} probes delivered, {} replays sent, {} downloads",
                    self.faults, self.probes_delivered, self.replays_sent, self.downloads
                ),
                self.faults > 0
                    && self.probes_delivered > 0
                    && self.replays_sent > 0
                    && self.downloads > 0,
            ),
        ];
        self.ok = self.promises.iter().all(|promise| promise.kept);
    }

    /// Outages by fault, for a terminal.
    pub fn table(&self) -> String {
        let mut out = format!(
            "{:<34} {:>4} {:>9} {:>9} {:>9}\n",
            "outage in ms until all was well", "n", "p50", "p99", "max"
        );
        for (name, Summary { count, p50_ms, p99_ms, max_ms, .. }) in &self.outage {
            let _ =
                writeln!(out, "{name:<34} {count:>4} {p50_ms:>9.1} {p99_ms:>9.1} {max_ms:>9.1}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Report {
        Report {
            faults: 3,
            probes_delivered: 1000,
            replays_sent: 100,
            downloads: 2,
            ..Report::default()
        }
    }

    fn broken(spoil: impl FnOnce(&mut Report)) -> Vec<String> {
        let mut report = calm();
        spoil(&mut report);
        report.judge();
        report.promises.into_iter().filter(|p| !p.kept).map(|p| p.promise).collect()
    }

    #[test]
    fn each_flaw_breaks_its_promise_alone() {
        type Spoil = fn(&mut Report);
        let flaws: [(Spoil, &str); 5] = [
            (|r| r.duplicate_spi_seq = 1, "no repeated (SPI, sequence number)"),
            (|r| r.replays_accepted = 1, "no replay accepted"),
            (|r| r.owners_at_once_ms = 0.1, "never two owners at once"),
            (|r| r.unrecovered_sas = 1, "no SA left without traffic"),
            (|r| r.replays_sent = 0, "faults, probes, replays and downloads took place"),
        ];
        for (spoil, promise) in flaws {
            assert_eq!(broken(spoil), [promise]);
        }
        assert!(broken(|_| ()).is_empty());
    }

    #[test]
    fn faults_are_counted_by_what_they_do() {
        let mut report = Report::default();
        Fault::ALL.into_iter().for_each(|fault| report.count(fault));
        let counts = [report.kills, report.zombies, report.partitions, report.handovers];
        assert_eq!((report.faults, counts), (15, [7, 1, 4, 1]));
    }
}
