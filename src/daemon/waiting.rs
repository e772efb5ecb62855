//! State hooks: a chain with a hook signs nothing until the hook has returned a height.

use crate::{
    config::ChainConfig,
    process::{
        backoff::Backoff,
        hook::{self, HookError},
        hooks::Hook,
    },
    record::served::ServedChain,
};
use highwater_core::{
    chain::{NotReady, state_unusable},
    consensus::ChainId,
    privval::Refusal,
    watermark::Store,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};
use tracing::{error, info, warn};

/// Waits between runs of a hook: from a second to a minute.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// A chain that waits for its state hook.
pub(super) struct WaitingChain {
    chain: Arc<ServedChain>,
    state_file: PathBuf,
    hook: Hook,
}

impl WaitingChain {
    pub(super) fn new(chain: Arc<ServedChain>, state_file: PathBuf, hook: Hook) -> Self {
        Self { chain, state_file, hook }
    }

    /// Runs the hook repeatedly until the chain is open or permanently closed. Fails if the hook can no longer run.
    pub(super) fn run(mut self) -> Result<(), HookError> {
        let mut waits = Backoff::new(FIRST, LONGEST);
        loop {
            thread::sleep(waits.next_wait());
            let height = match self.hook.height() {
                Err(gone @ HookError::Gone(_)) => return Err(gone),
                other => other,
            };
            let id = self.chain.id();
            match self.chain.try_to_open(|store| raise(id, &self.state_file, store, height)) {
                Ok(()) => {
                    info!(chain = %id, "chain open");
                    return Ok(());
                }
                Err(NotReady::Yet(why)) => warn!(chain = %id, "{why}"),
                Err(NotReady::Ever { why, .. }) => {
                    error!(chain = %id, "this chain signs nothing: {why}");
                    return Ok(());
                }
            }
        }
    }
}

/// Raises the mark by the hook before the first request. Without a height, the chain waits for one or continues
/// without, as configured.
pub(super) fn ask_hook(config: &ChainConfig, hook: &mut Hook, store: &mut Store) -> Result<(), NotReady> {
    let fail_closed = config.state_hook.as_ref().is_none_or(|hook| hook.fail_closed);
    match raise(&config.id, &config.state_file, store, hook.height()) {
        Err(NotReady::Yet(why)) if !fail_closed => {
            warn!(chain = %config.id, "going on without the state hook: {why}");
            Ok(())
        }
        other => other,
    }
}

/// Raises the mark to the height that a hook returned, if that is higher.
fn raise(id: &ChainId, state_file: &Path, store: &mut Store, height: Result<u64, HookError>) -> Result<(), NotReady> {
    let raised = height.and_then(|height| hook::raised(height, store.mark())).map_err(|error| {
        NotReady::Yet(Refusal::NotYet(format!(
            "{error}. The hook runs again, at least every minute, until it prints a height; with fail_closed = false the \
             chain would sign without it"
        )))
    })?;
    match raised {
        None => info!(chain = %id, mark = %store.mark().hrs, "the state hook is not above the mark"),
        Some(mark) => {
            let raised = store.advance(mark).map_err(|error| NotReady::Ever {
                why: state_unusable(state_file, &error),
                passes: error.may_pass(),
            })?;
            info!(chain = %id, mark = %raised.spend().hrs, "the state hook raised the mark");
        }
    }
    Ok(())
}
