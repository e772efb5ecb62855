//! Panics end the process: a signer that limps is worse than one that restarts.
//!
//! The one exception is a panic inside tendermint-p2p, which costs the connection that caused it.

use crate::link;
use std::{
    io::Write as _,
    panic::{self, PanicHookInfo},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Installs the hook. `end` ends the process and does not return.
pub fn end_process_with(end: fn() -> !) {
    panic::set_hook(Box::new(move |info| {
        if link::is_contained() {
            return;
        }
        tell(info);
        end();
    }));
}

/// Writes the reason to standard error, but does not wait for a reader who has stopped reading.
fn tell(info: &PanicHookInfo<'_>) {
    const PATIENCE: Duration = Duration::from_millis(200);
    let text = format!("highwater: a broken invariant ends the process: {info}\n");
    let (sender, written) = mpsc::channel::<()>();
    let writer = thread::Builder::new().spawn(move || {
        let _ = std::io::stderr().write_all(text.as_bytes());
        drop(sender);
    });
    if writer.is_ok() {
        let _ = written.recv_timeout(PATIENCE);
    }
}
