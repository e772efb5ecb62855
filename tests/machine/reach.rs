//! What the processes beside a signer reach, seen from a module that is hostile, a vendor's module that needs more than was
//! named, a hook that leaves something behind, and a name service that changes.

use highwater::config::home;

use crate::support::{
    assert_alive,
    hsm::{Descendant, Hsm, PIN, faulty_module},
    mock_node::{MockNode, prevote},
    signer::Home,
};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const CHAIN: &str = "test-chain";
const OTHER: &str = "other-chain";
const PATIENCE: Duration = Duration::from_secs(20);
const VARIABLE: &str = "HIGHWATER_TEST_PIN";

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} never came");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Adds text to the configuration of a home.
fn append(home: &Home, text: &str) {
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    fs::write(home.path("tmkms.toml"), format!("{config}\n{text}\n")).unwrap();
}

#[test]
fn a_hostile_module_reaches_nothing_that_is_the_signers_nor_the_network() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token("validator", 0);
    let provider = hsm.provider_with_file(&faulty_module(), "validator", &[(CHAIN, "consensus", &key)]);
    let node = MockNode::tcp().unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let home = Home::new().chain_with_key(CHAIN, "", &provider).chain(OTHER, "");
    let home = home.node(&node.address(), CHAIN, "").node("unix:///nowhere/at.all", OTHER, "");
    let home = hsm.equip(home).env(VARIABLE, "48151623").env("CREDENTIALS_DIRECTORY", hsm.path("credentials")).init();
    append(&home, &format!("[highwater.audit]\nfile = {:?}", home.path("audit.log")));
    // The PIN of another token.
    let backup = format!("{{ env = {VARIABLE:?} }}");
    append(&home, &hsm.provider(hsm.module(), "backup", &backup, &[]));
    fs::create_dir(hsm.path("credentials")).unwrap();
    hsm.pin_file("credentials/pin", PIN);
    let control = home::control_socket(None, &home.path("tmkms.toml"));
    let service = home.path("service.sock");
    let _service = UnixListener::bind(&service).unwrap();
    let forbidden = [
        format!("read {}", home.key_file(OTHER).display()),
        format!("read {}", home.path("identity.key").display()),
        format!("read {}", home.path("tmkms.toml").display()),
        format!("read {}", home.path("audit.log").display()),
        format!("read {}", hsm.path("pin").display()),
        format!("read {}", hsm.path("credentials/pin").display()),
        format!("write {}", home.state_file(OTHER).display()),
        format!("write {}", home.state_file(CHAIN).display()),
        // The configuration of the module itself is read, and not written.
        format!("write {}", hsm.path("hsm.conf").display()),
        format!("tcp {}", elsewhere.local_addr().unwrap()),
        format!("tcp {}", node.socket()),
        format!("udp {}", datagrams.local_addr().unwrap()),
        format!("unix {}", service.display()),
        format!("unix {}", control.display()),
    ];
    let allowed = [
        "read /etc/passwd".to_owned(),
        format!("read {}", hsm.path("hsm.conf").display()),
        format!("write {}", hsm.path("faults/faults.targets").display()),
    ];
    let targets: Vec<_> = forbidden.iter().chain(&allowed).map(String::as_str).chain(["environment"]).collect();
    fs::write(hsm.path("faults/faults.targets"), targets.join("\n")).unwrap();
    let faults = hsm.faults();
    // Once it is up: by then the control socket is there too.
    faults.plan(&["sign pass", "sign spy"]);
    let mut signer = home.start();
    signer.wait_for_log("device up");
    let mut session = node.accept().unwrap();
    wait_until("the control socket", || control.exists());
    session.ask_vote(CHAIN, prevote(1, 0, Some(7))).unwrap().unwrap();
    let log = faults.log();
    let end = |target: &str| {
        let prefix = format!("spied {target}: ");
        log.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{target} in {log:#?}"))
    };
    for target in &forbidden {
        assert!(
            ["Permission denied", "Operation not permitted"].iter().any(|why| end(target).starts_with(why)),
            "{log:#?}"
        );
    }
    for target in &allowed {
        assert_eq!(end(target), "done", "{log:#?}");
    }
    // No more than what its profile and its section name.
    let mut variables: Vec<_> = log.iter().filter_map(|line| line.strip_prefix("variable ")).collect();
    variables.sort_unstable();
    assert_eq!(variables, ["HIGHWATER_FAULTY_PLAN", "HIGHWATER_FAULTY_TARGET", "SOFTHSM2_CONF"]);
}

