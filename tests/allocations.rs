//! How often a signature takes memory: as often as is written here, and never more. What is counted is what this
//! thread asks the allocator for, once everything has been used before.
#![allow(clippy::unwrap_used)]

#[path = "support/mock_node.rs"]
mod mock_node;

use allocation_counter::measure;
use highwater::{
    keyring::{IdentityKey, softsign},
    link::{self, Door, Link},
};
use highwater_core::{
    answer::{Outcome, answer},
    chain::Chain,
    consensus::{ChainId, KeyType, Signature, Timestamp},
    privval::{
        Canonical, Request, VoteRequest,
        message::{Message, SignProposalRequest, SignVoteRequest, Sum, Vote},
        response,
    },
    signer::Signer,
    watermark::{Candidate, HostId, Identity, Mark, StateFile, Store, Verdict, create, decide},
};
use mock_node::{MockNode, precommit, prevote, proposal};
use prost::Message as _;
use std::{sync::Arc, thread, time::Duration};
use tempfile::TempDir;

const CHAIN: &str = "test-chain";

/// prost reads every field of bytes into a buffer and copies it into its place.
const BYTES: u64 = 2;
const TEXT: u64 = 1;
/// The chain id, the address, and the two hashes of a block.
const DECODE: u64 = TEXT + BYTES + 2 * BYTES;
/// In an answer.
const SIGNATURE: u64 = 1;
/// An extension can be long, so its sign bytes are no part of any fixed buffer.
const EXTENSION_SIGN_BYTES: u64 = 1;

fn allocations<T>(act: impl FnOnce() -> T) -> (u64, T) {
    let mut result = None;
    let counted = measure(|| result = Some(act()));
    (counted.count_total, result.unwrap())
}

fn vote_request(vote: Vote) -> Vec<u8> {
    let request = SignVoteRequest { vote: Some(vote), chain_id: CHAIN.into(), skip_extension_signing: false };
    Message::from(Sum::SignVoteRequest(request)).encode_to_vec()
}

fn proposal_request(height: i64) -> Vec<u8> {
    let request = SignProposalRequest { proposal: Some(proposal(height, 0, 7)), chain_id: CHAIN.into() };
    Message::from(Sum::SignProposalRequest(request)).encode_to_vec()
}

fn parse(body: &[u8]) -> VoteRequest {
    match Request::parse(body, &ChainId::new(CHAIN).unwrap()).unwrap() {
        Request::Vote(request) => request,
        other => panic!("{other:?}"),
    }
}

fn signer() -> Box<dyn Signer> {
    softsign::generate(KeyType::Ed25519).unwrap().into_signer()
}

/// A store in a file of its own.
fn store(directory: &TempDir, signer: &dyn Signer) -> Store {
    let (state, host) = (directory.path().join("state"), HostId([0; 16]));
    let identity = Identity { chain: ChainId::new(CHAIN).unwrap(), key: signer.public_key() };
    let mark = Mark::NEVER_SIGNED;
    create(&state, host, &identity, mark).unwrap();
    Store::open(Box::new(StateFile::open(&state).unwrap()), &identity, host).unwrap()
}

fn chain(directory: &TempDir) -> Chain {
    let signer = signer();
    let store = store(directory, signer.as_ref());
    Chain::open(ChainId::new(CHAIN).unwrap(), signer, store, &directory.path().join("state"), false)
}

#[test]
fn each_step_takes_no_memory_but_that_of_its_messages() {
    let directory = tempfile::tempdir().unwrap();
    let (id, signer) = (ChainId::new(CHAIN).unwrap(), signer());
    let mut store = store(&directory, signer.as_ref());
    let mut frame = Vec::with_capacity(1024);
    for height in 1..4 {
        let body = vote_request(prevote(height, 0, Some(7)));
        let (decoding, request) = allocations(|| parse(&body));
        assert_eq!(decoding, DECODE, "decode");

        let canonical = request.canonical;
        let (deciding, verdict) = allocations(|| {
            let (hrs, target, digest) = (canonical.hrs(), canonical.target(), canonical.digest(&id));
            let asked = Candidate { hrs, target, timestamp: canonical.timestamp, digest };
            (decide(store.mark(), &asked), asked.mark())
        });
        assert_eq!((deciding, verdict.0), (0, Verdict::Sign), "decide");

        let (storing, durable) = allocations(|| store.advance(verdict.1).unwrap());
        assert_eq!((storing, durable.spend().hrs), (0, canonical.hrs()), "store");

        let (signing, signature): (_, Signature) =
            allocations(|| signer.sign(canonical.sign_bytes(&id).as_slice()).unwrap());
        assert_eq!(signing, 0, "sign");

        let (checking, parsed) = allocations(|| Canonical::parse(canonical.sign_bytes(&id).as_slice()));
        assert_eq!((checking, parsed), (0, Some((canonical, id.clone()))), "check");

        let time: Timestamp = canonical.timestamp;
        let (answering, message) = allocations(|| response::vote(request.echo, time, &signature, None));
        assert_eq!(answering, SIGNATURE, "answer");
        frame.clear();
        let (encoding, ()) = allocations(|| message.encode_frame(&mut frame));
        assert_eq!(encoding, 0, "encode");
    }
}

