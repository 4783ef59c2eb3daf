//! Faults done to members, and undone.

use super::disk::Disk;
use super::fault::{Fault, Link};
use crate::bed::Bed;
use crate::cuts::{Way, cut, lift};
use crate::error::BedError;
use crate::leftovers::folder_in;
use crate::member::Cluster;
use crate::process::run;
use crate::time::Wall;
use crate::wait::let_pass;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Name of the rules that cut a member off one way.
const CUT: &str = "chaos";
/// A clock that differs by days, for a restarted member.
const OTHER_CLOCK: [&str; 5] =
    ["unshare", "--time", "--boottime=777777", "--monotonic=777777", "--"];
/// Stops one thread by ptrace (which stops no other), until it is killed itself.
const STOP_THREAD: &str = "
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
thread = int(sys.argv[1])
if libc.ptrace(SEIZE, thread, None, None) or libc.ptrace(INTERRUPT, thread, None, None):
    sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(thread, WALL)
time.sleep(float(sys.argv[2]))
";

/// Every member's disk, and what is to be undone.
#[derive(Debug)]
pub struct Faults {
    // Order matters: disks are unmounted before their files go.
    disks: BTreeMap<u8, Disk>,
    _images: TempDir,
}

impl Faults {
    /// Gives every member a disk of its own, before it starts.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn prepare(bed: &Bed) -> Result<Self, BedError> {
        let images = folder_in(Path::new(crate::leftovers::MEMORY_FOLDER))?;
        let mut disks = BTreeMap::new();
        for number in (1..).take(bed.topology.members.len()) {
            let image = images.path().join(format!("m{number}.img"));
            let disk = Disk::mount_new(&image, &bed.folder(&format!("m{number}/data")))?;
            disks.insert(number, disk);
        }
        Ok(Self { disks, _images: images })
    }

    fn disk(&self, number: u8) -> Result<&Disk, BedError> {
        self.disks.get(&number).ok_or(BedError::Interrupted)
    }

    /// Does `fault` to `member` and tells when. Handovers are asked for elsewhere.
    ///
    /// # Errors
    /// When the bed cannot.
    pub fn begin(
        &self,
        bed: &Bed,
        cluster: &mut Cluster,
        member: u8,
        fault: Fault,
        lasts: Duration,
    ) -> Result<Wall, BedError> {
        match fault {
            Fault::Kill | Fault::KillTwice | Fault::ClockJump => cluster.kill(member),
            Fault::Zombie | Fault::KernelPanic => cluster.signal(member, Signal::STOP),
            Fault::PowerOff => {
                let at = cluster.kill(member)?;
                Link::ALL.into_iter().try_for_each(|link| set_link(bed, member, link, false))?;
                Ok(at)
            }
            Fault::LinkDown(link) => {
                let at = Wall::now();
                set_link(bed, member, link, false).map(|()| at)
            }
            Fault::Deaf | Fault::Mute => {
                let at = Wall::now();
                cut_one_way(bed, member, fault == Fault::Deaf).map(|()| at)
            }
            Fault::FullDisk => {
                let at = Wall::now();
                self.disk(member)?.fill().map(|()| at)
            }
            Fault::FailingDisk => {
                let at = Wall::now();
                self.disk(member)?.break_down().map(|()| at)
            }
            Fault::StuckWorker => stop_worker(bed, cluster, member, lasts),
            Fault::Handover => Ok(Wall::now()),
        }
    }

    /// Undoes it: afterwards the member runs, its links and disk are well.
    ///
    /// # Errors
    /// When the bed cannot.
    pub fn end(
        &mut self,
        bed: &Bed,
        cluster: &mut Cluster,
        member: u8,
        fault: Fault,
    ) -> Result<(), BedError> {
        match fault {
            Fault::Kill | Fault::KillTwice => cluster.bury(member),
            Fault::KernelPanic => {
                cluster.kill(member)?;
                cluster.bury(member)
            }
            Fault::ClockJump => {
                cluster.bury(member)?;
                return cluster.start_under(bed, member, &OTHER_CLOCK);
            }
            Fault::Zombie => return cluster.signal(member, Signal::CONT).map(drop),
            Fault::PowerOff => {
                Link::ALL.into_iter().try_for_each(|link| set_link(bed, member, link, true))?;
                cluster.bury(member)
            }
            Fault::LinkDown(link) => return set_link(bed, member, link, true),
            Fault::Deaf | Fault::Mute => {
                return lift(bed.topology.member(member)?, CUT);
            }
            Fault::FullDisk => self.disk(member)?.relieve(),
            Fault::FailingDisk => {
                // Whatever it does with such a disk, only a restart can use a repaired one.
                if cluster.process_id(member).is_some() {
                    cluster.kill(member)?;
                }
                cluster.bury(member)?;
                self.disks.get_mut(&member).ok_or(BedError::Interrupted)?.repair()
            }
            Fault::StuckWorker | Fault::Handover => return Ok(()),
        }?;
        restart_if_ended(bed, cluster, member).map(drop)
    }
}

/// Starts a member that does not run, and tells whether it did not.
///
/// # Errors
/// When it cannot start.
pub fn restart_if_ended(bed: &Bed, cluster: &mut Cluster, member: u8) -> Result<bool, BedError> {
    if cluster.process_id(member).is_some() {
        return Ok(false);
    }
    cluster.bury(member)?;
    cluster.start(bed, member)?;
    Ok(true)
}

/// A link without carrier: its far end is taken down, as when a cable is pulled.
fn set_link(bed: &Bed, member: u8, link: Link, up: bool) -> Result<(), BedError> {
    let state = if up { "up" } else { "down" };
    bed.topology.wires.links(&format!("link set m{member}-{} {state}\n", link.far_end()))
}

fn cut_one_way(bed: &Bed, member: u8, incoming: bool) -> Result<(), BedError> {
    let host = bed.topology.member(member)?;
    match incoming {
        true => cut(host, CUT, Way::In, "iifname mgmt"),
        false => cut(host, CUT, Way::Out, "oifname mgmt"),
    }
}

/// Stops the thread of a member's first worker for a while.
fn stop_worker(
    bed: &Bed,
    cluster: &mut Cluster,
    member: u8,
    lasts: Duration,
) -> Result<Wall, BedError> {
    let fault = |detail: String| BedError::Answer { program: "bed".to_owned(), detail };
    let id = cluster.process_id(member);
    let id = id.ok_or_else(|| fault(format!("member {member} does not run")))?;
    let thread = worker_thread(id).ok_or_else(|| fault("found no worker thread".to_owned()))?;
    let script = bed.folder("stop-thread.py");
    fs::write(&script, STOP_THREAD).map_err(|e| BedError::file("write", &script, e))?;
    let at = Wall::now();
    let seconds = lasts.as_secs_f64().to_string();
    run("python3", &[&script.display().to_string(), &thread.to_string(), &seconds])?;
    // A moment for the thread to go on after its tracer has ended.
    let_pass(Duration::from_millis(1))?;
    Ok(at)
}

fn worker_thread(process: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let is_worker = |path: &Path| {
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        name.contains("worker")
    };
    let found = threads.flatten().map(|entry| entry.path()).find(|path| is_worker(path))?;
    found.file_name()?.to_str()?.parse().ok()
}
