//! The bench's findings: one row per failure, summaries per system, as table, CSV and JSON.

use super::parts::Parts;
use super::stats::Summary;
use crate::report::Machine;
use crate::time::{Wall, rounded};
use serde::Serialize;
use std::fmt::Write;

/// Who failed over, and how.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum System {
    /// Holdfast, its owner killed.
    HoldfastKill,
    /// Holdfast with its `brisk` timing, its owner killed.
    HoldfastBrisk,
    /// Holdfast, ownership handed over on purpose.
    HoldfastHandover,
    /// keepalived, its master's host powered off.
    Keepalived,
    /// strongSwan gateways sharing SAs by the `ha` plugin, the active one's host powered off.
    StrongswanHa,
    /// strongSwan gateways without shared SAs; the client notices by DPD.
    StrongswanDpd,
}

impl System {
    /// Its name in CSV and JSON.
    pub fn key(&self) -> &'static str {
        match self {
            Self::HoldfastKill => "holdfast_kill",
            Self::HoldfastBrisk => "holdfast_brisk_kill",
            Self::HoldfastHandover => "holdfast_handover",
            Self::Keepalived => "keepalived",
            Self::StrongswanHa => "strongswan_ha",
            Self::StrongswanDpd => "strongswan_dpd",
        }
    }

    /// What it is, for people.
    pub fn title(&self) -> &'static str {
        match self {
            Self::HoldfastKill => "Holdfast, kill -9 of the owner",
            Self::HoldfastBrisk => "Holdfast, the same, brisk timing",
            Self::HoldfastHandover => "Holdfast, handover",
            Self::Keepalived => "keepalived VRRP, advert 10 ms",
            Self::StrongswanHa => "strongSwan ha plugin, heartbeat 100 ms",
            Self::StrongswanDpd => "strongSwan client, DPD 1 s",
        }
    }

    /// What it carries on, and under which conditions.
    pub fn remark(&self) -> &'static str {
        match self {
            Self::HoldfastKill | Self::HoldfastBrisk => "same SAs, quorum of three",
            Self::HoldfastHandover => "same SAs, planned",
            Self::Keepalived => "a bare address: no SA, no quorum",
            Self::StrongswanHa => "grows with the traffic before (3 s here)",
            Self::StrongswanDpd => "new SAs, 2 retries of 0.5 s",
        }
    }
}

/// One failure and its outage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Measured {
    /// When it was caused.
    #[serde(skip)]
    pub at: Wall,
    /// Longest gap between answers to the 1 kHz prober.
    pub outage_ms: f64,
    /// Probes that were never answered.
    pub probes_lost: u64,
    /// Longest gap between sent probes: the machine's own stalls.
    pub longest_send_gap_ms: f64,
    /// Whether service came back by itself within the bench's patience.
    pub recovered: bool,
    /// Where the time went, when every milestone was seen.
    pub parts: Option<Parts>,
}

/// A row of the results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Who.
    pub system: System,
    /// With how many ESP SAs (two for each tunnel); 0 where there is none.
    pub sas: u32,
    /// How often before in this run.
    pub round: usize,
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
}

/// All rows of one system with one number of SAs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Who.
    pub system: System,
    /// With how many ESP SAs.
    pub sas: u32,
    /// The outages.
    pub outage: Summary,
    /// Probes lost in all.
    pub probes_lost: u64,
    /// Of the rounds, how many lost no probe.
    pub without_loss: usize,
    /// Rounds after which service did not come back.
    pub not_recovered: usize,
    /// Each part of the takeover by itself, where it is known.
    pub parts: Vec<Part>,
}

/// One part of many takeovers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub time: Summary,
}

/// Everything the bench found.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Results {
    /// Timing profile of Holdfast's members.
    pub profile: String,
    /// When it was run, seconds since 1970.
    pub unix_s: u64,
    /// Where it was run.
    pub machine: Machine,
    /// Longest gap between answers while nothing was done to anybody.
    pub quiet_gap_ms: f64,
    /// Summaries.
    pub series: Vec<Series>,
    /// What could not be measured, and why.
    pub skipped: Vec<String>,
    /// Every failure.
    pub rows: Vec<Row>,
}

impl Results {
    /// Adds a measurement.
    pub fn add(&mut self, system: System, sas: u32, measured: Measured) {
        let before = self.rows.iter().filter(|row| row.system == system && row.sas == sas);
        let round = before.count() + 1;
        self.rows.push(Row { system, sas, round, measured });
    }

    /// Summarises the rows.
    pub fn summarise(&mut self) {
        let mut kinds: Vec<(System, u32)> =
            self.rows.iter().map(|row| (row.system.clone(), row.sas)).collect();
        kinds.sort();
        kinds.dedup();
        self.series =
            kinds.into_iter().filter_map(|(system, sas)| self.series_of(system, sas)).collect();
    }

