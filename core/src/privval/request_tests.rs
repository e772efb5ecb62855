//! What a node may ask, and what no honest node sends.

use super::*;
use prost::Message as _;

fn chain() -> ChainId {
    ChainId::new("test-chain").unwrap()
}

fn good_block() -> Option<message::BlockId> {
    let parts = message::PartSetHeader { total: 1, hash: vec![2; 32] };
    Some(message::BlockId { hash: vec![1; 32], part_set_header: Some(parts) })
}

fn good_time() -> Option<message::Timestamp> {
    Some(message::Timestamp { seconds: 1_700_000_000, nanos: 5 })
}

fn precommit() -> message::Vote {
    message::Vote {
        r#type: message::TYPE_PRECOMMIT,
        height: 10,
        round: 1,
        block_id: good_block(),
        timestamp: good_time(),
        validator_address: vec![3; 20],
        validator_index: 4,
        ..Default::default()
    }
}

fn prevote() -> message::Vote {
    message::Vote { r#type: message::TYPE_PREVOTE, ..precommit() }
}

fn proposal() -> message::Proposal {
    message::Proposal {
        r#type: message::TYPE_PROPOSAL,
        height: 10,
        round: 1,
        pol_round: -1,
        block_id: good_block(),
        timestamp: good_time(),
        signature: Vec::new(),
    }
}

fn parse(sum: Sum) -> Result<Request, ParseError> {
    Request::parse(&Message::from(sum).encode_to_vec(), &chain())
}

fn ask_vote(vote: message::Vote, skip_extension_signing: bool) -> Result<VoteRequest, Refusal> {
    let request = message::SignVoteRequest { vote: Some(vote), chain_id: "test-chain".into(), skip_extension_signing };
    match parse(Sum::SignVoteRequest(request)) {
        Ok(Request::Vote(vote)) => Ok(vote),
        Err(ParseError::Refused(RequestKind::Vote, refusal)) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn ask_proposal(proposal: message::Proposal) -> Result<ProposalRequest, Refusal> {
    let request = message::SignProposalRequest { proposal: Some(proposal), chain_id: "test-chain".into() };
    match parse(Sum::SignProposalRequest(request)) {
        Ok(Request::Proposal(proposal)) => Ok(proposal),
        Err(ParseError::Refused(RequestKind::Proposal, refusal)) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

/// Applies `change` to a good precommit and expects a refusal.
fn refused_vote(change: impl FnOnce(&mut message::Vote)) -> Refusal {
    let mut vote = precommit();
    change(&mut vote);
    ask_vote(vote, false).unwrap_err()
}

#[test]
fn only_what_no_honest_node_sends_is_refused_among_votes() {
    let half_ids: [fn(&mut message::BlockId); 6] = [
        |id| id.hash.clear(),
        |id| id.hash.truncate(31),
        |id| id.hash.push(0),
        |id| id.part_set_header = None,
        |id| id.part_set_header.as_mut().unwrap().total = 0,
        |id| id.part_set_header.as_mut().unwrap().hash.clear(),
    ];
    for half in half_ids {
        let refusal = refused_vote(|vote| half(vote.block_id.as_mut().unwrap()));
        assert_eq!(refusal, Refusal::Malformed("the block id is neither complete nor nil"));
    }
    for r#type in [0, 3, 32, -1] {
        assert!(matches!(refused_vote(|vote| vote.r#type = r#type), Refusal::Malformed(_)));
    }
    for height in [0, -1, i64::MIN] {
        assert!(matches!(refused_vote(|vote| vote.height = height), Refusal::Malformed(_)));
    }
    assert!(matches!(refused_vote(|vote| vote.round = -1), Refusal::Malformed(_)));
    assert!(matches!(refused_vote(|vote| vote.timestamp = None), Refusal::Malformed(_)));
    let bad_times = [(0, -1), (0, 1_000_000_000), (-62_135_596_801, 0), (253_402_300_800, 0), (i64::MAX, 0)];
    for (seconds, nanos) in bad_times {
        let refusal = refused_vote(|vote| vote.timestamp = Some(message::Timestamp { seconds, nanos }));
        assert!(matches!(refusal, Refusal::Malformed(_)));
    }
    for length in [1, 19, 21, 100_000] {
        assert!(matches!(refused_vote(|vote| vote.validator_address = vec![0; length]), Refusal::Malformed(_)));
    }
    assert!(ask_vote(precommit(), false).is_ok());
    assert!(ask_vote(prevote(), false).is_ok());
}

#[test]
fn the_extension_matrix() {
    let with = |vote: message::Vote, extension: &[u8]| message::Vote { extension: extension.to_vec(), ..vote };
    let nil = |vote: message::Vote| message::Vote { block_id: None, ..vote };
    let sign = |bytes: &[u8]| Ok(Extension::Sign(bytes.to_vec()));
    let refused = Err(Refusal::Malformed("only a precommit for a block carries a vote extension"));
    let cases = [
        (precommit(), false, sign(b"")),
        (with(precommit(), b"ext"), false, sign(b"ext")),
        (precommit(), true, Ok(Extension::None)),
        (nil(precommit()), false, Ok(Extension::None)),
        (nil(precommit()), true, Ok(Extension::None)),
        (with(nil(precommit()), b"ext"), false, refused.clone()),
        (prevote(), false, Ok(Extension::None)),
        (prevote(), true, Ok(Extension::None)),
        (nil(prevote()), false, Ok(Extension::None)),
        (with(prevote(), b"ext"), false, refused.clone()),
        (with(prevote(), b"ext"), true, refused),
    ];
    for (vote, skip, expected) in cases {
        let shown = format!("{vote:?} skip={skip}");
        assert_eq!(ask_vote(vote, skip).map(|request| request.extension), expected, "{shown}");
    }
}

#[test]
fn an_extension_without_context_is_never_signed() {
    let refusals = [
        refused_vote(|vote| vote.non_rp_extension = vec![1]),
        refused_vote(|vote| vote.non_rp_extension_signature = vec![1]),
    ];
    for refusal in refusals {
        assert!(matches!(refusal, Refusal::NotPermitted(_)));
    }
}

#[test]
fn the_extension_is_taken_out_of_what_is_echoed() {
    let vote = message::Vote { extension: vec![7; 20_000], ..precommit() };
    assert_eq!(ask_vote(vote, false).unwrap().echo, precommit());
}

#[test]
fn nil_comes_in_every_form_that_nodes_send() {
    let empty = message::BlockId { hash: Vec::new(), part_set_header: None };
    let empty_parts = message::BlockId {
        hash: Vec::new(),
        part_set_header: Some(message::PartSetHeader { total: 0, hash: Vec::new() }),
    };
    for block_id in [None, Some(empty), Some(empty_parts)] {
        let request = ask_vote(message::Vote { block_id, ..prevote() }, false).unwrap();
        assert_eq!(request.canonical.block_id, None);
    }
}

#[test]
fn only_what_no_honest_node_sends_is_refused_among_proposals() {
    let changes: [fn(&mut message::Proposal); 8] = [
        |p| p.r#type = 0,
        |p| p.r#type = 1,
        |p| p.height = 0,
        |p| p.round = -1,
        |p| p.pol_round = -2,
        |p| p.block_id = None,
        |p| p.block_id.as_mut().unwrap().hash.truncate(20),
        |p| p.timestamp = None,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = proposal();
        change(&mut changed);
        assert!(matches!(ask_proposal(changed), Err(Refusal::Malformed(_))), "change {index}");
    }
    assert!(ask_proposal(proposal()).is_ok());
}

#[test]
fn another_chain_is_refused_in_kind() {
    let chain_id = || "another".to_owned();
    let asked = [
        (RequestKind::PubKey, Sum::PubKeyRequest(message::PubKeyRequest { chain_id: chain_id() })),
        (
            RequestKind::Vote,
            Sum::SignVoteRequest(message::SignVoteRequest {
                vote: Some(precommit()),
                chain_id: chain_id(),
                skip_extension_signing: false,
            }),
        ),
        (
            RequestKind::Proposal,
            Sum::SignProposalRequest(message::SignProposalRequest { proposal: Some(proposal()), chain_id: chain_id() }),
        ),
        (
            RequestKind::SignBytes,
            Sum::SignBytesRequest(message::SignBytesRequest {
                value_or_chain_id: chain_id().into_bytes(),
                raw_bytes: vec![1],
                unique_id: b"x".to_vec(),
            }),
        ),
    ];
    for (kind, sum) in asked {
        let refusal = Refusal::WrongChain { ours: chain(), asked: ChainId::new("another").ok().map(Box::new) };
        assert_eq!(parse(sum).unwrap_err(), ParseError::Refused(kind, refusal));
    }
}

#[test]
fn sign_bytes_of_v1_is_told_from_raw_bytes_of_celestia() {
    let ask = |value: &[u8], raw_bytes: &[u8], unique_id: &[u8]| {
        parse(Sum::SignBytesRequest(message::SignBytesRequest {
            value_or_chain_id: value.to_vec(),
            raw_bytes: raw_bytes.to_vec(),
            unique_id: unique_id.to_vec(),
        }))
    };
    let refusal = |result: Result<Request, ParseError>| match result {
        Err(ParseError::Refused(RequestKind::SignBytes, refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refusal(ask(&[0xaa; 32], b"", b"")), Refusal::NotPermitted(_)));
    assert!(matches!(refusal(ask(b"test-chain", b"", b"id")), Refusal::Malformed(_)));
    assert!(matches!(refusal(ask(b"test-chain", b"raw", b"")), Refusal::Malformed(_)));
    assert!(matches!(refusal(ask(b"test-chain", b"raw", &[0xff])), Refusal::Malformed(_)));
    match ask(b"test-chain", b"raw", b"id") {
        Ok(Request::RawBytes(request)) => {
            assert_eq!((request.raw_bytes.as_slice(), request.unique_id.as_str()), (&b"raw"[..], "id"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_does_not_decode_is_answered_if_its_kind_is_known() {
    let malformed = |kind| Err(ParseError::Refused(kind, Refusal::Malformed("the message does not decode")));
    let parse = |body: &[u8]| Request::parse(body, &chain()).map(|request| request.kind());
    assert_eq!(parse(&[0x1a, 0x05, 0x01]), malformed(RequestKind::Vote));
    assert_eq!(parse(&[0x2a, 0xff]), malformed(RequestKind::Proposal));
    assert_eq!(parse(&[0x0a, 0x03, 0x0a, 0x01, 0xff]), malformed(RequestKind::PubKey));
    for unanswerable in [&[][..], &[0xff; 20], &[0x00], &[0x12, 0x00], &[0x5a, 0x00], &[0x42, 0x00]] {
        assert_eq!(parse(unanswerable), Err(ParseError::Unanswerable), "{unanswerable:?}");
    }
}

#[test]
fn requests_of_the_vectors_are_understood() {
    let json: serde_json::Value = serde_json::from_str(include_str!("../../../tests/vectors/wire.json")).unwrap();
    let body = |name: &str| {
        let found = json["messages"].as_array().unwrap().iter().find(|m| m["name"].as_str().unwrap().starts_with(name));
        subtle_encoding::hex::decode(found.unwrap()["delimited"].as_str().unwrap()).unwrap()
    };
    let vote = body("SignVoteRequest precommit h=1234567");
    let Request::Vote(vote) = Request::parse(&vote[2..], &chain()).unwrap() else { panic!() };
    assert_eq!((vote.canonical.height, vote.canonical.round), (1_234_567, 1));
    assert_eq!(vote.extension, Extension::Sign(Vec::new()));

    let raw = body("SignRawBytesRequest");
    assert!(matches!(Request::parse(&raw[1..], &chain()), Ok(Request::RawBytes(_))));
    let bytes = body("SignBytesRequest v1/v2");
    let refused = Request::parse(&bytes[1..], &chain());
    assert!(matches!(refused, Err(ParseError::Refused(RequestKind::SignBytes, Refusal::NotPermitted(_)))));
}

#[test]
fn what_is_longer_than_an_honest_node_sends_is_refused_here() {
    const MIB: usize = 1024 * 1024;
    let vote = |length| ask_vote(message::Vote { extension: vec![7; length], ..precommit() }, false);
    assert!(matches!(vote(MIB).unwrap().extension, Extension::Sign(extension) if extension.len() == MIB));
    assert!(matches!(vote(MIB + 1), Err(Refusal::Malformed(text)) if text.contains("1 MiB")));
    let raw = |length| {
        parse(Sum::SignBytesRequest(message::SignBytesRequest {
            value_or_chain_id: b"test-chain".to_vec(),
            raw_bytes: vec![7; length],
            unique_id: b"x".to_vec(),
        }))
    };
    assert!(matches!(raw(MIB), Ok(Request::RawBytes(_))));
    assert!(matches!(raw(MIB + 1), Err(ParseError::Refused(RequestKind::SignBytes, Refusal::Malformed(_)))));
}
