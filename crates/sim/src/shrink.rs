//! Fewer faults that still fail.

use crate::plan::Plan;
use crate::run::run;

/// Runs spent on one failure: a few seconds.
const RUNS_MAX: usize = 400;

/// Leaves faults out of a failing plan while it still fails; first halves, then single ones.
#[must_use]
pub fn shrink(plan: &Plan) -> Plan {
    let mut smallest = plan.clone();
    let mut runs = 0;
    let mut chunk = smallest.faults.len().div_ceil(2);
    while chunk > 0 && runs < RUNS_MAX {
        let mut without = 0;
        while without < smallest.faults.len() && runs < RUNS_MAX {
            let mut candidate = smallest.clone();
            let end = without.saturating_add(chunk).min(candidate.faults.len());
            candidate.faults.drain(without..end);
            runs += 1;
            if run(&candidate).failures.is_empty() {
                without = end;
            } else {
                smallest = candidate;
            }
        }
        chunk /= 2;
    }
    smallest
}
