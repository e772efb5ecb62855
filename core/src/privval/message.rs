//! The privval messages as one union that serves CometBFT v0.34 to v0.40, v1, v2 and Celestia's fork.
//!
//! Package names of Protobuf are not on the wire, only field numbers are. Those agree across versions except in one
//! response (`proto/tendermint/privval/types.proto` against `proto/cometbft/privval/v1/types.proto`). So there is one
//! set of types and no version setting: a node skips the fields it does not know.

use crate::consensus::KeyType;
use prost::{
    DecodeError, Message as _, Oneof,
    bytes::{Buf, BufMut},
    encoding::{self, DecodeContext, WireType},
};

/// The envelope of every message on a privval connection.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// The request or response that it carries.
    #[prost(oneof = "Sum", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub sum: Option<Sum>,
}

impl Message {
    /// Field number of the first field in `body`. If the body does not decode as a whole, this still shows which kind
    /// of answer the node waits for.
    pub fn first_field(body: &[u8]) -> Option<u32> {
        let mut rest = body;
        let (field, _) = encoding::decode_key(&mut rest).ok()?;
        Some(field)
    }

    /// Appends `uvarint(length) ‖ message` to `out`.
    pub fn encode_frame(&self, out: &mut Vec<u8>) {
        self.encode_length_delimited(out).expect("a Vec grows as needed");
    }
}

impl From<Sum> for Message {
    fn from(sum: Sum) -> Self {
        Self { sum: Some(sum) }
    }
}

/// The payloads. Field 9 is used by two different requests, which differ in their fields.
#[derive(Clone, PartialEq, Oneof)]
pub enum Sum {
    /// The node asks for the consensus key.
    #[prost(message, tag = "1")]
    PubKeyRequest(PubKeyRequest),
    /// The consensus key.
    #[prost(message, tag = "2")]
    PubKeyResponse(PubKeyResponse),
    /// The node asks for a signature on a prevote or precommit.
    #[prost(message, tag = "3")]
    SignVoteRequest(SignVoteRequest),
    /// The signed vote.
    #[prost(message, tag = "4")]
    SignedVoteResponse(SignedVoteResponse),
    /// The node asks for a signature on a proposal.
    #[prost(message, tag = "5")]
    SignProposalRequest(SignProposalRequest),
    /// The signed proposal.
    #[prost(message, tag = "6")]
    SignedProposalResponse(SignedProposalResponse),
    /// The node asks whether the signer is alive.
    #[prost(message, tag = "7")]
    PingRequest(PingRequest),
    /// The signer is alive.
    #[prost(message, tag = "8")]
    PingResponse(PingResponse),
    /// CometBFT v1 `SignBytes` or Celestia `SignRawBytes`.
    #[prost(message, tag = "9")]
    SignBytesRequest(SignBytesRequest),
    /// The answer to either.
    #[prost(message, tag = "10")]
    SignBytesResponse(SignBytesResponse),
}

/// Field 1: the request for the consensus key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PubKeyRequest {
    /// Id of the chain whose key is wanted.
    #[prost(string, tag = "1")]
    pub chain_id: String,
}

/// Field 2: the consensus key. Only here do versions differ: v0.34 to v0.40 read field 1, v1 and v2 fields 3 and 4.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PubKeyResponse {
    /// The key for v0.34 to v0.40.
    #[prost(message, optional, tag = "1")]
    pub pub_key: Option<PublicKey>,
    /// Why there is no key.
    #[prost(message, optional, tag = "2")]
    pub error: Option<RemoteSignerError>,
    /// The raw key for v1 and v2.
    #[prost(bytes = "vec", tag = "3")]
    pub pub_key_bytes: Vec<u8>,
    /// The key type for v1 and v2: [`KeyType::name`].
    #[prost(string, tag = "4")]
    pub pub_key_type: String,
}

/// `tendermint.crypto.PublicKey`: one field of bytes for each type of key. Which field that is, the table of key types knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublicKey {
    /// The key's type. `None` if the message has no key of a type that Highwater signs with.
    pub key_type: Option<KeyType>,
    /// The raw key.
    pub bytes: Vec<u8>,
}

/// By hand what prost derives for a `oneof` of bytes.
impl prost::Message for PublicKey {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if let Some(key_type) = self.key_type {
            encoding::bytes::encode(key_type.algorithm().wire_field, &self.bytes, buffer);
        }
    }

    fn merge_field(
        &mut self,
        field: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match KeyType::find(|algorithm| algorithm.wire_field == field) {
            None => encoding::skip_field(wire_type, field, buffer, context),
            found => {
                self.key_type = found;
                encoding::bytes::merge(wire_type, &mut self.bytes, buffer, context)
            }
        }
    }

    fn encoded_len(&self) -> usize {
        self.key_type.map_or(0, |key_type| encoding::bytes::encoded_len(key_type.algorithm().wire_field, &self.bytes))
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Field 3: the request to sign a vote.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignVoteRequest {
    /// The vote to sign.
    #[prost(message, optional, tag = "1")]
    pub vote: Option<Vote>,
    /// Id of its chain.
    #[prost(string, tag = "2")]
    pub chain_id: String,
    /// v1 and later: the node wants no extension signature.
    #[prost(bool, tag = "3")]
    pub skip_extension_signing: bool,
}

/// Field 4: the signed vote.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignedVoteResponse {
    /// The vote with its signatures.
    #[prost(message, optional, tag = "1")]
    pub vote: Option<Vote>,
    /// Why there is no signature.
    #[prost(message, optional, tag = "2")]
    pub error: Option<RemoteSignerError>,
}

