//! The demo's findings as one JSON object, and which promises they keep.

use crate::time::rounded;
use crate::wire::ToldRepeat;
use serde::Serialize;
use std::collections::BTreeMap;

/// The client has one child: so many renewals are allowed after each kill.
const CHILD_SAS: u64 = 1;
/// Bytes the download of the whole demo must bring.
pub const DOWNLOAD_MIN_BYTES: u64 = 256 << 20;
/// Short connections that must be made.
pub const CONNECTIONS_MIN: u64 = 300;
/// Expected median outage on a shared two-core machine.
const OUTAGE_EXPECTED_MS: f64 = 150.0;
/// Expected longest stall of the download on such a machine.
const STALL_EXPECTED_MS: f64 = 1000.0;

/// Everything the demo found.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Report {
    /// Every promise of `promises` is kept.
    pub ok: bool,
    /// Timing profile the members ran with: `default` or `relaxed`.
    pub profile: String,
    /// Members of the cluster.
    pub members: u8,
    /// Target hosts.
    pub targets: u8,
    /// Each kill of an owner.
    pub kills: Vec<Kill>,
    /// Median of the kills' `outage_ms`.
    pub outage_median_ms: f64,
    /// The quiet time before the first kill, for comparison.
    pub baseline: Baseline,
    /// The download through the tunnel.
    pub download: Download,
    /// Short connections each target served.
    pub connections_per_target: BTreeMap<String, u64>,
    /// Short connections that failed.
    pub connections_failed: u64,
    /// IKE_SA_INIT and IKE_AUTH exchanges in the 10 s after each kill, all kills together.
    pub ike_negotiations_after_kill: u64,
    /// CREATE_CHILD_SA exchanges begun by the new owner in those 10 s, all kills together.
    pub child_renewals_after_kill: u64,
    /// ESP packets on the outside wire that repeat an SPI and sequence number.
    pub duplicate_spi_seq: u64,
    /// ESP packets on the outside wire that repeat an SPI and IV.
    pub duplicate_spi_iv: u64,
    /// ESP frames seen a second time, every captured byte the same and from the same sender: not in
    /// the two figures above.
    pub repeated_frames: u64,
    /// The first of all these, with times, senders and missing neighbours.
    pub repeats: Vec<ToldRepeat>,
    /// Packets on the outside wire that belong into the tunnel.
    pub clear_packets_outside: u64,
    /// Packets of targets on the outside wire, and answers that went around the members.
    pub target_outside_packets: u64,
    /// IKE messages sent by members that did not own the common address.
    pub ike_from_non_owner: u64,
    /// ESP packets sent by members that did not own the common address.
    pub esp_from_non_owner: u64,
    /// ESP packets seen on the outside wire.
    pub esp_packets: u64,
    /// Frames the kernel could not hand to a capture: above 0, the zeros above prove less.
    pub capture_dropped_frames: u64,
    /// Captures that were kept.
    pub pcap: Vec<String>,
    /// The picture.
    pub svg: String,
    /// The machine the figures are from.
    pub machine: Machine,
    /// Each promise, what was found, and whether it is kept.
    pub promises: Vec<Promise>,
    /// Timing expectations: reported, never a reason to fail.
    pub expectations: Vec<Promise>,
}

/// One kill of the owner.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Kill {
    /// Seconds from the first probe to the kill.
    pub at_s: f64,
    /// Longest gap between answers to a 1 kHz UDP echo prober within 10 s of the kill.
    pub outage_ms: f64,
    /// Member that announced the common address before.
    pub owner_before: Option<u8>,
    /// Member that announced it after.
    pub owner_after: Option<u8>,
    /// Member that was killed.
    pub killed: u8,
    /// Probes sent within 10 s of the kill.
    pub probes_sent: u64,
    /// Of these, never answered.
    pub probes_lost: u64,
    /// Longest gap between sent probes: the machine's own stalls.
    pub longest_send_gap_ms: f64,
    /// From the kill to the new owner's first announcement on the outside wire.
    pub announced_after_ms: Option<f64>,
    /// From the kill to the new owner's first ESP packet on the outside wire.
    pub first_esp_after_ms: Option<f64>,
    /// Longest time without a new byte of the download.
    pub longest_stall_ms: f64,
    /// Bytes of the download that had come at the kill.
    pub download_bytes: u64,
    /// IKE_SA_INIT and IKE_AUTH exchanges within 10 s.
    pub ike_negotiations: u64,
    /// CREATE_CHILD_SA exchanges begun by the new owner within 10 s.
    pub child_renewals: u64,
    /// From the kill until the killed member, started again, had caught up.
    pub rejoined_after_ms: Option<f64>,
}

