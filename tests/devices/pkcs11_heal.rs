//! Which logins are made, and which troubles of a token end by themselves.

use super::token::*;
use crate::support::{
    hsm::{Descendant, Faults, Hsm, PIN, faulty_module},
    mock_node::prevote,
    signer::Signer,
};
use highwater_core::consensus::{KeyType, PublicKey};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// How soon a token signs again once the cause is gone.
const SOON: Duration = Duration::from_secs(8);
/// Longer than a child may be silent while it does anything else than log in.
const SLOW_LOGIN: Duration = Duration::from_secs(23);

/// A scene with this PIN in the file.
fn scene_with_pin(pin: &str) -> Option<(Scene, Faults)> {
    let hsm = Hsm::softhsm()?;
    let key = hsm.token(TOKEN, 0);
    let file = hsm.pin_file("pin", pin);
    let source = format!("{{ file = {file:?} }}");
    let provider = hsm.provider(&faulty_module(), TOKEN, &source, &[(CHAIN, "consensus", &key)]);
    let scene = Scene::with_provider(hsm, &provider, key);
    let faults = scene.hsm.faults();
    Some((scene, faults))
}

/// A scene whose module is a file that a test may move away.
fn scene_with_own_module() -> Option<(Scene, PathBuf)> {
    let hsm = Hsm::softhsm()?;
    fs::create_dir(hsm.path("module")).unwrap();
    let module = hsm.path("module/hsm.so");
    fs::copy(faulty_module(), &module).unwrap();
    Some((Scene::new(hsm, &module), module))
}

/// Makes a key with a name of its own on the token in this slot.
fn another_key(hsm: &Hsm, slot_index: &str) {
    let mut command = Command::new("pkcs11-tool");
    command.arg("--module").arg(hsm.module()).args(["--slot-index", slot_index, "--login", "--pin", PIN]);
    command.args(["--keypairgen", "--key-type", "EC:edwards25519", "--label", "other"]).envs(hsm.variables());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn kill_children(signer: &Signer) {
    Descendant::modules_of(signer.id()).iter().for_each(Descendant::kill);
}

/// Waits for the first login, and returns the child that logs in.
fn child_at_login(signer: &Signer, faults: &Faults) -> Descendant {
    wait_until(|| faults.count("login") == 1);
    let children = Descendant::modules_of(signer.id());
    let [child] = children.as_slice() else { panic!("one child, not {children:?}") };
    child.clone()
}

#[test]
fn a_wrong_pin_whose_answer_takes_long_is_sent_once_over_kills_commands_and_restarts() {
    let Some((scene, faults)) = scene_with_pin("11111111") else { return };
    let delay = format!("login postdelay {}", SLOW_LOGIN.as_millis());
    // The token shows no count, so nothing but the signer's own memory keeps the PIN back.
    faults.plan(&["every tokeninfo clear 0x70000", &delay]);
    let mut signer = scene.home.start();
    let child = child_at_login(&signer, &faults);
    let begin = Instant::now();
    let mut session = scene.node.accept().unwrap();
    while begin.elapsed() < SLOW_LOGIN - Duration::from_secs(2) {
        session.ping().unwrap();
        assert!(child.is_running(), "a login is never cut off");
        thread::sleep(Duration::from_millis(500));
    }
    let (why, _) = refused(&mut session, prevote(1, 0, Some(7)));
    assert!(why.contains("C_Login was called at 2") && why.contains("is waited for"), "{why}");
    // Killed before the answer: nobody knows whether the PIN was right.
    signer.sigkill();
    faults.plan(&["every tokeninfo clear 0x70000"]);
    let checked = scene.check();
    for words in ["no answer came", "the file", "pkcs11-tool", "delete", "pkcs11-login-"] {
        assert!(checked.contains(words), "{words} is not in {checked}");
    }
    let tested = scene.home.command(&["pkcs11", "test", "--label", "consensus"]).output().unwrap();
    assert_eq!(tested.status.code(), Some(77), "{tested:?}");
    let mut signer = scene.home.start();
    signer.wait_for_log("no answer came");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(faults.count("login"), 1);
    // The right PIN is sent at once.
    scene.hsm.pin_file("pin", PIN);
    let mut session = scene.node.accept().unwrap();
    sign_at_last(&mut session, &scene.key, 2);
    assert_eq!(faults.count("login"), 2);
}

#[test]
fn a_slow_login_is_waited_for_however_long_it_takes() {
    let Some((scene, faults)) = scene_with_pin(PIN) else { return };
    faults.plan(&[format!("login delay {}", SLOW_LOGIN.as_millis())]);
    let begin = Instant::now();
    let signer = scene.home.start();
    let child = child_at_login(&signer, &faults);
    let mut session = scene.node.accept().unwrap();
    while !signer.log().contains("device up") {
        assert!(begin.elapsed() < SLOW_LOGIN + PATIENCE, "it never came up: {}", signer.log());
        session.ping().unwrap();
        thread::sleep(Duration::from_millis(500));
    }
    assert!(begin.elapsed() >= SLOW_LOGIN && child.is_running());
    sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
    assert_eq!(faults.count("login"), 1);
}

#[test]
fn a_login_goes_on_when_the_signer_has_gone() {
    let Some((scene, faults)) = scene_with_pin(PIN) else { return };
    faults.plan(&["login delay 3000"]);
    let mut signer = scene.home.start();
    let child = child_at_login(&signer, &faults);
    signer.sigkill();
    thread::sleep(Duration::from_secs(1));
    assert!(child.is_running(), "a login is never cut off");
    wait_until(|| !child.is_running());
}

#[test]
fn a_pin_that_is_refused_for_one_use_of_a_key_is_not_sent_again() {
    let Some(hsm) = Hsm::softhsm() else { return };
    hsm.token(TOKEN, 0);
    let key = hsm.generate_with(TOKEN, "careful", &["--always-auth"]);
    let provider = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "careful", &key)]);
    let scene = Scene::with_provider(hsm, &provider, key);
    let faults = scene.hsm.faults();
    let (_signer, mut session) = scene.start();
    sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
    let logins = faults.count("login");
    faults.plan(&["context rv 0xa0"]);
    refused(&mut session, prevote(2, 0, Some(7)));
    thread::sleep(Duration::from_secs(2));
    let (why, _) = refused(&mut session, prevote(3, 0, Some(7)));
    assert!(why.contains("refused the PIN") && why.contains("It is not sent again"), "{why}");
    assert_eq!((faults.count("login"), faults.left()), (logins, 0));
}

