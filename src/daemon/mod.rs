//! The whole signer: opens every chain, then serves every validator node from a thread of its own.

pub mod claim;
mod error;

pub use error::DaemonError;

use crate::{
    config::{ChainConfig, Config, KeyConfig, NodeAddress},
    daemon::claim::Claim,
    inspect::Findings,
    keyring::{self, IdentityKey, Keyring, device::Device},
    node::{Node, Stop},
    passing,
    process::{
        hook::{self, HookError},
        hooks::{Hook, Hooks},
        names::Names,
    },
    record::{audit::Audit, recorder::Recorder, served::ServedChain},
    show::telemetry::{NodeView, Telemetry},
    state::{self, Place, StateError, Theirs},
};
use highwater_core::{
    chain::{Chain, NotReady, state_unusable},
    consensus::{ChainId, PublicKey},
    privval::Refusal,
    signer::{Signer, prove},
    watermark::{FileError, HostId, Identity, StateFile, Store},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};
use tracing::{error, info, warn};

/// A signer with its chains open and its nodes not yet dialled.
pub struct Daemon {
    chains: Vec<Arc<ServedChain>>,
    nodes: Vec<Node>,
    waiting: Vec<Waiting>,
    awaited: Vec<PathBuf>,
    names: Vec<Claim>,
}

/// What a signer has to itself before it starts or asks anything: the state files of its chains, and the machine-wide
/// names of their chains and keys.
pub struct Claims {
    states: BTreeMap<ChainId, Result<StateFile, StateError>>,
    names: Vec<Claim>,
}

/// Locks the state of every served chain. Fails if another signer is at work on one of them, or with the same chain and
/// key: the devices, ports and sockets of a working signer must not notice that a second one was started by mistake. And
/// before anything else that two of them would dispute: only this trouble is told with this exit code.
pub fn claim(config: &Config) -> Result<Claims, DaemonError> {
    let mut claims = Claims { states: BTreeMap::new(), names: Vec::new() };
    for chain in config.served_chains() {
        let state = match state::lock(&chain.watermark(), &Theirs::new(&chain.state_file)) {
            Err(StateError::File(error @ FileError::Locked { .. })) => return Err(DaemonError::locked(error)),
            // Whatever else is wrong with it concerns its own chain, and is told when that is opened.
            Err(error) => Err(error),
            Ok(mut file) => match file.newest() {
                Ok(record) => {
                    // A file of another chain closes this one, and is claimed by its own.
                    if record.header.identity().chain == chain.id {
                        let claimed = |error| DaemonError::claimed(&chain.id, error);
                        claims.names.push(Claim::take(record.header.identity()).map_err(claimed)?);
                    }
                    Ok(file)
                }
                // Without a name it does not sign, even if it could be read in a moment.
                Err(error) => Err(StateError::Store { path: chain.watermark(), error }),
            },
        };
        claims.states.insert(chain.id.clone(), state);
    }
    Ok(claims)
}

impl Claims {
    fn state(&mut self, chain: &ChainId) -> Result<StateFile, StateError> {
        self.states.remove(chain).expect("every served chain was claimed, and is opened once")
    }
}

/// A chain that waits for its state hook.
struct Waiting {
    chain: Arc<ServedChain>,
    state_file: PathBuf,
    hook: Hook,
}

/// A signer at work.
pub struct Running {
    stops: Vec<Arc<Stop>>,
    #[expect(dead_code, reason = "held until the end, never used")]
    names: Vec<Claim>,
}

