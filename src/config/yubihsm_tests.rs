//! How YubiHSMs and their keys are read.

use super::*;
use crate::config::{
    KeyConfig, KeyRole,
    tests::{GOOD, accept, assert_one_error, assert_one_warning, errors, warnings},
};
use highwater_core::consensus::ChainId;
use std::path::Path;

/// It begins on line 10 when it replaces the softsign key of `GOOD`.
const DEVICE: &str = r#"[[providers.yubihsm]]
adapter = { type = "http", addr = "tcp://10.0.0.2:12345" }
auth = { key = 4, password_file = "/etc/password" }
keys = [{ chain_ids = ["test-1"], key = 2, type = "consensus" }, { chain_ids = ["test-1"], key = 3, key_type = "account" }]
serial_number = "0123456789"
"#;
/// The same keys on a second device. Follows on line 15.
const SECOND: &str = r#"[[providers.yubihsm]]
adapter = { type = "http", addr = "tcp://10.0.0.3:12345" }
auth = { key = 4, password_file = "/etc/password" }
keys = [{ chain_ids = ["test-1"], key = 7 }]
"#;

fn on_device(section: &str) -> String {
    format!("{}{section}", &GOOD[..GOOD.find("[[providers").unwrap()])
}

fn with(old: &str, new: &str) -> String {
    assert!(DEVICE.contains(old), "{old:?} is in the text");
    on_device(&DEVICE.replacen(old, new, 1))
}

#[test]
fn a_device_with_its_keys_is_read() {
    let (config, warnings) = accept(&on_device(DEVICE));
    assert!(warnings.is_empty(), "{warnings:?}");
    let [provider] = config.yubihsm()[..] else { panic!("one provider") };
    assert_eq!(provider.adapter, YubiHsmAdapter::Http { host: "10.0.0.2".into(), port: 12345 });
    assert_eq!((provider.auth_key, provider.line), (4, 10));
    assert!(matches!(&provider.password, SecretSource::File(path) if path == Path::new("/etc/password")));
    assert_eq!(provider.serial_number.as_deref(), Some("0123456789"));
    assert_eq!(provider.to_string(), "YubiHSM 0123456789 at tcp://10.0.0.2:12345");
    let [consensus, account] = provider.keys.as_slice() else { panic!("two keys") };
    assert_eq!((consensus.id, consensus.key.role, consensus.key.line), (2, KeyRole::Consensus, 13));
    assert_eq!((account.id, account.key.role), (3, KeyRole::Account));
}

#[test]
fn what_one_only_may_not_expect_is_warned_of() {
    let text = with("password_file = \"/etc/password\"", "password = \"hunter2\"");
    assert_one_warning(&text, 12, "anyone who reads this file");
    assert!(warnings(&text).iter().all(|warning| !warning.contains("hunter2")));
    assert!(!format!("{:?}", accept(&text).0).contains("hunter2"));
    let server = "connector_server = { laddr = \"tcp://127.0.0.1:12345\", cli = { auth_key = 2 } }\n";
    assert_one_warning(&on_device(&format!("{DEVICE}{server}")), 15, "does not share its device with other programs");
    let idle = "[[providers.yubihsm]]\nadapter = { type = \"http\", addr = \"h:1\" }\nauth = { key = 1, password_file = \"p\" }\n";
    assert_one_warning(&format!("{GOOD}{idle}"), 13, "signs for no chain");
}

#[test]
fn a_password_may_be_wherever_a_pin_may_be() {
    for (password, shown) in [
        ("{ credential = \"hsm-password\" }", "the credential hsm-password"),
        ("{ file = \"password.txt\" }", "the file password.txt"),
        ("{ fd = 3 }", "the file descriptor 3"),
    ] {
        let text = with("password_file = \"/etc/password\"", &format!("password = {password}"));
        let (config, warnings) = accept(&text);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.yubihsm()[0].password.to_string(), shown);
    }
    let text = with("password_file = \"/etc/password\"", "password = { env = \"PASSWORD\" }");
    assert_one_warning(&text, 12, "or a file descriptor for the password");
    let text = with("password_file = \"/etc/password\"", "password = { fd = 3, file = \"a\" }");
    assert_one_error(&text, 12, &["providers.yubihsm.auth.password needs either `credential` or"]);
}

#[test]
fn usb_is_read_as_tmkms_reads_it() {
    for (adapter, expected) in [("{ type = \"usb\" }", 1000), ("{ type = \"usb\", timeout_ms = 2500 }", 2500)] {
        let text = with("{ type = \"http\", addr = \"tcp://10.0.0.2:12345\" }", adapter);
        let (config, warnings) = accept(&text);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(config.yubihsm()[0].adapter, YubiHsmAdapter::Usb { timeout_ms: expected });
        let needs = config.needs();
        assert!(needs.usb && needs.ports == [26658], "{needs:?}");
    }
}

#[test]
fn only_one_section_may_use_usb() {
    let usb = DEVICE.replace("{ type = \"http\", addr = \"tcp://10.0.0.2:12345\" }", "{ type = \"usb\" }");
    let second = usb.replace("0123456789", "0000000007");
    assert_ne!(usb, second);
    assert_one_error(&on_device(&format!("{usb}{second}")), 15, &["the section on line 10 uses USB too", "connector"]);
}

