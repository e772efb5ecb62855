//! Keys in PKCS#11 tokens: all calls to a module.
//!
//! | file | what |
//! | --- | --- |
//! | `served` | the program of the child process that signs with one token |
//! | `calls` | reports each call to whoever waits for it |
//! | `algorithms` | what is peculiar to each algorithm |
//! | `module`, `token`, `token_key`, `token_info`, `explain`, `error` | the calls themselves |
//! | `raw` | the calls past the wrapper: initialise, read a token, sign |
//! | `gate` | whether a PIN may be sent, and what became of it |
//! | `candidates`, `key_choice` | which of several tokens or keys with one name has the pinned key |
//! | `reach` | which files and sockets a module gets, and what to say when they are not enough |
//!
//! A device's module is C code from its vendor, so it runs on one thread of a process that can be killed and replaced.

pub(crate) mod algorithms;
pub mod calls;
mod candidates;
pub mod error;
mod explain;
pub mod gate;
mod key_choice;
pub mod module;
mod raw;
pub(crate) mod reach;
pub mod served;
pub mod token;
pub mod token_info;
pub mod token_key;

use super::{Note, Sight};
use crate::config::{Pkcs11Config, pkcs11::profile::ProfileEvidence};
use std::env;

/// Whether the module and what it needs are on this machine. Does not load it.
pub(super) fn look_at(section: &Pkcs11Config) -> Sight {
    let Pkcs11Config { profile, module, token, .. } = section;
    let mut notes = Vec::new();
    // Of any lower level the configuration itself warns, with the line.
    if profile.evidence == ProfileEvidence::Tested {
        let of = match profile.tested_with.as_slice() {
            [] => String::new(),
            with => format!(" with {}", with.join(", ")),
        };
        notes.push(Note::Ok(format!("{token}: the profile {} {}{of}", profile.name, profile.evidence)));
    }
    let there = module.is_file();
    if !there {
        let (path, install) = (module.display(), &profile.module.install);
        notes.push(Note::Fail(format!(
            "{token}: there is no {path}: install {install}, or name the file with `module`"
        )));
    }
    if let Some(variable) = profile.missing_variable(|name| env::var_os(name).is_some()) {
        let (name, meaning) = (&variable.name, &variable.meaning);
        notes.push(Note::Warn(format!(
            "{token}: its module may need the environment variable {name}: set it to {meaning}"
        )));
    }
    Sight { complete: there, notes }
}
