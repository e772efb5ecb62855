//! ECDSA over secp256k1: 33-byte keys (compressed SEC1), 64-byte signatures `R‖S` with low S over the message's
//! SHA-256.

use super::{Algorithm, AlgorithmKey, Bech32, KeyType, PublicKey};
use k256::ecdsa::{Signature, VerifyingKey, signature::Verifier as _};
use ripemd::Ripemd160;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

const COMPRESSED_BYTES: usize = 33;

pub(super) static ALGORITHM: Algorithm = Algorithm {
    name: "secp256k1",
    public_key_len: COMPRESSED_BYTES,
    public_key_form: "33 bytes, compressed",
    signature_len: 64,
    json_secret: "tendermint/PrivKeySecp256k1",
    sdk_type: "/cosmos.crypto.secp256k1.PubKey",
    // tmkms uses such keys only as account keys.
    bech32: Bech32::Address,
    wire_field: 2,
    header_number: 2,
    parse: |bytes| {
        let bytes: [u8; COMPRESSED_BYTES] = bytes.try_into().ok()?;
        Some(Arc::new(Compressed { key: VerifyingKey::from_sec1_bytes(&bytes).ok()?, bytes }))
    },
};

/// A key and its bytes.
struct Compressed {
    key: VerifyingKey,
    bytes: [u8; COMPRESSED_BYTES],
}

impl AlgorithmKey for Compressed {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// RIPEMD-160 of the key's SHA-256 (CometBFT `crypto/secp256k1`).
    fn address(&self) -> [u8; 20] {
        Ripemd160::digest(Sha256::digest(self.bytes)).into()
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| signature.normalize_s().is_none() && self.key.verify(message, &signature).is_ok())
    }
}

impl From<VerifyingKey> for PublicKey {
    fn from(key: VerifyingKey) -> Self {
        let point = key.to_encoded_point(true);
        let bytes = point.as_bytes().try_into().expect("a compressed point has 33 bytes");
        Self { key_type: KeyType::Secp256k1, key: Arc::new(Compressed { key, bytes }) }
    }
}
