//! What an operator does with the keys of a device, in one session. Every call has its own deadline.

use crate::keyring::{
    device::Trouble,
    softsign::SecretKey,
    yubihsm::{
        algorithms,
        client::Client,
        commands::{NewObject, ObjectInfo},
        login::{Login, OpenSession},
    },
};
use highwater_core::{
    consensus::{KeyType, PublicKey, Signature},
    signer::SELF_TEST,
};
use std::{
    fmt,
    time::{Duration, Instant},
};
use yubihsm::{
    Capability, Domain,
    asymmetric::Algorithm,
    object::{LABEL_SIZE, Label, Origin, Type},
};
use zeroize::Zeroizing;

/// How long a device may take for one command. A slow one takes a quarter of a second.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const LABEL_MAX_BYTES: usize = LABEL_SIZE;

/// A session with a device for an operator.
pub(crate) struct AdminSession {
    client: OpenSession,
    /// Opens another session when this one is lost.
    login: Login,
    /// What the authentication key may do, if it may find out.
    rights: Option<Capability>,
    auth_key: u16,
}

/// An asymmetric key on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceKeyInfo {
    /// Its object id.
    pub(crate) id: u16,
    pub(crate) label: String,
    /// Its type, if Highwater signs with such keys.
    pub(crate) key_type: Option<KeyType>,
    /// Its public half, if Highwater signs with such keys.
    pub(crate) public_key: Option<PublicKey>,
    /// The algorithm in the words of the `yubihsm` crate.
    pub(crate) algorithm: String,
    pub(crate) birth: Birth,
    /// Whether it can leave the device, wrapped by another key.
    pub(crate) exportable: bool,
    /// The domains that it is in, each from 1 to 16.
    pub(crate) domains: Vec<u8>,
}

/// Where a key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Birth {
    /// In this device.
    Generated,
    /// Outside, and then imported.
    Imported,
    /// In a device, and it came here wrapped.
    WrappedGenerated,
    /// Outside, and it came here wrapped.
    WrappedImported,
}

/// A key to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewKey {
    /// Its object id.
    pub(crate) id: u16,
    /// Its label, of [`LABEL_MAX_BYTES`] at most.
    pub(crate) label: String,
    /// Its algorithm.
    pub(crate) key_type: KeyType,
    /// Whether it may leave the device, wrapped by another key.
    pub(crate) exportable: bool,
}

/// A key that was just made, and proven to be the right one.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// The key, as the device shows it.
    pub(crate) info: DeviceKeyInfo,
    pub(crate) public_key: PublicKey,
    /// Whether it signed. It has not if the authentication key may not sign.
    pub(crate) signed: bool,
}

/// Why something was not done, in words that follow the name of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminError {
    /// The device was not reached, or refused.
    Device(Trouble),
    /// The id is taken.
    Exists { id: u16 },
    /// A device takes seeds only.
    Expanded,
    /// There is no such key, only those `present`.
    NoKey { id: u16, present: Vec<u16> },
    /// A new key failed its proof.
    Unproven {
        id: u16,
        why: String,
        /// Why it is still there, if it is.
        left: Option<Trouble>,
    },
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(trouble) => f.write_str(trouble.text()),
            Self::Exists { id } => write!(f, "it already has a key 0x{id:04x}, which is not overwritten: choose another id"),
            Self::Expanded => f.write_str(
                "it takes the 32-byte seed of an Ed25519 key, but this key is expanded: its seed was hashed and is lost, so \
                 only a backup from a YubiHSM can put the key into a device",
            ),
            Self::NoKey { id, present } if present.is_empty() => {
                write!(f, "it has no key 0x{id:04x}, and no other key that this authentication key may see")
            }
            Self::NoKey { id, present } => {
                let present: Vec<_> = present.iter().map(|id| format!("0x{id:04x}")).collect();
                write!(f, "it has no key 0x{id:04x}, only {}", present.join(", "))
            }
            Self::Unproven { id, why, left } => {
                write!(f, "do not use its new key 0x{id:04x}: {why}. ")?;
                match left {
                    None => f.write_str("It was deleted again"),
                    Some(trouble) => write!(f, "It is still there and must be deleted manually: {}", trouble.text()),
                }
            }
        }
    }
}

