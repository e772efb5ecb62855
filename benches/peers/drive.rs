//! The node's side: closed loops in small batches, whose turns change.

use crate::{
    mock_node::{Session, prevote},
    signers::Served,
};
use highwater_core::{
    consensus::{ChainId, PublicKey, Signature, Timestamp},
    privval::{Canonical, CanonicalBlockId, MessageKind, message::Vote},
};
use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// What the hash of the block that is voted for is made of.
const BLOCK: u8 = 7;

/// Something that is measured in turn with others.
pub trait Measured {
    /// Does it `count` times for each of its nodes.
    fn batch(&mut self, count: usize) -> Batch;
}

/// What a batch took.
pub struct Batch {
    /// Each time from a request to its answer.
    pub times: Vec<Duration>,
    /// All of them together.
    pub wall: Duration,
}

/// What all batches of one signer took.
#[derive(Default)]
pub struct Times {
    all: Vec<Duration>,
    wall: Duration,
}

impl Times {
    /// The time, in microseconds, that `permille` of the requests did not exceed.
    pub fn at(&self, permille: usize) -> f64 {
        let last = self.all.len() - 1;
        self.all[(self.all.len() * permille / 1000).min(last)].as_secs_f64() * 1e6
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Answers in a second.
    pub fn rate(&self) -> f64 {
        self.all.len() as f64 / self.wall.as_secs_f64()
    }
}

/// Measures all of them in turn, `rounds` times `count` each. Whose turn is first changes with every round.
pub fn in_turn(measured: &mut [Box<dyn Measured>], rounds: usize, count: usize) -> Vec<Times> {
    let mut times: Vec<Times> = measured.iter().map(|_| Times::default()).collect();
    // The first answers of a process are of cold caches.
    measured.iter_mut().for_each(|each| drop(each.batch(count)));
    for round in 0..rounds {
        for turn in 0..measured.len() {
            let index = (round + turn) % measured.len();
            let batch = measured[index].batch(count);
            times[index].all.extend(batch.times);
            times[index].wall += batch.wall;
        }
    }
    times.iter_mut().for_each(|times| times.all.sort_unstable());
    times
}

/// Nodes that each ask for a prevote at the next height as soon as they have the one before.
pub struct Loops {
    served: Served,
    height: i64,
    /// Whether all nodes ask for the same vote at the same time, as those of one validator do.
    lockstep: bool,
}

impl Loops {
    /// The nodes of a signer. In `lockstep` they are of one validator.
    pub fn new(served: Served, lockstep: bool) -> Self {
        Self { served, height: 0, lockstep }
    }
}

impl Measured for Loops {
    fn batch(&mut self, count: usize) -> Batch {
        let heights = self.height + 1..=self.height + i64::try_from(count).unwrap();
        self.height = *heights.end();
        let barrier = Barrier::new(if self.lockstep { self.served.sessions.len() } else { 1 });
        let begin = Instant::now();
        let times = match self.served.sessions.as_mut_slice() {
            [(session, chain)] => ask_all(session, chain, heights, &barrier),
            sessions => thread::scope(|scope| {
                let ask = |session, chain| {
                    let (heights, barrier) = (heights.clone(), &barrier);
                    scope.spawn(move || ask_all(session, chain, heights, barrier))
                };
                let threads: Vec<_> = sessions.iter_mut().map(|(session, chain)| ask(session, chain)).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            }),
        };
        let wall = begin.elapsed();
        let (votes, times): (Vec<_>, _) = times.into_iter().unzip();
        if let Some(key) = self.served.key {
            votes.iter().for_each(|(chain, vote)| assert_signed(&key, chain, vote));
        }
        Batch { times, wall }
    }
}

type Answered<'a> = ((&'a String, Vote), Duration);

fn ask_all<'a>(
    session: &mut Session,
    chain: &'a String,
    heights: impl Iterator<Item = i64>,
    barrier: &Barrier,
) -> Vec<Answered<'a>> {
    let ask = |height| {
        barrier.wait();
        let begin = Instant::now();
        let vote = session.ask_vote(chain, prevote(height, 0, Some(BLOCK)));
        let took = begin.elapsed();
        // CometBFT's own gives up on a node that is silent for 5 s: longer than any turn on a quiet machine.
        let vote = vote.expect("the link lasts: is this machine too busy to measure on?");
        let vote = vote.unwrap_or_else(|refusal| panic!("{chain} at height {height}: {refusal:?}"));
        ((chain, vote), took)
    };
    heights.map(ask).collect()
}

/// Checks a signature over the block for which every node here asks.
fn assert_signed(key: &PublicKey, chain: &str, vote: &Vote) {
    let timestamp = vote.timestamp.unwrap();
    let canonical = Canonical {
        kind: MessageKind::Prevote,
        height: u64::try_from(vote.height).unwrap(),
        round: 0,
        block_id: Some(CanonicalBlockId { hash: [BLOCK; 32], parts_total: 3, parts_hash: [!BLOCK; 32] }),
        timestamp: Timestamp::new(timestamp.seconds, timestamp.nanos.into()).unwrap(),
    };
    let sign_bytes = canonical.sign_bytes(&ChainId::new(chain).unwrap());
    let signature = Signature(vote.signature.as_slice().try_into().unwrap());
    assert!(key.verifies(sign_bytes.as_slice(), &signature), "{chain}: the signature of {canonical:?} verifies");
}

/// Something that this process does by itself.
pub struct Alone<F>(pub F);

impl<F: FnMut()> Measured for Alone<F> {
    fn batch(&mut self, count: usize) -> Batch {
        let once = |_| {
            let begin = Instant::now();
            (self.0)();
            begin.elapsed()
        };
        let begin = Instant::now();
        let times = (0..count).map(once).collect();
        Batch { times, wall: begin.elapsed() }
    }
}
