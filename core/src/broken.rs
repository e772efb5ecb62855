//! Deliberate bugs, one at a time, to prove that the tests would notice them.
//!
//! `broken!` marks where a bug can be switched on and says what it does. It is nothing at all unless the compiler is
//! told `--cfg highwater_broken`, which only `tests/project/broken_variants.rs` does. No feature of the crate turns it on, and
//! a build without debug assertions refuses it.

#[cfg(all(highwater_broken, not(debug_assertions)))]
compile_error!("a broken signer is never built for use");

/// `broken!("name" => statement)`: the statement, if this is a broken build and the variable `HIGHWATER_BROKEN` names
/// this bug.
#[cfg(highwater_broken)]
#[macro_export]
macro_rules! broken {
    ($bug:literal => $statement:stmt) => {
        if $crate::broken::is($bug) {
            $statement
        }
    };
}

/// Nothing.
#[cfg(not(highwater_broken))]
#[macro_export]
macro_rules! broken {
    ($bug:literal => $statement:stmt) => {};
}

/// Whether this process has the bug.
#[cfg(highwater_broken)]
pub fn is(bug: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("HIGHWATER_BROKEN").ok()).as_deref() == Some(bug)
}
