//! `[[providers.yubihsm]]`: a YubiHSM 2, and the keys on it that sign.

use super::{
    PasswordSource, Secret, YubiHsmAdapter, YubiHsmConfig, YubiHsmKey,
    address::Address,
    providers::{KeyHome, key_role},
    reader::{ConfigFindings, Table, Value},
    sections::Draft,
};

/// Digits of a YubiHSM's serial number.
const SERIAL_NUMBER_DIGITS: usize = 10;
/// How long one USB transfer may take, unless `timeout_ms` says otherwise; tmkms's value.
const USB_TIMEOUT_MS: u64 = 1000;

impl Draft {
    /// Reads a `[[providers.yubihsm]]`.
    pub(super) fn yubihsm(
        &mut self,
        table: &mut Table<'_>,
        findings: &mut ConfigFindings<'_>,
    ) -> Option<YubiHsmConfig> {
        let meaning = "how to reach the device, for example { type = \"http\", addr = \"tcp://127.0.0.1:12345\" }";
        let adapter = table.require("adapter", meaning, findings);
        let adapter =
            adapter.and_then(|value| value.table("providers.yubihsm.adapter", findings, read_adapter).flatten());
        let auth = table.require("auth", "`key` and `password_file`", findings);
        let auth = auth.and_then(|value| value.table("providers.yubihsm.auth", findings, read_auth).flatten());

        let section = table.line();
        let keys = table.get("keys", findings);
        if keys.is_none_or(Value::is_empty_array) {
            findings.warning(section, "[[providers.yubihsm]] has no `keys`, so it signs for no chain");
        }
        let mut read =
            |table: &mut Table<'_>, findings: &mut ConfigFindings<'_>| self.yubihsm_key(section, table, findings);
        let keys = keys.map(|value| value.tables("[[providers.yubihsm.keys]]", findings, &mut read));

        let serial_number = table.get("serial_number", findings).map(|value| read_serial_number(value, findings));
        if let Some(server) = table.get("connector_server", findings) {
            server.table("providers.yubihsm.connector_server", findings, check_server);
            let text = "ignored: Highwater lends its device to no other program. Run Yubico's yubihsm-connector, and let \
                        everybody who needs the device name it in `adapter`";
            server.caution(text, findings);
        }
        let (auth_key, password) = auth?;
        Some(YubiHsmConfig {
            adapter: adapter?,
            auth_key,
            password,
            serial_number: serial_number.map_or(Some(None), |serial| serial.map(Some))?,
            keys: keys.unwrap_or_default(),
            line: section,
        })
    }

    fn yubihsm_key(
        &mut self,
        section: usize,
        table: &mut Table<'_>,
        findings: &mut ConfigFindings<'_>,
    ) -> Option<YubiHsmKey> {
        let role = key_role(table, findings);
        let chain_ids = self.chains_of_key(table, role, KeyHome::YubiHsm { section }, findings);
        let id = table.require("key", "the object id of the key", findings);
        let id = id.and_then(|value| value.u16(findings));
        Some(YubiHsmKey { chain_ids: chain_ids?, id: id?, role: role?, line: table.line() })
    }
}

