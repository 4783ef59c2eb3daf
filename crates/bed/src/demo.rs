//! The main job from end to end: a download through the tunnel while its owners are killed.
//!
//! ```text
//!   build -> start members -> client up -> baseline -> download ----------------------> done
//!                                                        |  kill, recover, restart  |
//!                                                        +-------- N times ---------+
//!   -> short connections -> end captures -> analyse -> judge
//! ```

use crate::bed::{Bed, BedOptions, CapturedWires, Captures};
use crate::error::BedError;
use crate::fetch::{Download, DownloadLog, ShortConnections, short_connections};
use crate::member::{Cluster, ClusterOptions, Profile, Programs};
use crate::peer::{Connection, StrongSwan};
use crate::picture::{Scene, svg, terminal};
use crate::probe::{ProbeLog, Prober};
use crate::report::{Baseline, CONNECTIONS_MIN, Kill, Machine, Report};
use crate::time::{Wall, rounded};
use crate::topology::Size;
use crate::wait::{let_pass, wait_until};
use crate::wire::{InsideWire, OutsideWire, Sender, tcp_resets};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The window after each kill in which everything is counted.
const AFTER_KILL_MS: u64 = 10_000;
/// A little before the kill belongs to its window, so that the gap's begin is seen.
const BEFORE_KILL_MS: u64 = 50;
/// Quiet time before the download.
const BASELINE: Duration = Duration::from_secs(3);
/// From the kill to the restart of the killed member.
const RESTART_AFTER: Duration = Duration::from_secs(4);
/// Least time between two kills: their windows must not overlap.
const BETWEEN_KILLS_MS: u64 = 12_000;
/// A recovery that takes longer has failed.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
/// Answers in a row that count as recovered.
const RECOVERED_ANSWERS: u64 = 100;
/// Anything else that takes longer has failed.
const SETTLE_LIMIT: Duration = Duration::from_secs(40);
/// What the demo is asked to do.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The product.
    pub programs: Programs,
    /// The members' timing.
    pub profile: Profile,
    /// How many owners are killed.
    pub kills: u8,
    /// How much is downloaded in all.
    pub download_bytes: u64,
    /// Whether captures and logs stay.
    pub keep: bool,
    /// Where the picture, and what is kept, goes.
    pub output: PathBuf,
}

impl DemoOptions {
    fn download_s(&self) -> u64 {
        let parts = u64::from(self.kills) + 1;
        parts * (BETWEEN_KILLS_MS / 1000 + 7)
    }
}

/// Something worth a line in the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    at: Wall,
    text: String,
}

/// Where the demo tells what it does.
pub trait Progress {
    /// Tells one line.
    fn tell(&mut self, line: &str);
}

impl<F: FnMut(&str)> Progress for F {
    fn tell(&mut self, line: &str) {
        self(line);
    }
}

/// Everything observed, before it is judged.
struct Observed {
    download: DownloadLog,
    probes: ProbeLog,
    kills: Vec<(Wall, Kill)>,
    connections: ShortConnections,
    wires: CapturedWires,
    events: Vec<Event>,
}

/// Runs the demo. Everything made for it is gone when this returns.
///
/// # Errors
/// When the bed fails or the product does not even come up. Broken promises are no error: they
/// stand in the report.
pub fn run(options: &DemoOptions, progress: &mut dyn Progress) -> Result<Report, BedError> {
    let mut stage = Stage::set(options, progress)?;
    let result = stage.perform();
    if result.is_err() {
        let words = stage.cluster.last_words(12);
        stage.progress.tell(&format!("the members' last words:\n{words}"));
        // Ended in order, so that what is kept of a failed run can be read.
        let _ = stage.captures.take().map(Captures::finish);
    }
    let kept = if options.keep { stage.keep() } else { Ok(Vec::new()) };
    let observed = result?;
    let expected = stage.bed.content.sha256.clone();
    let mut report = analyse(options, &observed, &expected, stage.progress)?;
    report.pcap = kept?;
    Ok(report)
}

struct Stage<'a> {
    // Order matters: what runs ends before the namespaces it runs in.
    captures: Option<Captures>,
    client: StrongSwan,
    cluster: Cluster,
    bed: Bed,
    options: &'a DemoOptions,
    progress: &'a mut dyn Progress,
    events: Vec<Event>,
    start: Wall,
}

