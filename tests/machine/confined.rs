//! The confined signer: it signs with every kind of key, comes back from faults, and can do nothing else.

use crate::support::{
    assert_alive,
    hsm::{Descendant, Hsm},
    mock_node::{MockNode, Session, prevote},
    signer::{Home, Signer, seed},
    yubihsm as device,
};
use highwater::config::home;
use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

pub const CHAIN: &str = "test-chain";
const PATIENCE: Duration = Duration::from_secs(20);
const FEATURES: [&str; 5] = ["core_dumps", "landlock", "locked_memory", "no_new_privs", "seccomp"];

/// `SECCOMP_MODE_FILTER` in `/proc/PID/status`.
const FILTERED: &str = "2";
/// Whether this kernel supports the whole sandbox. Prints a message if it does not.
pub fn kernel_confines() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let home = Home::new().chain(CHAIN, "").node("unix:///nowhere/at.all", CHAIN, "reconnect = false").init();
        own(&home, "[highwater]\nrequire_sandbox = true");
        let output = home.command(&["start"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            // Nobody to dial.
            Some(69) => true,
            Some(74) if text.contains("require_sandbox") => {
                assert!(env::var("CI").as_deref() != Ok("true"), "{text}, and CI skips nothing");
                device::say(&format!("SKIPPED: {text}"));
                false
            }
            _ => panic!("{output:?}"),
        }
    })
}

/// The signal that a forbidden system call ends in.
pub const SIGSYS: i32 = 31;

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} never came");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A field of `/proc/PID/status`, for each thread.
fn of_threads(process: u32, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok());
    let prefix = format!("{field}:\t");
    status.map(|text| text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().to_owned()).collect()
}

