//! What `highwater pkcs11` makes of a module that fails: by the module that fails on command, in front of SoftHSM.

use super::token::{Scene, TOKEN};
use crate::support::{
    cli::{Answer, Home},
    hsm::{Faults, Hsm, PIN, faulty_module},
};
use serde_json::Value;
use std::{
    process::Command,
    time::{Duration, Instant},
};

const CHAIN_AND_NODE: &str = "[[chain]]\nid = \"test-1\"\nkey_format = { type = \"hex\" }\nstate_file = \"watermark\"\n\
                              [[validator]]\naddr = \"unix:///nowhere/node.sock\"\nchain_id = \"test-1\"\n";

/// A home with a configuration for one key on a token behind the faulty module.
struct Desk {
    home: Home,
    hsm: Hsm,
    faults: Faults,
}

impl Desk {
    fn new() -> Option<Self> {
        let hsm = Hsm::softhsm()?;
        let key = hsm.token(TOKEN, 0);
        let home = Home::new();
        let section = hsm.provider_with_file(&faulty_module(), TOKEN, &[("test-1", "consensus", &key)]);
        home.write("tmkms.toml", format!("{CHAIN_AND_NODE}{section}"));
        let faults = hsm.faults();
        faults.plan(&[] as &[&str]);
        let desk = Self { home, hsm, faults };
        desk.run("state init --never-signed").assert(0, "made", "");
        Some(desk)
    }

    fn run(&self, words: &str) -> Answer {
        let mut command: Command = self.home.highwater(words);
        command.envs(self.hsm.variables());
        let answer = self.home.finish(&mut command);
        for shown in [&answer.stdout, &answer.stderr] {
            assert!(!shown.contains(PIN), "{answer:?}");
        }
        answer
    }

    fn with(&self, plan: &[&str], words: &str) -> Answer {
        self.faults.plan(plan);
        self.run(words)
    }
}

const TEST: &str = "pkcs11 test --label consensus --count 3";

#[test]
fn a_crash_of_the_module_is_an_error_with_its_name() {
    let Some(desk) = Desk::new() else { return };
    for (plan, end) in [
        ("initialize segv", "was killed by signal 11 (SIGSEGV)"),
        ("initialize abort", "was killed by signal 6 (SIGABRT)"),
        ("initialize exit 3", "ended with exit code 3"),
    ] {
        for words in [TEST, "pkcs11 tokens", "pkcs11 keys list", "pkcs11 generate --id 09 --label new"] {
            let end =
                format!("libfaulty_pkcs11.so crashed: its process {end} while it was asked to initialise the module");
            desk.with(&[plan], words).assert(74, "", &end);
        }
    }
    // Where it may have changed the token, the error says so.
    let doubt = "SIGSEGV) while it was asked to generate a key|may or may not have done|`highwater pkcs11 keys list`";
    desk.with(&["generate segv"], "pkcs11 generate --id 09 --label new").assert(74, "", doubt);
}

#[test]
fn what_a_module_prints_never_mixes_with_the_answer() {
    let Some(desk) = Desk::new() else { return };
    for words in [&format!("{TEST} --json")[..], "pkcs11 tokens --json", "pkcs11 keys list --json"] {
        let answer = desk.with(&["initialize print hello"], words);
        assert_eq!(answer.code, 0, "{answer:?}");
        let value: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(value["schema"], 1);
    }
    let words = "the module's last words: card reader on fire";
    let warned = ["initialize warn card reader on fire", "slots rv 0x30"];
    for command in [TEST, "pkcs11 tokens"] {
        desk.with(&warned, command).assert(74, "", &format!("CKR_DEVICE_ERROR|{words}"));
    }
    desk.with(&warned, "check").assert(2, &format!("fail  |CKR_DEVICE_ERROR|{words}"), "");
    // Never the PIN.
    let words = format!("login warn the PIN is {PIN}!");
    desk.with(&[&words, "init rv 0x30"], TEST).assert(74, "", "last words: the PIN is ***!");
}

#[test]
fn an_answer_is_printed_before_the_module_is_closed() {
    let Some(desk) = Desk::new() else { return };
    for (number, (plan, end)) in
        (1..).zip([("every finalize hang", "did not come to an end"), ("finalize segv", "signal 11 (SIGSEGV)")])
    {
        let begin = Instant::now();
        let generate = format!("pkcs11 generate --id 1{number} --label new{number}");
        let note = format!("what is printed above is done|failed only when it was closed|{end}");
        desk.with(&[plan], &generate).assert(0, "generated, and its signature", &note);
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    }
}