/// Field 5: the request to sign a proposal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignProposalRequest {
    /// The proposal to sign.
    #[prost(message, optional, tag = "1")]
    pub proposal: Option<Proposal>,
    /// Id of its chain.
    #[prost(string, tag = "2")]
    pub chain_id: String,
}

/// Field 6: the signed proposal.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignedProposalResponse {
    /// The proposal with its signature.
    #[prost(message, optional, tag = "1")]
    pub proposal: Option<Proposal>,
    /// Why there is no signature.
    #[prost(message, optional, tag = "2")]
    pub error: Option<RemoteSignerError>,
}

/// Field 7: asks whether the signer is alive. Has no fields.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PingRequest {}

/// Field 8: the answer to a ping. Has no fields.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct PingResponse {}

/// Field 9: v1 `SignBytesRequest { value = 1 }` or Celestia `SignRawBytesRequest { chain_id = 1, raw_bytes = 2,
/// unique_id = 3 }`. All are read as bytes, because `value` need not be text.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignBytesRequest {
    /// v1: the bytes to sign. Celestia: the chain id.
    #[prost(bytes = "vec", tag = "1")]
    pub value_or_chain_id: Vec<u8>,
    /// Celestia: the bytes to sign.
    #[prost(bytes = "vec", tag = "2")]
    pub raw_bytes: Vec<u8>,
    /// Celestia: what the bytes are for.
    #[prost(bytes = "vec", tag = "3")]
    pub unique_id: Vec<u8>,
}

/// Field 10: the signature over raw bytes, the same for both requests.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignBytesResponse {
    /// The signature.
    #[prost(bytes = "vec", tag = "1")]
    pub signature: Vec<u8>,
    /// Why there is no signature.
    #[prost(message, optional, tag = "2")]
    pub error: Option<RemoteSignerError>,
}

/// A refusal. Nodes print the code and the description; no node interprets the code.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoteSignerError {
    /// The number of an [`super::ErrorCode`].
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The reason, for the node's log.
    #[prost(string, tag = "2")]
    pub description: String,
}

/// `SignedMsgType` of a prevote.
pub const TYPE_PREVOTE: i32 = 1;
/// `SignedMsgType` of a precommit.
pub const TYPE_PRECOMMIT: i32 = 2;
/// `SignedMsgType` of a proposal.
pub const TYPE_PROPOSAL: i32 = 32;

/// `tendermint.types.Vote`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Vote {
    /// [`TYPE_PREVOTE`] or [`TYPE_PRECOMMIT`].
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// Block height.
    #[prost(int64, tag = "2")]
    pub height: i64,
    /// Round within the height.
    #[prost(int32, tag = "3")]
    pub round: i32,
    /// The block voted for; empty for nil.
    #[prost(message, optional, tag = "4")]
    pub block_id: Option<BlockId>,
    /// When the node voted.
    #[prost(message, optional, tag = "5")]
    pub timestamp: Option<Timestamp>,
    /// The validator's address.
    #[prost(bytes = "vec", tag = "6")]
    pub validator_address: Vec<u8>,
    /// The validator's place in the validator set.
    #[prost(int32, tag = "7")]
    pub validator_index: i32,
    /// The signature over the vote.
    #[prost(bytes = "vec", tag = "8")]
    pub signature: Vec<u8>,
    /// v0.38 and later: the application's vote extension.
    #[prost(bytes = "vec", tag = "9")]
    pub extension: Vec<u8>,
    /// v0.38 and later: the signature over the extension.
    #[prost(bytes = "vec", tag = "10")]
    pub extension_signature: Vec<u8>,
    /// v2: an extension that is signed without any context.
    #[prost(bytes = "vec", tag = "11")]
    pub non_rp_extension: Vec<u8>,
    /// v2: the signature over it.
    #[prost(bytes = "vec", tag = "12")]
    pub non_rp_extension_signature: Vec<u8>,
}

/// `tendermint.types.Proposal`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Proposal {
    /// [`TYPE_PROPOSAL`].
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// Block height.
    #[prost(int64, tag = "2")]
    pub height: i64,
    /// Round within the height.
    #[prost(int32, tag = "3")]
    pub round: i32,
    /// Round of the proof of lock, -1 for none.
    #[prost(int32, tag = "4")]
    pub pol_round: i32,
    /// The proposed block.
    #[prost(message, optional, tag = "5")]
    pub block_id: Option<BlockId>,
    /// When the node proposed.
    #[prost(message, optional, tag = "6")]
    pub timestamp: Option<Timestamp>,
    /// The signature.
    #[prost(bytes = "vec", tag = "7")]
    pub signature: Vec<u8>,
}

/// `tendermint.types.BlockID`
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlockId {
    /// Hash of the block's header, 32 bytes; empty for nil.
    #[prost(bytes = "vec", tag = "1")]
    pub hash: Vec<u8>,
    /// How the block is split for gossip.
    #[prost(message, optional, tag = "2")]
    pub part_set_header: Option<PartSetHeader>,
}

/// `tendermint.types.PartSetHeader`
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartSetHeader {
    /// Number of parts.
    #[prost(uint32, tag = "1")]
    pub total: u32,
    /// Merkle root of the parts, 32 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub hash: Vec<u8>,
}

/// `google.protobuf.Timestamp`
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}
