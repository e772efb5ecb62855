//! The privval protocol against the running signer: what every request is answered, over TCP and over unix, and what
//! a restart, a second signer or a bad file changes about it.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]
#![cfg(unix)]

mod support;

use highwater_core::privval::message::{
    BlockId, Message, Proposal, PubKeyRequest, SignBytesRequest, SignProposalRequest, SignVoteRequest, Sum, Vote,
};
use serde_json::Value;
use std::{
    fs,
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};
use subtle_encoding::hex;
use support::{
    assert_alive, assert_extension_signed, assert_proposal_signed, assert_vote_signed,
    mock_node::{MockNode, Session, at, block_id, precommit, prevote, proposal, vote_at},
    signature,
    signer::use_key_of_vectors,
    signer::{Home, Signer},
};

const CHAIN: &str = "test-chain";
const OTHER: &str = "other-chain";

const DOUBLE_SIGN: i32 = 100;
const REGRESSION: i32 = 101;
const WRONG_CHAIN: i32 = 102;
const KEY_UNAVAILABLE: i32 = 104;
const MAX_HEIGHT: i32 = 105;
const STATE_UNUSABLE: i32 = 106;
const MALFORMED: i32 = 107;
const NOT_PERMITTED: i32 = 108;

/// Heights at which a test asks for what must be refused. Had a mark moved there, nothing below could be signed.
const FAR_AWAY: i64 = 1_000_000_000;
/// How long a test waits to see that something does not happen.
const A_WHILE: Duration = Duration::from_millis(300);

#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    Unix,
}

/// One chain, one node, one signer, connected. The signer goes before its home does.
struct Scene {
    session: Session,
    node: MockNode,
    signer: Signer,
    home: Home,
}

impl Scene {
    fn new(transport: Transport) -> Self {
        Self::with(transport, CHAIN, "", "")
    }

    fn with(transport: Transport, chain: &str, of_chain: &str, of_node: &str) -> Self {
        let home = Home::new();
        let node = match transport {
            Transport::Tcp => MockNode::tcp(),
            Transport::Unix => MockNode::unix(&home.path("privval.sock")),
        };
        let node = node.unwrap();
        let home = home.chain(chain, of_chain).node(&node.address(), chain, of_node).init();
        let signer = home.start();
        let session = node.accept().unwrap();
        Self { session, node, signer, home }
    }

    /// Has a vote signed and checks the signature.
    fn sign(&mut self, vote: Vote) -> Vote {
        let signed = self.session.ask_vote(CHAIN, vote.clone()).unwrap();
        let signed = signed.unwrap_or_else(|refusal| panic!("{vote:?}: {refusal:?}"));
        assert_vote_signed(&self.home.public_key(CHAIN), CHAIN, &signed);
        // Everything that the node does not take from the answer comes back as it went.
        let own = Vote {
            signature: Vec::new(),
            extension_signature: Vec::new(),
            timestamp: vote.timestamp,
            ..signed.clone()
        };
        assert_eq!(own, Vote { extension: Vec::new(), ..vote });
        signed
    }

    fn refused(&mut self, vote: Vote) -> i32 {
        refusal(self.session.ask_vote(CHAIN, vote).unwrap())
    }

    fn alive(&mut self, height: i64) {
        assert_alive(&mut self.session, &self.home.public_key(CHAIN), CHAIN, height);
    }
}

fn refusal<T: std::fmt::Debug>(answer: support::mock_node::Answer<T>) -> i32 {
    let refusal = answer.expect_err("this must be refused");
    assert!(!refusal.description.is_empty(), "a refusal says why");
    refusal.code
}

// The rule.

/// What is asked after what was signed, at `height` and up.
#[derive(Clone, Copy, Debug)]
enum Relation {
    HeightAbove,
    HeightBelow,
    RoundAbove,
    RoundBelow,
    Same,
    StepAbove,
    StepBelow,
}

