//! A mark: the height, round and step up to which a chain has signed.

use crate::consensus::{Digest, Hrs, Target, Timestamp};

/// The watermark of a chain. Nothing below it is signed, and nothing but the same message at it.
///
/// It holds no signature: whoever has the mark, the request and the key can make the same Ed25519 signature again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Height, round and step of the last message.
    pub hrs: Hrs,
    /// What was signed there; `None` for a mark made by init, import, raise or hook, whose own height, round and
    /// step is always refused.
    pub signed: Option<SignedMessage>,
}

/// The message behind a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedMessage {
    /// Block or nil.
    pub target: Target,
    /// The message's time, with which it is signed again.
    pub timestamp: Timestamp,
    /// Everything else about it.
    pub digest: Digest,
}

impl Mark {
    /// Nothing was ever signed.
    pub const NEVER_SIGNED: Self = Self::floor(Hrs::GENESIS);

    /// A mark that does not know what was signed at `hrs`.
    pub const fn floor(hrs: Hrs) -> Self {
        Self { hrs, signed: None }
    }
}

/// Proof that a value is on the disk. Only [`super::Store`] makes one, and no signature leaves without it.
#[derive(Debug)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// For the store alone, after its flush.
    pub(super) fn attest(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one release that the proof is good for.
    pub fn spend(self) -> T {
        self.0
    }
}
