//! The control plane: signals, helper processes and nodes that end, and what is looked at meanwhile. It waits for no disk,
//! device or peer.

use super::{StartError, nodes::Running};
use crate::{
    record::log::Log,
    show::{systemd::Systemd, telemetry::Telemetry},
};
use std::{future::Future, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    runtime::{Builder, EnterGuard, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, timeout_at},
};
use tracing::{info, warn};

/// What the control plane waits for.
#[derive(Clone, Copy)]
pub(super) enum ControlEvent {
    /// What the process did.
    HelperEnded(&'static str),
    NodeEnded,
    Signal(&'static str, Wish),
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    End,
    Nothing,
    Reopen,
}

/// The control plane's one thread, which is the main one, and what it hears of.
pub(super) struct Control {
    runtime: Runtime,
    sender: UnboundedSender<ControlEvent>,
    events: UnboundedReceiver<ControlEvent>,
}

impl Control {
    /// Watches for signals from here on.
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
            (SignalKind::hangup(), "SIGHUP", Wish::Reopen),
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
    pub(super) fn sends(&self, event: ControlEvent) -> impl Fn() + Clone + Send + use<> {
        let sender = self.sender.clone();
        move || {
            // The receiver outlives every node, so this fails at the very end only.
            let _ = sender.send(event);
        }
    }

    /// What a listener needs to be bound to the control plane.
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

/// The signer at work, and what it has to hear and to report until it ends.
pub(super) struct AtWork<'a> {
    control: Control,
    running: Running,
    /// Those that have not ended.
    nodes: usize,
    systemd: Option<Arc<Systemd>>,
    telemetry: Arc<Telemetry>,
    /// Files that may come late.
    awaited: Vec<PathBuf>,
    log: &'a Log,
}

impl<'a> AtWork<'a> {
    pub(super) fn new(
        control: Control,
        running: Running,
        systemd: Option<Arc<Systemd>>,
        telemetry: Arc<Telemetry>,
        awaited: Vec<PathBuf>,
        log: &'a Log,
    ) -> Self {
        Self { control, nodes: running.count(), running, systemd, telemetry, awaited, log }
    }

    /// Waits until the signer has to end, and returns why: `Ok` if a signal asked for it.
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
                    info!(signal = name, "stopping: requests in hand are answered first");
                    return Ok(());
                }
                Some(ControlEvent::Signal(name, Wish::Reopen)) => self.reopen(name),
                Some(ControlEvent::Signal(name, Wish::Nothing)) => {
                    info!(signal = name, "ignored: it means nothing to a signer");
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
                        warn!(lines = dropped, "log lines were dropped since the start: nobody read them in time");
                    }
                }
            }
        }
        Err(StartError::NodesGone)
    }

    /// The next event, or `None` at that time.
    fn event_until(&mut self, time: Instant) -> Option<ControlEvent> {
        let Control { runtime, events, .. } = &mut self.control;
        // The control plane holds a sender itself, so the channel never closes.
        runtime.block_on(async { timeout_at(time, events.recv()).await }).ok().flatten()
    }

    /// For an operator or a program that has moved the audit file away.
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
    /// is asked for one. Unless this is the end that the supervisor itself has sent to every process of ours.
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

    /// Gives every node the time to answer what it has in hand. One that is being dialled ends with its attempt.
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
                Some(ControlEvent::HelperEnded(_) | ControlEvent::Signal(..)) => {}
                None => {
                    // Leaving is safe at any point: what was not answered was not released.
                    warn!("a validator node is still being dialled or waits for a disk; leaving it");
                    break;
                }
            }
        }
        info!("stopped");
    }
}