#[test]
fn one_key_may_be_on_several_devices_and_the_first_in_the_file_comes_first() {
    let (config, warnings) = accept(&on_device(&format!("{DEVICE}{SECOND}")));
    assert!(warnings.is_empty(), "{warnings:?}");
    let chain = ChainId::new("test-1").unwrap();
    assert!(matches!(config.consensus_key(&chain), Some(KeyConfig { provider_number: 0, .. })));

    let software = &GOOD[GOOD.find("[[providers").unwrap()..];
    let text = on_device(&format!("{DEVICE}{software}"));
    assert_one_error(&text, 13, &["the chain test-1 already has its consensus key, on line 16"]);
    let twice = DEVICE.replace("key = 3, key_type = \"account\"", "key = 3");
    assert_one_error(&on_device(&twice), 13, &["already has its consensus key", "several YubiHSMs"]);
}

#[test]
fn a_device_has_one_section_for_each_authentication_key() {
    let again = SECOND.replace("10.0.0.3", "10.0.0.2").replace("keys", "serial_number = \"0123456789\"\nkeys");
    let text = on_device(&format!("{DEVICE}{again}"));
    assert_one_error(&text, 15, &["YubiHSM 0123456789 at tcp://10.0.0.2:12345 is already on line 10"]);
    accept(&on_device(&format!("{DEVICE}{}", again.replace("key = 4", "key = 5"))));
}

#[test]
fn mistakes_are_found_and_show_no_secret() {
    let text = on_device(&DEVICE.replace("password_file = \"/etc/password\"", "password = \"hunter2\""));
    let server = "connector_server = { laddr = \"tcp://127.0.0.1:12345\", cli = { auth_key = 2 } }\n";
    let text = format!("{text}{server}");
    for (old, new, line, words) in [
        ("adapter", "adaptor", 10, "[[providers.yubihsm]] needs `adapter`"),
        ("serial_number", "serial_no", 14, "did you mean `serial_number`?"),
        ("\"http\", addr", "\"http\", adr", 11, "did you mean `addr`?"),
        ("\"http\", addr = \"tcp://10.0.0.2:12345\"", "\"spi\", x = 1", 11, "expected \"http\" or \"usb\""),
        (", addr = \"tcp://10.0.0.2:12345\"", "", 11, "providers.yubihsm.adapter needs `addr`"),
        ("tcp://10.0.0.2:12345", "http://a:1", 11, "write tcp:// instead of http://"),
        ("tcp://10.0.0.2:12345", "unix:///a", 11, "write it as tcp://host:port"),
        ("key = 4", "key = 65536", 12, "`key` in providers.yubihsm.auth: expected an integer from 0"),
        ("password =", "passwd =", 12, "did you mean `password`?"),
        ("password =", "password_file = \"a\", password =", 12, "either `password_file` or `password`"),
        ("\"hunter2\"", "[\"hunter2\"]", 12, "`password` in providers.yubihsm.auth: expected a table, found an array"),
        ("[\"test-1\"]", "[\"test-2\"]", 13, "there is no [[chain]] with the id test-2: did you mean test-1?"),
        ("key = 2, type", "key = 2, tpye", 13, "[[providers.yubihsm.keys]]: did you mean `type`?"),
        ("key = 2, ", "", 13, "needs `key`: the object id"),
        ("\"0123456789\"", "\"123456789\"", 14, "a serial number has ten digits"),
        ("\"0123456789\"", "\"9999999999\"", 14, "no YubiHSM has the serial number 9999999999"),
        ("auth_key = 2", "auth_key = \"2\"", 15, "`auth_key` in providers.yubihsm.connector_server.cli"),
    ] {
        assert!(text.contains(old), "{old:?} is in the text");
        let result = errors(&text.replacen(old, new, 1));
        let place = format!("f:{line}: ");
        let found = result.iter().any(|error| error.starts_with(&place) && error.contains(words));
        assert!(found, "{place}{words} is in {result:#?}");
        assert!(result.iter().all(|error| !error.contains("hunter2")), "{result:#?}");
    }
}

#[test]
fn the_log_of_a_device_needs_an_audit_file() {
    let drains = format!("{DEVICE}drain_audit_log = true\n");
    assert_one_error(&on_device(&drains), 10, &["add `audit.file` to [highwater]"]);
    let (config, warnings) = accept(&on_device(&format!("{drains}[highwater]\naudit.file = \"audit\"\n")));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(config.yubihsm()[0].drain_audit_log);
    assert!(!accept(&on_device(DEVICE)).0.yubihsm()[0].drain_audit_log);
}

#[test]
fn an_address_with_the_scheme_of_the_protocol_is_told_what_to_write() {
    let text = with("tcp://10.0.0.2:12345", "http://10.0.0.2:12345");
    assert_one_error(&text, 11, &["write tcp:// instead of http://"]);
}

#[test]
fn a_serial_number_that_no_device_can_have_is_told_so() {
    let text = with("0123456789", "4294967296");
    assert_one_error(&text, 14, &["no YubiHSM has the serial number 4294967296", "the highest is 4294967295"]);
}
