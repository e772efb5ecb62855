//! Keys in PKCS#11 tokens: everything that calls a module.
//!
//! | file | what |
//! | --- | --- |
//! | `served` | the program of the child process that signs with one token |
//! | `algorithms` | what is peculiar to each algorithm |
//! | `module`, `token`, `error` | the calls themselves |
//!
//! A device's module is somebody else's C code, so it runs on one thread of a process that can be thrown away.

pub(crate) mod algorithms;
pub mod error;
pub mod module;
pub mod served;
pub mod token;
