//! Why the signer does not start or ends, and what an operator reads of it.

use crate::{daemon::claim::ClaimError, inspect::Topic, keyring::KeyError, passing, process::sandbox::SandboxError};
use highwater_core::{
    consensus::ChainId,
    privval::Refusal,
    watermark::{FileError, HostError},
};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// Why the signer does not start, or ends without being asked to.
#[derive(Debug)]
pub enum StartError {
    /// The audit file cannot be opened.
    Audit {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another signer holds a chain and key.
    Claimed {
        /// The chain whose name is taken.
        chain: ChainId,
        /// Who holds it.
        error: ClaimError,
    },
    /// A signer that was killed hangs in a wait for its disk, and holds the state until that ends.
    Dying {
        /// Its process id.
        process: u32,
        /// What it holds.
        why: String,
    },
    /// A process that the signer needs has ended, and this is what it did.
    HelperEnded(&'static str),
    /// This machine cannot be told from others.
    Host(HostError),
    /// An identity key cannot be used.
    Identity(KeyError),
    /// Another signer is at work.
    Locked(FileError),
    /// No chain can sign.
    NoChain {
        /// Why not, for each.
        reasons: Vec<(ChainId, Refusal)>,
        /// Whether a later start may find one that can, with nobody doing anything.
        passes: bool,
    },
    /// Every node has ended, and none is to be dialled again.
    NodesGone,
    /// What was found before anything was started keeps the whole signer from starting.
    Refused {
        /// What the first finding is about: it decides the exit code.
        topic: Topic,
        /// Every finding, one a line.
        why: String,
    },
    /// Only another start can mend what is wrong, and may do so now.
    Restart(String),
    /// A part of the confinement that the configuration requires cannot be had.
    Sandbox(SandboxError),
    /// The system did not give what it was asked for, which most often passes: it was busy, or not all there yet.
    System {
        /// What cannot be done without it.
        what: &'static str,
        /// What it answered.
        error: io::Error,
    },
    /// The system gives no thread.
    Thread(io::Error),
    /// Somebody else could put an identity key in the place of ours.
    Untrusted(String),
}

impl StartError {
    /// Names what the system was asked for.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { what, error }
    }

    /// The state is locked: by a signer at work, or by one that was killed and still holds it.
    pub(super) fn locked(error: FileError) -> Self {
        match passing::dying_signer(Path::new("/proc")) {
            Some(process) => Self::Dying { process, why: error.to_string() },
            None => Self::Locked(error),
        }
    }

    /// The same for a chain and key.
    pub(super) fn claimed(chain: &ChainId, error: ClaimError) -> Self {
        match (passing::dying_signer(Path::new("/proc")), &error) {
            (Some(process), ClaimError::Held { .. }) => Self::Dying { process, why: error.to_string() },
            _ => Self::Claimed { chain: chain.clone(), error },
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audit { path, error } => {
                write!(f, "cannot open {}, the `file` of [highwater.audit]: {error}", path.display())
            }
            Self::Claimed { chain, error } => write!(f, "chain {chain}: {error}"),
            Self::Dying { process, why } => write!(
                f,
                "process {process}, a signer that was killed, waits for its disk and is not gone yet: it ends by itself \
                 once the disk answers. Until then: {why}"
            ),
            Self::HelperEnded(what) => write!(f, "the process that {what} has ended; restart"),
            Self::Host(error) => write!(f, "{error}"),
            Self::Identity(error) => write!(f, "identity key: {error}"),
            Self::Locked(error) => write!(f, "{error}"),
            Self::NoChain { reasons, .. } => {
                f.write_str("no chain can sign")?;
                reasons.iter().try_for_each(|(chain, why)| write!(f, "\n  {chain}: {why}"))
            }
            Self::NodesGone => f.write_str("every validator node is gone, and reconnect = false for all of them"),
            Self::Sandbox(error) => write!(f, "{error}"),
            Self::System { what, error } => write!(f, "{what}: {error}"),
            Self::Thread(error) => write!(f, "cannot start a thread for a validator node: {error}"),
            Self::Refused { why, .. } | Self::Restart(why) | Self::Untrusted(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StartError {}

impl From<SandboxError> for StartError {
    fn from(error: SandboxError) -> Self {
        Self::Sandbox(error)
    }
}
