//! Deliberate bugs, one at a time, to prove that the tests would notice them.
//!
//! `broken!` marks a place where a bug can be switched on, and holds the bug. It expands to nothing unless the compiler
//! gets `--cfg highwater_broken`, which only `tests/project/broken_variants.rs` sets. No feature of the crate turns it
//! on, and a build without debug assertions refuses it.

#[cfg(all(highwater_broken, not(debug_assertions)))]
compile_error!("a broken signer is never built for use");

/// `broken!("name" => statement)` runs the statement if this is a broken build and the environment variable
/// `HIGHWATER_BROKEN` names this bug.
#[cfg(highwater_broken)]
#[macro_export]
macro_rules! broken {
    ($bug:literal => $statement:stmt) => {
        if $crate::broken::is($bug) {
            $statement
        }
    };
}

/// Expands to nothing in an ordinary build.
#[cfg(not(highwater_broken))]
#[macro_export]
macro_rules! broken {
    ($bug:literal => $statement:stmt) => {};
}

/// Whether this process runs with the bug `bug`.
#[cfg(highwater_broken)]
pub fn is(bug: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("HIGHWATER_BROKEN").ok()).as_deref() == Some(bug)
}