impl<'a> Stage<'a> {
    fn set(options: &'a DemoOptions, progress: &'a mut dyn Progress) -> Result<Self, BedError> {
        let start = Wall::now();
        let bytes = options.download_bytes;
        progress.tell("building namespaces, wires and targets ...");
        let bed = Bed::build(&BedOptions {
            size: Size { members: 3, targets: 3 },
            large_file_bytes: bytes,
            limit_bytes_per_s: bytes / options.download_s(),
        })?;
        let mut cluster = Cluster::prepare(
            &bed,
            ClusterOptions {
                programs: options.programs.clone(),
                profile: options.profile,
                connection_settings: String::new(),
            },
        )?;
        let captures = Some(bed.start_captures()?);
        progress.tell(&format!("starting 3 members, {} timing ...", options.profile.name()));
        cluster.start_all(&bed)?;
        let owner = cluster.wait_for_owner(SETTLE_LIMIT)?;
        progress.tell(&format!("member {owner} owns the common address"));
        let client = bed.start_client(&Connection::default())?;
        let events = Vec::new();
        Ok(Self { captures, client, cluster, bed, options, progress, events, start })
    }

    fn tell(&mut self, text: &str) {
        let at = Wall::now();
        self.progress.tell(&format!("{:7.2} s  {text}", at.s_since(self.start)));
        self.events.push(Event { at, text: text.to_owned() });
    }

    fn perform(&mut self) -> Result<Observed, BedError> {
        self.client.initiate()?;
        if let Some(captures) = &mut self.captures {
            self.bed.start_tunnel_capture(captures)?;
        }
        self.tell("tunnel up: strongSwan, default proposals, ESP in UDP");
        let prober = self.bed.start_prober()?;
        let_pass(BASELINE)?;
        let download = self.bed.start_download()?;
        let mib = self.bed.content.bytes >> 20;
        self.tell(&format!("download of {mib} MiB from the common address started"));
        let mut kills = Vec::new();
        for number in 1..=self.options.kills {
            self.await_turn(number, &download)?;
            let last = number == self.options.kills;
            kills.push(self.kill(&prober, &download, last)?);
        }
        self.tell("waiting for the end of the download");
        let limit = Duration::from_secs(self.options.download_s() + 60);
        wait_until("the end of the download", limit, || Ok(download.is_done().then_some(())))?;
        let download = download.finish()?;
        let last_kill = kills.last().map_or(self.start, |(at, _)| *at);
        wait_until("the end of the last kill's window", RECOVERY_LIMIT, || {
            Ok((Wall::now() > last_kill.plus_ms(AFTER_KILL_MS)).then_some(()))
        })?;
        self.tell(&format!("download ended after {} bytes", download.bytes()));
        let connections = self.connect_often()?;
        let probes = prober.finish()?;
        let captures = self.captures.take().ok_or(BedError::Interrupted)?;
        let wires = captures.finish()?;
        let events = std::mem::take(&mut self.events);
        Ok(Observed { download, probes, kills, connections, wires, events })
    }

    fn connect_often(&mut self) -> Result<ShortConnections, BedError> {
        let count = CONNECTIONS_MIN;
        let short = u32::try_from(count).unwrap_or(u32::MAX);
        let connections = short_connections(&self.bed.topology.client, short)?;
        self.tell(&format!("{count} short connections: {:?}", connections.per_target));
        if let Some(failure) = connections.failures.first() {
            let failed = connections.failures.len();
            self.tell(&format!("{failed} of them failed, the first: {failure}"));
        }
        Ok(connections)
    }

    /// Waits until the download has got far enough for kill `number`.
    fn await_turn(&mut self, number: u8, download: &Download) -> Result<(), BedError> {
        let turns = u64::from(self.options.kills) + 1;
        let due = self.bed.content.bytes / turns * u64::from(number);
        let limit = Duration::from_secs(self.options.download_s() + 60);
        wait_until("the download to get on", limit, || {
            Ok((download.bytes() >= due || download.is_done()).then_some(()))
        })
    }

