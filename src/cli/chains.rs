//! Which chain a command means, and whether its signer runs.

use super::{CliError, Exit};
use crate::{config::ChainConfig, state::StateError};
use highwater_core::{
    consensus::ChainId,
    watermark::{FileError, StateFile},
};

/// The chain that an operator named, or else the only one there is.
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
                let ids = ids.join(", ");
                let text = format!("no chain {id} in the configuration, which has: {ids}");
                Err(CliError::new(Exit::Usage, text))
            }
        },
    }
}

/// Refuses a device if the signer of one of its chains runs. A running signer has the state file of its chain locked;
/// the lock is let go at once.
pub(super) fn refuse_running<'a>(chains: impl Iterator<Item = &'a ChainConfig>, device: &str) -> Result<(), CliError> {
    for chain in chains {
        match StateFile::open(&chain.watermark()) {
            Ok(_) | Err(FileError::DeadLink { .. } | FileError::Missing { .. }) => {}
            Err(FileError::Locked { path }) => {
                let text = format!(
                    "the signer of chain {} is running and uses the {device}, and nothing may disturb it: stop it first \
                     ({} is locked; `fuser` names the process)",
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
