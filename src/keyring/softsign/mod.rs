//! Keys in files, signing in software.
//!
//! For test networks, and for operators who accept that anyone who can read the file or the memory of this process has
//! the key. The file formats are in [`encoding`].

mod ed25519;
pub mod encoding;
mod secp256k1;

pub(super) use ed25519::public_of_seed;

use super::{KeyError, key_file};
use crate::config::KeyEncoding;
use encoding::EncodingError;
use highwater_core::{
    consensus::{KeyType, PublicKey},
    signer::Signer,
};
use std::path::Path;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// A secret key in the form of its file. It can be written to a file again or imported into a device. Wiped when
/// dropped.
pub struct SecretKey(Box<dyn SecretOf>);

/// A secret of one algorithm, in one of the forms that a file can contain. Each wipes itself.
trait SecretOf: Send {
    fn public_key(&self) -> PublicKey;

    /// The bytes that tmkms keeps in a `base64` file.
    fn raw(&self) -> Zeroizing<Vec<u8>>;

    /// The bytes that a device imports, if this form has them.
    fn for_devices(&self) -> Option<Zeroizing<Vec<u8>>>;

    fn into_signer(self: Box<Self>) -> Box<dyn Signer>;
}

/// Makes and reads secrets of one algorithm. Each algorithm's file has one.
struct Software {
    /// A new key from the operating system's random numbers.
    generate: fn() -> Result<SecretKey, KeyError>,
    /// Reads the decoded content of a `base64` file.
    from_raw: fn(&[u8]) -> Result<SecretKey, EncodingError>,
    /// Reads the value of `priv_key` in a `priv_validator_key.json`.
    from_json: fn(&[u8]) -> Result<SecretKey, EncodingError>,
}

/// The only place that maps a kind of key to the code for its secrets.
fn software(key_type: KeyType) -> &'static Software {
    match key_type {
        KeyType::Ed25519 => &ed25519::SOFTWARE,
        KeyType::Secp256k1 => &secp256k1::SOFTWARE,
    }
}

impl SecretKey {
    fn new(secret: Box<dyn SecretOf>) -> Self {
        Self(secret)
    }

    /// Reads the raw bytes of a key, in any form that a `base64` file can contain.
    pub fn from_raw(key_type: KeyType, bytes: &[u8]) -> Result<Self, EncodingError> {
        (software(key_type).from_raw)(bytes)
    }

    pub fn load(path: &Path, key_type: KeyType, encoding: KeyEncoding) -> Result<Self, KeyError> {
        let content = key_file::read(path)?;
        encoding::decode(&content, key_type, encoding)
            .map_err(|reason| KeyError::Malformed { path: path.into(), reason })
    }

    /// Reads a key in raw bytes.
    pub fn load_raw(path: &Path, key_type: KeyType) -> Result<Self, KeyError> {
        let content = key_file::read(path)?;
        Self::from_raw(key_type, &content).map_err(|reason| KeyError::Malformed { path: path.into(), reason })
    }

    /// Whether both are the same secret, in whatever form and for whatever algorithm.
    pub fn is_secret_of(&self, other: &Self) -> bool {
        let same_bytes = match (self.for_devices(), other.for_devices()) {
            (Some(ours), Some(theirs)) => ours.ct_eq(&theirs).into(),
            _ => false,
        };
        same_bytes || self.public_key() == other.public_key()
    }

    /// Reads the key file at `path` in any encoding that cannot be mistaken for another.
    pub fn load_any(path: &Path, key_type: KeyType) -> Result<Self, KeyError> {
        let content = key_file::read(path)?;
        encoding::decode_any(&content, key_type).map_err(|reason| KeyError::Malformed { path: path.into(), reason })
    }

    /// Writes the key to `path` as one line of base64, as tmkms does. The file must not exist yet.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        key_file::write(path, &self.to_base64())
    }

    /// The content of a tmkms `base64` file, without a newline.
    pub fn to_base64(&self) -> Zeroizing<Vec<u8>> {
        encoding::to_base64(&self.0.raw())
    }

    pub fn public_key(&self) -> PublicKey {
        self.0.public_key()
    }

    /// The bytes that a device imports: a seed or a scalar. `None` for an expanded key, whose seed is lost.
    pub fn for_devices(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.0.for_devices()
    }

    /// The key, ready to sign. Its file's form is wiped.
    pub fn into_signer(self) -> Box<dyn Signer> {
        self.0.into_signer()
    }
}

/// The kind of key that the JSON file at `path` says it has. `None` for a file that says nothing of it.
pub fn key_type_in(path: &Path) -> Result<Option<KeyType>, KeyError> {
    Ok(encoding::key_type_in(&key_file::read(path)?))
}

