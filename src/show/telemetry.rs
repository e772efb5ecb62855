//! Everything that a running signer shows, and whether it is ready.

use crate::{
    keyring::device::{Device, Health},
    process::{lock::lock, sandbox::Feature},
    record::{
        audit::Audit,
        recorder::Recorder,
        served::ServedChain,
        stats::{NodeStats, unix_seconds},
        utc,
    },
};
use highwater_core::consensus::ChainId;
use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};
use tracing_appender::non_blocking::ErrorCounter;

/// For how long after a signature of its chain a refusal is normal: a second node asks for the same message.
const USUAL_SECONDS: u64 = 10;
/// For how long after a refusal a new link of that node does not clear it: the node may reconnect because of the
/// refusal.
const AGAIN_SECONDS: u64 = 60;

/// A running signer, as it is shown. Only read.
pub struct Telemetry {
    /// When the process began to sign.
    pub started: SystemTime,
    /// Every served chain, by its id.
    pub chains: Vec<Arc<ServedChain>>,
    /// Every node, in the order of the configuration. A reload exchanges them.
    nodes: Mutex<Arc<[NodeView]>>,
    /// `None` before the first reload.
    reload: Mutex<Option<LastReload>>,
    /// Every device that holds keys.
    pub devices: Vec<Arc<Device>>,
    /// Counts log lines that were dropped because their reader was too slow.
    pub dropped_lines: Option<ErrorCounter>,
    /// The recorder of requests. `None` if the threads of their nodes record them.
    pub recorder: Option<Recorder>,
    pub audit: Option<Audit>,
    /// Which protections are switched off or not available on this system.
    pub warnings: Vec<String>,
    /// Each part of the sandbox, and whether it is in force.
    pub sandbox: Vec<(Feature, bool)>,
}

/// What became of a reload.
#[derive(Clone, Debug)]
pub struct LastReload {
    pub at: SystemTime,
    /// Whether the new configuration is in force. If not, nothing has changed.
    pub done: bool,
    /// Each change, or each reason for the refusal.
    pub lines: Vec<String>,
}

/// A validator node, as it is shown.
#[derive(Clone)]
pub struct NodeView {
    pub chain: ChainId,
    /// The node's address.
    pub name: String,
    pub stats: Arc<NodeStats>,
}

impl Telemetry {
    /// Shows a signer that has just started.
    pub fn new(chains: Vec<Arc<ServedChain>>, nodes: Vec<NodeView>, devices: Vec<Arc<Device>>) -> Self {
        Self {
            started: SystemTime::now(),
            chains,
            nodes: Mutex::new(nodes.into()),
            reload: Mutex::default(),
            devices,
            dropped_lines: None,
            recorder: None,
            audit: None,
            warnings: Vec::new(),
            sandbox: Vec::new(),
        }
    }

    /// What keeps this chain from signing now, one text for each cause. Empty if nothing does.
    pub fn blockers(&self, chain: &ServedChain) -> Vec<String> {
        let id = chain.id();
        let mut blockers: Vec<String> = chain.stats().why_closed().into_iter().collect();
        let (mut up, mut down) = (0, Vec::new());
        for device in self.devices.iter().filter(|device| device.chains().contains(id)) {
            match device.health() {
                Health::Up => up += 1,
                Health::Down(why) => down.push(format!("{}: {why}", device.name())),
            }
        }
        // One of several devices with the key is enough.
        if up == 0 {
            blockers.extend(down);
        }
        let nodes = self.nodes_of(id);
        if !nodes.iter().any(|node| node.stats.up_since().is_some()) {
            blockers.extend(nodes.iter().map(|node| match (node.stats.down_since(), &node.stats.notes().lost) {
                (Some(since), Some((_, why))) => {
                    format!("node {}: not connected since {}: {why}", node.name, utc::at(since))
                }
                _ => format!("node {}: not connected yet", node.name),
            }));
        }
        blockers
    }

    /// The newest refusal to the nodes of a chain that could sign. `None` if one of them got a signature since then, or
    /// shortly before.
    pub fn refusing(&self, chain: &ServedChain) -> Option<String> {
        let nodes = self.nodes_of(chain.id());
        let granted_at = nodes.iter().filter_map(|node| node.stats.granted_at()).max();
        let refusals = nodes.iter().filter_map(NodeView::last_refusal);
        let (at, text) = refusals.max_by_key(|(at, _)| *at)?;
        granted_at.is_none_or(|granted| at > granted + USUAL_SECONDS).then_some(text)
    }

    /// Every chain that does not sign now, with the causes. Empty when the signer is ready.
    pub fn not_ready(&self) -> Vec<(&ChainId, Vec<String>)> {
        let mut not_ready = Vec::new();
        for chain in &self.chains {
            let mut why = self.blockers(chain);
            why.extend(self.refusing(chain));
            if !why.is_empty() {
                not_ready.push((chain.id(), why));
            }
        }
        not_ready
    }

    /// Since when no node of a connected chain has asked for a signature, in seconds since 1970. `None` while no node
    /// is connected.
    pub fn quiet_since(&self, chain: &ChainId) -> Option<u64> {
        let nodes = self.nodes_of(chain);
        let asked_at = nodes.iter().filter_map(|node| node.stats.asked_at()).max();
        let first_link = nodes.iter().filter_map(|node| node.stats.up_since()).min()?;
        Some(asked_at.unwrap_or(first_link))
    }

    pub fn nodes_of(&self, chain: &ChainId) -> Vec<NodeView> {
        self.nodes().iter().filter(|node| node.chain == *chain).cloned().collect()
    }

    /// Every node that is served now.
    pub fn nodes(&self) -> Arc<[NodeView]> {
        Arc::clone(&lock(&self.nodes))
    }

    /// The last reload, if there was one.
    pub fn last_reload(&self) -> Option<LastReload> {
        lock(&self.reload).clone()
    }

    /// Shows what became of a reload, and the nodes after it.
    pub fn reloaded(&self, reload: LastReload, nodes: Vec<NodeView>) {
        *lock(&self.nodes) = nodes.into();
        *lock(&self.reload) = Some(reload);
    }
}

impl NodeView {
    /// When the node was last refused, in seconds since 1970, and why. `None` if it has connected anew since then.
    fn last_refusal(&self) -> Option<(u64, String)> {
        let (at, why) = self.stats.notes().refusals.back().cloned()?;
        let at = unix_seconds(at);
        // Requests over a new link may be good.
        let is_of_this_link = self.stats.up_since().is_none_or(|since| since <= at + AGAIN_SECONDS);
        is_of_this_link.then(|| (at, format!("node {} was refused at {}: {why}", self.name, utc::at(at))))
    }
}
