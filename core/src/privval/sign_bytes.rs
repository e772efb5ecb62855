//! Sign bytes: the exact bytes that a consensus key signs.
//!
//! `uvarint(length) ‖ protobuf(CanonicalVote | CanonicalProposal | CanonicalVoteExtension)`, the same in every CometBFT
//! version (`types/canonical.go`, `spec/consensus/signing.md`). Encoded and decoded without a Protobuf library: a vote
//! fits a fixed buffer, and the release of a signature checks itself by decoding the sign bytes again.

use super::frame::REQUEST_MAX_BYTES;
use crate::{
    consensus::{ChainId, Digest, HEIGHT_MAX, Hrs, ROUND_MAX, Step, Target, Timestamp},
    hex::Hex,
};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A complete block id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanonicalBlockId {
    /// Hash of the block's header.
    pub hash: [u8; 32],
    /// Number of parts, at least 1.
    pub parts_total: u32,
    /// Merkle root of the parts.
    pub parts_hash: [u8; 32],
}

/// What a vote or a proposal is for, short enough for a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first bytes of the hash of the block.
    Block([u8; CHOICE_BYTES]),
    /// No block.
    Nil,
}

/// As much of a hash as tells blocks apart in a log.
const CHOICE_BYTES: usize = 8;

/// As CometBFT's log begins a hash.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(hash) => hash.iter().try_for_each(|byte| write!(f, "{byte:02X}")),
            Self::Nil => f.write_str("nil"),
        }
    }
}

/// A vote or a proposal, reduced to the signed fields. The chain id is the one signed field that is not here: every
/// function takes it as a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// Whether it is a prevote, a precommit or a proposal.
    pub kind: MessageKind,
    /// Block height, 1 to [`HEIGHT_MAX`].
    pub height: u64,
    /// Round, 0 to [`ROUND_MAX`].
    pub round: u32,
    /// The block, or `None` for nil. A proposal always has one.
    pub block_id: Option<CanonicalBlockId>,
    /// The time that the node gave it.
    pub timestamp: Timestamp,
}

/// The kind of a canonical message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// The second vote of a round (`SignedMsgType` 2).
    Precommit,
    /// The first vote of a round (`SignedMsgType` 1).
    Prevote,
    /// The proposal of a block (`SignedMsgType` 32).
    Proposal {
        /// Round of the proof of lock, -1 for none.
        pol_round: i32,
    },
}

impl MessageKind {
    /// The step in which it is signed.
    pub fn step(self) -> Step {
        match self {
            Self::Precommit => Step::Precommit,
            Self::Prevote => Step::Prevote,
            Self::Proposal { .. } => Step::Propose,
        }
    }
}

impl Canonical {
    /// Height, round and step of this message.
    pub fn hrs(&self) -> Hrs {
        Hrs { height: self.height, round: self.round, step: self.kind.step() }
    }

    /// Whether this message is for a block or for nil.
    pub fn target(&self) -> Target {
        if self.block_id.is_some() { Target::Block } else { Target::Nil }
    }

    /// What this message is for.
    pub fn choice(&self) -> Choice {
        let Some(block_id) = &self.block_id else { return Choice::Nil };
        let mut first = [0; CHOICE_BYTES];
        first.copy_from_slice(&block_id.hash[..CHOICE_BYTES]);
        Choice::Block(first)
    }

    /// The sign bytes of this message for `chain`.
    pub fn sign_bytes(&self, chain: &ChainId) -> SignBytes {
        let mut body = SignBytes::default();
        body.byte(TYPE);
        body.byte(match self.kind {
            MessageKind::Prevote => 1,
            MessageKind::Precommit => 2,
            MessageKind::Proposal { .. } => 32,
        });
        body.fixed64(HEIGHT, self.height);
        body.fixed64(ROUND, u64::from(self.round));
        // A proposal has one more field before the block id, so later fields have higher numbers.
        let shift = match self.kind {
            MessageKind::Proposal { pol_round } => {
                body.pol_round(pol_round);
                1 << 3
            }
            MessageKind::Precommit | MessageKind::Prevote => 0,
        };
        if let Some(block_id) = &self.block_id {
            body.block_id(VOTE_BLOCK_ID + shift, block_id);
        }
        body.timestamp(VOTE_TIMESTAMP + shift, self.timestamp);
        body.bytes(VOTE_CHAIN_ID + shift, chain.as_str().as_bytes());
        body.delimited()
    }

    /// SHA-256 of the sign bytes for `chain` with the timestamp zeroed. Equal for messages that differ only in their
    /// time.
    pub fn digest(&self, chain: &ChainId) -> Digest {
        let timeless = Self { timestamp: Timestamp::ZERO, ..*self };
        Digest(Sha256::digest(timeless.sign_bytes(chain).as_slice()).into())
    }

