//! The crate's mock device, kept alive and made stricter: sessions that expire and are limited as in a real one.
//!
//! A mock gives every session a new number, up to 16, and panics for want of a 17th, at an unknown authentication
//! key, and at a message authentication code that does not fit. So there is a fresh one, with the same keys, whenever
//! the last is used up or has died; sessions stay with the mock that opened them.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};
use yubihsm::{
    AuditOption, Capability, Client, Connector, Credentials, Domain, Uuid,
    asymmetric::Algorithm,
    authentication::{Algorithm as AuthenticationAlgorithm, Key},
    object::{Label, Type},
};

/// Sessions at one time (Yubico, YubiHSM 2 specifications).
const SESSIONS_MAX: usize = 16;
/// A silent session ends after this time (the same).
const SESSION_LIFE: Duration = Duration::from_secs(30);
/// The highest session number of a mock. Its first session, number 0, put the keys into it.
const LAST_SESSION: u8 = 16;
/// The authentication key of a new device, with the password `password`.
const FACTORY_KEY: u16 = 1;
/// Length of a command's code and length, and of an answer's.
const HEADER_BYTES: usize = 3;
/// Length of an encrypted answer that holds an Ed25519 or ECDSA signature: header, session, 80 bytes of ciphertext,
/// MAC.
const SIGNATURE_ANSWER_BYTES: usize = HEADER_BYTES + 1 + 80 + 8;

const CREATE_SESSION: u8 = 0x03;
const AUTHENTICATE_SESSION: u8 = 0x04;
const SESSION_MESSAGE: u8 = 0x05;
const DEVICE_INFO: u8 = 0x06;
/// Version 2.4.0, serial number 0123456789, 62 entries in the log store, none of them used, Ed25519 (46).
const DEVICE_INFO_ANSWER: [u8; 13] = [0x86, 0, 10, 2, 4, 0, 0x07, 0x5b, 0xcd, 0x15, 62, 0, 46];

/// A device's unencrypted answer to a command that it refuses (Yubico, YubiHSM 2 error codes).
#[derive(Clone, Copy)]
pub enum Refusal {
    AuthenticationFailed = 0x04,
    GenericError = 0x10,
    InvalidCommand = 0x01,
    InvalidSession = 0x03,
    ObjectNotFound = 0x0b,
    SessionsFull = 0x05,
}

/// The content of a device when it starts.
pub struct Contents {
    /// The object id and the password of the only authentication key.
    pub auth: (u16, Vec<u8>),
    /// Object ids, algorithms and secrets.
    pub keys: Vec<(u16, Algorithm, Vec<u8>)>,
    /// Whether the device refuses to work with a full log. The mock only says so.
    pub force_audit: bool,
    /// Whether to keep objects that a client puts: then there is no fresh mock, and 16 sessions in all.
    pub keep_objects: bool,
}

/// How a command ended.
pub struct Done {
    pub answer: Vec<u8>,
    /// Whether the answer is as long as one with a signature. Outside of a session, no more is visible.
    pub signed: bool,
    /// Whether it opened a session.
    pub opened: bool,
}

/// A device.
pub struct Device {
    contents: Contents,
    mock: Rc<Connector>,
    last_session: u8,
    sessions: BTreeMap<u8, Session>,
}

struct Session {
    mock: Rc<Connector>,
    used: Instant,
}

impl Device {
    pub fn new(contents: Contents) -> Result<Self, yubihsm::client::Error> {
        let mock = Rc::new(fresh_mock(&contents)?);
        Ok(Self { contents, mock, last_session: 0, sessions: BTreeMap::new() })
    }

    /// Forgets all sessions, as after a power cut.
    pub fn power_cycle(&mut self) {
        self.sessions.clear();
    }

    /// Forgets the session of this command, if it has one.
    pub fn forget_session_of(&mut self, command: &[u8]) -> bool {
        is_session_message(command) && self.sessions.remove(&command[HEADER_BYTES]).is_some()
    }

    /// Does a command.
    pub fn execute(&mut self, command: &[u8]) -> Done {
        self.sessions.retain(|_, session| session.used.elapsed() < SESSION_LIFE);
        let answer = match command.first() {
            Some(&CREATE_SESSION) if command.len() > HEADER_BYTES + 2 => self.create_session(command),
            Some(&(AUTHENTICATE_SESSION | SESSION_MESSAGE)) if command.len() > HEADER_BYTES => self.in_session(command),
            Some(&DEVICE_INFO) => Ok(DEVICE_INFO_ANSWER.to_vec()),
            _ => Err(Refusal::InvalidCommand),
        };
        let signed = answer.as_ref().is_ok_and(|answer| answer.len() == SIGNATURE_ANSWER_BYTES);
        let opened = answer.is_ok() && command[0] == CREATE_SESSION;
        Done { answer: answer.unwrap_or_else(refuse), signed, opened }
    }