impl From<Trouble> for AdminError {
    fn from(trouble: Trouble) -> Self {
        Self::Device(trouble)
    }
}

impl AdminSession {
    pub(crate) fn open(login: &mut Login) -> Result<Self, Trouble> {
        let client = login.open(Instant::now() + PATIENCE)?;
        let auth_key = login.config().auth_key;
        let mut session = Self { client, login: login.again(), rights: None, auth_key };
        session.rights = match session.info(auth_key, Type::AuthenticationKey) {
            Ok(info) => Some(info.capabilities),
            Err(Trouble::Rejected(_)) => None,
            Err(trouble) => return Err(trouble),
        };
        Ok(session)
    }

    /// The session, with [`PATIENCE`] for the next command.
    pub(super) fn client(&self) -> &Client {
        self.client.until(Instant::now() + PATIENCE)
    }

    /// Whether the authentication key may do this. True if the device does not say.
    pub(super) fn may(&self, capability: Capability) -> bool {
        self.rights.is_none_or(|rights| rights.contains(capability))
    }

    pub(crate) fn serial_number(&self) -> Result<String, Trouble> {
        self.client().serial_number()
    }

    /// Gets this many random bytes from the device.
    pub(super) fn random(&self, bytes: u16) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let random = self.client().random("generate random numbers", bytes)?;
        if random.len() != usize::from(bytes) {
            return Err(Trouble::Broken("it returned the wrong number of random bytes".into()));
        }
        Ok(random)
    }

    /// Every asymmetric key that the authentication key may see, by id.
    pub(crate) fn keys(&self) -> Result<Vec<DeviceKeyInfo>, Trouble> {
        self.ids()?.into_iter().map(|id| self.key_info(id)).collect()
    }

    pub(crate) fn key(&self, id: u16) -> Result<DeviceKeyInfo, AdminError> {
        let present = self.ids()?;
        if present.contains(&id) { Ok(self.key_info(id)?) } else { Err(AdminError::NoKey { id, present }) }
    }

    pub(crate) fn sign(&self, id: u16, key_type: KeyType, message: &'static [u8]) -> Result<Signature, Trouble> {
        self.client().sign(id, key_type, message)
    }

    /// Makes a key in the device, and proves it.
    pub(crate) fn generate(&self, new: &NewKey) -> Result<Made, AdminError> {
        self.refuse_taken(new.id)?;
        let (object, algorithm) = new.object()?;
        self.client().generate(&format!("make key 0x{:04x}", new.id), &object, algorithm)?;
        self.prove(new.id, None)
    }

    /// Puts the key of a file into the device, and proves it.
    pub(crate) fn import(&self, new: &NewKey, secret: &SecretKey) -> Result<Made, AdminError> {
        let bytes = secret.for_devices().ok_or(AdminError::Expanded)?;
        self.refuse_taken(new.id)?;
        let (object, algorithm) = new.object()?;
        self.client().put_key(&format!("store key 0x{:04x}", new.id), &object, algorithm, &bytes)?;
        self.prove(new.id, Some(secret.public_key()))
    }

    /// Wraps a key with a wrap key of the device.
    pub(crate) fn export(&self, id: u16, wrap_key: u16) -> Result<Vec<u8>, AdminError> {
        let key = self.key(id)?;
        if !key.exportable {
            let text = format!("its key 0x{id:04x} was made non-exportable: it cannot be backed up");
            return Err(Trouble::Rejected(text.into()).into());
        }
        let what = format!("wrap key 0x{id:04x} with wrap key 0x{wrap_key:04x}");
        Ok(self.client().export_wrapped(&what, wrap_key, id, Type::AsymmetricKey)?)
    }

    /// Unwraps a key with a wrap key of the device, and proves it. The wrapped key contains its id and label. Its id must be
    /// `id` if one is given, and the key must be the one `expected` for its id.
    pub(crate) fn import_wrapped(
        &self,
        wrapped: &[u8],
        wrap_key: u16,
        id: Option<u16>,
        expected: impl FnOnce(u16) -> Option<PublicKey>,
    ) -> Result<Made, AdminError> {
        id.map_or(Ok(()), |id| self.refuse_taken(id))?;
        let what = format!("unwrap the backup with wrap key 0x{wrap_key:04x}");
        let (kind, found) = self.client().import_wrapped(&what, wrap_key, wrapped)?;
        if kind != Type::AsymmetricKey {
            let why = format!("the backup holds an object of type {kind}, not a signing key");
            return Err(self.undo(found, kind, why));
        }
        if let Some(id) = id.filter(|id| *id != found) {
            let why = format!("the backup holds key 0x{found:04x}, not 0x{id:04x}");
            return Err(self.undo(found, kind, why));
        }
        self.prove(found, expected(found))
    }

    fn refuse_taken(&self, id: u16) -> Result<(), AdminError> {
        if self.ids()?.contains(&id) { Err(AdminError::Exists { id }) } else { Ok(()) }
    }

    /// Proves that a new key is the expected one and signs. Deletes it otherwise.
    fn prove(&self, id: u16, expected: Option<PublicKey>) -> Result<Made, AdminError> {
        self.try_to_prove(id, expected).map_err(|trouble| {
            let why = trouble.text().to_owned();
            self.undo(id, Type::AsymmetricKey, why)
        })
    }

    fn try_to_prove(&self, id: u16, expected: Option<PublicKey>) -> Result<Made, Trouble> {
        let wrong = |text: &str| Err(Trouble::Rejected(text.into()));
        let info = self.key_info(id)?;
        let Some(public_key) = info.public_key.clone() else { return wrong("it is none that Highwater signs with") };
        if let Some(expected) = expected.filter(|expected| *expected != public_key) {
            return wrong(&format!("the device reports {public_key}, but it must be {expected}"));
        }
        let signed = self.may(algorithms::of(public_key.key_type())?.may_sign);
        if signed {
            let signature = self.sign(id, public_key.key_type(), SELF_TEST)?;
            if !public_key.verifies(SELF_TEST, &signature) {
                return wrong("its signature over the self-test does not verify");
            }
        }
        Ok(Made { info, public_key, signed })
    }

    fn undo(&self, id: u16, kind: Type, why: String) -> AdminError {
        let deleted = if self.client.is_good() {
            self.delete(id, kind)
        } else {
            // What failed may have cost the session.
            Self::open(&mut self.login.again()).and_then(|session| session.delete(id, kind))
        };
        AdminError::Unproven { id, why, left: deleted.err() }
    }

    pub(super) fn delete(&self, id: u16, kind: Type) -> Result<(), Trouble> {
        self.client().delete(&format!("delete {kind} 0x{id:04x}"), id, kind)
    }

    /// Every object that the authentication key may see, in words. One that came with the device has the id 0.
    pub(super) fn objects(&self) -> Result<Vec<String>, Trouble> {
        const TYPES: [Type; 7] = [
            Type::Opaque,
            Type::AuthenticationKey,
            Type::AsymmetricKey,
            Type::WrapKey,
            Type::HmacKey,
            Type::Template,
            Type::OtpAeadKey,
        ];
        let mut objects = Vec::new();
        for kind in TYPES {
            let ids = self.client().list("list its objects", kind)?;
            objects.extend(ids.into_iter().filter(|id| *id != 0).map(|id| format!("{kind} 0x{id:04x}")));
        }
        Ok(objects)
    }

    pub(crate) fn auth_key(&self) -> u16 {
        self.auth_key
    }

    fn ids(&self) -> Result<Vec<u16>, Trouble> {
        let mut ids = self.client().list("list its keys", Type::AsymmetricKey)?;
        ids.sort_unstable();
        Ok(ids)
    }

    fn key_info(&self, id: u16) -> Result<DeviceKeyInfo, Trouble> {
        let info = self.info(id, Type::AsymmetricKey)?;
        let algorithm = info.algorithm.as_ref().ok().and_then(|algorithm| algorithm.asymmetric());
        let key_type = algorithm.and_then(algorithms::named).map(|known| known.key_type);
        let public_key = key_type.map(|key_type| self.client().public_key(id, key_type));
        let domains = (1..=16).filter(|domain| info.domains.bits() & 1 << (domain - 1) != 0);
        Ok(DeviceKeyInfo {
            id,
            // What is not UTF-8 is replaced.
            label: info.label,
            key_type,
            public_key: public_key.transpose()?,
            algorithm: match (algorithm, &info.algorithm) {
                (Some(algorithm), _) => format!("{algorithm:?}"),
                (None, Ok(other)) => format!("{other:?}"),
                (None, Err(number)) => format!("algorithm {number}"),
            },
            birth: match info.origin {
                Some(Origin::Generated) => Birth::Generated,
                Some(Origin::WrappedGenerated) => Birth::WrappedGenerated,
                Some(Origin::WrappedImported) => Birth::WrappedImported,
                // The worse of what is possible.
                Some(Origin::Imported) | None => Birth::Imported,
            },
            exportable: info.capabilities.contains(Capability::EXPORTABLE_UNDER_WRAP),
            domains: domains.collect(),
        })
    }

    fn info(&self, id: u16, kind: Type) -> Result<ObjectInfo, Trouble> {
        self.client().object_info(&format!("describe {kind} 0x{id:04x}"), id, kind)
    }
}

