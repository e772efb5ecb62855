//! Keys in devices: SoftHSM and Kryoptic sign through the real signer, and fail in every way that a module can.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "cometbft/app.rs"]
mod app;
#[path = "cometbft/lab.rs"]
#[allow(dead_code)]
mod lab;
#[path = "cometbft/node.rs"]
#[allow(dead_code)]
mod node;
#[path = "cometbft/rpc.rs"]
#[allow(dead_code)]
mod rpc;
mod support;

use highwater_core::{
    consensus::{KeyType, PublicKey},
    privval::message::Vote,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    env, fs,
    hash::{BuildHasher as _, RandomState},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use support::{
    assert_extension_signed, assert_proposal_signed, assert_vote_signed,
    hsm::{Descendant, Faults, Hsm, PIN, faulty_module},
    mock_node::{Answer, MockNode, Session, precommit, prevote, proposal, vote_at},
    signer::{Home, Signer},
};

const CHAIN: &str = "test-chain";
const TOKEN: &str = "validator";
/// The node's answer to a request that the device did not serve.
const KEY_UNAVAILABLE: i32 = 104;
/// Within this a node has an answer, whatever its device does.
const LIMIT: Duration = Duration::from_millis(1500);
/// For what is only looked at after it has happened.
const PATIENCE: Duration = Duration::from_secs(20);
/// Far below a device's deadline of 1.2 s, far above what a busy machine adds to an answer.
const UNAFFECTED: Duration = Duration::from_millis(600);

/// Answers of C_Sign after which a new session may help, and the vendor's own.
const TROUBLE: [u64; 18] = [
    0x02,
    0x05,
    0x06,
    0x30,
    0x31,
    0x32,
    0x50,
    0x60,
    0x82,
    0x90,
    0x91,
    0xb0,
    0xb1,
    0xb3,
    0xe0,
    0x101,
    0x190,
    0x8000_0001,
];
/// Clear answers: data, mechanism, key type and key that the device does not take, and a policy that forbids it.
const REJECTIONS: [u64; 7] = [0x20, 0x21, 0x63, 0x68, 0x70, 0x71, 0x200];

/// A signer to be, with one chain and its key on a token.
struct Scene {
    hsm: Hsm,
    node: MockNode,
    home: Home,
    key: PublicKey,
}

impl Scene {
    fn new(hsm: Hsm, module: &Path) -> Self {
        let key = hsm.token(TOKEN, 0);
        let provider = hsm.provider_with_file(module, TOKEN, &[(CHAIN, "consensus", &key)]);
        Self::with_provider(hsm, &provider, key)
    }

    fn with_provider(hsm: Hsm, provider: &str, key: PublicKey) -> Self {
        let node = MockNode::tcp().unwrap();
        let home = Home::new().chain_with_key(CHAIN, "", provider).node(&node.address(), CHAIN, "");
        let home = hsm.equip(home).init();
        Self { hsm, node, home, key }
    }

    fn softhsm() -> Option<Self> {
        let hsm = Hsm::softhsm()?;
        let module = hsm.module().to_owned();
        Some(Self::new(hsm, &module))
    }

    /// SoftHSM behind the module that fails on command, and its plan.
    fn faulty() -> Option<(Self, Faults)> {
        let scene = Self::new(Hsm::softhsm()?, &faulty_module());
        let faults = scene.hsm.faults();
        Some((scene, faults))
    }

    /// A signer whose device is up, and its link.
    fn start(&self) -> (Signer, Session) {
        let mut signer = self.home.start();
        signer.wait_for_log("device up");
        (signer, self.node.accept().unwrap())
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks, and shows how long the answer took.
fn ask(session: &mut Session, vote: Vote) -> (Answer<Vote>, Duration) {
    let begin = Instant::now();
    let answer = session.ask_vote(CHAIN, vote).expect("the link stays up");
    let took = begin.elapsed();
    assert!(took < LIMIT, "an answer after {took:?}");
    (answer, took)
}

/// Has a vote signed that must be.
fn sign(session: &mut Session, key: &PublicKey, vote: Vote) -> Duration {
    let (height, extension) = (vote.height, vote.extension.clone());
    let (answer, took) = ask(session, vote);
    let vote = answer.unwrap_or_else(|refusal| panic!("height {height}: {refusal:?}"));
    assert_vote_signed(key, CHAIN, &vote);
    if !vote.extension_signature.is_empty() {
        assert_extension_signed(key, CHAIN, &vote, &extension);
    }
    took
}

/// Has a vote refused for its key, and gives the reason.
fn refused(session: &mut Session, vote: Vote) -> (String, Duration) {
    let (answer, took) = ask(session, vote);
    let refusal = answer.expect_err("a refusal");
    assert_eq!(refusal.code, KEY_UNAVAILABLE, "{refusal:?}");
    (refusal.description, took)
}

/// Asks on until a vote is signed, each time for the next height. Gives that height.
fn sign_at_last(session: &mut Session, key: &PublicKey, first_height: i64) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    for height in first_height.. {
        match ask(session, prevote(height, 0, Some(7))).0 {
            Ok(vote) => {
                assert_vote_signed(key, CHAIN, &vote);
                return height;
            }
            Err(refusal) => assert_eq!(refusal.code, KEY_UNAVAILABLE, "{refusal:?}"),
        }
        assert!(Instant::now() < deadline, "the device does not come back");
        thread::sleep(Duration::from_millis(10));
    }
    unreachable!("heights have no end")
}

/// All kinds of signatures, and the next height after a restart.
fn assert_signs(scene: &Scene) {
    let extended = |height| Vote { extension: b"of the application".to_vec(), ..precommit(height, 0, Some(7)) };
    for height in [1, 3] {
        let (signer, mut session) = scene.start();
        let key = session.ask_pub_key(CHAIN).unwrap().unwrap().pub_key.unwrap();
        assert!(format!("{key:?}").contains(&format!("{:?}", scene.key.to_bytes())), "{key:?}");
        let proposed = session.ask_proposal(CHAIN, proposal(height, 0, 7)).unwrap().unwrap();
        assert_proposal_signed(&scene.key, CHAIN, &proposed);
        sign(&mut session, &scene.key, prevote(height, 0, Some(7)));
        sign(&mut session, &scene.key, extended(height));
        // Asked again, at another time: the same signature for the vote, a new one for the extension.
        sign(&mut session, &scene.key, vote_at(1_700_000_009, extended(height)));
        let conflict = session.ask_vote(CHAIN, precommit(height, 0, Some(8))).unwrap().unwrap_err();
        assert_eq!(conflict.code, 100, "{conflict:?}");
        drop(signer);
        assert_eq!(scene.home.mark(CHAIN).0, height);
    }
}

#[test]
fn softhsm_signs_votes_proposals_and_extensions_before_and_after_a_restart() {
    let Some(scene) = Scene::softhsm() else { return };
    assert_signs(&scene);
}

#[test]
fn kryoptic_signs_however_it_encodes_points() {
    for encoding in ["Der", "Bytes"] {
        let Some(hsm) = Hsm::kryoptic() else { return };
        let module = hsm.module().to_owned();
        let scene = Scene::new(hsm, &module);
        scene.hsm.encode_points(encoding);
        assert_signs(&scene);
    }
}

#[test]
fn two_chains_have_their_keys_on_one_token() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let keys = [hsm.token(TOKEN, 0), hsm.generate(TOKEN, "second")];
    let pinned = [(CHAIN, "consensus", &keys[0]), ("second-chain", "second", &keys[1])];
    let provider = hsm.provider_with_file(hsm.module(), TOKEN, &pinned);
    let nodes = [MockNode::tcp().unwrap(), MockNode::tcp().unwrap()];
    let home = Home::new().chain_with_key(CHAIN, "", &provider).chain_with_key("second-chain", "", "");
    let home = home.node(&nodes[0].address(), CHAIN, "").node(&nodes[1].address(), "second-chain", "");
    let home = hsm.equip(home).init();
    let mut signer = home.start();
    signer.wait_for_log("device up");
    for (node, (chain, _, key)) in nodes.iter().zip(pinned) {
        let vote = node.accept().unwrap().ask_vote(chain, prevote(1, 0, Some(7))).unwrap().unwrap();
        assert_vote_signed(key, chain, &vote);
    }
    assert_eq!(Descendant::modules_of(signer.id()).len(), 1, "one process for one token");
}

#[test]
fn a_pin_comes_from_a_file_a_descriptor_the_environment_or_a_credential() {
    const VARIABLE: &str = "VALIDATOR_PIN";
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token(TOKEN, 0);
    let file = hsm.pin_file("pin", PIN);
    // The module reaches nothing in there, so not in the directory of its tokens.
    let credentials = hsm.path("credentials");
    fs::create_dir(&credentials).unwrap();
    hsm.pin_file("credentials/pin", PIN);
    let sources = [
        (format!("{{ file = {file:?} }}"), ""),
        // A pipe: it can be read once.
        ("{ fd = 3 }".into(), "exec 3<<END\n$(cat \"$PIN_FILE\")\nEND"),
        (format!("{{ env = {VARIABLE:?} }}"), ""),
        ("{ credential = \"pin\" }".into(), ""),
    ];
    for (source, script) in sources {
        let provider = hsm.provider(hsm.module(), TOKEN, &source, &[(CHAIN, "consensus", &key)]);
        let node = MockNode::tcp().unwrap();
        let home = Home::new().chain_with_key(CHAIN, "", &provider).node(&node.address(), CHAIN, "");
        let home = hsm.equip(home).env("PIN_FILE", &file).env("CREDENTIALS_DIRECTORY", &credentials);
        let in_environment = source.contains("env");
        let home = if in_environment { home.env(VARIABLE, PIN) } else { home };
        let home = home.init();
        let mut signer = home.start_in_shell(script);
        signer.wait_for_log("device up");
        let mut session = node.accept().unwrap();
        sign(&mut session, &key, prevote(1, 0, Some(7)));
        // The child is told its PIN, however often it is replaced, and can tell nobody from where.
        Descendant::modules_of(signer.id()).iter().for_each(Descendant::kill);
        sign_at_last(&mut session, &key, 2);
        for module in Descendant::modules_of(signer.id()) {
            let environment = fs::read(format!("/proc/{}/environ", module.id)).unwrap();
            assert!(!String::from_utf8_lossy(&environment).contains(VARIABLE), "{source}");
        }
        assert!(!signer.log().contains(PIN), "{source}");
    }
}

#[test]
fn a_wrong_pin_is_sent_once_and_never_again_before_an_operator_acts() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token(TOKEN, 0);
    let pin = hsm.pin_file("pin", "11111111");
    let source = format!("{{ file = {pin:?} }}");
    let provider = hsm.provider(&faulty_module(), TOKEN, &source, &[(CHAIN, "consensus", &key)]);
    let scene = Scene::with_provider(hsm, &provider, key);
    let faults = scene.hsm.faults();
    // A token that says nothing about its counter would be asked again, if anybody asked.
    faults.plan(&["every login rv 0xa0"]);
    let mut signer = scene.home.start();
    signer.wait_for_log("not tried again before a restart");
    let mut session = scene.node.accept().unwrap();
    for height in 1..=20 {
        let (why, _) = refused(&mut session, prevote(height, 0, Some(7)));
        assert!(why.contains("CKR_PIN_INCORRECT"), "{why}");
        thread::sleep(Duration::from_millis(20));
    }
    drop(signer);
    assert_eq!((faults.count("login"), faults.count("open")), (1, 1));

    faults.plan(&[""; 0]);
    // The second start finds a token that says what happened to it: it gets no PIN at all.
    for _ in 0..2 {
        let mut signer = scene.home.start();
        let mut session = scene.node.accept().unwrap();
        signer.wait_for_log("not tried again before a restart");
        for height in 1..=20 {
            let (why, _) = refused(&mut session, prevote(height, 0, Some(7)));
            assert!(why.contains("PIN") && !why.contains("11111111"), "{why}");
            session.ping().unwrap();
        }
        session.ask_pub_key(CHAIN).unwrap().unwrap();
        thread::sleep(Duration::from_millis(300));
        assert_eq!(faults.count("login"), 2);
        assert!(!signer.log().contains("11111111"));
    }
    // A refusal at once moves no mark.
    assert_eq!(scene.home.mark(CHAIN).0, 0);

    scene.hsm.log_in(TOKEN);
    scene.hsm.pin_file("pin", PIN);
    let (_signer, mut session) = scene.start();
    sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
}

