//! The commands as an operator meets them.
//!
//! | module | what is shown |
//! | --- | --- |
//! | `cli` | which stream, pipes that nobody reads, the search for secrets, the configuration that is found |
//! | `state` | state files: what commands leave alone, one signer |
//! | `features` | every feature of a `tmkms.toml`, beside tmkms |
//! | `keys` | keys in files and a new home: modes, nothing overwritten |
//! | `transcripts` | what each command says, word for word: `tests/cmd/` |
//! | `one_decision` | `check` and `start` find the same |
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod features;
mod keys;
mod one_decision;
mod state;
mod transcripts;
