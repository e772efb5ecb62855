//! Requests from a node, validated once so that no later code has to.
//!
//! This refuses what no honest node sends. CometBFT's own signer would sign some of it and crash on the rest
//! (`privval/file.go`, `types/canonical.go`).

use super::{
    message::{self, Message, Sum},
    refusal::Refusal,
    sign_bytes::{Canonical, CanonicalBlockId, Choice, MessageKind},
};
use crate::consensus::{ChainId, Hrs, Timestamp};

/// A valid request for the chain that the connection serves.
#[derive(Clone, Debug)]
pub enum Request {
    /// Asks whether the signer is alive.
    Ping,
    /// Asks for a signature on a proposal.
    Proposal(ProposalRequest),
    /// Asks for the consensus key.
    PubKey,
    /// Asks for a signature on Celestia raw bytes.
    RawBytes(RawBytesRequest),
    /// Asks for a signature on a prevote or precommit.
    Vote(VoteRequest),
}

/// A vote to sign.
#[derive(Clone, Debug)]
pub struct VoteRequest {
    /// The part of the vote that is signed.
    pub canonical: Canonical,
    /// Whether the vote extension is signed too.
    pub extension: Extension,
    /// The vote as it was received, without its extension, which is never sent back.
    pub echo: message::Vote,
}

/// Whether a vote's extension must be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// No: a prevote, a nil precommit, or the node asked to skip it.
    None,
    /// Yes, even if it is empty: CometBFT 0.38 and later panic on a precommit for a block without this signature.
    Sign(Vec<u8>),
}

/// A proposal to sign.
#[derive(Clone, Debug)]
pub struct ProposalRequest {
    /// The part of the proposal that is signed.
    pub canonical: Canonical,
    /// The proposal as it was received.
    pub echo: message::Proposal,
}

/// Celestia raw bytes to sign.
#[derive(Clone, Debug)]
pub struct RawBytesRequest {
    /// The bytes, at most 1 MiB and not empty.
    pub raw_bytes: Vec<u8>,
    /// What the bytes are for. Not empty.
    pub unique_id: String,
}

/// The kind of a request. Each has its own kind of response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Field 7 of the envelope.
    Ping,
    /// Field 5 of the envelope.
    Proposal,
    /// Field 1 of the envelope.
    PubKey,
    /// Field 9 of the envelope.
    SignBytes,
    /// Field 3 of the envelope.
    Vote,
}

impl RequestKind {
    /// The kind with this field number in the envelope.
    fn from_field(field: u32) -> Option<Self> {
        match field {
            1 => Some(Self::PubKey),
            3 => Some(Self::Vote),
            5 => Some(Self::Proposal),
            7 => Some(Self::Ping),
            9 => Some(Self::SignBytes),
            _ => None,
        }
    }

    /// A short, stable name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Proposal => "proposal",
            Self::PubKey => "pubkey",
            Self::SignBytes => "sign-bytes",
            Self::Vote => "vote",
        }
    }
}

/// Why a message is not a valid request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// The request is refused, with an answer of this kind.
    Refused(RequestKind, Refusal),
    /// No answer would fit the message. The connection must be closed.
    Unanswerable,
}