/// Checks that every thread of a process has a system call filter and cannot gain privileges.
fn assert_confined(process: u32) {
    for (field, value) in [("Seccomp", FILTERED), ("NoNewPrivs", "1")] {
        let found = of_threads(process, field);
        assert!(!found.is_empty() && found.iter().all(|found| found == value), "{field} of {process}: {found:?}");
    }
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

/// Adds a table to the configuration of a home.
fn own(home: &Home, text: &str) {
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    fs::write(home.path("tmkms.toml"), format!("{config}\n{text}\n")).unwrap();
}

fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn status(home: &Home) -> String {
    let output = home.command(&["status"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asks for the next heights until one is signed.
fn signs_again(session: &mut Session, first_height: i64) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    for height in first_height.. {
        if session.ask_vote(CHAIN, prevote(height, 0, Some(7))).unwrap().is_ok() {
            return height;
        }
        assert!(Instant::now() < deadline, "the device does not come back");
        thread::sleep(Duration::from_millis(20));
    }
    unreachable!("heights have no end")
}

#[test]
fn a_confined_signer_signs_redials_and_shows_what_it_does() {
    if !kernel_confines() {
        return;
    }
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    let address = free_port();
    own(&home, &format!("[highwater]\nrequire_sandbox = true\nmetrics.laddr = \"{address}\""));
    let mut signer = home.start();
    let key = home.public_key(CHAIN);
    for height in 1..=3 {
        let mut session = node.accept().unwrap();
        assert_alive(&mut session, &key, CHAIN, height);
        assert_confined(signer.id());
        session.close();
    }
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &key, CHAIN, 4);
    let text = metrics(address);
    for feature in FEATURES {
        let line = format!("highwater_sandbox{{feature=\"{feature}\"}} 1\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    let text = status(&home);
    assert!(text.contains("every chain signs") && !text.contains("limited"), "{text}");
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));
    assert!(!home::control_socket(None, &home.path("tmkms.toml")).exists());
}

#[test]
fn a_killed_child_of_a_confined_signer_is_replaced_by_a_confined_one() {
    if !kernel_confines() {
        return;
    }
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token("validator", 0);
    let provider = hsm.provider_with_file(hsm.module(), "validator", &[(CHAIN, "consensus", &key)]);
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain_with_key(CHAIN, "", &provider).node(&node.address(), CHAIN, "");
    let home = hsm.equip(home).init();
    own(&home, "[highwater]\nrequire_sandbox = true");
    let mut signer = home.start();
    signer.wait_for_log("device up");
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &key, CHAIN, 1);
    let mut height = 2;
    for _ in 0..2 {
        assert_confined(signer.id());
        let children = Descendant::modules_of(signer.id());
        children.iter().for_each(|child| assert_confined(child.id));
        children.iter().for_each(Descendant::kill);
        height = 1 + signs_again(&mut session, height);
    }
    // Only the spawner may still start programs, and nothing else that is forbidden. A second thread of it reads what the
    // modules say on standard error.
    let spawner = Descendant::spawner_of(signer.id());
    for (field, value) in [("Seccomp", FILTERED), ("NoNewPrivs", "1")] {
        let found = of_threads(spawner.id, field);
        assert!(!found.is_empty() && found.iter().all(|found| found == value), "{field}: {found:?}");
    }
}

#[test]
fn a_confined_signer_gets_its_yubihsm_back() {
    if !kernel_confines() {
        return;
    }
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain_with_key(CHAIN, "", &device.provider(CHAIN)).node(&node.address(), CHAIN, "").init();
    own(&home, "[highwater]\nrequire_sandbox = true");
    let mut signer = home.start();
    signer.wait_for_log("device up");
    let mut session = node.accept().unwrap();
    let height = signs_again(&mut session, 1);
    assert_confined(signer.id());
    device.take_down();
    session.ask_vote(CHAIN, prevote(height + 1, 0, Some(7))).unwrap().unwrap_err();
    device.bring_up();
    signs_again(&mut session, height + 2);
}

#[test]
fn a_confined_signer_has_the_password_of_its_yubihsm_from_wherever_a_pin_can_come() {
    const VARIABLE: &str = "VALIDATOR_PASSWORD";
    if !kernel_confines() {
        return;
    }
    let Some(device) = device::start(&seed(0), &[]) else { return };
    for (source, script) in [
        // A pipe: it can be read once.
        ("{ fd = 3 }", "exec 3<<END\n$(cat \"$PASSWORD_FILE\")\nEND"),
        ("{ fd = 3 }", "exec 3<\"$PASSWORD_FILE\""),
        ("{ env = \"VALIDATOR_PASSWORD\" }", "export VALIDATOR_PASSWORD=\"$(cat \"$PASSWORD_FILE\")\""),
        ("{ credential = \"password\" }", ""),
    ] {
        let node = MockNode::tcp().unwrap();
        let file = device.password_file();
        let home = Home::new().chain_with_key(CHAIN, "", &device.provider(CHAIN)).node(&node.address(), CHAIN, "");
        let home = home.node("tcp://localhost:1", CHAIN, "").env("PASSWORD_FILE", &file);
        let home = home.env("CREDENTIALS_DIRECTORY", file.parent().unwrap()).init();
        let text = fs::read_to_string(home.path("tmkms.toml")).unwrap();
        let text = text.replace(&format!("password_file = {file:?}"), &format!("password = {source}"));
        fs::write(home.path("tmkms.toml"), text).unwrap();
        own(&home, "[highwater]\nrequire_sandbox = true");
        let mut signer = home.start_in_shell(script);
        signer.wait_for_log("device up");
        signer.wait_for_log("localhost");
        let mut session = node.accept().unwrap();
        let height = signs_again(&mut session, 1);
        assert_confined(signer.id());
        // Also a session that is opened later.
        device.take_down();
        session.ask_vote(CHAIN, prevote(height + 1, 0, Some(7))).unwrap().unwrap_err();
        device.bring_up();
        signs_again(&mut session, height + 2);
        assert!(!signer.log().contains(device::PASSWORD), "{source}");
        for helper in Descendant::children_of(signer.id()) {
            // A process that cannot be debugged shows these to root alone.
            let environment = fs::read(format!("/proc/{}/environ", helper.id)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&environment).contains(VARIABLE), "{source}");
            let Ok(open) = fs::read_dir(format!("/proc/{}/fd", helper.id)) else { continue };
            for descriptor in open {
                assert_ne!(fs::read_link(descriptor.unwrap().path()).unwrap_or_default(), file, "{source}");
            }
        }
    }
}

