//! Sign bytes against CometBFT's own, and against the generated types of tendermint-proto.

use super::*;
use prost::Message as _;
use tendermint_proto::v0_38::types as reference;

fn hex(text: &str) -> Vec<u8> {
    subtle_encoding::hex::decode(text).unwrap()
}

fn chain(id: &str) -> ChainId {
    ChainId::new(id).unwrap()
}

/// Every message of `tests/vectors/sign_bytes.json`: computed by CometBFT v0.38.25.
fn vectors() -> Vec<serde_json::Value> {
    let text = include_str!("../../../tests/vectors/sign_bytes.json");
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    json["vectors"].as_array().unwrap().clone()
}

fn canonical_of(vector: &serde_json::Value) -> (Canonical, ChainId) {
    let number = |name: &str| vector[name].as_i64().unwrap();
    let hash = |name: &str| hex(vector[name].as_str().unwrap());
    let kind = match number("Type") {
        1 => MessageKind::Prevote,
        2 => MessageKind::Precommit,
        32 => MessageKind::Proposal { pol_round: i32::try_from(number("PolRound")).unwrap() },
        other => panic!("type {other}"),
    };
    let block_id = (!hash("BlockHash").is_empty()).then(|| CanonicalBlockId {
        hash: hash("BlockHash").try_into().unwrap(),
        parts_total: u32::try_from(number("PartsTotal")).unwrap(),
        parts_hash: hash("PartsHash").try_into().unwrap(),
    });
    let canonical = Canonical {
        kind,
        height: u64::try_from(number("Height")).unwrap(),
        round: u32::try_from(number("Round")).unwrap(),
        block_id,
        timestamp: Timestamp::new(number("Seconds"), number("Nanos")).unwrap(),
    };
    (canonical, chain(vector["ChainID"].as_str().unwrap()))
}

#[test]
fn every_vector_is_reproduced_and_read_back() {
    let vectors = vectors();
    assert!(vectors.len() >= 8, "the vectors are gone");
    for vector in &vectors {
        let (canonical, chain) = canonical_of(vector);
        let sign_bytes = canonical.sign_bytes(&chain);
        assert_eq!(format!("{sign_bytes:?}"), vector["SignBytes"].as_str().unwrap(), "{}", vector["Name"]);
        assert_eq!(Canonical::parse(sign_bytes.as_slice()), Some((canonical, chain)));
    }
}

#[test]
fn every_extension_vector_is_reproduced() {
    let mut seen = 0;
    for vector in vectors().iter().filter(|v| v["ExtSignBytes"] != "") {
        let (canonical, chain) = canonical_of(vector);
        let extension = hex(vector["Extension"].as_str().unwrap());
        let bytes = extension_sign_bytes(&chain, canonical.height, canonical.round, &extension);
        assert_eq!(bytes, hex(vector["ExtSignBytes"].as_str().unwrap()), "{}", vector["Name"]);
        seen += 1;
    }
    assert!(seen >= 3, "the vectors are gone");
}

#[test]
fn raw_bytes_are_those_of_celestia() {
    let text = include_str!("../../../tests/vectors/wire.json");
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let expected = json["celestia_raw_bytes"]["sign_bytes"].as_str().unwrap();
    assert_eq!(raw_sign_bytes(&chain("test-chain"), &[1, 2, 3], "fibre/pp:v0"), hex(expected));
}

/// Messages at the edges of every field.
fn edge_cases() -> Vec<(Canonical, ChainId)> {
    let block = |fill: u8, parts_total| CanonicalBlockId { hash: [fill; 32], parts_total, parts_hash: [!fill; 32] };
    let times = [(0, 0), (0, 1), (1, 0), (-1, 999_999_999), (-62_135_596_800, 0), (253_402_300_799, 999_999_999)];
    let kinds = [
        MessageKind::Prevote,
        MessageKind::Precommit,
        MessageKind::Proposal { pol_round: -1 },
        MessageKind::Proposal { pol_round: 0 },
        MessageKind::Proposal { pol_round: i32::MAX },
    ];
    let mut cases = Vec::new();
    for kind in kinds {
        for height in [1, 127, 128, HEIGHT_MAX] {
            for round in [0, 1, ROUND_MAX] {
                for block_id in [None, Some(block(0, 1)), Some(block(0xff, u32::MAX))] {
                    if block_id.is_none() && matches!(kind, MessageKind::Proposal { .. }) {
                        continue;
                    }
                    for (seconds, nanos) in times {
                        for id in ["c", &"x".repeat(50)] {
                            let timestamp = Timestamp::new(seconds, nanos).unwrap();
                            cases.push((Canonical { kind, height, round, block_id, timestamp }, chain(id)));
                        }
                    }
                }
            }
        }
    }
    cases
}

/// The same message through the generated types of another implementation.
fn reference_bytes(canonical: &Canonical, chain: &ChainId) -> Vec<u8> {
    let block_id = canonical.block_id.map(|id| reference::CanonicalBlockId {
        hash: id.hash.to_vec(),
        part_set_header: Some(reference::CanonicalPartSetHeader {
            total: id.parts_total,
            hash: id.parts_hash.to_vec(),
        }),
    });
    let timestamp = Some(tendermint_proto::google::protobuf::Timestamp {
        seconds: canonical.timestamp.seconds(),
        nanos: i32::try_from(canonical.timestamp.nanos()).unwrap(),
    });
    let height = i64::try_from(canonical.height).unwrap();
    let round = i64::from(canonical.round);
    let chain_id = chain.to_string();
    let vote = |r#type| {
        reference::CanonicalVote {
            r#type,
            height,
            round,
            block_id: block_id.clone(),
            timestamp,
            chain_id: chain_id.clone(),
        }
        .encode_length_delimited_to_vec()
    };
    match canonical.kind {
        MessageKind::Prevote => vote(1),
        MessageKind::Precommit => vote(2),
        MessageKind::Proposal { pol_round } => reference::CanonicalProposal {
            r#type: 32,
            height,
            round,
            pol_round: i64::from(pol_round),
            block_id,
            timestamp,
            chain_id,
        }
        .encode_length_delimited_to_vec(),
    }
}

