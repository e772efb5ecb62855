//! A key in a YubiHSM 2, simulated by the `yubihsm` crate's mock in a process of its own, behind real HTTP: what a node
//! sees of every fault, and for how long.

use crate::support::{
    assert_extension_signed, assert_proposal_signed, assert_vote_signed, binary,
    mock_node::{MockNode, Session, precommit, prevote, proposal},
    network::{app, lab, node, signer},
    signer::{Home, Signer, seed},
    skip::skip,
    yubihsm::{self as device, Device, say},
};
use highwater_core::{
    consensus::{KeyType, PublicKey},
    privval::message::{RemoteSignerError, Vote},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};
use subtle_encoding::hex;

const CHAIN: &str = "test-chain";
const OTHER_CHAIN: &str = "other-chain";
/// `ErrorCode::KeyUnavailable`
const KEY_UNAVAILABLE: i32 = 104;
/// The longest wait of any caller, whatever the device does. A node waits 5 s.
const LONGEST_WAIT: Duration = Duration::from_millis(1500);
/// Within this a lost session is replaced.
const HEALED_WITHIN: Duration = Duration::from_secs(1);
/// After this the back-off of a device that was down has come to an end: at most 5 s, and the probe.
const PROBED_WITHIN: Duration = Duration::from_secs(8);
/// A device has 16 sessions, and one that nobody uses lives for 30 s: what the signer opens in that time at most.
const SESSIONS_SHARE: u64 = 8;
/// Between two votes of a node.
const PAUSE: Duration = Duration::from_millis(5);
/// YubiHSM 2: the longest message it signs with Ed25519.
const MESSAGE_MAX_BYTES: usize = 2019;

/// A running signer, and a node that asks it for votes of one chain.
struct Scene {
    session: Session,
    key: PublicKey,
    chain: &'static str,
    height: i64,
    signer: Signer,
    home: Home,
}

/// A node's observations over some time.
struct Seen {
    signed: usize,
    refused: Vec<RemoteSignerError>,
    longest: Duration,
    /// When the last refusal came, from the start of the while.
    healed: Duration,
}

impl Scene {
    /// One chain whose key is on these devices, in their order.
    fn on(devices: &[&Device]) -> Self {
        Self::after(devices, || ())
    }

    /// The same; `change` comes between the making of the state file, for which a device tells its key, and the start.
    fn after(devices: &[&Device], change: impl FnOnce()) -> Self {
        Self::with(&devices.iter().map(|device| device.provider(CHAIN)).collect::<String>(), change)
    }

    /// One chain whose key is where the providers say.
    fn with(providers: &str, change: impl FnOnce()) -> Self {
        let home = Home::new().chain_with_key(CHAIN, "", providers);
        let node = MockNode::unix(&home.path("node.sock")).unwrap();
        let home = home.node(&node.address(), CHAIN, "").init();
        change();
        Self::start(home, &node, CHAIN)
    }

    fn start(home: Home, node: &MockNode, chain: &'static str) -> Self {
        let signer = home.start();
        let session = node.accept().unwrap();
        Self { session, key: home.public_key(chain), chain, height: 0, signer, home }
    }

    /// Asks for the next vote: what came, and after how long.
    fn ask(&mut self) -> (Result<Vote, RemoteSignerError>, Duration) {
        self.height += 1;
        let start = Instant::now();
        let answer = self.session.ask_vote(self.chain, prevote(self.height, 0, Some(7))).unwrap();
        let wait = start.elapsed();
        match &answer {
            Ok(vote) => assert_vote_signed(&self.key, self.chain, vote),
            Err(refusal) => assert_eq!(refusal.code, KEY_UNAVAILABLE, "{refusal:?}"),
        }
        (answer, wait)
    }

    /// Asks for one vote after the other as long as this takes.
    fn watch(&mut self, time: Duration) -> Seen {
        let start = Instant::now();
        self.watch_until(|_| start.elapsed() >= time)
    }

