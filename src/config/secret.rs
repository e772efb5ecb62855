//! The sources of PINs and passwords.

use super::{
    needs::{FileKind, FileReader, Needs},
    reader::{ConfigFindings, Table, Value},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{env, fmt, path::PathBuf};
use zeroize::Zeroizing;

/// The variable with the directory in which systemd puts a service's secrets.
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// The first file descriptor that is not a standard stream.
const FIRST_FREE_FD: u16 = 3;

/// The source of a PIN or a password. It can be sent to a child process, including an inline secret.
#[derive(Clone, Deserialize, Serialize)]
pub enum SecretSource {
    /// The systemd credential of this name, a file in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    Env(String),
    /// This file descriptor, which is open at start.
    Fd(i32),
    File(PathBuf),
    /// The configuration itself.
    Inline(Secret),
}

impl SecretSource {
    /// The environment variable with the secret, if it is in one.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Self::Env(name) => Some(name),
            _ => None,
        }
    }

    /// The descriptor with the secret, if it is in one.
    pub fn descriptor(&self) -> Option<i32> {
        match self {
            Self::Fd(number) => Some(*number),
            _ => None,
        }
    }

    /// The file with the secret, if it is in one. `reader` is the process that reads it.
    pub(super) fn needs(&self, what: &'static str, reader: FileReader) -> Needs {
        let mut needs = Needs::default();
        match self {
            Self::Credential(name) => {
                // systemd never replaces it. Its directory also has secrets that the signer does not need.
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

/// Never shows the secret.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// In words that follow "the PIN is in". Never shows the secret.
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

/// A secret from the configuration itself. It has no `Debug`; its serialised form contains the secret.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
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

/// Reads a table with a source. `what` is "PIN" or "password".
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
        value.reject("it must be the name of a credential, as in systemd's LoadCredential=", findings);
        return None;
    }
    Some(name.into())
}

fn read_fd(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<i32> {
    let number = value.u16(findings)?;
    if number < FIRST_FREE_FD {
        value.reject(
            format_args!("expected a file descriptor from {FIRST_FREE_FD}: lower ones are standard streams"),
            findings,
        );
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
        "other programs inherit environment variables, and /proc shows them: use a credential, a file or a file descriptor \
         for the {what}"
    );
    value.caution(text, findings);
    Some(name.into())
}

/// Whether this can be the name of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '=' || c.is_control())
}
