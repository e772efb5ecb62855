//! The sections as read, before they are checked against each other.

use super::{
    chain::ChainConfig, fixed::FixedParts, highwater::HighwaterConfig, keys::KeyUses, model::Config,
    providers::Provider, reader::Located, validator::ValidatorConfig,
};
use highwater_core::consensus::ChainId;
use std::path::Path;

#[derive(Default)]
pub(super) struct Draft {
    /// The id of every `[[chain]]`, even if the rest of its section has a mistake.
    pub(super) chain_ids: Vec<Located<ChainId>>,
    pub(super) chains: Vec<ChainConfig>,
    /// At least one chain's id could not be read, so other ids cannot be called unknown.
    pub(super) chains_incomplete: bool,
    /// The chain of every `[[validator]]`.
    pub(super) served: Vec<Located<ChainId>>,
    pub(super) validators: Vec<ValidatorConfig>,
    pub(super) keys: KeyUses,
    pub(super) providers: Vec<Provider>,
    pub(super) highwater: HighwaterConfig,
    pub(super) fixed: FixedParts,
}

impl Draft {
    pub(super) fn into_config(self, path: &Path) -> Config {
        let Self { chains, validators, providers, highwater, fixed, .. } = self;
        // A node that is named twice is served once.
        let mut nodes: Vec<ValidatorConfig> = Vec::new();
        for validator in validators {
            if !nodes.iter().any(|node| node.is_same_node(&validator)) {
                nodes.push(validator);
            }
        }
        Config { path: path.into(), chains, validators: nodes, providers, highwater, fixed }
    }
}
