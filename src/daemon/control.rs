//! The control plane: signals, the end of helper processes and nodes, and periodic checks. It never waits for a disk,
//! device or peer.

use super::{
    StartError,
    config_reader::{ConfigReader, Reading},
    nodes::Running,
    reload::Limits,
};
use crate::{
    record::log::Log,
    show::{
        systemd::Systemd,
        telemetry::{LastReload, Telemetry},
    },
};
use std::{
    future::Future,
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::{Builder, EnterGuard, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, timeout_at},
};
use tracing::{error, info, warn};

/// An event for the control plane.
#[derive(Clone)]
pub(super) enum ControlEvent {
    /// What a reload has read.
    ConfigRead(Reading),
    /// With the task of the helper process.
    HelperEnded(&'static str),
    NodeEnded,
    Signal(&'static str, Wish),
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    End,
    Nothing,
    /// Read the configuration again, and open the audit file again.
    Reload,
}

/// The control plane's only thread, the main thread, and its events.
pub(super) struct Control {
    runtime: Runtime,
    sender: UnboundedSender<ControlEvent>,
    events: UnboundedReceiver<ControlEvent>,
}

impl Control {
    /// Starts to watch for signals.
    pub(super) fn start() -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::system("cannot start the control plane"))?;
        let (sender, events) = unbounded_channel();
        let control = Self { runtime, sender, events };
        control.watch_signals().map_err(StartError::system("cannot watch for signals"))?;
        Ok(control)
    }

    fn watch_signals(&self) -> io::Result<()> {
        let _inside = self.enter();
        for (kind, name, wish) in [
            (SignalKind::terminate(), "SIGTERM", Wish::End),
            (SignalKind::interrupt(), "SIGINT", Wish::End),
            (SignalKind::quit(), "SIGQUIT", Wish::End),
            (SignalKind::hangup(), "SIGHUP", Wish::Reload),
            (SignalKind::user_defined1(), "SIGUSR1", Wish::Nothing),
            (SignalKind::user_defined2(), "SIGUSR2", Wish::Nothing),
        ] {
            let mut signals = signal(kind)?;
            let send = self.sends(ControlEvent::Signal(name, wish));
            self.spawn(async move {
                while signals.recv().await.is_some() {
                    send();
                }
            });
        }
        Ok(())
    }

    /// A function that sends this event to the control plane, from any thread.
    pub(super) fn sends(&self, event: ControlEvent) -> impl Fn() + Clone + Send + Sync + use<> {
        let sender = self.sender.clone();
        move || {
            // The receiver outlives every node, so this fails only at the very end.
            let _ = sender.send(event.clone());
        }
    }

    /// Calls `read` on another thread, and sends the result to the control plane.
    fn send_reading(&self, read: impl FnOnce() -> Reading + Send + 'static) -> io::Result<()> {
        let sender = self.sender.clone();
        let builder = thread::Builder::new().name("reload".into());
        builder.spawn(move || drop(sender.send(ControlEvent::ConfigRead(read()))))?;
        Ok(())
    }

    /// Needed to bind a listener to the control plane.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(future));
    }
}

/// Reads the configuration again whenever an operator asks for it.
pub(super) struct Reloads {
    reader: ConfigReader,
    limits: Limits,
    /// Whether the file is being read now.
    reading: bool,
    /// Whether it must be read once more, because somebody asked meanwhile.
    again: bool,
}

impl Reloads {
    pub(super) fn new(reader: ConfigReader, limits: Limits) -> Self {
        Self { reader, limits, reading: false, again: false }
    }
}

/// The running signer, until it ends.
pub(super) struct AtWork<'a> {
    control: Control,
    running: Running,
    /// Number of nodes that have not ended.
    nodes: usize,
    reloads: Reloads,
    systemd: Option<Arc<Systemd>>,
    telemetry: Arc<Telemetry>,
    /// Missing files that a chain needs and that may appear later. Those of nodes come and go with the nodes.
    awaited: Vec<PathBuf>,
    log: &'a Log,
}

impl<'a> AtWork<'a> {
    pub(super) fn new(
        control: Control,
        running: Running,
        reloads: Reloads,
        systemd: Option<Arc<Systemd>>,
        telemetry: Arc<Telemetry>,
        awaited: Vec<PathBuf>,
        log: &'a Log,
    ) -> Self {
        Self { control, nodes: running.count(), running, reloads, systemd, telemetry, awaited, log }
    }

    /// Waits until the signer has to end, and returns the reason: `Ok` for a signal.
    pub(super) fn wait(&mut self) -> Result<(), StartError> {
        const LOOK_AT_LOG_EVERY: Duration = Duration::from_secs(60);
        const LOOK_AT_DISKS_EVERY: Duration = Duration::from_secs(5);
        let mut dropped_before = 0;
        let mut look_at_log = Instant::now() + LOOK_AT_LOG_EVERY;
        let mut next_look = Instant::now() + LOOK_AT_DISKS_EVERY;
        while self.nodes > 0 {
            match self.event_until(next_look) {
                Some(ControlEvent::NodeEnded) => self.nodes -= 1,
                Some(ControlEvent::Signal(name, Wish::End)) => {
                    info!(signal = name, "stopping: pending requests are answered first");
                    return Ok(());
                }
                Some(ControlEvent::Signal(name, Wish::Reload)) => {
                    self.reopen(name);
                    self.begin_reload(name);
                }
                Some(ControlEvent::ConfigRead(reading)) => self.reload(&reading),
                Some(ControlEvent::Signal(name, Wish::Nothing)) => {
                    info!(signal = name, "ignored: this signal has no effect");
                }
                Some(ControlEvent::HelperEnded(what)) => return self.helper_ended(what),
                None => {
                    next_look = Instant::now() + LOOK_AT_DISKS_EVERY;
                    if let Some(why) = self.lost_all_disks().or_else(|| self.file_has_come()) {
                        return Err(StartError::Restart(why));
                    }
                    let dropped = self.log.dropped_lines();
                    if Instant::now() >= look_at_log && dropped > dropped_before {
                        look_at_log = Instant::now() + LOOK_AT_LOG_EVERY;
                        dropped_before = dropped;
                        warn!(
                            lines = dropped,
                            "dropped {dropped} log lines since start: the reader of standard error is too slow"
                        );
                    }
                }
            }
        }
        Err(StartError::NodesGone)
    }

