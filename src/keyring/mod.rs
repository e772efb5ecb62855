//! Signing keys: how they are read, made, shown and used.
//!
//! Each provider of keys has its own folder. This file hides their differences from the rest of Highwater. The
//! configuration alone decides which provider a key comes from, never what is available.
//!
//! Secrets live in boxed, self-wiping buffers, so that a move copies a pointer and not the key. The curve libraries
//! still leave traces on the stack while they compute; only a process without core dumps and swap protects those.

pub mod child;
pub mod device;
pub mod format;
mod identity;
mod key_error;
pub mod key_file;
pub mod pkcs11;
mod secret;
pub(crate) mod secret_source;
pub mod softsign;
pub mod yubihsm;

pub use identity::IdentityKey;
pub use key_error::KeyError;
pub use secret::Secret;

use crate::{
    config::{
        ChainConfig, Config, KeyConfig, Pkcs11Config, Provider, SoftsignConfig,
        pkcs11::spec::{KeySpec, TokenSpec},
    },
    process::{descriptors, environment, resolver::Resolver, sandbox::Switches},
    record::audit::Audit,
};
use child::{
    ChildOpener,
    spawner::{Plan, Spawner},
};
use device::{
    Device, DeviceSetup,
    failover::{DeviceKey, KeyPlace},
};
use highwater_core::{
    consensus::{ChainId, KeyType, PublicKey},
    signer::Signer,
};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use yubihsm::public_keys::Finder;

/// Returns the key that a chain's state file is bound to, if it has this type. The keyring does not read state files
/// itself.
pub type KeyInStateFile = fn(&ChainConfig, KeyType) -> Option<PublicKey>;

/// The public key of `key`, which signs for `chain`. Asks a YubiHSM only if there is no other source.
pub fn public_key(
    config: &Config,
    chain: &ChainConfig,
    key: KeyConfig<'_>,
    in_state_file: KeyInStateFile,
) -> Result<PublicKey, KeyError> {
    match known_public_key(chain, key, in_state_file)? {
        Some(public_key) => Ok(public_key),
        None => Finder::new(Resolver::default(), in_state_file).find(config, chain, key.key_type()),
    }
}

/// The public key of `key`, which signs for `chain`, without asking a device. `None` if only its YubiHSM knows it,
/// because the chain has no state file yet.
pub fn known_public_key(
    chain: &ChainConfig,
    key: KeyConfig<'_>,
    in_state_file: KeyInStateFile,
) -> Result<Option<PublicKey>, KeyError> {
    match key.provider {
        Provider::Softsign(file) => Ok(Some(load_softsign(file)?.public_key())),
        Provider::Pkcs11(token) => Ok(Some(token.keys[key.number].public_key.clone())),
        Provider::YubiHsm(_) => Ok(in_state_file(chain, key.key_type())),
    }
}

/// Whether a key of `chain` is the same secret as `identity`, as far as that can be seen without asking a device.
pub fn is_same_secret(
    chain: &ChainConfig,
    key: KeyConfig<'_>,
    identity: &IdentityKey,
    in_state_file: KeyInStateFile,
) -> bool {
    match key.provider {
        Provider::Softsign(file) => load_softsign(file).is_ok_and(|key| identity.is_secret_of(&key)),
        Provider::Pkcs11(_) | Provider::YubiHsm(_) => known_public_key(chain, key, in_state_file)
            .is_ok_and(|known| known.is_some_and(|known| known == identity.public_key())),
    }
}

/// Two files of `config` that hold one secret for two roles, by their positions among its softsign keys.
pub fn secret_with_two_roles(config: &Config) -> Option<(&SoftsignConfig, &SoftsignConfig)> {
    let mut seen: Vec<(&SoftsignConfig, softsign::SecretKey)> = Vec::new();
    for file in config.softsign() {
        // A key that cannot be read is reported with its chain.
        let Ok(key) = load_softsign(file) else { continue };
        if let Some((first, _)) =
            seen.iter().find(|(other, secret)| other.key.role != file.key.role && secret.is_secret_of(&key))
        {
            return Some((first, file));
        }
        seen.push((file, key));
    }
    None
}

/// The result of inspecting a device without opening it.
pub struct Sight {
    /// Whether everything needed to open it is present.
    pub complete: bool,
    pub notes: Vec<Note>,
}

/// A line of [`Sight`].
pub enum Note {
    Ok(String),
    Warn(String),
    Fail(String),
}

