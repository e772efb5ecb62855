//! The command line as an operator meets it: what each command says, what it exits with, and what it leaves alone.

use crate::support::cli::{CHAIN, Guard, Home, seed, wait_for};
use serde_json::{Value, json};
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
fn table(home: &Home, cases: &[Case]) {
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

fn mode_of(home: &Home, name: &str) -> u32 {
    fs::metadata(home.path(name)).unwrap().mode() & 0o7777
}

fn chmod(home: &Home, name: &str, mode: u32) {
    fs::set_permissions(home.path(name), Permissions::from_mode(mode)).unwrap();
}

fn replace_in(home: &Home, name: &str, old: &str, new: &str) {
    let text = fs::read_to_string(home.path(name)).unwrap();
    assert!(text.contains(old), "{old:?} is in {text}");
    home.write(name, text.replacen(old, new, 1));
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
            ("pkcs11 import a.key --id 1 --label a", 64),
            ("pkcs11 import a.key --id 01", 64),
            ("pkcs11 test --id 01 --label a", 64),
            ("pkcs11 test --id 01 --count 0", 64),
            ("pkcs11 keys list --pin-file a --pin-fd 3", 64),
            ("", 64),
            ("state", 64),
            ("softsign", 64),
            ("sing", 64),
            ("stat", 64),
            ("start --foo", 64),
            ("start --log-format xml", 64),
            ("state export", 64),
            ("state export --format horcrux", 64),
            ("state raise", 64),
            ("state raise --height 0", 64),
            ("state raise --height -5", 64),
            ("state init --height 5 --never-signed", 64),
            ("state init --height 9223372036854775808", 64),
            ("softsign keygen", 64),
            ("softsign import one", 64),
            ("softsign keygen -t bls a.key", 64),
            ("init", 64),
            ("init -n nonet .", 64),
            ("init -n osmosis,nonet .", 64),
        ],
    );
    assert_eq!(home.run("version").stdout, VERSION);
}

#[test]
fn the_life_of_a_watermark() {
    let home = Home::with_chain();
    home.write("garbage", "what is this");
    home.write("garbage.json", "{ \"height\": ");
    home.write("empty", "");
    table(
        &home,
        &[
            ("state show", 66),
            ("state raise --height 5", 66),
            ("state export --format tmkms", 66),
            ("start", 65),
            ("state init", 64),
            ("state import nowhere", 66),
            ("state import garbage", 65),
            ("state import empty", 65),
            ("state import", 66),
            ("state import garbage.json", 65),
            ("state init --never-signed", 0),
            ("state init --never-signed", 73),
            ("state init --height 5", 73),
            ("state show", 0),
            ("state raise --height 5", 0),
            ("state raise --height 5", 65),
            ("state raise --height 4", 65),
            ("state raise --height 9 --json", 0),
            ("state import garbage", 65),
            ("state import nowhere", 66),
            ("state import watermark.highwater", 65),
            ("state import", 65),
            ("state export --format tmkms -o tmkms.toml", 73),
            ("state export --format tmkms -o no/where", 73),
            ("state show", 0),
            ("state export --format tmkms -o exported", 0),
            ("state show", 0),
            ("state raise --height 10", 65),
            ("state import watermark.highwater", 65),
            ("state import exported", 65),
            ("state export --format tmkms", 0),
            ("state export --format cometbft", 0),
        ],
    );
    assert_eq!(mode_of(&home, "watermark.highwater"), 0o600);
    assert_eq!(fs::read(home.path("watermark")).unwrap(), fs::read(home.path("exported")).unwrap());
    assert_eq!(mode_of(&home, "exported"), 0o600);

    let shown: Value = serde_json::from_str(&home.run("state show --json").stdout).unwrap();
    let Value::Object(fields) = &shown else { panic!("{shown}") };
    let public = "ed25519:".to_owned() + &public_key_hex();
    let names = "chain_id file height host public_key retired round schema sequence signed step";
    assert_eq!(fields.keys().map(String::as_str).collect::<Vec<_>>().join(" "), names);
    for (name, expected) in [
        ("schema", json!(1)),
        ("chain_id", json!(CHAIN)),
        ("public_key", json!(public)),
        ("height", json!(9)),
        ("step", json!("precommit")),
        ("signed", json!(false)),
        ("retired", json!(true)),
        ("file", json!("watermark.highwater")),
    ] {
        assert_eq!(shown[name], expected, "{name}");
    }
}

fn public_key_hex() -> String {
    let public = ed25519_dalek::SigningKey::from_bytes(&seed()).verifying_key();
    String::from_utf8(hex::encode(public.as_bytes())).unwrap()
}

