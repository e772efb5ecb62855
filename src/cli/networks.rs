//! The networks that `highwater init -n` knows: the names that tmkms knows, with their current
//! chain ids and prefixes.

use highwater_core::consensus::{ChainId, ChainIdError};

pub(super) struct Network {
    pub(super) name: &'static str,
    pub(super) chain_id: &'static str,
    /// Bech32 prefix of its account public keys.
    pub(super) account_key_prefix: &'static str,
    /// Bech32 prefix of its consensus public keys.
    pub(super) consensus_key_prefix: &'static str,
}

const fn network(
    name: &'static str,
    chain_id: &'static str,
    account_key_prefix: &'static str,
    consensus_key_prefix: &'static str,
) -> Network {
    Network { name, chain_id, account_key_prefix, consensus_key_prefix }
}

pub(super) const NETWORKS: [Network; 5] = [
    network("core", "core-1", "persistencepub", "persistencevalconspub"),
    network("cosmoshub", "cosmoshub-4", "cosmospub", "cosmosvalconspub"),
    network("irishub", "irishub-1", "iap", "icp"),
    network("osmosis", "osmosis-1", "osmopub", "osmovalconspub"),
    network("sentinelhub", "sentinelhub-2", "sentpub", "sentvalconspub"),
];

/// A chain for a new configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) chain_id: String,
    /// The value of `key_format`, as TOML.
    pub(super) key_format: String,
    /// Whether its prefixes are unknown, because it is none of [`NETWORKS`].
    pub(super) is_unknown: bool,
}

impl Target {
    /// The chain of a known network, by name or chain id, or any other chain by its id.
    pub(super) fn find(name: &str) -> Result<Self, ChainIdError> {
        if let Some(network) = NETWORKS.iter().find(|network| network.name == name || network.chain_id == name) {
            let Network { chain_id, account_key_prefix, consensus_key_prefix, .. } = network;
            let key_format = format!(
                "{{ type = \"bech32\", account_key_prefix = \"{account_key_prefix}\", consensus_key_prefix = \
                 \"{consensus_key_prefix}\" }}"
            );
            return Ok(Self { chain_id: (*chain_id).to_owned(), key_format, is_unknown: false });
        }
        let chain_id = ChainId::new(name)?.to_string();
        Ok(Self { chain_id, key_format: "{ type = \"hex\" }".to_owned(), is_unknown: true })
    }
}
