//! Time in cycles of the time stamp counter.

use std::fs;
use std::time::Duration;

/// What the counter is taken for where its rate cannot be read: then a cycle is a nanosecond.
const UNKNOWN_MHZ: f64 = 1000.0;

/// The rate of the processor's time stamp counter.
///
/// Linux derives BogoMIPS from it when the counter is invariant: twice the rate in MHz. So the
/// monotonic clock, which is scaled from the same counter, can be read as cycles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tsc {
    pub(crate) mhz: f64,
}

impl Tsc {
    pub(crate) fn of_this_machine() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let mips = field(&info, "bogomips").and_then(|value| value.parse::<f64>().ok());
        Self { mhz: mips.map_or(UNKNOWN_MHZ, |mips| mips / 2.0) }
    }

    pub(crate) fn cycles(self, elapsed: Duration) -> f64 {
        elapsed.as_secs_f64() * self.mhz * 1e6
    }
}

/// Name of the processor and how many there are.
pub(crate) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = field(&info, "model name").unwrap_or("unknown processor");
    let count = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("{count} x {model}")
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}
