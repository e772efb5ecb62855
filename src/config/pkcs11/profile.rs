//! HSM profiles: the quirks of a family of PKCS#11 devices that Highwater has to know, with their sources.
//!
//! A profile is a TOML file in `hsm-profiles/`, built into the binary; operators may use their own file instead. For
//! anything that a profile omits, PKCS#11 3.0 applies.

use highwater_core::consensus::KeyType;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive, path::PathBuf};

/// Shortest and longest password of a YubiHSM authentication key, in bytes (`yubihsm_pkcs11.h`).
const YUBIHSM_PASSWORD_BYTES: RangeInclusive<usize> = 8..=64;

/// The quirks of a family of devices.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Profile {
    /// The name that `profile` in `[[providers.pkcs11]]` gives.
    pub name: String,
    pub evidence: ProfileEvidence,
    /// The versions it was tested with, if any.
    pub tested_with: Vec<String>,
    /// Where its content comes from.
    pub sources: Vec<String>,
    pub module: ModuleFacts,
    pub session: SessionFacts,
    pub ed25519: Ed25519Facts,
    /// Whether the module signs with secp256k1 keys, with `CKM_ECDSA`.
    pub secp256k1: bool,
    pub objects: Objects,
    pub limits: Limits,
    /// Errors whose meaning differs from the standard.
    pub errors: Vec<ErrorMeaning>,
}

/// How reliable the content of a profile is. From most to least.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum ProfileEvidence {
    /// It was run on a device or its simulator.
    Tested,
    /// It comes from the module's source code or headers.
    Source,
    /// It comes from the vendor's documentation.
    VendorDoc,
    /// It has no source.
    Unverified,
}

/// In words that follow "the profile x".
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
    /// Its usual paths, absolute, in the order to try. May be empty.
    pub paths: Vec<PathBuf>,
    /// What to install if it is missing; completes the sentence "install ...".
    pub install: String,
    /// Environment variables that it reads. Highwater passes on these and no others, and sets none.
    pub environment: Vec<EnvironmentVariable>,
    /// Files, directories and devices that it reads and writes, besides the system's libraries.
    pub files: Vec<PathBuf>,
    /// Its configuration files, unless a variable names others.
    pub configuration: Vec<PathBuf>,
    /// The settings in its configuration whose values are paths that it reads and writes.
    pub settings: Vec<String>,
    /// The text that C_Initialize passes to it, for modules that want one.
    pub init_string: Option<String>,
    /// Whether its device is on the network: allows TCP and UDP.
    pub network: bool,
    /// Whether it reaches its device through a service on this machine: allows unix sockets.
    pub sockets: bool,
}

/// An environment variable that a module reads.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct EnvironmentVariable {
    pub name: String,
    /// What it must contain.
    pub meaning: String,
    /// Whether the operator must set it.
    pub required: bool,
    /// Whether it contains the path of the module's configuration.
    pub file: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SessionFacts {
    /// For signing. Making, importing and deleting keys always takes a read-write session.
    pub mode: SessionMode,
    pub login: LoginKind,
    pub pin_format: PinFormat,
}

/// The kind of session used for signing.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum SessionMode {
    /// Sufficient for signing, if the module supports it.
    ReadOnly,
    /// For modules without read-only sessions.
    ReadWrite,
}

/// How the user logs in.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum LoginKind {
    Pin,
    /// On the device itself, with a keypad or a card: `C_Login` without a PIN.
    ProtectedPath,
}

/// The format of a PIN. Checked before any `C_Login`, because a wrong PIN can lock a token.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum PinFormat {
    Free,
    /// Four hex digits, the id of an authentication key, and its password: `0001password`.
    Hex4Password,
    /// A user name, a colon and the password.
    UserPassword,
}

impl PinFormat {
    /// Checks the format of `pin`. The error completes the sentence "the PIN ..." and contains no part of it.
    pub fn check(self, pin: &str) -> Result<(), &'static str> {
        let fits = match self {
            Self::Free => !pin.is_empty(),
            Self::Hex4Password => pin.split_at_checked(4).is_some_and(|(id, password)| {
                id.bytes().all(|byte| byte.is_ascii_hexdigit()) && YUBIHSM_PASSWORD_BYTES.contains(&password.len())
            }),
            Self::UserPassword => pin.split_once(':').is_some_and(|(user, word)| !user.is_empty() && !word.is_empty()),
        };
        if fits {
            return Ok(());
        }
        Err(match self {
            Self::Free => "is empty",
            Self::Hex4Password => {
                "must be four hex digits, the id of the authentication key, directly followed by its password of 8 to 64 \
                 bytes, as in 0001password"
            }
            Self::UserPassword => "must be a user name, a colon and the password, as in user:password",
        })
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Ed25519Facts {
    /// Whether the module signs with Ed25519 keys.
    pub supported: bool,
    /// The numbers it may use. The first whose `sign` is in the token's mechanism list applies. Not empty.
    pub numbers: Vec<Ed25519Numbers>,
    /// `CKA_EC_PARAMS` in DER, in the order to try when making or importing a key. Not empty.
    pub ec_params: Vec<Vec<u8>>,
    /// What the mechanism that signs is given.
    pub parameters: Ed25519Parameters,
}

/// The parameter of the mechanism that signs with Ed25519.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum Ed25519Parameters {
    /// None, which means Ed25519 itself in the standard.
    None,
    /// `CK_EDDSA_PARAMS` without `phFlag` and without context, for modules that want a parameter in any case.
    Pure,
}

/// A module's numbers for Ed25519.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Ed25519Numbers {
    /// The mechanism (`CKM_...`) that signs.
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

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Objects {
    /// Set `DECRYPT`, `UNWRAP`, `DERIVE` and `SIGN_RECOVER` of a new key to false, for modules that default to true.
    pub clear_unneeded_usages: bool,
    /// Import the public key as a separate object. False if the module derives it and refuses one.
    pub import_public_object: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Limits {
    /// The longest message that it signs, in bytes, if it has a limit.
    pub max_message_bytes: Option<u64>,
    /// How long one signature over a vote takes, in milliseconds, if known.
    pub expected_ms: Option<u64>,
}

/// What an error of the module means on this device.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ErrorMeaning {
    /// The return value's name without `CKR_`, as in `DEVICE_MEMORY`.
    pub name: String,
    /// What it means, for the operator.
    pub meaning: String,
}

impl Profile {
    /// Whether these devices sign with keys of `key_type`.
    pub fn supports(&self, key_type: KeyType) -> bool {
        match key_type {
            KeyType::Ed25519 => self.ed25519.supported,
            KeyType::Secp256k1 => self.secp256k1,
        }
    }

    /// The first environment variable that the module needs and that is not set.
    pub fn missing_variable(&self, is_set: impl Fn(&str) -> bool) -> Option<&EnvironmentVariable> {
        self.module.environment.iter().find(|variable| variable.required && !is_set(&variable.name))
    }

    /// The special meaning of the return value `name` (with or without `CKR_`) on these devices, if any.
    pub fn error_meaning(&self, name: &str) -> Option<&str> {
        let name = name.trim_start_matches("CKR_");
        self.errors.iter().find(|error| error.name == name).map(|error| error.meaning.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_of_a_wrong_format_are_refused() {
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
