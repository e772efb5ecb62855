//! `highwater yubihsm` as an operator meets it: on simulated devices, each a process of its own behind real HTTP.

use crate::support::yubihsm::{self as device, Device};
use crate::support::{
    binary,
    cli::{Answer, Home},
};
use highwater::config::Config;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use subtle_encoding::base64;

/// The key of `tests/vectors`: the seed is 32 times 0x42.
const VECTOR_SEED: [u8; 32] = [0x42; 32];
const VECTOR_KEY: &str = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12";
/// Keys 1 and 2 of the devices.
const DEVICE_SEED: [u8; 32] = [0x17; 32];
/// Of every simulated device.
const SERIAL: &str = "0123456789";
const CHAIN_AND_NODE: &str = "[[chain]]\nid = \"test-1\"\nkey_format = { type = \"cosmos-json\" }\nstate_file = \"watermark\"\n\
                              [[validator]]\naddr = \"unix:///nowhere/node.sock\"\nchain_id = \"test-1\"\n";
const PHRASE: &str = "abandon amount liar amount expire adjust cage candy arch gather drum bullet absurd math era live bid \
                      rhythm alien crouch range attend journey unaware";
const OPERATOR: &str = "kms-operator-password-1ztuhkpagag6tp9tptl9qma2wcuzsvyff";
const AUDITOR: &str = "kms-auditor-password-16zukfrl5lcs4tg9udcvv98fzfsx9zluq";
const VALIDATOR: &str = "kms-validator-password-168w265r9rr9gjr3wu4j0dtzhkyadyy04";
const WRAP_KEY: &str = "b55c675289521f334d544ff62f1860af42d62814a5233a16174faff5d46fbe7e";
const INCOMPLETE: &str = "note: ./tmkms.toml is not complete yet";
/// The longest wait of any command, whatever the device does.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A home beside a device.
struct Desk {
    home: Home,
    device: Device,
}

/// `None` where there is no simulated device.
fn desk(options: &[&str]) -> Option<Desk> {
    let device = device::start(&DEVICE_SEED, options)?;
    let desk = Desk { home: Home::new(), device };
    desk.write_config(1, device::PASSWORD, "");
    Some(desk)
}

impl Desk {
    /// A section for the device, by this authentication key. `keys` stand in it.
    fn write_config(&self, auth_key: u16, password: &str, keys: &str) {
        self.home.write("password", format!("{password}\n"));
        let section = self.section(auth_key, keys);
        self.home.write("tmkms.toml", format!("{CHAIN_AND_NODE}{section}"));
    }

    fn section(&self, auth_key: u16, keys: &str) -> String {
        let address = self.device.address();
        format!(
            "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"{address}\" }}\n\
             auth = {{ key = {auth_key}, password_file = \"password\" }}\nkeys = [\n{keys}\n]\n"
        )
    }

    fn run(&self, words: &str) -> Answer {
        self.finish(words, &mut self.home.highwater(words))
    }

    /// The same by a shell, which can open descriptors, and without a terminal.
    fn run_in_shell(&self, words: &str, descriptors: &str) -> Answer {
        let mut shell = Command::new("setsid");
        let line = format!("exec {} {words} {descriptors}", binary::highwater().display());
        shell.args(["--wait", "sh", "-c", &line]).current_dir(self.home.path(".")).env_remove("TMKMS_CONFIG_FILE");
        self.finish(words, &mut shell)
    }

    fn finish(&self, words: &str, command: &mut Command) -> Answer {
        let answer = self.home.finish(command);
        eprintln!("$ highwater {words}\n{}{}[{}]\n", answer.stdout, answer.stderr, answer.code);
        assert_no_secret(&answer.stdout);
        assert_no_secret(&answer.stderr);
        answer
    }

    /// The same, with what the answer says in JSON.
    fn json(&self, words: &str) -> Value {
        let answer = self.run(&format!("{words} --json"));
        assert_eq!(answer.code, 0, "{answer:?}");
        let value: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(value["schema"], 1);
        value
    }

