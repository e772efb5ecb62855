//! The command line as an operator meets it: what each command says, what it exits with, and what it leaves alone.

use crate::support::cli::{Guard, Home, seed, wait_for};
use serde_json::Value;
use sha2::{Digest as _, Sha512};
use std::{
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    process::Stdio,
};
use subtle_encoding::{base64, hex};

const VERSION: &str = concat!("highwater ", env!("CARGO_PKG_VERSION"), "\n");
/// A command and its exit code. Its words are in `tests/cmd/`.
type Case = (&'static str, i32);

/// Runs the cases one after the other. What fails or only looks changes nothing. A refusal goes to standard error, a finding
/// to standard output.
#[track_caller]
pub fn table(home: &Home, cases: &[Case]) {
    for (words, code) in cases {
        let before = home.snapshot();
        let answer = home.run(words);
        eprintln!("$ highwater {words}\n{}{}[{}]\n", answer.stdout, answer.stderr, answer.code);
        assert_eq!(answer.code, *code, "{words}: {answer:?}");
        match *code {
            0 => {}
            1 | 2 => assert!(answer.stderr.is_empty() && !answer.stdout.is_empty(), "{words}: {answer:?}"),
            _ => assert!(answer.stdout.is_empty() && !answer.stderr.is_empty(), "{words}: {answer:?}"),
        }
        let only_looks = words.contains("show") || words.contains("check");
        if only_looks {
            home.assert_untouched(&before, words);
        } else if *code != 0 {
            // A state file that is opened is written anew: what an earlier process left may not be on the disk.
            home.assert_same(&before, words);
        }
    }
}

pub fn mode_of(home: &Home, name: &str) -> u32 {
    fs::metadata(home.path(name)).unwrap().mode() & 0o7777
}

pub fn chmod(home: &Home, name: &str, mode: u32) {
    fs::set_permissions(home.path(name), Permissions::from_mode(mode)).unwrap();
}

pub fn replace_in(home: &Home, name: &str, old: &str, new: &str) {
    let text = fs::read_to_string(home.path(name)).unwrap();
    assert!(text.contains(old), "{old:?} is in {text}");
    home.write(name, text.replacen(old, new, 1));
}

pub fn public_key_hex() -> String {
    let public = ed25519_dalek::SigningKey::from_bytes(&seed()).verifying_key();
    String::from_utf8(hex::encode(public.to_bytes())).unwrap()
}

#[test]
fn help_version_and_typing_mistakes() {
    let home = Home::new();
    table(
        &home,
        &[
            ("version", 0),
            ("--version", 0),
            ("-V", 0),
            ("--help", 0),
            ("state --help", 0),
            ("help softsign", 0),
            ("pkcs11 --help", 0),
            ("", 64),
            ("state", 64),
            ("softsign", 64),
            ("sing", 64),
            ("init -n no/net .", 64),
        ],
    );
    assert_eq!(home.run("version").stdout, VERSION);
}

#[test]
fn check_finds_what_is_wrong_and_changes_nothing() {
    let home = Home::with_chain();
    table(&home, &[("check", 2)]);
    home.run("state init --never-signed").assert(0, "made", "");
    table(&home, &[("check", 0)]);

    replace_in(&home, "tmkms.toml", "[[validator]]\n", "[[validator]]\ntimeout = 3\n");
    table(&home, &[("check", 1)]);
    chmod(&home, "consensus.key", 0o644);
    table(&home, &[("check", 2), ("start", 65)]);
    chmod(&home, "consensus.key", 0o600);
    replace_in(&home, "tmkms.toml", "timeout = 3", "timeuot = 3");
    table(&home, &[("check", 2)]);
    table(&home, &[("check -c none.toml", 2)]);

    let home = Home::with_chain();
    home.write("watermark", r#"{"height":"9","round":"0","step":1,"block_id":null}"#);
    table(&home, &[("check", 2), ("start", 65)]);
    home.write("watermark", r#"{"height":"9","round":0,"step":1}"#);
    table(&home, &[("check", 2), ("start", 65), ("state import", 65)]);
}

#[test]
fn mistakes_in_the_configuration_are_shown_with_their_lines() {
    let home = Home::with_chain();
    replace_in(&home, "tmkms.toml", "key_format", "key_fromat");
    replace_in(&home, "tmkms.toml", "addr = \"unix://", "addr = \"unix:/");
    for command in ["start", "state show", "state init --never-signed", "state import a", "state raise --height 1"] {
        table(&home, &[(command, 78)]);
    }
    table(&home, &[("check", 2)]);

    // A line with a secret in it is named, not shown.
    let secret = String::from_utf8(base64::encode(seed())).unwrap();
    home.write("tmkms.toml", format!("[[providers.yubihsm]]\nauth = {{ key = 1, password = \"{secret} }}\n"));
    table(&home, &[("start", 78), ("check", 2)]);
    home.write("tmkms.toml", b"\xff\xfe");
    table(&home, &[("start", 78)]);
}

#[test]
fn the_configuration_is_found_as_tmkms_finds_it() {
    let home = Home::new();
    for name in ["tmkms.toml", "environment.toml", "option.toml"] {
        home.write(name, "nonsense");
    }
    for (words, variable, expected) in [
        ("state show", None, "./tmkms.toml:1: "),
        ("state show", Some(""), "./tmkms.toml:1: "),
        ("state show", Some("environment.toml"), "environment.toml:1: "),
        ("state show -c option.toml", Some("environment.toml"), "option.toml:1: "),
        ("start --config option.toml", None, "option.toml:1: "),
        ("start", Some("nowhere.toml"), "nowhere.toml: the configuration cannot be read"),
    ] {
        let mut command = home.highwater(words);
        if let Some(variable) = variable {
            command.env("TMKMS_CONFIG_FILE", variable);
        }
        let answer = home.finish(&mut command);
        answer.assert(if expected.starts_with("nowhere") { 66 } else { 78 }, "", expected);
        assert!(answer.stderr.starts_with(&format!("highwater: {expected}")), "{answer:?}");
    }
}

/// Starts `highwater` with its output into pipes that nobody reads any more.
fn into_closed_pipes(home: &Home, words: &str) -> Guard {
    let closed = || io::pipe().unwrap().1;
    Guard(home.highwater(words).stdin(Stdio::null()).stdout(closed()).stderr(closed()).spawn().unwrap())
}

#[test]
fn nobody_has_to_read_what_is_said() {
    let home = Home::with_chain();
    home.run("state init --never-signed").assert(0, "made", "");
    for (words, code) in [
        ("", 64),
        ("--help", 0),
        ("version", 0),
        ("bogus", 64),
        ("state show", 0),
        ("state show --json", 0),
        ("state init", 64),
        ("check", 0),
        ("softsign keygen a.key", 0),
        ("softsign keygen a.key", 73),
        ("softsign import a.key b.key", 0),
        ("init home", 0),
        ("start -c none", 66),
    ] {
        assert_eq!(into_closed_pipes(&home, words).wait().code(), Some(code), "`highwater {words}`");
    }

    // A full disk is another matter, and whatever was not written can be asked for again.
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let to_full = |words: &str| home.finish_into(full(), &mut home.highwater(words));
    for words in ["state show", "version", "state export --format cometbft"] {
        to_full(words).assert(74, "", "cannot write the answer");
    }
    home.run("state export --format cometbft").assert(0, "\"height\":\"0\"", "is retired");
}

#[test]
fn a_signer_goes_on_without_a_reader_for_its_log() {
    let home = Home::with_chain();
    home.run("state init --never-signed").assert(0, "made", "");
    let node = UnixListener::bind(home.path("node.sock")).unwrap();
    node.set_nonblocking(true).unwrap();
    let mut signer = into_closed_pipes(&home, "start --verbose");
    for _ in 0..2 {
        // Hung up on, it says so to nobody, and dials again.
        drop(wait_for("the signer to dial", || node.accept().ok()));
    }
    assert!(signer.terminate().success());
}

#[test]
fn log_lines_are_text_or_json() {
    let home = Home::with_chain();
    home.run("state init --never-signed").assert(0, "made", "");
    for (words, line) in [
        ("start", " INFO chain open chain=test-1 key=\""),
        ("start --log-format text", " INFO chain open chain=test-1 key=\""),
        ("start --log-format json", "\"level\":\"INFO\",\"message\":\"chain open\",\"chain\":\"test-1\""),
    ] {
        let mut signer = home.spawn("signer", &mut home.highwater(words));
        signer.wait_for_line(line);
        signer.wait_for_line("link lost");
        for line in signer.log().lines() {
            assert_eq!(serde_json::from_str::<Value>(line).is_ok(), words.ends_with("json"), "{line}");
            assert!(!line.contains('\u{1b}'), "{line}");
        }
        assert!(signer.terminate().success());
    }
}

#[test]
fn the_last_line_of_a_log_of_json_is_json_too() {
    let home = Home::with_chain();
    // Without a state file, with a configuration that is none, and without one.
    for (name, code, words) in
        [("tmkms.toml", 65, "no chain can sign"), ("node.toml", 78, "not TOML"), ("none.toml", 66, "cannot be read")]
    {
        home.write("node.toml", "what is this");
        let answer = home.run(&format!("start --log-format json -c {name}"));
        assert_eq!(answer.code, code, "{answer:?}");
        let lines: Vec<Value> = answer
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{last}");
        assert!(last["message"].as_str().unwrap().contains(words), "{last}");
        assert!(last["timestamp"].as_str().unwrap().ends_with('Z'), "{last}");
        home.run(&format!("start -c {name}")).assert(code, "", &format!("highwater: |{words}"));
    }
}

#[test]
fn the_search_for_secrets_finds_them() {
    let home = Home::with_chain();
    home.run("softsign keygen made.key").assert(0, "made", "");
    let made = fs::read_to_string(home.path("made.key")).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    for leak in [
        text(base64::encode(seed())),
        text(hex::encode(seed())),
        text(hex::encode_upper(&seed()[..16])),
        format!("{:?}", seed()),
        text(hex::encode(Sha512::digest(seed()))),
        text(hex::encode(base64::decode(&made).unwrap())),
        made,
    ] {
        assert!(home.secret_in(&format!("error: {leak}!")).is_some(), "{leak}");
    }
    assert_eq!(home.secret_in(&public_key_hex()), None);
}

#[test]
fn check_says_what_to_install_for_a_device() {
    let home = Home::with_chain();
    let text = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    let token = "[[providers.pkcs11]]\nprofile = \"yubihsm2-pkcs11\"\nmodule = \"/nowhere/hsm.so\"\n\
                 token = { label = \"validator\" }\npin = { fd = 3 }\nkeys = []\n";
    home.write("tmkms.toml", text + token);
    let mut check = home.highwater("check");
    let output = check.env_remove("YUBIHSM_PKCS11_CONF").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stdout}");
    for words in [
        "ok    token \"validator\": the profile yubihsm2-pkcs11 is tested with yubihsm_pkcs11 2.8.0",
        "fail  token \"validator\": there is no /nowhere/hsm.so: install Yubico's yubihsm-shell",
        "warn  token \"validator\": its module may need the environment variable YUBIHSM_PKCS11_CONF: set it to the path",
    ] {
        assert!(stdout.contains(words), "{words:?} is in\n{stdout}");
    }
}