#[test]
fn a_pin_file_that_comes_late_is_found_without_a_restart() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token(TOKEN, 0);
    let provider = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "consensus", &key)]);
    let scene = Scene::with_provider(hsm, &provider, key);
    let pin = scene.hsm.path("pin");
    fs::remove_file(&pin).unwrap();
    let mut signer = scene.home.start();
    let mut session = scene.node.accept().unwrap();
    let (why, _) = refused(&mut session, prevote(1, 0, Some(7)));
    assert!(why.contains("PIN file: there is no"), "{why}");
    scene.hsm.pin_file("pin", PIN);
    sign_at_last(&mut session, &scene.key, 2);
    assert!(!signer.log().contains("not tried again before a restart"), "{}", signer.log());
    signer.assert_running();
}

#[test]
fn a_token_with_another_key_than_the_pinned_one_signs_nothing() {
    let Some(hsm) = Hsm::softhsm() else { return };
    hsm.token(TOKEN, 0);
    let pinned = hsm.generate(TOKEN, "another");
    let provider = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "consensus", &pinned)]);
    let scene = Scene::with_provider(hsm, &provider, pinned);
    let mut signer = scene.home.start();
    let mut session = scene.node.accept().unwrap();
    signer.wait_for_log("not tried again before a restart");
    for height in 1..=3 {
        let (why, _) = refused(&mut session, prevote(height, 0, Some(7)));
        assert!(why.contains("the configuration pins"), "{why}");
        thread::sleep(Duration::from_millis(100));
    }
    // Nothing was signed with it, not even a self-test, and it is not opened again in vain.
    assert_eq!((scene.hsm.faults().count("open"), scene.hsm.faults().count("sign")), (1, 0));
    session.ask_pub_key(CHAIN).unwrap().unwrap();
}

