//! The prober: one UDP echo a millisecond through the tunnel, and what its silence tells.

use crate::error::BedError;
use crate::namespace::Namespace;
use crate::time::Wall;
use rustix::process::setpriority_process;
use std::io::{self, ErrorKind};
use std::net::{SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two probes.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(1);
/// A prober this late skips the deadlines it missed instead of sending a burst.
const LATE_LIMIT: Duration = Duration::from_millis(20);
/// Length of a probe: its number, then filling.
const PROBE_BYTES: usize = 32;
/// Priority of the probing threads: on a crowded machine the measure must not be what waits.
const NICENESS: i32 = -10;

/// Everything a prober saw.
#[derive(Debug, Clone, Default)]
pub struct ProbeLog {
    /// When each probe was sent, by number.
    pub sent: Vec<Wall>,
    /// Number and time of each answer, in order of arrival.
    pub answers: Vec<(u32, Wall)>,
}

/// The silence around a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outage {
    /// Longest time between two answers.
    pub outage_ms: f64,
    /// When it began.
    pub from: Wall,
    /// When it ended.
    pub to: Wall,
    /// Probes sent in the window.
    pub probes_sent: u64,
    /// Of these, never answered.
    pub probes_lost: u64,
    /// Longest time between two sent probes: a large one means the machine stalled, not the
    /// product.
    pub longest_send_gap_ms: f64,
}

impl ProbeLog {
    /// The longest silence that touches the window from `from` to `to`. A silence that has not
    /// ended by then counts up to `to`.
    pub fn outage(&self, from: Wall, to: Wall) -> Outage {
        let times = self.answers.iter().map(|&(_, at)| at);
        let (outage_ms, start, end) = longest_gap(times, from, to);
        let (_, first, last) = (0, self.first_sent_at(from), self.first_sent_at(to));
        let mut lost = last - first;
        for &(number, _) in &self.answers {
            lost -= usize::from((first..last).contains(&(number as usize)));
        }
        let sent = self.sent.get(first..last).unwrap_or_default().iter().copied();
        Outage {
            outage_ms,
            from: start,
            to: end,
            probes_sent: (last - first) as u64,
            probes_lost: lost as u64,
            longest_send_gap_ms: longest_gap(sent, from, to).0,
        }
    }

    fn first_sent_at(&self, at: Wall) -> usize {
        self.sent.partition_point(|&sent| sent < at)
    }
}

/// The longest gap between consecutive `times` that reaches into the window, its begin and end.
/// `times` ascend. The edges of the window bound the first and the last gap.
pub fn longest_gap(times: impl Iterator<Item = Wall>, from: Wall, to: Wall) -> (f64, Wall, Wall) {
    let mut longest = (0.0, from, from);
    let mut previous = from;
    let mut consider = |start: Wall, end: Wall| {
        let gap = end.ms_since(start);
        if gap > longest.0 {
            longest = (gap, start, end);
        }
    };
    for at in times {
        if at < from {
            continue;
        }
        if at > to {
            break;
        }
        consider(previous, at);
        previous = at;
    }
    consider(previous, to);
    longest
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    last_answer: AtomicU64,
    answered: AtomicU64,
    log: Mutex<ProbeLog>,
}

impl Shared {
    fn with_log<T>(&self, change: impl FnOnce(&mut ProbeLog) -> T) -> T {
        change(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running prober.
#[derive(Debug)]
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<io::Result<()>>>>,
}

impl Prober {
    /// Starts probing `server` from `namespace`.
    ///
    /// # Errors
    /// When the thread cannot start.
    pub fn start(namespace: &Namespace, server: SocketAddrV4) -> Result<Self, BedError> {
        Self::start_paced(namespace, server, PROBE_INTERVAL)
    }

    /// As [`start`](Self::start), with a probe each `interval`.
    ///
    /// # Errors
    /// When the thread cannot start.
    pub fn start_paced(
        namespace: &Namespace,
        server: SocketAddrV4,
        interval: Duration,
    ) -> Result<Self, BedError> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = namespace.spawn("prober", move || probe(&own, server, interval))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// When the newest answer came, if there was one.
    pub fn last_answer(&self) -> Option<Wall> {
        match self.shared.last_answer.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Wall(at)),
        }
    }

