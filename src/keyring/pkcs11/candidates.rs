//! Which of several tokens with one name is meant: the one with the pinned public key.
//!
//! A second token with the label must not keep a validator from signing. What cannot be told apart is refused, never
//! guessed.

use super::{algorithms, error::TokenError, module::Module, token_info::TokenInfo};
use crate::config::pkcs11::spec::{KeySpec, TokenSelector};
use cryptoki::{
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::Session,
    slot::Slot,
};

/// The one token that `selector` names. If several have its name, the only one that shows a pinned public key, if each of
/// the others shows other ones: public keys are seen without a login, so no PIN goes to a wrong token.
pub(super) fn find_token(
    module: &Module,
    selector: &TokenSelector,
    keys: &[KeySpec],
) -> Result<(Slot, TokenInfo), TokenError> {
    module.find(selector, |hits| {
        let mut with_key = Vec::new();
        for (index, (slot, _)) in hits.iter().enumerate() {
            // A token that shows nothing may hold the key: some show their public keys only after a login.
            let session = module.context().open_ro_session(*slot).ok()?;
            let objects = session.find_objects(&[Attribute::Class(ObjectClass::PUBLIC_KEY)]).ok()?;
            if objects.is_empty() {
                return None;
            }
            if keys.iter().any(|key| shows(&session, &objects, key)) {
                with_key.push(index);
            }
        }
        <[usize; 1]>::try_from(with_key).ok().map(|[index]| index)
    })
}

/// Whether the token shows the pinned key as a public object, under any name: only the key counts.
fn shows(session: &Session, objects: &[ObjectHandle], key: &KeySpec) -> bool {
    objects.iter().any(|object| {
        let point = session.get_attributes(*object, &[AttributeType::EcPoint]).ok().and_then(|mut found| found.pop());
        let Some(Attribute::EcPoint(point)) = point else { return false };
        algorithms::public_key_from_point(key.key_type, &point).is_some_and(|found| found.as_bytes() == key.public_key)
    })
}
