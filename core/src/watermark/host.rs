//! The identity of this machine, so that a state file copied to another one is noticed.

use crate::hex::Hex;
use sha2::{Digest as _, Sha256};
use std::{fmt, fs, io};

/// A machine, identified by systemd's machine id. That id is confidential (machine-id(5)), so this holds only the first
/// 16 bytes of a SHA-256 over it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HostId(pub [u8; 16]);

/// The files that can hold the machine id, in the order in which they are read (machine-id(5), dbus-uuidgen(1)).
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

impl HostId {
    /// Reads the identity of this machine. Fails if no file holds a machine id of 32 hex digits.
    pub fn of_this_machine() -> Result<Self, HostError> {
        let mut last = None;
        for path in MACHINE_ID_FILES {
            match fs::read_to_string(path) {
                Ok(text) if is_machine_id(text.trim()) => return Ok(Self::from_machine_id(text.trim())),
                Ok(_) => last = Some((path, None)),
                Err(error) => last = last.or(Some((path, Some(error)))),
            }
        }
        let (path, error) = last.expect("there is more than one place to look");
        Err(HostError { path, error })
    }

    fn from_machine_id(id: &str) -> Self {
        let hash = Sha256::new().chain_update(b"highwater state file on ").chain_update(id.as_bytes()).finalize();
        let mut host = [0; 16];
        host.copy_from_slice(&hash[..16]);
        Self(host)
    }
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The first four bytes of the hash in hex, enough to distinguish hosts in an error text.
impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0[..4]))
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// This machine has no machine id.
#[derive(Debug)]
pub struct HostError {
    path: &'static str,
    error: Option<io::Error>,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot identify this machine: {}", self.path)?;
        match &self.error {
            Some(error) => write!(f, ": {error}")?,
            None => f.write_str(" does not hold 32 hex digits")?,
        }
        f.write_str("; make one with `systemd-machine-id-setup`")
    }
}

impl std::error::Error for HostError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_apart_and_the_machine_id_does_not_show() {
        let id = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        let one = HostId::from_machine_id(id);
        let two = HostId::from_machine_id("3d1219c7c4c5404aaa1f6d2a48adfda5");
        assert!(one != two && one == HostId::from_machine_id(id));
        assert!(!id.contains(&one.to_string()));
    }

    #[test]
    fn only_32_hex_digits_are_a_machine_id() {
        assert!(is_machine_id("3d1219c7c4c5404aaa1f6d2a48adfda4"));
        assert!(!is_machine_id("uninitialized"));
        assert!(!is_machine_id(""));
    }
}
