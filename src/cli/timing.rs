//! How long signatures take.

use std::time::Duration;

/// The smallest time that `percent` percent of all times do not exceed. `sorted` must be sorted and not empty.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = |count: u64| (1..=count).map(Duration::from_micros).collect::<Vec<_>>();
        for (count, p50, p99) in [(1, 1, 1), (2, 1, 2), (20, 10, 20), (100, 50, 99), (1000, 500, 990)] {
            let times = times(count);
            let found = [50, 99].map(|percent| percentile(&times, percent).as_micros());
            assert_eq!(found, [p50, p99], "{count}");
        }
    }
}
