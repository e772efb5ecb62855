//! Power cuts: a virtual machine signs on ext4 as fast as it can, its power goes at a random moment, and after the next boot
//! nothing that had left it can be signed anew.
//!
//! The drive is our own, in this process (see `drive.rs`): an unflushed sector is lost or kept by chance, as on a real
//! drive with a volatile cache. `HIGHWATER_POWERCUTS` sets the number of cuts, `HIGHWATER_SEED` repeats their schedule.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

mod drive;
mod history;
mod initramfs;
mod machine;
mod nbd;
#[path = "../support/mod.rs"]
mod support;

use drive::Flush;
use history::{DoubleSign, History};
use machine::{Machine, installed};
use std::{
    env, thread,
    time::{Duration, Instant},
};
use support::{assurance, random::Random};

/// How many cuts there are unless `HIGHWATER_POWERCUTS` says otherwise.
const CUTS: u64 = 3;
/// A liar loses a random part of what it was given: now and then too little to be caught.
const LIAR_CUTS: u64 = 12;
/// How long the signer votes at most before the power goes.
const VOTING_MAX_MS: u64 = 1500;
/// About how long a machine takes to start.
const START_MS: u64 = 4000;
/// One cut in so many comes while the machine starts: during the replay of the journal, or the first write of the signer.
const CUTS_AT_START_ONE_IN: u64 = 5;
/// One of so many of the others comes between a write and its flush; the rest whenever it comes.
const AIMED_CUTS_ONE_IN: u64 = 2;

#[test]
fn no_power_cut_loses_the_mark_of_a_vote_that_has_left() {
    let Some(parts) = installed() else { return };
    let cuts =
        env::var("HIGHWATER_POWERCUTS").map_or(CUTS, |cuts| cuts.parse().expect("HIGHWATER_POWERCUTS is a number"));
    let mut random = Random::new("power cuts");
    let mut machine = Machine::new(&parts);
    let mut history = History::new();
    for cut in 1..=cuts {
        eprint!("cut {cut} of {cuts}: ");
        cut_once(&mut machine, &mut history, &mut random).unwrap_or_else(|error| panic!("before cut {cut}: {error}"));
    }
    let mut powered = machine.power_on();
    history.check(&mut powered.wait_for_signer()).unwrap_or_else(|error| panic!("after the last cut: {error}"));
    assert!(history.len() > 0, "a machine that signs nothing loses nothing");
    assurance::report("durable first", "power cuts on ext4 in QEMU", cuts);
}

/// Proves that the test above can fail: it detects the marks that a bad drive loses.
#[test]
fn a_drive_that_lies_about_its_flushes_is_caught() {
    let Some(parts) = installed() else { return };
    let mut random = Random::new("lying drive");
    let mut machine = Machine::new(&parts);
    let mut history = History::new();
    // The state file is made on an honest drive: one that is missing is not a mark that is lost.
    cut_once(&mut machine, &mut history, &mut random).expect("an honest drive loses nothing");
    machine.set_flush(Flush::Lie);
    let caught = (0..=LIAR_CUTS).find_map(|_| cut_once(&mut machine, &mut history, &mut random).err());
    eprintln!("caught: {}", caught.expect("a mark that is lost is seen: else no cut shows anything"));
}

/// One boot, what it must refuse, votes until the power goes.
fn cut_once(machine: &mut Machine, history: &mut History, random: &mut Random) -> Result<(), DoubleSign> {
    let begin = Instant::now();
    let released = history.len();
    let mut powered = machine.power_on();
    if released > 0 && random.below(CUTS_AT_START_ONE_IN) == 0 {
        thread::sleep(Duration::from_millis(random.below(START_MS)));
        let unflushed = powered.cut(random);
        eprintln!("at the start, after {:.1?}, {unflushed} writes in the cache", begin.elapsed());
        return Ok(());
    }
    let mut session = powered.wait_for_signer();
    let start = begin.elapsed();
    history.check(&mut session)?;
    let voting = Duration::from_millis(random.below(VOTING_MAX_MS));
    let mut voter_random = random.fork();
    let unflushed = thread::scope(|scope| {
        let voter = scope.spawn(|| history.vote_until_the_end(&mut session, &mut voter_random));
        thread::sleep(voting);
        if random.below(AIMED_CUTS_ONE_IN) == 0 {
            powered.wait_for_unflushed_write(random);
        }
        let early = voter.is_finished();
        let unflushed = powered.cut(random);
        voter.join().expect("the voter only reports")?;
        assert!(!early, "the link is up until the cut");
        Ok(unflushed)
    })?;
    let votes = history.len() - released;
    eprintln!("up after {start:.1?}, then {votes} votes in {voting:.1?}, {unflushed} writes in the cache");
    Ok(())
}
