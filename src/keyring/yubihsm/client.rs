//! A session with a YubiHSM 2, and the meaning of its errors.
//!
//! An error that came through the session is an answer, and the session is good. After any other error the session is
//! left, and closed as soon as the device can be reached.

use super::{
    algorithms,
    channel::{self, CHALLENGE_BYTES, Channel, ChannelError, Opening},
    codes::{CLOSE_SESSION, DEVICE_INFO},
    link::Link,
    link_error::LinkError,
};
use crate::{config::YubiHsmConfig, keyring::device::Trouble, process::lock::lock};
use highwater_core::consensus::{KeyType, PublicKey, Signature};
use rand_core::{OsRng, RngCore as _};
use std::{
    cell::{Cell, RefCell},
    sync::{Arc, Mutex},
    time::Instant,
};
use yubihsm::{AuditOption, Credentials, device::ErrorKind as DeviceError};
use zeroize::Zeroizing;

/// The error codes of a device that are about a session (Yubico, YubiHSM 2 error codes).
const INVALID_SESSION: u8 = 0x03;
const AUTHENTICATION_FAILED: u8 = 0x04;
const SESSIONS_FULL: u8 = 0x05;
const OBJECT_NOT_FOUND: u8 = 0x0b;
/// The error code of a device whose log is full and that has force-audit on.
const LOG_FULL: u8 = 0x0a;

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

/// A session with a device. It must not be used again after an error other than [`Trouble::Rejected`] and
/// [`Trouble::Temporary`].
pub struct Client {
    link: Arc<Mutex<Link>>,
    channel: RefCell<Channel>,
    auth_key: u16,
    /// When the call in progress must end.
    deadline: Cell<Instant>,
    state: Cell<SessionState>,
    /// When the last answer came through the session: the device keeps it for some time from then on at least.
    last_answer: Cell<Instant>,
    /// Whether that answer was that the device's log is full.
    log_full: Cell<bool>,
}

/// Whether the device still has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionState {
    /// Its last answer came through the session.
    Good,
    /// It may or may not have got the last message.
    Unclear,
    /// It has no such session.
    Gone,
}

/// Why no session was opened.
#[derive(Debug)]
pub struct NotOpened {
    pub trouble: Trouble,
    /// Whether the device may hold a session all the same.
    pub takes_session: bool,
}

/// Asks a device for its serial number, firmware and log. Uses no session.
pub(super) fn device_info(link: &Mutex<Link>, deadline: Instant) -> Result<DeviceInfo, Trouble> {
    let answer = lock(link).exchange(&channel::message(DEVICE_INFO, &[]), deadline).map_err(LinkError::trouble)?;
    let refused = |what: String| Trouble::Broken(format!("it does not answer Device Info ({what})").into());
    match channel::answer_body(DEVICE_INFO, &answer) {
        Ok(body) => parse_device_info(body).ok_or_else(|| refused("an answer that no YubiHSM sends".into())),
        Err(error) => {
            forget_after(&error, link);
            Err(refused(words(&error)))
        }
    }
}

/// Gives the connection up if this error can come from an answer to an earlier message: every later one would be too.
fn forget_after(error: &ChannelError, link: &Mutex<Link>) {
    if matches!(error, ChannelError::Malformed(_) | ChannelError::Mac | ChannelError::WrongKey) {
        lock(link).forget();
    }
}

fn parse_device_info(body: &[u8]) -> Option<DeviceInfo> {
    let (fields, _algorithms) = body.split_first_chunk::<9>()?;
    let [major, minor, patch, serial @ .., log_size, log_used] = *fields;
    Some(DeviceInfo {
        serial_number: format!("{:010}", u32::from_be_bytes(serial)),
        version: [major, minor, patch],
        log: (log_used, log_size),
    })
}

