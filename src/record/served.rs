//! A chain with its counters, which the chain itself does not know.

use super::stats::ChainStats;
use highwater_core::{
    answer::Event,
    chain::{Chain, NotReady},
    consensus::ChainId,
    watermark::Store,
};

/// A chain that is served to its nodes, with its counters.
pub struct ServedChain {
    chain: Chain,
    stats: ChainStats,
}

impl ServedChain {
    /// Takes the chain as it is now: open, closed, or waiting to be opened.
    pub fn new(chain: Chain) -> Self {
        let stats = ChainStats::default();
        if let Some(mark) = chain.mark() {
            stats.mark(mark);
        }
        if let Err(why) = chain.last() {
            stats.wait(&why);
        }
        Self { chain, stats }
    }

    /// Opens a waiting chain, as [`Chain::try_to_open`] does.
    pub fn try_to_open(&self, ready: impl FnOnce(&mut Store) -> Result<(), NotReady>) -> Result<(), NotReady> {
        let opened = self.chain.try_to_open(ready);
        match &opened {
            Ok(()) => {
                if let Some(mark) = self.chain.mark() {
                    self.stats.mark(mark);
                }
                self.stats.open();
            }
            Err(NotReady::Yet(why) | NotReady::Ever { why, .. }) => self.stats.wait(why),
        }
        opened
    }

    /// Counts an answer that has left.
    pub fn answered(&self, event: &Event) {
        self.stats.answered(event);
    }

    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    pub fn id(&self) -> &ChainId {
        self.chain.id()
    }

    /// The chain's counters. Reading them needs no lock of the signing path.
    pub fn stats(&self) -> &ChainStats {
        &self.stats
    }

    /// Whether a disk error that a restart may fix closed the chain. Needs no lock of the signing path.
    pub fn waits_for_its_disk(&self) -> bool {
        self.chain.disk_failed() && self.stats.why_closed().is_some()
    }
}