    /// Decodes sign bytes. `None` unless they are, to the byte, what [`Canonical::sign_bytes`] would write.
    pub fn parse(bytes: &[u8]) -> Option<(Self, ChainId)> {
        let mut rest = Reader(bytes);
        let length = rest.varint()?;
        if length != rest.0.len() as u64 {
            return None;
        }
        let (canonical, chain) = rest.canonical()?;
        // Each message has one encoding: this refuses others that a lenient reader would accept.
        (canonical.sign_bytes(&chain).as_slice() == bytes).then_some((canonical, chain))
    }
}

/// The sign bytes of a vote extension (CometBFT `types.VoteExtensionSignBytes`). They have no step, block or time.
pub fn extension_sign_bytes(chain: &ChainId, height: u64, round: u32, extension: &[u8]) -> Vec<u8> {
    debug_assert!(extension.len() <= REQUEST_MAX_BYTES, "the frame limit bounds an extension");
    let mut tail = SignBytes::default();
    tail.fixed64(HEIGHT, height);
    tail.fixed64(ROUND, u64::from(round));
    tail.bytes(EXTENSION_CHAIN_ID, chain.as_str().as_bytes());

    let extension_field = match extension.len() {
        0 => 0,
        length => 1 + varint_length(length as u64) + length,
    };
    let body_length = extension_field + tail.as_slice().len();
    let mut out = Vec::with_capacity(varint_length(body_length as u64) + body_length);
    prost::encoding::encode_varint(body_length as u64, &mut out);
    if !extension.is_empty() {
        out.push(EXTENSION);
        prost::encoding::encode_varint(extension.len() as u64, &mut out);
        out.extend_from_slice(extension);
    }
    out.extend_from_slice(tail.as_slice());
    out
}

/// The sign bytes of Celestia's `SignRawBytes`: its own prefix, then the delimited request (celestia-core
/// `privval/raw_bytes.go`). No other sign bytes have that prefix: as a length prefix its first byte announces 67 bytes,
/// and its second byte is no field of a canonical message.
pub fn raw_sign_bytes(chain: &ChainId, raw_bytes: &[u8], unique_id: &str) -> Vec<u8> {
    const PREFIX: &[u8] = b"COMET::RAW_BYTES::SIGN";
    let fields: [(u8, &[u8]); 3] = [(0x0a, chain.as_str().as_bytes()), (0x12, raw_bytes), (0x1a, unique_id.as_bytes())];
    let body_length: usize = fields.iter().map(|(_, value)| 1 + varint_length(value.len() as u64) + value.len()).sum();
    let mut out = PREFIX.to_vec();
    prost::encoding::encode_varint(body_length as u64, &mut out);
    for (tag, value) in fields {
        out.push(tag);
        prost::encoding::encode_varint(value.len() as u64, &mut out);
        out.extend_from_slice(value);
    }
    out
}

/// Sign bytes of a vote or proposal in a fixed buffer: the hot path does not allocate.
#[derive(Clone, Copy)]
pub struct SignBytes {
    buffer: [u8; SIGN_BYTES_MAX],
    length: usize,
}

/// A proposal with every field at its longest takes 182 bytes.
const SIGN_BYTES_MAX: usize = 192;

impl SignBytes {
    /// The bytes that the key signs.
    pub fn as_slice(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    fn byte(&mut self, byte: u8) {
        self.buffer[self.length] = byte;
        self.length += 1;
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.buffer[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn varint(&mut self, value: u64) {
        let mut free = &mut self.buffer[self.length..];
        prost::encoding::encode_varint(value, &mut free);
        self.length += varint_length(value);
    }

    /// A little-endian `sfixed64`, left out when 0.
    fn fixed64(&mut self, tag: u8, value: u64) {
        if value != 0 {
            self.byte(tag);
            self.raw(&value.to_le_bytes());
        }
    }

    fn bytes(&mut self, tag: u8, value: &[u8]) {
        if !value.is_empty() {
            self.byte(tag);
            self.varint(value.len() as u64);
            self.raw(value);
        }
    }

    /// An `int64` varint: -1 takes ten bytes, 0 is left out.
    fn pol_round(&mut self, pol_round: i32) {
        if pol_round != 0 {
            self.byte(POL_ROUND);
            self.varint(i64::from(pol_round).cast_unsigned());
        }
    }

    fn block_id(&mut self, tag: u8, id: &CanonicalBlockId) {
        let parts_length = 1 + varint_length(u64::from(id.parts_total)) + HASH_FIELD_BYTES;
        let id_length = HASH_FIELD_BYTES + 2 + parts_length;
        self.byte(tag);
        self.varint(id_length as u64);
        self.bytes(0x0a, &id.hash);
        self.byte(0x12);
        self.varint(parts_length as u64);
        self.byte(0x08);
        self.varint(u64::from(id.parts_total));
        self.bytes(0x12, &id.parts_hash);
    }

    /// Always present, even if all of its own fields are left out.
    fn timestamp(&mut self, tag: u8, timestamp: Timestamp) {
        let mut fields = Self::default();
        if timestamp.seconds() != 0 {
            fields.byte(0x08);
            fields.varint(timestamp.seconds().cast_unsigned());
        }
        if timestamp.nanos() != 0 {
            fields.byte(0x10);
            fields.varint(u64::from(timestamp.nanos()));
        }
        self.byte(tag);
        self.varint(fields.length as u64);
        self.raw(fields.as_slice());
    }

    fn delimited(&self) -> Self {
        let mut out = Self::default();
        out.varint(self.length as u64);
        out.raw(self.as_slice());
        out
    }
}

impl Default for SignBytes {
    fn default() -> Self {
        Self { buffer: [0; SIGN_BYTES_MAX], length: 0 }
    }
}

impl fmt::Debug for SignBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(self.as_slice()))
    }
}

