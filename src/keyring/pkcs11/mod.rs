//! Keys in PKCS#11 tokens: everything that calls a module.
//!
//! | file | what |
//! | --- | --- |
//! | `served` | the program of the child process that signs with one token |
//! | `module`, `token`, `token_info`, `attributes`, `error` | the calls themselves |
//! | `reach` | which files and sockets a module gets, and what to say when they are not enough |
//!
//! A device's module is somebody else's C code, so it runs on one thread of a process that can be thrown away.

pub(crate) mod attributes;
pub mod error;
pub mod module;
mod reach;
pub mod served;
pub mod token;
pub mod token_info;