#[test]
fn a_state_file_is_made_only_where_there_is_a_place_and_a_key_for_it() {
    let home = Home::with_chain();
    replace_in(&home, "tmkms.toml", "\"watermark\"", "\"no/watermark\"");
    table(&home, &[("state init --never-signed", 73)]);
    let home = Home::with_chain();
    fs::remove_file(home.path("consensus.key")).unwrap();
    table(
        &home,
        &[
            ("state init --never-signed", 66),
            // A key may come with a late mount, a state file is made by a person.
            ("start", 65),
            ("check", 2),
        ],
    );
}

#[test]
fn a_state_file_that_cannot_be_trusted_stops_every_command() {
    let home = Home::with_chain();
    home.run("state init --height 7").assert(0, "made", "");
    chmod(&home, "watermark.highwater", 0o620);
    table(
        &home,
        &[("state raise --height 9", 77), ("state export --format tmkms -o exported", 77), ("start", 65), ("check", 2)],
    );
    chmod(&home, "watermark.highwater", 0o600);

    // One bit, in the newer of the two records.
    let mut bytes = fs::read(home.path("watermark.highwater")).unwrap();
    bytes[2 * 4096 + 60] ^= 1;
    fs::write(home.path("watermark.highwater"), bytes).unwrap();
    table(&home, &[("state show", 65), ("state raise --height 9", 65), ("start", 65), ("check", 2)]);

    home.write("watermark.highwater", "");
    table(&home, &[("start", 65), ("check", 2)]);

    // The file of another key.
    fs::remove_file(home.path("watermark.highwater")).unwrap();
    home.run("state init --never-signed").assert(66, "", "although watermark says that there was one");
    fs::remove_file(home.path("watermark")).unwrap();
    home.run("state init --never-signed").assert(0, "made", "");
    fs::remove_file(home.path("consensus.key")).unwrap();
    home.run("softsign keygen consensus.key").assert(0, "made", "");
    table(&home, &[("start", 65), ("check", 2)]);
}

#[test]
fn several_chains_are_told_apart() {
    let home = Home::with_chain();
    replace_in(&home, "tmkms.toml", "chain_ids = [\"test-1\"]", "chain_ids = [\"test-1\", \"test-2\"]");
    let second = "[[chain]]\nid = \"test-2\"\nkey_format = { type = \"hex\" }\nstate_file = \"second\"\n";
    let text = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    home.write("tmkms.toml", text + second);
    table(
        &home,
        &[
            ("state show", 64),
            ("state init --never-signed", 64),
            ("state raise --height 5", 64),
            ("state import tmkms.toml", 64),
            ("state export --format tmkms -o exported", 64),
            ("state show --chain test-3", 64),
            ("state init --chain test-2 --height 8", 0),
            ("state init --chain test-1 --never-signed", 0),
            ("state show --chain test-2", 0),
        ],
    );
    // One chain's file is no other's.
    fs::copy(home.path("second.highwater"), home.path("watermark.highwater")).unwrap();
    table(&home, &[("state raise --height 50", 64), ("state raise --chain test-1 --height 50", 65), ("check", 2)]);
}

