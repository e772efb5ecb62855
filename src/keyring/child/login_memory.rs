//! Remembers, across commands and restarts, which PIN a token has refused or left without an answer.
//!
//! A token locks after a few wrong PINs, and not every token shows its count. So each PIN is noted before it is sent, as
//! one without an answer. It counts as wrong until the token has accepted it: whatever kills the signer or its child in
//! between, the next one does not send the same PIN again. A changed PIN is another one.
//!
//! The notes are a file beside the state file, one for each token. It contains salted and iterated hashes of PINs. A
//! PIN has so little entropy that anyone who reads the file can find it by trying, so only its owner may read it.

use crate::{
    keyring::pkcs11::token_info::{PinState, TokenInfo},
    record::utc,
};
use highwater_core::{
    disk,
    hex::{Hex, hex_of},
};
use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// Makes a guess cost some milliseconds, and a login not much more.
const HASHED_BYTES: u32 = 8 << 20;
const CHUNK_BYTES: usize = 64 << 10;
/// A note is far shorter.
const NOTE_MAX_BYTES: u64 = 64 * 1024;
/// So many PINs are remembered: two wrong ones that take turns must not lock the token.
const KEPT_PINS: usize = 4;

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
        let module = self.module.display().to_string();
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+".contains(character);
        let module = if module.chars().all(is_plain) { module } else { quoted(&module) };
        let label = quoted(&self.label);
        format!("`pkcs11-tool --module {module} --token-label {label} --login --list-objects`")
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
    /// How often it was sent without a clear answer while it was proven, and is not noted yet.
    pub doubts: u32,
}

/// The notes in one directory.
pub struct LoginMemory {
    directory: Option<PathBuf>,
    /// The notes that could not be written. They hold for this process at least.
    unwritten: Vec<(PathBuf, Notes)>,
}

/// What is remembered about the PINs that were sent to a token.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Notes {
    module: PathBuf,
    label: String,
    serial: String,
    /// Only the PIN of the user is ever sent.
    user: String,
    salt: String,
    hashed_bytes: u32,
    /// The one that was sent last is the last.
    pins: Vec<Note>,
}

