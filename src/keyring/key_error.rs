//! Why a key could not be read, written or made.

use super::softsign::encoding::EncodingError;
use std::{fmt, io, path::PathBuf};

/// Why a key could not be read, written or made. Never holds a byte of the key.
#[derive(Debug)]
pub enum KeyError {
    /// The operating system does not let this process open the file.
    Denied {
        /// The key file.
        path: PathBuf,
    },
    /// A key was to be written where something already is.
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// The file belongs to a user who is neither root nor the one that runs this process.
    Foreign {
        /// The key file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// The effective user id of this process.
        expected: u32,
    },
    /// Any other failure of the operating system.
    Io {
        /// What was to be done, as in "cannot {action} {path}".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file was read, but holds no usable key.
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What is wrong with its content.
        reason: EncodingError,
    },
    /// There is no such file.
    Missing {
        /// The path that leads nowhere.
        path: PathBuf,
    },
    /// A directory, pipe, socket or device.
    NotAFile {
        /// What is not a regular file.
        path: PathBuf,
    },
    /// Group or others can read or write the file.
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No YubiHSM told the public key, or two told different ones.
    PublicKey {
        /// What was found out, in whole sentences.
        reason: String,
    },
    /// The operating system gave no random numbers for a new key.
    Random {
        /// What it said.
        error: rand_core::Error,
    },
    /// Larger than any key file ([`SIZE_MAX`](super::key_file::SIZE_MAX)).
    TooLarge {
        /// What is too large to be a key.
        path: PathBuf,
        /// Its size in bytes.
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
                    "no permission to open {path}: make the user that runs highwater its owner, `chown USER {path}`"
                )
            }
            Self::Exists { path } => {
                let path = path.display();
                write!(
                    f,
                    "{path} already exists, and a key is never overwritten: name another path, or move the old file away"
                )
            }
            Self::Foreign { path, owner, expected } => {
                let path = path.display();
                write!(f, "{path} belongs to user id {owner}, and highwater runs as {expected}: ")?;
                write!(f, "run it as the user that owns the key, or run `chown {expected} {path}`")
            }
            Self::Io { action, path, error } => write!(f, "cannot {action} {}: {error}", path.display()),
            Self::Malformed { path, reason } => write!(f, "{} holds no usable key: {reason}", path.display()),
            Self::Missing { path } => {
                write!(f, "there is no {}: correct the path, or put the key file there", path.display())
            }
            Self::NotAFile { path } => {
                write!(f, "{} is not a regular file: name the file that holds the key", path.display())
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
                write!(
                    f,
                    "{} has {bytes} bytes, more than any key file: name the file that holds the key",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for KeyError {}