impl Request {
    /// Decodes and validates the message in `body` as a request for `chain`.
    pub fn parse(body: &[u8], chain: &ChainId) -> Result<Self, ParseError> {
        let Ok(message) = <Message as prost::Message>::decode(body) else {
            return Err(match Message::first_field(body).and_then(RequestKind::from_field) {
                Some(kind) => ParseError::Refused(kind, Refusal::Malformed("the message does not decode")),
                None => ParseError::Unanswerable,
            });
        };
        let refused = |kind| move |refusal| ParseError::Refused(kind, refusal);
        let of_chain = |id: &str| {
            if id == chain.as_str() {
                Ok(())
            } else {
                Err(Refusal::WrongChain { ours: chain.clone(), asked: ChainId::new(id).ok().map(Box::new) })
            }
        };
        match message.sum {
            Some(Sum::PingRequest(_)) => Ok(Self::Ping),
            Some(Sum::PubKeyRequest(request)) => {
                of_chain(&request.chain_id).map_err(refused(RequestKind::PubKey))?;
                Ok(Self::PubKey)
            }
            Some(Sum::SignVoteRequest(request)) => of_chain(&request.chain_id)
                .and_then(|()| VoteRequest::parse(request))
                .map(Self::Vote)
                .map_err(refused(RequestKind::Vote)),
            Some(Sum::SignProposalRequest(request)) => of_chain(&request.chain_id)
                .and_then(|()| ProposalRequest::parse(request))
                .map(Self::Proposal)
                .map_err(refused(RequestKind::Proposal)),
            Some(Sum::SignBytesRequest(request)) => {
                RawBytesRequest::parse(request, of_chain).map(Self::RawBytes).map_err(refused(RequestKind::SignBytes))
            }
            _ => Err(ParseError::Unanswerable),
        }
    }

    /// The height, round and step of a vote or proposal. `None` for other requests.
    pub fn hrs(&self) -> Option<Hrs> {
        match self {
            Self::Proposal(request) => Some(request.canonical.hrs()),
            Self::Vote(request) => Some(request.canonical.hrs()),
            Self::Ping | Self::PubKey | Self::RawBytes(_) => None,
        }
    }

    /// What a vote or proposal is for. `None` for other requests.
    pub fn choice(&self) -> Option<Choice> {
        let canonical = match self {
            Self::Proposal(request) => &request.canonical,
            Self::Vote(request) => &request.canonical,
            Self::Ping | Self::PubKey | Self::RawBytes(_) => return None,
        };
        Some(canonical.choice())
    }

    /// The kind of this request.
    pub fn kind(&self) -> RequestKind {
        match self {
            Self::Ping => RequestKind::Ping,
            Self::Proposal(_) => RequestKind::Proposal,
            Self::PubKey => RequestKind::PubKey,
            Self::RawBytes(_) => RequestKind::SignBytes,
            Self::Vote(_) => RequestKind::Vote,
        }
    }
}

impl VoteRequest {
    fn parse(request: message::SignVoteRequest) -> Result<Self, Refusal> {
        let mut vote = request.vote.ok_or(Refusal::Malformed("the request carries no vote"))?;
        let kind = match vote.r#type {
            message::TYPE_PREVOTE => MessageKind::Prevote,
            message::TYPE_PRECOMMIT => MessageKind::Precommit,
            _ => return Err(Refusal::Malformed("the type of the vote is not prevote (1) or precommit (2)")),
        };
        if !matches!(vote.validator_address.len(), 0 | ADDRESS_BYTES) {
            return Err(Refusal::Malformed("the validator address does not have 20 bytes"));
        }
        if !vote.non_rp_extension.is_empty() || !vote.non_rp_extension_signature.is_empty() {
            return Err(Refusal::NotPermitted(
                "a non-replay-protected extension is signed without any context, so it could hold another vote: \
                 Highwater never signs one",
            ));
        }
        let (height, round) = height_and_round(vote.height, vote.round)?;
        let block_id = block_id(vote.block_id.as_ref())?;
        let timestamp = timestamp(vote.timestamp)?;
        let extension = std::mem::take(&mut vote.extension);
        if extension.len() > EXTENSION_MAX_BYTES {
            return Err(Refusal::Malformed("the vote extension is longer than 1 MiB"));
        }
        let extension = match (kind, block_id) {
            (MessageKind::Precommit, Some(_)) if request.skip_extension_signing => Extension::None,
            (MessageKind::Precommit, Some(_)) => Extension::Sign(extension),
            _ if extension.is_empty() => Extension::None,
            _ => return Err(Refusal::Malformed("only a precommit for a block carries a vote extension")),
        };
        let canonical = Canonical { kind, height, round, block_id, timestamp };
        Ok(Self { canonical, extension, echo: vote })
    }
}

