//! What the signer's processes may do, and how each of them is started.
//!
//! The confined signer starts no program, opens no new file by name and resolves no host name. Small processes do that
//! for it. They are started before the signer confines itself.
//!
//! | file | what |
//! | --- | --- |
//! | `sandbox` | limits what a process can do to its machine |
//! | `helper` | starts one of our own processes, and talks to it |
//! | `resolver` | looks up host names |
//! | `hook`, `hooks` | runs a state hook: the program that reports, at start, how far a chain has come |
//! | `environment`, `descriptors` | keep secrets of the environment and of descriptors from what is started |
//! | `backoff` | waits between one try and the next |
//! | `foreign` | text from other programs, made harmless |
//! | `frames` | how two processes of ours talk |
//! | `last_words` | what a process wrote before it failed, and how it ended |
//! | `lock` | locks a mutex |
//! | `refused` | what to do about a connection that this machine forbids |
//! | `panic` | what happens after a panic |
//! | `signals` | ignores signals that would end a process |

pub mod backoff;
pub mod descriptors;
pub mod environment;
pub mod foreign;
pub mod frames;
pub mod helper;
pub mod hook;
pub mod hooks;
pub mod last_words;
pub mod lock;
pub mod panic;
pub mod refused;
pub mod resolver;
pub mod sandbox;
pub mod signals;
