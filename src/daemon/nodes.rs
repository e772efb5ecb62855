//! Opens the validator nodes, and serves each from its own thread.

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

/// The nodes to serve, not dialled yet.
pub struct Nodes {
    nodes: Vec<Node>,
    /// Missing files that a node needs and that may appear later.
    awaited: Vec<PathBuf>,
}

pub struct Running {
    stops: Vec<Arc<Stop>>,
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

    /// Missing files that a node needs and that may appear later.
    pub(super) fn awaited(&self) -> &[PathBuf] {
        &self.awaited
    }

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

    /// Lets the recorder log the result of every request.
    pub(super) fn report_to(&mut self, recorder: &Recorder) {
        self.nodes.iter_mut().for_each(|node| node.report_to(recorder));
    }

    /// Locks all identity keys into memory. Returns whether all attempts succeeded.
    pub(super) fn lock_secrets(&self) -> bool {
        // Tries every key, even after a failure.
        self.nodes.iter().map(Node::lock_secrets).fold(true, |all, locked| all & locked)
    }

    /// Starts a thread for each node. The thread calls `on_end` when the node will not be dialled again.
    pub fn start(self, on_end: impl Fn() + Clone + Send + 'static) -> Result<Running, StartError> {
        let mut stops = Vec::new();
        for node in self.nodes {
            stops.push(node.stop_handle());
            let on_end = on_end.clone();
            thread::Builder::new()
                .name("node".into())
                .spawn(move || {
                    node.run();
                    on_end();
                })
                .map_err(StartError::Thread)?;
        }
        Ok(Running { stops })
    }
}

impl Running {
    /// How many nodes were started.
    pub(super) fn count(&self) -> usize {
        self.stops.len()
    }

    /// Lets pending requests be answered and accepts no new ones. Does not wait.
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
