//! A private key on a token.

use cryptoki::object::ObjectHandle;
use highwater_core::consensus::{KeyType, PublicKey};

/// A private key on the token that found it.
pub struct TokenKey {
    pub(super) handle: ObjectHandle,
    pub(super) key_type: KeyType,
    pub(super) public_key: Option<PublicKey>,
    /// Whether the token wants a login for each use of it (`CKA_ALWAYS_AUTHENTICATE`).
    pub(super) wants_login: bool,
    /// What it says of itself that may be the reason for a refusal.
    pub(super) reasons: Vec<String>,
}

impl TokenKey {
    /// Which algorithm it signs with.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Its public half, where the device shows it. Where it does not, only the configuration can say what it is.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.public_key.clone()
    }

    /// The key, with the public half that the device showed only when it made it.
    pub(crate) fn or_public_key(mut self, made: Option<PublicKey>) -> Self {
        self.public_key = self.public_key.or(made);
        self
    }
}
