//! Ed25519 on a token. Modules use several numbers and curve names for it, which their profiles list.

use super::{SignatureRoom, TokenAlgorithm, TokenCalls, der};
use crate::{
    config::pkcs11::profile::{Ed25519Numbers, Ed25519Parameters, Profile},
    keyring::pkcs11::{error::TokenError, token_key::TokenKey},
};
use cryptoki::{
    error::Error,
    mechanism::{Mechanism, MechanismType, vendor_defined::VendorDefinedMechanism},
    object::KeyType as CkKeyType,
};
use cryptoki_sys::{CK_EDDSA_PARAMS, CK_FALSE};
use highwater_core::consensus::{KeyType, PublicKey, Signature};
use std::ptr;

/// Length of a point.
const POINT_BYTES: usize = 32;
/// Before a point as OpenPGP writes it.
const OPENPGP_PREFIX: u8 = 0x40;
/// `CKK_EC_EDWARDS` and its number in Luna's headers.
const EDWARDS: [u64; 2] = [0x40, 0x8000_0012];

pub(super) struct TokenEd25519;

impl TokenAlgorithm for TokenEd25519 {
    fn key_type(&self) -> KeyType {
        KeyType::Ed25519
    }

    fn read_point(&self, point: &[u8]) -> Option<PublicKey> {
        let bare = match point {
            [OPENPGP_PREFIX, bare @ ..] if bare.len() == POINT_BYTES => bare,
            other => other,
        };
        PublicKey::from_bytes(KeyType::Ed25519, bare).ok()
    }

    fn point_of(&self, key: &PublicKey) -> Vec<u8> {
        key.as_bytes().to_vec()
    }

    fn curve_encodings(&self, profile: &Profile) -> Vec<Vec<u8>> {
        profile.ed25519.ec_params.clone()
    }

    /// Some modules call it a key on an elliptic curve, and leave it to the curve.
    fn may_be(&self, profile: &Profile, key_type: CkKeyType) -> bool {
        let number = *key_type;
        let of_profile = || profile.ed25519.numbers.iter().any(|numbers| numbers.key_type == number);
        key_type == CkKeyType::EC || EDWARDS.contains(&number) || of_profile()
    }

    fn signing(&self, token: &dyn TokenCalls) -> Result<MechanismType, TokenError> {
        mechanism_type(numbers(token).sign)
    }

    fn ck_key_type(&self, token: &dyn TokenCalls) -> Result<CkKeyType, TokenError> {
        CkKeyType::try_from(numbers(token).key_type)
            .map_err(|error: Error| TokenError::Call { action: "use the profile's key type", error })
    }

    fn generating(&self, token: &dyn TokenCalls) -> Result<Mechanism<'static>, TokenError> {
        mechanism(numbers(token).generate)
    }

    /// Over the message itself.
    fn sign(&self, token: &dyn TokenCalls, key: &TokenKey, message: &[u8]) -> Result<Signature, TokenError> {
        let max = token.profile().limits.max_message_bytes.and_then(|max| usize::try_from(max).ok());
        if let Some(max) = max.filter(|max| message.len() > *max) {
            return Err(TokenError::TooLong { bytes: message.len(), max });
        }
        // With these, some devices sign another variant of Ed25519, and others sign nothing without them.
        let pure = CK_EDDSA_PARAMS { phFlag: CK_FALSE, ulContextDataLen: 0, pContextData: ptr::null_mut() };
        let parameters = (token.profile().ed25519.parameters == Ed25519Parameters::Pure).then_some(&pure);
        let mechanism = VendorDefinedMechanism::new(self.signing(token)?, parameters);
        let mut room: SignatureRoom = [0; _];
        let length = token.call_sign(&Mechanism::VendorDefined(mechanism), key, message, &mut room)?;
        let returned = room.get(..length).unwrap_or_default();
        let signature = der::only(der::OCTET_STRING, returned).unwrap_or(returned);
        if signature.len() == KeyType::Ed25519.signature_len() {
            Ok(Signature::new(signature))
        } else {
            Err(TokenError::Signature { bytes: length, key_type: KeyType::Ed25519 })
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
    Ok(Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(mechanism_type(number)?, None)))
}

fn mechanism_type(number: u64) -> Result<MechanismType, TokenError> {
    MechanismType::try_from(number).map_err(TokenError::call("use the profile's mechanism"))
}
