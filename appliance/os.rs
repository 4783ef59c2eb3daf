//! The doors to the system that Rust cannot check: mapping a file for reading, for counting and for
//! reading what is being counted, opening a tun device, and asking for real-time scheduling. Nothing
//! else in the shell is unsafe.
#![allow(unsafe_code, reason = "mmap, TUNSETIFF and sched_setscheduler have no safe interface")]

use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maps a whole file for reading.
///
/// # Errors
/// What the system says.
pub fn map_for_reading(file: &File) -> io::Result<Mmap> {
    // SAFETY: the files mapped here are the log's segments before the storage thread runs and the
    // statistics segment. The data directory is locked by this process, so nobody truncates a
    // segment while it is read; the statistics segment never changes its length.
    unsafe { Mmap::map(file) }
}

/// Counters in a mapped file, shared with whoever maps it for reading.
#[derive(Debug)]
pub struct MappedCounters {
    mapping: MmapMut,
    offset_words: usize,
}

impl MappedCounters {
    /// Maps `file` and offers its 64-bit words from `offset_words` on as counters.
    ///
    /// # Errors
    /// What the system says.
    pub fn map(file: &File, offset_words: usize) -> io::Result<Self> {
        // SAFETY: the file was created for this purpose, has its final length, and every access
        // through this mapping after its header was written is an atomic one.
        let mapping = unsafe { MmapMut::map_mut(file)? };
        Ok(Self { mapping, offset_words })
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &[AtomicU64] {
        let words = self.mapping.len() / size_of::<AtomicU64>();
        let start = self.mapping.as_ptr().cast::<AtomicU64>();
        // SAFETY: a mapping starts on a page boundary, so it is aligned for AtomicU64, which has
        // the layout of u64 and accepts every bit pattern; `words` whole words lie inside the
        // mapping; the slice borrows from it; nobody forms a `&mut` to these bytes.
        let all = unsafe { std::slice::from_raw_parts(start, words) };
        all.get(self.offset_words..).unwrap_or_default()
    }
}

/// Copies the whole 64-bit words of a file in which another process may be counting.
///
/// # Errors
/// What the system says.
pub fn load_words(file: &File) -> io::Result<Vec<u64>> {
    let mapping = map_for_reading(file)?;
    let words = mapping.len() / size_of::<AtomicU64>();
    let start = mapping.as_ptr().cast::<AtomicU64>();
    // SAFETY: as in `MappedCounters::counters`; the pages may be read-only, and relaxed loads of a
    // native word are all that happens to them.
    let all = unsafe { std::slice::from_raw_parts(start, words) };
    Ok(all.iter().map(|word| word.load(Ordering::Relaxed)).collect())
}

/// Opens a tun device that carries bare IP packets and vanishes with the returned file.
///
/// # Errors
/// What the system says: no such feature, not permitted (`CAP_NET_ADMIN`), or the name is taken.
pub fn open_tun(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK)?;
    // SAFETY: `ifreq` is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: it ends the name.
    let room = request.ifr_name.len().saturating_sub(1);
    if name.is_empty() || name.len() > room {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a device's name"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which is alive.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if outcome == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}

/// Asks the system to run the calling thread before all ordinary ones.
///
/// A tick that comes late makes a lease expire and an election start; a controller that shares its
/// core with ordinary work should come first.
///
/// # Errors
/// Usually that the process may not (`CAP_SYS_NICE`).
pub fn schedule_first_in_first_out(priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 names the calling thread and `parameter` is alive during the call.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
