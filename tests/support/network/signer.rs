//! Highwater as an operator runs it: a `tmkms.toml`, a state file, a process.

use super::{
    super::binary,
    lab::{Lab, Process},
};
use highwater_core::consensus::ChainId;
use serde_json::Value;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};
use subtle_encoding::base64;

/// Any key will do to encrypt a link with.
const IDENTITY_SEED: [u8; 32] = [7; 32];

/// A signer for one chain that may not have been started yet.
pub struct Signer<'a> {
    lab: &'a Lab,
    config: PathBuf,
}

impl<'a> Signer<'a> {
    /// Writes the configuration for the nodes at `addresses` and creates the state file.
    pub fn init(lab: &'a Lab, chain: &ChainId, key_file: &Path, addresses: &[String]) -> Self {
        fs::set_permissions(key_file, Permissions::from_mode(0o600)).unwrap();
        let provider = format!(
            "[[providers.softsign]]\nchain_ids = [\"{chain}\"]\nkey_type = \"consensus\"\nkey_format = \"json\"\n\
             path = {key_file:?}\n"
        );
        Self::init_with(lab, chain, &provider, addresses)
    }

    /// The same with the key where `provider` says, in TOML.
    pub fn init_with(lab: &'a Lab, chain: &ChainId, provider: &str, addresses: &[String]) -> Self {
        let identity = lab.path("identity.key");
        fs::write(&identity, base64::encode(IDENTITY_SEED)).unwrap();
        fs::set_permissions(&identity, Permissions::from_mode(0o600)).unwrap();
        let config = lab.path("tmkms.toml");
        let validator = |address: &String| {
            let link = format!("\n[[validator]]\naddr = \"{address}\"\nchain_id = \"{chain}\"\n");
            let is_tcp = address.starts_with("tcp://");
            if is_tcp { link + &format!("secret_key = {identity:?}\n") } else { link }
        };
        let text = format!(
            "[[chain]]\nid = \"{chain}\"\nkey_format = {{ type = \"hex\" }}\nstate_file = {state:?}\n\
             {validators}\n{provider}",
            state = lab.path("watermark"),
            validators = addresses.iter().map(validator).collect::<String>(),
        );
        fs::write(&config, text).unwrap();
        let signer = Self { lab, config };
        lab.run("state-init", signer.command(&["state", "init"]).arg("--never-signed"));
        signer
    }

    /// Starts it. The output of all starts is one.
    pub fn start(&self) -> Process {
        self.lab.spawn("highwater", self.command(&["start"]).args(["--log-format", "json"]))
    }

    /// The height of its watermark.
    pub fn height(&self) -> u64 {
        let shown = self.lab.run("state-show", self.command(&["state", "show"]).arg("--json"));
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["height"].as_u64().unwrap()
    }

    fn command(&self, subcommand: &[&str]) -> Command {
        let mut command = Command::new(binary::highwater());
        command.args(subcommand).arg("-c").arg(&self.config);
        command
    }
}

/// The signer's log. An answered request has a `message`, its `node`, and a `reason` if it was refused.
pub fn log(process: &Process) -> Vec<Value> {
    // A killed signer may leave half a line.
    process.output().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
