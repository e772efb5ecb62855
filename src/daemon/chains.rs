//! Opens the chains. A chain with a bad state or key only answers with errors, and does not keep other chains from
//! signing.

use super::{
    StartError,
    claim::Claims,
    waiting::{WaitingChain, ask_hook},
};
use crate::{
    config::{ChainConfig, Config, KeyConfig},
    inspect::Findings,
    keyring::{self, Keyring},
    passing,
    process::hooks::{Hook, Hooks},
    record::{audit::Audit, served::ServedChain},
    state::{Place, StateError, Theirs},
};
use highwater_core::{
    chain::{Chain, NotReady},
    consensus::{ChainId, PublicKey},
    privval::Refusal,
    signer::{Signer, prove},
    watermark::{HostId, Identity, StateFile},
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, thread};
use tracing::{error, info};

/// Every chain with a validator node, opened as far as possible.
pub struct Chains {
    served: BTreeMap<ChainId, Arc<ServedChain>>,
    /// Chains whose hook has not returned a height yet.
    waiting: Vec<WaitingChain>,
    /// Missing files that a chain needs for signing and that may appear later.
    awaited: Vec<PathBuf>,
}

/// A chain with its state file open.
enum Opened {
    Signs(Chain),
    Waits(Chain, Hook),
}

/// Why a chain signs nothing.
struct Closed {
    public_key: Option<PublicKey>,
    why: Refusal,
    /// Whether a later start may succeed without anyone fixing anything.
    passes: bool,
    /// A missing file that may appear later.
    awaits: Option<PathBuf>,
}

impl Chains {
    /// Opens all chains. A chain whose hook fails answers with errors until the hook succeeds. Fails if none can sign.
    pub fn open(
        config: &Config,
        claims: &mut Claims,
        keyring: &Keyring,
        findings: &Findings,
        mut hooks: Hooks,
    ) -> Result<Self, StartError> {
        let host = HostId::of_this_machine().map_err(StartError::Host)?;
        let mut chains = Self { served: BTreeMap::new(), waiting: Vec::new(), awaited: Vec::new() };
        let (mut reasons, mut passes) = (Vec::new(), false);
        // A chain without a node has a finding already.
        for chain_config in config.served_chains() {
            let id = &chain_config.id;
            let key = config.consensus_key(id).expect("the configuration gives every served chain a key");
            let state = claims.state(id);
            let opened = match findings.closed(id) {
                Some((why, passes)) => Err(Box::new(closed_by_look(chain_config, keyring, key, &state, why, passes))),
                None => open_chain(chain_config, keyring, key, state, host, hooks.take(id)),
            };
            let chain = match opened {
                Ok(Opened::Signs(chain)) => Arc::new(ServedChain::new(chain)),
                Ok(Opened::Waits(chain, hook)) => {
                    let chain = Arc::new(ServedChain::new(chain));
                    chains.waiting.push(WaitingChain::new(Arc::clone(&chain), chain_config.watermark(), hook));
                    chain
                }
                Err(closed) => {
                    let Closed { public_key, why, passes: this_passes, awaits } = *closed;
                    error!(chain = %id, "this chain signs nothing: {why}");
                    chains.awaited.extend(awaits);
                    reasons.push((id.clone(), why.clone()));
                    passes |= this_passes;
                    Arc::new(ServedChain::new(Chain::closed(id.clone(), public_key, why)))
                }
            };
            chains.served.insert(id.clone(), chain);
        }
        if reasons.len() == chains.served.len() {
            return Err(StartError::NoChain { reasons, passes });
        }
        Ok(chains)
    }

