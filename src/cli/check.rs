//! `highwater check`: everything that would keep a signer from signing, found before it starts. Changes nothing.

use super::{CliError, ConfigArgs, Exit, output};
use crate::{
    config::{
        ChainConfig, Config, ConfigError, Finding, KeyConfig, KeyRole, NodeAddress, Pkcs11Config, YubiHsmAdapter,
        YubiHsmConfig,
    },
    keyring::{self, IdentityKey, pkcs11::profile::Evidence, yubihsm},
    state::{self, StateError},
    watermark::{FileError, HostId, Identity},
};
use clap::Args;
use std::{env, fs, os::unix::fs::MetadataExt as _, path::Path};

/// Check without changing anything.
#[derive(Args, Debug)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArgs,
}

/// What was looked at, and how it is.
#[derive(Default)]
struct Report {
    lines: Vec<String>,
    warnings: usize,
    failures: usize,
}

impl Report {
    fn ok(&mut self, text: impl Into<String>) {
        self.lines.push(format!("ok    {}", text.into()));
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.warnings += 1;
        self.lines.push(format!("warn  {}", text.into()));
    }

    fn fail(&mut self, text: impl Into<String>) {
        self.failures += 1;
        self.lines.push(format!("fail  {}", text.into()));
    }

    fn finish(self) -> Result<(), CliError> {
        output::print(&self.lines.join("\n"))?;
        let exit = match (self.failures, self.warnings) {
            (0, 0) => return Ok(()),
            (0, _) => Exit::CheckWarning,
            _ => Exit::CheckError,
        };
        Err(CliError::new(exit, ""))
    }
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
            }
            Err(ConfigError::Invalid { findings, path }) => {
                findings.iter().for_each(|finding| report.fail(finding.at(&path)));
            }
            Err(error) => report.fail(error.to_string()),
        }
        report.finish()
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
    config.pkcs11.iter().for_each(|provider| check_pkcs11(provider, report));
    config.yubihsm.iter().for_each(|provider| check_yubihsm(provider, report));
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

/// Whether the module and what it needs are on this machine. Does not load it.
fn check_pkcs11(provider: &Pkcs11Config, report: &mut Report) {
    let Pkcs11Config { profile, module, token, .. } = provider;
    let of = match profile.tested_with.as_slice() {
        [] => String::new(),
        with => format!(" with {}", with.join(", ")),
    };
    // Of any lower level the configuration itself warns, with the line.
    if profile.evidence == Evidence::Tested {
        report.ok(format!("{token}: the profile {} {}{of}", profile.name, profile.evidence));
    }
    if !module.is_file() {
        let (path, install) = (module.display(), &profile.module.install);
        report.fail(format!("{token}: there is no {path}: install {install}, or name the file with `module`"));
    }
    if let Some(variable) = profile.missing_variable(|name| env::var_os(name).is_some()) {
        let (name, meaning) = (&variable.name, &variable.meaning);
        report.warn(format!("{token}: its module may need the environment variable {name}: set it to {meaning}"));
    }
}

/// Whether the password can be read and the connector is there. Opens no session: a running signer may need it.
fn check_yubihsm(provider: &YubiHsmConfig, report: &mut Report) {
    let reached = yubihsm::client::Reached::look_for(&provider.adapter, provider.serial_number.as_deref());
    match (&provider.adapter, reached) {
        (_, Err(trouble)) => report.fail(format!("{provider}: {}", trouble.text())),
        (YubiHsmAdapter::Http { .. }, Ok(_)) => report.ok(format!("{provider}: its connector is there")),
        (YubiHsmAdapter::Usb { .. }, Ok(_)) => {}
    }
    if let Err(why) = yubihsm::access::read_password(&provider.password) {
        report.fail(format!("{provider}: {why}"));
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
    let (id, path) = (&chain.id, &chain.state_file);
    match state::show(path) {
        Err(StateError::ForeignInPlace { .. }) => report.warn(format!(
            "chain {id}: {} is of another program: the first `start` takes it over, and needs the YubiHSM for that",
            path.display()
        )),
        Err(error) => report.fail(format!("chain {id}: {error}")),
        Ok(record) => report.fail(format!(
            "chain {id}: state file {} is of chain {} and key {}: name the right `state_file`",
            path.display(),
            record.identity.chain,
            record.identity.key
        )),
    }
}

fn check_state(chain: &ChainConfig, identity: &Identity, host: Option<HostId>, report: &mut Report) {
    let (id, path) = (&chain.id, &chain.state_file);
    if let Ok(metadata) = fs::metadata(path)
        && metadata.mode() & 0o022 != 0
    {
        let error = FileError::Writable { path: path.clone(), mode: metadata.mode() & 0o777 };
        report.fail(format!("chain {id}: {error}"));
    }
    match state::show(path) {
        Ok(record) => match host.map(|host| record.check(identity, host)) {
            None => {}
            Some(Ok(())) => report.ok(format!("chain {id}: state file {} is at {}", path.display(), record.mark.hrs)),
            Some(Err(error)) => report.fail(format!("chain {id}: state file {} {error}", path.display())),
        },
        Err(StateError::ForeignInPlace { .. }) => check_foreign_state(chain, identity, report),
        Err(error) => report.fail(format!("chain {id}: {error}")),
    }
}

/// A tmkms state file is taken over at start; anything else in its place is not.
fn check_foreign_state(chain: &ChainConfig, identity: &Identity, report: &mut Report) {
    let (id, path) = (&chain.id, &chain.state_file);
    match state::preview(path, identity) {
        Ok(foreign) => report.ok(format!(
            "chain {id}: `start` will take over the state of {} from {}, at {}",
            foreign.program,
            path.display(),
            foreign.mark.hrs
        )),
        Err(error) => report.fail(format!("chain {id}: {error}")),
    }
}