#[test]
fn only_the_named_key_is_touched() {
    let Some(desk) = Desk::new() else { return };
    for number in 0..6 {
        desk.hsm.generate(TOKEN, &format!("other-{number}"));
    }
    let count = |words: &str| {
        let before = desk.faults.count("attribute");
        let answer = desk.run(words);
        assert_eq!(answer.code, 0, "{answer:?}");
        desk.faults.count("attribute") - before
    };
    let (one, all) = (count(TEST), count("pkcs11 keys list"));
    assert!(one > 0 && 2 * one < all, "{one} attributes of one key, {all} of all");
    let generate = count("pkcs11 generate --id 77 --label new");
    assert!(generate < all, "{generate} attributes to make a key, {all} of all keys");
}

#[test]
fn what_the_sandbox_keeps_from_a_module_is_said_by_test_and_check() {
    let Some(desk) = Desk::new() else { return };
    let plan = ["every initialize execmust"];
    let words = "CKR_FUNCTION_FAILED|lets it start no program|outside of its sandbox the module starts|\
                 What the sandbox keeps from it is starting a program";
    desk.with(&plan, TEST).assert(74, "", words);
    desk.with(&plan, "check").assert(2, &format!("fail  |{words}"), "");
    // Nothing is said of the sandbox where it is not why.
    let answer = desk.with(&["every slots rv 0x30"], TEST);
    answer.assert(74, "", "CKR_DEVICE_ERROR");
    assert!(!answer.stderr.contains("outside of its sandbox"), "{answer:?}");
}

#[test]
fn a_key_and_a_token_are_named_by_uri_or_by_both_parts() {
    let Some(desk) = Desk::new() else { return };
    desk.run("pkcs11 generate --id 0a0b --label %two").assert(0, "generated", "");
    let uri = |rest: &str| format!("pkcs11 test --count 1 {rest}");
    for good in [
        "--label pkcs11:object=%25two",
        "--id pkcs11:id=%0a%0B;object=%25two;type=private",
        "--id 0a0b --label %two",
        "--token pkcs11:token=validator;model=SoftHSM%20v2 --id 0a0b",
    ] {
        desk.run(&uri(good)).assert(0, "id       0a0b\nlabel    \"%two\"", "");
    }
    for (bad, code, words) in [
        ("--id 0a0b --label consensus", 66, "no private key on the token has id 0a0b and label \"consensus\""),
        ("--id 0a0b --label pkcs11:object=a", 64, "names the key alone"),
        ("--label pkcs11:token=validator", 64, "names no key"),
        ("--token pkcs11:object=a --id 0a0b", 64, "names no token"),
        ("--token pkcs11:token=other --id 0a0b", 64, "no [[providers.pkcs11]] for the token \"other\""),
        ("--label pkcs11:object=a?pin-source=/etc/pin", 64, "--pin-file \"/etc/pin\""),
        ("--label pkcs11:object=a?pin-value=hunter2", 64, "`pin-value`|change the PIN"),
        ("--token pkcs11:token=a;pin-value=hunter2 --id 01", 64, "`pin-value`"),
        ("--id pkcs11:id=%zz?pin-value=hunter2", 64, "`pin-value`"),
    ] {
        let answer = desk.run(&uri(bad));
        answer.assert(code, "", words);
        assert!(!answer.stderr.contains("hunter2"), "{answer:?}");
    }
    let answer = desk.run("pkcs11 generate --id 0c --label pkcs11:object=a?pin-value=hunter2");
    answer.assert(64, "", "a new key has a plain label");
    assert!(!answer.stderr.contains("hunter2"), "{answer:?}");
}

#[test]
fn a_module_that_others_can_write_fails() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let Some(hsm) = Hsm::softhsm() else { return };
    let key = hsm.token(TOKEN, 0);
    let home = Home::new();
    fs::create_dir(home.path("vendor")).unwrap();
    let module = home.path("vendor/module.so");
    fs::copy(hsm.module(), &module).unwrap();
    let section = hsm.provider_with_file(&module, TOKEN, &[("test-1", "consensus", &key)]);
    home.write("tmkms.toml", format!("{CHAIN_AND_NODE}{section}"));
    for (path, mode, words) in [
        (home.path("vendor"), 0o777, "every user can replace the PKCS#11 module"),
        (module, 0o666, "the PKCS#11 module|can be written by every user (mode 0666)|chmod go-w"),
    ] {
        let before = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        home.run("check").assert(2, &format!("fail  |{words}"), "");
        home.run("pkcs11 test --label consensus").assert(77, "", words);
        fs::set_permissions(&path, before).unwrap();
    }
}

#[test]
fn a_signer_logs_the_modules_words_its_end_and_what_its_sandbox_forbids() {
    for (plan, words) in [
        (&["every initialize warn card reader on fire", "every slots rv 0x30"][..], "card reader on fire"),
        (&["every initialize segv"], "was killed by signal 11 (SIGSEGV)"),
        (&["every initialize execmust"], "lets it start no program"),
    ] {
        let Some((scene, faults)) = Scene::faulty() else { return };
        faults.plan(plan);
        let mut signer = scene.home.start();
        signer.wait_for_log(words);
    }
}