impl Relation {
    const ALL: [Self; 7] = [
        Self::HeightAbove,
        Self::HeightBelow,
        Self::RoundAbove,
        Self::RoundBelow,
        Self::Same,
        Self::StepAbove,
        Self::StepBelow,
    ];

    /// The vote that is signed first and the one asked for then.
    fn votes(self, height: i64, step: Step, first: Option<u8>, then: Option<u8>) -> (Vote, Vote) {
        match self {
            Self::HeightAbove => (step(height, 1, first), step(height + 1, 1, then)),
            Self::HeightBelow => (step(height, 1, first), step(height - 1, 1, then)),
            Self::RoundAbove => (step(height, 1, first), step(height, 2, then)),
            Self::RoundBelow => (step(height, 1, first), step(height, 0, then)),
            Self::Same => (step(height, 1, first), step(height, 1, then)),
            Self::StepAbove => (prevote(height, 1, first), precommit(height, 1, then)),
            Self::StepBelow => (precommit(height, 1, first), prevote(height, 1, then)),
        }
    }

    fn refusal(self, first: Option<u8>, then: Option<u8>) -> Option<i32> {
        match self {
            Self::HeightBelow | Self::RoundBelow | Self::StepBelow => Some(REGRESSION),
            Self::Same if first != then => Some(DOUBLE_SIGN),
            Self::HeightAbove | Self::RoundAbove | Self::Same | Self::StepAbove => None,
        }
    }
}

type Step = fn(i64, i32, Option<u8>) -> Vote;

const BLOCK_PAIRS: [(Option<u8>, Option<u8>); 5] =
    [(None, None), (Some(1), Some(1)), (None, Some(1)), (Some(1), None), (Some(1), Some(2))];

fn every_pair_of_votes(transport: Transport) {
    let mut scene = Scene::new(transport);
    let mut height = 10;
    for relation in Relation::ALL {
        for (first, then) in BLOCK_PAIRS {
            for step in [prevote as Step, precommit] {
                let (first_vote, then_vote) = relation.votes(height, step, first, then);
                let then_vote = vote_at(1_700_000_099, then_vote);
                let signed = scene.sign(first_vote);
                match relation.refusal(first, then) {
                    Some(code) => {
                        assert_eq!(scene.refused(then_vote), code, "{relation:?} {first:?} then {then:?}");
                    }
                    None => {
                        let then_signed = scene.sign(then_vote.clone());
                        if matches!(relation, Relation::Same) {
                            assert_eq!(then_signed, signed, "a repeat has the stored time and signature");
                        } else {
                            assert_eq!(then_signed.timestamp, then_vote.timestamp);
                        }
                    }
                }
                scene.alive(height + 2);
                height += 10;
            }
        }
    }
}

#[test]
fn every_pair_of_votes_is_answered_by_the_rule_over_tcp() {
    every_pair_of_votes(Transport::Tcp);
}

#[test]
fn every_pair_of_votes_is_answered_by_the_rule_over_unix() {
    every_pair_of_votes(Transport::Unix);
}

#[test]
fn a_double_sign_is_any_difference_but_the_time() {
    let mut scene = Scene::new(Transport::Tcp);
    let mut other_total = block_id(1);
    other_total.part_set_header.as_mut().unwrap().total += 1;
    let mut other_parts = block_id(1);
    other_parts.part_set_header.as_mut().unwrap().hash[31] ^= 1;
    let mut other_hash = block_id(1);
    other_hash.hash[0] ^= 0x80;
    for (index, other) in [other_total, other_parts, other_hash].into_iter().enumerate() {
        let height = 10 * (1 + i64::try_from(index).unwrap());
        let signed = scene.sign(precommit(height, 0, Some(1)));
        let conflicting = Vote { block_id: Some(other), ..precommit(height, 0, Some(1)) };
        assert_eq!(scene.refused(conflicting), DOUBLE_SIGN);
        assert_eq!(scene.sign(vote_at(5, precommit(height, 0, Some(1)))), signed, "the repeat still comes");
        scene.alive(height + 1);
    }
    // Neither address nor index is signed: the same vote.
    let signed = scene.sign(prevote(100, 0, Some(1)));
    let elsewhere = Vote { validator_address: vec![0xbb; 20], validator_index: 9, ..prevote(100, 0, Some(1)) };
    assert_eq!(scene.sign(elsewhere).signature, signed.signature);
}

