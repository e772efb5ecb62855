//! HSM profiles: the quirks of a family of PKCS#11 devices that change what Highwater does, and how each is known.
//!
//! A profile is a TOML file in `hsm-profiles/`, built into the binary; an operator may name a file of their own
//! instead. What a profile leaves out is as PKCS#11 3.0 has it.

use super::profile_reader;
use crate::config::{ConfigFinding, reader::nearest};
use highwater_core::consensus::KeyType;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// Every profile of `hsm-profiles/`, by name.
const BUILTIN: [(&str, &str); 8] = [
    ("aws-cloudhsm", include_str!("../../../hsm-profiles/aws-cloudhsm.toml")),
    ("entrust-nshield", include_str!("../../../hsm-profiles/entrust-nshield.toml")),
    ("ibm-ep11", include_str!("../../../hsm-profiles/ibm-ep11.toml")),
    ("kryoptic", include_str!("../../../hsm-profiles/kryoptic.toml")),
    ("nitrokey-nethsm", include_str!("../../../hsm-profiles/nitrokey-nethsm.toml")),
    ("softhsm2", include_str!("../../../hsm-profiles/softhsm2.toml")),
    ("thales-luna7", include_str!("../../../hsm-profiles/thales-luna7.toml")),
    ("yubihsm2-pkcs11", include_str!("../../../hsm-profiles/yubihsm2-pkcs11.toml")),
];
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
    /// The PKCS#11 module.
    pub module: ModuleFacts,
    /// Sessions and login.
    pub session: SessionFacts,
    /// Ed25519 keys.
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
    /// Its name.
    pub name: String,
    /// What it must hold.
    pub meaning: String,
    /// Whether the operator must set it.
    pub required: bool,
    /// Whether it holds the path of its configuration.
    pub file: bool,
}

/// Sessions and login.
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
    /// With a PIN.
    Pin,
    /// At the device itself, on a keypad or with a card: `C_Login` without a PIN.
    ProtectedPath,
}

/// What a PIN looks like. It is looked at before any `C_Login`, because a wrong PIN can lock a token.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum PinFormat {
    /// Any text.
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

/// Ed25519 keys.
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
    /// The names of the built-in profiles, in alphabetical order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The built-in profile of this name.
    pub fn builtin(name: &str) -> Option<Self> {
        let (_, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        Some(profile_reader::parse(text).expect("a test reads every built-in profile"))
    }

    /// Reads a profile of the operator's.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = fs::read_to_string(path).map_err(|error| ProfileError::Unreadable { path: path.into(), error })?;
        profile_reader::parse(&text).map_err(|findings| ProfileError::Invalid { path: path.into(), findings })
    }

    /// The built-in profile of this name, or what `load` reads from this path. A path has a `/` or ends in `.toml`.
    pub fn by_name_or_path(
        text: &str,
        load: impl FnOnce(&Path) -> Result<Self, ProfileError>,
    ) -> Result<Self, ProfileError> {
        match text.contains('/') || text.ends_with(".toml") {
            true => load(Path::new(text)),
            false => Self::builtin(text).ok_or_else(|| ProfileError::Unknown { name: text.into() }),
        }
    }

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

/// Why there is no profile.
#[derive(Debug)]
pub enum ProfileError {
    /// The file can be read, but not used.
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, in the order of the file. Not empty.
        findings: Vec<ConfigFinding>,
    },
    /// No built-in profile has this name.
    Unknown {
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { path, findings } => {
                let lines: Vec<_> = findings.iter().map(|finding| finding.at(path)).collect();
                write!(f, "the profile cannot be used: {}", lines.join("; "))
            }
            Self::Unknown { name } => {
                write!(f, "there is no profile {name:?}: ")?;
                if let Some(near) = nearest(name, Profile::names()) {
                    write!(f, "did you mean {near:?}? ")?;
                }
                let names: Vec<_> = Profile::names().collect();
                write!(f, "The profiles are {}; or name a file that ends in .toml", names.join(", "))
            }
            Self::Unreadable { path, error } => {
                write!(f, "the profile {} cannot be read ({error}): correct the path", path.display())
            }
        }
    }
}

