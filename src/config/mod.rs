//! `tmkms.toml`: read as tmkms 0.15 reads it, checked as a whole, and turned into a [`Config`].
//!
//! ```text
//! text ─▶ reader (tables, lines) ─▶ chain, validator, providers, highwater (one by one) ─▶ draft
//!      ─▶ validate (together) ─▶ Config (model)
//! ```
//!
//! All mistakes in a file are reported at once, each with its line. Settings that work in an unexpected way give
//! warnings.

mod address;
mod chain;
mod draft;
mod file_system;
mod finding;
mod fixed;
mod highwater;
pub mod home;
mod keys;
mod model;
mod needs;
pub(crate) mod paths;
pub mod pkcs11;
mod providers;
pub(crate) mod reader;
mod secret;
mod softsign;
mod validate;
mod validator;
mod yubihsm;

pub use address::SOCKET_PATH_MAX_BYTES;
pub use chain::{ChainConfig, HookConfig, KeyFormat, watermark_beside};
pub use finding::ConfigFinding;
pub use fixed::FixedParts;
pub use highwater::{AuditLimits, HighwaterConfig};
pub use keys::{KeyRole, KeyRow};
pub use model::{Config, KeyConfig};
pub use needs::{FileKind, FileReader, NeededFile, Needs};
pub use pkcs11::{Pkcs11Config, Pkcs11Key};
pub use providers::Provider;
pub use secret::{CREDENTIALS_VARIABLE, Secret, SecretSource};
pub use softsign::{KeyEncoding, SoftsignConfig};
pub use validator::{NodeAddress, ValidatorConfig};
pub use yubihsm::{YubiHsmAdapter, YubiHsmConfig, YubiHsmKey};

use draft::Draft;
use file_system::FileSystem;
use reader::{ConfigFindings, Table, Value};
use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};
use toml::de::DeTable;
use zeroize::Zeroizing;

/// The environment variable that names the configuration file, as in tmkms.
pub const PATH_VARIABLE: &str = "TMKMS_CONFIG_FILE";
/// The configuration file if nothing names one, as in tmkms.
pub const DEFAULT_PATH: &str = "./tmkms.toml";

/// The configuration's path: `-c`, else `TMKMS_CONFIG_FILE`, else `./tmkms.toml`, else the packaged service's, if there is
/// one. An empty variable counts as unset.
pub fn resolve_path(cli: Option<&Path>, env: Option<OsString>) -> PathBuf {
    named_path(cli, env).unwrap_or_else(|| unnamed_path(there))
}

/// The path that `-c` or `TMKMS_CONFIG_FILE` names.
pub fn named_path(cli: Option<&Path>, env: Option<OsString>) -> Option<PathBuf> {
    cli.map(Path::to_owned).or_else(|| env.filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// A working directory that is closed to this user, as root's home is after `runuser`, holds no configuration for it. That
/// of the service may be closed too, and is named then.
fn there(path: &Path) -> bool {
    fs::exists(path).unwrap_or(path != Path::new(DEFAULT_PATH))
}

fn unnamed_path(exists: impl Fn(&Path) -> bool) -> PathBuf {
    let (here, of_the_service) = (Path::new(DEFAULT_PATH), Path::new(home::SERVICE_CONFIGURATION));
    let path = if !exists(here) && exists(of_the_service) { of_the_service } else { here };
    path.to_owned()
}

impl Config {
    /// Reads the file at `path`. Returns the configuration and the warnings.
    pub fn load(path: &Path) -> Result<(Self, Vec<ConfigFinding>), ConfigError> {
        // The text can contain a password.
        let text = fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| ConfigError::Unreadable { path: path.into(), error })?;
        let (config, warnings) = Self::read(path, &text, FileSystem::DISK)?;

        let mut on_disk = ConfigFindings::new(&text);
        validate::check_on_disk(&config, &mut on_disk);
        on_disk.finish().map_err(|findings| ConfigError::Invalid { path: path.into(), findings })?;
        Ok((config, warnings))
    }

    /// Reads `text`, the content of the file at `path`, and nothing else: a profile must be built in.
    pub fn parse(path: &Path, text: &str) -> Result<(Self, Vec<ConfigFinding>), ConfigError> {
        Self::read(path, text, FileSystem::NONE)
    }

    fn read(path: &Path, text: &str, file_system: FileSystem) -> Result<(Self, Vec<ConfigFinding>), ConfigError> {
        let mut findings = ConfigFindings::new(text);
        let draft = read_text(text, file_system, &mut findings).unwrap_or_default();
        match findings.finish() {
            Ok(warnings) => Ok((draft.into_config(path), warnings)),
            Err(findings) => Err(ConfigError::Invalid { path: path.into(), findings }),
        }
    }
}

/// A configuration that may be incomplete: an operator writes the section of a token before its keys exist. Never used
/// for signing.
#[derive(Clone, Debug)]
pub struct PartialConfig {
    /// The sections that can be read. They may refer to sections that do not exist.
    pub config: Config,
    /// Why the file is not a valid configuration, in the order of the file. May be empty.
    pub errors: Vec<ConfigFinding>,
}

impl PartialConfig {
    /// Reads the file at `path`. Fails only if it cannot be read or is not TOML.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        // The text can contain a password.
        let text = fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| ConfigError::Unreadable { path: path.into(), error })?;
        Self::read(path, &text, FileSystem::DISK)
    }

    fn read(path: &Path, text: &str, file_system: FileSystem) -> Result<Self, ConfigError> {
        let mut findings = ConfigFindings::new(text);
        let draft = read_text(text, file_system, &mut findings);
        let errors = findings.finish().err().unwrap_or_default();
        match draft {
            Some(draft) => Ok(Self { config: draft.into_config(path), errors }),
            None => Err(ConfigError::Invalid { path: path.into(), findings: errors }),
        }
    }
}