#[test]
fn edge_cases_agree_with_another_implementation_and_read_back() {
    let cases = edge_cases();
    let mut longest = 0;
    for (canonical, chain) in &cases {
        let sign_bytes = canonical.sign_bytes(chain);
        assert_eq!(sign_bytes.as_slice(), reference_bytes(canonical, chain), "{canonical:?}");
        assert_eq!(Canonical::parse(sign_bytes.as_slice()), Some((*canonical, chain.clone())));
        longest = longest.max(sign_bytes.as_slice().len());
    }
    assert_eq!(longest, 182, "the longest sign bytes, which the fixed buffer must hold");
    assert!(longest <= SIGN_BYTES_MAX);
}

#[test]
fn changing_any_byte_never_reads_as_the_same_message() {
    for (canonical, chain) in edge_cases().iter().step_by(17) {
        let sign_bytes = canonical.sign_bytes(chain);
        for index in 0..sign_bytes.as_slice().len() {
            for bit in 0..8 {
                let mut changed = sign_bytes.as_slice().to_vec();
                changed[index] ^= 1 << bit;
                assert_ne!(Canonical::parse(&changed), Some((*canonical, chain.clone())));
            }
        }
        assert_eq!(Canonical::parse(&sign_bytes.as_slice()[1..]), None);
        let longer = [sign_bytes.as_slice(), &[0]].concat();
        assert_eq!(Canonical::parse(&longer), None);
    }
}

#[test]
fn sign_bytes_of_what_nobody_may_sign_do_not_read_back() {
    let chain = chain("test-chain");
    let good = |step| edge_cases().into_iter().find(|(canonical, _)| canonical.kind.step() == step).unwrap().0;
    let (vote, proposal) = (good(Step::Prevote), good(Step::Propose));
    let reads = |canonical: Canonical| Canonical::parse(canonical.sign_bytes(&chain).as_slice()).is_some();
    assert!(reads(vote) && reads(proposal));
    for height in [0, HEIGHT_MAX + 1, u64::MAX] {
        assert!(!reads(Canonical { height, ..vote }) && !reads(Canonical { height, ..proposal }), "height {height}");
    }
    for round in [ROUND_MAX + 1, u32::MAX] {
        assert!(!reads(Canonical { round, ..vote }) && !reads(Canonical { round, ..proposal }), "round {round}");
    }
    assert!(!reads(Canonical { block_id: None, ..proposal }), "a proposal of nothing");
    let no_parts = CanonicalBlockId { hash: [1; 32], parts_total: 0, parts_hash: [2; 32] };
    assert!(!reads(Canonical { block_id: Some(no_parts), ..vote }), "a block without parts");
}

#[test]
fn the_digest_depends_on_everything_but_the_time() {
    let (base, chain_id) = canonical_of(&vectors()[0]);
    let digest = base.digest(&chain_id);
    let later = Canonical { timestamp: Timestamp::new(9, 9).unwrap(), ..base };
    assert_eq!(later.digest(&chain_id), digest);

    let block_id = base.block_id.unwrap();
    let others = [
        Canonical { kind: MessageKind::Precommit, ..base },
        Canonical { kind: MessageKind::Proposal { pol_round: -1 }, ..base },
        Canonical { height: base.height + 1, ..base },
        Canonical { round: base.round + 1, ..base },
        Canonical { block_id: None, ..base },
        Canonical { block_id: Some(CanonicalBlockId { hash: [7; 32], ..block_id }), ..base },
        Canonical { block_id: Some(CanonicalBlockId { parts_total: 9, ..block_id }), ..base },
        Canonical { block_id: Some(CanonicalBlockId { parts_hash: [7; 32], ..block_id }), ..base },
    ];
    for other in others {
        assert_ne!(other.digest(&chain_id), digest, "{other:?}");
    }
    assert_ne!(base.digest(&chain("another")), digest);
}

#[test]
fn extensions_of_every_length_agree_with_another_implementation() {
    for length in [0, 1, 126, 127, 128, 129, 16_383, 16_384, 1_000_000] {
        let extension = vec![0xab; length];
        let expected = reference::CanonicalVoteExtension {
            extension: extension.clone(),
            height: 5,
            round: 0,
            chain_id: "test-chain".into(),
        };
        let bytes = extension_sign_bytes(&chain("test-chain"), 5, 0, &extension);
        assert_eq!(bytes, expected.encode_length_delimited_to_vec());
    }
}

#[test]
fn no_two_kinds_of_sign_bytes_can_be_mistaken_for_each_other() {
    let id = chain("test-chain");
    let (vote, _) = canonical_of(&vectors()[0]);
    // An extension whose content is itself a vote's sign bytes is still no vote.
    let nested = extension_sign_bytes(&id, 1, 0, vote.sign_bytes(&id).as_slice());
    assert_eq!(Canonical::parse(&nested), None);
    let raw = raw_sign_bytes(&id, vote.sign_bytes(&id).as_slice(), "x");
    assert_eq!(Canonical::parse(&raw), None);
}
