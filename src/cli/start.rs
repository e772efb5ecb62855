//! `highwater start`: sign until told to stop.

use super::{CliError, ConfigArgs, Exit};
use crate::{
    config::{self, Config},
    daemon::{self, Daemon, Running},
    inspect::{self, Findings, Topic},
    keyring::{self, Keyring, pkcs11::spawner::Spawner},
    ops::{
        self,
        audit::{Audit, AuditFile},
        log::{Log, LogFormat},
        names::Names,
        notify::{self, Systemd},
        recorder::Recorder,
        sandbox::Sandbox,
        web::{self, ControlSocket, Web},
    },
};
use clap::Args;
use std::{env, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tracing::{info, warn};

/// Sign for the configured validators.
#[derive(Args, Debug)]
pub(super) struct Start {
    #[command(flatten)]
    config: ConfigArgs,
    /// Log connection attempts and pings too
    #[arg(short, long)]
    verbose: bool,
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// What the control plane waits for.
enum Event {
    /// What it did.
    HelperEnded(&'static str),
    NodeEnded,
    Signal(&'static str),
}

impl Start {
    pub(super) fn run(self) -> Result<(), CliError> {
        let path = self.config.path();
        let (config, warnings) = Config::load(&path)?;
        let findings = look(&config, &warnings)?;
        ops::panic::end_process_with(|| std::process::exit(Exit::Software as i32));
        // First what starts programs and listens: the confined process does neither.
        let mut sandbox = Sandbox::begin(&config)?;
        let cannot_start = |error| CliError::io("cannot start the process that starts children", &error);
        let spawner = keyring::start_spawner(&config).map_err(cannot_start)?;
        let cannot_start = |error| CliError::io("cannot start a process that resolves a host name", &error);
        let names = Names::start(&config).map_err(cannot_start)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliError::io("cannot start the control plane", &error))?;
        let (sender, events) = unbounded_channel();
        watch_signals(&runtime, &sender).map_err(|error| CliError::io("cannot watch for signals", &error))?;
        let metrics = bind_metrics(&runtime, &config)?;
        let audit_file = open_audit(&config)?;
        let systemd =
            Systemd::connect().map_err(|error| CliError::io("cannot reach systemd at $NOTIFY_SOCKET", &error))?;
        daemon::refuse_second_signer(&config)?;
        let heights = daemon::ask_hooks(&config, &findings);
        sandbox.close(&config)?;

        // The first thread. Its queue is emptied when this goes, after everything else.
        let log = Log::start(self.log_format, self.verbose);
        info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "highwater starts");
        findings.warnings().for_each(|warning| warn!("{warning}"));
        if let Some(address) = config.own.metrics {
            info!(%address, "metrics at http://{address}/metrics");
        }
        watch_helpers(spawner.as_deref(), &names, &sender)
            .map_err(|error| CliError::io("cannot watch a process that was started", &error))?;
        let keyring = Keyring::open(&config, spawner.as_ref(), &names);
        let keyring = keyring.map_err(|error| CliError::io("cannot start a thread for a device", &error))?;
        let mut daemon = Daemon::open(&config, &keyring, (&findings, heights), &names)?;
        let audit = audit_file.map(AuditFile::start).transpose();
        let audit = audit.map_err(|error| CliError::io("cannot start a thread for the audit file", &error))?;
        audit.iter().for_each(|audit| daemon.look_for_gap(audit));
        let recorder = Recorder::start(audit.clone());
        let recorder =
            recorder.map_err(|error| CliError::io("cannot start the thread that tells what was signed", &error))?;
        daemon.record(&recorder);
        let mut telemetry = daemon.telemetry(keyring.devices());
        telemetry.dropped_lines = Some(log.dropped());
        telemetry.recorder = Some(recorder.clone());
        telemetry.audit = audit.clone();
        let control = bind_control(&runtime, &config);
        let report = sandbox.seal(&config, sandbox.locks_secrets() && daemon.lock_secrets())?;
        telemetry.sandbox = report.features().collect();
        let unconfined = report.warnings();
        unconfined.iter().for_each(|warning| warn!("{warning}"));
        telemetry.warnings = findings.warnings().chain(unconfined).collect();
        let telemetry = Arc::new(telemetry);
        let web = Web::new(Arc::clone(&telemetry));
        if let Some(listener) = metrics {
            runtime.spawn(web.clone().serve_metrics(listener));
        }
        if let Some(socket) = control {
            runtime.spawn(web.serve_control(socket));
        }
        let running = daemon.start(move || {
            // The receiver outlives every node.
            let _ = sender.send(Event::NodeEnded);
        })?;
        if let Some(systemd) = &systemd {
            systemd.ready(&telemetry);
            runtime.spawn(notify::keep_telling(Arc::clone(systemd), telemetry));
        }
        let at_work = AtWork { nodes: running.node_count(), running, events, systemd };
        let end = runtime.block_on(at_work.until_the_end(&log));
        recorder.finish();
        audit.iter().for_each(Audit::finish);
        end
    }
}

/// The look that `check` prints. What concerns the whole signer ends the start here, before anything is started.
fn look(config: &Config, warnings: &[config::Finding]) -> Result<Findings, CliError> {
    let findings = inspect::look(config, warnings);
    let Some((topic, why)) = findings.refusal() else { return Ok(findings) };
    let exit = match topic {
        Topic::Audit => Exit::CantCreate,
        Topic::Machine => Exit::Io,
        _ => Exit::NoPermission,
    };
    Err(CliError::new(exit, why))
}

/// A file that cannot be written ends the start: who wants a record wants it from the first decision.
fn open_audit(config: &Config) -> Result<Option<AuditFile>, CliError> {
    let Some(path) = &config.own.audit else { return Ok(None) };
    let opened = AuditFile::open(path).map_err(|error| {
        let text = format!("cannot open {}, the `file` of [highwater.audit]: {error}", path.display());
        CliError::new(Exit::CantCreate, text)
    })?;
    Ok(Some(opened))
}

/// An address that cannot be had ends the start: whoever relies on an alert must not learn later that there is none.
fn bind_metrics(runtime: &Runtime, config: &Config) -> Result<Option<TcpListener>, CliError> {
    let Some(address) = config.own.metrics else { return Ok(None) };
    let listener = runtime.block_on(TcpListener::bind(address)).map_err(|error| {
        let text = format!("cannot listen at {address}, the `laddr` of [highwater.metrics]: {error}");
        CliError::new(Exit::CantCreate, text)
    })?;
    Ok(Some(listener))
}

/// A signer without its control socket signs all the same.
fn bind_control(runtime: &Runtime, config: &Config) -> Option<ControlSocket> {
    let path = web::control_socket(env::var_os(web::RUNTIME_VARIABLE), config.home());
    let _inside = runtime.enter();
    let unbound = |error| warn!("`highwater status` will not work: cannot listen at {}: {error}", path.display());
    ControlSocket::bind(&path).map_err(unbound).ok()
}

/// The signer does not outlive a process that it needs.
fn watch_helpers(spawner: Option<&Spawner>, names: &Names, events: &UnboundedSender<Event>) -> std::io::Result<()> {
    let ended = |what| {
        let events = events.clone();
        move || drop(events.send(Event::HelperEnded(what)))
    };
    if let Some(spawner) = spawner {
        spawner.watch(ended("starts the children of HSMs"))?;
    }
    names.watch(ended("resolves a host name"))
}

fn watch_signals(runtime: &Runtime, events: &UnboundedSender<Event>) -> std::io::Result<()> {
    let _inside = runtime.enter();
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
        let mut signals = signal(kind)?;
        let events = events.clone();
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                let _ = events.send(Event::Signal(name));
            }
        });
    }
    Ok(())
}

