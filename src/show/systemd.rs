//! Notifies systemd (`Type=notify`, sd_notify(3)): ready, alive, reloading, stopping, and a status line.
//!
//! The sign of life comes from the control plane, which waits for no disk, device or peer: a slow one never looks like
//! a dead signer. Without systemd, this does nothing.
//!
//! The socket is connected before the signer is confined, and kept: a confined signer cannot open a datagram socket,
//! which the usual libraries do for each message.

use super::telemetry::Telemetry;
use rustix::time::{ClockId, clock_gettime};
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

/// Holds the address of the socket on which systemd listens.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// How long systemd waits for a sign of life, in microseconds.
const WATCHDOG_VARIABLE: &str = "WATCHDOG_USEC";
/// Which process must send the sign of life. Not set if any may.
const WATCHDOG_PID_VARIABLE: &str = "WATCHDOG_PID";
/// How often the status line is updated.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// A longer status line is cut off.
const STATUS_MAX_CHARS: usize = 400;

pub(crate) struct Systemd {
    socket: net::UnixDatagram,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Connects to systemd, if it started this process and wants notifications.
    pub(crate) fn connect() -> io::Result<Option<Arc<Self>>> {
        let Some(path) = env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()) else { return Ok(None) };
        let socket = net::UnixDatagram::unbound()?;
        socket.connect_addr(&address(&path)?)?;
        // A receiver that does not read must not hold up the control plane.
        socket.set_nonblocking(true)?;
        let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us = number(WATCHDOG_PID_VARIABLE).is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number(WATCHDOG_VARIABLE).filter(|_| is_for_us).map(Duration::from_micros);
        Ok(Some(Arc::new(Self { socket, watchdog })))
    }

    /// Reports that the signer has started.
    pub(crate) fn ready(&self, telemetry: &Telemetry) {
        self.send(&format!("READY=1\nSTATUS={}", status(telemetry)));
    }

    /// Reports that the signer reads its configuration again. `ready` follows.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Reports that the signer takes no more requests.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping: requests in progress are answered first");
    }

    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send(message.as_bytes()) {
            warn!("cannot notify systemd: {error}");
        }
    }
}

/// Parses an address: a path, or an abstract name that begins with `@`.
fn address(path: &OsStr) -> io::Result<net::SocketAddr> {
    match path.as_bytes().strip_prefix(b"@") {
        Some(name) => net::SocketAddr::from_abstract_name(name),
        None => net::SocketAddr::from_pathname(path),
    }
}

/// Sends a sign of life at least twice in the watchdog's time, and the status line whenever it has changed. Runs for
/// ever.
pub(crate) async fn keep_telling(systemd: Arc<Systemd>, telemetry: Arc<Telemetry>) {
    let mut ticks = interval(tick(systemd.watchdog));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    loop {
        ticks.tick().await;
        if systemd.watchdog.is_some() {
            systemd.send("WATCHDOG=1");
        }
        let status = status(&telemetry);
        if status != last {
            systemd.send(&format!("STATUS={status}"));
            last = status;
        }
    }
}

fn tick(watchdog: Option<Duration>) -> Duration {
    /// tokio accepts no interval of zero.
    const SHORTEST: Duration = Duration::from_millis(1);
    watchdog.map_or(STATUS_EVERY, |time| (time / 2).min(STATUS_EVERY).max(SHORTEST))
}

fn status(telemetry: &Telemetry) -> String {
    status_line(telemetry.chains.len(), &telemetry.not_ready())
}

/// Makes it one line: a second line would be another message to systemd, and part of the text comes from outside.
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
