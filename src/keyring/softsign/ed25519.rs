//! Ed25519 keys in files: the seed, or an expanded key whose seed is lost.

use super::{
    SecretKey, SecretOf, Software,
    encoding::{EncodingError, secret},
};
use crate::{
    keyring::{KeyError, Secret, key_file::random},
    process::sandbox::memory,
};
use ed25519_dalek::{
    SigningKey, VerifyingKey,
    hazmat::{ExpandedSecretKey, raw_sign},
};
use highwater_core::{
    consensus::{PublicKey, Signature},
    signer::{SignError, Signer},
};
use sha2::Sha512;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub(super) static SOFTWARE: Software = Software { generate, from_raw, from_json: seed_and_public };

/// The public key of a seed.
pub(in crate::keyring) fn public_of_seed(seed: &[u8; 32]) -> VerifyingKey {
    SigningKey::from_bytes(seed).verifying_key()
}

fn generate() -> Result<SecretKey, KeyError> {
    random().map(|seed| SecretKey::new(Box::new(Seed(seed))))
}

/// A key from raw bytes. Their number, and for 64 bytes their second half, show which form it is.
fn from_raw(bytes: &[u8]) -> Result<SecretKey, EncodingError> {
    match bytes.len() {
        32 => secret(bytes).map(|seed| SecretKey::new(Box::new(Seed(seed)))),
        // Go's form. tmkms takes it for scalar and prefix, and then signs as a validator that does not exist.
        64 => match seed_and_public(bytes) {
            Ok(seed) => Ok(seed),
            Err(_) if !is_clamped(bytes) => Err(EncodingError::NoHalf),
            Err(_) => secret(bytes).map(|expanded| SecretKey::new(Box::new(Expanded(expanded)))),
        },
        96 => yubihsm_export(bytes),
        bytes => Err(EncodingError::Length { bytes, expected: &[32, 64, 96] }),
    }
}

/// Whether the bytes begin with a scalar as RFC 8032 makes it: three bits at one end and two at the other are fixed. Of other
/// bytes, as of a seed with the public key of another, one in 32 looks so.
fn is_clamped(bytes: &[u8]) -> bool {
    bytes[0] & 0b0000_0111 == 0 && bytes[31] & 0b1100_0000 == 0b0100_0000
}

/// Go's private key: seed and public key.
fn seed_and_public(bytes: &[u8]) -> Result<SecretKey, EncodingError> {
    if bytes.len() != 64 {
        return Err(EncodingError::Length { bytes: bytes.len(), expected: &[64] });
    }
    let seed = secret(&bytes[..32])?;
    let belongs = public_of_seed(&seed).as_bytes()[..].ct_eq(&bytes[32..]);
    if bool::from(belongs) { Ok(SecretKey::new(Box::new(Seed(seed)))) } else { Err(EncodingError::PublicHalf) }
}

/// The form that a YubiHSM exports: the scalar with its most significant byte first, the nonce prefix, the public key.
fn yubihsm_export(bytes: &[u8]) -> Result<SecretKey, EncodingError> {
    let mut expanded: Secret<64> = secret(&bytes[..64])?;
    expanded[..32].reverse();
    let key = Expanded(expanded);
    let belongs = key.public_key().as_bytes().ct_eq(&bytes[64..]);
    if bool::from(belongs) { Ok(SecretKey::new(Box::new(key))) } else { Err(EncodingError::PublicHalf) }
}

/// A seed (the private key of RFC 8032).
struct Seed(Secret<32>);

impl SecretOf for Seed {
    fn public_key(&self) -> PublicKey {
        public_of_seed(&self.0).into()
    }

    fn raw(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.to_vec())
    }

    fn for_devices(&self) -> Option<Zeroizing<Vec<u8>>> {
        Some(self.raw())
    }

    fn into_signer(self: Box<Self>) -> Box<dyn Signer> {
        Box::new(Ed25519Signer::new(Box::new((&**self.0).into())))
    }
}

/// A key whose seed is lost: the secret scalar (little-endian) and the nonce prefix, the two halves of the seed's
/// SHA-512.
struct Expanded(Secret<64>);

impl SecretOf for Expanded {
    fn public_key(&self) -> PublicKey {
        VerifyingKey::from(&ExpandedSecretKey::from_bytes(&self.0)).into()
    }

    fn raw(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.to_vec())
    }

    fn for_devices(&self) -> Option<Zeroizing<Vec<u8>>> {
        None
    }

    fn into_signer(self: Box<Self>) -> Box<dyn Signer> {
        Box::new(Ed25519Signer::new(Box::new(ExpandedSecretKey::from_bytes(&self.0))))
    }
}

/// A key that signs. Wiped when dropped.
struct Ed25519Signer {
    /// Wipes itself.
    secret: Box<ExpandedSecretKey>,
    /// Always computed from `secret`: signing with any other would reveal the secret.
    public: VerifyingKey,
}

impl Ed25519Signer {
    fn new(secret: Box<ExpandedSecretKey>) -> Self {
        let public = VerifyingKey::from(secret.as_ref());
        Self { secret, public }
    }
}

impl Signer for Ed25519Signer {
    fn public_key(&self) -> PublicKey {
        self.public.into()
    }

    /// Deterministic (RFC 8032); never fails.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        Ok(Signature::new(&raw_sign::<Sha512>(&self.secret, message, &self.public).to_bytes()))
    }

    fn lock_secrets(&self) -> bool {
        memory::lock(self.secret.as_ref())
    }
}
