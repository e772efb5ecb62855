//! The confined signer: it signs with every kind of key, comes back from faults, and can do nothing else.

use crate::support::{
    assert_alive,
    hsm::{Descendant, Hsm},
    mock_node::{MockNode, Session, prevote},
    signer::{Home, Signer, seed},
    yubihsm as device,
};
use highwater::{
    config::{Config, home},
    process::sandbox::{self, Feature, ModuleLimits, Sandbox, Switches},
};
use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{
        net::UnixStream,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

const CHAIN: &str = "test-chain";
const PATIENCE: Duration = Duration::from_secs(20);
const FEATURES: [&str; 5] = ["core_dumps", "landlock", "locked_memory", "no_new_privs", "seccomp"];

/// `SECCOMP_MODE_FILTER` in `/proc/PID/status`.
const FILTERED: &str = "2";
/// Whether this kernel has all that the sandbox asks for. Says so if it has not.
fn kernel_confines() -> bool {
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
const SIGSYS: i32 = 31;

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

/// That every thread of a process has its system calls filtered and can gain no privileges.
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
    // Only the spawner may still start programs, and nothing else that is forbidden.
    let spawner = Descendant::spawner_of(signer.id());
    assert_eq!(
        (of_threads(spawner.id, "Seccomp"), of_threads(spawner.id, "NoNewPrivs")),
        (vec![FILTERED.into()], vec!["1".into()])
    );
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
    let helpers = Descendant::children_of(signer.id());
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
    assert!(Descendant::children_of(signer.id()).is_empty());
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

/// Tells a copy of this test what to try, and where its home is.
const ATTEMPT: &str = "HIGHWATER_TEST_ATTEMPT";
const ATTEMPT_HOME: &str = "HIGHWATER_TEST_ATTEMPT_HOME";
/// The same for the addresses of the signer's node and of a node that is not its own.
const NODE: &str = "HIGHWATER_TEST_ATTEMPT_NODE";
const OTHER: &str = "HIGHWATER_TEST_ATTEMPT_OTHER";

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Allowed,
    /// By the kernel, with the process.
    Killed,
    /// With an error.
    Refused,
}

/// What a confined process tries. Each begins with the confinement in which it is tried: `close` is a signer that asks
/// its devices, `seal` one that signs, `spawner` the process that starts those of tokens, `module` the child of a token,
/// `resolver` the process that looks up a host name. What follows it there is peculiar about it: that its profile gives the
/// module the network or sockets, that its section names the signer's home, that no name server takes TCP, or that
/// there is no Landlock.
const ATTEMPTS: [(&str, End); 89] = [
    ("close bind", End::Refused),
    ("close clone3", End::Refused),
    ("close connect allowed", End::Allowed),
    ("close connect other", End::Refused),
    ("close exec", End::Killed),
    ("close fastopen sendmsg", End::Refused),
    ("close fastopen sendto", End::Refused),
    ("close mptcp", End::Refused),
    ("close namespace", End::Killed),
    ("close open passwd", End::Refused),
    ("close ptrace", End::Killed),
    ("close thread", End::Allowed),
    ("close write state", End::Refused),
    ("close x32", End::Killed),
    ("close-landlock-off signal other", End::Refused),
    ("module bind", End::Refused),
    ("module clone3", End::Refused),
    ("module connect other", End::Refused),
    ("module exec", End::Refused),
    ("module mount", End::Killed),
    ("module namespace", End::Killed),
    ("module open passwd", End::Allowed),
    ("module ptrace", End::Killed),
    ("module read config", End::Refused),
    ("module read etc", End::Refused),
    ("module read home", End::Refused),
    ("module read key", End::Refused),
    ("module read named", End::Allowed),
    ("module signal self", End::Allowed),
    ("module udp", End::Refused),
    ("module unix stream", End::Refused),
    ("module write named", End::Allowed),
    ("module write state", End::Refused),
    ("module x32", End::Killed),
    ("module-landlock-off signal group", End::Refused),
    ("module-landlock-off signal other", End::Refused),
    ("module-named-home read key", End::Refused),
    ("module-named-home write state", End::Refused),
    ("module-network connect other", End::Allowed),
    ("module-network mptcp", End::Refused),
    ("module-network read key", End::Refused),
    ("module-network udp", End::Allowed),
    ("module-network unix stream", End::Refused),
    ("module-sockets connect other", End::Refused),
    ("module-sockets unix stream", End::Allowed),
    ("resolver bind", End::Refused),
    ("resolver clone3", End::Refused),
    ("resolver connect other", End::Refused),
    ("resolver create beside", End::Refused),
    ("resolver exec", End::Killed),
    ("resolver fastopen sendmsg", End::Refused),
    ("resolver fastopen sendto", End::Refused),
    ("resolver mptcp", End::Refused),
    ("resolver namespace", End::Killed),
    ("resolver open passwd", End::Allowed),
    ("resolver ptrace", End::Killed),
    ("resolver read etc", End::Refused),
    ("resolver read hosts", End::Allowed),
    ("resolver read key", End::Refused),
    ("resolver udp", End::Refused),
    ("resolver x32", End::Killed),
    ("resolver-landlock-off signal other", End::Refused),
    ("resolver-udp mptcp", End::Refused),
    ("resolver-udp udp", End::Allowed),
    ("seal bind", End::Refused),
    ("seal connect allowed", End::Allowed),
    ("seal connect other", End::Refused),
    ("seal create beside", End::Refused),
    ("seal exec", End::Killed),
    ("seal fastopen sendmsg", End::Refused),
    ("seal fastopen sendto", End::Refused),
    ("seal mount", End::Killed),
    ("seal mptcp", End::Refused),
    ("seal namespace", End::Killed),
    ("seal old thread", End::Refused),
    ("seal open passwd", End::Refused),
    ("seal ptrace", End::Killed),
    ("seal read key", End::Allowed),
    ("seal signal self", End::Refused),
    ("seal thread", End::Allowed),
    ("seal udp", End::Refused),
    ("seal unix listen", End::Refused),
    ("seal unix stream", End::Allowed),
    ("spawner clone3", End::Refused),
    ("spawner exec", End::Allowed),
    ("spawner mount", End::Killed),
    ("spawner namespace", End::Killed),
    ("spawner signal other", End::Refused),
    ("spawner x32", End::Killed),
];

#[test]
fn a_confined_process_can_do_nothing_but_sign() {
    if let Some(attempt) = env::var_os(ATTEMPT) {
        let home = env::var_os(ATTEMPT_HOME).unwrap();
        attempt_in(Path::new(&home), attempt.to_str().unwrap());
    }
    if !kernel_confines() {
        return;
    }
    let node = MockNode::tcp().unwrap();
    let other = MockNode::tcp().unwrap();
    let mut wrong = Vec::new();
    for (attempt, expected) in ATTEMPTS {
        let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "confined::a_confined_process_can_do_nothing_but_sign", "--nocapture"]);
        command.env(ATTEMPT, attempt).env(ATTEMPT_HOME, home.path(""));
        command.env(NODE, node.socket().to_string()).env(OTHER, other.socket().to_string());
        let output = command.output().unwrap();
        let end = match (output.status.code(), output.status.signal()) {
            (Some(0), _) => End::Allowed,
            (Some(1), _) => End::Refused,
            (_, Some(SIGSYS)) => End::Killed,
            _ => panic!("{attempt}: {output:?}"),
        };
        if end != expected {
            wrong.push(format!("{attempt}: {end:?}, not {expected:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Confines this process as far as the attempt asks, then tries it. Ends the process with 0 if it worked.
fn attempt_in(home: &Path, attempt: &str) -> ! {
    let (confinement, what) = attempt.split_once(' ').unwrap();
    let (process, peculiar) = confinement.split_once('-').unwrap_or((confinement, ""));
    if peculiar == "landlock-off" {
        let config = fs::read_to_string(home.join("tmkms.toml")).unwrap();
        fs::write(home.join("tmkms.toml"), format!("{config}\n[highwater]\ndanger_no_landlock = true\n")).unwrap();
    }
    let (config, _) = Config::load(&home.join("tmkms.toml")).unwrap();
    let switches = Switches::of(&config);
    fs::write(home.join("named"), "").unwrap();
    // The test harness has threads, so a fresh one stands for the main thread.
    let done = thread::scope(|scope| {
        let confine_and_try = || {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            match process {
                "module" => confine_module(home, peculiar, switches),
                "resolver" => sandbox::confine_resolver(switches, peculiar == "udp").unwrap(),
                "spawner" => sandbox::confine_spawner(switches).unwrap(),
                _ => {
                    let mut sandbox = Sandbox::begin(&config).unwrap();
                    sandbox.close(&config).unwrap();
                    // Begun before the last filter, which has to reach it too. Landlock knows nothing of UDP.
                    let old = thread::spawn(move || wait.recv().is_ok() && UdpSocket::bind("127.0.0.1:0").is_ok());
                    if process == "seal" {
                        let report = sandbox.seal(&config, true).unwrap();
                        assert!(report.features().all(|(_, on)| on), "{report:?}");
                        assert!(report.features().any(|(feature, _)| feature == Feature::Landlock));
                    }
                    if what == "old thread" {
                        go.send(()).unwrap();
                        return old.join().unwrap();
                    }
                }
            }
            try_out(home, what)
        };
        scope.spawn(confine_and_try).join().unwrap()
    });
    std::process::exit(i32::from(!done))
}

fn confine_module(home: &Path, peculiar: &str, switches: Switches) {
    let named = home.join("named");
    let mut files = vec![(named.as_path(), true)];
    if peculiar == "named-home" {
        files.push((home, true));
    }
    let never = [home.join(format!("{CHAIN}.state")), home.join(format!("{CHAIN}.key"))];
    let limits = ModuleLimits { files, never: &never, network: peculiar == "network", sockets: peculiar == "sockets" };
    sandbox::confine_module(switches, &limits).unwrap();
}

fn try_out(home: &Path, what: &str) -> bool {
    let address = |name: &str| -> SocketAddr { env::var(name).unwrap().parse().unwrap() };
    let own = i32::try_from(std::process::id()).unwrap();
    let key = home.join(format!("{CHAIN}.key"));
    match what {
        "bind" => TcpListener::bind("127.0.0.1:0").is_ok(),
        "clone3" => raw::clone3(),
        "connect allowed" => TcpStream::connect(address(NODE)).is_ok(),
        "connect other" => TcpStream::connect(address(OTHER)).is_ok(),
        "create beside" => fs::write(home.join("new"), "new").is_ok(),
        // In place of this process: a child would be killed alone. It returns only if that is refused.
        "exec" => Command::new("/bin/true").exec().raw_os_error().is_none(),
        "fastopen sendmsg" => raw::fastopen(address(OTHER).port(), true),
        "fastopen sendto" => raw::fastopen(address(OTHER).port(), false),
        "mount" => raw::mount(),
        "mptcp" => raw::mptcp(address(OTHER).port()),
        "namespace" => raw::namespace(),
        "open passwd" => fs::read("/etc/passwd").is_ok(),
        "ptrace" => raw::ptrace(),
        "read config" => fs::read(home.join("tmkms.toml")).is_ok(),
        "read etc" => {
            let files = ["/etc/profile", "/etc/shells", "/etc/login.defs", "/etc/fstab"];
            let there = files.iter().find(|path| Path::new(path).exists()).expect("some of them is there");
            fs::read(there).is_ok()
        }
        "read home" => fs::read_dir(home).is_ok(),
        "read hosts" => fs::read("/etc/hosts").is_ok(),
        "read key" => fs::read(key).is_ok(),
        "read named" => fs::read(home.join("named")).is_ok(),
        // Whoever has started us.
        "signal group" => raw::signal(0),
        "signal other" => raw::signal(i32::try_from(std::os::unix::process::parent_id()).unwrap()),
        "signal self" => raw::signal(own),
        "thread" => thread::Builder::new().spawn(|| ()).unwrap().join().is_ok(),
        "udp" => UdpSocket::bind("127.0.0.1:0").is_ok(),
        "unix listen" => std::os::unix::net::UnixListener::bind(home.join("new.sock")).is_ok(),
        // Nobody listens; a socket there is.
        "unix stream" => {
            UnixStream::connect(home.join("none.sock")).unwrap_err().kind() == std::io::ErrorKind::NotFound
        }
        "write named" => fs::write(home.join("named"), "new").is_ok(),
        "write state" => fs::OpenOptions::new().write(true).open(home.join(format!("{CHAIN}.state.highwater"))).is_ok(),
        "x32" => raw::x32(),
        other => panic!("what is {other:?}?"),
    }
}

/// Calls that std has no safe function for, each with arguments that can do no harm should it be let through.
#[allow(unsafe_code)]
mod raw {
    use std::{mem, ptr};

    /// Whether `clone3` is more than unknown here. Without arguments it starts nothing.
    pub(super) fn clone3() -> bool {
        // SAFETY: the arguments have no length, so none are read.
        let answer = unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<libc::c_void>(), 0) };
        answer != -1 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
    }

    /// Starts a process in a namespace of its own, which ends at once.
    pub(super) fn namespace() -> bool {
        // SAFETY: without a stack it is a fork, and the new process does nothing but end.
        let process = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0) };
        if process == 0 {
            // SAFETY: ends this process without running anything of it.
            unsafe { libc::_exit(0) };
        }
        process > 0
    }

    /// Sends to a port of this machine over a socket that was never connected.
    pub(super) fn fastopen(port: u16, by_message: bool) -> bool {
        let address = localhost(port);
        let socket = stream(0);
        let mut byte = 7_u8;
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        let sent = if by_message {
            let mut data = libc::iovec { iov_base: ptr::from_mut(&mut byte).cast(), iov_len: 1 };
            // SAFETY: a message of zeros is an empty one.
            let mut message: libc::msghdr = unsafe { mem::zeroed() };
            message.msg_name = ptr::from_ref(&address).cast_mut().cast();
            message.msg_namelen = length;
            message.msg_iov = &raw mut data;
            message.msg_iovlen = 1;
            // SAFETY: the message points to what lives until the call returns.
            unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_FASTOPEN) }
        } else {
            let address = ptr::from_ref(&address).cast();
            // SAFETY: byte and address live until the call returns.
            unsafe { libc::sendto(socket, ptr::from_ref(&byte).cast(), 1, libc::MSG_FASTOPEN, address, length) }
        };
        sent == 1
    }

    /// Connects to a port of this machine by Multipath TCP.
    pub(super) fn mptcp(port: u16) -> bool {
        let address = localhost(port);
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        // SAFETY: the address lives until the call returns.
        unsafe { libc::connect(stream(libc::IPPROTO_MPTCP), ptr::from_ref(&address).cast(), length) == 0 }
    }

    /// A socket, or -1. It goes with this process.
    fn stream(protocol: libc::c_int) -> libc::c_int {
        // SAFETY: socket takes numbers.
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, protocol) }
    }

    fn localhost(port: u16) -> libc::sockaddr_in {
        libc::sockaddr_in {
            sin_family: libc::AF_INET.try_into().unwrap(),
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        }
    }

    /// Unmounts what does not exist.
    pub(super) fn mount() -> bool {
        // SAFETY: the argument is a string that ends in zero.
        unsafe { libc::umount2(c"/nowhere".as_ptr(), 0) == 0 }
    }

    /// Asks to trace the process with id 0, which does not exist.
    pub(super) fn ptrace() -> bool {
        // SAFETY: PTRACE_ATTACH takes a number and no memory.
        unsafe { libc::ptrace(libc::PTRACE_ATTACH, 0, 0, 0) == 0 }
    }

    /// Asks whether this process could be sent a signal.
    pub(super) fn signal(process: i32) -> bool {
        // SAFETY: kill takes numbers; 0 sends no signal.
        unsafe { libc::kill(process, 0) == 0 }
    }

    /// Asks for its own id by the number that this has in the x32 ABI. Elsewhere there is none, and it ends as it would.
    pub(super) fn x32() -> bool {
        #[cfg(not(target_arch = "x86_64"))]
        // SAFETY: raise takes a number, and this process is there for nothing else.
        unsafe {
            libc::raise(libc::SIGSYS)
        };
        // SAFETY: getpid takes nothing.
        unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) > 0 }
    }
}
