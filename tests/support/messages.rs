//! Votes and proposals as a node makes them.
#![allow(dead_code, unreachable_pub)]

use highwater_core::privval::message::{
    BlockId, PartSetHeader, Proposal, TYPE_PRECOMMIT, TYPE_PREVOTE, TYPE_PROPOSAL, Timestamp, Vote,
};

/// A prevote for the block made of `block` bytes, or for nil.
pub fn prevote(height: i64, round: i32, block: Option<u8>) -> Vote {
    Vote {
        r#type: TYPE_PREVOTE,
        height,
        round,
        block_id: Some(block.map(block_id).unwrap_or_default()),
        timestamp: Some(at(1_700_000_000)),
        validator_address: vec![0xaa; 20],
        validator_index: 3,
        ..Vote::default()
    }
}

/// A precommit for the block made of `block` bytes, or for nil.
pub fn precommit(height: i64, round: i32, block: Option<u8>) -> Vote {
    Vote { r#type: TYPE_PRECOMMIT, ..prevote(height, round, block) }
}

/// A proposal of the block made of `block` bytes, without a proof of lock.
pub fn proposal(height: i64, round: i32, block: u8) -> Proposal {
    Proposal {
        r#type: TYPE_PROPOSAL,
        height,
        round,
        pol_round: -1,
        block_id: Some(block_id(block)),
        timestamp: Some(at(1_700_000_000)),
        signature: Vec::new(),
    }
}

/// The same vote, made at another time.
pub fn vote_at(seconds: i64, vote: Vote) -> Vote {
    Vote { timestamp: Some(at(seconds)), ..vote }
}

/// A complete block id: 32 times `fill`, in three parts.
pub fn block_id(fill: u8) -> BlockId {
    BlockId { hash: vec![fill; 32], part_set_header: Some(PartSetHeader { total: 3, hash: vec![!fill; 32] }) }
}

/// A time, in seconds since 1970 and some nanoseconds.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 123_456_789 }
}
