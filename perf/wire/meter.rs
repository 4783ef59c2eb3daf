//! The time a thread had of its processor.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Reads a thread's time.
///
/// A thread that polls is never idle. So its time on the processor is what its packets took, and other
/// work on the machine counts only by what it does to caches and clock rate.
#[derive(Debug)]
pub(crate) struct Meter(PathBuf);

impl Meter {
    /// Of a thread of a process.
    pub(crate) fn of(process: u32, thread: i32) -> Self {
        Self(format!("/proc/{process}/task/{thread}/schedstat").into())
    }

    /// Its time so far, as the kernel last added it up: a tick ago at most.
    pub(crate) fn busy(&self) -> Duration {
        let text = fs::read_to_string(&self.0).expect("the thread runs");
        let on_cpu = text.split(' ').next().and_then(|word| word.parse().ok());
        Duration::from_nanos(on_cpu.expect("the kernel counts"))
    }
}
