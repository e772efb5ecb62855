//! How tokens and their keys are read.

use super::*;
use crate::config::{
    Config, KeyConfig, Provider,
    tests::{GOOD, accept, assert_one_error, assert_one_warning, errors, warnings},
};
use highwater_core::consensus::ChainId;
use std::{fs, path::Path};

const ED25519: &str = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12";
const SECP256K1: &str = "0324653eac434488002cc06bbfb7f10fe18991e35f9fe4302dbea6d2353dc0ab1c";
/// Two keys on a token. It begins on line 10 when it replaces the softsign key of `GOOD`.
const TOKEN: &str = r#"[[providers.pkcs11]]
profile = "softhsm2"
module = "/opt/hsm.so"
token = { label = "validator" }
pin = { credential = "hsm-pin" }
keys = [
    { chain_ids = ["test-1"], id = "01Af", public_key = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12" },
    { chain_ids = ["test-1"], label = "a", type = "account", public_key = "AyRlPqxDRIgALMBrv7fxD+GJkeNfn+QwLb6m0jU9wKsc" },
]
"#;

/// `GOOD` with a token instead of its key.
fn on_token(token: &str) -> String {
    format!("{}{token}", &GOOD[..GOOD.find("[[providers").unwrap()])
}

fn with(old: &str, new: &str) -> String {
    assert!(TOKEN.contains(old), "{old:?} is in the text");
    on_token(&TOKEN.replacen(old, new, 1))
}

#[test]
fn a_token_with_its_keys_is_read() {
    let (config, warnings) = accept(&on_token(TOKEN));
    assert!(warnings.is_empty(), "{warnings:?}");
    let [provider] = config.pkcs11()[..] else { panic!("one provider") };
    assert_eq!((provider.profile.name.as_str(), provider.line), ("softhsm2", 10));
    assert_eq!(provider.module, Path::new("/opt/hsm.so"));
    assert_eq!(provider.token, TokenSelector::Label("validator".into()));
    assert!(matches!(&provider.pin, Some(SecretSource::Credential(name)) if name == "hsm-pin"));

    let [consensus, account] = provider.keys.as_slice() else { panic!("two keys") };
    assert_eq!((consensus.key.role, consensus.key.line), (KeyRole::Consensus, 16));
    assert_eq!(consensus.object, ObjectSelector::Id(vec![0x01, 0xaf]));
    assert_eq!(consensus.public_key.to_string(), format!("ed25519:{ED25519}"));
    assert_eq!((account.key.role, account.key.line), (KeyRole::Account, 17));
    assert_eq!(account.object, ObjectSelector::Label("a".into()));
    assert_eq!(account.public_key.to_string(), format!("secp256k1:{SECP256K1}"));
}

#[test]
fn a_token_may_be_named_by_serial_and_its_pin_come_from_elsewhere() {
    let (config, _) = accept(&with("label = \"validator\"", "serial = \"0123\""));
    assert_eq!(config.pkcs11()[0].token, TokenSelector::Serial("0123".into()));
    for (pin, shown) in [("file = \"pin.txt\"", "the file pin.txt"), ("fd = 3", "the file descriptor 3")] {
        let (config, warnings) = accept(&with("credential = \"hsm-pin\"", pin));
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.pkcs11()[0].pin.as_ref().unwrap().to_string(), shown);
    }
    assert_one_warning(
        &with("credential = \"hsm-pin\"", "env = \"PIN\""),
        14,
        "other programs inherit environment variables",
    );
}

#[test]
fn a_token_and_a_key_may_be_named_by_uri_or_by_both_parts() {
    let (config, warnings) = accept(&with(
        "module = \"/opt/hsm.so\"\ntoken = { label = \"validator\" }",
        "token = \"pkcs11:token=a%20b;serial=01?module-path=/opt/uri.so\"",
    ));
    assert!(warnings.is_empty(), "{warnings:?}");
    let token = config.pkcs11()[0];
    assert_eq!(token.module, Path::new("/opt/uri.so"));
    let both = TokenSelector::Both { label: "a b".into(), serial: "01".into() };
    assert_eq!(token.token, both);
    let (config, _) = accept(&with("label = \"validator\"", "serial = \"01\", label = \"a b\""));
    assert_eq!(config.pkcs11()[0].token, both);
    let key = ObjectSelector::Both { id: vec![1, 0xaf], label: "a;b".into() };
    for text in ["id = \"01af\", label = \"a;b\"", "uri = \"pkcs11:object=a%3bb;id=%01%af;type=private\""] {
        let (config, _) = accept(&with("id = \"01Af\"", text));
        assert_eq!(config.pkcs11()[0].keys[0].object, key, "{text}");
    }
    assert!(key.names(&[1, 0xaf], "a;b") && !key.names(&[1], "a;b") && !key.names(&[1, 0xaf], "a"));
    assert!(both.names("a b", "01") && !both.names("a b", "02") && !both.names("a", "01"));
    let [label, serial] = [TokenSelector::Label("a b".into()), TokenSelector::Serial("01".into())];
    assert!(both.may_be(&label) && both.may_be(&serial) && label.may_be(&serial));
    assert!(both.agrees_with(&label) && both.agrees_with(&serial) && !label.agrees_with(&serial));
    assert!(!both.may_be(&TokenSelector::Label("a".into())) && !both.agrees_with(&TokenSelector::Serial("02".into())));
}

