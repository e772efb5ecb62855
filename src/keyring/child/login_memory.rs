//! Remembers, across commands and restarts, which PIN a token has refused or left without an answer.
//!
//! A token locks after a few wrong PINs, and not every token shows its count. So each PIN is noted before it is sent, as
//! one without an answer. It counts as wrong until the token has accepted it: whatever kills the signer or its child in
//! between, the next one does not send the same PIN again. A changed PIN is another one.
//!
//! The note is a file beside the state file, one for each token. It contains a salted and iterated hash of the PIN. A
//! PIN has so little entropy that anyone who reads the file can find it by trying, so only its owner may read it.

use crate::{
    keyring::pkcs11::token_info::{PinState, TokenInfo},
    record::utc,
};
use highwater_core::hex::{Hex, hex_of};
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// Makes a guess cost some milliseconds, and a login not much more.
const HASHED_BYTES: u32 = 8 << 20;
const CHUNK_BYTES: usize = 64 << 10;
/// A note is far shorter.
const NOTE_MAX_BYTES: u64 = 64 * 1024;

/// A token as its module shows it right before a login.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct TokenBeforeLogin {
    pub module: PathBuf,
    pub label: String,
    pub serial: String,
    pub state: PinState,
}

impl TokenBeforeLogin {
    pub fn new(module: &Path, info: &TokenInfo) -> Self {
        // A link to the module, or another path to it, leads to the same token.
        let module = module.canonicalize().unwrap_or_else(|_| module.to_owned());
        Self { module, label: info.label.clone(), serial: info.serial.clone(), state: info.pin }
    }

    /// A command with which the operator logs in to the token. It asks for the PIN.
    fn command(&self) -> String {
        let (module, label) = (self.module.display(), &self.label);
        format!("`pkcs11-tool --module {module} --token-label '{label}' --login --list-objects`")
    }

    fn note_file(&self, directory: &Path) -> PathBuf {
        let mut digest = Sha256::new();
        for part in [self.module.as_os_str().as_encoded_bytes(), self.label.as_bytes(), self.serial.as_bytes()] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        directory.join(format!("pkcs11-login-{}.json", Hex(&digest.finalize()[..4])))
    }
}

/// What became of a login.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum LoginOutcome {
    /// The PIN is right.
    Accepted,
    /// The PIN, or every PIN, was refused. With the answer.
    Refused(String),
    /// An answer about the session, the device or the transport: it says nothing about the PIN.
    Trouble,
    /// Any other answer. It may mean a wrong PIN.
    Unclear(String),
}

/// A PIN that is to be sent.
#[derive(Clone, Copy)]
pub struct PinToSend<'a> {
    /// `None` for a token with a keypad: a person enters the PIN there, so nothing is noted.
    pub pin: Option<&'a [u8]>,
    /// Where it comes from, in words that follow "the PIN in".
    pub source: &'a str,
    /// Whether a PIN that is changed there is read without a restart.
    pub is_read_again: bool,
    /// Whether the token has accepted it since this process was started.
    pub proven: bool,
}

/// The notes in one directory.
pub struct LoginMemory {
    directory: Option<PathBuf>,
    /// The notes that could not be written. They hold for this process at least.
    unwritten: Vec<(PathBuf, Note)>,
}

/// What is remembered about the last PIN that was sent to a token.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Note {
    module: PathBuf,
    label: String,
    serial: String,
    /// Only the PIN of the user is ever sent.
    user: String,
    salt: String,
    hashed_bytes: u32,
    pin_hash: String,
    /// When it was sent last.
    sent: String,
    /// The token has accepted it at least once.
    accepted: bool,
    /// How often it was sent since the last clear answer.
    doubts: u32,
    /// The answer to the last login, if it was not an acceptance.
    answer: Option<String>,
    /// The token has clearly refused it.
    refused: bool,
    /// The token has shown since that it counts a wrong PIN.
    counted: bool,
}

