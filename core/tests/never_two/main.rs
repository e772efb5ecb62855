//! Never two, as far as the core alone can show it: for one chain and key, at most one message per height, round and step ever
//! leaves, and they only move forward.
//!
//! | module | what it tries |
//! | --- | --- |
//! | `exhaustive` | every history of up to four steps over a small domain, against a reference without marks |
//! | `arbitrary` | random histories up to the highest numbers, through the bytes of the state file |
//!
//! `tests/never_two` in the repository's root goes on with CometBFT's own signer, simulated devices and the real binary.
//! `HIGHWATER_SEED` sets the seed of what is random.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, dead_code, unreachable_pub, missing_docs)]

mod arbitrary;
mod asks;
#[path = "../../../tests/support/assurance.rs"]
mod assurance;
mod dice;
mod exhaustive;
#[path = "../../../tests/support/messages.rs"]
mod messages;
mod reference;

/// The promise, as the reports name it.
const PROMISE: &str = "never two";