    /// The same on a terminal, with `typed` at the keyboard. Nothing of it is checked for secrets.
    fn on_terminal(&self, words: &str, typed: &str) -> (i32, String) {
        let line = format!("{} {words}", binary::highwater().display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(self.home.path("."));
        command.env_remove("TMKMS_CONFIG_FILE").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("script, of util-linux, is installed");
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Wipes the device and sets it up from the vectors' phrase.
    fn set_up(&self) -> Answer {
        self.home.write("phrase", format!("{PHRASE}\n"));
        let words = format!("yubihsm setup --restore --phrase-fd 4 --secrets-fd 3 --yes-wipe {SERIAL}");
        let answer = self.run_in_shell(&words, "3>shown 4<phrase");
        assert_eq!(answer.code, 0, "{answer:?}");
        answer
    }
}

#[track_caller]
fn assert_no_secret(shown: &str) {
    let traces =
        ["abandon amount", "-password-1", "b55c6752", device::PASSWORD, "QkJCQk", "42424242", "66, 66, 66", "FxcXFxc"];
    for trace in traces {
        assert!(!shown.contains(trace), "{trace:?} is in {shown}");
    }
}

fn base64_of(bytes: &[u8]) -> String {
    String::from_utf8(base64::encode(bytes)).unwrap()
}

/// The vectors' key as CometBFT keeps it.
fn key_file() -> String {
    let public = ed25519_dalek::SigningKey::from_bytes(&VECTOR_SEED).verifying_key().to_bytes();
    let address: String = Sha256::digest(public)[..20].iter().map(|byte| format!("{byte:02X}")).collect();
    json!({
        "address": address,
        "priv_key": { "type": "tendermint/PrivKeyEd25519", "value": base64_of(&[VECTOR_SEED, public].concat()) },
        "pub_key": { "type": "tendermint/PubKeyEd25519", "value": base64_of(&public) },
    })
    .to_string()
}

fn entry(id: u16) -> String {
    format!("    {{ chain_ids = [\"test-1\"], key = {id}, type = \"consensus\" }},")
}

#[test]
fn devices_are_detected_without_a_session() {
    let Some(desk) = desk(&[]) else { return };
    let Some(second) = device::start(&DEVICE_SEED, &[]) else { return };
    let shown = format!(
        "device     YubiHSM at {}|serial     {SERIAL}|firmware   2.4.0|log        0 of 62 entries used|connector  3.0.4, OK",
        desk.device.address()
    );
    desk.run("yubihsm detect").assert(0, &shown, INCOMPLETE);
    // With another one that is down.
    let address = second.address();
    let other = desk.section(1, "").replace(&desk.device.address(), &address);
    desk.home.write("tmkms.toml", format!("{CHAIN_AND_NODE}{}{other}", desk.section(1, "")));
    second.take_down();
    let down = "is yubihsm-connector running there?";
    desk.run("yubihsm detect").assert(74, &format!("{shown}|error      cannot reach its connector|{down}"), down);
    desk.run(&format!("yubihsm detect --device {}", desk.device.address())).assert(0, &shown, INCOMPLETE);
    let answer = desk.run("yubihsm detect --json");
    assert_eq!(answer.code, 74);
    let value: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((&value["devices"][0]["serial"], &value["devices"][0]["connector"]), (&json!(SERIAL), &json!("3.0.4")));
    assert!(value["devices"][1]["error"].as_str().unwrap().contains(down), "{value}");
    assert_eq!(desk.device.count("session-requests"), 0);

    // Commands for one device want to know which.
    let which = format!("name one device with --device: {}, {address}", desk.device.address());
    desk.run("yubihsm keys list").assert(64, "", &which);
    desk.run("yubihsm keys list --device 9999999999").assert(64, "", "has no device 9999999999, only tcp://");
    desk.run(&format!("yubihsm keys list --device {address}")).assert(74, "", down);
    desk.run(&format!("yubihsm keys list --device {}", desk.device.address())).assert(0, "id       0x0001", INCOMPLETE);
    let serial = desk.section(1, "") + "serial_number = \"0000000001\"\n";
    desk.home.write("tmkms.toml", format!("{CHAIN_AND_NODE}{serial}"));
    for words in ["yubihsm detect", "yubihsm detect --device 0000000001"] {
        desk.run(words).assert(74, "error      the device found there has", &format!("has the serial number {SERIAL}"));
    }
    desk.home.write("tmkms.toml", CHAIN_AND_NODE);
    desk.run("yubihsm detect").assert(78, "", "there is no [providers]");
    fs::remove_file(desk.home.path("tmkms.toml")).unwrap();
    desk.run("yubihsm detect").assert(64, "", "there is no configuration: name one with -c");
}

#[test]
fn a_key_is_generated_pasted_checked_and_tested() {
    let Some(desk) = desk(&["--keep-objects"]) else { return };
    let answer = desk.run("yubihsm keys generate 0x10");
    let shown = "generated, and its signature over the self-test verifies\nid       0x0010\nlabel    \"consensus:20\
                 |type     ed25519\nkey      {\"@type\":\"/cosmos.crypto.ed25519.PubKey\"|address  |born     in the device\
                 |leaves   only as a backup, wrapped|In ./tmkms.toml, add this to `keys` of the [[providers.yubihsm]] on line 8:";
    answer.assert(0, shown, INCOMPLETE);
    let pasted = answer.stdout.split("on line 8:\n\n").nth(1).unwrap();
    assert_eq!(pasted.trim_end(), entry(16));
    desk.write_config(1, device::PASSWORD, pasted);
    desk.run("state init --never-signed").assert(0, "made", "");
    desk.run("check").assert(0, "ok    chain test-1: key", "");

    let words = "yubihsm keys generate 17 -t account -l an-account --non-exportable";
    let value = desk.json(words);
    assert_eq!((&value["algorithm"], &value["exportable"]), (&json!("secp256k1"), &json!(false)));
    assert_eq!((&value["proven"], &value["chain_id"], &value["id"]), (&json!(true), &json!("test-1"), &json!(17)));
    desk.run(words).assert(73, "", "it already has a key 0x0011, which is not overwritten");
    desk.run("yubihsm keys export -i 17 out").assert(74, "", "its key 0x0011 was made non-exportable");
    assert!(!desk.home.path("out").exists());
    desk.run("yubihsm keys generate 18 -p cosmosvalconspub -b backup").assert(
        74,
        "label    \"cosmosvalconspub:20|key      cosmosvalconspub1",
        "key 0x0012 is in the device and works, but has no backup|refused to wrap key 0x0012 with wrap key 0x0001",
    );
    assert!(!desk.home.path("backup").exists());
    desk.run("yubihsm keys generate 19 -b password").assert(73, "", "password already exists and is not overwritten");

    let keys = desk.json("yubihsm keys list");
    let ids: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| key["id"].as_u64().unwrap()).collect();
    assert_eq!((ids, &keys["serial"]), (vec![1, 2, 16, 17, 18], &json!(SERIAL)));
    let list = "label    \"an-account\"\ntype     secp256k1|leaves   never|domains  1|born     outside: imported\
                |id       0x0010|{\"@type\":\"/cosmos.crypto.ed25519.PubKey\"";
    desk.run("yubihsm keys list").assert(0, list, "");

    let shown =
        "signed   20, and all signatures verify\np50      | µs\np99      |id       0x0010|born     in the device";
    desk.run("yubihsm test 0x10").assert(0, shown, "");
    let value = desk.json("yubihsm test 17 --count 7");
    assert_eq!((&value["signatures"], &value["key"]["label"]), (&json!(7), &json!("an-account")));
    assert!(value["p50_us"].as_u64().unwrap() <= value["p99_us"].as_u64().unwrap());
    desk.run("yubihsm test 99").assert(66, "", "it has no key 0x0063, only 0x0001, 0x0002, 0x0010");
    let (code, shown) = desk.on_terminal("yubihsm test 16 --count 3", "");
    assert!(code == 0 && shown.contains("\r\x1b[Ksigned 3 of 3\r\x1b[K"), "{shown:?}");
    // The state file is bound to key 16.
    desk.write_config(1, device::PASSWORD, &entry(1));
    desk.run("yubihsm test 1").assert(65, "", "its key 0x0001 is ed25519:|the state file of its chain is bound to");
    for bad in ["yubihsm keys generate 0", "yubihsm keys generate 0xffff", "yubihsm keys generate", "yubihsm test 1x"] {
        assert_eq!(desk.run(bad).code, 64, "{bad}");
    }
}

#[test]
fn a_key_is_imported_from_every_form_that_holds_its_seed() {
    let Some(desk) = desk(&["--keep-objects"]) else { return };
    let mut expanded = Sha512::digest(VECTOR_SEED);
    expanded[0] &= 248;
    expanded[31] = expanded[31] & 127 | 64;
    desk.home.write("expanded.key", base64_of(&expanded));
    let refusal = "expanded.key: |cannot take it|this key is expanded: its seed was hashed and is lost";
    desk.run("yubihsm keys import -i 5 -t base64 expanded.key").assert(65, "", refusal);
    desk.home.write("priv_validator_key.json", key_file());
    desk.home.write("in.key", base64_of(&VECTOR_SEED) + "\n");
    desk.run("yubihsm keys import priv_validator_key.json").assert(64, "", "name the new key's id with -i ID");
    desk.run("yubihsm keys import in.key -i 5 -l a").assert(64, "", "a backup contains its label");
    desk.run("yubihsm keys import expanded.key -t json -i 5").assert(65, "", "expanded.key holds no usable key");
    desk.run("yubihsm keys import none.key -t json -i 5").assert(66, "", "there is no none.key");
    assert_eq!(desk.device.count("session-requests"), 0);

    for (id, words, file) in [
        (5, "-i 5", "priv_validator_key.json"),
        (6, "-i 0x6 -t json -l mine", "priv_validator_key.json"),
        (7, "-i 7 -t base64", "in.key"),
    ] {
        let shown =
            format!("imported, and its signature over the self-test verifies\nid       0x000{id}|born     outside");
        let note = format!("destroy {file} and every copy of it now|A key must never run in two places");
        desk.run(&format!("yubihsm keys import {words} {file}")).assert(0, &shown, &note);
    }
    desk.run("yubihsm keys import -i 5 priv_validator_key.json").assert(73, "", "it already has a key 0x0005");
    let value = desk.json("yubihsm keys list");
    for key in &value["keys"].as_array().unwrap()[2..] {
        assert_eq!((&key["public_key"], &key["born_in_device"]), (&json!(VECTOR_KEY), &json!(false)));
        assert_eq!((&key["exportable"], &key["domains"]), (&json!(true), &json!([1])));
    }
    let value = desk.json("yubihsm keys import -i 8 -t base64 in.key --non-exportable");
    assert_eq!((&value["done"], &value["exportable"]), (&json!("imported"), &json!(false)));
}

#[test]
fn a_device_is_wiped_only_when_its_operator_says_so() {
    let Some(desk) = desk(&["--keep-objects"]) else { return };
    desk.home.write("phrase", PHRASE);
    desk.home.write("report", "");
    for (words, descriptors, code, refusal) in [
        ("setup", "", 64, "no terminal to show the words and passwords on|--secrets-fd"),
        ("setup --secrets-fd 9", "", 64, "file descriptor 9"),
        ("setup --secrets-fd 3", "3>shown", 64, "no terminal to ask on|--yes-wipe SERIAL"),
        ("setup --restore --secrets-fd 3 --yes-wipe 1", "3>shown", 64, "no terminal to ask on|--phrase-fd"),
        ("setup --secrets-fd 3 --yes-wipe 1 -w report", "3>shown", 73, "report already exists"),
        (
            "setup --restore --secrets-fd 3 --yes-wipe 1 --phrase-fd 4",
            "3>shown 4<report",
            65,
            "24 words, but this has 0",
        ),
    ] {
        desk.run_in_shell(&format!("yubihsm {words}"), descriptors).assert(code, "", refusal);
    }
    assert_eq!(desk.device.count("commands"), 0, "nobody has touched it");
    assert!(fs::read(desk.home.path("shown")).unwrap().is_empty());

    let words = "yubihsm setup --secrets-fd 3 --yes-wipe 0000000001";
    let refusal = format!("nothing was changed: the device is {SERIAL}, but --yes-wipe names 0000000001");
    desk.run_in_shell(words, "3>shown").assert(64, "", &refusal);
    assert!(fs::read(desk.home.path("shown")).unwrap().is_empty());
    let answer = desk.run_in_shell("yubihsm setup --print-only --secrets-fd 3", "3>shown");
    answer.assert(0, "nothing was changed", INCOMPLETE);
    let (code, shown) = desk.on_terminal("yubihsm setup", "1234567890\n");
    assert!(code == 64 && shown.contains("nothing was changed: that is not its serial number"), "{shown}");
    assert_eq!(desk.json("yubihsm keys list")["keys"].as_array().unwrap().len(), 2);

    // Typed, it is wiped, and the words are new.
    let (code, shown) = desk.on_terminal("yubihsm setup", &format!("{SERIAL}\n"));
    assert!(code == 0 && shown.contains("is wiped and set up"), "{shown}");
    let password = shown.lines().find_map(|line| line.split_once("authentication key 4")).unwrap().1.trim().to_owned();
    assert!(password.starts_with("kms-validator-password-1") && password != VALIDATOR, "{shown}");
    desk.write_config(4, &password, "");
    desk.run("yubihsm keys list").assert(0, &format!("no keys in YubiHSM {SERIAL}"), INCOMPLETE);
    desk.run_in_shell(&format!("yubihsm setup --secrets-fd 3 --yes-wipe {SERIAL}"), "3>shown").assert(
        74,
        "",
        "authentication key 4 may not wipe it: log in as its administrator",
    );
}

#[test]
fn a_setup_from_words_of_tmkms_gives_what_tmkms_gives() {
    let Some(desk) = desk(&["--keep-objects"]) else { return };
    desk.home.write("phrase", format!("{PHRASE}\n"));
    let everything = |shown: &str| {
        let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        [PHRASE, OPERATOR, AUDITOR, VALIDATOR, WRAP_KEY].iter().all(|secret| flat.contains(secret))
    };
    // To look at the passwords takes no device, and no configuration.
    let words = "yubihsm setup --restore --print-only --phrase-fd 4 --secrets-fd 3 -c /none";
    desk.run_in_shell(words, "3>looked 4<phrase").assert(0, "nothing was changed", "");
    assert!(everything(&fs::read_to_string(desk.home.path("looked")).unwrap()));
    let (code, shown) = desk.on_terminal("yubihsm setup --restore --print-only", &format!("{PHRASE}\n"));
    assert!(code == 0 && everything(&shown), "{shown}");
    let (code, shown) = desk.on_terminal("yubihsm setup -r -p", &format!("{}\n", PHRASE.replace("math", "maths")));
    assert!(
        code == 65 && shown.contains("word 14, \"maths\", is not on the BIP 39 list: did you mean \"math\"?"),
        "{shown}"
    );
    assert_eq!(desk.device.count("commands"), 0);

    let words = format!("yubihsm setup -r --phrase-fd 4 --secrets-fd 3 --yes-wipe {SERIAL} -w report --json");
    let answer = desk.run_in_shell(&words, "3>shown 4<phrase");
    answer.assert(0, &format!("\"serial\":\"{SERIAL}\"|\"validator\":4"), "wiping the device|logging in");
    assert!(everything(&fs::read_to_string(desk.home.path("shown")).unwrap()));
    let report = desk.home.path("report");
    assert_eq!(fs::metadata(&report).unwrap().permissions().mode() & 0o777, 0o600);
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!((&report["version"], &report["device_serial_number"]), (&json!(1), &json!(SERIAL)));

    // Its four authentication keys let in, and no other does.
    for (auth_key, password) in [(1, PHRASE), (2, OPERATOR), (3, AUDITOR), (4, VALIDATOR)] {
        desk.write_config(auth_key, password, "");
        desk.run("yubihsm keys list").assert(0, &format!("no keys in YubiHSM {SERIAL}"), INCOMPLETE);
    }
    // The operator makes keys that only the validator can prove.
    desk.home.write("operator", OPERATOR);
    desk.run("yubihsm keys generate 1 --auth-key 2").assert(64, "", "no password for authentication key 2");
    let words = "yubihsm keys generate 1 --auth-key 2 --password-file operator";
    desk.run(words).assert(
        0,
        "generated\nid       0x0001",
        "authentication key 2 may not sign: run `highwater yubihsm test",
    );
    desk.run("yubihsm test 1").assert(0, "signed   20, and all signatures verify", INCOMPLETE);
    desk.run_in_shell("yubihsm keys list --auth-key 2 --password-fd 3", "3<operator").assert(0, "0x0001", INCOMPLETE);
    desk.write_config(0xfffe, "whatever", "");
    desk.run("yubihsm keys list").assert(77, "", "the device rejected authentication key 65534");
}

#[test]
fn a_backup_goes_from_one_device_into_another() {
    let Some(first) = desk(&["--keep-objects"]) else { return };
    let Some(second) = desk(&["--keep-objects"]) else { return };
    first.set_up();
    second.set_up();
    first.write_config(1, PHRASE, &entry(5));
    second.write_config(1, PHRASE, &entry(5));
    let made = first.json("yubihsm keys generate 32 -t account -b account.backup");
    let path = first.home.path("account.backup");
    let content = fs::read(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Nonce, ciphertext, tag; one line of base64 without its end.
    assert!(base64::decode(&content).unwrap().len() > 13 + 32 + 8, "{}", content.len());
    first.run("yubihsm keys export -i 0x20 account.backup").assert(73, "", "account.backup already exists");
    first.run("yubihsm keys export -i 32 again.backup").assert(
        0,
        "wrote again.backup: key 0x0020, encrypted with wrap key",
        "",
    );
    assert_ne!(fs::read(first.home.path("again.backup")).unwrap(), content, "another nonce");

    // Over there, with white space around it.
    second.home.write("account.backup", [&content[..], b"\r\n"].concat());
    second.home.write("broken.backup", base64_of(&[7; 100]));
    second.run("yubihsm keys import broken.backup").assert(74, "", "refused to unwrap the backup with wrap key 0x0001");
    second.run("yubihsm keys import phrase").assert(65, "", "phrase is not a backup from a YubiHSM|-t json");
    second.run("yubihsm keys import account.backup -i 33").assert(74, "", "holds key 0x0020, not 0x0021|deleted again");
    let note = "check that this is the address|account.backup still holds it, encrypted with wrap key 0x0001";
    let shown = format!("{}|from a backup", made["address"].as_str().unwrap());
    second.run("yubihsm keys import account.backup -i 32").assert(0, &shown, note);
    second.run("yubihsm keys import account.backup -i 32").assert(73, "", "it already has a key 0x0020");

    // The mock wraps the public half of an Ed25519 key as its seed: a wrong key, which the state file tells.
    first.home.write("priv_validator_key.json", key_file());
    first.run("yubihsm keys import -i 5 priv_validator_key.json").assert(
        0,
        "imported, and its",
        "destroy priv_validator_key.json",
    );
    first.run("yubihsm keys export -i 5 consensus.backup").assert(0, "wrote", "");
    first.run("state init --never-signed").assert(0, "made", "");
    for name in ["consensus.backup", "watermark.highwater"] {
        second.home.write(name, fs::read(first.home.path(name)).unwrap());
    }
    let refusal = format!(
        "do not use its new key 0x0005: the device reports|must be ed25519:{VECTOR_KEY}\
                           |It was deleted again"
    );
    second.run("yubihsm keys import consensus.backup").assert(74, "", &refusal);
    assert_eq!(second.json("yubihsm keys list")["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn a_running_signer_is_not_disturbed() {
    let Some(desk) = desk(&[]) else { return };
    desk.write_config(1, device::PASSWORD, &entry(1));
    desk.run("state init --never-signed").assert(0, "made", "");
    desk.home.write("in.key", base64_of(&VECTOR_SEED));
    let mut signer = desk.home.spawn("signer", &mut desk.home.highwater("start"));
    signer.wait_for_line("chain open");
    let asked = desk.device.count("session-requests");
    for words in [
        "keys list",
        "keys generate 9 --json",
        "keys import -t base64 -i 9 in.key",
        "keys export -i 1 out",
        "test 1",
        &format!("setup --secrets-fd 1 --yes-wipe {SERIAL}"),
    ] {
        let refusal = "the signer of chain test-1 is running and needs the YubiHSM at tcp|stop it first|watermark.highwater is locked";
        desk.run(&format!("yubihsm {words}")).assert(75, "", refusal);
    }
    // Also while the entry of the key is being rewritten.
    desk.write_config(1, device::PASSWORD, "");
    desk.run("yubihsm keys list").assert(75, "", "the signer of chain test-1 is running");
    assert!(desk.device.count("session-requests") <= asked + 1, "only the signer's own");
    // A connector may be asked at any time.
    desk.write_config(1, device::PASSWORD, &entry(1));
    desk.run("yubihsm detect").assert(0, &format!("serial     {SERIAL}"), "");
    assert!(signer.terminate().success());
    desk.run("yubihsm test 1").assert(0, "signed   20", "");
}

#[test]
fn a_device_that_fails_is_named_and_costs_no_more_than_a_deadline() {
    let Some(desk) = desk(&[]) else { return };
    desk.write_config(1, "incorrect horse", "");
    let answer = desk.run("yubihsm keys list");
    answer.assert(77, "", "YubiHSM at tcp|the device rejected authentication key 1: wrong password or key id");
    assert!(!answer.stderr.contains("incorrect"), "{answer:?}");
    desk.home.write("password", "\n");
    desk.run("yubihsm keys list").assert(66, "", "the password in the file|is empty");
    desk.write_config(1, device::PASSWORD, "");
    desk.device.fault("sessions-full/1");
    desk.run("yubihsm keys list").assert(74, "", "all of its 16 sessions are in use");
    desk.device.fault("drop/1");
    desk.run("yubihsm keys list").assert(74, "", "YubiHSM at tcp");
    desk.device.fault("hang/30");
    for words in ["yubihsm detect", "yubihsm keys generate 9"] {
        let start = Instant::now();
        let answer = desk.run(words);
        assert!(answer.code == 74 && answer.stderr.contains("did not answer in time"), "{answer:?}");
        assert!(start.elapsed() < LONGEST_WAIT, "{words}: {:?}", start.elapsed());
    }
    desk.device.take_down();
    desk.run("yubihsm test 1").assert(74, "", "is yubihsm-connector running there?");
}

#[test]
fn the_walk_through_of_the_guide_walks() {
    let Some(desk) = desk(&["--keep-objects"]) else { return };
    desk.set_up();
    let guide = include_str!("../../docs/hsm-yubihsm.md");
    let blocks = guide.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script = blocks.collect::<String>().replace("tcp://127.0.0.1:12345", &desk.device.address());
    assert!(script.contains("highwater yubihsm keys generate"), "{script}");
    let programs = binary::highwater().parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let walk = desk.home.path("walk");
    fs::create_dir_all(walk.join("secrets")).unwrap();
    desk.home.write("walk/secrets/validator", VALIDATOR);
    desk.home.write("walk/secrets/operator", OPERATOR);
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", &script]).env_remove("TMKMS_CONFIG_FILE").env("PATH", path).current_dir(&walk);
    let answer = desk.home.finish(&mut shell);
    assert_eq!(answer.code, 0, "{}\n{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains("signed   100, and all signatures verify"), "{}", answer.stdout);
    let (config, _) = Config::load(&walk.join("tmkms.toml")).unwrap();
    assert_eq!(config.yubihsm()[0].keys.len(), 1);
    assert!(Path::new(&walk.join("test-1.backup")).exists());
}
