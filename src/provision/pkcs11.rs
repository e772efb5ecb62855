//! What an operator does on a token: list, make, import and delete keys.

use crate::{
    config::pkcs11::spec::ObjectSelector,
    keyring::{
        pkcs11::{
            algorithms::{self, TokenAlgorithm, TokenCalls as _},
            calls::about_to,
            error::TokenError,
            token::Token,
            token_key::TokenKey,
        },
        softsign::SecretKey,
    },
};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use highwater_core::{
    consensus::{KeyType, PublicKey},
    signer::SELF_TEST,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// A private key as a token lists it. What the device does not report is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// `CKA_ID`, empty if it has none.
    pub id: Vec<u8>,
    /// `CKA_LABEL`, empty if it has none.
    pub label: String,
    /// Its algorithm. `None` for one that Highwater does not sign with, or for an object that a failed call left behind.
    pub key_type: Option<KeyType>,
    /// Its public half.
    pub public_key: Option<PublicKey>,
    /// Whether the device itself generated it.
    pub local: Option<bool>,
    /// Whether it could never leave the device.
    pub never_extractable: Option<bool>,
    /// Whether it can leave the device, wrapped by another key.
    pub extractable: Option<bool>,
    /// Whether it never leaves the device unwrapped.
    pub sensitive: Option<bool>,
}

/// The name of a new key. Both parts must be free on the token.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct KeyName {
    /// `CKA_ID`
    pub id: Vec<u8>,
    /// `CKA_LABEL`
    pub label: String,
}

impl Token {
    /// Lists every private key on the token.
    pub fn list_keys(&self) -> Result<Vec<KeyInfo>, TokenError> {
        let keys = self.find(&[Attribute::Class(ObjectClass::PRIVATE_KEY)])?;
        keys.into_iter().map(|key| self.describe(key)).collect()
    }

    /// The only private key that `selector` names, as the list shows it. Touches no other key. `None` if there is none.
    pub fn look_at(&self, selector: &ObjectSelector) -> Result<Option<KeyInfo>, TokenError> {
        match self.objects(ObjectClass::PRIVATE_KEY, selector)?[..] {
            [] => Ok(None),
            [key] => self.describe(key).map(Some),
            ref several => Err(TokenError::AmbiguousKey { object: selector.clone(), hits: self.shown(several) }),
        }
    }

    /// Makes the device generate a key, and proves it with a signature over [`SELF_TEST`], which can never be sign
    /// bytes. A key that fails the proof is removed again.
    pub fn generate(&self, name: &KeyName, key_type: KeyType, extractable: bool) -> Result<TokenKey, TokenError> {
        let mechanism = self.algorithm(key_type)?.generating(self)?;
        self.create(name, key_type, None, |params| {
            let mut public = public_template(name);
            public.push(Attribute::EcParams(params.to_vec()));
            let private = self.private_template(name, extractable);
            about_to("generate a key");
            let made = self.session().generate_key_pair(&mechanism, &public, &private).map_err(|error| {
                self.explained(TokenError::call("generate a key")(error), mechanism.mechanism_type())
            })?;
            // Some devices show the public half here and never again.
            Ok(self.read_public_key(made.0, key_type))
        })
    }

    /// Puts a secret key onto the token, and proves it with a signature over [`SELF_TEST`], which can never be sign
    /// bytes. A key that fails the proof is removed again. The key is never extractable.
    pub fn import(&self, name: &KeyName, secret: &SecretKey) -> Result<TokenKey, TokenError> {
        let value = secret.for_devices().ok_or(TokenError::Expanded)?;
        let public_key = secret.public_key();
        let key_type = public_key.key_type();
        let algorithm = self.algorithm(key_type)?;
        self.create(name, key_type, Some(&public_key), |params| {
            self.import_private(name, algorithm, params, &value)?;
            if self.profile().objects.import_public_object {
                self.import_public(name, algorithm, &public_key, params)?;
            }
            Ok(None)
        })
    }

