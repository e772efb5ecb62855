//! `[[providers.yubihsm]]`: a YubiHSM 2 and its signing keys.

use super::{
    address::{Address, AddressError},
    keys::{DeviceKind, KeyHome, KeyRow, KeyUses},
    needs::{FileReader, Needs},
    reader::{ConfigFindings, Table, Value},
    secret::{Secret, SecretSource, read_source},
};
use std::fmt;

const SERIAL_NUMBER_DIGITS: usize = 10;
/// Default of `timeout_ms`, as in tmkms.
const USB_TIMEOUT_MS: u64 = 1000;

/// A `[[providers.yubihsm]]`: one YubiHSM 2, accessed with one of its authentication keys.
#[derive(Clone, Debug)]
pub struct YubiHsmConfig {
    pub adapter: YubiHsmAdapter,
    /// `auth.key`: the object id of the authentication key.
    pub auth_key: u16,
    /// `auth.password` or `auth.password_file`
    pub password: SecretSource,
    /// `serial_number`: ten digits. Without it, any device is accepted.
    pub serial_number: Option<String>,
    pub keys: Vec<YubiHsmKey>,
    /// `drain_audit_log`: whether to move the device's own log into the audit file.
    pub drain_audit_log: bool,
    /// The line of the section in the file.
    pub line: usize,
}

/// The device's name in messages.
impl fmt::Display for YubiHsmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YubiHSM")?;
        if let Some(serial) = &self.serial_number {
            write!(f, " {serial}")?;
        }
        write!(f, " {}", self.adapter)
    }
}

/// How to reach a YubiHSM 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum YubiHsmAdapter {
    /// Through a yubihsm-connector, which speaks plain HTTP.
    Http {
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// Not 0.
        port: u16,
    },
    /// Directly, by libusb.
    Usb {
        /// The longest time for one transfer.
        timeout_ms: u64,
    },
}

/// In words that follow the name of a device.
impl fmt::Display for YubiHsmAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port } if host.contains(':') => write!(f, "at tcp://[{host}]:{port}"),
            Self::Http { host, port } => write!(f, "at tcp://{host}:{port}"),
            Self::Usb { .. } => f.write_str("on USB"),
        }
    }
}

/// An entry of `keys` of a `[[providers.yubihsm]]`.
#[derive(Clone, Debug)]
pub struct YubiHsmKey {
    pub key: KeyRow,
    /// `key`: the object id.
    pub id: u16,
}

impl YubiHsmConfig {
    pub(super) fn read(table: &mut Table<'_>, uses: &mut KeyUses, findings: &mut ConfigFindings<'_>) -> Option<Self> {
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
        let keys = keys.map(|value| {
            value.tables("[[providers.yubihsm.keys]]", findings, |table, findings| {
                YubiHsmKey::read(section, table, uses, findings)
            })
        });

        let serial_number = table.get("serial_number", findings).map(|value| read_serial_number(value, findings));
        let drain = table.get("drain_audit_log", findings).map(|value| value.bool(findings));
        if let Some(server) = table.get("connector_server", findings) {
            server.table("providers.yubihsm.connector_server", findings, check_server);
            let text = "ignored: Highwater does not share its device with other programs. Run Yubico's yubihsm-connector, and \
                        name it in `adapter` of every program that needs the device";
            server.caution(text, findings);
        }
        let (auth_key, password) = auth?;
        Some(Self {
            adapter: adapter?,
            auth_key,
            password,
            serial_number: serial_number.map_or(Some(None), |serial| serial.map(Some))?,
            keys: keys.unwrap_or_default(),
            drain_audit_log: drain.unwrap_or(Some(false))?,
            line: section,
        })
    }

    pub(super) fn needs(&self) -> Needs {
        let mut needs = self.password.needs("password file", FileReader::SignerAgain);
        match &self.adapter {
            YubiHsmAdapter::Http { host, port } => needs.dial(host, *port),
            YubiHsmAdapter::Usb { .. } => needs.usb = true,
        }
        needs
    }

