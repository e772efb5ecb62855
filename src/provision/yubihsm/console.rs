//! What an operator does with the keys of a device, in one session. Every call has a deadline of its own.

use crate::keyring::{
    device::Trouble,
    softsign::SecretKey,
    yubihsm::{access::Access, algorithms, client::Client, lane::Lane},
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
    object::{Entry, Filter, Info, LABEL_SIZE, Label, Origin, Type},
    wrap::Message,
};
use zeroize::Zeroizing;

/// How long a device may take for one command. A slow one takes a quarter of a second.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The longest label, in bytes.
pub const LABEL_MAX_BYTES: usize = LABEL_SIZE;

/// A session with a device for an operator.
pub struct Console {
    lane: Lane,
    /// What the authentication key may do, if it may know.
    rights: Option<Capability>,
    auth_key: u16,
}

/// An asymmetric key on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its object id.
    pub id: u16,
    /// Its label.
    pub label: String,
    /// What it is, if Highwater signs with such keys.
    pub key_type: Option<KeyType>,
    /// Its public half, of such a key.
    pub public_key: Option<PublicKey>,
    /// The algorithm in the words of the `yubihsm` crate.
    pub algorithm: String,
    /// Where it was born.
    pub birth: Birth,
    /// Whether it leaves the device, wrapped by another key.
    pub exportable: bool,
    /// The domains that it is in, each from 1 to 16.
    pub domains: Vec<u8>,
}

/// Where a key was born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// In this device.
    Generated,
    /// Outside, and then put in.
    Imported,
    /// In a device, and it came here wrapped.
    WrappedGenerated,
    /// Outside, and it came here wrapped.
    WrappedImported,
}

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its object id.
    pub id: u16,
    /// Its label, of [`LABEL_MAX_BYTES`] at most.
    pub label: String,
    /// Its algorithm.
    pub key_type: KeyType,
    /// Whether it may leave the device, wrapped by another key.
    pub exportable: bool,
}

/// A key that was just made, and shown to be the right one.
#[derive(Clone, Debug)]
pub struct Made {
    /// The key, as the device shows it.
    pub info: KeyInfo,
    /// Its public half.
    pub public_key: PublicKey,
    /// Whether it signed. It did not if the authentication key may not sign.
    pub signed: bool,
}

/// Why something was not done. In words that follow the name of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleError {
    /// The device was not reached, or said no.
    Device(Trouble),
    /// The id is taken.
    Exists {
        /// The id.
        id: u16,
    },
    /// A device takes seeds only.
    Expanded,
    /// There is no such key.
    NoKey {
        /// The id.
        id: u16,
        /// The ids that there are.
        present: Vec<u16>,
    },
    /// A new key is not what it must be.
    Unproven {
        /// Its id.
        id: u16,
        /// What is wrong with it.
        why: String,
        /// Why it is still there, if it is.
        left: Option<Trouble>,
    },
}

impl fmt::Display for ConsoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(trouble) => f.write_str(trouble.text()),
            Self::Exists { id } => write!(f, "it has a key 0x{id:04x} already, and no key is overwritten: take another id"),
            Self::Expanded => f.write_str(
                "it takes the 32-byte seed of an Ed25519 key, and this key is expanded: its seed was hashed and is lost, so \
                 the key can only go into a device as a backup that a YubiHSM made",
            ),
            Self::NoKey { id, present } if present.is_empty() => {
                write!(f, "it has no key 0x{id:04x}, nor any other that this authentication key may see")
            }
            Self::NoKey { id, present } => {
                let present: Vec<_> = present.iter().map(|id| format!("0x{id:04x}")).collect();
                write!(f, "it has no key 0x{id:04x}, only {}", present.join(", "))
            }
            Self::Unproven { id, why, left } => {
                write!(f, "its new key 0x{id:04x} is not to be used: {why}. ")?;
                match left {
                    None => f.write_str("It was deleted again"),
                    Some(trouble) => write!(f, "It is still there and must be deleted by hand: {}", trouble.text()),
                }
            }
        }
    }
}

impl From<Trouble> for ConsoleError {
    fn from(trouble: Trouble) -> Self {
        Self::Device(trouble)
    }
}

impl Console {
    /// Opens a session.
    pub fn open(access: &mut Access) -> Result<Self, Trouble> {
        let lane = access.open(Instant::now() + PATIENCE)?;
        let auth_key = access.config().auth_key;
        let mut console = Self { lane, rights: None, auth_key };
        console.rights = match console.info(auth_key, Type::AuthenticationKey) {
            Ok(info) => Some(info.capabilities),
            Err(Trouble::Rejected(_)) => None,
            Err(trouble) => return Err(trouble),
        };
        Ok(console)
    }

