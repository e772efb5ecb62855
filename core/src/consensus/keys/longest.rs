//! Not a real algorithm: its keys and signatures are as long as those of ML-DSA-65, the longest that CometBFT supports.

use super::{Algorithm, AlgorithmKey, Bech32, KeyType, PublicKey, Signature};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

const KEY_BYTES: usize = 1952;
const SIGNATURE_BYTES: usize = 3309;

pub(super) static ALGORITHM: Algorithm = Algorithm {
    name: "longest_in_tests",
    public_key_len: KEY_BYTES,
    public_key_form: "1952 bytes",
    signature_len: SIGNATURE_BYTES,
    json_secret: "test/PrivKeyLongest",
    sdk_type: "/test.PubKey",
    bech32: Bech32::Address,
    wire_field: 15,
    header_number: 0xf0,
    parse: |bytes| Some(Arc::new(Longest(bytes.try_into().ok()?))),
};

/// A key that consists of this byte only.
pub(crate) fn key(fill: u8) -> PublicKey {
    PublicKey::from_bytes(KeyType::Longest, &[fill; KEY_BYTES]).unwrap()
}

/// This key's signature over `message`. Anybody can make it.
pub(crate) fn sign(key: &PublicKey, message: &[u8]) -> Signature {
    let digest = Sha256::new().chain_update(key.as_bytes()).chain_update(message).finalize();
    let bytes: Vec<u8> = digest.into_iter().cycle().take(SIGNATURE_BYTES).collect();
    Signature::new(&bytes)
}

struct Longest([u8; KEY_BYTES]);

impl AlgorithmKey for Longest {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn address(&self) -> [u8; 20] {
        [self.0[0]; 20]
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        sign(&key(self.0[0]), message).as_bytes() == signature
    }
}
