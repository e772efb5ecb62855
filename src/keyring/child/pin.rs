//! PINs: where they come from.

use crate::{config::PinSource, keyring::key_file};
use std::{
    env,
    fs::{self, File},
    io::Read as _,
    path::PathBuf,
};
use zeroize::Zeroizing;

/// Longer than any PIN.
const PIN_MAX_BYTES: usize = 1024;

/// Reads the PIN, without the line's end. The error says what to do, and nothing of the PIN.
pub fn read(source: &PinSource) -> Result<Zeroizing<Vec<u8>>, String> {
    let pin = match source {
        PinSource::Credential(name) => credential(name)?,
        PinSource::Env(name) => match env::var(name) {
            Ok(value) => Zeroizing::new(value.into_bytes()),
            Err(_) => return Err(format!("the environment has no variable {name} with a PIN")),
        },
        PinSource::Fd(number) => descriptor(*number)?,
        PinSource::File(path) => key_file::read(path).map_err(|error| format!("PIN file: {error}"))?,
        PinSource::Inline(secret) => Zeroizing::new(secret.expose().as_bytes().to_vec()),
    };
    let length = pin.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    match length {
        0 => Err("the PIN is empty".into()),
        1..=PIN_MAX_BYTES => Ok(Zeroizing::new(pin[..length].to_vec())),
        _ => Err(format!("the PIN has more than {PIN_MAX_BYTES} bytes")),
    }
}

/// systemd keeps credentials in a directory that only the service can enter, so their permissions need no look.
fn credential(name: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";
    let directory = env::var_os(DIRECTORY).ok_or_else(|| {
        format!("there is no ${DIRECTORY}: systemd sets it for a unit with LoadCredential={name}:… or LoadCredentialEncrypted=")
    })?;
    let path = PathBuf::from(directory).join(name);
    fs::read(&path).map(Zeroizing::new).map_err(|error| format!("PIN credential {}: {error}", path.display()))
}

/// What can be read from an inherited descriptor. Opened anew by its name under /proc, which needs no trust in the
/// number.
fn descriptor(number: i32) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut pin = Zeroizing::new(Vec::with_capacity(PIN_MAX_BYTES + 1));
    let limit = u64::try_from(PIN_MAX_BYTES + 1).expect("a small number");
    File::open(format!("/proc/self/fd/{number}"))
        .and_then(|file| file.take(limit).read_to_end(&mut pin))
        .map_err(|error| format!("PIN from file descriptor {number}: {error}"))?;
    Ok(pin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use std::os::unix::fs::PermissionsExt as _;

    fn inline(text: &str) -> Result<Vec<u8>, String> {
        read(&PinSource::Inline(Secret::new(text))).map(|pin| pin.to_vec())
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_a_pin() {
        for text in ["1234", "1234\n", "1234\r\n", "1234\n\n"] {
            assert_eq!(inline(text).unwrap(), b"1234");
        }
        assert_eq!(inline(" 12 34 \n").unwrap(), b" 12 34 ");
    }

    #[test]
    fn what_cannot_be_a_pin_is_refused_and_not_shown() {
        let long = "1".repeat(PIN_MAX_BYTES + 1);
        assert_eq!(inline("\n").unwrap_err(), "the PIN is empty");
        assert!(!inline(&long).unwrap_err().contains("1111"));
    }

    #[test]
    fn a_pin_file_must_be_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        fs::write(&path, "1234\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let source = PinSource::File(path.clone());
        assert_eq!(*read(&source).unwrap(), b"1234");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&source).unwrap_err().contains("chmod 600"));
    }
}
