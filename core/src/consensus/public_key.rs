//! Public consensus keys: what verifies a signature and names a validator.

use crate::hex::{Hex, hex_of};
use ripemd::Ripemd160;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The kinds of consensus key that Highwater signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// Ed25519 (RFC 8032), the key of nearly every chain.
    Ed25519,
    /// ECDSA over secp256k1 and SHA-256 with low S.
    Secp256k1,
}

impl KeyType {
    /// The name that CometBFT v1 and later use on the wire (`pub_key_type`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Secp256k1 => "secp256k1",
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A 64-byte signature: Ed25519 `R‖S`, or secp256k1 `R‖S` with low S.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// A public consensus key, checked to be a point on its curve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PublicKey {
    /// An Ed25519 key.
    Ed25519(ed25519_dalek::VerifyingKey),
    /// A secp256k1 key.
    Secp256k1(k256::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// Reads a key from its raw bytes: 32 for Ed25519, 33 (compressed SEC1) for secp256k1.
    pub fn from_bytes(key_type: KeyType, bytes: &[u8]) -> Result<Self, PublicKeyError> {
        match key_type {
            KeyType::Ed25519 => <&[u8; 32]>::try_from(bytes)
                .ok()
                .and_then(|bytes| ed25519_dalek::VerifyingKey::from_bytes(bytes).ok())
                .map(Self::Ed25519),
            KeyType::Secp256k1 => (bytes.len() == 33)
                .then(|| k256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok())
                .flatten()
                .map(Self::Secp256k1),
        }
        .ok_or(PublicKeyError { key_type })
    }

    /// Which kind of key this is.
    pub fn key_type(&self) -> KeyType {
        match self {
            Self::Ed25519(_) => KeyType::Ed25519,
            Self::Secp256k1(_) => KeyType::Secp256k1,
        }
    }

    /// The raw bytes, as they go on the wire: 32 for Ed25519, 33 (compressed) for secp256k1.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.to_bytes().to_vec(),
            Self::Secp256k1(key) => key.to_encoded_point(true).as_bytes().to_vec(),
        }
    }

    /// The validator's 20-byte address (CometBFT `crypto/ed25519`, `crypto/secp256k1`): the start of SHA-256 of
    /// an Ed25519 key, RIPEMD-160 of SHA-256 of a secp256k1 key.
    pub fn address(&self) -> [u8; 20] {
        let hash = Sha256::digest(self.to_bytes());
        match self {
            Self::Ed25519(_) => {
                let mut address = [0; 20];
                address.copy_from_slice(&hash[..20]);
                address
            }
            Self::Secp256k1(_) => Ripemd160::digest(hash).into(),
        }
    }

    /// The address in upper-case hex, as CometBFT shows it.
    pub fn address_hex(&self) -> String {
        hex_of(&self.address()).to_uppercase()
    }

    /// Whether `signature` is this key's over `message`. Strict for Ed25519; secp256k1 must have low S.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        match self {
            Self::Ed25519(key) => {
                let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
                key.verify_strict(message, &signature).is_ok()
            }
            Self::Secp256k1(key) => {
                use k256::ecdsa::signature::Verifier as _;
                k256::ecdsa::Signature::from_slice(&signature.0)
                    .is_ok_and(|signature| signature.normalize_s().is_none() && key.verify(message, &signature).is_ok())
            }
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `ed25519:2152…` in lower-case hex, for log lines and error texts.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key_type(), Hex(&self.to_bytes()))
    }
}

/// Bytes that are no public key of the kind they were read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKeyError {
    key_type: KeyType,
}

impl fmt::Display for PublicKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "these bytes are not a valid {} public key", self.key_type)
    }
}

impl std::error::Error for PublicKeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        subtle_encoding::hex::decode(text).unwrap()
    }

    // The keys and addresses are those of CometBFT v0.38.25 for the seed 32×0x42 (tests/vectors/sign_bytes.json).
    #[test]
    fn addresses_are_those_of_cometbft() {
        let ed25519 = hex("2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12");
        let key = PublicKey::from_bytes(KeyType::Ed25519, &ed25519).unwrap();
        assert_eq!(key.address().to_vec(), hex("3097e2dee2cb4a34b53840cdb705aed71067c36f"));

        let secp256k1 = hex("0324653eac434488002cc06bbfb7f10fe18991e35f9fe4302dbea6d2353dc0ab1c");
        let key = PublicKey::from_bytes(KeyType::Secp256k1, &secp256k1).unwrap();
        assert_eq!(key.address().to_vec(), hex("14db4138d56a2ecfb10881a9be394d9f321985b2"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(PublicKey::from_bytes(KeyType::Ed25519, &[0; 31]).is_err());
        assert!(PublicKey::from_bytes(KeyType::Secp256k1, &[0; 33]).is_err());
        let uncompressed_length = [4; 65];
        assert!(PublicKey::from_bytes(KeyType::Secp256k1, &uncompressed_length).is_err());
    }
}
