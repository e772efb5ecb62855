//! How `[[chain]]` and `[[validator]]` are read.

use super::{
    HookConfig, KeyEncoding, KeyFormat, KeyRole, NodeAddress,
    tests::{GOOD, accept, assert_one_error, assert_one_warning, good_with, warnings},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

#[test]
fn defaults_are_those_of_tmkms() {
    let (config, warnings) = accept(GOOD);
    assert!(warnings.is_empty(), "{warnings:?}");

    let chain = &config.chains[0];
    assert_eq!((chain.id.as_str(), chain.line), ("test-1", 1));
    assert_eq!(chain.key_format, KeyFormat::Hex);
    assert_eq!(chain.state_file, Path::new("./test-1_priv_validator_state.json"));
    assert_eq!((&chain.state_hook, chain.allow_raw_bytes), (&None, false));

    let validator = &config.validators[0];
    let identity_key = PathBuf::from("identity.key");
    let address = NodeAddress::Tcp { peer_id: None, host: "10.0.0.1".into(), port: 26658, identity_key };
    assert_eq!((&validator.address, validator.chain_id.as_str(), validator.line), (&address, "test-1", 5));
    assert_eq!((validator.reconnect, validator.max_height), (true, None));
    assert_eq!(validator.timeout, Duration::from_secs(10));

    let key = &config.softsign()[0];
    assert_eq!((key.key.chain_ids[0].as_str(), key.key.line), ("test-1", 10));
    assert_eq!((key.key.role, key.encoding), (KeyRole::Consensus, KeyEncoding::Base64));
    assert_eq!(key.path, Path::new("consensus.key"));
}

#[test]
fn every_key_of_a_chain_is_read() {
    let text = good_with(
        "key_format = { type = \"hex\" }",
        r#"state_file = "state/a.json"
        sign_extensions = true
        allow_raw_bytes = true
        state_hook = { cmd = ["/bin/height", "a"], timeout_secs = 7, fail_closed = false }
        [chain.key_format]
        type = "bech32"
        account_key_prefix = "a"
        consensus_key_prefix = "c""#,
    );
    let (config, warnings) = accept(&text);
    assert!(warnings.is_empty(), "{warnings:?}");
    let chain = &config.chains[0];
    assert_eq!(chain.state_file, Path::new("state/a.json"));
    assert!(chain.allow_raw_bytes);
    let key_format = KeyFormat::Bech32 { account_key_prefix: "a".into(), consensus_key_prefix: "c".into() };
    assert_eq!(chain.key_format, key_format);
    let hook = HookConfig {
        command: vec!["/bin/height".into(), "a".into()],
        timeout: Duration::from_secs(7),
        fail_closed: false,
    };
    assert_eq!(chain.state_hook, Some(hook));
}

#[test]
fn a_hook_without_fail_closed_fails_closed_and_says_so() {
    let text = good_with("id = ", "state_hook = { cmd = [\"/bin/height\"] }\nid = ");
    let hook = accept(&text).0.chains[0].state_hook.clone().expect("the chain has a hook");
    assert_eq!((hook.fail_closed, hook.timeout), (true, Duration::from_secs(1)));
    assert_one_warning(&text, 2, "no `fail_closed`: taken as true");
}

#[test]
fn only_an_explicit_no_to_extensions_is_warned_of() {
    let text = good_with("id = ", "sign_extensions = false\nid = ");
    assert_one_warning(&text, 2, "`sign_extensions` in [[chain]]: ignored");
    assert!(warnings(&good_with("id = ", "sign_extensions = true\nid = ")).is_empty());
}

#[test]
fn unknown_keys_in_key_format_are_read_past_as_in_tmkms() {
    let text = good_with("type = \"hex\"", "type = \"hex\", account_key_prefix = \"x\"");
    assert_one_warning(&text, 3, "unknown key `account_key_prefix` in chain.key_format has no effect");
    assert!(warnings(&good_with("\"hex\"", "\"cosmos-json\"")).is_empty());
}

#[test]
fn every_key_of_a_validator_is_read() {
    let more = "addr = \"unix:///run/a.sock\"\nreconnect = false\ntimeout = 300\nmax_height = \"500000\"";
    let (config, warnings) = accept(&good_with("addr = \"tcp://10.0.0.1:26658\"", more));
    assert!(warnings.is_empty(), "a `secret_key` on unix is accepted: {warnings:?}");
    let validator = &config.validators[0];
    assert_eq!(validator.address, NodeAddress::Unix { path: "/run/a.sock".into() });
    assert_eq!((validator.reconnect, validator.max_height), (false, Some(500_000)));
    assert_eq!(validator.timeout, Duration::from_secs(300));
}

#[test]
fn a_short_timeout_is_raised() {
    for (seconds, expected, warnings_expected) in [(0, 10, 1), (9, 10, 1), (10, 10, 0), (65535, 65535, 0)] {
        let text = good_with("addr", &format!("timeout = {seconds}\naddr"));
        assert_eq!(accept(&text).0.validators[0].timeout, Duration::from_secs(expected));
        assert_eq!(warnings(&text).len(), warnings_expected, "{seconds}");
    }
    assert_one_warning(&good_with("addr", "timeout = 9\naddr"), 6, "9 s is raised to 10 s");
}

#[test]
fn a_height_without_quotes_is_taken_with_a_warning() {
    let text = good_with("addr", "max_height = 500_000\naddr");
    assert_eq!(accept(&text).0.validators[0].max_height, Some(500_000));
    assert_one_warning(&text, 6, "tmkms refuses an integer here: write \"500000\"");
    for bad in ["\"\"", "\"1e3\"", "\"-1\"", "\"9223372036854775808\"", "-1", "9223372036854775808", "1.0"] {
        assert_one_error(&good_with("addr", &format!("max_height = {bad}\naddr")), 6, &["`max_height`"]);
    }
}

#[test]
fn a_protocol_version_is_ignored_unless_its_nodes_cannot_be_served() {
    for version in ["v0.34", "v0.38"] {
        assert!(warnings(&good_with("addr", &format!("protocol_version = {version:?}\naddr"))).is_empty());
    }
    for version in ["legacy", "v0.33"] {
        let text = good_with("addr", &format!("protocol_version = {version:?}\naddr"));
        assert_one_error(
            &text,
            6,
            &["`protocol_version` in [[validator]]: nodes with the protocol", "upgrade the node"],
        );
    }
    for version in ["v0.37", "v1", "whatever"] {
        let text = good_with("addr", &format!("protocol_version = {version:?}\naddr"));
        assert_one_warning(&text, 6, "`protocol_version` in [[validator]]: no effect");
    }
}

#[test]
fn missing_keys_are_named_with_the_line_of_their_section() {
    for (line_of_text, line, key) in [
        ("id = \"test-1\"\n", 1, "[[chain]] needs `id`"),
        ("key_format = { type = \"hex\" }\n", 1, "[[chain]] needs `key_format`"),
        ("addr = \"tcp://10.0.0.1:26658\"\n", 5, "[[validator]] needs `addr`"),
        ("chain_id = \"test-1\"\n", 5, "[[validator]] needs `chain_id`"),
        ("type = \"hex\"", 3, "chain.key_format needs `type`"),
    ] {
        assert_one_error(&good_with(line_of_text, ""), line, &[key]);
    }
    for (prefix, missing) in [("account", "consensus"), ("consensus", "account")] {
        let text = good_with("\"hex\"", &format!("\"bech32\", {prefix}_key_prefix = \"x\""));
        assert_one_error(&text, 3, &[&format!("chain.key_format needs `{missing}_key_prefix`")]);
    }
    let text = good_with("id = ", "state_hook = { fail_closed = true }\nid = ");
    assert_one_error(&text, 2, &["chain.state_hook needs `cmd`"]);
}

#[test]
fn wrong_values_are_named_with_their_line() {
    for (old, new, line, text) in [
        ("\"test-1\"", "5", 2, "`id` in [[chain]]: expected a string, found an integer"),
        ("\"test-1\"", "\"a b\"", 2, "`id` in [[chain]]: a chain id cannot contain ' '"),
        ("{ type = \"hex\" }", "\"hex\"", 3, "`key_format` in [[chain]]: expected a table, found a string"),
        ("\"hex\"", "\"hxe\"", 3, "expected \"bech32\" or \"cosmos-json\" or \"hex\", found \"hxe\""),
        ("id =", "sign_extensions = 1\nid =", 2, "`sign_extensions` in [[chain]]: expected a boolean"),
        ("id =", "allow_raw_bytes = 0.5\nid =", 2, "expected a boolean, found a float"),
        ("id =", "state_file = []\nid =", 2, "`state_file` in [[chain]]: expected a string, found an array"),
        ("id =", "state_file = \"\"\nid =", 2, "a path cannot be empty"),
        ("id =", "state_hook = { cmd = [], fail_closed = true }\nid =", 2, "`cmd` in chain.state_hook: it must name"),
        ("id =", "state_hook = { cmd = [\"\"], fail_closed = true }\nid =", 2, "it must name a program"),
        ("id =", "state_hook = { cmd = \"a\", fail_closed = true }\nid =", 2, "expected an array, found a string"),
        ("id =", "state_hook = { cmd = [\"a\",\n1], fail_closed = true }\nid =", 3, "found an integer"),
        ("id =", "state_hook = { cmd = [\"a\"], fail_closed = 1 }\nid =", 2, "`fail_closed` in chain.state_hook"),
        ("addr", "timeout = 65536\naddr", 6, "`timeout` in [[validator]]: expected an integer from 0 to 65535"),
        ("addr", "timeout = -1\naddr", 6, "expected an integer from 0 to 65535, found -1"),
        ("addr", "timeout = 1979-05-27\naddr", 6, "expected an integer, found a datetime"),
        ("addr", "reconnect = \"no\"\naddr", 6, "`reconnect` in [[validator]]: expected a boolean, found a string"),
        ("addr", "protocol_version = 1\naddr", 6, "expected a string"),
        ("tcp://10.0.0.1:26658", "tcp://10.0.0.1", 6, "`addr` in [[validator]]: the port is missing"),
        ("tcp://10.0.0.1:26658", "noise://a:1", 6, "noise:// is not supported"),
        ("secret_key = \"identity.key\"\n", "", 6, "needs `secret_key`"),
        ("\"identity.key\"", "1", 8, "`secret_key` in [[validator]]: expected a string"),
    ] {
        assert_one_error(&good_with(old, new), line, &[text]);
    }
}
