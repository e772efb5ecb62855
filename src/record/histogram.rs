//! A histogram of durations that needs no lock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds in microseconds: from a software signature on a fast disk to longer than CometBFT waits.
const BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for longer durations.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_ns: AtomicU64,
}

/// The content of a histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Each upper bound in seconds, the last one infinite, and the number of durations in that bucket alone.
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    /// The sum of all durations, in seconds.
    pub sum: f64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The current content, read bucket by bucket: a duration that is added meanwhile may be in it or not.
    pub fn snapshot(&self) -> Snapshot {
        let bounds = BOUNDS_US.iter().map(|us| Duration::from_micros(*us).as_secs_f64()).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(&self.counts).map(|(bound, count)| (bound, count.load(Relaxed))).collect();
        Snapshot {
            count: buckets.iter().map(|(_, count)| count).sum(),
            sum: Duration::from_nanos(self.sum_ns.load(Relaxed)).as_secs_f64(),
            buckets,
        }
    }
}

impl Snapshot {
    /// The upper bound, in seconds, that `percent` of the durations do not exceed. `None` without durations, or if they
    /// exceed the last finite bound.
    pub fn percentile(&self, percent: u64) -> Option<f64> {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        let found = self.buckets.iter().find(|(_, count)| {
            seen += count;
            rank > 0 && seen >= rank
        });
        found.map(|(bound, _)| *bound).filter(|bound| bound.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let histogram = Histogram::default();
        assert_eq!((histogram.snapshot().count, histogram.snapshot().percentile(50)), (0, None));
        for us in [0, 100, 101, 250, 137_000, 60_000_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let snapshot = histogram.snapshot();
        let counts: Vec<_> = snapshot.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(counts, [(0.0001, 2), (0.00025, 2), (0.25, 1), (f64::INFINITY, 1)]);
        assert_eq!((snapshot.count, snapshot.buckets.len()), (6, 16));
        assert!((snapshot.sum - 60.137_451).abs() < 1e-9, "{}", snapshot.sum);
        for (percent, bound) in [(1, Some(0.0001)), (50, Some(0.00025)), (80, Some(0.25)), (100, None)] {
            assert_eq!(snapshot.percentile(percent), bound, "{percent}");
        }
    }
}
