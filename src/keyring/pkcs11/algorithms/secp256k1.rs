//! secp256k1 on a token: `CKM_ECDSA` over the message's SHA-256.

use super::{SignatureRoom, TokenAlgorithm, TokenCalls, der};
use crate::{
    config::pkcs11::profile::Profile,
    keyring::pkcs11::{error::TokenError, token_key::TokenKey},
};
use cryptoki::{
    mechanism::{Mechanism, MechanismType},
    object::KeyType as CkKeyType,
};
use highwater_core::consensus::{KeyType, PublicKey, Signature};
use k256::ecdsa::VerifyingKey;
use sha2::{Digest as _, Sha256};

/// `CKA_EC_PARAMS`: the object identifier 1.3.132.0.10 in DER.
const PARAMS: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// Length of an uncompressed point.
const UNCOMPRESSED: usize = 65;
/// The first byte of an uncompressed point.
const UNCOMPRESSED_PREFIX: u8 = 0x04;

pub(super) struct TokenSecp256k1;

impl TokenAlgorithm for TokenSecp256k1 {
    fn key_type(&self) -> KeyType {
        KeyType::Secp256k1
    }

    /// Also without its first byte.
    fn read_point(&self, point: &[u8]) -> Option<PublicKey> {
        let whole = |point: &[u8]| VerifyingKey::from_sec1_bytes(point).ok().map(PublicKey::from);
        match point.len() {
            UNCOMPRESSED => whole(point),
            length if length + 1 == UNCOMPRESSED => whole(&[&[UNCOMPRESSED_PREFIX], point].concat()),
            _ => PublicKey::from_bytes(KeyType::Secp256k1, point).ok(),
        }
    }

    /// In uncompressed form.
    fn point_of(&self, key: &PublicKey) -> Vec<u8> {
        let key = VerifyingKey::from_sec1_bytes(key.as_bytes()).expect("a public key is a point");
        key.to_encoded_point(false).as_bytes().to_vec()
    }

    fn curve_encodings(&self, _profile: &Profile) -> Vec<Vec<u8>> {
        vec![PARAMS.to_vec()]
    }

    fn may_be(&self, _profile: &Profile, key_type: CkKeyType) -> bool {
        key_type == CkKeyType::EC
    }

    fn signing(&self, _token: &dyn TokenCalls) -> Result<MechanismType, TokenError> {
        Ok(MechanismType::ECDSA)
    }

    fn ck_key_type(&self, _token: &dyn TokenCalls) -> Result<CkKeyType, TokenError> {
        Ok(CkKeyType::EC)
    }

    fn generating(&self, _token: &dyn TokenCalls) -> Result<Mechanism<'static>, TokenError> {
        Ok(Mechanism::EccKeyPairGen)
    }

    fn sign(&self, token: &dyn TokenCalls, key: &TokenKey, message: &[u8]) -> Result<Signature, TokenError> {
        let mut room: SignatureRoom = [0; _];
        let length = token.call_sign(&Mechanism::Ecdsa, key, &Sha256::digest(message), &mut room)?;
        let any_s = read_signature(room.get(..length).unwrap_or_default())
            .ok_or(TokenError::Signature { bytes: length, key_type: KeyType::Secp256k1 })?;
        // Devices return high S half of the time; CometBFT accepts only low S.
        let low_s = any_s.normalize_s().unwrap_or(any_s);
        Ok(Signature::new(&low_s.to_bytes()))
    }
}

/// r and s one after the other, as the standard requires, or as the SEQUENCE that other interfaces use.
fn read_signature(bytes: &[u8]) -> Option<k256::ecdsa::Signature> {
    k256::ecdsa::Signature::from_slice(bytes).ok().or_else(|| {
        let (r, rest) = der::scalar(der::only(der::SEQUENCE, bytes)?)?;
        let (s, rest) = der::scalar(rest)?;
        if rest.is_empty() { k256::ecdsa::Signature::from_scalars(r, s).ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_read_bare_or_as_a_sequence() {
        let bare = [[0x42; 32], [0x07; 32]].concat();
        let expected = k256::ecdsa::Signature::from_slice(&bare).unwrap();
        let der = expected.to_der();
        // With a zero too many, which is not DER any more.
        let padded = [&[0x30, 0x46, 0x02, 0x21, 0][..], &[0x42; 32], &[0x02, 0x21, 0], &[0x07; 32]].concat();
        for bytes in [&bare[..], der.as_bytes(), &padded] {
            assert_eq!(read_signature(bytes), Some(expected), "{bytes:?}");
        }
        let short = [&[0x30, 0x25, 0x02, 0x20][..], &[0x42; 32], &[0x02, 0x01, 0x05]].concat();
        assert!(read_signature(&short).is_some());
    }

    #[test]
    fn other_bytes_are_no_signature() {
        let long = [&[0x30, 0x26, 0x02, 0x21][..], &[0x42; 33], &[0x02, 0x01, 0x05]].concat();
        let zero = [0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x01];
        for bytes in [&[][..], &[0x30], &[0x30, 0x02, 0x02, 0x00], &[0; 64], &[0xff; 64], &[0x42; 63], &long, &zero] {
            assert_eq!(read_signature(bytes), None, "{bytes:?}");
        }
        for length in 0..=80 {
            for byte in [0x00, 0x02, 0x30, 0x80, 0xff] {
                let _ = read_signature(&vec![byte; length]);
            }
        }
    }
}