#[test]
fn proposals_are_repeated_to_the_byte_and_otherwise_refused() {
    let mut scene = Scene::new(Transport::Tcp);
    let key = scene.home.public_key(CHAIN);
    type Then = fn(i64) -> Proposal;
    let cases: [(&str, Then, Option<i32>); 8] = [
        ("the same", |height| proposal(height, 1, 1), None),
        ("the next round", |height| proposal(height, 2, 2), None),
        ("another time", |height| Proposal { timestamp: Some(at(5)), ..proposal(height, 1, 1) }, Some(DOUBLE_SIGN)),
        ("another block", |height| proposal(height, 1, 2), Some(DOUBLE_SIGN)),
        ("another proof of lock", |height| Proposal { pol_round: 0, ..proposal(height, 1, 1) }, Some(DOUBLE_SIGN)),
        ("an earlier round", |height| proposal(height, 0, 1), Some(REGRESSION)),
        ("an earlier height", |height| proposal(height - 1, 1, 1), Some(REGRESSION)),
        ("an earlier height, later round", |height| proposal(height - 1, 9, 1), Some(REGRESSION)),
    ];
    for (index, (name, then, code)) in cases.into_iter().enumerate() {
        let height = 10 * (1 + i64::try_from(index).unwrap());
        let signed = scene.session.ask_proposal(CHAIN, proposal(height, 1, 1)).unwrap().unwrap();
        assert_proposal_signed(&key, CHAIN, &signed);
        let answer = scene.session.ask_proposal(CHAIN, then(height)).unwrap();
        match code {
            Some(code) => assert_eq!(refusal(answer), code, "{name}"),
            None => {
                let answer = answer.unwrap();
                assert_proposal_signed(&key, CHAIN, &answer);
                assert_eq!(answer.signature == signed.signature, name == "the same", "{name}");
            }
        }
        scene.alive(height + 2);
    }
    // Within a round a proposal comes first.
    scene.sign(prevote(500, 1, Some(1)));
    assert_eq!(refusal(scene.session.ask_proposal(CHAIN, proposal(500, 1, 1)).unwrap()), REGRESSION);
    scene.sign(precommit(500, 1, Some(1)));
    assert_eq!(refusal(scene.session.ask_proposal(CHAIN, proposal(500, 1, 1)).unwrap()), REGRESSION);
    scene.alive(501);
}

#[test]
fn a_prevote_for_one_block_and_a_precommit_for_another_in_one_round_are_legal() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut scene = Scene::new(transport);
        scene.sign(prevote(7, 0, Some(1)));
        scene.sign(precommit(7, 0, Some(2)));
        scene.sign(prevote(7, 1, None));
        scene.sign(precommit(7, 1, Some(2)));
        assert_eq!(scene.home.mark(CHAIN), (7, 1, "precommit".into()));
    }
}

// What no honest node sends.

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

// Extensions.

