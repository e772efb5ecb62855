//! Opens the validator nodes, and serves each from a thread of its own.

use super::{StartError, chains::Chains};
use crate::{
    config::{Config, NodeAddress},
    inspect::Findings,
    keyring::IdentityKey,
    node::{Node, Stop},
    passing,
    process::resolver::Resolver,
    record::recorder::Recorder,
    show::telemetry::NodeView,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};
use tracing::error;

/// The nodes that are served, not yet dialled.
pub struct Nodes {
    nodes: Vec<Node>,
    /// Files without which a node is not served, and that may come late.
    awaited: Vec<PathBuf>,
}

/// The nodes at work.
pub struct Running {
    stops: Vec<Arc<Stop>>,
}

impl Nodes {
    /// Every node whose identity key can be read. One whose key cannot is left out; it must not keep the others from
    /// being served.
    pub fn open(
        config: &Config,
        chains: &Chains,
        findings: &Findings,
        resolver: &Resolver,
    ) -> Result<Self, StartError> {
        let mut nodes = Self { nodes: Vec::new(), awaited: Vec::new() };
        let mut unusable = None;
        for validator in &config.validators {
            let identity = match &validator.address {
                NodeAddress::Unix { .. } => None,
                NodeAddress::Tcp { identity_key, .. } => match open_identity(identity_key, findings) {
                    Ok(key) => Some(Arc::new(key)),
                    Err(why) => {
                        error!(chain = %validator.chain_id, node = %validator.address, "not serving this node: {why}");
                        if let StartError::Identity(error) = &why {
                            nodes.awaited.extend(passing::awaited_key(error));
                        }
                        unusable = Some(why);
                        continue;
                    }
                },
            };
            let chain = Arc::clone(chains.of(&validator.chain_id));
            nodes.nodes.push(Node::new(validator.clone(), identity, chain, resolver.clone()));
        }
        match unusable {
            Some(why) if nodes.nodes.is_empty() => Err(why),
            _ => Ok(nodes),
        }
    }

    /// Files without which a node is not served, and that may come late.
    pub(super) fn awaited(&self) -> &[PathBuf] {
        &self.awaited
    }

    /// Each as an operator sees it.
    pub(super) fn views(&self) -> Vec<NodeView> {
        let mut views = Vec::new();
        for node in &self.nodes {
            views.push(NodeView {
                chain: node.chain().id().clone(),
                name: node.name().to_owned(),
                stats: node.stats(),
            });
        }
        views
    }

    /// Has the recorder log what becomes of every request.
    pub(super) fn report_to(&mut self, recorder: &Recorder) {
        self.nodes.iter_mut().for_each(|node| node.report_to(recorder));
    }

    /// Locks all identity keys into memory. Returns whether that succeeded for each.
    pub(super) fn lock_secrets(&self) -> bool {
        // Each is tried, whatever became of the others.
        self.nodes.iter().map(Node::lock_secrets).fold(true, |all, locked| all & locked)
    }

    /// Starts a thread for each node. `on_end` is called from it when that node will not be dialled again.
    pub fn start(self, on_end: impl Fn() + Clone + Send + 'static) -> Result<Running, StartError> {
        let mut stops = Vec::new();
        for node in self.nodes {
            stops.push(node.stop_handle());
            let on_end = on_end.clone();
            let run = move || {
                node.run();
                on_end();
            };
            thread::Builder::new().name("node".into()).spawn(run).map_err(StartError::Thread)?;
        }
        Ok(Running { stops })
    }
}

impl Running {
    /// How many nodes were started.
    pub(super) fn count(&self) -> usize {
        self.stops.len()
    }

    /// Lets every request in hand be answered and begins none after it. Does not wait.
    pub fn stop(&self) {
        self.stops.iter().for_each(|stop| stop.stop());
    }
}

fn open_identity(path: &Path, findings: &Findings) -> Result<IdentityKey, StartError> {
    let key = IdentityKey::load(path).map_err(StartError::Identity)?;
    match findings.unfit_identity(path) {
        Some(why) => Err(StartError::Untrusted(why)),
        None => Ok(key),
    }
}
