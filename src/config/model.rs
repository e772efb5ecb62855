//! A checked configuration: no strings left to check.

use super::{
    chain::ChainConfig,
    fixed::FixedParts,
    highwater::HighwaterConfig,
    home,
    keys::{KeyRole, KeyRow},
    needs::{FileKind, Needs},
    pkcs11::Pkcs11Config,
    providers::Provider,
    secret::CREDENTIALS_VARIABLE,
    softsign::SoftsignConfig,
    validator::ValidatorConfig,
    yubihsm::YubiHsmConfig,
};
use highwater_core::{
    consensus::{ChainId, KeyType},
    disk,
};
use std::{env, path::PathBuf};

/// A configuration in which every reference resolves: each validator has its chain, each chain its own state
/// file and at most one consensus key per algorithm.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// The `[[chain]]`s, in file order. Ids and state files are unique.
    pub chains: Vec<ChainConfig>,
    /// The `[[validator]]`s, in file order. At least one.
    pub validators: Vec<ValidatorConfig>,
    /// The sections of `[providers]`, in file order. No two describe the same device for the same purpose.
    pub providers: Vec<Provider>,
    pub highwater: HighwaterConfig,
    /// All parts but the nodes, to see what a reload would change.
    pub fixed: FixedParts,
}

impl Config {
    pub fn chain(&self, id: &ChainId) -> Option<&ChainConfig> {
        self.chains.iter().find(|chain| chain.id == *id)
    }

    /// The key that signs blocks for `chain`: its Ed25519 key, else its secp256k1 key, from any provider. If several
    /// YubiHSMs have it, the first of them.
    ///
    /// tmkms signs with the account key of a chain that has no consensus key (`keyring.rs`). Band's secp256k1
    /// validators are configured that way, so the fallback stays. It depends on the configuration alone, never on
    /// which key can be loaded.
    pub fn consensus_key(&self, chain: &ChainId) -> Option<KeyConfig<'_>> {
        let of_chain = || self.keys().filter(|key| key.chain_ids().contains(chain));
        of_chain().find(|key| key.role() == KeyRole::Consensus).or_else(|| of_chain().next())
    }

    /// The key that signs blocks for `chain`, on each device of its kind that holds it, in file order.
    pub fn keys_of_device(&self, chain: &ChainId) -> impl Iterator<Item = KeyConfig<'_>> {
        let first = self.consensus_key(chain);
        self.keys().filter(move |key| {
            first.is_some_and(|first| {
                let is_of_one_kind = std::mem::discriminant(first.provider) == std::mem::discriminant(key.provider);
                is_of_one_kind && first.role() == key.role() && key.chain_ids().contains(chain)
            })
        })
    }

    /// Every chain that has a validator node.
    pub fn served_chains(&self) -> impl Iterator<Item = &ChainConfig> {
        self.chains.iter().filter(|chain| self.validators.iter().any(|validator| validator.chain_id == chain.id))
    }

    /// Every key of every provider, in file order.
    pub fn keys(&self) -> impl Iterator<Item = KeyConfig<'_>> {
        self.providers.iter().enumerate().flat_map(|(provider_number, provider)| {
            let of_provider = provider.keys().into_iter().enumerate();
            of_provider.map(move |(number, key)| KeyConfig { provider, provider_number, key, number })
        })
    }

    /// Every `[[providers.softsign]]`, in file order.
    pub fn softsign(&self) -> Vec<&SoftsignConfig> {
        let mut files = Vec::new();
        for provider in &self.providers {
            if let Provider::Softsign(file) = provider {
                files.push(file);
            }
        }
        files
    }

    /// Every `[[providers.pkcs11]]`, in file order.
    pub fn pkcs11(&self) -> Vec<&Pkcs11Config> {
        let mut tokens = Vec::new();
        for provider in &self.providers {
            if let Provider::Pkcs11(token) = provider {
                tokens.push(&**token);
            }
        }
        tokens
    }

    /// Every `[[providers.yubihsm]]`, in file order.
    pub fn yubihsm(&self) -> Vec<&YubiHsmConfig> {
        let mut devices = Vec::new();
        for provider in &self.providers {
            if let Provider::YubiHsm(device) = provider {
                devices.push(device);
            }
        }
        devices
    }

    /// What all providers and nodes need from this machine.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        for provider in &self.providers {
            needs.add(provider.needs());
        }
        for validator in &self.validators {
            needs.add(validator.address.needs());
        }
        needs
    }

    /// The signer's own files: state, keys, PINs and passwords, credentials, configuration, audit, control socket.
    pub fn files_of_the_signer(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone()];
        for chain in &self.chains {
            files.extend([chain.state_file.clone(), chain.watermark()]);
        }
        let needed = self.needs().files.into_iter();
        files.extend(needed.filter(|file| file.kind != FileKind::Program).map(|file| file.path));
        if let Some(audit) = &self.highwater.audit {
            files.push(audit.clone());
            // Rotated files are evidence too.
            let kept = 1..=self.highwater.audit_limits.keep;
            files.extend(kept.map(|number| disk::with_suffix(audit, &format!(".{number}"))));
        }
        files.push(self.control_socket());
        files.extend(env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from));
        files
    }

    /// The socket on which this configuration's signer listens for `highwater status`.
    pub fn control_socket(&self) -> PathBuf {
        home::control_socket(env::var_os(home::RUNTIME_VARIABLE), &self.path)
    }

    /// Whether the signer of `chain` may use the device of that section: its key is on it, or the place of its key is
    /// unknown. Reads the disk.
    pub fn may_use(&self, chain: &ChainId, device: &Provider) -> bool {
        let is_known = self.consensus_key(chain).is_some_and(|key| key.role() == KeyRole::Consensus);
        let mut keys = self.keys().filter(|key| key.chain_ids().contains(chain));
        !is_known || keys.any(|key| key.provider.may_share_device(device))
    }
}

/// A key of any provider.
#[derive(Clone, Copy, Debug)]
pub struct KeyConfig<'a> {
    pub provider: &'a Provider,
    /// Its index in [`Config::providers`].
    pub provider_number: usize,
    pub key: &'a KeyRow,
    /// Its index among the keys of its provider.
    pub number: usize,
}

impl<'a> KeyConfig<'a> {
    pub fn chain_ids(self) -> &'a [ChainId] {
        &self.key.chain_ids
    }

    /// tmkms calls this the key's type.
    pub fn role(self) -> KeyRole {
        self.key.role
    }

    pub fn key_type(self) -> KeyType {
        self.key.key_type()
    }

    /// Its line in the file.
    pub fn line(self) -> usize {
        self.key.line
    }
}