fn every_vote_extension(transport: Transport) {
    let mut scene = Scene::new(transport);
    let key = scene.home.public_key(CHAIN);
    let mut height = 0;
    for step in [prevote as Step, precommit] {
        for block in [None, Some(1)] {
            for extension in [b"".as_slice(), b"extension"] {
                for skip_extension_signing in [false, true] {
                    height += 10;
                    let vote = Vote { extension: extension.to_vec(), ..step(height, 0, block) };
                    let request =
                        SignVoteRequest { vote: Some(vote.clone()), chain_id: CHAIN.into(), skip_extension_signing };
                    let answer = scene.session.ask_vote_request(request).unwrap();
                    let extends = vote.r#type == 2 && block.is_some();
                    if !extends && !extension.is_empty() {
                        assert_eq!(refusal(answer), MALFORMED, "{vote:?}");
                        scene.sign(step(height, 0, block));
                    } else {
                        let signed = answer.unwrap();
                        assert_vote_signed(&key, CHAIN, &signed);
                        let due = extends && !skip_extension_signing;
                        assert_eq!(!signed.extension_signature.is_empty(), due, "{vote:?} {skip_extension_signing}");
                        if due {
                            assert_extension_signed(&key, CHAIN, &signed, extension);
                        }
                    }
                    scene.alive(height + 1);
                }
            }
        }
    }
    assert_eq!(height, 160, "sixteen cases");
}

#[test]
fn an_extension_is_signed_if_and_only_if_a_node_needs_it_over_tcp() {
    every_vote_extension(Transport::Tcp);
}

#[test]
fn an_extension_is_signed_if_and_only_if_a_node_needs_it_over_unix() {
    every_vote_extension(Transport::Unix);
}

#[test]
fn a_repeated_precommit_gets_its_new_extension_signed() {
    let mut scene = Scene::new(Transport::Tcp);
    let key = scene.home.public_key(CHAIN);
    let first = scene.sign(Vote { extension: b"one".to_vec(), ..precommit(5, 0, Some(1)) });
    assert_extension_signed(&key, CHAIN, &first, b"one");
    let again = scene.sign(vote_at(9, Vote { extension: b"two".to_vec(), ..precommit(5, 0, Some(1)) }));
    assert_eq!((again.signature.clone(), again.timestamp), (first.signature, first.timestamp));
    assert_extension_signed(&key, CHAIN, &again, b"two");
}

#[test]
fn long_extensions_are_signed_and_never_sent_back() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut scene = Scene::new(transport);
        let key = scene.home.public_key(CHAIN);
        for (height, length) in (1..).zip([1000, 1024, 10_240, 20_000, 900_000]) {
            let extension = vec![0xee; length];
            // The mock node takes no answer above 10 240 bytes, as no node before v0.40 does.
            let signed = scene.sign(Vote { extension: extension.clone(), ..precommit(height, 0, Some(1)) });
            assert_extension_signed(&key, CHAIN, &signed, &extension);
        }
        scene.alive(10);
    }
}

// Vectors computed by CometBFT.

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn signatures_are_those_of_cometbft() {
    let _key = use_key_of_vectors();
    let json = vectors(include_str!("vectors/sign_bytes.json"));
    let vectors = json["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 8, "the vectors are gone");
    for vector in vectors {
        let number = |name: &str| vector[name].as_i64().unwrap();
        let small = |name: &str| i32::try_from(number(name)).unwrap();
        let chain = vector["ChainID"].as_str().unwrap();
        let mut scene = Scene::with(Transport::Unix, chain, "", "");
        let mut id = BlockId::default();
        if number("PartsTotal") > 0 {
            id = block_id(0);
            id.hash = bytes(&vector["BlockHash"]);
            let parts = id.part_set_header.as_mut().unwrap();
            parts.total = u32::try_from(number("PartsTotal")).unwrap();
            parts.hash = bytes(&vector["PartsHash"]);
        }
        let mut time = at(number("Seconds"));
        time.nanos = small("Nanos");
        let (height, round, block_id, timestamp) = (number("Height"), small("Round"), Some(id), Some(time));
        let signed = match small("Type") {
            32 => {
                let pol_round = small("PolRound");
                let offer = Proposal { round, pol_round, block_id, timestamp, ..proposal(height, 0, 0) };
                scene.session.ask_proposal(chain, offer).unwrap().unwrap().signature
            }
            r#type => {
                let extension = bytes(&vector["Extension"]);
                let vote = Vote { r#type, block_id, timestamp, extension, ..prevote(height, round, None) };
                let signed = scene.session.ask_vote(chain, vote).unwrap().unwrap();
                assert_eq!(signed.extension_signature, bytes(&vector["ExtSigEd25519"]), "{}", vector["Name"]);
                signed.signature
            }
        };
        assert_eq!(signed, bytes(&vector["SigEd25519"]), "{}", vector["Name"]);
    }
}

#[test]
fn the_public_key_is_answered_in_the_form_of_every_version_at_once() {
    let _key = use_key_of_vectors();
    let json = vectors(include_str!("vectors/wire.json"));
    let messages = json["messages"].as_array().unwrap();
    let union = messages.iter().find(|m| m["name"].as_str().unwrap().starts_with("PubKeyResponse UNION")).unwrap();
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut scene = Scene::new(transport);
        for height in 1..=3 {
            let answer = scene.session.ask_pub_key(CHAIN).unwrap().unwrap();
            let mut frame = Vec::new();
            Message::from(Sum::PubKeyResponse(answer)).encode_frame(&mut frame);
            assert_eq!(frame, bytes(&union["delimited"]));
            scene.alive(height);
        }
    }
}

