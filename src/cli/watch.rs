//! The progress of a command that signs again and again.

use std::io::{self, IsTerminal as _, Write as _};

/// Runs `work`, and shows on standard error, if that is a terminal, how many of the signatures are done.
pub(super) fn shown<T>(work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let terminal = io::stderr().is_terminal();
    let answer = work(&mut |done, total| {
        if terminal {
            let _ = write!(io::stderr(), "\r\x1b[Ksigned {done} of {total}");
        }
    });
    if terminal {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    answer
}
