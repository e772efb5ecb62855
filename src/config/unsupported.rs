//! Providers of `tmkms.toml` that this build cannot sign with.
//!
//! They are read to the last key, so that a typing mistake in them is found too, and then each entry is an error.

use super::{
    KeyRole, PeerId,
    address::Address,
    providers::key_role,
    reader::{Findings, Table, Value},
    sections::Draft,
};
use crate::consensus::ChainId;
use std::{path::PathBuf, time::Duration};
use zeroize::Zeroizing;

/// How long a USB transfer may take, unless `timeout_ms` says otherwise; tmkms's value.
const USB_TIMEOUT_MILLIS: u64 = 1000;
/// Digits of a YubiHSM's serial number.
const SERIAL_NUMBER_DIGITS: usize = 10;

/// A secret that stands in the configuration itself. It has no `Debug`, and neither has what contains it.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The secret text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A `[[providers.yubihsm]]`.
pub struct YubihsmConfig {
    /// `adapter`
    pub adapter: YubihsmAdapter,
    /// `auth.key`: the id of the authentication key.
    pub auth_key: u16,
    /// `auth.password` or `auth.password_file`
    pub password: YubihsmPassword,
    /// `keys`
    pub keys: Vec<YubihsmKey>,
    /// `serial_number`: ten digits.
    pub serial_number: Option<String>,
    /// `connector_server`
    pub connector_server: Option<ConnectorServer>,
    /// Where the section stands in the file.
    pub line: usize,
}

/// How a YubiHSM is reached.
pub enum YubihsmAdapter {
    /// Through a yubihsm-connector.
    Http {
        /// Host name or IP address.
        host: String,
        /// Port, not 0.
        port: u16,
    },
    /// Over USB.
    Usb {
        /// `timeout_ms`, 1 s by default.
        timeout: Duration,
    },
}

/// Where the password of an authentication key is found.
pub enum YubihsmPassword {
    /// In this file.
    File(PathBuf),
    /// In the configuration.
    Text(Secret),
}

/// An entry of `keys` of a `[[providers.yubihsm]]`.
pub struct YubihsmKey {
    /// `chain_ids`
    pub chain_ids: Vec<ChainId>,
    /// `key`: the object id.
    pub key: u16,
    /// `type` (or `key_type`)
    pub role: KeyRole,
}

/// A server that lends the YubiHSM to other programs.
pub struct ConnectorServer {
    /// `laddr`: the host to listen on.
    pub host: String,
    /// `laddr`: the port to listen on.
    pub port: u16,
    /// `cli.auth_key`: the authentication key for commands.
    pub cli_auth_key: Option<u16>,
}

/// A `[[providers.ledgertm]]`.
pub struct LedgerConfig {
    /// `chain_ids`
    pub chain_ids: Vec<ChainId>,
    /// Where the section stands in the file.
    pub line: usize,
}

/// A `[[providers.fortanixdsm]]`.
pub struct FortanixConfig {
    /// `api_endpoint`
    pub api_endpoint: String,
    /// `api_key`
    pub api_key: Secret,
    /// `signing_keys`
    pub signing_keys: Vec<FortanixKey>,
    /// Where the section stands in the file.
    pub line: usize,
}

/// An entry of `signing_keys` of a `[[providers.fortanixdsm]]`.
pub struct FortanixKey {
    /// `chain_ids`
    pub chain_ids: Vec<ChainId>,
    /// `key_id` or `key_name`
    pub key: FortanixKeyName,
    /// `type` (or `key_type`)
    pub role: KeyRole,
}

/// What a Fortanix key is found by.
pub enum FortanixKeyName {
    /// `key_id`: a UUID.
    Id(String),
    /// `key_name`
    Name(String),
}

/// A `[[providers.pkcs11]]`. Its keys are not laid down yet.
pub struct Pkcs11Config {
    /// Where the section stands in the file.
    pub line: usize,
}

