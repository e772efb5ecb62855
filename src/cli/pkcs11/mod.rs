//! `highwater pkcs11`: manages tokens and the keys on them.
//!
//! These commands call the module in a short-lived process of its own, and never while a signer that uses the token is
//! running: two programs on one token can take sessions from each other.
//!
//! | file | what |
//! | --- | --- |
//! | `target` | finds the token and the login |
//! | `errand` | the messages between a command and the module's process |
//! | `call` | the command's side: starts the process, waits, explains how it failed |
//! | `worker` | the program of that process |
//! | `section` | the configuration that a new key needs |
//! | the others | one command each |

mod call;
mod delete;
mod errand;
mod list;
mod new_key;
mod section;
mod target;
mod test;
mod worker;

pub(super) use call::refused_by_sandbox;
pub(super) use errand::WORKER_COMMAND;
pub(super) use worker::run as run_worker;

use super::CliError;
use crate::config::pkcs11::{
    spec::{OBJECT_NAME_MAX_BYTES, ObjectSelector},
    uri::{Pkcs11Uri, is_uri},
};
use clap::{Args, Subcommand};
use highwater_core::hex::hex_of;
use std::{fmt, str::FromStr};
use subtle_encoding::hex;
use zeroize::Zeroizing;

/// Tokens and the keys on them.
#[derive(Debug, Subcommand)]
pub(super) enum Pkcs11 {
    /// Delete one key
    Delete(delete::Delete),
    /// Make a key that never leaves the device, prove that it signs, and print the configuration for it
    Generate(new_key::Generate),
    /// Put the key from a file onto the token, prove that it signs, and print the configuration for it
    Import(new_key::Import),
    /// List the keys on a token
    #[command(subcommand)]
    Keys(Keys),
    /// Sign a self-test repeatedly with a key, and show how long that takes
    Test(test::Test),
    /// List the tokens of a module; needs no PIN
    Tokens(list::Tokens),
}

/// The keys on a token.
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// List the keys
    List(list::ListKeys),
}

impl Pkcs11 {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::Delete(command) => command.run(),
            Self::Generate(command) => command.run(),
            Self::Import(command) => command.run(),
            Self::Keys(Keys::List(command)) => command.run(),
            Self::Test(command) => command.run(),
            Self::Tokens(command) => command.run(),
        }
    }
}

/// Selects the key on the token.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct KeyArgs {
    /// The key's CKA_ID in hex, or its pkcs11: URI
    #[arg(long, value_name = "HEX|URI")]
    id: Option<KeyIdOrUri>,
    /// The key's label, or its pkcs11: URI; with --id, both must match
    #[arg(long, value_name = "TEXT|URI")]
    label: Option<KeyLabelOrUri>,
}

impl KeyArgs {
    fn selector(self) -> Result<ObjectSelector, CliError> {
        let (mut id, mut label, mut uris) = (None, None, Vec::new());
        match self.id {
            Some(KeyIdOrUri::Plain(plain)) => id = Some(plain.0),
            Some(KeyIdOrUri::Uri(uri)) => uris.push(uri),
            None => {}
        }
        match self.label {
            Some(KeyLabelOrUri::Plain(plain)) => label = Some(plain.0),
            Some(KeyLabelOrUri::Uri(uri)) => uris.push(uri),
            None => {}
        }
        let plain = ObjectSelector::of(id, label);
        match (uris.pop(), &uris[..], plain) {
            (None, _, Some(plain)) => Ok(plain),
            (Some(uri), [], None) => read_uri(&uri)?
                .object
                .ok_or_else(|| CliError::usage("this pkcs11: URI names no key: add object=LABEL or id=%XX to it")),
            _ => Err(CliError::usage("a pkcs11: URI names the key alone: give either --id or --label")),
        }
    }
}

/// Reads a URI of the command line. It is never shown again: it may hold a PIN.
fn read_uri(uri: &UriText) -> Result<Pkcs11Uri, CliError> {
    Pkcs11Uri::parse(&uri.0).map_err(|error| CliError::usage(format!("a pkcs11: URI: {error}")))
}

/// A URI that is not read yet: an error while the command line is read would show it.
#[derive(Clone)]
struct UriText(Zeroizing<String>);

impl fmt::Debug for UriText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pkcs11: URI")
    }
}

impl UriText {
    fn of(text: &str) -> Option<Self> {
        is_uri(text).then(|| Self(Zeroizing::new(text.to_owned())))
    }
}

/// What `--id` takes for a key that is there.
#[derive(Clone, Debug)]
enum KeyIdOrUri {
    Plain(KeyId),
    Uri(UriText),
}

impl FromStr for KeyIdOrUri {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        UriText::of(text).map_or_else(|| text.parse().map(Self::Plain), |uri| Ok(Self::Uri(uri)))
    }
}

/// What `--label` takes for a key that is there.
#[derive(Clone, Debug)]
enum KeyLabelOrUri {
    Plain(KeyLabel),
    Uri(UriText),
}

impl FromStr for KeyLabelOrUri {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        UriText::of(text).map_or_else(|| text.parse().map(Self::Plain), |uri| Ok(Self::Uri(uri)))
    }
}

/// A `CKA_ID`, as the configuration takes it too.
#[derive(Clone, Debug)]
struct KeyId(Vec<u8>);

impl FromStr for KeyId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match hex::decode(text.to_ascii_lowercase()) {
            Ok(id) if (1..=OBJECT_NAME_MAX_BYTES).contains(&id.len()) => Ok(Self(id)),
            _ => Err("expected hex, two digits for each byte, as in 01af"),
        }
    }
}

/// A `CKA_LABEL`, as the configuration takes it too.
#[derive(Clone, Debug)]
struct KeyLabel(String);

/// The error for a URI in place of the name of a new key.
fn not_for_new_keys() -> CliError {
    CliError::usage("a new key has a plain label and an id in hex, not a pkcs11: URI: write --id 01 --label my-key")
}

impl FromStr for KeyLabel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=OBJECT_NAME_MAX_BYTES).contains(&text.len()) && !text.contains(char::is_control);
        fits.then(|| Self(text.to_owned())).ok_or("expected 1 to 255 bytes of text without control characters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_labels_are_those_that_the_configuration_takes() {
        assert_eq!(KeyId::from_str("01aF").unwrap().0, [1, 0xaf]);
        assert_eq!(KeyLabel::from_str("a key").unwrap().0, "a key");
        for bad in ["", "1", "0x01", "zz", &"00".repeat(256)] {
            assert!(KeyId::from_str(bad).is_err(), "{bad}");
        }
        for bad in ["", "a\nb", &"a".repeat(256)] {
            assert!(KeyLabel::from_str(bad).is_err(), "{bad}");
        }
    }
}
