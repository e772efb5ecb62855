//! Any text is a configuration or a list of findings with lines.
#![no_main]

use highwater::config::{Config, ConfigError, KeyRole};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    match Config::parse(Path::new("tmkms.toml"), text) {
        Ok((config, _)) => {
            assert!(!config.validators.is_empty());
            for validator in &config.validators {
                assert!(config.chain(&validator.chain_id).is_some());
                let key = config.consensus_key(&validator.chain_id).unwrap();
                assert!(key.chain_ids().contains(&validator.chain_id));
                let of_chain = config.keys().filter(|key| key.chain_ids().contains(&validator.chain_id));
                let best = of_chain.filter(|key| key.role() == KeyRole::Consensus).count();
                assert_eq!(best, usize::from(key.role() == KeyRole::Consensus));
            }
        }
        Err(ConfigError::Invalid { findings, .. }) => assert!(!findings.is_empty()),
        Err(error) => panic!("{error}"),
    }
});