    fn kill(
        &mut self,
        prober: &Prober,
        download: &Download,
        is_last: bool,
    ) -> Result<(Wall, Kill), BedError> {
        let owner = self.cluster.wait_until_ready(SETTLE_LIMIT)?;
        let download_bytes = download.bytes();
        let at = self.cluster.kill(owner)?;
        self.tell(&format!("SIGKILL to member {owner}, {} MiB so far", download_bytes >> 20));
        let answered = prober.answered();
        let recovered = wait_until("answers after the kill", RECOVERY_LIMIT, || {
            Ok((prober.answered() > answered + RECOVERED_ANSWERS).then_some(()))
        });
        self.cluster.bury(owner)?;
        match recovered {
            Ok(()) => {}
            Err(BedError::Timeout { waited_ms, .. }) => {
                self.tell(&format!("no recovery within {waited_ms} ms"));
            }
            Err(other) => return Err(other),
        }
        let mut kill = Kill { killed: owner, download_bytes, ..Kill::default() };
        let new = self.cluster.wait_for_owner(SETTLE_LIMIT)?;
        self.tell(&format!("member {new} carries on"));
        let_pass(RESTART_AFTER)?;
        self.cluster.start(&self.bed, owner)?;
        self.tell(&format!("member {owner} started again"));
        self.cluster.wait_until_ready(SETTLE_LIMIT)?;
        kill.rejoined_after_ms = Some(rounded(Wall::now().ms_since(at)));
        self.tell(&format!("member {owner} has caught up, every SA is takeover-ready"));
        if !is_last {
            wait_until("the end of the kill's window", SETTLE_LIMIT, || {
                Ok((Wall::now() > at.plus_ms(BETWEEN_KILLS_MS)).then_some(()))
            })?;
        }
        Ok((at, kill))
    }

    /// Copies captures and logs to the output folder, and names the captures.
    fn keep(&self) -> Result<Vec<String>, BedError> {
        self.bed.keep_files(&self.options.output)
    }
}

fn analyse(
    options: &DemoOptions,
    observed: &Observed,
    expected_sha256: &str,
    progress: &mut dyn Progress,
) -> Result<Report, BedError> {
    progress.tell("reading the captures ...");
    let outside = OutsideWire::read(&observed.wires.outside)?;
    let inside = InsideWire::read(&observed.wires.inside, 3)?;
    let first_probe = observed.probes.sent.first().copied().unwrap_or_default();
    let kills = judge_kills(observed, &outside, first_probe);
    let mut report = Report {
        profile: options.profile.name().to_owned(),
        members: 3,
        targets: 3,
        kills: kills.iter().map(|(_, kill)| kill.clone()).collect(),
        baseline: baseline(observed, first_probe),
        download: judge_download(observed, expected_sha256)?,
        connections_per_target: observed.connections.per_target.clone(),
        connections_failed: observed.connections.failures.len() as u64,
        duplicate_spi_seq: outside.repeats.duplicate_numbers,
        duplicate_spi_iv: outside.repeats.duplicate_ivs,
        repeated_frames: outside.repeats.repeated_frames,
        repeats: outside.repeats.told(first_probe),
        clear_packets_outside: outside.clear_packets,
        target_outside_packets: outside.target_packets + inside.answers_around_members,
        ike_from_non_owner: outside.ike_from_non_owner(),
        esp_from_non_owner: outside.esp_from_non_owner(),
        esp_packets: outside.esp_of_client
            + outside.esp_of_member.values().map(|times| times.len() as u64).sum::<u64>(),
        capture_dropped_frames: observed.wires.dropped_frames(),
        machine: Machine::this(),
        ..Report::default()
    };
    report.judge(usize::from(options.kills), options.download_bytes);
    tell_timeline(observed, &outside, &kills, progress);
    report.svg = draw(options, observed, &outside, &kills, &report, progress)?;
    Ok(report)
}

fn judge_kills(observed: &Observed, wire: &OutsideWire, first_probe: Wall) -> Vec<(Wall, Kill)> {
    let judged = observed.kills.iter().map(|(at, kill)| {
        let (from, to) = (at.minus_ms(BEFORE_KILL_MS), at.plus_ms(AFTER_KILL_MS));
        let outage = observed.probes.outage(from, to);
        let owner_after = wire.owner_at(to);
        let changes = wire.ownership();
        let announced = changes.iter().find(|c| c.at > *at && Some(c.member) == owner_after);
        let first_esp = owner_after.and_then(|member| wire.first_esp_after(member, *at));
        let kill = Kill {
            at_s: rounded(at.s_since(first_probe)),
            outage_ms: rounded(outage.outage_ms),
            owner_before: wire.owner_at(*at),
            owner_after,
            probes_sent: outage.probes_sent,
            probes_lost: outage.probes_lost,
            longest_send_gap_ms: rounded(outage.longest_send_gap_ms),
            announced_after_ms: announced.map(|change| rounded(change.at.ms_since(*at))),
            first_esp_after_ms: first_esp.map(|first| rounded(first.ms_since(*at))),
            longest_stall_ms: rounded(observed.download.longest_stall_ms(from, to)),
            ike_negotiations: wire.negotiations(*at, to),
            child_renewals: owner_after.map_or(0, |member| wire.renewals(member, *at, to)),
            ..kill.clone()
        };
        (*at, kill)
    });
    judged.collect()
}

