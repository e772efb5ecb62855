//! `highwater yubihsm`: manages devices and the keys on them, with the commands and flags of tmkms.
//!
//! Every call to a device has a deadline. No command uses a device while its signer runs: it could take a session that the
//! signer needs, and on USB two programs cannot share a device at all.

mod detect;
mod keys;
mod secrets;
mod setup;
mod target;
mod test;

use super::CliError;
use clap::Subcommand;
use std::{fmt, str::FromStr};

/// YubiHSM 2 devices and the keys on them.
#[derive(Debug, Subcommand)]
pub(super) enum YubiHsm {
    /// Find the configured devices; needs no password
    Detect(detect::Detect),
    /// List, make, import and back up the keys on a device
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Wipe a device and set it up from 24 words
    Setup(setup::Setup),
    /// Sign a self-test repeatedly with a key, and show how long that takes
    Test(test::Test),
}

impl YubiHsm {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::Detect(command) => command.run(),
            Self::Keys(command) => command.run(),
            Self::Setup(command) => command.run(),
            Self::Test(command) => command.run(),
        }
    }
}

/// An object id, as an operator writes it: a number, or hex after `0x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ObjectId(u16);

impl FromStr for ObjectId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16),
            None => text.parse(),
        };
        match number {
            // A device takes 0 for "any that is free", and keeps the last one for itself.
            Ok(number) if (1..u16::MAX).contains(&number) => Ok(Self(number)),
            _ => Err("expected a number from 1 to 65534, or in hex from 0x1 to 0xfffe"),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_ids_are_numbers_in_two_forms() {
        for (text, id) in [("1", 1), ("0x1", 1), ("0x00fF", 255), ("65534", 65534), ("010", 10)] {
            assert_eq!(ObjectId::from_str(text), Ok(ObjectId(id)));
        }
        for bad in ["", "0", "0x", "0x0", "65535", "0xffff", "65536", "-1", "1x", "0x12345", "ff"] {
            assert!(ObjectId::from_str(bad).is_err(), "{bad}");
        }
    }
}
