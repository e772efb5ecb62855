//! Providers of `tmkms.toml` that this build cannot sign with.
//!
//! They are read to the last key, so that a typing mistake in them is found too, and then each entry is an error.

use super::{
    KeyRole,
    address::Address,
    providers::key_role,
    reader::{Findings, Table, Value},
    sections::Draft,
};

/// Digits of a YubiHSM's serial number.
const SERIAL_NUMBER_DIGITS: usize = 10;

impl Draft {
    /// Checks every provider that this build has no driver for.
    pub(super) fn unsupported_providers(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) {
        if let Some(value) = table.get("yubihsm", findings) {
            self.unsupported(value, "[[providers.yubihsm]]", findings, Self::check_yubihsm);
        }
        if let Some(value) = table.get("ledgertm", findings) {
            self.unsupported(value, "[[providers.ledgertm]]", findings, Self::check_ledger);
        }
        if let Some(value) = table.get("fortanixdsm", findings) {
            self.unsupported(value, "[[providers.fortanixdsm]]", findings, Self::check_fortanix);
        }
    }

    fn unsupported<'t>(
        &mut self,
        value: Value<'t>,
        name: &'static str,
        findings: &mut Findings<'_>,
        body: fn(&mut Self, &mut Table<'t>, &mut Findings<'_>),
    ) {
        value.tables(name, findings, |table, findings| {
            let text = format!(
                "this build of Highwater does not support {name} yet: remove the section, or keep using the present \
                 signer for its chains"
            );
            findings.error(table.line(), text);
            body(self, table, findings);
            Some(())
        });
    }

    fn check_yubihsm(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) {
        if let Some(value) =
            table.require("adapter", "how to reach the device, for example { type = \"usb\" }", findings)
        {
            value.table("providers.yubihsm.adapter", findings, check_adapter);
        }
        if let Some(value) = table.require("auth", "`key` and `password_file`", findings) {
            value.table("providers.yubihsm.auth", findings, check_auth);
        }
        if let Some(value) = table.get("keys", findings) {
            value.tables("[[providers.yubihsm.keys]]", findings, |table, findings| {
                let role = key_role(table, findings);
                self.chains_of_key(table, role, false, findings);
                table.require("key", "the object id of the key", findings)?.u16(findings)
            });
        }
        if let Some(value) = table.get("serial_number", findings) {
            check_serial_number(value, findings);
        }
        if let Some(value) = table.get("connector_server", findings) {
            value.table("providers.yubihsm.connector_server", findings, check_server);
        }
    }

    fn check_ledger(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) {
        self.chains_of_key(table, Some(KeyRole::Consensus), false, findings);
    }

    fn check_fortanix(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) {
        for (key, meaning) in
            [("api_endpoint", "the service's https:// address"), ("api_key", "the key for the service")]
        {
            if let Some(value) = table.require(key, meaning, findings) {
                value.string(findings);
            }
        }
        if let Some(value) = table.get("signing_keys", findings) {
            value.tables("[[providers.fortanixdsm.signing_keys]]", findings, |table, findings| {
                let role = key_role(table, findings);
                self.chains_of_key(table, role, false, findings);
                table.exactly_one(["key_id", "key_name"], findings)?.string(findings)
            });
        }
    }
}

fn check_adapter(table: &mut Table<'_>, findings: &mut Findings<'_>) {
    let Some(kind) = table.require("type", "\"usb\" or \"http\"", findings) else { return };
    match kind.one_of(&[("usb", true), ("http", false)], findings) {
        Some(true) => {
            if let Some(timeout) = table.get("timeout_ms", findings) {
                timeout.u64(findings);
            }
        }
        Some(false) => {
            if let Some(value) = table.require("addr", "the connector, for example \"tcp://127.0.0.1:12345\"", findings)
            {
                check_host_and_port(value, findings);
            }
        }
        None => table.ignore_unknown_keys(),
    }
}

/// An address of a connector: `tcp://host:port`, although HTTP is spoken there.
fn check_host_and_port(value: Value<'_>, findings: &mut Findings<'_>) {
    match value.string(findings).map(Address::parse) {
        None | Some(Ok(Address::Tcp { peer_id: None, .. })) => (),
        Some(Ok(_)) => value.reject("write it as tcp://host:port", findings),
        Some(Err(error)) => value.reject(error, findings),
    }
}

fn check_auth(table: &mut Table<'_>, findings: &mut Findings<'_>) {
    if let Some(value) = table.require("key", "the id of the authentication key", findings) {
        value.u16(findings);
    }
    if let Some(value) = table.exactly_one(["password_file", "password"], findings) {
        match value.key() {
            "password_file" => drop(value.path(findings)),
            _ => drop(value.string(findings)),
        }
    }
}

fn check_serial_number(value: Value<'_>, findings: &mut Findings<'_>) {
    let Some(text) = value.string(findings) else { return };
    if text.len() != SERIAL_NUMBER_DIGITS || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        value.reject("a serial number has ten digits, with zeros in front: \"0123456789\"", findings);
    }
}