#[test]
fn one_failure_of_any_kind_costs_no_signature() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let (_signer, mut session) = scene.start();
    let trouble = TROUBLE.map(|rv| format!("sign rv {rv:#x}"));
    let others = ["init rv 0x30", "sign stuck 0x5", "sign stuck 0x32", "sign flip", "sign segv", "sign delay 900"];
    let others = others.map(String::from);
    for (height, fault) in (1..).zip(trouble.iter().chain(&others)) {
        faults.plan(&[fault]);
        let took = sign(&mut session, &scene.key, prevote(height, 0, Some(7)));
        assert_eq!((faults.left(), faults.count(fault)), (0, 1), "{fault} was played");
        assert_eq!(took >= Duration::from_millis(900), fault.contains("delay"), "{fault}: {took:?}");
        // Nothing stays behind.
        sign(&mut session, &scene.key, precommit(height, 0, Some(7)));
    }
}

#[test]
fn a_clear_rejection_is_told_at_once_and_costs_no_session() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let (_signer, mut session) = scene.start();
    for (height, rv) in (1..).zip(REJECTIONS) {
        faults.plan(&[format!("sign rv {rv:#x}")]);
        let calls = |name| faults.count(name);
        let before = (calls("sign"), calls("open"));
        let (why, took) = refused(&mut session, prevote(height, 0, Some(7)));
        assert!(why.contains("C_Sign answered CK"), "{why}");
        assert!(took < UNAFFECTED, "{took:?}");
        assert_eq!((calls("sign"), calls("open")), (before.0 + 1, before.1), "{rv:#x} is not tried again");
        // The same vote once more: the device takes it now.
        sign(&mut session, &scene.key, prevote(height, 0, Some(7)));
        assert_eq!((calls("sign"), calls("open")), (before.0 + 2, before.1), "{rv:#x}");
    }
}