/// Reads all sections of `text` and checks them against each other. `None` if it is not TOML.
fn read_text(text: &str, file_system: FileSystem, findings: &mut ConfigFindings<'_>) -> Option<Draft> {
    match DeTable::parse(text) {
        Ok(root) => {
            let mut draft = Table::read("the file", 0, root.get_ref(), findings, |table, findings| {
                read_sections(table, file_system, findings)
            });
            draft.fixed = FixedParts::of(root.get_ref());
            validate::check(&draft, findings);
            Some(draft)
        }
        Err(error) => {
            let line = error.span().map_or(0, |span| findings.line(&span));
            // Only the message: the full error text quotes the line, which can contain a password.
            findings.error(line, format!("this is not TOML: {}", error.message()));
            None
        }
    }
}

/// The sections of a file.
const SECTIONS: [&str; 5] = ["chain", "highwater", "providers", "tx_signer", "validator"];

/// Reports nothing about sections that could not be read, nor about what refers to them: one mistake, one finding.
fn read_sections(root: &mut Table<'_>, file_system: FileSystem, findings: &mut ConfigFindings<'_>) -> Draft {
    let mut draft = Draft::default();
    let chains = root.get("chain", findings);
    let validators = root.get("validator", findings);
    let providers = root.get("providers", findings);
    draft.chains_incomplete = chains.is_none_or(|chains| !chains.is_array_of_tables() || chains.is_empty_array());
    if chains.is_none_or(Value::is_empty_array) && !root.misspells("chain", &SECTIONS) {
        findings.error(0, "there is no [[chain]]: add one for each chain to sign for, with `id` and `key_format`");
    }
    if validators.is_none_or(Value::is_empty_array) && !root.misspells("validator", &SECTIONS) {
        findings.error(0, "there is no [[validator]]: add one for each node to serve, with `addr` and `chain_id`");
    }
    draft.keys.incomplete = providers.is_none();
    if providers.is_none() && !root.misspells("providers", &SECTIONS) {
        let text = "there is no [providers]: add a key, for example [[providers.softsign]] with `chain_ids` and `path`";
        findings.error(0, text);
    }

    if let Some(chains) = chains {
        draft.chains = chains.tables("[[chain]]", findings, |table, findings| {
            let (id, chain) = ChainConfig::read(table, findings);
            draft.chains_incomplete |= id.is_none();
            draft.chain_ids.extend(id);
            chain
        });
    }
    if let Some(validators) = validators {
        draft.validators = validators.tables("[[validator]]", findings, |table, findings| {
            let (chain, validator) = ValidatorConfig::read(table, findings);
            draft.served.extend(chain);
            validator
        });
    }
    if let Some(value) = providers {
        let before = findings.error_count();
        let read = value.table("[providers]", findings, |table, findings| {
            providers::read(table, &mut draft.keys, file_system, findings)
        });
        draft.providers = read.unwrap_or_default();
        draft.keys.incomplete |= findings.error_count() > before;
    }
    if let Some(highwater) = root.get("highwater", findings) {
        highwater.table("[highwater]", findings, |table, findings| draft.highwater.read(table, findings));
    }
    if let Some(signer) = root.get("tx_signer", findings) {
        findings.error(signer.line, "transaction signing is not supported: remove [[tx_signer]]");
    }
    draft
}

/// Why a configuration cannot be loaded.
#[derive(Debug)]
pub enum ConfigError {
    /// The file is not a valid configuration.
    Invalid {
        path: PathBuf,
        /// All errors, in the order of the file. Not empty.
        findings: Vec<ConfigFinding>,
    },
    /// The file cannot be read.
    Unreadable { path: PathBuf, error: io::Error },
}

/// One line for each finding: `file:line: sentence`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { path, findings } => {
                let lines: Vec<_> = findings.iter().map(|finding| finding.at(path)).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Unreadable { path, error } => {
                let is_service = path == Path::new(home::SERVICE_CONFIGURATION);
                let hint = match error.kind() {
                    io::ErrorKind::InvalidData => "it must be UTF-8 text",
                    io::ErrorKind::PermissionDenied if is_service => {
                        "run this as the user of the service: `runuser -u highwater -- highwater …`, or name another file \
                         with -c"
                    }
                    io::ErrorKind::PermissionDenied => "make the user that Highwater runs as its owner",
                    io::ErrorKind::NotFound if path == Path::new(DEFAULT_PATH) => {
                        return write!(
                            f,
                            "there is no configuration: neither {DEFAULT_PATH} nor {} exists. Name one with -c or \
                             {PATH_VARIABLE}, or make one with `highwater init`",
                            home::SERVICE_CONFIGURATION
                        );
                    }
                    _ => "name another file with -c or TMKMS_CONFIG_FILE, or make one with `highwater init`",
                };
                write!(f, "{}: the configuration cannot be read ({error}): {hint}", path.display())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod sections_tests;
#[cfg(test)]
mod tests;