    /// Asks for one vote after the other until all is well: 20 signed in a row.
    fn watch_until_well(&mut self) -> Seen {
        let deadline = Instant::now() + PROBED_WITHIN;
        let mut in_a_row = 0;
        self.watch_until(|signed| {
            assert!(Instant::now() < deadline, "it does not sign within {PROBED_WITHIN:?}");
            in_a_row = if signed { in_a_row + 1 } else { 0 };
            in_a_row == 20
        })
    }

    fn watch_until(&mut self, mut done: impl FnMut(bool) -> bool) -> Seen {
        let start = Instant::now();
        let mut seen = Seen { signed: 0, refused: Vec::new(), longest: Duration::ZERO, healed: Duration::ZERO };
        loop {
            let (answer, wait) = self.ask();
            seen.longest = seen.longest.max(wait);
            let signed = answer.is_ok();
            match answer {
                Ok(_) => seen.signed += 1,
                Err(refusal) => {
                    seen.refused.push(refusal);
                    seen.healed = start.elapsed();
                }
            }
            if done(signed) {
                return seen;
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Seen {
    /// Says what was seen, and checks that nobody waited longer than `longest`.
    #[track_caller]
    fn report(self, fault: &str, longest: Duration) -> Self {
        say(&format!(
            "{fault}: {} votes signed, {} refused, longest wait {} ms, last refusal after {} ms",
            self.signed,
            self.refused.len(),
            self.longest.as_millis(),
            self.healed.as_millis()
        ));
        assert!(self.longest <= longest, "{fault}: a caller waited {:?}", self.longest);
        self
    }
}

#[test]
fn votes_proposals_and_extensions_are_signed() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    let key = scene.session.ask_pub_key(CHAIN).unwrap().unwrap().pub_key.unwrap();
    assert_eq!((key.key_type, &key.bytes[..]), (Some(KeyType::Ed25519), scene.key.as_bytes()));

    let before = device.count("signatures");
    let signed = scene.session.ask_proposal(CHAIN, proposal(1, 0, 7)).unwrap().unwrap();
    assert_proposal_signed(&scene.key, CHAIN, &signed);
    let signed = scene.session.ask_vote(CHAIN, prevote(1, 0, Some(7))).unwrap().unwrap();
    assert_vote_signed(&scene.key, CHAIN, &signed);
    let vote = Vote { extension: b"extension".to_vec(), ..precommit(1, 0, Some(7)) };
    let signed = scene.session.ask_vote(CHAIN, vote).unwrap().unwrap();
    assert_vote_signed(&scene.key, CHAIN, &signed);
    assert_extension_signed(&scene.key, CHAIN, &signed, b"extension");
    assert_eq!(device.count("signatures") - before, 4);
}

#[test]
fn a_secp256k1_key_signs() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::with(&device.provider_with(CHAIN, "key = 2, type = \"account\""), || ());
    let secret = k256::ecdsa::SigningKey::from_slice(&seed(0)).unwrap();
    let public = secret.verifying_key().to_encoded_point(true);
    scene.key = PublicKey::from_bytes(KeyType::Secp256k1, public.as_bytes()).unwrap();
    // The device gives high S half of the time.
    let seen = scene.watch(Duration::from_millis(500));
    assert!(seen.signed > 20 && seen.refused.is_empty(), "{} signed, {:?}", seen.signed, seen.refused);
}

#[test]
fn a_lost_session_is_replaced_within_a_second() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    scene.watch(Duration::from_millis(300));
    for fault in ["lose-session", "power-cycle"] {
        let sessions = device.count("sessions");
        device.fault(fault);
        let seen = scene.watch(Duration::from_secs(2)).report(fault, HEALED_WITHIN);
        assert!(seen.healed < HEALED_WITHIN, "{fault}: refused for {:?}: {:?}", seen.healed, seen.refused);
        assert_eq!(device.count("sessions"), sessions + 1, "{fault}");
    }
}

#[test]
fn a_dropped_connection_is_invisible() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    scene.watch(Duration::from_millis(300));
    device.fault("drop/1");
    let seen = scene.watch(Duration::from_secs(1)).report("dropped TCP", HEALED_WITHIN);
    assert!(seen.refused.is_empty(), "{:?}", seen.refused);
}

