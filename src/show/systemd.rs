//! What systemd is told (`Type=notify`, sd_notify(3)): ready, alive, stopping, and one line on how the signer is.
//!
//! The sign of life comes from the control plane, which waits for no disk, device or peer: a slow one of those never
//! looks like a dead signer. Without systemd nothing here does anything.
//!
//! The socket is connected before the signer is confined, and kept: a confined signer opens no datagram socket, which is
//! what every library does for each message.

use super::telemetry::Telemetry;
use std::{
    env,
    ffi::OsStr,
    fmt::Display,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net},
    },
    process,
    sync::Arc,
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// Names the socket on which systemd listens.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// How long systemd waits for a sign of life, in microseconds.
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";
/// From which process, if not from any.
const WATCHDOG_PID_VARIABLE: &str = "WATCHDOG_PID";
/// How old the status line may be.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// Nobody reads a longer line.
const STATUS_MAX_CHARS: usize = 400;

/// A way to tell systemd something.
pub struct Systemd {
    socket: net::UnixDatagram,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Connects to the systemd that has started this process, if one has and wants to hear something.
    pub fn connect() -> io::Result<Option<Arc<Self>>> {
        let Some(path) = env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) else { return Ok(None) };
        let socket = net::UnixDatagram::unbound()?;
        socket.connect_addr(&address(&path)?)?;
        // Whoever does not listen must not hold up the control plane.
        socket.set_nonblocking(true)?;
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us = number(WATCHDOG_PID_VARIABLE).is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number(WATCHDOG_VARIABLE).filter(|_| is_for_us).map(Duration::from_micros);
        Ok(Some(Arc::new(Self { socket, watchdog })))
    }

    /// The chains are open.
    pub fn ready(&self, telemetry: &Telemetry) {
        self.tell(&format!("READY=1\nSTATUS={}", status(telemetry)));
    }

    /// No request is taken any more.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: requests in hand are answered first");
    }

    fn tell(&self, message: &str) {
        if let Err(error) = self.socket.send(message.as_bytes()) {
            warn!("cannot tell systemd how the signer is: {error}");
        }
    }
}

/// A path, or a name that begins with `@`.
fn address(path: &OsStr) -> io::Result<net::SocketAddr> {
    match path.as_bytes().strip_prefix(b"@") {
        Some(name) => net::SocketAddr::from_abstract_name(name),
        None => net::SocketAddr::from_pathname(path),
    }
}

/// Tells at least every half of the watchdog's time that the control plane is alive, and how the signer is when that
/// has changed. For ever.
pub async fn keep_telling(systemd: Arc<Systemd>, telemetry: Arc<Telemetry>) {
    let mut ticks = interval(tick(systemd.watchdog));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        ticks.tick().await;
        if systemd.watchdog.is_some() {
            systemd.tell("WATCHDOG=1");
        }
        let status = status(&telemetry);
        if status != last {
            systemd.tell(&format!("STATUS={status}"));
            last = status;
        }
    }
}

fn tick(watchdog: Option<Duration>) -> Duration {
    /// tokio has no interval of no time.
    const SHORTEST: Duration = Duration::from_millis(1);
    watchdog.map_or(STATUS_EVERY, |time| (time / 2).min(STATUS_EVERY).max(SHORTEST))
}

fn status(telemetry: &Telemetry) -> String {
    status_line(telemetry.chains.len(), &telemetry.not_ready())
}

/// One line: a second one would be another message to systemd, and some of the words come from outside.
fn status_line(chains: usize, not_ready: &[(impl Display, Vec<String>)]) -> String {
    let Some((chain, missing)) = not_ready.first() else { return "every chain signs".into() };
    let signing = chains - not_ready.len();
    let line = format!("{signing} of {chains} chains sign; {chain}: {}", missing.join("; "));
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STATUS_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_a_name() {
        let path = address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname().unwrap(), std::path::Path::new("/run/systemd/notify"));
        assert_eq!(address(OsStr::new("@notify")).unwrap().as_abstract_name().unwrap(), b"notify");
    }

    #[test]
    fn a_sign_of_life_comes_at_least_every_half_of_the_watchdogs_time() {
        for (watchdog, expected) in [(None, 10_000), (Some(60_000), 10_000), (Some(6_000), 3_000), (Some(0), 1)] {
            let watchdog = watchdog.map(Duration::from_millis);
            assert_eq!(tick(watchdog), Duration::from_millis(expected), "{watchdog:?}");
        }
    }

    #[test]
    fn the_status_is_one_line_whatever_a_device_or_a_node_says() {
        assert_eq!(status_line(2, &[] as &[(&str, _)]), "every chain signs");
        let missing = |why: &str| [("a-1", vec!["no device".into(), why.to_owned()])];
        assert_eq!(status_line(2, &missing("no node")), "1 of 2 chains sign; a-1: no device; no node");
        let hostile = status_line(1, &missing(&format!("bad\nMAINPID=1{}", "é".repeat(1000))));
        assert!(hostile.starts_with("0 of 1 chains sign; a-1: no device; bad MAINPID=1é"), "{hostile}");
        assert_eq!((hostile.lines().count(), hostile.chars().count()), (1, STATUS_MAX_CHARS));
    }
}
