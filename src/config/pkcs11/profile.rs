//! HSM profiles: the quirks of a family of PKCS#11 devices that change what Highwater does, and how each is known.
//!
//! A profile is a TOML file in `hsm-profiles/`, built into the binary; an operator may name a file of their own
//! instead. What a profile leaves out is as PKCS#11 3.0 has it.

use highwater_core::consensus::KeyType;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive, path::PathBuf};

/// Shortest and longest password of a YubiHSM authentication key, in bytes (`yubihsm_pkcs11.h`).
const YUBIHSM_PASSWORD_BYTES: RangeInclusive<usize> = 8..=64;

/// What is peculiar to a family of devices.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Profile {
    /// Its name, as `profile` of a `[[providers.pkcs11]]` gives it.
    pub name: String,
    /// How well its content is known.
    pub evidence: ProfileEvidence,
    /// With which versions it was tried, if it was.
    pub tested_with: Vec<String>,
    /// Where its content comes from.
    pub sources: Vec<String>,
    pub module: ModuleFacts,
    pub session: SessionFacts,
    pub ed25519: Ed25519,
    /// Whether the module signs with secp256k1 keys, by `CKM_ECDSA`.
    pub secp256k1: bool,
    /// How keys are searched for and made.
    pub objects: Objects,
    /// What the device can do at most.
    pub limits: Limits,
    /// Errors that mean something else here than in the standard.
    pub errors: Vec<ErrorMeaning>,
}

/// How well the content of a profile is known. In order: the later, the less.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ProfileEvidence {
    /// It was run.
    Tested,
    /// It was read in the module's source code or headers.
    Source,
    /// The vendor's documentation says so.
    VendorDoc,
    /// Nothing supports it.
    Unverified,
}

/// What this level of evidence means, in words that follow "the profile x".
impl fmt::Display for ProfileEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "comes from reading source code and was never run",
            Self::Tested => "is tested",
            Self::Unverified => "is unverified",
            Self::VendorDoc => "comes from the vendor's documentation and was never run",
        })
    }
}

/// The PKCS#11 module of a family of devices.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ModuleFacts {
    /// Where it is usually installed, absolute, in the order to try. May be empty.
    pub paths: Vec<PathBuf>,
    /// What to install where it is missing; completes the sentence "install ...".
    pub install: String,
    /// Environment variables that it reads. Highwater passes them on and never sets one; it gets no other.
    pub environment: Vec<EnvironmentVariable>,
    /// Files, directories and devices that it reads and writes, beside the system's libraries.
    pub files: Vec<PathBuf>,
    /// Its configuration, unless a variable names another.
    pub configuration: Vec<PathBuf>,
    /// The settings in its configuration whose values are paths that it reads and writes.
    pub settings: Vec<String>,
    /// Whether its device is on the network: it gets TCP and UDP.
    pub network: bool,
    /// Whether it reaches its device through a service on this machine: it gets unix sockets.
    pub sockets: bool,
}

/// An environment variable that a module reads.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct EnvironmentVariable {
    pub name: String,
    /// What it must hold.
    pub meaning: String,
    /// Whether the operator must set it.
    pub required: bool,
    /// Whether it holds the path of its configuration.
    pub file: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SessionFacts {
    /// Which kind of session signs. Making, importing and deleting keys always takes read and write.
    pub mode: SessionMode,
    /// How the user logs in.
    pub login: LoginKind,
    /// What a PIN looks like.
    pub pin_format: PinFormat,
}

/// Which kind of session signs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum SessionMode {
    /// Enough to sign, unless the module has none.
    ReadOnly,
    /// For modules without read-only sessions.
    ReadWrite,
}

/// How the user logs in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum LoginKind {
    Pin,
    /// At the device itself, on a keypad or with a card: `C_Login` without a PIN.
    ProtectedPath,
}

/// What a PIN looks like. It is looked at before any `C_Login`, because a wrong PIN can lock a token.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum PinFormat {
    Free,
    /// Four hex digits, the id of an authentication key, and its password: `0001password`.
    Hex4Password,
    /// A user's name, a colon and the password.
    UserPassword,
}