impl Draft {
    /// Reads every provider that this build has no driver for.
    pub(super) fn unsupported_providers(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) {
        if let Some(value) = table.get("yubihsm", findings) {
            self.yubihsm = self.unsupported(value, "[[providers.yubihsm]]", findings, Self::read_yubihsm);
        }
        if let Some(value) = table.get("ledgertm", findings) {
            self.ledgertm = self.unsupported(value, "[[providers.ledgertm]]", findings, Self::read_ledger);
        }
        if let Some(value) = table.get("fortanixdsm", findings) {
            self.fortanixdsm = self.unsupported(value, "[[providers.fortanixdsm]]", findings, Self::read_fortanix);
        }
        if let Some(value) = table.get("pkcs11", findings) {
            self.pkcs11 = self.unsupported(value, "[[providers.pkcs11]]", findings, Self::read_pkcs11);
        }
    }

    fn unsupported<'t, T>(
        &mut self,
        value: Value<'t>,
        name: &'static str,
        findings: &mut Findings<'_>,
        body: fn(&mut Self, &mut Table<'t>, &mut Findings<'_>) -> Option<T>,
    ) -> Vec<T> {
        value.tables(name, findings, |table, findings| {
            let text = format!(
                "this build of Highwater does not support {name} yet: remove the section, or keep using the present \
                 signer for its chains"
            );
            findings.error(table.line(), text);
            body(self, table, findings)
        })
    }

    fn read_yubihsm(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) -> Option<YubihsmConfig> {
        let adapter = table.require("adapter", "how to reach the device, for example { type = \"usb\" }", findings);
        let adapter =
            adapter.and_then(|value| value.table("providers.yubihsm.adapter", findings, read_adapter).flatten());
        let auth = table.require("auth", "`key` and `password_file`", findings);
        let auth = auth.and_then(|value| value.table("providers.yubihsm.auth", findings, read_auth).flatten());
        let keys = table.get("keys", findings).map(|value| {
            let body = |table: &mut Table<'_>, findings: &mut Findings<'_>| self.read_yubihsm_key(table, findings);
            value.tables("[[providers.yubihsm.keys]]", findings, body)
        });
        let serial_number = table.get("serial_number", findings).map(|value| read_serial_number(value, findings));
        let server = table.get("connector_server", findings);
        let server = server.and_then(|value| value.table("providers.yubihsm.connector_server", findings, read_server));

        let (auth_key, password) = auth?;
        Some(YubihsmConfig {
            adapter: adapter?,
            auth_key,
            password,
            keys: keys.unwrap_or_default(),
            serial_number: serial_number.flatten(),
            connector_server: server.flatten(),
            line: table.line(),
        })
    }

    fn read_yubihsm_key(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) -> Option<YubihsmKey> {
        let role = key_role(table, findings);
        let chain_ids = self.chains_of_key(table, role, false, findings);
        let key = table.require("key", "the object id of the key", findings).and_then(|value| value.u16(findings));
        Some(YubihsmKey { chain_ids: chain_ids?, key: key?, role: role? })
    }

    fn read_ledger(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) -> Option<LedgerConfig> {
        let chain_ids = self.chains_of_key(table, Some(KeyRole::Consensus), false, findings)?;
        Some(LedgerConfig { chain_ids, line: table.line() })
    }

    fn read_fortanix(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) -> Option<FortanixConfig> {
        let endpoint = table.require("api_endpoint", "the service's https:// address", findings);
        let endpoint = endpoint.and_then(|value| value.string(findings));
        let api_key = table.require("api_key", "the key for the service", findings);
        let api_key = api_key.and_then(|value| secret(value, findings));
        let keys = table.get("signing_keys", findings).map(|value| {
            let body = |table: &mut Table<'_>, findings: &mut Findings<'_>| self.read_fortanix_key(table, findings);
            value.tables("[[providers.fortanixdsm.signing_keys]]", findings, body)
        });
        Some(FortanixConfig {
            api_endpoint: endpoint?.to_owned(),
            api_key: api_key?,
            signing_keys: keys.unwrap_or_default(),
            line: table.line(),
        })
    }

    fn read_fortanix_key(&mut self, table: &mut Table<'_>, findings: &mut Findings<'_>) -> Option<FortanixKey> {
        let role = key_role(table, findings);
        let chain_ids = self.chains_of_key(table, role, false, findings);
        let (id, name) = (table.get("key_id", findings), table.get("key_name", findings));
        let key = match (id, name) {
            (Some(id), None) => id.string(findings).map(|id| FortanixKeyName::Id(id.into())),
            (None, Some(name)) => name.string(findings).map(|name| FortanixKeyName::Name(name.into())),
            _ => {
                findings.error(table.line(), format!("{} needs either `key_id` or `key_name`", table.name()));
                None
            }
        };
        Some(FortanixKey { chain_ids: chain_ids?, key: key?, role: role? })
    }

    fn read_pkcs11(&mut self, table: &mut Table<'_>, _: &mut Findings<'_>) -> Option<Pkcs11Config> {
        table.ignore_unknown_keys();
        self.keys_incomplete = true;
        Some(Pkcs11Config { line: table.line() })
    }
}

