//! State hooks: a chain with one signs nothing before the hook has named a height.

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

/// Waits between one run of a hook and the next: a second at first, in the end a minute.
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

    /// Runs the hook again and again until the chain is open, or closed for good. Fails if the hook cannot be run any
    /// more.
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

/// Has the hook raise the mark before the first request. Without a height the chain waits for one, or goes on as
/// configured.
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

/// Raises the mark to the height that a hook has named, if that is above it.
fn raise(id: &ChainId, state_file: &Path, store: &mut Store, height: Result<u64, HookError>) -> Result<(), NotReady> {
    let raised = height.and_then(|height| hook::raised(height, store.mark())).map_err(|error| {
        NotReady::Yet(Refusal::NotYet(format!(
            "{error}. It is run again, at least every minute, until it names a height; without `fail_closed` the chain \
             would sign without it"
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
