//! secp256k1 on a token: `CKM_ECDSA` over the message's SHA-256.

use super::{TokenAlgorithm, TokenCalls};
use crate::{config::pkcs11::profile::Profile, keyring::pkcs11::error::TokenError};
use cryptoki::{
    mechanism::Mechanism,
    object::{KeyType as CkKeyType, ObjectHandle},
};
use highwater_core::consensus::{KeyType, PublicKey, Signature};
use k256::ecdsa::VerifyingKey;
use sha2::{Digest as _, Sha256};

/// `CKA_EC_PARAMS`: the object identifier 1.3.132.0.10 in DER.
const PARAMS: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// The algorithm in a SubjectPublicKeyInfo (RFC 5480): id-ecPublicKey, secp256k1.
const INFO_ALGORITHM: &[u8] =
    &[0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// Length of a compressed point.
const COMPRESSED: u8 = 33;
/// Length of an uncompressed point.
const UNCOMPRESSED: u8 = 65;

pub(super) struct TokenSecp256k1;

impl TokenAlgorithm for TokenSecp256k1 {
    fn key_type(&self) -> KeyType {
        KeyType::Secp256k1
    }

    fn read_point(&self, point: &[u8]) -> Option<PublicKey> {
        if point.len() == usize::from(UNCOMPRESSED) {
            VerifyingKey::from_sec1_bytes(point).ok().map(PublicKey::from)
        } else {
            PublicKey::from_bytes(KeyType::Secp256k1, point).ok()
        }
    }

    fn read_info(&self, info: &[u8]) -> Option<PublicKey> {
        [COMPRESSED, UNCOMPRESSED].into_iter().find_map(|length| {
            // SEQUENCE of the algorithm and a BIT STRING without unused bits.
            let bits = length + 1;
            let whole = u8::try_from(INFO_ALGORITHM.len()).ok()? + 2 + bits;
            let prefix = [&[0x30, whole], INFO_ALGORITHM, &[0x03, bits, 0x00]].concat();
            self.read_point(info.strip_prefix(&prefix[..])?)
        })
    }

    /// In uncompressed form.
    fn point_of(&self, key: &PublicKey) -> Vec<u8> {
        let key = VerifyingKey::from_sec1_bytes(key.as_bytes()).expect("a public key is a point");
        key.to_encoded_point(false).as_bytes().to_vec()
    }

    fn curve_encodings(&self, _profile: &Profile) -> Vec<Vec<u8>> {
        vec![PARAMS.to_vec()]
    }

    fn ck_key_type(&self, _token: &dyn TokenCalls) -> Result<CkKeyType, TokenError> {
        Ok(CkKeyType::EC)
    }

    fn generating(&self, _token: &dyn TokenCalls) -> Result<Mechanism<'static>, TokenError> {
        Ok(Mechanism::EccKeyPairGen)
    }

    fn sign(&self, token: &dyn TokenCalls, key: ObjectHandle, message: &[u8]) -> Result<Signature, TokenError> {
        let signature = token.call_sign(&Mechanism::Ecdsa, key, &Sha256::digest(message))?;
        let any_s = k256::ecdsa::Signature::from_slice(&signature)
            .map_err(|_| TokenError::Signature { bytes: signature.len(), key_type: KeyType::Secp256k1 })?;
        // Devices return high S half of the time; CometBFT accepts only low S.
        let low_s = any_s.normalize_s().unwrap_or(any_s);
        Ok(Signature::new(&low_s.to_bytes()))
    }
}
