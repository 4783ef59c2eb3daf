//! The bed as a whole: wires, targets and folders, with everything removed on drop.

use crate::capture::{Capture, Direction};
use crate::error::BedError;
use crate::fetch::Download;
use crate::leftovers::{MEMORY_FOLDER, folder_in, unique_prefix};
use crate::peer::{Connection, StrongSwan};
use crate::probe::Prober;
use crate::topology::{COMMON, ECHO_PORT, Size, Topology};
use crate::web::{Content, Target};
use crate::wire::{Sender, Tap};
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Free space the memory file system must have for captures and content, else they go to the
/// disk. There, writing them would delay the members' fsync.
const MEMORY_MIN_BYTES: u64 = 1 << 30;
/// Packets of interest on the client's tunnel device.
const RESETS_ONLY: &str = "tcp[tcpflags] & tcp-rst != 0";

/// What a bed consists of.
#[derive(Debug, Clone)]
pub struct BedOptions {
    /// How many members and targets.
    pub size: Size,
    /// Length of the file the targets serve.
    pub large_file_bytes: u64,
    /// Pace of a download of it.
    pub limit_bytes_per_s: u64,
}

/// A target on a member's host.
#[derive(Debug)]
struct MemberTarget {
    member: u8,
    services: Target,
}

/// Namespaces, wires, targets and folders. Members and the client are started on it.
#[derive(Debug)]
pub struct Bed {
    targets: Vec<Target>,
    member_target: Option<MemberTarget>,
    /// What the targets serve.
    pub content: Content,
    /// Namespaces and wires.
    pub topology: Topology,
    captures: TempDir,
    state: TempDir,
}

impl Bed {
    /// Builds it; the targets serve when this returns.
    ///
    /// # Errors
    /// When the machine refuses or a service does not come up; nothing is left behind.
    pub fn build(options: &BedOptions) -> Result<Self, BedError> {
        let topology = Topology::build(&unique_prefix(), options.size)?;
        let captures = large_folder()?;
        let state = folder_in(&std::env::temp_dir())?;
        let files = captures.path().join("files");
        fs::create_dir_all(&files).map_err(|e| BedError::file("create", &files, e))?;
        let content = Content::generate(&files, options.large_file_bytes)?;
        let limit = options.limit_bytes_per_s;
        let start = |number: u8| {
            let folder = state.path().join(format!("t{number}"));
            Target::start(topology.target(number)?, number, &files, &folder, limit)
        };
        let targets = (1..=options.size.targets).map(start).collect::<Result<_, _>>()?;
        Ok(Self { targets, member_target: None, content, topology, captures, state })
    }

    /// Has the host of member `number` serve as well, pacing each download at `limit_bytes_per_s`.
    ///
    /// # Errors
    /// When the machine refuses or a service does not come up.
    pub fn add_member_target(
        &mut self,
        member: u8,
        limit_bytes_per_s: u64,
    ) -> Result<(), BedError> {
        self.topology.add_member_target(member)?;
        let number = u8::try_from(self.targets.len()).unwrap_or(u8::MAX).saturating_add(1);
        let files = self.captures.path().join("files");
        let folder = self.state.path().join(format!("t{number}"));
        let namespace = self.topology.member(member)?;
        let services = Target::start(namespace, number, &files, &folder, limit_bytes_per_s)?;
        self.member_target = Some(MemberTarget { member, services });
        Ok(())
    }

    /// The member on whose host a target is, and that target's name.
    pub fn member_target(&self) -> Option<(u8, String)> {
        self.member_target.as_ref().map(|target| (target.member, target.services.name.clone()))
    }