#[test]
fn a_hanging_connector_costs_no_caller_more_than_the_deadline() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    scene.watch(Duration::from_millis(300));
    device.fault("hang/25");
    let seen = scene.watch(Duration::from_secs(25)).report("25 s hang", LONGEST_WAIT);
    assert!(!seen.refused.is_empty());
    scene.watch_until_well().report("after the hang", LONGEST_WAIT);
}

#[test]
fn a_device_whose_sessions_are_all_in_use_is_named_and_comes_back() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    scene.watch(Duration::from_millis(300));
    device.fault("sessions-full/4");
    device.fault("power-cycle");
    let seen = scene.watch_until_well().report("sessions full", LONGEST_WAIT);
    let told = seen.refused.iter().any(|refusal| refusal.description.to_lowercase().contains("session"));
    assert!(told, "{:?}", seen.refused);
}

#[test]
fn a_wrong_password_is_told_not_tried_again_and_again_and_corrected_without_a_restart() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::after(&[&device], || device.spoil_password_file());
    let asked_before = device.count("session-requests");
    let seen = scene.watch(Duration::from_secs(4)).report("wrong password", LONGEST_WAIT);
    assert_eq!(seen.signed, 0);
    let last = &seen.refused.last().unwrap().description;
    assert!(last.contains("password"), "{last}");
    let asked = device.count("session-requests") - asked_before;
    assert!(asked <= SESSIONS_SHARE, "the password was tried {asked} times in 4 s");
    scene.signer.assert_running();
    device.mend_password_file();
    scene.watch_until_well().report("the password was corrected", LONGEST_WAIT);
}

#[test]
fn a_vote_and_its_extension_are_signed_at_the_speed_of_a_real_device() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    device.fault("latency/137");
    let mut longest = Duration::ZERO;
    for height in 1..=5 {
        let vote = Vote { extension: vec![5; 300], ..precommit(height, 0, Some(7)) };
        let start = Instant::now();
        let signed = scene.session.ask_vote(CHAIN, vote).unwrap().unwrap();
        longest = longest.max(start.elapsed());
        assert_vote_signed(&scene.key, CHAIN, &signed);
        assert_extension_signed(&scene.key, CHAIN, &signed, &[5; 300]);
    }
    say(&format!("137 ms per signature: longest wait for a vote with an extension {} ms", longest.as_millis()));
    assert!(longest >= Duration::from_millis(2 * 137) && longest <= LONGEST_WAIT, "{longest:?}");
}

#[test]
fn a_connector_that_comes_late_or_goes_and_returns_is_found() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::after(&[&device], || device.take_down());
    let seen = scene.watch(Duration::from_secs(2)).report("connector down at the start", LONGEST_WAIT);
    assert_eq!(seen.signed, 0);
    device.bring_up();
    scene.watch_until_well().report("connector up", LONGEST_WAIT);
    device.take_down();
    let seen = scene.watch(Duration::from_secs(2)).report("connector down", LONGEST_WAIT);
    assert!(!seen.refused.is_empty());
    device.bring_up();
    scene.watch_until_well().report("connector up again", LONGEST_WAIT);
}

#[test]
fn a_quarter_of_a_second_of_connector_errors_costs_no_more_than_a_second() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    scene.watch(Duration::from_millis(300));
    let before = device.count("session-requests");
    device.fault("drop/100000");
    let during = scene.watch(Duration::from_millis(250));
    assert!(!during.refused.is_empty());
    device.fault("drop/0");
    let seen = scene.watch(Duration::from_secs(3)).report("connector errors for 250 ms", LONGEST_WAIT);
    assert!(seen.healed < Duration::from_millis(1200) && seen.signed > 0, "refused for {:?}", seen.healed);
    // A device that does not answer without a session is not asked for one.
    let asked = device.count("session-requests") - before;
    assert!(asked <= 4, "{asked} requests for one of the 16 sessions that the device has");
}

