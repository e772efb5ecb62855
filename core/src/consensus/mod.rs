//! Basic types that every module shares: chain id, height/round/step, timestamp, digest, public key, signature.
//!
//! Pure values without I/O. Invalid values cannot be constructed, so no other code checks them again.

pub(crate) mod keys;
mod peer_id;

pub use keys::{Algorithm, Bech32, KeyType, PublicKey, PublicKeyError, Signature};
pub use peer_id::PeerId;

use crate::hex::Hex;
use std::fmt;

/// Longest chain id in bytes (CometBFT `types.MaxChainIDLen`).
pub const CHAIN_ID_MAX_BYTES: usize = 50;

/// The name of a chain: 1 to 50 bytes of `A-Z a-z 0-9 . _ -`, as tmkms accepts it.
///
/// CometBFT itself only limits the length; the narrower alphabet keeps a chain id harmless in file names, log lines and
/// metric labels. Stored inline: every signature makes and compares chain ids, and none of them allocates.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId {
    /// Padded with zeros, which sort before every allowed character.
    bytes: [u8; CHAIN_ID_MAX_BYTES],
    length: usize,
}

impl ChainId {
    /// Checks `text` and makes a chain id of it.
    pub fn new(text: &str) -> Result<Self, ChainIdError> {
        if text.is_empty() {
            return Err(ChainIdError::Empty);
        }
        if text.len() > CHAIN_ID_MAX_BYTES {
            return Err(ChainIdError::TooLong { bytes: text.len() });
        }
        match text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-')) {
            Some(character) => Err(ChainIdError::Character { character }),
            None => {
                let mut bytes = [0; CHAIN_ID_MAX_BYTES];
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                Ok(Self { bytes, length: text.len() })
            }
        }
    }

    /// The chain id as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.length]).expect("its characters are ASCII")
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a chain id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainIdError {
    /// A character outside `A-Z a-z 0-9 . _ -`.
    Character {
        /// The first such character.
        character: char,
    },
    /// No characters at all.
    Empty,
    /// More than [`CHAIN_ID_MAX_BYTES`].
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl fmt::Display for ChainIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character { character } => {
                write!(f, "a chain id cannot contain {character:?}: only letters, digits, '.', '_' and '-'")
            }
            Self::Empty => f.write_str("a chain id cannot be empty"),
            Self::TooLong { bytes } => {
                write!(f, "a chain id has at most {CHAIN_ID_MAX_BYTES} bytes, this one has {bytes}")
            }
        }
    }
}

impl std::error::Error for ChainIdError {}

/// The messages signed within a round, in the order in which a validator signs them.
///
/// The numbers are those of CometBFT's `priv_validator_state.json` (`privval/file.go`); tmkms counts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// The block proposal.
    Propose = 1,
    /// The first vote.
    Prevote = 2,
    /// The second vote, the one that commits.
    Precommit = 3,
}

impl Step {
    /// The step with this number, if there is one.
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Propose),
            2 => Some(Self::Prevote),
            3 => Some(Self::Precommit),
            _ => None,
        }
    }

    /// 1, 2 or 3.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// A short name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Propose => "proposal",
            Self::Prevote => "prevote",
            Self::Precommit => "precommit",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Height, round and step: the position of a message in a chain. Ordered as the chain progresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hrs {
    /// Block height. A chain starts at 1; 0 stands for "nothing signed yet".
    pub height: u64,
    /// Round within the height, from 0 to [`ROUND_MAX`].
    pub round: u32,
    /// Step within the round.
    pub step: Step,
}

/// Highest round (CometBFT rounds are `int32`).
pub const ROUND_MAX: u32 = i32::MAX as u32;

/// Highest height (CometBFT heights are `int64`).
pub const HEIGHT_MAX: u64 = i64::MAX as u64;

impl Hrs {
    /// Before the first proposal of a chain.
    pub const GENESIS: Self = Self { height: 0, round: 0, step: Step::Propose };

    /// The last position at `height` that could ever be signed.
    pub const fn end_of(height: u64) -> Self {
        Self { height, round: ROUND_MAX, step: Step::Precommit }
    }
}

/// `height/round/step`, or `height/end` for the last position of a height.
impl fmt::Display for Hrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::end_of(self.height) {
            write!(f, "{}/end", self.height)
        } else {
            write!(f, "{}/{}/{}", self.height, self.round, self.step)
        }
    }
}