    /// All chains, ordered by id.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ServedChain>> {
        self.served.values()
    }

    /// Missing files that a chain needs for signing and that may appear later. Only a restart can open them: a sealed
    /// signer opens nothing new.
    pub(super) fn awaited(&self) -> &[PathBuf] {
        &self.awaited
    }

    /// Reports gaps in the audit file.
    pub(super) fn look_for_gaps(&self, audit: &Audit) {
        for chain in self.all() {
            if let Ok(sequence) = chain.chain().sequence() {
                audit.look_for_gap(chain.id(), sequence);
            }
        }
    }

    /// Locks all consensus keys into memory. Returns whether all attempts succeeded.
    pub(super) fn lock_secrets(&self) -> bool {
        // Tries every key, even after a failure.
        self.all().map(|chain| chain.chain().lock_secrets()).fold(true, |all, locked| all & locked)
    }

    /// Starts a thread for each chain that waits for its hook. The thread calls `on_hook_end` if the hook can never run
    /// again.
    pub(super) fn start_waiting(self, on_hook_end: impl Fn() + Clone + Send + 'static) -> Result<(), StartError> {
        for waiting in self.waiting {
            let on_end = on_hook_end.clone();
            thread::Builder::new()
                .name("state-hook".into())
                .spawn(move || {
                    if waiting.run().is_err() {
                        on_end();
                    }
                })
                .map_err(StartError::Thread)?;
        }
        Ok(())
    }
}

/// A chain that stays closed because of a finding from before anything was opened. Nodes still get its public key, if
/// it is available.
fn closed_by_look(
    config: &ChainConfig,
    keyring: &Keyring,
    key: KeyConfig<'_>,
    state: &Result<StateFile, StateError>,
    why: Refusal,
    passes: bool,
) -> Closed {
    let signer = keyring.signer(config, key);
    let awaits = match (&signer, state) {
        _ if !passes => None,
        (Err(error), _) => passing::awaited_key(error),
        (Ok(_), Err(error)) => passing::awaited_state(error),
        (Ok(_), Ok(_)) => None,
    };
    Closed { public_key: signer.ok().map(|signer| signer.public_key()), why, passes, awaits }
}

/// Opens a chain with the state file that was locked for it.
fn open_chain(
    config: &ChainConfig,
    keyring: &Keyring,
    key: KeyConfig<'_>,
    state: Result<StateFile, StateError>,
    host: HostId,
    hook: Option<Hook>,
) -> Result<Opened, Box<Closed>> {
    let signer = open_key(keyring, config, key)?;
    let public_key = signer.public_key();
    let identity = Identity { chain: config.id.clone(), key: public_key.clone() };
    let path = config.watermark();
    let place = Place { path: path.clone(), theirs: Theirs::new(&config.state_file), identity, host };
    let mut store = state.and_then(|file| place.open(file)).map_err(|error| {
        Box::new(Closed {
            public_key: Some(public_key.clone()),
            why: Refusal::StateUnusable(error.to_string()),
            passes: passing::state(&error),
            awaits: passing::awaited_state(&error),
        })
    })?;
    let mut waits = None;
    if let Some(mut hook) = hook {
        match ask_hook(config, &mut hook, &mut store) {
            Ok(()) => {}
            Err(NotReady::Yet(why)) => waits = Some((why, hook)),
            Err(NotReady::Ever { why, passes }) => {
                return Err(Box::new(Closed { public_key: Some(public_key), why, passes, awaits: None }));
            }
        }
    }
    let mark = store.mark().hrs;
    let chain = Chain::open(config.id.clone(), signer, store, &path, config.allow_raw_bytes);
    let Some((why, hook)) = waits else {
        info!(
            chain = %config.id,
            key = keyring::format::show(&config.key_format, &public_key),
            state = %path.display(),
            %mark,
            "chain open"
        );
        return Ok(Opened::Signs(chain));
    };
    error!(chain = %config.id, "this chain signs nothing yet: {why}");
    Ok(Opened::Waits(chain.waiting(why), hook))
}

fn open_key(keyring: &Keyring, config: &ChainConfig, key: KeyConfig<'_>) -> Result<Box<dyn Signer>, Box<Closed>> {
    let unavailable =
        |why, passes, awaits| Box::new(Closed { public_key: None, why: Refusal::KeyUnavailable(why), passes, awaits });
    let signer = keyring
        .signer(config, key)
        .map_err(|error| unavailable(error.to_string(), passing::key(&error), passing::awaited_key(&error)))?;
    if !key.provider.is_device() {
        // A device is tested on its own thread, whenever it is connected.
        prove(signer.as_ref()).map_err(|why| unavailable(why, false, None))?;
    }
    Ok(signer)
}