impl std::error::Error for ProfileError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    #[test]
    fn every_file_in_the_folder_is_built_in_and_bears_its_own_name() {
        let entries = fs::read_dir(repository("hsm-profiles")).unwrap().map(|entry| entry.unwrap().path());
        let mut on_disk = BTreeSet::new();
        for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
            let profile = Profile::load(&path).unwrap_or_else(|error| panic!("{error}"));
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert_eq!(profile.name, stem);
            assert_eq!(Profile::builtin(stem), Some(profile), "{stem} is in BUILTIN");
            on_disk.insert(stem.to_owned());
        }
        assert_eq!(Profile::names().map(str::to_owned).collect::<BTreeSet<_>>(), on_disk);
        assert!(Profile::names().is_sorted());
    }

    #[test]
    fn every_built_in_profile_has_a_row_in_the_list_of_devices() {
        let list = fs::read_to_string(repository("docs/hsm-devices.md")).unwrap();
        for name in Profile::names() {
            let cell = format!("| `{name}` |");
            let rows: Vec<_> = list.lines().filter(|line| line.contains(&cell)).collect();
            let [row] = rows.as_slice() else { panic!("one row for {name}, not {rows:?}") };
            let profile = Profile::builtin(name).unwrap();
            let level = match profile.evidence {
                ProfileEvidence::Source => "source",
                ProfileEvidence::Tested => "tested",
                ProfileEvidence::Unverified => "unverified",
                ProfileEvidence::VendorDoc => "vendor-doc",
            };
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            assert!(cells[4].starts_with(level), "{row}");
            assert_eq!(cells[3].starts_with("yes"), profile.supports(KeyType::Ed25519), "{row}");
        }
    }

    #[test]
    fn a_profile_survives_the_way_to_a_child() {
        for name in Profile::names() {
            let profile = Profile::builtin(name).unwrap();
            let sent = serde_json::to_string(&profile).unwrap();
            assert_eq!(serde_json::from_str::<Profile>(&sent).unwrap(), profile);
        }
    }

    #[test]
    fn the_curve_is_named_as_each_device_wants_it() {
        let first = |name: &str| Profile::builtin(name).unwrap().ed25519.ec_params[0].clone();
        assert_eq!(first("softhsm2"), [0x06, 0x03, 0x2b, 0x65, 0x70]);
        assert_eq!(first("yubihsm2-pkcs11"), b"\x13\x0cedwards25519");
        assert_eq!(first("thales-luna7"), [0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01]);
        let numbers = Profile::builtin("ibm-ep11").unwrap().ed25519.numbers;
        assert_eq!(numbers, [Ed25519Numbers { sign: 0x8001_001c, generate: 0x1040, key_type: 3 }]);
    }

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

    #[test]
    fn a_profile_is_found_by_name_or_by_path() {
        let load = |path: &Path| Err(ProfileError::Unknown { name: format!("loaded {}", path.display()) });
        assert_eq!(Profile::by_name_or_path("kryoptic", load).unwrap().name, "kryoptic");
        for (text, expected) in [
            ("kryoptics", "no profile \"kryoptics\": did you mean \"kryoptic\"? The profiles are aws-cloudhsm, "),
            ("zzz", "no profile \"zzz\": The profiles are"),
            ("kryoptic.toml", "loaded kryoptic.toml"),
            ("./kryoptic", "loaded ./kryoptic"),
        ] {
            let error = Profile::by_name_or_path(text, load).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} contains {expected:?}");
        }
    }

    #[test]
    fn what_a_module_needs_and_means_is_told() {
        let profile = Profile::builtin("yubihsm2-pkcs11").unwrap();
        assert_eq!(profile.missing_variable(|_| false).unwrap().name, "YUBIHSM_PKCS11_CONF");
        assert_eq!(profile.missing_variable(|_| true), None);
        assert!(profile.error_meaning("CKR_DEVICE_MEMORY").unwrap().contains("audit log"));
        assert_eq!(profile.error_meaning("DEVICE_ERROR"), None);
        assert_eq!(profile.limits.max_message_bytes, Some(2019));
    }
}
