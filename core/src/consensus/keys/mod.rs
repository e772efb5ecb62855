//! Consensus keys: they verify signatures and identify a validator.
//!
//! Each algorithm has its own file here, with its encoding, verification, addresses and names. Nothing else in this
//! crate names an algorithm. To add one, write its file and add it to [`KeyType`], [`KeyType::ALL`] and
//! [`KeyType::algorithm`]; a test checks the three against each other.

mod ed25519;
#[cfg(test)]
pub(crate) mod longest;
mod secp256k1;
mod signature;

pub use signature::Signature;

use crate::hex::Hex;
use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

/// The kinds of consensus key that Highwater signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// Ed25519 (RFC 8032), the key of nearly every chain.
    Ed25519,
    /// ECDSA over secp256k1 and SHA-256 with low S.
    Secp256k1,
    /// Larger than any real one. Lets the tests of this crate prove that a large one fits.
    #[cfg(test)]
    Longest,
}

impl KeyType {
    /// Every kind of key.
    pub const ALL: &[Self] = &[
        Self::Ed25519,
        Self::Secp256k1,
        #[cfg(test)]
        Self::Longest,
    ];

    /// The details of this kind of key. The only place that maps a kind to its code.
    pub fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Ed25519 => &ed25519::ALGORITHM,
            Self::Secp256k1 => &secp256k1::ALGORITHM,
            #[cfg(test)]
            Self::Longest => &longest::ALGORITHM,
        }
    }

    /// The first kind whose algorithm satisfies `is`.
    pub fn find(is: impl Fn(&Algorithm) -> bool) -> Option<Self> {
        Self::ALL.iter().copied().find(|key_type| is(key_type.algorithm()))
    }

    /// The name that CometBFT v1 and later use on the wire (`pub_key_type`).
    pub fn name(self) -> &'static str {
        self.algorithm().name
    }

    /// How many bytes a signature has.
    pub fn signature_len(self) -> usize {
        self.algorithm().signature_len
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the rest of Highwater needs to know about an algorithm. Each file of this folder has one.
pub struct Algorithm {
    /// The name that CometBFT v1 and later use on the wire (`pub_key_type`).
    pub name: &'static str,
    /// How many bytes a public key has.
    pub public_key_len: usize,
    /// The form of a public key for an operator, as in "33 bytes, compressed".
    pub public_key_form: &'static str,
    /// How many bytes a signature has.
    pub signature_len: usize,
    /// The type of its secret in a `priv_validator_key.json`.
    pub json_secret: &'static str,
    /// The type of its public key in the JSON of the Cosmos SDK.
    pub sdk_type: &'static str,
    /// How such a key is shown in bech32.
    pub bech32: Bech32,
    /// Field of the key in `tendermint.crypto.PublicKey` (`proto/tendermint/crypto/keys.proto`).
    pub(crate) wire_field: u32,
    /// Its number in the header of a state file. State files keep it forever, so it is never reused.
    pub(crate) header_number: u8,
    parse: fn(&[u8]) -> Option<Arc<dyn AlgorithmKey>>,
}

/// The form of a key in bech32, as tmkms shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bech32 {
    /// Its address, with the chain's prefix for accounts.
    Address,
    /// The key after its Amino mark (four bytes of type hash and the length), with the chain's prefix for consensus
    /// keys.
    Amino([u8; 5]),
}

/// A valid public key of one algorithm.
trait AlgorithmKey: Send + Sync + UnwindSafe + RefUnwindSafe {
    /// The raw bytes, as on the wire.
    fn bytes(&self) -> &[u8];

    /// The validator's address.
    fn address(&self) -> [u8; 20];

    /// Whether `signature`, of any length, is this key's signature over `message`.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool;
}

/// A valid public consensus key. A clone shares it and allocates nothing.
#[derive(Clone)]
pub struct PublicKey {
    key_type: KeyType,
    key: Arc<dyn AlgorithmKey>,
}

impl PublicKey {
    /// Reads a key from its raw bytes, as on the wire.
    pub fn from_bytes(key_type: KeyType, bytes: &[u8]) -> Result<Self, PublicKeyError> {
        let key = (key_type.algorithm().parse)(bytes).ok_or(PublicKeyError { key_type })?;
        Ok(Self { key_type, key })
    }

    /// The kind of this key.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The raw bytes, as on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        self.key.bytes()
    }

    /// The validator's 20-byte address.
    pub fn address(&self) -> [u8; 20] {
        self.key.address()
    }

    /// The address in upper-case hex, as CometBFT shows it.
    pub fn address_hex(&self) -> String {
        self.address().iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// Whether `signature` is this key's signature over `message`. At least as strict as CometBFT.
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        self.key.verifies(message, signature.as_bytes())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.key_type == other.key_type && self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `ed25519:2152…` in lower-case hex, for log lines and error texts.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key_type(), Hex(self.as_bytes()))
    }
}