/// A point in time as protobuf carries it: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

/// The first second of year 1, Go's zero `time.Time`.
const SECONDS_MIN: i64 = -62_135_596_800;
/// The last second of year 9999.
const SECONDS_MAX: i64 = 253_402_300_799;
const NANOS_PER_SECOND: u32 = 1_000_000_000;

impl Timestamp {
    /// 1970-01-01, the value that replaces every timestamp in a digest.
    pub const ZERO: Self = Self { seconds: 0, nanos: 0 };

    /// A timestamp within the years 1 to 9999 (the range of `google.protobuf.Timestamp`), else `None`.
    pub fn new(seconds: i64, nanos: i64) -> Option<Self> {
        let nanos = u32::try_from(nanos).ok().filter(|n| *n < NANOS_PER_SECOND)?;
        (SECONDS_MIN..=SECONDS_MAX).contains(&seconds).then_some(Self { seconds, nanos })
    }

    /// Whole seconds since 1970; negative for earlier times.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second, below 1 000 000 000.
    pub fn nanos(self) -> u32 {
        self.nanos
    }
}

/// SHA-256 of sign bytes whose timestamp was replaced by [`Timestamp::ZERO`].
///
/// Two messages with the same digest differ at most in their timestamps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0))
    }
}

/// Whether a message is for a block or for nil.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It names a block.
    Block,
    /// It is a vote for nil.
    Nil,
}

/// How a request contradicts an earlier signature at the same height, round and step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Two blocks: the only case that slashing punishes.
    BlockAgainstBlock,
    /// A request for a block after a signature for nil.
    BlockAgainstNil,
    /// A request for nil after a signature for a block.
    NilAgainstBlock,
    /// Two proposals that are not identical byte for byte.
    Proposal,
    /// The watermark was imported or raised: it does not say what was signed here, so nothing more is signed.
    Unknown,
}

impl Conflict {
    /// A short name for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockAgainstBlock => "block-against-block",
            Self::BlockAgainstNil => "block-against-nil",
            Self::NilAgainstBlock => "nil-against-block",
            Self::Proposal => "conflicting-proposal",
            Self::Unknown => "watermark-without-digest",
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlockAgainstBlock => "another block was signed there",
            Self::BlockAgainstNil => "nil was signed there, the request is for a block",
            Self::NilAgainstBlock => "a block was signed there, the request is for nil",
            Self::Proposal => "another proposal was signed there",
            Self::Unknown => "the watermark was imported or raised to there and does not say what was signed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_tmkms() {
        for good in ["a", "cosmoshub-4", "test_chain.1", &"x".repeat(50)] {
            assert_eq!(ChainId::new(good).unwrap().as_str(), good);
        }
        assert_eq!(ChainId::new(""), Err(ChainIdError::Empty));
        assert_eq!(ChainId::new(&"x".repeat(51)), Err(ChainIdError::TooLong { bytes: 51 }));
        for bad in ["a b", "a/b", "ä", "a\0"] {
            assert!(matches!(ChainId::new(bad), Err(ChainIdError::Character { .. })), "{bad:?}");
        }
    }

    #[test]
    fn height_then_round_then_step_decide_the_order() {
        let at = |height, round, step| Hrs { height, round, step };
        assert!(at(2, 0, Step::Propose) > at(1, 9, Step::Precommit));
        assert!(at(1, 1, Step::Propose) > at(1, 0, Step::Precommit));
        assert!(at(1, 0, Step::Precommit) > at(1, 0, Step::Prevote));
        assert!(at(1, 0, Step::Prevote) > at(1, 0, Step::Propose));
        assert!(at(1, 0, Step::Propose) > Hrs::GENESIS);
        assert!(Hrs::end_of(1) >= at(1, ROUND_MAX, Step::Precommit));
        assert!(at(2, 0, Step::Propose) > Hrs::end_of(1));
    }

    #[test]
    fn timestamps_stay_within_the_years_1_to_9999() {
        assert!(Timestamp::new(-62_135_596_800, 0).is_some());
        assert!(Timestamp::new(-62_135_596_801, 0).is_none());
        assert!(Timestamp::new(253_402_300_799, 999_999_999).is_some());
        assert!(Timestamp::new(253_402_300_800, 0).is_none());
        assert!(Timestamp::new(0, 1_000_000_000).is_none());
        assert!(Timestamp::new(0, -1).is_none());
    }
}
