//! Which of several keys with one name is meant: the one with the pinned public key.
//!
//! A key of another program with the same id must not keep a validator from signing. What cannot be told apart is refused,
//! never guessed.

use super::{error::TokenError, token::Token, token_key::TokenKey};
use crate::config::pkcs11::spec::{KeySpec, ObjectSelector};
use cryptoki::object::{ObjectClass, ObjectHandle};
use highwater_core::{
    consensus::{KeyType, PublicKey},
    signer::SELF_TEST,
};

/// The private key that `spec` names. If several have its name, the only one with the pinned public key.
pub(super) fn find_key(token: &Token, spec: &KeySpec) -> Result<TokenKey, TokenError> {
    let (object, key_type) = (&spec.object, spec.key_type);
    match token.find_key(object, key_type) {
        Err(TokenError::AmbiguousKey { object, hits }) => {
            let chosen = choose(token, spec)?;
            chosen.ok_or(TokenError::AmbiguousKey { object, hits })
        }
        other => other,
    }
}

fn choose(token: &Token, spec: &KeySpec) -> Result<Option<TokenKey>, TokenError> {
    let Ok(pinned) = PublicKey::from_bytes(spec.key_type, &spec.public_key) else { return Ok(None) };
    let private = token.objects(ObjectClass::PRIVATE_KEY, &spec.object)?;
    let public = token.objects(ObjectClass::PUBLIC_KEY, &spec.object)?;
    let mut unreadable = Vec::new();
    for handle in private {
        if token.is_of_another_kind(handle, spec.key_type)? {
            continue;
        }
        match public_half(token, handle, &public, spec.key_type) {
            Some(found) if found == pinned => return token.key(handle, spec.key_type, Some(found)).map(Some),
            Some(_) => {}
            None => unreadable.push(handle),
        }
    }
    for handle in unreadable {
        // Its signature over a text that cannot be a vote says whose key it is.
        let key = token.key(handle, spec.key_type, None)?;
        if token.sign(&key, SELF_TEST).is_ok_and(|signature| pinned.verifies(SELF_TEST, &signature)) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// The public half of a private key, if the token shows it without doubt.
fn public_half(token: &Token, key: ObjectHandle, public: &[ObjectHandle], key_type: KeyType) -> Option<PublicKey> {
    if let Some(found) = token.read_public_key(key, key_type) {
        return Some(found);
    }
    let (id, label) = token.id_and_label(key);
    let name = ObjectSelector::Id(id);
    let mut halves = Vec::new();
    for object in public {
        let (id, its_label) = token.id_and_label(*object);
        if ObjectSelector::Id(id) == name && its_label == label {
            halves.extend(token.read_public_key(*object, key_type));
        }
    }
    <[PublicKey; 1]>::try_from(halves).ok().map(|[half]| half)
}
