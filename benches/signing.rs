//! The steps of the signing path, each by itself and all together. The state file is on a RAM disk, so that what is
//! measured is this program and not a disk; `benches/peers` measures with a real one.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mock_node.rs"]
mod mock_node;

use divan::{Bencher, black_box};
use highwater::keyring::softsign;
use highwater_core::{
    answer::answer,
    chain::Chain,
    consensus::{ChainId, KeyType, Signature},
    privval::{
        Canonical, Request,
        message::{Message, SignVoteRequest, Sum},
        response,
    },
    signer::Signer,
    watermark::{Candidate, HostId, Identity, Mark, StateFile, Store, create, decide},
};
use mock_node::prevote;
use prost::Message as _;
use std::path::Path;
use tempfile::TempDir;

const CHAIN: &str = "bench-1";

fn main() {
    divan::main();
}

/// What a node sends for a prevote at this height.
fn request(height: i64) -> Vec<u8> {
    let vote = Some(prevote(height, 0, Some(7)));
    let request = SignVoteRequest { vote, chain_id: CHAIN.into(), skip_extension_signing: false };
    Message::from(Sum::SignVoteRequest(request)).encode_to_vec()
}

fn chain_id() -> ChainId {
    ChainId::new(CHAIN).unwrap()
}

fn canonical(height: i64) -> Canonical {
    match Request::parse(&request(height), &chain_id()).unwrap() {
        Request::Vote(request) => request.canonical,
        other => panic!("{other:?}"),
    }
}

fn candidate(canonical: &Canonical, chain: &ChainId) -> Candidate {
    let (hrs, target, timestamp) = (canonical.hrs(), canonical.target(), canonical.timestamp);
    Candidate { hrs, target, timestamp, digest: canonical.digest(chain) }
}

fn signer() -> Box<dyn Signer> {
    softsign::generate(KeyType::Ed25519).unwrap().into_signer()
}

/// A store on a RAM disk, which lasts as long as the directory.
fn store(signer: &dyn Signer) -> (Store, TempDir) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (state, host) = (directory.path().join("state"), HostId([0; 16]));
    let identity = Identity { chain: chain_id(), key: signer.public_key() };
    let mark = Mark::NEVER_SIGNED;
    create(&state, host, &identity, mark).unwrap();
    (Store::open(Box::new(StateFile::open(&state).unwrap()), &identity, host).unwrap(), directory)
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let (body, chain) = (request(1), chain_id());
    bencher.bench_local(|| Request::parse(black_box(&body), &chain));
}

#[divan::bench]
fn decide_with_digest(bencher: Bencher<'_, '_>) {
    let (canonical, chain) = (canonical(1), chain_id());
    bencher.bench_local(|| decide(&Mark::NEVER_SIGNED, &candidate(black_box(&canonical), &chain)));
}

#[divan::bench]
fn sign_bytes(bencher: Bencher<'_, '_>) {
    let (canonical, chain) = (canonical(1), chain_id());
    bencher.bench_local(|| black_box(&canonical).sign_bytes(&chain));
}

#[divan::bench]
fn store_on_ram_disk(bencher: Bencher<'_, '_>) {
    let (mut store, _directory) = store(signer().as_ref());
    let mut mark = candidate(&canonical(1), &chain_id()).mark();
    bencher.bench_local(move || {
        store.advance(mark).unwrap();
        mark.hrs.height += 1;
    });
}

#[divan::bench]
fn sign_ed25519(bencher: Bencher<'_, '_>) {
    let (signer, bytes) = (signer(), canonical(1).sign_bytes(&chain_id()));
    bencher.bench_local(|| signer.sign(black_box(bytes.as_slice())));
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let vote = prevote(1, 0, Some(7));
    let (timestamp, signature, mut frame) = (canonical(1).timestamp, Signature::new(&[1; 64]), Vec::new());
    bencher.with_inputs(|| vote.clone()).bench_local_values(|vote| {
        frame.clear();
        response::vote(vote, timestamp, &signature, None).encode_frame(&mut frame);
    });
}

#[divan::bench]
fn whole_request_on_ram_disk(bencher: Bencher<'_, '_>) {
    let signer = signer();
    let (store, directory) = store(signer.as_ref());
    let chain = Chain::open(chain_id(), signer, store, Path::new(&directory.path().join("state")), false);
    let (mut height, mut frame) = (0, Vec::new());
    let mut next = || {
        height += 1;
        request(height)
    };
    bencher.with_inputs(&mut next).bench_local_values(|body| {
        let (message, _) = answer(&chain, &body, None).unwrap();
        frame.clear();
        message.encode_frame(&mut frame);
    });
}
