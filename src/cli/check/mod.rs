//! `highwater check`: everything that would keep a signer from signing, found before it starts. Changes nothing.

mod devices;
mod machine;
mod report;
mod running;

use super::{CliError, ConfigArgs};
use crate::{
    config::{ChainConfig, Config, ConfigError, Finding, KeyConfig, KeyRole, NodeAddress},
    daemon,
    keyring::{self, IdentityKey},
    state::{self, StateError, Theirs},
    watermark::{FileError, HostId, Identity},
};
use clap::Args;
use report::Report;
use std::{fs, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

/// Check without changing anything.
#[derive(Args, Debug)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArgs,
    /// Look at configuration, permissions and state only, touch no device and no PIN, and exit 0 on warnings: for
    /// ExecStartPre
    #[arg(long)]
    before_start: bool,
    /// The time from one block to the next, by which the load of a device is judged
    #[arg(long, value_name = "SECONDS", default_value = "6", value_parser = block_time)]
    block_time: Duration,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

fn block_time(text: &str) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or("expected seconds, 0.01 to 3600")
}

impl Check {
    pub(super) fn run(self) -> Result<(), CliError> {
        let path = self.config.path();
        let mut report = Report::default();
        match Config::load(&path) {
            Ok((config, warnings)) => {
                report.ok(format!("{} is a configuration", path.display()));
                warnings.iter().for_each(|warning: &Finding| report.warn(warning.at(&path)));
                check_config(&config, &mut report);
                machine::check_file_systems(&config, &mut report);
                machine::check_clock(&config, &mut report);
                if !self.before_start {
                    machine::measure_flushes(&config, &mut report);
                    self.check_devices(&config, &mut report);
                    // Last of all: from here on this process can do no more than a running signer.
                    machine::check_sandbox(&config, &mut report);
                }
            }
            Err(ConfigError::Invalid { findings, path }) => {
                findings.iter().for_each(|finding| report.fail(finding.at(&path)));
            }
            Err(error) => report.fail(error.to_string()),
        }
        report.finish(self.json, !self.before_start)
    }

    /// A running signer's devices are its own: another session may cost it one of its own, or its turn.
    fn check_devices(&self, config: &Config, report: &mut Report) {
        let all_there = devices::check_surroundings(config, report);
        if daemon::claim(config).is_err() {
            return running::ask(config, self.block_time, report);
        }
        if all_there {
            // Before there is any thread.
            match keyring::start_spawner(config) {
                Ok(spawner) => devices::measure(config, spawner.as_ref(), self.block_time, report),
                Err(error) => report.fail(format!("cannot start the process that opens PKCS#11 tokens: {error}")),
            }
        }
    }
}

fn check_config(config: &Config, report: &mut Report) {
    let host = HostId::of_this_machine().map_err(|error| report.fail(error.to_string())).ok();
    for chain in &config.chains {
        let served = config.validators.iter().any(|validator| validator.chain_id == chain.id);
        match config.consensus_key(&chain.id) {
            _ if !served => report.warn(format!("chain {}: no [[validator]] serves it", chain.id)),
            Some(key) => check_chain(chain, key, host, report),
            None => report.fail(format!("chain {}: no consensus key", chain.id)),
        }
    }
    let mut seen: Vec<&Path> = Vec::new();
    for validator in &config.validators {
        if let NodeAddress::Tcp { identity_key, .. } = &validator.address
            && !seen.contains(&identity_key.as_path())
        {
            seen.push(identity_key);
            match IdentityKey::load(identity_key) {
                Ok(key) => report.ok(format!("identity key {}: peer id {}", identity_key.display(), key.peer_id())),
                Err(error) => report.fail(format!("identity key: {error}")),
            }
        }
    }
}

fn check_chain(chain: &ChainConfig, key: KeyConfig<'_>, host: Option<HostId>, report: &mut Report) {
    let id = &chain.id;
    let public_key = match keyring::known_public_key(chain, key) {
        Ok(Some(key)) => key,
        Ok(None) => return check_state_of_unknown_key(chain, report),
        Err(error) => return report.fail(format!("chain {id}: {error}")),
    };
    let shown = keyring::format::show(&chain.key_format, &public_key, key.role());
    report.ok(format!("chain {id}: key {shown}, validator address {}", public_key.address_hex()));
    if key.role() == KeyRole::Account {
        report.warn(format!("chain {id}: has no consensus key, so its account key signs blocks"));
    }
    let identity = Identity { chain: id.clone(), key: public_key };
    check_state(chain, &identity, host, report);
}

/// Without a state file of Highwater only the device knows the key, and it is not asked here.
fn check_state_of_unknown_key(chain: &ChainConfig, report: &mut Report) {
    let (id, path) = (&chain.id, chain.watermark());
    match state::show(&path) {
        Err(error) => report.fail(format!("chain {id}: {}", explained(chain, error))),
        Ok(record) => report.fail(format!(
            "chain {id}: state file {} is of chain {} and key {}: name the right `state_file`",
            path.display(),
            record.header.identity().chain,
            record.header.identity().key
        )),
    }
}

fn check_state(chain: &ChainConfig, identity: &Identity, host: Option<HostId>, report: &mut Report) {
    let (id, path) = (&chain.id, chain.watermark());
    if let Ok(metadata) = fs::metadata(&path)
        && metadata.mode() & 0o022 != 0
    {
        let error = FileError::Writable { path: path.clone(), mode: metadata.mode() & 0o777 };
        report.fail(format!("chain {id}: {error}"));
    }
    match state::look(&path) {
        Ok((record, file)) => {
            match host.map(|host| record.check(identity, host, &file)) {
                None => {}
                Some(Ok(())) => {
                    report.ok(format!("chain {id}: state file {} is at {}", path.display(), record.mark.hrs));
                }
                Some(Err(error)) => report.fail(format!("chain {id}: state file {} {error}", path.display())),
            }
            let theirs = Theirs::new(&chain.state_file);
            for text in theirs.still_written(identity, &path, &record.mark) {
                report.warn(format!("chain {id}: {text}"));
            }
        }
        Err(error) => report.fail(format!("chain {id}: {}", explained(chain, error))),
    }
}

/// What `start` says of it.
fn explained(chain: &ChainConfig, error: StateError) -> StateError {
    match error {
        StateError::File(error) => Theirs::new(&chain.state_file).explain_missing(error),
        other => other,
    }
}