/// The time before the first kill.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Baseline {
    /// Longest gap between answers.
    pub longest_gap_ms: f64,
    /// Probes sent.
    pub probes_sent: u64,
    /// Of these, never answered.
    pub probes_lost: u64,
}

/// The download.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Download {
    /// Bytes that came.
    pub bytes: u64,
    /// Whether they are the right ones.
    pub sha256_ok: bool,
    /// TCP resets on the client's tunnel device, in either direction.
    pub tcp_resets: u64,
    /// Longest time without a new byte around a kill.
    pub longest_stall_ms: f64,
    /// How long it took.
    pub seconds: f64,
    /// Which target served it.
    pub target: String,
    /// Why it ended early.
    pub failure: Option<String>,
}

/// Where the figures were taken.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Machine {
    /// Processors.
    pub cpus: usize,
    /// Their model.
    pub cpu_model: String,
    /// Kernel release.
    pub kernel: String,
    /// Load average of the last minute at the end.
    pub load_1min: f64,
}

impl Machine {
    /// This machine, now.
    pub fn this() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu_info = read("/proc/cpuinfo");
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim());
        let load = read("/proc/loadavg");
        let load = load.split_whitespace().next().and_then(|figure| figure.parse().ok());
        Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            cpu_model: model.unwrap_or("unknown").to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_1min: load.unwrap_or(0.0),
        }
    }
}

/// A promise and what was found.
#[derive(Debug, Clone, Serialize)]
pub struct Promise {
    /// What is promised.
    pub promise: String,
    /// What was found.
    pub found: String,
    /// Whether it is kept.
    pub kept: bool,
}

impl Promise {
    /// A promise, what was found, and whether that keeps it.
    pub fn new(promise: impl Into<String>, found: impl Into<String>, kept: bool) -> Self {
        Self { promise: promise.into(), found: found.into(), kept }
    }

    /// That something was never found.
    pub fn zero(what: &str, found: u64) -> Self {
        Self::new(format!("no {what}"), found.to_string(), found == 0)
    }
}

impl Report {
    /// Judges the figures: fills in the derived ones, the promises and `ok`.
    pub fn judge(&mut self, expected_kills: usize, expected_bytes: u64) {
        self.outage_median_ms = rounded(median(self.kills.iter().map(|kill| kill.outage_ms)));
        let stalls = self.kills.iter().map(|kill| kill.longest_stall_ms);
        self.download.longest_stall_ms = rounded(stalls.fold(0.0, f64::max));
        self.ike_negotiations_after_kill = self.kills.iter().map(|k| k.ike_negotiations).sum();
        self.child_renewals_after_kill = self.kills.iter().map(|k| k.child_renewals).sum();
        self.promises = self.kill_promises(expected_kills);
        self.promises.extend(self.traffic_promises(expected_bytes));
        self.promises.extend(self.wire_promises());
        self.expectations = self.timing();
        self.ok = self.promises.iter().all(|promise| promise.kept);
    }

    fn kill_promises(&self, expected: usize) -> Vec<Promise> {
        let survived = self.kills.iter().filter(|kill| kill.is_survived()).count();
        let mid_download = self
            .kills
            .iter()
            .filter(|kill| kill.download_bytes > 0 && kill.download_bytes < self.download.bytes);
        let mid_download = mid_download.count();
        let renewed_too_often = self.kills.iter().filter(|k| k.child_renewals > CHILD_SAS).count();
        vec![
            Promise::new(
                "every kill of the owner survived",
                format!("{survived} of {expected}"),
                survived == expected,
            ),
            Promise::new(
                "every kill in mid-download",
                format!("{mid_download} of {expected}"),
                mid_download == expected,
            ),
            Promise::zero("IKE negotiation after a kill", self.ike_negotiations_after_kill),
            Promise::new(
                "at most one renewal per SA and kill",
                format!("{} in all", self.child_renewals_after_kill),
                renewed_too_often == 0,
            ),
        ]
    }

    fn traffic_promises(&self, expected_bytes: u64) -> Vec<Promise> {
        let served: u64 = self.connections_per_target.values().sum();
        let used = self.connections_per_target.len();
        let Download { bytes, sha256_ok, tcp_resets, failure, .. } = &self.download;
        vec![
            Promise::new(
                "the download is whole and right",
                failure.clone().unwrap_or_else(|| format!("{bytes} bytes, right: {sha256_ok}")),
                *sha256_ok && failure.is_none() && *bytes >= expected_bytes,
            ),
            Promise::zero("TCP reset", *tcp_resets),
            Promise::new(
                format!("{CONNECTIONS_MIN} short connections, none failing"),
                format!("{served} served, {} failed", self.connections_failed),
                served >= CONNECTIONS_MIN && self.connections_failed == 0,
            ),
            Promise::new(
                "every target used",
                format!("{used} of {}", self.targets),
                used == usize::from(self.targets),
            ),
        ]
    }

