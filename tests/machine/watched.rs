//! What a running signer shows: `status`, the metrics endpoint and `check`, on two chains of which one has lost its
//! device.

use crate::support::{
    assert_vote_signed,
    mock_node::{MockNode, Session, precommit, prevote},
    signer::{Home, Signer, seed},
    yubihsm as device,
};
use highwater::config::home;
use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const HEALTHY: &str = "healthy-1";
const ILL: &str = "ill-1";
const PATIENCE: Duration = Duration::from_secs(20);

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The status line and the body of what the endpoint answers.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The value of the series that begins like this.
fn metric(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

fn run(home: &Home, words: &[&str]) -> (Output, String) {
    let output = home.command(words).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

fn sign(session: &mut Session, home: &Home, chain: &str, height: i64) {
    let vote = session.ask_vote(chain, precommit(height, 0, Some(7))).unwrap().unwrap();
    assert_vote_signed(&home.public_key(chain), chain, &vote);
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} never came");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signer_with_one_healthy_chain_and_one_without_its_device_tells_the_truth_about_both() {
    let Some(mut device) = device::start(&seed(1), &[]) else { return };
    let metrics = free_port();
    let home = Home::new().chain(HEALTHY, "").chain_with_key(ILL, "", &device.provider(ILL));
    let nodes = ["a.sock", "b.sock"].map(|name| MockNode::unix(&home.path(name)).unwrap());
    let home = home.node(&nodes[0].address(), HEALTHY, "").node(&nodes[1].address(), ILL, "").init();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    fs::write(home.path("tmkms.toml"), format!("{config}[highwater.metrics]\nladdr = \"{metrics}\"\n")).unwrap();
    let signer = home.start();
    let mut sessions = nodes.each_ref().map(|node| node.accept().unwrap());
    for height in 1..=3 {
        sign(&mut sessions[0], &home, HEALTHY, height);
        sign(&mut sessions[1], &home, ILL, height);
    }

    // All is well.
    let (output, text) = run(&home, &["status"]);
    assert!(output.status.success() && text.contains("every chain signs"), "{text}");
    assert!(text.contains(&format!("{ILL}  signs, watermark 3/0/precommit, last signed")), "{text}");
    let (line, body) = get(metrics, "/readyz");
    assert_eq!((line.as_str(), body.as_str()), ("HTTP/1.1 200 OK", "ready\n"));
    let (_, text) = get(metrics, "/metrics");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let node = format!("chain=\"{HEALTHY}\",node=\"{}\"", nodes[0].address());
    for (series, value) in [
        ("highwater_ready".to_owned(), 1.0),
        (format!("highwater_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
        (format!("highwater_requests_total{{{node},type=\"precommit\",result=\"signed\"}}"), 3.0),
        (format!("highwater_requests_total{{{node},type=\"prevote\",result=\"refused\"}}"), 0.0),
        (format!("highwater_refusals_total{{{node},reason=\"block-against-block\"}}"), 0.0),
        (format!("highwater_last_signed_height{{chain=\"{ILL}\"}}"), 3.0),
        (format!("highwater_node_link_up{{{node}}}"), 1.0),
        (format!("highwater_node_connects_total{{{node}}}"), 1.0),
        (format!("highwater_request_duration_seconds_count{{{node}}}"), 3.0),
        (format!("highwater_flush_duration_seconds_bucket{{le=\"+Inf\",chain=\"{ILL}\"}}"), 3.0),
    ] {
        assert_eq!(metric(&text, &series).to_bits(), f64::to_bits(value), "{series}");
    }

    // One is refused, and one loses its device.
    let refusal = sessions[0].ask_vote(HEALTHY, precommit(3, 0, Some(8))).unwrap().unwrap_err();
    assert_eq!(refusal.code, 100);
    device.kill();
    sessions[1].ask_vote(ILL, prevote(9, 0, Some(7))).unwrap().unwrap_err();
    wait_until("the alarm", || get(metrics, "/readyz").0.contains("503"));
    let (_, body) = get(metrics, "/readyz");
    assert_eq!(body, "not ready\n", "what is missing has paths and addresses, and this is a stranger");
    assert_eq!(get(metrics, "/livez").0, "HTTP/1.1 200 OK");
    let (_, text) = get(metrics, "/metrics");
    for (series, value) in [
        ("highwater_ready".to_owned(), 0.0),
        (format!("highwater_chain_ready{{chain=\"{HEALTHY}\"}}"), 1.0),
        (format!("highwater_chain_ready{{chain=\"{ILL}\"}}"), 0.0),
        (format!("highwater_refusals_total{{{node},reason=\"block-against-block\"}}"), 1.0),
    ] {
        assert_eq!(metric(&text, &series).to_bits(), f64::to_bits(value), "{series}");
    }
    let up = text.lines().find(|line| line.starts_with("highwater_device_up{")).unwrap();
    assert!(up.ends_with(" 0"), "{up}");

    let (output, text) = run(&home, &["status"]);
    assert_eq!(output.status.code(), Some(1));
    for words in [
        "not every chain signs",
        &format!("{HEALTHY}  signs, watermark 3/0/precommit"),
        "3 signed, 0 repeated, 1 refused, 0 failed",
        "another block was signed there",
        &format!("{ILL}  does not sign"),
        "cannot reach its connector",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let (_, text) = run(&home, &["status", "--json"]);
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status["ready"].as_bool(), status["pid"].as_u64()), (Some(false), Some(signer.id().into())));

    let (output, text) = run(&home, &["check"]);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&format!("ok    chain {HEALTHY}: signs")), "{text}");
    assert!(text.contains(&format!("fail  chain {ILL}: YubiHSM at")), "{text}");

    // The healthy chain went on all the time.
    sign(&mut sessions[0], &home, HEALTHY, 10);
}

