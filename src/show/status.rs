//! The running signer, for `highwater status`: one JSON object. `docs/status.md` describes its fields.

use super::telemetry::{NodeView, Telemetry};
use crate::{
    keyring::device::{Device, Health},
    record::served::ServedChain,
    record::{histogram::Histogram, stats::unix_seconds},
};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Everything that `status` shows. Times are seconds since 1970.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Status {
    /// Goes up when a field changes its meaning.
    pub schema: u32,
    pub version: String,
    pub pid: u32,
    /// The time of this answer.
    pub now: u64,
    /// When the process began to sign.
    pub started: u64,
    /// Whether every chain signs.
    pub ready: bool,
    pub chains: Vec<ChainStatus>,
    pub devices: Vec<DeviceStatus>,
    /// Which protections are switched off or not available on this system.
    pub warnings: Vec<String>,
    /// The last reload. `None` if there was none since the start.
    #[serde(default)]
    pub reload: Option<ReloadStatus>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ReloadStatus {
    pub at: u64,
    /// Whether the configuration of that moment is in force. If not, nothing has changed.
    pub done: bool,
    /// Each change, or each reason for the refusal.
    pub lines: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ChainStatus {
    pub id: String,
    /// The consensus key in hex, if it is known.
    pub public_key: Option<String>,
    /// The validator address in hex.
    pub address: Option<String>,
    /// The watermark, as height, round and step (1 proposal, 2 prevote, 3 precommit).
    pub mark: (u64, u32, u8),
    pub signed_at: Option<u64>,
    /// What keeps it from signing now. Empty if nothing does.
    pub missing: Vec<String>,
    /// The newest refusal, if its nodes get only refusals.
    #[serde(default)]
    pub refusing: Option<String>,
    /// Since when no connected node has asked for a signature. `None` while no node is connected.
    #[serde(default)]
    pub quiet_since: Option<u64>,
    /// How long its marks take to become durable.
    pub flush: Latency,
    pub nodes: Vec<NodeStatus>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct NodeStatus {
    pub address: String,
    /// Its peer id, once it is known. Unix sockets have none.
    pub peer: Option<String>,
    /// Since when the link is up. `None` while it is down.
    pub up_since: Option<u64>,
    /// Since when the link is down. `None` while it is up, and before the first attempt to connect has failed.
    #[serde(default)]
    pub down_since: Option<u64>,
    /// How often the link came up.
    pub connects: u64,
    /// When and why the link was last lost, or could not be made.
    pub lost: Option<(u64, String)>,
    /// Requests that got a new signature.
    pub signed: u64,
    /// Requests that got the same signature as before.
    pub repeated: u64,
    /// Requests refused by the rule or the configuration.
    pub refused: u64,
    /// Requests not signed because the key or the disk failed.
    pub failed: u64,
    /// The time from a request to its answer.
    pub answer: Latency,
    /// When and why the last requests were refused, the newest last.
    pub refusals: Vec<(u64, String)>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct DeviceStatus {
    /// Its name in messages.
    pub name: String,
    /// The chains whose key is on it.
    pub chains: Vec<String>,
    /// Why it does not sign. `None` if it does.
    pub down: Option<String>,
    /// Requests that wait for it or are in progress.
    pub waiting: u64,
    /// Requests that it did not sign.
    pub failures: u64,
    /// Sessions that were opened with it.
    pub sessions: u64,
    /// The time that a signature takes.
    pub signature: Latency,
}

/// How long something takes, as upper bounds in seconds: the bounds of the buckets of a histogram.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// How often it happened.
    pub count: u64,
    /// Half of them took no longer.
    pub p50: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
    pub mean: Option<f64>,
}

/// A chain is called quiet after this time without a request. Most chains have a block within ten seconds.
const QUIET_SECONDS: u64 = 60;

impl ChainStatus {
    /// Since when no node has asked a chain that could sign, if that is long enough to be reported.
    pub(crate) fn quiet(&self, now: u64) -> Option<u64> {
        let since = self.quiet_since.filter(|since| now.saturating_sub(*since) >= QUIET_SECONDS);
        since.filter(|_| self.missing.is_empty() && self.refusing.is_none())
    }
}

impl Status {
    /// The version of the format.
    pub(crate) const SCHEMA: u32 = 1;

    pub(crate) fn of(telemetry: &Telemetry) -> Self {
        Self {
            schema: Self::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            now: unix_seconds(SystemTime::now()),
            started: unix_seconds(telemetry.started),
            ready: telemetry.not_ready().is_empty(),
            chains: telemetry.chains.iter().map(|chain| ChainStatus::of(chain, telemetry)).collect(),
            devices: telemetry.devices.iter().map(|device| DeviceStatus::of(device)).collect(),
            warnings: telemetry.warnings.clone(),
            reload: telemetry.last_reload().map(|reload| ReloadStatus {
                at: unix_seconds(reload.at),
                done: reload.done,
                lines: reload.lines,
            }),
        }
    }
}

impl ChainStatus {
    fn of(chain: &ServedChain, telemetry: &Telemetry) -> Self {
        // Known from the start or never, so this waits for nothing.
        let key = chain.chain().public_key().ok();
        Self {
            id: chain.id().to_string(),
            public_key: key.as_ref().map(ToString::to_string),
            address: key.map(|key| key.address_hex()),
            mark: chain.stats().last(),
            signed_at: chain.stats().signed_at().filter_map(|(_, at)| at).max(),
            missing: telemetry.blockers(chain),
            refusing: telemetry.refusing(chain),
            quiet_since: telemetry.quiet_since(chain.id()),
            flush: Latency::of(&chain.stats().flush_time),
            nodes: telemetry.nodes_of(chain.id()).iter().map(NodeStatus::of).collect(),
        }
    }
}

impl NodeStatus {
    fn of(node: &NodeView) -> Self {
        let count = |wanted: &str| {
            let of_result = node.stats.requests().filter(|(_, result, _)| *result == wanted);
            of_result.map(|(_, _, count)| count).sum()
        };
        let notes = node.stats.notes().clone();
        Self {
            address: node.name.clone(),
            peer: notes.peer,
            up_since: node.stats.up_since(),
            down_since: node.stats.down_since(),
            connects: node.stats.connects(),
            lost: notes.lost.map(|(at, why)| (unix_seconds(at), why)),
            signed: count("signed"),
            repeated: count("repeated"),
            refused: count("refused"),
            failed: count("failed"),
            answer: Latency::of(&node.stats.answer_time),
            refusals: notes.refusals.into_iter().map(|(at, why)| (unix_seconds(at), why)).collect(),
        }
    }
}

impl DeviceStatus {
    fn of(device: &Device) -> Self {
        Self {
            name: device.name().to_owned(),
            chains: device.chains().iter().map(ToString::to_string).collect(),
            down: match device.health() {
                Health::Down(why) => Some(why),
                Health::Up => None,
            },
            waiting: device.stats().waiting(),
            failures: device.stats().failures(),
            sessions: device.stats().sessions(),
            signature: Latency::of(&device.stats().sign_time),
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Self {
        let snapshot = histogram.snapshot();
        #[allow(clippy::cast_precision_loss, reason = "a mean need not be exact")]
        let mean = (snapshot.count > 0).then(|| snapshot.sum / snapshot.count as f64);
        Self { count: snapshot.count, p50: snapshot.percentile(50), p99: snapshot.percentile(99), mean }
    }
}
