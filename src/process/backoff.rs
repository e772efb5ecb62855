//! Waits between attempts. Each is twice as long as the one before, up to a limit.

use rand_core::{OsRng, RngCore as _};
use std::time::Duration;

/// The waits since the last success.
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// Number of waits so far.
    waits: u32,
}

impl Backoff {
    /// Waits that grow from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, waits: 0 }
    }

    pub fn next_wait(&mut self) -> Duration {
        let full = self.longest.min(self.first.saturating_mul(1 << self.waits.min(10)));
        self.waits = self.waits.saturating_add(1);
        full
    }

    /// The next wait, shortened at random by up to a half, so that signers that failed together do not retry together.
    pub fn next_wait_with_jitter(&mut self) -> Duration {
        let full = u64::try_from(self.next_wait().as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(full - u64::from(OsRng.next_u32()) % (full / 2 + 1))
    }

    /// Starts again from the first wait.
    pub fn reset(&mut self) {
        self.waits = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let seconds: Vec<_> = (0..9).map(|_| backoff.next_wait().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.waits = u32::MAX;
        assert_eq!(backoff.next_wait(), Duration::from_secs(60));
        backoff.reset();
        assert_eq!(backoff.next_wait(), Duration::from_secs(1));
    }

    #[test]
    fn jitter_shortens_a_wait_by_at_most_a_half() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        for full in [50, 100, 200, 400, 800, 1000, 1000, 1000] {
            let wait = u64::try_from(backoff.next_wait_with_jitter().as_millis()).unwrap();
            assert!((full / 2..=full).contains(&wait), "{wait} of {full}");
        }
    }
}