fn secret(value: Value<'_>, findings: &mut Findings<'_>) -> Option<Secret> {
    value.string(findings).map(|text| Secret(Zeroizing::new(text.to_owned())))
}

fn read_adapter(table: &mut Table<'_>, findings: &mut Findings<'_>) -> Option<YubihsmAdapter> {
    let kind = table.require("type", "\"usb\" or \"http\"", findings)?;
    match kind.one_of(&[("usb", true), ("http", false)], findings) {
        Some(true) => {
            let timeout = table.get("timeout_ms", findings).and_then(|value| value.u64(findings));
            Some(YubihsmAdapter::Usb { timeout: Duration::from_millis(timeout.unwrap_or(USB_TIMEOUT_MILLIS)) })
        }
        Some(false) => {
            let value = table.require("addr", "the connector, for example \"tcp://127.0.0.1:12345\"", findings)?;
            let (host, port) = host_and_port(value, findings)?;
            Some(YubihsmAdapter::Http { host, port })
        }
        None => {
            table.ignore_unknown_keys();
            None
        }
    }
}

/// An address of a connector: `tcp://host:port`, although HTTP is spoken there.
fn host_and_port(value: Value<'_>, findings: &mut Findings<'_>) -> Option<(String, u16)> {
    match Address::parse(value.string(findings)?) {
        Ok(Address::Tcp { peer_id: None::<PeerId>, host, port }) => return Some((host, port)),
        Ok(_) => value.reject("write it as tcp://host:port", findings),
        Err(error) => value.reject(error, findings),
    }
    None
}

fn read_auth(table: &mut Table<'_>, findings: &mut Findings<'_>) -> Option<(u16, YubihsmPassword)> {
    let key = table.require("key", "the id of the authentication key", findings).and_then(|value| value.u16(findings));
    let (file, text) = (table.get("password_file", findings), table.get("password", findings));
    let password = match (file, text) {
        (Some(file), None) => file.path(findings).map(YubihsmPassword::File),
        (None, Some(text)) => secret(text, findings).map(YubihsmPassword::Text),
        _ => {
            findings.error(table.line(), format!("{} needs either `password_file` or `password`", table.name()));
            None
        }
    };
    Some((key?, password?))
}

fn read_serial_number(value: Value<'_>, findings: &mut Findings<'_>) -> Option<String> {
    let text = value.string(findings)?;
    if text.len() != SERIAL_NUMBER_DIGITS || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        value.reject("a serial number has ten digits, with zeros in front: \"0123456789\"", findings);
        return None;
    }
    Some(text.into())
}