#[test]
fn a_wrong_signature_never_leaves() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let (_signer, mut session) = scene.start();
    faults.plan(&["sign flip", "sign flip"]);
    let (why, _) = refused(&mut session, prevote(1, 0, Some(7)));
    assert!(why.contains("verify"), "{why}");
    assert_eq!(faults.count("sign flip"), 2);
    sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
    // The second signature of a precommit is its extension's.
    faults.plan(&["sign pass", "sign flip", "sign flip"]);
    refused(&mut session, precommit(1, 0, Some(7)));
    assert_eq!(faults.left(), 0);
    sign(&mut session, &scene.key, precommit(1, 0, Some(7)));
}

#[test]
fn a_slow_login_is_waited_for_and_not_repeated() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let (_signer, mut session) = scene.start();
    let logins = faults.count("login");
    faults.plan(&["sign rv 0x32", "login delay 2000"]);
    refused(&mut session, prevote(1, 0, Some(7)));
    sign_at_last(&mut session, &scene.key, 2);
    assert_eq!((faults.left(), faults.count("login")), (0, logins + 1));
}

/// Asks for one vote after the other until told to stop. Every one must be signed. Gives the longest answer.
fn keep_asking(session: &mut Session, key: &PublicKey, chain: &str, stop: &AtomicBool) -> (Duration, i64) {
    let mut longest = Duration::ZERO;
    let mut height = 0;
    while !stop.load(Ordering::Relaxed) {
        height += 1;
        let begin = Instant::now();
        let vote = session.ask_vote(chain, prevote(height, 0, Some(7))).unwrap();
        longest = longest.max(begin.elapsed());
        assert_vote_signed(key, chain, &vote.unwrap_or_else(|refusal| panic!("{chain}: {refusal:?}")));
        thread::sleep(Duration::from_millis(5));
    }
    (longest, height)
}