    /// The next event, or `None` if none comes before `time`.
    fn event_until(&mut self, time: Instant) -> Option<ControlEvent> {
        let Control { runtime, events, .. } = &mut self.control;
        // The control plane holds a sender itself, so the channel never closes.
        runtime.block_on(async { timeout_at(time, events.recv()).await }).ok().flatten()
    }

    /// For operators or programs that moved the audit file away.
    fn reopen(&self, signal: &str) {
        if let Some(audit) = &self.telemetry.audit {
            info!(signal, "reopening the audit file");
            audit.reopen();
        }
    }

    /// Has the configuration read again, on another thread: it waits for a disk.
    fn begin_reload(&mut self, signal: &str) {
        if self.reloads.reading {
            self.reloads.again = true;
            return;
        }
        info!(signal, "reading the configuration again");
        if let Some(systemd) = &self.systemd {
            systemd.reloading();
        }
        let reader = self.reloads.reader.clone();
        self.reloads.reading = true;
        if let Err(error) = self.control.send_reading(move || reader.read()) {
            self.reload(&Reading::Mistakes(vec![format!("cannot start a thread: {error}")]));
        }
    }

    /// Exchanges the nodes as the new configuration says, or changes nothing.
    fn reload(&mut self, reading: &Reading) {
        self.reloads.reading = false;
        let decided = self.reloads.limits.decide(&self.running.configs(), reading);
        let carried_out = decided.and_then(|plan| {
            let lines = plan.lines.clone();
            match self.running.carry_out(plan, &mut self.nodes) {
                Ok(()) => Ok(lines),
                Err(error) => Err(vec![format!("cannot start a thread for a node: {error}")]),
            }
        });
        let (done, lines) = match carried_out {
            Ok(changes) => (true, changes),
            Err(reasons) => (false, reasons),
        };
        if done {
            if let Reading::Good(new) = reading {
                new.warnings.iter().for_each(|warning| warn!("{warning}"));
            }
            lines.iter().for_each(|line| info!("{line}"));
            for node in self.running.left_out() {
                warn!(chain = %node.chain_id, node = %node.address, "still not serving this node, as since the start");
            }
            info!(changes = lines.len(), "reloaded the configuration");
        } else {
            lines.iter().for_each(|line| error!("reload: {line}"));
            error!(reasons = lines.len(), "refused to reload the configuration: nothing has changed");
        }
        let reload = LastReload { at: SystemTime::now(), done, lines };
        self.telemetry.reloaded(reload, self.running.views());
        if let Some(systemd) = &self.systemd {
            systemd.ready(&self.telemetry);
        }
        if std::mem::take(&mut self.reloads.again) {
            self.begin_reload("SIGHUP");
        }
    }

    /// The reason to restart if no chain signs any more and a restart may help one. A process does not trust a disk
    /// again that has failed; the next process reads the whole file and refuses it if it does not verify.
    fn lost_all_disks(&self) -> Option<String> {
        let chains = &self.telemetry.chains;
        if chains.iter().any(|chain| chain.stats().why_closed().is_none()) {
            return None;
        }
        let chain = chains.iter().find(|chain| chain.waits_for_its_disk())?;
        let why = chain.stats().why_closed().unwrap_or_default();
        Some(format!("no chain signs any more; restart when the disk works again: {}: {why}", chain.id()))
    }

    /// The reason to restart if a file that was missing at start has appeared, for example with a late mount.
    fn file_has_come(&self) -> Option<String> {
        let path = self.awaited.iter().chain(self.running.awaited()).find(|path| path.exists())?;
        Some(format!("{} was missing at start and exists now; restart to open it", path.display()))
    }

    /// Ends the signer, so that its supervisor restarts it: without the helper, no child of a token can be replaced, or
    /// no name be looked up. If the supervisor itself is stopping all our processes, the end is an ordinary stop.
    fn helper_ended(&mut self, what: &'static str) -> Result<(), StartError> {
        const SIGNAL_WITHIN: Duration = Duration::from_millis(500);
        let until = Instant::now() + SIGNAL_WITHIN;
        loop {
            match self.event_until(until) {
                Some(ControlEvent::Signal(_, Wish::End)) => return Ok(()),
                Some(ControlEvent::NodeEnded) => self.nodes -= 1,
                Some(_) => {}
                None => return Err(StartError::HelperEnded(what)),
            }
        }
    }

    /// Gives every node time to answer its pending request. A node that is being dialled ends after the attempt.
    pub(super) fn drain(mut self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        if let Some(systemd) = &self.systemd {
            systemd.stopping();
        }
        self.running.stop();
        let until = Instant::now() + PATIENCE;
        while self.nodes > 0 {
            match self.event_until(until) {
                Some(ControlEvent::NodeEnded) => self.nodes -= 1,
                Some(ControlEvent::ConfigRead(_) | ControlEvent::HelperEnded(_) | ControlEvent::Signal(..)) => {}
                None => {
                    // Ending is safe at any time: an unanswered signature was not released.
                    warn!("a validator node is still being dialled or waits for a disk; not waiting for it");
                    break;
                }
            }
        }
        info!("stopped");
    }
}