fn baseline(observed: &Observed, first_probe: Wall) -> Baseline {
    // The first probes also resolve neighbours; they are no baseline.
    let from = first_probe.plus_ms(500);
    let to = observed.kills.first().map_or(from, |(at, _)| at.minus_ms(BEFORE_KILL_MS));
    let quiet = observed.probes.outage(from, to);
    Baseline {
        longest_gap_ms: rounded(quiet.outage_ms),
        probes_sent: quiet.probes_sent,
        probes_lost: quiet.probes_lost,
    }
}

fn judge_download(
    observed: &Observed,
    expected_sha256: &str,
) -> Result<crate::report::Download, BedError> {
    let log = &observed.download;
    let begin = log.progress.first().map_or(Wall::default(), |&(at, _)| at);
    let end = log.progress.last().map_or(begin, |&(at, _)| at);
    Ok(crate::report::Download {
        bytes: log.bytes(),
        sha256_ok: log.sha256 == expected_sha256,
        tcp_resets: observed.wires.tunnel.as_ref().map_or(Ok(0), tcp_resets)?,
        seconds: rounded(end.s_since(begin)),
        target: log.target.clone(),
        failure: log.failure.clone(),
        longest_stall_ms: 0.0,
    })
}

/// Weaves what the wires show into what the demo did.
fn tell_timeline(
    observed: &Observed,
    wire: &OutsideWire,
    kills: &[(Wall, Kill)],
    progress: &mut dyn Progress,
) {
    let mut events = observed.events.clone();
    for change in wire.ownership() {
        let text = format!("wire: member {} announces the common address", change.member);
        events.push(Event { at: change.at, text });
    }
    for message in wire.ike.iter().filter(|message| !message.header.response) {
        let sender = match message.sender {
            Sender::Client => "client".to_owned(),
            Sender::Member(number) => format!("member {number}"),
            Sender::Target(number) => format!("target {number}"),
        };
        let text = format!("wire: {sender} asks {}", message.header.exchange_name());
        events.push(Event { at: message.at, text });
    }
    for (at, kill) in kills {
        if let (Some(after), Some(ms)) = (kill.owner_after, kill.first_esp_after_ms) {
            let text = format!("wire: first ESP of member {after}");
            events.push(Event { at: Wall(at.0 + (ms * 1e6) as u64), text });
        }
    }
    events.sort_by_key(|event| event.at);
    let start = observed.probes.sent.first().copied().unwrap_or_default();
    progress.tell("\ntimeline (0 = first probe; wire: from the captures)");
    for event in events {
        let since_kill = kills.iter().rev().find(|(at, _)| *at < event.at);
        let relative = since_kill.map_or(String::new(), |(at, _)| {
            let ms = event.at.ms_since(*at);
            if ms < 1000.0 { format!("   [{ms:.1} ms after the kill]") } else { String::new() }
        });
        progress.tell(&format!("{:9.3} s  {}{relative}", event.at.s_since(start), event.text));
    }
}

fn draw(
    options: &DemoOptions,
    observed: &Observed,
    wire: &OutsideWire,
    kills: &[(Wall, Kill)],
    report: &Report,
    progress: &mut dyn Progress,
) -> Result<String, BedError> {
    let ownership = wire.ownership();
    let scene = Scene {
        start: observed.probes.sent.first().copied().unwrap_or_default(),
        end: observed.probes.sent.last().copied().unwrap_or_default(),
        download: &observed.download,
        probes: &observed.probes,
        ownership: &ownership,
        kills,
    };
    progress.tell(&format!("\n{}", terminal(&scene)));
    let machine = &report.machine;
    let subtitle = format!(
        "{} timing, {} x {}, kernel {}; median outage {:.1} ms",
        report.profile, machine.cpus, machine.cpu_model, machine.kernel, report.outage_median_ms
    );
    let title = if report.ok {
        "One download, its owners killed: same security association, same TCP connection"
    } else {
        "One download, its owners killed: promises broken"
    };
    let path = options.output.join("holdfast-demo.svg");
    write_file(&path, &svg(&scene, title, &subtitle))?;
    Ok(path.display().to_string())
}

fn write_file(path: &Path, text: &str) -> Result<(), BedError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| BedError::file("create", folder, e))?;
    }
    fs::write(path, text).map_err(|e| BedError::file("write", path, e))
}
