//! Small random numbers that a seed repeats.

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
};

/// The generator: splitmix64.
pub struct Random(u64);

impl Random {
    /// Seeded by `HIGHWATER_SEED`, or else by the operating system. Prints the seed.
    pub fn new(test: &str) -> Self {
        let given = env::var("HIGHWATER_SEED").ok().map(|seed| seed.parse().expect("HIGHWATER_SEED is a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one(()));
        eprintln!("{test}: HIGHWATER_SEED={seed}");
        Self(seed)
    }

    /// Another generator, for another thread.
    pub fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }

    /// A number from 0 to `limit` - 1.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }
}
