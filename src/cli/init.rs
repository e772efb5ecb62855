//! `highwater init`: makes a home with a configuration and an identity key. Never overwrites an existing file.

mod guided;

use super::{
    CliError, Exit,
    networks::{NETWORKS, Target},
    output, state,
};
use crate::{
    config::{Config, ConfigError, KeyConfig, KeyRole, Provider},
    keyring::{IdentityKey, KeyError, softsign},
};
use clap::Args;
use highwater_core::{disk, watermark::Mark};
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Make a new home.
#[derive(Args, Debug)]
pub(super) struct Init {
    /// Networks to configure, separated by commas: core, cosmoshub, irishub, osmosis, sentinelhub, or any other by its
    /// chain id
    #[arg(short, long, value_delimiter = ',', default_value = "cosmoshub")]
    networks: Vec<String>,
    /// The node's priv_validator_laddr: unix:///PATH or tcp://HOST:PORT; only for one network [default: a unix socket in
    /// PATH]
    #[arg(long, value_name = "ADDRESS")]
    node: Option<String>,
    /// Ask for everything on the terminal: make the home, the key and the state, connect a node on this machine, and sign
    #[arg(long, conflicts_with_all = ["networks", "node", "height", "never_signed"])]
    guided: bool,
    #[command(flatten)]
    begin: state::Begin,
    /// The new home directory
    #[arg(value_name = "PATH", required_unless_present = "guided")]
    path: Option<PathBuf>,
}

impl Init {
    pub(super) fn run(self) -> Result<(), CliError> {
        let path = match self.path {
            Some(path) if !self.guided => path,
            path => return guided::run(path),
        };
        let mut targets = Vec::new();
        for name in &self.networks {
            targets.push(target(name)?);
        }
        let config_path = make_home(&path, &targets, self.node.as_deref())?;
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

fn target(name: &str) -> Result<Target, CliError> {
    let target = Target::find(name).map_err(|error| {
        CliError::new(Exit::Usage, format!("{name:?} is neither a known network nor a chain id: {error}"))
    })?;
    if target.is_unknown {
        let names: Vec<_> = NETWORKS.iter().map(|network| network.name).collect();
        output::note(&format!(
            "{name} is taken as the id of a chain: it is none of the networks known by name ({}). Its keys are shown in hex; \
             see `key_format` in tmkms.toml.example for its prefixes",
            names.join(", ")
        ));
    }
    Ok(target)
}

/// Makes the directories, the configuration and the identity key. Returns the path of the configuration.
fn make_home(path: &Path, targets: &[Target], node: Option<&str>) -> Result<PathBuf, CliError> {
    // Nothing is made for a configuration that would be wrong.
    let planned =
        std::path::absolute(path).map_err(|error| CliError::io("cannot find the working directory", &error))?;
    configuration(&planned, targets, node)?;
    make_directory(path, 0o755)?;
    let home =
        fs::canonicalize(path).map_err(|error| CliError::io(&format!("cannot resolve {}", path.display()), &error))?;
    let config_path = home.join("tmkms.toml");
    let text = configuration(&home, targets, node)?;
    make_inside(&home.join("secrets"))?;
    make_inside(&home.join("state"))?;
    write_new(&config_path, &text)?;
    let identity = home.join("secrets/kms-identity.key");
    match IdentityKey::generate(&identity) {
        Ok(key) => output::note(&format!("made {} (peer id {})", identity.display(), key.peer_id())),
        Err(KeyError::Exists { .. }) => output::note(&format!("kept {}", identity.display())),
        Err(error) => return Err(error.into()),
    }
    Ok(config_path)
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
    let failed = |error: io::Error| CliError::io(&format!("cannot make the directory {}", path.display()), &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match disk::create_directory(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other.map_err(failed),
    }
}

/// Makes a directory in the home. Whoever owns the home could lead a link to another user's directory.
fn make_inside(path: &Path) -> Result<(), CliError> {
    if path.is_symlink() {
        let text = format!(
            "{} is a symbolic link, and no keys or states are made through one: remove it, or choose another home",
            path.display()
        );
        return Err(CliError::new(Exit::CantCreate, text));
    }
    make_directory(path, 0o700)
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

/// Where the node's socket is by default: in the home, so that no other user of this machine can take its place.
fn default_socket(home: &Path, chain_id: &str) -> String {
    format!("unix://{}/{chain_id}.sock", home.display())
}

/// A configuration that tmkms can read too. Fails if it would not be a good one, for example because of the node's
/// address.
fn configuration(home: &Path, targets: &[Target], node: Option<&str>) -> Result<String, CliError> {
    if node.is_some() && targets.len() > 1 {
        let text =
            "--node is for one network: a node belongs to one chain. Leave it out, and set each `addr` afterwards";
        return Err(CliError::new(Exit::Usage, text));
    }
    let shown = home.display();
    if !home.to_str().is_some_and(is_plain) {
        let text =
            format!("{shown} cannot be written in a configuration: choose a path without quotes and backslashes");
        return Err(CliError::new(Exit::Usage, text));
    }
    let mut text = String::from("# Highwater configuration; every setting is explained in tmkms.toml.example\n");
    for Target { chain_id, key_format, .. } in targets {
        let address = node.map_or_else(|| default_socket(home, chain_id), str::to_owned);
        if !is_plain(&address) {
            let text = format!("{address:?} is not an address: write unix:///PATH or tcp://HOST:PORT");
            return Err(CliError::new(Exit::Usage, text));
        }
        // A unix socket needs no identity.
        let identity = if address.starts_with("unix://") { "# over tcp://HOST:PORT also: " } else { "" };
        text += &format!(
            r#"
[[chain]]
id = "{chain_id}"
key_format = {key_format}
sign_extensions = true
state_file = "{shown}/state/{chain_id}-consensus.json"

[[validator]]
addr = "{address}" # the node's priv_validator_laddr
chain_id = "{chain_id}"
{identity}secret_key = "{shown}/secrets/kms-identity.key"

[[providers.softsign]]
chain_ids = ["{chain_id}"]
key_type = "consensus"
path = "{shown}/secrets/{chain_id}-consensus.key"
"#
        );
    }
    match Config::parse(&home.join("tmkms.toml"), &text) {
        Ok(_) => Ok(text),
        Err(ConfigError::Invalid { findings, .. }) => {
            let texts: Vec<_> = findings.into_iter().map(|finding| finding.text).collect();
            Err(CliError::new(Exit::Usage, format!("this would make a wrong configuration: {}", texts.join("; "))))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_writes_is_a_good_configuration_for_every_set_of_networks() {
        let all: Vec<_> = NETWORKS.iter().map(|network| Target::find(network.name).unwrap()).collect();
        let other = [Target::find("my-chain_9.1").unwrap()];
        let networks: [(&[Target], _); 5] = [
            (&all, None),
            (&all[1..2], None),
            (&other, None),
            (&other, Some("tcp://[::1]:26659")),
            (&other, Some("unix:///run/node/privval.sock")),
        ];
        for (targets, node) in networks {
            let text = configuration(Path::new("/home/kms"), targets, node).unwrap();
            let (config, warnings) = Config::parse(Path::new("tmkms.toml"), &text).unwrap();
            assert_eq!(config.chains.len(), targets.len());
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }

    #[test]
    fn a_network_is_found_by_its_name_and_by_its_chain_id() {
        assert_eq!(Target::find("osmosis"), Target::find("osmosis-1"));
        assert!(Target::find("osmosis").is_ok_and(|target| !target.is_unknown));
        assert!(Target::find("no net").is_err());
    }
}
