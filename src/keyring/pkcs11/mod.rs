//! Keys in PKCS#11 devices.
//!
//! | file | what | process |
//! | --- | --- | --- |
//! | `profile`, `profile_reader` | what is peculiar to a family of devices | all |
//! | `spec` | which token and keys. No secret | all |
//! | `reach` | what a module reaches of its machine | signer, spawner and child |
//! | `child` | the process that talks to one token, from both sides | signer and child |
//! | `spawner`, `pin`, `locked` | the process that starts children and keeps PINs | signer and spawner |
//! | `protocol` | what they say to each other | all |
//! | `module`, `token`, `manage`, `attributes`, `error` | all that calls a module | child and commands |
//!
//! A device's module is somebody else's C code: all that calls it runs on one thread of a process that can be thrown
//! away.

mod attributes;
pub mod child;
pub mod error;
mod locked;
pub mod manage;
pub mod module;
pub mod pin;
pub mod profile;
mod profile_reader;
pub mod protocol;
pub mod reach;
pub mod spawner;
pub mod spec;
pub mod token;
