//! The rule: may this message be signed, given the mark?
//!
//! CometBFT's `privval/file.go` (`CheckHRS`, `signVote`, `signProposal`) with one difference: a proposal is repeated
//! only if it is the same to the byte, because a node takes nothing but the signature from the answer, and the old
//! signature does not cover the new time.

use super::mark::{Mark, SignedMessage};
use crate::consensus::{Conflict, Digest, Hrs, Step, Target, Timestamp};

/// A message that asks to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its height, round and step.
    pub hrs: Hrs,
    /// Block or nil.
    pub target: Target,
    /// Its time.
    pub timestamp: Timestamp,
    /// Everything else about it.
    pub digest: Digest,
}

impl Candidate {
    /// The mark that covers this message.
    pub fn mark(&self) -> Mark {
        let signed = SignedMessage { target: self.target, timestamp: self.timestamp, digest: self.digest };
        Mark { hrs: self.hrs, signed: Some(signed) }
    }
}

/// What the rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never.
    Refuse(Violation),
    /// It was signed before: answer with the signature over the time it had then.
    Repeat {
        /// The time it had then.
        timestamp: Timestamp,
    },
    /// It is new: move the mark, then sign.
    Sign,
}

/// Why a message may not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Something else was, or may have been, signed at the same height, round and step.
    DoubleSign(Conflict),
    /// The mark is past it.
    Regression,
}

/// Decides over `asked`, given the `last` mark.
pub fn decide(last: &Mark, asked: &Candidate) -> Verdict {
    broken!("rule_comparison_flipped" => if asked.hrs >= last.hrs { return Verdict::Sign });
    if asked.hrs > last.hrs {
        return Verdict::Sign;
    }
    if asked.hrs < last.hrs {
        return Verdict::Refuse(Violation::Regression);
    }
    let Some(signed) = last.signed else {
        return Verdict::Refuse(Violation::DoubleSign(Conflict::Unknown));
    };
    broken!("rule_digest_ignored" => return Verdict::Repeat { timestamp: signed.timestamp });
    let is_vote = asked.hrs.step != Step::Propose;
    if asked.digest == signed.digest && (is_vote || asked.timestamp == signed.timestamp) {
        return Verdict::Repeat { timestamp: signed.timestamp };
    }
    Verdict::Refuse(Violation::DoubleSign(match (signed.target, asked.target) {
        _ if !is_vote => Conflict::Proposal,
        (Target::Block, Target::Nil) => Conflict::NilAgainstBlock,
        (Target::Nil, Target::Block) => Conflict::BlockAgainstNil,
        // Two nil votes of one chain at one height, round and step have one digest, so this is two blocks.
        (Target::Block | Target::Nil, _) => Conflict::BlockAgainstBlock,
    }))
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