impl Daemon {
    /// Opens every chain that has a validator node. A chain whose state or key is bad is open for errors only; the
    /// others sign. One whose hook fails is open for errors until the hook succeeds.
    pub fn open(
        config: &Config,
        mut claims: Claims,
        keyring: &Keyring,
        (findings, mut hooks): (&Findings, Hooks),
        names: &Names,
    ) -> Result<Self, DaemonError> {
        let host = HostId::of_this_machine().map_err(DaemonError::Host)?;
        let mut chains: BTreeMap<ChainId, Arc<ServedChain>> = BTreeMap::new();
        let (mut reasons, mut passes) = (Vec::new(), false);
        let (mut waiting, mut awaited) = (Vec::new(), Vec::new());
        for chain_config in &config.chains {
            let id = &chain_config.id;
            // That nobody serves a chain is a finding.
            if !config.validators.iter().any(|validator| validator.chain_id == *id) {
                continue;
            }
            let key = config.consensus_key(id).expect("the configuration gives every served chain a key");
            let hook = hooks.take(id);
            let opened = match findings.closed(id) {
                Some((why, passes)) => closed_by_look(chain_config, keyring, key, &claims.state(id), (why, passes)),
                None => open_chain(chain_config, keyring, key, claims.state(id), (host, hook)),
            };
            let chain = match opened {
                Opened::Signs(chain) => Arc::new(ServedChain::new(chain)),
                Opened::Waits(chain, hook) => {
                    let chain = Arc::new(ServedChain::new(chain));
                    let state_file = chain_config.watermark();
                    waiting.push(Waiting { chain: Arc::clone(&chain), state_file, hook });
                    chain
                }
                Opened::Closed { public_key, why, passes: this_passes, awaits } => {
                    awaited.extend(awaits);
                    error!(chain = %id, "this chain signs nothing: {why}");
                    reasons.push((id.clone(), why.clone()));
                    passes |= this_passes;
                    Arc::new(ServedChain::new(Chain::closed(id.clone(), public_key, why)))
                }
            };
            chains.insert(id.clone(), chain);
        }
        if reasons.len() == chains.len() {
            return Err(DaemonError::NoChain { reasons, passes });
        }
        let nodes = open_nodes(config, &chains, findings, names, &mut awaited)?;
        Ok(Self { chains: chains.into_values().collect(), nodes, waiting, awaited, names: claims.names })
    }

    /// Files without which a chain does not sign or a node is not served, and that may come late. Once one is there, only
    /// another start can open it: a sealed signer opens nothing new.
    pub fn awaited(&self) -> &[PathBuf] {
        &self.awaited
    }

    /// All that can be seen of it. `devices` are those of its keyring.
    pub fn telemetry(&self, devices: Vec<Arc<Device>>) -> Telemetry {
        let view = |node: &Node| NodeView {
            chain: node.chain().id().clone(),
            name: node.name().to_owned(),
            stats: node.stats(),
        };
        Telemetry::new(self.chains.clone(), self.nodes.iter().map(view).collect(), devices)
    }

    /// Says if the audit file has a gap.
    pub fn look_for_gap(&self, audit: &Audit) {
        for chain in &self.chains {
            if let Ok(sequence) = chain.chain().sequence() {
                audit.look_for_gap(chain.id(), sequence);
            }
        }
    }

    /// Has everything that becomes of requests told by that recorder.
    pub fn record(&mut self, recorder: &Recorder) {
        self.nodes.iter_mut().for_each(|node| node.record(recorder));
    }

    /// Keeps all keys in our memory out of swap and core dumps. Whether they all are.
    pub fn lock_secrets(&self) -> bool {
        let chains = self.chains.iter().map(|chain| chain.chain().lock_secrets());
        // Each is tried, whatever became of the others.
        chains.chain(self.nodes.iter().map(Node::lock_secrets)).fold(true, |all, locked| all & locked)
    }

    /// Starts a thread for each node, and for each chain that waits. `on_node_end` is called from the first when that
    /// node will not be dialled again, `on_hook_end` from the second when its hook can never be run again.
    pub fn start(
        self,
        on_node_end: impl Fn() + Clone + Send + 'static,
        on_hook_end: impl Fn() + Clone + Send + 'static,
    ) -> Result<Running, DaemonError> {
        for waiting in self.waiting {
            let on_end = on_hook_end.clone();
            let run = move || {
                if waiting.run().is_err() {
                    on_end();
                }
            };
            thread::Builder::new().name("state-hook".into()).spawn(run).map_err(DaemonError::Thread)?;
        }
        let mut stops = Vec::new();
        for node in self.nodes {
            stops.push(node.stop_handle());
            let on_end = on_node_end.clone();
            let run = move || {
                node.run();
                on_end();
            };
            thread::Builder::new().name("node".into()).spawn(run).map_err(DaemonError::Thread)?;
        }
        Ok(Running { stops, names: self.names })
    }
}

