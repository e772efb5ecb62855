//! Keys in files and a new home: every form of a key is the same key, none is overwritten, and modes are tight.

use super::cli::{chmod, mode_of, public_key_hex, table};
use crate::support::cli::{Home, seed};
use serde_json::json;
use sha2::{Digest as _, Sha512};
use std::{fs, os::unix::fs::symlink};
use subtle_encoding::base64;

fn expanded() -> Vec<u8> {
    let mut bytes = Sha512::digest(seed()).to_vec();
    bytes[0] &= 248;
    bytes[31] = bytes[31] & 127 | 64;
    bytes
}

/// The consensus key of [`seed`] in every form that a file can have it in.
fn consensus_forms() -> Vec<(&'static str, String)> {
    let public = ed25519_dalek::SigningKey::from_bytes(&seed()).verifying_key().to_bytes();
    let go = [seed(), public].concat();
    let expanded = expanded();
    let mut yubihsm = expanded.clone();
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
        answer.assert(0, &shown, &format!("{name}.in"));
        let written = fs::read(home.path(&format!("{name}.key"))).unwrap();
        let expected = match name {
            "expanded" | "yubihsm" => expanded(),
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
    let made = "home/tmkms.toml|home/secrets/kms-identity.key";
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
        home.run(words).assert(0, "", "kept |home/tmkms.toml|home/secrets/kms-identity.key");
        home.assert_untouched(&before, words);
    }
    let config = " -c home/tmkms.toml";
    home.run(&format!("check{config}")).assert(2, "fail  chain osmosis-1: |fail  chain core-1: ", "");
    let key = "home/secrets/osmosis-1-consensus.key";
    home.run(&format!("state init --never-signed --chain osmosis-1{config}")).assert(66, "", key);
    home.run("init --height 5 home").assert(66, "", "`highwater softsign import`");
    home.assert_untouched(&before, "a command that failed");

    for chain in ["osmosis-1", "core-1"] {
        home.run(&format!("softsign keygen home/secrets/{chain}-consensus.key")).assert(0, "made", "");
    }
    home.run("init --height 5 home").assert(
        0,
        "",
        "osmosis-1-consensus.json.highwater|core-1-consensus.json.highwater",
    );
    home.run(&format!("check{config}")).assert(
        0,
        "osmosis-1-consensus.json.highwater|core-1-consensus.json.highwater",
        "",
    );
}

/// Whoever owns the home could have another user's directory filled, and handed over, by root.
#[test]
fn init_makes_nothing_through_a_link_in_the_home() {
    for name in ["secrets", "state"] {
        let home = Home::new();
        fs::create_dir_all(home.path("home")).unwrap();
        fs::create_dir(home.path("elsewhere")).unwrap();
        symlink(home.path("elsewhere"), home.path("home").join(name)).unwrap();
        home.run("init home").assert(73, "", "is a symbolic link");
        assert_eq!(fs::read_dir(home.path("elsewhere")).unwrap().count(), 0);
    }
}

#[test]
fn init_makes_key_and_state_of_a_new_validator_in_one_go() {
    let home = Home::new();
    let made = "secrets/cosmoshub-4-consensus.key|state/cosmoshub-4-consensus.json.highwater";
    home.run("init --never-signed home").assert(0, "", made);
    assert_eq!(mode_of(&home, "home/secrets/cosmoshub-4-consensus.key"), 0o600);
    assert_eq!(mode_of(&home, "home/state/cosmoshub-4-consensus.json.highwater"), 0o600);
    home.run("check -c home/tmkms.toml").assert(0, "ok    chain cosmoshub-4: ", "");
    let before = home.snapshot();
    home.run("init --never-signed home").assert(73, "", "kept|cosmoshub-4-consensus.json.highwater");
    home.run("init --height 5 home").assert(73, "", "kept|cosmoshub-4-consensus.json.highwater");
    home.assert_untouched(&before, "a second run");
}