impl Client {
    /// Opens a session, and checks that it is the right device.
    pub(super) fn open(
        config: &YubiHsmConfig,
        link: Arc<Mutex<Link>>,
        credentials: &Credentials,
        deadline: Instant,
    ) -> Result<Self, NotOpened> {
        let auth_key = config.auth_key;
        let mut challenge = [0; CHALLENGE_BYTES];
        OsRng.fill_bytes(&mut challenge);
        let opening = Opening::new(challenge);
        let not_opened = |trouble, takes_session| NotOpened { trouble, takes_session };
        let ask = |message: &[u8]| {
            lock(&link).exchange(message, deadline).map_err(|error| {
                let sent = !matches!(error, LinkError::NotReached(_) | LinkError::NoDevice(_));
                not_opened(error.trouble(), sent)
            })
        };
        let answer = ask(&opening.command(auth_key))?;
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(credentials.authentication_key.as_secret_slice());
        let (mut channel, proof) = opening.finish(&key, &answer).map_err(|error| {
            // A device whose cryptogram does not fit has made a session, which only time ends.
            forget_after(&error, &link);
            let made = !matches!(error, ChannelError::Plain(_));
            not_opened(no_session(&error, auth_key), made)
        })?;
        let consent = ask(&proof)?;
        channel.finish(&consent).map_err(|error| {
            forget_after(&error, &link);
            not_opened(no_session(&error, auth_key), true)
        })?;
        let client = Self {
            link,
            channel: RefCell::new(channel),
            auth_key,
            deadline: Cell::new(deadline),
            state: Cell::new(SessionState::Good),
            last_answer: Cell::new(Instant::now()),
            log_full: Cell::new(false),
        };
        if let Some(expected) = &config.serial_number {
            let found = client.serial_number();
            if found.as_ref() != Ok(expected) {
                let closed = client.close(deadline);
                let trouble = found.map_or_else(
                    |trouble| trouble,
                    |found| Trouble::Broken(format!("the device there has the serial number {found}").into()),
                );
                return Err(not_opened(trouble, !closed));
            }
        }
        Ok(client)
    }

    /// Sets when the calls from now on must end.
    pub(crate) fn until(&self, deadline: Instant) -> &Self {
        self.deadline.set(deadline);
        self
    }

    pub(super) fn state(&self) -> SessionState {
        self.state.get()
    }

    /// Whether the session takes another command.
    pub(crate) fn is_good(&self) -> bool {
        self.state() == SessionState::Good
    }

    /// When the last answer came through the session.
    pub(super) fn last_answer(&self) -> Instant {
        self.last_answer.get()
    }

    /// Whether the last answer was that the device's log is full.
    pub(super) fn log_is_full(&self) -> bool {
        self.log_full.get()
    }

    /// Has the device end the session. Returns whether it has none any more.
    pub(super) fn close(&self, deadline: Instant) -> bool {
        match self.state() {
            SessionState::Good => {}
            // The device has probably got the last message: then the next one follows that.
            SessionState::Unclear => self.channel.borrow_mut().skip_answer(),
            SessionState::Gone => return true,
        }
        let closed = self.until(deadline).ask_in_any_state("close the session", CLOSE_SESSION, &[]);
        if closed.is_ok() {
            self.state.set(SessionState::Gone);
        }
        self.state() == SessionState::Gone
    }

    pub(crate) fn serial_number(&self) -> Result<String, Trouble> {
        let what = "report its serial number";
        let info = parse_device_info(&self.ask(what, DEVICE_INFO, &[])?);
        info.map(|info| info.serial_number).ok_or_else(|| Trouble::Broken(format!("it cannot {what}").into()))
    }