#[test]
fn an_inline_pin_is_refused_unless_the_danger_is_accepted() {
    let inline = "\"hunter2\"";
    let text = with("{ credential = \"hsm-pin\" }", inline);
    assert_one_error(&text, 14, &["a PIN does not belong in this file", "danger_inline_pin = true"]);
    let text = with("{ credential = \"hsm-pin\" }", "\"hunter2\"\ndanger_inline_pin = true");
    assert_one_warning(&text, 14, "anyone who reads this file");
    let (config, _) = accept(&text);
    assert!(matches!(&config.pkcs11()[0].pin, Some(SecretSource::Inline(pin)) if pin.expose() == "hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));

    // The form for a child contains it again.
    let sent = serde_json::to_string(&config.pkcs11()[0].pin).unwrap();
    let arrived: Option<SecretSource> = serde_json::from_str(&sent).unwrap();
    assert!(matches!(arrived, Some(SecretSource::Inline(pin)) if pin.expose() == "hunter2"));
}

#[test]
fn an_inline_pin_has_the_format_of_the_profile() {
    let inline = |pin: &str| {
        let text = with("{ credential = \"hsm-pin\" }", &format!("{pin:?}\ndanger_inline_pin = true"));
        text.replace("softhsm2", "yubihsm2-pkcs11")
    };
    assert_one_error(&inline("hunter2"), 14, &["the PIN must be four hex digits"]);
    assert!(!errors(&inline("hunter2"))[0].contains("hunter2"));
    assert_eq!(accept(&inline("0001password")).0.pkcs11().len(), 1);
}

#[test]
fn mistakes_are_named_with_their_line() {
    for (old, new, line, words) in [
        ("profile = \"softhsm2\"\n", "", 10, &["[[providers.pkcs11]] needs `profile`"][..]),
        ("softhsm2", "softhms2", 11, &["no profile \"softhms2\"", "did you mean \"softhsm2\"?", "aws-cloudhsm, "]),
        ("softhsm2", "a/own.toml", 11, &["the profile a/own.toml cannot be read"]),
        ("/opt/hsm.so", "hsm.so", 12, &["must be absolute"]),
        ("module = \"/opt/hsm.so\"\n", "modul = \"/a\"\n", 12, &["did you mean `module`?"]),
        ("token = { label = \"validator\" }\n", "", 10, &["needs `token`"]),
        ("label = \"validator\"", "", 13, &["needs `label` or `serial`, or both"]),
        ("{ label = \"validator\" }", "\"validator\"", 13, &["a pkcs11: URI"]),
        ("{ label = \"validator\" }", "\"pkcs11:object=a\"", 13, &["names no token"]),
        ("{ label = \"validator\" }", "\"pkcs11:token=a?pin-value=hunter2\"", 13, &["`pin-value`", "change the PIN"]),
        ("{ label = \"validator\" }", "\"pkcs11:token=a?pin-source=/p\"", 13, &["pin = { file = \"/p\" }"]),
        (
            "{ label = \"validator\" }",
            "\"pkcs11:token=a?module-path=/b.so\"",
            12,
            &["`module-path`, /b.so: remove one"],
        ),
        ("\"validator\"", "\"pkcs11:token=a\"", 13, &["write token = \"pkcs11:...\""]),
        ("\"validator\"", "\"pkcs11:token=a?pin-value=hunter2\"", 13, &["`pin-value`"]),
        ("label = \"validator\"", "slot = 0, label = \"a\"", 13, &["unknown key `slot`"]),
        ("\"validator\"", "\"a-label-that-is-too-long-for-a-token\"", 13, &["expected 1 to 32 bytes"]),
        ("pin = { credential = \"hsm-pin\" }\n", "", 10, &["needs `pin`", "{ credential = \"name\" }"]),
        ("credential = \"hsm-pin\"", "", 14, &["either `credential` or `file` or `fd` or `env`"]),
        ("credential = \"hsm-pin\"", "credential = \"a\", fd = 3", 14, &["either `credential` or"]),
        ("\"hsm-pin\"", "\"../pin\"", 14, &["must be the name of a credential"]),
        ("credential = \"hsm-pin\"", "fd = 2", 14, &["a file descriptor from 3"]),
        ("credential = \"hsm-pin\"", "env = \"\"", 14, &["name of an environment variable"]),
        ("{ credential = \"hsm-pin\" }", "1234", 14, &["expected a table, found an integer"]),
        ("module = ", "files = [\"opt\"]\nmodule = ", 12, &["`files`", "must be absolute"]),
        ("module = ", "environment = [\"A=1\"]\nmodule = ", 12, &["the name of an environment variable"]),
        (
            "module = ",
            "environment = [\"CREDENTIALS_DIRECTORY\"]\nmodule = ",
            12,
            &["credentials are never passed to a module"],
        ),
        ("[\"test-1\"]", "[\"test-2\"]", 16, &["no [[chain]] with the id test-2"]),
        ("id = \"01Af\", ", "", 16, &["[[providers.pkcs11.keys]] needs `id` or `label`, or both"]),
        ("id = \"01Af\"", "id = \"01Af\", uri = \"pkcs11:id=%01\"", 16, &["`uri` names the key already"]),
        ("id = \"01Af\"", "uri = \"pkcs11:token=a\"", 16, &["names no key"]),
        ("id = \"01Af\"", "label = \"pkcs11:object=a\"", 16, &["write uri = \"pkcs11:...\""]),
        ("id = \"01Af\"", "uri = \"pkcs11:object=a?pin-value=hunter2\"", 16, &["`pin-value`"]),
        ("\"01Af\"", "\"01A\"", 16, &["`id` in [[providers.pkcs11.keys]]: expected the key's CKA_ID in hex"]),
        ("\"01Af\"", "\"\"", 16, &["expected the key's CKA_ID in hex"]),
        ("public_key = \"2152", "public_kye = \"2152", 16, &["needs `public_key`", "`highwater pkcs11 keys list`"]),
        ("\"2152", "\"52", 16, &["the raw ed25519 public key (32 bytes)", "`highwater pkcs11 keys list`"]),
        ("AyRl", "ByRl", 17, &["the raw secp256k1 public key (33 bytes, compressed)"]),
        ("type = \"account\"", "type = \"acount\"", 17, &["expected \"account\" or \"consensus\""]),
        ("softhsm2", "aws-cloudhsm", 16, &["the profile aws-cloudhsm does not support ed25519", "\"consensus\""]),
        ("softhsm2", "kryoptic", 17, &["the profile kryoptic does not support secp256k1", "\"account\""]),
    ] {
        let text = with(old, new);
        let result = errors(&text);
        let place = format!("f:{line}: ");
        let found = |error: &String| error.starts_with(&place) && words.iter().all(|word| error.contains(word));
        assert!(result.iter().any(found), "{place}{words:?} is in {result:#?}\n{text}");
        assert!(!result.iter().any(|error| error.contains("hunter2")), "{result:#?}");
    }
}

#[test]
fn a_profile_below_tested_is_warned_of_in_words() {
    let text = with("softhsm2", "thales-luna7").replace("type = \"account\"", "chain = 1");
    let text = text.lines().filter(|line| !line.contains("chain = 1")).collect::<Vec<_>>().join("\n");
    assert_one_warning(&text, 11, "the profile thales-luna7 comes from the vendor's documentation and was never run");
}

#[test]
fn the_module_is_where_the_profile_knows_it_to_be() {
    let text = with("module = \"/opt/hsm.so\"\n", "");
    assert_eq!(accept(&text).0.pkcs11()[0].module, Path::new("/usr/lib/softhsm/libsofthsm2.so"));
    let nowhere = text.replace("softhsm2", "nitrokey-nethsm");
    let found = errors(&nowhere).iter().any(|error| error.starts_with("f:10: [[providers.pkcs11]] needs `module`"));
    assert!(found, "{:#?}", errors(&nowhere));
}

#[test]
fn a_token_without_keys_is_warned_of() {
    let text = format!("{GOOD}{}", &TOKEN[..TOKEN.find("keys").unwrap()]);
    assert_one_warning(&text, 13, "has no `keys`, so it signs for no chain");
    assert_one_warning(&format!("{text}keys = []\n"), 13, "has no `keys`");
}

#[test]
fn the_key_of_a_chain_is_found_across_all_providers() {
    let chain = ChainId::new("test-1").unwrap();
    let (config, _) = accept(&on_token(TOKEN));
    let key = config.consensus_key(&chain).unwrap();
    assert!(matches!(key, KeyConfig { provider: Provider::Pkcs11(_), provider_number: 0, number: 0, .. }), "{key:?}");
    assert_eq!((key.role(), key.line()), (KeyRole::Consensus, 16));

    // A consensus key on a token takes precedence over an account key in a file, and vice versa.
    let consensus = TOKEN.lines().filter(|line| !line.contains("account")).collect::<Vec<_>>().join("\n");
    let account = "type = \"account\"\n";
    let (config, _) = accept(&format!("{GOOD}{account}{consensus}"));
    assert!(matches!(config.consensus_key(&chain).unwrap().provider, Provider::Pkcs11(_)));
    let account_only = TOKEN.lines().filter(|line| !line.contains("01Af")).collect::<Vec<_>>().join("\n");
    let (config, _) = accept(&format!("{GOOD}{account_only}"));
    assert!(matches!(config.consensus_key(&chain).unwrap().provider, Provider::Softsign(_)));
    let (config, _) = accept(&on_token(&account_only));
    assert_eq!(config.consensus_key(&chain).unwrap().role(), KeyRole::Account);
}

#[test]
fn a_chain_has_one_key_of_each_role_in_all_providers_together() {
    let words = "the chain test-1 already has its consensus key, on line 11";
    assert_one_error(&format!("{GOOD}{TOKEN}"), 19, &[words]);
}

#[test]
fn two_tokens_may_hold_one_key_but_not_two_keys() {
    let second = TOKEN.replace("\"validator\"", "\"backup\"");
    let (config, warnings) = accept(&format!("{}{second}", on_token(TOKEN)));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.pkcs11().len(), 2);
    assert_eq!(config.keys_of_device(&ChainId::new("test-1").unwrap()).count(), 2);
    // A token is no YubiHSM and no file.
    let other = second.replace(ED25519, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    let words = "must hold the same key, but this `public_key` differs from the one on line 16";
    assert_one_error(&format!("{}{other}", on_token(TOKEN)), 25, &[words]);
}

#[test]
fn a_token_stands_in_one_section() {
    let second = TOKEN.replace("[\"test-1\"]", "[]");
    let text = format!("{}{second}", on_token(TOKEN));
    assert_one_error(&text, 19, &["the token \"validator\" of /opt/hsm.so is already on line 10"]);
    let other = second.replace("\"validator\"", "\"backup\"");
    assert_eq!(warnings(&format!("{}{other}", on_token(TOKEN))).len(), 2, "keys without chains");
}

#[test]
fn a_profile_of_the_operators_own_is_read_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (profile, config) = (dir.path().join("own.toml"), dir.path().join("tmkms.toml"));
    let own = include_str!("../../../hsm-profiles/softhsm2.toml").replace("\"softhsm2\"", "\"own\"");
    fs::write(&profile, format!("{own}\n[session]\nlogin = \"protected-path\"\n")).unwrap();
    let text = with("\"softhsm2\"", &format!("{profile:?}"));
    fs::write(&config, text.replace("pin = { credential = \"hsm-pin\" }\n", "")).unwrap();
    let (loaded, _) = Config::load(&config).unwrap();
    assert_eq!(loaded.pkcs11()[0].profile.name, "own");
    assert!(loaded.pkcs11()[0].pin.is_none(), "login is on the device");

    fs::write(&config, &text).unwrap();
    let error = Config::load(&config).unwrap_err().to_string();
    assert!(error.contains("tmkms.toml:14: `pin` in [[providers.pkcs11]]: this profile logs in"), "{error}");

    fs::write(&profile, own.replace("[objects]", "[object]")).unwrap();
    let error = Config::load(&config).unwrap_err().to_string();
    assert!(error.contains("own.toml:") && error.contains("did you mean `objects`?"), "{error}");
}