    /// Starts the download of the large file from the target `wanted`.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start_download_from(&self, wanted: &str) -> Result<Download, BedError> {
        Download::start_from(&self.topology.client, Some(wanted.to_owned()))
    }

    /// Names of the targets.
    pub fn target_names(&self) -> Vec<String> {
        self.targets.iter().map(|target| target.name.clone()).collect()
    }

    /// A folder on disk for `name`, kept until the bed is dropped.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    /// A path for `name` on the memory file system where there is one: for what is written all
    /// the time, like a statistics segment.
    pub fn memory_path(&self, name: &str) -> PathBuf {
        self.captures.path().join(name)
    }

    /// Starts the IPsec client. It negotiates nothing yet.
    ///
    /// # Errors
    /// When strongSwan does not start.
    pub fn start_client(&self, connection: &Connection) -> Result<StrongSwan, BedError> {
        StrongSwan::start_client(&self.topology.client, &self.folder("client"), connection)
    }

    /// Starts probing a target's echo through the tunnel.
    ///
    /// # Errors
    /// When the prober cannot start.
    pub fn start_prober(&self) -> Result<Prober, BedError> {
        Prober::start(&self.topology.client, SocketAddrV4::new(COMMON, ECHO_PORT))
    }

    /// Starts the download of the large file through the tunnel.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start_download(&self) -> Result<Download, BedError> {
        Download::start(&self.topology.client)
    }

    /// Starts capturing every port of the outside wire and every target's.
    ///
    /// # Errors
    /// When a capture does not start.
    pub fn start_captures(&self) -> Result<Captures, BedError> {
        let mut captures = Captures { outside: Vec::new(), inside: Vec::new(), tunnel: None };
        let start = |end: &str| {
            let file = self.captures.path().join(format!("{end}.pcap"));
            Capture::start(&self.topology.wires, end, Direction::In, "", &file)
        };
        captures.outside.push((Sender::Client, start("client-out")?));
        for number in (1..).take(self.topology.members.len()) {
            captures.outside.push((Sender::Member(number), start(&format!("m{number}-out"))?));
        }
        for number in (1..).take(self.topology.targets.len()) {
            captures.inside.push((Sender::Target(number), start(&format!("t{number}-in"))?));
        }
        Ok(captures)
    }

    /// Starts capturing what the members send on the outside wire, and nothing else.
    ///
    /// # Errors
    /// When a capture does not start.
    pub fn start_member_captures(&self) -> Result<Captures, BedError> {
        let mut captures = Captures { outside: Vec::new(), inside: Vec::new(), tunnel: None };
        for number in (1..).take(self.topology.members.len()) {
            let end = format!("m{number}-out");
            let file = self.captures.path().join(format!("{end}.pcap"));
            let capture = Capture::start(&self.topology.wires, &end, Direction::In, "", &file)?;
            captures.outside.push((Sender::Member(number), capture));
        }
        Ok(captures)
    }

    /// Starts capturing the TCP resets on the client's tunnel device, once the client runs.
    ///
    /// # Errors
    /// When the capture does not start.
    pub fn start_tunnel_capture(&self, captures: &mut Captures) -> Result<(), BedError> {
        let file = self.captures.path().join("client-tunnel.pcap");
        let client = &self.topology.client;
        let capture = Capture::start(client, "ipsec0", Direction::Both, RESETS_ONLY, &file)?;
        captures.tunnel = Some(capture);
        Ok(())
    }

    /// Copies captures, logs and configurations to `folder`, and names the copied captures.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn keep_files(&self, folder: &Path) -> Result<Vec<String>, BedError> {
        fs::create_dir_all(folder).map_err(|e| BedError::file("create", folder, e))?;
        let logs = ["cluster", "client", "t1", "t2", "t3"].map(|name| self.folder(name));
        let mut captures = Vec::new();
        for source in std::iter::once(self.captures.path()).chain(logs.iter().map(PathBuf::as_path))
        {
            let Ok(entries) = fs::read_dir(source) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                let Some(copy) = kept_name(source, &path).map(|name| folder.join(name)) else {
                    continue;
                };
                fs::copy(&path, &copy).map_err(|e| BedError::file("copy", &path, e))?;
                let is_capture = copy.extension().is_some_and(|kind| kind == "pcap");
                captures.extend(is_capture.then(|| copy.display().to_string()));
            }
        }
        captures.sort();
        Ok(captures)
    }
}

/// Under which name a file is kept: captures and logs only, never keys.
fn kept_name(source: &Path, path: &Path) -> Option<String> {
    let folder = source.file_name()?.to_str()?;
    let name = path.file_name()?.to_str()?;
    match path.extension()?.to_str()? {
        "pcap" => Some(name.to_owned()),
        "log" if folder.starts_with("holdfast-bed") => Some(format!("tcpdump-{name}")),
        "log" => Some(format!("{folder}-{name}")),
        _ => None,
    }
}

/// The running captures of a bed.
#[derive(Debug)]
pub struct Captures {
    outside: Vec<(Sender, Capture)>,
    inside: Vec<(Sender, Capture)>,
    tunnel: Option<Capture>,
}

/// The finished captures of a bed.
#[derive(Debug)]
pub struct CapturedWires {
    /// One for each port of the outside wire.
    pub outside: Vec<Tap>,
    /// One for each target's port of the inside wire.
    pub inside: Vec<Tap>,
    /// The client's tunnel device: TCP resets only.
    pub tunnel: Option<crate::capture::CaptureFile>,
}

impl Captures {
    /// Ends all captures.
    ///
    /// # Errors
    /// When one of them is not known to be complete.
    pub fn finish(self) -> Result<CapturedWires, BedError> {
        let finish = |captures: Vec<(Sender, Capture)>| {
            let taps = captures
                .into_iter()
                .map(|(sender, capture)| Ok(Tap { sender, file: capture.finish()? }));
            taps.collect::<Result<Vec<_>, BedError>>()
        };
        let tunnel = self.tunnel.map(Capture::finish).transpose()?;
        Ok(CapturedWires { outside: finish(self.outside)?, inside: finish(self.inside)?, tunnel })
    }
}

impl CapturedWires {
    /// Frames that the kernel could not hand to a capture.
    pub fn dropped_frames(&self) -> u64 {
        let taps = self.outside.iter().chain(&self.inside).map(|tap| tap.file.dropped_frames);
        taps.sum::<u64>() + self.tunnel.as_ref().map_or(0, |file| file.dropped_frames)
    }

    /// The files.
    pub fn paths(&self) -> Vec<&Path> {
        let taps = self.outside.iter().chain(&self.inside).map(|tap| tap.file.path.as_path());
        taps.chain(self.tunnel.iter().map(|file| file.path.as_path())).collect()
    }
}

fn large_folder() -> Result<TempDir, BedError> {
    let memory = Path::new(MEMORY_FOLDER);
    let free = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    if free >= MEMORY_MIN_BYTES { folder_in(memory) } else { folder_in(&std::env::temp_dir()) }
}
