//! Signatures and answers, byte for byte, as CometBFT computes them.

use crate::support::{
    mock_node::{at, block_id, prevote, proposal},
    scene::{CHAIN, MALFORMED, NOT_PERMITTED, OTHER, Scene, Transport, WRONG_CHAIN, refusal},
    signature,
    signer::use_key_of_vectors,
};
use highwater_core::privval::message::{BlockId, Message, Proposal, SignBytesRequest, Sum, Vote};
use serde_json::Value;
use subtle_encoding::hex;

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn signatures_are_those_of_cometbft() {
    let _key = use_key_of_vectors();
    let json = vectors(include_str!("../vectors/sign_bytes.json"));
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
    let json = vectors(include_str!("../vectors/wire.json"));
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
    let celestia = vectors(include_str!("../vectors/wire.json"))["celestia_raw_bytes"].take();
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