    /// Removes one key: its private object, and the public objects that have exactly its id and label. A public
    /// object without a private one is removed too.
    pub fn delete(&self, selector: &ObjectSelector) -> Result<(), TokenError> {
        let private = self.objects(ObjectClass::PRIVATE_KEY, selector)?;
        let public = self.objects(ObjectClass::PUBLIC_KEY, selector)?;
        let named = match (&private[..], &public[..]) {
            ([key], _) | ([], [key]) => *key,
            ([], []) => return Err(self.no_key(selector)?),
            ([], many) | (many, _) => {
                return Err(TokenError::AmbiguousKey { object: selector.clone(), hits: self.shown(many) });
            }
        };
        let name = self.id_and_label(named);
        if let [key] = private[..] {
            self.destroy(key)?;
        }
        // Searched again: some devices delete the public half with the private one.
        for object in self.objects(ObjectClass::PUBLIC_KEY, selector)? {
            if self.id_and_label(object) == name {
                self.destroy(object)?;
            }
        }
        Ok(())
    }

    /// Makes a key with `attempt`, trying each encoding of its curve in turn until one yields a key that passes the
    /// proof. Undoes a failed attempt. `attempt` gives the public half, if it comes to know it.
    fn create(
        &self,
        name: &KeyName,
        key_type: KeyType,
        expected: Option<&PublicKey>,
        attempt: impl Fn(&[u8]) -> Result<Option<PublicKey>, TokenError>,
    ) -> Result<TokenKey, TokenError> {
        let algorithm = self.algorithm(key_type)?;
        self.check_free(name)?;
        let before = self.find(&[])?;
        let mut failure = TokenError::Unsupported { key_type, profile: self.profile().name.clone() };
        for params in algorithm.curve_encodings(self.profile()) {
            match attempt(&params).and_then(|made| self.prove(name, key_type, expected, made)) {
                Ok(key) => return Ok(key),
                // A good key, and the operator can learn its public half from the device.
                Err(error @ TokenError::Unreadable) => return Err(error),
                Err(error) => failure = error,
            }
            if let Err(then) = self.undo(name, &before) {
                return Err(TokenError::NotRemoved { first: Box::new(failure), then: Box::new(then) });
            }
        }
        Err(failure)
    }

    /// Finds a new key as the signer will, and has it sign. `made` is the public half that the device showed when it made
    /// the key.
    fn prove(
        &self,
        name: &KeyName,
        key_type: KeyType,
        expected: Option<&PublicKey>,
        made: Option<PublicKey>,
    ) -> Result<TokenKey, TokenError> {
        self.find_key(&ObjectSelector::Label(name.label.clone()), key_type)?;
        let key = self.find_key(&ObjectSelector::Id(name.id.clone()), key_type)?.or_public_key(made);
        about_to("sign");
        let signature = self.sign(&key, SELF_TEST)?;
        let public_key = expected.cloned().or(key.public_key()).ok_or(TokenError::Unreadable)?;
        let is_proven = public_key.verifies(SELF_TEST, &signature) && key.public_key().is_none_or(|k| k == public_key);
        is_proven.then_some(key).ok_or(TokenError::SelfTest)
    }

    /// Removes the objects that are new since `before` and have this name or none at all: a module may leave a blank
    /// object behind after a call that failed. Keeps what another process made in the meantime.
    fn undo(&self, name: &KeyName, before: &[ObjectHandle]) -> Result<(), TokenError> {
        for object in self.find(&[])? {
            let (id, label) = self.id_and_label(object);
            let is_ours = (id.is_empty() || id == name.id) && (label.is_empty() || label == name.label);
            if is_ours && !before.iter().any(|old| old.handle() == object.handle()) {
                self.destroy(object)?;
            }
        }
        Ok(())
    }

    fn import_private(
        &self,
        name: &KeyName,
        algorithm: &dyn TokenAlgorithm,
        params: &[u8],
        value: &[u8],
    ) -> Result<(), TokenError> {
        let mut template = self.private_template(name, false);
        template.push(Attribute::Class(ObjectClass::PRIVATE_KEY));
        template.push(Attribute::KeyType(algorithm.ck_key_type(self)?));
        template.push(Attribute::EcParams(params.to_vec()));
        template.push(Attribute::Value(value.to_vec()));
        about_to("import the private key");
        let answer = self.session().create_object(&template);
        wipe(&mut template);
        answer.map(|_| ()).map_err(TokenError::call("import the private key"))
    }

