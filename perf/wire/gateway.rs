//! DPDK's example `ipsec-secgw`, in a process of its own: its configuration, its figures.

use crate::case::{Case, PACKETS};
use crate::meter::Meter;
use crate::support::frames::{COMMON, OUTSIDE_MAC, SERVICE, host, peer};
use crate::support::setup::Direction;
use crate::{Figure, Replay};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// What `perf/wire` names: the program it has built.
const PROGRAM: &str = "HOLDFAST_SECGW";
/// Buffers, as in the recipe that its published figures come from.
const BUFFERS: &str = "32768";
/// Statistics a second apart, after which a replay that ends must be through.
const PATIENCE: u32 = 10;
/// Both ports, as a mask.
const PORTS: &str = "0x3";

/// How it hands packets to the AEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Its first way: a crypto device's queues.
    Queues,
    /// By DPDK's library for IPsec.
    Library,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Queues => "ipsec-secgw",
            Self::Library => "ipsec-secgw -l",
        }
    }
}

/// Whether there is one to compare with.
pub(crate) fn is_there() -> bool {
    std::env::var_os(PROGRAM).is_some()
}

/// A running gateway. Killed when dropped.
struct Gateway {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it says on standard error.
    log: PathBuf,
    meter: Meter,
}

/// What it has counted since its start, and the time that took.
struct Statistics {
    sent: u64,
    dropped: u64,
    /// Time of its thread on the processor.
    busy: Duration,
}

/// Lets it work for so many windows; the first is not among the figures.
pub(crate) fn measure(mode: Mode, replay: &Replay<'_>, windows: u32) -> Vec<Figure> {
    let mut gateway = Gateway::start(mode, replay, None);
    let mut before = gateway.statistics();
    let mut figures = Vec::new();
    for _ in 0..windows {
        let now = gateway.statistics();
        figures.push(Figure {
            packets: now.sent - before.sent,
            dropped: now.dropped - before.dropped,
            elapsed: now.busy - before.busy,
        });
        before = now;
    }
    figures.split_off(1)
}

/// Lets it send one replay into the file.
pub(crate) fn capture(mode: Mode, replay: &Replay<'_>, file: &Path) {
    let mut gateway = Gateway::start(mode, replay, Some(file));
    for _ in 0..PATIENCE {
        if gateway.statistics().sent >= PACKETS as u64 {
            break;
        }
    }
    // It writes the rest of the capture when it closes its ports.
    let pid = Pid::from_child(&gateway.child);
    kill_process(pid, Signal::TERM).expect("it runs");
    while gateway.lines.next().is_some() {}
    let _ = gateway.child.wait();
}

impl Gateway {
    fn start(mode: Mode, replay: &Replay<'_>, capture: Option<&Path>) -> Self {
        let program = PathBuf::from(std::env::var_os(PROGRAM).expect("it has been built"));
        let configuration = replay.folder.join("secgw.cfg");
        fs::write(&configuration, configuration_of(replay.case)).expect("a file can be written");
        let packets = replay.file.display();
        let (from, to) = match capture {
            Some(file) => (
                format!("net_pcap0,rx_pcap={packets}"),
                format!("net_pcap1,tx_pcap={}", file.display()),
            ),
            None => {
                let from = format!("net_pcap0,rx_pcap={packets},infinite_rx=1");
                (from, "net_null1,no-rx=1".to_owned())
            }
        };
        // The mask of the ports towards the peers.
        let unprotected = match replay.case.direction {
            Direction::Encrypt => "0x2",
            Direction::Decrypt => "0x1",
        };
        let log = replay.folder.join("secgw.log");
        let errors = File::create(&log).expect("a file can be written");
        let cpu = replay.cpu;
        let mut command = Command::new("stdbuf");
        command
            .arg("-oL")
            .arg(program)
            .args([
                format!("--lcores={cpu}@{cpu}"),
                format!("--vdev={from}"),
                format!("--vdev={to}"),
            ])
            .args(["--no-pci", "--in-memory", "--no-telemetry", "--file-prefix=secgw"])
            .args(["--vdev=crypto_aesni_gcm0", "--", "-p", PORTS, "-P", "-u", unprotected])
            .arg(format!("--config=(0,0,{cpu}),(1,0,{cpu})"))
            .args(["-f".as_ref(), configuration.as_os_str()])
            .args(["-t", "1", "-s", BUFFERS, "--rxoffload", "0x0", "--txoffload", "0x0"]);
        if mode == Mode::Library {
            command.arg("-l");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("ipsec-secgw starts");
        // Its first thread is the one that polls.
        let meter = Meter::of(child.id(), child.id().cast_signed());
        let output = child.stdout.take().expect("it is piped");
        Self { child, lines: BufReader::new(output).lines(), log, meter }
    }

    /// The next statistics.
    fn statistics(&mut self) -> Statistics {
        let mut number = |title: &str| loop {
            let line = self.lines.next().and_then(Result::ok).unwrap_or_else(|| {
                panic!(
                    "ipsec-secgw has ended: {}",
                    fs::read_to_string(&self.log).unwrap_or_default()
                )
            });
            if let Some(number) = line.strip_prefix(title) {
                return number.trim().parse().expect("a number");
            }
        };
        let sent = number("Total packets sent:");
        let busy = self.meter.busy();
        Statistics { sent, dropped: number("Total packets dropped:"), busy }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same SAs and policies as our worker has, in its own language.
fn configuration_of(case: &Case) -> String {
    let mut text = String::new();
    let ports = "sport 0:65535 dport 0:65535";
    for sa in 0..case.load.sas {
        let parameters = case.load.parameters(sa);
        let spi = parameters.inbound_spi.get();
        // It calls them as we do.
        let aead = case.load.algorithm.name();
        let key: Vec<String> =
            case.load.keymat(sa).iter().map(|octet| format!("{octet:02x}")).collect();
        let key = key.join(":");
        // It starts with SAs for both directions only.
        let ways = [
            ("out", (SERVICE, host(sa)), (COMMON, peer(sa))),
            ("in", (host(sa), SERVICE), (peer(sa), COMMON)),
        ];
        for (way, inner, outer) in ways {
            let _infallible = writeln!(
                text,
                "sp ipv4 {way} esp protect {spi} pri 1 src {}/32 dst {}/32 {ports}\n\
                 sa {way} {spi} aead_algo {aead} aead_key {key} mode ipv4-tunnel src {} dst {}",
                inner.0, inner.1, outer.0, outer.1
            );
        }
    }
    let _infallible = writeln!(
        text,
        "rt ipv4 dst 100.64.0.0/10 port 1\nrt ipv4 dst {SERVICE}/32 port 1\nneigh port 1 {OUTSIDE_MAC}"
    );
    text
}
