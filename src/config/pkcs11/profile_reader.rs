//! Reads a profile from TOML and reports every mistake with its line.

use super::profile::{
    Ed25519Facts, Ed25519Numbers, Ed25519Parameters, EnvironmentVariable, ErrorMeaning, Limits, LoginKind, ModuleFacts,
    Objects, PinFormat, Profile, ProfileEvidence, SessionFacts, SessionMode,
};
use crate::config::{
    finding::ConfigFinding,
    reader::{ConfigFindings, Table, Value, nearest},
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};
use toml::de::DeTable;

/// Every profile of `hsm-profiles/`, by name.
const BUILTIN: [(&str, &str); 9] = [
    ("aws-cloudhsm", include_str!("../../../hsm-profiles/aws-cloudhsm.toml")),
    ("entrust-nshield", include_str!("../../../hsm-profiles/entrust-nshield.toml")),
    ("ibm-ep11", include_str!("../../../hsm-profiles/ibm-ep11.toml")),
    ("kryoptic", include_str!("../../../hsm-profiles/kryoptic.toml")),
    ("nitrokey-nethsm", include_str!("../../../hsm-profiles/nitrokey-nethsm.toml")),
    ("opencryptoki", include_str!("../../../hsm-profiles/opencryptoki.toml")),
    ("softhsm2", include_str!("../../../hsm-profiles/softhsm2.toml")),
    ("thales-luna7", include_str!("../../../hsm-profiles/thales-luna7.toml")),
    ("yubihsm2-pkcs11", include_str!("../../../hsm-profiles/yubihsm2-pkcs11.toml")),
];
/// `CKA_EC_PARAMS` as the object identifier of Ed25519, 1.3.101.112 (RFC 8410).
const EC_PARAMS_OID: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
/// `CKA_EC_PARAMS` as a PrintableString (PKCS#11 3.0, 2.3.10): its DER tag and length, then the curve's name.
const EC_PARAMS_PRINTABLE_STRING: &[u8; 14] = b"\x13\x0cedwards25519";
/// The longest `CKA_EC_PARAMS` taken from a profile, in bytes.
const EC_PARAMS_MAX_BYTES: usize = 64;

impl Profile {
    /// The names of the built-in profiles, in alphabetical order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The built-in profile of this name.
    pub fn builtin(name: &str) -> Option<Self> {
        let (_, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        Some(parse(text).expect("a test reads every built-in profile"))
    }

    /// Reads an operator's own profile.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = fs::read_to_string(path).map_err(|error| ProfileError::Unreadable { path: path.into(), error })?;
        parse(&text).map_err(|findings| ProfileError::Invalid { path: path.into(), findings })
    }

    /// The built-in profile of this name, or the profile that `load` reads from this path. A path has a `/` or ends in
    /// `.toml`.
    pub fn by_name_or_path(
        text: &str,
        load: impl FnOnce(&Path) -> Result<Self, ProfileError>,
    ) -> Result<Self, ProfileError> {
        if text.contains('/') || text.ends_with(".toml") {
            return load(Path::new(text));
        }
        Self::builtin(text).ok_or_else(|| ProfileError::Unknown { name: text.into() })
    }
}

/// Reads `text`, or returns all mistakes in it.
fn parse(text: &str) -> Result<Profile, Vec<ConfigFinding>> {
    let mut findings = ConfigFindings::new(text);
    let profile = match DeTable::parse(text) {
        Ok(root) => Table::read("the profile", 0, root.get_ref(), &mut findings, read_profile),
        Err(error) => {
            let line = error.span().map_or(0, |span| findings.line(&span));
            findings.error(line, format!("this is not TOML: {}", error.message()));
            None
        }
    };
    findings.finish()?;
    Ok(profile.expect("what cannot be read gives a finding"))
}

