//! Reading a PIN or a password from where the configuration, or a command line, says that it is.

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

/// What is there, to the last byte. `what` is the secret in one word. The error says what to do, and nothing of the secret.
pub(super) fn read(source: &SecretSource, what: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    match source {
        SecretSource::Credential(name) => credential(name, what),
        SecretSource::Env(name) => match env::var(name) {
            Ok(value) => Ok(Zeroizing::new(value.into_bytes())),
            Err(_) => Err(format!("the environment has no variable {name} with a {what}")),
        },
        SecretSource::Fd(number) => {
            descriptor(*number).map_err(|error| format!("{what} from file descriptor {number}: {error}"))
        }
        SecretSource::File(path) => key_file::read(path).map_err(|error| format!("{what} file: {error}")),
        SecretSource::Inline(secret) => Ok(Zeroizing::new(secret.expose().as_bytes().to_vec())),
    }
}

/// systemd keeps credentials in a directory that only the service can enter, so their permissions need no look.
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

/// What can be read from an inherited descriptor. Opened anew by its name under /proc, which needs no trust in the
/// number. Reads one byte more than a secret may have, in a buffer that never grows and so leaves no copies behind.
pub(crate) fn descriptor(number: i32) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut secret = Zeroizing::new(Vec::with_capacity(SECRET_MAX_BYTES + 1));
    let limit = u64::try_from(SECRET_MAX_BYTES + 1).expect("a small number");
    File::open(format!("/proc/self/fd/{number}"))?.take(limit).read_to_end(&mut secret)?;
    Ok(secret)
}
