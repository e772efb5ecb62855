//! Where a PIN or a password is found.

use super::{
    needs::{FileKind, FileReader, Needs},
    reader::{ConfigFindings, Table, Value},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{env, fmt, path::PathBuf};
use zeroize::Zeroizing;

/// Where systemd puts the secrets of a service.
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// The first file descriptor that is not a standard stream.
const FIRST_FREE_FD: u16 = 3;

/// Where a PIN or a password is found. It can be sent to a child process; then an inline secret travels too.
#[derive(Clone, Deserialize, Serialize)]
pub enum SecretSource {
    /// In the systemd credential of this name, a file of `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    Env(String),
    /// To be read from this file descriptor, which is open at start.
    Fd(i32),
    /// In this file.
    File(PathBuf),
    /// In the configuration itself.
    Inline(Secret),
}

impl SecretSource {
    /// The variable that holds it, if one does.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Env(name) => Some(name),
            _ => None,
        }
    }

    /// The descriptor that holds it, if one does.
    pub fn descriptor(&self) -> Option<i32> {
        match self {
            Self::Fd(number) => Some(*number),
            _ => None,
        }
    }

    /// The file that holds it, if one does. `reader` is who reads it there.
    pub(super) fn needs(&self, what: &'static str, reader: FileReader) -> Needs {
        let mut needs = Needs::default();
        match self {
            Self::Credential(name) => {
                // systemd puts no other file in its place. In the same directory are secrets that are none of the signer's.
                let reader = if reader == FileReader::SignerAgain { FileReader::Signer } else { reader };
                if let Some(directory) = env::var_os(CREDENTIALS_VARIABLE) {
                    needs.file(PathBuf::from(directory).join(name), what, FileKind::Credential, reader);
                }
            }
            Self::File(path) => needs.file(path, what, FileKind::Secret, reader),
            Self::Env(_) | Self::Fd(_) | Self::Inline(_) => {}
        }
        needs
    }
}

/// Without the secret.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Without the secret, in words that follow "the PIN is in".
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "the credential {name}"),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Fd(number) => write!(f, "the file descriptor {number}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Inline(_) => f.write_str("the configuration"),
        }
    }
}

/// A secret that stands in the configuration itself. It has no `Debug`, and its serialised form shows it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Reads a table that names a source. `what` is the secret in one word.
pub(super) fn read_source(
    table: &mut Table<'_>,
    what: &str,
    findings: &mut ConfigFindings<'_>,
) -> Option<SecretSource> {
    let value = table.exactly_one(["credential", "file", "fd", "env"], findings)?;
    match value.key() {
        "credential" => read_credential(value, findings).map(SecretSource::Credential),
        "env" => read_variable(value, what, findings).map(SecretSource::Env),
        "fd" => read_fd(value, findings).map(SecretSource::Fd),
        _ => value.path(findings).map(SecretSource::File),
    }
}

fn read_credential(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let name = value.string(findings)?;
    if matches!(name, "" | "." | "..") || name.contains(|c: char| c == '/' || c.is_control()) {
        value.reject("it must be the name of a credential, as LoadCredential= of systemd gives it", findings);
        return None;
    }
    Some(name.into())
}

fn read_fd(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<i32> {
    let number = value.u16(findings)?;
    if number < FIRST_FREE_FD {
        value.reject(format_args!("expected a file descriptor from {FIRST_FREE_FD}: those below are taken"), findings);
        return None;
    }
    Some(number.into())
}

fn read_variable(value: Value<'_>, what: &str, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let name = value.string(findings)?;
    if !is_variable(name) {
        value.reject("it must be the name of an environment variable", findings);
        return None;
    }
    let text = format!(
        "an environment variable is inherited by other programs and shown by /proc: a credential, a file or a file \
         descriptor keeps the {what} closer"
    );
    value.caution(text, findings);
    Some(name.into())
}

/// Whether an environment variable can have this name.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '=' || c.is_control())
}
