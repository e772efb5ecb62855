//! The commands as an operator meets them.
//!
//! | module | what is shown |
//! | --- | --- |
//! | `cli` | what commands leave alone, which modes files get, and what no transcript can show |
//! | `transcripts` | what each command says, word for word: `tests/cmd/` |
//! | `one_decision` | `check` and `start` find the same |
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod one_decision;
mod transcripts;
