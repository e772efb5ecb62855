//! `highwater start`: sign until told to stop.

use super::{CliError, ConfigArgs, Exit};
use crate::{
    config::{self, Config},
    daemon::{self, Daemon, Running},
    inspect::{self, Findings, Topic},
    keyring::{self, Keyring, child::spawner::Spawner},
    process::{self, hooks::Hooks, names::Names, sandbox::Sandbox},
    record::{
        audit::{Audit, AuditFile},
        evidence::Evidence,
        keeper::Keeper,
        log::{Log, LogFormat},
        recorder::Recorder,
    },
    show::{
        systemd::{self, Systemd},
        telemetry::Telemetry,
        web::{ControlSocket, Web},
    },
    state,
};
use clap::Args;
use highwater_core::disk;
use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, timeout_at},
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
    Signal(&'static str, Wish),
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    End,
    Nothing,
    Reopen,
}

impl Start {
    pub(super) fn run(self) -> Result<(), CliError> {
        let path = self.config.path();
        let (mut config, warnings) = Config::load(&path)?;
        process::panic::end_process_with(|| std::process::exit(Exit::Software as i32));
        // Before anything that two signers would dispute, and before a process that would inherit what we ignore.
        process::signals::outlive();
        let claims = daemon::claim(&config)?;
        let mut findings = look(&config, &warnings)?;
        // First what starts programs and listens: the confined process does neither.
        let mut sandbox = Sandbox::begin(&config)?;
        let cannot_start = |error| CliError::system("cannot start the process that starts children", &error);
        keyring::take_secrets(&mut config)
            .map_err(|error| CliError::system("cannot take passwords out of the environment", &error))?;
        let spawner = keyring::start_spawner(&config).map_err(cannot_start)?;
        let cannot_start = |error| CliError::system("cannot start a process that resolves a host name", &error);
        let names = Names::start(&config).map_err(cannot_start)?;
        let cannot_start = |error| CliError::system("cannot start the process that makes audit files", &error);
        let keeper = Keeper::start(&config).map_err(cannot_start)?;
        let cannot_start = |error| CliError::system("cannot start a process that runs a state hook", &error);
        // The hook of a chain that stays closed is not run: it may be somebody else's program.
        let hooks = Hooks::start(&config, |chain| findings.closed(chain).is_none()).map_err(cannot_start)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliError::system("cannot start the control plane", &error))?;
        let (sender, events) = unbounded_channel();
        watch_signals(&runtime, &sender).map_err(|error| CliError::system("cannot watch for signals", &error))?;
        let metrics = bind_metrics(&runtime, &config).transpose();
        let audit_file = open_audit(&config, keeper, findings.take_evidence())?;
        let systemd =
            Systemd::connect().map_err(|error| CliError::system("cannot reach systemd at $NOTIFY_SOCKET", &error))?;
        sandbox.close(&config)?;

        // The first thread. Its queue is emptied when this goes, after everything else.
        let log = Log::start(self.log_format, self.verbose);
        info!(version = env!("CARGO_PKG_VERSION"), config = %path.display(), "highwater starts");
        findings.warnings().for_each(|warning| warn!("{warning}"));
        let (metrics, no_metrics) = match metrics {
            Ok(metrics) => (metrics, None),
            Err(why) => (None, Some(why)),
        };
        if let (Some(address), Some(_)) = (config.highwater.metrics, &metrics) {
            info!(%address, "metrics at http://{address}/metrics");
        }
        watch_helpers(spawner.as_deref(), &names, &sender)
            .map_err(|error| CliError::system("cannot watch a process that was started", &error))?;
        let keyring = Keyring::open(&config, spawner.as_ref(), &names, state::key_in_state_file);
        let keyring = keyring.map_err(|error| CliError::system("cannot start a thread for a device", &error))?;
        let mut daemon = Daemon::open(&config, claims, &keyring, (&findings, hooks), &names)?;
        let audit = audit_file.map(AuditFile::start).transpose();
        let audit = audit.map_err(|error| CliError::system("cannot start a thread for the audit file", &error))?;
        audit.iter().for_each(|audit| daemon.look_for_gap(audit));
        let recorder = Recorder::start(audit.clone());
        let recorder =
            recorder.map_err(|error| CliError::system("cannot start the thread that tells what was signed", &error))?;
        daemon.record(&recorder);
        let mut telemetry = daemon.telemetry(keyring.devices());
        telemetry.dropped_lines = Some(log.dropped());
        telemetry.recorder = Some(recorder.clone());
        telemetry.audit = audit.clone();
        let control = bind_control(&runtime, &config);
        let report = sandbox.seal(&config, sandbox.locks_secrets() && daemon.lock_secrets())?;
        telemetry.sandbox = report.features().collect();
        let unconfined = report.warnings().into_iter().chain(no_metrics).collect::<Vec<_>>();
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
        let awaited = daemon.awaited().to_vec();
        let tell = |event: fn() -> Event| {
            let sender = sender.clone();
            // The receiver outlives every node.
            move || drop(sender.send(event()))
        };
        let running = daemon.start(tell(|| Event::NodeEnded), tell(|| Event::HelperEnded("runs a state hook")))?;
        if let Some(systemd) = &systemd {
            systemd.ready(&telemetry);
            runtime.spawn(systemd::keep_telling(Arc::clone(systemd), Arc::clone(&telemetry)));
        }
        let at_work = AtWork { nodes: running.node_count(), running, events, systemd, telemetry, awaited };
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
        Topic::Machine => Exit::Io,
        _ => Exit::NoPermission,
    };
    Err(CliError::new(exit, why))
}

