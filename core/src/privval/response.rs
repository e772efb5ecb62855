//! Responses: the answers to a node.

use super::{
    frame::RESPONSE_MAX_BYTES,
    message::{self, Message, Sum},
    refusal::Refusal,
    request::RequestKind,
};
use crate::consensus::{KeyType, PublicKey, Signature, Timestamp};
use prost::Message as _;

/// The consensus key, in the forms of all versions at once: v0.34 to v0.40 read field 1, v1 and v2 read fields 3 and 4,
/// and each skips the others.
pub fn pub_key(key: &PublicKey) -> Message {
    pub_key_of(key.key_type(), key.as_bytes())
}

fn pub_key_of(key_type: KeyType, bytes: &[u8]) -> Message {
    Sum::PubKeyResponse(message::PubKeyResponse {
        pub_key: Some(message::PublicKey { key_type: Some(key_type), bytes: bytes.to_vec() }),
        error: None,
        pub_key_bytes: bytes.to_vec(),
        pub_key_type: key_type.name().into(),
    })
    .into()
}

/// A signed vote. The extension is never sent back: a node takes only the signatures and the timestamp from it, and
/// would misread every message after one that is too long.
pub fn vote(
    echo: message::Vote,
    timestamp: Timestamp,
    signature: &Signature,
    extension_signature: Option<&Signature>,
) -> Message {
    let vote = message::Vote {
        timestamp: Some(wire_timestamp(timestamp)),
        signature: signature.as_bytes().to_vec(),
        extension: Vec::new(),
        extension_signature: extension_signature.map_or_else(Vec::new, |signature| signature.as_bytes().to_vec()),
        non_rp_extension: Vec::new(),
        non_rp_extension_signature: Vec::new(),
        ..echo
    };
    Sum::SignedVoteResponse(message::SignedVoteResponse { vote: Some(vote), error: None }).into()
}

/// A signed proposal.
pub fn proposal(echo: message::Proposal, signature: &Signature) -> Message {
    let proposal = message::Proposal { signature: signature.as_bytes().to_vec(), ..echo };
    Sum::SignedProposalResponse(message::SignedProposalResponse { proposal: Some(proposal), error: None }).into()
}

/// Signed raw bytes.
pub fn raw_bytes(signature: &Signature) -> Message {
    Sum::SignBytesResponse(message::SignBytesResponse { signature: signature.as_bytes().to_vec(), error: None }).into()
}

/// The answer to a ping: the signer is alive.
pub fn ping() -> Message {
    Sum::PingResponse(message::PingResponse {}).into()
}

/// A refusal, in the kind of response that fits the request.
pub fn refused(kind: RequestKind, refusal: &Refusal) -> Message {
    let error = Some(message::RemoteSignerError { code: refusal.code() as i32, description: describe(refusal) });
    match kind {
        // The answer to a ping has no error field. Only a ping that does not decode comes here.
        RequestKind::Ping => return ping(),
        RequestKind::Proposal => Sum::SignedProposalResponse(message::SignedProposalResponse { proposal: None, error }),
        RequestKind::PubKey => Sum::PubKeyResponse(message::PubKeyResponse { error, ..Default::default() }),
        RequestKind::SignBytes => Sum::SignBytesResponse(message::SignBytesResponse { signature: Vec::new(), error }),
        RequestKind::Vote => Sum::SignedVoteResponse(message::SignedVoteResponse { vote: None, error }),
    }
    .into()
}

/// Whether `message` is short enough for every node ([`RESPONSE_MAX_BYTES`]). Every response above is, but this is
/// checked before each write, because a longer one would be worse than none.
pub fn fits(message: &Message) -> bool {
    message.encoded_len() <= RESPONSE_MAX_BYTES
}

