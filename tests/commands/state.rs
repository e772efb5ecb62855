//! The life of a state file by commands: what each exits with, what it leaves alone, and that one signer uses it.

use super::cli::{chmod, mode_of, public_key_hex, replace_in, table};
use crate::support::cli::{CHAIN, Home};
use serde_json::{Value, json};
use std::fs;

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
    home.run("state init --never-signed").assert(66, "", "watermark.highwater");
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
    let locked = "watermark.highwater|`fuser watermark.highwater`";
    let claimed = "process ";
    for (words, code, stdout, stderr) in [
        ("start", 75, "", locked),
        ("state raise --height 9", 75, "", locked),
        ("state export --format tmkms", 75, "", locked),
        ("state export --format tmkms -o exported", 75, "", locked),
        ("state import theirs.json", 75, "", claimed),
        ("state init --height 9", 73, "", "watermark.highwater"),
        ("state show", 0, "height 5|mode      active", ""),
        ("state show --json", 0, "\"height\":5", ""),
        // It asks the signer, which has nobody to serve.
        ("check", 2, "ok    chain test-1: |watermark.highwater|fail  chain test-1: |unix://", ""),
        ("status", 1, "test-1  ", ""),
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
    let pid = format!("process {} ", first.id());
    home.run("start -c b.toml").assert(75, "", &format!("{CHAIN}|{pid}"));
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
    copy.run("start").assert(65, "", "watermark.highwater|`highwater state import FILE`");
    copy.run("check").assert(2, "fail  chain test-1: ", "");
    copy.run("state import watermark.highwater").assert(65, "", "--i-checked-the-height");
    copy.run("state import watermark.highwater --i-checked-the-height").assert(
        0,
        "mode      active",
        "watermark.highwater.replaced",
    );
    copy.run("check").assert(0, "0/0/proposal", "");
}
