//! Errors of key files and keys.

use super::softsign::encoding::EncodingError;
use std::{fmt, io, path::PathBuf};

/// Why a key could not be read, written or made. Never holds a byte of the key.
#[derive(Debug)]
pub enum KeyError {
    /// This process has no permission to open the file.
    Denied {
        path: PathBuf,
    },
    /// A new key file would overwrite an existing file.
    Exists {
        path: PathBuf,
    },
    /// The file belongs to a user who is neither root nor the one that runs this process.
    Foreign {
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// The effective user id of this process.
        expected: u32,
    },
    /// Any other error of the operating system.
    Io {
        /// The action that failed, as in "cannot {action} {path}".
        action: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    /// The file was read, but holds no usable key.
    Malformed {
        path: PathBuf,
        reason: EncodingError,
    },
    Missing {
        path: PathBuf,
    },
    /// The path is a directory, pipe, socket or device.
    NotAFile {
        path: PathBuf,
    },
    /// Group or others can read or write the file.
    Permissions {
        path: PathBuf,
        mode: u32,
    },
    /// No YubiHSM gave the public key, or two gave different ones.
    PublicKey {
        reason: String,
    },
    /// The operating system gave no random numbers for a new key.
    Random {
        error: rand_core::Error,
    },
    /// The file is larger than any key file ([`SIZE_MAX`](super::key_file::SIZE_MAX)).
    TooLarge {
        path: PathBuf,
        bytes: u64,
    },
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { path } => {
                let path = path.display();
                write!(
                    f,
                    "no permission to open {path}: make the user that runs highwater its owner with `chown USER {path}`"
                )
            }
            Self::Exists { path } => {
                let path = path.display();
                write!(
                    f,
                    "{path} already exists, and a key is never overwritten: give another path, or move the old file away"
                )
            }
            Self::Foreign { path, owner, expected } => {
                let path = path.display();
                write!(f, "{path} belongs to user id {owner}, but highwater runs as {expected}: ")?;
                write!(f, "run it as the user that owns the key, or run `chown {expected} {path}`")
            }
            Self::Io { action, path, error } => write!(f, "cannot {action} {}: {error}", path.display()),
            Self::Malformed { path, reason } => write!(f, "{} holds no usable key: {reason}", path.display()),
            Self::Missing { path } => {
                write!(f, "there is no {}: correct the path, or put the key file there", path.display())
            }
            Self::NotAFile { path } => {
                write!(f, "{} is not a regular file: give the path of the key file", path.display())
            }
            Self::Permissions { path, mode } => {
                let path = path.display();
                write!(f, "{path} is open to other users (mode {mode:04o}): run `chmod 600 {path}`")
            }
            Self::PublicKey { reason } => f.write_str(reason),
            Self::Random { error } => {
                write!(f, "the operating system gave no random numbers, so no key was made: {error}")
            }
            Self::TooLarge { path, bytes } => {
                write!(f, "{} has {bytes} bytes, more than any key file: give the path of the key file", path.display())
            }
        }
    }
}

impl std::error::Error for KeyError {}