#[test]
fn an_unclear_answer_to_a_later_login_heals_by_itself() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let (_signer, mut session) = scene.start();
    let mut height = 0;
    for code in ["0x80000384", "0x50", "0x104"] {
        height += 1;
        sign(&mut session, &scene.key, prevote(height, 0, Some(7)));
        faults.plan(&["sign rv 0x30".to_owned(), format!("login rv {code}")]);
        refused(&mut session, prevote(height + 1, 0, Some(7)));
        let begin = Instant::now();
        height = sign_at_last(&mut session, &scene.key, height + 2);
        assert!(begin.elapsed() < SOON, "{code}: {:?}", begin.elapsed());
        assert_eq!(faults.left(), 0);
    }
}

#[test]
fn the_first_login_with_an_unclear_answer_counts_as_a_wrong_pin() {
    let Some((scene, faults)) = scene_with_pin(PIN) else { return };
    faults.plan(&["login rv 0x80000384"]);
    let mut signer = scene.home.start();
    signer.wait_for_log("which can mean a wrong PIN");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(faults.count("login"), 1);
    // As the message says: it is right, so its note is deleted.
    let notes: Vec<_> = fs::read_dir(scene.home.path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let note = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("pkcs11-login-");
    let note = notes.iter().find(note).unwrap_or_else(|| panic!("no note in {notes:?}"));
    assert_eq!(fs::metadata(note).unwrap().permissions().mode() & 0o777, 0o600);
    fs::remove_file(note).unwrap();
    let mut session = scene.node.accept().unwrap();
    sign_at_last(&mut session, &scene.key, 1);
    assert_eq!(faults.count("login"), 2);
}

#[test]
fn a_module_that_is_away_for_a_while_is_found_again() {
    let Some((scene, module)) = scene_with_own_module() else { return };
    let away = module.with_extension("away");
    {
        let (signer, mut session) = scene.start();
        sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
        fs::rename(&module, &away).unwrap();
        kill_children(&signer);
        let (why, _) = refused(&mut session, prevote(2, 0, Some(7)));
        assert!(why.contains("cannot load the PKCS#11 module"), "{why}");
        thread::sleep(Duration::from_secs(2));
        fs::rename(&away, &module).unwrap();
        let begin = Instant::now();
        sign_at_last(&mut session, &scene.key, 3);
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    }
    // Also a start that comes before the module.
    fs::rename(&module, &away).unwrap();
    let mut signer = scene.home.start();
    signer.wait_for_log("cannot load the PKCS#11 module");
    let mut session = scene.node.accept().unwrap();
    refused(&mut session, prevote(1000, 0, Some(7)));
    signer.assert_running();
    fs::rename(&away, &module).unwrap();
    let begin = Instant::now();
    sign_at_last(&mut session, &scene.key, 1001);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn the_pinned_key_picks_among_tokens_and_keys_with_one_name() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let (signer, mut session) = scene.start();
    sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
    // Keys first: by then the label alone still names one token for the tool that makes them.
    scene.hsm.impostors("validator", "consensus");
    kill_children(&signer);
    let begin = Instant::now();
    let height = sign_at_last(&mut session, &scene.key, 2);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    // A token that shows no key may hold any.
    scene.hsm.twin(TOKEN);
    kill_children(&signer);
    let (why, _) = refused(&mut session, prevote(height + 1, 0, Some(7)));
    assert!(why.contains("more than one token matches"), "{why}");
    for slot in ["0", "1"] {
        another_key(&scene.hsm, slot);
    }
    let begin = Instant::now();
    sign_at_last(&mut session, &scene.key, height + 2);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    // One login for each child: no PIN went to the other token.
    assert_eq!(faults.count("login"), 3);
    // `check` and a start choose as well.
    drop(signer);
    let checked = scene.check();
    assert!(checked.contains("signs in"), "{checked}");
}

#[test]
fn somebody_elses_wrong_pin_does_not_keep_a_proven_one_back() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let (signer, mut session) = scene.start();
    sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
    scene.hsm.log_in_wrongly(TOKEN);
    kill_children(&signer);
    let begin = Instant::now();
    sign_at_last(&mut session, &scene.key, 2);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    drop((signer, session));

    // A signer that has not logged in yet waits for the operator, who does what the message says.
    scene.hsm.log_in_wrongly(TOKEN);
    let logins = faults.count("login");
    let mut signer = scene.home.start();
    signer.wait_for_log("CKF_USER_PIN_COUNT_LOW");
    let mut session = scene.node.accept().unwrap();
    let (why, _) = refused(&mut session, prevote(1000, 0, Some(7)));
    assert!(why.contains("pkcs11-tool --module") && why.contains("without a restart"), "{why}");
    assert_eq!(faults.count("login"), logins);
    scene.hsm.log_in(TOKEN);
    let begin = Instant::now();
    sign_at_last(&mut session, &scene.key, 1001);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn logins_that_lead_to_no_signature_become_rare() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let (signer, mut session) = scene.start();
    sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
    let before = faults.count("login");
    faults.plan(&["every sign rv 0x101"]);
    refused(&mut session, prevote(2, 0, Some(7)));
    thread::sleep(Duration::from_secs(10));
    let logins = faults.count("login") - before;
    // Three at once, and then after half a second, 1, 2 and 4 seconds.
    assert!((2..=7).contains(&logins), "{logins} logins: {}", signer.log());
    faults.plan(&["sign pass"]);
    sign_at_last(&mut session, &scene.key, 3);
}

