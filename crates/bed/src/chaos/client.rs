//! The clients of a storm: strongSwan each, with a prober, downloads one after the other, and
//! rekeys from their side.

use super::fault::Rekey;
use crate::bed::Bed;
use crate::capture::{Capture, CaptureFile, Direction};
use crate::error::BedError;
use crate::fetch::{Download, DownloadLog};
use crate::namespace::Namespace;
use crate::peer::{Connection, StrongSwan};
use crate::peers::{connection_tables, identity, inner, join};
use crate::probe::{ProbeLog, Prober};
use crate::time::Wall;
use crate::topology::{COMMON, ECHO_PORT};
use crate::web::Content;
use crate::wire::tcp_resets;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

/// The first client probes once a millisecond, for outages; the others to keep their SAs in use.
const PACES: [Duration; 3] =
    [Duration::from_millis(1), Duration::from_millis(5), Duration::from_millis(20)];
/// How many there are.
pub const CLIENTS: u8 = PACES.len() as u8;
const RESETS_ONLY: &str = "tcp[tcpflags] & tcp-rst != 0";

/// Short lifetimes, so that the members begin rekeys as well.
const LIFETIMES: &str = "child_lifetime_s = 60\nike_lifetime_s = 90\n";

/// Settings of the first client's `[[connection]]`, and the others' tables behind it.
pub fn connection_settings() -> String {
    LIFETIMES.to_owned() + &connection_tables(CLIENTS, LIFETIMES)
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Which one, from 1.
    pub number: u8,
    // Order matters: what runs ends before the namespaces it runs in.
    prober: Option<Prober>,
    download: Option<Download>,
    resets: Option<Capture>,
    swan: StrongSwan,
    /// Of its own unless it is the bed's.
    namespace: Option<Namespace>,
    /// Downloads that have ended.
    pub downloads: Vec<DownloadLog>,
}

/// What a client saw.
#[derive(Debug)]
pub struct Seen {
    /// Its probes.
    pub probes: ProbeLog,
    /// TCP resets on its tunnel device.
    pub resets: Option<CaptureFile>,
    /// Its downloads.
    pub downloads: Vec<DownloadLog>,
}

/// What all clients saw together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// TCP resets on their tunnel devices.
    pub tcp_resets: u64,
    /// Frames that those captures missed.
    pub capture_dropped_frames: u64,
    /// Downloads that were whole.
    pub downloads: u64,
    /// Downloads that ended early.
    pub downloads_failed: u64,
    /// Downloads that were whole and wrong.
    pub sha256_mismatches: u64,
}

impl Tally {
    /// Counts what was `seen` of downloads of `content`.
    ///
    /// # Errors
    /// When a capture cannot be read.
    pub fn of(seen: &[Seen], content: &Content) -> Result<Self, BedError> {
        let mut tally = Self::default();
        for file in seen.iter().filter_map(|seen| seen.resets.as_ref()) {
            tally.tcp_resets += tcp_resets(file)?;
            tally.capture_dropped_frames += file.dropped_frames;
        }
        for download in seen.iter().flat_map(|seen| &seen.downloads) {
            let whole = download.failure.is_none();
            tally.downloads += u64::from(whole);
            tally.downloads_failed += u64::from(!whole);
            let right = download.sha256 == content.sha256;
            tally.sha256_mismatches += u64::from(whole && !right);
        }
        Ok(tally)
    }
}

impl Client {
    /// Starts client `number` and connects it.
    ///
    /// # Errors
    /// When strongSwan does not come up or the negotiation fails.
    pub fn connect(bed: &Bed, number: u8, folder: PathBuf) -> Result<Self, BedError> {
        let namespace = match number {
            1 => None,
            _ => Some(join(bed, number)?),
        };
        let host = namespace.as_ref().unwrap_or(&bed.topology.client);
        let connection = Connection {
            identity: identity(number),
            inner: inner(number),
            ..Connection::default()
        };
        let swan = StrongSwan::start_client(host, &folder, &connection)?;
        swan.initiate()?;
        let file = bed.memory_path(&format!("client{number}-tunnel.pcap"));
        let resets = Capture::start(host, "ipsec0", Direction::Both, RESETS_ONLY, &file)?;
        let pace = PACES.get(usize::from(number - 1)).copied().unwrap_or_default();
        let prober = Prober::start_paced(host, SocketAddrV4::new(COMMON, ECHO_PORT), pace)?;
        let download = Some(Download::start(host)?);
        Ok(Self {
            number,
            prober: Some(prober),
            download,
            resets: Some(resets),
            swan,
            namespace,
            downloads: Vec::new(),
        })
    }

    fn host<'a>(&'a self, bed: &'a Bed) -> &'a Namespace {
        self.namespace.as_ref().unwrap_or(&bed.topology.client)
    }

    /// Begins the next download when the last one has ended.
    ///
    /// # Errors
    /// When it cannot begin.
    pub fn keep_busy(&mut self, bed: &Bed) -> Result<(), BedError> {
        if self.download.as_ref().is_some_and(|download| !download.is_done()) {
            return Ok(());
        }
        if let Some(ended) = self.download.take() {
            self.downloads.push(ended.finish()?);
        }
        self.download = Some(Download::start(self.host(bed))?);
        Ok(())
    }

    /// Answers to probes so far.
    pub fn answered(&self) -> u64 {
        self.prober.as_ref().map_or(0, Prober::answered)
    }

    /// The probes so far.
    pub fn probes(&self) -> ProbeLog {
        self.prober.as_ref().map(Prober::log).unwrap_or_default()
    }

    /// Whether an answer came within the last `time`.
    pub fn is_served(&self, time: Duration) -> bool {
        let newest = self.prober.as_ref().and_then(Prober::last_answer).unwrap_or_default();
        Wall::now().ms_since(newest) <= time.as_secs_f64() * 1e3
    }

    /// Begins a rekey. That one is under way already, or there is no SA, is no error.
    pub fn rekey(&self, rekey: Rekey) {
        let _ = match rekey {
            Rekey::None => return,
            Rekey::Child => self.swan.rekey_child(),
            Rekey::Ike => self.swan.rekey_ike(),
        };
    }

    /// Negotiates anew, after its SAs were found dead.
    ///
    /// # Errors
    /// When the negotiation fails.
    pub fn begin_anew(&mut self) -> Result<(), BedError> {
        // The other end may not know what is to be terminated.
        let _ = self.swan.control(&["--terminate", "--ike", "home", "--force", "--timeout", "1"]);
        self.swan.initiate().map(drop)
    }

    /// Charon's last words.
    pub fn last_words(&self) -> String {
        self.swan.last_words(20)
    }

    /// Ends its work and tells what it saw. A download in its middle counts as none.
    ///
    /// # Errors
    /// When the capture is not known to be complete.
    pub fn finish(mut self) -> Result<Seen, BedError> {
        let probes = match self.prober.take() {
            Some(prober) => prober.finish()?,
            None => ProbeLog::default(),
        };
        let resets = self.resets.take().map(Capture::finish).transpose()?;
        Ok(Seen { probes, resets, downloads: std::mem::take(&mut self.downloads) })
    }
}