impl PinFormat {
    /// Whether `pin` can be one. The error completes the sentence "the PIN ..." and repeats nothing of it.
    pub fn check(self, pin: &str) -> Result<(), &'static str> {
        let fits = match self {
            Self::Free => !pin.is_empty(),
            Self::Hex4Password => pin.split_at_checked(4).is_some_and(|(id, password)| {
                id.bytes().all(|byte| byte.is_ascii_hexdigit()) && YUBIHSM_PASSWORD_BYTES.contains(&password.len())
            }),
            Self::UserPassword => pin.split_once(':').is_some_and(|(user, word)| !user.is_empty() && !word.is_empty()),
        };
        match self {
            _ if fits => Ok(()),
            Self::Free => Err("is empty"),
            Self::Hex4Password => Err("must be four hex digits, the id of the authentication key, and right behind \
                                       them its password of 8 to 64 bytes, as in 0001password"),
            Self::UserPassword => Err("must be a user's name, a colon and the password, as in user:password"),
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Ed25519 {
    /// Whether the module signs with them.
    pub supported: bool,
    /// The numbers it may know them by. The first whose `sign` is in the token's mechanism list is the one. Not empty.
    pub numbers: Vec<Ed25519Numbers>,
    /// `CKA_EC_PARAMS` in DER, in the order to try when a key is made or imported. Not empty.
    pub ec_params: Vec<Vec<u8>>,
}

/// What a module calls Ed25519.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Ed25519Numbers {
    /// The mechanism (`CKM_...`) that signs, always without parameters.
    pub sign: u64,
    /// The mechanism (`CKM_...`) that makes a key pair.
    pub generate: u64,
    /// The key type (`CKK_...`).
    pub key_type: u64,
}

impl Ed25519Numbers {
    /// `CKM_EDDSA`, `CKM_EC_EDWARDS_KEY_PAIR_GEN` and `CKK_EC_EDWARDS` of PKCS#11 3.0.
    pub const STANDARD: Self = Self { sign: 0x1057, generate: 0x1055, key_type: 0x40 };
}

/// How keys are searched for and made.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Objects {
    /// Set `DECRYPT`, `UNWRAP`, `DERIVE` and `SIGN_RECOVER` of a new key to false, for modules that default to true.
    pub clear_unneeded_usages: bool,
    /// Import the public key as an object of its own. False where the module derives it and refuses one.
    pub import_public_object: bool,
}

/// What the device can do at most.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Limits {
    /// The longest message that it signs, in bytes, if there is one.
    pub max_message_bytes: Option<u64>,
    /// How long one signature over a vote takes, in milliseconds, if known.
    pub expected_ms: Option<u64>,
}

/// What an error of the module really means.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ErrorMeaning {
    /// The name of the return value without `CKR_`, as in `DEVICE_MEMORY`.
    pub name: String,
    /// What it means, for the operator.
    pub meaning: String,
}

impl Profile {
    /// Whether the devices of this family sign with keys of `key_type`.
    pub fn supports(&self, key_type: KeyType) -> bool {
        match key_type {
            KeyType::Ed25519 => self.ed25519.supported,
            KeyType::Secp256k1 => self.secp256k1,
        }
    }

    /// The first environment variable that the module needs and for which `is_set` is false.
    pub fn missing_variable(&self, is_set: impl Fn(&str) -> bool) -> Option<&EnvironmentVariable> {
        self.module.environment.iter().find(|variable| variable.required && !is_set(&variable.name))
    }

    /// What the return value `name` (with or without `CKR_`) means on these devices, if it is special.
    pub fn error_meaning(&self, name: &str) -> Option<&str> {
        let name = name.trim_start_matches("CKR_");
        self.errors.iter().find(|error| error.name == name).map(|error| error.meaning.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_looked_at_before_a_device_is_asked() {
        use PinFormat::{Free, Hex4Password, UserPassword};
        for (format, pin, fits) in [
            (Free, "1", true),
            (Free, "", false),
            (Hex4Password, "0001password", true),
            (Hex4Password, "00fFpassword", true),
            (Hex4Password, "0001passwor", false),
            (Hex4Password, "000gpassword", false),
            (Hex4Password, "000épassword", false),
            (Hex4Password, "000", false),
            (UserPassword, "signer:pass:word", true),
            (UserPassword, ":password", false),
            (UserPassword, "signer:", false),
            (UserPassword, "password", false),
        ] {
            assert_eq!(format.check(pin).is_ok(), fits, "{format:?} {pin:?}");
        }
    }
}
