//! `highwater init`: makes a home with a configuration and an identity key. Never overwrites an existing file.

use super::{
    CliError, Exit,
    networks::{NETWORKS, Network, find},
    output, state,
};
use crate::{
    config::{Config, KeyConfig, KeyRole, Provider},
    keyring::{IdentityKey, KeyError, softsign},
};
use clap::Args;
use highwater_core::{disk, watermark::Mark};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Make a new home.
#[derive(Args, Debug)]
pub(super) struct Init {
    /// Networks to configure, separated by commas: core, cosmoshub, irishub, osmosis, sentinelhub
    #[arg(short, long, value_delimiter = ',', default_value = "cosmoshub")]
    networks: Vec<String>,
    #[command(flatten)]
    begin: state::Begin,
    /// The new home directory
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

impl Init {
    pub(super) fn run(self) -> Result<(), CliError> {
        let networks = self.networks.iter().map(|name| known(name)).collect::<Result<Vec<_>, _>>()?;
        make_directory(&self.path, 0o755)?;
        let home = fs::canonicalize(&self.path)
            .map_err(|error| CliError::io(&format!("cannot resolve {}", self.path.display()), &error))?;
        if !home.to_str().is_some_and(is_plain) {
            let text = format!(
                "{} cannot be written in a configuration: choose a path without quotes and backslashes",
                home.display()
            );
            return Err(CliError::new(Exit::Usage, text));
        }
        make_directory(&home.join("secrets"), 0o700)?;
        make_directory(&home.join("state"), 0o700)?;

        let config_path = home.join("tmkms.toml");
        write_new(&config_path, &configuration(&home, &networks))?;
        let identity = home.join("secrets/kms-identity.key");
        match IdentityKey::generate(&identity) {
            Ok(key) => output::note(&format!("made {} (peer id {})", identity.display(), key.peer_id())),
            Err(KeyError::Exists { .. }) => output::note(&format!("kept {}", identity.display())),
            Err(error) => return Err(error.into()),
        }
        match self.begin.mark() {
            Some(mark) => begin_state(&config_path, mark),
            None => {
                output::note(
                    "no state file was made. Before `highwater start`, run `highwater state init --never-signed` for a \
                     new key; run `highwater state init --height H` or `highwater state import FILE` for a key that has \
                     signed",
                );
                Ok(())
            }
        }
    }
}

/// Whether a path can stand between quotes in TOML without escapes.
fn is_plain(path: &str) -> bool {
    !path.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'))
}

fn known(name: &str) -> Result<&'static Network, CliError> {
    find(name).ok_or_else(|| {
        let names: Vec<_> = NETWORKS.iter().map(|network| network.name).collect();
        let text = format!(
            "unknown network {name:?}; the known networks are {}. For any other chain, start from one of these and \
             change the id",
            names.join(", ")
        );
        CliError::new(Exit::Usage, text)
    })
}

/// Makes the state file of each chain. For a key that has never signed, also makes the key.
fn begin_state(config_path: &Path, mark: Mark) -> Result<(), CliError> {
    let (config, _) = Config::load(config_path)?;
    for chain in &config.chains {
        if let Some(KeyConfig { provider: Provider::Softsign(file), key, .. }) = config.consensus_key(&chain.id)
            && key.role == KeyRole::Consensus
            && !file.path.exists()
        {
            if mark != Mark::NEVER_SIGNED {
                let text = format!(
                    "--height is for a key that may have signed. Put that key at {} with `highwater softsign import`, then \
                     run this again",
                    file.path.display()
                );
                return Err(CliError::new(Exit::NoInput, text));
            }
            let secret = softsign::generate(key.key_type())?;
            secret.store(&file.path)?;
            output::note(&format!("made {} ({})", file.path.display(), secret.public_key()));
        }
        state::place_of(&config, chain)?.create(mark)?;
        output::note(&format!("made {} at {}", chain.watermark().display(), mark.hrs));
    }
    Ok(())
}

fn make_directory(path: &Path, mode: u32) -> Result<(), CliError> {
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Ok(()) => {
            if let Ok(directory) = File::open(path) {
                disk::hand_over(&directory, path);
            }
            Ok(())
        }
        Err(error) => Err(CliError::io(&format!("cannot make the directory {}", path.display()), &error)),
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), CliError> {
    let written = match disk::create_private(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            output::note(&format!("kept {}", path.display()));
            return Ok(());
        }
        Err(error) => Err(error),
        Ok(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all()),
    };
    written.map_err(|error| CliError::io(&format!("cannot write {}", path.display()), &error))?;
    output::note(&format!("made {}", path.display()));
    Ok(())
}

/// A configuration that tmkms can read too.
fn configuration(home: &Path, networks: &[&Network]) -> String {
    let home = home.display();
    let mut text = String::from("# Highwater configuration; every setting is explained in tmkms.toml.example\n");
    for network in networks {
        let Network { chain_id, account_key_prefix, consensus_key_prefix, .. } = network;
        text += &format!(
            r#"
[[chain]]
id = "{chain_id}"
key_format = {{ type = "bech32", account_key_prefix = "{account_key_prefix}", consensus_key_prefix = "{consensus_key_prefix}" }}
sign_extensions = true
state_file = "{home}/state/{chain_id}-consensus.json"

[[validator]]
addr = "tcp://127.0.0.1:26659" # the node's priv_validator_laddr
chain_id = "{chain_id}"
secret_key = "{home}/secrets/kms-identity.key"

[[providers.softsign]]
chain_ids = ["{chain_id}"]
key_type = "consensus"
path = "{home}/secrets/{chain_id}-consensus.key"
"#
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_is_a_good_configuration_for_every_set_of_networks() {
        let all: Vec<_> = NETWORKS.iter().collect();
        for networks in [&all[..], &all[1..2]] {
            let text = configuration(Path::new("/home/kms"), networks);
            let (config, warnings) = Config::parse(Path::new("tmkms.toml"), &text).unwrap();
            assert_eq!(config.chains.len(), networks.len());
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }
}
