//! The whole signer: the order of start and end. `run` shows it on one page.
//!
//! | file | what |
//! | --- | --- |
//! | `claim` | state files and machine-wide names: only one signer for a chain and key |
//! | `confinement` | the three steps of the sandbox |
//! | `doors` | metrics port, control socket, audit file |
//! | `control` | signals, helper processes, the end |
//! | `chains` | opens every chain |
//! | `waiting` | chains whose state hook has not returned a height yet |
//! | `nodes` | opens every validator node, and serves each from its own thread |
//! | `config_reader` | the process that reads the configuration again |
//! | `reload` | what a new configuration changes, and what needs a restart |
//! | `error` | why a signer does not start or why it ends |

pub mod chains;
pub mod claim;
pub(crate) mod config_reader;
pub(crate) mod confinement;
mod control;
mod doors;
mod error;
pub mod nodes;
mod reload;
mod waiting;

pub use claim::claim;
pub use error::StartError;

use self::{
    chains::Chains,
    config_reader::ConfigReader,
    control::{AtWork, Control, ControlEvent, Reloads},
    nodes::Nodes,
    reload::Limits,
};
use crate::{
    config::{self, Config},
    inspect::{self, Findings},
    keyring::{self, Keyring},
    process::{hooks::Hooks, resolver::Resolver, sandbox::Sandbox},
    record::{
        audit::{Audit, AuditFile},
        keeper::Keeper,
        log::{Log, LogFormat},
        recorder::Recorder,
    },
    show::{
        systemd::{self, Systemd},
        telemetry::Telemetry,
        web::Web,
    },
    state,
};
use std::sync::Arc;
use tracing::{info, warn};

/// Log settings of a signer.
pub(crate) struct Options {
    pub(crate) format: LogFormat,
    /// Whether to log connection attempts and pings too.
    pub(crate) verbose: bool,
}

