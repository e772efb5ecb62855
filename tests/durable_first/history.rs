//! Everything that left the signer, over all its runs.

use crate::support::{
    mock_node::{Answer, Session, precommit, prevote, proposal},
    signer::Home,
};
use highwater_core::privval::message::{Proposal, TYPE_PREVOTE, Vote};
use std::{collections::BTreeMap, io};

/// Height, round, and step as CometBFT counts it.
pub type Place = (i64, i64, u8);

/// Every signature by its place.
#[derive(Default)]
pub struct History {
    left: BTreeMap<Place, Vec<u8>>,
}

impl History {
    /// Takes note of a signature. Ed25519 signs the same bytes alike, so two signatures are two messages.
    pub fn add(&mut self, place: Place, signature: &[u8]) {
        assert_eq!(signature.len(), 64);
        let first = self.left.entry(place).or_insert_with(|| signature.to_vec());
        assert_eq!(first, signature, "DOUBLE SIGN: two messages left for {place:?}");
    }

    /// Takes over what somebody else has seen.
    pub fn merge(&mut self, seen: &Self) {
        seen.left.iter().for_each(|(place, signature)| self.add(*place, signature));
    }

    /// The highest place that left.
    pub fn highest(&self) -> Option<Place> {
        self.left.keys().next_back().copied()
    }

    /// Whether anything left for this height, round and step.
    pub fn has(&self, place: Place) -> bool {
        self.left.contains_key(&place)
    }

    /// How many places something left for.
    pub fn len(&self) -> u64 {
        self.left.len() as u64
    }

    /// Checks that the mark of `chain` on the disk is not below anything that left.
    pub fn assert_covered(&self, home: &Home, chain: &str) {
        let (height, round, step) = home.mark(chain);
        let step = match step.as_str() {
            "proposal" => 1,
            "prevote" => 2,
            "precommit" => 3,
            other => panic!("a step {other}"),
        };
        let highest = self.highest();
        assert!(Some((height, round, step)) >= highest, "the mark is {height}/{round}/{step}, {highest:?} has left");
    }
}

/// A message that a node has signed.
#[derive(Clone, Debug)]
pub enum Ask {
    Proposal(Proposal),
    Vote(Vote),
}

impl Ask {
    /// A round as a validator goes through it, for the block made of `block` bytes.
    pub fn round(height: i64, block: u8) -> [Self; 3] {
        let votes = [prevote(height, 0, Some(block)), precommit(height, 0, Some(block))];
        let [first, second] = votes.map(Self::Vote);
        [Self::Proposal(proposal(height, 0, block)), first, second]
    }

    pub fn place(&self) -> Place {
        match self {
            Self::Proposal(proposal) => (proposal.height, proposal.round.into(), 1),
            Self::Vote(vote) => (vote.height, vote.round.into(), if vote.r#type == TYPE_PREVOTE { 2 } else { 3 }),
        }
    }

    /// The same place with another block.
    pub fn conflicting(&self) -> Self {
        let other = |id: &Option<highwater_core::privval::message::BlockId>| {
            let mut id = id.clone().unwrap();
            id.hash[0] ^= 0xff;
            Some(id)
        };
        match self {
            Self::Proposal(proposal) => {
                Self::Proposal(Proposal { block_id: other(&proposal.block_id), ..proposal.clone() })
            }
            Self::Vote(vote) => Self::Vote(Vote { block_id: other(&vote.block_id), ..vote.clone() }),
        }
    }

    /// Asks, and notes what leaves.
    pub fn ask(&self, session: &mut Session, chain: &str, history: &mut History) -> io::Result<Answer<()>> {
        let answer = match self {
            Self::Proposal(proposal) => session.ask_proposal(chain, proposal.clone())?.map(|signed| signed.signature),
            Self::Vote(vote) => session.ask_vote(chain, vote.clone())?.map(|signed| signed.signature),
        };
        Ok(answer.map(|signature| history.add(self.place(), &signature)))
    }
}
