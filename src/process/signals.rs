//! Signals that would end a process of ours without a word, if nobody took them.
#![allow(unsafe_code)]

use libc::c_int;

/// What an operator, a terminal or a supervisor may send, to all processes of a service at once, and what a limit on
/// the size of files sends. The signer itself takes over the first four once it can hear.
const OUTLIVED: [c_int; 5] = [libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGXFSZ];

/// Ignores them, in this process and in all that it starts. A write above the limit then fails with an error.
pub fn outlive() {
    for signal in OUTLIVED {
        // SAFETY: SIG_IGN is no handler, so no code of ours ever runs in a signal's context. The number is one that may
        // be ignored; an error would leave things as they were.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
