//! How often a token is logged in to without a signature in between, whatever the reason.
//!
//! A login can cost an attempt at the PIN, and disturbs other programs on some devices. Looking at a token costs
//! nothing, so only what would log in waits.

use crate::process::backoff::Backoff;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT_AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// So often at once: a lost session heals in the same request, also when its successor is lost too.
const AT_ONCE: u32 = 3;

/// The logins to one token.
pub(super) struct LoginPace {
    /// Logins since the last signature.
    unsigned: u32,
    waits: Backoff,
    /// After logins that were not allowed. Short: what the operator corrects is used soon.
    refusals: Backoff,
    /// When the next login may be.
    next: Option<Instant>,
    signed: Arc<AtomicBool>,
}

impl Default for LoginPace {
    fn default() -> Self {
        Self {
            unsigned: 0,
            waits: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            refusals: Backoff::new(FIRST_WAIT, LONGEST_WAIT_AFTER_REFUSAL),
            next: None,
            signed: Arc::default(),
        }
    }
}

impl LoginPace {
    /// The flag that every signature sets.
    pub(super) fn signed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.signed)
    }

    pub(super) fn allows_login(&mut self) -> bool {
        if self.signed.swap(false, Relaxed) {
            self.unsigned = 0;
            self.waits.reset();
            self.next = None;
        }
        self.next.is_none_or(|next| Instant::now() >= next)
    }

    pub(super) fn note_login(&mut self) {
        self.unsigned = self.unsigned.saturating_add(1);
        self.refusals.reset();
        self.next = (self.unsigned >= AT_ONCE).then(|| Instant::now() + self.waits.next_wait());
    }

    /// A child has started and loaded its module, but must not log in.
    pub(super) fn note_refusal(&mut self) {
        self.next = Some(Instant::now() + self.refusals.next_wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(pace: &LoginPace) -> u64 {
        let left = pace.next.map(|next| next.saturating_duration_since(Instant::now()));
        left.map_or(0, |left| u64::from(left.as_millis() > 0) * (left.as_secs() + 1))
    }

    #[test]
    fn logins_without_a_signature_become_rare_and_a_signature_ends_that() {
        let mut pace = LoginPace::default();
        assert!(pace.allows_login());
        let mut waits = Vec::new();
        for _ in 0..9 {
            pace.note_login();
            waits.push(left(&pace));
        }
        assert_eq!(waits, [0, 0, 1, 1, 2, 4, 8, 16, 32]);
        for _ in 0..3 {
            pace.note_login();
        }
        assert_eq!(left(&pace), 60);
        assert!(!pace.allows_login());
        // A refusal is no login, and what is corrected is used soon.
        let mut refused = LoginPace::default();
        for wait in [1, 1, 2, 2] {
            refused.note_refusal();
            assert_eq!(left(&refused), wait);
        }
        pace.signed().store(true, Relaxed);
        assert!(pace.allows_login());
        pace.note_login();
        assert!(pace.allows_login());
    }
}
