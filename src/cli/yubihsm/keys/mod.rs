//! `highwater yubihsm keys`: manages the keys on a device.

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
    /// Make a key in the device, prove that it signs, and print the configuration for it
    Generate(new_key::Generate),
    /// Put a key from a file or a backup into the device, prove that it signs, and print the configuration for it
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
        Birth::WrappedGenerated => "in a device, and came here from a backup",
        Birth::WrappedImported => "outside, and came here from a backup, so there may be copies",
    }
}

/// Whether a key can leave its device, in words.
fn leaves(exportable: bool) -> &'static str {
    if exportable { "only as a backup, wrapped by a wrap key of the device" } else { "never" }
}

/// A key as JSON, for programs.
pub(super) fn key_json(key: &DeviceKeyInfo) -> Value {
    json!({
        "id": key.id,
        "label": key.label,
        "algorithm": key.key_type.map_or(key.algorithm.as_str(), |kind| kind.name()),
        "public_key": key.public_key.as_ref().map(|key| hex_of(key.as_bytes())),
        "address": key.public_key.as_ref().map(|key| key.address_hex()),
        "born_in_device": matches!(key.birth, Birth::Generated | Birth::WrappedGenerated),
        "from_backup": matches!(key.birth, Birth::WrappedGenerated | Birth::WrappedImported),
        "exportable": key.exportable,
        "domains": key.domains,
    })
}