/// The signer at work, and what it has to hear and to tell until it ends.
struct AtWork {
    running: Running,
    /// Those that have not ended.
    nodes: usize,
    events: UnboundedReceiver<Event>,
    systemd: Option<Arc<Systemd>>,
}

impl AtWork {
    async fn until_the_end(mut self, log: &Log) -> Result<(), CliError> {
        const LOOK_AT_LOG_EVERY: Duration = Duration::from_secs(60);
        let mut told_dropped = 0;
        while self.nodes > 0 {
            match tokio::time::timeout(LOOK_AT_LOG_EVERY, self.events.recv()).await {
                Ok(Some(Event::NodeEnded)) => self.nodes -= 1,
                Ok(Some(Event::Signal(name))) => {
                    info!(signal = name, "stopping: requests in hand are answered first");
                    self.drain().await;
                    return Ok(());
                }
                Ok(Some(Event::HelperEnded(what))) => return self.helper_ended(what).await,
                Ok(None) => break,
                Err(_) if log.dropped_lines() > told_dropped => {
                    told_dropped = log.dropped_lines();
                    warn!(lines = told_dropped, "log lines were dropped since the start: nobody read them in time");
                }
                Err(_) => {}
            }
        }
        Err(CliError::new(Exit::Unavailable, "every validator node is gone, and reconnect = false for all of them"))
    }

    /// No child of a token can be replaced any more, or a name not be looked up: only a restart helps, so the supervisor
    /// is asked for one. Unless this is the end that the supervisor itself has told every process of ours.
    async fn helper_ended(mut self, what: &str) -> Result<(), CliError> {
        const SIGNAL_WITHIN: Duration = Duration::from_millis(500);
        let signal = async {
            loop {
                if let None | Some(Event::Signal(_)) = self.events.recv().await {
                    return;
                }
            }
        };
        let is_the_end = tokio::time::timeout(SIGNAL_WITHIN, signal).await.is_ok();
        self.drain().await;
        match is_the_end {
            true => Ok(()),
            false => Err(CliError::new(Exit::Software, format!("the process that {what} has ended; restart"))),
        }
    }

    /// Gives every node the time to answer what it has in hand. One that is being dialled ends with its attempt.
    async fn drain(mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        self.systemd.iter().for_each(|systemd| systemd.stopping());
        self.running.stop();
        let all_ended = async {
            while self.nodes > 0 {
                match self.events.recv().await {
                    Some(Event::NodeEnded) => self.nodes -= 1,
                    Some(Event::HelperEnded(_) | Event::Signal(_)) => {}
                    None => return,
                }
            }
        };
        if tokio::time::timeout(PATIENCE, all_ended).await.is_err() {
            // Leaving is safe at any point: what was not answered was not released.
            warn!("a validator node is still being dialled or waits for a disk; leaving it");
        }
        info!("stopped");
    }
}
