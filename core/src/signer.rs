//! The key, as a chain sees it: one consensus key, wherever it is kept.
//!
//! A [`Signer`] signs the bytes that it gets. It knows nothing of heights, watermarks or requests, and never decides
//! whether to sign.

use crate::consensus::{PublicKey, Signature};
use std::{fmt, time::Instant};

/// The message of every self-test: one constant that can never be sign bytes. As a length prefix its first byte
/// announces 72 bytes, and its second byte is no field of a canonical message. It is as long as a vote, because the
/// time that a device takes grows with the message.
pub const SELF_TEST: &[u8] =
    b"Highwater self-test: this is no vote, no proposal and no vote extension, and as long as a vote, so that it takes as long.";

/// Holds one consensus key and signs with it.
pub trait Signer: Send + Sync {
    /// The key that verifies its signatures. Known from the start: this never asks a device.
    fn public_key(&self) -> PublicKey;

    /// Signs `message` itself, and waits for the signature.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignError>;

    /// Starts signing `messages` on a device, which works while the mark is flushed. Refuses at once what cannot
    /// succeed. The deadline counts from `asked_at`. Returns `None` for a key that signs within microseconds: call
    /// [`Signer::sign`] instead.
    fn begin(&self, messages: &[&[u8]], asked_at: Instant) -> Result<Option<Box<dyn Pending>>, SignError> {
        let _ = (messages, asked_at);
        Ok(None)
    }

    /// Locks its secrets into memory, to keep them out of swap and core dumps. Returns false if one of them could not
    /// be locked. A key in a device has no secrets in our memory.
    fn lock_secrets(&self) -> bool {
        true
    }
}

/// Signatures that a device is making. Dropping this discards them.
pub trait Pending: Send {
    /// Waits for the signatures, in the order of their messages.
    fn wait(self: Box<Self>) -> Result<Vec<Signature>, SignError>;
}

/// Has the key sign [`SELF_TEST`] and verifies the signature. The error is the provider's, or says that the signature
/// does not verify.
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
    /// The provider failed. Holds the provider's own text.
    Backend(String),
}

impl SignError {
    /// A provider returned fewer signatures than it got messages.
    pub(crate) fn too_few() -> Self {
        Self::Backend("it returned fewer signatures than requested".into())
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
