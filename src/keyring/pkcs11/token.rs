//! One token, one session, logged in once: finding keys and signing with them.
//!
//! Assumes one thread and one [`Token`] at a time in its process. After an error of class
//! [`Broken`](super::error::ErrorClass::Broken) drop the token and open another: a session may be left with an
//! operation that nothing can cancel.

use super::{
    algorithms::{self, TokenAlgorithm, TokenCalls},
    calls::{self, about_to},
    error::TokenError,
    module::Module,
    token_info::{PinState, TokenInfo},
};
use crate::config::pkcs11::{
    profile::{LoginKind, Profile, SessionMode},
    spec::{ObjectSelector, TokenSelector},
};
use cryptoki::{
    error::{Error, RvError},
    mechanism::{Mechanism, MechanismType},
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    types::RawAuthPin,
};
use highwater_core::consensus::{KeyType, PublicKey, Signature};
use std::path::Path;
use zeroize::Zeroizing;

/// The user's PIN of a token. Wiped when dropped, and never shown.
pub struct Pin(Zeroizing<Vec<u8>>);

impl Pin {
    /// Takes the bytes that are sent to the device.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Checks that it can be a PIN of this device, because the device counts wrong ones. Bytes that are not text are
    /// not checked.
    fn check(&self, profile: &Profile) -> Result<(), &'static str> {
        str::from_utf8(&self.0).map_or(Ok(()), |text| profile.session.pin_format.check(text))
    }
}

/// A token that was opened and logged in to.
pub struct Token {
    /// Closed before the module is finalised: fields are dropped in order.
    session: Session,
    /// Keeps the module initialised.
    _module: Module,
    profile: Profile,
    /// The token's mechanisms.
    listed: Vec<MechanismType>,
}

impl TokenCalls for Token {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn lists(&self, mechanism: MechanismType) -> bool {
        self.listed.contains(&mechanism)
    }

    fn call_sign(&self, mechanism: &Mechanism<'_>, key: ObjectHandle, data: &[u8]) -> Result<Vec<u8>, TokenError> {
        self.session.sign(mechanism, key, data).map_err(TokenError::call("sign"))
    }
}

impl Token {
    /// Opens the token to sign with it: loads the module, finds the token, opens a session and logs in once.
    pub fn open(
        module: &Path,
        selector: &TokenSelector,
        profile: &Profile,
        pin: Option<&Pin>,
    ) -> Result<Self, TokenError> {
        Self::open_session(module, selector, profile, pin, profile.session.mode == SessionMode::ReadWrite)
    }

    /// Opens the token to make, import or delete keys.
    pub fn open_for_changes(
        module: &Path,
        selector: &TokenSelector,
        profile: &Profile,
        pin: Option<&Pin>,
    ) -> Result<Self, TokenError> {
        Self::open_session(module, selector, profile, pin, true)
    }

    fn open_session(
        path: &Path,
        selector: &TokenSelector,
        profile: &Profile,
        pin: Option<&Pin>,
        read_write: bool,
    ) -> Result<Self, TokenError> {
        let module = Module::load(path)?;
        let (slot, info) = module.find(selector)?;
        if info.pin != PinState::Ok {
            return Err(TokenError::PinAtRisk { token: selector.clone(), state: info.pin });
        }
        let context = module.context();
        about_to("open a session");
        let session = if read_write { context.open_rw_session(slot) } else { context.open_ro_session(slot) };
        let session = session.map_err(TokenError::call("open a session with the token"))?;
        login(&session, selector, &info, profile, pin)?;
        about_to("list the mechanisms");
        let listed = context.get_mechanism_list(slot).map_err(TokenError::call("list the token's mechanisms"))?;
        Ok(Self { session, _module: module, profile: profile.clone(), listed })
    }

    /// Finds the one private key that `selector` names, and its public half where the device shows it.
    pub fn find_key(&self, selector: &ObjectSelector, key_type: KeyType) -> Result<TokenKey, TokenError> {
        self.algorithm(key_type)?;
        let mut hits = self.objects(ObjectClass::PRIVATE_KEY, selector)?;
        let Some(handle) = hits.pop() else { return Err(self.no_key(selector)?) };
        if !hits.is_empty() {
            hits.push(handle);
            return Err(TokenError::AmbiguousKey { object: selector.clone(), hits: self.shown(&hits) });
        }
        let public_objects = self.objects(ObjectClass::PUBLIC_KEY, selector)?;
        let public_key = match public_objects[..] {
            // With several, this would be a guess.
            [public_object] => self.read_public_key(public_object, key_type),
            _ => None,
        };
        let public_key = public_key.or_else(|| self.read_public_key(handle, key_type));
        Ok(TokenKey { handle, key_type, public_key })
    }

    /// Signs `message` with `key`, in the one form that CometBFT accepts.
    pub fn sign(&self, key: &TokenKey, message: &[u8]) -> Result<Signature, TokenError> {
        self.algorithm(key.key_type)?.sign(self, key.handle, message)
    }