/// Inspects the device of a section without opening it: its module, its connector, its password.
pub fn look_at(provider: &Provider) -> Sight {
    match provider {
        Provider::Pkcs11(token) => pkcs11::look_at(token),
        // Its file is checked with the chains that it signs for.
        Provider::Softsign(_) => Sight { complete: true, notes: Vec::new() },
        Provider::YubiHsm(device) => yubihsm::look_at(device),
    }
}

/// Moves secrets that other processes must not inherit into `config`. Call it before starting any process.
pub fn take_secrets(config: &mut Config) -> io::Result<()> {
    yubihsm::login::take_passwords(config)
}

/// Starts the HSM spawner process, if the configuration has PKCS#11 tokens. Call it before there are threads, sockets
/// and secrets.
pub fn start_spawner(config: &Config) -> io::Result<Option<Arc<Spawner>>> {
    let never = config.files_of_the_signer();
    let plans: Vec<Plan> = config.pkcs11().into_iter().map(|token| plan(config, token, &never)).collect();
    if plans.is_empty() {
        return Ok(None);
    }
    let spawner = Spawner::start(&plans, Switches::of(config))?;
    // The spawner has its copy. Neither this process nor any other that it starts needs them.
    descriptors::close_on_exec(plans.iter().filter_map(Plan::pin_descriptor));
    environment::forget(plans.iter().filter_map(Plan::pin_variable))?;
    Ok(Some(Arc::new(spawner)))
}

/// Every device of the configuration with a key of a served chain, not opened yet. May ask a YubiHSM for its public
/// keys.
pub fn device_setups(
    config: &Config,
    spawner: Option<&Arc<Spawner>>,
    in_state_file: KeyInStateFile,
) -> io::Result<Vec<DeviceSetup>> {
    let yubihsm = yubihsm::KeyPlan::of(config, &Resolver::default(), in_state_file);
    let mut setups: Vec<_> = equipment_of_providers(config, spawner, &yubihsm)?.into_iter().flatten().collect();
    setups.retain(|device| !device.chains.is_empty());
    Ok(setups)
}

/// The device of each provider, in the order of [`Config::providers`]. `None` for a file and for a YubiHSM that holds
/// no configured key.
fn equipment_of_providers(
    config: &Config,
    spawner: Option<&Arc<Spawner>>,
    yubihsm: &yubihsm::KeyPlan,
) -> io::Result<Vec<Option<DeviceSetup>>> {
    let mut setups = Vec::new();
    let mut tokens = 0..;
    for (number, provider) in config.providers.iter().enumerate() {
        setups.push(match provider {
            Provider::Softsign(_) => None,
            Provider::YubiHsm(device) => yubihsm.device_setups(number, device),
            Provider::Pkcs11(token) => {
                let spawner = spawner.ok_or(io::ErrorKind::NotFound)?;
                let keys: Vec<_> = token.keys.iter().map(|key| key.public_key.clone()).collect();
                let plan = tokens.next().expect("there are more numbers than tokens");
                let mut chains = Vec::new();
                for chain in config.served_chains() {
                    if config.keys_of_device(&chain.id).any(|key| key.provider_number == number) {
                        chains.push(chain.id.clone());
                    }
                }
                let most = token.profile.limits.max_message_bytes;
                Some(DeviceSetup {
                    name: token.to_string(),
                    opener: Box::new(ChildOpener::new(Arc::clone(spawner), plan, keys.clone())),
                    keys,
                    message_max_bytes: most.and_then(|most| usize::try_from(most).ok()),
                    chains,
                })
            }
        });
    }
    Ok(setups)
}

/// The devices of a configuration, each with its thread.
pub struct Keyring {
    /// In the order of [`Config::providers`].
    devices: Vec<Option<Arc<Device>>>,
    /// The tokens with the key of each chain, in file order: provider, and index of the key there.
    on_tokens: BTreeMap<ChainId, Vec<(usize, usize)>>,
    yubihsm: yubihsm::KeyPlan,
}

impl Keyring {
    /// Starts a thread for every device. A device that is down is not an error: its thread retries until it is up.
    pub fn open(
        config: &Config,
        spawner: Option<&Arc<Spawner>>,
        resolver: &Resolver,
        in_state_file: KeyInStateFile,
    ) -> io::Result<Self> {
        let yubihsm = yubihsm::KeyPlan::of(config, resolver, in_state_file);
        let mut devices = Vec::new();
        for setups in equipment_of_providers(config, spawner, &yubihsm)? {
            devices.push(setups.map(Device::start).transpose()?);
        }
        let mut on_tokens = BTreeMap::new();
        for chain in &config.chains {
            let places = config.keys_of_device(&chain.id).map(|key| (key.provider_number, key.number));
            on_tokens.insert(chain.id.clone(), places.collect());
        }
        Ok(Self { devices, on_tokens, yubihsm })
    }