#[test]
fn a_running_signer_keeps_its_state_to_itself() {
    let home = Home::with_chain();
    home.run("state init --height 5").assert(0, "made", "");
    home.write("theirs.json", r#"{"height":"9","round":"0","step":1,"block_id":null}"#);
    let mut signer = home.spawn("signer", &mut home.highwater("start"));
    signer.wait_for_line("chain open");
    // Its last line for half a minute.
    signer.wait_for_line("link lost");
    let locked = "state file watermark.highwater is in use by another process|`fuser watermark.highwater`";
    let claimed = "another signer for this chain and key runs on this machine: process ";
    for (words, code, stdout, stderr) in [
        ("start", 75, "", locked),
        ("state raise --height 9", 75, "", locked),
        ("state export --format tmkms", 75, "", locked),
        ("state export --format tmkms -o exported", 75, "", locked),
        ("state import theirs.json", 75, "", claimed),
        ("state init --height 9", 73, "", "exists and is never overwritten"),
        ("state show", 0, "height 5|mode      active", ""),
        ("state show --json", 0, "\"height\":5", ""),
        // It asks the signer, which has nobody to serve.
        (
            "check",
            2,
            "ok    chain test-1: state file watermark.highwater is at 5/|fail  chain test-1: node unix://|not connected",
            "",
        ),
        ("status", 1, "test-1  does not sign|not connected", ""),
    ] {
        let before = home.snapshot();
        home.run(words).assert(code, stdout, stderr);
        home.assert_untouched(&before, words);
    }
    assert!(signer.terminate().success());
    table(&home, &[("state export --format tmkms -o exported", 0), ("state show", 0)]);
}

#[test]
fn one_signer_for_a_chain_and_key_runs_on_a_machine_whatever_its_files() {
    let home = Home::with_chain();
    let config = fs::read_to_string(home.path("tmkms.toml")).unwrap();
    home.write("b.toml", config.replace("\"watermark\"", "\"b\"").replace("node.sock", "b.sock"));
    home.run("state init --never-signed").assert(0, "made", "");
    home.run("state init --never-signed -c b.toml").assert(0, "made", "");
    let mut first = home.spawn("first", &mut home.highwater("start"));
    first.wait_for_line("chain open");

    // Two configurations with one key file, and a copy of a whole home.
    let pid = format!("another signer for this chain and key runs on this machine: process {} of user ", first.id());
    home.run("start -c b.toml").assert(75, "", &format!("chain {CHAIN}: |{pid}"));
    let copy = Home::new();
    let copied =
        std::process::Command::new("cp").args(["-a", "."]).arg(copy.path("")).current_dir(home.path("")).status();
    assert!(copied.unwrap().success());
    copy.run("start").assert(75, "", &pid);
    assert!(first.terminate().success());

    // The other of the two may go on, and the copy is known for one.
    let mut second = home.spawn("second", &mut home.highwater("start -c b.toml"));
    second.wait_for_line("chain open");
    assert!(second.terminate().success());
    copy.run("start").assert(65, "", "is a copy of a state file, made at 0/0/proposal|`highwater state import FILE`");
    copy.run("check").assert(2, "fail  chain test-1: |is a copy of a state file", "");
    copy.run("state import watermark.highwater").assert(65, "", "is a copy of a state file|--i-checked-the-height");
    copy.run("state import watermark.highwater --i-checked-the-height").assert(
        0,
        "mode      active",
        "is kept as |watermark.highwater.replaced",
    );
    copy.run("check").assert(0, "is at 0/0/proposal", "");
}

/// The consensus key of [`seed`] in every form that a file can have it in.
fn consensus_forms() -> Vec<(&'static str, String)> {
    let public = ed25519_dalek::SigningKey::from_bytes(&seed()).verifying_key().to_bytes();
    let go = [seed(), public].concat();
    let expanded = Sha512::digest(seed()).to_vec();
    let mut yubihsm = expanded.clone();
    yubihsm[0] &= 248;
    yubihsm[31] = yubihsm[31] & 127 | 64;
    yubihsm[..32].reverse();
    yubihsm.extend(public);
    let text = |bytes: &[u8]| String::from_utf8(base64::encode(bytes)).unwrap();
    let json = json!({
        "priv_key": { "type": "tendermint/PrivKeyEd25519", "value": text(&go) },
        "pub_key": { "type": "tendermint/PubKeyEd25519", "value": text(&public) },
    });
    vec![
        ("seed", text(&seed())),
        ("seed-and-newline", text(&seed()) + "\n"),
        ("go", text(&go)),
        ("expanded", text(&expanded)),
        ("yubihsm", text(&yubihsm)),
        ("json", json.to_string()),
    ]
}

#[test]
fn keys_come_in_from_every_form_and_are_the_same_key() {
    let home = Home::new();
    for (name, content) in consensus_forms() {
        home.write(&format!("{name}.in"), content);
        let answer = home.run(&format!("softsign import {name}.in {name}.key"));
        let shown = format!("made {name}.key|key      ed25519:{}|address  ", public_key_hex());
        answer.assert(0, &shown, &format!("remove {name}.in from wherever it still is"));
        let written = fs::read(home.path(&format!("{name}.key"))).unwrap();
        let expected = match name {
            "expanded" => Sha512::digest(seed()).to_vec(),
            // The scalar has lost the bits that clamping sets: the same key in other bytes.
            "yubihsm" => base64::decode(&written).unwrap(),
            _ => seed().to_vec(),
        };
        assert_eq!(written, base64::encode(expected), "{name}");
        assert_eq!(mode_of(&home, &format!("{name}.key")), 0o600, "{name}");
        let format = if name == "json" { "json" } else { "base64" };
        let again = home.run(&format!("softsign import -f {format} {name}.in {name}.again"));
        again.assert(0, &public_key_hex(), "remove");
        assert_eq!(fs::read(home.path(&format!("{name}.again"))).unwrap(), written);
    }

    home.write("account.in", base64::encode(seed()));
    let account = home.run("softsign import -t account account.in account.key");
    account.assert(0, "made account.key|key      secp256k1:", "remove account.in");
    assert_eq!(fs::read(home.path("account.key")).unwrap(), base64::encode(seed()));
}

#[test]
fn a_key_is_never_overwritten_and_never_taken_from_where_others_can_read_it() {
    let home = Home::new();
    let files = consensus_forms();
    for (name, content) in &files {
        home.write(&format!("{name}.in"), content);
    }
    home.write("rubbish.in", "no key at all");
    home.write("short.in", base64::encode(&seed()[..31]));
    home.write("open.in", base64::encode(seed()));
    chmod(&home, "open.in", 0o640);
    table(
        &home,
        &[
            ("softsign keygen new.key", 0),
            ("softsign keygen new.key", 73),
            ("softsign keygen -t account account.key", 0),
            ("softsign keygen -t consensus account.key", 73),
            ("softsign import seed.in new.key", 73),
            ("softsign import json.in new.key", 73),
            ("softsign keygen no/where.key", 73),
            ("softsign import nowhere.in other.key", 66),
            ("softsign import . other.key", 66),
            ("softsign import open.in other.key", 77),
            ("softsign import rubbish.in other.key", 65),
            ("softsign import short.in other.key", 65),
            ("softsign import -f json seed.in other.key", 65),
            ("softsign import -f base64 json.in other.key", 65),
            ("softsign import -t account json.in other.key", 65),
        ],
    );
    assert_eq!(mode_of(&home, "new.key"), 0o600);
    assert_ne!(fs::read(home.path("new.key")).unwrap(), fs::read(home.path("account.key")).unwrap());
}

#[test]
fn init_makes_a_home_and_keeps_one() {
    let home = Home::new();
    let made = "made |home/tmkms.toml|home/secrets/kms-identity.key (peer id |no state file was made";
    home.run("init -n osmosis,core home").assert(0, "", made);
    let modes = [
        ("home/tmkms.toml", 0o600),
        ("home/secrets", 0o700),
        ("home/state", 0o700),
        ("home/secrets/kms-identity.key", 0o600),
    ];
    for (name, mode) in modes {
        assert_eq!(mode_of(&home, name), mode, "{name}");
    }
    let before = home.snapshot();
    assert_eq!(before.len(), modes.len() + 1, "and the directory itself");
    for words in ["init -n osmosis,core home", "init home", "init -n irishub home"] {
        home.run(words).assert(
            0,
            "",
            "kept |home/tmkms.toml|kept |home/secrets/kms-identity.key|no state file was made",
        );
        home.assert_untouched(&before, words);
    }
    let config = " -c home/tmkms.toml";
    home.run(&format!("check{config}")).assert(
        2,
        "fail  chain osmosis-1: there is no |fail  chain core-1: |peer id",
        "",
    );
    let key = "home/secrets/osmosis-1-consensus.key: correct the path";
    home.run(&format!("state init --never-signed --chain osmosis-1{config}")).assert(66, "", key);
    home.run("init --height 5 home").assert(
        66,
        "",
        "--height is for a key that may have signed|`highwater softsign import`",
    );
    home.assert_untouched(&before, "a command that failed");

    for chain in ["osmosis-1", "core-1"] {
        home.run(&format!("softsign keygen home/secrets/{chain}-consensus.key")).assert(0, "made", "");
    }
    home.run("init --height 5 home").assert(
        0,
        "",
        "made |osmosis-1-consensus.json.highwater at 5/|core-1-consensus.json.highwater at 5/",
    );
    home.run(&format!("check{config}")).assert(
        0,
        "osmosis-1-consensus.json.highwater is at 5/|core-1-consensus.json.highwater is at 5/",
        "",
    );
}

#[test]
fn init_makes_key_and_state_of_a_new_validator_in_one_go() {
    let home = Home::new();
    let made =
        "made |secrets/cosmoshub-4-consensus.key (ed25519:|state/cosmoshub-4-consensus.json.highwater at 0/0/proposal";
    home.run("init --never-signed home").assert(0, "", made);
    assert_eq!(mode_of(&home, "home/secrets/cosmoshub-4-consensus.key"), 0o600);
    assert_eq!(mode_of(&home, "home/state/cosmoshub-4-consensus.json.highwater"), 0o600);
    home.run("check -c home/tmkms.toml").assert(0, "ok    chain cosmoshub-4: state file", "");
    let before = home.snapshot();
    home.run("init --never-signed home").assert(73, "", "kept|exists and is never overwritten");
    home.run("init --height 5 home").assert(73, "", "kept|exists and is never overwritten");
    home.assert_untouched(&before, "a second run");
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