/// Decodes canonical messages field by field, in the order in which they are written.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn canonical(&mut self) -> Option<(Canonical, ChainId)> {
        self.tag(TYPE)?;
        let message_type = self.varint()?;
        let height = self.optional_fixed64(HEIGHT)?;
        let round = self.optional_fixed64(ROUND)?;
        let (kind, shift) = match message_type {
            1 => (MessageKind::Prevote, 0),
            2 => (MessageKind::Precommit, 0),
            32 => (MessageKind::Proposal { pol_round: self.pol_round()? }, 1 << 3),
            _ => return None,
        };
        let block_id = match self.tag(VOTE_BLOCK_ID + shift) {
            Some(()) => Some(self.message()?.block_id()?),
            None => None,
        };
        self.tag(VOTE_TIMESTAMP + shift)?;
        let timestamp = self.message()?.timestamp()?;
        self.tag(VOTE_CHAIN_ID + shift)?;
        let chain = ChainId::new(std::str::from_utf8(self.message()?.0).ok()?).ok()?;
        let in_range = (1..=HEIGHT_MAX).contains(&height) && (block_id.is_some() || shift == 0);
        let round = u32::try_from(round).ok().filter(|round| in_range && *round <= ROUND_MAX)?;
        self.0.is_empty().then_some((Canonical { kind, height, round, block_id, timestamp }, chain))
    }

    fn tag(&mut self, tag: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == tag).then(|| self.0 = rest)
    }

    fn varint(&mut self) -> Option<u64> {
        prost::encoding::decode_varint(&mut self.0).ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn optional_fixed64(&mut self, tag: u8) -> Option<u64> {
        match self.tag(tag) {
            Some(()) => Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            None => Some(0),
        }
    }

    fn pol_round(&mut self) -> Option<i32> {
        let value = match self.tag(POL_ROUND) {
            Some(()) => self.varint()?.cast_signed(),
            None => 0,
        };
        i32::try_from(value).ok().filter(|round| *round >= -1)
    }

    fn message(&mut self) -> Option<Self> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length).map(Self)
    }

    fn hash(&mut self, tag: u8) -> Option<[u8; 32]> {
        self.tag(tag)?;
        self.message()?.0.try_into().ok()
    }

    fn block_id(mut self) -> Option<CanonicalBlockId> {
        let hash = self.hash(0x0a)?;
        self.tag(0x12)?;
        let mut parts = self.message()?;
        parts.tag(0x08)?;
        let parts_total = u32::try_from(parts.varint()?).ok().filter(|total| *total > 0)?;
        Some(CanonicalBlockId { hash, parts_total, parts_hash: parts.hash(0x12)? })
    }

    fn timestamp(mut self) -> Option<Timestamp> {
        let mut field = |tag| match self.tag(tag) {
            Some(()) => self.varint().map(u64::cast_signed),
            None => Some(0),
        };
        Timestamp::new(field(0x08)?, field(0x10)?)
    }
}

fn varint_length(value: u64) -> usize {
    prost::encoding::encoded_len_varint(value)
}

// Protobuf tags: `number << 3 | wire type`.
const TYPE: u8 = 0x08;
const HEIGHT: u8 = 0x11;
const ROUND: u8 = 0x19;
const POL_ROUND: u8 = 0x20;
const VOTE_BLOCK_ID: u8 = 0x22;
const VOTE_TIMESTAMP: u8 = 0x2a;
const VOTE_CHAIN_ID: u8 = 0x32;
const EXTENSION: u8 = 0x0a;
const EXTENSION_CHAIN_ID: u8 = 0x22;
/// Tag, length and 32 bytes.
const HASH_FIELD_BYTES: usize = 34;

#[cfg(test)]
#[path = "sign_bytes_tests.rs"]
mod tests;
