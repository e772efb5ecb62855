//! What a node asks, as a few small numbers, and the same as bytes of the protocol.

use super::messages::{block_id, precommit, prevote, proposal};
use highwater_core::{
    consensus::{ChainId, Step},
    privval::{
        Canonical, Request,
        message::{BlockId, Message, Proposal, SignProposalRequest, SignVoteRequest, Sum, Timestamp, Vote},
    },
};
use prost::Message as _;

/// The chain of every test here.
pub const CHAIN: &str = "never-two-1";

/// The chain's id.
pub fn chain_id() -> ChainId {
    ChainId::new(CHAIN).unwrap()
}

/// A request for a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub height: i64,
    pub round: i32,
    pub step: Step,
    /// 0 is nil, others are blocks. A proposal always has one.
    pub block: u8,
    /// Of a proposal.
    pub pol_round: i32,
    /// Seconds and nanoseconds since 1970.
    pub time: (i64, i32),
    /// Of a precommit for a block.
    pub extension: Vec<u8>,
    pub skip_extension: bool,
}

impl Ask {
    /// The request as it travels, less its length prefix.
    pub fn body(&self) -> Vec<u8> {
        self.message().encode_to_vec()
    }

    /// The request.
    pub fn message(&self) -> Message {
        let timestamp = Some(Timestamp { seconds: self.time.0, nanos: self.time.1 });
        let block = (self.block != 0).then_some(self.block);
        let vote = match self.step {
            Step::Propose => {
                let proposal = proposal(self.height, self.round, self.block);
                let proposal = Proposal { pol_round: self.pol_round, timestamp, ..proposal };
                return of_proposal(proposal);
            }
            Step::Prevote => prevote(self.height, self.round, block),
            Step::Precommit => precommit(self.height, self.round, block),
        };
        let vote = Vote { timestamp, extension: self.extension.clone(), ..vote };
        let skip_extension_signing = self.skip_extension;
        let request = SignVoteRequest { vote: Some(vote), chain_id: CHAIN.into(), skip_extension_signing };
        Sum::SignVoteRequest(request).into()
    }

    /// What the signer makes of it.
    pub fn canonical(&self) -> Canonical {
        match Request::parse(&self.body(), &chain_id()).unwrap() {
            Request::Vote(request) => request.canonical,
            Request::Proposal(request) => request.canonical,
            other => panic!("{other:?}"),
        }
    }

    /// Whether it says the same as `other`, perhaps at another time.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let said = |ask: &Self| {
            let pol_round = if ask.step == Step::Propose { ask.pol_round } else { 0 };
            (ask.height, ask.round, ask.step.number(), ask.block, pol_round)
        };
        said(self) == said(other)
    }
}

/// A request for this proposal.
pub fn of_proposal(proposal: Proposal) -> Message {
    Sum::SignProposalRequest(SignProposalRequest { proposal: Some(proposal), chain_id: CHAIN.into() }).into()
}

/// A request for this vote.
pub fn of_vote(vote: Vote) -> Message {
    let request = SignVoteRequest { vote: Some(vote), chain_id: CHAIN.into(), skip_extension_signing: false };
    Sum::SignVoteRequest(request).into()
}

/// A block id without its parts.
pub fn incomplete_block_id() -> BlockId {
    BlockId { part_set_header: None, ..block_id(1) }
}