    fn wire_promises(&self) -> Vec<Promise> {
        vec![
            Promise::zero("repeated (SPI, sequence number)", self.duplicate_spi_seq),
            Promise::zero("repeated (SPI, IV)", self.duplicate_spi_iv),
            Promise::zero("packet in clear on the outside wire", self.clear_packets_outside),
            Promise::zero("target's packet outside the tunnel", self.target_outside_packets),
            Promise::zero("IKE message of a non-owner", self.ike_from_non_owner),
            Promise::zero("frame missed by the captures", self.capture_dropped_frames),
        ]
    }

    fn timing(&self) -> Vec<Promise> {
        let (outage, stall) = (self.outage_median_ms, self.download.longest_stall_ms);
        vec![
            Promise::new(
                format!("median outage below {OUTAGE_EXPECTED_MS} ms"),
                format!("{outage:.1} ms"),
                !self.kills.is_empty() && outage < OUTAGE_EXPECTED_MS,
            ),
            Promise::new(
                format!("longest stall of the download below {STALL_EXPECTED_MS} ms"),
                format!("{stall:.1} ms"),
                stall < STALL_EXPECTED_MS,
            ),
        ]
    }
}

impl Kill {
    /// Whether another member carried on: the killed one owned the address on the wire, another
    /// one announced it, and probes were answered again.
    pub fn is_survived(&self) -> bool {
        let moved = self.owner_after.is_some_and(|after| after != self.killed);
        self.owner_before == Some(self.killed)
            && moved
            && self.first_esp_after_ms.is_some()
            && self.probes_lost < self.probes_sent
    }
}

/// The median, 0 of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    if sorted.len().is_multiple_of(2) {
        (at(middle.saturating_sub(1)) + at(middle)) / 2.0
    } else {
        at(middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flawless() -> Report {
        let kill = Kill {
            outage_ms: 40.0,
            owner_before: Some(1),
            owner_after: Some(2),
            killed: 1,
            probes_sent: 10_000,
            probes_lost: 40,
            first_esp_after_ms: Some(38.0),
            longest_stall_ms: 200.0,
            download_bytes: 1 << 20,
            ..Kill::default()
        };
        let connections = (1..=3).map(|n| (format!("target{n}"), 100)).collect();
        Report {
            members: 3,
            targets: 3,
            kills: vec![kill],
            download: Download {
                bytes: DOWNLOAD_MIN_BYTES,
                sha256_ok: true,
                ..Download::default()
            },
            connections_per_target: connections,
            ..Report::default()
        }
    }

    fn broken(spoil: impl FnOnce(&mut Report)) -> Vec<String> {
        let mut report = flawless();
        spoil(&mut report);
        report.judge(1, DOWNLOAD_MIN_BYTES);
        assert_eq!(report.ok, report.promises.iter().all(|promise| promise.kept));
        report.promises.into_iter().filter(|p| !p.kept).map(|p| p.promise).collect()
    }

    #[test]
    fn a_flawless_run_is_ok() {
        assert!(broken(|_| ()).is_empty());
    }

    #[test]
    fn each_flaw_breaks_its_promise_alone() {
        type Spoil = fn(&mut Report);
        let flaws: [(Spoil, &str); 9] = [
            (|r| r.kills[0].owner_after = Some(1), "every kill of the owner survived"),
            (|r| r.kills[0].first_esp_after_ms = None, "every kill of the owner survived"),
            (|r| r.kills[0].ike_negotiations = 1, "no IKE negotiation after a kill"),
            (|r| r.kills[0].child_renewals = 2, "at most one renewal per SA and kill"),
            (|r| r.download.tcp_resets = 1, "no TCP reset"),
            (|r| r.duplicate_spi_iv = 1, "no repeated (SPI, IV)"),
            (|r| r.connections_failed = 1, "300 short connections, none failing"),
            (|r| r.capture_dropped_frames = 1, "no frame missed by the captures"),
            (|r| r.download.sha256_ok = false, "the download is whole and right"),
        ];
        for (spoil, promise) in flaws {
            assert_eq!(broken(spoil), [promise]);
        }
    }

    #[test]
    fn a_kill_that_never_happened_is_a_broken_promise() {
        assert!(!broken(|r| r.kills.clear()).is_empty());
    }

    #[test]
    fn slowness_is_reported_and_fails_nothing() {
        let mut report = flawless();
        report.kills[0].outage_ms = 400.0;
        report.judge(1, DOWNLOAD_MIN_BYTES);
        assert!(report.ok);
        assert_eq!(report.expectations.iter().filter(|e| e.kept).count(), 1);
    }

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
        assert_eq!(median([].into_iter()), 0.0);
    }
}
