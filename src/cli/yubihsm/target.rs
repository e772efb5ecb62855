//! Which device a command means, how it logs in, and whether a running signer has it.

use super::{ObjectId, secrets};
use crate::{
    cli::{CliError, ConfigArgs, Exit, chains, output},
    config::{
        ChainConfig, Config, ConfigError, KeyConfig, KeyRole, PasswordSource, Secret, Sketch, YubiHsmAdapter,
        YubiHsmConfig,
    },
    keyring::{
        device::Trouble,
        yubihsm::{
            login::{Login, read_password},
            public_keys,
        },
    },
    process::resolver::Resolver,
    provision::yubihsm::admin_session::{AdminError, AdminSession},
};
use clap::Args;
use highwater_core::consensus::{ChainId, PublicKey};
use std::path::PathBuf;

/// Which device, how to log in, and how the answer looks.
#[derive(Args, Debug)]
pub(super) struct DeviceTargetArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Log in with this authentication key [default: `auth.key` of the configuration]
    #[arg(long, value_name = "ID")]
    auth_key: Option<ObjectId>,
    /// Read its password from this file [default: `auth` of the configuration]
    #[arg(long, value_name = "FILE", conflicts_with = "password_fd")]
    password_file: Option<PathBuf>,
    /// Read its password from this file descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    password_fd: Option<i32>,
}

/// Which device, and how the answer looks.
#[derive(Args, Debug)]
pub(super) struct DeviceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The device, where the configuration has several: its serial number or the `addr` of its connector
    #[arg(long, value_name = "SERIAL|ADDR")]
    device: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// A device that no running signer has.
pub(super) struct DeviceTarget {
    /// Its section, with the password that is to be used.
    pub(super) provider: YubiHsmConfig,
    /// What the configuration has, as far as it can be read.
    pub(super) config: Config,
}

impl DeviceTargetArgs {
    pub(super) fn json(&self) -> bool {
        self.device.json
    }

    /// Finds out which device is meant, makes sure that no running signer has it, and reads the password.
    pub(super) fn resolve(&self) -> Result<DeviceTarget, CliError> {
        let config = self.device.load()?;
        let mut provider = self.choose(&config)?;
        refuse_running(&config, &provider)?;
        let source = match (&self.password_file, self.password_fd) {
            (Some(path), _) => PasswordSource::File(path.clone()),
            (None, Some(number)) => PasswordSource::Inline(Secret::new(secrets::read_line(number)?.as_str())),
            (None, None) => provider.password.clone(),
        };
        let password = read_password(&source);
        let password = password.map_err(|why| CliError::new(Exit::NoInput, format!("{provider}: {why}")))?;
        // Read once: a descriptor has it only once.
        provider.password = PasswordSource::Inline(Secret::new(password.as_str()));
        Ok(DeviceTarget { provider, config })
    }

    /// The section, with the authentication key that is meant.
    fn choose(&self, config: &Config) -> Result<YubiHsmConfig, CliError> {
        let mut hits = self.device.providers(config)?;
        let wanted = self.auth_key.map(|id| id.0);
        // One device can have several sections, each for one authentication key.
        if hits.iter().any(|provider| Some(provider.auth_key) == wanted) {
            hits.retain(|provider| Some(provider.auth_key) == wanted);
        }
        let is_one = |other: &&YubiHsmConfig| {
            (&other.adapter, &other.serial_number) == (&hits[0].adapter, &hits[0].serial_number)
        };
        if !hits.iter().all(is_one) {
            let names: Vec<_> = hits.iter().map(|provider| name_of(provider)).collect();
            return Err(usage(format!("name one device with --device: {}", names.join(", "))));
        }
        if hits.len() > 1 && wanted.is_none() {
            let keys: Vec<_> = hits.iter().map(|provider| provider.auth_key.to_string()).collect();
            return Err(usage(format!("name one authentication key with --auth-key: {}", keys.join(", "))));
        }
        let provider = hits[0].clone();
        match wanted.filter(|wanted| *wanted != provider.auth_key) {
            None => Ok(provider),
            Some(auth_key) if self.password_file.is_some() || self.password_fd.is_some() => {
                Ok(YubiHsmConfig { auth_key, ..provider })
            }
            Some(auth_key) => Err(usage(format!(
                "the configuration has no password of authentication key {auth_key}: give it with --password-file or \
                 --password-fd"
            ))),
        }
    }
}

