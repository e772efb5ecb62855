//! The crate's mock device, kept alive and made stricter: sessions that expire and are limited as in a real one.
//!
//! A mock gives every session a new number, up to 16, and panics for want of a 17th, at an unknown authentication
//! key, and at a message authentication code that does not fit. So there is a fresh one, with the same keys, whenever
//! the last is used up or has died; sessions stay with the mock that opened them.

use crate::{inside::Inside, log::Log};
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
const RESET_DEVICE: u8 = 0x08;
const CLOSE_SESSION: u8 = 0x40;
const GET_LOG_ENTRIES: u8 = 0x4d;
const SIGN_ECDSA: u8 = 0x56;
const SET_LOG_INDEX: u8 = 0x67;
const SIGN_EDDSA: u8 = 0x6a;
/// The code of an answer that is an error, and two errors.
const ERROR: u8 = 0x7f;
const INSUFFICIENT_PERMISSIONS: u8 = 0x09;
const LOG_FULL: u8 = 0x0a;
/// Where the number of used entries of the log stands in [`DEVICE_INFO_ANSWER`].
const LOG_USED: usize = 11;
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
    /// Whether the device refuses to work with a full log.
    pub force_audit: bool,
    /// Whether it keeps a log. It does with `force_audit` anyway.
    pub audit_log: bool,
    /// Whether the authentication key may not read the log.
    pub log_is_secret: bool,
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
    /// What the authentication key's password gives.
    key: Key,
    log: Option<Log>,
    /// The error with which the device answers every request to sign, in the session. 0 for none.
    pub deny: u8,
}

struct Session {
    mock: Rc<Connector>,
    used: Instant,
    /// None for another authentication key than the one whose password is known.
    inside: Option<Inside>,
    auth_key: u16,
}

impl Device {
    pub fn new(contents: Contents) -> Result<Self, yubihsm::client::Error> {
        let mock = Rc::new(fresh_mock(&contents)?);
        let key = Key::derive_from_password(&contents.auth.1);
        let log = (contents.force_audit || contents.audit_log).then(Log::new);
        Ok(Self { contents, mock, last_session: 0, sessions: BTreeMap::new(), key, log, deny: 0 })
    }

    /// How many sessions it holds now.
    pub fn open_sessions(&self) -> usize {
        self.sessions.values().filter(|session| session.used.elapsed() < SESSION_LIFE).count()
    }

    /// How many entries its log has.
    pub fn log_entries(&self) -> u8 {
        self.log.as_ref().map_or(0, Log::used)
    }

    /// Empties the log, as an auditor does who has read it.
    pub fn forget_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.forget(u16::MAX);
        }
    }

    /// Changes an entry of the log.
    pub fn tamper_with_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.tamper();
        }
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
            Some(&DEVICE_INFO) => {
                let mut answer = DEVICE_INFO_ANSWER.to_vec();
                answer[LOG_USED] = self.log_entries();
                Ok(answer)
            }
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
        if self.open_sessions() >= SESSIONS_MAX {
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
                let knows_key = key == self.contents.auth.0;
                let inside = knows_key.then(|| Inside::new(self.key.as_secret_slice(), command, &answer)).flatten();
                self.sessions.insert(number, Session { mock, used: Instant::now(), inside, auth_key: key });
                self.note(CREATE_SESSION, 10, 0xffff, key, CREATE_SESSION | 0x80);
                return Ok(answer);
            }
        }
    }

    fn in_session(&mut self, command: &[u8]) -> Result<Vec<u8>, Refusal> {
        let number = command[HEADER_BYTES];
        let session = self.sessions.get_mut(&number).ok_or(Refusal::InvalidSession)?;
        session.used = Instant::now();
        let mock = Rc::clone(&session.mock);
        let Some(mut inside) = session.inside.take() else { return self.in_mock(&mock, number, command) };
        let auth_key = session.auth_key;
        if command[0] == AUTHENTICATE_SESSION {
            let answer = self.in_mock(&mock, number, command)?;
            inside.authenticated(command);
            self.keep(number, inside);
            self.note(AUTHENTICATE_SESSION, 17, 0xffff, auth_key, AUTHENTICATE_SESSION | 0x80);
            return Ok(answer);
        }
        // As the device does: a message that does not fit ends the session.
        let Some(inner) = inside.command(command) else {
            self.sessions.remove(&number);
            return Err(Refusal::AuthenticationFailed);
        };
        let (answer, said) = match self.own_answer(&inner) {
            Some(own) => (inside.answer(number, &own), own),
            None => inside.pass(command, &inner, |bytes| self.in_mock(&mock, number, bytes))?,
        };
        self.note_inner(&inner, auth_key, &said);
        if inner[0] == CLOSE_SESSION {
            self.sessions.remove(&number);
        } else if inner[0] == RESET_DEVICE {
            self.sessions.clear();
        } else {
            self.keep(number, inside);
        }
        Ok(answer)
    }

    fn keep(&mut self, number: u8, inside: Inside) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.inside = Some(inside);
        }
    }

    /// The answer to a command that does not go on to the mock.
    fn own_answer(&mut self, inner: &[u8]) -> Option<Vec<u8>> {
        let error = |code: u8| Some(vec![ERROR, 0, 1, code]);
        let ok = |code: u8, body: &[u8]| {
            let length = u16::try_from(body.len()).expect("an answer").to_be_bytes();
            Some([&[code | 0x80, length[0], length[1]], body].concat())
        };
        let (code, body) = (inner[0], &inner[HEADER_BYTES..]);
        if self.deny > 0 && [SIGN_EDDSA, SIGN_ECDSA].contains(&code) {
            return error(self.deny);
        }
        let log = self.log.as_mut()?;
        match code {
            GET_LOG_ENTRIES | SET_LOG_INDEX if self.contents.log_is_secret => error(INSUFFICIENT_PERMISSIONS),
            GET_LOG_ENTRIES => ok(code, &log.answer()),
            SET_LOG_INDEX => {
                log.forget(u16::from_be_bytes([body[0], body[1]]));
                ok(code, &[])
            }
            CLOSE_SESSION | DEVICE_INFO => None,
            _ if log.is_full() && self.contents.force_audit => error(LOG_FULL),
            _ => None,
        }
    }

    /// A command that was refused for want of room leaves no entry, nor do those that are about the log itself.
    fn note_inner(&mut self, inner: &[u8], auth_key: u16, said: &[u8]) {
        let code = inner[0];
        let refused = said.first() == Some(&ERROR) && said.last() == Some(&LOG_FULL);
        if refused || [GET_LOG_ENTRIES, SET_LOG_INDEX, CLOSE_SESSION].contains(&code) {
            return;
        }
        let target = inner.get(3..5).map_or(0xffff, |id| u16::from_be_bytes([id[0], id[1]]));
        let length = u16::try_from(inner.len() - HEADER_BYTES).expect("a command");
        self.note(code, length, auth_key, target, said.first().copied().unwrap_or(ERROR));
    }

    fn note(&mut self, code: u8, length: u16, auth_key: u16, target: u16, result: u8) {
        let full_for_good = self.contents.force_audit && self.log.as_ref().is_some_and(Log::is_full);
        if let Some(log) = self.log.as_mut().filter(|_| !full_for_good) {
            log.note(code, length, auth_key, target, result);
        }
    }

    fn in_mock(&mut self, mock: &Rc<Connector>, number: u8, command: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.ask(mock, command).map_err(|failure| match failure {
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
