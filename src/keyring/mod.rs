//! Keys: what signs, and how it is read, made and shown.
//!
//! Each provider of keys
//! has a folder of its own: [`softsign`] keeps keys in files. Which provider a key comes from is decided by the
//! configuration alone, never by what happens to be available.
//!
//! Secrets live in boxed, self-wiping buffers, so that a move copies a pointer and not the key. The curve
//! libraries still leave traces on the stack while they compute; against those only a process without core dumps
//! and swap helps.

pub mod child;
pub mod device;
pub mod format;
mod identity;
mod key_error;
pub mod key_file;
pub mod pkcs11;
mod secret;
pub mod softsign;
pub mod yubihsm;

pub use identity::IdentityKey;
pub use key_error::KeyError;
pub use secret::Secret;

use crate::{
    config::{
        ChainConfig, Config, KeyConfig, Pkcs11Config, Pkcs11Key, SoftsignConfig,
        pkcs11::{
            reach,
            spec::{KeySpec, TokenSpec},
        },
    },
    process::{environment, resolver::Resolver, sandbox::Switches},
};
use child::{
    ChildOpener,
    spawner::{Plan, Spawner},
};
use device::{
    Device, DeviceSetup,
    failover::{DeviceKey, KeyPlace},
};
use highwater_core::{consensus::PublicKey, signer::Signer};
use std::{io, path::PathBuf, sync::Arc};

/// The public key of `key`, which signs for `chain`. Asks a YubiHSM if nobody else knows.
pub fn public_key(config: &Config, chain: &ChainConfig, key: KeyConfig<'_>) -> Result<PublicKey, KeyError> {
    match key {
        KeyConfig::YubiHsm { .. } => yubihsm::public_keys::Finder::default().find(config, chain, key.role()),
        KeyConfig::Pkcs11 { .. } | KeyConfig::Softsign(_) => {
            Ok(known_public_key(chain, key)?.expect("only a YubiHSM has to be asked"))
        }
    }
}

/// The public key of `key`, which signs for `chain`, without asking a device. `None` if only its YubiHSM knows: before
/// the chain has a state file.
pub fn known_public_key(chain: &ChainConfig, key: KeyConfig<'_>) -> Result<Option<PublicKey>, KeyError> {
    match key {
        KeyConfig::Softsign(key) => Ok(Some(load_softsign(key)?.public_key())),
        KeyConfig::Pkcs11 { key, .. } => Ok(Some(key.public_key)),
        KeyConfig::YubiHsm { .. } => Ok(yubihsm::public_keys::key_in_state_file(chain, key.role())),
    }
}

/// Starts the process that starts the children of PKCS#11 tokens, if the configuration has any. Before anything else:
/// before threads, sockets and secrets.
pub fn start_spawner(config: &Config) -> io::Result<Option<Arc<Spawner>>> {
    let never = reach::of_the_signer(config);
    let plans: Vec<Plan> = config.pkcs11.iter().map(|provider| plan(provider, &never)).collect();
    if plans.is_empty() {
        return Ok(None);
    }
    let spawner = Spawner::start(&plans, Switches::of(config))?;
    // The spawner has its copy. What is started from here, and this process itself, has no use for them.
    environment::forget(plans.iter().filter_map(Plan::pin_variable))?;
    Ok(Some(Arc::new(spawner)))
}

/// Every device of the configuration that has a key of a served chain, not yet opened. A YubiHSM may be asked for its
/// public keys.
pub fn device_setups(config: &Config, spawner: Option<&Arc<Spawner>>) -> io::Result<Vec<DeviceSetup>> {
    let mut setups = tokens(config, spawner)?;
    setups.extend(yubihsm::KeyPlan::of(config, &Resolver::default()).device_setups(config).into_iter().flatten());
    setups.retain(|device| !device.chains.is_empty());
    Ok(setups)
}