/// What is remembered about one PIN.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Note {
    pin_hash: String,
    /// When it was sent last.
    sent: String,
    /// The token has accepted it at least once, and no other one since.
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
        let mut notes =
            self.read(&file).map_err(|error| unreadable(&file, &error))?.unwrap_or_else(|| Notes::of(token));
        let mut note = notes.take(bytes);
        if note.counted && token.state == PinState::Ok {
            // Somebody has logged in with the right PIN since, or has set the PIN anew: the count is back, and one more
            // try cannot lock the token.
            note.forgive();
        }
        note.doubts += pin.doubts;
        let was_sent = !note.sent.is_empty();
        let is_new = was_sent && token.state != PinState::Ok && !note.counted;
        note.counted |= is_new;
        if let Some(why) = note.objection(token, pin, &file).or_else(|| counter_allows(token, pin).err()) {
            if is_new || pin.doubts > 0 {
                self.note(&file, notes.with(note));
            }
            return Err(why);
        }
        note.doubts += 1;
        note.sent = utc::at(now());
        note.answer = None;
        let was_accepted = note.accepted;
        let notes = notes.with(note);
        match self.write(&file, &notes) {
            Ok(()) => Ok(()),
            Err(error) if !was_accepted => Err(unwritable(&file, &error)),
            // A full disk must not keep a validator from signing.
            Err(_) => {
                self.unwritten.push((file, notes));
                Ok(())
            }
        }
    }

    /// Notes what became of the login with this PIN.
    pub fn end(&mut self, token: &TokenBeforeLogin, pin: PinToSend<'_>, outcome: &LoginOutcome) {
        let Some(bytes) = pin.pin else { return };
        if pin.proven && !matches!(outcome, LoginOutcome::Refused(_)) {
            return;
        }
        let file = self.file(token);
        let mut notes = self.read(&file).ok().flatten().unwrap_or_else(|| Notes::of(token));
        let mut note = notes.take(bytes);
        if note.sent.is_empty() {
            // The note was made for another PIN, or has been deleted since.
            note.sent = utc::at(now());
        }
        match outcome {
            LoginOutcome::Accepted => {
                note.forgive();
                note.accepted = true;
                notes.pins.iter_mut().for_each(|other| other.accepted = false);
            }
            LoginOutcome::Refused(answer) => {
                (note.refused, note.accepted) = (true, false);
                note.answer = Some(answer.clone());
            }
            LoginOutcome::Trouble => note.doubts = note.doubts.saturating_sub(1),
            LoginOutcome::Unclear(answer) => {
                note.doubts = note.doubts.max(1);
                note.answer = Some(answer.clone());
            }
        }
        self.note(&file, notes.with(note));
    }

    fn file(&self, token: &TokenBeforeLogin) -> PathBuf {
        token.note_file(self.directory.as_deref().unwrap_or(Path::new("")))
    }

    /// The notes in this file. What is damaged is none, but what cannot be read now may keep a PIN back.
    fn read(&mut self, file: &Path) -> io::Result<Option<Notes>> {
        if let Some(index) = self.unwritten.iter().position(|(path, _)| path == file) {
            // Once they are on the disk, whoever deletes the file has them forgotten.
            let (path, notes) = self.unwritten.swap_remove(index);
            if self.write(&path, &notes).is_err() {
                self.unwritten.push((path, notes.clone()));
            }
            return Ok(Some(notes));
        }
        if self.directory.is_none() {
            return Ok(None);
        }
        match read_regular(file) {
            Ok(bytes) => {
                let notes: Option<Notes> = serde_json::from_slice(&bytes).ok();
                // With another number it was not written here, and hashing could take for ever.
                Ok(notes.filter(|notes| notes.hashed_bytes == HASHED_BYTES))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the notes. Without a directory, memory is where they belong.
    fn write(&mut self, file: &Path, notes: &Notes) -> io::Result<()> {
        self.unwritten.retain(|(path, _)| path != file);
        if self.directory.is_some() {
            return replace(file, notes);
        }
        self.unwritten.push((file.to_owned(), notes.clone()));
        Ok(())
    }

    /// The same, but keeps in memory what the disk does not take.
    fn note(&mut self, file: &Path, notes: Notes) {
        if self.write(file, &notes).is_err() {
            self.unwritten.push((file.to_owned(), notes));
        }
    }
}

impl Notes {
    fn of(token: &TokenBeforeLogin) -> Self {
        let mut salt = [0; 16];
        OsRng.fill_bytes(&mut salt);
        Self {
            module: token.module.clone(),
            label: token.label.clone(),
            serial: token.serial.clone(),
            user: "user".into(),
            salt: hex_of(&salt),
            hashed_bytes: HASHED_BYTES,
            pins: Vec::new(),
        }
    }

    /// Takes out the note of this PIN, or makes one.
    fn take(&mut self, pin: &[u8]) -> Note {
        let pin_hash = hash(&self.salt, self.hashed_bytes, pin);
        match self.pins.iter().position(|note| note.pin_hash == pin_hash) {
            Some(index) => self.pins.remove(index),
            None => Note {
                pin_hash,
                sent: String::new(),
                accepted: false,
                doubts: 0,
                answer: None,
                refused: false,
                counted: false,
            },
        }
    }

    /// With this note as the last.
    fn with(mut self, note: Note) -> Self {
        self.pins.push(note);
        self.pins.drain(..self.pins.len().saturating_sub(KEPT_PINS));
        self
    }
}

impl Note {
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
        let (label, sent, source) = (&token.label, &self.sent, pin.source);
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

/// Reads a file that another user may have put there. `InvalidData` if it can be no note.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(FLAGS).open(path).map_err(|error| {
        // A link: it is replaced, never followed.
        if error.raw_os_error() == Some(libc::ELOOP) { io::ErrorKind::InvalidData.into() } else { error }
    })?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    file.take(NOTE_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn replace(file: &Path, notes: &Notes) -> io::Result<()> {
    let aside = file.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A command that root runs must not leave a file that the service cannot replace.
    let mut new = disk::create_private(&aside)?;
    new.write_all(&serde_json::to_vec_pretty(notes)?)?;
    new.sync_all()?;
    fs::rename(&aside, file)?;
    disk::sync_parent(file)
}

fn unreadable(file: &Path, error: &io::Error) -> String {
    let shown = file.display();
    let owner = fs::symlink_metadata(file).or_else(|_| fs::metadata(file.parent().unwrap_or(Path::new("/"))));
    let what = match owner {
        Ok(owner) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!("Run this command as the user with the id {}, who owns the file", owner.uid())
        }
        _ => "Make the file readable again".to_owned(),
    };
    format!("no PIN was sent, because {shown} may say that it is wrong, and cannot be read: {error}. {what}")
}

fn unwritable(file: &Path, error: &io::Error) -> String {
    let directory = file.parent().unwrap_or(Path::new("/")).display();
    let how = match error.kind() {
        io::ErrorKind::NotFound => format!("Make the directory {directory}"),
        _ => format!("Make room in {directory}, or let this user write there"),
    };
    format!(
        "no PIN was sent, because {} must first say that it is sent, so that a wrong PIN is not sent again after a restart, \
         and it cannot be written: {error}. {how}",
        file.display()
    )
}

/// `text` as one word of a shell command.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
#[path = "login_memory_tests.rs"]
mod tests;
