//! `highwater softsign`: makes and imports keys kept in files.

use super::{CliError, output};
use crate::{
    config::{KeyEncoding, KeyRole},
    keyring::{
        KeyError,
        softsign::{self, SecretKey},
    },
};
use clap::{Args, Subcommand, ValueEnum};
use highwater_core::consensus::KeyType;
use std::path::{Path, PathBuf};

/// Keys in files.
#[derive(Debug, Subcommand)]
pub(super) enum Softsign {
    /// Make a new key
    Keygen(Keygen),
    /// Convert an existing key file to the form that `path` of a [[providers.softsign]] takes
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
    /// Format of the existing file [default: detected from its content]
    #[arg(short, long, value_enum)]
    format: Option<Format>,
    /// Ed25519 for consensus, secp256k1 for account [default: the type in a JSON file, else consensus]
    #[arg(short = 't', long = "type", value_enum)]
    kind: Option<KeyKind>,
    /// The existing key file
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The new key file
    #[arg(value_name = "OUT")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum KeyKind {
    /// secp256k1
    Account,
    /// Ed25519
    Consensus,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// One line of base64: a seed, an expanded key, a YubiHSM export, or Go's seed and public key
    Base64,
    /// CometBFT's priv_validator_key.json
    Json,
    /// The bytes of a seed, of an expanded key, or of Go's seed and public key, not encoded
    Raw,
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
        let key = softsign::generate(KeyRole::from(self.kind).key_type())?;
        key.store(&self.path)?;
        output::print(&format!("made {}\n{}", self.path.display(), describe(&key)))
    }
}

impl SoftsignImport {
    fn run(self) -> Result<(), CliError> {
        let key_type = match self.kind {
            Some(kind) => KeyRole::from(kind).key_type(),
            None => softsign::key_type_in(&self.input)?.unwrap_or(KeyRole::Consensus.key_type()),
        };
        let key = load(&self.input, key_type, self.format)?;
        let done = match key.store(&self.output) {
            // As from an import that was interrupted, or run again by a script.
            Err(KeyError::Exists { .. }) if holds(&self.output, &key) => "kept",
            stored => stored.map(|()| "made")?,
        };
        output::print(&format!("{done} {}\n{}", self.output.display(), describe(&key)))?;
        if self.kind.is_none() && key_type != KeyRole::Consensus.key_type() {
            output::note(&format!("set `key_type = \"{}\"` in its [[providers.softsign]]", KeyRole::of(key_type)));
        }
        output::note(&format!(
            "remove {} and every copy of it: a key that runs in two places signs twice",
            self.input.display()
        ));
        Ok(())
    }
}

/// Whether the file at `path` holds this key, as `path` of a provider takes it.
fn holds(path: &Path, key: &SecretKey) -> bool {
    let there = SecretKey::load(path, key.public_key().key_type(), KeyEncoding::Base64);
    there.is_ok_and(|there| there.public_key() == key.public_key())
}

/// Reads a key file. Detects the encoding from the content if no `format` is given.
pub(super) fn load(path: &Path, key_type: KeyType, format: Option<Format>) -> Result<SecretKey, CliError> {
    let key = match format {
        Some(Format::Base64) => SecretKey::load(path, key_type, KeyEncoding::Base64),
        Some(Format::Json) => SecretKey::load(path, key_type, KeyEncoding::Json),
        Some(Format::Raw) => SecretKey::load_raw(path, key_type),
        None => SecretKey::load_any(path, key_type),
    };
    key.map_err(CliError::from)
}

fn describe(key: &SecretKey) -> String {
    let public = key.public_key();
    format!("key      {public}\naddress  {}", public.address_hex())
}
