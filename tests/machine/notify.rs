//! Messages from a signer to systemd: ready, alive (even while it waits), stopping.

use crate::support::{
    mock_node::{MockNode, precommit},
    signer::Home,
    strace,
};
use std::{
    fs::{self, Permissions},
    io,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    thread,
    time::{Duration, Instant},
};

const CHAIN: &str = "test-chain";
const PATIENCE: Duration = Duration::from_secs(30);
/// The watchdog's time. A real one is many times longer.
const WATCHDOG: Duration = Duration::from_secs(2);

/// Stands in for systemd.
struct Manager(UnixDatagram);

impl Manager {
    /// Listens for the signer of `home`, which gets to know about it.
    fn of(home: Home) -> (Home, Self) {
        let path = home.path("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        let watchdog = WATCHDOG.as_micros().to_string();
        (home.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", watchdog), Self(socket))
    }

    /// The next message, line by line; `None` if none comes in time.
    fn next(&self, within: Duration) -> Option<Vec<String>> {
        let mut message = [0; 4096];
        self.0.set_read_timeout(Some(within.max(Duration::from_millis(1)))).unwrap();
        match self.0.recv(&mut message) {
            Ok(length) => Some(String::from_utf8_lossy(&message[..length]).lines().map(str::to_owned).collect()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message with this line. The lines before it are told.
    fn wait_for(&self, wanted: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while let Some(lines) = self.next(deadline.saturating_duration_since(Instant::now())) {
            heard.extend(lines);
            if heard.iter().any(|line| line == wanted) {
                return heard;
            }
        }
        panic!("{wanted:?} never came, only {heard:?}");
    }

    /// Checks that watchdog messages keep coming in time for this long.
    #[track_caller]
    fn assert_alive_for(&self, time: Duration, what: &str) {
        let begin = Instant::now();
        let mut last = begin;
        let mut signs = 0;
        while begin.elapsed() < time {
            let lines = self.next((last + WATCHDOG).saturating_duration_since(Instant::now()));
            let lines = lines.unwrap_or_else(|| panic!("no sign of life for {:?} while {what}", last.elapsed()));
            if lines.iter().any(|line| line == "WATCHDOG=1") {
                last = Instant::now();
                signs += 1;
            }
        }
        eprintln!("{signs} signs of life in {:?} while {what}", begin.elapsed());
    }
}

#[test]
fn systemd_hears_ready_then_signs_of_life_then_stopping_and_how_the_signer_is() {
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    let (home, manager) = Manager::of(home);
    let mut signer = home.start();
    let heard = manager.wait_for("READY=1");
    let status = format!("STATUS=0 of 1 chains sign; {CHAIN}: node {}: not connected yet", node.address());
    assert_eq!(heard, ["READY=1", &status]);
    manager.wait_for("WATCHDOG=1");
    let mut session = node.accept().unwrap();
    session.ping().unwrap();
    manager.wait_for("STATUS=every chain signs");
    signer.sigterm();
    manager.wait_for("STOPPING=1");
    assert_eq!(signer.exit_code(), Some(0));
}

#[test]
fn a_signer_without_a_chain_that_signs_is_never_ready() {
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "");
    home.write_config();
    let (home, manager) = Manager::of(home);
    assert_eq!(home.start().exit_code(), Some(65));
    assert_eq!(manager.next(Duration::from_millis(100)), None);
}

#[test]
fn waiting_for_a_node_that_says_nothing_is_no_reason_to_be_killed() {
    // One that takes the connection and is silent, and one that is not there.
    let (silent, gone) = (MockNode::tcp().unwrap(), MockNode::tcp().unwrap());
    let home = Home::new().chain(CHAIN, "").node(&silent.address(), CHAIN, "").node(&gone.address(), CHAIN, "").init();
    drop(gone);
    let (home, manager) = Manager::of(home);
    let _signer = home.start();
    manager.wait_for("READY=1");
    let _held = silent.accept_raw(PATIENCE).unwrap();
    manager.assert_alive_for(3 * WATCHDOG, "no node speaks");
}

#[test]
fn waiting_for_a_device_is_no_reason_to_be_killed() {
    // A connector that takes the connection and is silent.
    let connector = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "");
    let password = home.path("password");
    fs::write(&password, "0123456789abcdef").unwrap();
    fs::set_permissions(&password, Permissions::from_mode(0o600)).unwrap();
    let provider = format!(
        "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://{}\" }}\n\
         auth = {{ key = 4, password_file = {password:?} }}\nserial_number = \"0123456789\"\n\
         keys = [{{ chain_ids = [\"silent-1\"], key = 1 }}]\n",
        connector.local_addr().unwrap()
    );
    let home = home.chain_with_key("silent-1", "", &provider);
    let home = home.node(&node.address(), CHAIN, "").node(&node.address(), "silent-1", "");
    home.write_config();
    let made = home.command(&["state", "init", "--never-signed", "--chain", CHAIN]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (home, manager) = Manager::of(home);
    let _signer = home.start();
    manager.wait_for("READY=1");
    let (_asked, _) = connector.accept().unwrap();
    manager.assert_alive_for(3 * WATCHDOG, "the device says nothing");
}

#[test]
fn waiting_for_a_disk_is_no_reason_to_be_killed() {
    if !strace::permitted() {
        return;
    }
    const FLUSH: Duration = Duration::from_secs(6);
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    let (home, manager) = Manager::of(home);
    let signer = home.start();
    manager.wait_for("READY=1");
    let mut session = node.accept().unwrap();
    session.ping().unwrap();
    // Every flush of the thread that serves the node takes very long from now on.
    let flushes = "pwrite64,pwritev2,fdatasync,fsync";
    let delay = format!("inject={flushes}:delay_enter={}", FLUSH.as_micros());
    let log = home.path("strace.log");
    let thread = strace::node_threads(signer.id())[0];
    let _slow = strace::Attached::new(thread, &log, &["-e", &format!("trace={flushes}"), "-e", &delay]);
    let asking = thread::spawn(move || {
        let begin = Instant::now();
        let vote = session.ask_vote(CHAIN, precommit(1, 0, Some(7))).unwrap();
        (vote.is_ok(), begin.elapsed())
    });
    manager.assert_alive_for(FLUSH, "the disk does not answer");
    let (signed, took) = asking.join().unwrap();
    assert!(signed && took >= FLUSH, "{took:?}");
}

#[test]
fn systemd_hears_when_a_reload_begins_and_when_it_is_over() {
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    let (home, manager) = Manager::of(home);
    let signer = home.start();
    manager.wait_for("READY=1");
    let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    let id = signer.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    let heard = manager.wait_for("RELOADING=1");
    let micros = heard.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    let begun = micros.parse::<i64>().unwrap() / 1_000_000;
    assert!((before..=before + 60).contains(&begun), "{micros}");
    manager.wait_for("READY=1");
}
