//! `highwater pkcs11` as an operator meets it, on tokens of SoftHSM 2, with pkcs11-tool as a witness.

use crate::support::softhsm::{self, LABEL, Lab, PIN, text};
use crate::support::{
    binary,
    cli::{Answer, CHAIN, Home},
};
use highwater::config::Config;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};
use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};
use subtle_encoding::base64;
use tempfile::TempDir;

/// The key of `tests/vectors`: the seed is 32 times 0x42.
const VECTOR_SEED: [u8; 32] = [0x42; 32];
const VECTOR_KEY: &str = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12";
const CHAIN_AND_NODE: &str = "[[chain]]\nid = \"test-1\"\nkey_format = { type = \"cosmos-json\" }\nstate_file = \"watermark\"\n\
                              [[validator]]\naddr = \"unix:///nowhere/node.sock\"\nchain_id = \"test-1\"\n";

/// A home beside a token.
struct Desk {
    home: Home,
    lab: Lab,
    _dir: TempDir,
}

/// `None` where there is no SoftHSM.
fn desk() -> Option<Desk> {
    let module = softhsm::installed()?;
    let dir = TempDir::new().unwrap();
    let lab = Lab::in_directory(dir.path(), module);
    let home = Home::new();
    home.write("pin", format!("{PIN}\n"));
    Some(Desk { home, lab, _dir: dir })
}

impl Desk {
    /// A section for the token, without keys: as an operator begins.
    fn section(&self) -> String {
        let module = self.lab.module.display();
        format!(
            "[[providers.pkcs11]]\nprofile = \"softhsm2\"\nmodule = \"{module}\"\ntoken = {{ label = \"{LABEL}\" }}\n\
             pin = {{ file = \"pin\" }}\n"
        )
    }

    fn write_config(&self, sections: &str) {
        self.home.write("tmkms.toml", format!("{CHAIN_AND_NODE}{sections}"));
    }

    fn highwater(&self, words: &str) -> Command {
        let mut command = self.home.highwater(words);
        command.env("SOFTHSM2_CONF", self.lab.path("softhsm2.conf"));
        command
    }