fn read_profile(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Profile> {
    let name = table.require("name", "the profile's name, as in \"softhsm2\"", findings);
    let name = name.and_then(|value| words_of(value, "lower-case letters, digits and -", is_name, findings));
    let levels = [
        ("tested", ProfileEvidence::Tested),
        ("source", ProfileEvidence::Source),
        ("vendor-doc", ProfileEvidence::VendorDoc),
        ("unverified", ProfileEvidence::Unverified),
    ];
    let evidence = table.require("evidence", "\"tested\", \"source\", \"vendor-doc\" or \"unverified\"", findings);
    let evidence = evidence.and_then(|value| Some((value, value.one_of(&levels, findings)?)));
    let tested_with = table.get("tested_with", findings);
    let tested_with = tested_with.map_or(Some(Vec::new()), |value| texts(value, findings));
    if let (Some((value, level)), Some(with)) = (evidence, &tested_with)
        && (level == ProfileEvidence::Tested) == with.is_empty()
    {
        value.reject("\"tested\" and `tested_with` go together: list the versions it was tested with", findings);
    }
    let sources = table.require("sources", "where its content comes from", findings);
    let sources = sources.and_then(|value| texts(value, findings));

    let module = table.require("module", "`paths` and `install`", findings);
    let module = module.and_then(|value| value.table("[module]", findings, read_module).flatten());
    let session = section(table, "session", "[session]", findings, read_session);
    let ed25519 = table.require("ed25519", "`supported`", findings);
    let ed25519 = ed25519.and_then(|value| value.table("[ed25519]", findings, read_ed25519).flatten());
    let secp256k1 = table.require("secp256k1", "`supported`", findings);
    let secp256k1 = secp256k1.and_then(|value| value.table("[secp256k1]", findings, read_supported).flatten());
    let objects = section(table, "objects", "[objects]", findings, read_objects);
    let limits = section(table, "limits", "[limits]", findings, read_limits);
    let errors = table.get("errors", findings);
    let errors = errors.map(|value| value.tables("[[errors]]", findings, read_error));

    Some(Profile {
        name: name?,
        evidence: evidence?.1,
        tested_with: tested_with?,
        sources: sources?,
        module: module?,
        session: session?,
        ed25519: ed25519?,
        secp256k1: secp256k1?,
        objects: objects?,
        limits: limits?,
        errors: errors.unwrap_or_default(),
    })
}

/// An optional table. If it is missing, it reads like an empty one.
fn section<'t, T>(
    table: &mut Table<'t>,
    key: &'static str,
    name: &'static str,
    findings: &mut ConfigFindings<'_>,
    body: fn(&mut Table<'_>, &mut ConfigFindings<'_>) -> Option<T>,
) -> Option<T> {
    match table.get(key, findings) {
        Some(value) => value.table(name, findings, body).flatten(),
        None => Table::read(name, 0, &DeTable::new(), findings, body),
    }
}

