//! Many seeds on many cores.

use crate::outage::Outage;
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
    pub outages: Vec<Outage>,
}

impl Report {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.takeovers += outcome.takeovers;
        self.outages.extend(outcome.outages);
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
        percentile_ms(self.outages.iter().map(|outage| outage.answered_ns), per_mille)
    }

    /// The same of each part of the outages, with its name.
    pub fn parts_ms(&self, per_mille: u64) -> impl Iterator<Item = (&'static str, f64)> {
        let names = Outage::default().parts().map(|(name, _)| name);
        names.into_iter().enumerate().filter_map(move |(number, name)| {
            let parts =
                self.outages.iter().filter_map(|outage| outage.parts().get(number).copied());
            Some((name, percentile_ms(parts.map(|(_, ns)| ns), per_mille)?))
        })
    }
}

fn percentile_ms(ns: impl Iterator<Item = u64>, per_mille: u64) -> Option<f64> {
    let mut sorted: Vec<u64> = ns.collect();
    sorted.sort_unstable();
    let last = (sorted.len() as u64).checked_sub(1)?;
    let rank = usize::try_from((last * per_mille).div_ceil(1_000)).ok()?;
    sorted.get(rank).map(|ns| *ns as f64 / 1e6)
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
        let outage = |ms: u64| Outage { answered_ns: ms * 1_000_000, ..Outage::default() };
        let report = Report { outages: (1..=100).map(outage).collect(), ..Report::default() };
        assert_eq!(report.outage_ms(500), Some(51.0));
        assert_eq!(report.outage_ms(990), Some(100.0));
        assert_eq!(report.outage_ms(1_000), Some(100.0));
        assert_eq!(Report::default().outage_ms(500), None);
    }
}
