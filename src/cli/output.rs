//! Writes answers to standard output and notes to standard error, either of which may have lost its reader.

use super::{CliError, Exit};
use std::io::{self, IsTerminal as _, Write as _};

/// Writes an answer and a newline to standard output.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        // `highwater … | head` is not a failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(Exit::Io, format!("cannot write the answer: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a note and a newline to standard error. If nobody reads it, that is not a failure.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a question to standard error, without a newline.
pub(super) fn ask(question: &str) {
    let mut err = io::stderr().lock();
    let _ = write!(err, "{question}").and_then(|()| err.flush());
}

/// Shows what is being done, in place of the previous text. Only on a terminal.
pub(super) fn progress(text: &str) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{text}");
    }
}
