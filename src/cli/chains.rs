//! Finds the chain that a command is for, and makes sure that its signer is not running.

use super::{CliError, Exit};
use crate::{config::ChainConfig, state::StateError};
use highwater_core::{
    consensus::ChainId,
    watermark::{FileError, StateFile},
};

/// The chain that an operator named, or the only one configured.
pub(super) fn named<'a>(
    chains: &'a [ChainConfig],
    named: Option<&ChainId>,
) -> Result<Option<&'a ChainConfig>, CliError> {
    match (named, chains) {
        (None, [chain]) => Ok(Some(chain)),
        (None, _) | (Some(_), []) => Ok(None),
        (Some(id), chains) => match chains.iter().find(|chain| chain.id == *id) {
            Some(chain) => Ok(Some(chain)),
            None => {
                let ids: Vec<_> = chains.iter().map(|chain| chain.id.as_str()).collect();
                let text = format!("the configuration has no chain {id}, only {}", ids.join(", "));
                Err(CliError::new(Exit::Usage, text))
            }
        },
    }
}

/// Refuses a device if the signer of one of its chains is running. A running signer holds the lock of its chain's state
/// file; the lock taken here to find out is released at once.
pub(super) fn refuse_running<'a>(chains: impl Iterator<Item = &'a ChainConfig>, device: &str) -> Result<(), CliError> {
    for chain in chains {
        match StateFile::open(&chain.watermark()) {
            Ok(_) | Err(FileError::DeadLink { .. } | FileError::Missing { .. }) => {}
            Err(FileError::Locked { path }) => {
                let text = format!(
                    "the signer of chain {} is running and needs the {device} for itself: stop it first ({} is locked; \
                     `fuser` shows the process)",
                    chain.id,
                    path.display()
                );
                return Err(CliError::new(Exit::TempFail, text));
            }
            Err(error) => {
                let CliError { exit, message } = StateError::File(error).into();
                let text = format!("cannot tell whether the signer of chain {} is running: {message}", chain.id);
                return Err(CliError::new(exit, text));
            }
        }
    }
    Ok(())
}
