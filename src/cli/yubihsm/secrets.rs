//! Words and passwords on their way between an operator and this process: the terminal, or a file descriptor that the
//! operator names. Never standard output that is no terminal, never a file of our own, never the log.

use crate::{
    cli::{CliError, Exit},
    keyring::secret_source::{self, SECRET_MAX_BYTES},
};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Read as _, Write as _},
};
use zeroize::Zeroizing;

/// The terminal that a process belongs to, wherever its standard streams go.
const TERMINAL: &str = "/dev/tty";

/// Where secrets are shown.
pub(super) struct Sink(File);

impl Sink {
    /// Opens it, or refuses while nothing has happened yet.
    pub(super) fn open(descriptor: Option<i32>) -> Result<Self, CliError> {
        let opened = match descriptor {
            // Opened anew by its name under /proc, which needs no trust in the number.
            Some(number) => OpenOptions::new().append(true).open(format!("/proc/self/fd/{number}")),
            None => OpenOptions::new().write(true).open(TERMINAL).or_else(|error| {
                if io::stdout().is_terminal() {
                    OpenOptions::new().write(true).open("/proc/self/fd/1")
                } else {
                    Err(error)
                }
            }),
        };
        opened.map(Self).map_err(|error| match descriptor {
            Some(number) => CliError::usage(format!("secrets cannot be written to file descriptor {number}: {error}")),
            None => CliError::usage(
                "there is no terminal to show the words and passwords on, and they go nowhere else by themselves: name a \
                 file descriptor with --secrets-fd",
            ),
        })
    }

    /// Shows a text, or fails.
    pub(super) fn show(&mut self, text: &str) -> Result<(), CliError> {
        let shown = self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush());
        shown.map_err(|error| CliError::io("the words and passwords cannot be shown", &error))
    }
}

/// The operator's terminal, to ask on.
pub(super) struct Terminal(File);

impl Terminal {
    /// Opens it. `instead` is what to do where there is none.
    pub(super) fn open(instead: &str) -> Result<Self, CliError> {
        let opened = OpenOptions::new().read(true).write(true).open(TERMINAL);
        opened.map(Self).map_err(|_| CliError::usage(format!("there is no terminal to ask on: {instead}")))
    }

    /// Asks, and reads one line.
    pub(super) fn ask(&mut self, question: &str) -> Result<Zeroizing<String>, CliError> {
        let asked = self.0.write_all(question.as_bytes()).and_then(|()| read_terminal(&mut self.0));
        asked.map_err(|error| CliError::io("cannot ask on the terminal", &error))
    }

    /// The same without showing what is typed.
    pub(super) fn ask_hidden(&mut self, question: &str) -> Result<Zeroizing<String>, CliError> {
        let failed = |error: rustix::io::Errno| CliError::new(Exit::Io, format!("cannot hide what is typed: {error}"));
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

/// Shows again what is typed, however this ends.
struct Echo {
    terminal: io::Result<File>,
    before: Termios,
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Ok(terminal) = &self.terminal {
            // Nothing is left to be done about an error.
            let _ = tcsetattr(terminal, OptionalActions::Now, &self.before);
        }
    }
}

/// The text that can be read from an inherited descriptor, without the end of its last line.
pub(super) fn read_line(descriptor: i32) -> Result<Zeroizing<String>, CliError> {
    secret_source::descriptor(descriptor).and_then(|bytes| line_of(&bytes)).map_err(|error| {
        CliError::new(Exit::NoInput, format!("nothing can be read from file descriptor {descriptor}: {error}"))
    })
}

/// The text without the end of its last line.
fn line_of(bytes: &[u8]) -> io::Result<Zeroizing<String>> {
    if bytes.len() > SECRET_MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {SECRET_MAX_BYTES} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Reads one line, in a buffer that never grows and so leaves no copies behind.
fn read_terminal(terminal: &mut File) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; SECRET_MAX_BYTES + 1]);
    let mut length = 0;
    while length < bytes.len() {
        let read = terminal.read(&mut bytes[length..])?;
        length += read;
        if read == 0 || bytes[..length].contains(&b'\n') {
            break;
        }
    }
    line_of(&bytes[..length])
}