impl NewKey {
    /// The object and its algorithm, as the device calls them.
    fn object(&self) -> Result<(NewObject, Algorithm), Trouble> {
        let algorithm = algorithms::of(self.key_type)?;
        let exportable = if self.exportable { Capability::EXPORTABLE_UNDER_WRAP } else { Capability::empty() };
        let object = NewObject {
            id: self.id,
            label: label(&self.label)?,
            domains: Domain::DOM1,
            capabilities: algorithm.may_sign | exportable,
        };
        Ok((object, algorithm.asymmetric))
    }
}

pub(super) fn label(text: &str) -> Result<Label, Trouble> {
    Label::from_bytes(text.as_bytes())
        .map_err(|_| Trouble::Rejected(format!("a label may have at most {LABEL_MAX_BYTES} bytes").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_proof_says_whether_the_key_is_gone() {
        let unproven = |left| AdminError::Unproven { id: 5, why: "it does not sign".into(), left }.to_string();
        assert!(unproven(None).ends_with("it does not sign. It was deleted again"));
        let left = unproven(Some(Trouble::Rejected("it refused".into())));
        assert!(left.contains("0x0005") && left.ends_with("must be deleted manually: it refused"), "{left}");
    }

    #[test]
    fn a_key_may_sign_in_its_own_way_and_leave_only_if_that_is_said() {
        let new = |key_type, exportable| {
            NewKey { id: 1, label: String::new(), key_type, exportable }.object().unwrap().0.capabilities
        };
        assert_eq!(new(KeyType::Ed25519, false), Capability::SIGN_EDDSA);
        assert_eq!(new(KeyType::Secp256k1, true), Capability::SIGN_ECDSA | Capability::EXPORTABLE_UNDER_WRAP);
        assert!(label(&"a".repeat(LABEL_MAX_BYTES)).is_ok() && label(&"a".repeat(LABEL_MAX_BYTES + 1)).is_err());
    }
}