/// A file that cannot be written ends the start: who wants a record wants it from the first decision.
fn open_audit(
    config: &Config,
    keeper: Option<Keeper>,
    evidence: Option<Evidence>,
) -> Result<Option<AuditFile>, CliError> {
    let (Some(path), Some(keeper)) = (&config.highwater.audit, keeper) else { return Ok(None) };
    let opened = match evidence {
        Some(evidence) => AuditFile::open_knowing(path, evidence),
        // The look could not have the file, so no chain was compared with it: even if it can be had now, that is not enough.
        None => AuditFile::open_knowing(path, Evidence::default())
            .and_then(|_| Err(io::Error::other("it could not be read a moment ago"))),
    };
    let opened = opened.map_err(|error| {
        let text = format!("cannot open {}, the `file` of [highwater.audit]: {error}", path.display());
        let exit = match error.kind() {
            io::ErrorKind::PermissionDenied => Exit::NoPermission,
            io::ErrorKind::AlreadyExists => Exit::CantCreate,
            _ if disk::may_pass(&error) => Exit::Io,
            _ => Exit::CantCreate,
        };
        CliError::new(exit, text)
    })?;
    Ok(Some(opened.limited(config.highwater.audit_limits, keeper)))
}

/// An address that cannot be had keeps no validator from signing. Whoever has just used it may need a moment to let it
/// go; later it cannot be had any more, because a confined signer listens to nothing new.
fn bind_metrics(runtime: &Runtime, config: &Config) -> Option<Result<TcpListener, String>> {
    const TRIES: u32 = 5;
    const PAUSE: Duration = Duration::from_millis(100);
    let address = config.highwater.metrics?;
    let mut bound = runtime.block_on(TcpListener::bind(address));
    for _ in 1..TRIES {
        if bound.is_ok() {
            break;
        }
        thread::sleep(PAUSE);
        bound = runtime.block_on(TcpListener::bind(address));
    }
    Some(bound.map_err(|error| {
        format!(
            "there are no metrics until a restart: cannot listen at {address}, the `laddr` of [highwater.metrics]: \
             {error}. `ss -ltnp` names who does"
        )
    }))
}

/// A signer without its control socket signs all the same.
fn bind_control(runtime: &Runtime, config: &Config) -> Option<ControlSocket> {
    let path = config.control_socket();
    let _inside = runtime.enter();
    let unbound = |error| warn!("`highwater status` will not work: cannot listen at {}: {error}", path.display());
    ControlSocket::bind(&path).map_err(unbound).ok()
}

/// The signer does not outlive a process that it needs.
fn watch_helpers(spawner: Option<&Spawner>, names: &Names, events: &UnboundedSender<Event>) -> io::Result<()> {
    let ended = |what| {
        let events = events.clone();
        move || drop(events.send(Event::HelperEnded(what)))
    };
    if let Some(spawner) = spawner {
        spawner.watch(ended("starts the children of HSMs"))?;
    }
    names.watch(ended("resolves a host name"))
}