    pub fn devices(&self) -> Vec<Arc<Device>> {
        self.devices.iter().flatten().cloned().collect()
    }

    /// Has the devices' own logs moved to the audit file, where the configuration asks for that.
    pub fn record_device_logs_in(&self, audit: &Audit) {
        self.yubihsm.record_device_logs_in(audit);
    }

    /// Ends the session with every device, so that the next signer does not meet them there. Waits half a second at most.
    /// After that no device signs.
    pub fn close(&self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        let until = Instant::now() + PATIENCE;
        let closing: Vec<_> = self.devices.iter().flatten().map(|device| device.close()).collect();
        for closed in closing {
            // One that hangs keeps its session until that ends by itself.
            let _ = closed.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    /// The signer of `key` for `chain`. It depends on the configuration alone.
    pub fn signer(&self, chain: &ChainConfig, key: KeyConfig<'_>) -> Result<Box<dyn Signer>, KeyError> {
        match key.provider {
            Provider::Softsign(file) => Ok(load_softsign(file)?.into_signer()),
            Provider::Pkcs11(token) => {
                let mut places = Vec::new();
                for (provider, index) in &self.on_tokens[&chain.id] {
                    let device = self.devices[*provider].as_ref().expect("every token has its device");
                    places.push(KeyPlace { device: Arc::clone(device), index: *index });
                }
                Ok(Box::new(DeviceKey::new(places, token.keys[key.number].public_key.clone())))
            }
            Provider::YubiHsm(_) => Ok(Box::new(self.yubihsm.signer(&chain.id, &self.devices)?)),
        }
    }
}

fn load_softsign(key: &SoftsignConfig) -> Result<softsign::SecretKey, KeyError> {
    softsign::SecretKey::load(&key.path, key.key.key_type(), key.encoding)
}

/// What the spawner needs to know about a provider.
pub(crate) fn plan(config: &Config, provider: &Pkcs11Config, never: &[PathBuf]) -> Plan {
    let keys = pinned_keys(provider);
    let spec = TokenSpec {
        module: provider.module.clone(),
        profile: provider.profile.clone(),
        token: provider.token.clone(),
        keys,
        files: provider.files.clone(),
        environment: provider.environment.clone(),
        never: never.to_vec(),
    };
    Plan { spec, pin: provider.pin.clone(), memory: login_notes(config, provider) }
}

/// The keys of a token as its section names and pins them.
pub fn pinned_keys(provider: &Pkcs11Config) -> Vec<KeySpec> {
    let mut keys = Vec::new();
    for key in &provider.keys {
        let public_key = key.public_key.as_bytes().to_vec();
        keys.push(KeySpec { object: key.object.clone(), key_type: key.public_key.key_type(), public_key });
    }
    keys
}

/// The directory where the signer and the commands remember which PIN a token has refused: that of the state file of
/// the first chain whose key it has, because every signer can write there.
pub fn login_notes(config: &Config, token: &Pkcs11Config) -> Option<PathBuf> {
    let signs = |chain: &&ChainConfig| token.keys.iter().any(|key| key.key.chain_ids.contains(&chain.id));
    let chain = config.chains.iter().find(signs).or(config.chains.first())?;
    let state_file = std::path::absolute(chain.watermark()).ok()?;
    state_file.parent().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyEncoding, KeyRole, KeyRow};
    use std::path::Path;

    const SEED_BASE64: &[u8] = b"QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";

    fn config(path: &Path, role: KeyRole) -> SoftsignConfig {
        SoftsignConfig {
            key: KeyRow { chain_ids: vec![], role, line: 1 },
            encoding: KeyEncoding::Base64,
            path: path.into(),
        }
    }

    #[test]
    fn a_configured_key_is_opened_and_signs_verifiably() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("consensus.key");
        key_file::write(&path, SEED_BASE64).unwrap();
        for role in [KeyRole::Consensus, KeyRole::Account] {
            let config = config(&path, role);
            let signer = load_softsign(&config).ok().unwrap().into_signer();
            assert_eq!(signer.public_key().key_type(), config.key.key_type());
            let signature = signer.sign(b"message").unwrap();
            assert!(signer.public_key().verifies(b"message", &signature));
            assert!(!signer.public_key().verifies(b"another", &signature));
        }
    }

    #[test]
    fn a_file_without_a_key_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("consensus.key");
        key_file::write(&path, &SEED_BASE64[..40]).unwrap();
        let error = load_softsign(&config(&path, KeyRole::Consensus)).err().unwrap();
        assert!(matches!(error, KeyError::Malformed { .. }));
        assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    }
}
