//! Keys in files, signing in software.
//!
//! For test networks, and for operators who accept that whoever reads the file or this process' memory has the
//! key. The file formats are in [`encoding`].

pub mod encoding;

use super::{
    KeyError, Secret,
    key_file::{self, random},
};
use crate::{
    config::{KeyEncoding, KeyRole},
    process::sandbox::memory,
};
use ed25519_dalek::{
    VerifyingKey,
    hazmat::{ExpandedSecretKey, raw_sign},
};
use highwater_core::{
    consensus::{PublicKey, Signature},
    signer::{SignError, Signer},
};
use k256::ecdsa::signature::Signer as _;
use sha2::Sha512;
use std::path::Path;
use zeroize::Zeroizing;

/// A secret key as its file held it: what can still be written again or imported into a device.
pub enum SecretKey {
    /// An Ed25519 key whose seed is lost: the secret scalar (little-endian) and the nonce prefix, which are the two
    /// halves of the seed's SHA-512. Devices that import only seeds cannot take it.
    Ed25519Expanded(Secret<64>),
    /// An Ed25519 seed (the private key of RFC 8032).
    Ed25519Seed(Secret<32>),
    /// A secp256k1 scalar, from 1 to the order of the group less one. Wiped when dropped.
    Secp256k1(Box<k256::ecdsa::SigningKey>),
}

impl SecretKey {
    /// Reads the key file at `path`.
    pub fn load(path: &Path, role: KeyRole, encoding: KeyEncoding) -> Result<Self, KeyError> {
        let content = key_file::read(path)?;
        encoding::decode(&content, role, encoding).map_err(|reason| KeyError::Malformed { path: path.into(), reason })
    }

    /// Reads the key file at `path` in whichever encoding it is.
    pub fn load_any(path: &Path, role: KeyRole) -> Result<Self, KeyError> {
        let content = key_file::read(path)?;
        let encoding = encoding::guess(&content);
        encoding::decode(&content, role, encoding).map_err(|reason| KeyError::Malformed { path: path.into(), reason })
    }

    /// Writes the key to `path` as one line of base64, as tmkms does. Nothing may be there yet.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        key_file::write(path, &self.to_base64())
    }

    /// The key as tmkms keeps it in a `base64` file: 32 bytes, or 64 without a seed; no newline.
    pub fn to_base64(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Ed25519Expanded(bytes) => encoding::to_base64(&bytes[..]),
            Self::Ed25519Seed(seed) => encoding::to_base64(&seed[..]),
            Self::Secp256k1(key) => encoding::to_base64(&Zeroizing::new(<[u8; 32]>::from(key.to_bytes()))[..]),
        }
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::Ed25519Expanded(bytes) => PublicKey::Ed25519((&ExpandedSecretKey::from_bytes(bytes)).into()),
            Self::Ed25519Seed(seed) => PublicKey::Ed25519(public_of_seed(seed)),
            Self::Secp256k1(key) => PublicKey::Secp256k1(*key.verifying_key()),
        }
    }

    /// The key made ready to sign; the form it was read in is wiped.
    pub fn into_signer(self) -> Box<dyn Signer> {
        match self {
            Self::Ed25519Expanded(bytes) => Box::new(Ed25519Signer::from_expanded(&bytes)),
            Self::Ed25519Seed(seed) => Box::new(Ed25519Signer::from_seed(&seed)),
            Self::Secp256k1(key) => Box::new(Secp256k1(key)),
        }
    }
}

/// A new key from the operating system's random numbers: Ed25519 for consensus, secp256k1 for account.
pub fn generate(role: KeyRole) -> Result<SecretKey, KeyError> {
    match role {
        KeyRole::Account => loop {
            // One in 2^128 numbers is no scalar.
            if let Ok(key) = k256::ecdsa::SigningKey::from_slice(&random::<32>()?[..]) {
                return Ok(SecretKey::Secp256k1(Box::new(key)));
            }
        },
        KeyRole::Consensus => random().map(SecretKey::Ed25519Seed),
    }
}

/// The public half of an Ed25519 seed.
pub(super) fn public_of_seed(seed: &[u8; 32]) -> VerifyingKey {
    ed25519_dalek::SigningKey::from_bytes(seed).verifying_key()
}

/// An Ed25519 key. Wiped when dropped.
struct Ed25519Signer {
    /// Wipes itself.
    secret: Box<ExpandedSecretKey>,
    /// Always computed from `secret`: signing with any other would give the secret away.
    public: VerifyingKey,
}