    /// A second session for the same purpose gains nothing.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        (&self.adapter, &self.serial_number, self.auth_key) == (&other.adapter, &other.serial_number, other.auth_key)
    }

    /// On USB, a search for one device disturbs all of them.
    pub(super) fn may_share_device(&self, other: &Self) -> bool {
        let is_same_number = self.serial_number.is_some() && self.serial_number == other.serial_number;
        self.adapter == other.adapter || is_same_number || self.adapter.is_usb() || other.adapter.is_usb()
    }
}

impl YubiHsmAdapter {
    fn is_usb(&self) -> bool {
        matches!(self, Self::Usb { .. })
    }
}

impl YubiHsmKey {
    fn read(
        section: usize,
        table: &mut Table<'_>,
        uses: &mut KeyUses,
        findings: &mut ConfigFindings<'_>,
    ) -> Option<Self> {
        let (_, key) = uses.read(table, KeyHome::OneOfSeveral { kind: DeviceKind::YubiHsm, section }, findings);
        let id = table.require("key", "the object id of the key", findings);
        let id = id.and_then(|value| value.u16(findings));
        Some(Self { key: key?, id: id? })
    }
}

fn read_adapter(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<YubiHsmAdapter> {
    #[derive(Clone, Copy)]
    enum AdapterKind {
        Http,
        Usb,
    }

    let kind = table.require("type", "\"http\" or \"usb\"", findings)?;
    match kind.one_of(&[("http", AdapterKind::Http), ("usb", AdapterKind::Usb)], findings) {
        Some(AdapterKind::Http) => {
            let meaning = "the connector's address, for example \"tcp://127.0.0.1:12345\"";
            let (host, port) = read_host_and_port(table.require("addr", meaning, findings)?, findings)?;
            Some(YubiHsmAdapter::Http { host, port })
        }
        Some(AdapterKind::Usb) => {
            let timeout = table.get("timeout_ms", findings).map(|value| value.u64(findings));
            Some(YubiHsmAdapter::Usb { timeout_ms: timeout.unwrap_or(Some(USB_TIMEOUT_MS))? })
        }
        None => {
            table.ignore_unknown_keys();
            None
        }
    }
}

/// The address of a connector: `tcp://host:port`, although the protocol is HTTP.
fn read_host_and_port(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<(String, u16)> {
    match Address::parse(value.string(findings)?) {
        Ok(Address::Tcp { peer_id: None, host, port }) => return Some((host, port)),
        Ok(_) => value.reject("write it as tcp://host:port", findings),
        Err(AddressError::Scheme { scheme }) if scheme == "http" => {
            let text = "write tcp:// instead of http://, as in tmkms: the protocol is HTTP all the same";
            value.reject(text, findings);
        }
        Err(error) => value.reject(error, findings),
    }
    None
}

fn read_auth(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<(u16, SecretSource)> {
    let key = table.require("key", "the id of the authentication key", findings);
    let key = key.and_then(|value| value.u16(findings));
    let value = table.exactly_one(["password_file", "password"], findings)?;
    let password = match value.key() {
        "password_file" => SecretSource::File(value.path(findings)?),
        _ if !value.is_string() => value.table("providers.yubihsm.auth.password", findings, |table, findings| {
            read_source(table, "password", findings)
        })??,
        _ => {
            let password = SecretSource::Inline(Secret::new(value.string(findings)?));
            let text = "anyone who reads this file, or a copy of it, has the password: put it in a separate file, and name \
                        that file in `password_file`";
            value.caution(text, findings);
            password
        }
    };
    Some((key?, password))
}

fn read_serial_number(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let text = value.string(findings)?;
    if text.len() != SERIAL_NUMBER_DIGITS || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        value.reject("a serial number has ten digits, including leading zeros, as in \"0123456789\"", findings);
        return None;
    }
    // On the device it has 32 bits.
    if text.parse::<u32>().is_err() {
        let text = format_args!(
            "no YubiHSM has the serial number {text}, because the highest is {}: `highwater yubihsm detect` lists those of \
             the devices here",
            u32::MAX
        );
        value.reject(text, findings);
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
#[path = "yubihsm_tests.rs"]
mod tests;
