//! The rule: may this message be signed, given the mark?
//!
//! This is CometBFT's `privval/file.go` (`CheckHRS`, `signVote`, `signProposal`) with one difference: a proposal is
//! repeated only if it is the same to the byte. A node takes only the signature from the answer, and the old signature
//! does not cover the new time.

use super::mark::{Mark, SignedMessage};
use crate::consensus::{Conflict, Digest, Hrs, Step, Target, Timestamp};

/// A message to be signed, reduced to what the rule compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its height, round and step.
    pub hrs: Hrs,
    /// Whether it is for a block or for nil.
    pub target: Target,
    /// The time in the message.
    pub timestamp: Timestamp,
    /// SHA-256 over the rest of the message: its sign bytes with the timestamp zeroed.
    pub digest: Digest,
}

impl Candidate {
    /// The mark that must be durable before this message's signature leaves.
    pub fn mark(&self) -> Mark {
        let signed = SignedMessage { target: self.target, timestamp: self.timestamp, digest: self.digest };
        Mark { hrs: self.hrs, signed: Some(signed) }
    }
}

/// The decision about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never sign it.
    Refuse(Violation),
    /// The message was signed before: answer with the signature over the time that it had then.
    Repeat {
        /// The time that it had then.
        timestamp: Timestamp,
    },
    /// The message is new: move the mark, then sign.
    Sign,
}

/// Why a message may not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Something else was, or may have been, signed at the same height, round and step.
    DoubleSign(Conflict),
    /// The mark is already above its height, round and step.
    Regression,
}

/// Decides whether `asked` may be signed, given the `last` mark.
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
        // Two nil votes of one chain at one height, round and step have the same digest, so these are two blocks.
        (Target::Block | Target::Nil, _) => Conflict::BlockAgainstBlock,
    }))
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
