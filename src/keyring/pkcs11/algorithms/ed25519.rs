//! Ed25519 on a token. Modules use several numbers and curve names for it, which their profiles list.

use super::{TokenAlgorithm, TokenCalls};
use crate::{
    config::pkcs11::profile::{Ed25519Numbers, Profile},
    keyring::pkcs11::error::TokenError,
};
use cryptoki::{
    error::Error,
    mechanism::{Mechanism, MechanismType, vendor_defined::VendorDefinedMechanism},
    object::{KeyType as CkKeyType, ObjectHandle},
};
use highwater_core::consensus::{KeyType, PublicKey, Signature};

/// The bytes before the 32 bytes of a key in a SubjectPublicKeyInfo (RFC 8410).
const INFO: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

pub(super) struct TokenEd25519;

impl TokenAlgorithm for TokenEd25519 {
    fn key_type(&self) -> KeyType {
        KeyType::Ed25519
    }

    fn read_point(&self, point: &[u8]) -> Option<PublicKey> {
        PublicKey::from_bytes(KeyType::Ed25519, point).ok()
    }

    fn read_info(&self, info: &[u8]) -> Option<PublicKey> {
        self.read_point(info.strip_prefix(INFO)?)
    }

    fn point_of(&self, key: &PublicKey) -> Vec<u8> {
        key.as_bytes().to_vec()
    }

    fn curve_encodings(&self, profile: &Profile) -> Vec<Vec<u8>> {
        profile.ed25519.ec_params.clone()
    }

    fn ck_key_type(&self, token: &dyn TokenCalls) -> Result<CkKeyType, TokenError> {
        CkKeyType::try_from(numbers(token).key_type)
            .map_err(|error: Error| TokenError::Call { action: "use the profile's key type", error })
    }

    fn generating(&self, token: &dyn TokenCalls) -> Result<Mechanism<'static>, TokenError> {
        mechanism(numbers(token).generate)
    }

    /// Over the message itself.
    fn sign(&self, token: &dyn TokenCalls, key: ObjectHandle, message: &[u8]) -> Result<Signature, TokenError> {
        let max = token.profile().limits.max_message_bytes.and_then(|max| usize::try_from(max).ok());
        if let Some(max) = max.filter(|max| message.len() > *max) {
            return Err(TokenError::TooLong { bytes: message.len(), max });
        }
        // No parameters: with them, a device would sign another variant of Ed25519, or silently ignore them.
        let signature = token.call_sign(&mechanism(numbers(token).sign)?, key, message)?;
        if signature.len() == KeyType::Ed25519.signature_len() {
            Ok(Signature::new(&signature))
        } else {
            Err(TokenError::Signature { bytes: signature.len(), key_type: KeyType::Ed25519 })
        }
    }
}

/// The first of the profile's numbers that the token lists. If it lists none, the first of all, so that the device
/// itself returns the error.
fn numbers(token: &dyn TokenCalls) -> Ed25519Numbers {
    let known = &token.profile().ed25519.numbers;
    let listed = known.iter().find(|numbers| MechanismType::try_from(numbers.sign).is_ok_and(|sign| token.lists(sign)));
    listed.or(known.first()).copied().unwrap_or(Ed25519Numbers::STANDARD)
}

/// The mechanism with this number, without parameters.
fn mechanism(number: u64) -> Result<Mechanism<'static>, TokenError> {
    let kind = MechanismType::try_from(number).map_err(TokenError::call("use the profile's mechanism"))?;
    Ok(Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(kind, None)))
}
