//! Keys in devices, and the commands that look after them.
//!
//! | module | what is shown |
//! | --- | --- |
//! | `pkcs11` | tokens through the real signer: keys, PINs, every fault of a module |
//! | `pkcs11_chaos` | kills and random faults |
//! | `pkcs11_forms` | what a module, a token and a key say in other forms |
//! | `pkcs11_heal` | logins that are slow, cut off or refused, and troubles that pass by themselves |
//! | `pkcs11_processes` | the processes of a token, and a real chain |
//! | `pkcs11_token` | the code below, against SoftHSM alone |
//! | `pkcs11_cli` | `highwater pkcs11` |
//! | `pkcs11_commands` | `highwater pkcs11` with a module that fails |
//! | `pkcs11_modules` | modules of others: what signs, and what the others say |
//! | `yubihsm` | a simulated YubiHSM 2 through the real signer |
//! | `yubihsm_cli` | `highwater yubihsm` |
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod pkcs11;
mod pkcs11_chaos;
mod pkcs11_cli;
mod pkcs11_commands;
mod pkcs11_forms;
mod pkcs11_heal;
mod pkcs11_modules;
mod pkcs11_processes;
mod pkcs11_token;
mod token;
mod yubihsm;
mod yubihsm_cli;
