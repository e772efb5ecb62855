//! Ed25519 (RFC 8032): 32-byte keys, 64-byte signatures `R‖S` over the message itself.

use super::{Algorithm, AlgorithmKey, Bech32, KeyType, PublicKey};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

pub(super) static ALGORITHM: Algorithm = Algorithm {
    name: "ed25519",
    public_key_len: 32,
    public_key_form: "32 bytes",
    signature_len: 64,
    json_secret: "tendermint/PrivKeyEd25519",
    sdk_type: "/cosmos.crypto.ed25519.PubKey",
    bech32: Bech32::Amino([0x16, 0x24, 0xDE, 0x64, 0x20]),
    wire_field: 1,
    header_number: 1,
    parse: |bytes| Some(Arc::new(VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()?)),
};

impl AlgorithmKey for VerifyingKey {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    /// The first 20 bytes of the key's SHA-256 (CometBFT `crypto/ed25519`).
    fn address(&self) -> [u8; 20] {
        let mut address = [0; 20];
        address.copy_from_slice(&Sha256::digest(self.as_bytes())[..20]);
        address
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519_dalek::Signature::from_slice(signature)
            .is_ok_and(|signature| self.verify_strict(message, &signature).is_ok())
    }
}

impl From<VerifyingKey> for PublicKey {
    fn from(key: VerifyingKey) -> Self {
        Self { key_type: KeyType::Ed25519, key: Arc::new(key) }
    }
}