#[test]
fn two_seconds_of_device_errors_cost_two_seconds_and_no_session() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    scene.watch(Duration::from_millis(300));
    let (sessions, connections) = (device.count("session-requests"), device.count("connections"));
    // GenericError, inside the session.
    device.fault("deny/16");
    let during = scene.watch(Duration::from_secs(2)).report("device errors for 2 s", LONGEST_WAIT);
    assert_eq!(during.signed, 0);
    let said = &during.refused[0].description;
    assert!(said.contains("code 0x10"), "{said}");
    device.fault("deny/0");
    let seen = scene.watch(Duration::from_secs(2)).report("after the device errors", LONGEST_WAIT);
    assert!(seen.healed < Duration::from_secs(1) && seen.signed > 0, "refused for {:?}", seen.healed);
    assert_eq!(device.count("session-requests"), sessions, "the session is good all the time");
    assert_eq!(device.count("connections"), connections);
}

#[test]
fn a_signer_that_ends_leaves_no_session() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    scene.watch(Duration::from_millis(100));
    // Those of `init`, too, are closed.
    assert_eq!(device.count("open-sessions"), 1);
    device.fault("drop/2");
    scene.watch(Duration::from_millis(200));
    // The first was left without a clear answer; it was closed before the second was opened.
    assert_eq!(device.count("open-sessions"), 1);
    scene.signer.sigterm();
    assert_eq!(scene.signer.exit_code(), Some(0));
    assert_eq!(device.count("open-sessions"), 0);
}

#[test]
fn commands_leave_no_session() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let home = Home::new().chain_with_key(CHAIN, "", &device.provider(CHAIN));
    let home = home.node("unix:///nobody", CHAIN, "").init();
    let (answer, exit) = check(&home, &[]);
    assert_eq!(exit, Some(0), "{answer}");
    assert_eq!(device.count("open-sessions"), 0, "check");
    for arguments in [&["yubihsm", "keys", "list"][..], &["yubihsm", "test", "1"], &["yubihsm", "test", "9"]] {
        home.command(arguments).output().unwrap();
        assert_eq!(device.count("open-sessions"), 0, "{arguments:?}");
    }
    assert!(device.count("sessions") >= 5);
}

#[test]
fn a_connector_may_write_its_answers_in_every_way_that_http_has() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    let sessions = device.count("session-requests");
    for (style, name) in [(1, "in chunks"), (2, "in pieces"), (3, "without a length"), (0, "plainly")] {
        device.fault(&format!("style/{style}"));
        for _ in 0..3 {
            let (answer, _) = scene.ask();
            assert!(answer.is_ok(), "{name}: {answer:?}");
        }
    }
    assert_eq!(device.count("session-requests"), sessions);
    device.fault("style/4");
    let (answer, _) = scene.ask();
    let said = answer.unwrap_err().description;
    assert!(said.contains("HTTP status 500") && said.contains("usb: no device"), "{said}");
    device.fault("style/0");
    scene.watch_until_well();
}

#[test]
fn a_message_that_no_device_signs_does_not_move_the_mark() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    let (answer, _) = scene.ask();
    answer.unwrap();
    let mark = scene.home.mark(CHAIN);
    let vote = |extension| Vote { extension, ..precommit(2, 0, Some(7)) };
    let refusal = scene.session.ask_vote(CHAIN, vote(vec![5; MESSAGE_MAX_BYTES + 1])).unwrap().unwrap_err();
    assert_eq!(refusal.code, KEY_UNAVAILABLE);
    assert!(refusal.description.contains(&MESSAGE_MAX_BYTES.to_string()), "{}", refusal.description);
    assert_eq!(scene.home.mark(CHAIN), mark);

    // Around the extension go its height, its round and the chain.
    let extension = vec![5; MESSAGE_MAX_BYTES - 40];
    let signed = scene.session.ask_vote(CHAIN, vote(extension.clone())).unwrap().unwrap();
    assert_extension_signed(&scene.key, CHAIN, &signed, &extension);
}