#[test]
fn a_node_that_moves_to_another_address_is_found_by_its_name() {
    const NAME: &str = "validator.highwater.example";
    if !kernel_confines() {
        return;
    }
    let mut own_mounts = Command::new("unshare");
    let allowed = own_mounts.args(["-rm", "true"]).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        crate::support::skip::skip("this user cannot have mounts of its own, so no /etc/hosts to change");
        return;
    }
    let node = MockNode::tcp().unwrap();
    let port = node.socket().port();
    let moved = MockNode::tcp_at(([127, 0, 0, 2], port).into()).unwrap();
    let home = Home::new().chain(CHAIN, "").node(&format!("tcp://{NAME}:{port}"), CHAIN, "").init();
    own(&home, "[highwater]\nrequire_sandbox = true");
    let hosts = home.path("hosts");
    fs::write(&hosts, format!("127.0.0.1 {NAME}\n")).unwrap();
    let mount = format!("mount --bind {} /etc/hosts", hosts.display());
    let script = format!(r#"[ "$INSIDE" ] || INSIDE=1 exec unshare -rm sh -c '{mount} && exec "$0" "$@"' "$0" "$@""#);
    let mut signer = home.start_in_shell(&script);
    let key = home.public_key(CHAIN);
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &key, CHAIN, 1);
    assert_confined(signer.id());
    let helpers = Descendant::children_with(signer.id(), "name-resolver");
    assert_eq!(helpers.len(), 1, "one process for one name");
    assert_confined(helpers[0].id);

    fs::write(&hosts, format!("127.0.0.2 {NAME}\n")).unwrap();
    session.close();
    let mut session = moved.accept().unwrap();
    assert_alive(&mut session, &key, CHAIN, 2);

    // A name that is gone is no address, and one that is back is found.
    fs::write(&hosts, "").unwrap();
    session.close();
    signer.wait_for_log("cannot resolve");
    fs::write(&hosts, format!("127.0.0.1 {NAME}\n")).unwrap();
    assert_alive(&mut node.accept().unwrap(), &key, CHAIN, 3);

    // Without its process the name cannot be looked up any more: that ends the signer, for a supervisor to start it.
    helpers[0].kill();
    assert_eq!(signer.exit_code(), Some(70));
    assert!(signer.log().contains("the process that resolves a host name has ended"), "{}", signer.log());
}

#[test]
fn addresses_need_no_process_for_names() {
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
    let signer = home.start();
    let _session = node.accept().unwrap();
    assert!(Descendant::children_with(signer.id(), "name-resolver").is_empty());
}

#[test]
fn a_state_hook_runs_before_the_signer_is_confined() {
    if !kernel_confines() {
        return;
    }
    let node = MockNode::tcp().unwrap();
    let hook = r#"state_hook = { cmd = ["sh", "-c", "echo '{\"latest_block_height\": \"41\"}'"] }"#;
    let home = Home::new().chain(CHAIN, hook).node(&node.address(), CHAIN, "").init();
    let mut signer: Signer = home.start();
    signer.wait_for_log("the state hook raised the mark");
    assert_alive(&mut node.accept().unwrap(), &home.public_key(CHAIN), CHAIN, 42);
    assert_confined(signer.id());
}

#[test]
fn what_is_switched_off_is_told_everywhere_and_the_rest_stays() {
    if !kernel_confines() {
        return;
    }
    for (switch, features, words) in [
        ("danger_no_seccomp", &["seccomp"][..], "system calls are not limited: danger_no_seccomp = true"),
        ("danger_no_landlock", &["landlock"], "files and ports are not limited: danger_no_landlock = true"),
        (
            "danger_core_dumps",
            &["core_dumps", "locked_memory"],
            "keys can be swapped to disk: danger_core_dumps = true",
        ),
    ] {
        let node = MockNode::tcp().unwrap();
        let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
        let address = free_port();
        own(&home, &format!("[highwater]\n{switch} = true\nmetrics.laddr = \"{address}\""));
        let mut signer = home.start();
        assert_alive(&mut node.accept().unwrap(), &home.public_key(CHAIN), CHAIN, 1);
        signer.wait_for_log(words);
        wait_until("the warning in `status`", || status(&home).contains(words));
        let text = metrics(address);
        for feature in FEATURES {
            let on = u8::from(!features.contains(&feature));
            let line = format!("highwater_sandbox{{feature=\"{feature}\"}} {on}\n");
            assert!(text.contains(&line), "{switch}: {line} is not in\n{text}");
        }
        let filtered = of_threads(signer.id(), "Seccomp").iter().all(|mode| mode == FILTERED);
        assert_eq!(filtered, !features.contains(&"seccomp"), "{switch}");
    }
}