impl LoginMemory {
    /// Keeps its notes in `directory`. Without one it remembers only for the life of this process.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, unwritten: Vec::new() }
    }

    /// Notes that the PIN is sent now. The error says why it must not be, and what to do.
    pub fn begin(&mut self, token: &TokenBeforeLogin, pin: PinToSend<'_>) -> Result<(), String> {
        let Some(bytes) = pin.pin else { return Ok(()) };
        if pin.proven {
            // It was right a moment ago. A request may wait for this login, so nothing is written.
            return counter_allows(token, pin);
        }
        let file = self.file(token);
        let last = self.read(&file).filter(|note| note.is_of(bytes));
        let mut note = match last {
            Some(mut last) => {
                if last.counted && token.state == PinState::Ok {
                    // Somebody has logged in with the right PIN since, or has set the PIN anew: the count is back, and
                    // one more try cannot lock the token.
                    last.forgive();
                }
                let counted = last.counted || token.state != PinState::Ok;
                if counted != last.counted {
                    last.counted = counted;
                    self.write(&file, last.clone());
                }
                if let Some(why) = last.objection(token, pin, &file) {
                    return Err(why);
                }
                last
            }
            None => Note::new(token, bytes),
        };
        counter_allows(token, pin)?;
        note.doubts += 1;
        note.sent = utc::at(now());
        note.answer = None;
        self.write(&file, note);
        Ok(())
    }

    /// Notes what became of the login that began last. `proven` says whether the token had accepted that PIN before, in
    /// the life of this process.
    pub fn end(&mut self, token: &TokenBeforeLogin, proven: bool, outcome: &LoginOutcome) {
        if proven && !matches!(outcome, LoginOutcome::Refused(_)) {
            return;
        }
        let file = self.file(token);
        let Some(mut note) = self.read(&file) else { return };
        match outcome {
            LoginOutcome::Accepted => {
                note.forgive();
                note.accepted = true;
            }
            LoginOutcome::Refused(answer) => {
                (note.refused, note.accepted) = (true, false);
                note.answer = Some(answer.clone());
            }
            LoginOutcome::Trouble => note.doubts = note.doubts.saturating_sub(1),
            LoginOutcome::Unclear(answer) => note.answer = Some(answer.clone()),
        }
        self.write(&file, note);
    }

    fn file(&self, token: &TokenBeforeLogin) -> PathBuf {
        token.note_file(self.directory.as_deref().unwrap_or(Path::new("")))
    }

    /// The note in this file. One that cannot be read is none: whoever can read the state file can read it.
    fn read(&self, file: &Path) -> Option<Note> {
        if let Some((_, note)) = self.unwritten.iter().find(|(path, _)| path == file) {
            return Some(note.clone());
        }
        self.directory.as_ref()?;
        let metadata = fs::metadata(file).ok().filter(|found| found.is_file() && found.len() <= NOTE_MAX_BYTES);
        metadata.and_then(|_| serde_json::from_slice(&fs::read(file).ok()?).ok())
    }

    /// Replaces the note. If the disk does not take it, it is kept in memory: a full disk must not keep a validator from
    /// signing.
    fn write(&mut self, file: &Path, note: Note) {
        self.unwritten.retain(|(path, _)| path != file);
        let written = self.directory.as_ref().is_some_and(|directory| replace(directory, file, &note).is_ok());
        if !written {
            self.unwritten.push((file.to_owned(), note));
        }
    }
}

impl Note {
    fn new(token: &TokenBeforeLogin, pin: &[u8]) -> Self {
        let mut salt = [0; 16];
        OsRng.fill_bytes(&mut salt);
        let salt = hex_of(&salt);
        Self {
            module: token.module.clone(),
            label: token.label.clone(),
            serial: token.serial.clone(),
            user: "user".into(),
            pin_hash: hash(&salt, HASHED_BYTES, pin),
            salt,
            hashed_bytes: HASHED_BYTES,
            sent: String::new(),
            accepted: false,
            doubts: 0,
            answer: None,
            refused: false,
            counted: false,
        }
    }

    fn is_of(&self, pin: &[u8]) -> bool {
        // A file with another number was not written here, and hashing could take for ever.
        self.hashed_bytes == HASHED_BYTES && self.pin_hash == hash(&self.salt, self.hashed_bytes, pin)
    }

