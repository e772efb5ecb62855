//! How providers and the rows of their keys are read.

use super::*;
use crate::config::{
    KeyEncoding, KeyRole,
    tests::{GOOD, accept, assert_one_error, assert_one_warning, errors, good_with},
};

#[test]
fn a_softsign_key_may_call_its_role_type() {
    for name in ["key_type", "type"] {
        let (config, warnings) = accept(&good_with("path", &format!("{name} = \"account\"\npath")));
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.softsign()[0].key.role, KeyRole::Account);
    }
    let (config, _) = accept(&good_with("path", "key_type = \"consensus\"\nkey_format = \"json\"\npath"));
    assert_eq!((config.softsign()[0].key.role, config.softsign()[0].encoding), (KeyRole::Consensus, KeyEncoding::Json));
}

#[test]
fn a_key_for_no_chain_is_warned_of() {
    let text = format!("{GOOD}[[providers.softsign]]\nchain_ids = []\npath = \"x\"\n");
    assert_one_warning(&text, 14, "the key signs for no chain");
}

#[test]
fn what_is_missing_is_named_with_the_line_of_the_section() {
    for (line_of_text, line, key) in [
        ("chain_ids = [\"test-1\"]\n", 10, "[[providers.softsign]] needs `chain_ids`"),
        ("path = \"consensus.key\"\n", 10, "[[providers.softsign]] needs `path`"),
    ] {
        assert_one_error(&good_with(line_of_text, ""), line, &[key]);
    }
}

#[test]
fn every_wrong_chain_id_of_a_key_is_reported() {
    assert_eq!(errors(&good_with("[\"test-1\"]", "[\"a b\", \"test-1\", 2]")).len(), 2);
}

#[test]
fn a_key_whose_role_cannot_be_read_is_not_taken_for_a_consensus_key() {
    let key = "[[providers.softsign]]\nchain_ids = [\"test-1\"]\nkey_type = \"acount\"\npath = \"b\"\n";
    assert_one_error(&format!("{GOOD}{key}"), 15, &["found \"acount\""]);
}

#[test]
fn wrong_values_are_named_with_their_line() {
    for (old, new, line, text) in [
        ("[\"test-1\"]", "\"test-1\"", 11, "`chain_ids` in [[providers.softsign]]: expected an array"),
        ("[\"test-1\"]", "[\n\"test-1\",\n\"test-1\"]", 13, "it names the chain test-1 twice"),
        ("[\"test-1\"]", "[\n1]", 12, "expected a string, found an integer"),
        ("path", "key_type = \"acount\"\npath", 12, "expected \"account\" or \"consensus\", found \"acount\""),
        ("path", "key_type = \"account\"\ntype = \"account\"\npath", 13, "mean the same: remove one"),
        ("path", "key_format = \"raw\"\npath", 12, "expected \"base64\" or \"json\", found \"raw\""),
        ("path", "type = \"account\"\nkey_format = \"json\"\npath", 13, "softsign import -t account"),
    ] {
        assert_one_error(&good_with(old, new), line, &[text]);
    }
}

#[test]
fn providers_come_in_the_order_of_the_file() {
    let token =
        "[[providers.pkcs11]]\nprofile = \"softhsm2\"\ntoken = { label = \"a\" }\npin = { fd = 3 }\nkeys = []\n";
    let device = "[[providers.yubihsm]]\nadapter = { type = \"http\", addr = \"h:1\" }\nauth = { key = 1, password_file = \"p\" }\n";
    let file = "[[providers.softsign]]\nchain_ids = []\npath = \"b\"\n";
    let (config, _) = accept(&format!("{GOOD}{device}{token}{file}"));
    let kinds: Vec<_> = config.providers.iter().map(ToString::to_string).collect();
    assert_eq!(kinds[0], "key consensus.key");
    assert!(kinds[1].starts_with("YubiHSM") && kinds[2].starts_with("token \"a\"") && kinds[3] == "key b", "{kinds:?}");
    assert!(config.providers.iter().map(Provider::line).is_sorted());
}

#[test]
fn a_provider_that_there_is_not_is_refused_in_one_sentence_and_not_looked_into() {
    for name in ["ledgertm", "fortanixdsm"] {
        let section = format!("\n[[providers.{name}]]\nwhat = {{ ever = \"hunter2\" }}\n");
        assert_one_error(
            &format!("{GOOD}{section}"),
            14,
            &[&format!("[[providers.{name}]] is not supported: remove the section, and keep")],
        );
        assert_one_error(&format!("{GOOD}{section}{section}"), 14, &["remove the section"]);
        let with_typo = good_with("addr", "timeuot = 1\naddr") + &section;
        assert_eq!(errors(&with_typo).len(), 2, "other findings are still reported");
        // A chain whose only key is there is not also reported as having none.
        let without_key = &GOOD[..GOOD.find("[[providers").unwrap()];
        assert_one_error(&format!("{without_key}{section}"), 11, &["remove the section"]);
    }
}
