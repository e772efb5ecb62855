//! Foreign state files: what is imported, what is refused, and what is written back.

use super::*;
use crate::keyring::softsign::SecretKey;
use highwater_core::{
    consensus::{ChainId, Digest, KeyType, PublicKey, Signature, Step, Target, Timestamp},
    privval::{Canonical, CanonicalBlockId, MessageKind},
    watermark::SignedMessage,
};
use serde_json::json;

fn key_of(seed: u8) -> SecretKey {
    SecretKey::from_raw(KeyType::Ed25519, &[seed; 32]).unwrap()
}

fn identity() -> Identity {
    Identity { chain: ChainId::new("test-chain").unwrap(), key: key_of(0x42).public_key() }
}

fn hrs(height: u64, round: u32, step: Step) -> Hrs {
    Hrs { height, round, step }
}

fn read_json(json: &Value) -> Result<Foreign, MigrationError> {
    read(&json.to_string(), &identity())
}

fn tmkms_file() -> Value {
    json!({
        "height": "10", "round": "2", "step": 1,
        "block_id": { "hash": "41".repeat(32), "parts": { "total": 1, "hash": "61".repeat(32) } },
    })
}

#[test]
fn a_tmkms_file_comes_in_one_step_higher_and_without_a_message() {
    let steps = [(0, Step::Propose), (1, Step::Prevote), (2, Step::Precommit)];
    for (number, step) in steps {
        let mut file = tmkms_file();
        file["step"] = number.into();
        let foreign = read_json(&file).unwrap();
        assert_eq!(foreign.program, Program::Tmkms);
        assert_eq!(foreign.mark, Mark::floor(hrs(10, 2, step)));
    }
    let mut null_block = tmkms_file();
    null_block["block_id"] = Value::Null;
    assert!(read_json(&null_block).is_ok());
}

#[test]
fn a_step_above_precommit_is_the_end_of_its_round() {
    for step in [3, 127] {
        let mut file = tmkms_file();
        file["step"] = step.into();
        assert_eq!(read_json(&file).unwrap().mark, Mark::floor(hrs(10, 2, Step::Precommit)), "{step}");
    }
    let mut last = tmkms_file();
    last["round"] = "2147483647".into();
    last["step"] = 127.into();
    assert_eq!(read_json(&last).unwrap().mark, Mark::floor(Hrs::end_of(10)));
}

#[test]
fn a_tmkms_file_that_tmkms_would_refuse_is_refused() {
    let changes: [(&str, Value); 10] = [
        ("height", 10.into()),
        ("height", "ten".into()),
        ("height", "-1".into()),
        ("height", "".into()),
        ("height", "9223372036854775808".into()),
        ("round", 2.into()),
        ("round", "2147483648".into()),
        ("step", (-1).into()),
        ("step", "2".into()),
        ("block_id", "x".into()),
    ];
    for (field, value) in changes {
        let mut file = tmkms_file();
        file[field] = value.clone();
        let error = read_json(&file).unwrap_err();
        assert!(matches!(error, MigrationError::Field { program: Program::Tmkms, .. }), "{field} = {value}: {error}");
    }
}

fn cometbft_vote() -> Canonical {
    let block_id = Some(CanonicalBlockId { hash: [1; 32], parts_total: 1, parts_hash: [2; 32] });
    let timestamp = Timestamp::new(1_700_000_000, 5).unwrap();
    Canonical { kind: MessageKind::Prevote, height: 10, round: 2, block_id, timestamp }
}

/// A file as CometBFT's own signer leaves it after a prevote.
fn cometbft_file(seed: u8, chain: &str) -> Value {
    let sign_bytes = cometbft_vote().sign_bytes(&ChainId::new(chain).unwrap());
    let signature = key_of(seed).into_signer().sign(sign_bytes.as_slice()).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    json!({
        "height": "10", "round": 2, "step": 2,
        "signature": text(subtle_encoding::base64::encode(signature.as_bytes())),
        "signbytes": text(subtle_encoding::hex::encode_upper(sign_bytes.as_slice())),
    })
}

#[test]
fn a_cometbft_file_proves_its_chain_key_and_height() {
    let foreign = read_json(&cometbft_file(0x42, "test-chain")).unwrap();
    let vote = cometbft_vote();
    let digest = vote.digest(&identity().chain);
    let signed = Some(SignedMessage { target: Target::Block, timestamp: vote.timestamp, digest });
    let mark = Mark { hrs: hrs(10, 2, Step::Prevote), signed };
    assert_eq!(foreign, Foreign { program: Program::CometBft, mark });

    // Tendermint 0.33 wrote the round as a string, and gno.land's node writes the sign bytes in base64.
    let mut old = cometbft_file(0x42, "test-chain");
    old["round"] = "2".into();
    assert_eq!(read_json(&old), Ok(foreign));
    let sign_bytes = vote.sign_bytes(&identity().chain);
    old["signbytes"] = String::from_utf8(subtle_encoding::base64::encode(sign_bytes.as_slice())).unwrap().into();
    assert_eq!(read_json(&old), Ok(foreign));

    let other_chain = read_json(&cometbft_file(0x42, "other")).unwrap_err();
    assert_eq!(other_chain, MigrationError::ForeignChain { found: "other".into() });
    assert_eq!(read_json(&cometbft_file(0x43, "test-chain")), Err(MigrationError::Signature));
}

