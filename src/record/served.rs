//! A chain with its counters. The chain itself knows nothing of them.

use super::stats::ChainStats;
use highwater_core::{
    answer::Event,
    chain::{Chain, NotReady},
    consensus::ChainId,
    watermark::Store,
};

/// A chain that is served to its nodes, and what is counted of it.
pub struct ServedChain {
    chain: Chain,
    stats: ChainStats,
}

impl ServedChain {
    /// The chain, as it is now: open, closed, or waiting to be opened.
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

    /// Opens a chain that waits, as [`Chain::try_to_open`] does.
    pub fn try_to_open(&self, ready: impl FnOnce(&mut Store) -> Result<(), NotReady>) -> Result<(), NotReady> {
        let opened = self.chain.try_to_open(ready);
        match &opened {
            Ok(()) => {
                self.chain.mark().iter().for_each(|mark| self.stats.mark(*mark));
                self.stats.open();
            }
            Err(NotReady::Yet(why) | NotReady::Ever { why, .. }) => self.stats.wait(why),
        }
        opened
    }

    /// An answer has left.
    pub fn answered(&self, event: &Event) {
        self.stats.answered(event);
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The chain's id.
    pub fn id(&self) -> &ChainId {
        self.chain.id()
    }

    /// How far the chain has come. Reading it needs no lock of the signing path.
    pub fn stats(&self) -> &ChainStats {
        &self.stats
    }

    /// Whether the chain is closed by a disk that may be well again after a restart. Needs no lock of the signing path.
    pub fn waits_for_its_disk(&self) -> bool {
        self.chain.disk_failed() && self.stats.why_closed().is_some()
    }
}