    /// The session, for what changes the token.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The algorithm of this kind of key. Refuses one that the device does not have.
    pub(crate) fn algorithm(&self, key_type: KeyType) -> Result<&'static dyn TokenAlgorithm, TokenError> {
        let supported = algorithms::of(key_type).filter(|_| self.profile.supports(key_type));
        supported.ok_or_else(|| TokenError::Unsupported { key_type, profile: self.profile.name.clone() })
    }

    /// The objects of `class` that `selector` names.
    pub(crate) fn objects(
        &self,
        class: ObjectClass,
        selector: &ObjectSelector,
    ) -> Result<Vec<ObjectHandle>, TokenError> {
        // Never the key type: some modules refuse to search for it.
        let mut template = vec![Attribute::Class(class)];
        template.extend(selector.id().map(|id| Attribute::Id(id.to_vec())));
        template.extend(selector.label().map(|label| Attribute::Label(label.as_bytes().to_vec())));
        self.find(&template)
    }

    /// The objects that have all of these attributes.
    pub(crate) fn find(&self, template: &[Attribute]) -> Result<Vec<ObjectHandle>, TokenError> {
        about_to("search the token");
        self.session.find_objects(template).map_err(TokenError::call("search the token"))
    }

    /// One attribute of an object, if the device shows it. Modules differ in how they report that there is none.
    pub(crate) fn attribute(&self, object: ObjectHandle, kind: AttributeType) -> Option<Attribute> {
        about_to("read an object");
        self.session.get_attributes(object, &[kind]).ok()?.pop()
    }

    /// The public key that an object carries, whether it is a public or a private one.
    pub(crate) fn read_public_key(&self, object: ObjectHandle, key_type: KeyType) -> Option<PublicKey> {
        let point = match self.attribute(object, AttributeType::EcPoint) {
            Some(Attribute::EcPoint(bytes)) => algorithms::public_key_from_point(key_type, &bytes),
            _ => None,
        };
        point.or_else(|| match self.attribute(object, AttributeType::PublicKeyInfo) {
            Some(Attribute::PublicKeyInfo(bytes)) => algorithms::public_key_from_info(key_type, &bytes),
            _ => None,
        })
    }

    /// The error for a key that was not found. Fails itself if the token cannot be searched.
    pub(crate) fn no_key(&self, selector: &ObjectSelector) -> Result<TokenError, TokenError> {
        let keys = self.find(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])?;
        Ok(TokenError::NoKey { object: selector.clone(), present: self.shown(&keys) })
    }

    /// Id and label of each of these keys, for an error text.
    pub(crate) fn shown(&self, keys: &[ObjectHandle]) -> Vec<String> {
        let mut shown = Vec::new();
        for key in keys {
            let (id, label) = self.id_and_label(*key);
            shown.push(format!("{} {}", ObjectSelector::Id(id), ObjectSelector::Label(label)));
        }
        shown
    }

    /// Id and label of an object, empty if it has none.
    pub(crate) fn id_and_label(&self, object: ObjectHandle) -> (Vec<u8>, String) {
        let id = match self.attribute(object, AttributeType::Id) {
            Some(Attribute::Id(id)) => id,
            _ => vec![],
        };
        let label = match self.attribute(object, AttributeType::Label) {
            Some(Attribute::Label(label)) => String::from_utf8_lossy(&label).into_owned(),
            _ => String::new(),
        };
        (id, label)
    }
}

/// A private key on the token that found it.
pub struct TokenKey {
    handle: ObjectHandle,
    key_type: KeyType,
    public_key: Option<PublicKey>,
}

impl TokenKey {
    /// Which algorithm it signs with.
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// Its public half, where the device shows it. Where it does not, only the configuration can say what it is.
    pub fn public_key(&self) -> Option<PublicKey> {
        self.public_key.clone()
    }
}

/// Logs in as the token's user. Sends a PIN at most once.
fn login(
    session: &Session,
    selector: &TokenSelector,
    info: &TokenInfo,
    profile: &Profile,
    pin: Option<&Pin>,
) -> Result<(), TokenError> {
    let answer = match pin {
        Some(pin) => {
            pin.check(profile).map_err(|what| TokenError::PinForm { token: selector.clone(), what })?;
            about_to(calls::LOGIN);
            session.login_with_raw(UserType::User, &RawAuthPin::new(Box::new(pin.0.to_vec())))
        }
        None if profile.session.login == LoginKind::ProtectedPath || info.protected_path => {
            about_to(calls::LOGIN);
            session.login(UserType::User, None)
        }
        None if info.login_required => return Err(TokenError::NoPin { token: selector.clone() }),
        None => return Ok(()),
    };
    match answer {
        // A module that could not be finalised is still logged in.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(error) => Err(TokenError::login(selector, error)),
    }
}