/// Sets a flag when it goes, also when its test fails: threads that wait for it then end.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_hung_or_crashed_module_costs_one_request_and_nobody_else_anything() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let (key, other_key) = (hsm.token(TOKEN, 0), hsm.token("other", 1));
    let faulty = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "consensus", &key)]);
    let sound = hsm.provider_with_file(hsm.module(), "other", &[("other-chain", "consensus", &other_key)]);
    let [node, other_node, soft_node] = [(); 3].map(|()| MockNode::tcp().unwrap());
    let home = Home::new().chain_with_key(CHAIN, "", &faulty).chain_with_key("other-chain", "", &sound);
    let home = home.chain("soft-chain", "").node(&node.address(), CHAIN, "");
    let home = home.node(&other_node.address(), "other-chain", "").node(&soft_node.address(), "soft-chain", "");
    let home = hsm.equip(home).init();
    let faults = hsm.faults();
    let soft_key = home.public_key("soft-chain");
    let signer = home.start();
    wait_until(|| signer.log().matches("device up").count() == 2);
    let mut session = node.accept().unwrap();
    let (mut other, mut soft) = (other_node.accept().unwrap(), soft_node.accept().unwrap());

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopper = SetAtEnd(&stop);
        let others = [
            scope.spawn(|| keep_asking(&mut other, &other_key, "other-chain", &stop)),
            scope.spawn(|| keep_asking(&mut soft, &soft_key, "soft-chain", &stop)),
        ];

        // It hangs. While a new process comes up nobody waits for it.
        sign(&mut session, &key, prevote(1, 0, Some(7)));
        faults.plan(&["sign hang", "every open delay 500"]);
        let (why, took) = refused(&mut session, prevote(2, 0, Some(7)));
        assert!(why.contains("in time") && took >= Duration::from_secs(1), "{why} after {took:?}");
        eprintln!("a hang was answered after {took:?}");
        let mut down: Vec<_> = (3..10).map(|height| refused(&mut session, prevote(height, 0, Some(7))).1).collect();
        down.sort();
        assert!(down[down.len() / 2] < Duration::from_millis(100), "{down:?}");
        session.ping().unwrap();
        session.ask_pub_key(CHAIN).unwrap().unwrap();
        let begin = Instant::now();
        let height = sign_at_last(&mut session, &key, 10);
        eprintln!("{:?} later it signs again, 500 ms of which it needs itself", begin.elapsed());

        // Its token is gone for a while.
        faults.plan(&["sign rv 0x32", "every open rv 0xe0"]);
        refused(&mut session, prevote(height + 1, 0, Some(7)));
        thread::sleep(Duration::from_secs(1));
        let (_, took) = refused(&mut session, prevote(height + 2, 0, Some(7)));
        assert!(took < UNAFFECTED, "{took:?}");
        faults.plan(&["open pass"]);
        let begin = Instant::now();
        let height = sign_at_last(&mut session, &key, height + 3);
        eprintln!("{:?} after its token came back, it signs again", begin.elapsed());

        // It crashes: tried again in a new process; then twice in a row, which costs this request.
        faults.plan(&["sign segv"]);
        sign(&mut session, &key, prevote(height + 1, 0, Some(7)));
        faults.plan(&["sign segv", "sign segv"]);
        refused(&mut session, prevote(height + 2, 0, Some(7)));
        sign(&mut session, &key, prevote(height + 2, 0, Some(7)));
        assert_eq!(faults.count("sign segv"), 3);

        drop(stopper);
        for (name, other) in ["another token", "a software key"].iter().zip(others) {
            let (longest, signed) = other.join().unwrap();
            eprintln!("meanwhile {name} signed {signed} votes, the slowest in {longest:?}");
            assert!(longest < UNAFFECTED, "{name}: {longest:?}");
            assert!(signed > 20, "{name}: only {signed} votes");
        }
    });
}