#[test]
fn a_second_device_with_the_same_key_takes_over() {
    let Some(mut first) = device::start(&seed(0), &[]) else { return };
    let Some(second) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&first, &second]);
    scene.watch(Duration::from_millis(300));
    let before = second.count("signatures");
    assert!(first.count("signatures") > before, "the first in the file is asked first");
    first.kill();
    let seen = scene.watch(Duration::from_secs(4)).report("first of two devices killed", LONGEST_WAIT);
    assert!(seen.healed <= LONGEST_WAIT, "refused for {:?}: {:?}", seen.healed, seen.refused);
    assert!(second.count("signatures") - before >= u64::try_from(seen.signed).unwrap());
}

#[test]
fn a_second_device_takes_over_from_one_that_hangs() {
    let Some(first) = device::start(&seed(0), &[]) else { return };
    let Some(second) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&first, &second]);
    scene.watch(Duration::from_millis(300));
    first.fault("hang/4");
    let seen = scene.watch(Duration::from_secs(4)).report("first of two devices hangs", LONGEST_WAIT);
    assert!(seen.healed <= LONGEST_WAIT, "refused for {:?}: {:?}", seen.healed, seen.refused);
    scene.watch_until_well().report("after the hang of the first", LONGEST_WAIT);
}

#[test]
fn a_different_key_on_the_second_device_is_an_error() {
    let Some(first) = device::start(&seed(0), &[]) else { return };
    let Some(second) = device::start(&seed(1), &[]) else { return };
    let home = Home::new().chain_with_key(CHAIN, "", &(first.provider(CHAIN) + &second.provider(CHAIN)));
    let home = home.node("unix:///nowhere", CHAIN, "");
    home.write_config();
    let output = home.command(&["state", "init", "--never-signed", "--chain", CHAIN]).output().unwrap();
    assert!(!output.status.success(), "{}", text(&output));
    for words in [seed(0), seed(1)].map(public_key_hex).iter().map(String::as_str).chain(["a chain has one key"]) {
        assert!(text(&output).to_uppercase().contains(&words.to_uppercase()), "{words:?} is not in {}", text(&output));
    }
    assert!(!home.state_file(CHAIN).exists());
}

/// `check --json` of that home with these words added, and its exit code.
fn check(home: &Home, words: &[&str]) -> (Value, Option<i32>) {
    let output = home.command(&[&["check", "--json"], words].concat()).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    (answer, output.status.code())
}

fn says(answer: &Value, level: &str, words: &str) -> bool {
    let mut findings = answer["findings"].as_array().unwrap().iter();
    findings.any(|finding| finding["level"] == level && finding["text"].as_str().unwrap().contains(words))
}

#[test]
fn check_tells_the_share_of_the_devices_time_that_the_chains_need() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let home = Home::new().chain_with_key(CHAIN, "", &device.provider(CHAIN));
    let home = home.node("unix:///nobody", CHAIN, "").init();
    device.fault("latency/137");
    let before = device.count("signatures");
    let (answer, exit) = check(&home, &[]);
    assert_eq!(device.count("signatures"), before + 21, "twenty, and one before them");
    assert_eq!(exit, Some(0), "{answer}");
    assert!(says(&answer, "ok", "The votes of 1 chain need 4") && says(&answer, "ok", "a block every 6 s"), "{answer}");
    let figures = &answer["devices"][0];
    let p50 = figures["p50_us"].as_f64().unwrap();
    // Two votes of `p50` in each block of 6 s.
    let share = figures["share_percent"].as_f64().unwrap();
    assert!(p50 > 137_000.0 && (share - 2.0 * p50 / 60_000.0).abs() < 1e-3, "{answer}");
    assert_eq!(figures["chains"], serde_json::json!([CHAIN]), "{answer}");

    let (answer, exit) = check(&home, &["--block-time", "0.5"]);
    assert_eq!(exit, Some(1), "{answer}");
    assert!(says(&answer, "warn", "Above 40 % votes wait for each other"), "{answer}");

    let signatures = device.count("signatures");
    let (answer, exit) = check(&home, &["--before-start"]);
    assert_eq!((exit, device.count("signatures")), (Some(0), signatures), "{answer}");
}

