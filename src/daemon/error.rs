//! Why the signer does not start or why it ends, as operators read it.

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

/// Why the signer does not start, or why it ends without a signal.
#[derive(Debug)]
pub enum StartError {
    /// The audit file cannot be opened.
    Audit { path: PathBuf, error: io::Error },
    /// Another signer holds a chain and key.
    Claimed { chain: ChainId, error: ClaimError },
    /// A signer that was killed still waits for its disk, and holds the state until then.
    Dying {
        /// Its process id.
        process: u32,
        why: String,
    },
    /// A helper process with this task has ended.
    HelperEnded(&'static str),
    /// This machine cannot be identified.
    Host(HostError),
    /// An identity key cannot be used.
    Identity(KeyError),
    /// Another signer uses the state.
    Locked(FileError),
    NoChain {
        /// For each chain.
        reasons: Vec<(ChainId, Refusal)>,
        /// Whether a later start may succeed without anyone fixing anything.
        passes: bool,
    },
    /// Every node has ended, and none will be dialled again.
    NodesGone,
    /// Findings from before anything was started keep the whole signer from starting.
    Refused {
        /// The topic of the first finding. It decides the exit code.
        topic: Topic,
        /// All findings, one per line.
        why: String,
    },
    /// Only a restart can fix the problem, and it may do so now.
    Restart(String),
    /// A part of the confinement that the configuration requires is not available.
    Sandbox(SandboxError),
    /// A system call failed. Most often this is temporary: the system is busy or still booting.
    System {
        /// What cannot be done, as a sentence.
        what: &'static str,
        error: io::Error,
    },
    /// A thread cannot be started.
    Thread(io::Error),
    /// Another user could replace our identity key.
    Untrusted(String),
}

impl StartError {
    /// `what` says what cannot be done.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { what, error }
    }

    /// The state is locked, by a running signer or by one that was killed and still holds it.
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
                "process {process}, a signer that was killed, still waits for its disk: it ends by itself when the disk \
                 answers. Until then: {why}"
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
