//! Chance that can be replayed.

/// The seed unless `HIGHWATER_SEED` says another.
const SEED: u64 = 1;

/// A small generator (SplitMix64): the same seed, the same throws, on every machine.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    /// The dice of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any() % limit
    }

    /// An index below `limit`.
    pub fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).expect("below an index")
    }

    /// True `times` in a hundred.
    pub fn percent(&mut self, times: u64) -> bool {
        self.below(100) < times
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: i64, last: i64) -> i64 {
        first + i64::try_from(self.below(first.abs_diff(last) + 1)).expect("the range fits")
    }
}

/// The first seed of a test.
pub fn seed() -> u64 {
    number("HIGHWATER_SEED").unwrap_or(SEED)
}

/// The number in an environment variable, if it is set.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Says how to see a failure again, when the test that owns it fails.
pub struct Replay {
    /// The test's path.
    pub test: &'static str,
    /// What to set.
    pub seed: u64,
    /// Where it was.
    pub step: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed, step } = self;
            eprintln!("--- seed {seed}, step {step}: HIGHWATER_SEED={seed} cargo test --test never_two {test} ---");
        }
    }
}
