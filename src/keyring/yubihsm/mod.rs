//! Keys in YubiHSM 2 devices.
//!
//! | file | what |
//! | --- | --- |
//! | `channel` | the secure channel: commands to bytes and back, without I/O |
//! | `codes`, `commands` | the commands, as bytes |
//! | `client` | a session, and the meaning of its errors |
//! | `link`, `link_error` | the way to a device; `http` and `usb` are the two there are |
//! | `algorithms` | what is peculiar to each algorithm |
//! | `login` | the password, and how often the signer may open a session |
//! | `session` | the sessions of the device's own thread ([`super::device`]) |
//! | `drain` | moves the device's own log into the audit file |
//! | `connector` | the status of a yubihsm-connector |
//! | `public_keys` | finds the public key of a chain |
//! | `usb_bus` | the devices on the USB of this machine |
//!
//! The `yubihsm` crate lends its names of capabilities, domains, algorithms and errors. Its client is not used: it goes
//! on with a session that the device has lost, hides the device's error codes, cannot close a session, waits 20 s
//! whatever it is told, and takes no other transport than its own.

pub(crate) mod algorithms;
mod channel;
pub mod client;
mod codes;
pub(crate) mod commands;
pub mod connector;
mod drain;
mod http;
mod link;
mod link_error;
pub mod login;
pub mod public_keys;
mod session;
mod usb;
mod usb_bus;

use super::{
    KeyError, KeyInStateFile, Note, Sight,
    device::{
        Device, DeviceSetup,
        failover::{DeviceKey, KeyPlace},
    },
};
use crate::{
    config::{Config, KeyConfig, Provider, YubiHsmAdapter, YubiHsmConfig},
    process::resolver::Resolver,
    record::audit::Audit,
};
use drain::AuditSlot;
use highwater_core::consensus::{ChainId, KeyType, PublicKey};
use public_keys::Finder;
use session::{PinnedKey, YubiHsmOpener};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// The longest message that a YubiHSM 2 signs with Ed25519, in bytes (Yubico, Sign EdDSA).
pub const MESSAGE_MAX_BYTES: usize = 2019;

/// How long a connector may take to accept a connection when it is only looked for.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// Which key on which device signs for which chain.
pub(super) struct KeyPlan {
    /// The public key of every served chain whose key is on a YubiHSM, or why it is not known.
    chains: BTreeMap<ChainId, Result<PublicKey, String>>,
    /// For each of these chains, the keys that sign: provider and object id, in file order.
    places: BTreeMap<ChainId, Vec<(usize, u16)>>,
    /// The keys that sign, of each device in the order of [`Config::providers`].
    keys: Vec<Vec<PinnedKey>>,
    /// Resolves the connectors' host names.
    resolver: Resolver,
    /// Where the logs of the devices go.
    audit: AuditSlot,
}

impl KeyPlan {
    /// Finds out the public key of every served chain. Asks the devices of those whose key is not recorded.
    pub(super) fn of(config: &Config, resolver: &Resolver, in_state_file: KeyInStateFile) -> Self {
        let mut finder = Finder::new(resolver.clone(), in_state_file);
        let mut chains: BTreeMap<ChainId, Result<PublicKey, String>> = BTreeMap::new();
        let mut places: BTreeMap<ChainId, Vec<(usize, u16)>> = BTreeMap::new();
        for chain in config.served_chains() {
            if let Some(key @ KeyConfig { provider: Provider::YubiHsm(_), .. }) = config.consensus_key(&chain.id) {
                let public_key = finder.find(config, chain, key.key_type()).map_err(|error| error.to_string());
                chains.insert(chain.id.clone(), public_key);
                let on_devices = keys_of(config, &chain.id, key.key_type()).map(|(index, _, id)| (index, id)).collect();
                places.insert(chain.id.clone(), on_devices);
            }
        }
        let mut keys: Vec<Vec<PinnedKey>> = vec![Vec::new(); config.providers.len()];
        for (chain, on_devices) in &places {
            let Some(Ok(public_key)) = chains.get(chain) else { continue };
            for (index, id) in on_devices {
                let key = PinnedKey { id: *id, public_key: public_key.clone() };
                // One key may serve several chains.
                if !keys[*index].contains(&key) {
                    keys[*index].push(key);
                }
            }
        }
        Self { chains, places, keys, resolver: resolver.clone(), audit: AuditSlot::default() }
    }

