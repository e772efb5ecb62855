//! A panic ends the process: a signer that runs on with a broken invariant is worse than one that restarts.
//!
//! The exceptions are two libraries that the other end of a connection can make panic. They hold no state beyond that
//! connection, so such a panic costs only the connection:
//!
//! - tendermint-p2p: a chunk longer than its read buffer, an authentication message with trailing bytes;
//! - yubihsm: an answer without the authentication code that it should have, or one in many pieces.

use std::{
    any::Any,
    cell::Cell,
    io::Write as _,
    panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind},
    sync::mpsc,
    thread,
    time::Duration,
};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call`, which must only call one of these libraries. The error is the text of a panic. The caller then drops
/// the connection, so nothing uses the state that the call left half done.
pub fn contain<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    CONTAINED.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CONTAINED.set(false);
    result.map_err(|payload| text_of(payload.as_ref()))
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "panic".to_owned(),
    }
}

/// Installs the panic hook. `line` makes the message a line of the log. `end` ends the process and does not return.
pub fn end_process_with(line: fn(&str) -> String, end: fn() -> !) {
    panic::set_hook(Box::new(move |info| {
        if CONTAINED.get() {
            return;
        }
        report(info, line);
        end();
    }));
}

/// Writes the reason to standard error, but does not wait if the reader has stopped reading.
fn report(info: &PanicHookInfo<'_>, line: fn(&str) -> String) {
    const PATIENCE: Duration = Duration::from_millis(200);
    let text = line(&format!("a broken invariant ends the process: {info}")) + "\n";
    let (sender, written) = mpsc::channel::<()>();
    let writer = thread::Builder::new().spawn(move || {
        let _ = std::io::stderr().write_all(text.as_bytes());
        drop(sender);
    });
    if writer.is_ok() {
        let _ = written.recv_timeout(PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_becomes_an_error_and_the_mark_is_taken_back() {
        let result = contain(|| {
            assert!(CONTAINED.get());
            panic!("played");
        });
        assert_eq!(result, Err::<(), _>("played".to_owned()));
        assert!(!CONTAINED.get());
        assert_eq!(contain(|| 5), Ok(5));
    }
}