#[test]
fn a_module_that_reaches_too_little_is_told_of_with_the_way_to_mend_it() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token("validator", 0);
    let builtin = Path::new(env!("CARGO_MANIFEST_DIR")).join("hsm-profiles/softhsm2.toml");
    let profile = hsm.path("own.toml");
    let text = fs::read_to_string(builtin).unwrap();
    let text: String =
        text.lines().filter(|line| !line.starts_with("settings")).map(|line| format!("{line}\n")).collect();
    fs::write(&profile, text).unwrap();
    let provider = hsm.provider_with_file(hsm.module(), "validator", &[(CHAIN, "consensus", &key)]);
    let provider = provider.replace("\"softhsm2\"", &format!("{profile:?}"));
    let node = MockNode::tcp().unwrap();
    let start = |files: &str| {
        let provider = provider.replace("keys = ", &format!("files = [{files}]\nkeys = "));
        let home = Home::new().chain_with_key(CHAIN, "", &provider).node(&node.address(), CHAIN, "");
        let home = hsm.equip(home).init();
        let signer = home.start();
        (home, signer)
    };
    let (_home, mut signer) = start("\"/nowhere/at/all\"");
    signer.wait_for_log("/nowhere/at/all (named by `files`): No such file");
    signer.wait_for_log("add files =");
    signer.wait_for_log("no network");
    drop(signer);
    let (home, mut signer) = start(&format!("{:?}", hsm.path("tokens")));
    signer.wait_for_log("device up");
    drop((home, signer));

    // What is the signer's own is not to be named.
    let home = Home::new().chain_with_key(CHAIN, "", &provider).node(&node.address(), CHAIN, "").init();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let named = format!("files = [{:?}]\nkeys = ", home.path(""));
    fs::write(home.path("tmkms.toml"), config.replace("keys = ", &named)).unwrap();
    let output = home.command(&["start"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("`files` in [[providers.pkcs11]] names") && said.contains("would give the module access"),
        "{said}"
    );
}

#[test]
fn a_pin_from_the_environment_is_nowhere_once_the_spawner_has_it() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token("validator", 0);
    let source = format!("{{ env = {VARIABLE:?} }}");
    let provider = hsm.provider(hsm.module(), "validator", &source, &[(CHAIN, "consensus", &key)]);
    let node = MockNode::tcp().unwrap();
    let home = Home::new();
    let seen = home.path("seen-by-hook");
    let script = format!("env > {}; echo '{{\\\"latest_block_height\\\": \\\"1\\\"}}'", seen.display());
    let hook = format!("state_hook = {{ cmd = [\"sh\", \"-c\", \"{script}\"] }}");
    let home = home.chain_with_key(CHAIN, &hook, &provider);
    let home = home.node(&node.address(), CHAIN, "").node("tcp://localhost:1", CHAIN, "");
    let home = hsm.equip(home).env(VARIABLE, PIN).init();
    let mut signer = home.start();
    signer.wait_for_log("device up");
    signer.wait_for_log("localhost");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("SOFTHSM2_CONF") && !seen.contains(VARIABLE), "{seen}");
    let mut processes = vec![signer.id()];
    let mut next = 0;
    while let Some(process) = processes.get(next) {
        processes.extend(Descendant::children_of(*process).iter().map(|child| child.id));
        next += 1;
    }
    assert!(processes.len() >= 4, "signer, spawner, child, name: {processes:?}");
    for process in processes {
        // A process that cannot be debugged shows this to root alone.
        let Ok(environment) = fs::read(format!("/proc/{process}/environ")) else { continue };
        assert!(!String::from_utf8_lossy(&environment).contains(PIN), "{process}");
    }
}

#[test]
fn a_pin_from_an_open_file_is_open_nowhere_but_where_it_is_read() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token("validator", 0);
    let file = hsm.pin_file("pin", PIN);
    let provider = hsm.provider(hsm.module(), "validator", "{ fd = 3 }", &[(CHAIN, "consensus", &key)]);
    let node = MockNode::tcp().unwrap();
    let home = Home::new().chain_with_key(CHAIN, "", &provider);
    let home = home.node(&node.address(), CHAIN, "").node("tcp://localhost:1", CHAIN, "");
    let home = hsm.equip(home).env("PIN_FILE", &file).init();
    let mut signer = home.start_in_shell("exec 3<\"$PIN_FILE\"");
    signer.wait_for_log("device up");
    signer.wait_for_log("localhost");
    let mut processes: Vec<u32> = Descendant::children_of(signer.id()).iter().map(|child| child.id).collect();
    let mut next = 0;
    while let Some(process) = processes.get(next) {
        processes.extend(Descendant::children_of(*process).iter().map(|child| child.id));
        next += 1;
    }
    assert!(processes.len() >= 3, "spawner, child, name: {processes:?}");
    for process in processes {
        // A process that cannot be debugged shows this to root alone.
        let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else { continue };
        let targets: Vec<_> =
            open.map(|descriptor| fs::read_link(descriptor.unwrap().path()).unwrap_or_default()).collect();
        let command = fs::read(format!("/proc/{process}/cmdline")).unwrap();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert_eq!(targets.contains(&file), command.contains("hsm-spawner"), "{command}: {targets:?}");
    }
}