/// A new key from the operating system's random numbers.
pub fn generate(key_type: KeyType) -> Result<SecretKey, KeyError> {
    (software(key_type).generate)()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::hazmat::ExpandedSecretKey;
    use sha2::{Digest as _, Sha512};

    const SEED: [u8; 32] = [0x42; 32];

    fn key(key_type: KeyType, bytes: &[u8]) -> SecretKey {
        SecretKey::from_raw(key_type, bytes).ok().unwrap()
    }

    /// The expanded key of the seed.
    fn expanded() -> Vec<u8> {
        let mut bytes = Sha512::digest(SEED).to_vec();
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        bytes
    }

    fn hex(value: &serde_json::Value) -> Vec<u8> {
        subtle_encoding::hex::decode(value.as_str().unwrap()).unwrap()
    }

    // Signatures by CometBFT v0.38.25; the secp256k1 ones all have low S.
    #[test]
    fn signatures_are_those_of_cometbft() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/sign_bytes.json")).unwrap();
        let signers = [
            (key(KeyType::Ed25519, &SEED).into_signer(), "SigEd25519"),
            (key(KeyType::Ed25519, &expanded()).into_signer(), "SigEd25519"),
            (key(KeyType::Secp256k1, &SEED).into_signer(), "SigSecp256k1"),
        ];
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 8);
        for vector in vectors {
            let sign_bytes = hex(&vector["SignBytes"]);
            for (signer, field) in &signers {
                let signature = signer.sign(&sign_bytes).unwrap();
                assert_eq!(signature.as_bytes(), hex(&vector[field]), "{} {field}", vector["Name"]);
                assert!(signer.public_key().verifies(&sign_bytes, &signature));
            }
        }
    }

    #[test]
    fn a_secret_and_its_signer_have_the_same_public_key() {
        let ed25519 = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12";
        let keys = [
            (key(KeyType::Ed25519, &SEED), format!("ed25519:{ed25519}")),
            (key(KeyType::Ed25519, &expanded()), format!("ed25519:{ed25519}")),
            (
                key(KeyType::Secp256k1, &SEED),
                "secp256k1:0324653eac434488002cc06bbfb7f10fe18991e35f9fe4302dbea6d2353dc0ab1c".into(),
            ),
        ];
        for (key, public) in keys {
            assert_eq!(key.public_key().to_string(), public);
            assert_eq!(key.into_signer().public_key().to_string(), public);
        }
    }

    #[test]
    fn a_generated_key_is_new_and_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        for key_type in KeyType::ALL.iter().copied() {
            let key = generate(key_type).ok().unwrap();
            assert_eq!(key.public_key().key_type(), key_type);
            assert_ne!(key.public_key(), generate(key_type).ok().unwrap().public_key());

            let path = dir.path().join(key_type.name());
            key.store(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap().len(), 44);
            let loaded = SecretKey::load(&path, key_type, KeyEncoding::Base64).ok().unwrap();
            assert_eq!(loaded.public_key(), key.public_key());
            assert!(matches!(key.store(&path), Err(KeyError::Exists { .. })));
        }
    }

    // Every kind of key that CometBFT v0.40 supports, with signatures that it made.
    #[test]
    fn keys_in_files_of_cometbft_make_its_signatures() {
        let rows: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/key_types.json")).unwrap();
        for key_type in KeyType::ALL {
            let of_type = |row: &&serde_json::Value| row["KeyType"] == key_type.name();
            let rows: Vec<_> = rows.as_array().unwrap().iter().filter(of_type).collect();
            assert!(!rows.is_empty(), "{key_type}: no vector");
            for row in rows {
                let file = row["KeyFile"].as_str().unwrap().as_bytes();
                let key = encoding::decode(file, *key_type, KeyEncoding::Json).ok().unwrap();
                assert_eq!(key.public_key().as_bytes(), hex(&row["PubBytes"]));
                let signer = key.into_signer();
                for signed in row["Sigs"].as_array().unwrap() {
                    let signature = signer.sign(&hex(&signed["Message"])).unwrap();
                    assert_eq!(signature.as_bytes(), hex(&signed["Signature"]), "{key_type} {}", signed["Name"]);
                }
            }
        }
    }

    #[test]
    fn secrets_wipe_themselves() {
        fn wipes<T: zeroize::ZeroizeOnDrop>() {}
        wipes::<Zeroizing<[u8; 32]>>();
        wipes::<ExpandedSecretKey>();
        wipes::<ed25519_dalek::SigningKey>();
        wipes::<k256::ecdsa::SigningKey>();
    }
}
