//! One worker thread: the loop around a poll.

use super::WorkerError;
use super::idle::{Idle, IdlePolicy, Pause};
use crate::clock;
use holdfast_datapath::PollResult;
use holdfast_dpdk_wrap::{Eal, RegisteredThread};
use holdfast_member::ThreadSight;
use rustix::thread::{CpuSet, Pid, gettid, sched_setaffinity, set_current_timer_slack};
use std::fmt;
use std::fs;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// How a thread is set up.
#[derive(Debug, Clone, Copy)]
pub(super) struct ThreadOptions {
    /// The worker's number.
    pub(super) worker: u32,
    /// The CPU it is bound to; `None` lets the system choose.
    pub(super) cpu: Option<usize>,
    pub(super) idle: IdlePolicy,
}

/// A running worker thread. Stopped and joined when dropped.
#[derive(Debug)]
pub(super) struct WorkerThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    id: Pid,
}

/// Wakes the controller, once until it has looked.
///
/// Worker: push events, then [`Bell::ring`]. Controller: find the ring empty, [`Bell::rearm`], look
/// once more. Both exchange the same flag: when the worker's exchange finds it set, it is ordered
/// before the controller's, whose second look then sees the worker's events. So no event waits for
/// the next one, and a worker enters the kernel at most once per look.
pub(super) struct Bell {
    rung: AtomicBool,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl WorkerThread {
    /// Starts a thread that builds its worker and polls it until it is stopped. Returns once the
    /// thread is set up.
    pub(super) fn start<P>(
        eal: Eal,
        options: ThreadOptions,
        bell: Arc<Bell>,
        mut poll: P,
    ) -> Result<Self, WorkerError>
    where
        P: FnMut(holdfast_packet::Nanos) -> PollResult + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let (report, set_up) = mpsc::channel();
        let stop_flag = Arc::clone(&stop);
        let body = move || {
            let identity = match set_up_this_thread(eal, options) {
                Ok(identity) => identity,
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let _ = report.send(Ok(gettid()));
            run(&mut poll, options.idle, &stop_flag, &bell);
            // Buffers go back while the thread still has its cache.
            drop(poll);
            drop(identity);
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{}", options.worker))
            .spawn(body)
            .map_err(WorkerError::Thread)?;
        match set_up.recv() {
            Ok(Ok(id)) => Ok(Self { stop, thread: Some(thread), id }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(WorkerError::Died { worker: options.worker }),
        }
    }

    /// What the system says of the thread; `None` when it says nothing. Reads a file of the kernel's:
    /// some microseconds.
    pub(super) fn sight(&self) -> Option<ThreadSight> {
        let path = format!("/proc/self/task/{}/stat", self.id.as_raw_nonzero());
        parse_sight(&fs::read_to_string(path).ok()?)
    }
}

/// What `stat` of a thread says (proc(5)): behind the name in brackets the state first, the time in the
/// program and in the kernel twelfth and thirteenth, in hundredths of a second.
fn parse_sight(stat: &str) -> Option<ThreadSight> {
    const NS_PER_TICK: u64 = 10_000_000;
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split(' ');
    let runnable = fields.next()? == "R";
    let mut times = fields.skip(10).map_while(|field| field.parse::<u64>().ok());
    let ticks = times.next()?.saturating_add(times.next()?);
    Some(ThreadSight { runnable, cpu_ns: ticks.saturating_mul(NS_PER_TICK) })
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Bell {
    pub(super) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { rung: AtomicBool::new(false), wake }
    }

    /// Wakes the controller unless it was woken and has not looked since.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// From now on [`Bell::ring`] wakes again.
    pub(super) fn rearm(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.rung).finish_non_exhaustive()
    }
}

fn set_up_this_thread(eal: Eal, options: ThreadOptions) -> Result<RegisteredThread, WorkerError> {
    if let Some(cpu) = options.cpu {
        let mut cpus = CpuSet::new();
        if cpu >= CpuSet::MAX_CPU {
            return Err(WorkerError::NoSuchCpu { cpu });
        }
        cpus.set(cpu);
        sched_setaffinity(None, &cpus).map_err(|_| WorkerError::NoSuchCpu { cpu })?;
    }
    // The kernel otherwise adds 50 microseconds to every sleep. Failing only costs latency.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    Ok(RegisteredThread::register(eal)?)
}

fn run(
    poll: &mut impl FnMut(holdfast_packet::Nanos) -> PollResult,
    policy: IdlePolicy,
    stop: &AtomicBool,
    bell: &Bell,
) {
    let mut idle = Idle::new(policy, clock::now());
    while !stop.load(Ordering::Relaxed) {
        let now = clock::now();
        let result = poll(now);
        if result.events_pushed {
            bell.ring();
        }
        match idle.after_poll(now, result.packets) {
            Pause::None => {}
            Pause::Relax => std::hint::spin_loop(),
            Pause::Sleep(time) => thread::sleep(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_bell_rings_once_until_it_is_rearmed() {
        let wakes = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&wakes);
        let bell = Bell::new(Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        bell.ring();
        bell.ring();
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        bell.rearm();
        bell.ring();
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_thread_is_seen_as_the_kernel_shows_it() {
        let stat = "7 (worker) R) S 1 2 3 0 -1 4194368 90 0 0 0 12 30 0 0 20 0 9 0 100 0 0";
        let seen = parse_sight(stat);
        assert_eq!(seen, Some(ThreadSight { runnable: false, cpu_ns: 420_000_000 }));
        for cut in ["", "7 (worker", "7 (worker) S 1 2 3"] {
            assert_eq!(parse_sight(cut), None, "{cut:?}");
        }
        let own = fs::read_to_string("/proc/thread-self/stat").unwrap();
        assert!(parse_sight(&own).is_some_and(|own| own.runnable));
    }

    #[test]
    fn the_loop_polls_rings_and_stops() {
        let stop = AtomicBool::new(false);
        let wakes = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&wakes);
        let bell = Bell::new(Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        let mut polls = 0;
        let mut poll = |_| {
            polls += 1;
            stop.store(polls == 500, Ordering::Relaxed);
            PollResult { packets: 0, events_pushed: polls == 7 }
        };
        run(&mut poll, IdlePolicy::Adaptive { sleep_us: 1 }, &stop, &bell);
        assert_eq!((polls, wakes.load(Ordering::Relaxed)), (500, 1));
    }
}
