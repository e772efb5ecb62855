//! Everything that could be read, before the sections are compared with each other.

use super::{
    chain::ChainConfig, highwater::HighwaterConfig, keys::KeyUses, model::Config, providers::Provider, reader::Located,
    validator::ValidatorConfig,
};
use highwater_core::consensus::ChainId;
use std::path::Path;

#[derive(Default)]
pub(super) struct Draft {
    /// Every id that a `[[chain]]` gives, even where the rest of the section has a mistake.
    pub(super) chain_ids: Vec<Located<ChainId>>,
    pub(super) chains: Vec<ChainConfig>,
    /// Some chain's id could not be read: that an id is unknown cannot be said.
    pub(super) chains_incomplete: bool,
    /// Every chain that a `[[validator]]` names.
    pub(super) served: Vec<Located<ChainId>>,
    pub(super) validators: Vec<ValidatorConfig>,
    pub(super) keys: KeyUses,
    pub(super) providers: Vec<Provider>,
    pub(super) highwater: HighwaterConfig,
}

impl Draft {
    /// What was read, as a configuration.
    pub(super) fn into_config(self, path: &Path) -> Config {
        let Self { chains, validators, providers, highwater, .. } = self;
        Config { path: path.into(), chains, validators, providers, highwater }
    }
}
