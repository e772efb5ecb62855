//! `highwater yubihsm keys export` and `import`: backups, and keys from files.

use super::{
    super::{
        ObjectId,
        target::{DeviceTarget, DeviceTargetArgs, usage},
    },
    new_key::{KeyReport, NewArgs, back_up, refuse_existing},
};
use crate::{
    cli::{
        CliError, Exit, output,
        softsign::{self, Format},
    },
    config::KeyRole,
    keyring::softsign::SecretKey,
    provision::yubihsm::{
        admin_session::{AdminError, Made},
        backup::{self, BackupError},
        words::WRAP_KEY,
    },
};
use clap::{Args, ValueEnum};
use highwater_core::consensus::KeyType;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What CometBFT calls its key file. Without `-t` such a file is read as one.
const COMETBFT_KEY_FILE: &str = "priv_validator_key.json";

#[derive(Args, Debug)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    target: DeviceTargetArgs,
    /// The key
    #[arg(short, long, value_name = "ID")]
    id: ObjectId,
    /// The wrap key that encrypts the backup
    #[arg(short, long, value_name = "ID", default_value_t = ObjectId(WRAP_KEY))]
    wrapkey: ObjectId,
    /// The new file
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Import {
    #[command(flatten)]
    target: DeviceTargetArgs,
    #[command(flatten)]
    new: NewArgs,
    /// The new key's object id, not yet taken; a backup has its own in it
    #[arg(short, long, value_name = "ID")]
    id: Option<ObjectId>,
    /// The wrap key that the backup was encrypted by
    #[arg(short, long, value_name = "ID", default_value_t = ObjectId(WRAP_KEY))]
    wrapkey: ObjectId,
    /// What the file holds [default: json for priv_validator_key.json, else wrap]
    #[arg(short = 't', long = "type", value_enum)]
    kind: Option<KeyFileKind>,
    /// The file
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeyFileKind {
    /// One line of base64 with the seed of an Ed25519 key, as tmkms keeps it
    Base64,
    /// CometBFT's priv_validator_key.json
    Json,
    /// A backup of a YubiHSM
    Wrap,
}

impl Export {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        refuse_existing(&self.path)?;
        let session = target.open()?;
        back_up(&session, &target, self.id, self.wrapkey, &self.path)?;
        let path = self.path.display();
        if self.target.json() {
            let value = json!({
                "schema": 1, "done": "exported", "id": self.id.0, "wrap_key": self.wrapkey.0, "path": path.to_string(),
            });
            return output::print(&value.to_string());
        }
        output::print(&format!("wrote {path}: key {}, encrypted by wrap key {}", self.id, self.wrapkey))
    }
}

impl Import {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let chain = self.new.chain(&target)?;
        let (made, role) = match self.kind.unwrap_or_else(|| told_by(&self.path)) {
            KeyFileKind::Base64 => (self.import_seed(&target, Format::Base64)?, KeyRole::Consensus),
            KeyFileKind::Json => (self.import_seed(&target, Format::Json)?, KeyRole::Consensus),
            KeyFileKind::Wrap => {
                let made = self.import_backup(&target)?;
                let role = match made.public_key.key_type() {
                    KeyType::Ed25519 => KeyRole::Consensus,
                    KeyType::Secp256k1 => KeyRole::Account,
                };
                (made, role)
            }
        };
        let report = KeyReport { done: "imported", target: &target, chain, key_format: None, role, made: &made };
        report.print(self.target.json())?;
        let path = self.path.display();
        output::note(&match self.kind.unwrap_or_else(|| told_by(&self.path)) {
            KeyFileKind::Base64 | KeyFileKind::Json => format!(
                "{path} still holds the key, and must disappear now, and so must every copy of it: whoever has it has the \
                 key. A key must never run in two places: whatever signed with it until now has to stop for good before \
                 this signer starts"
            ),
            KeyFileKind::Wrap => format!(
                "see that this is the address of the key that was backed up. {path} still holds it, encrypted by wrap key \
                 {}. A key must never run in two signers: two devices with it belong into one configuration",
                self.wrapkey
            ),
        });
        Ok(())
    }

    fn import_seed(&self, target: &DeviceTarget, format: Format) -> Result<Made, CliError> {
        let Some(id) = self.id else { return Err(usage("name the new key's id with -i ID")) };
        let secret = softsign::load(&self.path, KeyRole::Consensus, Some(format))?;
        // Found before the device is asked for anything.
        if let SecretKey::Ed25519Expanded(_) = secret {
            let text = format!("{}: {} cannot take it: {}", self.path.display(), target.provider, AdminError::Expanded);
            return Err(CliError::new(Exit::Data, text));
        }
        let new = self.new.new_key(id, KeyRole::Consensus, None)?;
        let session = target.open()?;
        session.import(&new, &secret).map_err(|error| target.error(&error))
    }

    fn import_backup(&self, target: &DeviceTarget) -> Result<Made, CliError> {
        if self.new.label.is_some() || self.new.non_exportable {
            return Err(usage(
                "a backup has its label and its capabilities in it: leave out --label and --non-exportable",
            ));
        }
        let wrapped = backup::read(&self.path).map_err(|error| match error {
            BackupError::File(error) => error.into(),
            BackupError::Malformed { .. } => CliError::new(Exit::Data, error.to_string()),
        })?;
        let session = target.open()?;
        let id = self.id.map(|id| id.0);
        let made = session.import_wrapped(wrapped, self.wrapkey.0, id, |id| target.key_in_state_file(id));
        made.map_err(|error| target.error(&error))
    }
}

fn told_by(path: &Path) -> KeyFileKind {
    if path.file_name().is_some_and(|name| name == COMETBFT_KEY_FILE) { KeyFileKind::Json } else { KeyFileKind::Wrap }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_a_file_holds() {
        for (path, kind) in [
            ("priv_validator_key.json", KeyFileKind::Json),
            ("/a/priv_validator_key.json", KeyFileKind::Json),
            ("a.json", KeyFileKind::Wrap),
            ("priv_validator_key.json.enc", KeyFileKind::Wrap),
        ] {
            assert_eq!(told_by(Path::new(path)), kind, "{path}");
        }
    }
}
