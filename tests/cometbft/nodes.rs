//! Highwater against real CometBFT nodes: blocks grow, whatever happens to the signer, and nothing is signed twice.

use crate::support::network::{
    app,
    lab::{Lab, cometbft, free_port},
    node::{Node, chain_id, extension_params},
    signer::{self, Signer},
};
use highwater_core::consensus::ChainId;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    thread,
    time::Duration,
};

/// How many blocks a lone validator makes at least before the signer is killed, between the kills, and after.
const LONE_BLOCKS: u64 = 10;
const KILLS: u64 = 4;
/// Longer than a block takes: the kill may come at any point of one.
const KILL_DELAY_MAX_MS: u64 = 100;
/// How many blocks four validators make.
const SHARED_BLOCKS: u64 = 20;
/// Refusals that the slower of two nodes may get: its proposal is not the first, or its request is for the past.
const REFUSED_TO_THE_SECOND_NODE: [&str; 4] =
    ["block-against-nil", "conflicting-proposal", "nil-against-block", "regression"];

#[test]
fn a_v0_37_validator_signs_through_kills_of_the_signer() {
    lone_validator("v0.37.18", Transport::Tcp);
}

#[test]
fn a_v0_38_validator_signs_through_kills_of_the_signer() {
    lone_validator("v0.38.25", Transport::Tcp);
}

#[test]
fn a_v0_38_validator_signs_over_a_unix_socket() {
    lone_validator("v0.38.25", Transport::Unix);
}

#[test]
fn a_v0_40_validator_signs_through_kills_of_the_signer() {
    lone_validator("v0.40.0", Transport::Tcp);
}

#[test]
fn a_v1_validator_signs_through_kills_of_the_signer() {
    lone_validator("v1.0.1", Transport::Tcp);
}

#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    Unix,
}

/// One validator is the whole chain: without its signature there is no next block.
fn lone_validator(version: &str, transport: Transport) {
    let Some(binary) = cometbft(version) else { return };
    let lab = Lab::new();
    let node = Node::init(&lab, &binary, "node");
    let mut genesis = node.genesis();
    let chain = chain_id(&genesis);
    let extended = enable_extensions(&mut genesis);
    assert_eq!(extended, !version.starts_with("v0.37."), "only v0.37 knows no vote extensions");
    node.set_genesis(&genesis);
    let key = node.public_key();
    let address = match transport {
        Transport::Tcp => format!("tcp://127.0.0.1:{}", free_port()),
        Transport::Unix => format!("unix://{}", lab.path("privval.sock").display()),
    };
    let key_file = node.use_signer(&address);
    let signer = Signer::init(&lab, &chain, &key_file, &[address]);

    // The signer comes first: a node exits if it has none within three seconds.
    let mut signing = signer.start();
    let mut running = node.start(&app::serve());
    for _ in 0..KILLS {
        node.wait_for_blocks(&mut running, LONE_BLOCKS);
        thread::sleep(random_delay());
        signing.assert_running();
        signing.kill();
        signing = signer.start();
    }
    let last = node.wait_for_blocks(&mut running, LONE_BLOCKS) - 1;

    for height in 1..=last {
        let commit = node.rpc.commit(height);
        assert_eq!(commit.signers(), 1, "height {height}");
        assert!(commit.is_signed_by(&key, &chain), "height {height}");
        node.rpc.block_without_evidence(height);
    }
    let mut in_force = node.rpc.expect(&format!("/consensus_params?height={last}"));
    let enabled_at = extension_params(&mut in_force["consensus_params"]).map(|height| height.take());
    assert_eq!(enabled_at, extended.then(|| json!("1")), "{version}");
    signing.terminate();
    assert!(lab.wait_for_exit(&mut signing).success());
    assert!(signer.height() >= last);
    for event in signer::log(&signing) {
        assert!(event["reason"].is_null(), "nothing was to be refused: {event}");
    }
    node.assert_no_alarm(&running);
}

