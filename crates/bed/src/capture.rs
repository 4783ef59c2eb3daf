//! Captures: tcpdump at the far end of a link, one per sender.
//!
//! Every capture records one direction only, what its link's owner sends. Together they hold each
//! frame of a wire exactly once, with its sender known by the port and not by what it claims.

use crate::error::BedError;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::time::Wall;
use crate::wait::wait_until;
use pcap_file::pcap::PcapReader;
use pcap_file::{DataLink, TsResolution};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Enough of each frame for every header and the explicit IV of ESP.
const SNAP_BYTES: &str = "96";
/// Whole frames of links without segmentation offload.
const WHOLE: &str = "2048";
/// Without it the kernel hands frames over in blocks, a second apart when little happens, and the last
/// block is lost at the end.
const IMMEDIATE: &str = "--immediate-mode";
/// Kernel buffer of each capture: about a second of the bed's busiest link.
const BUFFER_KIB: &str = "16384";

/// Which packets of a device to capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those that enter through the device: at the far end of a link, what its owner sends.
    In,
    /// Those that leave through the device: at its owner's end, what it sends.
    Out,
    /// All.
    Both,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    tcpdump: Process,
}

/// A finished capture.
#[derive(Debug, Clone)]
pub struct CaptureFile {
    /// The pcap file.
    pub path: PathBuf,
    /// Frames the kernel could not store: above 0, what the file proves is incomplete.
    pub dropped_frames: u64,
}

impl Capture {
    /// Starts capturing what passes `device` of `namespace` and matches `filter` into `file`. Of the
    /// last second before its end something may be missing.
    ///
    /// # Errors
    /// When tcpdump does not start to listen.
    pub fn start(
        namespace: &Namespace,
        device: &str,
        direction: Direction,
        filter: &str,
        file: &Path,
    ) -> Result<Self, BedError> {
        Self::start_with(namespace, (device, direction, filter), file, &[])
    }

    /// As [`start`](Self::start), up to the moment it ends: for a short capture of little.
    ///
    /// # Errors
    /// When tcpdump does not start to listen.
    pub fn start_short(
        namespace: &Namespace,
        device: &str,
        direction: Direction,
        filter: &str,
        file: &Path,
    ) -> Result<Self, BedError> {
        Self::start_with(namespace, (device, direction, filter), file, &[IMMEDIATE])
    }

    fn start_with(
        namespace: &Namespace,
        of: (&str, Direction, &str),
        file: &Path,
        settings: &[&str],
    ) -> Result<Self, BedError> {
        let mut capture = Self::begin(namespace, of, file, settings)?;
        capture.wait_until_listening()?;
        Ok(capture)
    }

    /// As [`start`](Self::start) for several devices of one namespace at once, everything that its
    /// owner sends on each, up to the moment it ends. Frames of devices in `whole` are kept whole.
    ///
    /// # Errors
    /// When one tcpdump does not start to listen.
    pub fn start_each(
        namespace: &Namespace,
        folder: &Path,
        devices: &[String],
        whole: impl Fn(&str) -> bool,
    ) -> Result<Vec<Self>, BedError> {
        let begin = |device: &String| {
            let file = folder.join(format!("{device}.pcap"));
            let settings = [IMMEDIATE, "-s", WHOLE];
            let settings = if whole(device) { &settings[..] } else { &settings[..1] };
            Self::begin(namespace, (device, Direction::In, ""), &file, settings)
        };
        let mut captures = devices.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
        captures.iter_mut().try_for_each(Self::wait_until_listening)?;
        Ok(captures)
    }

    fn begin(
        namespace: &Namespace,
        (device, direction, filter): (&str, Direction, &str),
        file: &Path,
        settings: &[&str],
    ) -> Result<Self, BedError> {
        let log = file.with_extension("log");
        // What a capture of the same name before said is not about this one.
        let _ = std::fs::remove_file(&log);
        let fixed = ["tcpdump", "-n", "-Z", "root", "-s", SNAP_BYTES, "-B", BUFFER_KIB];
        let mut command: Vec<&OsStr> = fixed.iter().chain(settings).map(OsStr::new).collect();
        let direction = match direction {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Both => "inout",
        };
        command.extend(["-Q", direction, "-i", device, "-w"].map(OsStr::new));
        command.push(file.as_os_str());
        command.extend((!filter.is_empty()).then_some(OsStr::new(filter)));
        let tcpdump = Process::start(namespace, "tcpdump", &log, &[], &command)?;
        Ok(Self { file: file.to_owned(), tcpdump })
    }

    fn wait_until_listening(&mut self) -> Result<(), BedError> {
        wait_until("tcpdump to listen", Duration::from_secs(10), || {
            self.tcpdump.expect_running()?;
            Ok(self.tcpdump.last_words(5).contains("listening on").then_some(()))
        })
    }

    /// Ends the capture, everything written.
    ///
    /// # Errors
    /// When tcpdump did not tell its figures, so that nothing says whether it is complete.
    pub fn finish(mut self) -> Result<CaptureFile, BedError> {
        self.tcpdump.stop(Signal::INT);
        let words = self.tcpdump.last_words(10);
        let dropped = dropped_frames(&words).ok_or_else(|| BedError::Capture {
            path: self.file.clone(),
            detail: format!("tcpdump told no figures: {words}"),
        })?;
        Ok(CaptureFile { path: self.file.clone(), dropped_frames: dropped })
    }
}

fn dropped_frames(words: &str) -> Option<u64> {
    let line = words.lines().find(|line| line.ends_with("dropped by kernel"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Reads a capture file, handing over each frame with its time. Yields the link type.
///
/// # Errors
/// When the file is no pcap file or a record is malformed.
pub fn read_frames(path: &Path, mut each: impl FnMut(Wall, &[u8])) -> Result<DataLink, BedError> {
    let fault = |detail: String| BedError::Capture { path: path.to_owned(), detail };
    let file = File::open(path).map_err(|e| fault(e.to_string()))?;
    let mut reader = PcapReader::new(BufReader::new(file)).map_err(|e| fault(e.to_string()))?;
    let header = reader.header();
    let nanoseconds_of_fraction = match header.ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1,
    };
    // Raw records: the reader's own conversion refuses frames longer than the snap length.
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.map_err(|e| fault(e.to_string()))?;
        let seconds = u64::from(packet.ts_sec) * 1_000_000_000;
        each(Wall(seconds + u64::from(packet.ts_frac) * nanoseconds_of_fraction), &packet.data);
    }
    Ok(header.datalink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_of_dropped_frames_is_found() {
        let words = "tcpdump: listening on m1-out\n^C12 packets captured\n\
                     14 packets received by filter\n3 packets dropped by kernel\n";
        assert_eq!(dropped_frames(words), Some(3));
        assert_eq!(dropped_frames("tcpdump: no such device"), None);
    }
}
