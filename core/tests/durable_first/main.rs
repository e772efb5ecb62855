//! Durable first, as far as the store alone can show it: no signature leaves before the mark that covers it is on the disk.
//!
//! | module | what it tries |
//! | --- | --- |
//! | `crash_states` | the store over a disk model: every crash, every fault, every subset of what was not flushed |
//! | `bad_files` | state files with changed bits, other lengths and slots of two times |
//!
//! `tests/durable_first` in the repository's root goes on with the real binary, strace, kills and full disks.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../../../tests/support/assurance.rs"]
mod assurance;
mod bad_files;
mod crash_states;

/// The promise, as reports name it.
const PROMISE: &str = "durable first";

const CHAIN: &str = "test-chain";