fn read_server(table: &mut Table<'_>, findings: &mut Findings<'_>) -> Option<ConnectorServer> {
    let address = table.require("laddr", "the address to listen on, for example \"tcp://127.0.0.1:12345\"", findings);
    let address = address.and_then(|value| host_and_port(value, findings));
    let cli = table.get("cli", findings);
    let cli_auth_key = cli.and_then(|value| {
        value.table("providers.yubihsm.connector_server.cli", findings, |table, findings| {
            table.get("auth_key", findings).and_then(|value| value.u16(findings))
        })
    });
    let (host, port) = address?;
    Some(ConnectorServer { host, port, cli_auth_key: cli_auth_key.flatten() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{GOOD, assert_one_error, errors, good_with};
    use toml::de::DeTable;

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
    const PKCS11: &str = "\n[[providers.pkcs11]]\nmodule = \"/usr/lib/hsm.so\"\n";
    /// The line on which a section added to `GOOD` begins.
    const SECTION: usize = 14;

    fn draft(text: &str) -> Draft {
        let root = DeTable::parse(text).unwrap();
        let mut draft = Draft::default();
        let body = |table: &mut Table<'_>, findings: &mut Findings<'_>| draft.read(table, findings);
        Table::read("the file", 0, root.get_ref(), &mut Findings::new(text), body);
        draft
    }

    #[test]
    fn each_unsupported_provider_is_one_error_beside_the_others() {
        for (section, name) in
            [(YUBIHSM, "yubihsm"), (LEDGER, "ledgertm"), (FORTANIX, "fortanixdsm"), (PKCS11, "pkcs11")]
        {
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
        for section in [YUBIHSM, LEDGER, FORTANIX, PKCS11] {
            assert_one_error(&format!("{without_key}{section}"), 11, &["does not support"]);
        }
    }

    #[test]
    fn every_key_is_read() {
        let draft = draft(&format!("{YUBIHSM}{LEDGER}{FORTANIX}{PKCS11}"));

        let hsm = &draft.yubihsm[0];
        assert!(matches!(hsm.adapter, YubihsmAdapter::Usb { timeout } if timeout == Duration::from_secs(1)));
        assert!(matches!(&hsm.password, YubihsmPassword::Text(secret) if secret.expose() == "hunter2"));
        assert_eq!((hsm.auth_key, hsm.serial_number.as_deref()), (1, Some("0123456789")));
        assert_eq!((hsm.keys[0].key, hsm.keys[0].role), (2, KeyRole::Consensus));
        assert_eq!((hsm.keys[1].key, hsm.keys[1].role), (3, KeyRole::Account));
        let server = hsm.connector_server.as_ref().unwrap();
        assert_eq!((server.host.as_str(), server.port, server.cli_auth_key), ("127.0.0.1", 12345, Some(2)));

        assert_eq!(draft.ledgertm[0].chain_ids[0].as_str(), "test-1");

        let dsm = &draft.fortanixdsm[0];
        assert_eq!((dsm.api_endpoint.as_str(), dsm.api_key.expose()), ("https://dsm.example.com", "hunter2"));
        assert!(matches!(&dsm.signing_keys[0].key, FortanixKeyName::Name(name) if name == "validator"));
        assert!(matches!(&dsm.signing_keys[1].key, FortanixKeyName::Id(id) if id.starts_with("72e9ed9e")));
        assert_eq!(draft.pkcs11.len(), 1);
    }

    #[test]
    fn other_forms_of_a_yubihsm_section_are_read() {
        let text = YUBIHSM
            .replace("{ type = \"usb\" }", "{ type = \"http\", addr = \"tcp://10.0.0.2:12345\" }")
            .replace("password = \"hunter2\"", "password_file = \"/a\"");
        let hsm = &draft(&text).yubihsm[0];
        assert!(matches!(&hsm.adapter, YubihsmAdapter::Http { host, port: 12345 } if host == "10.0.0.2"));
        assert!(matches!(&hsm.password, YubihsmPassword::File(path) if path.to_str() == Some("/a")));
        let text = YUBIHSM.replace("\"usb\"", "\"usb\", timeout_ms = 2500");
        let adapter = &draft(&text).yubihsm[0].adapter;
        assert!(matches!(adapter, YubihsmAdapter::Usb { timeout } if *timeout == Duration::from_millis(2500)));
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
