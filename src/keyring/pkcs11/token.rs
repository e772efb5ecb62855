//! One token, one session, logged in once: finding keys and signing with them.
//!
//! Assumes one thread and one [`Token`] at a time in its process. After an error of class
//! [`Broken`](super::error::ErrorClass::Broken) drop the token and open another: a session may be left with an
//! operation that nothing can cancel.

use super::{
    algorithms::{self, SignatureRoom, TokenAlgorithm, TokenCalls},
    calls::{self, about_to},
    candidates,
    error::TokenError,
    explain::{self, KeyFacts},
    gate::{self, LoginGate},
    module::Module,
    token_info::{PinState, TokenInfo},
    token_key::TokenKey,
};
use crate::{
    config::pkcs11::{
        profile::{LoginKind, Profile, SessionMode},
        spec::{KeySpec, ObjectSelector, TokenSelector},
    },
    process::sandbox::memory,
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
#[derive(Clone)]
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

    /// A copy for C_Login, which is wiped after it.
    fn sent(&self) -> RawAuthPin {
        RawAuthPin::new(Box::new(self.0.to_vec()))
    }
}

/// A token that was opened and logged in to.
pub struct Token {
    /// Closed before the module is finalised: fields are dropped in order.
    session: Session,
    /// Keeps the module initialised.
    module: Module,
    selector: TokenSelector,
    profile: Profile,
    /// The token's mechanisms.
    listed: Vec<MechanismType>,
    /// What the token says of itself that may be the reason for a refusal.
    reasons: Vec<String>,
    /// For a key that wants a login for each use.
    pin: Option<Pin>,
}

impl TokenCalls for Token {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn lists(&self, mechanism: MechanismType) -> bool {
        self.listed.contains(&mechanism)
    }

    fn call_sign(
        &self,
        mechanism: &Mechanism<'_>,
        key: &TokenKey,
        data: &[u8],
        room: &mut SignatureRoom,
    ) -> Result<usize, TokenError> {
        // Before anything is begun that could not be ended.
        let pin = match (key.wants_login, &self.pin) {
            (false, _) => None,
            (true, Some(pin)) => Some(pin),
            (true, None) => return Err(TokenError::LoginForEachUse),
        };
        let Some(raw) = self.module.raw() else { return self.sign_by_wrapper(mechanism, key, data, room) };
        self.session.sign_init(mechanism, key.handle).map_err(TokenError::call("sign"))?;
        if let Some(pin) = pin {
            self.log_in_for_one_use(pin)?;
        }
        raw.sign(&self.session, data, room).map_err(TokenError::call("sign"))
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
        Self::open_by(module, selector, profile, pin, Opening::plain(profile.session.mode == SessionMode::ReadWrite))
    }

    /// Opens the token to make, import or delete keys.
    pub fn open_for_changes(
        module: &Path,
        selector: &TokenSelector,
        profile: &Profile,
        pin: Option<&Pin>,
    ) -> Result<Self, TokenError> {
        Self::open_by(module, selector, profile, pin, Opening::plain(true))
    }

    /// Opens the token as `opening` says: its gate decides about the login, and its pinned keys decide between tokens that
    /// have the same name.
    pub fn open_by(
        path: &Path,
        selector: &TokenSelector,
        profile: &Profile,
        pin: Option<&Pin>,
        opening: Opening<'_>,
    ) -> Result<Self, TokenError> {
        let module = Module::load(path, Some(profile))?;
        let (slot, info) = candidates::find_token(&module, selector, opening.keys)?;
        // A gate decides that itself.
        if info.pin != PinState::Ok && opening.gate.is_none() {
            return Err(TokenError::PinAtRisk { token: selector.clone(), state: info.pin });
        }
        let context = module.context();
        let reasons = explain::token(&info, pin.map(|pin| pin.0.len()));
        let read_write = opening.read_write;
        about_to("open a session");
        let session = if read_write { context.open_rw_session(slot) } else { context.open_ro_session(slot) };
        let session = session.map_err(|error| {
            let protected = explain::write_protected(&info).filter(|_| read_write);
            let reasons = [&reasons[..], protected.as_slice()].concat();
            explain::explained(TokenError::call("open a session with the token")(error), &reasons)
        })?;
        login(&session, selector, &info, profile, pin, opening.gate)
            .map_err(|error| explain::explained(error, &reasons))?;
        about_to("list the mechanisms");
        let listed = context.get_mechanism_list(slot).map_err(TokenError::call("list the token's mechanisms"))?;
        let pin = pin.cloned().inspect(|pin| {
            // If the system does not allow it, the signer logs a warning.
            memory::lock(pin.0.as_slice());
        });
        Ok(Self { session, module, selector: selector.clone(), profile: profile.clone(), listed, reasons, pin })
    }

    /// Signs where only the wrapper's functions know the session. It also asks for the length.
    fn sign_by_wrapper(
        &self,
        mechanism: &Mechanism<'_>,
        key: &TokenKey,
        data: &[u8],
        room: &mut SignatureRoom,
    ) -> Result<usize, TokenError> {
        if key.wants_login {
            return Err(TokenError::LoginForEachUse);
        }
        let signature = self.session.sign(mechanism, key.handle, data).map_err(TokenError::call("sign"))?;
        let taken = signature.len().min(room.len());
        room[..taken].copy_from_slice(&signature[..taken]);
        Ok(taken)
    }

    /// Wipes the PIN, unless one of these keys wants a login for each use.
    pub(crate) fn forget_pin_unless_wanted_by(&mut self, keys: &[TokenKey]) {
        if !keys.iter().any(|key| key.wants_login) {
            self.pin = None;
        }
    }