fn describe(refusal: &Refusal) -> String {
    const DESCRIPTION_MAX_CHARS: usize = 1000;
    let text = refusal.to_string();
    match text.char_indices().nth(DESCRIPTION_MAX_CHARS) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

fn wire_timestamp(timestamp: Timestamp) -> message::Timestamp {
    message::Timestamp { seconds: timestamp.seconds(), nanos: timestamp.nanos().cast_signed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::ChainId;

    fn vectors() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../tests/vectors/wire.json")).unwrap()
    }

    fn vector(name: &str, form: &str) -> Vec<u8> {
        let json = vectors();
        let found = json["messages"].as_array().unwrap().iter().find(|m| m["name"].as_str().unwrap().starts_with(name));
        subtle_encoding::hex::decode(found.unwrap()[form].as_str().unwrap()).unwrap()
    }

    fn frame(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode_frame(&mut out);
        out
    }

    #[test]
    fn the_public_key_answer_is_the_union_that_every_version_reads() {
        let bytes = subtle_encoding::hex::decode("2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12");
        let key = PublicKey::from_bytes(KeyType::Ed25519, &bytes.unwrap()).unwrap();
        assert_eq!(frame(&pub_key(&key)), vector("PubKeyResponse UNION", "delimited"));
    }

    #[test]
    fn a_ping_is_answered_as_cometbft_does() {
        assert_eq!(frame(&ping()), vector("PingResponse", "delimited"));
    }

    #[test]
    fn every_message_of_the_vectors_decodes_and_encodes_back() {
        let json = vectors();
        let mut seen = 0;
        for entry in json["messages"].as_array().unwrap() {
            let name = entry["name"].as_str().unwrap();
            let Some(body) = entry["message"].as_str() else { continue };
            let body = subtle_encoding::hex::decode(body).unwrap();
            let message = Message::decode(body.as_slice()).unwrap();
            assert!(message.sum.is_some(), "{name}");
            // Go writes empty sub-messages and zero times, which prost leaves out.
            if !name.contains("error") {
                assert_eq!(message.encode_to_vec(), body, "{name}");
            }
            seen += 1;
        }
        assert!(seen >= 12, "the vectors are gone");
    }

    #[test]
    fn a_refusal_comes_in_the_response_that_pairs_with_the_request() {
        let refusal = Refusal::WrongChain {
            ours: ChainId::new("ours").unwrap(),
            asked: ChainId::new("theirs").ok().map(Box::new),
        };
        let error_of = |kind| match refused(kind, &refusal).sum {
            Some(Sum::PubKeyResponse(response)) => (RequestKind::PubKey, response.error),
            Some(Sum::SignedVoteResponse(response)) => (RequestKind::Vote, response.error),
            Some(Sum::SignedProposalResponse(response)) => (RequestKind::Proposal, response.error),
            Some(Sum::SignBytesResponse(response)) => (RequestKind::SignBytes, response.error),
            other => panic!("{other:?}"),
        };
        for kind in [RequestKind::PubKey, RequestKind::Vote, RequestKind::Proposal, RequestKind::SignBytes] {
            let (answered, error) = error_of(kind);
            assert_eq!(answered, kind);
            let error = error.unwrap();
            assert_eq!(
                (error.code, error.description.as_str()),
                (102, "this connection serves chain ours only, and the node asks for chain theirs")
            );
        }
    }

    // With one line for each key type in the table, so that a new one is tested by being there.
    #[test]
    fn the_largest_response_with_every_kind_of_key_fits_every_node() {
        for key_type in KeyType::ALL {
            let algorithm = key_type.algorithm();
            let signature = Signature::new(&vec![0xff; algorithm.signature_len]);
            let time = Timestamp::new(253_402_300_799, 999_999_999).unwrap();
            let responses = [
                pub_key_of(*key_type, &vec![0xff; algorithm.public_key_len]),
                vote(largest_vote(), time, &signature, Some(&signature)),
                proposal(largest_proposal(), &signature),
                raw_bytes(&signature),
            ];
            for response in responses {
                let length = response.encoded_len();
                assert!(fits(&response), "{key_type}: {length} bytes");
                // All of it is there: two signatures in a vote, the key twice.
                assert!(length > algorithm.signature_len.min(algorithm.public_key_len), "{key_type}");
            }
        }
    }

    fn largest_block_id() -> Option<message::BlockId> {
        let part_set_header = Some(message::PartSetHeader { total: u32::MAX, hash: vec![0xff; 32] });
        Some(message::BlockId { hash: vec![0xff; 32], part_set_header })
    }

    /// The longest that a request echoes, and what a response strips from it.
    fn largest_vote() -> message::Vote {
        message::Vote {
            r#type: message::TYPE_PRECOMMIT,
            height: i64::MAX,
            round: i32::MAX,
            block_id: largest_block_id(),
            timestamp: None,
            validator_address: vec![0xff; 20],
            validator_index: -1,
            signature: vec![0xff; 20_000],
            extension: vec![0xff; 20_000],
            extension_signature: vec![0xff; 20_000],
            non_rp_extension: vec![0xff; 20_000],
            non_rp_extension_signature: vec![0xff; 20_000],
        }
    }

    fn largest_proposal() -> message::Proposal {
        message::Proposal {
            r#type: message::TYPE_PROPOSAL,
            height: i64::MAX,
            round: i32::MAX,
            pol_round: i32::MAX,
            block_id: largest_block_id(),
            timestamp: Some(message::Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 }),
            signature: vec![0xff; 20_000],
        }
    }

    #[test]
    fn an_endless_reason_still_fits_every_node() {
        let message = refused(RequestKind::Vote, &Refusal::KeyUnavailable("ü".repeat(1_000_000)));
        assert!(fits(&message));
    }
}