/// The token of each `[[providers.pkcs11]]`.
fn tokens(config: &Config, spawner: Option<&Arc<Spawner>>) -> io::Result<Vec<DeviceSetup>> {
    let token = |(number, provider): (usize, &Pkcs11Config)| {
        let keys: Vec<_> = provider.keys.iter().map(|key| key.public_key).collect();
        let spawner = spawner.ok_or(io::ErrorKind::NotFound)?;
        let is_here =
            |key: KeyConfig<'_>| matches!(key, KeyConfig::Pkcs11 { provider_index, .. } if provider_index == number);
        let served = config.served_chains().filter(|chain| config.consensus_key(&chain.id).is_some_and(is_here));
        Ok(DeviceSetup {
            name: format!("{} of {}", provider.token, provider.module.display()),
            opener: Box::new(ChildOpener::new(Arc::clone(spawner), number, keys.clone())),
            keys,
            message_max_bytes: provider.profile.limits.max_message_bytes.and_then(|most| usize::try_from(most).ok()),
            chains: served.map(|chain| chain.id.clone()).collect(),
        })
    };
    config.pkcs11.iter().enumerate().map(token).collect()
}

/// The devices of a configuration, each with its thread.
pub struct Keyring {
    /// One for each `[[providers.pkcs11]]`.
    pkcs11: Vec<Arc<Device>>,
    yubihsm: yubihsm::YubiHsms,
}

impl Keyring {
    /// Starts a thread for every device. One that is down is no error: it is looked for until it comes.
    pub fn open(config: &Config, spawner: Option<&Arc<Spawner>>, resolver: &Resolver) -> io::Result<Self> {
        let pkcs11 = tokens(config, spawner)?.into_iter().map(Device::start).collect::<io::Result<_>>()?;
        Ok(Self { pkcs11, yubihsm: yubihsm::YubiHsms::start(config, resolver)? })
    }

    /// Every device.
    pub fn devices(&self) -> Vec<Arc<Device>> {
        self.pkcs11.iter().chain(self.yubihsm.devices()).cloned().collect()
    }

    /// What signs with `key` for `chain`. Which that is depends on the configuration alone.
    pub fn signer(&self, chain: &ChainConfig, key: KeyConfig<'_>) -> Result<Box<dyn Signer>, KeyError> {
        match key {
            KeyConfig::Softsign(key) => Ok(load_softsign(key)?.into_signer()),
            KeyConfig::Pkcs11 { provider_index, key, key_index, .. } => {
                let place = KeyPlace { device: Arc::clone(&self.pkcs11[provider_index]), index: key_index };
                Ok(Box::new(DeviceKey::new(vec![place], key.public_key)))
            }
            KeyConfig::YubiHsm { .. } => Ok(Box::new(self.yubihsm.signer(&chain.id)?)),
        }
    }
}

fn load_softsign(key: &SoftsignConfig) -> Result<softsign::SecretKey, KeyError> {
    softsign::SecretKey::load(&key.path, key.role, key.encoding)
}

/// What the spawner has to know about a provider.
fn plan(provider: &Pkcs11Config, never: &[PathBuf]) -> Plan {
    let key = |key: &Pkcs11Key| KeySpec { object: key.object.clone(), key_type: key.public_key.key_type().into() };
    let spec = TokenSpec {
        module: provider.module.clone(),
        profile: provider.profile.clone(),
        token: provider.token.clone(),
        keys: provider.keys.iter().map(key).collect(),
        files: provider.files.clone(),
        environment: provider.environment.clone(),
        never: never.to_vec(),
    };
    Plan { spec, pin: provider.pin.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeyEncoding, KeyRole};
    use std::path::Path;

    const SEED_BASE64: &[u8] = b"QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";

    fn config(path: &Path, role: KeyRole) -> SoftsignConfig {
        SoftsignConfig { chain_ids: vec![], role, encoding: KeyEncoding::Base64, path: path.into(), line: 1 }
    }

    #[test]
    fn a_configured_key_is_opened_and_signs_verifiably() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("consensus.key");
        key_file::write(&path, SEED_BASE64).unwrap();
        for role in [KeyRole::Consensus, KeyRole::Account] {
            let config = config(&path, role);
            let signer = load_softsign(&config).ok().unwrap().into_signer();
            assert_eq!(signer.public_key().key_type(), config.role.key_type());
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
