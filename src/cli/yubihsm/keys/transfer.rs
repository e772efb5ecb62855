//! `highwater yubihsm keys export` and `import`: write and read backups, and import keys from files.

use super::{
    super::{
        ObjectId,
        target::{DeviceTarget, DeviceTargetArgs},
    },
    new_key::{KeyReport, NewArgs, back_up, refuse_existing},
};
use crate::{
    cli::{
        CliError, Exit, output,
        softsign::{self, Format},
    },
    config::KeyRole,
    provision::yubihsm::{
        admin_session::{AdminError, Made},
        backup::{self, BackupError},
        words::WRAP_KEY,
    },
};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The name of CometBFT's key file. Without `-t`, a file with this name is read as one.
const COMETBFT_KEY_FILE: &str = "priv_validator_key.json";

#[derive(Args, Debug)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    target: DeviceTargetArgs,
    /// Object id of the key
    #[arg(short, long, value_name = "ID")]
    id: ObjectId,
    /// Wrap key that encrypts the backup
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
    /// Object id of the new key; must not be in use. A backup contains its own
    #[arg(short, long, value_name = "ID")]
    id: Option<ObjectId>,
    /// Wrap key that the backup was encrypted with
    #[arg(short, long, value_name = "ID", default_value_t = ObjectId(WRAP_KEY))]
    wrapkey: ObjectId,
    /// Type of the file [default: json for priv_validator_key.json, else wrap]
    #[arg(short = 't', long = "type", value_enum)]
    kind: Option<KeyFileKind>,
    /// The file to import
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeyFileKind {
    /// One line of base64 with the seed of an Ed25519 key, as tmkms stores it
    Base64,
    /// CometBFT's priv_validator_key.json
    Json,
    /// A backup from a YubiHSM
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
        output::print(&format!("wrote {path}: key {}, encrypted with wrap key {}", self.id, self.wrapkey))
    }
}

impl Import {
    pub(super) fn run(self) -> Result<(), CliError> {
        let target = self.target.resolve()?;
        let chain = self.new.chain(&target)?;
        let (made, role) = match self.kind.unwrap_or_else(|| kind_of(&self.path)) {
            KeyFileKind::Base64 => (self.import_seed(&target, Format::Base64)?, KeyRole::Consensus),
            KeyFileKind::Json => (self.import_seed(&target, Format::Json)?, KeyRole::Consensus),
            KeyFileKind::Wrap => {
                let made = self.import_backup(&target)?;
                let role = KeyRole::of(made.public_key.key_type());
                (made, role)
            }
        };
        let report = KeyReport { done: "imported", target: &target, chain, key_format: None, role, made: &made };
        report.print(self.target.json())?;
        let path = self.path.display();
        output::note(&match self.kind.unwrap_or_else(|| kind_of(&self.path)) {
            KeyFileKind::Base64 | KeyFileKind::Json => format!(
                "destroy {path} and every copy of it now: anyone who has it has the key. A key must never run in two \
                 places: stop whatever signed with it until now for good before this signer starts"
            ),
            KeyFileKind::Wrap => format!(
                "check that this is the address of the key that was backed up. {path} still holds it, encrypted with wrap \
                 key {}. A key must never run in two signers: if two devices hold it, put both into one configuration",
                self.wrapkey
            ),
        });
        Ok(())
    }

    fn import_seed(&self, target: &DeviceTarget, format: Format) -> Result<Made, CliError> {
        let Some(id) = self.id else { return Err(CliError::usage("name the new key's id with -i ID")) };
        let secret = softsign::load(&self.path, KeyRole::Consensus.key_type(), Some(format))?;
        // Refused before the device is used.
        if secret.for_devices().is_none() {
            let text = format!("{}: {} cannot take it: {}", self.path.display(), target.provider, AdminError::Expanded);
            return Err(CliError::new(Exit::Data, text));
        }
        let new = self.new.new_key(id, KeyRole::Consensus, None)?;
        let session = target.open()?;
        session.import(&new, &secret).map_err(|error| target.error(&error))
    }

    fn import_backup(&self, target: &DeviceTarget) -> Result<Made, CliError> {
        if self.new.label.is_some() || self.new.non_exportable {
            return Err(CliError::usage(
                "a backup contains its label and its capabilities: leave out --label and --non-exportable",
            ));
        }
        let wrapped = backup::read(&self.path).map_err(|error| match error {
            BackupError::File(error) => error.into(),
            BackupError::Malformed { .. } => CliError::new(Exit::Data, error.to_string()),
        })?;
        let session = target.open()?;
        let id = self.id.map(|id| id.0);
        let made = session.import_wrapped(&wrapped, self.wrapkey.0, id, |id| target.key_in_state_file(id));
        made.map_err(|error| target.error(&error))
    }
}

fn kind_of(path: &Path) -> KeyFileKind {
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
            assert_eq!(kind_of(Path::new(path)), kind, "{path}");
        }
    }
}