#[test]
fn check_fails_on_force_audit() {
    let Some(device) = device::start(&seed(0), &["--force-audit"]) else { return };
    let home = Home::new().chain_with_key(CHAIN, "", &device.provider(CHAIN));
    let home = home.node("unix:///nobody", CHAIN, "").init();
    let (answer, exit) = check(&home, &[]);
    assert_eq!(exit, Some(2), "{answer}");
    assert!(says(&answer, "fail", "force-audit is on: the device stops signing"), "{answer}");
}

/// A home whose device is on this section and whose log is to go to the audit file.
fn draining(device: &Device, node: &str) -> Home {
    let provider = format!("{}drain_audit_log = true\n", device.provider(CHAIN));
    let home = Home::new();
    let audit = home.path("audit.jsonl");
    let section = format!("{provider}[highwater]\naudit.file = {audit:?}\n");
    home.chain_with_key(CHAIN, "", &section).node(node, CHAIN, "").init()
}

/// A signer that moves the log of this device, which keeps one with these options.
fn draining_scene(device: &Device) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let node = MockNode::unix(&directory.path().join("node.sock")).unwrap();
    let home = draining(device, &node.address());
    let mut scene = Scene::start(home, &node, CHAIN);
    assert!(scene.ask().0.is_ok());
    scene
}