    fn create_session(&mut self, command: &[u8]) -> Result<Vec<u8>, Refusal> {
        let key = u16::from_be_bytes([command[HEADER_BYTES], command[HEADER_BYTES + 1]]);
        if key != self.contents.auth.0 && !self.contents.keep_objects {
            return Err(Refusal::ObjectNotFound);
        }
        if self.sessions.len() >= SESSIONS_MAX {
            return Err(Refusal::SessionsFull);
        }
        loop {
            if self.last_session == LAST_SESSION {
                if self.contents.keep_objects {
                    return Err(Refusal::SessionsFull);
                }
                self.renew();
            }
            let mock = Rc::clone(&self.mock);
            let answer = self.ask(&mock, command).map_err(|_| Refusal::ObjectNotFound)?;
            let number = answer[HEADER_BYTES];
            self.last_session = number;
            // A number that lives on in an earlier mock is left out. One that lived in this mock was closed.
            if self.sessions.get(&number).is_none_or(|other| Rc::ptr_eq(&other.mock, &mock)) {
                self.sessions.insert(number, Session { mock, used: Instant::now() });
                return Ok(answer);
            }
        }
    }

    fn in_session(&mut self, command: &[u8]) -> Result<Vec<u8>, Refusal> {
        let number = command[HEADER_BYTES];
        let session = self.sessions.get_mut(&number).ok_or(Refusal::InvalidSession)?;
        session.used = Instant::now();
        let mock = Rc::clone(&session.mock);
        self.ask(&mock, command).map_err(|failure| match failure {
            Failure::Refused => {
                self.sessions.remove(&number);
                Refusal::InvalidSession
            }
            Failure::Died if command[0] == AUTHENTICATE_SESSION => Refusal::AuthenticationFailed,
            Failure::Died => Refusal::GenericError,
        })
    }

    fn ask(&mut self, mock: &Rc<Connector>, command: &[u8]) -> Result<Vec<u8>, Failure> {
        let send = || mock.send_message(Uuid::nil(), command.to_vec().into());
        match catch_unwind(AssertUnwindSafe(send)) {
            Ok(Ok(answer)) => Ok(answer.into()),
            Ok(Err(_)) => Err(Failure::Refused),
            Err(_) => {
                // Its locks are poisoned for good.
                self.sessions.retain(|_, session| !Rc::ptr_eq(&session.mock, mock));
                if Rc::ptr_eq(&self.mock, mock) {
                    self.renew();
                }
                Err(Failure::Died)
            }
        }
    }

    fn renew(&mut self) {
        self.mock = Rc::new(fresh_mock(&self.contents).expect("what a mock took once it takes again"));
        self.last_session = 0;
    }
}

enum Failure {
    Died,
    Refused,
}

/// Whether a command is a session message, not one that opens a session.
pub fn is_session_message(command: &[u8]) -> bool {
    command.first() == Some(&SESSION_MESSAGE) && command.len() > HEADER_BYTES
}

/// Whether a command opens a session.
pub fn is_create_session(command: &[u8]) -> bool {
    command.first() == Some(&CREATE_SESSION)
}

/// An answer in the clear.
pub fn refuse(refusal: Refusal) -> Vec<u8> {
    vec![0x7f, 0, 1, refusal as u8]
}

fn fresh_mock(contents: &Contents) -> Result<Connector, yubihsm::client::Error> {
    let mock = Connector::mockhsm();
    let client = Client::open(mock.clone(), Credentials::default(), false)?;
    for (id, algorithm, secret) in &contents.keys {
        let capabilities = Capability::SIGN_EDDSA | Capability::SIGN_ECDSA | Capability::EXPORTABLE_UNDER_WRAP;
        client.put_asymmetric_key(*id, Label::default(), Domain::DOM1, capabilities, *algorithm, secret.clone())?;
    }
    if contents.force_audit {
        client.set_force_audit_option(AuditOption::On)?;
    }
    let (id, password) = &contents.auth;
    client.delete_object(FACTORY_KEY, Type::AuthenticationKey)?;
    client.put_authentication_key(
        *id,
        Label::default(),
        Domain::all(),
        Capability::all(),
        Capability::all(),
        AuthenticationAlgorithm::YubicoAes,
        Key::derive_from_password(password),
    )?;
    Ok(mock)
}
