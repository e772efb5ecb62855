//! How words and passwords pass between an operator and this process: over the terminal, or over a file descriptor that the
//! operator names. Never over the log, a file of our own, or standard output that is not a terminal.

use super::target::usage;
use crate::cli::{CliError, Exit};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Read as _, Write as _},
};
use zeroize::Zeroizing;

/// The terminal of this process, wherever its standard streams go.
const TERMINAL: &str = "/dev/tty";
/// Longer than any phrase or password.
const LINE_MAX_BYTES: usize = 1024;

/// Where secrets are shown.
pub(super) struct Sink(File);

impl Sink {
    /// Opens the sink, or refuses before anything has happened.
    pub(super) fn open(descriptor: Option<i32>) -> Result<Self, CliError> {
        let opened = match descriptor {
            // Opened anew under /proc, so that a wrong number does no harm.
            Some(number) => OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}")),
            None => match OpenOptions::new().write(true).open(TERMINAL) {
                Err(_) if io::stdout().is_terminal() => OpenOptions::new().write(true).open("/proc/self/fd/1"),
                opened => opened,
            },
        };
        opened.map(Self).map_err(|error| match descriptor {
            Some(number) => usage(format!("cannot write secrets to file descriptor {number}: {error}")),
            None => usage(
                "there is no terminal to show the words and passwords on: name a file descriptor for them with --secrets-fd",
            ),
        })
    }

    pub(super) fn show(&mut self, text: &str) -> Result<(), CliError> {
        let shown = self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush());
        shown.map_err(|error| CliError::io("cannot show the words and passwords", &error))
    }
}

/// The operator's terminal, to ask on.
pub(super) struct Terminal(File);

impl Terminal {
    /// Opens the terminal. `instead` says what to do if there is none.
    pub(super) fn open(instead: &str) -> Result<Self, CliError> {
        let opened = OpenOptions::new().read(true).write(true).open(TERMINAL);
        opened.map(Self).map_err(|_| usage(format!("there is no terminal to ask on: {instead}")))
    }

    /// Asks, and reads one line.
    pub(super) fn ask(&mut self, question: &str) -> Result<Zeroizing<String>, CliError> {
        let asked = self.0.write_all(question.as_bytes()).and_then(|()| read_text(&mut self.0, Some(b'\n')));
        asked.map_err(|error| CliError::io("cannot ask on the terminal", &error))
    }

    /// Asks without showing what is typed.
    pub(super) fn ask_hidden(&mut self, question: &str) -> Result<Zeroizing<String>, CliError> {
        let failed =
            |error: rustix::io::Errno| CliError::new(Exit::Io, format!("cannot turn off the terminal's echo: {error}"));
        let before = tcgetattr(&self.0).map_err(failed)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        hidden.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(&self.0, OptionalActions::Now, &hidden).map_err(failed)?;
        let echo = Echo { terminal: self.0.try_clone(), before };
        let answer = self.ask(question);
        drop(echo);
        answer
    }
}

/// Turns the echo on again, however this ends.
struct Echo {
    terminal: io::Result<File>,
    before: Termios,
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Ok(terminal) = &self.terminal {
            // Nothing more can be done about an error.
            let _ = tcsetattr(terminal, OptionalActions::Now, &self.before);
        }
    }
}

/// Reads the text from an inherited descriptor, without its last line break.
pub(super) fn read_line(descriptor: i32) -> Result<Zeroizing<String>, CliError> {
    let read = File::open(format!("/proc/self/fd/{descriptor}")).and_then(|mut file| read_text(&mut file, None));
    read.map_err(|error| {
        CliError::new(Exit::NoInput, format!("cannot read from file descriptor {descriptor}: {error}"))
    })
}

/// Reads to `end` or to the end of the file, in a buffer that never grows and so leaves no copies behind.
fn read_text(file: &mut File, end: Option<u8>) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; LINE_MAX_BYTES]);
    let mut length = 0;
    while length < LINE_MAX_BYTES {
        let read = file.read(&mut bytes[length..])?;
        length += read;
        if read == 0 || end.is_some_and(|end| bytes[..length].contains(&end)) {
            let text = std::str::from_utf8(&bytes[..length]).map_err(|_| io::Error::other("it is not UTF-8 text"))?;
            return Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()));
        }
    }
    Err(io::Error::other(format!("it is longer than {LINE_MAX_BYTES} bytes")))
}
