//! Keys in PKCS#11 tokens: all calls to a module.
//!
//! | file | what |
//! | --- | --- |
//! | `served` | the program of the child process that signs with one token |
//! | `module`, `token`, `attributes`, `error` | the calls themselves |
//!
//! A device's module is C code from its vendor, so it runs on one thread of a process that can be killed and replaced.

pub(crate) mod attributes;
pub mod error;
pub mod module;
pub mod served;
pub mod token;
