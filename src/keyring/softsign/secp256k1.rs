//! secp256k1 keys in files: the scalar.

use super::{SecretKey, SecretOf, Software, encoding::EncodingError};
use crate::{
    keyring::{KeyError, key_file::random},
    process::sandbox::memory,
};
use highwater_core::{
    consensus::{KeyType, PublicKey, Signature},
    signer::{SignError, Signer},
};
use k256::ecdsa::{SigningKey, signature::Signer as _};
use zeroize::Zeroizing;

pub(super) static SOFTWARE: Software = Software { generate, from_raw: scalar, from_json: scalar };

/// Retries, because one in 2^128 numbers is not a scalar.
fn generate() -> Result<SecretKey, KeyError> {
    loop {
        if let Ok(key) = SigningKey::from_slice(&random::<32>()?[..]) {
            return Ok(SecretKey::new(Box::new(key)));
        }
    }
}

/// A key from its scalar, big-endian.
fn scalar(bytes: &[u8]) -> Result<SecretKey, EncodingError> {
    if bytes.len() != 32 {
        return Err(EncodingError::Length { bytes: bytes.len(), expected: &[32] });
    }
    let key = SigningKey::from_slice(bytes)
        .map_err(|_| EncodingError::NoKey { bytes: bytes.len(), key_type: KeyType::Secp256k1 })?;
    Ok(SecretKey::new(Box::new(key)))
}

/// A scalar from 1 to the order of the group minus one. Wiped when dropped.
impl SecretOf for SigningKey {
    fn public_key(&self) -> PublicKey {
        PublicKey::from(*self.verifying_key())
    }

    fn raw(&self) -> Zeroizing<Vec<u8>> {
        let scalar = Zeroizing::new(<[u8; 32]>::from(self.to_bytes()));
        Zeroizing::new(scalar.to_vec())
    }

    fn for_devices(&self) -> Option<Zeroizing<Vec<u8>>> {
        Some(self.raw())
    }

    fn into_signer(self: Box<Self>) -> Box<dyn Signer> {
        Box::new(Secp256k1Signer(self))
    }
}

/// A key that signs. Wiped when dropped.
struct Secp256k1Signer(Box<SigningKey>);

impl Signer for Secp256k1Signer {
    fn public_key(&self) -> PublicKey {
        PublicKey::from(*self.0.verifying_key())
    }

    /// ECDSA over SHA-256, deterministic (RFC 6979), with low S (k256 ensures it), the only form CometBFT accepts.
    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        let signature: k256::ecdsa::Signature =
            self.0.try_sign(message).map_err(|error| SignError::Backend(error.to_string()))?;
        Ok(Signature::new(&signature.to_bytes()))
    }

    fn lock_secrets(&self) -> bool {
        memory::lock(self.0.as_ref())
    }
}