    /// Has the devices' own logs moved to this file from now on, where the configuration asks for that.
    pub(super) fn record_device_logs_in(&self, audit: &Audit) {
        // There is one audit file.
        let _ = self.audit.set(audit.clone());
    }

    /// The device of a provider. `None` for a device that holds no configured key.
    pub(super) fn device_setups(&self, number: usize, section: &YubiHsmConfig) -> Option<DeviceSetup> {
        let keys = &self.keys[number];
        if keys.is_empty() {
            return None;
        }
        let mut chains = Vec::new();
        for (chain, places) in &self.places {
            if places.iter().any(|(place, _)| *place == number) {
                chains.push(chain.clone());
            }
        }
        Some(DeviceSetup {
            name: section.to_string(),
            opener: Box::new(YubiHsmOpener::new(
                section.clone(),
                keys.clone(),
                self.resolver.clone(),
                Arc::clone(&self.audit),
            )),
            keys: keys.iter().map(|key| key.public_key.clone()).collect(),
            message_max_bytes: Some(MESSAGE_MAX_BYTES),
            chains,
        })
    }

    /// What signs for `chain`, whose key is on one of these devices or on several. `devices` are those of all providers.
    pub(super) fn signer(&self, chain: &ChainId, devices: &[Option<Arc<Device>>]) -> Result<DeviceKey, KeyError> {
        let unknown = || Err(format!("no [[validator]] serves {chain}, so its YubiHSM was not opened"));
        let public_key = self.chains.get(chain).cloned().unwrap_or_else(unknown);
        let public_key = public_key.map_err(|reason| KeyError::PublicKey { reason })?;
        let mut places = Vec::new();
        for (number, id) in self.places.get(chain).map(Vec::as_slice).unwrap_or_default() {
            let key = PinnedKey { id: *id, public_key: public_key.clone() };
            let index = self.keys[*number].iter().position(|held| *held == key);
            if let (Some(index), Some(device)) = (index, &devices[*number]) {
                places.push(KeyPlace { device: Arc::clone(device), index });
            }
        }
        Ok(DeviceKey::new(places, public_key))
    }
}

/// Every key of that type for `chain` on a YubiHSM, in file order: which provider, and the object id.
fn keys_of<'a>(
    config: &'a Config,
    chain: &'a ChainId,
    key_type: KeyType,
) -> impl Iterator<Item = (usize, &'a YubiHsmConfig, u16)> {
    config.keys().filter_map(move |key| match key.provider {
        Provider::YubiHsm(device) if key.key_type() == key_type && key.chain_ids().contains(chain) => {
            Some((key.provider_number, device, device.keys[key.number].id))
        }
        _ => None,
    })
}

/// Whether the password can be read and the connector is there. Opens no session.
pub(super) fn look_at(section: &YubiHsmConfig) -> Sight {
    let mut notes = Vec::new();
    let reached = login::Login::new(section.clone(), Resolver::default()).look(Instant::now() + LOOK_PATIENCE);
    let there = reached.is_ok();
    match (&section.adapter, reached) {
        (_, Err(trouble)) => notes.push(Note::Fail(format!("{section}: {}", trouble.text()))),
        (YubiHsmAdapter::Http { .. }, Ok(_)) => notes.push(Note::Ok(format!("{section}: its connector is there"))),
        (YubiHsmAdapter::Usb { .. }, Ok(_)) => {}
    }
    let password = login::read_password(&section.password);
    if let Err(why) = &password {
        notes.push(Note::Fail(format!("{section}: {why}")));
    }
    Sight { complete: there && password.is_ok(), notes }
}
