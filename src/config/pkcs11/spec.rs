//! What a child process has to know to sign with a token: which module, which token, which keys. No secret.

use super::profile::Profile;
use highwater_core::{consensus::KeyType, hex::Hex};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// Longest `CKA_ID` or `CKA_LABEL` that is taken, in bytes.
pub const OBJECT_NAME_MAX_BYTES: usize = 255;

/// One token of one module, and the keys on it that sign.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TokenSpec {
    /// The PKCS#11 module, an absolute path.
    pub module: PathBuf,
    /// What is peculiar to it.
    pub profile: Profile,
    /// Which token.
    pub token: TokenSelector,
    /// Which keys, in the order in which they are asked for.
    pub keys: Vec<KeySpec>,
    /// Files, directories and devices that its section names, for it to read and write.
    pub files: Vec<PathBuf>,
    /// Environment variables that its section names, for it to get.
    pub environment: Vec<String>,
    /// What is the signer's alone, whatever is named: state, keys, PINs, configuration, audit, control socket.
    pub never: Vec<PathBuf>,
}

/// How a token is found. Never by slot number, which changes when a token is initialised or plugged in anew.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum TokenSelector {
    /// By its label.
    Label(String),
    /// By its serial number.
    Serial(String),
}

impl fmt::Display for TokenSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "token {label:?}"),
            Self::Serial(serial) => write!(f, "token with serial {serial}"),
        }
    }
}

/// A key on a token.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct KeySpec {
    /// Which object.
    pub object: ObjectSelector,
    /// Which algorithm.
    pub key_type: AlgorithmSpec,
}

/// The algorithm of a key, as it travels to the child.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum AlgorithmSpec {
    /// Ed25519.
    Ed25519,
    /// secp256k1.
    Secp256k1,
}

impl From<KeyType> for AlgorithmSpec {
    fn from(key_type: KeyType) -> Self {
        match key_type {
            KeyType::Ed25519 => Self::Ed25519,
            KeyType::Secp256k1 => Self::Secp256k1,
        }
    }
}

impl From<AlgorithmSpec> for KeyType {
    fn from(algorithm: AlgorithmSpec) -> Self {
        match algorithm {
            AlgorithmSpec::Ed25519 => Self::Ed25519,
            AlgorithmSpec::Secp256k1 => Self::Secp256k1,
        }
    }
}

/// How a key is found on its token: by exactly one of these, together with its class. Never by its key type, which
/// some modules refuse to search for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum ObjectSelector {
    /// `CKA_ID`
    Id(Vec<u8>),
    /// `CKA_LABEL`
    Label(String),
}

impl fmt::Display for ObjectSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "id {}", Hex(id)),
            Self::Label(label) => write!(f, "label {label:?}"),
        }
    }
}
