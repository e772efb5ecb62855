//! Evidence for the third promise: the signer refuses what it cannot trust, says why, and goes on with the rest. A hostile peer
//! loses its own connection, bad files close their own chain, and nothing is signed in doubt.
//!
//! | module | what is tried |
//! | --- | --- |
//! | `requests` | every request that no honest node sends, and every one that a node may not make |
//! | `peers` | hostile and broken peers, one by one: handshakes, frames, silence |
//! | `crowd` | fifty of them at once around a healthy node |
//! | `flood` | a node that asks as fast as it can for what it does not get |
//! | `state` | missing, damaged, foreign and replaced files; a second signer |
//! | `start` | a hook that fails, keys and mounts that come late, a panic |
//!
//! `tests/devices/` shows devices that hang, die or lie; `tests/durable_first/` shows state files that rot while the signer is
//! stopped.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod flood;
mod peers;
mod requests;
mod start;
mod state;