#[test]
fn raw_bytes_are_signed_where_the_configuration_allows_it() {
    let _key = use_key_of_vectors();
    let celestia = vectors(include_str!("vectors/wire.json"))["celestia_raw_bytes"].take();
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut scene = Scene::with(transport, CHAIN, "allow_raw_bytes = true", "");
        let request = |chain: &str, unique_id: &[u8]| SignBytesRequest {
            value_or_chain_id: chain.into(),
            raw_bytes: vec![1, 2, 3],
            unique_id: unique_id.to_vec(),
        };
        let signed = scene.session.ask_bytes(request(CHAIN, b"fibre/pp:v0")).unwrap().unwrap();
        assert_eq!(signed, bytes(&celestia["ed25519_sig"]));
        assert!(scene.home.public_key(CHAIN).verifies(&bytes(&celestia["sign_bytes"]), &signature(&signed)));
        assert_eq!(refusal(scene.session.ask_bytes(request(OTHER, b"fibre/pp:v0")).unwrap()), WRONG_CHAIN);
        assert_eq!(refusal(scene.session.ask_bytes(request(CHAIN, b"")).unwrap()), MALFORMED);
        // SignBytes stays out: it has no prefix.
        let sign_bytes = SignBytesRequest { value_or_chain_id: vec![0xaa; 32], ..SignBytesRequest::default() };
        assert_eq!(refusal(scene.session.ask_bytes(sign_bytes).unwrap()), NOT_PERMITTED);
        assert_eq!(scene.home.mark(CHAIN).0, 0, "raw bytes move no mark");
        scene.alive(1);
    }
}

// Limits and bad files.

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

/// What happens to the files of a chain between `state init` and `start`.
type Damage = fn(&Home);

#[test]
fn a_chain_with_bad_files_answers_why_and_the_other_chain_signs() {
    let cases: [(&str, Damage, i32); 5] = [
        ("a missing state file", |home| fs::remove_file(home.state_file(CHAIN)).unwrap(), STATE_UNUSABLE),
        ("an empty state file", |home| fs::write(home.state_file(CHAIN), b"").unwrap(), STATE_UNUSABLE),
        (
            "a damaged state file",
            |home| {
                let mut content = fs::read(home.state_file(CHAIN)).unwrap();
                content[40] ^= 1;
                fs::write(home.state_file(CHAIN), content).unwrap();
            },
            STATE_UNUSABLE,
        ),
        (
            "the state file of another chain",
            |home| {
                fs::copy(home.state_file(OTHER), home.state_file(CHAIN)).unwrap();
            },
            STATE_UNUSABLE,
        ),
        ("a missing key", |home| fs::remove_file(home.key_file(CHAIN)).unwrap(), KEY_UNAVAILABLE),
    ];
    for (name, damage, code) in cases {
        let (bad, good) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
        let home = Home::new()
            .chain(CHAIN, "allow_raw_bytes = true")
            .chain(OTHER, "")
            .node(&bad.address(), CHAIN, "")
            .node(&good.address(), OTHER, "")
            .init();
        damage(&home);
        let _signer = home.start();
        let (mut bad, mut good) = (bad.accept().unwrap(), good.accept().unwrap());
        for height in 1..=3 {
            // A booting node asks for the key once and exits without.
            let answer = bad.ask_pub_key(CHAIN).unwrap();
            match code {
                STATE_UNUSABLE => {
                    assert_eq!(answer.unwrap().pub_key_bytes, home.public_key(CHAIN).to_bytes(), "{name}")
                }
                _ => assert_eq!(refusal(answer), code, "{name}"),
            }
            assert_eq!(refusal(bad.ask_vote(CHAIN, precommit(height, 0, Some(1))).unwrap()), code, "{name}");
            assert_eq!(refusal(bad.ask_proposal(CHAIN, proposal(height, 0, 1)).unwrap()), code, "{name}");
            bad.ping().unwrap();
            assert_alive(&mut good, &home.public_key(OTHER), OTHER, height);
        }
    }
}