#[test]
fn a_request_that_waits_for_that_of_another_node_waits_no_longer() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token(TOKEN, 0);
    let provider = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "consensus", &key)]);
    let nodes = [(); 3].map(|()| MockNode::tcp().unwrap());
    let home = Home::new().chain_with_key(CHAIN, "", &provider);
    let home = hsm.equip(nodes.iter().fold(home, |home, node| home.node(&node.address(), CHAIN, ""))).init();
    let mut signer = home.start();
    signer.wait_for_log("device up");
    let mut sessions = nodes.each_ref().map(|node| node.accept().unwrap());
    // Each is fine by itself.
    hsm.faults().plan(&["every sign delay 900"]);
    let answers = thread::scope(|scope| {
        let asked = (1..).zip(&mut sessions).map(|(height, session)| {
            thread::sleep(Duration::from_millis(50));
            scope.spawn(move || ask(session, prevote(height, 0, Some(7))))
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer in time")).collect::<Vec<_>>()
    });
    assert!(answers[0].0.is_ok(), "the first is signed: {answers:?}");
    hsm.faults().plan(&["sign pass"]);
    for (height, session) in (10..).step_by(1000).zip(&mut sessions) {
        sign_at_last(session, &key, height);
    }
}

/// All that was signed: for one height, round and step only ever one message.
#[derive(Default)]
struct History(BTreeMap<(i64, i32, i32), String>);

impl History {
    fn note(&mut self, vote: &Vote) {
        let message = format!("{:?} at {:?}", vote.block_id, vote.timestamp);
        let first = self.0.entry((vote.height, vote.round, vote.r#type)).or_insert_with(|| message.clone());
        assert_eq!(*first, message, "two messages were signed at height {}", vote.height);
    }
}

#[test]
fn twenty_kills_of_the_child_lose_no_link_and_sign_nothing_twice() {
    const KILLS: usize = 20;
    let Some(scene) = Scene::softhsm() else { return };
    let (mut signer, mut session) = scene.start();
    let id = signer.id();
    let (stop, signed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut history = History::default();
    let (mut longest_gap, mut lost, mut last) = (Duration::ZERO, 0, Instant::now());
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let _stopper = SetAtEnd(&stop);
            let mut killed = 0;
            let deadline = Instant::now() + PATIENCE;
            while killed < KILLS && Instant::now() < deadline {
                // SoftHSM writes the token anew at each login, and a kill at that moment destroys it. So only a child
                // that has signed is killed.
                let (modules, before) = (Descendant::modules_of(id), signed.load(Ordering::Relaxed));
                while signed.load(Ordering::Relaxed) < before + 2 && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(1));
                }
                thread::sleep(Duration::from_millis(RandomState::new().hash_one(killed) % 60));
                for module in modules.iter().filter(|module| module.is_running()) {
                    module.kill();
                    killed += 1;
                }
            }
            killed
        });
        let mut height = 0;
        while !stop.load(Ordering::Relaxed) {
            height += 1;
            for vote in [prevote(height, 0, Some(7)), precommit(height, 0, Some(7))] {
                match ask(&mut session, vote).0 {
                    Ok(vote) => {
                        assert_vote_signed(&scene.key, CHAIN, &vote);
                        history.note(&vote);
                        signed.fetch_add(1, Ordering::Relaxed);
                        longest_gap = longest_gap.max(last.elapsed());
                        last = Instant::now();
                    }
                    Err(refusal) => {
                        assert_eq!(refusal.code, KEY_UNAVAILABLE, "{refusal:?}");
                        lost += 1;
                    }
                }
            }
            // What a node must never get beside the other.
            let (answer, _) = ask(&mut session, precommit(height, 0, Some(8)));
            answer.iter().for_each(|vote| history.note(vote));
        }
        assert!(killer.join().unwrap() >= KILLS, "every kill found a child");
        sign_at_last(&mut session, &scene.key, height + 1);
    });
    signer.assert_running();
    eprintln!(
        "{KILLS} kills: {} votes signed, {lost} refused, the longest gap between two {longest_gap:?}",
        history.0.len()
    );
    assert!(history.0.len() > KILLS, "only {} votes", history.0.len());
    assert!(lost <= KILLS && longest_gap < LIMIT + LIMIT, "{lost} refused, longest gap {longest_gap:?}");
}

/// Small random numbers that a seed repeats (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }

    /// Faults for some hundred signatures.
    fn schedule(&mut self) -> Vec<String> {
        const LINES: usize = 200;
        const HANGS: usize = 4;
        let mut plan = Vec::new();
        while plan.len() < LINES {
            match self.below(26) {
                0..=16 => plan.push("sign pass".into()),
                17 => plan.push(format!("sign rv {:#x}", self.pick(&TROUBLE))),
                18 => plan.push(format!("sign rv {:#x}", self.pick(&REJECTIONS))),
                19 => plan.push(format!("sign stuck {:#x}", self.pick(&TROUBLE))),
                20 => plan.push("sign flip".into()),
                21 => plan.extend(["sign flip".into(), "sign flip".into()]),
                22 => plan.push(format!("sign delay {}", self.below(700))),
                23 => plan.push("sign segv".into()),
                24 => plan.push(format!("init rv {:#x}", self.pick(&TROUBLE))),
                // A session is opened only after something has ended the one before.
                _ => {
                    let then = self.pick(&["open rv 0xe0", "open segv", "login rv 0x30", "login segv"]);
                    plan.extend(["sign rv 0x32".into(), (*then).into()]);
                }
            }
        }
        for _ in 0..HANGS {
            let at = usize::try_from(self.below(LINES as u64)).unwrap();
            // Not between the two lines of a pair.
            let at = (at..plan.len()).find(|at| plan[*at].starts_with("sign")).unwrap_or(at);
            plan.insert(at, "sign hang".into());
        }
        plan
    }
}

