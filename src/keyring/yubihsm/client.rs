//! All that calls the `yubihsm` crate, and what its errors mean.
//!
//! Every call blocks for as long as the crate does; [`super::client_thread`] gives them a deadline.

use crate::{
    config::{YubiHsmAdapter, YubiHsmConfig},
    keyring::device::Trouble,
    process::{panic::contain, resolver::Resolver},
};
use highwater_core::consensus::{KeyType, PublicKey, Signature};
use k256::ecdsa::{Signature as EcdsaSignature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use yubihsm::{
    AuditOption, Connector, Credentials, HttpConfig, Uuid,
    asymmetric::Algorithm,
    client::{Error, ErrorKind},
    device::ErrorKind as DeviceError,
};

/// How long a connector may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A device that has been reached, and no session with it yet.
pub struct Reached {
    connector: Connector,
}

/// What a device says without a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Ten digits.
    pub serial_number: String,
    /// Of its firmware: major, minor, patch.
    pub version: [u8; 3],
    /// Entries in its log that have not been read and cleared, and how many it holds.
    pub log: (u8, u8),
}

/// A session with a device. Nothing of it may be used again after an error other than [`Trouble::Rejected`].
pub struct Client {
    crate_client: yubihsm::Client,
    auth_key: u16,
}

impl Reached {
    /// Looks for the device's connector. Takes up no session on the device.
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
            YubiHsmAdapter::Usb { timeout_ms } => usb(*timeout_ms, serial_number),
        }
    }

    /// Asks the device who it is. Takes up no session.
    pub fn device_info(&self) -> Result<DeviceInfo, Trouble> {
        let command = vec![DEVICE_INFO, 0, 0];
        let sent = contain(|| self.connector.send_message(Uuid::nil(), command.into()));
        let answer: Vec<u8> = match sent.map_err(|text| panicked(&text))? {
            Ok(answer) => answer.into(),
            Err(error) => return Err(Trouble::Broken(format!("it does not say who it is ({error})").into())),
        };
        parse_device_info(&answer).ok_or_else(|| panicked("no device information"))
    }
}

/// The command that a device answers without a session (Yubico, Device Info).
const DEVICE_INFO: u8 = 0x06;