impl Running {
    /// How many nodes were started.
    pub fn node_count(&self) -> usize {
        self.stops.len()
    }

    /// Lets every request in hand be answered and begins none after it. Does not wait.
    pub fn stop(&self) {
        self.stops.iter().for_each(|stop| stop.stop());
    }
}

/// Waits between one run of a hook and the next: a second at first, in the end a minute.
struct Waits(Duration);

impl Waits {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(Self::LONGEST);
        wait
    }
}

impl Waiting {
    /// Runs the hook again and again until the chain is open, or closed for good. Fails if the hook cannot be run any
    /// more.
    fn run(mut self) -> Result<(), HookError> {
        let mut waits = Waits(Waits::FIRST);
        loop {
            thread::sleep(waits.next());
            let height = match self.hook.height() {
                Err(gone @ HookError::Gone(_)) => return Err(gone),
                other => other,
            };
            let id = self.chain.id();
            match self.chain.try_to_open(|store| raise((id, &self.state_file), store, height)) {
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

/// Every node whose identity key can be read. One whose key cannot is left out; it must not keep the others from
/// being served.
fn open_nodes(
    config: &Config,
    chains: &BTreeMap<ChainId, Arc<ServedChain>>,
    findings: &Findings,
    names: &Names,
    awaited: &mut Vec<PathBuf>,
) -> Result<Vec<Node>, DaemonError> {
    let mut nodes = Vec::new();
    let mut unusable = None;
    for validator in &config.validators {
        let identity = match &validator.address {
            NodeAddress::Unix { .. } => None,
            NodeAddress::Tcp { identity_key, .. } => match open_identity(identity_key, findings) {
                Ok(key) => Some(Arc::new(key)),
                Err(why) => {
                    error!(chain = %validator.chain_id, node = %validator.address, "not serving this node: {why}");
                    if let DaemonError::Identity(error) = &why {
                        awaited.extend(passing::awaited_key(error));
                    }
                    unusable = Some(why);
                    continue;
                }
            },
        };
        let chain = chains.get(&validator.chain_id).expect("every validator has its chain");
        nodes.push(Node::new(validator.clone(), identity, Arc::clone(chain), names.clone()));
    }
    match unusable {
        Some(why) if nodes.is_empty() => Err(why),
        _ => Ok(nodes),
    }
}

fn open_identity(path: &Path, findings: &Findings) -> Result<IdentityKey, DaemonError> {
    let key = IdentityKey::load(path).map_err(DaemonError::Identity)?;
    match findings.unfit_identity(path) {
        Some(why) => Err(DaemonError::Untrusted(why)),
        None => Ok(key),
    }
}

/// A chain that stays closed for what was found before anything was opened. Its public key is told all the same, if it can
/// be had.
fn closed_by_look(
    config: &ChainConfig,
    keyring: &Keyring,
    key: KeyConfig<'_>,
    state: &Result<StateFile, StateError>,
    (why, passes): (Refusal, bool),
) -> Opened {
    let signer = keyring.signer(config, key);
    let awaits = match (&signer, state) {
        _ if !passes => None,
        (Err(error), _) => passing::awaited_key(error),
        (Ok(_), Err(error)) => passing::awaited_state(error),
        (Ok(_), Ok(_)) => None,
    };
    Opened::Closed { public_key: signer.ok().map(|signer| signer.public_key()), why, passes, awaits }
}

/// A chain that was opened, or why it was not.
enum Opened {
    Signs(Chain),
    Waits(Chain, Hook),
    Closed {
        public_key: Option<PublicKey>,
        why: Refusal,
        /// Whether a later start may find it well, with nobody doing anything.
        passes: bool,
        /// The file that may come late.
        awaits: Option<PathBuf>,
    },
}

/// Opens a chain, in the state file that was locked for it.
fn open_chain(
    config: &ChainConfig,
    keyring: &Keyring,
    key: KeyConfig<'_>,
    state: Result<StateFile, StateError>,
    (host, hook): (HostId, Option<Hook>),
) -> Opened {
    let id = || config.id.clone();
    let signer = match open_key(keyring, config, key) {
        Ok(signer) => signer,
        Err((why, passes, awaits)) => {
            return Opened::Closed { public_key: None, why: Refusal::KeyUnavailable(why), passes, awaits };
        }
    };
    let public_key = signer.public_key();
    let identity = Identity { chain: id(), key: public_key.clone() };
    let path = config.watermark();
    let place = Place { path: path.clone(), theirs: Theirs::new(&config.state_file), identity, host };
    let closed = |error: StateError| {
        let (passes, awaits) = (passing::state(&error), passing::awaited_state(&error));
        let why = Refusal::StateUnusable(error.to_string());
        Opened::Closed { public_key: Some(public_key.clone()), why, passes, awaits }
    };
    let mut store = match state.and_then(|file| place.open(file)) {
        Ok(store) => store,
        Err(why) => return closed(why),
    };
    let waits = match hook {
        None => None,
        Some(mut hook) => match ask_hook(config, &mut hook, &mut store) {
            Ok(()) => None,
            Err(NotReady::Yet(why)) => Some((why, hook)),
            Err(NotReady::Ever { why, passes }) => {
                return Opened::Closed { public_key: Some(public_key), why, passes, awaits: None };
            }
        },
    };
    let mark = store.mark().hrs;
    let chain = Chain::open(id(), signer, store, &path, config.allow_raw_bytes);
    let Some((why, hook)) = waits else {
        info!(
            chain = %config.id,
            key = keyring::format::show(&config.key_format, &public_key),
            state = %path.display(),
            %mark,
            "chain open"
        );
        return Opened::Signs(chain);
    };
    error!(chain = %config.id, "this chain signs nothing yet: {why}");
    Opened::Waits(chain.waiting(why), hook)
}

/// What an error says besides is whether a later start may find the key usable, and which file may come late.
fn open_key(
    keyring: &Keyring,
    config: &ChainConfig,
    key: KeyConfig<'_>,
) -> Result<Box<dyn Signer>, (String, bool, Option<PathBuf>)> {
    let signer = keyring
        .signer(config, key)
        .map_err(|error| (error.to_string(), passing::key(&error), passing::awaited_key(&error)))?;
    if let KeyConfig::Softsign(_) = key {
        // A device proves itself on its own thread, whenever it is there.
        prove(signer.as_ref()).map_err(|why| (why, false, None))?;
    }
    Ok(signer)
}

/// Has the hook raise the mark before the first request. Without a height the chain waits for one, or goes on as
/// configured.
fn ask_hook(config: &ChainConfig, hook: &mut Hook, store: &mut Store) -> Result<(), NotReady> {
    let fail_closed = config.state_hook.as_ref().is_none_or(|hook| hook.fail_closed);
    match raise((&config.id, &config.state_file), store, hook.height()) {
        Err(NotReady::Yet(why)) if !fail_closed => {
            warn!(chain = %config.id, "going on without the state hook: {why}");
            Ok(())
        }
        other => other,
    }
}

/// Raises the mark to the height that a hook has named, if that is above it.
fn raise(
    (id, state_file): (&ChainId, &Path),
    store: &mut Store,
    height: Result<u64, HookError>,
) -> Result<(), NotReady> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_between_runs_of_a_hook_grow_to_a_minute() {
        let mut waits = Waits(Waits::FIRST);
        let seconds: Vec<_> = (0..9).map(|_| waits.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
