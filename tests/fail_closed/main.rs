//! Evidence for the third promise: what cannot be trusted is refused with its reason, and costs nobody else anything. A hostile
//! peer costs its own connection, bad files cost their own chain, and nothing is signed in doubt.
//!
//! | module | what is tried |
//! | --- | --- |
//! | `requests` | every request that no honest node sends, and those that a node may not make |
//! | `peers` | hostile and broken peers, one by one: handshakes, frames, silence |
//! | `crowd` | fifty of them at once around a healthy node |
//! | `flood` | a node that asks as fast as it can for what it does not get |
//! | `state` | missing, damaged, foreign and replaced files; a second signer |
//! | `start` | a hook that fails, keys and mounts that come late, a panic |
//!
//! Devices that hang, die or lie: `tests/devices/`. State files that rot while nobody looks: `tests/durable_first/`.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod flood;
mod peers;
mod requests;
mod start;
mod state;
