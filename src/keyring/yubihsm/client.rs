//! All calls to the `yubihsm` crate, and the meaning of its errors.
//!
//! Every call blocks for as long as the crate does. [`super::client_thread`] adds a deadline.

use super::{algorithms, usb};
use crate::{
    config::{YubiHsmAdapter, YubiHsmConfig},
    keyring::device::Trouble,
    process::{panic::contain, refused, resolver::Resolver},
};
use highwater_core::consensus::{KeyType, PublicKey, Signature};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use yubihsm::{
    AuditOption, Connector, Credentials, HttpConfig, Uuid,
    client::{Error, ErrorKind},
    device::ErrorKind as DeviceError,
};

/// How long a connector may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A device that can be reached, without a session.
pub struct Reached {
    connector: Connector,
}

/// What a device shows without a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Ten digits.
    pub serial_number: String,
    /// The version of its firmware: major, minor, patch.
    pub version: [u8; 3],
    /// The number of entries in its audit log, and the most that it can hold.
    pub log: (u8, u8),
}

/// A session with a device. It must not be used again after an error other than [`Trouble::Rejected`].
pub struct Client {
    crate_client: yubihsm::Client,
    auth_key: u16,
}

impl Reached {
    /// Looks for the device's connector. Uses no session of the device.
    pub fn look_for(
        adapter: &YubiHsmAdapter,
        serial_number: Option<&str>,
        resolver: &Resolver,
    ) -> Result<Self, Trouble> {
        match adapter {
            YubiHsmAdapter::Http { host, port } => {
                let stream = resolver.resolve(host, *port).and_then(connect).map_err(not_reached)?;
                let address = stream.peer_addr().map_err(not_reached)?;
                // The crate writes `addr:port` and tries only the first address of a name.
                let addr = match address {
                    SocketAddr::V4(address) => address.ip().to_string(),
                    SocketAddr::V6(address) => format!("[{}]", address.ip()),
                };
                let config = HttpConfig { addr, port: *port, ..HttpConfig::default() };
                Ok(Self { connector: Connector::http(&config) })
            }
            YubiHsmAdapter::Usb { timeout_ms } => on_usb(*timeout_ms, serial_number),
        }
    }

    /// Asks the device for its serial number, firmware and log. Uses no session.
    pub fn device_info(&self) -> Result<DeviceInfo, Trouble> {
        let command = vec![DEVICE_INFO, 0, 0];
        let sent = contain(|| self.connector.send_message(Uuid::nil(), command.into()));
        let answer: Vec<u8> = match sent.map_err(|text| panicked(&text))? {
            Ok(answer) => answer.into(),
            Err(error) => return Err(Trouble::Broken(format!("it does not answer Device Info ({error})").into())),
        };
        parse_device_info(&answer).ok_or_else(|| panicked("no device information"))
    }
}

/// The command that a device answers without a session (Yubico, Device Info).
const DEVICE_INFO: u8 = 0x06;

fn parse_device_info(answer: &[u8]) -> Option<DeviceInfo> {
    /// The bit that the code of an answer adds to the code of the command.
    const ANSWER: u8 = 0x80;
    let (header, body) = answer.split_first_chunk::<3>()?;
    let (fields, _algorithms) = body.split_first_chunk::<9>()?;
    let [major, minor, patch, serial @ .., log_size, log_used] = *fields;
    (header[0] == DEVICE_INFO | ANSWER).then(|| DeviceInfo {
        serial_number: format!("{:010}", u32::from_be_bytes(serial)),
        version: [major, minor, patch],
        log: (log_used, log_size),
    })
}

/// The error for a connector that does not accept a connection.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn not_reached(error: io::Error) -> Trouble {
    let advice = refused::advice(&error).unwrap_or("is yubihsm-connector running there?");
    Trouble::Broken(format!("cannot reach its connector ({error}): {advice}").into())
}

/// Connects to the first of the connector's addresses that answers.
pub(super) fn connect(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::ErrorKind::NotFound.into();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Looks for the device before the crate opens it: the crate resets every YubiHSM on the bus, also one in use.
fn on_usb(timeout_ms: u64, serial_number: Option<&str>) -> Result<Reached, Trouble> {
    let serial = serial_number
        .map(str::parse)
        .transpose()
        .map_err(|error| Trouble::Fatal(format!("its configured serial number is invalid: {error}").into()))?;
    usb::find(serial_number, Duration::from_millis(timeout_ms))?.require_free()?;
    Ok(Reached { connector: Connector::usb(&yubihsm::UsbConfig { serial, timeout_ms }) })
}

/// Why no session was opened.
#[derive(Debug)]
pub struct NotOpened {
    pub trouble: Trouble,
    /// Whether the device may hold a session all the same.
    pub takes_session: bool,
}

impl From<Trouble> for NotOpened {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, takes_session: true }
    }
}

