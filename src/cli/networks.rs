//! The networks that `highwater init -n` knows: the names that tmkms knows, with their current
//! chain ids and prefixes.

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

pub(super) fn find(name: &str) -> Option<&'static Network> {
    NETWORKS.iter().find(|network| network.name == name)
}
