//! Finds the device that a command is for and how to log in, and makes sure that no running signer uses it.

use super::{ObjectId, secrets};
use crate::{
    cli::{CliError, ConfigArgs, Exit, chains, output},
    config::{
        ChainConfig, Config, ConfigError, PartialConfig, Provider, Secret, SecretSource, YubiHsmAdapter, YubiHsmConfig,
    },
    keyring::{
        device::Trouble,
        yubihsm::login::{Login, read_password},
    },
    process::resolver::Resolver,
    provision::yubihsm::admin_session::{AdminError, AdminSession},
    state,
};
use clap::Args;
use highwater_core::consensus::{ChainId, PublicKey};
use std::path::PathBuf;

/// Selects the device, the login and the form of the answer.
#[derive(Args, Debug)]
pub(super) struct DeviceTargetArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Log in with this authentication key [default: `auth.key` in the configuration]
    #[arg(long, value_name = "ID")]
    auth_key: Option<ObjectId>,
    /// Read its password from this file [default: `auth` in the configuration]
    #[arg(long, value_name = "FILE", conflicts_with = "password_fd")]
    password_file: Option<PathBuf>,
    /// Read its password from this file descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    password_fd: Option<i32>,
}

/// Selects the device and the form of the answer.
#[derive(Args, Debug)]
pub(super) struct DeviceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Serial number of the device, or `addr` of its connector, if the configuration has several devices
    #[arg(long, value_name = "SERIAL|ADDR")]
    device: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A device that no running signer uses.
pub(super) struct DeviceTarget {
    /// Its section, with the password to use.
    pub(super) provider: YubiHsmConfig,
    /// The configuration, as far as it can be read.
    pub(super) config: Config,
}

impl DeviceTargetArgs {
    pub(super) fn json(&self) -> bool {
        self.device.json
    }

    /// Selects the device, makes sure that no running signer uses it, and reads the password.
    pub(super) fn resolve(&self) -> Result<DeviceTarget, CliError> {
        let config = self.device.load()?;
        let mut provider = self.choose(&config)?;
        refuse_running(&config, &provider)?;
        let source = match (&self.password_file, self.password_fd) {
            (Some(path), _) => SecretSource::File(path.clone()),
            (None, Some(number)) => SecretSource::Inline(Secret::new(secrets::read_line(number)?.as_str())),
            (None, None) => provider.password.clone(),
        };
        let password = read_password(&source);
        let password = password.map_err(|why| CliError::new(Exit::NoInput, format!("{provider}: {why}")))?;
        // Kept, because a descriptor can be read only once.
        provider.password = SecretSource::Inline(Secret::new(password.as_str()));
        Ok(DeviceTarget { provider, config })
    }

    /// The section, with the authentication key to use.
    fn choose(&self, config: &Config) -> Result<YubiHsmConfig, CliError> {
        let mut hits = self.device.providers(config)?;
        let wanted = self.auth_key.map(|id| id.0);
        // One device can have several sections, each for one authentication key.
        if hits.iter().any(|provider| Some(provider.auth_key) == wanted) {
            hits.retain(|provider| Some(provider.auth_key) == wanted);
        }
        let first = hits[0];
        if hits.iter().any(|other| other.adapter != first.adapter || other.serial_number != first.serial_number) {
            let names: Vec<_> = hits.iter().map(|provider| name_of(provider)).collect();
            return Err(CliError::usage(format!("name one device with --device: {}", names.join(", "))));
        }
        if hits.len() > 1 && wanted.is_none() {
            let keys: Vec<_> = hits.iter().map(|provider| provider.auth_key.to_string()).collect();
            return Err(CliError::usage(format!("name one authentication key with --auth-key: {}", keys.join(", "))));
        }
        let provider = first.clone();
        match wanted.filter(|wanted| *wanted != provider.auth_key) {
            None => Ok(provider),
            Some(auth_key) if self.password_file.is_some() || self.password_fd.is_some() => {
                Ok(YubiHsmConfig { auth_key, ..provider })
            }
            Some(auth_key) => Err(CliError::usage(format!(
                "the configuration has no password for authentication key {auth_key}: give it with --password-file or \
                 --password-fd"
            ))),
        }
    }
}

