//! Keys in YubiHSM 2 devices.
//!
//! | file | what |
//! | --- | --- |
//! | `client` | all that calls the `yubihsm` crate, and what its errors mean |
//! | `client_thread` | a thread that owns a client: a hang costs its caller a deadline and no more |
//! | `login` | password, and how often a device may be asked for a session |
//! | `session` | what the device's own thread ([`super::device`]) opens and signs with |
//! | `connector` | what a yubihsm-connector says of itself |
//! | `public_keys` | where the public key of a chain is known from |
//!
//! The crate's client is never trusted twice: after anything but an answer that the device itself encrypted it is thrown
//! away and made anew, because it would go on using a session that the device has lost. Its time-out is fixed at 20 s,
//! so it lives on a thread of its own that can be left behind.

pub mod client;
pub mod client_thread;
pub mod connector;
pub mod login;
pub mod public_keys;
mod session;

use super::{
    KeyError,
    device::{
        Device, DeviceSetup,
        failover::{DeviceKey, KeyPlace},
    },
};
use crate::{
    config::{Config, KeyConfig, KeyRole, YubiHsmConfig},
    process::resolver::Resolver,
};
use highwater_core::consensus::{ChainId, PublicKey};
use public_keys::Finder;
use session::{PinnedKey, YubiHsmOpener};
use std::{collections::BTreeMap, io, sync::Arc};

/// The longest message that a YubiHSM 2 signs with Ed25519, in bytes (Yubico, Sign EdDSA).
pub const MESSAGE_MAX_BYTES: usize = 2019;

/// The YubiHSMs of a configuration, each with its thread.
pub struct YubiHsms {
    plan: KeyPlan,
    /// In the order of [`Config::yubihsm`]. None without a key.
    devices: Vec<Option<Arc<Device>>>,
}

/// Which key on which device signs for which chain.
pub(super) struct KeyPlan {
    /// Every served chain that they sign for.
    chains: BTreeMap<ChainId, Result<PublicKey, String>>,
    /// The same, and which keys sign for it: provider and object id, in file order.
    places: BTreeMap<ChainId, Vec<(usize, u16)>>,
    /// The keys that sign, of each device in the order of [`Config::yubihsm`].
    keys: Vec<Vec<PinnedKey>>,
    /// Who the connectors are.
    resolver: Resolver,
}

impl KeyPlan {
    /// Finds out the public key of every served chain. Asks the devices of those whose key is not recorded.
    pub(super) fn of(config: &Config, resolver: &Resolver) -> Self {
        let mut finder = Finder::new(resolver.clone());
        let mut chains: BTreeMap<ChainId, Result<PublicKey, String>> = BTreeMap::new();
        let mut places: BTreeMap<ChainId, Vec<(usize, u16)>> = BTreeMap::new();
        for chain in config.served_chains() {
            if let Some(key @ KeyConfig::YubiHsm { .. }) = config.consensus_key(&chain.id) {
                let public_key = finder.find(config, chain, key.role()).map_err(|error| error.to_string());
                chains.insert(chain.id.clone(), public_key);
                let on_devices = keys_of(config, &chain.id, key.role()).map(|(index, _, id)| (index, id)).collect();
                places.insert(chain.id.clone(), on_devices);
            }
        }
        let mut keys: Vec<Vec<PinnedKey>> = vec![Vec::new(); config.yubihsm.len()];
        for (chain, on_devices) in &places {
            let Some(Ok(public_key)) = chains.get(chain) else { continue };
            for (index, id) in on_devices {
                let key = PinnedKey { id: *id, public_key: *public_key };
                // One key may serve several chains.
                if !keys[*index].contains(&key) {
                    keys[*index].push(key);
                }
            }
        }
        Self { chains, places, keys, resolver: resolver.clone() }
    }

    /// Every device, in the order of [`Config::yubihsm`]. None without a key.
    pub(super) fn device_setups(&self, config: &Config) -> Vec<Option<DeviceSetup>> {
        let of = |(index, provider): (usize, &YubiHsmConfig)| {
            let keys = &self.keys[index];
            let is_here = |places: &[(usize, u16)]| places.iter().any(|(place, _)| *place == index);
            let chains = self.places.iter().filter(|(_, places)| is_here(places));
            (!keys.is_empty()).then(|| DeviceSetup {
                name: provider.to_string(),
                opener: Box::new(YubiHsmOpener::new(provider.clone(), keys.clone(), self.resolver.clone())),
                keys: keys.iter().map(|key| key.public_key).collect(),
                message_max_bytes: Some(MESSAGE_MAX_BYTES),
                chains: chains.map(|(chain, _)| chain.clone()).collect(),
            })
        };
        config.yubihsm.iter().enumerate().map(of).collect()
    }
}

impl YubiHsms {
    /// Starts a thread for every device that has a key.
    pub(super) fn start(config: &Config, resolver: &Resolver) -> io::Result<Self> {
        let plan = KeyPlan::of(config, resolver);
        let start = |setup: Option<DeviceSetup>| setup.map(Device::start).transpose();
        let devices = plan.device_setups(config).into_iter().map(start).collect::<io::Result<_>>()?;
        Ok(Self { plan, devices })
    }

    /// Those that have a key.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.devices.iter().flatten()
    }

    /// What signs for `chain`, whose key is on one of these devices or on several.
    pub(super) fn signer(&self, chain: &ChainId) -> Result<DeviceKey, KeyError> {
        let KeyPlan { chains, places, keys, .. } = &self.plan;
        let unknown = || Err(format!("no [[validator]] serves {chain}, so its YubiHSM was not opened"));
        let public_key = chains.get(chain).cloned().unwrap_or_else(unknown);
        let public_key = public_key.map_err(|reason| KeyError::PublicKey { reason })?;
        let on_devices = places.get(chain).map(Vec::as_slice).unwrap_or_default();
        let place = |(device, id): &(usize, u16)| {
            let key = PinnedKey { id: *id, public_key };
            let index = keys[*device].iter().position(|held| *held == key)?;
            Some(KeyPlace { device: Arc::clone(self.devices[*device].as_ref()?), index })
        };
        Ok(DeviceKey::new(on_devices.iter().filter_map(place).collect(), public_key))
    }
}

/// Every key of that role for `chain` on a YubiHSM, in file order: which provider, and the object id.
fn keys_of<'a>(
    config: &'a Config,
    chain: &'a ChainId,
    role: KeyRole,
) -> impl Iterator<Item = (usize, &'a YubiHsmConfig, u16)> {
    config.keys().filter_map(move |key| match key {
        KeyConfig::YubiHsm { provider_index, provider, key, .. }
            if key.role == role && key.chain_ids.contains(chain) =>
        {
            Some((provider_index, provider, key.id))
        }
        _ => None,
    })
}