/// The lines of the audit file that come from the device's log.
fn device_log(scene: &Scene) -> Vec<Value> {
    let text = fs::read_to_string(scene.home.path("audit.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["result"] == "device-log").collect()
}

#[test]
fn force_audit_stops_no_signer_that_moves_the_log_into_its_audit_file() {
    let Some(device) = device::start(&seed(0), &["--force-audit"]) else { return };
    let mut scene = draining_scene(&device);
    let mut fullest = 0;
    // More than three times as many as the device has room for.
    for _ in 0..200 {
        let (answer, wait) = scene.ask();
        assert!(answer.is_ok() && wait < LONGEST_WAIT, "{answer:?} after {wait:?}");
        thread::sleep(PAUSE);
        fullest = fullest.max(device.count("log-entries"));
    }
    assert!(fullest < 62, "the log was full");
    say(&format!("200 votes with force-audit on: at most {fullest} of 62 entries"));
    thread::sleep(Duration::from_millis(500));
    let told = device_log(&scene);
    for (at, line) in told.iter().enumerate() {
        assert_eq!((line["entry"].as_u64(), &line["proven"]), (Some(at as u64 + 1), &Value::Bool(true)), "{line}");
    }
    let signed = told.iter().filter(|line| line["command"] == "0x6a" && line["answer"] == "0xea").count();
    assert!(signed > 180 && device.count("log-entries") < 30, "{signed}");
}

#[test]
fn a_device_whose_log_is_full_signs_again_once_it_was_moved() {
    let Some(device) = device::start(&seed(0), &["--force-audit"]) else { return };
    let home = Home::new().chain_with_key(CHAIN, "", &device.provider(CHAIN));
    let home = home.node("unix:///nobody", CHAIN, "").init();
    let output = home.command(&["yubihsm", "test", "1", "--count", "80"]).output().unwrap();
    assert!(text(&output).contains("`drain_audit_log = true`"), "{}", text(&output));
    assert_eq!(device.count("log-entries"), 62);
    // Its key is in a state file, which another home has not: there the device is asked for it, and cannot answer.
    device.fault("forget-log");
    let directory = tempfile::tempdir().unwrap();
    let node = MockNode::unix(&directory.path().join("node.sock")).unwrap();
    let draining = draining(&device, &node.address());
    home.command(&["yubihsm", "test", "1", "--count", "80"]).output().unwrap();
    assert_eq!(device.count("log-entries"), 62);
    let mut scene = Scene::start(draining, &node, CHAIN);
    scene.watch_until_well().report("a full log at the start", LONGEST_WAIT);
    assert!(device_log(&scene).len() >= 62);
}

#[test]
fn a_log_that_somebody_changed_is_recorded_as_not_proven() {
    let Some(device) = device::start(&seed(0), &["--audit-log"]) else { return };
    let mut scene = draining_scene(&device);
    scene.watch(Duration::from_millis(500));
    device.fault("tamper");
    scene.watch(Duration::from_millis(500));
    scene.signer.wait_for_log("its log does not fit together");
    thread::sleep(Duration::from_millis(500));
    let told = device_log(&scene);
    assert!(told.iter().any(|line| line["proven"] == false), "{told:?}");
    assert!(scene.ask().0.is_ok(), "it signs all the same");
}

#[test]
fn check_fails_if_the_log_is_to_be_moved_but_may_not_be_read() {
    let Some(device) = device::start(&seed(0), &["--force-audit", "--secret-log"]) else { return };
    let (answer, exit) = check(&draining(&device, "unix:///nobody"), &[]);
    assert_eq!(exit, Some(2), "{answer}");
    assert!(says(&answer, "fail", "give it the capability get-log-entries"), "{answer}");

    let Some(device) = device::start(&seed(0), &["--force-audit"]) else { return };
    let (answer, exit) = check(&draining(&device, "unix:///nobody"), &[]);
    assert_eq!(exit, Some(0), "{answer}");
}

#[test]
fn check_leaves_the_devices_of_a_running_signer_alone() {
    let Some(device) = device::start(&seed(0), &[]) else { return };
    let mut scene = Scene::on(&[&device]);
    assert!(scene.ask().0.is_ok());
    let sessions = device.count("session-requests");
    let (answer, exit) = check(&scene.home, &[]);
    assert_eq!(device.count("session-requests"), sessions);
    assert!(
        says(&answer, "ok", "the following lines are its answer")
            && says(&answer, "ok", "on average. The votes of 1 chain")
    );
    assert_eq!(exit, Some(0), "{answer}");
    assert!(scene.ask().0.is_ok());
}

#[test]
fn usb_without_a_device_says_what_to_look_at_and_the_others_sign() {
    if Path::new("/dev/bus/usb").exists() {
        return skip("this machine has USB: what is plugged in decides");
    }
    let provider = "[[providers.yubihsm]]\nadapter = { type = \"usb\" }\n\
                    auth = { key = 1, password_file = \"/nowhere/password\" }\n\
                    keys = [{ chain_ids = [\"test-chain\"], key = 1, type = \"consensus\" }]\n";
    let home = Home::new().chain_with_key(CHAIN, "", provider).node("unix:///nowhere/a", CHAIN, "");
    home.write_config();
    let (answer, exit) = check(&home, &[]);
    assert_eq!(exit, Some(2), "{answer}");
    for word in ["on USB: no YubiHSM 2 is on the USB of this machine", "plug it in", "highwater-usb.conf"] {
        assert!(says(&answer, "fail", word), "{word}: {answer}");
    }
    let output = home.command(&["yubihsm", "detect"]).output().unwrap();
    assert!(text(&output).contains("no YubiHSM 2 is on the USB of this machine"), "{}", text(&output));
}

#[test]
fn a_dead_device_does_not_delay_a_chain_on_another() {
    let Some(first) = device::start(&seed(0), &[]) else { return };
    let Some(second) = device::start(&seed(1), &[]) else { return };
    let home = Home::new().chain_with_key(CHAIN, "", &first.provider(CHAIN));
    let home = home.chain_with_key(OTHER_CHAIN, "", &second.provider(OTHER_CHAIN));
    let nodes = ["first.sock", "second.sock"].map(|name| MockNode::unix(&home.path(name)).unwrap());
    let home = home.node(&nodes[0].address(), CHAIN, "").node(&nodes[1].address(), OTHER_CHAIN, "").init();
    let mut scene = Scene::start(home, &nodes[1], OTHER_CHAIN);
    let mut dead = nodes[0].accept().unwrap();
    first.fault("hang/30");
    // Somebody asks the dead one all the time.
    let asking = thread::spawn(move || {
        for height in 1..20 {
            let answer = dead.ask_vote(CHAIN, prevote(height, 0, Some(7))).unwrap();
            assert_eq!(answer.unwrap_err().code, KEY_UNAVAILABLE);
            thread::sleep(Duration::from_millis(100));
        }
    });
    let seen = scene.watch(Duration::from_secs(4)).report("another chain's device hangs", Duration::from_millis(500));
    assert!(seen.refused.is_empty(), "{:?}", seen.refused);
    asking.join().unwrap();
}

/// Blocks that a real node makes before the fault, and after it.
const BLOCKS: u64 = 15;

#[test]
fn a_real_chain_is_signed_by_an_imported_key_through_a_power_cycle_of_the_device() {
    let Some(binary) = lab::cometbft("v0.38.25") else { return };
    let lab = lab::Lab::new();
    let node = node::Node::init(&lab, &binary, "node");
    let genesis = node.genesis();
    let chain = node::chain_id(&genesis);
    let key = node.public_key();
    let address = format!("tcp://127.0.0.1:{}", lab::free_port());
    let key_file = node.use_signer(&address);
    // It has keys 1 and 2, and neither is the validator's.
    let Some(device) = device::start(&seed(0), &["--keep-objects"]) else { return };
    device.fault("latency/137");
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let provider = device.provider_with(chain.as_str(), "key = 5, type = \"consensus\"");
    let config = lab.path("import.toml");
    fs::write(&config, format!("[[chain]]\nid = \"{chain}\"\nkey_format = {{ type = \"hex\" }}\n{provider}")).unwrap();
    let mut import = Command::new(binary::highwater());
    import.args(["yubihsm", "keys", "import", "-i", "5", "-t", "json", "-c"]).arg(config).arg(&key_file);
    let said = lab.run("import", &mut import);
    assert!(said.contains("imported, and its signature over the self-test verifies"), "{said}");
    fs::remove_file(&key_file).unwrap();
    let signer = signer::Signer::init_with(&lab, &chain, &provider, &[address]);

    let mut signing = signer.start();
    let mut running = node.start(&app::serve());
    node.wait_for_blocks(&mut running, BLOCKS);
    device.fault("power-cycle");
    device.fault("drop/1");
    let start = Instant::now();
    node.wait_for_blocks(&mut running, 2);
    say(&format!(
        "a real chain made its next two blocks {} ms after the device's power cycle",
        start.elapsed().as_millis()
    ));
    let last = node.wait_for_blocks(&mut running, BLOCKS) - 1;

    assert!(last >= 2 * BLOCKS, "{last} blocks");
    for height in 1..=last {
        let commit = node.rpc.commit(height);
        assert_eq!(commit.signers(), 1, "height {height}");
        assert!(commit.is_signed_by(&key, &chain), "height {height}");
        node.rpc.block_without_evidence(height);
    }
    assert!(device.count("sessions") >= 2 && device.count("signatures") >= 2 * last);
    node.assert_no_alarm(&running);
    signing.terminate();
    assert!(lab.wait_for_exit(&mut signing).success());
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn public_key_hex(seed: [u8; 32]) -> String {
    let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    String::from_utf8(hex::encode_upper(key.as_bytes())).unwrap()
}
