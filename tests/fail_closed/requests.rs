//! Requests that no honest node sends, or that a node may not make: each is refused with its code, moves no mark, and leaves
//! the connection up.

use crate::support::{
    assert_alive,
    mock_node::{MockNode, at, block_id, precommit, prevote, proposal},
    scene::{CHAIN, FAR_AWAY, MALFORMED, MAX_HEIGHT, NOT_PERMITTED, OTHER, Scene, Transport, WRONG_CHAIN, refusal},
    signer::Home,
};
use highwater_core::privval::message::{
    BlockId, Message, Proposal, PubKeyRequest, SignBytesRequest, SignProposalRequest, SignVoteRequest, Sum, Vote,
};

fn request(vote: Vote) -> Sum {
    voting(Some(vote), CHAIN)
}

fn voting(vote: Option<Vote>, chain: &str) -> Sum {
    Sum::SignVoteRequest(SignVoteRequest { vote, chain_id: chain.into(), skip_extension_signing: false })
}

fn offering(proposal: Proposal) -> Sum {
    proposing(Some(proposal), CHAIN)
}

fn proposing(proposal: Option<Proposal>, chain: &str) -> Sum {
    Sum::SignProposalRequest(SignProposalRequest { proposal, chain_id: chain.into() })
}

/// The code in an answer and which of the kinds it is, by its field number.
fn code_of(answer: &Message) -> (u32, i32) {
    let (field, error) = match answer.sum.as_ref().unwrap() {
        Sum::PubKeyResponse(response) => {
            assert!(response.pub_key.is_none() && response.pub_key_bytes.is_empty());
            (2, &response.error)
        }
        Sum::SignedVoteResponse(response) => {
            assert!(response.vote.is_none());
            (4, &response.error)
        }
        Sum::SignedProposalResponse(response) => {
            assert!(response.proposal.is_none());
            (6, &response.error)
        }
        Sum::SignBytesResponse(response) => {
            assert!(response.signature.is_empty());
            (10, &response.error)
        }
        other => panic!("{other:?}"),
    };
    (field, error.as_ref().expect("this must be refused").code)
}

