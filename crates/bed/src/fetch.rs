//! The client's HTTP: one long download that records every pause, and many short connections.

use crate::error::BedError;
use crate::namespace::Namespace;
use crate::probe::longest_gap;
use crate::time::Wall;
use crate::topology::{COMMON, HTTP_PORT};
use crate::web::{LARGE_FILE, WHO, hexadecimal};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A download without a byte for this long has failed.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// A short connection that takes longer has failed.
const SHORT_LIMIT: Duration = Duration::from_secs(10);
/// The longest response head that is understood.
const HEAD_LIMIT_BYTES: usize = 8192;
/// Records closer together than this are merged, so that a long download stays small.
const RECORD_INTERVAL_NS: u64 = 1_000_000;

/// Connections tried to meet a certain target: with four of them each meets it once in four.
const CONNECTIONS_MAX: usize = 200;

/// What a download saw.
#[derive(Debug, Clone, Default)]
pub struct DownloadLog {
    /// Body bytes received in total, by time.
    pub progress: Vec<(Wall, u64)>,
    /// Length of the body as announced.
    pub announced_bytes: u64,
    /// SHA-256 of what came, in hexadecimal.
    pub sha256: String,
    /// Which target served it.
    pub target: String,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
}

impl DownloadLog {
    /// Body bytes received.
    pub fn bytes(&self) -> u64 {
        self.progress.last().map_or(0, |&(_, total)| total)
    }

    /// The longest time without a new byte that reaches into the window.
    pub fn longest_stall_ms(&self, from: Wall, to: Wall) -> f64 {
        let Some(&(end, _)) = self.progress.last() else { return to.ms_since(from) };
        let end = if self.failure.is_some() { to } else { to.min(end) };
        longest_gap(self.progress.iter().map(|&(at, _)| at), from, end).0
    }

    /// Body bytes received by `at`.
    pub fn bytes_at(&self, at: Wall) -> u64 {
        let after = self.progress.partition_point(|&(when, _)| when <= at);
        after.checked_sub(1).and_then(|i| self.progress.get(i)).map_or(0, |&(_, total)| total)
    }
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicU64,
    done: AtomicBool,
    log: Mutex<DownloadLog>,
}

/// A running download.
#[derive(Debug)]
pub struct Download {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

impl Download {
    /// Starts fetching the large file from the common address, from within `namespace`.
    ///
    /// # Errors
    /// When the thread cannot start.
    pub fn start(namespace: &Namespace) -> Result<Self, BedError> {
        Self::start_from(namespace, None)
    }

    /// As [`Self::start`], from the target `wanted`: connections that meet another are given up.
    ///
    /// # Errors
    /// When the thread cannot start.
    pub fn start_from(namespace: &Namespace, wanted: Option<String>) -> Result<Self, BedError> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = namespace.spawn("download", move || {
            let mut log = DownloadLog::default();
            log.failure =
                fetch_large(&own, &mut log, wanted.as_deref()).err().map(|e| e.to_string());
            *own.log.lock().unwrap_or_else(PoisonError::into_inner) = log;
            own.done.store(true, Ordering::Release);
        })?;
        Ok(Self { shared, thread })
    }

    /// Body bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Whether it has ended, well or not.
    pub fn is_done(&self) -> bool {
        self.shared.done.load(Ordering::Acquire)
    }

    /// Waits for its end and yields what it saw.
    ///
    /// # Errors
    /// When the thread itself failed.
    pub fn finish(self) -> Result<DownloadLog, BedError> {
        let joined = self.thread.join();
        let ended = joined.map_err(|_| io::Error::other("the download panicked"));
        ended.and_then(|inner| inner).map_err(|e| BedError::io("download", e))?;
        Ok(self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn fetch_large(shared: &Shared, log: &mut DownloadLog, wanted: Option<&str>) -> io::Result<()> {
    let (mut stream, head, early) = reach(wanted)?;
    log.announced_bytes = head.content_length;
    log.target = head.target;
    let mut digest = Sha256::new();
    let result = read_body(&mut stream, &early, shared, log, &mut digest);
    log.sha256 = hexadecimal(&digest.finalize());
    result
}

/// A connection to the wanted target. Which one a connection meets is left to its port.
fn reach(wanted: Option<&str>) -> io::Result<(TcpStream, Head, Vec<u8>)> {
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = request(&format!("/{LARGE_FILE}"), READ_LIMIT)?;
        let (head, early) = read_head(&mut stream)?;
        if wanted.is_none_or(|wanted| wanted == head.target) {
            return Ok((stream, head, early));
        }
    }
    Err(io::Error::other(format!("no connection meets {}", wanted.unwrap_or_default())))
}

fn read_body(
    stream: &mut TcpStream,
    early: &[u8],
    shared: &Shared,
    log: &mut DownloadLog,
    digest: &mut Sha256,
) -> io::Result<()> {
    digest.update(early);
    let mut total = early.len() as u64;
    let mut buffer = vec![0u8; 256 * 1024];
    loop {
        let length = read_some(stream, &mut buffer)?;
        if length == 0 {
            break;
        }
        digest.update(buffer.get(..length).unwrap_or_default());
        total += length as u64;
        shared.bytes.store(total, Ordering::Relaxed);
        record(&mut log.progress, Wall::now(), total);
    }
    if total == log.announced_bytes {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::UnexpectedEof, format!("ended after {total} bytes")))
}

/// Adds a record, or moves the newest one when it belongs to the same millisecond. The first of a
/// millisecond keeps its time: merging must not shorten a pause before it.
fn record(progress: &mut Vec<(Wall, u64)>, at: Wall, total: u64) {
    match progress.last_mut() {
        Some((since, bytes)) if at.0 - since.0.min(at.0) < RECORD_INTERVAL_NS => *bytes = total,
        _ => progress.push((at, total)),
    }
}

fn request(path: &str, limit: Duration) -> io::Result<TcpStream> {
    let server = SocketAddr::V4(SocketAddrV4::new(COMMON, HTTP_PORT));
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.set_nodelay(true)?;
    let text = format!("GET {path} HTTP/1.1\r\nHost: {COMMON}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes())?;
    Ok(stream)
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    content_length: u64,
    target: String,
}

/// One read, begun again when a signal interrupts it.
fn read_some(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads the response head and the first body bytes that came with it.
fn read_head(stream: &mut impl Read) -> io::Result<(Head, Vec<u8>)> {
    let mut received = Vec::new();
    let mut buffer = [0u8; 2048];
    loop {
        let length = read_some(stream, &mut buffer)?;
        received.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = received.split_off(end + 4);
            return Ok((parse_head(&String::from_utf8_lossy(&received))?, body));
        }
        if length == 0 || received.len() > HEAD_LIMIT_BYTES {
            return Err(io::Error::new(ErrorKind::InvalidData, "no response head"));
        }
    }
}

fn parse_head(text: &str) -> io::Result<Head> {
    let invalid = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut lines = text.lines();
    let status = lines.next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        return Err(invalid(status));
    }
    let fields: BTreeMap<String, &str> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let length = fields.get("content-length").and_then(|v| v.parse().ok());
    Ok(Head {
        content_length: length.ok_or_else(|| invalid("no content length"))?,
        target: fields.get("holdfast-target").copied().unwrap_or_default().to_owned(),
    })
}

/// What came of many short connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShortConnections {
    /// Connections each target served.
    pub per_target: BTreeMap<String, u64>,
    /// Why the others failed.
    pub failures: Vec<String>,
}