impl DeviceArgs {
    /// The configuration as far as it can be read.
    pub(super) fn load(&self) -> Result<Config, CliError> {
        let Some(Sketch { config, errors }) = self.config.sketch()? else {
            return Err(usage("there is no configuration: name one with -c"));
        };
        if config.yubihsm.is_empty() {
            let path = config.path;
            return Err(match errors.is_empty() {
                false => ConfigError::Invalid { path, findings: errors }.into(),
                true => usage(format!(
                    "{} has no [[providers.yubihsm]]: tmkms.toml.example shows how one is written",
                    path.display()
                )),
            });
        }
        if !errors.is_empty() {
            let path = config.path.display();
            output::note(&format!("note: {path} is not complete yet; `highwater check` says what is missing"));
        }
        Ok(config)
    }

    /// The sections that are meant, one at least.
    pub(super) fn providers<'a>(&self, config: &'a Config) -> Result<Vec<&'a YubiHsmConfig>, CliError> {
        let is_meant = |provider: &&YubiHsmConfig| {
            let is_it = |wanted: &String| {
                provider.serial_number.as_ref() == Some(wanted) || address_of(&provider.adapter) == *wanted
            };
            self.device.as_ref().is_none_or(is_it)
        };
        let hits: Vec<_> = config.yubihsm.iter().filter(is_meant).collect();
        if hits.is_empty() {
            let names: Vec<_> = config.yubihsm.iter().map(name_of).collect();
            let (path, wanted) = (config.path.display(), self.device.as_deref().unwrap_or_default());
            return Err(usage(format!("{path} has no device {wanted}, only {}", names.join(", "))));
        }
        Ok(hits)
    }
}

impl DeviceTarget {
    /// The way to the device.
    pub(super) fn login(&self) -> Login {
        Login::new(self.provider.clone(), Resolver::default()).for_a_command()
    }

    /// A session with the device.
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

    /// The chain that was named, or else the only one there is.
    pub(super) fn chain(&self, named: Option<&ChainId>) -> Result<Option<&ChainConfig>, CliError> {
        chains::named(&self.config.chains, named)
    }

    /// The key that a state file is bound to, for a chain whose key has that id on this device.
    pub(super) fn key_in_state_file(&self, id: u16) -> Option<PublicKey> {
        let Self { provider, config } = self;
        let mut keys = provider.keys.iter().filter(|key| key.id == id);
        keys.find_map(|key| {
            let mut chains = config.chains.iter().filter(|chain| key.chain_ids.contains(&chain.id));
            chains.find_map(|chain| public_keys::key_in_state_file(chain, key.role))
        })
    }
}

/// An error with the name of the device in front.
pub(super) fn device_error(provider: &YubiHsmConfig, trouble: &Trouble) -> CliError {
    let exit = if matches!(trouble, Trouble::WrongPassword(_)) { Exit::NoPermission } else { Exit::Io };
    let hint = match trouble {
        Trouble::Late => "; whether it did what it was asked is not known: look with `highwater yubihsm keys list`",
        _ => "",
    };
    CliError::new(exit, format!("{provider}: {}{hint}", trouble.text()))
}

/// Refuses a device that a running signer of this configuration has.
pub(super) fn refuse_running(config: &Config, provider: &YubiHsmConfig) -> Result<(), CliError> {
    let users = config.chains.iter().filter(|chain| may_use(config, &chain.id, provider));
    chains::refuse_running(users, &provider.to_string())
}

/// Whether the signer of `chain` may use this device: its key is there, or it cannot be said where its key is.
fn may_use(config: &Config, chain: &ChainId, provider: &YubiHsmConfig) -> bool {
    let is_here = |key: KeyConfig<'_>| match key {
        KeyConfig::YubiHsm { provider: other, .. } => may_be_one(other, provider),
        KeyConfig::Pkcs11 { .. } | KeyConfig::Softsign(_) => false,
    };
    let mut keys = config.keys().filter(|key| key.chain_ids().contains(chain)).peekable();
    let is_known = config.consensus_key(chain).is_some_and(|key| key.role() == KeyRole::Consensus);
    !is_known || keys.any(is_here)
}

/// Whether two sections may be of one device. On USB every device is disturbed by whoever looks for one.
fn may_be_one(a: &YubiHsmConfig, b: &YubiHsmConfig) -> bool {
    let is_usb = |provider: &YubiHsmConfig| matches!(provider.adapter, YubiHsmAdapter::Usb { .. });
    let is_same_number = a.serial_number.is_some() && a.serial_number == b.serial_number;
    a.adapter == b.adapter || is_same_number || is_usb(a) || is_usb(b)
}

/// As `--device` takes it.
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

pub(super) fn usage(text: impl Into<String>) -> CliError {
    CliError::new(Exit::Usage, text)
}
