//! Many seeds on many cores.

use crate::plan::Plan;
use crate::run::{Outcome, run};
use holdfast_cluster::Mutation;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failed seeds kept: the first ones tell.
const FAILED_MAX: usize = 100;

/// How often progress is told.
const PROGRESS_MS: u64 = 1_000;

/// Which seeds to run, and how.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub jobs: usize,
    /// The law that is broken on purpose.
    pub mutation: Option<Mutation>,
}

/// What a campaign showed.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds that failed.
    pub failures: u64,
    /// The first of them, with what was broken first.
    pub failed: Vec<(u64, String)>,
    /// Things that happened.
    pub steps: u64,
    /// Takeovers.
    pub takeovers: u64,
    /// Virtual outages, see the crate's front page.
    pub outages_ns: Vec<u64>,
}

impl Report {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.takeovers += outcome.takeovers;
        self.outages_ns.extend(outcome.outages_ns);
        if let Some(first) = outcome.failures.into_iter().next() {
            self.failures += 1;
            if self.failed.len() < FAILED_MAX {
                self.failed.push((seed, first));
            }
        }
    }

    /// The outage in milliseconds that so many per mille of the outages do not exceed.
    #[must_use]
    pub fn outage_ms(&self, per_mille: u64) -> Option<f64> {
        let mut sorted = self.outages_ns.clone();
        sorted.sort_unstable();
        let last = (sorted.len() as u64).checked_sub(1)?;
        let rank = usize::try_from((last * per_mille).div_ceil(1_000)).ok()?;
        sorted.get(rank).map(|ns| *ns as f64 / 1e6)
    }
}

/// Runs all seeds of a campaign; tells `progress` about once per second how far it is.
pub fn campaign(campaign: Campaign, progress: impl Fn(&Report, Duration)) -> Report {
    let next = AtomicU64::new(0);
    let report = Mutex::new(Report::default());
    let start = Instant::now();
    let snapshot = || report.lock().map(|report| report.clone()).unwrap_or_default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..campaign.jobs.max(1))
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= campaign.seeds {
                            break;
                        }
                        let seed = campaign.first.wrapping_add(number);
                        let mut plan = Plan::new(seed);
                        plan.setup.mutation = campaign.mutation;
                        let outcome = run(&plan);
                        if let Ok(mut report) = report.lock() {
                            report.add(seed, outcome);
                        }
                    }
                })
            })
            .collect();
        while !workers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::park_timeout(Duration::from_millis(PROGRESS_MS));
            progress(&snapshot(), start.elapsed());
        }
    });
    let mut report = snapshot();
    report.failed.sort_unstable();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let outages_ns = (1..=100).map(|ms| ms * 1_000_000).collect();
        let report = Report { outages_ns, ..Report::default() };
        assert_eq!(report.outage_ms(500), Some(51.0));
        assert_eq!(report.outage_ms(990), Some(100.0));
        assert_eq!(report.outage_ms(1_000), Some(100.0));
        assert_eq!(Report::default().outage_ms(500), None);
    }
}
