//! The metrics for Prometheus. `docs/metrics.md` explains each one and which to watch.
//!
//! Every series exists from the start, with a zero: an alert on a series that appears with its first event misses that
//! event. Times are those of the event, never ages: an age is wrong as soon as the scrape is late.

use super::telemetry::{NodeView, Telemetry};
use crate::{
    keyring::device::Health,
    record::{
        histogram::Histogram,
        lanes::{Kind, Lost},
        recorder::Recorder,
        stats::unix_seconds,
    },
};
use highwater_core::consensus::{ChainId, Step};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};
use std::{
    fmt::{self, Error},
    sync::Arc,
};

/// The content type of [`encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of `telemetry`, in the text format of OpenMetrics.
pub(crate) fn encode(telemetry: &Arc<Telemetry>) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("highwater");
    registry.register_collector(Box::new(Scrape(Arc::clone(telemetry))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

struct Scrape(Arc<Telemetry>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Out(encoder);
        signer(&self.0, &mut out)?;
        nodes(&self.0, &mut out)?;
        chains(&self.0, &mut out)?;
        devices(&self.0, &mut out)
    }
}

fn signer(telemetry: &Telemetry, out: &mut Out<'_>) -> Result<(), Error> {
    let version = [[("version", env!("CARGO_PKG_VERSION"))]];
    out.gauge("build_info", "Which build this is", None, version.map(|labels| (labels, 1)))?;
    let started = unix_seconds(telemetry.started);
    out.gauge(
        "start_time",
        "When the process began to sign, since 1970",
        Some(&Unit::Seconds),
        [(NO_LABELS, started)],
    )?;
    let ready = u64::from(telemetry.not_ready().is_empty());
    out.gauge("ready", "Whether every chain signs: state open, key proven, a link up", None, [(NO_LABELS, ready)])?;
    let sandbox = telemetry.sandbox.iter().map(|(feature, on)| ([("feature", feature.name())], u64::from(*on)));
    out.gauge("sandbox", "Whether this part of the sandbox is in force", None, sandbox)?;
    let unread = telemetry.dropped_lines.as_ref().map_or(0, |counter| counter.dropped_lines() as u64);
    let unheard: u64 = of_recorder(telemetry).iter().flat_map(|(_, lost)| lost).sum();
    let dropped = unread + unheard;
    out.counter("log_lines_dropped", "Log lines dropped because their reader was too slow", [(NO_LABELS, dropped)])?;
    out.counter(
        "audit_lines_lost",
        "Decisions that are missing from the audit file",
        audit_lost(telemetry).iter().flat_map(|(chain, lost)| {
            Kind::ALL.map(|kind| ([("chain", chain.as_str()), ("kind", kind.name())], lost[kind as usize]))
        }),
    )?;
    let tapes = telemetry.recorder.as_ref().map(Recorder::tapes);
    let untold = tapes.iter().flat_map(|tapes| tapes.iter()).map(|tape| {
        let source = tape.source();
        ([("chain", source.chain.as_str()), ("node", &*source.node)], tape.untold())
    });
    out.counter("requests_untold", "Requests without their own line in the log and the audit file", untold)
}

/// Events lost on the way to the log and the audit file.
fn of_recorder(telemetry: &Telemetry) -> Vec<(ChainId, Lost)> {
    telemetry.recorder.as_ref().map_or_else(Vec::new, Recorder::lost)
}

/// For each chain, the events lost in its audit lane and before it. All zero without an audit file.
fn audit_lost(telemetry: &Telemetry) -> Vec<(ChainId, Lost)> {
    let mut all: Vec<_> = telemetry.chains.iter().map(|chain| (chain.id().clone(), [0, 0])).collect();
    let Some(audit) = &telemetry.audit else { return all };
    for (chain, [signed, other]) in audit.lost().into_iter().chain(of_recorder(telemetry)) {
        if let Some((_, sum)) = all.iter_mut().find(|(id, _)| *id == chain) {
            *sum = [sum[0] + signed, sum[1] + other];
        }
    }
    all
}

fn nodes(telemetry: &Telemetry, out: &mut Out<'_>) -> Result<(), Error> {
    let served = telemetry.nodes();
    let nodes = || served.iter().map(|node| (node, of_node(node)));
    let requests = nodes().flat_map(|(node, [chain, name])| {
        let requests = node.stats.requests();
        requests.map(move |(kind, result, count)| ([chain, name, ("type", kind), ("result", result)], count))
    });
    out.counter("requests", "Requests by what was asked and by the result", requests)?;
    let refusals = nodes().flat_map(|(node, [chain, name])| {
        node.stats.refusals().map(move |(reason, count)| ([chain, name, ("reason", reason)], count))
    });
    out.counter("refusals", "Requests that got no signature, by reason", refusals)?;
    let up = nodes().map(|(node, labels)| (labels, u64::from(node.stats.up_since().is_some())));
    out.gauge("node_link_up", "Whether the link to the node is up", None, up)?;
    let connects = nodes().map(|(node, labels)| (labels, node.stats.connects()));
    out.counter("node_connects", "How often the link to the node came up", connects)?;
    let durations = nodes().map(|(node, labels)| (labels, &node.stats.answer_time));
    out.histogram("request_duration", "From a request that has been read to its answer, without pings", durations)
}

fn chains(telemetry: &Telemetry, out: &mut Out<'_>) -> Result<(), Error> {
    let chains = || telemetry.chains.iter().map(|chain| (chain, [("chain", chain.id().as_str())]));
    let open = chains().map(|(chain, labels)| (labels, u64::from(chain.stats().why_closed().is_none())));
    out.gauge("chain_open", "Whether the chain's state and key can be used", None, open)?;
    let ready = chains().map(|(chain, labels)| (labels, u64::from(telemetry.blockers(chain).is_empty())));
    out.gauge("chain_ready", "Whether the chain signs: state open, key proven, a link up", None, ready)?;
    let height = chains().map(|(chain, labels)| (labels, chain.stats().last().0));
    out.gauge("last_signed_height", "Height of the watermark", None, height)?;
    let round = chains().map(|(chain, labels)| (labels, u64::from(chain.stats().last().1)));
    out.gauge("last_signed_round", "Round of the watermark", None, round)?;
    let step = chains().map(|(chain, labels)| (labels, u64::from(chain.stats().last().2)));
    out.gauge("last_signed_step", "Step of the watermark: 1 proposal, 2 prevote, 3 precommit", None, step)?;
    let signed_at = chains().flat_map(|(chain, [label])| {
        let signed_at = chain.stats().signed_at();
        signed_at.map(move |(step, at)| ([label, ("type", step_name(step))], at.unwrap_or_default()))
    });
    let help = "When a message of that type was last signed, since 1970; 0 for never since the start";
    out.gauge("last_signed_timestamp", help, Some(&Unit::Seconds), signed_at)?;
    let flushes = chains().map(|(chain, labels)| (labels, &chain.stats().flush_time));
    out.histogram("flush_duration", "From the write of a watermark until the disk has it", flushes)
}

fn devices(telemetry: &Telemetry, out: &mut Out<'_>) -> Result<(), Error> {
    let devices = || telemetry.devices.iter().map(|device| (device, [("device", device.name())]));
    let up = devices().map(|(device, labels)| (labels, u64::from(device.health() == Health::Up)));
    out.gauge("device_up", "Whether the device signs", None, up)?;
    let waiting = devices().map(|(device, labels)| (labels, device.stats().waiting()));
    out.gauge("device_queue_requests", "Requests that wait for the device or are in progress", None, waiting)?;
    let failures = devices().map(|(device, labels)| (labels, device.stats().failures()));
    out.counter("device_failures", "Requests that the device did not sign", failures)?;
    let sessions = devices().map(|(device, labels)| (labels, device.stats().sessions()));
    out.counter("device_sessions", "Sessions that were opened with the device", sessions)?;
    let durations = devices().map(|(device, labels)| (labels, &device.stats().sign_time));
    out.histogram(
        "device_signature_duration",
        "How long one signature takes, without the wait for the device",
        durations,
    )
}

fn of_node(node: &NodeView) -> [(&'static str, &str); 2] {
    [("chain", node.chain.as_str()), ("node", &node.name)]
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Precommit => "precommit",
        Step::Prevote => "prevote",
        Step::Propose => "proposal",
    }
}

const NO_LABELS: [(&str, &str); 0] = [];

/// Writes metrics, one family after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> Result<(), Error> {
        let write =
            |mut metric: MetricEncoder<'_>, value: u64| metric.encode_counter::<NoLabelSet, _, u64>(&value, None);
        self.family(name, help, None, MetricType::Counter, series, write)
    }

    fn gauge<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> Result<(), Error> {
        let write = |mut metric: MetricEncoder<'_>, value: u64| metric.encode_gauge(&value);
        self.family(name, help, unit, MetricType::Gauge, series, write)
    }

    /// A histogram of seconds.
    fn histogram<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = ([(&'l str, &'l str); N], &'l Histogram)>,
    ) -> Result<(), Error> {
        let write = |mut metric: MetricEncoder<'_>, value: &Histogram| {
            let snapshot = value.snapshot();
            metric.encode_histogram::<NoLabelSet>(snapshot.sum, snapshot.count, &snapshot.buckets, None)
        };
        self.family(name, help, Some(&Unit::Seconds), MetricType::Histogram, series, write)
    }

    fn family<'l, const N: usize, T>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        series: impl IntoIterator<Item = ([(&'l str, &'l str); N], T)>,
        mut write: impl FnMut(MetricEncoder<'_>, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in series {
            if N == 0 {
                return write(family, value);
            }
            write(family.encode_family(&Labels(labels))?, value)?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Labels<'l, const N: usize>([(&'l str, &'l str); N]);

impl<const N: usize> EncodeLabelSet for Labels<'_, N> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> Result<(), Error> {
        self.0.encode(encoder)
    }
}