impl ProposalRequest {
    fn parse(request: message::SignProposalRequest) -> Result<Self, Refusal> {
        let proposal = request.proposal.ok_or(Refusal::Malformed("the request carries no proposal"))?;
        if proposal.r#type != message::TYPE_PROPOSAL {
            return Err(Refusal::Malformed("the type of the proposal is not 32"));
        }
        if proposal.pol_round < -1 {
            return Err(Refusal::Malformed("the proof-of-lock round is below -1"));
        }
        let (height, round) = height_and_round(proposal.height, proposal.round)?;
        let block_id = block_id(proposal.block_id.as_ref())?;
        if block_id.is_none() {
            return Err(Refusal::Malformed("the proposal names no block"));
        }
        let timestamp = timestamp(proposal.timestamp)?;
        let kind = MessageKind::Proposal { pol_round: proposal.pol_round };
        let canonical = Canonical { kind, height, round, block_id, timestamp };
        Ok(Self { canonical, echo: proposal })
    }
}

impl RawBytesRequest {
    /// Celestia's request has fields 2 and 3. CometBFT v1's `SignBytes` has only field 1, and asks for a signature on
    /// bytes that could be a vote.
    fn parse(
        request: message::SignBytesRequest,
        of_chain: impl Fn(&str) -> Result<(), Refusal>,
    ) -> Result<Self, Refusal> {
        if request.raw_bytes.is_empty() && request.unique_id.is_empty() {
            return Err(Refusal::NotPermitted(
                "SignBytes signs bytes without any context, so they could hold a vote: Highwater never signs them",
            ));
        }
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|_| Refusal::Malformed("the chain id or the unique id is not UTF-8"))
        };
        of_chain(&text(request.value_or_chain_id)?)?;
        if request.raw_bytes.is_empty() || request.unique_id.is_empty() {
            return Err(Refusal::Malformed("raw bytes and their unique id cannot be empty"));
        }
        if request.raw_bytes.len() > EXTENSION_MAX_BYTES {
            return Err(Refusal::Malformed("the raw bytes are longer than 1 MiB"));
        }
        Ok(Self { raw_bytes: request.raw_bytes, unique_id: text(request.unique_id)? })
    }
}

/// The longest vote extension of an honest node (CometBFT `types.MaxVoteExtensionSize`). A longer one would keep a
/// device busy past the deadlines of all chains that share it. Raw bytes have the same limit.
const EXTENSION_MAX_BYTES: usize = 1024 * 1024;

/// Length of every validator address (CometBFT `crypto.AddressSize`).
const ADDRESS_BYTES: usize = 20;

fn height_and_round(height: i64, round: i32) -> Result<(u64, u32), Refusal> {
    let height = u64::try_from(height).ok().filter(|height| *height > 0);
    let height = height.ok_or(Refusal::Malformed("the height is not positive"))?;
    let round = u32::try_from(round).map_err(|_| Refusal::Malformed("the round is negative"))?;
    Ok((height, round))
}

/// A block id is either complete or nil (`spec/consensus/signing.md`). No block id means nil.
fn block_id(id: Option<&message::BlockId>) -> Result<Option<CanonicalBlockId>, Refusal> {
    let Some(id) = id else { return Ok(None) };
    let (parts_total, parts_hash) = match &id.part_set_header {
        Some(parts) => (parts.total, parts.hash.as_slice()),
        None => (0, [].as_slice()),
    };
    if id.hash.is_empty() && parts_total == 0 && parts_hash.is_empty() {
        return Ok(None);
    }
    match (id.hash.as_slice().try_into(), parts_hash.try_into()) {
        (Ok(hash), Ok(parts_hash)) if parts_total > 0 => Ok(Some(CanonicalBlockId { hash, parts_total, parts_hash })),
        _ => Err(Refusal::Malformed("the block id is neither complete nor nil")),
    }
}

fn timestamp(timestamp: Option<message::Timestamp>) -> Result<Timestamp, Refusal> {
    let timestamp = timestamp.ok_or(Refusal::Malformed("the timestamp is missing"))?;
    Timestamp::new(timestamp.seconds, i64::from(timestamp.nanos))
        .ok_or(Refusal::Malformed("the timestamp is outside the years 1 to 9999"))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