/// Two nodes with the key of validator A ask one signer for every vote; B, C and D keep their own keys.
#[test]
fn two_nodes_of_one_validator_never_get_two_signatures() {
    let Some(binary) = cometbft("v0.38.25") else { return };
    let lab = Lab::new();
    let nodes = ["a1", "a2", "b", "c", "d"].map(|name| Node::init(&lab, &binary, name));
    let [a1, a2, b, c, d] = &nodes;
    let key = a1.public_key();
    let chain = found_chain(&[a1, b, c, d], &nodes);
    let addresses = [a1, a2].map(|_| format!("tcp://127.0.0.1:{}", free_port()));
    let key_file = a1.use_signer(&addresses[0]);
    a2.use_signer(&addresses[1]);
    for node in [a1, a2] {
        // Every vote that the node gets signed goes to its log.
        node.configure("", "log_level", "\"consensus:debug,*:info\"");
    }
    let signer = Signer::init(&lab, &chain, &key_file, &addresses);

    let mut signing = signer.start();
    let app = app::serve();
    let mut running = nodes.each_ref().map(|node| node.start(&app));
    for (node, running) in nodes.iter().zip(&mut running) {
        node.wait_for_height(running, SHARED_BLOCKS + 1);
    }

    let mut signed_by_a = 0;
    for height in 1..=SHARED_BLOCKS {
        let hashes = nodes.each_ref().map(|node| node.rpc.block_without_evidence(height));
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "one chain at height {height}: {hashes:?}");
        signed_by_a += u64::from(b.rpc.commit(height).is_signed_by(&key, &chain));
    }
    // A commit need not hold every precommit: on a busy machine one comes late.
    assert!(signed_by_a >= SHARED_BLOCKS / 4, "validator A signed only {signed_by_a} of {SHARED_BLOCKS} blocks");
    for (node, running) in nodes.iter().zip(&running) {
        node.assert_no_alarm(running);
    }
    signing.terminate();
    assert!(lab.wait_for_exit(&mut signing).success());
    assert_one_signature_a_vote(&a1.signed_votes(&running[0]), &a2.signed_votes(&running[1]));
    assert_both_were_served(&signer::log(&signing), &addresses);
}

/// Puts all nodes onto one new chain with these validators, every node a peer of every other.
fn found_chain(validators: &[&Node<'_>], nodes: &[Node<'_>]) -> ChainId {
    let mut genesis = nodes[0].genesis();
    genesis["validators"] = validators.iter().map(|node| node.genesis()["validators"][0].take()).collect();
    assert!(enable_extensions(&mut genesis));
    let peers: Vec<_> = nodes.iter().map(Node::p2p_address).collect();
    for (node, own) in nodes.iter().zip(&peers) {
        node.set_genesis(&genesis);
        let others: Vec<_> = peers.iter().filter(|peer| *peer != own).map(String::as_str).collect();
        node.configure("p2p", "persistent_peers", &format!("\"{}\"", others.join(",")));
        // A commit waits so long for the precommits beyond two thirds.
        node.configure("consensus", "timeout_commit", "\"100ms\"");
    }
    chain_id(&genesis)
}

/// Checks that two nodes of a validator got the same signatures wherever both got one.
fn assert_one_signature_a_vote(votes: &BTreeMap<String, String>, votes_again: &BTreeMap<String, String>) {
    let both: Vec<_> = votes.iter().filter_map(|(hrs, vote)| Some((hrs, vote, votes_again.get(hrs)?))).collect();
    assert!(both.len() as u64 > SHARED_BLOCKS, "both nodes got only {} votes", both.len());
    for (hrs, vote, vote_again) in both {
        assert_eq!(vote, vote_again, "{hrs}");
    }
}

/// The nodes at all addresses got signatures, and none was refused one for a reason that it should not meet.
fn assert_both_were_served(log: &[Value], addresses: &[String]) {
    let is_signed = |event: &Value| matches!(event["message"].as_str(), Some("repeated" | "signed"));
    for address in addresses {
        let signed = log.iter().filter(|event| event["node"] == **address && is_signed(event)).count();
        assert!(signed as u64 > SHARED_BLOCKS, "{address} got only {signed} signatures");
    }
    for refused in log.iter().filter(|event| !event["reason"].is_null()) {
        let reason = refused["reason"].as_str().unwrap();
        assert!(REFUSED_TO_THE_SECOND_NODE.contains(&reason), "{refused}");
    }
}

/// Has every precommit carry an extension from the first block on, where the version knows extensions.
fn enable_extensions(genesis: &mut Value) -> bool {
    extension_params(&mut genesis["consensus_params"]).map(|height| *height = json!("1")).is_some()
}

fn random_delay() -> Duration {
    Duration::from_millis(RandomState::new().hash_one(()) % KILL_DELAY_MAX_MS)
}
