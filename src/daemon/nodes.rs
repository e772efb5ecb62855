//! Opens the validator nodes, serves each from its own thread, and exchanges them at a reload.

use super::{
    StartError,
    chains::Chains,
    reload::{Plan, Planned},
};
use crate::{
    config::{Config, NodeAddress, ValidatorConfig},
    inspect::Findings,
    keyring::IdentityKey,
    node::{Node, Stop},
    passing,
    process::resolver::Resolver,
    record::{
        recorder::{Recorder, Tape},
        served::ServedChain,
    },
    show::telemetry::NodeView,
};
use highwater_core::consensus::ChainId;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};
use tracing::error;

/// The nodes to serve, not dialled yet.
pub struct Nodes {
    nodes: Vec<Node>,
    /// Nodes whose identity key cannot be used. They are not dialled.
    left_out: Vec<RunningNode>,
    maker: Maker,
}

/// Makes nodes, at the start and at a reload.
struct Maker {
    chains: BTreeMap<ChainId, Arc<ServedChain>>,
    /// Every identity key that was read at the start.
    identities: BTreeMap<PathBuf, Arc<IdentityKey>>,
    resolver: Resolver,
    recorder: Option<Recorder>,
}

pub struct Running {
    /// In the order of the configuration.
    nodes: Vec<RunningNode>,
    maker: Maker,
    on_end: Arc<dyn Fn() + Send + Sync>,
}

struct RunningNode {
    config: ValidatorConfig,
    /// `None` if it is not dialled.
    at_work: Option<AtWork>,
    /// The missing file that it needs and that may appear later.
    awaits: Option<PathBuf>,
}

/// What remains of a node whose thread has started.
struct AtWork {
    stop: Arc<Stop>,
    view: NodeView,
    tape: Option<Arc<Tape>>,
}

impl Nodes {
    /// Opens every node whose identity key can be read. Others are left out, so that they do not keep these from being
    /// served.
    pub fn open(
        config: &Config,
        chains: &Chains,
        findings: &Findings,
        resolver: &Resolver,
    ) -> Result<Self, StartError> {
        let served = chains.all().map(|chain| (chain.id().clone(), Arc::clone(chain))).collect();
        let maker = Maker { chains: served, identities: BTreeMap::new(), resolver: resolver.clone(), recorder: None };
        let mut nodes = Self { nodes: Vec::new(), left_out: Vec::new(), maker };
        let mut unusable = None;
        for validator in &config.validators {
            if let NodeAddress::Tcp { identity_key, .. } = &validator.address
                && !nodes.maker.identities.contains_key(identity_key)
            {
                match open_identity(identity_key, findings) {
                    Ok(key) => {
                        nodes.maker.identities.insert(identity_key.clone(), Arc::new(key));
                    }
                    Err(why) => {
                        error!(chain = %validator.chain_id, node = %validator.address, "not serving this node: {why}");
                        let awaits = match &why {
                            StartError::Identity(error) => passing::awaited_key(error),
                            _ => None,
                        };
                        unusable = Some(why);
                        nodes.left_out.push(RunningNode { config: validator.clone(), at_work: None, awaits });
                        continue;
                    }
                }
            }
            nodes.nodes.push(nodes.maker.make(validator.clone()));
        }
        match unusable {
            Some(why) if nodes.nodes.is_empty() => Err(why),
            _ => Ok(nodes),
        }
    }

    /// The files of all identity keys that were read.
    pub(super) fn identities(&self) -> impl Iterator<Item = PathBuf> {
        self.maker.identities.keys().cloned()
    }

    pub(super) fn views(&self) -> Vec<NodeView> {
        self.nodes.iter().map(view).collect()
    }

    /// Lets the recorder log the result of every request.
    pub(super) fn report_to(&mut self, recorder: &Recorder) {
        self.nodes.iter_mut().for_each(|node| node.report_to(recorder));
        self.maker.recorder = Some(recorder.clone());
    }

    /// Locks all identity keys into memory. Returns whether all attempts succeeded.
    pub(super) fn lock_secrets(&self) -> bool {
        // Tries every key, even after a failure.
        self.maker.identities.values().map(|key| key.lock_secrets()).fold(true, |all, locked| all & locked)
    }

