//! Keys in devices: SoftHSM and Kryoptic sign through the real signer, and fail in every way that a module can.

use super::token::*;
use crate::support::{
    assert_vote_signed,
    hsm::{Descendant, Hsm, PIN, faulty_module},
    mock_node::{MockNode, Session, precommit, prevote},
    signer::Home,
};
use highwater_core::consensus::PublicKey;
use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

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
    // The second start and the check know that this PIN was refused.
    for _ in 0..2 {
        let mut signer = scene.home.start();
        signer.wait_for_log("device down: ");
        let mut session = scene.node.accept().unwrap();
        for height in 1..=20 {
            let (why, _) = refused(&mut session, prevote(height, 0, Some(7)));
            assert!(why.contains("CKR_PIN_INCORRECT") && !why.contains("11111111"), "{why}");
            thread::sleep(Duration::from_millis(20));
        }
        session.ask_pub_key(CHAIN).unwrap().unwrap();
        drop(signer);
        let checked = scene.check();
        assert!(checked.contains("refused the PIN in the file"), "{checked}");
        assert_eq!(faults.count("login"), 1);
    }

    // A changed PIN is sent at once. It is wrong too, and this time the token counts.
    faults.plan(&[""; 0]);
    let mut signer = scene.home.start();
    let mut session = scene.node.accept().unwrap();
    scene.hsm.pin_file("pin", "22222222");
    wait_until(|| faults.count("login") == 2);
    // The right one is not sent either before somebody has logged in. What the message says works.
    scene.hsm.pin_file("pin", PIN);
    signer.wait_for_log("reports that a wrong PIN was sent");
    assert!(signer.log().contains("--token-label 'validator' --login --list-objects"), "{}", signer.log());
    let (why, _) = refused(&mut session, prevote(1, 0, Some(7)));
    assert!(why.contains("CKF_USER_PIN_COUNT_LOW"), "{why}");
    assert_eq!((faults.count("login"), scene.home.mark(CHAIN).0), (2, 0));
    scene.hsm.log_in(TOKEN);
    sign_at_last(&mut session, &scene.key, 2);
    for pin in ["11111111", "22222222", PIN] {
        assert!(!signer.log().contains(pin));
    }
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
    signer.wait_for_log("device down: ");
    for height in 1..=3 {
        let (why, _) = refused(&mut session, prevote(height, 0, Some(7)));
        assert!(why.contains("the configuration pins"), "{why}");
        thread::sleep(Duration::from_millis(100));
    }
    // Nothing was signed with it, not even a self-test, and it is not logged in to again and again.
    assert_eq!(scene.hsm.faults().count("sign"), 0);
    assert!(scene.hsm.faults().count("login") <= 3, "{:?}", scene.hsm.faults().log());
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
