//! Highwater: a remote signer for CometBFT validators. This crate is everything around [`highwater_core`], which decides.
//!
//! `docs/architecture.md` is the plan of the house. From the top floor down:
//!
//! | room | what it does |
//! | --- | --- |
//! | [`cli`] | one file for each command |
//! | [`daemon`] | the order of a start and of an end |
//! | [`inspect`] | looks at everything before the start; `check` prints what it finds, `start` obeys |
//! | [`node`] | one validator node: dial, wait, serve, dial again |
//! | [`passing`] | says which troubles pass by themselves |
//! | [`state`] | what operators do to a state file, and the state files of other programs |
//! | [`show`] | metrics, status, systemd |
//! | [`provision`] | administers devices |
//! | [`link`] | tcp with SecretConnection, unix |
//! | [`keyring`] | signs: with keys in files, and with keys in devices |
//! | [`record`] | writes down what became of each request |
//! | [`process`] | what a process of ours may do, and how it is started |
//! | [`config`] | everything that an operator writes |

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
