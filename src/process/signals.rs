//! Signals that would end a process silently if it did not ignore them.
#![allow(unsafe_code)]

use libc::c_int;

/// Signals that an operator, a terminal or a supervisor may send to all processes of a service at once, and the one
/// that a limit on the size of files sends. The signer itself handles the first four once it runs.
const OUTLIVED: [c_int; 5] = [libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGXFSZ];

/// Ignores these signals, in this process and in all processes that it starts. A write above the limit then fails with
/// an error.
pub fn outlive() {
    for signal in OUTLIVED {
        // SAFETY: SIG_IGN is not a handler, so none of our code ever runs in a signal's context. The signal is one that
        // may be ignored; an error would change nothing.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