#[test]
fn a_second_token_with_the_same_key_takes_over() {
    let Some(hsm) = Hsm::softhsm() else { return };
    hsm.token(TOKEN, 0);
    hsm.token("backup", 1);
    let seed = [0x37; 32];
    let file = hsm.path("import.key");
    fs::write(&file, subtle_encoding::base64::encode(seed)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    for token in [TOKEN, "backup"] {
        hsm.import(token, "shared", "77", &file);
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    let key = PublicKey::from_bytes(KeyType::Ed25519, key.as_bytes()).unwrap();
    let first = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "shared", &key)]);
    let second = hsm.provider_with_file(hsm.module(), "backup", &[(CHAIN, "shared", &key)]);
    let scene = Scene::with_provider(hsm, &format!("{first}{second}"), key);
    let faults = scene.hsm.faults();
    let signer = scene.home.start();
    wait_until(|| signer.log().matches("device up").count() == 2);
    let mut session = scene.node.accept().unwrap();
    let signed = |what: &str| faults.count(what);
    let before = signed("sign");
    sign(&mut session, &scene.key, prevote(1, 0, Some(7)));
    assert_eq!(signed("sign"), before + 1, "the first signs while it is well");
    // No vote is lost when the first breaks, and none while it is away.
    faults.plan(&["sign rv 0x32", "every open rv 0xe0"]);
    for height in 2..10 {
        sign(&mut session, &scene.key, prevote(height, 0, Some(7)));
    }
    faults.plan(&["sign pass"]);
    wait_until(|| signer.log().matches("device up").count() == 3);
    let before = signed("sign");
    sign(&mut session, &scene.key, prevote(10, 0, Some(7)));
    assert_eq!(signed("sign"), before + 1, "the first is back");
}
