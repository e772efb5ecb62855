//! Everything that left a signer for one chain, and the check that no two messages of it contradict each other.
//!
//! Give every answer, as it came out of the signer, to [`History::note`]. Nothing here is the signer's own code but the
//! types of the wire: sign bytes come from another implementation's encoder, and a message is what its bytes say.
#![allow(dead_code, unreachable_pub)]

use highwater_core::{
    consensus::{PublicKey, Signature},
    hex::Hex,
    privval::message::{self, Message, Sum},
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};
use tendermint_proto::{google::protobuf::Timestamp, v0_38::types as canonical};

/// Height, round and step: the place of a message, in the order in which a chain moves.
pub type Place = (i64, i32, i32);

/// Verifies signatures.
pub type Verifier = Box<dyn Fn(&[u8], &Signature) -> bool + Send>;

/// All that left for one chain and key.
pub struct History {
    chain: String,
    verifies: Verifier,
    /// Sign bytes and signature. What is the same to the byte is not verified again.
    left: BTreeMap<Place, (Vec<u8>, Vec<u8>)>,
    /// How far each link has come. Answers of different links may arrive in any order; those of one link may not.
    links: HashMap<usize, Place>,
}

/// What an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The first message at its place.
    First,
    /// Nothing: a refusal, a ping, a public key.
    Nothing,
    /// The same bytes as before.
    Repeat,
}

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offence {
    /// A message below one that left on the same link before.
    Backwards { before: Place, now: Place },
    /// A carrier that is neither whole nor a refusal.
    Garbled(&'static str),
    /// Two messages at one place: what slashing punishes.
    Two { place: Place, first: Vec<u8>, second: Vec<u8> },
    /// A signature that does not verify.
    Unverified { place: Place, what: &'static str },
}

impl History {
    /// Nothing has left yet for `chain`, whose key is `key`.
    pub fn new(chain: &str, key: PublicKey) -> Self {
        Self::with_verifier(chain, Box::new(move |message, signature| key.verifies(message, signature)))
    }

    /// The same for a key of another kind.
    pub fn with_verifier(chain: &str, verifies: Verifier) -> Self {
        Self { chain: chain.into(), verifies, left: BTreeMap::new(), links: HashMap::new() }
    }

    /// The highest place from which anything left.
    pub fn highest(&self) -> Option<Place> {
        self.left.last_key_value().map(|(place, _)| *place)
    }

    /// How many different messages left.
    pub fn len(&self) -> u64 {
        self.left.len() as u64
    }

    /// Takes note of an answer that came out of `link`. `extension` is what the request wanted signed beside a vote.
    pub fn note(&mut self, link: usize, answer: &Message, extension: &[u8]) -> Result<Left, Offence> {
        match &answer.sum {
            Some(Sum::SignedVoteResponse(response)) => match (&response.vote, &response.error) {
                (Some(vote), None) => self.note_vote(link, vote, extension),
                (None, Some(_)) => Ok(Left::Nothing),
                _ => Err(Offence::Garbled("a vote and an error, or neither")),
            },
            Some(Sum::SignedProposalResponse(response)) => match (&response.proposal, &response.error) {
                (Some(proposal), None) => self.note_proposal(link, proposal),
                (None, Some(_)) => Ok(Left::Nothing),
                _ => Err(Offence::Garbled("a proposal and an error, or neither")),
            },
            Some(Sum::PubKeyResponse(_) | Sum::PingResponse(_)) => Ok(Left::Nothing),
            Some(Sum::SignBytesResponse(response)) if response.signature.is_empty() => Ok(Left::Nothing),
            _ => Err(Offence::Garbled("it is no answer to anything that a node asks")),
        }
    }

    /// The same for a vote.
    pub fn note_vote(&mut self, link: usize, vote: &message::Vote, extension: &[u8]) -> Result<Left, Offence> {
        let place = (vote.height, vote.round, vote.r#type + 1);
        let block_id = block_id(vote.block_id.as_ref());
        self.check_extension(place, vote, block_id.is_some(), extension)?;
        let bytes = canonical::CanonicalVote {
            r#type: vote.r#type,
            height: vote.height,
            round: vote.round.into(),
            block_id,
            timestamp: timestamp(vote.timestamp),
            chain_id: self.chain.clone(),
        };
        self.check(link, place, bytes.encode_length_delimited_to_vec(), &vote.signature)
    }

    /// The same for a proposal.
    pub fn note_proposal(&mut self, link: usize, proposal: &message::Proposal) -> Result<Left, Offence> {
        let bytes = canonical::CanonicalProposal {
            r#type: proposal.r#type,
            height: proposal.height,
            round: proposal.round.into(),
            pol_round: proposal.pol_round.into(),
            block_id: block_id(proposal.block_id.as_ref()),
            timestamp: timestamp(proposal.timestamp),
            chain_id: self.chain.clone(),
        };
        let place = (proposal.height, proposal.round, 1);
        self.check(link, place, bytes.encode_length_delimited_to_vec(), &proposal.signature)
    }

    fn check(&mut self, link: usize, place: Place, bytes: Vec<u8>, signature: &[u8]) -> Result<Left, Offence> {
        let known = self.left.get(&place).is_some_and(|(known, by)| *known == bytes && by == signature);
        if !known && !self.verifies(&bytes, signature) {
            return Err(Offence::Unverified { place, what: "message" });
        }
        if let Some(before) = self.links.insert(link, place).filter(|before| *before > place) {
            return Err(Offence::Backwards { before, now: place });
        }
        match self.left.get(&place) {
            None => {
                self.left.insert(place, (bytes, signature.to_vec()));
                Ok(Left::First)
            }
            Some((first, _)) if *first == bytes => Ok(Left::Repeat),
            Some((first, _)) => Err(Offence::Two { place, first: first.clone(), second: bytes }),
        }
    }

    /// An extension is signed for a precommit for a block alone, and never sent back.
    fn check_extension(
        &self,
        place: Place,
        vote: &message::Vote,
        for_block: bool,
        extension: &[u8],
    ) -> Result<(), Offence> {
        if !vote.extension.is_empty() {
            return Err(Offence::Garbled("an extension was sent back"));
        }
        if vote.extension_signature.is_empty() {
            return Ok(());
        }
        let bytes = canonical::CanonicalVoteExtension {
            extension: extension.to_vec(),
            height: vote.height,
            round: vote.round.into(),
            chain_id: self.chain.clone(),
        };
        let extendable = for_block && vote.r#type == message::TYPE_PRECOMMIT;
        match extendable && self.verifies(&bytes.encode_length_delimited_to_vec(), &vote.extension_signature) {
            true => Ok(()),
            false => Err(Offence::Unverified { place, what: "extension" }),
        }
    }

    fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        (self.verifies)(bytes, &Signature::new(signature))
    }
}

fn block_id(id: Option<&message::BlockId>) -> Option<canonical::CanonicalBlockId> {
    let id = id.filter(|id| !id.hash.is_empty())?;
    let parts = id.part_set_header.clone().unwrap_or_default();
    let part_set_header = Some(canonical::CanonicalPartSetHeader { total: parts.total, hash: parts.hash });
    Some(canonical::CanonicalBlockId { hash: id.hash.clone(), part_set_header })
}

fn timestamp(timestamp: Option<message::Timestamp>) -> Option<Timestamp> {
    timestamp.map(|message::Timestamp { seconds, nanos }| Timestamp { seconds, nanos })
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backwards { before, now } => write!(f, "{now:?} left after {before:?}"),
            Self::Garbled(what) => write!(f, "an answer is garbled: {what}"),
            Self::Two { place, first, second } => {
                write!(f, "two messages left from {place:?}:\n  {}\n  {}", Hex(first), Hex(second))
            }
            Self::Unverified { place, what } => write!(f, "the signature of the {what} at {place:?} does not verify"),
        }
    }
}