fn watch_signals(runtime: &Runtime, events: &UnboundedSender<Event>) -> io::Result<()> {
    let _inside = runtime.enter();
    for (kind, name, wish) in [
        (SignalKind::terminate(), "SIGTERM", Wish::End),
        (SignalKind::interrupt(), "SIGINT", Wish::End),
        (SignalKind::quit(), "SIGQUIT", Wish::End),
        (SignalKind::hangup(), "SIGHUP", Wish::Reopen),
        (SignalKind::user_defined1(), "SIGUSR1", Wish::Nothing),
        (SignalKind::user_defined2(), "SIGUSR2", Wish::Nothing),
    ] {
        let mut signals = signal(kind)?;
        let events = events.clone();
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                let _ = events.send(Event::Signal(name, wish));
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
    telemetry: Arc<Telemetry>,
    /// Files that may come late.
    awaited: Vec<PathBuf>,
}

impl AtWork {
    async fn until_the_end(mut self, log: &Log) -> Result<(), CliError> {
        const LOOK_AT_LOG_EVERY: Duration = Duration::from_secs(60);
        const LOOK_AT_DISKS_EVERY: Duration = Duration::from_secs(5);
        let mut told_dropped = 0;
        let mut look_at_log = Instant::now() + LOOK_AT_LOG_EVERY;
        let mut next_look = Instant::now() + LOOK_AT_DISKS_EVERY;
        while self.nodes > 0 {
            match timeout_at(next_look, self.events.recv()).await {
                Ok(Some(Event::NodeEnded)) => self.nodes -= 1,
                Ok(Some(Event::Signal(name, Wish::End))) => {
                    info!(signal = name, "stopping: requests in hand are answered first");
                    self.drain().await;
                    return Ok(());
                }
                Ok(Some(Event::Signal(name, Wish::Reopen))) => self.reopen(name),
                Ok(Some(Event::Signal(name, Wish::Nothing))) => {
                    info!(signal = name, "ignored: it means nothing to a signer");
                }
                Ok(Some(Event::HelperEnded(what))) => return self.helper_ended(what).await,
                Ok(None) => break,
                Err(_) => {
                    next_look = Instant::now() + LOOK_AT_DISKS_EVERY;
                    if let Some(why) = self.lost_all_disks().or_else(|| self.file_has_come()) {
                        self.drain().await;
                        return Err(CliError::new(Exit::Io, why));
                    }
                    if Instant::now() >= look_at_log && log.dropped_lines() > told_dropped {
                        look_at_log = Instant::now() + LOOK_AT_LOG_EVERY;
                        told_dropped = log.dropped_lines();
                        warn!(lines = told_dropped, "log lines were dropped since the start: nobody read them in time");
                    }
                }
            }
        }
        Err(CliError::new(Exit::Unavailable, "every validator node is gone, and reconnect = false for all of them"))
    }

    /// For whoever has moved the audit file away.
    fn reopen(&self, signal: &str) {
        match &self.telemetry.audit {
            Some(audit) => {
                info!(signal, "the audit file is opened anew");
                audit.reopen();
            }
            None => info!(signal, "nothing to open anew: there is no audit file, and the log goes to standard error"),
        }
    }

    /// Why to begin anew: no chain signs before that, and one of them may then. A disk that has failed is not trusted
    /// again by the process that saw it; the next one reads all of the file, and refuses one that does not verify.
    fn lost_all_disks(&self) -> Option<String> {
        let chains = &self.telemetry.chains;
        if chains.iter().any(|chain| chain.stats().why_closed().is_none()) {
            return None;
        }
        let chain = chains.iter().find(|chain| chain.waits_for_its_disk())?;
        let why = chain.stats().why_closed().unwrap_or_default();
        Some(format!("no chain signs any more; restart once the disk is well: {}: {why}", chain.id()))
    }

    /// Why to begin anew: what kept a chain from signing at the start has come, as a mount that was late.
    fn file_has_come(&self) -> Option<String> {
        let path = self.awaited.iter().find(|path| path.exists())?;
        Some(format!("{} was missing at the start and is there now; restart, which opens it", path.display()))
    }

    /// No child of a token can be replaced any more, or a name not be looked up: only a restart helps, so the supervisor
    /// is asked for one. Unless this is the end that the supervisor itself has told every process of ours.
    async fn helper_ended(mut self, what: &str) -> Result<(), CliError> {
        const SIGNAL_WITHIN: Duration = Duration::from_millis(500);
        let signal = async {
            loop {
                if let None | Some(Event::Signal(_, Wish::End)) = self.events.recv().await {
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
                    Some(Event::HelperEnded(_) | Event::Signal(..)) => {}
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