    fn series_of(&self, system: System, sas: u32) -> Option<Series> {
        let rows = || self.rows.iter().filter(|row| row.system == system && row.sas == sas);
        let measured: Vec<&Measured> = rows().map(|row| &row.measured).collect();
        let parts: Vec<Parts> = measured.iter().filter_map(|m| m.parts).collect();
        let names = Parts::default().named().map(|(name, _)| name);
        let part = |(index, name): (usize, &'static str)| {
            let lengths = parts.iter().filter_map(|p| p.named().get(index).map(|(_, ms)| *ms));
            Summary::of(lengths).map(|time| Part { name, time })
        };
        Some(Series {
            outage: Summary::of(measured.iter().map(|m| m.outage_ms))?,
            probes_lost: measured.iter().map(|m| m.probes_lost).sum(),
            without_loss: measured.iter().filter(|m| m.probes_lost == 0).count(),
            not_recovered: measured.iter().filter(|m| !m.recovered).count(),
            parts: names.into_iter().enumerate().filter_map(part).collect(),
            system,
            sas,
        })
    }

    /// The summaries for a terminal.
    pub fn table(&self) -> String {
        let mut out = format!(
            "{:<40} {:>7} {:>4}  {:>8} {:>8} {:>8} {:>8}   lost probes\n",
            "outage in ms (1 kHz prober)", "SAs", "n", "p50", "p90", "p99", "max"
        );
        for series in &self.series {
            let Summary { count, p50_ms, p90_ms, p99_ms, max_ms, .. } = series.outage;
            let _ = writeln!(
                out,
                "{:<40} {:>7} {count:>4}  {p50_ms:>8.1} {p90_ms:>8.1} {p99_ms:>8.1} {max_ms:>8.1}   \
                 {} (none in {} of {count}){}",
                series.system.title(),
                series.sas,
                series.probes_lost,
                series.without_loss,
                if series.not_recovered > 0 { "  NOT ALL CAME BACK" } else { "" },
            );
        }
        out.push_str("\nparts of a takeover in ms: p50 / p99\n");
        for series in self.series.iter().filter(|series| !series.parts.is_empty()) {
            let parts: Vec<String> = series
                .parts
                .iter()
                .map(|p| format!("{} {:.1} / {:.1}", p.name, p.time.p50_ms, p.time.p99_ms))
                .collect();
            let _ = writeln!(out, "{:>7} SAs: {}", series.sas, parts.join(", "));
        }
        for skipped in &self.skipped {
            let _ = writeln!(out, "not measured: {skipped}");
        }
        out
    }

    /// Every row as CSV.
    pub fn csv(&self) -> String {
        let names = Parts::default().named().map(|(name, _)| name.replace(' ', "_") + "_ms");
        let mut out = format!(
            "system,sas,round,outage_ms,probes_lost,longest_send_gap_ms,recovered,{}\n",
            names.join(",")
        );
        for row in &self.rows {
            let m = &row.measured;
            let _ = write!(
                out,
                "{},{},{},{},{},{},{}",
                row.system.key(),
                row.sas,
                row.round,
                m.outage_ms,
                m.probes_lost,
                m.longest_send_gap_ms,
                m.recovered
            );
            let parts = m.parts.map(|parts| parts.named().map(|(_, ms)| rounded(ms).to_string()));
            let parts = parts.unwrap_or_default();
            let _ = writeln!(out, ",{}", parts.join(","));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let mut results = Results::default();
        for outage_ms in [40.0, 50.0, 60.0] {
            let parts = Parts { detect_ms: outage_ms - 10.0, ..Parts::default() };
            let measured = Measured {
                outage_ms,
                recovered: true,
                probes_lost: 3,
                parts: Some(parts),
                ..Measured::default()
            };
            results.add(System::HoldfastKill, 2, measured);
        }
        let measured = Measured { outage_ms: 2500.0, recovered: false, ..Measured::default() };
        results.add(System::StrongswanDpd, 2, measured);
        results.summarise();
        results
    }

    #[test]
    fn rows_are_summarised_by_system_and_number_of_sas() {
        let results = results();
        let [kill, dpd] = results.series.as_slice() else { panic!("{:?}", results.series) };
        assert_eq!((kill.outage.p50_ms, kill.probes_lost, kill.without_loss), (50.0, 9, 0));
        assert_eq!(kill.parts.iter().map(|p| p.time.p50_ms).sum::<f64>(), 40.0);
        assert_eq!((dpd.not_recovered, dpd.parts.len()), (1, 0));
    }

    #[test]
    fn the_csv_has_one_full_line_per_row() {
        let csv = results().csv();
        let columns = |line: &str| line.split(',').count();
        assert_eq!(csv.lines().count(), 5);
        assert!(csv.lines().all(|line| columns(line) == 12), "{csv}");
        assert!(csv.contains("\nholdfast_kill,2,3,60,3,0,true,50,0,0,0,0\n"), "{csv}");
    }

    #[test]
    fn the_table_tells_what_did_not_come_back() {
        let table = results().table();
        assert!(table.contains("NOT ALL CAME BACK") && table.contains("detect 40.0"), "{table}");
    }
}