    fn import_public(
        &self,
        name: &KeyName,
        algorithm: &dyn TokenAlgorithm,
        key: &PublicKey,
        params: &[u8],
    ) -> Result<(), TokenError> {
        let mut template = public_template(name);
        template.push(Attribute::Class(ObjectClass::PUBLIC_KEY));
        template.push(Attribute::KeyType(algorithm.ck_key_type(self)?));
        template.push(Attribute::EcParams(params.to_vec()));
        template.push(Attribute::EcPoint(algorithms::wrapped_point_of(algorithm, key)));
        about_to("import the public key");
        self.session().create_object(&template).map(|_| ()).map_err(TokenError::call("import the public key"))
    }

    fn private_template(&self, name: &KeyName, extractable: bool) -> Vec<Attribute> {
        let mut template = vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(extractable),
            Attribute::Sign(true),
            Attribute::Id(name.id.clone()),
            Attribute::Label(name.label.clone().into_bytes()),
        ];
        if self.profile().objects.clear_unneeded_usages {
            template.push(Attribute::Decrypt(false));
            template.push(Attribute::Derive(false));
            template.push(Attribute::SignRecover(false));
            template.push(Attribute::Unwrap(false));
        }
        template
    }

    /// Refuses a name if a private or a public key already has its id or its label.
    fn check_free(&self, name: &KeyName) -> Result<(), TokenError> {
        for object in [ObjectSelector::Id(name.id.clone()), ObjectSelector::Label(name.label.clone())] {
            for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                if !self.objects(class, &object)?.is_empty() {
                    return Err(TokenError::Exists { object });
                }
            }
        }
        Ok(())
    }

    fn destroy(&self, object: ObjectHandle) -> Result<(), TokenError> {
        about_to("delete an object");
        self.session().destroy_object(object).map_err(TokenError::call("delete an object"))
    }

    fn describe(&self, key: ObjectHandle) -> Result<KeyInfo, TokenError> {
        let (id, label) = self.id_and_label(key);
        let key_type = self.key_type_of(key)?;
        let public_key = match key_type {
            // Searched again, so that the list shows what the signer would see.
            Some(key_type) if !id.is_empty() => {
                self.find_key(&ObjectSelector::Id(id.clone()), key_type).ok().and_then(|key| key.public_key())
            }
            Some(key_type) => self.read_public_key(key, key_type),
            None => None,
        };
        Ok(KeyInfo {
            id,
            label,
            key_type,
            public_key,
            local: self.flag(key, AttributeType::Local),
            never_extractable: self.flag(key, AttributeType::NeverExtractable),
            extractable: self.flag(key, AttributeType::Extractable),
            sensitive: self.flag(key, AttributeType::Sensitive),
        })
    }

    /// The algorithm of a key, if Highwater signs with it.
    fn key_type_of(&self, key: ObjectHandle) -> Result<Option<KeyType>, TokenError> {
        let Some(Attribute::KeyType(found)) = self.attribute(key, AttributeType::KeyType) else { return Ok(None) };
        let params = match self.attribute(key, AttributeType::EcParams) {
            Some(Attribute::EcParams(params)) => params,
            _ => vec![],
        };
        Ok(algorithms::key_type_of(self.profile(), found, &params))
    }

    fn flag(&self, object: ObjectHandle, kind: AttributeType) -> Option<bool> {
        match self.attribute(object, kind)? {
            Attribute::Extractable(value)
            | Attribute::Local(value)
            | Attribute::NeverExtractable(value)
            | Attribute::Sensitive(value) => Some(value),
            _ => None,
        }
    }
}

fn public_template(name: &KeyName) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::Id(name.id.clone()),
        Attribute::Label(name.label.clone().into_bytes()),
    ]
}

/// Wipes the secret bytes of a template, which does not do so itself.
fn wipe(template: &mut [Attribute]) {
    for attribute in template {
        if let Attribute::Value(bytes) = attribute {
            bytes.zeroize();
        }
    }
}
