//! A mark: the height, round and step up to which a chain has signed.

use crate::consensus::{Digest, Hrs, Target, Timestamp};

/// The watermark of a chain. Nothing below it is signed. At it, only the same message is signed again.
///
/// It holds no signature: the mark, the request and the key are enough to make the same Ed25519 signature again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Height, round and step of the last message.
    pub hrs: Hrs,
    /// What was signed there. `None` for a mark that does not know it, as those of init, raise and a hook do: a request
    /// for exactly its height, round and step is always refused.
    pub signed: Option<SignedMessage>,
}

/// The message behind a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedMessage {
    /// Whether it was for a block or for nil.
    pub target: Target,
    /// The time in the message. A repeated vote is signed with this time.
    pub timestamp: Timestamp,
    /// SHA-256 over the rest of the message: its sign bytes with the timestamp zeroed.
    pub digest: Digest,
}

impl Mark {
    /// The mark of a key that has never signed.
    pub const NEVER_SIGNED: Self = Self::floor(Hrs::GENESIS);

    /// A mark at `hrs` without a record of what was signed there.
    pub const fn floor(hrs: Hrs) -> Self {
        Self { hrs, signed: None }
    }
}

/// Proof that a value is on the disk. Only [`super::Store`] makes one, and no signature leaves without one.
#[derive(Debug)]
pub struct Durable<T>(T);

impl<T> Durable<T> {
    /// For the store alone, after its flush.
    pub(super) fn attest(value: T) -> Self {
        Self(value)
    }

    /// Returns the value and uses up the proof, which is good for one release.
    pub fn spend(self) -> T {
        self.0
    }
}
