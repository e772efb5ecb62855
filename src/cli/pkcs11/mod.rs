//! `highwater pkcs11`: manages tokens and the keys on them.
//!
//! These commands call the module in their own short-lived process, and never while a signer that uses the token is
//! running: two programs on one token can take sessions from each other.

mod delete;
mod list;
mod new_key;
mod section;
mod target;
mod test;

use super::CliError;
use crate::config::pkcs11::spec::{OBJECT_NAME_MAX_BYTES, ObjectSelector};
use clap::{Args, Subcommand};
use highwater_core::hex::hex_of;
use std::str::FromStr;
use subtle_encoding::hex;

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
#[group(required = true, multiple = false)]
struct KeyArgs {
    /// The key's CKA_ID in hex
    #[arg(long, value_name = "HEX")]
    id: Option<KeyId>,
    /// The key's label
    #[arg(long, value_name = "TEXT")]
    label: Option<KeyLabel>,
}

impl KeyArgs {
    fn selector(self) -> ObjectSelector {
        match (self.id, self.label) {
            (Some(id), _) => ObjectSelector::Id(id.0),
            (None, label) => ObjectSelector::Label(label.expect("clap requires one of the two").0),
        }
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

impl FromStr for KeyLabel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=OBJECT_NAME_MAX_BYTES).contains(&text.len()) && !text.contains(char::is_control);
        fits.then(|| Self(text.to_owned())).ok_or("expected 1 to 255 bytes of text without control characters")
    }
}

/// Whether `selector` names the key with this id and this label.
fn is_named(selector: &ObjectSelector, id: &[u8], label: &str) -> bool {
    match selector {
        ObjectSelector::Id(wanted) => wanted == id,
        ObjectSelector::Label(wanted) => wanted == label,
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
