//! Evidence for the second promise: no signature leaves before the mark that covers it is on the disk.
//!
//! | file | what is tried |
//! | --- | --- |
//! | `order` | the running signer under strace: which call comes before which |
//! | `faults` | the same with a failure, or a kill, at every call in turn |
//! | `kills` | SIGKILL at work, again and again |
//! | `bad_files` | state files that changed while the signer was stopped, and disks that are full or read-only |
//!
//! What the store alone can show, every crash and every bad file, is in `core/tests/durable_first`.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod bad_files;
mod faults;
mod history;
mod kills;
mod order;

/// The promise, as reports name it.
const PROMISE: &str = "durable first";

const CHAIN: &str = "test-chain";
const OTHER: &str = "other-chain";
