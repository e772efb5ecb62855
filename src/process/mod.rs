//! What the processes of a signer may do, and how each of them is started.
//!
//! The confined signer starts no program, opens no new file by name and resolves no host. Whatever it still needs of these has a
//! small process of its own, started before the signer confines itself.
//!
//! | file | what |
//! | --- | --- |
//! | `sandbox` | what a process of ours can still do to its machine |
//! | `helper` | starts a process of ours, and talks to it |
//! | `resolver` | looks up host names |
//! | `hook`, `hooks` | runs a state hook: the program that says at start how far a chain has come |
//! | `backoff` | waits between one try and the next |
//! | `frames` | how two processes of ours talk |
//! | `lock` | locks a mutex |
//! | `environment` | removes secrets from the environment |
//! | `panic` | what a panic ends |
//! | `signals` | signals that end no process of ours |

pub mod backoff;
pub mod environment;
pub mod frames;
pub mod helper;
pub mod hook;
pub mod hooks;
pub mod lock;
pub mod panic;
pub mod resolver;
pub mod sandbox;
pub mod signals;