impl DeviceArgs {
    /// Loads as much of the configuration as can be read.
    pub(super) fn load(&self) -> Result<Config, CliError> {
        let Some(PartialConfig { config, errors }) = self.config.partial()? else {
            return Err(CliError::usage("there is no configuration: name one with -c"));
        };
        if config.yubihsm().is_empty() {
            let path = config.path;
            if !errors.is_empty() {
                return Err(ConfigError::Invalid { path, findings: errors }.into());
            }
            return Err(CliError::usage(format!(
                "{} has no [[providers.yubihsm]]: tmkms.toml.example shows how to write one",
                path.display()
            )));
        }
        if !errors.is_empty() {
            let path = config.path.display();
            output::note(&format!("note: {path} is not complete yet; `highwater check` shows what is missing"));
        }
        Ok(config)
    }

    /// The selected sections, at least one.
    pub(super) fn providers<'a>(&self, config: &'a Config) -> Result<Vec<&'a YubiHsmConfig>, CliError> {
        let mut hits = config.yubihsm();
        if let Some(wanted) = &self.device {
            hits.retain(|provider| {
                provider.serial_number.as_ref() == Some(wanted) || address_of(&provider.adapter) == *wanted
            });
        }
        if hits.is_empty() {
            let names: Vec<_> = config.yubihsm().into_iter().map(name_of).collect();
            let (path, wanted) = (config.path.display(), self.device.as_deref().unwrap_or_default());
            return Err(CliError::usage(format!("{path} has no device {wanted}, only {}", names.join(", "))));
        }
        Ok(hits)
    }
}

impl DeviceTarget {
    /// Login to the device.
    pub(super) fn login(&self) -> Login {
        Login::new(self.provider.clone(), Resolver::default()).for_a_command()
    }

    /// Opens a session with the device.
    pub(super) fn open(&self) -> Result<AdminSession, CliError> {
        AdminSession::open(&mut self.login()).map_err(|trouble| device_error(&self.provider, &trouble))
    }

    /// An error with the name of the device in front.
    pub(super) fn error(&self, error: &AdminError) -> CliError {
        let exit = match error {
            AdminError::Device(trouble) => return device_error(&self.provider, trouble),
            AdminError::Exists { .. } => Exit::CantCreate,
            AdminError::Expanded => Exit::Data,
            AdminError::NoKey { .. } => Exit::NoInput,
            AdminError::Unproven { .. } => Exit::Io,
        };
        CliError::new(exit, format!("{}: {error}", self.provider))
    }

    /// The chain that was named, or the only one configured.
    pub(super) fn chain(&self, named: Option<&ChainId>) -> Result<Option<&ChainConfig>, CliError> {
        chains::named(&self.config.chains, named)
    }

    /// The key in the state file of a chain whose key has this id on this device.
    pub(super) fn key_in_state_file(&self, id: u16) -> Option<PublicKey> {
        let Self { provider, config } = self;
        let mut keys = provider.keys.iter().filter(|key| key.id == id);
        keys.find_map(|key| {
            let mut chains = config.chains.iter().filter(|chain| key.key.chain_ids.contains(&chain.id));
            chains.find_map(|chain| state::key_in_state_file(chain, key.key.key_type()))
        })
    }
}

/// An error with the name of the device in front.
pub(super) fn device_error(provider: &YubiHsmConfig, trouble: &Trouble) -> CliError {
    let exit = if matches!(trouble, Trouble::WrongPassword(_)) { Exit::NoPermission } else { Exit::Io };
    let hint = match trouble {
        Trouble::Late => "; it may or may not have done what was asked: check with `highwater yubihsm keys list`",
        _ => "",
    };
    CliError::new(exit, format!("{provider}: {}{hint}", trouble.text()))
}

/// Refuses a device that a running signer of this configuration uses.
pub(super) fn refuse_running(config: &Config, provider: &YubiHsmConfig) -> Result<(), CliError> {
    let device = Provider::YubiHsm(provider.clone());
    let users = config.chains.iter().filter(|chain| config.may_use(&chain.id, &device));
    chains::refuse_running(users, &provider.to_string())
}

/// A name that `--device` takes.
fn name_of(provider: &YubiHsmConfig) -> String {
    provider.serial_number.clone().unwrap_or_else(|| address_of(&provider.adapter))
}

fn address_of(adapter: &YubiHsmAdapter) -> String {
    match adapter {
        YubiHsmAdapter::Http { host, port } if host.contains(':') => format!("tcp://[{host}]:{port}"),
        YubiHsmAdapter::Http { host, port } => format!("tcp://{host}:{port}"),
        YubiHsmAdapter::Usb { .. } => "usb".to_owned(),
    }
}
