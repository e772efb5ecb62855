//! All that can be seen of a running signer, and whether it is ready.

use crate::{
    keyring::device::{Device, Health},
    process::sandbox::Feature,
    record::{
        audit::Audit,
        recorder::Recorder,
        served::ServedChain,
        stats::{NodeStats, unix_seconds},
        utc,
    },
};
use highwater_core::consensus::ChainId;
use std::{sync::Arc, time::SystemTime};
use tracing_appender::non_blocking::ErrorCounter;

/// How long after a signature of its chain a refusal is the usual second request of a second node.
const USUAL_SECONDS: u64 = 10;
/// How long after a refusal a link that comes up again is still that of a node that is refused: it may have hung up over it.
const AGAIN_SECONDS: u64 = 60;

/// A running signer, seen from outside. Holds what it shows, and changes none of it.
pub struct Telemetry {
    /// When the process began to sign.
    pub started: SystemTime,
    /// Every served chain, by its id.
    pub chains: Vec<Arc<ServedChain>>,
    /// Every node, in the order of the configuration.
    pub nodes: Vec<NodeView>,
    /// Every device that holds keys.
    pub devices: Vec<Arc<Device>>,
    /// Log lines that nobody read in time.
    pub dropped_lines: Option<ErrorCounter>,
    /// What tells of requests, if it is not the threads of their nodes.
    pub recorder: Option<Recorder>,
    /// The audit file, if there is one.
    pub audit: Option<Audit>,
    /// What protection was taken away or is not to be had here.
    pub warnings: Vec<String>,
    /// Each part of the confinement, and whether it is in force.
    pub sandbox: Vec<(Feature, bool)>,
}

/// A validator node, seen from outside.
pub struct NodeView {
    /// The chain it is served.
    pub chain: ChainId,
    /// Its address.
    pub name: String,
    /// What it has asked for.
    pub stats: Arc<NodeStats>,
}

impl Telemetry {
    /// A signer that has just been opened.
    pub fn new(chains: Vec<Arc<ServedChain>>, nodes: Vec<NodeView>, devices: Vec<Arc<Device>>) -> Self {
        Self {
            started: SystemTime::now(),
            chains,
            nodes,
            devices,
            dropped_lines: None,
            recorder: None,
            audit: None,
            warnings: Vec::new(),
            sandbox: Vec::new(),
        }
    }

    /// What keeps this chain from signing now, in whole sentences. Empty if nothing does.
    pub fn blockers(&self, chain: &ServedChain) -> Vec<String> {
        let id = chain.id();
        let mut blockers: Vec<String> = chain.stats().why_closed().into_iter().collect();
        let devices: Vec<_> = self.devices.iter().filter(|device| device.chains().contains(id)).collect();
        let down = devices.iter().filter_map(|device| match device.health() {
            Health::Up => None,
            Health::Down(why) => Some(format!("{}: {why}", device.name())),
        });
        let down: Vec<_> = down.collect();
        // One of several devices with the key is enough.
        if !devices.is_empty() && down.len() == devices.len() {
            blockers.extend(down);
        }
        if !self.nodes_of(id).any(|node| node.stats.up_since().is_some()) {
            blockers.extend(self.nodes_of(id).map(|node| match (node.stats.down_since(), &node.stats.notes().lost) {
                (Some(since), Some((_, why))) => {
                    format!("node {}: not connected since {}: {why}", node.name, utc::at(since))
                }
                _ => format!("node {}: not connected yet", node.name),
            }));
        }
        blockers
    }

    /// What a chain that could sign refuses to sign, and why: the newest of what its nodes were refused, unless one of
    /// them has got a signature since, or shortly before.
    pub fn refusing(&self, chain: &ServedChain) -> Option<String> {
        let nodes = || self.nodes_of(chain.id());
        let granted_at = nodes().filter_map(|node| node.stats.granted_at()).max();
        let last_refusal = |node: &NodeView| {
            let (at, why) = node.stats.notes().refusals.back().cloned()?;
            let at = unix_seconds(at);
            // What comes over a new link may be well.
            let is_of_this_link = node.stats.up_since().is_none_or(|since| since <= at + AGAIN_SECONDS);
            is_of_this_link.then(|| (at, format!("node {} was refused at {}: {why}", node.name, utc::at(at))))
        };
        let (at, text) = nodes().filter_map(last_refusal).max_by_key(|(at, _)| *at)?;
        granted_at.is_none_or(|granted| at > granted + USUAL_SECONDS).then_some(text)
    }

    /// Every chain that does not sign now, with what is missing or refused. Empty when the signer is ready.
    pub fn not_ready(&self) -> Vec<(&ChainId, Vec<String>)> {
        let why = |chain: &Arc<ServedChain>| {
            let mut why = self.blockers(chain);
            why.extend(self.refusing(chain));
            why
        };
        let chains = self.chains.iter().map(|chain| (chain.id(), why(chain)));
        chains.filter(|(_, why)| !why.is_empty()).collect()
    }

    /// Since when a linked chain has been asked for nothing to sign, in seconds since 1970. None while no node is linked.
    pub fn quiet_since(&self, chain: &ChainId) -> Option<u64> {
        let asked_at = self.nodes_of(chain).filter_map(|node| node.stats.asked_at()).max();
        let first_link = self.nodes_of(chain).filter_map(|node| node.stats.up_since()).min()?;
        Some(asked_at.unwrap_or(first_link))
    }

    /// The nodes of that chain.
    pub fn nodes_of(&self, chain: &ChainId) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(move |node| node.chain == *chain)
    }
}
