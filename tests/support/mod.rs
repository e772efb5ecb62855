//! Shared by the tests: nodes that ask, signers that answer, a check of their signatures, devices, commands.
#![allow(dead_code)]

pub mod assurance;
pub mod binary;
pub mod cli;
pub mod hsm;
pub mod mock_node;
pub mod network;
pub mod plain_node;
pub mod puppet;
pub mod random;
pub mod scene;
pub mod signer;
pub mod skip;
pub mod softhsm;
pub mod strace;
pub mod yubihsm;

use highwater_core::{
    consensus::{ChainId, PublicKey, Signature, Timestamp},
    privval::{Canonical, CanonicalBlockId, MessageKind, extension_sign_bytes, message},
};
use mock_node::{Session, precommit};

/// Checks the signature of a vote, and that it was sent back without its extension.
pub fn assert_vote_signed(key: &PublicKey, chain: &str, vote: &message::Vote) {
    let kind = match vote.r#type {
        message::TYPE_PREVOTE => MessageKind::Prevote,
        message::TYPE_PRECOMMIT => MessageKind::Precommit,
        other => panic!("a vote of type {other}"),
    };
    assert_signed(key, chain, (kind, vote.height, vote.round), vote.block_id.as_ref(), vote.timestamp, &vote.signature);
    assert!(vote.extension.is_empty(), "an extension is never sent back");
}

/// Checks the signature of a proposal.
pub fn assert_proposal_signed(key: &PublicKey, chain: &str, proposal: &message::Proposal) {
    let place = (MessageKind::Proposal { pol_round: proposal.pol_round }, proposal.height, proposal.round);
    assert_signed(key, chain, place, proposal.block_id.as_ref(), proposal.timestamp, &proposal.signature);
}

/// Checks the signature of a vote extension.
pub fn assert_extension_signed(key: &PublicKey, chain: &str, vote: &message::Vote, extension: &[u8]) {
    let (height, round) = (u64::try_from(vote.height).unwrap(), u32::try_from(vote.round).unwrap());
    let bytes = extension_sign_bytes(&ChainId::new(chain).unwrap(), height, round, extension);
    assert!(key.verifies(&bytes, &signature(&vote.extension_signature)), "the extension signature verifies");
}

/// Has the next height signed on a connection that is to be well.
pub fn assert_alive(session: &mut Session, key: &PublicKey, chain: &str, height: i64) {
    session.ping().unwrap();
    let vote = session.ask_vote(chain, precommit(height, 0, Some(7))).unwrap();
    let vote = vote.unwrap_or_else(|refusal| panic!("height {height}: {refusal:?}"));
    assert_vote_signed(key, chain, &vote);
    assert_extension_signed(key, chain, &vote, b"");
}

/// A signature as it travels.
pub fn signature(bytes: &[u8]) -> Signature {
    Signature::new(bytes)
}

fn assert_signed(
    key: &PublicKey,
    chain: &str,
    (kind, height, round): (MessageKind, i64, i32),
    block_id: Option<&message::BlockId>,
    timestamp: Option<message::Timestamp>,
    signed: &[u8],
) {
    let canonical = canonical((kind, height, round), block_id, timestamp);
    let bytes = canonical.sign_bytes(&ChainId::new(chain).unwrap());
    assert!(key.verifies(bytes.as_slice(), &signature(signed)), "the signature of {canonical:?} verifies");
}

/// What is signed of a message.
pub fn canonical(
    (kind, height, round): (MessageKind, i64, i32),
    block_id: Option<&message::BlockId>,
    timestamp: Option<message::Timestamp>,
) -> Canonical {
    let block_id = block_id.filter(|id| !id.hash.is_empty()).map(|id| {
        let parts = id.part_set_header.as_ref().unwrap();
        let hash = id.hash.as_slice().try_into().unwrap();
        CanonicalBlockId { hash, parts_total: parts.total, parts_hash: parts.hash.as_slice().try_into().unwrap() }
    });
    let timestamp = timestamp.unwrap();
    Canonical {
        kind,
        height: u64::try_from(height).unwrap(),
        round: u32::try_from(round).unwrap(),
        block_id,
        timestamp: Timestamp::new(timestamp.seconds, timestamp.nanos.into()).unwrap(),
    }
}