    fn forgive(&mut self) {
        (self.doubts, self.answer, self.refused, self.counted) = (0, None, false, false);
    }

    /// Why the same PIN must not be sent again.
    fn objection(&self, token: &TokenBeforeLogin, pin: PinToSend<'_>, file: &Path) -> Option<String> {
        /// A PIN that was right before the signer was started may have been changed on the token since.
        const DOUBTS_OF_AN_ACCEPTED: u32 = 2;
        let doubts = if self.accepted { DOUBTS_OF_AN_ACCEPTED } else { 1 };
        if !self.refused && self.doubts < doubts {
            return None;
        }
        let (label, sent, source) = (&self.label, &self.sent, pin.source);
        let what = match &self.answer {
            Some(answer) if self.refused => format!("token {label:?} refused the PIN in {source} on {sent} ({answer})"),
            Some(answer) => {
                format!("to the PIN in {source}, token {label:?} said on {sent}: {answer}, which can mean a wrong PIN")
            }
            None => format!(
                "the PIN in {source} was sent to token {label:?} on {sent}, and no answer came, so it counts as wrong"
            ),
        };
        let then = if pin.is_read_again { "it is sent at once, without a restart" } else { "then restart" };
        let mut text =
            format!("{what}. It is not sent again, because wrong PINs lock a token. Put the right one there: {then}");
        let command = token.command();
        if token.state != PinState::Ok {
            let flag = match token.state {
                PinState::FinalTry => "CKF_USER_PIN_FINAL_TRY",
                PinState::Locked => "CKF_USER_PIN_LOCKED",
                PinState::Low | PinState::Ok => "CKF_USER_PIN_COUNT_LOW",
            };
            text += &format!(
                ". The token counts wrong PINs ({flag}): also log in once by {command}, which resets the count"
            );
        }
        if file.parent().is_some_and(|directory| !directory.as_os_str().is_empty()) {
            let how = if token.state == PinState::Ok { format!(" ({command} shows that)") } else { String::new() };
            text += &format!(". If the PIN is right{how}, delete {}, and it is sent once more", file.display());
        }
        Some(text)
    }
}

/// Whether the token's own count of wrong PINs lets this one be sent.
fn counter_allows(token: &TokenBeforeLogin, pin: PinToSend<'_>) -> Result<(), String> {
    let (label, state) = (&token.label, token.state);
    let then = "Then Highwater logs in by itself, without a restart";
    match state {
        PinState::Ok => Ok(()),
        // A wrong PIN that somebody else has sent. This one is right, and sending it resets the count.
        PinState::Low if pin.proven => Ok(()),
        PinState::Low | PinState::FinalTry => {
            Err(format!("token {label:?} reports that {state}: {}. {then}", token.command()))
        }
        PinState::Locked => Err(format!("token {label:?} reports that {state}. {then}")),
    }
}

/// Salted and iterated as in OpenPGP (RFC 4880, 3.7.1.3): the digest of salt and PIN, repeated to so many bytes.
fn hash(salt: &str, bytes: u32, pin: &[u8]) -> String {
    let once = Zeroizing::new([salt.as_bytes(), pin].concat());
    let many = Zeroizing::new(once.repeat(CHUNK_BYTES / once.len() + 1));
    let mut digest = Sha256::new();
    let mut left = usize::try_from(bytes).unwrap_or_default();
    while left > 0 {
        let chunk = left.min(many.len());
        digest.update(&many[..chunk]);
        left -= chunk;
    }
    hex_of(&digest.finalize())
}

fn replace(directory: &Path, file: &Path, note: &Note) -> io::Result<()> {
    let aside = file.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    new.write_all(&serde_json::to_vec_pretty(note)?)?;
    // A command that root runs must not leave a file that the service cannot replace.
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(directory)?;
        fchown(&new, Some(owner.uid()), Some(owner.gid()))?;
    }
    new.sync_all()?;
    fs::rename(&aside, file)?;
    File::open(directory)?.sync_all()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
#[path = "login_memory_tests.rs"]
mod tests;
