//! The signer on its machine: what it may do there, what it shows, how it starts and how it ends.
//!
//! | module | what is shown |
//! | --- | --- |
//! | `confined` | the signer under Landlock and seccomp |
//! | `attempts` | what a process that is confined like it can do |
//! | `reach` | what the processes beside it reach |
//! | `links` | restarts, the end at a signal, several nodes |
//! | `operation` | signals, logs that nobody reads, hooks |
//! | `notify` | what systemd hears |
//! | `reload` | nodes that come, go and change at SIGHUP |
//! | `watched` | `status`, metrics and `check` on a signer at work |
//! | `usb` | a YubiHSM on USB, on a bus of files |
//! | `monitoring` | alert rules, dashboard and their documents |
//! | `dashboard` | what Grafana's linter asks of the dashboard |
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod confined;
mod dashboard;
mod links;
mod monitoring;
mod notify;
mod operation;
mod reach;
mod reload;
mod usb;
mod watched;
