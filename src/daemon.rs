//! The whole signer: opens every chain, then serves every validator node from a thread of its own.

use crate::{
    chain::{Chain, SELF_TEST},
    config::{ChainConfig, Config, KeyConfig, NodeAddress},
    consensus::ChainId,
    hook::{self, HookError},
    inspect::Findings,
    keyring::{self, IdentityKey, KeyError, Keyring, Signer, device::Device},
    node::{Node, Stop},
    ops::{
        audit::Audit,
        names::Names,
        recorder::Recorder,
        telemetry::{NodeView, Telemetry},
    },
    privval::Refusal,
    state::{Place, StateError},
    watermark::{FileError, HostError, HostId, Identity, Mark, StateFile, Store},
};
use std::{collections::BTreeMap, fmt, io, path::Path, sync::Arc, thread};
use tracing::{error, info, warn};

/// A signer with its chains open and its nodes not yet dialled.
pub struct Daemon {
    chains: Vec<Arc<Chain>>,
    nodes: Vec<Node>,
}

/// Fails if another signer is at work on the state of a served chain. Asked before any device is opened: the devices of
/// a working signer must not notice that a second one was started by mistake.
pub fn refuse_second_signer(config: &Config) -> Result<(), DaemonError> {
    config.served_chains().try_for_each(|chain| match StateFile::open(&chain.state_file) {
        Err(error @ FileError::Locked { .. }) => Err(DaemonError::Locked(error)),
        // Whatever else is wrong with it concerns its own chain, and is told when that is opened.
        _ => Ok(()),
    })
}

/// What the state hooks of served chains said.
pub struct Heights(BTreeMap<ChainId, Result<u64, HookError>>);

/// Runs every state hook, one after the other: before the signer confines itself, which ends the starting of programs.
/// That of a chain which stays closed is not run: it may be somebody else's program.
pub fn ask_hooks(config: &Config, findings: &Findings) -> Heights {
    let ask = |chain: &ChainConfig| Some((chain.id.clone(), hook::ask(chain.state_hook.as_ref()?)));
    let open = config.served_chains().filter(|chain| findings.closed(&chain.id).is_none());
    Heights(open.filter_map(ask).collect())
}

/// A signer at work.
pub struct Running {
    stops: Vec<Arc<Stop>>,
}

