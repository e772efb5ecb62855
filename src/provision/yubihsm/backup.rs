//! The file of a wrapped key: one line of base64 without a line break, as tmkms writes it.

use crate::keyring::{KeyError, key_file};
use std::{
    fmt,
    path::{Path, PathBuf},
};
use subtle_encoding::base64;

/// A nonce of 13 bytes, and a MAC of 16 (AES-CCM).
const OVERHEAD_BYTES: usize = 13 + 16;
/// The longest message that a device takes.
const WRAPPED_MAX_BYTES: usize = 2048;

/// Why a backup cannot be read.
#[derive(Debug)]
pub(crate) enum BackupError {
    File(KeyError),
    /// The file holds something else.
    Malformed {
        path: PathBuf,
    },
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "{error}"),
            Self::Malformed { path } => write!(
                f,
                "{} is not a backup from a YubiHSM, which is one line of base64 with 30 to {WRAPPED_MAX_BYTES} bytes. To import \
                 a key of CometBFT, add -t json; for one of tmkms, -t base64",
                path.display()
            ),
        }
    }
}

/// Writes what a device has wrapped to a new file that only its owner may read.
pub(crate) fn write(path: &Path, wrapped: &[u8]) -> Result<(), KeyError> {
    key_file::write(path, &base64::encode(wrapped))
}

/// Reads a backup. Allows any white space around it.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, BackupError> {
    let content = key_file::read(path).map_err(BackupError::File)?;
    decode(&content).ok_or_else(|| BackupError::Malformed { path: path.into() })
}

fn decode(content: &[u8]) -> Option<Vec<u8>> {
    let wrapped = base64::decode(content.trim_ascii()).ok()?;
    (OVERHEAD_BYTES < wrapped.len() && wrapped.len() <= WRAPPED_MAX_BYTES).then_some(wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_read_back_with_white_space_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        write(&path, &[7; 100]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), base64::encode([7; 100]), "no newline");
        assert_eq!(read(&path).unwrap(), [7; 100]);
        assert!(matches!(write(&path, &[8; 100]), Err(KeyError::Exists { .. })));
        let spaced = [b" ", &base64::encode([7; 100])[..], b"\r\n\n"].concat();
        assert_eq!(decode(&spaced).unwrap(), [7; 100]);
    }

    #[test]
    fn what_is_no_backup_is_refused() {
        for content in [&b""[..], b"\n", b"not base64", &base64::encode([0; 29]), &base64::encode([0; 2049])] {
            assert_eq!(decode(content), None);
        }
    }
}