impl Ed25519Signer {
    fn from_seed(seed: &[u8; 32]) -> Self {
        Self::new(Box::new(seed.into()))
    }

    fn from_expanded(bytes: &[u8; 64]) -> Self {
        Self::new(Box::new(ExpandedSecretKey::from_bytes(bytes)))
    }

    fn new(secret: Box<ExpandedSecretKey>) -> Self {
        let public = VerifyingKey::from(secret.as_ref());
        Self { secret, public }
    }
}

impl Signer for Ed25519Signer {
    fn public_key(&self) -> PublicKey {
        PublicKey::Ed25519(self.public)
    }

    /// Deterministic (RFC 8032); never fails.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        Ok(Signature(raw_sign::<Sha512>(&self.secret, message, &self.public).to_bytes()))
    }

    fn lock_secrets(&self) -> bool {
        memory::lock(self.secret.as_ref())
    }
}

/// A secp256k1 key. Wiped when dropped.
struct Secp256k1(Box<k256::ecdsa::SigningKey>);

impl Signer for Secp256k1 {
    fn public_key(&self) -> PublicKey {
        PublicKey::Secp256k1(*self.0.verifying_key())
    }

    /// ECDSA over SHA-256, deterministic (RFC 6979), with low S (k256 sees to it), the only form CometBFT accepts.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        let signature: k256::ecdsa::Signature =
            self.0.try_sign(message).map_err(|error| SignError::Backend(error.to_string()))?;
        Ok(Signature(signature.to_bytes().into()))
    }

    fn lock_secrets(&self) -> bool {
        memory::lock(self.0.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::consensus::KeyType;
    use sha2::Digest as _;

    const SEED: [u8; 32] = [0x42; 32];

    fn secret<const N: usize>(bytes: [u8; N]) -> Secret<N> {
        Box::new(Zeroizing::new(bytes))
    }

    fn secp256k1() -> SecretKey {
        SecretKey::Secp256k1(Box::new(k256::ecdsa::SigningKey::from_slice(&SEED).unwrap()))
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
            (SecretKey::Ed25519Seed(secret(SEED)).into_signer(), "SigEd25519"),
            (SecretKey::Ed25519Expanded(secret(Sha512::digest(SEED).into())).into_signer(), "SigEd25519"),
            (secp256k1().into_signer(), "SigSecp256k1"),
        ];
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 8);
        for vector in vectors {
            let sign_bytes = hex(&vector["SignBytes"]);
            for (signer, field) in &signers {
                let signature = signer.sign(&sign_bytes).unwrap();
                assert_eq!(signature.0.to_vec(), hex(&vector[field]), "{} {field}", vector["Name"]);
                assert!(signer.public_key().verifies(&sign_bytes, &signature));
            }
        }
    }

    #[test]
    fn a_secret_and_its_signer_have_the_same_public_key() {
        let ed25519 = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12";
        let expanded: [u8; 64] = Sha512::digest(SEED).into();
        let keys = [
            (SecretKey::Ed25519Seed(secret(SEED)), format!("ed25519:{ed25519}")),
            (SecretKey::Ed25519Expanded(secret(expanded)), format!("ed25519:{ed25519}")),
            (secp256k1(), "secp256k1:0324653eac434488002cc06bbfb7f10fe18991e35f9fe4302dbea6d2353dc0ab1c".into()),
        ];
        for (key, public) in keys {
            assert_eq!(key.public_key().to_string(), public);
            assert_eq!(key.into_signer().public_key().to_string(), public);
        }
    }

    #[test]
    fn a_generated_key_is_new_and_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        for (role, key_type) in [(KeyRole::Consensus, KeyType::Ed25519), (KeyRole::Account, KeyType::Secp256k1)] {
            let key = generate(role).ok().unwrap();
            assert_eq!(key.public_key().key_type(), key_type);
            assert_ne!(key.public_key(), generate(role).ok().unwrap().public_key());

            let path = dir.path().join(key_type.name());
            key.store(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap().len(), 44);
            let loaded = SecretKey::load(&path, role, KeyEncoding::Base64).ok().unwrap();
            assert_eq!(loaded.public_key(), key.public_key());
            assert!(matches!(key.store(&path), Err(KeyError::Exists { .. })));
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
