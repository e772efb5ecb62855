//! Reads a PIN or a password from the source that the configuration or the command line names.

use super::key_file;
use crate::config::{CREDENTIALS_VARIABLE, SecretSource};
use std::{
    env,
    fs::{self, File},
    io::{self, Read as _},
    path::PathBuf,
};
use zeroize::Zeroizing;

/// Longer than any PIN, password or phrase.
pub(crate) const SECRET_MAX_BYTES: usize = 1024;

/// Reads the secret, unchanged to the last byte. `what` is "PIN" or "password". The error says what to do, and contains
/// no part of the secret.
pub(super) fn read(source: &SecretSource, what: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    match source {
        SecretSource::Credential(name) => credential(name, what),
        SecretSource::Env(name) => match env::var(name) {
            Ok(value) => Ok(Zeroizing::new(value.into_bytes())),
            Err(_) => Err(format!("the environment variable {name}, which should contain the {what}, is not set")),
        },
        SecretSource::Fd(number) => {
            descriptor(*number).map_err(|error| format!("{what} from file descriptor {number}: {error}"))
        }
        SecretSource::File(path) => key_file::read(path).map_err(|error| format!("{what} file: {error}")),
        SecretSource::Inline(secret) => Ok(Zeroizing::new(secret.expose().as_bytes().to_vec())),
    }
}

/// What is wrong with a secret that its file or variable was meant to hold alone; completes the sentence "the PIN ...".
/// A token counts a wrong PIN, so such a one is not sent.
pub(super) fn refuse_impossible(secret: &[u8]) -> Result<(), &'static str> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    if secret.starts_with(BYTE_ORDER_MARK) || secret.starts_with(&[0xff, 0xfe]) || secret.starts_with(&[0xfe, 0xff]) {
        return Err("begins with a byte order mark, which some editors write: save the file as plain text without one");
    }
    if secret.contains(&0) {
        return Err("contains a NUL byte: save the file as plain text");
    }
    let end = secret.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    match secret[..end].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        None => Ok(()),
        Some(0) => Err("has an empty line before it: remove that line"),
        Some(_) => Err("is followed by another line: leave one line, which is taken as it is"),
    }
}

/// systemd keeps credentials in a directory that only the service can enter, so their permissions are not checked.
fn credential(name: &str, what: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let directory = env::var_os(CREDENTIALS_VARIABLE).ok_or_else(|| {
        format!(
            "there is no ${CREDENTIALS_VARIABLE}: systemd sets it for a unit with LoadCredential={name}:… or \
             LoadCredentialEncrypted="
        )
    })?;
    let path = PathBuf::from(directory).join(name);
    fs::read(&path).map(Zeroizing::new).map_err(|error| format!("{what} credential {}: {error}", path.display()))
}

/// Reads a secret from an inherited descriptor. Opens it by its name under /proc, so a wrong number is harmless. Reads
/// one byte more than a secret may have, into a buffer that never grows and so leaves no copies.
pub(crate) fn descriptor(number: i32) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut secret = Zeroizing::new(Vec::with_capacity(SECRET_MAX_BYTES + 1));
    let limit = u64::try_from(SECRET_MAX_BYTES + 1).expect("a small number");
    File::open(format!("/proc/self/fd/{number}"))?.take(limit).read_to_end(&mut secret)?;
    Ok(secret)
}