#[test]
fn a_whole_request_takes_what_its_steps_take() {
    let directory = tempfile::tempdir().unwrap();
    let chain = chain(&directory);
    let mut extended = precommit(5, 0, Some(7));
    extended.extension = vec![1; 100];
    let whole = DECODE + SIGNATURE;
    let cases = [
        ("a first prevote", vote_request(prevote(1, 0, Some(7))), whole, Outcome::Signed),
        ("a prevote", vote_request(prevote(2, 0, Some(7))), whole, Outcome::Signed),
        ("a repeated prevote", vote_request(prevote(2, 0, Some(7))), whole, Outcome::Repeated),
        ("a prevote for nil", vote_request(prevote(3, 0, None)), whole - 2 * BYTES, Outcome::Signed),
        (
            "a precommit",
            vote_request(precommit(4, 0, Some(7))),
            whole + EXTENSION_SIGN_BYTES + SIGNATURE,
            Outcome::Signed,
        ),
        (
            "an extended precommit",
            vote_request(extended),
            whole + BYTES + EXTENSION_SIGN_BYTES + SIGNATURE,
            Outcome::Signed,
        ),
        // It has no address.
        ("a proposal", proposal_request(6), whole - BYTES, Outcome::Signed),
    ];
    let mut frame = Vec::with_capacity(1024);
    for (name, body, expected, outcome) in cases {
        let (count, event) = allocations(|| {
            let (message, event) = answer(&chain, &body, None).unwrap();
            frame.clear();
            message.encode_frame(&mut frame);
            event
        });
        assert_eq!(event.outcome, outcome, "{name}");
        assert_eq!(count, expected, "{name}");
    }
}

#[test]
fn a_unix_link_takes_no_memory_and_a_secret_one_what_its_library_takes() {
    /// tendermint-p2p puts every chunk that it reads into memory of its own.
    const CHUNK: u64 = 1;
    const TIMEOUT: Duration = Duration::from_secs(20);
    let directory = tempfile::tempdir().unwrap();
    let unix = MockNode::unix(&directory.path().join("socket")).unwrap();
    let unix_door = link::unix(&directory.path().join("socket"), TIMEOUT).unwrap();
    assert_link_takes(unix, Box::new(unix_door), 0);
    let tcp = MockNode::tcp().unwrap();
    let port = tcp.socket().port();
    let identity = Arc::new(identity(&directory));
    let tcp_door = link::tcp(&[([127, 0, 0, 1], port).into()], identity, None, TIMEOUT).unwrap();
    assert_link_takes(tcp, Box::new(tcp_door), CHUNK);
}

fn assert_link_takes(node: MockNode, door: Box<dyn Door>, to_receive: u64) {
    const TIMES: i64 = 4;
    let asking = thread::spawn(move || {
        let mut session = node.accept().unwrap();
        for height in 1..=TIMES {
            let request = SignVoteRequest { vote: Some(prevote(height, 0, Some(7))), ..Default::default() };
            session.ask(Sum::SignVoteRequest(request)).unwrap();
        }
    });
    let mut link: Box<dyn Link> = door.enter().unwrap();
    let mut body = Vec::new();
    let mut frame = Vec::new();
    response::ping().encode_frame(&mut frame);
    for turn in 1..=TIMES {
        let (receiving, ()) = allocations(|| link.receive(&mut body).unwrap());
        let (sending, ()) = allocations(|| link.send(&frame).unwrap());
        // The first request makes room for those after it.
        if turn > 1 {
            assert_eq!((receiving, sending), (to_receive, 0), "turn {turn}");
        }
    }
    asking.join().unwrap();
}

fn identity(directory: &TempDir) -> IdentityKey {
    let path = directory.path().join("identity.key");
    IdentityKey::generate(&path).unwrap()
}