    /// How many answers came so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Everything seen so far.
    pub fn log(&self) -> ProbeLog {
        self.shared.with_log(|log| log.clone())
    }

    /// Ends the prober and yields what it saw.
    ///
    /// # Errors
    /// When it could not work at all.
    pub fn finish(mut self) -> Result<ProbeLog, BedError> {
        self.stop().map_err(|e| BedError::io("probe through the tunnel", e))?;
        Ok(self.log())
    }

    fn stop(&mut self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| io::Error::other("the prober panicked"))??
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn probe(shared: &Arc<Shared>, server: SocketAddrV4, interval: Duration) -> io::Result<()> {
    // Without the privilege it measures at normal priority.
    let _ = setpriority_process(None, NICENESS);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let receiving = socket.try_clone()?;
    let listener = Arc::clone(shared);
    let receiver = thread::Builder::new()
        .name("probe answers".to_owned())
        .spawn(move || receive(&listener, &receiving))?;
    send(shared, &socket, interval);
    receiver.join().map_err(|_| io::Error::other("the receiver panicked"))?
}

/// Sends by absolute deadlines, so a late probe does not delay those after it.
fn send(shared: &Shared, socket: &UdpSocket, interval: Duration) {
    let mut deadline = Instant::now();
    let mut number = 0u32;
    let mut probe = [0u8; PROBE_BYTES];
    while !shared.stop.load(Ordering::Relaxed) {
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        if let Some(head) = probe.first_chunk_mut::<4>() {
            *head = number.to_be_bytes();
        }
        shared.with_log(|log| log.sent.push(Wall::now()));
        // A probe the machine refuses to send is a lost probe.
        let _ = socket.send(&probe);
        number = number.wrapping_add(1);
        deadline += interval;
        let now = Instant::now();
        if now.saturating_duration_since(deadline) > LATE_LIMIT {
            deadline = now;
        }
    }
}

fn receive(shared: &Shared, socket: &UdpSocket) -> io::Result<()> {
    let _ = setpriority_process(None, NICENESS);
    let mut answer = [0u8; PROBE_BYTES];
    while !shared.stop.load(Ordering::Relaxed) {
        match socket.recv(&mut answer) {
            Ok(PROBE_BYTES) => {
                let at = Wall::now();
                let number = answer.first_chunk().map_or(0, |head| u32::from_be_bytes(*head));
                shared.with_log(|log| log.answers.push((number, at)));
                shared.last_answer.store(at.0, Ordering::Relaxed);
                shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(e) if is_transient(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Silence, an interrupted wait, and what a network without its gateway answers.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Wall {
        Wall::default().plus_ms(ms)
    }

    /// A probe each millisecond for a second; nothing sent in `silent` is answered.
    fn log(silent: std::ops::Range<u64>) -> ProbeLog {
        let sent: Vec<Wall> = (0..1000).map(at).collect();
        let answers = (0..1000u64)
            .filter(|ms| !silent.contains(ms))
            .map(|ms| (ms as u32, Wall(at(ms).0 + 300_000)))
            .collect();
        ProbeLog { sent, answers }
    }

    #[test]
    fn the_outage_is_the_longest_silence_in_the_window() {
        let outage = log(400..450).outage(at(200), at(900));
        assert_eq!(outage.outage_ms, 51.0);
        assert_eq!((outage.probes_sent, outage.probes_lost), (700, 50));
        assert_eq!(outage.from, Wall(at(399).0 + 300_000));
        assert_eq!(outage.longest_send_gap_ms, 1.0);
    }

    #[test]
    fn a_silence_outside_the_window_does_not_count() {
        assert!(log(400..450).outage(at(500), at(900)).outage_ms <= 1.0);
    }

    #[test]
    fn a_silence_that_never_ends_counts_to_the_end_of_the_window() {
        let outage = log(400..1000).outage(at(200), at(900));
        assert!(outage.outage_ms > 500.0, "{outage:?}");
        assert_eq!(outage.probes_lost, 500);
    }

    #[test]
    fn no_answer_at_all_is_one_long_outage() {
        let outage = log(0..1000).outage(at(0), at(900));
        assert_eq!((outage.outage_ms, outage.probes_lost), (900.0, 900));
    }
}