fn what_no_honest_node_sends() -> Vec<(&'static str, Sum, (u32, i32))> {
    let vote = || precommit(FAR_AWAY, 0, Some(1));
    let with_id = |id| request(Vote { block_id: Some(id), ..vote() });
    let time = |seconds, nanos| {
        let mut timestamp = at(seconds);
        timestamp.nanos = nanos;
        request(Vote { timestamp: Some(timestamp), ..vote() })
    };
    let offer = || proposal(FAR_AWAY, 0, 1);
    let parts = |total, length| {
        let mut id = block_id(1);
        let parts = id.part_set_header.as_mut().unwrap();
        parts.total = total;
        parts.hash.resize(length, 0);
        id
    };
    let votes = [
        ("a vote of type 0", request(Vote { r#type: 0, ..vote() })),
        ("a vote of type 3", request(Vote { r#type: 3, ..vote() })),
        ("a vote that is a proposal", request(Vote { r#type: 32, ..vote() })),
        ("height 0", request(Vote { height: 0, ..vote() })),
        ("a negative height", request(Vote { height: -1, ..vote() })),
        ("a negative round", request(Vote { round: -1, ..vote() })),
        ("no vote", voting(None, CHAIN)),
        ("no time", request(Vote { timestamp: None, ..vote() })),
        ("a time before year 1", time(-62_135_596_801, 0)),
        ("a time after year 9999", time(253_402_300_800, 0)),
        ("negative nanoseconds", time(0, -1)),
        ("a second of nanoseconds", time(0, 1_000_000_000)),
        ("a hash without parts", with_id(BlockId { part_set_header: None, ..block_id(1) })),
        ("parts without a hash", with_id(BlockId { hash: vec![], ..block_id(1) })),
        ("a hash of 31 bytes", with_id(BlockId { hash: vec![1; 31], ..block_id(1) })),
        ("a hash of 33 bytes", with_id(BlockId { hash: vec![1; 33], ..block_id(1) })),
        ("no parts", with_id(parts(0, 32))),
        ("a parts hash of 31 bytes", with_id(parts(3, 31))),
        ("no parts hash", with_id(parts(3, 0))),
        ("an address of 19 bytes", request(Vote { validator_address: vec![1; 19], ..vote() })),
        ("a prevote with an extension", request(Vote { r#type: 1, extension: vec![1], ..vote() })),
        ("a nil vote with an extension", request(Vote { block_id: None, extension: vec![1], ..vote() })),
    ];
    let proposals = [
        ("a proposal of type 1", offering(Proposal { r#type: 1, ..offer() })),
        ("a proposal at height 0", offering(Proposal { height: 0, ..offer() })),
        ("a proposal in a negative round", offering(Proposal { round: -1, ..offer() })),
        ("a proof of lock below -1", offering(Proposal { pol_round: -2, ..offer() })),
        ("a proposal of nil", offering(Proposal { block_id: None, ..offer() })),
        ("a proposal without a time", offering(Proposal { timestamp: None, ..offer() })),
        ("no proposal", proposing(None, CHAIN)),
    ];
    let bytes = |value: &[u8], raw: &[u8], id: &[u8]| {
        let (value_or_chain_id, raw_bytes, unique_id) = (value.to_vec(), raw.to_vec(), id.to_vec());
        Sum::SignBytesRequest(SignBytesRequest { value_or_chain_id, raw_bytes, unique_id })
    };
    let elsewhere = |chain: &str| {
        [
            Sum::PubKeyRequest(PubKeyRequest { chain_id: chain.into() }),
            voting(Some(vote()), chain),
            proposing(Some(offer()), chain),
            bytes(chain.as_bytes(), &[1], b"id"),
        ]
    };

    let mut cases = Vec::new();
    cases.extend(votes.map(|(name, sum)| (name, sum, (4, MALFORMED))));
    cases.extend(proposals.map(|(name, sum)| (name, sum, (6, MALFORMED))));
    cases.extend([
        ("a non-replay-protected extension", request(Vote { non_rp_extension: vec![1], ..vote() }), (4, NOT_PERMITTED)),
        ("a signature over one", request(Vote { non_rp_extension_signature: vec![1], ..vote() }), (4, NOT_PERMITTED)),
        ("v1 SignBytes", bytes(&[0xaa; 32], b"", b""), (10, NOT_PERMITTED)),
        ("raw bytes, which are off", bytes(CHAIN.as_bytes(), &[1, 2, 3], b"fibre/pp:v0"), (10, NOT_PERMITTED)),
        ("raw bytes without an id", bytes(CHAIN.as_bytes(), &[1], b""), (10, MALFORMED)),
        ("an id without raw bytes", bytes(CHAIN.as_bytes(), b"", b"id"), (10, MALFORMED)),
        ("a chain that is no text", bytes(&[0xff], &[1], b"id"), (10, MALFORMED)),
    ]);
    for chain in [OTHER, "", "test-chain\0"] {
        let fields = [2, 4, 6, 10];
        cases.extend(elsewhere(chain).into_iter().zip(fields).map(|(sum, field)| (chain, sum, (field, WRONG_CHAIN))));
    }
    cases
}

fn what_no_honest_node_sends_is_refused(transport: Transport) {
    let mut scene = Scene::new(transport);
    let cases = what_no_honest_node_sends();
    assert!(cases.len() > 40);
    for (height, (name, sum, expected)) in (1..).zip(cases) {
        let answer = scene.session.ask(sum).unwrap();
        assert_eq!(code_of(&answer), expected, "{name}");
        scene.alive(height);
    }
}

#[test]
fn what_no_honest_node_sends_is_refused_over_tcp() {
    what_no_honest_node_sends_is_refused(Transport::Tcp);
}

#[test]
fn what_no_honest_node_sends_is_refused_over_unix() {
    what_no_honest_node_sends_is_refused(Transport::Unix);
}

#[test]
fn max_height_is_a_limit_of_one_node_and_moves_no_mark() {
    let (halting, going_on) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
    let home = Home::new()
        .chain(CHAIN, "")
        .node(&halting.address(), CHAIN, "max_height = \"500\"")
        .node(&going_on.address(), CHAIN, "")
        .init();
    let _signer = home.start();
    let key = home.public_key(CHAIN);
    let (mut halting, mut going_on) = (halting.accept().unwrap(), going_on.accept().unwrap());

    assert_alive(&mut halting, &key, CHAIN, 400);
    for height in [501, FAR_AWAY, i64::MAX] {
        let answer = halting.ask_vote(CHAIN, prevote(height, 0, Some(1))).unwrap();
        assert_eq!(refusal(answer), MAX_HEIGHT);
        assert_eq!(refusal(halting.ask_proposal(CHAIN, proposal(height, 0, 1)).unwrap()), MAX_HEIGHT);
        assert_eq!(home.mark(CHAIN), (400, 0, "precommit".into()));
        halting.ping().unwrap();
    }
    assert_alive(&mut halting, &key, CHAIN, 500);
    assert_alive(&mut going_on, &key, CHAIN, 501);
}