    /// Whether the device refuses to sign once its log is full. `None` if the authentication key may not read that.
    pub fn force_audit(&self) -> Result<Option<bool>, Trouble> {
        match self.force_audit_option("show its audit settings") {
            Ok(option) => Ok(Some(option != AuditOption::Off)),
            // A device whose log is full does not say it either.
            Err(Trouble::Rejected(_) | Trouble::Temporary(_)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Whether the authentication key may read the device's log.
    pub(super) fn may_read_log(&self) -> Result<bool, Trouble> {
        match self.log_entries("show its log") {
            Ok(_) => Ok(true),
            Err(Trouble::Rejected(_)) => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    /// The public key of the asymmetric key with this object id. It must be of this type.
    pub fn public_key(&self, id: u16, key_type: KeyType) -> Result<PublicKey, Trouble> {
        let algorithm = algorithms::of(key_type)?;
        let (found, bytes) = self.public_key_bytes(&format!("show key {id}"), id)?;
        if found != algorithm.asymmetric.to_u8() {
            let name = yubihsm::asymmetric::Algorithm::from_u8(found);
            let name = name.map_or_else(|_| found.to_string(), |name| format!("{name:?}"));
            let text = format!("its key {id} has the algorithm {name}, but must be {key_type}");
            return Err(Trouble::Rejected(text.into()));
        }
        let key = (algorithm.public_key)(&bytes);
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
        let body = [&id.to_be_bytes()[..], &(algorithm.signed)(message)].concat();
        let signature = self.ask(&format!("sign with key {id}"), algorithm.sign, &body)?;
        (algorithm.signature)(&signature).ok_or_else(|| Trouble::Broken("its signature has an unknown form".into()))
    }

    /// Sends a command through the session. `what` is what is asked for, in words that follow "it refused to".
    pub(super) fn ask(&self, what: &str, code: u8, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        if !self.is_good() {
            // The device would take it for an attack, or the answer would be that to an earlier command.
            return Err(Trouble::Broken(format!("it was not asked to {what}: its session broke off before").into()));
        }
        self.ask_in_any_state(what, code, body)
    }

    fn ask_in_any_state(&self, what: &str, code: u8, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let mut channel = self.channel.borrow_mut();
        let sealed = channel.seal(code, body).map_err(|error| match error {
            ChannelError::TooLong(_) => Trouble::Rejected(format!("it cannot {what}: {}", words(&error)).into()),
            error => Trouble::Broken(words(&error).into()),
        })?;
        self.state.set(SessionState::Unclear);
        let answer = match self.send(&sealed) {
            Ok(answer) => answer,
            Err(error @ (LinkError::NotReached(_) | LinkError::NoDevice(_))) => {
                // The device did not get it: to it, the next command comes after the one before.
                channel.take_back();
                self.state.set(SessionState::Good);
                return Err(error.trouble());
            }
            Err(error) => return Err(error.trouble()),
        };
        match channel.open(code, &answer) {
            Ok(body) => {
                self.answered(false);
                Ok(body)
            }
            Err(ChannelError::Inside(error)) => {
                self.answered(error == LOG_FULL);
                Err(refused(error, what, self.auth_key))
            }
            Err(ChannelError::Plain(INVALID_SESSION)) => {
                self.state.set(SessionState::Gone);
                Err(Trouble::Broken("it no longer knows the session, as after a power cycle".into()))
            }
            Err(error) => {
                forget_after(&error, &self.link);
                Err(Trouble::Broken(format!("the session broke off ({})", words(&error)).into()))
            }
        }
    }

    /// Notes an answer that came through the session.
    fn answered(&self, log_full: bool) {
        self.state.set(SessionState::Good);
        self.last_answer.set(Instant::now());
        self.log_full.set(log_full);
    }

    /// Sends a message, and once more if the connection ended without an answer. If the device got it the first time, it
    /// refuses it the second time, because each of its MACs is good only once.
    fn send(&self, message: &[u8]) -> Result<Vec<u8>, LinkError> {
        let (mut link, deadline) = (lock(&self.link), self.deadline.get());
        match link.exchange(message, deadline) {
            Err(first @ LinkError::Broken(_)) => match link.exchange(message, deadline) {
                // The device may have got it the first time all the same.
                Err(LinkError::NotReached(_) | LinkError::NoDevice(_)) => Err(first),
                other => other,
            },
            other => other,
        }
    }
}

/// An error in the words of the device.
fn words(error: &ChannelError) -> String {
    match error {
        ChannelError::Plain(code) | ChannelError::Inside(code) => {
            format!("{}, code 0x{code:02x}", DeviceError::from_u8(*code))
        }
        ChannelError::WrongKey => "its answer does not fit the password".into(),
        ChannelError::Mac => "the MAC of its answer is wrong".into(),
        ChannelError::Malformed(what) => format!("it sent {what}"),
        ChannelError::TooLong(bytes) => format!("a command of {bytes} bytes is longer than it takes"),
        ChannelError::UsedUp => "the session has carried as many messages as it may".into(),
    }
}

/// The trouble for an error that the device itself sent, through its session.
fn refused(code: u8, what: &str, auth_key: u16) -> Trouble {
    let answer = DeviceError::from_u8(code);
    let refused = |hint: &str| Trouble::Rejected(format!("it refused to {what} ({answer}): {hint}").into());
    match answer {
        DeviceError::InsufficientPermissions => refused(&format!(
            "give that capability to authentication key {auth_key} and to the key, or put both into one domain"
        )),
        DeviceError::InvalidId | DeviceError::ObjectNotFound => {
            refused(&format!("it has no such key, or none in a domain of authentication key {auth_key}"))
        }
        DeviceError::LogFull => Trouble::Temporary(
            format!(
                "it refused to {what} ({answer}): its log is full and force-audit is on. Read and clear the log, and set \
                 `drain_audit_log = true` or turn force-audit off, or it will stop again"
            )
            .into(),
        ),
        DeviceError::ObjectExists => refused(
            "an object with that id already exists, perhaps in a domain that this authentication key cannot see",
        ),
        DeviceError::StorageFailed => refused("its storage is full, or worn out"),
        DeviceError::InvalidCommand | DeviceError::InvalidData | DeviceError::WrongLength => {
            refused("it does not understand the command")
        }
        // The session brought the answer, so it is good.
        _ => Trouble::Temporary(format!("it could not {what} ({answer}, code 0x{code:02x})").into()),
    }
}

/// The trouble for a session that was not opened. Trying again does no harm: wrong passwords do not lock a YubiHSM.
fn no_session(error: &ChannelError, auth_key: u16) -> Trouble {
    match error {
        ChannelError::Plain(SESSIONS_FULL) => Trouble::Broken(
            "all of its 16 sessions are in use: stop other programs that use it. A session ends after 30 s of silence"
                .into(),
        ),
        ChannelError::WrongKey | ChannelError::Plain(AUTHENTICATION_FAILED | OBJECT_NOT_FOUND) => {
            let text = format!(
                "the device rejected authentication key {auth_key}: wrong password or key id ({})",
                words(error)
            );
            Trouble::WrongPassword(text.into())
        }
        _ => Trouble::Broken(format!("it opens no session ({})", words(error)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_device_says_through_its_session_is_a_clear_answer() {
        for (code, word) in
            [(OBJECT_NOT_FOUND, "no such key"), (0x09, "authentication key 4"), (0x08, "sign with key 2")]
        {
            let trouble = refused(code, "sign with key 2", 4);
            assert!(matches!(&trouble, Trouble::Rejected(text) if text.contains(word)), "{trouble:?}");
        }
        for (code, word) in [
            (0x10, "code 0x10"),
            (0x0a, "force-audit"),
            (0x0f, "code 0x0f"),
            (0x77, "code 0x77"),
            (INVALID_SESSION, "0x03"),
        ] {
            let trouble = refused(code, "sign", 4);
            assert!(matches!(&trouble, Trouble::Temporary(text) if text.contains(word)), "{trouble:?}");
        }
    }

    #[test]
    fn why_no_session_was_opened_is_said_with_the_code() {
        let trouble = no_session(&ChannelError::Plain(SESSIONS_FULL), 4);
        assert!(matches!(&trouble, Trouble::Broken(text) if text.contains("16 sessions")), "{trouble:?}");
        for error in [ChannelError::WrongKey, ChannelError::Plain(AUTHENTICATION_FAILED), ChannelError::Plain(0x0b)] {
            assert!(matches!(no_session(&error, 4), Trouble::WrongPassword(_)), "{error:?}");
        }
        let trouble = no_session(&ChannelError::Plain(0x10), 4);
        assert!(matches!(&trouble, Trouble::Broken(text) if text.contains("code 0x10")), "{trouble:?}");
    }

    #[test]
    fn a_device_says_who_it_is() {
        let body = [2, 4, 1, 0x07, 0x5b, 0xcd, 0x15, 62, 5, 46];
        let info = DeviceInfo { serial_number: "0123456789".into(), version: [2, 4, 1], log: (5, 62) };
        assert_eq!(parse_device_info(&body), Some(info));
        assert_eq!(parse_device_info(&body[..8]), None);
        assert_eq!(parse_device_info(&[]), None);
    }
}