fn read_module(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<ModuleFacts> {
    let paths = table.require("paths", "where the module is usually installed, or []", findings);
    let paths = paths.and_then(|value| absolute_paths(value, findings));
    let install = table.require("install", "what to install, in words", findings);
    let install = install.and_then(|value| text(value, findings));
    let environment = table.get("environment", findings).map(|value| {
        value.tables("[[module.environment]]", findings, |table, findings| {
            let (name, meaning) = name_and_meaning(table, is_environment_variable, findings)?;
            let mut flag = |key, default| optional(table, key, default, findings, Value::bool);
            let (required, file) = (flag("required", true), flag("file", false));
            Some(EnvironmentVariable { name, meaning, required: required?, file: file? })
        })
    });
    let files = optional(table, "files", Vec::new(), findings, absolute_paths);
    let configuration = optional(table, "configuration", Vec::new(), findings, absolute_paths);
    let settings = optional(table, "settings", Vec::new(), findings, texts);
    let init_string = optional(table, "init_string", None, findings, |value, f| text(value, f).map(Some));
    let mut flag = |key| optional(table, key, false, findings, Value::bool);
    let (network, sockets) = (flag("network"), flag("sockets"));
    Some(ModuleFacts {
        paths: paths?,
        install: install?,
        environment: environment.unwrap_or_default(),
        files: files?,
        configuration: configuration?,
        settings: settings?,
        init_string: init_string?,
        network: network?,
        sockets: sockets?,
    })
}

fn absolute_paths(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Vec<PathBuf>> {
    value.array(findings)?.into_iter().map(|entry| entry.absolute_path(findings)).collect()
}

fn read_session(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<SessionFacts> {
    let modes = [("ro", SessionMode::ReadOnly), ("rw", SessionMode::ReadWrite)];
    let logins = [("pin", LoginKind::Pin), ("protected-path", LoginKind::ProtectedPath)];
    let formats = [
        ("free", PinFormat::Free),
        ("hex4+password", PinFormat::Hex4Password),
        ("user:password", PinFormat::UserPassword),
    ];
    let mode = optional(table, "mode", SessionMode::ReadOnly, findings, |value, f| value.one_of(&modes, f));
    let login = optional(table, "login", LoginKind::Pin, findings, |value, f| value.one_of(&logins, f));
    let pin_format = optional(table, "pin_format", PinFormat::Free, findings, |value, f| value.one_of(&formats, f));
    Some(SessionFacts { mode: mode?, login: login?, pin_format: pin_format? })
}

fn read_ed25519(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Ed25519Facts> {
    let supported = read_supported(table, findings);
    let numbers = table.get("numbers", findings);
    let numbers = numbers.map(|value| value.tables("[[ed25519.numbers]]", findings, read_numbers));
    let ec_params = table.get("ec_params", findings);
    let ec_params = ec_params.map_or(Some(vec![EC_PARAMS_OID.to_vec()]), |value| {
        let entries = value.array(findings)?;
        if entries.is_empty() {
            value.reject("it must not be empty", findings);
        }
        entries.into_iter().map(|entry| read_ec_params(entry, findings)).collect()
    });
    let numbers = numbers.filter(|numbers| !numbers.is_empty()).unwrap_or_else(|| vec![Ed25519Numbers::STANDARD]);
    let forms = [("none", Ed25519Parameters::None), ("pure", Ed25519Parameters::Pure)];
    let parameters =
        optional(table, "parameters", Ed25519Parameters::None, findings, |value, f| value.one_of(&forms, f));
    Some(Ed25519Facts { supported: supported?, numbers, ec_params: ec_params?, parameters: parameters? })
}

fn read_numbers(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Ed25519Numbers> {
    let mut number = |key| {
        let value = table.require(key, "a number, as in 0x1057", findings);
        value.and_then(|value| value.u64(findings))
    };
    let (sign, generate, key_type) = (number("sign"), number("generate"), number("key_type"));
    Some(Ed25519Numbers { sign: sign?, generate: generate?, key_type: key_type? })
}

fn read_ec_params(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Vec<u8>> {
    match value.string(findings)? {
        "oid" => return Some(EC_PARAMS_OID.into()),
        "printable-string" => return Some(EC_PARAMS_PRINTABLE_STRING.into()),
        hex => {
            let der = subtle_encoding::hex::decode(hex).ok();
            if let Some(der) = der.filter(|der| (1..=EC_PARAMS_MAX_BYTES).contains(&der.len())) {
                return Some(der);
            }
        }
    }
    value.reject("expected \"oid\", \"printable-string\", or the DER bytes in lower-case hex", findings);
    None
}

fn read_supported(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<bool> {
    table.require("supported", "true or false", findings)?.bool(findings)
}

fn read_objects(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Objects> {
    let mut flag = |key, default| optional(table, key, default, findings, Value::bool);
    let (clear, public) = (flag("clear_unneeded_usages", false), flag("import_public_object", true));
    Some(Objects { clear_unneeded_usages: clear?, import_public_object: public? })
}

fn read_limits(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Limits> {
    let mut limit = |key| {
        optional(table, key, None, findings, |value, findings| {
            let number = value.u64(findings)?;
            if number == 0 {
                value.reject("it must be above 0", findings);
            }
            Some(Some(number))
        })
    };
    let (max_message_bytes, expected_ms) = (limit("max_message_bytes"), limit("expected_ms"));
    Some(Limits { max_message_bytes: max_message_bytes?, expected_ms: expected_ms? })
}

fn read_error(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<ErrorMeaning> {
    let (name, meaning) = name_and_meaning(table, is_return_value, findings)?;
    Some(ErrorMeaning { name, meaning })
}

fn name_and_meaning(
    table: &mut Table<'_>,
    is_name: fn(&str) -> bool,
    findings: &mut ConfigFindings<'_>,
) -> Option<(String, String)> {
    let name = table.require("name", "the name that it describes", findings);
    let expected = "upper-case letters, digits and _, without CKR_";
    let name = name.and_then(|value| words_of(value, expected, is_name, findings));
    let meaning = table.require("meaning", "what it means, in words", findings);
    let meaning = meaning.and_then(|value| text(value, findings));
    Some((name?, meaning?))
}

/// The value of a key, or `default` if the key is missing. `None` if the value cannot be read.
fn optional<'t, T>(
    table: &mut Table<'t>,
    key: &'static str,
    default: T,
    findings: &mut ConfigFindings<'_>,
    read: impl FnOnce(Value<'t>, &mut ConfigFindings<'_>) -> Option<T>,
) -> Option<T> {
    match table.get(key, findings) {
        Some(value) => read(value, findings),
        None => Some(default),
    }
}

fn text(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    words_of(value, "some words on one line", |text| !text.is_empty() && !text.contains(char::is_control), findings)
}

/// A list of at least one text.
fn texts(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Vec<String>> {
    let entries = value.array(findings)?;
    if entries.is_empty() {
        value.reject("it must not be empty", findings);
    }
    entries.into_iter().map(|entry| text(entry, findings)).collect()
}

fn words_of(
    value: Value<'_>,
    expected: &str,
    fits: impl Fn(&str) -> bool,
    findings: &mut ConfigFindings<'_>,
) -> Option<String> {
    let text = value.string(findings)?;
    if !fits(text) {
        value.reject(format_args!("expected {expected}"), findings);
        return None;
    }
    Some(text.into())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Some vendors use lower-case letters too.
fn is_environment_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn is_return_value(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with("CKR_")
        && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
}

/// Why a profile cannot be loaded.
#[derive(Debug)]
pub enum ProfileError {
    /// The file is not a valid profile.
    Invalid {
        path: PathBuf,
        /// All errors, in the order of the file. Not empty.
        findings: Vec<ConfigFinding>,
    },
    /// No built-in profile has this name.
    Unknown { name: String },
    /// The file cannot be read.
    Unreadable { path: PathBuf, error: io::Error },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { path, findings } => {
                let lines: Vec<_> = findings.iter().map(|finding| finding.at(path)).collect();
                write!(f, "the profile is not valid: {}", lines.join("; "))
            }
            Self::Unknown { name } => {
                write!(f, "there is no profile {name:?}: ")?;
                if let Some(near) = nearest(name, Profile::names()) {
                    write!(f, "did you mean {near:?}? ")?;
                }
                let names: Vec<_> = Profile::names().collect();
                write!(f, "The profiles are {}; or give the path of a file that ends in .toml", names.join(", "))
            }
            Self::Unreadable { path, error } => {
                write!(f, "the profile {} cannot be read ({error}): correct the path", path.display())
            }
        }
    }
}

impl std::error::Error for ProfileError {}

#[cfg(test)]
#[path = "profile_reader_tests.rs"]
mod tests;