#[test]
fn what_a_hook_leaves_behind_holds_no_thread_of_the_signer() {
    let node = MockNode::tcp().unwrap();
    // It keeps the pipe of its answer open, so whoever reads until the end of that waits for it.
    let hook = r#"state_hook = { cmd = ["sh", "-c", "sleep 30 & exit 0"], timeout_secs = 1, fail_closed = false }"#;
    let home = Home::new().chain(CHAIN, hook).node(&node.address(), CHAIN, "").init();
    let mut signer = home.start();
    signer.wait_for_log("going on without the state hook");
    assert_alive(&mut node.accept().unwrap(), &home.public_key(CHAIN), CHAIN, 1);
    let threads = fs::read_dir(format!("/proc/{}/task", signer.id())).unwrap();
    let names = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).unwrap());
    let unnamed = names.filter(|name| name.trim() == "highwater").count();
    assert_eq!(unnamed, 1, "the main thread alone was there before the sandbox");
}

const NAME: &str = "validator.highwater.example";

/// A home whose signer has an `/etc` of its own, with that name server. `None`, said loudly, where none can be had.
fn with_own_etc(node: &MockNode, server: Ipv4Addr) -> Option<(Home, String)> {
    let allowed = Command::new("unshare").args(["-rm", "true"]).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI skips nothing");
        crate::support::skip::skip("this user cannot have mounts of its own");
        return None;
    }
    let address = format!("tcp://{NAME}:{}", node.socket().port());
    let home = Home::new().chain(CHAIN, "").node(&address, CHAIN, "").init();
    append(&home, "[highwater]\nrequire_sandbox = true");
    let etc = home.path("etc");
    fs::create_dir(&etc).unwrap();
    for file in ["passwd", "group", "ld.so.cache", "machine-id"] {
        // What this machine lacks, the signer does without.
        let _ = fs::copy(Path::new("/etc").join(file), etc.join(file));
    }
    fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    fs::write(etc.join("hosts"), "").unwrap();
    fs::write(etc.join("resolv.conf"), format!("nameserver {server}\noptions timeout:1 attempts:1\n")).unwrap();
    let mount = format!("mount --bind {} /etc", etc.display());
    let script = format!(r#"[ "$INSIDE" ] || INSIDE=1 exec unshare -rm sh -c '{mount} && exec "$0" "$@"' "$0" "$@""#);
    Some((home, script))
}

/// A name server's answer: this address to a question for one, nothing to any other.
fn answer(question: &[u8], address: Ipv4Addr) -> Vec<u8> {
    const HEADER_BYTES: usize = 12;
    // One label after the other, each behind its length, then type and class.
    let mut end = HEADER_BYTES;
    while question[end] != 0 {
        end += 1 + usize::from(question[end]);
    }
    end += 5;
    let asks_for_ipv4 = question[end - 4..end] == [0, 1, 0, 1];
    let mut text = question[..2].to_vec();
    text.extend([0x81, 0x80, 0, 1, 0, u8::from(asks_for_ipv4), 0, 0, 0, 0]);
    text.extend(&question[HEADER_BYTES..end]);
    if asks_for_ipv4 {
        text.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        text.extend(address.octets());
    }
    text
}

/// A loopback address that no other test has.
fn own_loopback(number: u8) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, number, high, low)
}

#[test]
fn names_are_looked_up_over_tcp_and_a_file_that_is_replaced_is_read_again() {
    let server = own_loopback(53);
    let Ok(listener) = TcpListener::bind((server, 53)) else {
        crate::support::skip::skip("this user cannot listen on port 53");
        return;
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || -> std::io::Result<()> {
                let mut stream = stream?;
                loop {
                    let mut length = [0; 2];
                    stream.read_exact(&mut length)?;
                    let mut question = vec![0; u16::from_be_bytes(length).into()];
                    stream.read_exact(&mut question)?;
                    let text = answer(&question, Ipv4Addr::LOCALHOST);
                    stream.write_all(&[&u16::try_from(text.len()).unwrap().to_be_bytes()[..], &text].concat())?;
                }
            });
        }
    });
    let node = MockNode::tcp().unwrap();
    let moved = MockNode::tcp_at(SocketAddr::from(([127, 0, 0, 2], node.socket().port()))).unwrap();
    let Some((home, script)) = with_own_etc(&node, server) else { return };
    let signer = home.start_in_shell(&script);
    let key = home.public_key(CHAIN);
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &key, CHAIN, 1);
    assert!(!signer.log().contains("looked up over UDP"), "{}", signer.log());

    // As an editor does it: under the name there is another file now.
    fs::write(home.path("etc/new"), format!("127.0.0.2 {NAME}\n")).unwrap();
    fs::rename(home.path("etc/new"), home.path("etc/hosts")).unwrap();
    session.close();
    assert_alive(&mut moved.accept().unwrap(), &key, CHAIN, 2);
}

#[test]
fn a_name_server_without_tcp_is_asked_over_udp_and_that_is_told() {
    let server = own_loopback(54);
    let Ok(socket) = UdpSocket::bind((server, 53)) else {
        crate::support::skip::skip("this user cannot listen on port 53");
        return;
    };
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(&answer(&question[..length], Ipv4Addr::LOCALHOST), from);
        }
    });
    let node = MockNode::tcp().unwrap();
    let Some((home, script)) = with_own_etc(&node, server) else { return };
    let mut signer = home.start_in_shell(&script);
    assert_alive(&mut node.accept().unwrap(), &home.public_key(CHAIN), CHAIN, 1);
    signer.wait_for_log("looked up over UDP");
}
