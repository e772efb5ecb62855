//! What signs, as a chain sees it: one consensus key, wherever it is kept.
//!
//! A [`Signer`] signs the bytes it is given. It knows nothing of heights, watermarks or requests, and it never asks whether it may.

use crate::consensus::{PublicKey, Signature};
use std::{fmt, time::Instant};

/// What every self-test signs: one constant that can never be sign bytes. Read as a length prefix, its first byte
/// announces 72 bytes, and the second is no field of a canonical message. It is as long as a vote, because the time that a
/// device takes grows with the message.
pub const SELF_TEST: &[u8] =
    b"Highwater self-test: this is no vote, no proposal and no vote extension, and as long as a vote, so that it takes as long.";

/// Holds one consensus key and signs with it.
pub trait Signer: Send + Sync {
    /// The key that verifies its signatures. Known from the start; never asks a device.
    fn public_key(&self) -> PublicKey;

    /// Signs `message` as it is.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignError>;

    /// Begins to sign `messages` on a device, which works while the mark is flushed. Refuses at once what cannot
    /// succeed. The time that it may take counts from `asked_at`. `None` from a key that signs within microseconds:
    /// there is nothing to begin.
    fn begin(&self, messages: &[&[u8]], asked_at: Instant) -> Result<Option<Box<dyn Pending>>, SignError> {
        let _ = (messages, asked_at);
        Ok(None)
    }

    /// Keeps its secrets out of swap and core dumps. Returns false if one of them could not be locked into memory. A
    /// device's key is not in our memory.
    fn lock_secrets(&self) -> bool {
        true
    }
}

/// Signatures that are being made. Dropping it discards them.
pub trait Pending: Send {
    /// Waits for the signatures, in the order of their messages.
    fn wait(self: Box<Self>) -> Result<Vec<Signature>, SignError>;
}

/// Makes the key sign [`SELF_TEST`] and verifies the signature.
pub fn prove(signer: &dyn Signer) -> Result<(), String> {
    let signature = signer.sign(SELF_TEST).map_err(|error| error.to_string())?;
    if signer.public_key().verifies(SELF_TEST, &signature) {
        Ok(())
    } else {
        Err("its self-test signature does not verify".into())
    }
}

/// Why a key did not sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignError {
    /// The provider failed. The text is the provider's own.
    Backend(String),
}

impl SignError {
    /// A provider broke its word: fewer signatures came than messages were sent.
    pub(crate) fn too_few() -> Self {
        Self::Backend("it made fewer signatures than it was asked for".into())
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(reason) => write!(f, "the key's provider could not sign: {reason}"),
        }
    }
}

impl std::error::Error for SignError {}