impl Daemon {
    /// Opens every chain that has a validator node. A chain whose state or key is bad is open for errors only; the
    /// others sign.
    pub fn open(
        config: &Config,
        keyring: &Keyring,
        (findings, mut heights): (&Findings, Heights),
        names: &Names,
    ) -> Result<Self, DaemonError> {
        let host = HostId::of_this_machine().map_err(DaemonError::Host)?;
        let mut chains: BTreeMap<ChainId, Arc<Chain>> = BTreeMap::new();
        let mut reasons = Vec::new();
        for chain_config in &config.chains {
            let id = &chain_config.id;
            // That nobody serves a chain is a finding.
            if !config.validators.iter().any(|validator| validator.chain_id == *id) {
                continue;
            }
            let key = config.consensus_key(id).expect("the configuration gives every served chain a key");
            let chain = match findings.closed(id) {
                Some(why) => closed_chain(chain_config, keyring, key, why),
                None => open_chain(chain_config, keyring, key, (host, &mut heights)).map_err(DaemonError::Locked)?,
            };
            if let Err(why) = chain.last() {
                error!(chain = %id, "this chain signs nothing: {why}");
                reasons.push((id.clone(), why));
            }
            chains.insert(id.clone(), Arc::new(chain));
        }
        if reasons.len() == chains.len() {
            return Err(DaemonError::NoChain(reasons));
        }
        let nodes = open_nodes(config, &chains, findings, names)?;
        Ok(Self { chains: chains.into_values().collect(), nodes })
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
            if let Ok(sequence) = chain.sequence() {
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
        let chains = self.chains.iter().map(|chain| chain.lock_secrets());
        // Each is tried, whatever became of the others.
        chains.chain(self.nodes.iter().map(Node::lock_secrets)).fold(true, |all, locked| all & locked)
    }

    /// Starts a thread for each node. `on_node_end` is called from it when that node will not be dialled again.
    pub fn start(self, on_node_end: impl Fn() + Clone + Send + 'static) -> Result<Running, DaemonError> {
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
        Ok(Running { stops })
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

/// Every node whose identity key can be read. One whose key cannot is left out; it must not keep the others from
/// being served.
fn open_nodes(
    config: &Config,
    chains: &BTreeMap<ChainId, Arc<Chain>>,
    findings: &Findings,
    names: &Names,
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

/// A chain that stays closed. Its public key is told all the same, if the key can be had.
fn closed_chain(config: &ChainConfig, keyring: &Keyring, key: KeyConfig<'_>, why: Refusal) -> Chain {
    let public_key = keyring.signer(config, key).ok().map(|signer| signer.public_key());
    Chain::closed(config.id.clone(), public_key, why)
}

/// Opens a chain, for errors only if its key or its state is bad. Fails if another signer is at work on the state:
/// going on could sign twice.
fn open_chain(
    config: &ChainConfig,
    keyring: &Keyring,
    key: KeyConfig<'_>,
    (host, heights): (HostId, &mut Heights),
) -> Result<Chain, FileError> {
    let id = || config.id.clone();
    let signer = match open_key(keyring, config, key) {
        Ok(signer) => signer,
        Err(why) => return Ok(Chain::closed(id(), None, Refusal::KeyUnavailable(why))),
    };
    let public_key = signer.public_key();
    let identity = Identity { chain: id(), key: public_key };
    let store = match open_store(config, &Place { path: config.state_file.clone(), identity, host }, heights) {
        Ok(store) => store,
        Err(StateError::File(error @ FileError::Locked { .. })) => return Err(error),
        Err(why) => return Ok(Chain::closed(id(), Some(public_key), Refusal::StateUnusable(why.to_string()))),
    };
    info!(
        chain = %config.id,
        key = keyring::format::show(&config.key_format, &public_key, key.role()),
        state = %config.state_file.display(),
        mark = %store.mark().hrs,
        "chain open"
    );
    Ok(Chain::open(id(), signer, store, &config.state_file, config.allow_raw_bytes))
}

fn open_key(keyring: &Keyring, config: &ChainConfig, key: KeyConfig<'_>) -> Result<Box<dyn Signer>, String> {
    let signer = keyring.signer(config, key).map_err(|error| error.to_string())?;
    if let KeyConfig::Softsign(_) = key {
        // A device proves itself on its own thread, whenever it is there.
        prove(signer.as_ref())?;
    }
    Ok(signer)
}

fn open_store(config: &ChainConfig, place: &Place, heights: &mut Heights) -> Result<Store, StateError> {
    let (mut store, imported) = place.open()?;
    if let Some(imported) = imported {
        let kept = imported.kept.map(|path| path.display().to_string()).unwrap_or_default();
        info!(chain = %config.id, mark = %imported.mark.hrs, kept, "took over the state of {}", imported.source);
        if imported.mark == Mark::NEVER_SIGNED {
            warn!(
                chain = %config.id,
                "{} says that this key has never signed. If it has, stop now and run `highwater state raise`",
                imported.source
            );
        }
    }
    raise_by_hook(config, place, &mut store, heights)?;
    Ok(store)
}

/// Has the key sign something that can never be sign bytes, and verifies it.
fn prove(signer: &dyn Signer) -> Result<(), String> {
    let signature = signer.sign(SELF_TEST).map_err(|error| error.to_string())?;
    match signer.public_key().verifies(SELF_TEST, &signature) {
        true => Ok(()),
        false => Err("its self-test signature does not verify".into()),
    }
}

fn raise_by_hook(
    config: &ChainConfig,
    place: &Place,
    store: &mut Store,
    heights: &mut Heights,
) -> Result<(), StateError> {
    let Some(hook) = &config.state_hook else { return Ok(()) };
    let height = heights.0.remove(&config.id).expect("every hook of a served chain was asked");
    match height.and_then(|height| hook::raised(height, store.mark())) {
        Ok(None) => info!(chain = %config.id, mark = %store.mark().hrs, "the state hook is not above the mark"),
        Ok(Some(mark)) => {
            let raised = store.advance(mark).map_err(place.store_error())?;
            info!(chain = %config.id, mark = %raised.spend().hrs, "the state hook raised the mark");
        }
        Err(error) if hook.fail_closed => return Err(StateError::Hook(error)),
        Err(error) => warn!(chain = %config.id, "going on without the state hook: {error}"),
    }
    Ok(())
}

/// Why the signer does not start.
#[derive(Debug)]
pub enum DaemonError {
    /// This machine cannot be told from others.
    Host(HostError),
    /// An identity key cannot be used.
    Identity(KeyError),
    /// Another signer is at work.
    Locked(FileError),
    /// No chain can sign.
    NoChain(Vec<(ChainId, Refusal)>),
    /// The system gives no thread.
    Thread(io::Error),
    /// Somebody else could put an identity key in the place of ours.
    Untrusted(String),
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => write!(f, "{error}"),
            Self::Identity(error) => write!(f, "identity key: {error}"),
            Self::Locked(error) => write!(f, "{error}"),
            Self::NoChain(reasons) => {
                f.write_str("no chain can sign")?;
                reasons.iter().try_for_each(|(chain, why)| write!(f, "\n  {chain}: {why}"))
            }
            Self::Thread(error) => write!(f, "cannot start a thread for a validator node: {error}"),
            Self::Untrusted(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for DaemonError {}
