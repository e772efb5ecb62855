//! Requests as bytes, and what comes back for them.

use super::*;
use crate::{
    chain::tests::Home,
    consensus::{Conflict, Step},
    privval::message::{
        BlockId, PartSetHeader, PingRequest, Proposal, PubKeyRequest, SignProposalRequest, SignVoteRequest, Sum,
        TYPE_PRECOMMIT, TYPE_PREVOTE, TYPE_PROPOSAL, Timestamp, Vote,
    },
};
use prost::Message as _;

const CHAIN: &str = "test-chain";

fn block_id(block: u8) -> Option<BlockId> {
    Some(BlockId { hash: vec![block; 32], part_set_header: Some(PartSetHeader { total: 1, hash: vec![block; 32] }) })
}

fn prevote(height: i64, block: u8) -> Sum {
    let timestamp = Some(Timestamp { seconds: 1_700_000_000, nanos: 0 });
    let vote = Vote { r#type: TYPE_PREVOTE, height, block_id: block_id(block), timestamp, ..Vote::default() };
    Sum::SignVoteRequest(SignVoteRequest { vote: Some(vote), chain_id: CHAIN.into(), ..SignVoteRequest::default() })
}

fn vote_of(sum: Sum) -> Vote {
    match sum {
        Sum::SignVoteRequest(request) => request.vote.unwrap(),
        other => panic!("{other:?} is no vote"),
    }
}

fn proposal(height: i64) -> Sum {
    let timestamp = Some(Timestamp { seconds: 1_700_000_000, nanos: 0 });
    let r#type = TYPE_PROPOSAL;
    let proposal = Proposal { r#type, height, pol_round: -1, block_id: block_id(7), timestamp, ..Proposal::default() };
    Sum::SignProposalRequest(SignProposalRequest { proposal: Some(proposal), chain_id: CHAIN.into() })
}

fn ask(chain: &Chain, sum: Sum, max_height: Option<u64>) -> (Sum, Event) {
    let (message, event) = answer(chain, &Message::from(sum).encode_to_vec(), max_height).unwrap();
    (message.sum.unwrap(), event)
}

/// The height, round and step of a message at `height`.
fn at(height: u64, step: Step) -> Option<Hrs> {
    Some(Hrs { height, round: 0, step })
}

#[test]
fn every_kind_of_request_gets_its_answer_and_its_event() {
    let home = Home::new();
    let chain = home.chain();
    let (answer, event) = ask(&chain, Sum::PingRequest(PingRequest {}), None);
    assert!(matches!(answer, Sum::PingResponse(_)));
    assert_eq!((event.kind, event.hrs, event.outcome), (RequestKind::Ping, None, Outcome::Answered));

    let (answer, event) = ask(&chain, Sum::PubKeyRequest(PubKeyRequest { chain_id: CHAIN.into() }), None);
    assert!(matches!(answer, Sum::PubKeyResponse(response) if response.error.is_none()));
    assert_eq!((event.outcome, event.flush_time, event.sequence), (Outcome::Answered, None, None));

    let before = chain.sequence().unwrap();
    let (answer, event) = ask(&chain, proposal(5), None);
    assert!(
        matches!(answer, Sum::SignedProposalResponse(signed) if signed.proposal.as_ref().unwrap().signature.len() == 64)
    );
    assert_eq!((event.hrs, &event.outcome, event.sequence), (at(5, Step::Propose), &Outcome::Signed, Some(before + 1)));
    assert!(event.flush_time.is_some(), "its mark was flushed");

    let (first, event) = ask(&chain, prevote(5, 7), None);
    assert_eq!((event.hrs, event.outcome, event.sequence), (at(5, Step::Prevote), Outcome::Signed, Some(before + 2)));
    let (again, event) = ask(&chain, prevote(5, 7), None);
    assert_eq!(first, again);
    assert_eq!((event.outcome, event.flush_time, event.sequence), (Outcome::Repeated, None, Some(before + 2)));

    assert_eq!(chain.sequence(), Ok(before + 2));

    let (answer, event) = ask(&chain, prevote(5, 8), None);
    assert!(matches!(answer, Sum::SignedVoteResponse(refused) if refused.error.is_some() && refused.vote.is_none()));
    let hrs = at(5, Step::Prevote).unwrap();
    let refusal = Refusal::DoubleSign { hrs, conflict: Conflict::BlockAgainstBlock };
    let choice = Some(Choice::Block([8; 8]));
    assert_eq!(event, Event { choice, ..Event::refused(RequestKind::Vote, Some(hrs), refusal) });
    assert_eq!(Choice::Block([8; 8]).to_string(), "0808080808080808", "as CometBFT's log begins the hash");

    let nil = Sum::SignVoteRequest(SignVoteRequest {
        vote: Some(Vote { r#type: TYPE_PRECOMMIT, block_id: None, ..vote_of(prevote(5, 8)) }),
        chain_id: CHAIN.into(),
        ..SignVoteRequest::default()
    });
    let (_, event) = ask(&chain, nil, None);
    assert_eq!((event.outcome, event.choice), (Outcome::Signed, Some(Choice::Nil)));
    assert_eq!(Choice::Nil.to_string(), "nil");
}

#[test]
fn a_height_above_the_limit_of_the_node_is_refused_before_the_mark_moves() {
    let home = Home::new();
    let chain = home.chain();
    for request in [prevote(6, 7), proposal(6)] {
        let (_, event) = ask(&chain, request, Some(5));
        assert_eq!(event.outcome, Outcome::Refused(Refusal::MaxHeight { height: 6, max_height: 5 }));
        assert_eq!(chain.last(), Ok(Hrs::GENESIS));
    }
    let (_, event) = ask(&chain, prevote(5, 7), Some(5));
    assert_eq!(event.outcome, Outcome::Signed, "the limit itself is allowed");
    let (_, event) = ask(&chain, prevote(6, 7), Some(7));
    assert_eq!(event.outcome, Outcome::Signed);
    assert_eq!(ask(&chain, Sum::PingRequest(PingRequest {}), Some(1)).1.outcome, Outcome::Answered);
}

#[test]
fn what_is_no_request_has_no_answer() {
    let home = Home::new();
    let chain = home.chain();
    assert_eq!(answer(&chain, &[], None).unwrap_err(), Unanswerable);
    let (message, event) = answer(&chain, &[0x1a, 0x01, 0xff], None).unwrap();
    assert!(matches!(message.sum, Some(Sum::SignedVoteResponse(refused)) if refused.error.is_some()));
    assert_eq!((event.hrs, event.outcome.name()), (None, "refused"));
}

#[test]
fn each_outcome_has_its_name() {
    for (outcome, name) in [
        (Outcome::Answered, "answered"),
        (Outcome::Signed, "signed"),
        (Outcome::Repeated, "repeated"),
        (Outcome::Refused(Refusal::KeyUnavailable(String::new())), "failed"),
        (Outcome::Refused(Refusal::NotYet(String::new())), "failed"),
        (Outcome::Refused(Refusal::StateUnusable(String::new())), "failed"),
        (Outcome::Refused(Refusal::Malformed("a")), "refused"),
        (Outcome::Refused(Refusal::MaxHeight { height: 2, max_height: 1 }), "refused"),
    ] {
        assert_eq!(outcome.name(), name);
    }
}
