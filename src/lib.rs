//! Highwater: a remote signer for CometBFT validators.
//!
//! Data walks one way through the house and comes back by the same door:
//!
//! ```text
//! node ─▶ link ─▶ privval ─▶ chain ─▶ watermark ─▶ keyring ─▶ chain ─▶ privval ─▶ link ─▶ node
//!         bytes   meaning    the one   may we?      sign it    release  bytes
//!                            place     + durable
//! ```
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`privval`] | messages, framing, request validation, sign bytes. Pure |
//! | [`watermark`] | the mark, the rule, the durable file |
//! | [`keyring`] | what signs: keys in files, keys in devices |
//! | [`chain`] | one key joined to one watermark: the only place where a request becomes a signature |
//! | [`link`] | the doors: tcp with SecretConnection, unix |
//! | [`node`] | one validator node: dial, wait, serve, dial again |
//! | [`daemon`] | the whole signer: every chain, a thread for each node |
//! | [`state`] | what operators do to a state file; `foreign` reads and writes those of other programs |
//! | [`inspect`] | the look at everything before the start, which `check` prints and `start` obeys |
//! | [`passing`] | which troubles pass by themselves |
//! | [`config`] | `tmkms.toml` |
//! | [`cli`] | one file per command |
//! | [`disk`] | private new files and durable directory entries |
//! | [`process`] | what a process of ours may do, and how it is started |
//! | [`record`] | events, counters, log, audit file |
//! | [`show`] | metrics, status, systemd |
//! | [`consensus`] | the words that all rooms share |
//! | `broken` | deliberate bugs for the tests of the tests; nothing in an ordinary build |

#[macro_use]
extern crate highwater_core;

pub mod cli;
pub mod config;
pub mod daemon;
pub mod inspect;
pub mod keyring;
pub mod link;
pub mod node;
pub mod passing;
pub mod process;
pub mod provision;
pub mod record;
pub mod show;
pub mod state;
