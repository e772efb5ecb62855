//! `highwater yubihsm keys`: the keys on a device.

mod list;
mod new_key;
mod transfer;

pub(super) use new_key::refuse_existing;

use crate::{
    cli::CliError,
    provision::yubihsm::admin_session::{Birth, DeviceKeyInfo},
};
use clap::Subcommand;
pub(super) use highwater_core::hex::hex_of;
use serde_json::{Value, json};

/// The keys on a device.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Keys {
    /// Write an encrypted backup of a key to a new file
    Export(transfer::Export),
    /// Have the device make a key, prove it, and print what the configuration needs
    Generate(new_key::Generate),
    /// Put a key from a file or a backup into the device, prove it, and print what the configuration needs
    Import(transfer::Import),
    /// List the keys
    List(list::List),
}

impl Keys {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::Export(command) => command.run(),
            Self::Generate(command) => command.run(),
            Self::Import(command) => command.run(),
            Self::List(command) => command.run(),
        }
    }
}

/// Where a key was born, in words.
pub(super) fn birth(birth: Birth) -> &'static str {
    match birth {
        Birth::Generated => "in the device",
        Birth::Imported => "outside: imported, so there may be copies",
        Birth::WrappedGenerated => "in a device, and it came here from a backup",
        Birth::WrappedImported => "outside, and it came here from a backup, so there may be copies",
    }
}

/// Whether a key leaves its device, in words.
fn leaves(exportable: bool) -> &'static str {
    if exportable { "wrapped by a wrap key of the device, as a backup" } else { "never" }
}

/// A key for a program.
pub(super) fn key_json(key: &DeviceKeyInfo) -> Value {
    json!({
        "id": key.id,
        "label": key.label,
        "algorithm": key.key_type.map_or(key.algorithm.as_str(), |kind| kind.name()),
        "public_key": key.public_key.map(|key| hex_of(&key.to_bytes())),
        "address": key.public_key.map(|key| key.address_hex()),
        "born_in_device": matches!(key.birth, Birth::Generated | Birth::WrappedGenerated),
        "from_backup": matches!(key.birth, Birth::WrappedGenerated | Birth::WrappedImported),
        "exportable": key.exportable,
        "domains": key.domains,
    })
}