/// The bytes are not a valid public key of this kind.
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
    use crate::privval::response;
    use std::collections::BTreeSet;
    use subtle_encoding::hex;

    /// Vectors from CometBFT v0.40 for every kind of key that it supports.
    fn vectors() -> Vec<serde_json::Value> {
        serde_json::from_str(include_str!("../../../../tests/vectors/key_types.json")).unwrap()
    }

    fn bytes(row: &serde_json::Value, field: &str) -> Vec<u8> {
        hex::decode(row[field].as_str().unwrap().to_lowercase()).unwrap()
    }

    fn real() -> impl Iterator<Item = KeyType> {
        KeyType::ALL.iter().copied().filter(|key_type| *key_type != KeyType::Longest)
    }

    #[test]
    fn every_kind_is_listed_once_and_shares_no_name_or_number() {
        let algorithms: Vec<_> = KeyType::ALL.iter().map(|key_type| key_type.algorithm()).collect();
        let count = |fact: fn(&Algorithm) -> String| algorithms.iter().map(|a| fact(a)).collect::<BTreeSet<_>>().len();
        assert_eq!(count(|a| a.name.into()), algorithms.len());
        assert_eq!(count(|a| a.json_secret.into()), algorithms.len());
        assert_eq!(count(|a| a.sdk_type.into()), algorithms.len());
        assert_eq!(count(|a| a.wire_field.to_string()), algorithms.len());
        assert_eq!(count(|a| a.header_number.to_string()), algorithms.len());
        for key_type in KeyType::ALL {
            assert_ne!(key_type.algorithm().header_number, 0, "{key_type}: a blank header has 0");
            assert_eq!(KeyType::find(|algorithm| algorithm.name == key_type.name()), Some(*key_type));
        }
        let as_described = |key_type: KeyType| {
            let Algorithm { public_key_form, public_key_len, .. } = key_type.algorithm();
            public_key_form.starts_with(&format!("{public_key_len} bytes"))
        };
        assert!(KeyType::ALL.iter().all(|key_type| as_described(*key_type)));
    }

    #[test]
    fn keys_addresses_and_signatures_are_those_of_cometbft() {
        let rows = vectors();
        for key_type in real() {
            let of_type: Vec<_> = rows.iter().filter(|row| row["KeyType"] == key_type.name()).collect();
            assert!(!of_type.is_empty(), "{key_type}: no vector");
            for row in of_type {
                let public = bytes(row, "PubBytes");
                let key = PublicKey::from_bytes(key_type, &public).unwrap();
                assert_eq!(key.as_bytes(), public);
                assert_eq!(public.len(), key_type.algorithm().public_key_len, "{key_type}");
                assert_eq!(key.address_hex(), row["Address"].as_str().unwrap(), "{key_type}");

                // CometBFT v0.40 writes field 1; the union adds what v1 and later read.
                let mut frame = Vec::new();
                response::pub_key(&key).encode_frame(&mut frame);
                let on_the_wire = bytes(row, "PubKeyProto");
                assert!(frame.windows(on_the_wire.len()).any(|window| window == on_the_wire), "{key_type}");
                let file: serde_json::Value = serde_json::from_str(row["KeyFile"].as_str().unwrap()).unwrap();
                assert_eq!(file["priv_key"]["type"], key_type.algorithm().json_secret);

                for signed in row["Sigs"].as_array().unwrap() {
                    let (message, signature) = (bytes(signed, "Message"), bytes(signed, "Signature"));
                    assert_eq!(signature.len(), key_type.signature_len(), "{key_type}");
                    let verifies = |message: &[u8], signature: &[u8]| key.verifies(message, &Signature::new(signature));
                    assert!(verifies(&message, &signature), "{key_type} {}", signed["Name"]);
                    assert!(!verifies(&[&message[..], &[0]].concat(), &signature), "{key_type}");
                    for wrong in [&[][..], &signature[1..], &[&signature[..], &[0]].concat()] {
                        assert!(!verifies(&message, wrong), "{key_type}: {} bytes", wrong.len());
                    }
                }
            }
        }
    }

    #[test]
    fn wrong_bytes_are_refused() {
        for key_type in KeyType::ALL {
            let length = key_type.algorithm().public_key_len;
            for wrong in [0, length - 1, length + 1] {
                let refused = PublicKey::from_bytes(*key_type, &vec![2; wrong]);
                assert_eq!(refused, Err(PublicKeyError { key_type: *key_type }), "{wrong} bytes");
            }
        }
        assert!(PublicKey::from_bytes(KeyType::Secp256k1, &[0; 33]).is_err());
        let uncompressed_length = [4; 65];
        assert!(PublicKey::from_bytes(KeyType::Secp256k1, &uncompressed_length).is_err());
    }

    #[test]
    fn two_keys_are_equal_if_kind_and_bytes_are() {
        let point = |key_type| {
            let row = vectors().into_iter().find(|row| row["KeyType"] == KeyType::name(key_type)).unwrap();
            PublicKey::from_bytes(key_type, &bytes(&row, "PubBytes")).unwrap()
        };
        let (one, other) = (point(KeyType::Ed25519), point(KeyType::Secp256k1));
        assert_eq!(one, point(KeyType::Ed25519));
        assert_eq!(one, one.clone());
        assert_ne!(one, other);
        assert_ne!(longest::key(1), longest::key(2));
    }
}