#[test]
fn a_state_file_that_is_replaced_at_work_stops_its_chain_until_a_restart() {
    let mut scene = Scene::new(Transport::Tcp);
    scene.alive(1);
    let state = scene.home.state_file(CHAIN);
    let copy = scene.home.path("copy");
    fs::copy(&state, &copy).unwrap();
    fs::rename(&copy, &state).unwrap();
    for vote in [precommit(2, 0, Some(1)), precommit(1, 0, Some(7)), prevote(3, 0, None)] {
        assert_eq!(scene.refused(vote), STATE_UNUSABLE);
        scene.session.ping().unwrap();
        scene.session.ask_pub_key(CHAIN).unwrap().unwrap();
    }
    scene.signer.sigkill();
    // What stands there is a copy, and is taken only by the command that says so.
    let mut refused = scene.home.start();
    assert_eq!(refused.exit_code(), Some(65));
    assert!(refused.log().contains("is a copy of a state file"), "{}", refused.log());
    let import =
        scene.home.command(&["state", "import", "--i-checked-the-height", state.to_str().unwrap()]).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    let _restarted = scene.home.start();
    scene.session = scene.node.accept().unwrap();
    scene.alive(4);
}

#[test]
fn without_a_usable_chain_the_signer_exits_before_dialling() {
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    fs::remove_file(home.state_file(CHAIN)).unwrap();
    let mut signer = home.start();
    assert_eq!(signer.exit_code(), Some(65));
    assert!(signer.log().contains("no chain can sign"), "{}", signer.log());
    assert!(node.accept_raw(A_WHILE).is_err(), "nobody dials");
    assert!(!home.state_file(CHAIN).exists(), "start never makes a state file");
}

// Restarts.

#[test]
fn what_was_signed_before_a_sigkill_is_repeated_and_nothing_else() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let mut scene = Scene::new(transport);
        for height in (10..15).step_by(2) {
            let signed = scene.sign(precommit(height, 2, Some(1)));
            scene.signer.sigkill();
            scene.signer = scene.home.start();
            scene.session = scene.node.accept().unwrap();
            assert_eq!(scene.refused(precommit(height, 2, Some(2))), DOUBLE_SIGN);
            assert_eq!(scene.refused(precommit(height, 2, None)), DOUBLE_SIGN);
            assert_eq!(scene.refused(prevote(height, 2, Some(1))), REGRESSION);
            assert_eq!(scene.sign(vote_at(1_800_000_000, precommit(height, 2, Some(1)))), signed);
            scene.alive(height + 1);
        }
        // A proposal too.
        let offer = proposal(90, 0, 1);
        let signed = scene.session.ask_proposal(CHAIN, offer.clone()).unwrap().unwrap();
        scene.signer.sigkill();
        scene.signer = scene.home.start();
        scene.session = scene.node.accept().unwrap();
        assert_eq!(refusal(scene.session.ask_proposal(CHAIN, proposal(90, 0, 2)).unwrap()), DOUBLE_SIGN);
        assert_eq!(scene.session.ask_proposal(CHAIN, offer).unwrap().unwrap(), signed);
    }
}