fn check_server(table: &mut Table<'_>, findings: &mut Findings<'_>) {
    if let Some(value) =
        table.require("laddr", "the address to listen on, for example \"tcp://127.0.0.1:12345\"", findings)
    {
        check_host_and_port(value, findings);
    }
    if let Some(cli) = table.get("cli", findings) {
        cli.table("providers.yubihsm.connector_server.cli", findings, |table, findings| {
            table.get("auth_key", findings).and_then(|value| value.u16(findings))
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{GOOD, assert_one_error, errors, good_with};

    const YUBIHSM: &str = r#"
[[providers.yubihsm]]
adapter = { type = "usb" }
auth = { key = 1, password = "hunter2" }
keys = [{ chain_ids = ["test-1"], key = 2, type = "consensus" }, { chain_ids = [], key = 3, key_type = "account" }]
serial_number = "0123456789"
connector_server = { laddr = "tcp://127.0.0.1:12345", cli = { auth_key = 2 } }
"#;
    const LEDGER: &str = "\n[[providers.ledgertm]]\nchain_ids = [\"test-1\"]\n";
    const FORTANIX: &str = r#"
[[providers.fortanixdsm]]
api_endpoint = "https://dsm.example.com"
api_key = "hunter2"
signing_keys = [
    { chain_ids = ["test-1"], type = "consensus", key_name = "validator" },
    { chain_ids = [], type = "account", key_id = "72e9ed9e-9eb4-46bd-a135-e78ed9bfd611" },
]
"#;
    /// The line on which a section added to `GOOD` begins.
    const SECTION: usize = 14;

    #[test]
    fn each_unsupported_provider_is_one_error_beside_the_others() {
        for (section, name) in [(YUBIHSM, "yubihsm"), (LEDGER, "ledgertm"), (FORTANIX, "fortanixdsm")] {
            let words = format!("does not support [[providers.{name}]] yet: remove the section, or keep using");
            assert_one_error(&format!("{GOOD}{section}"), SECTION, &[&words]);
            let with_typo = good_with("addr", "timeuot = 1\naddr") + section;
            assert_eq!(errors(&with_typo).len(), 2, "other findings are still reported");
            let twice = format!("{GOOD}{section}{section}");
            assert_eq!(errors(&twice).len(), 2, "one for each entry");
        }
    }

    #[test]
    fn a_chain_whose_only_key_is_in_an_unsupported_provider_has_a_key() {
        let without_key = &GOOD[..GOOD.find("[[providers").unwrap()];
        for section in [YUBIHSM, LEDGER, FORTANIX] {
            assert_one_error(&format!("{without_key}{section}"), 11, &["does not support"]);
        }
    }

    #[test]
    fn other_forms_of_a_yubihsm_section_have_no_mistake() {
        for (old, new) in [
            ("{ type = \"usb\" }", "{ type = \"http\", addr = \"tcp://10.0.0.2:12345\" }"),
            ("password = \"hunter2\"", "password_file = \"/a\""),
            ("\"usb\"", "\"usb\", timeout_ms = 2500"),
        ] {
            assert_one_error(&format!("{GOOD}{}", YUBIHSM.replacen(old, new, 1)), SECTION, &["does not support"]);
        }
    }

    #[test]
    fn mistakes_in_unsupported_providers_are_found_and_show_no_secret() {
        for (section, old, new, line, text) in [
            (YUBIHSM, "adapter", "adaptor", 14, "[[providers.yubihsm]] needs `adapter`"),
            (YUBIHSM, "serial_number", "serial_no", 18, "did you mean `serial_number`?"),
            (YUBIHSM, "\"usb\"", "\"usb\", timeout = 1", 15, "did you mean `timeout_ms`?"),
            (YUBIHSM, "\"usb\"", "\"spi\", x = 1", 15, "expected \"usb\" or \"http\""),
            (YUBIHSM, "\"usb\"", "\"http\"", 15, "providers.yubihsm.adapter needs `addr`"),
            (YUBIHSM, "\"usb\"", "\"http\", addr = \"http://a:1\"", 15, "\"http\" is not a known kind of address"),
            (YUBIHSM, "\"usb\"", "\"http\", addr = \"unix:///a\"", 15, "write it as tcp://host:port"),
            (YUBIHSM, "key = 1", "key = 65536", 16, "`key` in providers.yubihsm.auth: expected an integer from 0"),
            (YUBIHSM, "password =", "passwd =", 16, "did you mean `password`?"),
            (YUBIHSM, "password =", "password_file = \"a\", password =", 16, "either `password_file` or `password`"),
            (YUBIHSM, "\"hunter2\"", "[\"hunter2\"]", 16, "`password` in providers.yubihsm.auth: expected a string"),
            (YUBIHSM, "\"test-1\"", "\"test-2\"", 17, "there is no [[chain]] with the id test-2: did you mean test-1?"),
            (YUBIHSM, "key = 2, type", "key = 2, tpye", 17, "[[providers.yubihsm.keys]]: did you mean `type`?"),
            (YUBIHSM, "\"0123456789\"", "\"123456789\"", 18, "a serial number has ten digits"),
            (YUBIHSM, "auth_key = 2", "auth_key = \"2\"", 19, "`auth_key` in providers.yubihsm.connector_server.cli"),
            (LEDGER, "chain_ids", "chains", 15, "did you mean `chain_ids`?"),
            (FORTANIX, "\"hunter2\"", "{ key = \"hunter2\" }", 16, "`api_key` in [[providers.fortanixdsm]]: expected"),
            (FORTANIX, "api_key =", "apikey =", 16, "did you mean `api_key`?"),
            (FORTANIX, ", key_name = \"validator\"", "", 18, "needs either `key_id` or `key_name`"),
        ] {
            let result = errors(&format!("{GOOD}{}", section.replacen(old, new, 1)));
            let expected = format!("f:{line}: ");
            let found = result.iter().any(|error| error.starts_with(&expected) && error.contains(text));
            assert!(found, "{expected}{text} is in {result:#?}");
            assert!(result.iter().any(|error| error.contains("does not support")), "{result:#?}");
            assert!(result.iter().all(|error| !error.contains("hunter2")), "{result:#?}");
        }
    }
}