    /// Has the device do something, within [`PATIENCE`].
    pub(super) fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Client) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        self.lane.call(Instant::now() + PATIENCE, act)
    }

    /// Whether the authentication key may do this. True if it does not say.
    pub(super) fn may(&self, capability: Capability) -> bool {
        self.rights.is_none_or(|rights| rights.contains(capability))
    }

    /// The device's serial number.
    pub fn serial_number(&self) -> Result<String, Trouble> {
        self.ask(|client| {
            let info = client.ask("tell its serial number", yubihsm::Client::device_info)?;
            Ok(info.serial_number.to_string())
        })
    }

    /// So many random bytes from the device.
    pub(super) fn random(&self, bytes: usize) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let random = self.ask(move |client| {
            client.ask("give random numbers", |client| client.get_pseudo_random(bytes)).map(Zeroizing::new)
        })?;
        if random.len() == bytes {
            Ok(random)
        } else {
            Err(Trouble::Broken("it gave another number of random bytes than it was asked for".into()))
        }
    }

    /// Every asymmetric key that the authentication key may see, by id.
    pub fn keys(&self) -> Result<Vec<KeyInfo>, Trouble> {
        self.ids()?.into_iter().map(|id| self.key_info(id)).collect()
    }

    /// The key with that id.
    pub fn key(&self, id: u16) -> Result<KeyInfo, ConsoleError> {
        let present = self.ids()?;
        if present.contains(&id) { Ok(self.key_info(id)?) } else { Err(ConsoleError::NoKey { id, present }) }
    }

    /// Signs a message with a key.
    pub fn sign(&self, id: u16, key_type: KeyType, message: &'static [u8]) -> Result<Signature, Trouble> {
        self.ask(move |client| client.sign(id, key_type, message))
    }

    /// Has the device make a key, and proves it.
    pub fn generate(&self, new: &NewKey) -> Result<Made, ConsoleError> {
        self.refuse_taken(new.id)?;
        let (id, label, (algorithm, capabilities)) = (new.id, label(&new.label)?, new.kind()?);
        self.ask(move |client| {
            let make = |client: &yubihsm::Client| {
                client.generate_asymmetric_key(id, label, Domain::DOM1, capabilities, algorithm)
            };
            client.ask(&format!("make key 0x{id:04x}"), make)
        })?;
        self.prove(id, None)
    }

    /// Puts the key of a file into the device, and proves it.
    pub fn import(&self, new: &NewKey, secret: &SecretKey) -> Result<Made, ConsoleError> {
        let bytes = secret.for_devices().ok_or(ConsoleError::Expanded)?;
        self.refuse_taken(new.id)?;
        let (id, label, (algorithm, capabilities)) = (new.id, label(&new.label)?, new.kind()?);
        self.ask(move |client| {
            // The crate takes the bytes by value and does not wipe its copy; the process ends soon.
            let put = |client: &yubihsm::Client| {
                client.put_asymmetric_key(id, label, Domain::DOM1, capabilities, algorithm, bytes.to_vec())
            };
            client.ask(&format!("take key 0x{id:04x}"), put)
        })?;
        self.prove(id, Some(secret.public_key()))
    }

    /// Wraps a key with a wrap key of the device.
    pub fn export(&self, id: u16, wrap_key: u16) -> Result<Vec<u8>, ConsoleError> {
        let key = self.key(id)?;
        if !key.exportable {
            let text = format!("its key 0x{id:04x} was made so that it never leaves: there can be no backup of it");
            return Err(Trouble::Rejected(text.into()).into());
        }
        let wrapped = self.ask(move |client| {
            let what = format!("wrap key 0x{id:04x} with wrap key 0x{wrap_key:04x}");
            client.ask(&what, |client| client.export_wrapped(wrap_key, Type::AsymmetricKey, id))
        })?;
        Ok(wrapped.into_vec())
    }

    /// Unwraps a key with a wrap key of the device, and proves it. The wrapped key has its id and label in it. It must be
    /// `id` if one is given, and the key that is `expected` for its id.
    pub fn import_wrapped(
        &self,
        wrapped: Vec<u8>,
        wrap_key: u16,
        id: Option<u16>,
        expected: impl FnOnce(u16) -> Option<PublicKey>,
    ) -> Result<Made, ConsoleError> {
        id.map_or(Ok(()), |id| self.refuse_taken(id))?;
        let handle = self.ask(move |client| {
            let what = format!("unwrap the backup with wrap key 0x{wrap_key:04x}");
            // Shorter ones are no backups and never come here.
            let message = Message::from_vec(wrapped).map_err(|error| Trouble::Rejected(error.to_string().into()))?;
            client.ask(&what, |client| client.import_wrapped(wrap_key, message))
        })?;
        if handle.object_type != Type::AsymmetricKey {
            let why = format!("the backup holds no signing key but an object of the kind {}", handle.object_type);
            return Err(self.undo(handle.object_id, handle.object_type, why));
        }
        if let Some(id) = id.filter(|id| *id != handle.object_id) {
            let why = format!("the backup holds the key 0x{:04x} and not 0x{id:04x}", handle.object_id);
            return Err(self.undo(handle.object_id, handle.object_type, why));
        }
        self.prove(handle.object_id, expected(handle.object_id))
    }

    fn refuse_taken(&self, id: u16) -> Result<(), ConsoleError> {
        if self.ids()?.contains(&id) { Err(ConsoleError::Exists { id }) } else { Ok(()) }
    }

    /// Shows that a new key is the expected one and signs. Deletes it if it is not or does not.
    fn prove(&self, id: u16, expected: Option<PublicKey>) -> Result<Made, ConsoleError> {
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
            return wrong(&format!("the device says that it is {public_key}, and it must be {expected}"));
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

    fn undo(&self, id: u16, kind: Type, why: String) -> ConsoleError {
        ConsoleError::Unproven { id, why, left: self.delete(id, kind).err() }
    }

    pub(super) fn delete(&self, id: u16, kind: Type) -> Result<(), Trouble> {
        self.ask(move |client| {
            client.ask(&format!("delete {kind} 0x{id:04x}"), |client| client.delete_object(id, kind))
        })
    }

    /// The authentication key of this session.
    pub fn auth_key(&self) -> u16 {
        self.auth_key
    }

    fn ids(&self) -> Result<Vec<u16>, Trouble> {
        let filter = [Filter::Type(Type::AsymmetricKey)];
        let entries: Vec<Entry> =
            self.ask(move |client| client.ask("list its keys", |client| client.list_objects(&filter)))?;
        let mut ids: Vec<_> = entries.iter().map(|entry| entry.object_id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn key_info(&self, id: u16) -> Result<KeyInfo, Trouble> {
        let info = self.info(id, Type::AsymmetricKey)?;
        let algorithm = info.algorithm.asymmetric();
        let key_type = algorithm.and_then(algorithms::named).map(|known| known.key_type);
        let public_key = key_type.map(|key_type| self.ask(move |client| client.public_key(id, key_type)));
        let domains = (1..=16).filter(|domain| info.domains.bits() & 1 << (domain - 1) != 0);
        Ok(KeyInfo {
            id,
            // The crate replaces what is no UTF-8.
            label: info.label.to_string(),
            key_type,
            public_key: public_key.transpose()?,
            algorithm: algorithm.map_or_else(|| format!("{:?}", info.algorithm), |algorithm| format!("{algorithm:?}")),
            birth: match info.origin {
                Origin::Generated => Birth::Generated,
                Origin::Imported => Birth::Imported,
                Origin::WrappedGenerated => Birth::WrappedGenerated,
                Origin::WrappedImported => Birth::WrappedImported,
            },
            exportable: info.capabilities.contains(Capability::EXPORTABLE_UNDER_WRAP),
            domains: domains.collect(),
        })
    }

    fn info(&self, id: u16, kind: Type) -> Result<Info, Trouble> {
        self.ask(move |client| {
            client.ask(&format!("describe {kind} 0x{id:04x}"), |client| client.get_object_info(id, kind))
        })
    }
}

impl NewKey {
    /// Its algorithm and capabilities, as the device calls them.
    fn kind(&self) -> Result<(Algorithm, Capability), Trouble> {
        let algorithm = algorithms::of(self.key_type)?;
        let exportable = if self.exportable { Capability::EXPORTABLE_UNDER_WRAP } else { Capability::empty() };
        Ok((algorithm.asymmetric, algorithm.may_sign | exportable))
    }
}

pub(super) fn label(text: &str) -> Result<Label, Trouble> {
    let too_long = |_| Trouble::Rejected(format!("a label has at most {LABEL_MAX_BYTES} bytes").into());
    Label::from_bytes(text.as_bytes()).map_err(too_long)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_proof_says_whether_the_key_is_gone() {
        let unproven = |left| ConsoleError::Unproven { id: 5, why: "it does not sign".into(), left }.to_string();
        assert!(unproven(None).ends_with("it does not sign. It was deleted again"));
        let left = unproven(Some(Trouble::Rejected("it refused".into())));
        assert!(left.contains("0x0005") && left.ends_with("must be deleted by hand: it refused"), "{left}");
    }

    #[test]
    fn a_key_may_sign_in_its_own_way_and_leave_only_if_that_is_said() {
        let new = |key_type, exportable| NewKey { id: 1, label: String::new(), key_type, exportable }.kind().unwrap().1;
        assert_eq!(new(KeyType::Ed25519, false), Capability::SIGN_EDDSA);
        assert_eq!(new(KeyType::Secp256k1, true), Capability::SIGN_ECDSA | Capability::EXPORTABLE_UNDER_WRAP);
        assert!(label(&"a".repeat(LABEL_MAX_BYTES)).is_ok() && label(&"a".repeat(LABEL_MAX_BYTES + 1)).is_err());
    }
}