fn read_adapter(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<YubiHsmAdapter> {
    let kind = table.require("type", "\"http\" or \"usb\"", findings)?;
    match kind.one_of(&[("http", false), ("usb", true)], findings) {
        Some(false) => {
            let meaning = "the connector's address, for example \"tcp://127.0.0.1:12345\"";
            let (host, port) = read_host_and_port(table.require("addr", meaning, findings)?, findings)?;
            Some(YubiHsmAdapter::Http { host, port })
        }
        Some(true) => {
            let timeout = table.get("timeout_ms", findings).map(|value| value.u64(findings));
            if !cfg!(feature = "usb") {
                let text = "this build cannot speak USB: run Yubico's yubihsm-connector and write { type = \"http\", addr = \
                            \"tcp://127.0.0.1:12345\" }, or build Highwater with the cargo feature `usb`: `cargo build \
                            --release --locked --features usb`";
                kind.reject(text, findings);
            }
            Some(YubiHsmAdapter::Usb { timeout_ms: timeout.unwrap_or(Some(USB_TIMEOUT_MS))? })
        }
        None => {
            table.ignore_unknown_keys();
            None
        }
    }
}

/// An address of a connector: `tcp://host:port`, although HTTP is spoken there.
fn read_host_and_port(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<(String, u16)> {
    match Address::parse(value.string(findings)?) {
        Ok(Address::Tcp { peer_id: None, host, port }) => return Some((host, port)),
        Ok(_) => value.reject("write it as tcp://host:port", findings),
        Err(error) => value.reject(error, findings),
    }
    None
}

fn read_auth(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<(u16, PasswordSource)> {
    let key = table.require("key", "the id of the authentication key", findings);
    let key = key.and_then(|value| value.u16(findings));
    let value = table.exactly_one(["password_file", "password"], findings)?;
    let password = match value.key() {
        "password_file" => PasswordSource::File(value.path(findings)?),
        _ => {
            let password = PasswordSource::Inline(Secret::new(value.string(findings)?));
            let text = "whoever reads this file, or a copy of it, has the password: put it into a file of its own, and \
                        name that as `password_file`";
            value.caution(text, findings);
            password
        }
    };
    Some((key?, password))
}

fn read_serial_number(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let text = value.string(findings)?;
    let digits = text.len() == SERIAL_NUMBER_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    // The device's own number has 32 bits.
    if !digits || text.parse::<u32>().is_err() {
        value.reject("a serial number has ten digits, with zeros in front: \"0123456789\"", findings);
        return None;
    }
    Some(text.into())
}

fn check_server(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) {
    if let Some(value) =
        table.require("laddr", "the address to listen on, for example \"tcp://127.0.0.1:12345\"", findings)
    {
        read_host_and_port(value, findings);
    }
    if let Some(cli) = table.get("cli", findings) {
        cli.table("providers.yubihsm.connector_server.cli", findings, |table, findings| {
            table.get("auth_key", findings).and_then(|value| value.u16(findings))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        KeyConfig, KeyRole,
        tests::{GOOD, accept, assert_one_error, assert_one_warning, errors, warnings},
    };
    use highwater_core::consensus::ChainId;
    use std::path::Path;

    /// It begins on line 10 where it replaces the softsign key of `GOOD`.
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
        let [provider] = config.yubihsm.as_slice() else { panic!("one provider") };
        assert_eq!(provider.adapter, YubiHsmAdapter::Http { host: "10.0.0.2".into(), port: 12345 });
        assert_eq!((provider.auth_key, provider.line), (4, 10));
        assert!(matches!(&provider.password, PasswordSource::File(path) if path == Path::new("/etc/password")));
        assert_eq!(provider.serial_number.as_deref(), Some("0123456789"));
        assert_eq!(provider.to_string(), "YubiHSM 0123456789 at tcp://10.0.0.2:12345");
        let [consensus, account] = provider.keys.as_slice() else { panic!("two keys") };
        assert_eq!((consensus.id, consensus.role, consensus.line), (2, KeyRole::Consensus, 13));
        assert_eq!((account.id, account.role), (3, KeyRole::Account));
    }

    #[test]
    fn what_one_only_may_not_expect_is_warned_of() {
        let text = with("password_file = \"/etc/password\"", "password = \"hunter2\"");
        assert_one_warning(&text, 12, "whoever reads this file");
        assert!(warnings(&text).iter().all(|warning| !warning.contains("hunter2")));
        assert!(!format!("{:?}", accept(&text).0).contains("hunter2"));
        let server = "connector_server = { laddr = \"tcp://127.0.0.1:12345\", cli = { auth_key = 2 } }\n";
        assert_one_warning(&on_device(&format!("{DEVICE}{server}")), 15, "lends its device to no other program");
        let idle = "[[providers.yubihsm]]\nadapter = { type = \"http\", addr = \"h:1\" }\nauth = { key = 1, password_file = \"p\" }\n";
        assert_one_warning(&format!("{GOOD}{idle}"), 13, "signs for no chain");
    }

    #[test]
    fn usb_needs_a_build_that_can_speak_it() {
        for adapter in ["{ type = \"usb\" }", "{ type = \"usb\", timeout_ms = 2500 }"] {
            let text = with("{ type = \"http\", addr = \"tcp://10.0.0.2:12345\" }", adapter);
            if cfg!(feature = "usb") {
                assert!(matches!(accept(&text).0.yubihsm[0].adapter, YubiHsmAdapter::Usb { .. }));
            } else {
                assert_one_error(&text, 11, &["cargo feature `usb`", "--features usb", "yubihsm-connector"]);
            }
        }
    }

    #[test]
    fn one_key_may_be_on_several_devices_and_the_first_in_the_file_comes_first() {
        let (config, warnings) = accept(&on_device(&format!("{DEVICE}{SECOND}")));
        assert!(warnings.is_empty(), "{warnings:?}");
        let chain = ChainId::new("test-1").unwrap();
        assert!(matches!(config.consensus_key(&chain), Some(KeyConfig::YubiHsm { provider_index: 0, .. })));

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
            ("tcp://10.0.0.2:12345", "http://a:1", 11, "\"http\" is not a known kind of address"),
            ("tcp://10.0.0.2:12345", "unix:///a", 11, "write it as tcp://host:port"),
            ("key = 4", "key = 65536", 12, "`key` in providers.yubihsm.auth: expected an integer from 0"),
            ("password =", "passwd =", 12, "did you mean `password`?"),
            ("password =", "password_file = \"a\", password =", 12, "either `password_file` or `password`"),
            ("\"hunter2\"", "[\"hunter2\"]", 12, "`password` in providers.yubihsm.auth: expected a string"),
            ("[\"test-1\"]", "[\"test-2\"]", 13, "there is no [[chain]] with the id test-2: did you mean test-1?"),
            ("key = 2, type", "key = 2, tpye", 13, "[[providers.yubihsm.keys]]: did you mean `type`?"),
            ("key = 2, ", "", 13, "needs `key`: the object id"),
            ("\"0123456789\"", "\"123456789\"", 14, "a serial number has ten digits"),
            ("\"0123456789\"", "\"9999999999\"", 14, "a serial number has ten digits"),
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
}