    /// Starts a thread for each node. The thread calls `on_end` when the node will not be dialled again.
    pub fn start(self, on_end: impl Fn() + Send + Sync + 'static) -> Result<Running, StartError> {
        let on_end: Arc<dyn Fn() + Send + Sync> = Arc::new(on_end);
        let mut nodes = Vec::new();
        for node in self.nodes {
            nodes.push(start(node, &on_end).map_err(StartError::Thread)?);
        }
        nodes.extend(self.left_out);
        Ok(Running { nodes, maker: self.maker, on_end })
    }
}

impl Maker {
    fn make(&self, config: ValidatorConfig) -> Node {
        let identity = config.address.identity_key();
        let identity = identity.map(|path| self.identities.get(path).expect("a node's identity key was read"));
        let chain = self.chains.get(&config.chain_id).expect("every validator has its chain");
        let mut node = Node::new(config, identity.cloned(), Arc::clone(chain), self.resolver.clone());
        if let Some(recorder) = &self.recorder {
            node.report_to(recorder);
        }
        node
    }
}

impl Running {
    /// How many nodes have a thread.
    pub(super) fn count(&self) -> usize {
        self.nodes.iter().filter(|node| node.at_work.is_some()).count()
    }

    /// The nodes as configured, in their order.
    pub(super) fn configs(&self) -> Vec<ValidatorConfig> {
        self.nodes.iter().map(|node| node.config.clone()).collect()
    }

    pub(super) fn views(&self) -> Vec<NodeView> {
        self.nodes.iter().filter_map(|node| Some(node.at_work.as_ref()?.view.clone())).collect()
    }

    /// Missing files that a node needs and that may appear later.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &PathBuf> {
        self.nodes.iter().filter_map(|node| node.awaits.as_ref())
    }

    /// The nodes that are not dialled, because their identity key could not be used at the start.
    pub(super) fn left_out(&self) -> impl Iterator<Item = &ValidatorConfig> {
        self.nodes.iter().filter(|node| node.at_work.is_none()).map(|node| &node.config)
    }

    /// Carries out a plan, or nothing of it. `started` counts the threads that were started in either case: each
    /// reports its end.
    pub(super) fn carry_out(&mut self, plan: Plan, started: &mut usize) -> io::Result<()> {
        // The new ones first: only their start can fail.
        let mut new: Vec<Option<RunningNode>> = Vec::new();
        for planned in &plan.nodes {
            let Planned::Dial(config) = planned else {
                new.push(None);
                continue;
            };
            match start(self.maker.make(config.clone()), &self.on_end) {
                Ok(node) => {
                    *started += 1;
                    new.push(Some(node));
                }
                Err(error) => {
                    new.into_iter().flatten().for_each(|node| self.end(node));
                    return Err(error);
                }
            }
        }
        let mut old: Vec<Option<RunningNode>> = self.nodes.drain(..).map(Some).collect();
        for (planned, new) in plan.nodes.into_iter().zip(new) {
            self.nodes.extend(match planned {
                Planned::Keep(place) => old[place].take(),
                Planned::Dial(_) => new,
            });
        }
        // What is left was removed, or is dialled anew.
        old.into_iter().flatten().for_each(|node| self.end(node));
        Ok(())
    }

    /// Lets the pending request of one node be answered, and ends its link.
    fn end(&self, node: RunningNode) {
        let Some(AtWork { stop, tape, .. }) = node.at_work else { return };
        stop.stop();
        if let (Some(recorder), Some(tape)) = (&self.maker.recorder, tape) {
            recorder.forget(&tape);
        }
    }

    /// Lets pending requests be answered and accepts no new ones. Does not wait.
    pub fn stop(&self) {
        self.nodes.iter().filter_map(|node| node.at_work.as_ref()).for_each(|node| node.stop.stop());
    }
}

fn start(node: Node, on_end: &Arc<dyn Fn() + Send + Sync>) -> io::Result<RunningNode> {
    let config = node.config().clone();
    let at_work = AtWork { stop: node.stop_handle(), view: view(&node), tape: node.tape() };
    let on_end = Arc::clone(on_end);
    thread::Builder::new().name("node".into()).spawn(move || {
        node.run();
        on_end();
    })?;
    Ok(RunningNode { config, at_work: Some(at_work), awaits: None })
}

fn view(node: &Node) -> NodeView {
    NodeView { chain: node.chain().id().clone(), name: node.name().to_owned(), stats: node.stats() }
}

fn open_identity(path: &Path, findings: &Findings) -> Result<IdentityKey, StartError> {
    let key = IdentityKey::load(path).map_err(StartError::Identity)?;
    match findings.unfit_identity(path) {
        Some(why) => Err(StartError::Untrusted(why)),
        None => Ok(key),
    }
}