/// Keeps 50 requests in flight, which no node does, sends SIGTERM amid them, and gives the last height that was
/// answered and how long after the signal the answers ended.
fn sigterm_amid_requests(scene: &mut Scene) -> (i64, Duration) {
    const IN_FLIGHT: i64 = 50;
    const SIGNAL_AT: i64 = 100;
    for height in 1..=IN_FLIGHT {
        scene.session.send(request(prevote(height, 0, Some(1)))).unwrap();
    }
    let mut answered = 0;
    let mut signalled = None;
    while let Ok(message) = scene.session.receive() {
        let Some(Sum::SignedVoteResponse(response)) = message.sum else { panic!("{message:?}") };
        answered = response.vote.expect("answers are whole").height;
        // Fails once the signer no longer reads, while answers may still be on their way.
        let _ = scene.session.send(request(prevote(answered + IN_FLIGHT, 0, Some(1))));
        if answered == SIGNAL_AT {
            scene.signer.sigterm();
            signalled = Some(Instant::now());
        }
    }
    let took = signalled.expect("the signal came amid the requests").elapsed();
    assert_eq!(scene.signer.exit_code(), Some(0));
    (answered, took)
}

#[test]
fn at_a_sigterm_the_request_in_hand_is_answered() {
    // Not over tcp: there a failed write keeps the mock node from reading the last answers.
    let mut scene = Scene::new(Transport::Unix);
    let (answered, _) = sigterm_amid_requests(&mut scene);
    assert_eq!(scene.home.mark(CHAIN).0, answered, "whatever was signed was answered");
}

#[test]
fn after_a_sigterm_no_request_is_begun() {
    // Not over unix: there the node can send nothing more anyway.
    let mut scene = Scene::new(Transport::Tcp);
    let (_, took) = sigterm_amid_requests(&mut scene);
    assert!(took < Duration::from_secs(4), "requests went on being begun for {took:?}");
}

#[test]
fn an_idle_signer_stops_at_once() {
    let mut scene = Scene::new(Transport::Tcp);
    scene.alive(1);
    let begin = Instant::now();
    scene.signer.sigterm();
    assert!(scene.session.ends_within(Duration::from_secs(4)).unwrap());
    assert_eq!(scene.signer.exit_code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[test]
fn a_second_signer_on_the_same_state_exits_before_dialling() {
    let mut scene = Scene::new(Transport::Tcp);
    scene.alive(1);
    let mut second = scene.home.start();
    assert_eq!(second.exit_code(), Some(75), "{}", second.log());
    assert!(scene.node.accept_raw(A_WHILE).is_err(), "nobody else dials");
    scene.alive(2);
    scene.signer.sigkill();
    // The lock went with the process.
    let _third = scene.home.start();
    scene.session = scene.node.accept().unwrap();
    scene.alive(3);
}

// Several nodes.

#[test]
fn two_nodes_that_ask_at_once_get_one_signature_and_one_time() {
    let nodes = [MockNode::tcp().unwrap(), MockNode::tcp().unwrap()];
    let home = Home::new().chain(CHAIN, "");
    let home = nodes.iter().fold(home, |home, node| home.node(&node.address(), CHAIN, "")).init();
    let _signer = home.start();
    let mut sessions = nodes.each_ref().map(|node| node.accept().unwrap());
    let barrier = Barrier::new(2);
    let mut firsts = [0, 0];
    for height in 1..=40 {
        let ask = |session: &mut Session, seconds| {
            barrier.wait();
            session.ask_vote(CHAIN, vote_at(seconds, precommit(height, 0, Some(1)))).unwrap().unwrap()
        };
        let [one, two] = &mut sessions;
        let (one, two) = thread::scope(|scope| {
            let one = scope.spawn(|| ask(one, 1_700_000_001));
            let two = scope.spawn(|| ask(two, 1_700_000_002));
            (one.join().unwrap(), two.join().unwrap())
        });
        assert_eq!(one, two, "one signature, one time");
        assert_vote_signed(&home.public_key(CHAIN), CHAIN, &one);
        firsts[usize::try_from(one.timestamp.unwrap().seconds - 1_700_000_001).unwrap()] += 1;
    }
    assert_eq!(firsts.iter().sum::<i32>(), 40);
    // Two blocks at once: one of them.
    let [one, two] = &mut sessions;
    let answers = thread::scope(|scope| {
        let spawned = [(one, 1), (two, 2)].map(|(session, block)| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                session.ask_vote(CHAIN, precommit(100, 0, Some(block))).unwrap()
            })
        });
        spawned.map(|thread| thread.join().unwrap())
    });
    let signed = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(signed, 1, "{answers:?}");
    assert!(answers.iter().flat_map(|answer| answer.as_ref().err()).all(|refusal| refusal.code == DOUBLE_SIGN));
}