/// One chain with two nodes, of which nobody is there yet.
fn small() -> (Home, MockNode) {
    let home = Home::new().chain(HEALTHY, "");
    let node = MockNode::unix(&home.path("a.sock")).unwrap();
    let home = home.node(&node.address(), HEALTHY, "").node("tcp://127.0.0.1:1", HEALTHY, "").init();
    (home, node)
}

fn wait_for_status(home: &Home, what: &str, words: &str) -> String {
    let mut text = String::new();
    wait_until(what, || {
        text = run(home, &["status"]).1;
        text.contains(words)
    });
    text
}

#[test]
fn status_says_which_node_is_not_connected_and_why() {
    let (home, node) = small();
    let _signer = home.start();
    let _session = node.accept().unwrap();
    let text = wait_for_status(&home, "the refused connection", "tcp://127.0.0.1:1  down since");
    assert!(text.contains("refused") && text.contains("every chain signs"), "one link is enough: {text}");
}

#[test]
fn the_control_socket_is_private_goes_with_the_signer_and_a_stale_one_is_replaced() {
    let (home, node) = small();
    let socket = control_socket(&home);
    let (output, text) = run(&home, &["status"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(text.contains("no signer with the configuration") && text.contains(socket.to_str().unwrap()), "{text}");

    let mut signer = home.start();
    let _session = node.accept().unwrap();
    wait_for_status(&home, "an answer", "highwater");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    signer.sigkill();
    assert!(socket.exists(), "a kill leaves it there");
    let mut signer = home.start();
    let _session = node.accept().unwrap();
    wait_for_status(&home, "an answer", "highwater");
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));
    assert!(!socket.exists());

    // Nothing but a socket is replaced.
    fs::write(&socket, "not ours").unwrap();
    let mut signer = home.start();
    signer.wait_for_log("`highwater status` will not work");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "not ours");
}

/// The control socket of a home's signer, without systemd.
fn control_socket(home: &Home) -> PathBuf {
    home::control_socket(None, &home.path("tmkms.toml"))
}

