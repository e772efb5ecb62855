//! What a child process needs to sign with a token: module, token and keys. No secret.

use super::profile::Profile;
use crate::config::secret::CREDENTIALS_VARIABLE;
use highwater_core::{consensus::KeyType, hex::Hex};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// Longest accepted `CKA_ID` or `CKA_LABEL`, in bytes.
pub const OBJECT_NAME_MAX_BYTES: usize = 255;

/// One token of one module, and its signing keys.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TokenSpec {
    /// The PKCS#11 module, an absolute path.
    pub module: PathBuf,
    pub profile: Profile,
    pub token: TokenSelector,
    /// Requests name a key by its index here.
    pub keys: Vec<KeySpec>,
    /// Files, directories and devices that its section lets it read and write.
    pub files: Vec<PathBuf>,
    /// Environment variables that its section passes to it.
    pub environment: Vec<String>,
    /// The signer's own files, never within its reach: state, keys, PINs, configuration, audit, control socket.
    pub never: Vec<PathBuf>,
}

impl TokenSpec {
    /// The environment variables passed to a module, if they are set. `secret` are the variables with PINs.
    pub fn variables<'a>(&'a self, secret: &'a [String]) -> impl Iterator<Item = &'a str> {
        let of_profile = self.profile.module.environment.iter().map(|variable| &variable.name);
        let names = of_profile.chain(&self.environment);
        names.filter(|name| *name != CREDENTIALS_VARIABLE && !secret.contains(name)).map(String::as_str)
    }
}

/// How a token is found. Never by slot number, which changes when a token is initialised or plugged in again.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum TokenSelector {
    /// Both must match, as a `pkcs11:` URI says.
    Both {
        label: String,
        serial: String,
    },
    Label(String),
    Serial(String),
}

impl TokenSelector {
    /// What is given of the two. `None` if nothing is.
    pub fn of(label: Option<String>, serial: Option<String>) -> Option<Self> {
        match (label, serial) {
            (Some(label), Some(serial)) => Some(Self::Both { label, serial }),
            (Some(label), None) => Some(Self::Label(label)),
            (None, serial) => serial.map(Self::Serial),
        }
    }

    /// Its label, if it names one.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Both { label, .. } | Self::Label(label) => Some(label),
            Self::Serial(_) => None,
        }
    }

    /// Its serial number, if it names one.
    pub fn serial(&self) -> Option<&str> {
        match self {
            Self::Both { serial, .. } | Self::Serial(serial) => Some(serial),
            Self::Label(_) => None,
        }
    }

    /// Whether it is the token with this label and this serial number.
    pub fn names(&self, label: &str, serial: &str) -> bool {
        self.label().is_none_or(|wanted| wanted == label) && self.serial().is_none_or(|wanted| wanted == serial)
    }

    /// Whether both name one thing, and it is the same, and nothing that differs.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let shares = |a: Option<&str>, b: Option<&str>| a.is_some() && a == b;
        self.may_be(other) && (shares(self.label(), other.label()) || shares(self.serial(), other.serial()))
    }

    /// Whether both can mean the same token.
    pub fn may_be(&self, other: &Self) -> bool {
        let agree = |a: Option<&str>, b: Option<&str>| a.zip(b).is_none_or(|(a, b)| a == b);
        agree(self.label(), other.label()) && agree(self.serial(), other.serial())
    }
}

impl fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both { label, serial } => write!(f, "token {label:?} with serial {serial}"),
            Self::Label(label) => write!(f, "token {label:?}"),
            Self::Serial(serial) => write!(f, "token with serial {serial}"),
        }
    }
}

/// A key on a token.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct KeySpec {
    pub object: ObjectSelector,
    #[serde(with = "algorithm")]
    pub key_type: KeyType,
    /// The pinned public key, raw: it decides between objects with the same name.
    pub public_key: Vec<u8>,
}

/// An algorithm is sent by its name.
pub(crate) mod algorithm {
    use highwater_core::consensus::KeyType;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    const ALL: [KeyType; 2] = [KeyType::Ed25519, KeyType::Secp256k1];

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
    pub(crate) fn serialize<S: Serializer>(key_type: &KeyType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(key_type.name())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyType, D::Error> {
        let name = String::deserialize(deserializer)?;
        let key_type = ALL.into_iter().find(|key_type| key_type.name() == name);
        key_type.ok_or_else(|| D::Error::custom(format_args!("there is no algorithm {name:?}")))
    }
}

/// How a key is found on its token: by one of these, together with its class. Never by its key type: some modules
/// cannot search for it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum ObjectSelector {
    /// Both must match.
    Both {
        /// `CKA_ID`
        id: Vec<u8>,
        /// `CKA_LABEL`
        label: String,
    },
    /// `CKA_ID`
    Id(Vec<u8>),
    /// `CKA_LABEL`
    Label(String),
}

impl ObjectSelector {
    /// What is given of the two. `None` if nothing is.
    pub fn of(id: Option<Vec<u8>>, label: Option<String>) -> Option<Self> {
        match (id, label) {
            (Some(id), Some(label)) => Some(Self::Both { id, label }),
            (Some(id), None) => Some(Self::Id(id)),
            (None, label) => label.map(Self::Label),
        }
    }

    /// The `CKA_ID`, if it names one.
    pub fn id(&self) -> Option<&[u8]> {
        match self {
            Self::Both { id, .. } | Self::Id(id) => Some(id),
            Self::Label(_) => None,
        }
    }

    /// The `CKA_LABEL`, if it names one.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Both { label, .. } | Self::Label(label) => Some(label),
            Self::Id(_) => None,
        }
    }

    /// Whether it is the key with this id and this label.
    pub fn names(&self, id: &[u8], label: &str) -> bool {
        self.id().is_none_or(|wanted| wanted == id) && self.label().is_none_or(|wanted| wanted == label)
    }
}

impl fmt::Display for ObjectSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both { id, label } => write!(f, "id {} and label {label:?}", Hex(id)),
            Self::Id(id) => write!(f, "id {}", Hex(id)),
            Self::Label(label) => write!(f, "label {label:?}"),
        }
    }
}