#[test]
fn a_node_that_goes_away_does_not_touch_another_chain_and_is_dialled_until_it_is_back() {
    let (lost, kept) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
    let home = Home::new()
        .chain(CHAIN, "")
        .chain(OTHER, "")
        .node(&lost.address(), CHAIN, "")
        .node(&kept.address(), OTHER, "")
        .init();
    let mut signer = home.start();
    let (mut first, mut other) = (lost.accept().unwrap(), kept.accept().unwrap());
    assert_alive(&mut first, &home.public_key(CHAIN), CHAIN, 1);
    let address = lost.socket();
    first.close();
    drop(lost);
    signer.wait_for_log("cannot connect");
    for height in 1..=20 {
        let begin = Instant::now();
        assert_alive(&mut other, &home.public_key(OTHER), OTHER, height);
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    }
    let back = MockNode::tcp_at(address).unwrap();
    let mut first = back.accept().unwrap();
    assert_alive(&mut first, &home.public_key(CHAIN), CHAIN, 2);
    assert_alive(&mut other, &home.public_key(OTHER), OTHER, 21);
    signer.assert_running();
}

#[test]
fn a_node_that_is_not_to_be_dialled_again_is_not_and_without_nodes_the_signer_exits() {
    let (once, again) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
    let home = Home::new()
        .chain(CHAIN, "")
        .chain(OTHER, "")
        .node(&once.address(), CHAIN, "reconnect = false")
        .node(&again.address(), OTHER, "reconnect = false")
        .init();
    let mut signer = home.start();
    let (mut first, mut other) = (once.accept().unwrap(), again.accept().unwrap());
    assert_alive(&mut first, &home.public_key(CHAIN), CHAIN, 1);
    first.close();
    signer.wait_for_log("not dialling again");
    assert!(once.accept_raw(A_WHILE).is_err(), "the node is not dialled again");
    assert_alive(&mut other, &home.public_key(OTHER), OTHER, 1);
    other.close();
    assert_eq!(signer.exit_code(), Some(69));
}

/// A signer that starts before its nodes listen, as it is meant to be.
#[test]
fn a_node_that_comes_later_is_found_within_its_three_seconds() {
    let place = MockNode::tcp().unwrap();
    let address = place.socket();
    let home = Home::new().chain(CHAIN, "").node(&place.address(), CHAIN, "").init();
    drop(place);
    let mut signer = home.start();
    signer.wait_for_log("cannot connect");
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // By now the waits have grown to their longest.
            thread::sleep(Duration::from_secs(3));
            let begin = Instant::now();
            let session = MockNode::tcp_at(address).unwrap().accept().unwrap();
            sender.send((begin.elapsed(), session)).unwrap();
        });
        let (took, mut session) = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 1);
    });
}
