//! Never two: for one chain and key, at most one message per height, round and step ever leaves, and they only move
//! forward. Each module tries to break that in a way of its own. Vote extensions are an exception: each request for a vote gets
//! its extension signed, as from CometBFT.
//!
//! | module | what it tries |
//! | --- | --- |
//! | `filepv` | random histories through CometBFT's own signer beside ours |
//! | `nodes` | several nodes at once on the real binary, which is killed again and again |
//! | `simulator` | crashes, power cuts, faults of disks and devices, old files: all from one seed |
//!
//! What the rule alone can show, every small history and random ones, is in `core/tests/never_two`.
//! `HIGHWATER_SEED` sets the seed of what is random, `HIGHWATER_STEPS` the length of the simulation.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, dead_code, unreachable_pub, missing_docs)]

#[path = "../../core/tests/never_two/asks.rs"]
mod asks;
#[path = "../support/assurance.rs"]
mod assurance;
#[path = "../support/binary.rs"]
mod binary;
#[path = "../../core/tests/never_two/dice.rs"]
mod dice;
mod filepv;
#[path = "../support/history.rs"]
mod history;
#[path = "../support/mock_node.rs"]
mod mock_node;
mod nodes;
#[path = "../support/signer.rs"]
mod signer;
mod simulator;

use mock_node::messages;

/// The promise, as the reports name it.
const PROMISE: &str = "never two";
