//! Percentiles of measured times.

use serde::Serialize;

/// What is told of many measured times.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Summary {
    /// How many were measured.
    pub count: usize,
    /// The shortest.
    pub min_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// Nine of ten are no longer.
    pub p90_ms: f64,
    /// Ninety-nine of a hundred are no longer; of fewer than a hundred, the longest.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Summary {
    /// Summarises times in milliseconds; `None` of nothing.
    pub fn of(times_ms: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = times_ms.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min_ms, max_ms) = (*sorted.first()?, *sorted.last()?);
        let at = |share: f64| crate::time::rounded(percentile(&sorted, share));
        Some(Self {
            count: sorted.len(),
            min_ms: crate::time::rounded(min_ms),
            p50_ms: at(0.50),
            p90_ms: at(0.90),
            p99_ms: at(0.99),
            max_ms: crate::time::rounded(max_ms),
        })
    }
}

/// The nearest-rank percentile of ascending values: a value that was really measured.
fn percentile(ascending: &[f64], share: f64) -> f64 {
    let rank = (share * ascending.len() as f64).ceil() as usize;
    ascending.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let summary = Summary::of((1..=200).rev().map(f64::from)).expect("values");
        assert_eq!((summary.count, summary.min_ms, summary.max_ms), (200, 1.0, 200.0));
        assert_eq!((summary.p50_ms, summary.p90_ms, summary.p99_ms), (100.0, 180.0, 198.0));
    }

    #[test]
    fn of_few_values_the_tail_is_the_longest() {
        let summary = Summary::of([3.0, 1.0, 2.0]).expect("values");
        assert_eq!((summary.p50_ms, summary.p99_ms, summary.max_ms), (2.0, 3.0, 3.0));
        assert_eq!(Summary::of([]), None);
    }
}