/// Says by which seed a failed test can be repeated.
struct Seed(u64);

impl Seed {
    fn new() -> Self {
        let given = env::var("HIGHWATER_SEED").ok().map(|seed| seed.parse().expect("HIGHWATER_SEED is a number"));
        Self(given.unwrap_or_else(|| RandomState::new().hash_one(())))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- to repeat the schedule: HIGHWATER_SEED={} ---", self.0);
        }
    }
}

/// One of two nodes with the same key: it votes for one of two blocks, and now and then asks again.
struct Voter<'a> {
    random: Random,
    key: &'a PublicKey,
    height: &'a AtomicI64,
    history: &'a Mutex<History>,
    refusals: &'a AtomicUsize,
    stop: &'a AtomicBool,
}

impl Voter<'_> {
    /// Gives the longest answer, and the link.
    fn vote(mut self, mut session: Session) -> (Duration, Session) {
        let _stopper = SetAtEnd(self.stop);
        let mut longest = Duration::ZERO;
        while !self.stop.load(Ordering::Relaxed) {
            let height = self.height.load(Ordering::Relaxed);
            for make in [prevote, precommit] {
                let block = *self.random.pick(&[None, Some(7), Some(7), Some(7), Some(8)]);
                let time = 1_700_000_000 + i64::from(*self.random.pick(&[0, 0, 1]));
                longest = longest.max(self.ask(&mut session, vote_at(time, make(height, 0, block))));
            }
            self.height.fetch_max(height + 1, Ordering::Relaxed);
        }
        (longest, session)
    }

    fn ask(&mut self, session: &mut Session, vote: Vote) -> Duration {
        let begin = Instant::now();
        let answer = session.ask_vote(CHAIN, vote).expect("the link stays up");
        let took = begin.elapsed();
        match answer {
            Ok(vote) => {
                assert_vote_signed(self.key, CHAIN, &vote);
                self.history.lock().unwrap().note(&vote);
            }
            Err(refusal) => {
                assert!([100, 101, KEY_UNAVAILABLE].contains(&refusal.code), "{refusal:?}");
                if refusal.code == KEY_UNAVAILABLE {
                    self.refusals.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        took
    }
}

#[test]
fn under_random_faults_two_nodes_never_get_two_messages_and_always_an_answer() {
    let Some(hsm) = Hsm::softhsm() else { return };
    let seed = Seed::new();
    let mut random = Random(seed.0);
    let key = hsm.token(TOKEN, 0);
    let provider = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "consensus", &key)]);
    let nodes = [MockNode::tcp().unwrap(), MockNode::tcp().unwrap()];
    let home = Home::new().chain_with_key(CHAIN, "", &provider);
    let home = nodes.iter().fold(home, |home, node| home.node(&node.address(), CHAIN, ""));
    let home = hsm.equip(home).init();
    let faults = hsm.faults();
    let mut signer = home.start();
    signer.wait_for_log("device up");
    let schedule = random.schedule();
    let planned = schedule.len();
    faults.plan(&schedule);

    let (height, refusals, stop) = (AtomicI64::new(1), AtomicUsize::new(0), AtomicBool::new(false));
    let history = Mutex::new(History::default());
    let ends = thread::scope(|scope| {
        let _stopper = SetAtEnd(&stop);
        let voters = nodes.each_ref().map(|node| {
            let session = node.accept().unwrap();
            let random = Random(random.below(u64::MAX));
            let (height, refusals, stop) = (&height, &refusals, &stop);
            let voter = Voter { random, key: &key, height, history: &history, refusals, stop };
            scope.spawn(move || voter.vote(session))
        });
        let deadline = Instant::now() + PATIENCE;
        while faults.left() > 0 && Instant::now() < deadline && !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        voters.map(|voter| voter.join().unwrap())
    });
    let longest = ends.iter().map(|(longest, _)| *longest).max().unwrap();
    let (signed, refused, left) = (history.into_inner().unwrap().0.len(), refusals.into_inner(), faults.left());
    eprintln!(
        "{} of {planned} faults played: {signed} votes signed, {refused} refused, the slowest answer after {longest:?}",
        planned - left
    );
    assert!(longest < LIMIT, "an answer after {longest:?}");
    assert!(left < planned / 2 && signed > 20 && refused > 0, "{left} faults left, {signed} signed, {refused} refused");
    // The same signer over the same links.
    signer.assert_running();
    faults.plan(&["sign pass"]);
    // The device may be away for longer than a silent node keeps its link.
    let mut sessions = ends.map(|(_, session)| session);
    wait_until(|| {
        let above = height.fetch_add(1, Ordering::Relaxed) + 1;
        sessions.iter_mut().for_each(|session| session.ping().unwrap());
        ask(&mut sessions[0], prevote(above, 0, Some(7))).0.is_ok()
    });
    for session in &mut sessions {
        let above = height.fetch_add(1000, Ordering::Relaxed) + 1;
        sign_at_last(session, &key, above);
    }
}

