//! Waiting for conditions, and stopping when the user asks.

use crate::error::BedError;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at a condition.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

fn interrupt_flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(Arc::default)
}

/// Turns SIGINT, SIGTERM and SIGHUP into [`BedError::Interrupted`] at the next wait, so that
/// everything unwinds and every guard runs.
///
/// # Errors
/// When a handler cannot be installed.
pub fn catch_signals() -> Result<(), BedError> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(interrupt_flag()))
            .map_err(|source| BedError::io("install a signal handler", source))?;
    }
    Ok(())
}

/// Fails once the user has asked to stop.
///
/// # Errors
/// [`BedError::Interrupted`].
pub fn check_interrupt() -> Result<(), BedError> {
    if interrupt_flag().load(Ordering::Relaxed) { Err(BedError::Interrupted) } else { Ok(()) }
}

/// Looks at `condition` until it yields something, for at most `limit`.
///
/// # Errors
/// [`BedError::Timeout`] naming `what`, [`BedError::Interrupted`], or the condition's own error.
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>, BedError>,
) -> Result<T, BedError> {
    let start = Instant::now();
    loop {
        check_interrupt()?;
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            let waited_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Err(BedError::Timeout {
                what: what.to_owned(),
                waited_ms,
                hint: String::new(),
            });
        }
        thread::sleep(LOOK_PAUSE);
    }
}

/// Lets `duration` pass, for instance to measure a baseline.
///
/// # Errors
/// [`BedError::Interrupted`].
pub fn let_pass(duration: Duration) -> Result<(), BedError> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        check_interrupt()?;
        thread::sleep(LOOK_PAUSE.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
