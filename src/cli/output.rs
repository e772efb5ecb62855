//! Writing to a terminal or pipe whose reader may have gone: answers on standard output, notes on standard error.

use super::{CliError, Exit};
use std::io::{self, IsTerminal as _, Write as _};

/// Writes an answer and a newline to standard output.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        // `highwater … | head` is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::new(Exit::Io, format!("cannot write the answer: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a note and a newline to standard error. A note nobody reads is no failure.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Shows on a terminal, and nowhere else, what is being done; in place of what was shown before.
pub(super) fn progress(text: &str) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{text}");
    }
}