impl Client {
    /// Opens a session, and checks that it is the right device.
    pub fn open(config: &YubiHsmConfig, reached: Reached, credentials: Credentials) -> Result<Self, NotOpened> {
        let auth_key = config.auth_key;
        // Without reconnecting: if the crate replaced a session by itself, the new one would not be counted.
        let opened = contain(|| yubihsm::Client::open(reached.connector, credentials, false));
        let crate_client = opened.map_err(|text| panicked(&text))?.map_err(|error| NotOpened {
            trouble: not_opened(&error, auth_key),
            takes_session: error.device_error() != Some(DeviceError::SessionsFull) && !was_refused(&error),
        })?;
        let client = Self { crate_client, auth_key };
        if let Some(expected) = &config.serial_number {
            let found = client.ask("show its serial number", yubihsm::Client::device_info)?.serial_number.to_string();
            if found != *expected {
                return Err(Trouble::Broken(format!("the device there has the serial number {found}").into()).into());
            }
        }
        Ok(client)
    }

    /// Whether the device refuses to sign once its log is full. `None` if the authentication key may not read that.
    pub fn force_audit(&self) -> Result<Option<bool>, Trouble> {
        match self.ask("show its audit settings", yubihsm::Client::get_force_audit_option) {
            Ok(option) => Ok(Some(option != AuditOption::Off)),
            Err(Trouble::Rejected(_)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The public key of the asymmetric key with this object id. It must be of this type.
    pub fn public_key(&self, id: u16, key_type: KeyType) -> Result<PublicKey, Trouble> {
        let algorithm = algorithms::of(key_type)?;
        let found = self.ask(&format!("show key {id}"), |client| client.get_public_key(id))?;
        if found.algorithm != algorithm.asymmetric {
            let text = format!("its key {id} has the algorithm {:?}, but must be {key_type}", found.algorithm);
            return Err(Trouble::Rejected(text.into()));
        }
        let key = (algorithm.public_key)(&found.bytes);
        key.ok_or_else(|| Trouble::Broken(format!("it returned an invalid public key for key {id}").into()))
    }

    /// Fails if the key with this object id is not `expected`.
    pub fn expect_key(&self, id: u16, expected: &PublicKey) -> Result<(), Trouble> {
        let found = self.public_key(id, expected.key_type())?;
        if found != *expected {
            let text = format!(
                "its key {id} is {found}, but the state file is bound to {expected}: correct `key`, or put the right \
                 key into the device"
            );
            return Err(Trouble::Rejected(text.into()));
        }
        Ok(())
    }

    /// Signs `message` itself with Ed25519, or its SHA-256 with ECDSA. ECDSA signatures have low S.
    pub fn sign(&self, id: u16, key_type: KeyType, message: &[u8]) -> Result<Signature, Trouble> {
        let algorithm = algorithms::of(key_type)?;
        let signature = self.ask(&format!("sign with key {id}"), |client| (algorithm.sign)(client, id, message))?;
        (algorithm.signature)(&signature).ok_or_else(|| Trouble::Broken("its ECDSA signature is not DER".into()))
    }

    /// Calls the crate. `what` is what is asked for, in words that follow "it refused to".
    pub fn ask<T>(&self, what: &str, act: impl FnOnce(&yubihsm::Client) -> Result<T, Error>) -> Result<T, Trouble> {
        let answer = contain(|| act(&self.crate_client)).map_err(|text| panicked(&text))?;
        answer.map_err(|error| match error.device_error() {
            Some(answer) => refused(answer, what, self.auth_key),
            None => lost(&error),
        })
    }
}

fn panicked(text: &str) -> Trouble {
    Trouble::Broken(format!("its connector sent an answer that no YubiHSM sends ({text})").into())
}

/// The trouble for an error that the device itself sent, through its session.
fn refused(answer: DeviceError, what: &str, auth_key: u16) -> Trouble {
    let refused = |hint: &str| Trouble::Rejected(format!("it refused to {what} ({answer}): {hint}").into());
    match answer {
        DeviceError::InsufficientPermissions => refused(&format!(
            "give that capability to authentication key {auth_key} and to the key, or put both into one domain"
        )),
        DeviceError::InvalidId | DeviceError::ObjectNotFound => {
            refused(&format!("it has no such key, or none in a domain of authentication key {auth_key}"))
        }
        DeviceError::LogFull => refused(
            "its log is full and force-audit is on: read and clear the log, and turn force-audit off, or it will stop \
             again",
        ),
        DeviceError::ObjectExists => refused(
            "an object with that id already exists, perhaps in a domain that this authentication key cannot see",
        ),
        DeviceError::StorageFailed => refused("its storage is full, or worn out"),
        DeviceError::InvalidCommand | DeviceError::InvalidData | DeviceError::WrongLength => {
            refused("it does not understand the command")
        }
        // They are about the session: a new one may help.
        DeviceError::AuthenticationFailed
        | DeviceError::InvalidSession
        | DeviceError::SessionFailed
        | DeviceError::SessionsFull => Trouble::Broken(format!("it could not {what} ({answer})").into()),
        // The session brought the answer, so it is good.
        _ => Trouble::Temporary(format!("it could not {what} ({answer})").into()),
    }
}

/// The trouble for an error that did not come through the session. For anything that the device sends outside a
/// session, the crate reports a `MemoryError` and drops the code.
fn lost(error: &Error) -> Trouble {
    match error.kind() {
        ErrorKind::ConnectorError | ErrorKind::ProtocolError => {
            Trouble::Broken(format!("the session broke off ({error})").into())
        }
        ErrorKind::ResponseError => Trouble::Broken("it no longer knows the session, as after a power cycle".into()),
        _ => Trouble::Broken(format!("the session was lost ({error})").into()),
    }
}

/// Whether the connector did not even accept a connection, so that nothing reached the device.
fn was_refused(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The trouble for a session that was not opened. Trying again does no harm: wrong passwords do not lock a YubiHSM.
fn not_opened(error: &Error, auth_key: u16) -> Trouble {
    if error.device_error() == Some(DeviceError::SessionsFull) {
        let text =
            "all of its 16 sessions are in use: stop other programs that use it. A session ends after 30 s of silence";
        return Trouble::Broken(text.into());
    }
    match error.kind() {
        ErrorKind::AuthenticationError => Trouble::WrongPassword(
            format!("the device rejected authentication key {auth_key}: wrong password or key id ({error})").into(),
        ),
        _ => Trouble::Broken(format!("it opens no session ({error})").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_the_device_says_through_its_session_is_a_clear_answer_unless_it_is_about_the_session() {
        for (answer, word) in [
            (DeviceError::ObjectNotFound, "no such key"),
            (DeviceError::InsufficientPermissions, "authentication key 4"),
            (DeviceError::LogFull, "force-audit"),
            (DeviceError::WrongLength, "sign with key 2"),
        ] {
            let trouble = refused(answer, "sign with key 2", 4);
            assert!(matches!(&trouble, Trouble::Rejected(text) if text.contains(word)), "{trouble:?}");
        }
        for answer in [DeviceError::InvalidSession, DeviceError::SessionFailed] {
            assert!(matches!(refused(answer, "sign", 4), Trouble::Broken(_)), "{answer}");
        }
        for answer in [DeviceError::GenericError, DeviceError::Unknown { code: 0x7f }] {
            assert!(matches!(refused(answer, "sign", 4), Trouble::Temporary(_)), "{answer}");
        }
    }

    #[test]
    fn a_device_says_who_it_is() {
        let answer = [0x86, 0, 10, 2, 4, 1, 0x07, 0x5b, 0xcd, 0x15, 62, 5, 46];
        let info = DeviceInfo { serial_number: "0123456789".into(), version: [2, 4, 1], log: (5, 62) };
        assert_eq!(parse_device_info(&answer), Some(info));
        assert_eq!(parse_device_info(&answer[..11]), None);
        assert_eq!(parse_device_info(&[0x7f, 0, 1, 3]), None);
        assert_eq!(parse_device_info(&[]), None);
    }

    #[test]
    fn a_connector_that_is_not_there_is_said_so() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let adapter = YubiHsmAdapter::Http { host: "127.0.0.1".into(), port };
        let trouble = Reached::look_for(&adapter, None, &Resolver::default()).err().unwrap();
        assert!(
            matches!(&trouble, Trouble::Broken(text) if text.contains("is yubihsm-connector running")),
            "{trouble:?}"
        );
    }
}
