//! Worlds that come out of one seed: the production chain and store over a disk and keys that do their worst.
//!
//! A world has one signer and several nodes. Crashes come at any point, power cuts lose or tear what was not flushed, disks
//! and devices fail, clocks jump, files are copied, put back and carried to other machines, operators raise, import and
//! start over. An observer holds all that left. A failure prints the seed of its world; `HIGHWATER_SEED` plays it again.

mod disk;
mod keys;
mod world;

use super::{
    PROMISE, assurance,
    dice::{number, seed},
};
use keys::KeyKind;
use world::{Tally, World};

/// Steps without `HIGHWATER_STEPS`.
const STEPS: u64 = if cfg!(debug_assertions) { 12_000 } else { 1_000_000 };
/// Steps of a world with a fast key, and of one with real ones, which cost a thousand times as much.
const WORLD_STEPS: u64 = if cfg!(debug_assertions) { 400 } else { 2_000 };
const REAL_KEY_WORLD_STEPS: u64 = if cfg!(debug_assertions) { 40 } else { 1_000 };
/// One world in so many has real keys in software, and one in devices.
const REAL_KEYS_EVERY: u64 = 16;

#[test]
fn no_world_makes_two() {
    let steps = number("HIGHWATER_STEPS").unwrap_or(STEPS);
    let mut tally = Tally::default();
    let mut worlds = 0;
    while tally.steps < steps {
        let seed = seed().wrapping_add(worlds);
        let (key, length) = match seed % REAL_KEYS_EVERY {
            0 => (KeyKind::Devices, REAL_KEY_WORLD_STEPS),
            1 => (KeyKind::Software, REAL_KEY_WORLD_STEPS),
            _ => (KeyKind::Fast, WORLD_STEPS),
        };
        World::new(seed, key).live(length, &mut tally);
        worlds += 1;
    }
    assurance::report(PROMISE, "steps of simulated worlds with crashes, faults and operators", tally.steps);
    assurance::report(PROMISE, "simulated crashes and power cuts", tally.crashes);
    assurance::report(PROMISE, "simulated faults of disks and keys", tally.faults);
    let unnoticed = "older state files put back that one file cannot notice (not passed, counted)";
    assurance::report(PROMISE, unnoticed, tally.unnoticed);
    let doubled = "of these, how many let a second message out until the mark was raised";
    assurance::report(PROMISE, doubled, tally.doubled);
    if steps >= STEPS {
        tally.assert_everything_happened();
    }
}