#[test]
fn two_configurations_in_one_directory_have_a_signer_and_a_socket_each() {
    let home = Home::new().chain(HEALTHY, "").chain(ILL, "");
    let nodes = ["a.sock", "b.sock"].map(|name| MockNode::unix(&home.path(name)).unwrap());
    let home = home.node(&nodes[0].address(), HEALTHY, "").node(&nodes[1].address(), ILL, "").init();
    // The second configuration serves the other chain alone.
    let both = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let without = |address: &str, chain: &str| {
        let node = format!("[[validator]]\naddr = \"{address}\"\nchain_id = \"{chain}\"\n");
        assert!(both.contains(&node), "{both}");
        both.replace(&node, "")
    };
    fs::write(home.path("tmkms.toml"), without(&nodes[1].address(), ILL)).unwrap();
    fs::write(home.path("other.toml"), without(&nodes[0].address(), HEALTHY)).unwrap();
    let with_other = |words: &[&str]| {
        let mut command = Command::new(crate::support::binary::highwater());
        command.args(words).arg("-c").arg(home.path("other.toml"));
        command
    };
    let first = home.start();
    let _session = nodes[0].accept().unwrap();
    wait_for_status(&home, "an answer", HEALTHY);
    // Whoever asks for a signer that does not run is not shown another one.
    let output = with_other(&["status"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{text}");
    let hint = format!("a signer with another configuration may listen at {}", control_socket(&home).display());
    assert!(text.contains(&hint), "{text}");

    let mut second = with_other(&["start"]).stderr(Stdio::null()).spawn().unwrap();
    let _other_session = nodes[1].accept().unwrap();
    const ASK: [&str; 2] = ["status", "--json"];
    let pid = |mut command: Command| {
        let status: Option<Value> = serde_json::from_slice(&command.output().unwrap().stdout).ok();
        status.and_then(|status| status["pid"].as_u64())
    };
    wait_until("its answer", || pid(with_other(&ASK)) == Some(second.id().into()));
    assert_eq!(pid(home.command(&ASK)), Some(first.id().into()), "the first still answers for itself");
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(pid(with_other(&ASK)), None);
}

#[test]
fn idle_connections_to_the_metrics_port_do_not_keep_the_operator_out() {
    let metrics = free_port();
    let (home, node) = small();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    fs::write(home.path("tmkms.toml"), format!("{config}[highwater.metrics]\nladdr = \"{metrics}\"\n")).unwrap();
    let _signer = home.start();
    let _session = node.accept().unwrap();
    wait_for_status(&home, "an answer", "highwater");
    let _idle: Vec<_> = (0..32).map(|_| TcpStream::connect(metrics).unwrap()).collect();
    // Now the port is full: one that comes later is turned away.
    wait_until("a full port", || {
        let mut stream = TcpStream::connect(metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n");
        asked.is_err() || !matches!(stream.read(&mut [0]), Ok(1))
    });
    let (_, text) = run(&home, &["status"]);
    assert!(text.contains(HEALTHY), "{text}");
}

#[test]
fn systemd_says_where_the_control_socket_is() {
    let (home, node) = small();
    let runtime = home.path("run");
    fs::create_dir(&runtime).unwrap();
    let home = home.env("RUNTIME_DIRECTORY", &runtime);
    let _signer = home.start();
    let _session = node.accept().unwrap();
    wait_for_status(&home, "an answer", "highwater");
    let socket = control_socket(&home);
    assert!(runtime.join(socket.file_name().unwrap()).exists() && !socket.exists());
}

#[test]
fn the_watch_draws_again_until_it_is_interrupted() {
    let (home, node) = small();
    let _signer = home.start();
    let mut session = node.accept().unwrap();
    wait_for_status(&home, "an answer", "highwater");
    let mut watch = home.command(&["status", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    sign(&mut session, &home, HEALTHY, 1);
    thread::sleep(Duration::from_millis(2500));
    watch.kill().unwrap();
    let output = watch.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.matches("\x1b[H\x1b[2J").count() >= 2 && text.contains("watermark 1/0/precommit"), "{text}");
}

#[test]
fn nothing_that_comes_in_over_http_holds_up_a_signature() {
    let metrics = free_port();
    let (home, node) = small();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    fs::write(home.path("tmkms.toml"), format!("{config}[highwater.metrics]\nladdr = \"{metrics}\"\n")).unwrap();
    let mut signer: Signer = home.start();
    let mut session = node.accept().unwrap();
    wait_for_status(&home, "an answer", "highwater");
    // Many that say nothing, one that says too much, and garbage.
    let idle: Vec<_> = (0..64).map(|_| TcpStream::connect(metrics).unwrap()).collect();
    let mut garbage = UnixStream::connect(control_socket(&home)).unwrap();
    let _ = garbage.write_all(&[0xff; 100_000]);
    for height in 1..=20 {
        sign(&mut session, &home, HEALTHY, height);
    }
    drop(idle);
    wait_until("an answer after the crowd", || {
        let mut stream = TcpStream::connect(metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n");
        let mut answer = String::new();
        asked.is_ok() && stream.read_to_string(&mut answer).is_ok() && answer.contains("alive")
    });
    for (request, status) in [("/status", "404"), ("/", "404"), ("/metrics/", "404")] {
        assert!(get(metrics, request).0.contains(status), "{request}: the network sees numbers only");
    }
    signer.assert_running();
}

#[test]
fn an_address_that_is_taken_costs_the_metrics_and_no_signature() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (home, node) = small();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    fs::write(home.path("tmkms.toml"), format!("{config}[highwater.metrics]\nladdr = \"{address}\"\n")).unwrap();
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    sign(&mut session, &home, HEALTHY, 1);
    let words = format!("there are no metrics until a restart: cannot listen on {address}, the `laddr`");
    signer.wait_for_log(&words);
    let (output, text) = run(&home, &["status"]);
    assert!(output.status.success() && text.contains(&words), "{text}");
}

#[test]
fn the_lock_comes_before_the_metrics() {
    let (home, node) = small();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let address = free_port();
    fs::write(home.path("tmkms.toml"), format!("{config}[highwater.metrics]\nladdr = \"{address}\"\n")).unwrap();
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    sign(&mut session, &home, HEALTHY, 1);
    let (output, text) = run(&home, &["start"]);
    assert_eq!(output.status.code(), Some(75), "{text}");
    assert!(text.contains("is in use by another process") && !text.contains("metrics"), "{text}");
    sign(&mut session, &home, HEALTHY, 2);
    assert!(get(address, "/livez").0.contains("200"));
    signer.assert_running();
}

/// The text of `status` and its exit code, and the same of `check`, once both say so.
fn wait_for_both(home: &Home, status: (i32, &str), check: (i32, &str)) {
    for (command, (code, words)) in [("status", status), ("check", check)] {
        let (mut output, mut text) = run(home, &[command]);
        let deadline = Instant::now() + PATIENCE;
        while !(text.contains(words) && output.status.code() == Some(code)) {
            assert!(
                Instant::now() < deadline,
                "{command} ends with {:?} and not {code}, or lacks {words}:\n{text}",
                output.status.code()
            );
            thread::sleep(Duration::from_millis(100));
            (output, text) = run(home, &[command]);
        }
    }
}

#[test]
fn a_chain_whose_only_node_is_refused_is_refusing_and_says_what_was_asked_for() {
    let home = Home::new().chain(HEALTHY, "");
    let node = MockNode::unix(&home.path("a.sock")).unwrap();
    let home = home.node(&node.address(), HEALTHY, "").init();
    let _signer = home.start();
    let mut session = node.accept().unwrap();
    session.ask_pub_key("another-9").unwrap().unwrap_err();
    let refusing = format!("this connection serves chain {HEALTHY} only, and the node asks for chain another-9");
    wait_for_both(&home, (1, &refusing), (2, &refusing));
    assert!(run(&home, &["status"]).1.contains("not every chain signs"));

    // One signature, and it signs.
    sign(&mut session, &home, HEALTHY, 1_000_000);
    let (output, text) = run(&home, &["status"]);
    assert!(output.status.success() && text.contains("every chain signs"), "{text}");

    // The usual refusal of a second node changes nothing; nothing but refusals does.
    session.ask_vote(HEALTHY, precommit(44, 0, Some(7))).unwrap().unwrap_err();
    assert!(run(&home, &["status"]).0.status.success());
    for _ in 0..12 {
        thread::sleep(Duration::from_secs(1));
        session.ping().unwrap();
    }
    session.ask_vote(HEALTHY, precommit(45, 0, Some(7))).unwrap().unwrap_err();
    let ahead = "height regression refused: asked for 45/0/precommit, the watermark is at 1000000/0/precommit";
    wait_for_both(&home, (1, ahead), (2, ahead));
    let (_, json) = run(&home, &["status", "--json"]);
    let status: Value = serde_json::from_str(&json).unwrap();
    let chain = &status["chains"][0];
    assert!(status["ready"] == false && chain["missing"].as_array().unwrap().is_empty(), "{json}");
    assert!(chain["refusing"].as_str().unwrap().contains("node unix://"), "{json}");
    assert!(chain["quiet_since"].as_u64().is_some(), "{json}");
}

#[test]
fn a_node_that_is_down_says_since_when_and_not_just_now() {
    let (home, _node) = small();
    let _signer = home.start();
    let since = |text: &str| -> Option<u64> {
        let status: Value = serde_json::from_str(text).ok()?;
        status["chains"][0]["nodes"][1]["down_since"].as_u64()
    };
    let mut first = None;
    wait_until("the refused connection", || {
        first = since(&run(&home, &["status", "--json"]).1);
        first.is_some()
    });
    thread::sleep(Duration::from_secs(3));
    assert_eq!(since(&run(&home, &["status", "--json"]).1), first, "many attempts later");
    let (_, text) = run(&home, &["status"]);
    assert!(text.contains("tcp://127.0.0.1:1  down since 20") && !text.contains("just now"), "{text}");
}

#[test]
fn after_a_hangup_the_audit_file_is_the_one_that_its_path_names() {
    let home = Home::new().chain(HEALTHY, "");
    let node = MockNode::unix(&home.path("a.sock")).unwrap();
    let home = home.node(&node.address(), HEALTHY, "").init();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let (file, old) = (home.path("audit.jsonl"), home.path("audit.jsonl.1"));
    fs::write(home.path("tmkms.toml"), format!("{config}[highwater.audit]\nfile = {file:?}\n")).unwrap();
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    sign(&mut session, &home, HEALTHY, 1);
    let lines = |path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    wait_until("the first line", || lines(&file) == 1);
    fs::rename(&file, &old).unwrap();
    let hangup = Command::new("kill").args(["-HUP", &signer.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    signer.wait_for_log("reopening the audit file");
    sign(&mut session, &home, HEALTHY, 2);
    let second = || fs::read_to_string(&file).is_ok_and(|text| text.contains("\"height\":2"));
    wait_until("the second signature in the new file", second);
    assert!(
        fs::read_to_string(&file).unwrap().contains("\"result\":\"carried\""),
        "what was signed before stays known"
    );
    assert_eq!(lines(&old), 1);
    signer.assert_running();
}

#[test]
fn every_decision_is_recorded_and_a_gap_is_told_at_the_next_start() {
    let home = Home::new().chain(HEALTHY, "");
    let node = MockNode::unix(&home.path("a.sock")).unwrap();
    let home = home.node(&node.address(), HEALTHY, "").init();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let file = home.path("audit.jsonl");
    fs::write(home.path("tmkms.toml"), format!("{config}[highwater.audit]\nfile = {file:?}\n")).unwrap();
    let mut signer = home.start();
    let mut session = node.accept().unwrap();
    session.ping().unwrap();
    sign(&mut session, &home, HEALTHY, 1);
    sign(&mut session, &home, HEALTHY, 1);
    session.ask_vote(HEALTHY, precommit(1, 0, Some(8))).unwrap().unwrap_err();
    sign(&mut session, &home, HEALTHY, 2);
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));
    assert!(!signer.log().contains("the audit file"), "an empty file has no gap");
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let shown: Vec<_> = lines().iter().map(|line| (line["result"].clone(), line["sequence"].as_u64())).collect();
    let first = shown[0].1.unwrap();
    let expected = [("signed", Some(first)), ("repeated", Some(first)), ("refused", None), ("signed", Some(first + 1))];
    assert_eq!(shown, expected.map(|(result, sequence)| (Value::from(result), sequence)));
    let keys: Vec<_> = lines().iter().map(|line| line["key"].as_str().map(str::len)).collect();
    let whole = Some("ed25519:".len() + 64);
    assert_eq!(keys, [whole, whole, None, whole], "what was signed names its key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // Without a gap nothing is said. With the last line gone, it is.
    let mut signer = home.start();
    drop(node.accept().unwrap());
    signer.sigterm();
    assert_eq!(signer.exit_code(), Some(0));
    assert!(!signer.log().contains("the audit file"), "{}", signer.log());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.lines().take(3).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let mut signer = home.start();
    signer.wait_for_log(&format!("ends at sequence {first}, the watermark is at {}", first + 1));
}

#[test]
fn check_warns_of_a_state_on_tmpfs_and_tells_how_long_a_flush_takes() {
    let (home, _node) = small();
    let (_, text) = run(&home, &["check", "--json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert!(answer["disks"][0]["flush_p50_us"].as_u64().is_some_and(|us| us > 0), "{text}");
    let (output, text) = run(&home, &["check", "--before-start", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["disks"].as_array().map(Vec::len), Some(0), "it measures nothing");

    let Ok(memory) = tempfile::Builder::new().prefix("highwater-").tempdir_in("/dev/shm") else {
        crate::support::skip::skip("this machine has no /dev/shm");
        return;
    };
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let there = memory.path().join("state");
    let moved = config.replace(home.tmkms_file(HEALTHY).to_str().unwrap(), there.to_str().unwrap());
    fs::write(home.path("tmkms.toml"), moved).unwrap();
    assert!(home.command(&["state", "init", "--never-signed"]).output().unwrap().status.success());
    for (words, exit) in [(&["check"][..], 1), (&["check", "--before-start"], 0)] {
        let (output, text) = run(&home, words);
        assert_eq!(output.status.code(), Some(exit), "{text}");
        assert!(text.contains("is on tmpfs: the state is lost at the next boot: move `state_file`"), "{text}");
    }
}

/// `status` alone answers the most frequent questions of tmkms operators.
#[test]
fn status_answers_why_a_node_gets_no_signature() {
    let home = Home::new().chain(HEALTHY, "");
    let node = MockNode::unix(&home.path("a.sock")).unwrap();
    let stranger = MockNode::tcp().unwrap();
    let wrong = stranger.pinned_address();
    let id = &stranger.peer_id();
    let other: String = id.chars().rev().collect();
    let wrong = wrong.replace(id, &other);
    assert_ne!(wrong, stranger.pinned_address());
    let home = home.node(&node.address(), HEALTHY, "").node(&wrong, HEALTHY, "").init();
    let _signer = home.start();
    let mut session = node.accept().unwrap();
    sign(&mut session, &home, HEALTHY, 9);
    session.ask_vote(HEALTHY, precommit(8, 0, Some(7))).unwrap().unwrap_err();
    session.ask_vote("another-chain", precommit(10, 0, Some(7))).unwrap().unwrap_err();
    // The handshake shows who it is.
    let _ = stranger.accept();
    let text = wait_for_status(&home, "the wrong peer", &other);
    for words in [
        "height regression refused: asked for 8/0/precommit, the watermark is at 9/0/precommit",
        &format!("this connection serves chain {HEALTHY} only"),
        &format!("the node has peer id {id}, but the configuration pins {other}"),
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}