/// Signs until a signal ends it or no node is left. `warnings` are those of the configuration.
pub(crate) fn run(mut config: Config, warnings: &[config::ConfigFinding], options: &Options) -> Result<(), StartError> {
    // Before anything else that two signers compete for. Held until the end.
    let mut claims = claim(&config)?;
    // Findings about the whole signer end the start here, before anything is started.
    let mut findings = look(&config, warnings)?;

    // Before the helpers, so that they write no core dumps either.
    let mut sandbox = Sandbox::begin(&config)?;
    // Programs are started before the sandbox closes, because a confined process cannot start any, and before there are
    // threads, sockets and secrets, which they would inherit.
    // Before them, passwords are taken out of the environment and the descriptors, which programs would also inherit.
    keyring::take_secrets(&mut config).map_err(StartError::system("cannot take passwords out of the environment"))?;
    let spawner =
        keyring::start_spawner(&config).map_err(StartError::system("cannot start the HSM spawner process"))?;
    let resolver =
        Resolver::start(&config).map_err(StartError::system("cannot start a process that resolves a host name"))?;
    let keeper =
        Keeper::start(&config).map_err(StartError::system("cannot start the process that makes audit files"))?;
    // The hook of a chain that stays closed is not run: it may be another user's program.
    let hooks = Hooks::start(&config, |chain| findings.closed(chain).is_none())
        .map_err(StartError::system("cannot start a process that runs a state hook"))?;
    let config_reader = ConfigReader::start(&config)
        .map_err(StartError::system("cannot start the process that reads the configuration again"))?;
    // Listening, opening and connecting also come before the sandbox closes.
    let control = Control::start()?;
    let metrics_port = doors::bind_metrics(&control, &config);
    let audit_file = doors::open_audit(&config, keeper, findings.take_evidence())?;
    let systemd = Systemd::connect().map_err(StartError::system("cannot reach systemd at $NOTIFY_SOCKET"))?;
    // Before the first thread, because Landlock does not limit existing threads, and before any device or key.
    sandbox.close(&config)?;

    // The log is the first thread, so that it gets every line from here on.
    let log = Log::start(options.format, options.verbose);
    info!(version = env!("CARGO_PKG_VERSION"), config = %config.path.display(), "highwater starts");
    findings.warnings().for_each(|warning| warn!("{warning}"));
    if let (Some(address), Ok(Some(_))) = (config.highwater.metrics, &metrics_port) {
        info!(%address, "metrics at http://{address}/metrics");
    }
    // The signer ends if a process that it needs ends.
    let cannot_watch = "cannot watch a helper process";
    if let Some(spawner) = &spawner {
        let ended = control.sends(ControlEvent::HelperEnded("starts the processes of HSMs"));
        spawner.watch(ended).map_err(StartError::system(cannot_watch))?;
    }
    let ended = control.sends(ControlEvent::HelperEnded("resolves a host name"));
    resolver.watch(ended).map_err(StartError::system(cannot_watch))?;

    // Devices before chains, because they hold the keys; chains before nodes, which use the chains.
    let keyring = Keyring::open(&config, spawner.as_ref(), &resolver, state::key_in_state_file)
        .map_err(StartError::system("cannot start a thread for a device"))?;
    let chains = Chains::open(&config, &mut claims, &keyring, &findings, hooks)?;
    let mut nodes = Nodes::open(&config, &chains, &findings, &resolver)?;
    // The recorder before the first request, which it logs. The audit file before the recorder, which writes to it.
    let audit = audit_file
        .map(AuditFile::start)
        .transpose()
        .map_err(StartError::system("cannot start a thread for the audit file"))?;
    if let Some(audit) = &audit {
        chains.look_for_gaps(audit);
        keyring.record_device_logs_in(audit);
    }
    let recorder = Recorder::start(audit.clone())
        .map_err(StartError::system("cannot start the thread that records what was signed"))?;
    nodes.report_to(&recorder);
    let mut telemetry = Telemetry::new(chains.all().cloned().collect(), nodes.views(), keyring.devices());
    telemetry.dropped_lines = Some(log.dropped());
    telemetry.recorder = Some(recorder.clone());
    telemetry.audit = audit.clone();
    // Last: a sealed signer cannot make a socket to listen on.
    let control_socket = doors::bind_control_socket(&control, &config);

    // After every key was read, because keys are locked into memory here, and before the first node is dialled, so that
    // only a sealed process reads from nodes.
    let report = confinement::seal(sandbox, &config, || {
        let (consensus, identity) = (chains.lock_secrets(), nodes.lock_secrets());
        consensus && identity
    })?;
    let mut late_warnings = report.warnings();
    let metrics_port = metrics_port.unwrap_or_else(|why| {
        late_warnings.push(why);
        None
    });
    late_warnings.iter().for_each(|warning| warn!("{warning}"));
    telemetry.sandbox = report.features().collect();
    telemetry.warnings = findings.warnings().chain(late_warnings).collect();

    // Complete now. Shown before the first node is dialled.
    let telemetry = Arc::new(telemetry);
    let web = Web::new(Arc::clone(&telemetry));
    if let Some(listener) = metrics_port {
        control.spawn(web.clone().serve_metrics(listener));
    }
    if let Some(socket) = control_socket {
        control.spawn(web.serve_control(socket));
    }
    let awaited = chains.awaited().to_vec();
    let reloads = Reloads::new(config_reader, Limits::of(&config, nodes.identities()));
    chains.start_waiting(control.sends(ControlEvent::HelperEnded("runs a state hook")))?;
    let running = nodes.start(control.sends(ControlEvent::NodeEnded))?;
    // After the nodes' threads: units that depend on this service may rely on them.
    if let Some(systemd) = &systemd {
        systemd.ready(&telemetry);
        control.spawn(systemd::keep_telling(Arc::clone(systemd), Arc::clone(&telemetry)));
    }

    let mut at_work = AtWork::new(control, running, reloads, systemd, telemetry, awaited, &log);
    let end = at_work.wait();
    // If all nodes are gone, no request is pending.
    if !matches!(end, Err(StartError::NodesGone)) {
        at_work.drain();
    }
    // After the last answer, too.
    keyring.close();
    // Before the process ends: every answer must be in the log and in the audit file.
    recorder.finish();
    audit.iter().for_each(Audit::finish);
    end
}

/// The same inspection as in `check`.
fn look(config: &Config, warnings: &[config::ConfigFinding]) -> Result<Findings, StartError> {
    let findings = inspect::look(config, warnings);
    match findings.refusal() {
        Some((topic, why)) => Err(StartError::Refused { topic, why }),
        None => Ok(findings),
    }
}