#[test]
fn a_cometbft_file_that_was_changed_by_hand_is_refused() {
    let changes: [(&str, Value); 6] = [
        ("height", "9".into()),
        ("round", 1.into()),
        ("step", 1.into()),
        ("signbytes", "00".into()),
        ("signature", "AAAA".into()),
        ("signature", Value::Null),
    ];
    for (field, value) in changes {
        let mut file = cometbft_file(0x42, "test-chain");
        file[field] = value;
        let error = read_json(&file).unwrap_err();
        let expected = matches!(
            error,
            MigrationError::SignBytes { .. } | MigrationError::Signature | MigrationError::Unproven { .. }
        );
        assert!(expected, "{field}: {error}");
    }
    let malformed: [(&str, Value); 7] = [
        ("height", 10.into()),
        ("round", "two".into()),
        ("round", (-1).into()),
        ("step", 4.into()),
        ("step", 0.into()),
        ("signbytes", "x!".into()),
        ("signature", "=A".into()),
    ];
    for (field, value) in malformed {
        let mut file = cometbft_file(0x42, "test-chain");
        file[field] = value;
        let error = read_json(&file).unwrap_err();
        assert!(matches!(error, MigrationError::Field { program: Program::CometBft, .. }), "{field}: {error}");
    }
}

#[test]
fn a_cometbft_file_that_says_it_never_signed_proves_nothing() {
    let fresh = json!({ "height": "0", "round": 0, "step": 0 });
    let error = read_json(&fresh).unwrap_err();
    assert_eq!(error, MigrationError::Unproven { hrs: Hrs::GENESIS });
    assert!(error.to_string().contains("--never-signed"), "{error}");
}

#[test]
fn what_could_be_either_is_refused() {
    let mut both = cometbft_file(0x42, "test-chain");
    both["block_id"] = Value::Null;
    assert!(matches!(read_json(&both), Err(MigrationError::Ambiguous(_))));
    for text in ["", "[]", "5", "{", "null"] {
        assert!(matches!(read(text, &identity()), Err(MigrationError::NotJson(_))), "{text:?}");
    }
    assert!(read_json(&json!({})).is_err());
}

fn marks() -> [Mark; 4] {
    let timestamp = Timestamp::new(5, 0).unwrap();
    let signed = Some(SignedMessage { target: Target::Block, timestamp, digest: Digest([0xab; 32]) });
    [
        Mark { hrs: hrs(10, 2, Step::Precommit), signed },
        Mark::floor(hrs(10, 2, Step::Propose)),
        Mark::floor(Hrs::end_of(77)),
        Mark::NEVER_SIGNED,
    ]
}

#[test]
fn an_export_for_tmkms_names_a_block_that_cannot_exist() {
    for mark in marks() {
        let text = write(Program::Tmkms, &mark);
        let json: Value = serde_json::from_str(&text).unwrap();
        for hash in [&json["block_id"]["hash"], &json["block_id"]["parts"]["hash"]] {
            assert_eq!(hash.as_str().unwrap().len(), 64);
        }
        assert!(json["block_id"]["parts"]["total"].as_u64().unwrap() > 0, "a null block would be signed over");
        match read(&text, &identity()) {
            Ok(foreign) => assert_eq!(foreign.mark, Mark::floor(mark.hrs)),
            Err(error) => assert_eq!((error, mark), (MigrationError::NeverSigned, Mark::NEVER_SIGNED)),
        }
    }
}

#[test]
fn an_export_for_cometbft_has_no_sign_bytes_so_that_its_own_place_is_an_error_there() {
    for mark in marks() {
        let json: Value = serde_json::from_str(&write(Program::CometBft, &mark)).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["height", "round", "step"]);
        assert_eq!(json["height"], mark.hrs.height.to_string());
        assert_eq!(json["step"], mark.hrs.step.number());
    }
}

#[test]
fn the_vectors_of_cometbft_are_proof() {
    // Signatures of the same key over other messages must not pass for each other.
    let file = cometbft_file(0x42, "test-chain");
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/sign_bytes.json")).unwrap();
    let vector = &vectors["vectors"][0];
    let signature = subtle_encoding::hex::decode(vector["SigEd25519"].as_str().unwrap()).unwrap();
    let sign_bytes = subtle_encoding::hex::decode(vector["SignBytes"].as_str().unwrap()).unwrap();
    let signature = Signature::new(&signature);
    let key: PublicKey = identity().key;
    assert!(key.verifies(&sign_bytes, &signature));
    let mut mixed = file;
    mixed["signature"] = String::from_utf8(subtle_encoding::base64::encode(signature.as_bytes())).unwrap().into();
    assert_eq!(read_json(&mixed), Err(MigrationError::Signature));
}