/// Opens `count` connections from within `namespace`, a few at a time, each asking who serves it.
///
/// # Errors
/// When a thread cannot start.
pub fn short_connections(namespace: &Namespace, count: u32) -> Result<ShortConnections, BedError> {
    const AT_A_TIME: usize = 4;
    let left = Arc::new(AtomicU32::new(count));
    let threads = (0..AT_A_TIME).map(|_| {
        let left = Arc::clone(&left);
        namespace.spawn("connections", move || ask_until_none_is_left(&left))
    });
    let threads: Vec<_> = threads.collect::<Result<_, _>>()?;
    let mut all = ShortConnections::default();
    for thread in threads {
        let ended = thread.join().map_err(|_| io::Error::other("a connection panicked"));
        let part = ended.and_then(|p| p).map_err(|e| BedError::io("short connections", e))?;
        all.failures.extend(part.failures);
        for (target, served) in part.per_target {
            *all.per_target.entry(target).or_default() += served;
        }
    }
    Ok(all)
}

fn ask_until_none_is_left(left: &AtomicU32) -> ShortConnections {
    let mut part = ShortConnections::default();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        match ask_who() {
            Ok(target) => *part.per_target.entry(target).or_default() += 1,
            Err(e) => part.failures.push(e.to_string()),
        }
    }
    part
}

fn ask_who() -> io::Result<String> {
    let mut stream = request(WHO, SHORT_LIMIT)?;
    let (head, mut body) = read_head(&mut stream)?;
    stream.read_to_end(&mut body)?;
    let named = String::from_utf8_lossy(&body).trim().to_owned();
    if named == head.target && !named.is_empty() {
        return Ok(named);
    }
    Err(io::Error::new(ErrorKind::InvalidData, format!("served by {named:?}/{:?}", head.target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Wall {
        Wall::default().plus_ms(ms)
    }

    #[test]
    fn a_head_and_the_body_bytes_behind_it_are_told_apart() {
        let text =
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nHoldfast-Target: target2\r\n\r\ntarget2";
        let (head, body) = read_head(&mut text.as_slice()).expect("a head");
        assert_eq!(head, Head { content_length: 7, target: "target2".to_owned() });
        assert_eq!(body, b"target2");
    }

    #[test]
    fn a_refusal_and_a_cut_head_are_errors() {
        assert!(parse_head("HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n").is_err());
        assert!(parse_head("HTTP/1.1 200 OK\r\n").is_err());
        assert!(read_head(&mut b"HTTP/1.1 200".as_slice()).is_err());
    }

    #[test]
    fn the_longest_stall_is_found_in_its_window_only() {
        let progress = (0..100).chain(400..500).map(|ms| (at(ms), ms)).collect();
        let log = DownloadLog { progress, ..DownloadLog::default() };
        assert_eq!(log.longest_stall_ms(at(50), at(450)), 301.0);
        assert!(log.longest_stall_ms(at(0), at(90)) <= 1.0);
        assert!(log.longest_stall_ms(at(450), at(900)) <= 1.0, "the end is no stall");
        assert_eq!(log.bytes_at(at(200)), 99);
    }

    #[test]
    fn a_download_that_failed_stalls_to_the_end_of_the_window() {
        let progress = (0..100).map(|ms| (at(ms), ms)).collect();
        let failure = Some("reset".to_owned());
        let log = DownloadLog { progress, failure, ..DownloadLog::default() };
        assert!(log.longest_stall_ms(at(50), at(1000)) > 900.0);
    }

    #[test]
    fn records_of_one_millisecond_are_merged() {
        let mut progress = Vec::new();
        for ns in [0, 400_000, 900_000, 1_200_000] {
            record(&mut progress, Wall(ns), ns);
        }
        assert_eq!(progress, vec![(Wall(0), 900_000), (Wall(1_200_000), 1_200_000)]);
    }
}
