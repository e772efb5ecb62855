//! `highwater softsign`: keys that are kept in files.

use super::{CliError, output};
use crate::{
    config::{KeyEncoding, KeyRole},
    keyring::softsign::{self, SecretKey},
};
use clap::{Args, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// Keys in files.
#[derive(Debug, Subcommand)]
pub(super) enum Softsign {
    /// Make a new key
    Keygen(Keygen),
    /// Write an existing key in the form that `path` of a [[providers.softsign]] takes
    Import(SoftsignImport),
}

#[derive(Args, Debug)]
pub(super) struct Keygen {
    /// Ed25519 for consensus, secp256k1 for account
    #[arg(short = 't', long = "type", value_enum, default_value_t = KeyKind::Consensus)]
    kind: KeyKind,
    /// The new key file
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct SoftsignImport {
    /// How the existing file is written [default: told from its content]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Ed25519 for consensus, secp256k1 for account
    #[arg(short = 't', long = "type", value_enum, default_value_t = KeyKind::Consensus)]
    kind: KeyKind,
    /// The existing key file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The new key file
    #[arg(value_name = "OUT")]
    output: PathBuf,
}

/// Which kind of key.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum KeyKind {
    /// secp256k1
    Account,
    /// Ed25519
    Consensus,
}

/// How a key file is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// One line of base64: a seed, an expanded key, a YubiHSM export, or Go's seed and public key
    Base64,
    /// CometBFT's priv_validator_key.json
    Json,
}

impl From<KeyKind> for KeyRole {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Account => Self::Account,
            KeyKind::Consensus => Self::Consensus,
        }
    }
}

impl Softsign {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::Keygen(command) => command.run(),
            Self::Import(command) => command.run(),
        }
    }
}

impl Keygen {
    fn run(self) -> Result<(), CliError> {
        let key = softsign::generate(self.kind.into())?;
        key.store(&self.path)?;
        output::print(&format!("made {}\n{}", self.path.display(), describe(&key)))
    }
}

impl SoftsignImport {
    fn run(self) -> Result<(), CliError> {
        let key = load(&self.input, self.kind.into(), self.format)?;
        key.store(&self.output)?;
        output::print(&format!("made {}\n{}", self.output.display(), describe(&key)))?;
        output::note(&format!(
            "remove {} from wherever it still is: a key that runs in two places signs twice",
            self.input.display()
        ));
        Ok(())
    }
}

/// Reads a key file, in the encoding that its content tells if no `format` does.
pub(super) fn load(path: &Path, role: KeyRole, format: Option<Format>) -> Result<SecretKey, CliError> {
    let key = match format {
        Some(Format::Base64) => SecretKey::load(path, role, KeyEncoding::Base64),
        Some(Format::Json) => SecretKey::load(path, role, KeyEncoding::Json),
        None => SecretKey::load_any(path, role),
    };
    key.map_err(CliError::from)
}

fn describe(key: &SecretKey) -> String {
    let public = key.public_key();
    format!("key      {public}\naddress  {}", public.address_hex())
}