fn parse_device_info(answer: &[u8]) -> Option<DeviceInfo> {
    /// What the code of an answer has and that of its command has not.
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
    Trouble::Broken(format!("its connector cannot be reached ({error}): is yubihsm-connector running there?").into())
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

#[cfg(feature = "usb")]
fn usb(timeout_ms: u64, serial_number: Option<&str>) -> Result<Reached, Trouble> {
    let serial = serial_number
        .map(str::parse)
        .transpose()
        .map_err(|error| Trouble::Fatal(format!("its serial number cannot be read: {error}").into()))?;
    Ok(Reached { connector: Connector::usb(&yubihsm::UsbConfig { serial, timeout_ms }) })
}

#[cfg(not(feature = "usb"))]
fn usb(_timeout_ms: u64, _serial_number: Option<&str>) -> Result<Reached, Trouble> {
    Err(Trouble::Fatal("this build cannot speak USB: it lacks the cargo feature `usb`".into()))
}

/// Why there is no client.
#[derive(Debug)]
pub struct NotOpened {
    /// What to tell.
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
    /// Opens a session, and looks whether it is the right device.
    pub fn open(config: &YubiHsmConfig, reached: Reached, credentials: Credentials) -> Result<Self, NotOpened> {
        let auth_key = config.auth_key;
        // Without reconnecting: a session that the crate replaces by itself would be one that nobody has counted.
        let opened = contain(|| yubihsm::Client::open(reached.connector, credentials, false));
        let crate_client = opened.map_err(|text| panicked(&text))?.map_err(|error| NotOpened {
            trouble: not_opened(&error, auth_key),
            takes_session: error.device_error() != Some(DeviceError::SessionsFull) && !was_refused(&error),
        })?;
        let client = Self { crate_client, auth_key };
        if let Some(expected) = &config.serial_number {
            let found = client.ask("tell its serial number", yubihsm::Client::device_info)?.serial_number.to_string();
            if found != *expected {
                return Err(Trouble::Broken(format!("the device there has the serial number {found}").into()).into());
            }
        }
        Ok(client)
    }

    /// Whether the device refuses to sign once its log is full, or `None` if the authentication key may not know.
    pub fn force_audit(&self) -> Result<Option<bool>, Trouble> {
        match self.ask("tell its audit settings", yubihsm::Client::get_force_audit_option) {
            Ok(option) => Ok(Some(option != AuditOption::Off)),
            Err(Trouble::Rejected(_)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The public key of the asymmetric key with that object id, which must be of that type.
    pub fn public_key(&self, id: u16, key_type: KeyType) -> Result<PublicKey, Trouble> {
        let found = self.ask(&format!("show key {id}"), |client| client.get_public_key(id))?;
        let key = match (key_type, found.algorithm) {
            (KeyType::Ed25519, Algorithm::Ed25519) => PublicKey::from_bytes(key_type, &found.bytes).ok(),
            (KeyType::Secp256k1, Algorithm::EcK256) => from_coordinates(&found.bytes),
            (_, other) => {
                return Err(Trouble::Rejected(
                    format!("its key {id} is of the kind {other:?}, and must be {key_type}").into(),
                ));
            }
        };
        key.ok_or_else(|| Trouble::Broken(format!("what it says to be the public key of key {id} is none").into()))
    }

    /// Refuses a key that is not `expected`.
    pub fn expect_key(&self, id: u16, expected: PublicKey) -> Result<(), Trouble> {
        let found = self.public_key(id, expected.key_type())?;
        if found != expected {
            let text = format!(
                "its key {id} is {found}, and the state file is bound to {expected}: correct `key`, or put the right key \
                 into the device"
            );
            return Err(Trouble::Rejected(text.into()));
        }
        Ok(())
    }

    /// Signs `message` as it is. ECDSA is over its SHA-256 and has low S.
    pub fn sign(&self, id: u16, key_type: KeyType, message: &[u8]) -> Result<Signature, Trouble> {
        let what = format!("sign with key {id}");
        match key_type {
            KeyType::Ed25519 => {
                let signature = self.ask(&what, |client| client.sign_ed25519(id, message))?;
                Ok(Signature(signature.to_bytes()))
            }
            KeyType::Secp256k1 => {
                let digest = Sha256::digest(message).to_vec();
                let der = self.ask(&what, |client| client.sign_ecdsa_prehash_raw(id, digest))?;
                low_s(&der).ok_or_else(|| Trouble::Broken("its ECDSA signature is not DER".into()))
            }
        }
    }

    /// Asks the crate for something, in words that follow "it refused to".
    pub fn ask<T>(&self, what: &str, act: impl FnOnce(&yubihsm::Client) -> Result<T, Error>) -> Result<T, Trouble> {
        let answer = contain(|| act(&self.crate_client)).map_err(|text| panicked(&text))?;
        answer.map_err(|error| match error.device_error() {
            Some(answer) => refused(answer, what, self.auth_key),
            None => lost(&error),
        })
    }
}

/// The key with these coordinates, if they are those of a point on the curve.
fn from_coordinates(coordinates: &[u8]) -> Option<PublicKey> {
    /// SEC 1: both coordinates follow.
    const UNCOMPRESSED: u8 = 4;
    let point = [&[UNCOMPRESSED], coordinates].concat();
    VerifyingKey::from_sec1_bytes(&point).ok().map(PublicKey::Secp256k1)
}

/// `R‖S` with low S, from the DER that the device gives, whose S is as often high as low.
fn low_s(der: &[u8]) -> Option<Signature> {
    let signature = EcdsaSignature::from_der(der).ok()?;
    Some(Signature(signature.normalize_s().unwrap_or(signature).to_bytes().into()))
}

fn panicked(text: &str) -> Trouble {
    Trouble::Broken(format!("its connector sent what no YubiHSM sends ({text})").into())
}

/// What an error says that the device itself has sent, through its session.
fn refused(answer: DeviceError, what: &str, auth_key: u16) -> Trouble {
    let refused = |hint: &str| Trouble::Rejected(format!("it refused to {what} ({answer}): {hint}").into());
    match answer {
        DeviceError::InsufficientPermissions => refused(&format!(
            "give authentication key {auth_key} and the key itself that capability, or put both into one domain"
        )),
        DeviceError::InvalidId | DeviceError::ObjectNotFound => {
            refused(&format!("it has no such key, or none in a domain of authentication key {auth_key}"))
        }
        DeviceError::LogFull => refused(
            "its log is full and force-audit is on: read and clear the log, and turn force-audit off, or it will stop again",
        ),
        DeviceError::ObjectExists => refused(
            "an object with that id is there already, maybe in a domain that this authentication key may not see",
        ),
        DeviceError::StorageFailed => refused("its storage is full, or worn out"),
        DeviceError::InvalidCommand | DeviceError::InvalidData | DeviceError::WrongLength => {
            refused("it does not understand the command")
        }
        // Everything else is about the session or the device, and a new session may help.
        _ => Trouble::Broken(format!("it could not {what} ({answer})").into()),
    }
}

/// What an error says that did not come through the session. The crate shows whatever the device sends outside of a
/// session as a `MemoryError` and forgets the code.
fn lost(error: &Error) -> Trouble {
    match error.kind() {
        ErrorKind::ConnectorError | ErrorKind::ProtocolError => {
            Trouble::Broken(format!("the session broke off ({error})").into())
        }
        ErrorKind::ResponseError => {
            Trouble::Broken("it does not know the session any more, as after a power cycle".into())
        }
        _ => Trouble::Broken(format!("the session was lost ({error})").into()),
    }
}

/// Whether the connector did not even accept a connection: nothing has reached the device.
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

/// Why there is no session. Trying again does no harm: a YubiHSM locks nothing after wrong passwords.
fn not_opened(error: &Error, auth_key: u16) -> Trouble {
    if error.device_error() == Some(DeviceError::SessionsFull) {
        let text =
            "all of its 16 sessions are taken: end other programs that use it; a session that is silent for 30 s ends";
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
    use crate::keyring::softsign::SecretKey;
    use highwater_core::signer::Signer;
    use std::net::TcpListener;

    fn software_key() -> Box<dyn Signer> {
        SecretKey::Secp256k1(Box::new(k256::ecdsa::SigningKey::from_slice(&[0x42; 32]).unwrap())).into_signer()
    }

    #[test]
    fn ecdsa_leaves_here_with_low_s_whatever_the_device_gives() {
        let key = software_key();
        let signed = key.sign(b"message").unwrap();
        let low = EcdsaSignature::from_slice(&signed.0).unwrap();
        let high = EcdsaSignature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap();
        assert_ne!(low, high);
        for given in [low, high] {
            assert_eq!(low_s(given.to_der().as_bytes()), Some(signed));
        }
        assert_eq!(low_s(&signed.0), None, "not DER");
    }

    #[test]
    fn a_secp256k1_key_is_read_from_its_coordinates() {
        let key = software_key().public_key();
        let PublicKey::Secp256k1(verifying) = key else { panic!("secp256k1") };
        let point = verifying.to_encoded_point(false);
        assert_eq!(from_coordinates(&point.as_bytes()[1..]), Some(key));
        assert_eq!(from_coordinates(&[1; 64]), None, "not on the curve");
        assert_eq!(from_coordinates(&[]), None);
    }

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
        for answer in [DeviceError::InvalidSession, DeviceError::SessionFailed, DeviceError::Unknown { code: 0x7f }] {
            assert!(matches!(refused(answer, "sign", 4), Trouble::Broken(_)), "{answer}");
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