    /// Logs in again, for the one signature that has begun.
    fn log_in_for_one_use(&self, pin: &Pin) -> Result<(), TokenError> {
        match self.session.login_with_raw(UserType::ContextSpecific, &pin.sent()) {
            // The last means that this key wants none, whatever it says of itself.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn | RvError::OperationNotInitialized, _)) => Ok(()),
            Err(error) => match TokenError::login(&self.selector, error) {
                // This PIN has logged in, so nothing else can mean a wrong one.
                TokenError::Login { error, .. } => Err(TokenError::call("log in for one use of the key")(error)),
                wrong => Err(wrong),
            },
        }
    }

    /// Finds the one private key that `selector` names, and its public half where the device shows it.
    pub fn find_key(&self, selector: &ObjectSelector, key_type: KeyType) -> Result<TokenKey, TokenError> {
        let algorithm = self.algorithm(key_type)?;
        let mut hits = self.objects(ObjectClass::PRIVATE_KEY, selector)?;
        if hits.len() > 1 {
            // Another application's key never matters if it cannot be ours.
            hits.retain(|hit| self.facts(*hit).other_kind(algorithm, &self.profile).is_none());
        }
        let Some(handle) = hits.pop() else { return Err(self.no_key(selector)?) };
        if !hits.is_empty() {
            hits.push(handle);
            return Err(TokenError::AmbiguousKey { object: selector.clone(), hits: self.shown(&hits) });
        }
        let public_objects = self.objects(ObjectClass::PUBLIC_KEY, selector)?;
        let public_keys = public_objects.into_iter().filter_map(|object| self.read_public_key(object, key_type));
        let public_key = match public_keys.collect::<Vec<_>>().as_slice() {
            // With several, this would be a guess.
            [public_key] => Some(public_key.clone()),
            _ => self.read_public_key(handle, key_type),
        };
        self.key(handle, key_type, public_key)
    }

    /// A private key, with what it says of itself.
    pub(super) fn key(
        &self,
        handle: ObjectHandle,
        key_type: KeyType,
        public_key: Option<PublicKey>,
    ) -> Result<TokenKey, TokenError> {
        let algorithm = self.algorithm(key_type)?;
        let mut reasons = self.facts(handle).reasons(algorithm, &self.profile);
        reasons.extend(explain::missing_mechanism(algorithm.signing(self)?, &self.listed));
        let asks = self.attribute(handle, AttributeType::AlwaysAuthenticate);
        let wants_login = matches!(asks, Some(Attribute::AlwaysAuthenticate(true)));
        Ok(TokenKey { handle, key_type, public_key, wants_login, reasons })
    }

    /// Whether a private key says that it is of another type or curve, so that it cannot be the wanted one.
    pub(super) fn is_of_another_kind(&self, handle: ObjectHandle, key_type: KeyType) -> Result<bool, TokenError> {
        Ok(self.facts(handle).other_kind(self.algorithm(key_type)?, &self.profile).is_some())
    }

    /// Signs `message` with `key`, in the one form that CometBFT accepts.
    pub fn sign(&self, key: &TokenKey, message: &[u8]) -> Result<Signature, TokenError> {
        self.algorithm(key.key_type)?
            .sign(self, key, message)
            .map_err(|error| explain::explained(error, &[&self.reasons[..], &key.reasons].concat()))
    }

    /// The error of a device that refused this mechanism.
    pub(crate) fn explained(&self, error: TokenError, mechanism: MechanismType) -> TokenError {
        let missing = explain::missing_mechanism(mechanism, &self.listed);
        explain::explained(error, &[&self.reasons[..], missing.as_slice()].concat())
    }

    /// What a key says of itself.
    fn facts(&self, key: ObjectHandle) -> KeyFacts {
        KeyFacts {
            key_type: match self.attribute(key, AttributeType::KeyType) {
                Some(Attribute::KeyType(key_type)) => Some(key_type),
                _ => None,
            },
            params: match self.attribute(key, AttributeType::EcParams) {
                Some(Attribute::EcParams(params)) => params,
                _ => vec![],
            },
            may_sign: match self.attribute(key, AttributeType::Sign) {
                Some(Attribute::Sign(may_sign)) => Some(may_sign),
                _ => None,
            },
        }
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

/// How a token is opened.
#[derive(Default)]
pub struct Opening<'a> {
    pub read_write: bool,
    /// `None` sends the PIN unless the token counts a wrong one.
    pub gate: Option<&'a mut dyn LoginGate>,
    /// The keys that it must have, to choose between tokens with the same label.
    pub keys: &'a [KeySpec],
}

impl Opening<'_> {
    fn plain(read_write: bool) -> Self {
        Self { read_write, ..Self::default() }
    }
}

/// Logs in as the token's user. Sends a PIN at most once.
fn login(
    session: &Session,
    selector: &TokenSelector,
    info: &TokenInfo,
    profile: &Profile,
    pin: Option<&Pin>,
    mut gate: Option<&mut dyn LoginGate>,
) -> Result<(), TokenError> {
    let mut ask = || gate.as_mut().map_or(Ok(()), |gate| gate.before(info));
    let answer = match pin {
        Some(pin) => {
            pin.check(profile).map_err(|what| TokenError::PinForm { token: selector.clone(), what })?;
            ask()?;
            about_to(calls::LOGIN);
            session.login_with_raw(UserType::User, &pin.sent())
        }
        None if profile.session.login == LoginKind::ProtectedPath || info.protected_path => {
            ask()?;
            about_to(calls::LOGIN);
            session.login(UserType::User, None)
        }
        None if info.login_required => return Err(TokenError::NoPin { token: selector.clone() }),
        None => return Ok(()),
    };
    if let Some(gate) = gate {
        gate.after(gate::outcome(&answer));
    }
    match answer {
        // A module that could not be finalised is still logged in.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(error) => Err(TokenError::login(selector, error)),
    }
}