#[test]
fn a_signer_that_lost_its_spawner_asks_for_a_restart_instead_of_limping() {
    let Some((scene, _faults)) = Scene::faulty() else { return };
    let (mut signer, mut session) = scene.start();
    sign_at_last(&mut session, &scene.key, 1);
    let spawner = Descendant::spawner_of(signer.id());
    let family = [vec![spawner.clone()], Descendant::modules_of(signer.id())].concat();
    spawner.kill();
    assert_eq!(signer.exit_code(), Some(70));
    assert_eq!(Descendant::survivors(&family, Duration::from_secs(2)), []);
    let (_signer, mut session) = scene.start();
    sign_at_last(&mut session, &scene.key, 2);
}

#[test]
fn no_process_outlives_the_signer() {
    const SOON: Duration = Duration::from_secs(2);
    let Some((scene, faults)) = Scene::faulty() else { return };
    for (height, (hangs, by_signal)) in (1..).zip([(false, false), (true, false), (false, true), (true, true)]) {
        faults.plan(&["sign pass"]);
        let (mut signer, mut session) = scene.start();
        sign_at_last(&mut session, &scene.key, 10 * height);
        let family = [vec![Descendant::spawner_of(signer.id())], Descendant::modules_of(signer.id())].concat();
        assert_eq!(family.len(), 2, "{family:?}");
        if hangs {
            faults.plan(&["sign hang"]);
            let vote = prevote(10 * height + 9, 0, Some(7));
            thread::scope(|scope| {
                let asking = scope.spawn(|| session.ask_vote(CHAIN, vote).is_ok_and(|answer| answer.is_ok()));
                wait_until(|| faults.left() == 0);
                end(&mut signer, by_signal);
                assert!(!asking.join().unwrap(), "nobody could have signed");
            });
        } else {
            end(&mut signer, by_signal);
        }
        assert_eq!(Descendant::survivors(&family, SOON), [], "hangs: {hangs}, SIGTERM: {by_signal}");
    }
}

fn end(signer: &mut Signer, by_signal: bool) {
    if by_signal {
        let begin = Instant::now();
        signer.sigterm();
        assert_eq!(signer.exit_code(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    } else {
        signer.sigkill();
    }
}

#[test]
fn a_v0_38_chain_is_signed_by_softhsm_through_a_kill_of_the_child() {
    const BLOCKS: u64 = 30;
    let (Some(binary), Some(hsm)) = (lab::cometbft("v0.38.25"), Hsm::softhsm()) else { return };
    let lab = lab::Lab::new();
    let node = node::Node::init(&lab, &binary, "node");
    let mut genesis = node.genesis();
    *node::extension_params(&mut genesis["consensus_params"]).unwrap() = json!("1");
    node.set_genesis(&genesis);
    let chain = node::chain_id(&genesis);
    let key = node.public_key();
    let address = format!("tcp://127.0.0.1:{}", lab::free_port());
    let key_file = node.use_signer(&address);
    hsm.token(TOKEN, 0);
    hsm.import(TOKEN, "imported", "77", &key_file);
    let id = chain.to_string();
    let provider = hsm.provider_with_file(hsm.module(), TOKEN, &[(&id, "imported", &key)]);
    let home = Home::new().chain_with_key(&id, "", &provider).node(&address, &id, "");
    let home = hsm.equip(home).init();

    // The signer comes first: a node exits if it has none within three seconds.
    let mut signer = home.start();
    let mut running = node.start(&app::serve());
    node.wait_for_blocks(&mut running, BLOCKS / 2);
    let killed = Descendant::modules_of(signer.id());
    killed.iter().for_each(Descendant::kill);
    let last = node.wait_for_blocks(&mut running, BLOCKS / 2 + 1) - 1;
    signer.assert_running();
    assert_eq!((killed.len(), key.key_type()), (1, KeyType::Ed25519));
    assert_ne!(Descendant::modules_of(signer.id()), killed, "a new child signs");
    assert!(last >= BLOCKS);
    for height in 1..=last {
        let commit = node.rpc.commit(height);
        assert_eq!(commit.signers(), 1, "height {height}");
        assert!(commit.is_signed_by(&key, &chain), "height {height}");
        node.rpc.block_without_evidence(height);
    }
    node.assert_no_alarm(&running);
}
