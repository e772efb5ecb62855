//! Why the signer does not start, and what an operator reads of it.

use crate::{daemon::claim::ClaimError, keyring::KeyError, passing};
use highwater_core::{
    consensus::ChainId,
    privval::Refusal,
    watermark::{FileError, HostError},
};
use std::{fmt, io, path::Path};

/// Why the signer does not start.
#[derive(Debug)]
pub enum DaemonError {
    /// Another signer holds a chain and key.
    Claimed {
        /// The chain.
        chain: ChainId,
        /// Who.
        error: ClaimError,
    },
    /// A signer that was killed hangs in a wait for its disk, and holds the state until that ends.
    Dying {
        /// Its process id.
        process: u32,
        /// What it holds.
        why: String,
    },
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
    /// The system gives no thread.
    Thread(io::Error),
    /// Somebody else could put an identity key in the place of ours.
    Untrusted(String),
}

impl DaemonError {
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

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed { chain, error } => write!(f, "chain {chain}: {error}"),
            Self::Dying { process, why } => write!(
                f,
                "process {process}, a signer that was killed, waits for its disk and is not gone yet: it ends by itself \
                 once the disk answers. Until then: {why}"
            ),
            Self::Host(error) => write!(f, "{error}"),
            Self::Identity(error) => write!(f, "identity key: {error}"),
            Self::Locked(error) => write!(f, "{error}"),
            Self::NoChain { reasons, .. } => {
                f.write_str("no chain can sign")?;
                reasons.iter().try_for_each(|(chain, why)| write!(f, "\n  {chain}: {why}"))
            }
            Self::Thread(error) => write!(f, "cannot start a thread for a validator node: {error}"),
            Self::Untrusted(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for DaemonError {}