    fn run(&self, words: &str) -> Answer {
        let answer = self.home.finish(&mut self.highwater(words));
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

    /// The same on a terminal, with `typed` at the keyboard. Both streams come together.
    fn on_terminal(&self, words: &str, typed: &str) -> (i32, String) {
        let line = format!("{} {words}", binary::highwater().display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(self.home.path("."));
        command.env("SOFTHSM2_CONF", self.lab.path("softhsm2.conf")).env_remove("TMKMS_CONFIG_FILE");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of util-linux, is installed");
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let shown = text(&output.stdout);
        assert_no_secret(&shown);
        (output.status.code().unwrap(), shown)
    }

    /// The output of pkcs11-tool for the token.
    fn objects(&self) -> String {
        text(&self.lab.pkcs11_tool(&["--list-objects"]).stdout)
    }
}

#[track_caller]
fn assert_no_secret(shown: &str) {
    for trace in [PIN, "QkJCQk", "42424242", "BBBBBBBB", "66, 66, 66"] {
        assert!(!shown.contains(trace), "{trace:?} is in {shown}");
    }
}

/// The section that a text answer ends with.
fn pasted(answer: &Answer) -> &str {
    &answer.stdout[answer.stdout.find("[[providers.pkcs11]]\n").expect("there is a section")..]
}

fn base64_of(bytes: &[u8]) -> String {
    String::from_utf8(base64::encode(bytes)).unwrap()
}

#[test]
fn tokens_are_listed_without_a_pin() {
    let Some(desk) = desk() else { return };
    desk.lab.init_token("second");
    let module = desk.lab.module.display().to_string();
    desk.write_config(&desk.section());
    let shown = format!(
        "label   \"{LABEL}\"|label   \"second\"|model   SoftHSM v2|maker   SoftHSM project|pin     ok|{module}"
    );
    for words in ["pkcs11 tokens", "pkcs11 tokens --profile softhsm2", &format!("pkcs11 tokens --module {module}")] {
        desk.run(words).assert(0, &shown, "");
    }
    let value = desk.json("pkcs11 tokens");
    let tokens = value["tokens"].as_array().unwrap();
    let token = tokens.iter().find(|token| token["label"] == LABEL).unwrap();
    assert_eq!((&token["pin"], &token["initialised"], &token["module"]), (&json!("ok"), &json!(true), &json!(module)));
    assert!(token["serial"].as_str().unwrap().len() == 16, "{token}");

    desk.run("pkcs11 tokens --module /none.so").assert(66, "", "there is no /none.so: install the device's software");
    desk.run("pkcs11 tokens --profile ibm-ep11").assert(64, "", "name the PKCS#11 module with --module");
    desk.run("pkcs11 tokens --profile thales-luna7").assert(66, "", "there is no /|: install ");
    desk.run("pkcs11 tokens --profile softhsm").assert(64, "", "softhsm2");
    desk.run("pkcs11 tokens --module tmkms.toml").assert(66, "", "cannot load the PKCS#11 module|tmkms.toml");
}

#[test]
fn a_key_is_generated_pasted_checked_and_tested() {
    let Some(desk) = desk() else { return };
    desk.write_config(&desk.section());
    let incomplete = "note: ./tmkms.toml is not complete yet";
    desk.run("pkcs11 keys list").assert(0, "no private keys", incomplete);

    let answer = desk.run("pkcs11 generate --id 01 --label made");
    let shown = "generated, and its signature over the self-test verifies|id       01\nlabel    \"made\"\ntype     ed25519\n\
                 |key      {\"@type\":\"/cosmos.crypto.ed25519.PubKey\"|address  |born     in the device, and could never\
                 |In ./tmkms.toml, replace the [[providers.pkcs11]] on line 8 with:";
    answer.assert(0, shown, incomplete);
    let section = pasted(&answer);
    let (config, _) = Config::parse(Path::new("tmkms.toml"), &format!("{CHAIN_AND_NODE}{section}")).unwrap();
    let pinned = &config.pkcs11()[0].keys[0].public_key;
    assert!(answer.stdout.contains(&pinned.address_hex()));
    desk.write_config(section);
    desk.run("state init --never-signed").assert(0, "made", "");
    desk.run("check").assert(0, &format!("ok    chain test-1: key|{}|is tested", pinned.address_hex()), "");

    let taken = "is on the token already and is not overwritten";
    desk.run("pkcs11 generate --id 01 --label other").assert(73, "", taken);
    desk.run("pkcs11 generate --id 02 --label made").assert(73, "", taken);
    let second = desk.json("pkcs11 generate --id 02 --label second -t account --extractable --chain test-1");
    assert_eq!((&second["algorithm"], &second["extractable"]), (&json!("secp256k1"), &json!(true)));
    assert_eq!((&second["chain_id"], &second["replaces_line"]), (&json!(CHAIN), &json!(8)));
    // With the key that was there.
    let both = format!("{CHAIN_AND_NODE}{}", second["section"].as_str().unwrap());
    let (config, _) = Config::parse(Path::new("tmkms.toml"), &both).unwrap();
    assert_eq!(config.pkcs11()[0].keys.len(), 2);
    assert_eq!(config.pkcs11()[0].keys[0].public_key, *pinned);

    let list = "id       01\nlabel    \"made\"|born     in the device, and could never leave it\nleaves   never\
                |label    \"second\"|born     in the device, but it could leave it|shown    never in the clear";
    desk.run("pkcs11 keys list").assert(0, list, "");
    let value = desk.json("pkcs11 keys list");
    let key = value["keys"].as_array().unwrap().iter().find(|key| key["id"] == "01").unwrap();
    let Value::Object(fields) = key else { panic!("{key}") };
    let names = "address algorithm born_in_device extractable id label local never_extractable public_key sensitive";
    assert_eq!(fields.keys().map(String::as_str).collect::<Vec<_>>().join(" "), names);
    assert_eq!((&key["born_in_device"], &key["address"]), (&json!(true), &json!(pinned.address_hex())));

    let shown = "signed   20, and all signatures verify\np50      | µs\np99      |born     in the device|profile  softhsm2 is tested";
    desk.run("pkcs11 test --id 01").assert(0, shown, "");
    let value = desk.json("pkcs11 test --label second --count 7");
    assert_eq!((&value["signatures"], &value["evidence"]), (&json!(7), &json!("tested")));
    assert!(value["p50_us"].as_u64().unwrap() <= value["p99_us"].as_u64().unwrap());
    desk.run("pkcs11 test --id 09").assert(66, "", "no private key on the token has id 09|id 01 label \"made\"");
    let (code, shown) = desk.on_terminal("pkcs11 test --id 01 --count 3", "");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("\r\x1b[Ksigned 3 of 3\r\x1b[K"), "{shown:?}");

    // The configuration pins another key than the device has.
    let text = fs::read_to_string(desk.home.path("tmkms.toml")).unwrap();
    let pinned_text = pinned.to_string();
    desk.home.write("tmkms.toml", text.replace(pinned_text.strip_prefix("ed25519:").unwrap(), VECTOR_KEY));
    desk.run("pkcs11 test --id 01").assert(65, "", &format!("the token holds key {pinned}|pins ed25519:{VECTOR_KEY}"));

    let seen = desk.objects();
    assert!(seen.contains("made") && seen.contains("second") && seen.contains("never extractable"), "{seen}");
}

/// The name of an encoding for `-f`, and the content of a key file.
type Form = (&'static str, String);

/// The vectors' key in forms that hold its seed, and in forms that do not.
fn forms() -> (Vec<Form>, Vec<Form>) {
    let public = ed25519_dalek::SigningKey::from_bytes(&VECTOR_SEED).verifying_key().to_bytes();
    let go = [VECTOR_SEED, public].concat();
    let json = json!({
        "priv_key": { "type": "tendermint/PrivKeyEd25519", "value": base64_of(&go) },
        "pub_key": { "type": "tendermint/PubKeyEd25519", "value": base64_of(&public) },
    });
    let mut expanded = Sha512::digest(VECTOR_SEED).to_vec();
    expanded[0] &= 248;
    expanded[31] = expanded[31] & 127 | 64;
    let with_seed =
        vec![("json", json.to_string()), ("base64", base64_of(&VECTOR_SEED) + "\n"), ("base64", base64_of(&go))];
    (with_seed, vec![("base64", base64_of(&expanded))])
}

#[test]
fn a_key_is_imported_from_every_form_that_holds_its_seed() {
    let Some(desk) = desk() else { return };
    desk.write_config(&desk.section());
    let address = highwater_address();
    let (with_seed, without) = forms();
    for (format, content) in without {
        desk.home.write("expanded.key", content);
        let words = format!("pkcs11 import expanded.key --id 01 --label a -f {format}");
        desk.run(&words).assert(65, "", "expanded.key: this Ed25519 key is expanded and its seed is lost");
    }
    assert_eq!(desk.json("pkcs11 keys list")["keys"], json!([]));

    for (number, (format, content)) in with_seed.into_iter().enumerate() {
        desk.home.write("in.key", content);
        let (told, guessed) = (format!("-f {format} --json"), String::new());
        for (how, flags) in [told, guessed].into_iter().enumerate() {
            let words = format!("pkcs11 import in.key --id {number}{how} --label a{number}{how} {flags}");
            let note = "destroy in.key and every copy of it now|A key must never run in two places";
            desk.run(&words).assert(0, &format!("{VECTOR_KEY}|{address}|imported"), note);
        }
    }
    let answer = desk.run("pkcs11 keys list");
    answer.assert(0, &format!("born     outside: imported|leaves   never|{VECTOR_KEY}"), "not complete");
    let value = desk.json("pkcs11 keys list");
    assert_eq!(value["keys"].as_array().unwrap().len(), 6);
    for key in value["keys"].as_array().unwrap() {
        assert_eq!((&key["born_in_device"], &key["extractable"]), (&json!(false), &json!(false)), "{key}");
    }
    desk.run("pkcs11 import in.key --id 00 --label new").assert(73, "", "a key with id 00 is on the token already");
    desk.run("pkcs11 import in.key --id ff --label ec -t account").assert(65, "", "in.key holds no usable key");
    desk.home.write("ec.key", base64_of(&VECTOR_SEED));
    desk.run("pkcs11 import ec.key --id ff --label ec -t account").assert(0, "type     secp256k1", "destroy ec.key");
    desk.run("pkcs11 import none.key --id fe --label none").assert(66, "", "there is no none.key");
    assert!(desk.objects().contains("secp256k1") || desk.objects().contains("EC_POINT"), "{}", desk.objects());
}

fn highwater_address() -> String {
    let public = ed25519_dalek::SigningKey::from_bytes(&VECTOR_SEED).verifying_key().to_bytes();
    sha2::Sha256::digest(public)[..20].iter().map(|byte| format!("{byte:02X}")).collect()
}

#[test]
fn without_a_configuration_flags_say_all() {
    let Some(desk) = desk() else { return };
    let device = format!("--profile softhsm2 --module {}", desk.lab.module.display());
    desk.run("pkcs11 keys list").assert(64, "", "there is no configuration|--profile and --token");
    desk.run("pkcs11 keys list -c none.toml").assert(66, "", "none.toml: the configuration cannot be read");
    desk.run(&format!("pkcs11 keys list {device}")).assert(64, "", "name the token with --token or --serial");
    desk.run(&format!("pkcs11 keys list {device} --token {LABEL}")).assert(64, "", "needs a PIN|--pin-file");
    desk.run(&format!("pkcs11 keys list {device} --token typo --pin-file pin")).assert(
        66,
        "",
        "there is no token \"typo\"",
    );
    let words = format!("{device} --token {LABEL} --pin-file pin");
    desk.run(&format!("pkcs11 keys list {words}")).assert(0, "no private keys", "");
    desk.run(&format!("pkcs11 keys list --profile softhsm2 --module /none.so --token {LABEL} --pin-file pin")).assert(
        66,
        "",
        "there is no /none.so: install the package softhsm2",
    );
    desk.run(&format!("pkcs11 keys list {device} --token {LABEL} --pin-file none")).assert(
        66,
        "",
        "PIN file: there is no |/none",
    );
    desk.run(&format!("pkcs11 keys list --token {LABEL} --module /a.so")).assert(64, "", "--profile");

    let answer = desk.run(&format!("pkcs11 generate {words} --id 0A --label made --chain test-1"));
    let pin_file = desk.home.path("pin");
    let pin_line = format!("pin = {{ file = {:?} }}", pin_file.to_str().unwrap());
    answer.assert(0, &format!("Add this to the configuration:|chain_ids = [\"test-1\"]|id = \"0a\"|{pin_line}"), "");
    Config::parse(Path::new("tmkms.toml"), &format!("{CHAIN_AND_NODE}{}", pasted(&answer))).unwrap();

    // By serial number, and with the PIN from a descriptor.
    let tokens = desk.json(&format!("pkcs11 tokens {device}"));
    let serial = tokens["tokens"][0]["serial"].as_str().unwrap();
    let line = format!(
        "exec {} pkcs11 generate {device} --serial {serial} --pin-fd 3 --id 0b --label other 3<pin",
        binary::highwater().display()
    );
    let mut shell = desk.lab.command("sh");
    let answer = desk.home.finish(shell.args(["-c", &line]).current_dir(desk.home.path(".")));
    answer.assert(0, &format!("serial = \"{serial}\"|CHAIN-ID|pin = {{ credential = \"hsm-pin\" }}"), "");
    assert_no_secret(&answer.stdout);

    // A configuration with several tokens.
    let other = desk.section().replace(LABEL, "other");
    desk.write_config(&format!("{}{other}", desk.section()));
    desk.run("pkcs11 keys list").assert(64, "", "name one token of ./tmkms.toml|token \"validator\", token \"other\"");
    desk.run(&format!("pkcs11 keys list --token {LABEL}")).assert(0, "label    \"made\"", "not complete");
    desk.run("pkcs11 keys list --token third").assert(78, "", "no key signs for the chain test-1");
    desk.run(&format!("pkcs11 keys list --token {LABEL} --chain x")).assert(64, "", "--chain");
    desk.run(&format!("pkcs11 generate --token {LABEL} --id 0c --label c --chain x")).assert(64, "", "no chain x");
    desk.home.write("tmkms.toml", "what is this");
    desk.run(&format!("pkcs11 keys list {words}")).assert(78, "", "this is not TOML");
    desk.run(&format!("pkcs11 keys list {words} -c /dev/null")).assert(0, "label    \"made\"", "");
}

#[test]
fn a_wrong_pin_is_sent_once() {
    let Some(desk) = desk() else { return };
    desk.write_config(&desk.section());
    desk.home.write("wrong", "hush-4321");
    let words = "pkcs11 keys list --pin-file wrong";
    desk.run(words).assert(77, "", "did not accept the PIN (C_Login answered CKR_PIN_INCORRECT)");
    for words in [words, "pkcs11 keys list", "pkcs11 generate --id 01 --label a", "pkcs11 test --id 01"] {
        let answer = desk.run(words);
        answer.assert(77, "", "CKF_USER_PIN_COUNT_LOW|log in once");
        assert!(!answer.stderr.contains("4321"), "{answer:?}");
    }
    desk.run("pkcs11 tokens").assert(0, "pin     low", "");
    assert!(desk.lab.pkcs11_tool(&["--list-objects"]).status.success());
    desk.run("pkcs11 keys list").assert(0, "no private keys", "not complete");
}

#[test]
fn a_key_is_deleted_after_a_look_at_which() {
    let Some(desk) = desk() else { return };
    desk.write_config(&desk.section());
    let address = desk.json("pkcs11 generate --id 01 --label one")["address"].as_str().unwrap().to_owned();
    desk.json("pkcs11 generate --id 02 --label two");
    let refusal = format!("on the token \"{LABEL}\"|label    \"one\"|address  {address}|nothing was deleted|Add --yes");
    desk.run("pkcs11 delete --id 01").assert(64, "", &refusal);
    desk.run("pkcs11 delete --label one").assert(64, "", &refusal);
    desk.run("pkcs11 delete").assert(64, "", "required arguments were not provided:\n  <--id <HEX");
    for missing in ["pkcs11 delete --id 09", "pkcs11 delete --id 09 --yes"] {
        desk.run(missing).assert(66, "", "no private key on the token has id 09");
    }
    for (typed, code, said) in [("two\n", 64, "that is not its name"), ("one\n", 0, "deleted")] {
        let (ended, shown) = desk.on_terminal("pkcs11 delete --id 01", typed);
        assert_eq!(ended, code, "{shown}");
        assert!(
            shown.contains(&address) && shown.contains("type one and press Enter") && shown.contains(said),
            "{shown}"
        );
    }
    let seen = desk.objects();
    assert!(seen.contains("two") && !seen.contains("one"), "{seen}");
    let value = desk.json("pkcs11 delete --label two --yes");
    assert_eq!((&value["deleted"], &value["key"]["id"]), (&json!(true), &json!("02")));
    assert_eq!(desk.objects(), "");
    desk.json("pkcs11 generate --id 03 --label three");
    desk.run("pkcs11 delete --id 03 --yes").assert(0, "deleted\nid       03", "not complete");
}

#[test]
fn a_running_signer_is_not_disturbed() {
    let Some(desk) = desk() else { return };
    desk.write_config(&desk.section());
    let section = desk.json("pkcs11 generate --id 01 --label one")["section"].as_str().unwrap().to_owned();
    desk.write_config(&section);
    desk.run("state init --never-signed").assert(0, "made", "");
    desk.home.write("in.key", base64_of(&VECTOR_SEED));
    let mut signer = desk.home.spawn("signer", &mut desk.highwater("start"));
    signer.wait_for_line("chain open");

    let by_flags = format!("--profile softhsm2 --module {} --pin-file pin", desk.lab.module.display());
    let serial = desk.json("pkcs11 tokens")["tokens"][0]["serial"].as_str().unwrap().to_owned();
    let before = desk.objects();
    for words in [
        "pkcs11 keys list",
        "pkcs11 generate --id 02 --label two",
        "pkcs11 import in.key --id 02 --label two",
        "pkcs11 delete --id 01 --yes",
        "pkcs11 test --id 01 --json",
        &format!("pkcs11 keys list {by_flags} --token {LABEL}"),
        &format!("pkcs11 keys list {by_flags} --serial {serial}"),
    ] {
        let refusal =
            "the signer of chain test-1 is running and needs the token|stop it first|watermark.highwater is locked";
        desk.run(words).assert(75, "", refusal);
    }
    // Also where the key's entry is being rewritten.
    desk.write_config(&section.replace(", public_key", " } #"));
    desk.run("pkcs11 keys list").assert(75, "", "the signer of chain test-1 is running");
    desk.write_config(&desk.section());
    desk.run("pkcs11 keys list").assert(75, "", "the signer of chain test-1 is running");
    desk.write_config(&section);
    assert_eq!(desk.objects(), before);

    // Another token is nobody's.
    desk.lab.init_token("second");
    desk.run(&format!("pkcs11 keys list {by_flags} --token second")).assert(0, "no private keys", "");
    assert!(signer.terminate().success());
    desk.run("pkcs11 test --id 01").assert(0, "signed   20", "");
}

#[test]
fn check_says_what_to_install_and_what_was_never_run() {
    let home = Home::new();
    let section = "[[providers.pkcs11]]\nprofile = \"thales-luna7\"\nmodule = \"/none.so\"\ntoken = { label = \"a\" }\n\
                   pin = { file = \"pin\" }\n";
    let keys = format!("keys = [{{ chain_ids = [\"test-1\"], id = \"01\", public_key = \"{VECTOR_KEY}\" }}]\n");
    home.write("tmkms.toml", format!("{CHAIN_AND_NODE}{section}{keys}"));
    let shown = "warn  ./tmkms.toml:9: |the profile thales-luna7 comes from the vendor's documentation and was never run\
                 |fail  token \"a\": there is no /none.so: install ";
    let answer = home.run("check");
    answer.assert(2, shown, "");
    assert!(!answer.stdout.contains("ok    token"), "{answer:?}");
    let answer = home.run("pkcs11 test --id 01");
    answer.assert(66, "", "there is no /none.so: install |, or name the file with --module");
}

#[test]
fn the_walk_through_of_the_guide_walks() {
    let Some(desk) = desk() else { return };
    let guide = include_str!("../../docs/hsm-pkcs11.md");
    let blocks = guide.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script: String = blocks.collect();
    assert!(script.contains("highwater pkcs11 generate"), "{script}");
    let programs = binary::highwater().parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let walk = desk.home.path("walk");
    fs::create_dir(&walk).unwrap();
    let mut shell = desk.lab.command("sh");
    shell.args(["-eu", "-c", &script]).env_remove("SOFTHSM2_CONF").env_remove("TMKMS_CONFIG_FILE").env("PATH", path);
    let answer = desk.home.finish(shell.current_dir(&walk));
    assert_eq!(answer.code, 0, "{}\n{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains("signed   100, and all signatures verify"), "{}", answer.stdout);
}
